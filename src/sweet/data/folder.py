"""Images in folders, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from sweet.errors import UserError

from .images import ImageSource, digest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
SPLITS = ("train", "val", "valid", "validation", "test")


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
        stats = ((file, os.stat(file)) for file in self.files)
        return digest(*((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


def folder_splits(spec: str, path: Path) -> dict[str, Callable[[], ImageSource]]:
    """{split: opens it} of ``<split>/<class>/*``, ``<class>/*`` (train) or ``*`` (train, no labels)."""
    check_folder(spec, path)
    splits = split_folders(path)
    if not splits:
        return {"train": partial(_open, spec, "train", path, _subfolders(path))}
    # All splits share one list of classes, so that a class missing from one does not shift the labels.
    classes = sorted({name for split in splits for name in _subfolders(path / split)})
    return {split: partial(_open, spec, split, path / split, classes) for split in splits}


def check_folder(spec: str, path: Path) -> None:
    """Raises UserError when ``path`` is no folder."""
    if not path.is_dir():
        raise UserError(f"--data {spec}: {'not a folder' if path.exists() else 'no such folder'}")


def split_folders(path: Path) -> list[str]:
    """The subfolders of a folder if they are splits.

    A class may be called "test"; a folder of splits has a train folder or nothing but splits.
    """
    names = _subfolders(path)
    splits = [name for name in names if name in SPLITS]
    return splits if "train" in splits or len(splits) == len(names) else []


def _open(spec: str, split: str, path: Path, classes: list[str]) -> ImageSource:
    labelled = [(file, label) for label, name in enumerate(classes) for file in image_files(path / name)]
    if labelled:
        return FolderImages(spec, split, [file for file, _ in labelled], [label for _, label in labelled], classes)
    files = list(image_files(path))
    if not files:
        raise UserError(f"--data {spec}: no images in {path}")
    return FolderImages(spec, split, files, None, None)


def _subfolders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def image_files(path: Path) -> Iterator[str]:
    """Image files under a folder, at any depth, in a fixed order."""
    for folder, below, names in os.walk(path, followlinks=True):
        below.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(folder, name)
