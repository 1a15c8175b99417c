"""``sweet convert``: a Vision Transformer that somebody trained becomes a template (methods 12.5, 16)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweet.cards import converted_card
from sweet.data import eval_batches, open_images, shuffled, without_path
from sweet.data.batches import IMAGENET_MEAN, IMAGENET_STD
from sweet.errors import UserError
from sweet.files import TENSORS, read_json, read_tensors, sha256, write_folder
from sweet.heal import heal, healing_cost, own_decoder
from sweet.models.checkpoints import Checkpoint, canonical, check_shapes, read_file
from sweet.models.config import ViTConfig
from sweet.models.device import resolve_device
from sweet.models.forward import encode, patchify
from sweet.models.mae import source_from_state
from sweet.models.moments import compute_order
from sweet.models.store import FORMAT, StoredSource, load_source, read_config, source_tensors
from sweet.template.fold import folded
from sweet.template.hosvd import Hosvd, hosvd_of
from sweet.template.order import Order
from sweet.template.slices import FC1, FC2, PROJ, QKV, stack_blocks
from sweet.template.target import Source, absorb, target_weights, untiled
from sweet.version import VERSION

METRICS = ("activations", "weights")
SHAPES = "shapes:"
COMPARED = 64  # images on which the features of source and template are compared
BATCH = 16


def convert(
    source: str,
    out: Path,
    *,
    ranks: Sequence[int] | None = None,
    energy: float | None = None,
    metric: str = "activations",
    data: str | None = None,
    images: int = 512,
    heads: int | None = None,
    heal_steps: int = 0,
    heal_lr: float = 1e-3,
    device: str = "auto",
    run: Path | None = None,
) -> dict[str, Any]:
    """Write a template folder made from ``timm:NAME``, a checkpoint file, a timm folder or a sweet folder.

    ``ranks``, or the ranks that keep a share of ``energy``, or all: then nothing is lost. ``data`` are images for the
    principal order and for the metric ``activations``; without them synthetic scenes serve. ``heads`` is for files,
    which do not tell. ``heal_steps`` of masked autoencoding on ``data`` mend what low ranks have lost, their loss curve
    goes to the folder ``run``. Returns a summary. Raises UserError for what cannot be read or expressed.
    """
    if ranks is not None and energy is not None:
        raise UserError("--ranks and --energy exclude each other")
    if energy is not None and not 0 < energy <= 1:
        raise UserError(f"--energy {energy}: expected a share above 0, at most 1")
    if metric not in METRICS:
        raise UserError(f"--metric {metric}: expected one of {', '.join(METRICS)}")
    if heal_steps and data is None:
        raise UserError(f"--heal {heal_steps}: learns from images; name some with --data")
    if not 0 < heal_lr < math.inf:
        raise UserError(f"--heal-lr {heal_lr:g}: should be above 0")
    began, place = time.perf_counter(), resolve_device(device)
    checkpoint, order = read(source, heads=heads)
    config = checkpoint.config
    if ranks is not None:
        _check_ranks(ranks, config)
    facts = data_facts(checkpoint)
    batches, images_from = _images(data, images, config, facts, place, needed=order is None)
    dense = folded(source_from_state(checkpoint.state, config))
    if batches:
        order = compute_order(dense, config, batches, device=place)
    elif order is not None:
        images_from = "the source's own"

    full = (12 * config.depth, config.width, config.width)
    lossless = energy is None and (ranks is None or tuple(ranks) == full)
    weighted = metric == "activations" and order is not None and not lossless
    parts = hosvd_of(dense, metric=second_moment(order) if order and weighted else None)
    chosen = _choose(parts, ranks, energy)
    template = replace(dense, core=parts.tucker(chosen))
    errors = slice_errors(dense, template)
    features = feature_error(dense, template, config, batches, place) if batches else None
    template, mae, healing = replace(template, order=order), checkpoint.mae, None
    if heal_steps and data is not None:
        mae = mae or own_decoder(config.width)
        stored, all_of = StoredSource(template, config, mae, {"data": facts}), open_images(data, "train")
        healing_began = time.perf_counter()
        template = heal(stored, all_of, steps=heal_steps, lr=heal_lr, device=device, run=run)
        seconds = time.perf_counter() - healing_began
        template.order = compute_order(template, config, batches, device=place)
        healing = healing_cost(config, mae, chosen, heal_steps) | {
            "seconds": round(seconds, 1),
            "data": without_path(data),
            "feature_error": feature_error(dense, template, config, batches, place),
        }
    template = absorb(template)

    converted = {
        "source": checkpoint.name,
        "source_sha256": checkpoint.sha256,
        "metric": "activations" if weighted else "weights",
        "order_images": images_from,
        "seconds": round(time.perf_counter() - began, 1),
        "error": errors,
        "feature_error": features,
        "healing": healing,
        "spectrum": {
            mode: [float(f"{v:.3e}") for v in s.tolist()] for mode, s in zip("xuv", parts.spectra, strict=True)
        },
    }
    info = {
        "format": FORMAT,
        "sweet": VERSION,
        "kind": "template",
        "vit": config.to_dict(),
        "mae": asdict(mae) if mae else None,
        "constraint": "tucker",
        "ranks": list(chosen),
        "absorbed": template.order is not None and template.order.absorbed,
        "data": facts,
        "converted": converted,
    }
    asked = {"convert": checkpoint.name, "ranks": list(chosen), "energy": energy, "metric": converted["metric"]}
    asked |= {"data": without_path(data) if data else None, "images": images, "heal": heal_steps, "heal_lr": heal_lr}
    recipe = "".join(f"{key}: {'null' if value is None else value}\n" for key, value in asked.items())
    write_folder(out, (TENSORS["template"], source_tensors(template)), info, recipe, converted_card(info))
    return {
        "size": str(config.size),
        "ranks": list(chosen),
        "error": errors["overall"],
        "error_of": errors["components"],
        "feature_error": features,
        **({} if healing is None else {"healed_feature_error": healing["feature_error"]}),
        "order_images": images_from or "none: prefix order only",
        "seconds": converted["seconds"],
        "out": str(out),
    }


def read(source: str, *, heads: int | None = None) -> tuple[Checkpoint, Order | None]:
    """What SOURCE names, and its principal order where a dense source brings one. Raises UserError naming it."""
    from sweet.models.from_timm import from_folder, from_name

    if source.startswith("timm:"):
        return from_name(source.removeprefix("timm:")), None
    path = Path(source).expanduser()
    if path.is_file():
        return read_file(path, heads=heads), None
    if not path.is_dir():
        raise UserError(f"SOURCE {source}: no such file or folder, nor timm:NAME")
    if (path / "config.json").is_file():
        info = read_json(path / "config.json")
        if isinstance(info, dict) and "architecture" in info:
            return from_folder(path), None
    info = read_config(path, ("dense", "model", "template"))
    if info["kind"] == "template" and info["constraint"] != "kronecker":
        raise UserError(f"{path}: is a template, expected a dense or a model, or one of template.constraint=kronecker")
    file, config = path / TENSORS[info["kind"]], ViTConfig.from_dict(info["vit"])
    about = {"name": path.name, "sha256": sha256(file), "config": config, "data": info["data"]}
    if info["kind"] == "model":
        state = canonical(read_tensors(file), str(file))
        check_shapes(state, config, str(file))
        return Checkpoint(state=state, **about), None
    stored = load_source(path)
    state = source_tensors(replace(untiled(stored.source), order=None))
    return Checkpoint(
        state=state, mae=stored.mae if "pred.weight" in stored.source.decoder else None, **about
    ), stored.source.order


def data_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What travels with every model so that it can be used on images."""
    config, known = checkpoint.config, checkpoint.data
    rgb = config.in_chans == 3
    return {
        "img_size": config.img_size,
        "mean": list(known.get("mean") or (IMAGENET_MEAN if rgb else [0.5] * config.in_chans)),
        "std": list(known.get("std") or (IMAGENET_STD if rgb else [0.5] * config.in_chans)),
        "interpolation": "bilinear" if known.get("interpolation") == "bilinear" else "bicubic",
        "crop": "short side resized, centre cropped",
        "classes": None,
    }


def second_moment(order: Order) -> Tensor:
    """E[u u^T] (D, D) over all norm inputs: the order's rotation is made of its eigenvectors."""
    return (order.rotation * order.energy.mean(0)) @ order.rotation.t()


def slice_errors(dense: Source, template: Source) -> dict[str, Any]:
    """Relative Frobenius error of the block matrices: overall, of each component, of each layer."""
    rebuilt = stack_blocks(_full_size(template), dense.depth)
    difference, norms = {}, {}
    for name, value in _components(dense.core.weights, dense.mlp).items():  # type: ignore[union-attr]
        norms[name] = value.square().sum((1, 2))
        difference[name] = (_components(rebuilt, dense.mlp)[name] - value).square().sum((1, 2))
    lost, all_of = torch.stack([*difference.values()]), torch.stack([*norms.values()])

    def share(part: Tensor, whole: Tensor) -> float:
        return float(f"{(part.sum() / whole.sum().clamp_min(1e-30)).sqrt().item():.4g}")

    return {
        "overall": share(lost, all_of),
        "components": {name: share(difference[name], norms[name]) for name in norms},
        "layers": [share(lost[:, i], all_of[:, i]) for i in range(dense.depth)],
    }


@torch.no_grad()
def feature_error(
    dense: Source, template: Source, config: ViTConfig, batches: Sequence[Tensor], device: torch.device
) -> float:
    """Relative error of the final features on the first images, all tokens."""
    ours, theirs = ({k: v.to(device) for k, v in _full_size(s).items()} for s in (template, dense))
    lost, whole = 0.0, 0.0
    for images in batches[: -(-COMPARED // BATCH)]:
        patches = patchify(images, config.patch_size)
        wanted = encode(theirs, patches, config)
        lost += float((encode(ours, patches, config) - wanted).square().sum())
        whole += float(wanted.square().sum())
    return float(f"{(lost / whole) ** 0.5:.4g}")


def _full_size(source: Source) -> dict[str, Tensor]:
    return target_weights(replace(source, order=None), source.depth, source.width, order="prefix", layers="first")


def _components(weights: dict[str, Tensor], mlp: str) -> dict[str, Tensor]:
    parts = dict(zip("qkv", weights[QKV].chunk(3, 1), strict=True)) | {"o": weights[PROJ]}
    if mlp == "swiglu":
        gate, up = weights[FC1].chunk(2, 1)
        return parts | {"gate": gate, "up": up, "down": weights[FC2]}
    return parts | {"fc1": weights[FC1], "fc2": weights[FC2]}


def _choose(parts: Hosvd, ranks: Sequence[int] | None, energy: float | None) -> tuple[int, int, int]:
    if ranks is not None:
        r1, r2, r3 = ranks
        return r1, r2, r3
    if energy is not None:
        return parts.ranks(energy)
    r1, r2, r3 = parts.slices.shape
    return r1, r2, r3


def _check_ranks(ranks: Sequence[int], config: ViTConfig) -> None:
    if len(ranks) != 3:
        raise UserError(f"--ranks {','.join(map(str, ranks))}: expected three, r1,r2,r3")
    sizes = (12 * config.depth, config.width, config.width)
    for name, rank, size in zip(("r1", "r2", "r3"), ranks, sizes, strict=True):
        if not 1 <= rank <= size:
            raise UserError(f"--ranks {','.join(map(str, ranks))}: {name} = {rank} is not in 1..{size}")


def _images(
    data: str | None, count: int, config: ViTConfig, facts: dict[str, Any], device: torch.device, *, needed: bool
) -> tuple[list[Tensor], str | None]:
    """Normalised batches of the asked images, or of synthetic scenes where the order is ``needed`` and none are given.

    Scenes are no bad substitute: see decision "Convert" in docs/decisions.md.
    """
    if data is None and (not needed or config.in_chans != 3):
        return [], None
    spec = data or f"{SHAPES}n={count},size={config.img_size}"
    found = open_images(spec, "train", val_share=0.0)
    found = found.select(shuffled(len(found), 0)[:count])
    batches = eval_batches(
        found, batch_size=BATCH, img_size=config.img_size, mean=facts["mean"], std=facts["std"], device=device
    )
    told = f"of {without_path(spec)}" if data else "synthetic scenes; --data gives a better order"
    return [images for images, _ in batches], f"{len(found)} {told}"
