"""Several labels an image from CSV tables and from parquet files; what is wrong in them is named with its line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sweet.data import ImageSource, open_images
from sweet.data.identity import differences, identity
from sweet.data.label_lists import label_tensor, with_lists_alone
from sweet.data.repack import pack_to
from sweet.errors import UserError


def folder_of(root: Path, table: str, names: str = "abc", file: str = "labels.csv", encoding: str = "utf-8") -> str:
    root.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"{name}.png")
    (root / file).write_text(table, encoding=encoding)
    return f"csv:{root}"


def read(spec: str, split: str = "train") -> tuple[list[str] | None, dict[str, list[str]]]:
    images = open_images(spec, split, val_share=0)
    assert images.classes is not None and images.label_lists is not None
    rows = enumerate(images.label_lists)
    return images.classes, {Path(images.where(i)).stem: [images.classes[label] for label in row] for i, row in rows}


@pytest.mark.parametrize(
    ("table", "encoding"),
    [
        ("image,labels\na.png,sky;sea\nb.png,\nc.png,sea\n", "utf-8"),
        ("a.png,sky;sea\nb.png,\nc.png,sea\n", "utf-8"),  # without a heading
        ("image,labels\r\na.png,sky ; sea\r\nb.png,\r\n\r\nc.png,sea\r\n", "utf-8-sig"),  # as a spreadsheet saves it
        ("filename\ttags\na.png\tsky;sea\nb.png\t\nc.png\tsea\n", "utf-8"),
        ("image,labels\na.png,sky\na.png,sea\nb.png,\nc.png,sea\n", "utf-8"),  # a row for each label
        ("filename, sea, sky\na.png, 1, 1\nb.png, 0, 0\nc.png, 1, 0\n", "utf-8"),  # Roboflow
        ('image,labels\n"a.png", "sky;sea"\n"b.png",""\nc.png,sea\n', "utf-8"),
    ],
)
def test_ways_to_write_a_table(tmp_path: Path, table: str, encoding: str) -> None:
    classes, found = read(folder_of(tmp_path, table, encoding=encoding))
    assert classes == ["sea", "sky"]
    assert {name: sorted(labels) for name, labels in found.items()} == {"a": ["sea", "sky"], "b": [], "c": ["sea"]}


def test_splits_by_column_or_by_folder_share_their_classes(tmp_path: Path) -> None:
    spec = folder_of(tmp_path / "one", "image,labels,split\na.png,x,train\nb.png,y;x,valid\nc.png,,valid\n")
    assert read(spec) == (["x", "y"], {"a": ["x"]})
    assert read(spec, "val") == (["x", "y"], {"b": ["y", "x"], "c": []})
    folder_of(tmp_path / "two" / "train", "filename,x,y\na.png,1,0\n", "a", "_classes.csv")
    folder_of(tmp_path / "two" / "valid", "filename,x,y\nb.png,1,1\n", "b", "_classes.csv")
    assert read(f"csv:{tmp_path / 'two'}", "val") == (["x", "y"], {"b": ["x", "y"]})


def test_one_label_each_is_also_a_set_for_classification(tmp_path: Path) -> None:
    spec = folder_of(tmp_path, "image,label\na.png,x\nb.png,y\nc.png,x\n")
    images = open_images(spec, "train", val_share=0)
    assert images.labels == [0, 1, 0]
    assert open_images(folder_of(tmp_path, "image,label\na.png,x\nb.png,\n"), "train", val_share=0).labels is None


def test_classes_txt_gives_the_order(tmp_path: Path) -> None:
    spec = folder_of(tmp_path, "image,labels\na.png,x\n")
    (tmp_path / "classes.txt").write_text("z\nx\n")
    assert read(spec)[0] == ["z", "x"]
    (tmp_path / "classes.txt").write_text("z\n")
    with pytest.raises(UserError, match=r"labels.csv: the label 'x' is not in classes.txt"):
        read(spec)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,labels\nmissing.png,x\n", r"labels.csv:2: no such image file .*missing.png"),
        ("image,labels\na.png\n", r"labels.csv:2: 1 columns, expected 2"),
        ("filename,x,y\na.png,1,yes\n", r"labels.csv:2: y is 'yes', expected 0 or 1"),
        ("filename,x,x\na.png,1,0\n", r"labels.csv:1: filename,x,x: expected"),
        ("image,labels\na.png,\n", r"labels.csv: no image has a label"),
        ("image,labels\n", r"labels.csv: lists no images"),
        ('image,labels\na.png,x\nb.png,"x\nc.png,y\n', r"labels.csv:3: not a row of a CSV file \(unexpected end"),
        ('image,labels\na.png,"x"y\n', r"labels.csv:2: not a row of a CSV file"),
        ('image,labels\na.png,"' + 140_000 * "x", r"labels.csv:2: not a row of a CSV file \(field larger"),
        ("", r"labels.csv: is empty"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(folder_of(tmp_path, table))


def parquet(root: Path, split: str, column: pa.Array, feature: object = None) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    image = pa.array([{"bytes": buffer.getvalue(), "path": "x"}] * len(column))
    features = {"image": {"_type": "Image"}} | ({"labels": feature} if feature else {})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    root.mkdir(exist_ok=True)
    table = pa.table({"image": image, "labels": column}).replace_schema_metadata(meta)
    pq.write_table(table, root / f"{split}-00000-of-00001.parquet")


def lists_of(images: ImageSource) -> tuple[list[str] | None, list[list[int]] | None]:
    return images.classes, images.label_lists


NAMED = {"names": ["x", "y"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "feature", [{"feature": NAMED, "_type": "Sequence"}, {"feature": NAMED, "_type": "List"}, [NAMED]]
)
def test_parquet_with_numbers(tmp_path: Path, feature: object) -> None:
    parquet(tmp_path / "p", "train", pa.array([[1], [], [0, 1]], pa.list_(pa.int64())), feature)
    images = open_images(f"parquet:{tmp_path / 'p'}", "train", val_share=0)
    assert lists_of(images) == (["x", "y"], [[1], [], [0, 1]])
    assert images.labels is None
    targets = label_tensor(images)
    assert targets is not None and targets.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert lists_of(images.select([2, 0]))[1] == [[0, 1], [1]]


def test_parquet_with_names_knows_those_of_all_splits(tmp_path: Path) -> None:
    parquet(tmp_path / "p", "train", pa.array([["b"], None]))
    parquet(tmp_path / "p", "val", pa.array([["c", "a"]]))
    assert lists_of(open_images(f"parquet:{tmp_path / 'p'}", "train")) == (["a", "b", "c"], [[1], []])
    assert lists_of(open_images(f"parquet:{tmp_path / 'p'}", "val")) == (["a", "b", "c"], [[0, 2]])


def test_parquet_with_a_number_that_is_no_class(tmp_path: Path) -> None:
    parquet(tmp_path / "p", "train", pa.array([[0], [7]]), {"feature": NAMED, "_type": "List"})
    with pytest.raises(UserError, match=r"row 1: labels has 7, which is none of 2 classes"):
        open_images(f"parquet:{tmp_path / 'p'}", "train", val_share=0)


def test_packing_keeps_the_lists(tmp_path: Path) -> None:
    spec = folder_of(tmp_path / "in", "image,labels\na.png,sky;sea\nb.png,\nc.png,sea\n")
    pack_to(spec, tmp_path / "out", 8)
    images = open_images(f"parquet:{tmp_path / 'out'}", "train", val_share=0)
    assert lists_of(images) == (["sea", "sky"], [[0, 1], [], [0]])


def test_lists_get_the_numbers_of_other_classes_with_the_labels(tmp_path: Path) -> None:
    one = open_images(folder_of(tmp_path / "one", "image,labels\na.png,sky\nb.png,sea\n"), "train", val_share=0)
    several = open_images(folder_of(tmp_path / "two", "image,labels\na.png,sky;sea\nb.png,\n"), "train", val_share=0)
    assert one.relabelled(["land", "sky", "sea"]) and several.relabelled(["land", "sky", "sea"])
    assert (one.labels, one.label_lists) == ([1, 2], [[1], [2]])
    assert several.labels is None and several.label_lists is not None
    assert [sorted(row) for row in several.label_lists] == [[1, 2], []] and several.classes == ["land", "sky", "sea"]
    assert not one.relabelled(["sky"]) and one.classes == ["land", "sky", "sea"]


def test_lists_alone_are_the_same_images(tmp_path: Path) -> None:
    """Their pixels are packed once; the labels of the set itself stay."""
    images = open_images(folder_of(tmp_path, "image,labels\na.png,sky\nb.png,sea\n"), "train", val_share=0)
    alone = with_lists_alone(images)
    assert alone.labels is None and alone.label_lists == images.label_lists and images.labels == [1, 0]
    assert alone.fingerprint() == images.fingerprint() and alone.findings() == images.findings()


def test_other_lists_of_labels_are_other_images(tmp_path: Path) -> None:
    found = []
    for table in ("a.png,sky;sea\nb.png,\n", "a.png,sky;sea\nb.png,sea\n"):
        found.append(identity(open_images(folder_of(tmp_path, f"image,labels\n{table}"), "train", val_share=0)))
    assert differences(found[0], found[1]) == ["other labels"]
    earlier = found[0].model_copy(update={"labels": None})  # of a checkpoint that does not say
    assert differences(earlier, found[1]) == []
