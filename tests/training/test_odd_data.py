"""Trainings on data as people have it: several channels, classes missing in a split, damaged files, odd batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweet.data.skips import FILE
from sweet.errors import UserError
from sweet.inference.evaluate import evaluate, predict
from sweet.initialise.make import initialise_to
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.results.render.run_section import run_section
from sweet.results.runs import read_run
from sweet.training.finetune import check_pairs, finetune
from sweet.training.loop import micro_batch_size
from sweet.training.pretrain import pretrain

Tiny = Callable[..., FinetuneRecipe]


def test_five_channels_of_16_bits(tiny: Callable[..., PretrainRecipe], tiny_finetune: Tiny, tmp_path: Path) -> None:
    """Learned, fine-tuned, judged and used; the range of values travels with the model."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for label, name in enumerate("ab"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(count):
                values = rng.integers(0, 3000, (16, 16, 5)).astype(np.uint16) + np.uint16(6000 * label)
                np.save(tmp_path / "set" / split / name / f"{number}.npy", values)
    data = f"data.source=folder:{tmp_path / 'set'}"
    keys = [data, "model.in_chans=5", "data.mean=[0.5,0.5,0.5,0.5,0.5]", "data.std=[0.3,0.3,0.3,0.3,0.3]"]
    pretrain(tiny(*keys, "data.value_range=[0,9000]"), tmp_path / "source", quiet=True)
    initialise_to(str(tmp_path / "source"), tmp_path / "model", depth=1, heads=2)
    recipe = tiny_finetune(data, "max_steps=30", "lr=1e-2", "mixup=0", "data.augment=flip")
    metrics = finetune(tmp_path / "model", recipe, tmp_path / "out", quiet=True)
    assert metrics["top1"] == 100  # the classes differ in brightness alone
    kept = json.loads((tmp_path / "out" / "config.json").read_text())["data"]
    assert kept["value_range"] == [0, 9000] and len(kept["mean"]) == 5
    again = evaluate(
        tmp_path / "out", None, data.partition("=")[2], split="val", batch_size=8, device="cpu", limit=None
    )
    assert again["top1"] == 100
    rows = predict(tmp_path / "out", [tmp_path / "set" / "val" / "b" / "0.npy"], 1, "cpu")
    assert rows[0]["class"] == "b"
    with pytest.raises(UserError, match="has 3 channels, the model takes 5"):
        Image.new("RGB", (16, 16)).save(tmp_path / "rgb.png")
        predict(tmp_path / "out", [tmp_path / "rgb.png"], 1, "cpu")
    with pytest.raises(UserError, match=r"data\.mean=.*: 3 values, the model .* takes 5 channels"):
        finetune(
            tmp_path / "model", tiny_finetune(data, "data.mean=[0.5,0.5,0.5]", "data.std=[1,1,1]"), tmp_path / "no"
        )


def test_a_class_that_a_split_lacks(
    model: Path, tiny_finetune: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, names in (("train", "ac"), ("val", "abc"), ("other/val", "c")):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (16, 16), name_colour(name)).save(tmp_path / split / name / "0.png")
    source = f"folder:{tmp_path}"
    metrics = finetune(model, tiny_finetune(f"data.source={source}", "max_steps=1"), tmp_path / "out", quiet=True)
    assert set(metrics["per_class"]) == {"a", "b", "c"}  # type: ignore[call-overload]
    assert "warning: train: classes without an image (b): they keep their place" in capsys.readouterr().err
    alone = evaluate(
        tmp_path / "out", None, f"folder:{tmp_path / 'other'}", split="val", batch_size=8, device="cpu", limit=None
    )
    assert set(alone["per_class"]) == {"c"}  # type: ignore[arg-type]  # by its name, not by its place


def name_colour(name: str) -> tuple[int, int, int]:
    return (80 * "abc".index(name), 0, 0)


@pytest.mark.parametrize("img_size", [16, 100])
def test_damaged_images_are_skipped_and_listed(
    model: Path, tiny_finetune: Tiny, template: Path, tmp_path: Path, img_size: int
) -> None:
    for split in ("train", "val"):
        for label, name in enumerate("ab"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(4):
                values = np.random.default_rng(10 * label + number).integers(0, 256, (24, 24, 3), np.uint8)
                Image.fromarray(values).save(tmp_path / "set" / split / name / f"{number}.png")
        (tmp_path / "set" / split / "a" / "1.png").write_bytes(b"no image")
    if img_size != 16:  # too large to be packed
        initialise_to(str(template), tmp_path / "model", depth=1, heads=2, img_size=img_size)
        model = tmp_path / "model"
    keys = [f"data.source=folder:{tmp_path / 'set'}", "max_steps=2", "batch_size=8"]
    with pytest.raises(UserError, match=r"a/1\.png: not a readable image"):
        finetune(model, tiny_finetune(*keys), tmp_path / "no", quiet=True)
    metrics = finetune(model, tiny_finetune(*keys, "data.on_error=skip"), tmp_path / "out", quiet=True)
    assert metrics["training"]["images"] == 16
    problems = [json.loads(line)["problem"] for line in (tmp_path / "out" / FILE).read_text().splitlines()]
    assert sorted(Path(problem.partition(": ")[0]).parts[-3] for problem in problems) == ["train", "val"]
    (shown,) = [part for part in run_section(read_run(tmp_path / "out"), "r", None).parts if "left out" in part.title]
    assert shown.grid is not None and [line[0] for line in shown.grid.lines] == problems


@pytest.mark.parametrize(("batch", "accumulate", "world"), [(6, 1, 2), (12, 2, 2), (9, 1, 3)])
def test_an_odd_part_cannot_be_mixed(tiny_finetune: Tiny, batch: int, accumulate: int, world: int) -> None:
    keys = (f"batch_size={batch}", f"optim.accumulate={accumulate}")
    assert micro_batch_size(tiny_finetune(*keys), accumulate, world) == 3
    check_pairs(tiny_finetune(*keys), 3, world)
    mixed = tiny_finetune(*keys).model_copy(update={"mixup": 0.2})
    with pytest.raises(UserError, match=rf"batch_size={batch}: 3 images at a time in each of {world} processes"):
        check_pairs(mixed, 3, world)


def test_a_damaged_image_that_is_read_before_the_training(
    model: Path, tiny_finetune: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large set all masks are looked at with their images; where boxes are listed, nothing is opened."""
    monkeypatch.setattr("sweet.training.finetune.should_pack", lambda *_: False)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in ("images", "masks", "labels"):
            (tmp_path / "set" / folder / split).mkdir(parents=True)
        for number in range(8):
            values, mask = rng.integers(0, 256, (16, 16, 3), np.uint8), rng.integers(0, 2, (16, 16), np.uint8)
            Image.fromarray(values).save(tmp_path / "set" / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(tmp_path / "set" / "masks" / split / f"{number}.png")
            (tmp_path / "set" / "labels" / split / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "set" / "classes.txt").write_text("a\nb\n")
    (tmp_path / "set" / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    (tmp_path / "set" / "images" / "train" / "0.png").write_bytes(b"no image")
    for task, reader, keys in (
        ("segment", "masks", "label_smoothing=0 head.channels=8 head.aux_channels=8 head.pool_scales=1,2"),
        ("detect", "yolo", "head.channels=8 head.convs=0 head.fc_width=8 head.proposals=8 head.rois=8"),
    ):
        words = [f"data.source={reader}:{tmp_path / 'set'}", "max_steps=2", "batch_size=4", *keys.split()]
        with pytest.raises(UserError, match=r"train/0\.png: not a readable image"):
            finetune(model, tiny_finetune(*words), tmp_path / f"no-{task}", task=task, quiet=True)
        finetune(model, tiny_finetune(*words, "data.on_error=skip"), tmp_path / task, task=task, quiet=True)
        (line,) = (tmp_path / task / FILE).read_text().splitlines()
        assert "train/0.png" in json.loads(line)["problem"]
