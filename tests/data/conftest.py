"""Small image sets on disk."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

MakeImage = Callable[..., Image.Image]
WriteParquet = Callable[..., Path]


def picture(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def make_image() -> MakeImage:
    return picture


@pytest.fixture
def encode() -> Callable[[Image.Image], bytes]:
    return png


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three images each, no splits; and files that are not images."""
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "set" / name / "more").mkdir(parents=True)
        for number in range(3):
            place = tmp_path / "set" / name / ("more" if number == 2 else ".")
            picture(10 * label + number).save(place / f"{number}.png")
        (tmp_path / "set" / name / "notes.txt").write_text("no image")
    (tmp_path / "set" / ".hidden").mkdir()
    return tmp_path / "set"


@pytest.fixture
def write_parquet() -> WriteParquet:
    """write(file, labels or None, names=class names in the schema, images=encoded bytes) -> file"""

    def write(
        file: Path, labels: Any = None, *, count: int = 4, names: list[str] | None = None, images: Any = None
    ) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        count = count if labels is None else len(labels)
        images = images or [png(picture(number)) for number in range(count)]
        columns = {"image": [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(images)]}
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        if labels is not None:
            columns["label"] = labels
        if names:
            features["label"] = {"names": names, "_type": "ClassLabel"}
        table = pa.table(columns)
        if names:
            text = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": text})
        pq.write_table(table, file, row_group_size=2)
        return file

    return write
