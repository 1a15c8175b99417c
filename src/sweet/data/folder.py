"""Images in folders, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sweet.errors import UserError

from .bands import Stored
from .class_names import one_spelling
from .decode import open_stored
from .findings import Finding, some_names
from .images import ImageSource, digest, stamps
from .splits import Splits, goes_round, holds_splits, is_hidden, like_splits, split_called, split_folders, subfolders

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tif", ".tiff", ".jp2", ".avif", ".npy"),
)
TEXTS = (".txt", ".csv", ".json", ".md", ".html", ".xml", ".yaml", ".pdf", ".zip", ".ds_store", ".db", ".ini")


@dataclass
class LeftOut:
    """What lies among the images and is none: files of another suffix, links that go round, what is no file."""

    suffixes: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)
    no_files: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    hidden: int = 0
    loose: list[str] = field(default_factory=list)  # images beside the folders of the classes
    joined: list[str] = field(default_factory=list)  # classes of which a folder is spelled in another way
    like_splits: list[str] = field(default_factory=list)  # classes that are called as if they were splits
    sets: list[Path] = field(default_factory=list)  # folders of classes that hold splits

    def findings(self, split: str) -> list[Finding]:
        """A line for each sort of thing."""
        found = []
        other = [f"{count} {suffix}" for suffix, count in self.suffixes.most_common() if suffix not in TEXTS]
        if other:
            found.append(Finding(split, f"files of unknown suffix ({some_names(other)})", "left out", warn=True))
        for names, what, handling in (
            (self.loose, "images beside the folders of the classes", "left out: they have no class"),
            (self.like_splits, "folders with names like splits", "taken for classes; splits are train, val and test"),
            (self.loops, "links to a folder they lie in", "not followed"),
            (self.no_files, "entries that are no files (FIFOs, devices)", "left out"),
            (self.unreadable, "folders that cannot be read", "left out"),
        ):
            if names:
                found.append(Finding(split, some_names(names, what), handling, warn=True))
        if self.sets:
            inside = some_names([inner.name for inner in self.sets], "folders with splits inside")
            handling = f"taken for classes; for its splits say folder:{self.sets[0]}"
            found.append(Finding(split, inside, handling, warn=True))
        if self.hidden:
            found.append(Finding(split, f"{self.hidden} hidden files or folders", "left out"))
        if self.joined:
            found.append(
                Finding(split, some_names(self.joined, "classes in two spellings"), "taken for one class each")
            )
        return found


class FolderImages(ImageSource):
    """Image files, decoded one by one."""

    def __init__(
        self,
        name: str,
        split: str,
        files: list[str],
        labels: list[int] | None,
        classes: list[str] | None,
        left_out: LeftOut | None = None,
    ) -> None:
        super().__init__(name, split, len(files), labels, classes)
        self.files = files
        self.others = left_out or LeftOut()

    def open(self, index: int) -> Stored:
        return open_stored(self.files[index])

    def where(self, index: int) -> str:
        return self.files[index]

    def fingerprint(self) -> str:
        return digest(*stamps(self.files))

    def findings(self) -> list[Finding]:
        return self.others.findings(self.split)


def folder_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of ``<split>/<class>/*``, ``<class>/*`` (train) or ``*`` (train, no labels)."""
    check_folder(spec, path)
    splits = split_folders(path)
    if not splits:
        return {"train": partial(_open, spec, "train", path, _spellings(subfolders(path)))}
    # All splits share one list of classes, so that a class missing from one does not shift the labels.
    classes = _spellings([name for split in splits for name in subfolders(path / split)])
    return {split: partial(_open, spec, split, path / split, classes) for split in splits}


def check_folder(spec: str, path: Path) -> None:
    """Raises UserError when ``path`` is no folder that can be read."""
    if not path.is_dir():
        raise UserError(f"--data {spec}: {'not a folder' if path.exists() else 'no such folder'}")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"--data {spec}: the folder may not be read (permission denied)")


def _spellings(folders: list[str]) -> dict[str, list[str]]:
    """{class: its folders}, sorted; more than one where a name is written in several ways that look the same."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        found.setdefault(one_spelling(folder), set()).add(folder)
    return {name: sorted(found[name]) for name in sorted(found)}


def _open(spec: str, split: str, path: Path, classes: dict[str, list[str]]) -> ImageSource:
    joined = [name for name, folders in classes.items() if len(folders) > 1]
    others = LeftOut(joined=joined, like_splits=like_splits(list(classes)))
    if not split_called(path.name):
        others.sets = [path / name for name in subfolders(path) if holds_splits(path / name)]
    labelled = [
        (file, label)
        for label, folders in enumerate(classes.values())
        for folder in folders
        for file in image_files(path / folder, others)
    ]
    if labelled:
        others.loops += sorted(str(entry) for entry in path.iterdir() if goes_round(entry))
        loose = [entry.name for entry in path.iterdir() if entry.is_file() and entry.name.lower().endswith(SUFFIXES)]
        if loose:
            others.loose = sorted(loose)
        return FolderImages(
            spec, split, [file for file, _ in labelled], [label for _, label in labelled], list(classes), others
        )
    files = list(image_files(path, others := LeftOut()))
    if not files:
        raise UserError(f"--data {spec}: no images in {path}")
    return FolderImages(spec, split, files, None, None, others)


def image_files(path: Path, others: LeftOut | None = None) -> Iterator[str]:
    """Image files under a folder, at any depth, in a fixed order; what is left out is noted in ``others``.

    Links are followed, but not into a folder that the link lies in.
    """
    others = others or LeftOut()
    if not path.is_dir():
        return
    # for each folder: itself and those it lies in
    above: dict[str, frozenset[tuple[int, int]]] = {os.path.dirname(path): _outer_folders(path)}

    def note(problem: OSError) -> None:
        others.unreadable.append(str(problem.filename))

    for folder, below, names in os.walk(path, followlinks=True, onerror=note):
        here = os.stat(folder)
        outer = above.get(os.path.dirname(folder), frozenset())
        if (here.st_dev, here.st_ino) in outer:
            others.loops.append(folder)
            below.clear()
            continue
        above[folder] = outer | {(here.st_dev, here.st_ino)}
        others.hidden += sum(map(is_hidden, below))
        below[:] = sorted(name for name in below if not is_hidden(name))
        for name in sorted(names):
            yield from _if_image(folder, name, others)


def _outer_folders(path: Path) -> frozenset[tuple[int, int]]:
    """Device and number of every folder that a folder lies in."""
    stats = [os.stat(folder) for folder in path.absolute().resolve().parents]
    return frozenset((stat.st_dev, stat.st_ino) for stat in stats)


def _if_image(folder: str, name: str, others: LeftOut) -> Iterator[str]:
    file = os.path.join(folder, name)
    if is_hidden(name):
        others.hidden += 1
    elif not name.lower().endswith(SUFFIXES):
        others.suffixes[os.path.splitext(name)[1].lower() or "without"] += 1
    elif os.path.isfile(file) or not os.path.exists(file):  # a link to nothing is an image that is missing
        yield file
    else:
        others.no_files.append(file)
