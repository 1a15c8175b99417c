"""Images with a class for every pixel: a picture of class indices beside each image, ``masks:PATH``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sweet.errors import UserError

from .cached import cached_tensor
from .class_names import CLASSES_FILE, read_class_names
from .decode import readable, upright_size
from .folder import FolderImages, check_folder, image_files
from .images import IGNORE, ImageSource, digest, stamps
from .splits import Splits, split_folders

VOID = {"void", "ignore", "unlabelled", "unlabeled"}  # names of what is no class
MODES = ("L", "P", "1")  # of Pillow: grey, palette and black and white hold one index per pixel
FORMAT = 1  # part of the cache key: raise it when the pixels of a mask change


class MaskImages(FolderImages):
    """Image files, each with a mask file; ``names`` are the lines of ``classes.txt``.

    The value of a pixel is a line of ``classes.txt``, counted from 0. Lines of a name in ``VOID``, and the value 255,
    have no class; the others are the classes, in their order.
    """

    def __init__(self, name: str, split: str, files: list[str], masks: list[str], names: list[str]) -> None:
        super().__init__(name, split, files, None, None)
        self.masks, self.names = masks, names
        self.mask_classes = [word for word in names if word.lower() not in VOID]
        self.class_of = np.full(256, IGNORE, dtype=np.uint8)  # of each value of a pixel
        for label, word in enumerate(self.mask_classes):
            self.class_of[names.index(word)] = label

    def mask(self, index: int) -> NDArray[np.uint8]:
        file = self.masks[index]
        with readable(file, "mask"), Image.open(file) as picture:
            mode, values = picture.mode, np.asarray(picture)
        if mode not in MODES:
            raise UserError(f"{file}: mode {mode}; a mask is an 8-bit grey or palette picture of class indices")
        values = values.astype(np.uint8)
        with readable(self.where(index)), self.open(index) as image:
            shape = upright_size(image)[::-1]
        if values.shape != shape:
            has, wants = (f"{columns}x{rows}" for rows, columns in (values.shape, shape))
            raise UserError(f"{file}: {has} pixels, its image {self.where(index)} has {wants}")
        known = (values < len(self.names)) | (values == IGNORE)
        if not known.all():
            last = len(self.names) - 1
            raise UserError(
                f"{file}: value {values[~known][0]} is no line of classes.txt (0 to {last}, or 255: no class)"
            )
        return self.class_of[values]

    def fingerprint(self) -> str:
        masks = (value for stamp in stamps(self.masks) for value in stamp)
        return digest(super().fingerprint(), *self.names, *masks)


def mask_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of ``images/``, ``masks/`` and ``classes.txt``; without ``<split>/`` subfolders all is train.

    A mask has the place and name of its image, whatever the suffix. Raises UserError naming the file.
    """
    check_folder(spec, path)
    for name in ("images", "masks"):
        if not (path / name).is_dir():
            raise UserError(f"--data {spec}: has no folder {name}")
    names = _class_names(spec, path / CLASSES_FILE)
    splits = split_folders(path / "images")
    places = {split: (path / "images" / split, path / "masks" / split) for split in splits}
    places = places or {"train": (path / "images", path / "masks")}
    return {split: partial(_open, spec, split, *folders, names) for split, folders in places.items()}


def _class_names(spec: str, file: Path) -> list[str]:
    try:
        names = read_class_names(file)
    except FileNotFoundError:
        raise UserError(f"--data {spec}: no classes.txt, one class name a line") from None
    for line, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"{file}:{line}: an empty line; the number of a line is the index of a class")
        if names.index(name) < line - 1:
            raise UserError(f"{file}:{line}: {name} stands twice")
    if len(names) > IGNORE:
        raise UserError(f"{file}: {len(names)} lines; indices of 8 bits allow {IGNORE}")
    if sum(name.lower() not in VOID for name in names) < 2:
        raise UserError(f"{file}: fewer than two classes")
    return names


def _open(spec: str, split: str, images: Path, masks: Path, names: list[str]) -> ImageSource:
    files, mask_files = _by_place(images), _by_place(masks)
    if not files:
        raise UserError(f"--data {spec}: no images in {images}")
    _refuse([file for place, file in files.items() if place not in mask_files], "mask", masks)
    _refuse([file for place, file in mask_files.items() if place not in files], "image", images)
    return MaskImages(spec, split, list(files.values()), [mask_files[place] for place in files], names)


def _refuse(alone: list[str], other: str, folder: Path) -> None:
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise UserError(f"{alone[0]}: has no {other} of the same name in {folder}{more}")


def _by_place(folder: Path) -> dict[str, str]:
    """{place and name below the folder, without the suffix: file}. Raises UserError when two files share one."""
    found: dict[str, str] = {}
    for file in image_files(folder):
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
