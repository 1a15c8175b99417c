"""Images with a class for every pixel: a picture of class indices beside each image, ``masks:PATH``."""

from __future__ import annotations

import os
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sweet.errors import UserError

from .bands import StoredBands
from .cached import cached_tensor
from .class_names import CLASSES_FILE, numbered, read_class_names
from .decode import open_stored, readable, upright, upright_size
from .findings import Finding, is_training, some_names
from .folder import FolderImages, LeftOut, check_folder, image_files
from .images import IGNORE, ImageSource, digest, stamps
from .splits import Splits, split_called, split_folders

VOID = {"void", "ignore", "unlabelled", "unlabeled"}  # names of what is no class
MODES = ("L", "P", "1")  # of Pillow: grey, palette and black and white hold one index per pixel
FORMAT = 2  # part of the cache key: raise it when the pixels of a mask change


class MaskImages(FolderImages):
    """Image files, each with a mask file; ``names`` is {value of a pixel: name}, from ``classes.txt``.

    Values of a name in ``VOID`` have no class, nor has 255 unless it is named; the others are the classes, in the order
    of their values.
    """

    def __init__(
        self,
        name: str,
        split: str,
        files: list[str],
        masks: list[str],
        names: dict[int, str],
        left_out: LeftOut | None = None,
    ) -> None:
        super().__init__(name, split, files, None, None, left_out)
        self.masks, self.names = masks, names
        classes = [value for value in sorted(names) if names[value].lower() not in VOID]
        self.mask_classes = [names[value] for value in classes]
        self.class_of = np.full(256, IGNORE, dtype=np.uint8)  # of each value of a pixel
        self.class_of[classes] = np.arange(len(classes))
        self.known = np.isin(np.arange(256), [*names, IGNORE])

    def mask(self, index: int) -> NDArray[np.uint8]:
        values = self.stored_mask(index)
        known = self.known[values]
        if not known.all():
            wrong = values[~known]
            raise UserError(
                f"{self.masks[index]}: value {wrong[0]} is no line of classes.txt ({self._values()}, or 255: no class)"
                + self._black_and_white(wrong)
            )
        return self.class_of[values]

    def stored_mask(self, index: int) -> NDArray[np.uint8]:
        """(H, W): the values of the upright mask as they are. Raises UserError for another size than its image's."""
        file = self.masks[index]
        with readable(file, "mask"), open_stored(file) as picture:
            mode = "L" if picture.mode == "1xuint8" else picture.mode  # an array of one channel
            if mode in MODES:
                pixels = picture.upright()[..., 0] if isinstance(picture, StoredBands) else np.asarray(upright(picture))
        if mode not in MODES:
            raise UserError(f"{file}: mode {mode}; a mask is an 8-bit grey or palette picture of class indices")
        values = pixels.astype(np.uint8)
        with readable(self.where(index)), self.open(index) as image:
            shape = upright_size(image)[::-1]
        if values.shape != shape:
            has, wants = (f"{columns}x{rows}" for rows, columns in (values.shape, shape))
            raise UserError(f"{file}: {has} pixels, its image {self.where(index)} has {wants}")
        return values

    def annotation(self, index: int) -> object:
        try:
            return zlib.crc32(Path(self.masks[index]).read_bytes())
        except OSError:  # it is named where it is used
            return 0

    def fingerprint(self) -> str:
        masks = (value for stamp in stamps(self.masks) for value in stamp)
        return digest(super().fingerprint(), *sorted(self.names.items()), *masks)

    def findings(self) -> list[Finding]:
        found = super().findings()
        void = [name for name in self.names.values() if name.lower() in VOID]
        if void:
            found.append(
                Finding(self.split, f"{some_names(void)} in classes.txt", "is no class: not learned, not counted")
            )
        return found

    def _values(self) -> str:
        values = sorted(self.names)
        whole = values == list(range(len(values)))
        return f"0 to {values[-1]}" if whole else ", ".join(map(str, values))

    def _black_and_white(self, wrong: NDArray[np.uint8]) -> str:
        """A way out where a mask looks like one painted in black and white, with soft edges."""
        soft = len(self.names) == 2 and len(np.unique(wrong)) > 2
        return "; soft edges? a mask is painted without smoothing and saved as PNG" if soft else ""


def unseen_classes(images: ImageSource, pixels: Tensor, *, without_class: bool | None = None) -> list[Finding]:
    """Classes that no mask of a split shows, from :func:`class_pixels`.

    ``without_class``: whether some pixels have none; None looks for it in the first masks.
    Raises UserError where there is one class at most and the masks are black and white, 0 and 255.
    """
    names, seen = images.mask_classes or [], pixels.sum(0) > 0
    unseen = [name for name, there in zip(names, seen.tolist(), strict=True) if not there]
    if not unseen:
        return []
    white = shows_no_class(images) if without_class is None else without_class
    if white and int(seen.sum()) <= 1:
        raise UserError(
            f"--data {images.name}: the masks of {images.split} hold 255, which is no class, and nothing of "
            f"{some_names(unseen)}; if 255 is {unseen[0]}, say so in classes.txt: {_offer(names)}"
        )
    training = is_training(images.split)
    handling = "never learned" if training else "no metric is measured for them"
    more = "; some pixels are of no class, as 255 is unless classes.txt names it (255: NAME)" if white else ""
    return [Finding(images.split, some_names(unseen, "classes that no mask shows"), handling + more, warn=True)]


def _offer(names: list[str]) -> str:
    values = [*range(len(names) - 1), 255]
    return ", ".join(f'"{value}: {name}"' for value, name in zip(values, names, strict=True)) + " (a line each)"


def shows_no_class(images: ImageSource) -> bool:
    """Whether one of the first masks has a pixel without a class."""
    return any(bool((images.mask(index) == IGNORE).any()) for index in range(min(len(images), 16)))


def mask_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of ``images/``, ``masks/`` and ``classes.txt``; without ``<split>/`` subfolders all is train.

    A mask has the place and name of its image, whatever the suffix. A split of which ``masks/`` has no folder has no
    labels. Raises UserError naming the file.
    """
    check_folder(spec, path)
    for name in ("images", "masks"):
        if not (path / name).is_dir():
            raise UserError(f"--data {spec}: has no folder {name}")
    names = _class_names(spec, path / CLASSES_FILE)
    splits, of_masks = split_folders(path / "images"), split_folders(path / "masks")
    places = {split: (path / "images" / split, _mask_folder(path / "masks", split, of_masks)) for split in splits}
    places = places or {"train": (path / "images", path / "masks")}
    return {split: partial(_open, spec, split, *folders, names) for split, folders in places.items()}


def _mask_folder(masks: Path, split: str, known: list[str]) -> Path:
    """The folder of masks of a split, which may spell it in another way."""
    same = [name for name in known if split_called(name) == split_called(split)]
    return masks / (split if split in known or not same else same[0])


def _class_names(spec: str, file: Path) -> dict[int, str]:
    """{value of a pixel: name}: lines count from 0, or each says its value (``255: road``)."""
    try:
        lines = read_class_names(file)
    except FileNotFoundError:
        raise UserError(f"--data {spec}: no classes.txt, one class name a line") from None
    for line, name in enumerate(lines, start=1):
        if not name:
            raise UserError(f"{file}:{line}: an empty line; the number of a line is the index of a class")
        if lines.index(name) < line - 1:
            raise UserError(f"{file}:{line}: {name} stands twice")
    values = numbered(lines)
    names = dict(enumerate(lines)) if values is None else values
    if len(names) < len(lines) or len(set(names.values())) < len(lines):
        raise UserError(f"{file}: a value or a name stands twice")
    if max(names, default=0) > IGNORE or len(names) > IGNORE:
        raise UserError(f"{file}: {len(lines)} lines; indices of 8 bits allow {IGNORE}")
    if sum(name.lower() not in VOID for name in names.values()) < 2:
        raise UserError(f"{file}: fewer than two classes")
    return names


def _open(spec: str, split: str, images: Path, masks: Path, names: dict[int, str]) -> ImageSource:
    others = LeftOut()
    files, mask_files = _by_place(images, others), _by_place(masks)
    if not files:
        raise UserError(f"--data {spec}: no images in {images}")
    if not mask_files and not masks.is_dir():
        return FolderImages(spec, split, list(files.values()), None, None, others)
    _refuse([file for place, file in files.items() if place not in mask_files], "mask", masks)
    _refuse([file for place, file in mask_files.items() if place not in files], "image", images)
    return MaskImages(spec, split, list(files.values()), [mask_files[place] for place in files], names, others)


def _refuse(alone: list[str], other: str, folder: Path) -> None:
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise UserError(f"{alone[0]}: has no {other} of the same name in {folder}{more}")


def _by_place(folder: Path, others: LeftOut | None = None) -> dict[str, str]:
    """{place and name below the folder, without the suffix: file}. Raises UserError when two files share one."""
    found: dict[str, str] = {}
    for file in image_files(folder, others):
        place = os.path.splitext(os.path.relpath(file, folder))[0]
        if place in found:
            raise UserError(f"{file}: {found[place]} has the same name; which one is meant?")
        found[place] = file
    return found


def class_pixels(images: ImageSource) -> Tensor:
    """(images, classes) int64: pixels of each class in each mask, kept in a file of the cache folder.

    Reads every mask the first time: raises UserError naming the first that is missing or wrong.
    """
    shape = (len(images), len(images.mask_classes or ()))

    def count() -> Tensor:
        counts = torch.empty(shape, dtype=torch.int64)
        for index in range(len(images)):
            counts[index] = torch.from_numpy(np.bincount(images.mask(index).ravel(), minlength=256)[: shape[1]])
        return counts

    key = digest("masks", FORMAT, images.name, images.split, images.fingerprint())
    return cached_tensor(key, "class_pixels", shape, torch.int64, count)
