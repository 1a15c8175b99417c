"""What a folder holds: size, ranks, spectra, order, provenance, checksums. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet.costs.table import example_sizes, size_table
from sweet.errors import UserError
from sweet.files import SUMS, check_sums, read_tensors
from sweet.storage.header import HALVES, ORDER, Header, check_header, read_header
from sweet.storage.layout import TENSORS
from sweet.storage.ownership import FAMILY, STARTS
from sweet.storage.records import FolderRecord, read_record
from sweet.template.sizes import MATRICES, PROJ

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def inspect(path: Path, *, verify: bool = False) -> Mapping[str, object]:
    """What a template, a dense source, a model or a family holds. Sums are checked with ``verify`` only.

    Raises UserError for anything else, and naming the file whose sum is wrong.
    """
    if (path / FAMILY).is_file():
        from sweet.results.family import read_family

        known = read_family(path)
        about = known.model_dump(mode="json", include={"source", "task", "data", "method", "img_size", "metric"})
        if (path / STARTS).is_dir():
            about["unfinished"] = "models are missing; the command of before with --resume makes them"
        about["checksums"] = ", ".join(sorted({_checksums(path / name, verify) for name in known.folders}))
        return {"kind": "family", **about, "conclusion": " ".join(known.sentences()) or None, "members": known.rows()}
    record = read_record(path, tuple(TENSORS))
    file = path / TENSORS[record.kind]
    header = read_header(file)
    check_header(file, header, record)
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
    return result | _source_rows(file, header, record)


def _source_rows(file: Path, header: Header, record: FolderRecord) -> dict[str, object]:
    """Numbers of the core, and what its principal order keeps at each width."""
    import numpy as np

    config, tensors = record.vit, _arrays(file, header)
    result: dict[str, object] = {}
    if record.constraint != "none":
        parameters = sum(prod(shape) for name, (_, shape) in header.items() if name.startswith("core."))
        result["constraint"] = record.constraint
        result["parameters_m"] = round(parameters / 1e6, 3)
        result["share_of_slices"] = round(parameters / (config.slices * config.depth * config.width**2), 3)
    if record.constraint == "kronecker":
        counts = {name: len(tensors[f"core.templates.{name}"]) for name in MATRICES}
        result |= {"tile": tensors[f"core.templates.{PROJ}"].shape[1], "templates": counts}
    if record.constraint == "tucker":
        core = tensors["core.core"]
        result["ranks"] = list(core.shape)
        # directions needed for 90 % of the core's energy, per mode, and how far each factor is from orthonormal
        result["core_rank_90"] = [_rank(core, mode) for mode in range(3)]
        factors = [tensors[name] for name in ("core.x", "core.u", "core.v") if name in tensors]
        result["condition"] = [round(float(np.linalg.cond(factor)), 2) for factor in factors]
    if {f"order.{name}" for name in ORDER} <= tensors.keys():
        energy = tensors["order.energy"].sum(0, dtype=np.float64)
        result["kept_energy"] = [
            {"channels": n, "share": round(float(energy[:n].sum() / energy.sum()), 4)}
            for n in sorted({max(1, config.width * eighth // 8) for eighth in range(1, 9)})
        ]
    return result | {"sizes": size_table(config, example_sizes(config), 1000)}


def _arrays(file: Path, header: Header) -> dict[str, Array]:
    """The tensors of a source. Raises UserError naming the first in which a number is not finite."""
    import numpy as np
    from safetensors import safe_open

    if any(dtype in HALVES.values() for dtype, _ in header.values()):  # numpy computes in neither of these types
        from sweet.storage.folders import in_float32

        arrays = {name: value.numpy() for name, value in in_float32(read_tensors(file)).items()}
    else:
        with safe_open(file, "np") as opened:
            arrays = {name: opened.get_tensor(name) for name in header}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{file}: tensor {name} holds numbers that are not finite")
    return arrays


def _rank(core: Array, mode: int, share: float = 0.9) -> int:
    """Singular values of an unfolding of the core that hold a share of its energy."""
    import numpy as np

    matrix = np.moveaxis(core, mode, 0).reshape(core.shape[mode], -1)
    values = np.linalg.eigvalsh(matrix @ matrix.T)[::-1]
    return int((values.cumsum() < share * values.sum()).sum()) + 1


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
