from __future__ import annotations

from pathlib import Path

import pytest

from sweet.data import open_images
from sweet.errors import UserError


def test_a_drawn_validation_split(folder: Path) -> None:
    spec = f"folder:{folder}"
    train, val = (open_images(spec, split, val_share=0.34, seed=3) for split in ("train", "val"))
    files = [[images.where(index) for index in range(len(images))] for images in (train, val)]
    assert len(train) == 4 and len(val) == 2
    assert not set(files[0]) & set(files[1])
    again = open_images(spec, "test", val_share=0.34, seed=3)
    assert [again.where(index) for index in range(len(again))] == files[1]
    firsts = {open_images(spec, "val", seed=seed).where(0) for seed in range(20)}
    assert len(firsts) == 3  # one image of each class, drawn by the seed
    assert (train.split, val.split, again.split) == ("train", "val", "test")


def test_all_for_training(folder: Path) -> None:
    assert len(open_images(f"folder:{folder}", "train", val_share=0)) == 6
    with pytest.raises(UserError, match="no split 'val'; it has train"):
        open_images(f"folder:{folder}", "val", val_share=0)


def test_select(folder: Path) -> None:
    images = open_images(f"folder:{folder}", "train", val_share=0)
    some = images.select([5, 1]).select([1, 0, 1])
    assert some.labels == [0, 1, 0] and some.where(1) == images.where(5)
    assert some.size(0) == (12, 10)
    assert len({one.fingerprint() for one in (images, some, images.select([1, 5]))}) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "zip:/x",
            "--data zip:/x: expected folder:, parquet:, packed:, hub:, stream:, csv:, coco:, yolo:, masks:, wds:, ",
        ),
        ("folder:", "--data folder:: nothing after folder:"),
        ("", "--data : expected"),
        ("shapes:n=0", "n must be from 1 to 10,000,000"),
        ("shapes:n=100000000000", "n must be from 1"),
        ("shapes:size=100000", "size from 8 to 4096"),
        ("shapes:colour=3", "'colour=3' not understood; expected n=2000,size=32,seed=0"),
        ("shapes:n=-3", "'n=-3' not understood"),
        ("shapes:n=64,size=16,n=3", "n stands twice"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        open_images(spec, "train")
    assert message in str(caught.value)


def test_a_bare_path_gets_a_hint(folder: Path) -> None:
    with pytest.raises(UserError, match=rf"\(folder:{folder}\?\)"):
        open_images(str(folder), "train")


def test_an_unknown_split(folder: Path) -> None:
    with pytest.raises(UserError, match="no split 'dev'; it has train"):
        open_images(f"folder:{folder}", "dev")


def test_one_image_cannot_be_shared_out(folder: Path) -> None:
    with pytest.raises(UserError, match="too few to draw a validation split"):
        open_images(f"folder:{folder / 'ant' / 'more'}", "train")
