from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sweet.data import arrow, open_images, pack
from sweet.errors import UserError

WriteParquet = Callable[..., Path]


def test_shards_are_joined(tmp_path: Path, write_parquet: WriteParquet, make_image: Callable[..., Image.Image]) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [0, 1, 1], names=["ant", "bee"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [1, 0], names=["ant", "bee"])
    images = open_images(f"parquet:{tmp_path}", "train", val_share=0)
    assert images.labels == [0, 1, 1, 1, 0] and images.classes == ["ant", "bee"]
    assert np.array_equal(images.decode(2), make_image(2))
    assert np.array_equal(images.decode(4), make_image(1))
    assert images.where(4).endswith("train-00001-of-00002.parquet row 1")


def test_class_names(tmp_path: Path, write_parquet: WriteParquet) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 2])
    spec = f"parquet:{tmp_path / 'train.parquet'}"
    assert open_images(spec, "train", val_share=0).classes == ["0", "1", "2"]
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    assert open_images(spec, "train", val_share=0).classes == ["ant", "bee", "cow"]


@pytest.mark.parametrize("labels", [None, [None, None], [-1, -1]])
def test_without_labels(tmp_path: Path, write_parquet: WriteParquet, labels: list[int] | None) -> None:
    write_parquet(tmp_path / "data" / "train-0.parquet", labels)
    images = open_images(f"parquet:{tmp_path}", "train", val_share=0)
    assert images.labels is None and images.classes is None and images.decode(1).mode == "RGB"


def test_other_column_names(
    tmp_path: Path, encode: Callable[[Image.Image], bytes], make_image: Callable[..., Image.Image]
) -> None:
    data = encode(make_image(0))
    pq.write_table(pa.table({"note": ["x"], "img": [{"bytes": data, "path": None}]}), tmp_path / "train.parquet")
    assert open_images(f"parquet:{tmp_path}", "train", val_share=0).decode(0).size == (12, 10)


def test_images_in_files_beside_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_image: Callable[..., Image.Image]
) -> None:
    """As Hugging Face's datasets hold a repository of image files: a path, and no bytes."""
    make_image(0).save(tmp_path / "a.png")
    rows = [{"bytes": None, "path": str(tmp_path / name)} for name in ("a.png", "gone.png")]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "train.parquet")
    for size in (arrow.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(arrow, "IN_MEMORY_BYTES", size)
        monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
        images = open_images(f"parquet:{tmp_path}", "train", val_share=0)
        assert np.array_equal(images.decode(0), make_image(0))
        assert images.stored(0) == (tmp_path / "a.png").read_bytes()
        with pytest.raises(UserError, match=r"train\.parquet row 1: the image has no bytes"):
            images.decode(1)
    before = pack(images.select([0]), 8).images
    make_image(1).save(tmp_path / "a.png")
    images = open_images(f"parquet:{tmp_path}", "train", val_share=0)
    assert not np.array_equal(pack(images.select([0]), 8).images, before)  # no stale pixels of the cache


def test_a_large_set_is_mapped(tmp_path: Path, write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in range(2):
        write_parquet(tmp_path / f"train-{shard}-of-2.parquet", [shard, 0, 1], names=["ant", "bee"])
    small = open_images(f"parquet:{tmp_path}", "train", val_share=0)
    monkeypatch.setattr(arrow, "IN_MEMORY_BYTES", 0)
    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # written, then read again
        mapped = open_images(f"parquet:{tmp_path}", "train", val_share=0)
        assert mapped.labels == small.labels and mapped.classes == small.classes
        assert all(np.array_equal(mapped.decode(index), small.decode(index)) for index in range(6))
        assert mapped.where(5) == small.where(5)
    assert len(list((tmp_path / "cache" / "data").glob("*.arrow"))) == 1


def test_a_dataset_of_the_hub(tmp_path: Path, write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    write_parquet(tmp_path / "set" / "train-00000-of-00001.parquet", [0, 1, 1], names=["ant", "bee"])
    write_parquet(tmp_path / "set" / "validation-00000-of-00001.parquet", [1], names=["ant", "bee"])
    local = open_images(f"parquet:{tmp_path / 'set'}", "train")
    images = open_images(f"hub:{tmp_path / 'set'}", "train")
    assert images.labels == [0, 1, 1] and images.classes == ["ant", "bee"]
    assert np.array_equal(images.decode(2), local.decode(2))
    assert open_images(f"hub:{tmp_path / 'set'}", "val").labels == [1]
    with pytest.raises(UserError, match=r"^--data hub:.*absent: cannot be read from the hub"):
        open_images(f"hub:{tmp_path}/absent", "train")


def test_bad_files_are_named(tmp_path: Path, write_parquet: WriteParquet) -> None:
    with pytest.raises(UserError, match=r"absent: no such file or folder"):
        open_images(f"parquet:{tmp_path}/absent", "train")
    with pytest.raises(UserError, match="no files named <split>-"):
        open_images(f"parquet:{tmp_path}", "train")
    file = write_parquet(tmp_path / "train-0.parquet", [0, 1])
    whole = file.read_bytes()
    file.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"train-0\.parquet: not a parquet file"):
        open_images(f"parquet:{tmp_path}", "train")
    file.write_bytes(whole[:4] + bytes(200) + whole[204:])  # the footer is intact, the pages are not
    with pytest.raises(UserError, match=r"train-0\.parquet: damaged"):
        open_images(f"parquet:{tmp_path}", "train")
    write_parquet(file, images=[b"no image"], count=1)
    with pytest.raises(UserError, match=r"train-0\.parquet row 0: not a readable image"):
        pack(open_images(f"parquet:{tmp_path}", "train", val_share=0), 8)
    pq.write_table(pa.table({"picture": ["a"], "label": [0]}), file)
    with pytest.raises(UserError, match=r"train-0\.parquet: no column image .*'picture', 'label'"):
        open_images(f"parquet:{tmp_path}", "train")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (["ant", "bee"], None, r"train-0\.parquet row 0: column label holds string, expected integers"),
        ([0.5, 1.0], None, "holds double"),
        ([0, None], None, r"train-0\.parquet row 1: label is None"),
        ([0, -1], None, "row 1: label is -1"),
        ([0, 2], ["ant", "bee"], "row 1: label 2, but there are 2 class names"),
    ],
)
def test_bad_labels_are_named(
    tmp_path: Path, write_parquet: WriteParquet, labels: list, names: list[str] | None, message: str
) -> None:
    write_parquet(tmp_path / "train-0.parquet", labels, names=names)
    with pytest.raises(UserError, match=message):
        open_images(f"parquet:{tmp_path}", "train")


def test_an_image_without_bytes(tmp_path: Path, write_parquet: WriteParquet) -> None:
    write_parquet(tmp_path / "train-0.parquet", images=[None, b""], count=2)
    images = open_images(f"parquet:{tmp_path}", "train", val_share=0)
    with pytest.raises(UserError, match="row 0: the image has no bytes"):
        images.decode(0)


@pytest.mark.parametrize(("train", "val"), [([0, 1, 2, 2], [0, 1]), ([0, 1], [0, 1, 2]), ([0, 1, 2], [2, 2])])
def test_all_splits_share_their_numbered_classes(
    tmp_path: Path, write_parquet: WriteParquet, train: list[int], val: list[int]
) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", train)
    write_parquet(tmp_path / "Validation-00000-of-00001.parquet", val)
    splits = [open_images(f"parquet:{tmp_path}", split) for split in ("train", "val")]
    assert [images.classes for images in splits] == [["0", "1", "2"]] * 2
    assert [images.labels for images in splits] == [train, val]


def test_names_of_classes_do_not_come_from_the_current_folder(
    tmp_path: Path, write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 2])
    table = pq.read_table(tmp_path / "train.parquet")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\n")
    monkeypatch.chdir(tmp_path)
    found = arrow.ArrowImages("hub:user/name", "train", table, [(0, "hub:user/name train")], "")
    assert found.classes == ["0", "1", "2"]


def test_no_name_in_a_list_of_labels(
    tmp_path: Path, encode: Callable[[Image.Image], bytes], make_image: Callable[..., Image.Image]
) -> None:
    data = {"bytes": encode(make_image(0)), "path": None}
    for number, names in enumerate((["cat"], ["cat", None])):
        table = pa.table({"image": [data], "labels": [names]})
        pq.write_table(table, tmp_path / f"train-0000{number}-of-00002.parquet")
    with pytest.raises(UserError, match=r"train-00001-of-00002.parquet row 0: labels has None, which is none of 1"):
        open_images(f"parquet:{tmp_path}", "train", val_share=0)
