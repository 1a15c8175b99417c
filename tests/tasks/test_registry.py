"""A new task is one module with a class ``TASK`` and one entry of the registry; nothing else has to know of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sweet.tasks
from sweet.data import ImageSet, ImageSource, open_images
from sweet.errors import UserError
from sweet.files import read_json
from sweet.inference.evaluate import evaluate, predict
from sweet.recipes.loader import task_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.tasks.labelled import Labelled, images_of
from sweet.tasks.registry import ENTRIES, METRICS, METRICS_OF, TASKS, Metric, TaskEntry, measured_by, task_class
from sweet.tasks.task import EvalSettings, Metrics, Row
from sweet.training.finetune import finetune

SHAPES = "shapes:n=40,size=16"


class Ordinal(Labelled):
    """The number of a class, guessed by regression."""

    @property
    def outputs(self) -> int:
        return 1

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, step: int) -> Tensor:
        return F.mse_loss(model(inputs)[:, 0].float(), targets.float())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, data: ImageSet, settings: EvalSettings) -> Metrics:
        model.eval()
        errors = torch.cat([(model(images)[:, 0] - labels).abs() for images, labels in images_of(data, settings)])
        return Metrics({"mae": float(errors.mean())}, len(errors))

    @torch.no_grad()
    def predict(
        self, model: nn.Module, images: ImageSource, settings: EvalSettings, *, top: int, out: Path | None
    ) -> list[Row]:
        guesses = torch.cat([model(batch)[:, 0] for batch, _ in images_of(images, settings)]).tolist()
        return [{"image": images.where(index), "guess": guess} for index, guess in enumerate(guesses)]

    def pictures(self, model: nn.Module, data: ImageSet, settings: EvalSettings, metrics: Metrics, out: Path) -> None:
        return None


def test_a_new_task(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("sweet.tasks.ordinal")
    module.TASK = Ordinal  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(ENTRIES, "ordinal", TaskEntry("ordinal", (Metric("mae", "error", higher_is_better=False),)))
    out = tmp_path / "out"
    result = finetune(model, tiny_finetune(f"data.source={SHAPES}"), out, task="ordinal", quiet=True)
    assert read_json(out / "config.json")["metrics"] == {"mae": result["mae"], "images": 10}
    again = evaluate(out, "ordinal", SHAPES, split="val", batch_size=3, device="cpu", limit=None)
    assert again["mae"] == pytest.approx(result["mae"], rel=1e-5)
    val = open_images(SHAPES, "val")
    val.decode(0).save(tmp_path / "0.png")
    (row,) = predict(out, [tmp_path / "0.png"], None, "cpu")
    assert row["image"] == str(tmp_path / "0.png") and isinstance(row["guess"], float)


@pytest.mark.parametrize("name", list(ENTRIES))
def test_every_task_has_its_folder_and_recipe(name: str) -> None:
    folder, _, module = ENTRIES[name].module.partition(".")
    assert (Path(sweet.tasks.__file__).parent / folder / f"{module}.py").is_file()
    assert task_class(name) is import_module(f"sweet.tasks.{folder}.{module}").TASK
    assert task_recipe(name) == f"finetune/{name}"
    assert TASKS[name] is METRICS_OF[name][0] is METRICS[TASKS[name].key]


@pytest.mark.parametrize("name", list(ENTRIES))
def test_what_can_have_classes_in_another_order(name: str) -> None:
    """Labels get other numbers; boxes and masks keep theirs, and are refused."""
    images = open_images(SHAPES, "val")
    assert images.classes is not None
    classes, before = images.classes, images.labels
    assert task_class(name).relabel(images, classes[::-1]) == (name not in ("detect", "segment"))
    assert (images.labels == before) == (name in ("detect", "segment"))


def test_an_unknown_task() -> None:
    with pytest.raises(UserError, match=r"^--task drive: unknown, expected one of classify, detect, segment, gen"):
        task_class("drive")


def test_metrics_as_one_flat_object() -> None:
    metrics = Metrics({"a": 1.5, "b": None}, 7, {"per_class": {"x": 2.0}}, [[7]], {"note": "text"})
    assert metrics.to_dict() == {
        "a": 1.5, "b": None, "images": 7, "per_class": {"x": 2.0}, "note": "text", "confusion": [[7]]
    }  # fmt: skip
    assert "confusion" not in Metrics({}, 1).to_dict()


def test_metrics_of_features_are_named_by_their_extractor() -> None:
    fid, top1 = METRICS["fid"], METRICS["top1"]
    assert (fid.label, fid.unit) == ("FID-shapes32", "FID-shapes32")
    assert measured_by(fid, "shapes32 0123456789ab") == fid == measured_by(fid, None)
    assert measured_by(fid, "inception 0123").label == "FID" and measured_by(fid, "own 0123").label == "FID-own"
    assert measured_by(METRICS["is"], "own 0123").unit == "IS-own" and measured_by(top1, "own 0123") == top1
