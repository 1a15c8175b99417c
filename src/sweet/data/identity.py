"""Which images a set holds, wherever they lie: what a resumed run compares, to notice that they are others."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from .bands import StoredBands
from .images import ImageSource, digest

LOOKED_AT = 256  # images whose first bytes are read, evenly spaced
FIRST = 4096  # bytes


class Identity(BaseModel):
    """``names`` (below the folder that all share), ``labels`` and ``first_bytes`` are checksums.

    ``labels`` are those of every image, or its lists of labels. ``first_bytes`` are those of about :data:`LOOKED_AT`
    images; None where one of them cannot be read. ``annotations`` are the boxes or masks of the same images.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int
    names: str
    classes: list[str] | None = None
    labels: str | None = None
    first_bytes: str | None = None
    annotations: str | None = None


def identity(images: ImageSource) -> Identity:
    """Of a set; the same when it has moved."""
    places = list(images.places())
    shared = len(os.path.dirname(os.path.commonprefix(places)))  # noqa: RUF071  dirname ends it at a folder
    spread = images.spread(LOOKED_AT)
    heads = [first_bytes(images, index) for index in spread]
    annotations = [images.annotation(index) for index in spread]
    labels = images.label_lists if images.labels is None else images.labels
    return Identity(
        count=len(images),
        names=digest(*(place[shared:].replace(os.sep, "/") for place in places)),
        classes=images.classes or images.mask_classes,
        labels=None if labels is None else digest(*labels),
        first_bytes=None if None in heads else digest(*heads),
        annotations=None if None in annotations else digest(*annotations),
    )


def first_bytes(images: ImageSource, index: int) -> bytes | None:
    """How an encoded image begins, or its pixels where it is in no file; None where it cannot be read."""
    stored, place = images.stored(index), images.where(index)
    if stored is not None:
        return stored[:FIRST]
    try:
        if os.path.isfile(place):
            with open(place, "rb") as file:
                return file.read(FIRST)
        with images.open(index) as image:  # made here, or unpacked
            pixels = image.values if isinstance(image, StoredBands) else image
            return pixels.tobytes()[:FIRST]
    except Exception:  # a damaged image is named where it is used
        return None


def differences(before: Identity, now: Identity) -> list[str]:
    """What has changed from one set to another, in words; empty where they are the same."""
    found = []
    if before.count != now.count:
        found.append(f"{now.count:,} images, before {before.count:,}")
    if before.classes != now.classes:
        found.append(different_classes(before.classes or [], now.classes or []))
    if before.count == now.count:  # else what follows differs anyway
        found += ["other file names"] * (before.names != now.names)
        for was, is_now, text in (
            (before.labels, now.labels, "other labels"),
            (before.first_bytes, now.first_bytes, "other bytes in the files"),
            (before.annotations, now.annotations, "other boxes or masks"),
        ):
            if None not in (was, is_now) and was != is_now:  # earlier versions wrote fewer of them
                found.append(text)
    return found


def different_classes(before: Sequence[str], now: Sequence[str]) -> str:
    """How two lists of class names differ, the first difference by name."""
    if len(before) != len(now):
        return f"{len(now)} classes, before {len(before)}"
    number = next(number for number, (a, b) in enumerate(zip(before, now, strict=True)) if a != b)
    return f"class {number} is {now[number]!r}, before {before[number]!r}"
