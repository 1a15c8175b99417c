"""The classifier's table, predictions and picture, where the right values are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from sweet.data import open_images
from sweet.errors import UserError
from sweet.files import read_tensors
from sweet.storage.records import DataConfig, read_record
from sweet.tasks.classification.classify import Classify
from sweet.tasks.multilabel.multilabel import MultiLabel
from sweet.tasks.task import EvalSettings, Metrics, Task
from sweet.training.network import start_network

SETTINGS = EvalSettings(DataConfig(img_size=8, mean=(0.0,) * 3, std=(1.0,) * 3), batch_size=2)


class Brightest(nn.Module):
    """Logits (B, 3): the means of the three channels, times ten."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * self.scale


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Folders red, green and blue of plain images; one image in blue is red."""
    shown = {"red": ["red", "red"], "green": ["lime"], "blue": ["blue", "red"]}
    for name, values in shown.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, value in enumerate(values):
            Image.new("RGB", (8, 8), value).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def test_what_is_confused_with_what(colours: Path) -> None:
    images = open_images(f"folder:{colours}", "train", val_share=0)
    assert images.classes == ["blue", "green", "red"]
    model = nn.Sequential(Brightest(), Reversed())
    metrics = Classify(images.classes).evaluate(model, images, SETTINGS)
    assert metrics.confusion == [[1, 0, 1], [0, 1, 0], [0, 0, 2]]  # a row is the truth
    assert (metrics.scores["top1"], metrics.scores["top5"], metrics.images) == (80.0, 100.0, 5)
    assert metrics.per_class == {"per_class": {"blue": 50.0, "green": 100.0, "red": 100.0}}
    right, wrong = np.log(np.exp(10) + 2) - 10, np.log(np.exp(10) + 2)
    assert metrics.scores["loss"] == pytest.approx((4 * right + wrong) / 5, abs=1e-5)


class Reversed(nn.Module):
    """Red, green, blue -> the classes in the order of their names."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.flip(1)


def test_predictions_by_hand(colours: Path) -> None:
    images = open_images(f"folder:{colours}", "train", val_share=0)
    model = nn.Sequential(Brightest(), Reversed())
    rows = Classify(["blue", "green", "red"]).predict(model, images, SETTINGS, top=1, out=None)
    assert [row["class"] for row in rows] == ["blue", "red", "green", "red", "red"]
    assert [row["image"] for row in rows] == [images.where(index) for index in range(5)]
    assert {row["probability"] for row in rows} == {round(np.exp(10) / (np.exp(10) + 2), 5)}
    every = Classify(["blue", "green", "red"]).predict(model, images, SETTINGS, top=9, out=None)
    assert len(every) == 15 and sum(float(row["probability"]) for row in every) == pytest.approx(5, abs=1e-4)
    with pytest.raises(UserError, match="--out somewhere: there is nothing to draw for a classifier"):
        Classify(["a"]).predict(model, images, SETTINGS, top=1, out=Path("somewhere"))


def test_the_picture_counts_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(
        "sweet.tasks.classification.classify.save_figure", lambda figure, *_, **__: drawn.append(figure)
    )
    metrics = Metrics({"top1": 80.0}, 15, confusion=[[3, 2, 0], [0, 5, 0], [1, 0, 4]])
    Classify(["a", "b", "c"]).pictures(nn.Identity(), open_images("shapes:n=1", "train"), SETTINGS, metrics, tmp_path)
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (
        "predicted",
        "true (images)",
        "top-1 80.0 % of 15 images",
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (5)", "b (5)", "c (5)"]
    counts = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "3", (1, 0): "2", (1, 1): "5", (0, 2): "1", (2, 2): "4"}  # (predicted, true)


@pytest.mark.parametrize("count", [3, 41])
def test_the_picture_shows_shows_the_shares(tmp_path: Path, count: int) -> None:
    """The darkest blue stands where all images of a class are, white where none is; names as long as they fit."""
    table = np.eye(count, dtype=int)[::-1] * 5  # everything is taken for something else
    metrics = Metrics({"top1": 0.0}, 5 * count, confusion=table.tolist())
    task = Classify([f"class {number}" for number in range(count)])
    task.pictures(nn.Identity(), open_images("shapes:n=1", "train"), SETTINGS, metrics, tmp_path)
    with Image.open(tmp_path / "confusion.png") as picture:
        side = 2.5 + 0.3 * min(count, 40)
        assert picture.size == (round(120 * (side + 1)), round(120 * side))
        pixels = np.asarray(picture.convert("RGB"))
    dark = (pixels == (8, 48, 107)).all(2)  # the last colour of matplotlib's "Blues"
    rows, columns = np.nonzero(dark[:, : pixels.shape[1] * 3 // 4])
    assert len(rows) > 0 and np.corrcoef(rows, columns)[0, 1] < -0.8  # from the lower left to the upper right


@pytest.mark.parametrize("task", [Classify, MultiLabel])
def test_a_head_of_other_classes_is_not_taken_over(classifier: Path, task: type[Classify] | type[MultiLabel]) -> None:
    """Nor that of another task, though it has as many outputs."""
    name, classes = task.__name__.lower(), read_record(classifier, ("model",)).data.classes
    assert classes is not None
    trained = read_tensors(classifier / "model.safetensors")["head.weight"]

    def head(task: Task, name: str) -> Tensor:
        return start_network(classifier, task, name).state_dict()["head.weight"]

    assert torch.equal(head(Classify(classes), "classify"), trained)
    other = task(classes[::-1])
    drawn = head(other, name)
    what = {"classify": "other classes", "multilabel": "--task classify"}[name]
    assert other.notes == [f"the trained head of {classifier} is not taken over: it is for {what}"]
    assert drawn.shape == trained.shape and 0 < drawn.abs().max() < 1e-3 < trained.abs().max()
