"""Images with boxes or outlines as YOLO's text files list them (Ultralytics and Roboflow).

``data.yaml`` names the classes and where the images of each split lie. Of ``.../images/NAME.jpg`` the file
``.../labels/NAME.txt`` has a line for each object: ``class x y width height``, the middle and the size of its box, or
``class x1 y1 x2 y2 ...``, its outline; all as shares of the image. An image without such a file has no objects. What
reaches beyond the image is clipped, and a box of which nothing is left is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sweet.errors import UserError, reason
from sweet.files import decode_text

from .class_names import on_disk, one_spelling
from .decode import readable, upright_size
from .findings import Finding
from .folder import FolderImages, image_files
from .images import ImageSource, digest, stamps
from .label_lists import object_findings
from .objects import Objects
from .splits import Splits, split_called

FILE = "data.yaml"
SLACK = 0.01  # of the image; so far outside of 0..1 lies what was rounded, beyond it what is not a share
Shape = tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """One object: its class, its box (x0, y0, x1, y1) and its outline (x1, y1, x2, y2, ...), where it has one."""

    label: int
    box: Shape
    outline: Shape | None


class YoloImages(FolderImages):
    """The images of one split. Raises UserError naming the file and the line that is wrong."""

    def __init__(self, name: str, split: str, files: list[str], classes: list[str], keypoints: bool) -> None:
        super().__init__(name, split, files, None, classes)
        self.texts = [text for text in map(label_file, files) if text.is_file()]
        self.lines: list[list[Line]] = []
        for file in files:
            read = read_labels(label_file(file), len(classes), keypoints)
            kept = [line for line in read if line.box[2] > line.box[0] and line.box[3] > line.box[1]]
            self.left_out += len(read) - len(kept)
            self.lines.append(kept)
        known = [line for several in self.lines for line in several]
        self.has_boxes = True
        self.has_masks = bool(known) and all(line.outline for line in known)
        self.label_lists = [sorted({line.label for line in several}) for several in self.lines]

    def fingerprint(self) -> str:
        return digest(super().fingerprint(), *stamps(map(str, self.texts)))

    def findings(self) -> list[Finding]:
        masks = [bool(line.outline) for several in self.lines for line in several]
        return [*super().findings(), *object_findings(self, masks)]

    def objects(self, index: int) -> Objects:
        with readable(self.where(index)), self.open(index) as image:
            width, height = upright_size(image)
        several = self.lines[index]
        boxes = np.array([line.box for line in several], np.float32).reshape(-1, 4)
        boxes *= np.array([width, height, width, height], np.float32)
        masks = None
        area: Any = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        if self.has_masks:
            masks = np.zeros((len(several), height, width), np.bool_)
            for place, line in enumerate(several):
                masks[place] = filled(line.outline or (), height, width)
            area = masks.sum((1, 2))
        return Objects.of(boxes, [line.label for line in several], [False] * len(several), area, masks)

    def annotation(self, index: int) -> object:
        return self.lines[index]


def filled(outline: Shape, height: int, width: int) -> NDArray[np.bool_]:
    """(H, W): the inside of an outline in shares of the image, as COCO fills polygons."""
    from faster_coco_eval.core import mask as rle

    pixels = (np.array(outline).reshape(-1, 2) * (width, height)).reshape(-1).tolist()
    inside: NDArray[np.bool_] = rle.decode(rle.merge(rle.frPyObjects([pixels], height, width))).astype(np.bool_)
    return inside


def label_file(image: str) -> Path:
    """Where the objects of an image are listed: ``labels`` for the last ``images`` in its path, else beside it."""
    path = Path(image)
    parts = list(path.parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(file: Path, classes: int, keypoints: bool) -> list[Line]:
    """The objects of one image; none where there is no file. Raises UserError naming the line."""
    if not file.is_file():
        return []
    rows = [(number, row.split()) for number, row in enumerate(decode_text(file).splitlines(), 1)]
    return [_line(f"{file}:{number}", words, classes, keypoints) for number, words in rows if words]


def _line(where: str, words: Sequence[str], classes: int, keypoints: bool) -> Line:
    try:
        label, shape = float(words[0]), tuple(map(float, words[1:]))
    except ValueError:
        raise UserError(f"{where}: {' '.join(words)[:80]}: not numbers") from None
    if not (label.is_integer() and 0 <= label < classes):
        raise UserError(f"{where}: class {words[0]}, but {FILE} names {classes} classes, from 0")
    if keypoints:
        shape = shape[:4]  # the points of a pose are nothing that a detector learns
    outline = len(shape) >= 6 and len(shape) % 2 == 0
    if len(shape) != 4 and not outline:
        raise UserError(
            f"{where}: {len(words)} numbers; expected class x y width height, or class x1 y1 x2 y2 x3 y3 ..."
        )
    wrong = next((v for v in shape if not (math.isfinite(v) and -SLACK <= v <= 1 + SLACK)), None)
    if wrong is not None:
        raise UserError(f"{where}: {wrong:g} is not a share of the image, from 0 to 1")
    if outline:
        shape = tuple(min(1.0, max(0.0, value)) for value in shape)
        xs, ys = shape[::2], shape[1::2]
        return Line(int(label), (min(xs), min(ys), max(xs), max(ys)), shape)
    x, y, width, height = shape
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Line(int(label), tuple(min(1.0, max(0.0, value)) for value in corners), None)


def yolo_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of a folder with ``data.yaml``, or of such a file. Raises UserError naming file and key."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"--data {spec}: {f'no {FILE} in {path}' if path.is_dir() else 'no such file or folder'}")
    try:
        content = yaml.safe_load("\n".join(map(str.rstrip, decode_text(file).splitlines())))  # a tab there is an error
    except yaml.YAMLError as problem:
        raise UserError(f"{file}: not valid YAML ({reason(problem)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected keys train, val and names")
    classes = _names(file, content)
    splits: Splits = {}
    for split in content:
        if split_called(str(split)) and content[split]:
            splits[split] = partial(_open, spec, split, file, content, classes)
    if not splits:
        raise UserError(f"{file}: names no images: a key train or val is needed")
    return splits


def _names(file: Path, content: Mapping[str, Any]) -> list[str]:
    """Class names, of a list or of {number: name}. Raises UserError."""
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise UserError(f"{file}: names: the numbers are {list(names)}, expected 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    names = [one_spelling(str(name)) for name in names] if isinstance(names, list) else names
    if not isinstance(names, list) or not names or len(set(names)) < len(names):
        raise UserError(f"{file}: names is {names!r}, expected a list of different names")
    if content.get("nc") not in (None, len(names)):
        raise UserError(f"{file}: nc is {content['nc']}, but names lists {len(names)} classes")
    return names


def _open(spec: str, split: str, file: Path, content: Mapping[str, Any], classes: list[str]) -> ImageSource:
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    files = [image for entry in entries for image in _images(file, split, content.get("path"), str(entry))]
    if not files:
        raise UserError(f"{file}: {split}: no images in {', '.join(map(str, entries))}")
    return YoloImages(spec, split, files, classes, "kpt_shape" in content)


def _images(file: Path, split: str, root: object, entry: str) -> list[str]:
    """Image files of a folder, or of a text file that lists them, one a line."""
    place = _find(file, root, entry)
    if place is None:
        raise UserError(f"{file}: {split}: no such folder or file {entry}")
    if place.is_dir():
        return list(image_files(place))
    if place.suffix != ".txt":
        raise UserError(f"{file}: {split}: {entry} is neither a folder nor a .txt file")
    images = []
    for number, line in enumerate(decode_text(place).splitlines(), 1):
        if name := line.strip():
            image = on_disk(place.parent, name) or on_disk(file.parent, name)
            if image is None:
                raise UserError(f"{place}:{number}: no such image file {name}")
            images.append(str(image))
    return images


def _find(file: Path, root: object, entry: str) -> Path | None:
    """A path of ``data.yaml``: below its key ``path``, or beside the file, also where it says ``../`` (Roboflow)."""
    below = [file.parent, *([file.parent / str(root), Path(str(root)).expanduser()] if root else [])]
    places = [folder / name for folder in reversed(below) for name in (entry, entry.removeprefix("../"))]
    return next((place for place in places if place.exists()), None)
