"""Every task learns from, judges and looks at images of any shape and of any number of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sweet.errors import UserError
from sweet.inference.embed import embed
from sweet.inference.evaluate import evaluate, predict
from sweet.initialise.make import initialise_to
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

pytestmark = pytest.mark.slow
TASKS = {
    "classify": "",
    "multilabel": "",
    "segment": "head.channels=16 head.aux_channels=8 head.pool_scales=1,2",
    "detect": "head.channels=16 head.fc_width=32 head.convs=1 head.proposals=60 head.rois=16",
    "generate": "head.samples=4 head.steps=2",
}
LAYOUTS = {"segment": "masks", "detect": "yolo", "multilabel": "yolo"}
STRIPS = [(2, 300), (3000, 2), (1, 1), (3, 5000)]  # height, width: once minutes each in segmentation


def write(root: Path, shapes: Sequence[tuple[int, int]], channels: int) -> list[Path]:
    """The same images in both splits, with classes, boxes and masks, in the layouts of all tasks: those of val."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, shape in enumerate(shapes):
            values: NDArray[np.uint8] = rng.integers(0, 256, (*shape, channels), np.uint8)
            save(root / "folder" / split / "ab"[number % 2] / str(number), values)
            save(root / "masks" / "images" / split / str(number), values)
            save(root / "masks" / "masks" / split / str(number), values[..., 0] // 128)
            save(root / "yolo" / split / "images" / str(number), values)
            labels = root / "yolo" / split / "labels" / f"{number}.txt"
            labels.parent.mkdir(exist_ok=True)
            labels.write_text(f"{number % 2} 0.5 0.5 1 1\n")
    (root / "masks" / "classes.txt").write_text("a\nb\n")
    (root / "yolo" / "data.yaml").write_text("train: train/images\nval: val/images\nnames: [a, b]\n")
    return sorted(file for file in (root / "folder" / "val").rglob("*") if file.is_file())


def save(place: Path, values: NDArray[np.uint8]) -> None:
    """As PNG where that has so many channels."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if values.ndim == 2 or values.shape[2] == 3:
        Image.fromarray(values).save(f"{place}.png")
    else:
        np.save(f"{place}.npy", values)


def use(model: Path, task: str, recipe: FinetuneRecipe, root: Path, files: list[Path]) -> None:
    """Learn for a step, judge, predict with pictures, embed."""
    data, out = str(recipe.data.source), root / "run"
    finetune(model, recipe, out, task=task, quiet=True)
    assert evaluate(out, task, data, split="val", batch_size=4, device="cpu", limit=None)["images"] == len(files)
    if task != "generate":
        drawn = root / "pictures" if task in ("segment", "detect") else None
        rows = predict(out, files, 1, "cpu", drawn)
        assert {row["image"] for row in rows} <= {str(file) for file in files}
        assert drawn is None or len(list(drawn.glob("*.png"))) == len(files)
    if task == "classify":
        assert embed(out, data, root / "e.parquet", "val", 4, "cpu")["images"] == len(files)


def keys_of(task: str, root: Path) -> list[str]:
    layout = LAYOUTS.get(task, "folder")
    return [f"data.source={layout}:{root / layout}", "max_steps=1", "batch_size=4", *TASKS[task].split()]


@pytest.mark.parametrize("task", TASKS)
def test_strips_and_single_pixels(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, task: str
) -> None:
    files = write(tmp_path, STRIPS, 3)
    use(model, task, tiny_finetune(*keys_of(task, tmp_path)), tmp_path, files)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("task", TASKS)
def test_any_number_of_channels(
    template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, task: str, channels: int
) -> None:
    files = write(tmp_path, [(20, 24)] * 4, channels)
    initialise_to(str(template), tmp_path / "start", depth=1, heads=2, in_chans=channels)
    values = ",".join(["0.5"] * channels)
    recipe = tiny_finetune(*keys_of(task, tmp_path), f"data.mean=[{values}]", f"data.std=[{values}]")
    if task == "generate" and channels != 1:
        with pytest.raises(UserError, match=f"makes images of 1 or 3 channels, the model takes {channels}"):
            finetune(tmp_path / "start", recipe, tmp_path / "run", task=task, quiet=True)
        return
    use(tmp_path / "start", task, recipe, tmp_path, files)
