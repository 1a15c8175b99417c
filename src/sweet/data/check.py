"""``sweet data check`` and ``sweet data pack``: look at every image once, or write all of them resized."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sweet.errors import UserError
from sweet.files import replacing, write_text

from .images import IGNORE, ImageSource
from .packed import resize_square
from .packed_file import write_packed
from .sources import source_splits
from .subset import up_to

STATISTICS_IMAGES = 2000
SHARD_IMAGES = 50_000
ROW_GROUP_IMAGES = 1000


def check(spec: str) -> dict[str, Any]:
    """Decode every image of every split of a source.

    Per split: count, images per class, percent of pixels per class where there are masks, (width, height) as min,
    median and max, colour modes, corrupt files, groups of pixel-identical images, and mean and std per channel of at
    most 2000 images, in 0..1. Over all: images of one split that are also in another. Raises UserError when the source
    cannot be read at all.
    """
    seen: dict[bytes, list[tuple[str, str]]] = {}  # pixels' hash: (split, file) of every image with them
    splits = {split: _check_split(split, opened(), seen) for split, opened in source_splits(spec).items()}
    shared = [[where for _, where in group] for group in seen.values() if len({split for split, _ in group}) > 1]
    return {"source": spec, "splits": splits, "duplicates_across_splits": shared}


def pack_to(
    spec: str, out: Path, img_size: int, *, per_class: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Write every split at another size: short side ``img_size``, then a centre crop.

    ``out`` is a folder of parquet files in the Hugging Face layout, read by ``parquet:OUT``, of PNG images, or of the
    bytes as they are where nothing changes; or a file ``.safetensors`` of plain pixels, read by ``packed:OUT``.
    ``per_class`` takes at most so many images of each class of a split, drawn by ``seed``; splits that it does not name
    are left out. Raises UserError naming the file of a corrupt image; files appear only once complete.
    """
    report: dict[str, Any] = {"source": spec, "out": str(out), "img_size": img_size, "images": {}}
    splits = source_splits(spec)
    for split in per_class or ():
        if split not in splits:
            raise UserError(f"--per-class {split}=N: {spec} has no such split, it has {', '.join(splits)}")
    chosen = {split: _part(splits[split](), per_class, seed) for split in per_class or splits}
    if out.suffix == ".safetensors":
        write_packed(out, chosen, img_size)
        report["images"] = {split: len(images) for split, images in chosen.items()}
        return report | {"bytes": out.stat().st_size}
    for split, images in chosen.items():
        out.mkdir(parents=True, exist_ok=True)
        shards = -(-len(images) // SHARD_IMAGES)
        for shard in range(shards):
            rows = range(shard * SHARD_IMAGES, min((shard + 1) * SHARD_IMAGES, len(images)))
            _write_shard(out / f"{split}-{shard:05d}-of-{shards:05d}.parquet", images, rows, img_size)
        report["images"][split] = len(images)
        if images.classes:
            write_text(out / "classes.txt", "".join(f"{name}\n" for name in images.classes))
    return report | {"bytes": sum(file.stat().st_size for file in out.glob("*.parquet"))}


def _part(images: ImageSource, per_class: Mapping[str, int] | None, seed: int) -> ImageSource:
    if per_class is None:
        return images
    if images.labels is None:
        raise UserError(f"--per-class: {images.name} has no class labels")
    return images.select(up_to(images.labels, per_class[images.split], seed))


def _check_split(split: str, images: ImageSource, seen: dict[bytes, list[tuple[str, str]]]) -> dict[str, Any]:
    sizes, modes, corrupt = [], Counter[str](), []
    pixels = np.zeros(256, dtype=np.int64)  # of each value of the masks
    objects = Counter[int]()
    groups: dict[bytes, list[str]] = {}
    measured = set(np.linspace(0, len(images) - 1, min(len(images), STATISTICS_IMAGES)).astype(int).tolist())
    statistics = []
    for index in range(len(images)):
        where = images.where(index)
        try:
            image = images.decode(index)
            if images.has_boxes:
                objects.update(images.objects(index).labels.tolist())
        except UserError as problem:
            corrupt.append(str(problem))
            continue
        sizes.append(image.size)
        modes[_stored_mode(images, index)] += 1
        key = hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()
        groups.setdefault(key, []).append(where)
        seen.setdefault(key, []).append((split, where))
        if index in measured:
            statistics.append(_moments(image))
        if images.mask_classes is not None:
            try:
                pixels += np.bincount(images.mask(index).ravel(), minlength=256)
            except UserError as problem:
                corrupt.append(str(problem))
    return {
        "count": len(images),
        "classes": _per_class(images),
        "mask_classes": _shares(images, pixels),
        **_objects(images, objects),
        "sizes": _size_range(sizes),
        "modes": dict(modes),
        "corrupt": corrupt,
        "duplicates": [group for group in groups.values() if len(group) > 1],
        **_mean_and_std(statistics),
    }


def _stored_mode(images: ImageSource, index: int) -> str:
    with images.open(index) as image:
        return image.mode


def _per_class(images: ImageSource) -> dict[str, int] | None:
    if images.labels is None or images.classes is None:
        return None
    counts = Counter(images.labels)
    return {name: counts[label] for label, name in enumerate(images.classes)}


def _shares(images: ImageSource, pixels: np.ndarray) -> dict[str, float] | None:
    if images.mask_classes is None:
        return None
    shares = 100 * pixels / max(1, pixels.sum())
    named = {name: round(float(shares[label]), 3) for label, name in enumerate(images.mask_classes)}
    return named | {"no class": round(float(shares[IGNORE]), 3)}


def _objects(images: ImageSource, counts: Counter[int]) -> dict[str, Any]:
    if not images.has_boxes or images.classes is None:
        return {}
    per_class = {name: counts[label] for label, name in enumerate(images.classes)}
    return {"objects": {"per_class": per_class, "masks": images.has_masks, "left_out": images.left_out}}


def _size_range(sizes: list[tuple[int, int]]) -> dict[str, list[int]] | None:
    """Width and height apart: the median of each need not be the size of any image."""
    if not sizes:
        return None
    both = np.array(sizes)
    return {
        "min": both.min(0).tolist(),
        "median": np.median(both, 0).astype(int).tolist(),
        "max": both.max(0).tolist(),
    }


def _moments(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square per channel of one image, in 0..1: every image counts alike, whatever its size."""
    pixels = np.asarray(image, dtype=np.float32).reshape(-1, 3) / 255
    return pixels.mean(0), (pixels**2).mean(0)


def _mean_and_std(statistics: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float] | None]:
    if not statistics:
        return {"mean": None, "std": None}
    mean, square = (np.mean(values, 0) for values in zip(*statistics, strict=True))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return {"mean": [round(float(x), 4) for x in mean], "std": [round(float(x), 4) for x in std]}


def _write_shard(file: Path, images: ImageSource, rows: range, img_size: int) -> None:
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    if images.labels is not None:
        features["label"] = {"names": images.classes, "_type": "ClassLabel"}
        fields.append(pa.field("label", pa.int64()))
    schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    # Images are compressed already, but small JPEG files are a third tables, and those are alike.
    with replacing(file) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for first in range(rows.start, rows.stop, ROW_GROUP_IMAGES):
            group = range(first, min(first + ROW_GROUP_IMAGES, rows.stop))
            columns: dict[str, list[Any]] = {"image": [_encoded(images, index, img_size) for index in group]}
            if images.labels is not None:
                columns["label"] = [images.labels[index] for index in group]
            writer.write_table(pa.table(columns, schema=schema))
    file.chmod(0o644)


def _encoded(images: ImageSource, index: int, img_size: int) -> dict[str, Any]:
    image, kept = images.decode(index), images.stored(index)
    if kept is not None and image.size == (img_size, img_size):
        return {"bytes": kept, "path": f"{images.split}-{index:07d}"}
    buffer = io.BytesIO()
    resize_square(image, img_size).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": f"{images.split}-{index:07d}.png"}
