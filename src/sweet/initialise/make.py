"""``sweet init``: a source folder becomes a model folder, of a size that was told or of one that fits a budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweet import hub
from sweet.budget import Budget, choose
from sweet.cards import model_card, origin
from sweet.data import open_images
from sweet.errors import UserError
from sweet.files import TENSORS, sha256, write_folder
from sweet.initialise import NAMES, images_used, initialise, looks_at_images, switches
from sweet.models.store import FORMAT, load_source
from sweet.models.vit import build_vit
from sweet.template.sizes import Size
from sweet.version import VERSION


def initialise_to(
    source: str,
    out: Path,
    *,
    depth: int | None = None,
    heads: int | None = None,
    budget: Budget | None = None,
    method: str = "sweet",
    fit: str | None = None,
    fit_images: int | None = None,
    img_size: int | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a model folder and return what was made: ``depth`` blocks and ``heads`` heads, or a size within ``budget``.

    ``fit`` names images for methods that look at some, ``fit_images`` how many of them; ``given`` are switches of the
    method. One that trains does so on ``device`` and writes its loss curve to the folder ``run`` (metrics.jsonl).
    Raises UserError for an impossible size, a method that cannot make it or a folder that is not a source.
    """
    chosen_switches = switches(method, given)
    if fit is not None and not looks_at_images(method, chosen_switches):
        raise UserError(f"--fit {fit}: --method {method} looks at no images")
    folder = hub.local_folder(source)
    stored = load_source(folder)
    pixels, patch = img_size or stored.config.img_size, patch_size or stored.config.patch_size
    if pixels % patch:
        raise UserError(f"--img-size {pixels} is not a multiple of --patch-size {patch}")
    made = replace(stored.config, img_size=pixels, patch_size=patch, in_chans=in_chans or stored.config.in_chans)
    choice = None if budget is None else choose(made, budget)
    if choice is not None:
        size = choice.size
    elif depth is not None and heads is not None:
        size = Size(depth, heads, made.head_dim)
    else:
        raise UserError("--depth and --heads: give both, or one of --params, --flops and --latency")
    made = made.resized(size.depth, size.heads)
    images = None if fit is None else open_images(fit, "train")

    began = time.perf_counter()
    config = stored.config.resized(size.depth, size.heads)

    def built(method: str, **options: Any) -> Any:
        weights = initialise(method, stored, size, seed=seed, **options)
        try:
            return build_vit(config, weights, img_size=img_size, patch_size=patch_size, in_chans=in_chans)
        except (ValueError, AssertionError) as problem:
            raise UserError(f"--img-size/--patch-size/--in-chans: {problem}") from None

    if NAMES[method].trains:
        built("random")  # what cannot be built is refused before an hour of training
    vit = built(method, data=images, budget=fit_images, device=device, run=run, **chosen_switches)
    seconds = time.perf_counter() - began
    parent = folder / TENSORS[stored.info["kind"]]
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
            **chosen_switches,
            "images": images_used(method, fit_images, images, chosen_switches),
            "seed": seed,
            "source_kind": stored.info["kind"],
            "source_size": str(stored.config.size),
            "source_sha256": sha256(parent),
            "source_data": origin(stored.info),
            "parameters": sum(p.numel() for p in vit.parameters()),
        },
    }
    state = {name: value for name, value in vit.state_dict().items()}
    recipe = "".join(f"{key}: {value}\n" for key, value in info["made"].items())
    write_folder(out, (TENSORS["model"], state), info, recipe, model_card(info))
    told = {} if choice is None else {"budget": choice.told()}
    return {"size": str(size), "seconds": round(seconds, 3), "out": str(out), **info["made"], **told}
