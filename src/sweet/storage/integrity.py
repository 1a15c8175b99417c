"""The tensors of a folder, checked before they are used: sums, names, types, shapes, and that all are finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sweet.errors import UserError
from sweet.files import match_sums, read_tensors

from .header import check_header, read_header
from .layout import TENSORS
from .records import FolderRecord


def checked_tensors(folder: Path, record: FolderRecord) -> dict[str, Tensor]:
    """The tensors of a template, source or model folder of this ``record``.

    Raises UserError naming the file, and the tensor where one is missing, unknown, of another type or shape or not
    finite.
    """
    file = folder / TENSORS[record.kind]
    header = read_header(file)
    match_sums(folder, ("config.json", file.name))
    check_header(file, header, record)
    tensors = read_tensors(file)
    check_finite(file, tensors)
    return tensors


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError naming the first tensor in which a number is NaN or infinite."""
    for name, value in tensors.items():
        if value.is_floating_point() and value.numel():
            low, high = torch.aminmax(value)
            if not bool(low.isfinite() & high.isfinite()):
                raise UserError(f"{file}: tensor {name} holds numbers that are not finite")
