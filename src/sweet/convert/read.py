"""What the SOURCE of ``sweet convert`` names: a model of timm, a file, a folder of timm or of sweet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sweet.errors import UserError
from sweet.files import read_json, sha256
from sweet.storage.folders import load_source, source_tensors
from sweet.storage.integrity import checked_tensors
from sweet.storage.layout import TENSORS
from sweet.storage.records import read_record
from sweet.template.order import Order
from sweet.template.source import untiled

from .checkpoints import Checkpoint, canonical, check_shapes, data_config, read_file


def read(source: str, *, heads: int | None = None) -> tuple[Checkpoint, Order | None]:
    """What SOURCE names, and its principal order where a dense source brings one.

    ``heads`` is for bare files. Raises UserError naming the source.
    """
    from .from_timm import from_folder, from_name

    if source.startswith("timm:"):
        return from_name(source.removeprefix("timm:")), None
    path = Path(source).expanduser()
    if path.is_file():
        return read_file(path, heads=heads), None
    if not path.is_dir():
        raise UserError(f"SOURCE {source}: no such file or folder, nor timm:NAME")
    if (path / "config.json").is_file():
        config = read_json(path / "config.json")
        if isinstance(config, dict) and "architecture" in config:
            return from_folder(path), None
    return _sweet_folder(path)


def _sweet_folder(path: Path) -> tuple[Checkpoint, Order | None]:
    record = read_record(path, ("dense", "model", "template"))
    if record.kind == "template" and record.constraint != "kronecker":
        raise UserError(f"{path}: is a template, expected a dense or a model, or one of template.constraint=kronecker")
    file, known = path / TENSORS[record.kind], record.data
    data = data_config(record.vit, known.mean, known.std, known.interpolation)
    checkpoint = Checkpoint(path.name, sha256(file), record.vit, {}, data)
    if record.kind == "model":
        state = canonical(checked_tensors(path, record), str(file))
        check_shapes(state, record.vit, str(file))
        return replace(checkpoint, state=state), None
    stored = load_source(path)
    state = source_tensors(replace(untiled(stored.source), order=None))
    mae = stored.mae if "pred.weight" in stored.source.decoder else None
    return replace(checkpoint, state=state, mae=mae), stored.source.order
