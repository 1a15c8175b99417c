from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from sweet.data import Batches, ImageSource, a_few, eval_batches, open_images, pack, should_pack
from sweet.data.decode import KERNELS
from sweet.data.packed import resized
from sweet.storage.records import DataConfig
from sweet.template.image_size import ImageSize, sides


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def test_pack(folder: Path, cache: Path) -> None:
    images = open_images(f"folder:{folder}", "train", val_share=0)
    packed = pack(images, 8)
    assert packed.images.shape == (6, 3, 8, 8) and packed.images.dtype == torch.uint8
    assert packed.labels is not None and packed.labels.tolist() == images.labels
    assert packed.labels.dtype == torch.int64 and packed.classes == images.classes
    some = packed.select([4, 0])
    assert len(some) == 2 and torch.equal(some.images[0], packed.images[4])
    assert some.labels is not None and some.labels.tolist() == [1, 0]


def test_a_few_images_are_of_all_classes(tmp_path: Path, cache: Path) -> None:
    """A folder is sorted by class; where the first ones have every class they are taken as they come."""
    for number in range(12):
        file = tmp_path / "folder" / "ab"[number // 6] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(file)
    images = open_images(f"folder:{tmp_path / 'folder'}", "train", val_share=0)
    for data in (images, pack(images, 8)):
        few = a_few(data, 4)
        assert few.labels is not None and list(map(int, few.labels)) == [0, 0, 1, 1]
        assert len(a_few(data, 50)) == 12
    mixed = images.select([0, 6, 1, 7, 2, 8, 3, 9])
    assert [np.asarray(a_few(mixed, 4).decode(i))[0, 0, 0] for i in range(4)] == [0, 120, 20, 140]
    unlabelled = pack(images, 8).select(range(12))
    values = a_few(type(unlabelled)(unlabelled.images, None, None), 3).images[:, 0, 0, 0].tolist()
    assert values == [0, 80, 160]


def test_short_side_then_centre(tmp_path: Path, cache: Path) -> None:
    ramp = np.add.outer(4 * np.arange(20), 3 * np.arange(40)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "0.png")
    ours = pack(open_images(f"folder:{tmp_path}", "train", val_share=0), 10).images[0, 0]
    theirs = functional.center_crop(functional.resize(Image.fromarray(ramp), 10, interpolation=3), 10)
    assert np.abs(ours.numpy().astype(int) - np.asarray(theirs)).max() <= 1


def test_the_right_size_is_left_alone(tmp_path: Path, cache: Path, make_image: Callable[..., Image.Image]) -> None:
    make_image(0, 9, 9).save(tmp_path / "0.png")
    packed = pack(open_images(f"folder:{tmp_path}", "train", val_share=0), 9)
    assert np.array_equal(packed.images[0].permute(1, 2, 0), make_image(0, 9, 9))
    assert packed.labels is None


def test_the_cache_is_used_and_kept_right(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, make_image: Callable[..., Image.Image]
) -> None:
    spec = f"folder:{folder}"
    first = pack(open_images(spec, "train", val_share=0), 8)
    (file,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(ImageSource, "decode", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(pack(open_images(spec, "train", val_share=0), 8).images, first.images)
    file.write_bytes(b"damaged")
    assert torch.equal(pack(open_images(spec, "train", val_share=0), 8).images, first.images)
    make_image(99).save(folder / "ant" / "0.png")  # a changed file is a changed set
    assert not torch.equal(pack(open_images(spec, "train", val_share=0), 8).images, first.images)
    assert len(list(cache.iterdir())) == 2 and not list(cache.glob(".*"))


def test_a_cache_that_cannot_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "file"))
    assert len(pack(open_images(f"folder:{folder}", "train", val_share=0), 8)) == 6


def test_should_pack(folder: Path) -> None:
    images = open_images(f"folder:{folder}", "train", val_share=0)
    assert should_pack(images, 96) and not should_pack(images, 97)
    assert not should_pack(images.select([0] * 100_000), 96)


@pytest.mark.parametrize(
    ("size", "box"),
    [((10, 20), (10, 0, 90, 40)), ((20, 10), (40, 0, 60, 40)), ((4, 40), (0, 15, 100, 25)), (8, (30, 0, 70, 40))],
)
def test_the_largest_centre_of_the_shape(
    size: ImageSize, box: tuple[int, int, int, int], make_image: Callable[..., Image.Image]
) -> None:
    image = make_image(4, 100, 40)
    expected = image.resize(sides(size)[::-1], Image.Resampling.BICUBIC, box=box)
    assert np.array_equal(np.asarray(resized(image, size)), np.asarray(expected))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_the_centre_is_resized_as_the_keys_say(tmp_path: Path, name: Literal["bilinear", "bicubic"]) -> None:
    """A model is tested by the filter that its config and its exports name."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    (tmp_path / "set").mkdir()
    image.save(tmp_path / "set" / "a.png")
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    keys = DataConfig(img_size=16, interpolation=name, **plain)
    images = open_images(f"folder:{tmp_path / 'set'}", "train", val_share=0, pixels=keys)
    expected = np.asarray(image.resize((16, 16), KERNELS[name], box=(0, 5, 30, 35)))
    tested, _ = next(eval_batches(images, batch_size=1, img_size=16, **plain))
    trained, _ = Batches(images, batch_size=1, seed=0, img_size=16, augment="none", interpolation=name, **plain).at(0)
    for found in (pack(images, 16).images[0], 255 * tested[0], 255 * trained[0]):
        assert np.array_equal(found.round().permute(1, 2, 0).numpy(), expected)
