"""Where images come from: ``--data KIND:REST``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweet.errors import UserError

from .arrow import hub_splits, parquet_splits
from .coco import coco_splits
from .folder import folder_splits
from .images import ImageSource
from .masks import mask_splits
from .packed_file import packed_splits
from .shapes import shapes_splits
from .subset import shuffled

KINDS: dict[str, Callable[[str, str], dict[str, Callable[[], ImageSource]]]] = {
    "folder": lambda spec, rest: folder_splits(spec, Path(rest).expanduser()),
    "parquet": lambda spec, rest: parquet_splits(spec, Path(rest).expanduser()),
    "packed": lambda spec, rest: packed_splits(spec, Path(rest).expanduser()),
    "hub": hub_splits,
    "coco": lambda spec, rest: coco_splits(spec, Path(rest).expanduser()),
    "masks": lambda spec, rest: mask_splits(spec, Path(rest).expanduser()),
    "shapes": shapes_splits,
}
ALSO_CALLED = {
    "val": ("val", "validation", "valid", "test"),
    "test": ("test", "val", "validation", "valid"),
    "train": ("train", "training"),
}


def open_images(spec: str, split: str, *, val_share: float = 0.1, seed: int = 0) -> ImageSource:
    """The images of one split of a source such as ``parquet:PATH`` or ``shapes:n=2000,size=32``.

    ``val`` and ``test`` stand in for each other. Where a source has neither, a share of train is drawn by
    ``seed`` and is left out of train; ``val_share=0`` keeps train whole. Raises UserError naming the source.
    """
    splits = source_splits(spec)
    found = next((name for name in ALSO_CALLED.get(split, (split,)) if name in splits), None)
    if found and (split != "train" or _has_val(splits) or val_share <= 0):
        return splits[found]()
    if "train" in splits and split in ("train", "val", "test") and 0 < val_share < 1:
        train = splits["train"]()
        held = max(1, round(val_share * len(train)))
        if held >= len(train):
            raise UserError(f"--data {spec}: {len(train)} image is too few to draw a validation split from")
        order = shuffled(len(train), seed)
        part = train.select(sorted(order[held:] if split == "train" else order[:held]))
        part.split = split
        return part
    raise UserError(f"--data {spec}: no split {split!r}; it has {', '.join(sorted(splits))}")


def source_splits(spec: str) -> dict[str, Callable[[], ImageSource]]:
    """{split: a function that opens it}, as the source itself names them. Raises UserError."""
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in KINDS:
        hint = f" (folder:{spec}?)" if not colon and Path(spec).exists() else ""
        raise UserError(f"--data {spec}: expected {', '.join(f'{known}:' for known in KINDS)}{hint}")
    if not rest and kind != "shapes":
        raise UserError(f"--data {spec}: nothing after {kind}:")
    return KINDS[kind](spec, rest)


def _has_val(splits: dict[str, Callable[[], ImageSource]]) -> bool:
    return any(name in splits for name in ALSO_CALLED["val"])
