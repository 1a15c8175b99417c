"""What a folder holds: size, ranks, spectra, order, provenance, checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sweet.files import TENSORS, check_sums
from sweet.models.config import ViTConfig
from sweet.models.store import load_source, read_config
from sweet.plan import bench_sizes, size_table
from sweet.template.constraints import Kronecker
from sweet.template.sizes import Size
from sweet.template.tucker import Tucker


def inspect(path: Path) -> dict[str, Any]:
    """Facts of a template, dense source or model folder. Raises UserError for anything else."""
    info = read_config(path, tuple(TENSORS))
    config = ViTConfig.from_dict(info["vit"])
    sums = check_sums(path)
    classes = info["data"].get("classes")
    facts: dict[str, Any] = {
        "kind": info["kind"],
        "size": str(config.size),
        "family": config.family,
        "width": config.width,
        "head_dim": config.head_dim,
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "classes": len(classes) if classes else None,
        "checksums": "not recorded" if not sums else "ok" if all(sums.values()) else "WRONG: " + _wrong(sums),
        **{key: info[key] for key in ("made", "training") if key in info},
    }
    if "converted" in info:
        facts["converted"] = {key: value for key, value in info["converted"].items() if key != "spectrum"}
    if info["kind"] == "model":
        size = Size(config.depth, config.heads, config.head_dim)
        metrics = {key: value for key, value in info.get("metrics", {}).items() if not isinstance(value, dict)}
        return facts | {"metrics": metrics, "cost": size_table(config, [size], len(classes or ()))}
    source = load_source(path).source
    core = source.core
    if core.constraint != "none":
        parameters = sum(tensor.numel() for tensor in core.tensors().values())
        facts["constraint"] = core.constraint
        facts["parameters_m"] = round(parameters / 1e6, 3)
        facts["share_of_slices"] = round(parameters / (12 * config.depth * config.width**2), 3)
    if isinstance(core, Kronecker):
        facts |= {"tile": core.tile, "templates": {name: len(t) for name, t in core.templates.items()}}
    if isinstance(core, Tucker):
        facts["ranks"] = list(core.core.shape)
        # directions needed for 90 % of the core's energy, per mode, and how far each factor is from orthonormal
        facts["core_rank_90"] = [_rank(core.core, mode) for mode in range(3)]
        facts["condition"] = [round(float(torch.linalg.cond(f)), 2) for f in (core.x, core.u, core.v) if f is not None]
    if source.order is not None:
        facts["kept_energy"] = [
            {"channels": n, "share": round(float(source.order.spectrum[:n].sum()), 4)}
            for n in sorted({max(1, config.width * part // 8) for part in range(1, 9)})
        ]
    return facts | {"sizes": size_table(config, bench_sizes(config.head_dim), 1000)}


def _rank(core: torch.Tensor, mode: int, share: float = 0.9) -> int:
    matrix = core.movedim(mode, 0).flatten(1)
    values = torch.linalg.eigvalsh(matrix @ matrix.t()).flip(0)
    return int((values.cumsum(0) < share * values.sum()).sum()) + 1


def _wrong(sums: dict[str, bool]) -> str:
    return ", ".join(name for name, good in sums.items() if not good)
