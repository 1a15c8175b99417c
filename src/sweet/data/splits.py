"""Which splits a source has, how they are called, and how one is drawn where there is none."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from sweet.errors import UserError

from .findings import Finding
from .images import ImageSource
from .sharded import ShardedImages
from .subset import shuffled

Splits = dict[str, Callable[[], ImageSource]]  # the name of each split, as the source calls it, and what opens it

CALLED = {  # a split and its other names, in any case of letters
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "validating", "dev"),
    "test": ("test", "testing"),
}
LIKE_SPLIT = re.compile(r"(train|val|test|dev)(ing|id|idating|idation)?([^a-z].*|set|data|images?)", re.IGNORECASE)
NO_IMAGES = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information")  # left by other programs


def split_called(name: str) -> str | None:
    """``train``, ``val`` or ``test`` for a name of one of them, else None."""
    return next((split for split, names in CALLED.items() if name.lower() in names), None)


def like_splits(names: Sequence[str]) -> list[str]:
    """The names where all resemble those of splits (``train_set`` and ``validation-images``), else none."""
    return list(names) if len(names) > 1 and all(map(LIKE_SPLIT.fullmatch, names)) else []


def is_hidden(name: str) -> bool:
    """Whether a file or folder was left there by a program, and holds nothing of the set."""
    return name.startswith(".") or name.lower() in NO_IMAGES


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and links that go round."""
    with os.scandir(path) as entries:  # it knows folders from files without a look at each
        found = [entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
    return sorted(name for name in found if not goes_round(path / name))


def goes_round(entry: Path) -> bool:
    """Whether an entry is a link to a folder that it lies in."""
    return entry.is_symlink() and entry.parent.resolve().is_relative_to(entry.resolve())


def split_folders(path: Path) -> list[str]:
    """The subfolders of a folder if they are splits.

    A class may be called "test"; a folder of splits has a train folder or nothing but splits. Raises UserError for two
    names of one split.
    """
    names = subfolders(path)
    splits = [name for name in names if split_called(name)]
    if not (any(split_called(name) == "train" for name in splits) or len(splits) == len(names)):
        return []
    for name in splits:
        twice = [other for other in splits if split_called(other) == split_called(name)]
        if len(twice) > 1:
            raise UserError(f"{path}: {' and '.join(twice)} are both {split_called(name)}; which one is meant?")
    return splits


def holds_splits(path: Path) -> bool:
    """Whether the folder of a class looks like a set of its own; no reason to refuse it, so nothing is raised."""
    try:
        return bool(split_folders(path))
    except (OSError, UserError):  # it cannot be read, or has two names of one split
        return False


def find_split(splits: Iterable[str], split: str) -> str | None:
    """The name in ``splits`` of ``train``, ``val`` or ``test``, the most usual one first; None where there is none."""
    names = list(splits)
    ranked = [name for known in CALLED.get(split, (split,)) for name in names if name.lower() == known.lower()]
    return split if split in names else next(iter(ranked), None)


def open_split(spec: str, splits: Splits, split: str, val_share: float, seed: int) -> ImageSource:
    """The images of a split of ``spec``, or of one that stands in for it; see :func:`sweet.data.open_images`."""
    own, train = find_split(splits, split), find_split(splits, "train")
    stands_in = None
    if split in CALLED and (own is None or split == "train"):
        stands_in = held_out(splits, labelled_only=val_share > 0)
    if own is not None and (split != "train" or stands_in is not None or val_share <= 0):
        return splits[own]()
    if split != "train" and stands_in is not None:
        return splits[stands_in]()
    if train is not None and split in CALLED and 0 < val_share < 1:
        return draw_split(spec, splits[train](), split, val_share, seed)
    raise UserError(f"--data {spec}: no split {split!r}; it has {', '.join(sorted(splits))}")


def held_out(splits: Splits, *, labelled_only: bool = True) -> str | None:
    """The split by which a model is judged: val, else test.

    With ``labelled_only`` a test split that lacks the labels which train has, as competitions ship it, is none.
    """
    val, test, train = (find_split(splits, split) for split in ("val", "test", "train"))
    if val is not None or test is None or train is None or not labelled_only:
        return val or test
    return test if is_labelled(splits[test]()) or not is_labelled(splits[train]()) else None


def is_labelled(images: ImageSource) -> bool:
    """Whether there is something to learn besides the pixels: classes, masks or boxes."""
    lists = images.label_lists is not None and any(images.label_lists)
    return images.is_labelled or images.mask_classes is not None or lists


def draw_split(spec: str, train: ImageSource, split: str, val_share: float, seed: int) -> ImageSource:
    """A share of the training images, drawn by ``seed``, for every split but train, and the others for train.

    Drawn class by class where there are classes: each of two images and more is in both; of several shards whole ones
    are drawn, so that no label is read and each is still read in one go. Raises UserError for too few.
    """
    if isinstance(train, ShardedImages) and len(train.shards) > 1:
        return _draw_shards(train, split, val_share, seed)
    drawn = _drawn(len(train), train.strata(), val_share, seed)
    if not 0 < len(drawn) < len(train):
        raise UserError(f"--data {spec}: {len(train)} image is too few to draw a validation split from")
    left = set(range(len(train))) - set(drawn)
    images = train.select(sorted(left if split == "train" else drawn))
    images.split, images.is_drawn = split, True
    return images


def _draw_shards(train: ShardedImages, split: str, val_share: float, seed: int) -> ImageSource:
    order = shuffled(len(train.shards), seed)
    held = np.cumsum([train.shard_counts[number] for number in order])
    drawn = min(len(order) - 1, int(np.searchsorted(held, val_share * len(train))) + 1)
    images = train.of_shards(sorted(order[drawn:] if split == "train" else order[:drawn]))
    images.split, images.is_drawn = split, True
    return images


def _drawn(count: int, strata: Sequence[int] | None, share: float, seed: int) -> list[int]:
    sizes = Counter(strata or ())
    if not sizes or max(sizes.values()) < 2:
        return shuffled(count, seed)[: max(1, round(share * count))]
    drawn: list[int] = []
    values = np.asarray(strata)
    for label in sorted(label for label, size in sizes.items() if size > 1):
        members = np.random.default_rng([seed, count, label]).permutation(np.flatnonzero(values == label))
        drawn += members[: min(len(members) - 1, max(1, round(share * len(members))))].tolist()
    return drawn


def split_findings(splits: Splits) -> list[Finding]:
    """Which split is taken for which, and what is done where one is missing."""
    found = []
    for kind in CALLED:
        name = find_split(splits, kind)
        if name is not None and name != kind:
            found.append(Finding(name, f"a split called {name}", f"is taken for {kind}"))
    train = find_split(splits, "train")
    if train is None:
        return [*found, Finding("", "no train split", "there is nothing to learn from; evaluate takes the others")]
    stands_in = held_out(splits)
    unlabelled = find_split(splits, "test") if stands_in is None else None
    if unlabelled is not None:
        found.append(Finding(unlabelled, "has no labels", "it is not used to judge a model; predict takes its files"))
    if stands_in is None:
        several = len(splits[train]().shard_counts or ()) > 1
        how = "whole shards" if several else "each class of two images and more in both parts"
        handling = f"a tenth of train is drawn by seed 0, {how}"
        found.append(Finding("", "no val split", handling))
    elif find_split(splits, "val") is None:
        found.append(Finding(stands_in, "no val split", f"{stands_in} stands in for it"))
    return found
