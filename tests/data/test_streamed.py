"""Sets that are read over the network; here from a folder, whose files datasets finds as it does those of the hub."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sweet.data import Batches, open_images, streamed
from sweet.data.identity import identity
from sweet.errors import UserError

FILES, GROUPS, EACH = 3, 4, 5
COUNT = FILES * GROUPS * EACH


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(streamed, "WAIT", 0.0)
    streamed.row_group.cache_clear()
    return tmp_path / "cache" / "data" / "streams"


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8), (number, 0, 255)).save(buffer, format="PNG")
    return buffer.getvalue()


def write(folder: Path, *, names: bool = True, label: Any = lambda number: number % 3) -> Path:
    """Image n of the set is of the colour (n, 0, 255)."""
    folder.mkdir(parents=True)
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if names:
        features["label"] = {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}
    for file in range(FILES):
        numbers = range(file * GROUPS * EACH, (file + 1) * GROUPS * EACH)
        columns = {"image": [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]}
        columns |= {"label": [label(number) for number in numbers]}
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, folder / f"train-{file:05d}-of-{FILES:05d}.parquet", row_group_size=EACH)
    return folder


def opened(folder: Path) -> Any:
    return open_images(f"stream:{folder}", "train", val_share=0)


def numbers(pixels: torch.Tensor) -> list[int]:
    return [round(255 * value) for value in pixels[:, 0, 0, 0].tolist()]


def batches(folder: Path, **options: Any) -> Batches:
    shape: dict[str, Any] = {"img_size": 8, "augment": "none", "mean": (0.0,) * 3, "std": (1.0,) * 3, "seed": 7}
    return Batches(opened(folder), **(shape | {"batch_size": 6} | options))


def test_images_labels_and_names(tmp_path: Path, cache: Path) -> None:
    images = opened(write(tmp_path / "set"))
    assert len(images) == COUNT and images.shard_counts == [EACH] * FILES * GROUPS
    assert images.decode(37).getpixel((3, 3)) == (37, 0, 255)
    assert images.where(37).endswith("train-00001-of-00003.parquet group 3 row 2")
    assert len(list(cache.glob("*.arrow"))) == 1  # the group of that image, and no more
    assert images.labels == [number % 3 for number in range(COUNT)] and images.classes == ["ant", "bee", "cat"]
    assert len(list(cache.glob("*.arrow"))) == 1  # labels are a column of their own
    assert opened(write(tmp_path / "numbered", names=False)).classes == ["0", "1", "2"]
    plain = opened(write(tmp_path / "plain", label=lambda number: -1))
    assert plain.labels is None and plain.classes is None


def test_every_image_once_an_epoch_by_two_ranks_and_two_workers(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    ranks = [batches(folder, batch_size=5, rank=rank, world=2, workers=2).iterate(0, COUNT // 10) for rank in range(2)]
    seen = [number for rank in ranks for pixels, _ in rank for number in numbers(pixels)]
    assert sorted(seen) == list(range(COUNT)) and seen != sorted(seen)


def test_a_batch_does_not_depend_on_where_a_run_begins(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    whole = [(numbers(pixels), labels) for pixels, labels in batches(folder).iterate(0, 25)]
    streamed.row_group.cache_clear()
    for (before, labels), (pixels, _) in zip(whole[13:], batches(folder).iterate(13, 25), strict=True):
        assert before == numbers(pixels)
        assert labels is not None and labels.tolist() == [number % 3 for number in before]


def test_groups_beyond_the_room_are_removed_and_read_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = opened(write(tmp_path / "set"))
    images.decode(0)
    monkeypatch.setattr(streamed, "KEPT_BYTES", 2 * next(cache.glob("*.arrow")).stat().st_size)
    for index in [*range(0, COUNT, EACH), 0]:
        assert images.decode(index).getpixel((0, 0)) == (index, 0, 255)
    assert len(list(cache.glob("*.arrow"))) == 2


def test_the_network_may_fail_some_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, real, calls = opened(write(tmp_path / "set")), streamed._filesystem, []

    class Failing:
        def __init__(self, below: Any) -> None:
            self.below = below

        def open(self, path: str) -> Any:
            calls.append(path)
            if len(calls) % streamed.TRIES or len(calls) > 3 * streamed.TRIES:
                raise ConnectionResetError("by peer")
            return self.below.open(path)

        def info(self, path: str) -> Any:
            return self.below.info(path)

    def failing(url: str) -> tuple[Any, str]:
        below, path = real(url)
        return Failing(below), path

    monkeypatch.setattr(streamed, "_filesystem", failing)
    assert images.decode(1).getpixel((0, 0)) == (1, 0, 255) and len(calls) == streamed.TRIES
    calls += [""] * 2 * streamed.TRIES
    with pytest.raises(UserError, match=r"train-00002-.*.parquet: cannot be read \(ConnectionResetError: by peer"):
        images.decode(COUNT - 1)


def test_a_validation_split_is_drawn_of_whole_groups(tmp_path: Path) -> None:
    spec = f"stream:{write(tmp_path / 'set')}"
    train, val = (open_images(spec, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (COUNT - 2 * EACH, 2 * EACH)
    seen = []
    for images in (train, val):
        shown = [images.decode(index).getpixel((0, 0))[0] for index in range(len(images))]  # type: ignore[index, union-attr]
        assert images.labels == [number % 3 for number in shown]
        seen += shown
    assert sorted(seen) == list(range(COUNT))


def test_what_is_damaged_or_not_parquet_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    (folder / "train-00001-of-00003.parquet").write_bytes(b"broken" * 100)
    with pytest.raises(UserError, match=r"train-00001-of-00003.parquet: not a readable parquet file"):
        opened(folder)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "train.csv").write_text("image,label\na.png,1\n")
    with pytest.raises(UserError, match=r"only parquet files are streamed, not .*train.csv; use hub:"):
        opened(tmp_path / "tables")
    with pytest.raises(UserError, match="cannot be read from the hub"):
        opened(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"group 0 row 4: label is None, expected 0 or more"):
        _ = opened(write(tmp_path / "half", label=lambda number: None if number == 4 else 1)).labels


def test_identity_and_memory(tmp_path: Path, cache: Path) -> None:
    one = opened(write(tmp_path / "one")).pixels_only()
    assert one.labels is None
    other = opened(write(tmp_path / "other", names=False)).pixels_only()
    assert identity(one) == identity(other)
    assert len(list(cache.glob("*.arrow"))) == 2  # one group of each was looked at
    assert identity(opened(write(tmp_path / "third", label=lambda number: 0))) != identity(opened(tmp_path / "one"))


def test_a_file_of_the_hub_is_known_by_its_commit(tmp_path: Path) -> None:
    assert streamed.stamp("hf://datasets/a/b@0123/train.parquet") == "hf://datasets/a/b@0123/train.parquet"
    file = write(tmp_path / "set") / "train-00000-of-00003.parquet"
    before = streamed.stamp(str(file))
    file.write_bytes(file.read_bytes() + b"x")
    assert streamed.stamp(str(file)) != before
