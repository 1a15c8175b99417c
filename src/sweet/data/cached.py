"""A tensor that can be made again, but not quickly, kept in a file of the cache folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from sweet.errors import UserError
from sweet.files import cache_folder, read_tensors, write_tensors


def cached_tensor(
    key: str, name: str, shape: tuple[int, ...], dtype: torch.dtype, make: Callable[[], Tensor]
) -> Tensor:
    """The tensor ``name`` of the cache file of ``key``, or else what ``make`` gives, which is then written there.

    ``shape`` and ``dtype`` are those of a good file. A file that is absent, damaged or wrong is made again.
    """
    file = cache_folder() / "data" / f"{key}.safetensors"
    with suppress(UserError):
        found = read_tensors(file).get(name)
        if found is not None and found.shape == shape and found.dtype == dtype:
            # A copy: the file is memory-mapped, and gathering scattered rows of a map costs a page fault each.
            return found.clone()
    made = make()
    # A cache that cannot be written (full disk, read-only home) costs time, not the run.
    with suppress(OSError):
        write_tensors(file, {name: made})
    return made
