"""Images that cannot be read, left out where a recipe allows it (``data.on_error=skip``): named, counted, limited."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sweet.errors import UserError
from sweet.recipes.schema import DataKeys

from .images import ImageSource

FILE = "skipped.jsonl"  # in the run folder: a line for each image that was left out

Made = TypeVar("Made")


@dataclass(frozen=True)
class Skips:
    """What may be left out of a training: at most ``most`` images, listed in ``file`` by any process."""

    file: Path
    most: int

    @classmethod
    def of(cls, keys: DataKeys, run: Path, count: int, before: int = 0) -> Skips | None:
        """Those of a recipe for ``count`` images and a run folder; None where nothing may be left out.

        ``before``: images that stand in the list already and are none of these, of the validation split for example.
        """
        return cls(run / FILE, most_of(keys, count) + before) if keys.on_error == "skip" else None

    def note(self, problem: UserError) -> None:
        """Write down an image, once. Raises UserError naming it when there are too many."""
        known = skipped(self.file)
        if str(problem) not in known:
            known.append(str(problem))
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"problem": str(problem)}) + "\n")
        if len(known) > self.most:
            raise too_many(problem, len(known), self.most)


def most_of(keys: DataKeys, count: int) -> int:
    """How many of ``count`` images may be left out: the share of the recipe, and one at least."""
    return max(1, int(keys.max_skipped * count))


def too_many(problem: UserError, found: int, most: int) -> UserError:
    """The error that ends a training: ``problem`` of the last of ``found`` images, where ``most`` are allowed."""
    return UserError(
        f"{problem}; {found} images cannot be read, data.max_skipped allows {most}: sweet data check lists them"
    )


def skipped(file: Path) -> list[str]:
    """What stands in such a file: a message for each image; [] where there is none."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(json.loads(line)["problem"] for line in lines if line.endswith("}")))


def load_or_next(load: Callable[[int], Made], index: int, count: int, skips: Skips | None) -> tuple[Made, int]:
    """What ``load`` makes of image ``index``, or of the next one that can be read; and the number of that."""
    if skips is None:
        return load(index), index
    for shift in range(count):
        place = (index + shift) % count
        try:
            return load(place), place
        except UserError as problem:
            skips.note(problem)
    raise UserError("data.on_error=skip: no image can be read")


def readable_images(images: ImageSource, keys: DataKeys | None) -> tuple[ImageSource, list[str]]:
    """The images that can be read with all that belongs to them, and a message for each of the others.

    Reads every image. Raises UserError when there are more of these than the recipe allows (``keys`` None: any number),
    and where none can be read.
    """
    good, bad = [], []
    for index in range(len(images)):
        try:
            images.decode(index)
            if images.mask_classes is not None:
                images.mask(index)
            if images.has_boxes:
                images.objects(index)
            good.append(index)
        except UserError as problem:
            bad.append(str(problem))
            if keys is not None and len(bad) > most_of(keys, len(images)):
                raise too_many(problem, len(bad), most_of(keys, len(images))) from None
    if not good:
        raise UserError(bad[0] if keys is None else f"--data {images.name}: no image of {images.split} can be read")
    return (images.select(good), bad) if bad else (images, [])


def write_skipped(run: Path, problems: list[str]) -> None:
    """Begin the list of a run folder with what was found before the training; a resumed run goes on with its own."""
    known = skipped(run / FILE)
    if new := [problem for problem in problems if problem not in known]:
        with (run / FILE).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"problem": problem}) + "\n" for problem in new)
