from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweet.data import bands, open_images, stats
from sweet.data.check import SizeRange, check
from sweet.data.repack import pack_to
from sweet.data.shapes import CLASSES
from sweet.errors import UserError


def test_check(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    for place in ("train/ant", "train/bee", "val/ant", "val/bee"):
        (tmp_path / place).mkdir(parents=True)
    train, val = tmp_path / "train", tmp_path / "val"
    images = [make_image(0, 10, 20), make_image(1, 30, 20), make_image(1, 30, 20), make_image(2, 30, 40).convert("L")]
    for image, name in zip(images, ("ant/0.png", "ant/1.png", "bee/copy.bmp", "bee/2.png"), strict=True):
        image.save(train / name)
    (train / "bee" / "3.png").write_bytes(b"no image")
    images[0].save(val / "ant" / "leak.png")
    report = check(f"folder:{tmp_path}")
    found = report.splits["train"]
    assert found.count == 5 and found.classes == {"ant": 2, "bee": 3}
    assert found.sizes == SizeRange([10, 20], [30, 20], [30, 40])
    assert found.modes == {"RGB": 3, "L": 1}
    (corrupt,) = found.corrupt
    assert corrupt.startswith(f"{train / 'bee' / '3.png'}: not a readable image")
    assert found.duplicates == [[str(train / "ant" / "1.png"), str(train / "bee" / "copy.bmp")]]
    assert report.duplicates_across_splits == [[str(train / "ant" / "0.png"), str(val / "ant" / "leak.png")]]
    pixels = [np.asarray(image.convert("RGB")).reshape(-1, 3) / 255 for image in images]
    mean = np.mean([image.mean(0) for image in pixels], 0)  # every image counts alike
    std = np.sqrt(np.mean([(image**2).mean(0) for image in pixels], 0) - mean**2)
    assert found.mean == pytest.approx(mean, abs=1e-4) and found.std == pytest.approx(std, abs=1e-4)


def test_a_report_as_json(folder: Path) -> None:
    """What machines read: the keys, and ``objects`` only where there are boxes."""
    values = json.loads(json.dumps(check(f"folder:{folder}").to_dict()))
    assert list(values) == ["source", "splits", "duplicates_across_splits", "findings"]
    assert values["findings"][0].keys() == {"split", "found", "what sweet does"}
    keys = ["count", "classes", "mask_classes", "sizes", "modes", "corrupt", "duplicates", "mean", "std"]
    assert list(values["splits"]["train"]) == keys
    assert values["splits"]["train"]["sizes"] == {"min": [12, 10], "median": [12, 10], "max": [12, 10]}
    scenes = check("shapes:n=10,size=16").to_dict()["splits"]["val"]["objects"]
    assert set(scenes) == {"per_class", "masks", "left_out"} and list(scenes["per_class"]) == CLASSES


def test_masks_are_checked_too(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for number, value in enumerate((0, 1, 255, 7)):
            Image.new("L", (4, 4), value).save(tmp_path / name / f"{number}.png")
    (tmp_path / "classes.txt").write_text("ground\ntree\nnever\n")
    found = check(f"masks:{tmp_path}").splits["train"]
    assert found.mask_classes == {"ground": 33.333, "tree": 33.333, "never": 0, "no class": 33.333}
    (corrupt,) = found.corrupt
    assert "masks/3.png: value 7 is no line of classes.txt" in corrupt
    assert found.count == 4 and found.classes is None


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    found = check(f"folder:{tmp_path}").splits["train"]
    assert found.count == len(found.corrupt) == 1
    assert found.mean is None and found.sizes is None and found.classes is None


def test_pack_to(folder: Path, tmp_path: Path) -> None:
    report = pack_to(f"folder:{folder}", tmp_path / "out", 8)
    assert report.images == {"train": 6}
    spec = f"parquet:{tmp_path / 'out'}"
    before = open_images(f"folder:{folder}", "train", val_share=0)
    after = open_images(spec, "train", val_share=0)
    assert after.labels == before.labels and after.classes == before.classes
    assert all(after.size(index) == (8, 8) for index in range(6))
    assert check(spec).splits["train"].corrupt == []
    assert (tmp_path / "out" / "classes.txt").read_text() == "ant\nbee\n"
    assert not list((tmp_path / "out").glob(".*"))


def test_pack_to_several_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sweet.data.repack.SHARD_IMAGES", 7)
    monkeypatch.setattr("sweet.data.repack.ROW_GROUP_IMAGES", 3)
    pack_to("shapes:n=20,size=8", tmp_path, 8)
    assert len(list(tmp_path.glob("train-*-of-00003.parquet"))) == 3
    packed, scenes = (open_images(spec, "val") for spec in (f"parquet:{tmp_path}", "shapes:n=20,size=8"))
    assert packed.labels == scenes.labels
    assert all(np.array_equal(packed.decode(index), scenes.decode(index)) for index in range(len(scenes)))


def test_pack_to_names_a_corrupt_image(folder: Path, tmp_path: Path) -> None:
    (folder / "bee" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bee/0\.png: not a readable image"):
        pack_to(f"folder:{folder}", tmp_path / "out", 8)
    assert list((tmp_path / "out").iterdir()) == []


def test_unlabelled_images_stay_unlabelled(folder: Path, tmp_path: Path) -> None:
    pack_to(f"folder:{folder / 'ant' / 'more'}", tmp_path / "out", 8)
    images = open_images(f"parquet:{tmp_path / 'out'}", "train", val_share=0)
    assert images.labels is None and len(images) == 1


def test_the_table_says_what_is_odd_and_what_is_done(tmp_path: Path, make_image: Callable[..., Image.Image]) -> None:
    """One set with a fault of each kind: everything is found before anything is trained."""
    for place in ("Train/ant, small", "Train/bee", "Train/cow", "testing", "extra", "__MACOSX"):
        (tmp_path / place).mkdir(parents=True)
    ants, bees = tmp_path / "Train" / "ant, small", tmp_path / "Train" / "bee"
    make_image(0, 40, 40).save(ants / "0.png")
    make_image(1, 90, 4).save(ants / "strip.png")
    make_image(2, 40, 40).convert("P").save(ants / "palette.png")
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(bees / "deep.png")
    make_image(3, 40, 40).convert("CMYK").save(bees / "cmyk.jpg")
    (bees / "broken.png").write_bytes(b"")
    (bees / "photo.heic").write_bytes(b"x")
    make_image(9).save(tmp_path / "testing" / "0.png")
    rows = {row.text(): row for row in check(f"folder:{tmp_path}").findings}
    for words in (
        "Train: a split called Train: is taken for train",
        "testing: has no labels: it is not used to judge a model",
        "no val split: a tenth of train is drawn by seed 0, each class of two images and more in both",
        "folders beside the splits (extra): left out",
        "__MACOSX in",
        "classes without an image (cow): they keep their place and are never learned",
        "class names with commas (ant, small)",
        "1 image stored as P: colours of the palette",
        "1 image stored as CMYK: converted to RGB",
        "1 image stored as I;16: 16 bits: the upper 8 are kept",
        "1 image longer than 4 to 1",
        "1 image below 8 pixels",
        "1 image that cannot be used: a training stops and names it",
        "files of unknown suffix (1 .heic): left out",
    ):
        assert any(words in text for text in rows), (words, list(rows))
    assert any("cow" in row.found and row.warn for row in rows.values())


@pytest.mark.parametrize("classes", ["ground\ntree\n", "0: ground\n1: tree\n"])
def test_black_and_white_masks_are_named_and_offered(tmp_path: Path, classes: str) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "classes.txt").write_text(classes)
    (row,) = [row for row in check(f"masks:{tmp_path}").findings if "255" in row.found]
    assert '"0: ground", "255: tree"' in row.found and row.handling == "a training refuses it"
    (tmp_path / "classes.txt").write_text("0: ground\n255: tree\n")  # what was offered
    assert check(f"masks:{tmp_path}").splits["train"].mask_classes == {"ground": 50, "tree": 50, "no class": 0}


@pytest.mark.parametrize(
    ("rows", "classes", "found"),
    [
        (
            ["0.png,a;b", "1.png,", "2.png,b"],
            {"a": 1, "b": 2},
            ["0 to 2 labels an image, 1.0 on average", "1 image without a label"],
        ),
        (
            ["0.png,x;y;z", "1.png,x;y", "2.png,x"],
            {"x": 3, "y": 2, "z": 1},
            ["1 to 3 labels an image, 2.0 on average"],
        ),
        (
            ["0.png,only", "1.png,", "2.png,"],
            {"only": 1},
            ["0 to 1 labels an image, 0.3 on average", "2 images without a label"],
        ),
    ],
)
def test_several_labels_an_image_are_counted(
    tmp_path: Path, make_image: Callable[..., Image.Image], rows: list[str], classes: dict[str, int], found: list[str]
) -> None:
    for number in range(3):
        make_image(number).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("\n".join(["image,labels", *rows]))
    report = check(f"csv:{tmp_path}")
    counts = [split.classes for split in report.splits.values() if split.classes]
    assert {name: sum(count[name] for count in counts) for name in classes} == classes
    seen = [finding.found for finding in report.findings if finding.split == "train"]
    assert len(report.splits) > 1 or seen[: len(found)] == found
    assert not any("one class only" in finding for finding in seen)


@pytest.mark.parametrize(("orientation", "suffix"), [(6, "jpg"), (3, "png"), (8, "tif"), (5, "webp")])
def test_images_that_exif_turns_are_said(
    tmp_path: Path, orientation: int, suffix: str, make_image: Callable[..., Image.Image]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    make_image(0).save(tmp_path / f"turned.{suffix}", exif=exif)
    make_image(1).save(tmp_path / "straight.png")
    found = {row.found: row.handling for row in check(f"folder:{tmp_path}").findings}
    assert found["1 image that EXIF turns"].startswith("rotated upright")


def test_pixels_are_read_by_stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the pixels of a huge image there is never a whole copy, and what is said of it is the same."""
    monkeypatch.setattr(bands, "STRIPE", 100)
    monkeypatch.setattr(stats, "MANY", 20 * 33)  # every second row
    pixels = np.random.default_rng(0).integers(0, 256, (47, 33, 3), dtype=np.uint8)
    other = pixels.copy()
    other[46, 32, 2] ^= 1
    for name, values in {"0": pixels, "1": pixels, "2": other, "3": pixels[:, :, ::-1]}.items():
        Image.fromarray(np.ascontiguousarray(values)).save(tmp_path / f"{name}.png")
    copied = []
    to_bytes = Image.Image.tobytes
    monkeypatch.setattr(Image.Image, "tobytes", lambda image, *a: copied.append(image.size[1]) or to_bytes(image, *a))
    found = check(f"folder:{tmp_path}").splits["train"]
    assert copied and max(copied) == 100 // 33
    assert found.duplicates == [[str(tmp_path / "0.png"), str(tmp_path / "1.png")]]
    rows = np.stack([pixels, pixels, other, pixels[:, :, ::-1]])[:, ::2] / 255
    assert found.mean == pytest.approx(rows.mean((0, 1, 2)), abs=1e-4)
