"""YOLO's text files and Roboflow's folders give the same objects as COCO's JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sweet.data import open_images
from sweet.data.identity import differences, identity
from sweet.errors import UserError


def yolo(root: Path, text: str | None, *, size: tuple[int, int] = (40, 20), **keys: object) -> str:
    for split in ("train", "valid"):
        (root / split / "images").mkdir(parents=True, exist_ok=True)
        (root / split / "labels").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / split / "images" / "a.png")
        if text is not None:
            (root / split / "labels" / "a.txt").write_text(text)
    content = {"train": "../train/images", "val": "../valid/images", "nc": 2, "names": ["cat", "dog"]} | keys
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return f"yolo:{root}"


def test_boxes_in_pixels(tmp_path: Path) -> None:
    images = open_images(yolo(tmp_path, "1 0.5 0.5 0.5 0.5\n\n0 0.1 0.9 0.2 0.4\n"), "val")
    found = images.objects(0)
    np.testing.assert_allclose(found.boxes, [[10, 5, 30, 15], [0, 14, 8, 20]], atol=1e-4)  # the second is clipped
    assert found.labels.tolist() == [1, 0] and found.masks is None and not images.has_masks
    np.testing.assert_allclose(found.area, [200, 48], rtol=1e-4)
    assert images.classes == ["cat", "dog"] and images.label_lists == [[0, 1]]


def test_outlines_are_masks(tmp_path: Path) -> None:
    images = open_images(yolo(tmp_path, "0 0.25 0.5 0.75 0.5 0.75 1 0.25 1\n"), "train")
    found = images.objects(0)
    assert images.has_masks and found.masks is not None
    assert found.masks[0, 10:20, 10:30].all() and found.masks[0].sum() == 200 == found.area[0]
    np.testing.assert_allclose(found.boxes, [[10, 10, 30, 20]])


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_an_image_without_objects(tmp_path: Path, text: str | None) -> None:
    images = open_images(yolo(tmp_path, text), "train")
    assert len(images.objects(0)) == 0 and images.label_lists == [[]]


def test_a_camera_held_sideways(tmp_path: Path) -> None:
    spec = yolo(tmp_path, "0 0.5 0.25 1 0.5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "train" / "images" / "a.png", exif=exif)
    images = open_images(spec, "train")
    assert images.decode(0).size == (20, 40)
    np.testing.assert_allclose(images.objects(0).boxes, [[0, 0, 20, 20]])


def test_other_ways_to_say_where(tmp_path: Path) -> None:
    spec = yolo(tmp_path, "0 0.5 0.5 1 1\n", train="train/images", names={0: "cat", 1: "dog"})
    assert len(open_images(spec, "train")) == 1
    yolo(tmp_path, "0 0.5 0.5 1 1\n", path=str(tmp_path), train=["train/images", "valid/images"])
    assert len(open_images(spec, "train")) == 2
    (tmp_path / "list.txt").write_text("./train/images/a.png\n")
    yolo(tmp_path, "0 0.5 0.5 1 1\n", train="list.txt")
    assert len(open_images(f"{spec}/data.yaml", "train").objects(0)) == 1


def test_a_pose_is_its_box(tmp_path: Path) -> None:
    spec = yolo(tmp_path, "0 0.5 0.5 1 1 0.2 0.2 2 0.3 0.3 2\n", kpt_shape=[2, 3])
    images = open_images(spec, "train")
    np.testing.assert_allclose(images.objects(0).boxes, [[0, 0, 40, 20]])
    assert not images.has_masks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 0.5 0.5 1 1", r"a.txt:1: class 2, but data.yaml names 2 classes"),
        ("-1 0.5 0.5 1 1", r"a.txt:1: class -1"),
        ("0 0.5 0.5 1 1\n0 20 10 40 20", r"a.txt:2: 20 is not a share of the image"),
        ("0 0.5 0.5 1", r"a.txt:1: 4 numbers; expected class x y width height"),
        ("0 0.5 0.5 1 nan", r"a.txt:1: nan is not a share"),
        ("cat 0.5 0.5 1 1", r"a.txt:1: cat 0.5 0.5 1 1: not numbers"),
    ],
)
def test_what_is_wrong_in_a_label_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_images(yolo(tmp_path, text), "train")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"nc": 3}, r"data.yaml: nc is 3, but names lists 2 classes"),
        ({"names": None}, r"data.yaml: names is None"),
        ({"names": {0: "a", "b": "c"}}, r"data.yaml: names: the numbers are \[0, 'b'\], expected 0 to 1"),
        ({"names": ["a", "a"]}, r"data.yaml: names is \['a', 'a'\], expected a list of different names"),
        ({"train": "nowhere"}, r"data.yaml: train: no such folder or file nowhere"),
    ],
)
def test_what_is_wrong_in_data_yaml(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_images(yolo(tmp_path, "0 0.5 0.5 1 1", **keys), "train")


def test_a_box_of_which_nothing_is_left_is_counted(tmp_path: Path) -> None:
    images = open_images(yolo(tmp_path, "0 0.5 0.5 0 1\n0 0.5 0.5 1 1"), "train")
    assert images.left_out == 1 and len(images.objects(0)) == 1


def test_coco_with_a_file_a_split_beside_its_images(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    box = {"id": 1, "image_id": 0, "category_id": 2, "bbox": [1, 2, 3, 4]}
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (40, 20)).save(tmp_path / split / "a.jpg")
        entry = {"id": 0, "file_name": "a.jpg", "width": 40, "height": 20}
        content = {"images": [entry], "annotations": [box], "categories": categories}
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    images = open_images(f"coco:{tmp_path}", "val")
    assert images.classes == ["cat", "dog"]  # the group is no class
    assert images.objects(0).labels.tolist() == [1] and images.label_lists == [[1]]
    (tmp_path / "valid" / "second.json").write_text("{}")
    with pytest.raises(UserError, match="valid has 2 JSON files, expected one"):
        open_images(f"coco:{tmp_path}", "val")


def test_a_resumed_run_notices_other_boxes(tmp_path: Path) -> None:
    spec = yolo(tmp_path, "0 0.5 0.5 0.2 0.2\n")
    before = identity(open_images(spec, "train", val_share=0))
    assert differences(before, identity(open_images(spec, "train", val_share=0))) == []
    yolo(tmp_path, "0 0.5 0.5 0.2 0.3\n")
    assert differences(before, identity(open_images(spec, "train", val_share=0))) == ["other boxes or masks"]
