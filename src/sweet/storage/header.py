"""The header of a folder's tensors: their names, types and shapes, compared with its record. Imports no torch.

A folder that cannot be right so costs no memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

from sweet.errors import UserError, reason
from sweet.models.config import ViTConfig
from sweet.models.shapes import SCALES, Shape, decoder_shapes, plain_shapes
from sweet.template.sizes import MATRICES
from sweet.template.tiles import tilings

from .records import FolderRecord

HALVES = {"bfloat16": "BF16", "float16": "F16"}  # torch's names of types in safetensors' words
WHOLE = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")
BYTES = {
    "BOOL": 1,
    "BF16": 2,
    **{f"F{n}": n // 8 for n in (16, 32, 64)},
    **{name: int(name[1:]) // 8 for name in WHOLE},
}
Header = Mapping[str, tuple[str, Shape]]
"""{tensor: its type, as F32, and its shape}."""
ORDER = ("rotation", "energy", "heads", "units")  # the tensors of an order that every one has


def read_header(file: Path) -> Header:
    """Names, types and shapes of a safetensors file; its tensors are not read. Raises UserError naming the file.

    That is JSON after its length in eight bytes; the tensors follow without gaps. Not by ``safe_open``, which imports
    numpy: ``sweet inspect`` of a model does without.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    try:
        with file.open("rb") as opened:
            length, rest = int.from_bytes(opened.read(8), "little"), file.stat().st_size - 8
            if length > rest:
                raise ValueError("it is shorter than its header")
            entries = json.loads(opened.read(length))
        entries.pop("__metadata__", None)
        header = {name: (one["dtype"], tuple(map(int, one["shape"]))) for name, one in entries.items()}
        spans = {name: one["data_offsets"] for name, one in entries.items()}
        fits = all(
            end - begin == prod(header[name][1]) * BYTES[header[name][0]] for name, (begin, end) in spans.items()
        )
        begins, ends = (sorted(side) for side in zip(*spans.values(), strict=True)) if spans else ([], [])
        if not fits or [*begins, rest - length] != [0, *ends]:
            raise ValueError("its tensors are not as long as its header says")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise UserError(f"{file}: not a safetensors file ({str(problem)[:200]})") from None
    return header


def check_header(file: Path, header: Header, record: FolderRecord) -> None:
    """Check that the tensors of a file are those that ``record`` describes, by their header.

    Of what a task puts around the ViT only the type is checked here. Raises UserError naming the tensor.
    """
    if record.kind == "model":
        _check_model(file, header, record)
        return
    vit = record.vit
    _check_depth(file, header, record)
    expected = _source_shapes(file, header, record)
    decoder = {name: shape for name, (_, shape) in header.items() if name.startswith("decoder.")}
    if decoder and record.mae is not None:
        expected |= {f"decoder.{name}": shape for name, shape in decoder_shapes(vit, record.mae).items()}
    else:
        expected |= decoder
    expected |= _order_shapes(header, record)
    _compare(file, header, expected, half=half_of(record))


def half_of(record: FolderRecord) -> str | None:
    """The half precision that weights may have besides F32, in safetensors' words; None: none."""
    converted = record.converted.dtype if record.converted is not None else None
    return HALVES.get(record.dtype or converted or "")


def _check_model(file: Path, header: Header, record: FolderRecord) -> None:
    """The ViT of a model folder; an export for timm has layer scales, a task's network a ``vit.`` before its names."""
    inside = {name[4:]: value for name, value in header.items() if name.startswith("vit.")}
    found = inside or dict(header)
    _check_depth(file, found, record)
    expected = dict(_encoder(file, record.vit))
    if not expected.keys() <= found.keys():
        expected = _as_in_timm(expected, found)
    expected |= {name: (record.vit.width,) for name in found if SCALES.match(name)}
    expected |= {name: shape for name, (_, shape) in found.items() if inside and name not in expected}
    classes = len(record.data.classes or ())
    if record.task == "classify" and not inside:
        rows = classes or (found["head.bias"][1] + (0,))[0] if "head.bias" in found else classes
        expected |= {"head.weight": (rows, record.vit.width), "head.bias": (rows,)} if rows else {}
    elif "head.weight" in found or "head.bias" in found:
        rows = (found.get("head.bias", ("", ()))[1] + (0,))[0]
        expected |= {"head.weight": (rows, record.vit.width), "head.bias": (rows,)}
    half = half_of(record)
    _compare(file, found, expected, half=half)
    for name, (dtype, _) in header.items():
        if inside and not name.startswith("vit.") and dtype not in ("F32", half, *WHOLE):
            raise UserError(f"{file}: tensor {name} is {dtype}, expected F32")


def _as_in_timm(expected: Mapping[str, Shape], found: Header) -> dict[str, Shape]:
    """The same with what a class of timm calls otherwise named as in ``found``."""
    import torch

    from sweet.models.names import timm_names

    tensors = {name: torch.empty(shape, device="meta") for name, shape in expected.items()}
    names = {name: torch.Size(shape) for name, (_, shape) in found.items() if not SCALES.match(name)}
    return {name: tuple(value.shape) for name, value in timm_names(tensors, names).items()}


def _order_shapes(header: Header, record: FolderRecord) -> dict[str, Shape]:
    """The first version ordered neither heads nor units."""
    vit, names = record.vit, {name for name in header if name.startswith("order.")}
    if not names and not record.absorbed:
        return {}
    shapes: dict[str, Shape] = {
        "order.rotation": (vit.width, vit.width),
        "order.energy": (2 * vit.depth + 1, vit.width),
    }
    if names - shapes.keys() or record.absorbed:
        shapes |= {"order.heads": (vit.depth, vit.heads), "order.units": (vit.depth, vit.hidden)}
    if vit.pre_norm or vit.patch_norm:
        shapes["order.embedding"] = (vit.width,)
    return shapes


def _check_depth(file: Path, header: Header, record: FolderRecord) -> None:
    """A cheap check first: what a depth in the config would cost in names must be in the file."""
    if record.kind == "template":
        return  # its blocks are rows of tensors
    blocks = {name.split(".")[1] for name in header if name.startswith("blocks.")}
    wanted = {str(layer) for layer in range(record.vit.depth)}
    if blocks != wanted:
        different = min(blocks ^ wanted, key=lambda text: (len(text), text))
        why = "missing" if different in wanted else "unknown"
        raise UserError(f"{file}: blocks.{different} is {why}: config.json says {record.vit.depth} blocks")


def _encoder(file: Path, config: ViTConfig) -> Mapping[str, Shape]:
    """Raises UserError for a shape of which timm makes no model, as for an odd ``head_dim``."""
    if (known := plain_shapes(config)) is not None:
        return known
    from sweet.models.vit import encoder_shapes

    try:
        return {name: tuple(shape) for name, shape in encoder_shapes(config).items()}
    except (RuntimeError, ValueError, AssertionError, ArithmeticError) as problem:
        why = reason(problem)[:200]
        raise UserError(f"{file.parent / 'config.json'}: timm makes no ViT of this shape ({why})") from None


def _source_shapes(file: Path, header: Header, record: FolderRecord) -> dict[str, Shape]:
    """Encoder of a source: ``core.*``, ``blocks.*`` and ``stem.*``, or timm's names of a dense one."""
    vit = record.vit
    if record.constraint == "none":
        return dict(_encoder(file, vit))
    one = _encoder(file, vit.resized(1, vit.heads))
    inside = {name.removeprefix("blocks.0."): shape for name, shape in one.items() if name.startswith("blocks.")}
    rows = 2 if record.constraint == "linear" else vit.depth
    expected = {f"stem.{name}": shape for name, shape in one.items() if not name.startswith("blocks.")}
    expected |= {f"blocks.{name}": (rows, *shape) for name, shape in inside.items() if name not in MATRICES}
    if record.constraint == "linear":
        return expected | {f"core.{name}": (2, *inside[name]) for name in MATRICES}
    if record.constraint == "kronecker":
        return expected | _kronecker_shapes(file, header, record)
    if record.constraint != "tucker":
        raise UserError(f"{file.parent / 'config.json'}: constraint {record.constraint!r} is unknown")
    return expected | _tucker_shapes(file, header, record)


def _tucker_shapes(file: Path, header: Header, record: FolderRecord) -> dict[str, Shape]:
    """U and V are left out where they are contracted into the core."""
    vit = record.vit
    core = header.get("core.core", ("", ()))[1]
    if len(core) != 3:
        raise UserError(f"{file}: tensor core.core is missing, or has not three axes")
    r1, r2, r3 = core
    if record.ranks is not None and core != record.ranks:
        raise UserError(f"{file}: tensor core.core has shape {core}, config.json says ranks {record.ranks}")
    slices = vit.slices * vit.depth
    if r1 > slices or r2 > vit.width or r3 > vit.width:
        most = f"{vit.slices} x {vit.depth} and width {vit.width}"
        raise UserError(f"{file}: tensor core.core has shape {core}, more than {most}")
    shapes: dict[str, Shape] = {"core.core": core, "core.x": (slices, r1)}
    for name, rank in (("core.u", r2), ("core.v", r3)):
        if name in header or rank != vit.width:
            shapes[name] = (vit.width, rank)
    return shapes


def _kronecker_shapes(file: Path, header: Header, record: FolderRecord) -> dict[str, Shape]:
    """Templates of tiles and their scalers agree in their number, and tiles fill the width."""
    vit = record.vit
    tile = (header.get(f"core.templates.{MATRICES[1]}", ("", ()))[1] + (0, 0))[1]
    if tile < 1 or vit.width % tile:
        raise UserError(f"{file}: tiles of {tile} channels do not fill width {vit.width}")
    shapes: dict[str, Shape] = {}
    for name, kind in zip(MATRICES, tilings(tile, vit.mlp), strict=True):
        count = (header.get(f"core.templates.{name}", ("", ()))[1] + (0,))[0]
        inner, tiles = kind.groups * kind.units, vit.width // tile
        writes = name in (MATRICES[1], MATRICES[3])
        shapes[f"core.templates.{name}"] = (count, tile, inner) if writes else (count, inner, tile)
        shapes[f"core.scalers.{name}"] = (vit.depth, kind.parts * tiles, tiles, count)
    return shapes


def _compare(file: Path, header: Header, expected: Mapping[str, Shape], *, half: str | None = None) -> None:
    """Names, shapes and types: whole numbers, F32, or ``half`` where a checkpoint was converted in it."""
    for name in sorted(header.keys() | expected.keys()):
        if name not in header or name not in expected:
            why = "missing" if name in expected else "unknown"
            raise UserError(f"{file}: tensor {name[:120]} is {why}")
        dtype, shape = header[name]
        if shape != expected[name]:
            raise UserError(f"{file}: tensor {name} has shape {shape}, expected {expected[name]} by config.json")
        whole = name in ("order.heads", "order.units")
        if dtype not in (WHOLE if whole else ("F32", half)):
            raise UserError(f"{file}: tensor {name} is {dtype}, expected {'whole numbers' if whole else 'F32'}")
        if prod(shape) == 0:
            raise UserError(f"{file}: tensor {name} is empty")
