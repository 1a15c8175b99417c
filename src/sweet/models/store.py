"""Sources and models as folders: which tensors lie where, and how they come back (design section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sweet.errors import UserError
from sweet.files import TENSORS, read_json, read_tensors
from sweet.template.constraints import core_of
from sweet.template.order import Order
from sweet.template.slices import unstack_blocks
from sweet.template.target import Source
from sweet.template.tucker import Full

from .config import MaeConfig, ViTConfig
from .mae import source_from_state
from .vit import build_vit

FORMAT = 1
ORDER = ("rotation", "energy", "heads", "units")


@dataclass
class StoredSource:
    """A source with everything that its ``config.json`` says."""

    source: Source
    config: ViTConfig
    mae: MaeConfig
    info: dict[str, Any] = field(default_factory=dict)


def source_tensors(source: Source) -> dict[str, Tensor]:
    """Flat dict of a source's file: ``core.*``, ``blocks.*``, ``stem.*`` or, dense, an encoder under timm's names."""
    if isinstance(source.core, Full):
        tensors = unstack_blocks(source.core.weights | source.blocks) | source.stem
    else:
        tensors = {f"core.{name}": value for name, value in source.core.tensors().items()}
        tensors |= {f"blocks.{name}": value for name, value in source.blocks.items()}
        tensors |= {f"stem.{name}": value for name, value in source.stem.items()}
    tensors |= {f"decoder.{name}": value for name, value in source.decoder.items()}
    if source.order is not None:
        tensors |= {f"order.{name}": getattr(source.order, name) for name in ORDER}
    return tensors


def source_from_tensors(
    tensors: dict[str, Tensor], config: ViTConfig, *, constraint: str, absorbed: bool = False
) -> Source:
    """Inverse of :func:`source_tensors`; ``absorbed`` as in :class:`sweet.template.order.Order`."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    known = under("order.")  # of a version that did not order heads and units it counts as none
    order = Order(**known, absorbed=absorbed) if known.keys() == set(ORDER) else None
    if constraint == "none":
        source = source_from_state({k: v for k, v in tensors.items() if not k.startswith("order.")}, config)
        source.order = order
        return source
    return Source(
        core=core_of(constraint, under("core."), config.depth),
        blocks=under("blocks."),
        stem=under("stem."),
        decoder=under("decoder."),
        mlp=config.mlp,
        norm=config.norm,
        order=order,
    )


def read_config(folder: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """``config.json`` of a sweet folder of one of ``kinds``. Raises UserError naming the folder and what is wrong."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    path = folder / "config.json"
    if not path.is_file():
        unfinished = (folder / "checkpoints").is_dir()
        why = "an unfinished run (finish it with --resume)" if unfinished else "not a sweet folder (no config.json)"
        raise UserError(f"{folder}: {why}")
    info = read_json(path)
    if isinstance(info, dict) and "architecture" in info and isinstance(info.get("sweet"), dict):
        info = info["sweet"]  # exported for timm
    if not isinstance(info, dict) or info.get("kind") not in TENSORS or "vit" not in info:
        raise UserError(f"{path}: not written by sweet")
    if info.get("format") != FORMAT:
        raise UserError(f"{path}: format {info.get('format')!r}, this version reads {FORMAT}")
    if info["kind"] not in kinds:
        hint = "; sweet init makes one of it" if kinds == ("model",) else ""
        raise UserError(f"{folder}: is a {info['kind']}, expected a {' or a '.join(kinds)}{hint}")
    return info


def load_source(folder: Path) -> StoredSource:
    """A template or dense source. Raises UserError naming the folder for anything else."""
    info = read_config(folder, ("template", "dense"))
    config = ViTConfig.from_dict(info["vit"])
    tensors = read_tensors(folder / TENSORS[info["kind"]])
    try:
        source = source_from_tensors(
            tensors, config, constraint=info["constraint"], absorbed=info.get("absorbed", False)
        )
    except (KeyError, TypeError) as problem:
        raise UserError(f"{folder / TENSORS[info['kind']]}: tensor {problem} is missing") from None
    return StoredSource(source, config, MaeConfig(**(info["mae"] or {})), info)


def backbone_tensors(folder: Path) -> dict[str, Tensor]:
    """Tensors of a model folder under timm's names; what a task put around the ViT is left out."""
    tensors = read_tensors(folder / TENSORS["model"])
    inside = {name[4:]: value for name, value in tensors.items() if name.startswith("vit.")}
    return inside or tensors


def load_model(folder: Path, num_classes: int | None = None, **timm_options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The timm model of a model folder, or of its export for timm, and its ``config.json``.

    What a task put around it is left out. ``num_classes`` other than the stored head's gives a new head. Raises
    UserError naming folder and parameter.
    """
    info = read_config(folder, ("model",))
    tensors = without_layer_scale(backbone_tensors(folder))
    stored = tensors["head.weight"].shape[0] if "head.weight" in tensors else 0
    wanted = stored if num_classes is None else num_classes
    if wanted != stored:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    try:
        config = ViTConfig.from_dict(info["vit"])
        return build_vit(config, tensors, num_classes=wanted, **timm_options), info
    except ValueError as problem:
        raise UserError(f"{folder / TENSORS['model']}: {problem}") from None


def without_layer_scale(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same function without the layer scales of an export: folded into what writes to the residual stream."""
    kept = dict(tensors)
    for name, gamma in tensors.items():
        if name.endswith(".gamma_1"):
            writer = name.replace("gamma_1", "attn.proj")
            kept[f"{writer}.weight"] = kept[f"{writer}.weight"] * gamma[:, None]
            kept[f"{writer}.bias"] = kept[f"{writer}.bias"] * gamma
            del kept[name]
    return kept
