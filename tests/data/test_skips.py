"""``data.on_error=skip``: images that cannot be read are left out, listed and limited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from sweet.data import Batches, Samples, Skips, open_images, readable_images
from sweet.data.skips import FILE, most_of, skipped
from sweet.errors import UserError
from sweet.recipes.schema import DataKeys

KEYS = DataKeys(on_error="skip", max_skipped=0.2)


@pytest.fixture
def damaged(tmp_path: Path, make_image: Callable[..., Image.Image]) -> Path:
    """Two classes of five images, of which b/1 is cut and a/4 is no image."""
    for label, name in enumerate("ab"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            make_image(10 * label + number, 120, 110).save(tmp_path / "set" / name / f"{number}.png")
    cut = tmp_path / "set" / "b" / "1.png"
    cut.write_bytes(cut.read_bytes()[:700])
    (tmp_path / "set" / "a" / "4.png").write_text("<html>404</html>")
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_image_takes_its_place_with_its_label(damaged: Path, tmp_path: Path, workers: int) -> None:
    images = open_images(f"folder:{damaged}", "train", val_share=0)
    skips = Skips(tmp_path / "run" / FILE, 2)
    batches = Batches(images, batch_size=5, seed=0, img_size=100, augment="none", workers=workers, skips=skips)
    for (pixels, labels), step in zip(batches.iterate(0, 4), range(4), strict=True):
        assert labels is not None and len(pixels) == 5
        expected = [5 if index == 4 else 7 if index == 6 else index for index in batches.indices(step).tolist()]
        assert labels.tolist() == [index // 5 for index in expected]
        alone = Batches(images.select(expected), batch_size=5, seed=0, img_size=100, augment="none")
        whole = {tuple(row) for row in alone.at(0)[0].flatten(1)[:, :50].tolist()}
        assert {tuple(row) for row in pixels.flatten(1)[:, :50].tolist()} == whole
    problems = skipped(tmp_path / "run" / FILE)
    assert len(problems) == 2 and all("not a readable image" in problem for problem in problems)


def test_too_many_end_the_run(damaged: Path, tmp_path: Path) -> None:
    images = open_images(f"folder:{damaged}", "train", val_share=0)
    skips = Skips(tmp_path / FILE, 1)
    batches = Batches(images, batch_size=10, seed=0, img_size=100, augment="none", skips=skips)
    with pytest.raises(
        UserError, match=r"\.png: not a readable image .*2 images cannot be read, data.max_skipped allows 1"
    ):
        batches.at(0)
    with pytest.raises(UserError, match="not a readable image"):
        Batches(images, batch_size=10, seed=0, img_size=100, augment="none").at(0)


def test_samples_are_skipped_with_their_targets(tmp_path: Path) -> None:
    def load(index: int, generator: torch.Generator) -> int:
        if index == 3:
            raise UserError("3: broken")
        return index

    skips = Skips(tmp_path / FILE, 1)
    samples = Samples(6, load, lambda made: (made, made), batch_size=6, seed=0, skips=skips)
    assert sorted(samples.at(0)[0]) == [0, 1, 2, 4, 4, 5]
    assert skipped(tmp_path / FILE) == ["3: broken"]


def test_all_of_a_small_set_is_read_first(damaged: Path) -> None:
    images = open_images(f"folder:{damaged}", "train", val_share=0)
    good, bad = readable_images(images, KEYS)
    assert good.labels == [0] * 4 + [1] * 4 and len(bad) == 2
    assert most_of(DataKeys(), 400) == 1 and most_of(DataKeys(), 50_000) == 50
    with pytest.raises(UserError, match=r"data\.max_skipped allows 1"):
        readable_images(images, DataKeys(on_error="skip"))
    with pytest.raises(UserError, match="no image of train can be read"):
        readable_images(images.select([4]), KEYS)
