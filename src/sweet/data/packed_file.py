"""A set of small images as one safetensors file, ``packed:PATH``: for a machine without a network.

``<split>.images`` (N, C, H, W) uint8, ``<split>.labels`` (N,) int64, or (N, K) uint8 of lists of labels, unless
unlabelled; class names in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sweet.errors import UserError
from sweet.files import read_tensors, write_tensors
from sweet.template.image_size import ImageSize

from .bands import Stored, StoredBands
from .images import ImageSource, digest
from .label_lists import label_tensor
from .packed import centre_crop
from .splits import Splits

IMAGES, LABELS, CLASSES = ".images", ".labels", "classes"


class PackedImages(ImageSource):
    """One split of a packed file."""

    def __init__(self, spec: str, split: str, path: Path) -> None:
        tensors = read_tensors(path)
        self.images, labels = tensors[split + IMAGES], tensors.get(split + LABELS)
        self.path = path
        stamp = path.stat()
        self._fingerprint = digest(spec, split, stamp.st_size, stamp.st_mtime_ns)
        super().__init__(spec, split, len(self.images), None, None if labels is None else _classes(path))
        if labels is not None and labels.dim() == 1:
            self.labels = labels.tolist()
        elif labels is not None:
            self.label_lists = [row.nonzero()[:, 0].tolist() for row in labels]

    def open(self, index: int) -> Stored:
        values = self.images[index].permute(1, 2, 0).contiguous().numpy()
        return Image.fromarray(values) if values.shape[2] == 3 else StoredBands(values)

    def where(self, index: int) -> str:
        return f"{self.path} {self.split} image {index}"

    def fingerprint(self) -> str:
        return self._fingerprint


def packed_splits(spec: str, path: Path) -> Splits:
    """{split: opens it} of a packed file. Raises UserError for any other file."""
    if not path.is_file():
        raise UserError(f"--data {spec}: no such file")
    try:
        tensors = read_tensors(path)
    except UserError as problem:
        raise UserError(f"--data {spec}: {problem}") from None
    splits: Splits = {}
    for name, value in tensors.items():
        if name.endswith(IMAGES):
            if value.dtype != torch.uint8 or value.dim() != 4:
                raise UserError(
                    f"--data {spec}: {name} is {value.dtype} {tuple(value.shape)}, expected uint8 N, C, H, W"
                )
            split = name.removesuffix(IMAGES)
            splits[split] = partial(PackedImages, spec, split, path)
    if not splits:
        raise UserError(f"--data {spec}: holds no images; make one with sweet data pack --out FILE.safetensors")
    return splits


def write_packed(path: Path, splits: Mapping[str, ImageSource], img_size: ImageSize) -> None:
    """The centre of every image, see :func:`.packed.resized`.

    Raises UserError naming a corrupt one, and for splits whose classes differ by more than some that are absent.
    """
    tensors: dict[str, Tensor] = {}
    # one list for all splits
    classes = max(filter(None, (images.classes for images in splits.values())), key=len, default=None)
    for split, images in splits.items():
        if images.classes not in (None, classes) and not images.relabelled(classes or ()):
            raise UserError(f"--out {path}: {split} of {images.name} has other classes than another split")
        kernel = images.pixel_format.interpolation
        pixels = (centre_crop(images.decode(index), img_size, kernel) for index in range(len(images)))
        tensors[split + IMAGES] = torch.stack(list(pixels))
        labels = label_tensor(images)
        if labels is not None:
            tensors[split + LABELS] = labels if images.labels is not None else labels.to(torch.uint8)
    write_tensors(path, tensors, {CLASSES: json.dumps(classes)})


def _classes(path: Path) -> list[str] | None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        found: list[str] | None = json.loads((file.metadata() or {}).get(CLASSES, "null"))
    return found
