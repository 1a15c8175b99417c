"""Which folder is which split, whatever its letters; what is drawn; what lies among the images and is none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sweet.data import open_images
from sweet.data.folder import FolderImages
from sweet.errors import UserError


def fill(root: Path, split: str, classes: dict[str, int]) -> None:
    for label, (name, count) in enumerate(classes.items()):
        for number in range(count):
            file = root / split / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (label * 20, number % 256, 0)).save(file)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Training", "Testing"),
        ("TRAIN", "VAL"),
        ("train", "dev"),
        ("Train", "Validation"),
        ("training", "VALID"),
        ("train", "Val"),
    ],
)
def test_splits_by_their_usual_names(tmp_path: Path, train: str, val: str) -> None:
    fill(tmp_path, train, {"ant": 5, "bee": 5})
    fill(tmp_path, val, {"ant": 2, "bee": 2})
    (tmp_path / "__MACOSX").mkdir()
    ours, held_out = (open_images(f"folder:{tmp_path}", split) for split in ("train", "val"))
    assert (ours.classes, len(ours), len(held_out)) == (["ant", "bee"], 10, 4)
    assert open_images(f"folder:{tmp_path}", val).labels == held_out.labels  # by its own name too


@pytest.mark.parametrize("names", [("train", "Train"), ("val", "valid"), ("TEST", "testing")])
def test_two_names_of_one_split(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in {"train", *names}:
        fill(tmp_path, name, {"a": 2, "b": 2})
    with pytest.raises(UserError, match="which one is meant"):
        open_images(f"folder:{tmp_path}", "train")


def test_an_unlabelled_test_folder_does_not_stand_in_for_val(tmp_path: Path) -> None:
    fill(tmp_path, "train", {"a": 10, "b": 10})
    for number in range(3):
        (tmp_path / "test").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "test" / f"{number}.png")
    train, val, test = (open_images(f"folder:{tmp_path}", split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (18, 2, 3)
    assert val.labels == [0, 1] and test.labels is None
    # images without labels are judged by images without labels
    fill(tmp_path / "plain", "train", {".": 5})
    fill(tmp_path / "plain", "test", {".": 2})
    assert len(open_images(f"folder:{tmp_path / 'plain'}", "val")) == 2


@pytest.mark.parametrize("sizes", [{"common": 40, "rare": 1, "two": 2}, {"a": 3, "b": 3, "c": 90}, {"a": 2, "b": 2}])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_drawn_split_has_every_class(tmp_path: Path, sizes: dict[str, int], seed: int) -> None:
    fill(tmp_path, ".", sizes)
    train, val = (open_images(f"folder:{tmp_path}", split, seed=seed) for split in ("train", "val"))
    here, there = Counter(train.labels), Counter(val.labels)
    for label, name in enumerate(train.classes or ()):
        assert here[label] + there[label] == sizes[name] and here[label]
        assert bool(there[label]) == (sizes[name] > 1)
    assert train.is_drawn and val.is_drawn
    files = [{images.where(index) for index in range(len(images))} for images in (train, val)]
    assert not files[0] & files[1]
    other = open_images(f"folder:{tmp_path}", "val", seed=seed + 7)
    assert len(other) == len(val)


def test_what_is_no_image_is_left_out_and_named(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    fill(tmp_path, "train", {"a": 2, "b": 2})
    place = tmp_path / "train" / "a"
    make_image(0).save(place / "good.jfif", format="JPEG")
    (place / ".ipynb_checkpoints").mkdir()
    make_image(0).save(place / ".ipynb_checkpoints" / "0.png")
    (place / "._0.png").write_bytes(b"\0\5\x16\7")
    (place / "x.heic").write_bytes(b"x")
    (place / "nowhere.png").symlink_to("absent")
    (place / "null.jpg").symlink_to("/dev/null")
    (place / "round").symlink_to("..")
    os.mkfifo(place / "fifo.png")
    make_image(0).save(tmp_path / "train" / "loose.png")
    images = open_images(f"folder:{tmp_path}", "train", val_share=0)
    names = [Path(images.where(index)).name for index in range(len(images))]
    own = ["0.png", "1.png", "good.jfif", "nowhere.png"]
    assert names == [*own, "0.png", "1.png"]
    text = "\n".join(finding.text() for finding in images.findings())
    for word in ("1 .heic", "null.jpg", "fifo.png", "loose.png", "round", "hidden"):
        assert word in text, (word, text)
    index = names.index("nowhere.png")
    with pytest.raises(UserError, match=r"nowhere\.png: not a readable image \(a link to nothing\)"):
        images.decode(index)
    assert images.fingerprint()


@pytest.mark.parametrize("loops", [1, 2, 3])
def test_links_that_go_round_end(tmp_path: Path, loops: int) -> None:
    fill(tmp_path, "train", {".": 20})
    for number in range(loops):
        (tmp_path / "train" / f"l{number}").symlink_to(".")
    images = open_images(f"folder:{tmp_path}", "train", val_share=0)
    assert isinstance(images, FolderImages) and len(images) == 20
    assert len(images.others.loops) == loops


def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", ".", {"a": 3})
    fill(tmp_path, "set/train", {"b": 2})
    (tmp_path / "set" / "train" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "set" / "train" / "c").symlink_to(tmp_path / "elsewhere" / "a")  # twice is not round
    images = open_images(f"folder:{tmp_path / 'set'}", "train", val_share=0)
    assert images.labels == [0] * 3 + [1] * 2 + [2] * 3


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "train", {"a": 1, "b": 1})
    monkeypatch.setattr("sweet.data.folder.os.access", lambda *_: False)
    with pytest.raises(UserError, match="permission denied"):
        open_images(f"folder:{tmp_path}", "train")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_drawn_split_of_several_labels_has_the_rare_ones(
    tmp_path: Path, seed: int, make_image: Callable[..., Image.Image]
) -> None:
    rows = ["image,labels"]
    for number in range(30):
        make_image(number).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,common{';rare' if number in (4, 11) else ''}{';seldom' if number % 10 == 0 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for split in ("train", "val"):
        images = open_images(f"csv:{tmp_path}", split, seed=seed)
        assert images.label_lists is not None
        assert {label for several in images.label_lists for label in several} == {0, 1, 2}


@pytest.mark.parametrize("form", ["csv", "yolo"])
def test_a_test_split_without_labels_does_not_stand_in_for_val(
    tmp_path: Path, form: str, make_image: Callable[..., Image.Image]
) -> None:
    rows = ["image,labels,split"]
    for number in range(12):
        split = "train" if number < 8 else "test"
        folder = tmp_path if form == "csv" else tmp_path / split / "images"
        (tmp_path / split / "labels").mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        make_image(number).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'a;b' if split == 'train' else ''},{split}")
        if split == "train":
            (tmp_path / split / "labels" / f"{number}.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "data.yaml").write_text("train: train/images\ntest: test/images\nnames: [a]\n")
    val = open_images(f"{form}:{tmp_path}", "val")
    assert val.is_drawn and val.label_lists is not None and all(val.label_lists)
