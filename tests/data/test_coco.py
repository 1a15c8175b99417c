"""COCO's format: what is read, and what is said of a file that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sweet.data import open_images
from sweet.data.check import ObjectCounts, check
from sweet.data.identity import differences, identity
from sweet.errors import UserError

POLYGON = [[2.0, 1.0, 9.0, 1.0, 9.0, 6.0, 2.0, 6.0]]
Write = Callable[..., Path]


def content() -> dict[str, Any]:
    """Two images of 12 x 10 pixels, three categories, one of them without objects; the second image is empty."""
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 12, "height": 10},
                   {"id": 3, "file_name": "b.png", "width": 12, "height": 10}],
        "categories": [{"id": 90, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 5, "name": "cow"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [2, 1, 7, 5], "area": 30, "iscrowd": 0,
             "segmentation": POLYGON},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [8, 4, 10, 3.5], "iscrowd": 1,
             "segmentation": {"size": [10, 12], "counts": [64, 6, 50]}},
        ],
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path, make_image: Callable[..., Image.Image]) -> Write:
    """write(content, file) -> the root folder, with images a.png and b.png."""

    def write(values: Any, file: str = "annotations/instances_train.json", images: str = "images") -> Path:
        root = tmp_path / "set"
        for name in ("a.png", "b.png"):
            (root / images).mkdir(parents=True, exist_ok=True)
            make_image(0).save(root / images / name)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(values if isinstance(values, str) else json.dumps(values))
        return root

    return write


def opened(root: Path) -> Any:
    return open_images(f"coco:{root}", "train", val_share=0)


def test_two_files_of_one_split_are_refused(write: Write) -> None:
    """The annotations of two years in one folder: which of them is meant?"""
    for year in (2014, 2017):
        root = write(content(), f"annotations/instances_train{year}.json")
    with pytest.raises(UserError, match=r"instances_train2017\.json is not the only file of the split train"):
        opened(root)
    one = root / "annotations" / "instances_train2014.json"
    assert len(open_images(f"coco:{one}", "train", val_share=0)) == 2


def test_what_is_read(write: Write) -> None:
    images = opened(write(content()))
    assert images.classes == ["dog", "cow", "cat"]  # by id; cow has no object and stays a class
    assert images.labels is None and images.has_boxes and images.has_masks and len(images) == 2
    objects = images.objects(0)
    assert objects.labels.tolist() == [2, 0] and objects.crowd.tolist() == [False, True]
    # the second box is clipped to its image, and its area is its mask's because the file tells none
    assert objects.boxes.tolist() == [[2, 1, 9, 6], [8, 4, 12, 7.5]]
    assert objects.area.tolist() == [30, 6]
    assert objects.masks.shape == (2, 10, 12) and objects.masks.sum((1, 2)).tolist() == [35, 6]
    empty = images.objects(1)
    assert len(empty) == 0 and empty.boxes.shape == (0, 4) and empty.masks.shape == (0, 10, 12)
    assert images.decode(0).size == (12, 10)
    chosen = images.select([1, 0]).select([1])
    assert chosen.has_masks and chosen.objects(0).labels.tolist() == [2, 0]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_masks_agree_with_pycocotools(write: Write) -> None:
    from pycocotools import mask as oracle
    from pycocotools.coco import COCO

    random = np.random.default_rng(0)
    values = content()
    bits = random.random((10, 12)) < 0.4
    compressed = oracle.encode(np.asfortranarray(bits.astype(np.uint8)))
    flat = bits.flatten(order="F")
    starts = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int)])))
    plain = np.diff(np.concatenate([[0], starts, [len(flat)]])).tolist()
    star = (random.random(10) * 9).round(1).tolist()
    shapes = [
        {"size": [10, 12], "counts": compressed["counts"].decode()},
        {"size": [10, 12], "counts": plain},
        [star, [1.5, 1.5, 4.0, 1.5, 4.0, 8.0]],
    ]
    values["annotations"] = [
        {"id": n + 1, "image_id": 7, "category_id": 2, "bbox": [1, 1, 8, 8], "segmentation": shape}
        for n, shape in enumerate(shapes)
    ]
    root = write(values)
    masks = opened(root).objects(0).masks
    theirs = COCO(root / "annotations" / "instances_train.json")
    assert np.array_equal(masks, [theirs.annToMask(one) for one in theirs.loadAnns([1, 2, 3])])
    assert np.array_equal(masks[0], bits) and np.array_equal(masks[1], bits)


@pytest.mark.parametrize("segmentation", [None, []])
def test_one_object_without_a_mask_makes_it_boxes_only(write: Write, segmentation: Any) -> None:
    values = content()
    values["annotations"][1]["segmentation"] = segmentation
    images = opened(write(values))
    assert not images.has_masks
    assert images.objects(0).masks is None
    assert images.objects(0).area.tolist() == [30, 14]


@pytest.mark.parametrize("box", [[12, 0, 3, 3], [-5, 2, 5, 3], [3, 3, 0, 4], [3, 3, 4, 0], [3, 3, -2, 4]])
def test_a_box_of_which_nothing_is_in_the_image_is_left_out(write: Write, box: list[float]) -> None:
    values = content()
    values["annotations"][0]["bbox"] = box
    root = write(values)
    images = opened(root)
    assert images.left_out == 1
    assert images.objects(0).labels.tolist() == [0]
    found = check(f"coco:{root}").splits["train"].objects
    assert found == ObjectCounts({"dog": 1, "cow": 0, "cat": 0}, masks=True, left_out=1)


def test_splits(write: Write) -> None:
    root = write(content(), "annotations/instances_train2017.json", "train2017")  # as COCO itself comes
    write(content(), "annotations/instances_val2017.json", "val2017")
    train, val = (open_images(f"coco:{root}", split) for split in ("train", "val"))
    assert Path(train.where(0)).parent.name == "train2017" and Path(val.where(0)).parent.name == "val2017"
    for file, split in ((root / "annotations" / "instances_val2017.json", "val"), (root / "mine.json", "train")):
        write(content(), "mine.json", ".")
        alone = open_images(f"coco:{file}", split, val_share=0)
        assert alone.split == split and len(alone) == 2
    drawn = open_images(f"coco:{root / 'mine.json'}", "val")
    assert len(drawn) == 1 and drawn.has_boxes


def broken(change: Callable[[dict[str, Any]], Any]) -> Any:
    values = content()
    other = change(values)
    return values if other is None else other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: "{", "not valid JSON"),
        (lambda v: [1], "not a COCO file, it has no list 'images'"),
        (lambda v: v.pop("categories") and None, "not a COCO file, it has no list 'categories'"),
        (lambda v: v.update(images=[]), "lists no images"),
        (lambda v: v["images"][0].update(id=3), "two images have one id"),
        (lambda v: v["images"][0].pop("width") and None, "image 7: width is None, not int"),
        (lambda v: v["images"][0].update(height=0), "image 7: height is 0"),
        (lambda v: v["images"][0].update(file_name="c.png"), r"no such image file .*images/c\.png"),
        (lambda v: v["categories"][0].update(name="dog"), "two categories have one id or one name"),
        (lambda v: v["annotations"][0].update(image_id=9), "annotation 1: there is no image 9"),
        (lambda v: v["annotations"][0].update(category_id=3), "annotation 1: there is no category 3"),
        (lambda v: v["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 1: bbox \[1, 2, 3\] is not \[x, y, width"),
        (lambda v: v["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "annotation 1: bbox"),
        (lambda v: v["annotations"].append("x"), "annotation x: image_id is None"),
    ],
)
def test_a_malformed_file_is_named(write: Write, change: Any, message: str) -> None:
    root = write(broken(change))
    with pytest.raises(UserError, match=rf"instances_train\.json: .*{message}"):
        opened(root)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [10, 12], "counts": "gibberish"},
        {"size": [10, 12], "counts": [3]},
        {"size": [12, 10], "counts": [64, 6, 50]},
        {"size": [10, 12]},
        [["a", "b"]],
        [[1.0, 2.0, 3.0]],
        7,
    ],
)
def test_a_malformed_mask_is_named(write: Write, shape: Any) -> None:
    values = content()
    values["annotations"][1]["segmentation"] = shape
    root = write(values)
    with pytest.raises(UserError, match=r"instances_train\.json: annotation 2: not a mask"):
        opened(root).objects(0)
    (corrupt,) = check(f"coco:{root}").splits["train"].corrupt
    assert "annotation 2: not a mask" in corrupt


def test_an_image_of_another_size_is_named(write: Write, make_image: Callable[..., Image.Image]) -> None:
    root = write(content())
    make_image(0, 10, 12).save(root / "images" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: has 10x12 pixels, but 12x10 in .*instances_train\.json"):
        opened(root).select([0]).decode(0)


def test_places_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: no such file or folder"):
        opened(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no .*annotations/instances_\*\.json"):
        opened(tmp_path)


def test_scenes_have_objects() -> None:
    images = open_images("shapes:n=20,size=32", "train")
    assert images.has_boxes and images.has_masks
    objects = images.select([4, 3]).objects(1)
    assert objects.labels[-1] == 3 and objects.masks is not None
    assert objects.area.tolist() == objects.masks.sum((1, 2)).tolist()
    assert not objects.crowd.any() and len(objects.crowd) == len(objects)


def test_a_set_without_boxes_says_so(folder: Path) -> None:
    images = open_images(f"folder:{folder}", "train")
    assert not images.has_boxes
    with pytest.raises(UserError, match="has no boxes"):
        images.objects(0)


@pytest.mark.parametrize(
    "shape",
    [[[5, 5, 20, 25]], [[1.0, 1.0]], [[]], [POLYGON[0], [1, 2, 3, 4]], [[1, 1, 5, 1, 5, 5, 1]]],
)
def test_what_is_no_polygon(write: Write, shape: list[list[float]]) -> None:
    """Four numbers would be read as a box, x y width height: a mask that nobody drew."""
    values = content()
    values["annotations"] = [values["annotations"][0] | {"segmentation": shape}]
    images = opened(write(values))
    with pytest.raises(UserError, match=r"annotation 1: not a mask \(a polygon of \d numbers"):
        images.objects(0)


def test_what_the_check_says_of_objects(write: Write) -> None:
    values = content()
    values["annotations"].append({"id": 9, "image_id": 7, "category_id": 2, "bbox": [50, 50, 4, 4]})
    lines = [finding.text() for finding in opened(write(values)).findings()]
    for words in (
        "crowd regions (id 2): not learned",
        "images without objects (b.png): kept",
        "1 object outside the image",
        "classes without an object (cow)",
    ):
        assert any(words in line for line in lines), (words, lines)
    assert opened(write(values)).strata() == [0, 3]  # dog is as rare as cat and comes first; the other is empty


def test_a_resumed_run_notices_other_boxes(write: Write) -> None:
    root = write(content())
    before = identity(opened(root))
    assert differences(before, identity(opened(root))) == []
    renumbered = content()
    renumbered["annotations"][0]["id"] = 99
    write(renumbered)
    assert differences(before, identity(opened(root))) == []
    moved = content()
    moved["annotations"][0]["bbox"] = [2, 1, 7, 4]
    write(moved)
    assert differences(before, identity(opened(root))) == ["other boxes or masks"]


def test_a_category_that_is_a_list_is_named(write: Write) -> None:
    for place, key in (("annotations", "category_id"), ("categories", "supercategory")):
        values = content()
        values[place][0][key] = [3]
        if place == "annotations":
            with pytest.raises(UserError, match="category_id"):
                opened(write(values))
        else:
            assert len(opened(write(values))) == 2
