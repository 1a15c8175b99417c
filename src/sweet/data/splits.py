"""Which splits a source has, how they are called, and how one is drawn where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweet.errors import UserError

from .images import ImageSource
from .subset import shuffled

Splits = dict[str, Callable[[], ImageSource]]  # the name of each split, as the source calls it, and what opens it

FOLDERS = ("train", "val", "valid", "validation", "test")  # names of folders that are splits
STANDS_FOR = {
    "val": ("val", "validation", "valid", "test"),
    "test": ("test", "val", "validation", "valid"),
    "train": ("train", "training"),
}


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def split_folders(path: Path) -> list[str]:
    """The subfolders of a folder if they are splits.

    A class may be called "test"; a folder of splits has a train folder or nothing but splits.
    """
    names = subfolders(path)
    splits = [name for name in names if name in FOLDERS]
    return splits if "train" in splits or len(splits) == len(names) else []


def open_split(spec: str, splits: Splits, split: str, val_share: float, seed: int) -> ImageSource:
    """The images of a split of ``spec``, or of one that stands in for it; see :func:`sweet.data.open_images`."""
    found = next((name for name in STANDS_FOR.get(split, (split,)) if name in splits), None)
    whole_train = any(name in splits for name in STANDS_FOR["val"]) or val_share <= 0
    if found and (split != "train" or whole_train):
        return splits[found]()
    if "train" in splits and split in STANDS_FOR and 0 < val_share < 1:
        return draw_split(spec, splits["train"](), split, val_share, seed)
    raise UserError(f"--data {spec}: no split {split!r}; it has {', '.join(sorted(splits))}")


def draw_split(spec: str, train: ImageSource, split: str, val_share: float, seed: int) -> ImageSource:
    """A share of the training images, drawn by ``seed``, for every split but train, and the others for train."""
    count = max(1, round(val_share * len(train)))
    if count >= len(train):
        raise UserError(f"--data {spec}: {len(train)} image is too few to draw a validation split from")
    order = shuffled(len(train), seed)
    drawn = train.select(sorted(order[count:] if split == "train" else order[:count]))
    drawn.split = split
    return drawn
