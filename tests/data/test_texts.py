"""Text files of any editor, and names in any spelling."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sweet.data import open_images
from sweet.data.check import check
from sweet.data.check_findings import place_table
from sweet.data.class_names import numbered, read_class_names
from sweet.errors import UserError
from sweet.files import read_json

NAMES = ["void", "caf\u00e9", "road"]
TEXT = "void\ncaf\u00e9\nroad\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("latin-1"),
        TEXT.replace("\n", " \t\r\n").encode("cp1252"),
        unicodedata.normalize("NFD", TEXT).encode(),
        TEXT.encode() + b"\n\n  \n",
    ],
)
def test_names_whatever_wrote_them(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    assert read_class_names(tmp_path / "classes.txt") == NAMES


@pytest.mark.parametrize("data", [b"\x00\x01\x02", b"\xff\xfea", Image.new("L", (9, 9)).tobytes()])
def test_what_is_no_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    with pytest.raises(UserError, match=r"classes\.txt: not a text file"):
        read_class_names(tmp_path / "classes.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_json_whatever_wrote_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.json").write_bytes(json.dumps({"a": "caf\u00e9"}, ensure_ascii=False).encode(encoding))
    assert read_json(tmp_path / "x.json") == {"a": "caf\u00e9"}


def test_numbered_lines() -> None:
    assert numbered(["0: sky", "255:road", "7\tcar"]) == {0: "sky", 255: "road", 7: "car"}
    assert numbered(["sky", "1: road"]) is None and numbered([]) is None


@pytest.mark.parametrize("name", ["caf\u00e9", "\u00c5ngstr\u00f6m", "\ud55c\uae00"])
def test_two_spellings_are_one_class(tmp_path: Path, name: str, make_image: Callable[..., Image.Image]) -> None:
    for split, form in (("train", "NFC"), ("val", "NFD")):
        for folder in (unicodedata.normalize(form, name), "tea"):  # type: ignore[arg-type]
            (tmp_path / split / folder).mkdir(parents=True)
            make_image(0).save(tmp_path / split / folder / "0.png")
    train, val = (open_images(f"folder:{tmp_path}", split) for split in ("train", "val"))
    assert train.classes == val.classes and sorted(train.classes or ()) == sorted([name, "tea"])
    assert train.labels == val.labels == [0, 1]


def test_a_file_named_in_another_spelling(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    make_image(0, 12, 10).save(tmp_path / unicodedata.normalize("NFD", "caf\u00e9.png"))
    entry = {"id": 1, "file_name": "caf\u00e9.png", "width": 12, "height": 10}
    categories = [{"id": 1, "name": unicodedata.normalize("NFD", "caf\u00e9")}]
    (tmp_path / "x.json").write_text(json.dumps({"images": [entry], "annotations": [], "categories": categories}))
    images = open_images(f"coco:{tmp_path / 'x.json'}", "train", val_share=0)
    assert images.classes == ["caf\u00e9"] and images.decode(0).size == (12, 10)


def test_the_check_says_how_a_text_is_written(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("L", (4, 4), number).save(tmp_path / name / f"{number}.png")
    for data, word in ((b"\xef\xbb\xbfa\nb", "byte order mark"), (b"a\nb\xe9", "Latin-1"), (b"a\r\nb\r\n", "Windows")):
        (tmp_path / "classes.txt").write_bytes(data)
        assert any(word in row.found for row in check(f"masks:{tmp_path}").findings), word


WRITTEN = {  # how an editor may write a text
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "latin-1": lambda text: text.encode("latin-1"),
    "utf-16": lambda text: text.encode("utf-16"),
    "blanks": lambda text: text.replace("\n", " \t\n").encode(),
}
SAID = {"mark": "byte order mark", "utf-16": "byte order mark", "windows": "as on Windows", "latin-1": "Latin-1"}


@pytest.mark.parametrize("way", WRITTEN)
def test_tables_whatever_wrote_them(tmp_path: Path, way: str, make_image: Callable[..., Image.Image]) -> None:
    for name in "ab":
        make_image(1).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_bytes(WRITTEN[way]("image,labels\na.png,café;sea\nb.png,sea\n"))
    images = open_images(f"csv:{tmp_path}", "train", val_share=0)
    assert (images.classes, images.label_lists) == (["café", "sea"], [[0, 1], [1]])


@pytest.mark.parametrize("way", WRITTEN)
def test_yolo_whatever_wrote_it(tmp_path: Path, way: str, make_image: Callable[..., Image.Image]) -> None:
    for name in ("images", "labels"):
        (tmp_path / "train" / name).mkdir(parents=True)
    make_image(1).save(tmp_path / "train" / "images" / "a.png")
    (tmp_path / "data.yaml").write_bytes(WRITTEN[way]("Train: train/images\nnames: [sea, café]\n"))
    (tmp_path / "train" / "labels" / "a.txt").write_bytes(WRITTEN[way]("1 0.5 0.5 1 1\n0 0.5 0.5 0.5 0.5\n"))
    images = open_images(f"yolo:{tmp_path}", "train", val_share=0)
    assert images.classes == ["sea", "café"] and images.objects(0).labels.tolist() == [1, 0]


@pytest.mark.parametrize("way", WRITTEN)
def test_the_check_names_every_text_file(tmp_path: Path, way: str, make_image: Callable[..., Image.Image]) -> None:
    make_image(1).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_bytes(WRITTEN[way]("image,labels\na.png,café\n"))
    (row,) = [row for row in place_table(f"csv:{tmp_path}") if row.found.startswith("labels.csv: ")]
    assert SAID.get(way, "blanks around its lines") in row.found and row.handling == "read as such"


def test_labels_in_two_spellings_are_one_class(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    for name in "ab":
        make_image(1).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,labels\na.png,cafe\u0301\nb.png,caf\u00e9\n", encoding="utf-8")
    assert open_images(f"csv:{tmp_path}", "train", val_share=0).label_lists == [[0], [0]]


@pytest.mark.parametrize(
    ("data", "ways"),
    [
        (
            b"\xef\xbb\xbfimage\tlabels\r\na.png\tx\r\n",
            "a byte order mark, lines end as on Windows, tabs between its columns",
        ),
        (b"image\tlabels\na.png\tx\n", "tabs between its columns"),
        (b"image,labels\r\na.png,caf\xe9 \r\n", "Latin-1, not UTF-8, lines end as on Windows, blanks around its lines"),
    ],
)
def test_several_ways_at_once(tmp_path: Path, data: bytes, ways: str, make_image: Callable[..., Image.Image]) -> None:
    make_image(1).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_bytes(data)
    (row,) = [row for row in place_table(f"csv:{tmp_path}") if row.found.startswith("labels.csv: ")]
    assert row.found.endswith(ways)
    assert open_images(f"csv:{tmp_path}", "train", val_share=0).label_lists == [[0]]
