"""Images with boxes and masks as COCO's JSON files list them (cocodataset.org, "data format").

Boxes are clipped to their image. An object of which nothing is left (a box outside, or without width or height) is left
out and counted. An image without objects is kept: it teaches what is no object. Masks are polygons or run lengths.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweet.errors import UserError
from sweet.files import read_json

from .bands import Picture
from .class_names import check_distinct, on_disk, one_spelling
from .findings import Finding, some_names
from .folder import FolderImages
from .images import ImageSource, digest, rarest, stamps
from .label_lists import object_findings
from .objects import Objects
from .splits import Splits, split_folders

PREFIX = "instances_"
POLYGON = 6  # numbers of the smallest: three points


@dataclass(frozen=True)
class Annotation:
    """One object: box (x0, y0, x1, y1) in pixels, clipped; area in pixels where the file gives one; mask as stored."""

    id: object
    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    area: float | None
    segmentation: Any


class CocoImages(FolderImages):
    """The images of one annotation file. Raises UserError naming the file and the entry that is wrong in it."""

    def __init__(self, name: str, split: str, file: Path, folders: list[Path]) -> None:
        self.file = file
        content = read_json(file)
        entries, annotations, categories = (self._list(content, key) for key in ("images", "annotations", "categories"))
        categories = without_parent(categories, annotations)
        numbers = {self._value(c, "category", "id", int): self._value(c, "category", "name", str) for c in categories}
        if len(numbers) < len(categories) or len(set(numbers.values())) < len(categories):
            raise UserError(f"{file}: two categories have one id or one name")
        classes = [one_spelling(numbers[number]) for number in sorted(numbers)]
        check_distinct(str(file), classes)
        self.ids = [self._value(entry, "image", "id", int) for entry in entries]
        if len(set(self.ids)) < len(self.ids):
            raise UserError(f"{file}: two images have one id")
        self.sizes = [(self._pixels(entry, "width"), self._pixels(entry, "height")) for entry in entries]
        files = self._find([self._value(entry, "image", "file_name", str) for entry in entries], folders)
        super().__init__(name, split, files, None, classes)
        self.annotations: list[list[Annotation]] = [[] for _ in entries]  # of each image
        self._sort_in(annotations, {number: label for label, number in enumerate(sorted(numbers))})
        self.has_boxes = True
        self.label_lists = [sorted({one.label for one in several}) for several in self.annotations]
        known = [one for several in self.annotations for one in several]
        self.has_masks = bool(known) and all(one.segmentation for one in known)

    def fingerprint(self) -> str:
        return digest(*stamps([*self.files, str(self.file)]))

    def decode(self, index: int) -> Picture:
        """Upright. Raises UserError when it has not the size that its boxes were drawn in."""
        image = super().decode(index)
        if image.size != self.sizes[index]:
            found, listed = ("x".join(map(str, size)) for size in (image.size, self.sizes[index]))
            raise UserError(f"{self.where(index)}: has {found} pixels, but {listed} in {self.file}")
        return image

    def objects(self, index: int) -> Objects:
        """Raises UserError naming the annotation whose mask cannot be read."""
        several = self.annotations[index]
        masks = None
        if self.has_masks:
            width, height = self.sizes[index]
            masks = np.zeros((len(several), height, width), np.bool_)
            for place, one in enumerate(several):
                masks[place] = self._mask(one, height, width)
        area = [one.area for one in several]
        for place, (x0, y0, x1, y1) in enumerate(one.box for one in several):
            if area[place] is None:
                area[place] = (x1 - x0) * (y1 - y0) if masks is None else masks[place].sum()
        boxes, labels, crowd = ([getattr(one, key) for one in several] for key in ("box", "label", "crowd"))
        return Objects.of(boxes, labels, crowd, area, masks)

    def annotation(self, index: int) -> object:
        return [replace(one, id=None) for one in self.annotations[index]]  # numbers may be given anew

    def strata(self) -> list[int]:
        """For each image the rarest class of its objects; images without objects are a class of their own."""
        return rarest([[one.label for one in several] for several in self.annotations], none=len(self.classes or ()))

    def findings(self) -> list[Finding]:
        objects = [one for several in self.annotations for one in several]
        crowd = [f"id {one.id}" for one in objects if one.crowd]
        lengths = [f"id {one.id}" for one in objects if not one.crowd and isinstance(one.segmentation, dict)]
        found = object_findings(self, [bool(one.segmentation) for one in objects])
        if crowd:
            handling = "not learned, and no error to find or miss"
            found.append(Finding(self.split, some_names(crowd, "crowd regions"), handling))
        if lengths:
            found.append(Finding(self.split, some_names(lengths, "masks as run lengths"), "read like polygons"))
        return found

    def _mask(self, one: Annotation, height: int, width: int) -> NDArray[np.bool_]:
        from faster_coco_eval.core import mask as rle

        shape = one.segmentation
        try:
            if isinstance(shape, list):
                if short := [len(polygon) for polygon in shape if len(polygon) < POLYGON or len(polygon) % 2]:
                    raise ValueError(f"a polygon of {short[0]} numbers, x and y of three points are the least")
                shape = rle.merge(rle.frPyObjects(shape, height, width))
            elif isinstance(shape["counts"], list):
                shape = rle.frPyObjects(shape, height, width)
            if list(shape["size"]) != [height, width]:
                raise ValueError(f"its size is {shape['size']}, the image's [{height}, {width}]")
            return rle.decode(shape).astype(np.bool_)
        except (ValueError, RuntimeError, TypeError, KeyError, IndexError) as problem:
            raise UserError(f"{self.file}: annotation {one.id}: not a mask ({problem})") from None

    def _sort_in(self, annotations: list[Any], labels: dict[int, int]) -> None:
        """Check every annotation and give it to its image. ``labels``: the class index of each category's id."""
        places = {number: place for place, number in enumerate(self.ids)}
        for one in annotations:
            number = one.get("id") if isinstance(one, dict) else one
            image, category = (self._value(one, "annotation", key, int) for key in ("image_id", "category_id"))
            if image not in places:
                raise UserError(f"{self.file}: annotation {number}: there is no image {image}")
            if category not in labels:
                raise UserError(f"{self.file}: annotation {number}: there is no category {category}")
            box = one.get("bbox")
            if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
                raise UserError(f"{self.file}: annotation {number}: bbox {box} is not [x, y, width, height]")
            width, height = self.sizes[places[image]]
            x0, y0 = max(0.0, box[0]), max(0.0, box[1])
            x1, y1 = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
            if x1 <= x0 or y1 <= y0:
                self.left_out += 1
                continue
            area = one["area"] if _is_number(one.get("area")) else None
            crowd = bool(one.get("iscrowd", 0))
            kept = Annotation(number, (x0, y0, x1, y1), labels[category], crowd, area, one.get("segmentation"))
            self.annotations[places[image]].append(kept)

    def _find(self, names: list[str], folders: list[Path]) -> list[str]:
        """Where the image files lie: in the first of the folders that has the first of them."""
        if not names:
            raise UserError(f"{self.file}: lists no images")
        folder = next((folder for folder in folders if on_disk(folder, names[0])), folders[0])
        found = []
        for name in names:
            file = on_disk(folder, name)
            if file is None:
                raise UserError(f"{self.file}: no such image file {folder / name}")
            found.append(str(file))
        return found

    def _list(self, content: Any, key: str) -> list[Any]:
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list):
            raise UserError(f"{self.file}: not a COCO file, it has no list {key!r}")
        return found

    def _value(self, entry: Any, what: str, key: str, wanted: type) -> Any:
        found = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(found, wanted) or isinstance(found, bool):
            number = entry.get("id") if isinstance(entry, dict) else entry
            raise UserError(f"{self.file}: {what} {number}: {key} is {found!r}, not {wanted.__name__}")
        return found

    def _pixels(self, entry: Any, key: str) -> int:
        found: int = self._value(entry, "image", key, int)
        if found < 1:
            raise UserError(f"{self.file}: image {entry['id']}: {key} is {found}")
        return found


def coco_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of a folder with ``annotations/instances_<split>.json``, or of one such file.

    Images lie in ``images/``, in ``images/<split>/``, in ``<split>/`` (as COCO itself comes) or beside the file. The
    year in ``train2017`` does not count; a file of another name is ``train``. A folder may also have a folder for each
    split, with one JSON file beside its images (as Roboflow exports it). Raises UserError.
    """
    if path.is_file():
        return dict([_split(spec, path, [path.parent, path.parent.parent])])
    if not path.is_dir():
        raise UserError(f"--data {spec}: no such file or folder")
    files = sorted((path / "annotations").glob(f"{PREFIX}*.json"))
    if not files and (beside := _files_beside_images(spec, path)):
        return {split: partial(CocoImages, spec, split, file, [file.parent]) for split, file in beside.items()}
    if not files:
        raise UserError(
            f"--data {spec}: no {path / 'annotations' / PREFIX}*.json, and no JSON file beside images in train/, val/"
        )
    splits: Splits = {}
    for file in files:
        split, opened = _split(spec, file, [path])
        if split in splits:
            raise UserError(
                f"--data {spec}: {file.name} is not the only file of the split {split}; name one as coco:FILE"
            )
        splits[split] = opened
    return splits


def _files_beside_images(spec: str, path: Path) -> dict[str, Path]:
    """{split: its JSON file} of split folders. Raises UserError where one has several."""
    found: dict[str, Path] = {}
    for split in split_folders(path):
        files = sorted((path / split).glob("*.json"))
        if len(files) > 1:
            raise UserError(f"--data {spec}: {path / split} has {len(files)} JSON files, expected one")
        if files:
            found[split] = files[0]
    return found


def without_parent(categories: list[Any], annotations: list[Any]) -> list[Any]:
    """The categories without the one that only groups the others, which Roboflow adds: its number has no objects."""

    def of(entry: Any, key: str) -> Any:
        value = entry.get(key) if isinstance(entry, dict) else None
        return value if isinstance(value, str | int) else None  # the reader names what is neither

    used = {of(one, "category_id") for one in annotations}
    groups = {of(category, "supercategory") for category in categories}

    def parent(category: Any) -> bool:
        named = of(category, "name") in groups - {"none"} and of(category, "supercategory") == "none"
        return named and of(category, "id") not in used

    return [category for category in categories if not parent(category)]


def _split(spec: str, file: Path, roots: list[Path]) -> tuple[str, Callable[[], ImageSource]]:
    full = file.stem.removeprefix(PREFIX) if file.stem.startswith(PREFIX) else "train"
    split = re.sub(r"^(train|val|test)\d{4}$", r"\1", full)
    folders = [root / place for root in roots for place in ("images", f"images/{full}", full, "")]
    return split, partial(CocoImages, spec, split, file, folders)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
