"""Channels and depth: what a file's numbers become, for every format and every number of channels."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sweet.data import PixelFormat, open_images
from sweet.data.bands import Bands
from sweet.data.decode import ORIENTATION, to_bytes
from sweet.data.folder import FolderImages
from sweet.data.stats import stats
from sweet.errors import UserError
from sweet.recipes.schema import DataKeys

RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (32, 1))
EXPECTED = (RAMP >> 8).astype(np.uint8)
RNG = np.random.default_rng(0)


def decoded(file: Path, pixels: PixelFormat | None = None) -> np.ndarray:
    images = FolderImages("x", "predict", [str(file)], None, None)
    return np.asarray(images.read_as(pixels or PixelFormat()).decode(0))


def save_deep(file: Path) -> None:
    """The ramp of 16 bits, in the format of the file's suffix."""
    if file.suffix == ".pgm":
        file.write_bytes(b"P5\n64 32\n65535\n" + RAMP.astype(">u2").tobytes())
    elif file.suffix == ".npy":
        np.save(file, RAMP.astype(">u2") if "big" in file.stem else RAMP)
    elif file.stem == "float":
        Image.fromarray((RAMP / 65535).astype(np.float32)).save(file)
    elif file.stem == "big":
        tifffile.imwrite(file, RAMP, byteorder=">")
    else:
        Image.fromarray(RAMP).save(file)


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tif", "big.tif", "a.npy", "big.npy", "float.tif"])
def test_grey_of_more_than_8_bits_keeps_its_levels(tmp_path: Path, name: str) -> None:
    save_deep(tmp_path / name)
    values = decoded(tmp_path / name)
    assert values.shape == (32, 64, 3)
    assert abs(values.astype(int) - EXPECTED[..., None]).max() <= 1  # a float is rounded, 16 bits are cut
    assert len(np.unique(values)) >= 60


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.int32), r"holds int32 from 0 to 65535, .*data\.value_range=\[LOW,HIGH\]"),
        ((RAMP / 10).astype(np.float32), "holds float32 from 0 to 6553.5"),
        (RAMP.astype(np.float32) - 1, "holds float32 from -1 to"),
        (RAMP.astype(np.int16), "holds int16 from"),
    ],
)
def test_an_unknown_range_is_refused_and_a_known_one_is_mapped(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    file = tmp_path / "x.npy"
    np.save(file, values)
    with pytest.raises(UserError, match=rf"^{file}: {message}"):
        decoded(file)
    low, high = float(values.min()), float(values.max())
    seen = decoded(file, PixelFormat(3, (low, high)))[..., 0]
    expected = np.round((values.astype(float) - low) / (high - low) * 255)
    assert np.array_equal(seen, expected)
    if values.dtype != np.int16:
        Image.fromarray(values).save(tmp_path / "x.tif")
        assert np.array_equal(decoded(tmp_path / "x.tif", PixelFormat(3, (low, high)))[..., 0], expected)
    # what lies outside is clipped
    assert {0, 255} <= set(np.unique(to_bytes(values, (low + (high - low) / 4, high - (high - low) / 4))).tolist())


def test_numbers_that_are_none_are_black() -> None:
    values = np.array([[np.nan, 0.5, np.inf, -np.inf]])
    assert to_bytes(values, (0.0, 1.0)).tolist() == [[0, 128, 255, 0]]


@pytest.mark.parametrize("channels", [2, 4, 5, 12])
@pytest.mark.parametrize("form", ["last.npy", "first.npy", "contig.tif", "separate.tif"])
def test_any_number_of_channels(tmp_path: Path, channels: int, form: str) -> None:
    values, file = RNG.integers(0, 256, (20, 24, channels), np.uint8), tmp_path / form
    planes = np.moveaxis(values, 2, 0)
    if file.suffix == ".npy":
        np.save(file, planes if form.startswith("first") else values)
    else:
        contiguous = form.startswith("contig")
        data = values if contiguous else np.ascontiguousarray(planes)
        tifffile.imwrite(file, data, photometric="minisblack", planarconfig="contig" if contiguous else "separate")
    assert np.array_equal(decoded(file, PixelFormat(channels)), values)
    with pytest.raises(UserError, match=rf"has {channels} channels, the model takes 7"):
        decoded(file, PixelFormat(7))


def test_a_model_of_four_channels_keeps_transparency(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (6, 8, 4), np.uint8)
    for name, mode in (("a.png", "RGBA"), ("a.tif", "CMYK")):
        Image.fromarray(values, mode).save(tmp_path / name)
        assert np.array_equal(decoded(tmp_path / name, PixelFormat(4)), values)
    assert np.array_equal(decoded(tmp_path / "a.png"), values[..., :3])
    with pytest.raises(UserError, match="has 3 channels, the model takes 4"):
        Image.fromarray(values[..., :3]).save(tmp_path / "rgb.png")
        decoded(tmp_path / "rgb.png", PixelFormat(4))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.pgm"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("P", "a.gif"),
        ("CMYK", "a.jpg"),
        ("LAB", "a.tif"),
        ("L", "a.jfif"),
    ],
)
def test_other_modes_are_rgb(tmp_path: Path, mode: str, name: str) -> None:
    colours = Image.new("RGB", (8, 6), (255, 255, 255))
    if mode == "LAB":
        from PIL import ImageCms

        stored = ImageCms.profileToProfile(
            colours, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        assert stored is not None
    else:
        stored = colours.convert(mode)
    stored.save(tmp_path / name, format="JPEG" if name.endswith("jfif") else None)
    values = decoded(tmp_path / name)
    assert values.shape == (6, 8, 3) and values.min() >= 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_turned_once(tmp_path: Path, orientation: int) -> None:
    """By Pillow, and where it holds more channels than Pillow knows."""
    values = RNG.integers(0, 256, (5, 9, 3), np.uint8)
    tag = Image.Exif()
    tag[ORIENTATION] = orientation
    Image.fromarray(values).save(tmp_path / "a.tif", exif=tag)
    Image.fromarray(values).save(tmp_path / "a.png", exif=tag)
    upright = decoded(tmp_path / "a.png")
    assert np.array_equal(decoded(tmp_path / "a.tif"), upright)
    five = np.concatenate([values, values[..., :2]], 2)
    extra = [(ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "five.tif", five, photometric="minisblack", planarconfig="contig", extratags=extra)
    assert np.array_equal(decoded(tmp_path / "five.tif", PixelFormat(5))[..., :3], upright)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    written = io.BytesIO()
    np.save(written, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "x.npy").write_bytes(written.getvalue())
    for name, values in (
        ("text.npy", np.array([["a", "b"]])),
        ("line.npy", np.zeros(4)),
        ("four.npy", np.zeros((1, 2, 3, 4))),
    ):
        np.save(tmp_path / name, values)
    for file in tmp_path.iterdir():
        with pytest.raises(UserError, match=rf"^{file}: "):
            decoded(file, PixelFormat(5))


def test_bands_resize_like_pillow() -> None:
    values = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    box = (1.5, 2.0, 20.0, 17.5)
    theirs = Image.fromarray(values).resize((7, 9), Image.Resampling.BICUBIC, box)
    ours = Bands(values).resize((7, 9), Image.Resampling.BICUBIC, box)
    assert np.array_equal(ours, theirs) and ours.size == theirs.size
    assert np.array_equal(Bands(values).crop((2, 3, 9, 8)), Image.fromarray(values).crop((2, 3, 9, 8)))


def test_stats_propose_keys_that_fit(tmp_path: Path) -> None:
    arrays = [RNG.integers(0, 8000, (16, 20, 5)).astype(np.uint16) for _ in range(4)]
    for number, values in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", values)
    report = stats(f"folder:{tmp_path}")
    assert report.depth.channels == 5 and report.depth.value_range == (0, 8000)
    scaled = np.stack(arrays) / 8000
    assert report.mean == pytest.approx(scaled.mean((0, 1, 2)), abs=3e-3)
    assert report.std == pytest.approx(scaled.std((0, 1, 2)), abs=3e-3)
    assert report.keys[0] == "model.in_chans=5" and "data.value_range=[0,8000]" in report.keys
    keys = DataKeys(mean=tuple(report.mean), std=tuple(report.std), value_range=report.depth.value_range)
    images = open_images(f"folder:{tmp_path}", "train", val_share=0, pixels=keys)
    assert np.asarray(images.decode(0)).shape == (16, 20, 5)


@pytest.mark.parametrize("kind", ["grey", "16 bits", "colours"])
def test_stats_of_ordinary_images(tmp_path: Path, kind: str) -> None:
    values = RNG.integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray({"grey": values[..., 0], "16 bits": RAMP, "colours": values}[kind])
    image.save(tmp_path / "0.png")
    report = stats(f"folder:{tmp_path}")
    channels = 3 if kind == "colours" else 1
    assert report.depth.channels == channels and report.depth.value_range is None
    assert ("model.in_chans=1" in report.keys) == (channels == 1)
    pixels = {"grey": values[..., :1], "16 bits": EXPECTED[..., None], "colours": values}[kind]
    assert report.mean == pytest.approx(pixels.mean((0, 1)) / 255, abs=1e-4)
    assert report.std == pytest.approx(pixels.std((0, 1)) / 255, abs=1e-4)


def test_pillows_own_warnings_are_no_output_of_ours(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "large.png")
    Image.fromarray(values).quantize(16).save(tmp_path / "palette.png", transparency=bytes(range(16)))
    Image.fromarray(values).save(tmp_path / "tags.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    script = """
import sys
from PIL import Image
from sweet.data import open_images
Image.MAX_IMAGE_PIXELS = 100
images = open_images("folder:" + sys.argv[1], "train", val_share=0)
print([images.decode(i).size for i in range(3)])
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (ended.stdout.strip(), ended.stderr) == (str([(12, 12)] * 3), "")
