"""Several classes an image: mean average precision, thresholds of the best F1, and both after a round to disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sweet.data import open_images
from sweet.errors import UserError
from sweet.inference.evaluate import evaluate, predict
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import read_record
from sweet.tasks.classification.classify import Classify
from sweet.tasks.multilabel.multilabel import MultiLabel, metrics_of, positive_weights
from sweet.tasks.multilabel.thresholds import best_thresholds, counts_at
from sweet.training.finetune import finetune

Tiny = Callable[..., FinetuneRecipe]


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images whose red, green and blue are on or off, each apart; the class of the third is rare."""
    root, random = tmp_path_factory.mktemp("lamps"), np.random.default_rng(0)
    lines = ["image,labels,split"]
    for number in range(120):
        on = random.random(3) < (0.5, 0.5, 0.2)
        pixels = random.integers(0, 60, (16, 16, 3)) + 150 * on
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        names = ";".join(name for name, lit in zip(("red", "green", "blue"), on, strict=True) if lit)
        lines.append(f"{number}.png,{names},{'val' if number % 3 == 0 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines))
    return f"csv:{root}"


def average_precision(scores: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    """sum of (R_n - R_n-1) P_n over the distinct scores, from the definition."""
    total, last = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        given = scores >= threshold
        recall, precision = (given & there).sum() / there.sum(), (given & there).sum() / given.sum()
        total, last = total + (recall - last) * precision, recall
    return total


def test_mean_average_precision_by_its_definition() -> None:
    random = np.random.default_rng(1)
    logits = random.integers(-4, 5, (60, 4)).astype(np.float32)  # with many ties
    targets = random.random((60, 4)) < (0.5, 0.1, 0.3, 0.0)
    metrics = metrics_of(torch.tensor(logits), torch.tensor(targets).float(), list("abcd"), None)
    expected = {name: 100 * average_precision(logits[:, i], targets[:, i]) for i, name in enumerate("abc")}
    assert metrics.per_class["per_class"] == pytest.approx(expected, abs=0.006)
    assert metrics.scores["map"] == pytest.approx(np.mean(list(expected.values())), abs=0.001)
    assert "d" not in metrics.per_class["per_class"]
    assert metrics.scores["map_by_chance"] == pytest.approx(100 * targets[:, :3].mean(), abs=0.001)
    guessed = metrics_of(torch.zeros(60, 4), torch.tensor(targets).float(), list("abcd"), None)
    assert guessed.scores["map"] == pytest.approx(guessed.scores["map_by_chance"], abs=0.01)


@pytest.mark.parametrize("classes", [1, 3])
def test_one_class_alone(classes: int) -> None:
    """The only one there is, or the only one that occurs."""
    random = np.random.default_rng(3)
    logits, targets = random.normal(size=(40, classes)).astype(np.float32), np.zeros((40, classes), bool)
    targets[:, 0] = random.random(40) < 0.3
    metrics = metrics_of(torch.tensor(logits), torch.tensor(targets).float(), list("abc")[:classes], None)
    expected = 100 * average_precision(logits[:, 0], targets[:, 0])
    assert metrics.per_class["per_class"] == pytest.approx({"a": expected}, abs=0.006)
    assert metrics.scores["map"] == pytest.approx(expected, abs=0.001)


def test_the_best_threshold_by_trying_all() -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        scores = random.integers(0, 8, (25, 1)) / 10
        targets = random.random((25, 1)) < 0.4
        chosen = best_thresholds(torch.tensor(scores), torch.tensor(targets).float())
        best = max(
            float(counts_at(torch.tensor(scores), torch.tensor(targets).float(), torch.tensor([t])).f1)
            for t in np.arange(0, 0.9, 0.05)
        )
        found = float(counts_at(torch.tensor(scores), torch.tensor(targets).float(), chosen).f1)
        assert found == pytest.approx(best)
    none = torch.zeros(25, 1)
    assert best_thresholds(torch.tensor(scores), none).tolist() == [0.5]


def test_weights_of_rare_classes() -> None:
    targets = torch.zeros(1000, 4)
    targets[:200, 0] = targets[:1, 1] = targets[:, 2] = 1
    assert positive_weights(targets).tolist() == [4, 100, 1, 1]


@pytest.fixture(scope="module")
def tuned(lamps: str, model: Path, tiny_finetune: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("multilabel") / "out"
    keys = ["max_steps=60", "lr=5e-3", "data.augment=none", "label_smoothing=0.0", "optim.balance=weights"]
    result = finetune(model, tiny_finetune(f"data.source={lamps}", *keys), out, task="multilabel", quiet=True)
    assert isinstance(result["map"], float) and result["map"] > 90
    return out


def test_thresholds_travel_with_the_model(tuned: Path, lamps: str) -> None:
    record = read_record(tuned, ("model",))
    assert record.data.classes == ["blue", "green", "red"] and record.data.thresholds is not None
    assert record.metrics is not None and record.metrics["thresholds_from"]
    again = evaluate(tuned, None, lamps, split="val", batch_size=7, device="cpu", limit=None)
    assert again["thresholds"] == dict(zip(record.data.classes, record.data.thresholds, strict=True))
    assert "thresholds_from" not in again
    for key in ("map", "f1", "f1_micro"):
        assert again[key] == pytest.approx(record.scores[key], abs=0.01)
    assert (tuned / "pictures" / "classes.png").is_file()


def test_some_of_the_classes_in_another_set(tuned: Path, lamps: str, tmp_path: Path) -> None:
    """By name: here the third class is missing, so that the others have other numbers."""
    whole = evaluate(tuned, None, lamps, split="val", batch_size=50, device="cpu", limit=None)
    root = Path(lamps.removeprefix("csv:"))
    (tmp_path / "images").symlink_to(root)
    table = (root / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(table.replace(";blue", "").replace("blue", ""))
    some = evaluate(tuned, None, f"csv:{tmp_path}", split="val", batch_size=50, device="cpu", limit=None)
    assert some["per_class"] == {name: whole["per_class"][name] for name in ("green", "red")}


def test_a_prediction_is_what_reaches_its_threshold(tuned: Path, lamps: str) -> None:
    val = open_images(lamps, "val")
    files = [Path(val.where(index)) for index in range(len(val))]
    rows = predict(tuned, files, None, "cpu")
    thresholds = read_record(tuned, ("model",)).data.thresholds
    assert thresholds is not None and rows
    assert all(row["probability"] >= row["threshold"] - 1e-5 for row in rows)  # type: ignore[operator]
    assert val.label_lists is not None and val.classes is not None
    found = {(row["image"], row["class"]) for row in rows}
    there = {(val.where(i), val.classes[label]) for i, labels in enumerate(val.label_lists) for label in labels}
    assert len(found & there) / len(found | there) > 0.7
    assert len(predict(tuned, files[:5], 1, "cpu")) <= 5


def test_what_it_refuses(model: Path, lamps: str, tiny_finetune: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say which classes each image has"):
        finetune(model, tiny_finetune(), tmp_path / "out", task="multilabel", quiet=True)
    with pytest.raises(UserError, match=r"mixup=0.5"):
        MultiLabel(["a"], tiny_finetune("mixup=0.5"))
    with pytest.raises(UserError, match=r"optim.balance=sampler: here only none, weights"):
        MultiLabel(["a"], tiny_finetune("optim.balance=sampler"))
    off = tmp_path / "off"
    shutil.copytree(lamps.removeprefix("csv:"), off)
    names = [Path(open_images(lamps, "val").where(index)).name for index in range(2)]
    (off / "labels.csv").write_text(f"image,a,b,split\n{names[0]},1,0,train\n{names[1]},0,0,val\n")
    with pytest.raises(UserError, match=r"no image of val has any of the classes"):
        finetune(model, tiny_finetune(f"data.source=csv:{off}"), tmp_path / "out", task="multilabel", quiet=True)
    assert not (tmp_path / "out").exists()
    one_each = open_images(lamps, "train", val_share=0)
    one_each.labels, one_each.label_lists = None, [[0]] * len(one_each)  # as a parquet column of lists may be
    with pytest.raises(UserError, match="has a list of 1 labels, and the task needs one label for each image"):
        Classify.classes_of(one_each)
    with pytest.raises(UserError, match=r"4\.png has a list of 2 labels, and the task needs one label"):
        finetune(model, tiny_finetune(f"data.source={lamps}"), tmp_path / "out", quiet=True)
