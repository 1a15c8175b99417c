"""Where images come from: ``--data FORMAT:REST``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweet.errors import UserError

from .arrow import hub_splits, parquet_splits
from .coco import coco_splits
from .decode import HasPixels, PixelFormat
from .folder import folder_splits
from .images import ImageSource
from .masks import mask_splits
from .packed_file import packed_splits
from .shapes import shapes_splits
from .shards import shards_splits
from .splits import Splits, open_split
from .streamed import streamed_splits
from .table import table_splits
from .yolo import yolo_splits

OPENERS: dict[str, Callable[[str, Any], Splits]] = {
    "folder": folder_splits,
    "parquet": parquet_splits,
    "packed": packed_splits,
    "hub": hub_splits,
    "stream": streamed_splits,
    "csv": table_splits,
    "coco": coco_splits,
    "yolo": yolo_splits,
    "masks": mask_splits,
    "wds": shards_splits,
    "shapes": shapes_splits,
}
NO_PATHS = ("hub", "stream", "shapes", "wds")  # what follows the colon is no path on disk, or a pattern of paths


def open_images(
    spec: str, split: str, *, val_share: float = 0.1, seed: int = 0, pixels: HasPixels | None = None
) -> ImageSource:
    """The images of one split of a source such as ``parquet:PATH`` or ``shapes:n=2000,size=32``.

    ``val`` and ``test`` stand in for each other. Where a source has neither, a share of train is drawn by
    ``seed``, class by class, and is left out of train; ``val_share=0`` keeps train whole. ``pixels``: the mean (one
    value a channel) and the range of values by which a model takes images; None: RGB. Raises UserError naming the
    source.
    """
    images = open_split(spec, source_splits(spec), split, val_share, seed)
    return images if pixels is None else images.read_as(PixelFormat.of(pixels))


def source_splits(spec: str) -> Splits:
    """{split: a function that opens it}, as the source itself names them. Raises UserError."""
    name, colon, rest = spec.partition(":")
    if not colon or name not in OPENERS:
        hint = f" (folder:{spec}?)" if not colon and Path(spec).exists() else ""
        raise UserError(f"--data {spec}: expected {', '.join(f'{known}:' for known in OPENERS)}{hint}")
    if not rest and name != "shapes":
        raise UserError(f"--data {spec}: nothing after {name}:")
    return OPENERS[name](spec, rest if name in NO_PATHS else Path(rest).expanduser())
