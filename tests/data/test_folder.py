from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweet.data import open_images, splits
from sweet.errors import UserError


def test_classes_are_folders(folder: Path) -> None:
    images = open_images(f"folder:{folder}", "train", val_share=0)
    assert images.classes == ["ant", "bee"]
    assert images.labels == [0, 0, 0, 1, 1, 1]
    assert [Path(images.where(index)).name for index in range(3)] == ["0.png", "1.png", "2.png"]
    assert images.size(0) == (12, 10) and images.decode(0).mode == "RGB"


def test_agrees_with_torchvision(folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    (folder / ".hidden").rmdir()  # theirs would be a class
    theirs = ImageFolder(str(folder))
    ours = open_images(f"folder:{folder}", "train", val_share=0)
    for index, (image, label) in enumerate(theirs):
        assert ours.labels is not None and ours.labels[index] == label
        assert np.array_equal(ours.decode(index), image)


def test_a_flat_folder_has_no_labels(folder: Path) -> None:
    images = open_images(f"folder:{folder / 'ant' / 'more'}", "train", val_share=0)
    assert len(images) == 1 and images.labels is None and images.classes is None


def test_splits_share_their_classes(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    for place in ("train/ant", "train/bee", "train/cow", "val/cow", "val/ant"):
        (tmp_path / place).mkdir(parents=True)
        make_image(0).save(tmp_path / place / "0.png")
    train, val = (open_images(f"folder:{tmp_path}", split) for split in ("train", "val"))
    assert train.labels == [0, 1, 2]
    assert val.labels == [0, 2] and val.classes == ["ant", "bee", "cow"]
    assert open_images(f"folder:{tmp_path}", "test").labels == [0, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such name")
def test_a_class_whose_name_is_not_utf8(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    """Of an old archive: config.json would hold what no reader of JSON takes, and a finished run could not be read."""
    for split, name in (("train", b"caf\xe9"), ("train", b"tea"), ("val", "caf\u00e9".encode()), ("val", b"tea")):
        place = tmp_path / split / os.fsdecode(name)
        place.mkdir(parents=True)
        make_image(0).save(place / "0.png")
    for split in ("train", "val"):
        images = open_images(f"folder:{tmp_path}", split)
        assert images.classes == ["caf\u00e9", "tea"] and images.labels == [0, 1]
        assert images.decode(0).size == (12, 10)


def test_a_class_may_be_called_test(folder: Path) -> None:
    (folder / "bee").rename(folder / "test")
    assert open_images(f"folder:{folder}", "train", val_share=0).classes == ["ant", "test"]


@pytest.mark.parametrize(
    "names", [("train_set", "val_set"), ("Training-Images", "Validation-Images"), ("train2017", "val2017")]
)
def test_splits_under_unknown_names_are_pointed_out(folder: Path, names: tuple[str, str]) -> None:
    """They are taken for classes, and a training would tell splits apart instead of what the images show."""
    for before, name in zip(("ant", "bee"), names, strict=True):
        (folder / before).rename(folder / name)
    texts = [one.text() for one in open_images(f"folder:{folder}", "train", val_share=0).findings() if one.warn]
    handling = "taken for classes; splits are train, val and test"
    assert texts == [f"train: folders with names like splits ({', '.join(names)}): {handling}"]


def test_classes_may_begin_like_splits(folder: Path) -> None:
    (folder / "ant").rename(folder / "trainer")
    (folder / "bee").rename(folder / "test_tube")
    images = open_images(f"folder:{folder}", "train", val_share=0)
    assert images.classes == ["test_tube", "trainer"] and not any(one.warn for one in images.findings())


def test_a_class_is_not_refused_for_the_names_of_its_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names of one split are an error of a set; that a class looks like one is only a warning."""
    (folder / "ant" / "more").rename(folder / "ant" / "train")
    (folder / "ant" / "training").mkdir()
    plain = splits.subfolders

    def subfolders(path: Path) -> list[str]:
        if path.name == "bee":
            raise PermissionError(path)
        return plain(path)

    monkeypatch.setattr(splits, "subfolders", subfolders)
    assert open_images(f"folder:{folder}", "train", val_share=0).classes == ["ant", "bee"]


@pytest.mark.parametrize("form", ["grey", "palette", "alpha", "deep", "sideways"])
def test_every_mode_becomes_upright_rgb(tmp_path: Path, form: str, make_image: Callable[..., Image.Image]) -> None:
    image = make_image(0)
    options: dict[str, object] = {}
    if form == "grey":
        image = image.convert("L")
    elif form == "palette":
        image = image.convert("P")
        options = {"transparency": bytes(range(256))}
    elif form == "alpha":
        image = image.convert("RGBA")
    elif form == "deep":
        image = Image.fromarray(np.full((10, 12), 128 * 256, dtype=np.uint16))
    elif form == "sideways":
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held upright: width and height change places
        options = {"exif": exif}
    image.save(tmp_path / "0.png", **options)
    decoded = open_images(f"folder:{tmp_path}", "train", val_share=0).decode(0)
    assert decoded.mode == "RGB"
    assert decoded.size == ((10, 12) if form == "sideways" else (12, 10))
    if form == "deep":
        assert np.unique(np.asarray(decoded)).tolist() == [128]


def test_bad_input_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--data folder:.*/absent: no such folder$"):
        open_images(f"folder:{tmp_path}/absent", "train")
    with pytest.raises(UserError, match="not a folder"):
        open_images(f"folder:{folder}/ant/0.png", "train")
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no images in .*empty"):
        open_images(f"folder:{tmp_path}/empty", "train")


@pytest.mark.parametrize("damage", ["text", "cut", "nothing"])
def test_a_corrupt_image_is_named(folder: Path, damage: str) -> None:
    file = folder / "ant" / "0.png"
    good = file.read_bytes()
    file.write_bytes({"text": b"no image at all", "cut": good[: len(good) // 2], "nothing": b""}[damage])
    images = open_images(f"folder:{folder}", "train", val_share=0)
    with pytest.raises(UserError, match=r"ant/0\.png: not a readable image"):
        images.decode(0)
    file.unlink()
    with pytest.raises(UserError, match=r"ant/0\.png: not a readable image"):
        images.size(0)
