"""``sweet init``: a source folder becomes a model folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sweet.cards import model_card
from sweet.errors import UserError
from sweet.files import TENSORS, sha256, write_folder
from sweet.initialise import METHODS
from sweet.models.config import ViTConfig
from sweet.models.store import FORMAT, load_source
from sweet.models.vit import build_vit
from sweet.version import VERSION


def initialise_to(
    source: str,
    out: Path,
    *,
    depth: int,
    heads: int,
    method: str = "sweet",
    order: str = "principal",
    layers: str = "even",
    img_size: int | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write a model folder of ``depth`` blocks and ``heads`` heads; returns what was made.

    Raises UserError for an impossible size, an unknown method or a folder that is not a source.
    """
    if method not in METHODS:
        raise UserError(f"--method {method}: unknown, expected one of {', '.join(METHODS)}")
    for option, value in (("--depth", depth), ("--heads", heads)):
        if value < 1:
            raise UserError(f"{option} {value}: must be at least 1")
    stored = load_source(Path(source))
    if order == "principal" and stored.source.order is None:
        raise UserError(f"--order principal: {source} has no principal order; use --order prefix")
    size, patch = img_size or stored.config.img_size, patch_size or stored.config.patch_size
    if size % patch:
        raise UserError(f"--img-size {size}: not a multiple of the patch size {patch}")
    began = time.perf_counter()
    config = stored.config.resized(depth, heads)
    weights = METHODS[method](stored, config, order=order, layers=layers, seed=seed)
    try:
        vit = build_vit(config, weights, img_size=img_size, patch_size=patch_size, in_chans=in_chans)
    except (ValueError, AssertionError) as problem:
        raise UserError(f"--img-size/--patch-size/--in-chans: {problem}") from None
    seconds = time.perf_counter() - began
    made = ViTConfig.from_dict(
        config.to_dict()
        | {
            "img_size": size,
            "patch_size": patch,
            "in_chans": in_chans or config.in_chans,
        }
    )
    parent = Path(source) / TENSORS[stored.info["kind"]]
    data = dict(stored.info["data"], img_size=made.img_size)
    if made.in_chans != config.in_chans:
        mean, std = sum(data["mean"]) / len(data["mean"]), sum(data["std"]) / len(data["std"])
        data |= {"mean": [mean] * made.in_chans, "std": [std] * made.in_chans}
    info: dict[str, Any] = {
        "format": FORMAT,
        "sweet": VERSION,
        "kind": "model",
        "vit": made.to_dict(),
        "data": data | {"classes": None},
        "made": {
            "method": method,
            "order": order,
            "layers": layers,
            "seed": seed,
            "source_kind": stored.info["kind"],
            "source_size": str(stored.config.size),
            "source_sha256": sha256(parent),
            "parameters": sum(p.numel() for p in vit.parameters()),
        },
    }
    state = {name: value for name, value in vit.state_dict().items()}
    recipe = "".join(f"{key}: {value}\n" for key, value in info["made"].items())
    write_folder(out, (TENSORS["model"], state), info, recipe, model_card(info))
    return {"size": str(made.size), "seconds": round(seconds, 3), "out": str(out), **info["made"]}
