"""The table of ``sweet data check``: nothing odd is left unsaid, and what it says is what decoding does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sweet.data import open_images
from sweet.data.check import check
from sweet.data.check_findings import name_table
from sweet.data.decode import PixelFormat
from sweet.errors import UserError
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import PretrainRecipe
from sweet.tasks.classification.classify import Classify

NUMBERS = np.random.default_rng(0).random((16, 20, 12))


def rows(spec: str) -> list[str]:
    return [finding.text().removeprefix("train: ") for finding in check(spec).findings]


def said(lines: list[str], *words: str) -> None:
    for word in words:
        assert any(line.startswith(word) for line in lines), (word, lines)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("twelve.png", (NUMBERS[..., 0] * 4095).astype(np.uint16), ["1 image stored as I;16", "1 channel: dark, with"]),
        ("signed.tif", (NUMBERS[..., 0] * 60_000).astype(np.int32), ["1 image stored as I: see", "1 channel: refused"]),
        ("scan.tif", (NUMBERS[..., 0] * 3000 - 1000).astype(np.float32), ["values from -", "1 channel: refused"]),
        ("whole.tif", NUMBERS[..., 0].astype(np.float32), ["1 image stored as F: see", "values from 0."]),
        (
            "five.npy",
            (NUMBERS[..., :5] * 255).astype(np.uint8),
            ["1 image stored as 5xuint8: 8", "5 channels: refused"],
        ),
        ("twelve.npy", NUMBERS, ["1 image stored as 12xfloat64: see", "12 channels: refused"]),
        ("holes.npy", np.where(NUMBERS < 0.25, np.nan, NUMBERS)[..., :3], ["2", "values from 0.25"]),
    ],
)
def test_what_becomes_of_the_numbers(tmp_path: Path, name: str, values: np.ndarray, words: list[str]) -> None:
    file = tmp_path / name
    np.save(file, values) if file.suffix == ".npy" else Image.fromarray(values).save(file)
    lines = rows(f"folder:{tmp_path}")
    said(lines, *words)
    assert any(line.endswith("are no numbers: become 0, black") for line in lines) == ("holes" in name)
    images = open_images(f"folder:{tmp_path}", "train", val_share=0)
    (keys,) = [line.partition(" recipe says ")[2] for line in lines if " recipe says " in line] or [""]
    if any(": refused unless" in line for line in lines):
        with pytest.raises(UserError, match=r"channels, the model takes 3|what is black and what is white"):
            images.read_as(PixelFormat()).decode(0)
    recipe = load_recipe(PretrainRecipe, "nano", keys.split())  # the keys as they are printed
    pixels = np.asarray(images.read_as(PixelFormat.of(recipe.data)).decode(0))
    assert pixels.max() > 235 and len(recipe.data.mean) == recipe.model.in_chans


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("$1_$2", "signs of markup ($1_$2)"),
        ("a|b", "signs of markup (a|b)"),
        ("back\\slash", "signs of markup (back\\slash)"),
        ("100 %", "signs of markup (100 %)"),
        ("two\nlines", "long or cannot be printed (two\\nlines)"),
        ("\u202egpj", "long or cannot be printed (\\u202egpj)"),
        ("n" * 50, f"long or cannot be printed ({'n' * 40})"),
        ("\u05e9\u05dc\u05d5\u05dd", "beyond Latin letters (\u05e9\u05dc\u05d5\u05dd)"),
        ("\U0001f600", "beyond Latin letters (\U0001f600)"),
        ("tench, Tinca", "with commas (tench, Tinca)"),
    ],
)
def test_names_that_are_hard_to_show(name: str, row: str) -> None:
    (finding,) = name_table(["plain", "caf\u00e9", "hot_dog", name])
    assert row in finding.found


@pytest.mark.parametrize("inner", [["photos"], ["photos", "more"], ["Photos of 2024"]])
def test_a_set_inside_the_folder(tmp_path: Path, inner: list[str], make_image: Callable[..., Image.Image]) -> None:
    """As an archive unpacks into a folder of its own name: its splits would be read as images of one class."""
    for name in inner:
        for place in ("train/ant", "train/bee", "val/ant"):
            (tmp_path / name / place).mkdir(parents=True)
            make_image(0).save(tmp_path / name / place / "0.png")
    images = open_images(f"folder:{tmp_path}", "train")
    (row,) = [row for row in images.findings() if row.warn]
    assert row.found.startswith("folders with splits inside (") and sorted(inner)[0] in row.handling
    proposed = open_images(row.handling.rpartition(" say ")[2], "train")
    assert proposed.classes == ["ant", "bee"] and not any(row.warn for row in proposed.findings())


BOX = "0 0.5 0.5 0.4 0.4\n"
LINE = "0 0.1 0.1 0.9 0.1 0.5 0.9\n"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([BOX, ""], ["classes without an object (dog)", "images without objects (1.png)", "1 object, none with"]),
        ([BOX + LINE, LINE], ["1 of 3 objects without a mask: boxes alone"]),
        (
            ["0 0.5 0.5 0 0.4\n" + LINE, "1" + LINE[1:]],
            ["1 object outside the image, or without width or height: left"],
        ),
        ([LINE, "1" + LINE[1:]], []),
    ],
)
def test_objects_of_yolo(
    tmp_path: Path, labels: list[str], words: list[str], make_image: Callable[..., Image.Image]
) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number, text in enumerate(labels):
        make_image(number).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "labels" / f"{number}.txt").write_text(text)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    lines = rows(f"yolo:{tmp_path}")
    said(lines, *words)
    assert words or not any("object" in line for line in lines)


LENGTHS = {"size": [10, 12], "counts": [40, 20, 60]}


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([{"segmentation": LENGTHS}], ["masks as run lengths (id 0): read like polygons"]),
        ([{}, {"iscrowd": 1, "segmentation": LENGTHS}], ["crowd regions (id 1): not", "1 of 2 objects without a mask"]),
        ([{"segmentation": []}], ["1 object, none with a mask: boxes alone are learned"]),
        ([{"segmentation": [[1, 1, 5, 5]]}], ["1 image that cannot be used: a training stops and names it"]),
        ([], ["classes without an object (cat)", "images without objects (0.png)"]),
    ],
)
def test_objects_of_coco(
    tmp_path: Path, objects: list[dict[str, object]], words: list[str], make_image: Callable[..., Image.Image]
) -> None:
    make_image(0, 12, 10).save(tmp_path / "0.png")
    known = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [2, 2, 5, 5]} | one for i, one in enumerate(objects)]
    image = {"id": 1, "file_name": "0.png", "width": 12, "height": 10}
    values = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": known}
    (tmp_path / "boxes.json").write_text(json.dumps(values))
    said(rows(f"coco:{tmp_path / 'boxes.json'}"), *words)


@pytest.mark.parametrize(
    ("values", "classes", "words"),
    [
        ([0, 1, 255, 255], "a\nb\n", ["50 % of the pixels of the masks without a class"]),
        ([0, 1, 1, 2], "a\nb\nvoid\n", ["25 % of the pixels of the masks without a class", "void in classes.txt"]),
        ([0, 0, 0, 0], "a\nb\n", ["classes that no mask shows (b): never learned"]),
        ([0, 1, 1, 7], "a\nb\n", ["1 image that cannot be used"]),
        ([0, 9, 1, 200], "a\nb\n", ["1 image that cannot be used: a training stops and names it"]),
    ],
)
def test_values_of_masks(tmp_path: Path, values: list[int], classes: str, words: list[str]) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.array(values, np.uint8).reshape(2, 2)).save(tmp_path / name / "0.png")
    (tmp_path / "classes.txt").write_text(classes)
    said(rows(f"masks:{tmp_path}"), *words)


@pytest.mark.parametrize(
    ("name", "contents", "row"),
    [
        ("a.jfif", "JPEG", "1 image called .jfif (JPEG): read as what it holds"),
        ("a.jpe", "JPEG", "1 image called .jpe (JPEG): read as what it holds"),
        ("a.png", "JPEG", "1 image called .png (JPEG): read as what it holds"),
        ("a.jpg", "WEBP", "1 image called .jpg (WEBP): read as what it holds"),
        ("a.JPG", "JPEG", ""),
        ("a.tiff", "TIFF", ""),
        ("a.npy", "", ""),
    ],
)
def test_suffixes_that_are_unusual_or_wrong(
    tmp_path: Path, name: str, contents: str, row: str, make_image: Callable[..., Image.Image]
) -> None:
    if contents:
        make_image(0, 12, 10).save(tmp_path / name, format=contents)
    else:
        np.save(tmp_path / name, np.asarray(make_image(0, 12, 10)))
    lines = rows(f"folder:{tmp_path}")
    assert [line for line in lines if " called " in line] == ([row] if row else [])
    assert open_images(f"folder:{tmp_path}", "train", val_share=0).decode(0).size == (12, 10)


def write_pages(file: Path, pages: list[np.ndarray]) -> None:
    """Grey and RGB by Pillow, other channels by tifffile."""
    if pages[0].ndim == 2 or pages[0].shape[2] == 3:
        first, *others = map(Image.fromarray, pages)
        first.save(file, save_all=True, append_images=others)
        return
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", planarconfig="contig")


@pytest.mark.parametrize(
    ("name", "count", "channels", "row"),
    [
        ("a.gif", 3, 0, "1 GIF file of several images (frames, pages): the first one is taken"),
        ("a.tif", 2, 3, "1 TIFF file of several images (frames, pages): the first one is taken"),
        ("a.tif", 4, 5, "1 TIFF file of several images (frames, pages): the first one is taken"),
        ("a.webp", 2, 3, "1 WEBP file of several images (frames, pages): the first one is taken"),
        ("a.png", 2, 3, "1 PNG file of several images (frames, pages): the first one is taken"),
        ("a.gif", 1, 0, ""),
        ("a.tif", 1, 3, ""),
    ],
)
def test_files_of_several_images(tmp_path: Path, name: str, count: int, channels: int, row: str) -> None:
    shape = (10, 12, channels) if channels else (10, 12)
    pages = [np.full(shape, 40 * (number + 1), np.uint8) for number in range(count)]
    write_pages(tmp_path / name, pages)
    found = [line for line in rows(f"folder:{tmp_path}") if "several images" in line]
    assert [line.startswith(row) for line in found] == ([True] if row else [])
    images = open_images(f"folder:{tmp_path}", "train", val_share=0).read_as(PixelFormat(channels or 3))
    assert abs(float(np.asarray(images.decode(0)).mean()) - 40) < 3  # of WebP, with loss


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("a.png,x\nb.png,y\na.png,x\n", {"the same labels (a.png): each counts once"}),
        ("a.png,x\nb.png,y\na.png,y\n", {"different labels (a.png): each has the labels of all its rows"}),
        (
            "a.png,x;y\nb.png,y\na.png,y;x\nb.png,\n",
            {"the same labels (a.png): each", "different labels (b.png): each"},
        ),
        ("a.png,x\nb.png,y\n", set()),
    ],
)
def test_images_in_several_rows(
    tmp_path: Path, table: str, found: set[str], make_image: Callable[..., Image.Image]
) -> None:
    for number, name in enumerate("ab"):
        make_image(number).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,labels\n" + table)
    said(rows(f"csv:{tmp_path}"), *(f"images in several rows with {words}" for words in found))
    assert sum("several rows" in line for line in rows(f"csv:{tmp_path}")) == len(found)
    images = open_images(f"csv:{tmp_path}", "train", val_share=0)
    assert len(images) == 2
    if any("different" in words for words in found):
        with pytest.raises(UserError, match=r"\.png has a list of 2 labels, and the task needs one label"):
            Classify.classes_of(images)


@pytest.mark.parametrize("layout", ["folder", "csv", "multilabel"])
@pytest.mark.parametrize("differs", [True, False])
def test_identical_images_with_different_labels(
    tmp_path: Path, layout: str, differs: bool, make_image: Callable[..., Image.Image]
) -> None:
    for name, seed in (("x/0", 0), ("x/1", 1), ("y/2", 0 if differs else 2), ("x/3", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_image(seed).save(tmp_path / f"{name}.png")
    more = ";z" if layout == "multilabel" else ""
    table = f"x/0.png,x{more}\nx/1.png,x\ny/2.png,y\nx/3.png,x{more}\n"
    if layout != "folder":
        (tmp_path / "labels.csv").write_text("image,labels\n" + table)
    lines = rows(f"{'folder' if layout == 'folder' else 'csv'}:{tmp_path}")
    said(lines, "1 group of identical images: kept")
    row = "identical images with different labels (0.png): kept: at most one of the labels is right"
    assert (row in lines) == differs


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ("shapes:n=10,size=16", "a class for each pixel: learned by --task segment"),
        ("folder:PATH", "one class an image: learned by --task classify or generate"),
        ("folder:PATH/many", "images alone: sweet pretrain learns from them; no task does"),
        ("coco:PATH/boxes.json", "boxes alone: learned by --task detect; which classes an image has, by --task multi"),
        ("coco:PATH/outlines.json", "boxes and outlines: learned by --task detect; which"),
        ("folder:PATH", "from 1 (few) to 5 (many) images of a class: learned as they come; alike with optim.balance=w"),
        ("csv:PATH", "from 1 (few) to 5 (many) images of a class: learned as they come; alike with optim.balance=w"),
    ],
)
def test_what_a_set_is_for(tmp_path: Path, spec: str, row: str, make_image: Callable[..., Image.Image]) -> None:
    lines = ["image,labels"]
    for number, name in enumerate(["few", *["many"] * 5]):
        (tmp_path / name).mkdir(exist_ok=True)
        make_image(number, 12, 10).save(tmp_path / name / f"{number}.png")
        lines.append(f"{name}/{number}.png,{'many' if number else 'rare;few'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    for name, mask in (("boxes", {}), ("outlines", {"segmentation": [[1, 1, 5, 1, 5, 5]]})):
        image = {"id": 1, "file_name": "few/0.png", "width": 12, "height": 10}
        one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], **mask}
        values = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [one]}
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    said(rows(spec.replace("PATH", str(tmp_path))), row)


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 1, 3), (2, 7, 2)])
def test_classes_of_like_size_are_not_said(
    tmp_path: Path, sizes: tuple[int, ...], make_image: Callable[..., Image.Image]
) -> None:
    for label, count in enumerate(sizes):
        (tmp_path / str(label)).mkdir()
        for number in range(count):
            make_image(10 * label + number, 12, 10).save(tmp_path / str(label) / f"{number}.png")
    assert not any("images of a class" in line for line in rows(f"folder:{tmp_path}"))
