"""``sweet data pack``: write the images of a source resized, as parquet files or as one file of plain pixels."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sweet.console import say
from sweet.errors import UserError
from sweet.files import replacing, write_text
from sweet.template.image_size import ImageSize, sides

from .bands import Bands
from .class_names import CLASSES_FILE
from .decode import PixelFormat
from .images import ImageSource
from .label_lists import with_lists_alone
from .packed import resized
from .packed_file import write_packed
from .sources import source_splits
from .stats import find_depth
from .subset import up_to

SHARD_IMAGES = 50_000
ROW_GROUP_IMAGES = 1000


@dataclass(frozen=True)
class PackReport:
    """What was written: from ``source`` to ``out``, pixels a side, images of each split, and bytes in all."""

    source: str
    out: str
    img_size: ImageSize
    images: dict[str, int]
    bytes: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def pack_to(
    spec: str,
    out: Path,
    img_size: ImageSize,
    *,
    per_class: Mapping[str, int] | None = None,
    seed: int = 0,
    value_range: tuple[float, float] | None = None,
) -> PackReport:
    """Write every split at another size: the centre of each image, see :func:`.packed.resized`.

    ``out`` is a folder of parquet files in the Hugging Face layout, read by ``parquet:OUT``, of PNG images, or of the
    bytes as they are where nothing changes; or a file ``.safetensors`` of plain pixels, read by ``packed:OUT``.
    ``per_class`` takes at most so many images of each class of a split, drawn by ``seed``; splits that it does not name
    are left out. All channels are kept, as 8 bits: ``value_range`` are the values of a file that become 0 and 255.
    Boxes and masks are not kept, which a note says.
    Raises UserError naming the file of a corrupt image; files appear only once complete.
    """
    splits = source_splits(spec)
    for split in per_class or ():
        if split not in splits:
            raise UserError(f"--per-class {split}=N: {spec} has no such split, it has {', '.join(splits)}")
    chosen = {split: _chosen(splits[split](), per_class, seed) for split in per_class or splits}
    if any(images.has_boxes or images.mask_classes for images in chosen.values()):
        say(f"note: {spec}: boxes and masks are not kept, only images and the classes that they have")
    for split, images in chosen.items():
        images.read_as(PixelFormat(find_depth(images).channels, value_range))
        if _only_lists(chosen.values()) and images.label_lists is not None:
            chosen[split] = with_lists_alone(images)
    if out.suffix == ".safetensors":
        write_packed(out, chosen, img_size)
    else:
        out.mkdir(parents=True, exist_ok=True)
        for split, images in chosen.items():
            _write_split(out, split, images, img_size)
    files = [out] if out.suffix == ".safetensors" else out.glob("*.parquet")
    counts = {split: len(images) for split, images in chosen.items()}
    return PackReport(spec, str(out), img_size, counts, sum(file.stat().st_size for file in files))


def _only_lists(splits: Iterable[ImageSource]) -> bool:
    """Whether images of any split have several labels: then those of all splits are kept as lists."""
    return any(images.label_lists is not None and images.labels is None for images in splits)


def _chosen(images: ImageSource, per_class: Mapping[str, int] | None, seed: int) -> ImageSource:
    if per_class is None:
        return images
    if images.labels is None:
        raise UserError(f"--per-class: {images.name} has no class labels")
    return images.select(up_to(images.labels, per_class[images.split], seed))


def _write_split(out: Path, split: str, images: ImageSource, img_size: ImageSize) -> None:
    shards = -(-len(images) // SHARD_IMAGES)
    for shard in range(shards):
        rows = range(shard * SHARD_IMAGES, min((shard + 1) * SHARD_IMAGES, len(images)))
        _write_shard(out / f"{split}-{shard:05d}-of-{shards:05d}.parquet", images, rows, img_size)
    if images.classes:
        write_text(out / CLASSES_FILE, "".join(f"{name}\n" for name in images.classes))


def _write_shard(file: Path, images: ImageSource, rows: range, img_size: ImageSize) -> None:
    features: dict[str, object] = {"image": {"_type": "Image"}}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    if images.labels is not None:
        features["label"] = {"names": images.classes, "_type": "ClassLabel"}
        fields.append(pa.field("label", pa.int64()))
    elif images.label_lists is not None:
        features["labels"] = {"feature": {"names": images.classes, "_type": "ClassLabel"}, "_type": "List"}
        fields.append(pa.field("labels", pa.list_(pa.int64())))
    schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    # Images are compressed already, but small JPEG files are a third tables, and those are alike.
    with replacing(file) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for first in range(rows.start, rows.stop, ROW_GROUP_IMAGES):
            group = range(first, min(first + ROW_GROUP_IMAGES, rows.stop))
            columns: dict[str, list[Any]] = {"image": [_encoded(images, index, img_size) for index in group]}
            if images.labels is not None:
                columns["label"] = [images.labels[index] for index in group]
            elif images.label_lists is not None:
                columns["labels"] = [images.label_lists[index] for index in group]
            writer.write_table(pa.table(columns, schema=schema))


def _encoded(images: ImageSource, index: int, img_size: ImageSize) -> dict[str, bytes | str]:
    image, stored = images.decode(index), images.stored(index)
    as_it_is = images.pixel_format.value_range is None and image.size == sides(img_size)[::-1]
    if stored is not None and as_it_is:
        return {"bytes": stored, "path": f"{images.split}-{index:07d}"}
    buffer, small = io.BytesIO(), resized(image, img_size, images.pixel_format.interpolation)
    if isinstance(small, Bands):  # PNG has no room for all channels
        np.save(buffer, small.pixels)
    else:
        small.save(buffer, format="PNG")
    ending = "npy" if isinstance(small, Bands) else "png"
    return {"bytes": buffer.getvalue(), "path": f"{images.split}-{index:07d}.{ending}"}
