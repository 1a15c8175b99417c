"""Which of timm's pre-trained plain ViTs can be converted: each architecture at a reduced size, no weight neutral.

    python scripts/census.py --out results/convert/census.json [--only NAME ...]

Each is made with two blocks and two heads of its own width, its weights are drawn at random, and it is converted. Then
the full size in prefix order must give timm's features, at its image size and at twice that; three smaller targets and
a larger one must run, and come back from their export for timm as the same function. Downloads nothing. Some minutes.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import _registry as registry
from torch import Tensor, nn

from sweet.convert.checkpoints import Checkpoint
from sweet.convert.convert import ConvertOptions, convert_checkpoint
from sweet.convert.from_timm import from_model, refusals
from sweet.errors import UserError
from sweet.export.timm_folder import timm_folder
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, patchify
from sweet.models.vit import build_vit
from sweet.storage.folders import load_source
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import FolderRecord
from sweet.template.image_size import ImageSize, joined, sides
from sweet.template.source import Source
from sweet.template.target import target_weights

MODULES = (
    "vision_transformer", "deit", "eva", "beit", "naflexvit", "vision_transformer_relpos", "vision_transformer_sam"
)  # fmt: skip
TARGETS = {"smaller": ((1, 1), (1, 2), (2, 1)), "larger": ((3, 3),)}
TOLERANCE = 1e-4
REDUCTIONS = (
    ("depth", "img_size", "embed_dim", "num_heads"),
    ("depth", "embed_dim", "num_heads"),
    ("depth", "img_size"),
    ("depth",),
)


@dataclass
class Row:
    """What became of one architecture: ``error`` and ``error_2x`` are relative differences of the features from timm's,
    at full size; ``principal`` is that of the streams in principal order, which is exact where the embedding passes no
    norm; ``targets`` are the sizes that were made, exported and loaded."""

    architecture: str
    module: str
    timm_class: str
    tags: list[str]
    converts: bool = False
    reasons: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    error: float | None = None
    error_2x: float | None = None
    principal: float | None = None
    targets: list[str] = field(default_factory=list)


def tags_by_architecture() -> dict[str, list[str]]:
    """Pre-trained tags of timm's plain ViTs."""
    found = collections.defaultdict(list)
    for name in timm.list_models(pretrained=True):
        architecture = name.partition(".")[0]
        if registry._model_to_module[architecture] in MODULES:
            found[architecture].append(name)
    return dict(found)


def on_meta(architecture: str) -> Any:
    """An architecture without numbers, with two blocks where it can have them."""
    with torch.device("meta"):
        try:
            return timm.create_model(architecture, pretrained=False, depth=2, num_classes=0)
        except (AssertionError, TypeError):
            return timm.create_model(architecture, pretrained=False, num_classes=0)


def reduced(architecture: str) -> Any:
    """An architecture with two blocks and two heads of its own width, on images of four by four patches, or by three
    where its own are not square."""
    whole = on_meta(architecture)
    patch = getattr(getattr(whole, "patch_embed", None), "patch_size", (16, 16))
    heads = getattr(getattr(whole.blocks[0], "attn", None), "num_heads", None) or 12
    rows, columns = getattr(getattr(whole, "patch_embed", None), "img_size", None) or (1, 1)
    size = joined(4 * patch[0], 4 * patch[0] if rows == columns else 3 * patch[0])
    options = {"depth": 2, "num_heads": 2, "embed_dim": 2 * (whole.embed_dim // heads), "img_size": size}
    shared = {}
    attn = getattr(whole.blocks[0], "attn", None)
    if hasattr(attn, "num_kv_heads") and attn.qkv is None:  # said for each block
        grouped = any(block.attn.num_kv_groups > 1 for block in whole.blocks)
        shared = {"num_kv_heads": (2, 1 if grouped else 2)}
    for names in REDUCTIONS:
        try:
            kept = {name: options[name] for name in names} | shared
            return timm.create_model(architecture, pretrained=False, num_classes=0, **kept)
        except (TypeError, AssertionError, RuntimeError, ValueError):
            continue
    return timm.create_model(architecture, pretrained=False, depth=2, num_classes=0)


@torch.no_grad()
def shaken(model: nn.Module) -> Any:
    """The model with no parameter at a neutral value."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if "gamma" in name:
            value.copy_(0.5 + 0.25 * noise)
        elif "freqs" in name:
            value.mul_(1 + 0.1 * noise)
        elif value.ndim == 1:
            value.copy_(1 + 0.3 * noise if name.endswith("weight") else 0.2 * noise)
        elif any(word in name for word in ("pos_embed", "token", "rel_pos", "relative_position")):
            value.copy_(0.3 * noise)
        else:
            value.copy_(noise / value[0].numel() ** 0.5)
    return model.eval()


def converted(found: Checkpoint, folder: Path) -> Source:
    """The template that ``sweet convert`` writes, read from its folder."""
    convert_checkpoint(found, None, folder, ConvertOptions(images=8, device="cpu"))
    return load_source(folder).source


def images(config: ViTConfig, size: ImageSize, count: int = 2) -> Tensor:
    """Noise (count, C, height, width)."""
    return torch.randn(count, config.in_chans, *sides(size), generator=torch.Generator().manual_seed(count))


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Of the whole difference, two digits."""
    return float(f"{float((ours - theirs).norm() / theirs.norm()):.1e}")


@torch.no_grad()
def check(row: Row, model: Any, folder: Path) -> None:
    """Convert one model and fill its row. Raises UserError where it is refused."""
    found = from_model(model, row.architecture, "0")
    config, template = found.config, converted(found, folder / "template")
    row.features = features(config)
    whole = target_weights(template, config.depth, config.width, order="prefix")
    ours, size = build_vit(config, whole), config.img_size
    row.error = relative(ours.forward_features(images(config, size)), model.forward_features(images(config, size)))
    row.principal = principal_error(template, config)
    for depth, heads in (*TARGETS["smaller"], *TARGETS["larger"]):
        export_and_reload(template, found, depth, heads, folder / f"L{depth}H{heads}")
        row.targets.append(f"L{depth}H{heads}")
    doubled = joined(*(2 * side for side in sides(size)))
    model.set_input_size(doubled)
    ours = build_vit(config, whole, img_size=doubled)
    twice = images(config, doubled)
    row.error_2x = relative(ours.forward_features(twice), model.forward_features(twice))
    row.converts = row.error < TOLERANCE and row.error_2x < TOLERANCE
    if not row.converts:
        row.reasons = [f"features differ: {row.error:g}, at twice the size {row.error_2x:g}"]


def principal_error(template: Source, config: ViTConfig) -> float:
    """How far the final stream, normed, of the full size in principal order is from the source's, rotated alike."""
    assert template.order is not None
    streams = []
    for order in ("prefix", "principal"):
        weights = target_weights(template, config.depth, config.width, order=order)
        last: dict[int, Tensor] = {}
        encode(weights, patchify(images(config, config.img_size), config.patch_size), config, hook=last.__setitem__)
        x = last[2 * config.depth]
        x = x - x.mean(-1, keepdim=True) if template.norm == "layer" else x
        streams.append(x / x.norm(dim=-1, keepdim=True))
    theirs, ours = (x.flatten(0, 1) for x in streams)
    # the rotation between the two is known, but a basis of zero mean lies between: products of tokens tell as much
    return relative(ours @ ours.t(), theirs @ theirs.t())


def export_and_reload(template: Source, found: Checkpoint, depth: int, heads: int, folder: Path) -> None:
    """Make a target in principal order, export it for timm and load it there. Raises UserError where it differs."""
    config = found.config.resized(depth, heads)
    vit = build_vit(config, target_weights(template, depth, config.width))
    record = FolderRecord(kind="model", vit=config, data=found.data)
    made = timm_folder(vit, record, "other")
    write_folder(folder, (TENSORS["model"], made.tensors), made.config, "", "", made.texts)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    some = images(config, config.img_size)
    error = relative(loaded(some), vit(some))
    if not error < TOLERANCE:
        raise UserError(f"L{depth}H{heads} differs after its export: {error:g}")


def features(config: ViTConfig) -> list[str]:
    """What a config has that our own vit family has not, for people."""
    known = {
        "SwiGLU": config.mlp == "swiglu",
        "tanh GELU": config.activation == "gelu_tanh",
        "quick GELU": config.activation == "quick_gelu",
        "MLP ratio": bool(config.mlp_ratio),
        "RMSNorm": config.norm == "rms",
        "norm after pooling": config.final_norm == "pooled",
        "no final norm": config.final_norm == "none",
        "norm before the blocks": config.pre_norm,
        "norm of patches": config.patch_norm,
        "norm of queries and keys": config.qk_norm,
        "norm of attention": config.attn_norm,
        "norm of hidden units": config.mlp_norm,
        f"rotary positions ({config.rope})": config.rotary,
        "relative positions": config.family == "beit",
        "no class token": not config.class_token,
        "registers": config.registers > 0,
    }
    return [name for name, present in known.items() if present]


def row_of(architecture: str, tags: list[str], folder: Path) -> Row:
    """Everything about one architecture."""
    module = registry._model_to_module[architecture]
    row = Row(architecture, module, "", tags)
    try:
        model = on_meta(architecture)
        row.timm_class = type(model).__name__
        row.reasons = refusals(model)
        if not row.reasons:
            check(row, shaken(reduced(architecture)), folder / architecture)
    except UserError as problem:
        row.reasons = [str(problem).removeprefix(f"{architecture}: ")]
    return row


def main() -> None:
    """Write the census, one line of text for each architecture."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found: dict[str, dict[str, Any]] = {}
    if arguments.only and arguments.out and arguments.out.is_file():
        found = {row["architecture"]: row for row in json.loads(arguments.out.read_text())["rows"]}
    for architecture, tags in tags_by_architecture().items():
        if arguments.only and architecture not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as place:
            row = row_of(architecture, tags, Path(place))
        found[architecture] = asdict(row)
        good = f"ok {row.error:g} {row.error_2x:g} principal {row.principal:g}" if row.converts else ""
        print(f"{architecture}: {good or '; '.join(row.reasons)}", flush=True)
        if arguments.out:
            write(arguments.out, found)
    rows = found.values()
    good_tags, tags_in_all = (sum(len(row["tags"]) for row in group) for group in (filter(_converts, rows), rows))
    print(f"{good_tags} of {tags_in_all} tags, {sum(map(_converts, rows))} of {len(rows)} architectures")


def _converts(row: dict[str, Any]) -> bool:
    return bool(row["converts"])


def write(path: Path, found: dict[str, dict[str, Any]]) -> None:
    """All rows so far, by name."""
    rows = [found[name] for name in sorted(found)]
    counts = {name: sum(len(row["tags"]) for row in rows if row["converts"] or name == "of") for name in ("tags", "of")}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"timm": timm.__version__, **counts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
