"""Images in folders, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from sweet.errors import UserError

from .images import ImageSource, digest, stamps
from .splits import Splits, split_folders, subfolders

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")


class FolderImages(ImageSource):
    """Image files, decoded one by one."""

    def __init__(
        self, name: str, split: str, files: list[str], labels: list[int] | None, classes: list[str] | None
    ) -> None:
        super().__init__(name, split, len(files), labels, classes)
        self.files = files

    def open(self, index: int) -> Image.Image:
        return Image.open(self.files[index])

    def where(self, index: int) -> str:
        return self.files[index]

    def fingerprint(self) -> str:
        return digest(*stamps(self.files))


def folder_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of ``<split>/<class>/*``, ``<class>/*`` (train) or ``*`` (train, no labels)."""
    check_folder(spec, path)
    splits = split_folders(path)
    if not splits:
        return {"train": partial(_open, spec, "train", path, subfolders(path))}
    # All splits share one list of classes, so that a class missing from one does not shift the labels.
    classes = sorted({name for split in splits for name in subfolders(path / split)})
    return {split: partial(_open, spec, split, path / split, classes) for split in splits}


def check_folder(spec: str, path: Path) -> None:
    """Raises UserError when ``path`` is no folder."""
    if not path.is_dir():
        raise UserError(f"--data {spec}: {'not a folder' if path.exists() else 'no such folder'}")


def _open(spec: str, split: str, path: Path, classes: list[str]) -> ImageSource:
    labelled = [(file, label) for label, name in enumerate(classes) for file in image_files(path / name)]
    if labelled:
        return FolderImages(spec, split, [file for file, _ in labelled], [label for _, label in labelled], classes)
    files = list(image_files(path))
    if not files:
        raise UserError(f"--data {spec}: no images in {path}")
    return FolderImages(spec, split, files, None, None)


def image_files(path: Path) -> Iterator[str]:
    """Image files under a folder, at any depth, in a fixed order."""
    for folder, below, names in os.walk(path, followlinks=True):
        below.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(folder, name)
