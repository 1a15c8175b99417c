"""``masks:PATH``: what a pixel's value means, and everything that may be wrong with a folder of masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweet.data import open_images
from sweet.data.decode import ORIENTATION
from sweet.data.identity import differences, identity
from sweet.data.images import IGNORE
from sweet.data.masks import class_pixels, unseen_classes
from sweet.data.shapes import CLASSES, ShapeImages
from sweet.errors import UserError

VALUES = np.array([[0, 1, 2, 2], [0, 255, 1, 1], [0, 0, 0, 3]], np.uint8)
Write = Callable[..., Path]


def picture(values: np.ndarray, mode: str = "L") -> Image.Image:
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([9, 8, 7] * 256)
    return image


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(classes, split): three 4x3 images with masks, one in a folder below, and classes.txt."""

    def make(classes: str = "sky\nvoid\nroad\ncar\n", split: str = "train") -> Path:
        for number, place in enumerate(("a", "b", "town/c")):
            image, mask = (
                tmp_path / folder / split / f"{place}.{suffix}"
                for folder, suffix in (("images", "jpg"), ("masks", "png"))
            )
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3), (number * 40,) * 3).save(image)
            picture(VALUES, "P" if number else "L").save(mask)
        (tmp_path / "classes.txt").write_text(classes)
        return tmp_path

    return make


def test_a_value_is_a_line_of_classes_txt(write: Write) -> None:
    images = open_images(f"masks:{write()}", "train", val_share=0)
    assert images.mask_classes == ["sky", "road", "car"]  # void is none of them, wherever it stands
    assert (images.labels, images.classes, len(images)) == (None, None, 3)
    expected = [[0, IGNORE, 1, 1], [0, IGNORE, IGNORE, IGNORE], [0, 0, 0, 2]]
    for index in range(3):
        mask = images.mask(index)
        assert mask.dtype == np.uint8 and mask.tolist() == expected
        assert mask.shape == images.decode(index).size[::-1]
    chosen = images.select([2, 0])
    assert chosen.mask_classes == images.mask_classes and "town" in chosen.where(0)
    assert np.array_equal(chosen.mask(0), expected)


@pytest.mark.parametrize("void", ["void", "Ignore", "unlabelled", "unlabeled"])
def test_names_of_no_class(write: Write, void: str) -> None:
    images = open_images(f"masks:{write(f'a{chr(10)}b{chr(10)}c{chr(10)}{void}')}", "train")
    assert images.mask_classes == ["a", "b", "c"]
    assert images.mask(0)[2, 3] == IGNORE


def test_splits_and_a_drawn_one(write: Write, tmp_path: Path) -> None:
    write(split="train")
    write(split="test")
    train, val = (open_images(f"masks:{tmp_path}", split) for split in ("train", "val"))
    assert (len(train), len(val), val.split) == (3, 3, "test")


def test_without_splits_a_share_is_drawn(write: Write) -> None:
    folder = write(split=".")
    train, val = (open_images(f"masks:{folder}", split, val_share=0.34) for split in ("train", "val"))
    assert (len(train), len(val)) == (2, 1)
    assert val.mask_classes == train.mask_classes and val.mask(0).shape == (3, 4)


def test_an_image_that_was_held_sideways(write: Write) -> None:
    folder = write()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (3, 4)).save(folder / "images/train/a.jpg", exif=exif)
    images = open_images(f"masks:{folder}", "train", val_share=0)
    assert images.decode(0).size == (4, 3) and images.mask(0).shape == (3, 4)


def test_pixels_of_each_class_are_counted_once(write: Write) -> None:
    folder = write("sky\nvoid\nroad\ncar\nnever\n")  # a class without a pixel is allowed
    images = open_images(f"masks:{folder}", "train", val_share=0)
    assert class_pixels(images).tolist() == [[5, 2, 1, 0]] * 3
    images.mask = lambda index: pytest.fail("read again")  # type: ignore[method-assign, assignment, return-value]
    assert class_pixels(images).tolist() == [[5, 2, 1, 0]] * 3
    picture(np.zeros((3, 4), np.uint8)).save(folder / "masks/train/a.png")
    changed = open_images(f"masks:{folder}", "train", val_share=0)
    assert class_pixels(changed).tolist() == [[12, 0, 0, 0]] + [[5, 2, 1, 0]] * 2


def undeclared(folder: Path) -> None:
    picture(np.full((3, 4), 9, np.uint8)).save(folder / "masks/train/b.png")


def coloured(folder: Path) -> None:
    Image.new("RGB", (4, 3)).save(folder / "masks/train/b.png")


def deep(folder: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(folder / "masks/train/b.png")


def larger(folder: Path) -> None:
    picture(np.zeros((6, 8), np.uint8)).save(folder / "masks/train/b.png")


def damaged(folder: Path) -> None:
    (folder / "masks/train/b.png").write_bytes(b"\x89PNG and no more")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (undeclared, "masks/train/b.png: value 9 is no line of classes.txt (0 to 3, or 255: no class)"),
        (coloured, "masks/train/b.png: mode RGB; a mask is an 8-bit grey or palette picture of class indices"),
        (deep, "masks/train/b.png: mode I;16"),
        (larger, "masks/train/b.png: 8x6 pixels, its image "),
        (damaged, "masks/train/b.png: not a readable mask"),
    ],
)
def test_a_wrong_mask(write: Write, spoil: Callable[[Path], None], message: str) -> None:
    folder = write()
    spoil(folder)
    images = open_images(f"masks:{folder}", "train", val_share=0)
    images.mask(0)
    for read in (lambda: images.mask(1), lambda: class_pixels(images)):
        with pytest.raises(UserError) as caught:
            read()
        assert message in str(caught.value)


def lonely_image(folder: Path) -> None:
    (folder / "masks/train/b.png").unlink()


def lonely_mask(folder: Path) -> None:
    (folder / "images/train/a.jpg").unlink()
    (folder / "images/train/b.jpg").unlink()


def twins(folder: Path) -> None:
    Image.new("RGB", (4, 3)).save(folder / "images/train/a.png")


def no_masks(folder: Path) -> None:
    (folder / "masks").rename(folder / "labels")


def no_images(folder: Path) -> None:
    for file in folder.glob("images/train/**/*.jpg"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lonely_image, r"images/train/b.jpg: has no mask of the same name in \S+/masks/train$"),
        (lonely_mask, r"masks/train/a.png: has no image of the same name in \S+/images/train \(and 1 more\)$"),
        (twins, r"images/train/a.png: \S+/a.jpg has the same name"),
        (no_masks, r"--data masks:\S+: has no folder masks$"),
        (no_images, r"--data masks:\S+: no images in "),
        (lambda folder: (folder / "classes.txt").unlink(), r"--data masks:\S+: no classes.txt, one class name a line$"),
    ],
)
def test_a_wrong_folder(write: Write, spoil: Callable[[Path], None], message: str) -> None:
    folder = write()
    spoil(folder)
    with pytest.raises(UserError, match=message):
        open_images(f"masks:{folder}", "train")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("sky\n\nroad\n", "classes.txt:2: an empty line"),
        ("sky\nroad\nsky\n", "classes.txt:3: sky stands twice"),
        ("sky\nvoid\n", "classes.txt: fewer than two classes"),
        ("", "classes.txt: fewer than two classes"),
        ("\n".join(map(str, range(256))), "classes.txt: 256 lines; indices of 8 bits allow 255"),
    ],
)
def test_a_wrong_list_of_classes(write: Write, classes: str, message: str) -> None:
    folder = write(classes)
    with pytest.raises(UserError) as caught:
        open_images(f"masks:{folder}", "train")
    assert message in str(caught.value)


def test_no_such_folder_and_no_masks(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"--data masks:\S+/nowhere: no such folder"):
        open_images(f"masks:{tmp_path / 'nowhere'}", "train")
    images = open_images(f"folder:{folder}", "train")
    assert images.mask_classes is None
    with pytest.raises(UserError, match=r"0.png: has no mask"):
        images.mask(0)


def test_scenes_have_masks() -> None:
    scenes = ShapeImages("shapes:", "train", 12, 24, 0)
    assert scenes.mask_classes == ["background", *CLASSES]
    for index in range(len(scenes)):
        scene, mask = scenes.scene(index), scenes.mask(index)
        assert mask.shape == (24, 24)
        assert (mask > 0).sum() == scene.masks.sum()
        for label, seen in zip(scene.object_labels, scene.masks, strict=True):
            assert (mask[seen] == label + 1).all()
    assert class_pixels(scenes).sum(1).tolist() == [24 * 24] * 12


def test_a_value_may_be_named(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (3, 1)).save(tmp_path / "images" / "0.png")
    Image.fromarray(np.array([[0, 255, 7]], np.uint8)).save(tmp_path / "masks" / "0.png")
    (tmp_path / "classes.txt").write_text("255: road\n0: ground\n7: void\n")
    images = open_images(f"masks:{tmp_path}", "train", val_share=0)
    assert images.mask_classes == ["ground", "road"] and images.mask(0).tolist() == [[0, 1, IGNORE]]
    for text, message in (("0: a\n0: b\n", "stands twice"), ("0: a\n300: b\n", "indices of 8 bits")):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            open_images(f"masks:{tmp_path}", "train", val_share=0)


@pytest.mark.parametrize(
    "classes", ["background\nforeground\n", "a\nb\nc\n", "0: a\n1: b\n", "ground\nsky\nroad\ncar\n"]
)
def test_black_and_white_masks_are_refused_with_a_way_out(write: Write, classes: str) -> None:
    folder = write(classes)
    for mask in (folder / "masks").rglob("*.png"):
        Image.fromarray(np.array([[0, 255, 0, 0]] * 3, np.uint8)).save(mask)
    images = open_images(f"masks:{folder}", "train", val_share=0)
    with pytest.raises(UserError, match=r"hold 255, which is no class.*classes\.txt: \"0: "):
        unseen_classes(images, class_pixels(images))


def test_a_class_that_no_mask_shows(write: Write) -> None:
    folder = write("sky\nroad\ncar\nbus\nnever\n")
    images = open_images(f"masks:{folder}", "train", val_share=0)
    (found,) = unseen_classes(images, class_pixels(images))
    assert "never" in found.found and found.warn and "never learned" in found.handling


def test_a_test_split_without_masks_is_unlabelled(write: Write, tmp_path: Path) -> None:
    write()
    (tmp_path / "images" / "Test").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "images" / "Test" / "x.png")
    train, val, test = (open_images(f"masks:{tmp_path}", split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (2, 1, 1)
    assert test.mask_classes is None and val.mask_classes == train.mask_classes


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_a_turned_image_takes_an_upright_mask(tmp_path: Path, orientation: int, suffix: str) -> None:
    tag = Image.Exif()
    tag[ORIENTATION] = orientation
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / f"0.{suffix}", exif=tag)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for size in ((8, 6), (6, 8)):
        Image.new("L", size).save(tmp_path / "masks" / "0.png")
        images = open_images(f"masks:{tmp_path}", "train", val_share=0)
        if size == images.decode(0).size:
            assert images.mask(0).shape == size[::-1]
        else:
            with pytest.raises(UserError, match="pixels, its image"):
                images.mask(0)


def test_a_resumed_run_notices_other_masks(write: Write, tmp_path: Path) -> None:
    images = open_images(f"masks:{write()}", "train", val_share=0)
    parts = [images, images.select([1]), images.select([0])]
    before = [identity(part) for part in parts]
    assert [differences(known, identity(part)) for known, part in zip(before, parts, strict=True)] == [[], [], []]
    picture(VALUES[::-1].copy()).save(tmp_path / "masks" / "train" / "b.png")
    found = [differences(known, identity(part)) for known, part in zip(before, parts, strict=True)]
    assert found == [["other boxes or masks"], ["other boxes or masks"], []]
