from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sweet.data import Batches, ImageSource, Packed, eval_batches, open_images, pack, step_generator
from sweet.data.batches import RATIO
from sweet.errors import UserError

WriteParquet = Callable[..., Path]
SPEC = "shapes:n=40,size=16"


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return open_images(SPEC, "train")


@pytest.fixture(scope="module")
def packed(source: ImageSource) -> Packed:
    return pack(source, 16)


def make(data: ImageSource | Packed, **changes: Any) -> Batches:
    return Batches(data, **{"batch_size": 8, "seed": 0, "img_size": 16} | changes)


def numbered(count: int) -> Packed:
    return Packed(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.arange(count), None)


def labels(batches: Batches, step: int) -> list[int]:
    found = batches.at(step)[1]
    assert found is not None
    return found.tolist()


def test_step_generator_is_the_same_everywhere() -> None:
    assert step_generator(1, 2, 3, "mask").initial_seed() == 8068647343963509432
    keys = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b"), (0, 11, 1, "a")]
    assert len({step_generator(*key).initial_seed() for key in keys}) == len(keys)


@pytest.mark.parametrize("augment", ["rrc", "crop", "none"])
@pytest.mark.parametrize("fixture", ["packed", "source"])
def test_a_batch(request: pytest.FixtureRequest, fixture: str, augment: str) -> None:
    images, found = make(request.getfixturevalue(fixture), augment=augment).at(3)
    assert images.shape == (8, 3, 16, 16) and images.dtype == torch.float32 and images.is_contiguous()
    assert found is not None and found.shape == (8,) and found.dtype == torch.int64


@pytest.mark.parametrize("augment", ["rrc", "crop", "none"])
def test_a_batch_is_a_function_of_seed_step_and_rank(packed: Packed, augment: str) -> None:
    first, again = make(packed, augment=augment), make(packed, augment=augment)
    again.at(11)  # the order of the calls does not matter
    for step in (0, 4, 5, 12):
        assert torch.equal(first.at(step)[0], again.at(step)[0])
    reference = first.at(4)[0]
    for other in (first.at(5), make(packed, augment=augment, seed=1).at(4)):
        assert not torch.equal(other[0], reference)
    ranks = [make(packed, augment=augment, rank=rank, world=2).at(0)[0] for rank in range(2)]
    assert not torch.equal(*ranks)


def test_without_augmentation_sources_and_packed_agree(source: ImageSource, packed: Packed) -> None:
    for got, expected in zip(make(source, augment="none").at(2), make(packed, augment="none").at(2), strict=True):
        assert got is not None and expected is not None
        torch.testing.assert_close(got, expected)


def test_an_epoch_takes_every_image_once() -> None:
    batches = make(numbered(35), img_size=8, augment="none")
    assert batches.steps_per_epoch == 4
    epochs = [[label for step in range(4 * e, 4 * e + 4) for label in labels(batches, step)] for e in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == 32
    assert epochs[0] != epochs[1] != epochs[2]


def test_ranks_share_out_one_batch() -> None:
    together = make(numbered(40), img_size=8, augment="none", batch_size=16)
    shares = [make(numbered(40), img_size=8, augment="none", rank=rank, world=2) for rank in range(2)]
    assert all(share.steps_per_epoch == together.steps_per_epoch == 2 for share in shares)
    for step in range(4):
        assert labels(shares[0], step) + labels(shares[1], step) == labels(together, step)


def test_a_small_set_repeats_itself() -> None:
    batches = make(numbered(3), img_size=8, augment="none")
    assert batches.steps_per_epoch == 1
    found = labels(batches, 0)
    assert len(found) == 8 and set(found) == {0, 1, 2} and found[:3] == found[3:6]


@pytest.mark.parametrize("fixture", ["packed", "source"])
def test_iterate_equals_at(request: pytest.FixtureRequest, fixture: str) -> None:
    batches = make(request.getfixturevalue(fixture))
    made = list(batches.iterate(3, 7))
    assert len(made) == 4
    for step, (images, found) in enumerate(made, start=3):
        assert torch.equal(images, batches.at(step)[0])
        assert found is not None and found.tolist() == labels(batches, step)
    assert list(batches.iterate(3, 3)) == []


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_make_the_same_batches(source: ImageSource) -> None:
    batches = make(source, workers=2)
    for step, (images, _) in enumerate(batches.iterate(3, 7), start=3):
        assert torch.equal(images, batches.at(step)[0])
    alone, helped = (list(eval_batches(source, batch_size=16, img_size=16, workers=workers)) for workers in (0, 2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(alone, helped, strict=True))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named_by_workers(tmp_path: Path, write_parquet: WriteParquet, workers: int) -> None:
    write_parquet(tmp_path / "train-0.parquet", images=[b"no image"] * 4)
    images = open_images(f"parquet:{tmp_path}", "train", val_share=0)
    with pytest.raises(UserError, match=r"^/.*train-0\.parquet row \d: not a readable image") as caught:
        list(make(images, batch_size=2, workers=workers).iterate(0, 2))
    assert "Traceback" not in str(caught.value)


def test_eval_batches(source: ImageSource, packed: Packed) -> None:
    for data in (source, packed):
        made = list(eval_batches(data, batch_size=16, img_size=16, mean=(0, 0, 0), std=(1, 1, 1)))
        assert [len(images) for images, _ in made] == [16, 16, 8]
        torch.testing.assert_close(torch.cat([images for images, _ in made]), packed.images / 255)
        assert [label for _, found in made for label in (found if found is not None else [])] == source.labels


def test_without_labels(folder: Path) -> None:
    images = open_images(f"folder:{folder / 'ant' / 'more'}", "train", val_share=0)
    for data in (images, pack(images, 8)):
        assert make(data, img_size=8, batch_size=2).at(0)[1] is None
        assert next(eval_batches(data, batch_size=2, img_size=8))[1] is None


def test_grey(packed: Packed) -> None:
    images, _ = make(packed, mean=(0.5,), std=(0.5,)).at(0)
    assert images.shape == (8, 1, 16, 16)
    with pytest.raises(UserError, match=r"data\.mean="):
        make(packed, mean=(0.5, 0.5), std=(0.5, 0.5))


def test_crops_from_a_larger_packed_size(packed: Packed) -> None:
    assert make(packed, img_size=12).at(0)[0].shape == (8, 3, 12, 12)
    with pytest.raises(ValueError, match="packed at 16 pixels, not 12"):
        make(packed, img_size=12, augment="crop")


def test_worker_crops_look_like_packed_crops(tmp_path: Path) -> None:
    # One image, a ramp: the mean of a crop tells where it lies. Both paths draw from one distribution.
    Image.linear_gradient("L").resize((32, 32)).save(tmp_path / "0.png")
    images = open_images(f"folder:{tmp_path}", "train", val_share=0)
    means = [
        make(data, img_size=32, batch_size=256, mean=(0, 0, 0), std=(1, 1, 1)).at(0)[0].mean((1, 2, 3))
        for data in (images, pack(images, 32))
    ]
    assert abs(means[0].mean() - means[1].mean()) < 0.03
    assert abs(means[0].std() - means[1].std()) < 0.03


@pytest.mark.parametrize("augment", ["rrc", "crop", "flip", "none"])
@pytest.mark.parametrize("size", [(12, 20), (20, 8)])
def test_images_that_are_not_square(source: ImageSource, size: tuple[int, int], augment: str) -> None:
    for data in (source, pack(source, size)):
        assert make(data, img_size=size, augment=augment).at(0)[0].shape == (8, 3, *size)
    (batch, _), *_ = eval_batches(pack(source, size), batch_size=4, img_size=size)
    (same, _), *_ = eval_batches(source, batch_size=4, img_size=size)
    assert batch.equal(same) and batch.shape == (4, 3, *size)


def test_crops_have_the_shape_of_the_images(source: ImageSource) -> None:
    """A whole image of that shape is one of the crops: nothing is stretched on the average."""
    low, high = make(source, img_size=(16, 32))._ratio()
    assert low == pytest.approx(1.5) and high == pytest.approx(8 / 3)
    assert make(source, img_size=16)._ratio() == RATIO
