"""Which images to take: seeded draws that every method of a comparison shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from sweet.errors import UserError

from .images import ImageSource
from .packed import ImageSet


def some(source: ImageSource, count: int | None, seed: int) -> ImageSource:
    """``count`` images drawn by ``seed``; all, in their own order, where there are no more (or it is None)."""
    if count is None or count >= len(source):
        return source
    return source.select(shuffled(len(source), seed)[:count])


@overload
def a_few(data: ImageSource, count: int) -> ImageSource: ...
@overload
def a_few(data: ImageSet, count: int) -> ImageSet: ...
def a_few(data: ImageSet, count: int) -> ImageSet:
    """``count`` images that stand for all: the first ones where these have every class, else evenly spaced.

    A folder is sorted by class. Of shards the first ones: they are shuffled when they are made, and read one by one.
    """
    wanted = min(count, len(data))
    if _mixed(data, wanted):
        return data.select(range(wanted))
    return data.select([i * len(data) // wanted for i in range(wanted)])


def _mixed(data: ImageSet, count: int) -> bool:
    """Whether the first ``count`` stand for all."""
    if isinstance(data, ImageSource) and data.shard_counts is not None:
        return True
    labels = torch.as_tensor([] if data.labels is None else data.labels)
    return labels.dim() == 1 and len(labels) > 0 and len(labels[:count].unique()) == len(labels.unique())


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers 0 .. count-1 in an order drawn by ``seed``."""
    return np.random.default_rng([seed, count]).permutation(count).tolist()


def up_to(labels: Sequence[int], each: int, seed: int) -> list[int]:
    """Indices of at most ``each`` images of every class, ascending: those that :func:`balanced_subset` begins with."""
    values = np.asarray(labels)
    return np.sort(np.concatenate([_members(values, label, seed)[:each] for label in np.unique(values)])).tolist()


def balanced_subset(labels: Sequence[int], n: int, seed: int) -> list[int]:
    """Indices of ``n`` images, the same number of each class, ascending.

    With one seed a smaller subset lies inside a larger one. Raises UserError when ``n`` is not a multiple of
    the number of classes or a class has too few images.
    """
    values = np.asarray(labels)
    classes = np.unique(values)
    each, rest = divmod(n, len(classes))
    if rest or not each:
        raise UserError(f"data.labels={n}: not a multiple of the {len(classes)} classes")
    chosen = []
    for label in classes:
        members = _members(values, label, seed)
        if len(members) < each:
            raise UserError(f"data.labels={n}: class {label} has {len(members)} images, {each} are needed")
        chosen.append(members[:each])
    return np.sort(np.concatenate(chosen)).tolist()


def learned_and_held(labels: Sequence[int], labelled: int | None, held: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the images to learn from and of ``held`` others, the same number of each class, ascending.

    To learn from are the ``labelled`` ones of :func:`balanced_subset`, None for all that are not held out. Raises
    UserError for numbers that are not the same of each class, and where a class has too few images.
    """
    values = np.asarray(labels)
    learned = None if labelled is None else balanced_subset(labels, labelled, seed)
    classes = np.unique(values)
    each, rest = divmod(held, len(classes))
    if rest:
        raise UserError(f"data.held_out={held}: not a multiple of the {len(classes)} classes")
    taken, chosen = (labelled or 0) // len(classes), []
    for label in classes:
        members = _members(values, label, seed)
        if len(members) < taken + each + (labelled is None):
            raise UserError(f"data.held_out={held}: class {label} has {len(members)} images, too few")
        chosen.append(members[taken : taken + each])
    out = np.sort(np.concatenate(chosen)).tolist()
    return sorted(set(range(len(values))).difference(out)) if learned is None else learned, out


def _members(values: NDArray[np.int64], label: int, seed: int) -> NDArray[np.int64]:
    """Images of a class, in an order drawn by the seed."""
    return np.random.default_rng([seed, int(label)]).permutation(np.flatnonzero(values == label))
