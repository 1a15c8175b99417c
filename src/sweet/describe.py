"""What a folder holds: size, ranks, spectra, order, provenance, checksums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sweet.costs.plan import bench_sizes, size_table
from sweet.errors import UserError
from sweet.files import SUMS, check_sums, verifying
from sweet.results.family import is_family, read_family
from sweet.storage.folders import load_source
from sweet.storage.integrity import check_header, read_header
from sweet.storage.layout import TENSORS
from sweet.storage.records import FolderRecord, read_record
from sweet.template.constraints import Kronecker
from sweet.template.source import Source
from sweet.template.tucker import Tucker


def inspect(path: Path, *, verify: bool = False) -> Mapping[str, object]:
    """What a template, a dense source, a model or a family holds. Sums are checked with ``verify`` only.

    Raises UserError for anything else, and naming the file whose sum is wrong.
    """
    if is_family(path):
        known = read_family(path)
        about = known.model_dump(mode="json", include={"source", "task", "data", "method", "img_size", "metric"})
        return {"kind": "family", **about, "conclusion": " ".join(known.sentences()) or None, "members": known.rows()}
    record = read_record(path, tuple(TENSORS))
    file = path / TENSORS[record.kind]
    check_header(file, read_header(file), record)
    config, classes = record.vit, record.data.classes
    result: dict[str, object] = {
        "kind": record.kind,
        "size": str(config.size),
        "family": config.family,
        "width": config.width,
        "head_dim": config.head_dim,
        "img_size": config.img_size,
        "patch_size": config.patch_size,
        "classes": len(classes) if classes else None,
        "checksums": _checksums(path, verify),
    }
    for key in ("made", "training", "converted"):
        if (made_by := getattr(record, key)) is not None:
            result[key] = {name: value for name, value in made_by.to_dict().items() if name != "spectrum"}
    if record.kind == "model":
        metrics = {key: value for key, value in (record.metrics or {}).items() if not isinstance(value, dict)}
        return result | {"metrics": metrics, "cost": size_table(config, [config.size], len(classes or ()))}
    with verifying(False):  # that is what _checksums says
        source = load_source(path).source
    return result | _source_rows(source, record)


def _source_rows(source: Source, record: FolderRecord) -> dict[str, object]:
    """Numbers of the core, and what its principal order keeps at each width."""
    core, config = source.core, record.vit
    result: dict[str, object] = {}
    if core.constraint != "none":
        parameters = sum(tensor.numel() for tensor in core.tensors().values())
        result["constraint"] = core.constraint
        result["parameters_m"] = round(parameters / 1e6, 3)
        result["share_of_slices"] = round(parameters / (config.slices * config.depth * config.width**2), 3)
    if isinstance(core, Kronecker):
        result |= {"tile": core.tile, "templates": {name: len(t) for name, t in core.templates.items()}}
    if isinstance(core, Tucker):
        result["ranks"] = list(core.core.shape)
        # directions needed for 90 % of the core's energy, per mode, and how far each factor is from orthonormal
        result["core_rank_90"] = [_rank(core.core, mode) for mode in range(3)]
        factors = [f for f in (core.x, core.u, core.v) if f is not None]
        result["condition"] = [round(float(torch.linalg.cond(f)), 2) for f in factors]
    if source.order is not None:
        result["kept_energy"] = [
            {"channels": n, "share": round(float(source.order.spectrum[:n].sum()), 4)}
            for n in sorted({max(1, config.width * eighth // 8) for eighth in range(1, 9)})
        ]
    return result | {"sizes": size_table(config, bench_sizes(config.head_dim), 1000)}


def _rank(core: torch.Tensor, mode: int, share: float = 0.9) -> int:
    """Singular values of an unfolding of the core that hold a share of its energy."""
    matrix = core.movedim(mode, 0).flatten(1)
    values = torch.linalg.eigvalsh(matrix @ matrix.t()).flip(0)
    return int((values.cumsum(0) < share * values.sum()).sum()) + 1


def _checksums(path: Path, verify: bool) -> str:
    if not (path / SUMS).is_file():
        if verify:
            raise UserError(f"{path}: no {SUMS}")
        return "not recorded"
    if not verify:
        return "not checked (--verify checks them)"
    wrong = [name for name, good in check_sums(path).items() if not good]
    if wrong:
        raise UserError(f"{path}: the SHA256 of {', '.join(wrong)} is not the one in {SUMS}")
    return "ok"
