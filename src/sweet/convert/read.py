"""What the SOURCE of ``sweet convert`` names: a model of timm or of the hub, a file, a folder of timm, transformers or
sweet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweet.errors import UserError
from sweet.files import sha256
from sweet.models.vit import encoder_shapes, mismatch
from sweet.storage import hub
from sweet.storage.folders import backbone_tensors, load_source, source_tensors
from sweet.storage.layout import TENSORS
from sweet.storage.records import CENTRE_CROP, OriginRecord, read_record
from sweet.template.order import Order
from sweet.template.source import untiled

from . import bare_file, from_transformers, timm_source
from .canonical import encoder_state
from .checkpoints import Checkpoint
from .snapshot import config_of
from .weights_file import FILES, dtype_of


@dataclass(frozen=True)
class Hints:
    """What the user says of a source that does not say it.

    ``heads`` and ``like``, a model of timm, are for bare files; ``weights`` names a set where a file holds several.
    ``mean`` and ``std``, one number for each channel, win over what the source says.
    """

    heads: int | None = None
    like: str | None = None
    weights: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def read(source: str, hints: Hints | None = None) -> tuple[Checkpoint, Order | None]:
    """What SOURCE names, and its principal order where a dense source brings one.

    Raises UserError naming the source, or the option that does not go with it.
    """
    hints = hints or Hints()
    checkpoint, order = _read(source, hints)
    checkpoint = _with_statistics(checkpoint, hints)
    if beyond := [value for value in (*checkpoint.data.mean, *checkpoint.data.std) if not 0 <= value <= 1]:
        raise UserError(f"{source}: its mean and std hold {beyond[0]:g}, expected 0 to 1; --mean and --std say them")
    return checkpoint, order


def _read(source: str, hints: Hints) -> tuple[Checkpoint, Order | None]:
    if source.startswith("timm:"):
        _refuse(hints, source, "heads", "like", "weights")
        return timm_source.from_name(source.removeprefix("timm:")), None
    if hub.is_hub_name(source):
        path = repository(source)
        found, order = _read(str(path), hints)
        origin = found.origin or OriginRecord(name=source)
        return replace(found, name=source, origin=origin.model_copy(update={"name": source})), order
    path = Path(source).expanduser()
    if path.is_file():
        return bare_file.read_file(path, heads=hints.heads, like_name=hints.like, part=hints.weights), None
    if not path.is_dir():
        raise UserError(f"SOURCE {source}: no such file or folder, nor timm:NAME or hub:USER/NAME")
    _refuse(hints, source, "heads", "like")
    config = config_of(path)
    if "architecture" in config:
        return timm_source.from_folder(path, part=hints.weights), None
    if "model_type" in config:
        return from_transformers.from_folder(path, part=hints.weights), None
    _refuse(hints, source, "weights")
    return _sweet_folder(path)


def repository(name: str) -> Path:
    """The snapshot of a repository of the hub, whose weights are downloaded only if they can be converted.

    Raises UserError naming it.
    """
    plain = hub.PREFIX + name.removeprefix(hub.PREFIX)
    folder = hub.local_folder(plain, only=("config.json", "README.md"))
    config = config_of(folder)
    if "architecture" in config:
        args = config.get("model_args")
        timm_source.check_architecture(str(config["architecture"]), args if isinstance(args, dict) else {}, name)
    elif "model_type" in config:
        from_transformers.check_folder(folder, name)
    elif "kind" not in config and not isinstance(config.get("sweet"), dict):
        raise UserError(f"{name}: its config.json is neither of sweet, timm nor transformers")
    found = hub.local_folder(plain)
    if not any(found.glob("*.safetensors")):
        hub.local_folder(plain, only=FILES)
    return found


def _refuse(hints: Hints, source: str, *names: str) -> None:
    for name in names:
        if (value := getattr(hints, name)) is not None:
            raise UserError(f"--{name} {value}: is for a file of weights; {source} says it itself")


def _with_statistics(checkpoint: Checkpoint, hints: Hints) -> Checkpoint:
    data, assumed = checkpoint.data, checkpoint.assumed
    for name in ("mean", "std"):
        values = getattr(hints, name)
        if values is None:
            continue
        if len(values) != len(data.mean):
            given = ",".join(f"{value:g}" for value in values)
            raise UserError(f"--{name} {given}: {checkpoint.name} has {len(data.mean)} channels")
        data = data.model_copy(update={name: tuple(values)})
    if hints.mean is not None and hints.std is not None:
        assumed = tuple(line for line in assumed if "mean" not in line)
    return replace(checkpoint, data=data, assumed=assumed)


def _sweet_folder(path: Path) -> tuple[Checkpoint, Order | None]:
    record = read_record(path, ("dense", "model", "template"))
    if record.kind == "template" and record.constraint != "kronecker":
        raise UserError(
            f"{path}: is a template, expected a model or a dense source, or one of template.constraint=kronecker"
        )
    file = path / TENSORS[record.kind]
    data = record.data.model_copy(update={"classes": None, "thresholds": None, "crop": CENTRE_CROP})
    checkpoint = Checkpoint(
        path.resolve().name, sha256(file), record.vit, {}, data, origin=record.origin_record, width=record.width
    )
    if record.kind == "model":
        tensors = backbone_tensors(path, record)
        floats = {name: value.float() for name, value in tensors.items()}
        state = encoder_state(floats, record.vit.patches, record.vit.head_dim)
        if problem := mismatch(state, encoder_shapes(record.vit)):
            raise UserError(f"{file}: {problem}")
        return replace(checkpoint, state=state, dtype=dtype_of(tensors)), None
    stored = load_source(path)
    state = source_tensors(replace(untiled(stored.source), order=None))
    mae = stored.mae if "pred.weight" in stored.source.decoder else None
    return replace(checkpoint, state=state, mae=mae, training=record.training), stored.source.order
