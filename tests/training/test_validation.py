"""Validation while a model is trained: it changes no number of the training, the best is kept, patience ends it."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import signal
from collections.abc import Callable
from itertools import chain
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from sweet import interrupts
from sweet.errors import UserError
from sweet.files import read_json, read_tensors, sha256
from sweet.inference.evaluate import evaluate
from sweet.recipes.schema import FinetuneRecipe
from sweet.results.runs import read_run
from sweet.tasks.classification.classify import Classify
from sweet.tasks.generation.generate import Generate
from sweet.tasks.registry import TASKS
from sweet.tasks.task import Metrics
from sweet.training import checkpoint
from sweet.training.finetune import finetune
from sweet.training.validation import Validated, Validation, steps_between

Tiny = Callable[..., FinetuneRecipe]
DATA = "shapes:n=64,size=16"
BUSY = ("drop_path=0.3", "mixup=0.8", "cutmix=1.0", "seed=3")  # whatever draws at random


def lines(file: Path) -> list[dict[str, Any]]:
    """Of a log, without what depends on the clock."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("img_per_s", "data_wait")} for line in found]


def log(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return lines(out / "metrics.jsonl"), lines(out / "validation.jsonl")


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in lines(out / "metrics.jsonl")]


def scores_are(monkeypatch: pytest.MonkeyPatch, scores: dict[int, float]) -> None:
    """The deciding score after each of some steps, whatever is measured."""
    joined = Validation.joined
    monkeypatch.setattr(Validation, "joined", lambda *words: joined(*words[:3], scores[words[2]]))


def test_it_writes_a_curve_and_changes_no_number(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    without, each = tmp_path / "without", tmp_path / "each"
    finetune(model, tiny_finetune("val_every=0", *BUSY), without, quiet=True)
    result = finetune(model, tiny_finetune("val_every=0.25", *BUSY), each, quiet=True)
    assert losses(each) == losses(without)
    assert not (without / "validation.jsonl").exists()
    points = lines(each / "validation.jsonl")
    assert [line["step"] for line in points] == [1, 2, 3, 4, 5, 6]
    assert all(line.keys() == {"step", "val_top1", "val_top5", "val_loss"} for line in points)
    best = max(points, key=lambda line: (line["val_top1"], line["step"]))
    assert (result["top1"], result["val_loss"]) == (best["val_top1"], best["val_loss"])
    assert "best_step" not in read_json(without / "config.json")["training"]
    events = [path for path in (each / "tensorboard").rglob("events*") if b"val_top1" in path.read_bytes()]
    assert events


@pytest.mark.parametrize("average", [(), ("ema=0.9",)])
def test_the_best_is_what_is_written(
    model: Path, tiny_finetune: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: tuple[str, ...]
) -> None:
    scores_are(monkeypatch, {2: 50.0, 4: 40.0, 6: 45.0})
    result = finetune(model, tiny_finetune("val_every=0.5", "checkpoint_every=1", *average), tmp_path, quiet=True)
    assert checkpoint.steps_of(tmp_path) == [2, 4, 5]
    assert result["training"] == read_json(tmp_path / "config.json")["training"]
    assert (result["training"]["best_step"], result["training"]["best_epoch"]) == (2, 0.5)
    kept = read_tensors(tmp_path / "checkpoints" / "step-2" / "model.safetensors")
    prefix = "ema|" if average else ""
    for name, value in read_tensors(tmp_path / "model.safetensors").items():
        assert value.equal(kept[prefix + name]), name
    again = evaluate(tmp_path, None, DATA, split="val", batch_size=256, device="cpu", limit=None)
    assert again == read_json(tmp_path / "config.json")["metrics"]


def test_patience_ends_the_training(
    model: Path,
    tiny_finetune: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores_are(monkeypatch, dict(enumerate([0, 10.0, 30.0, 20.0, 25.0, 40.0, 50.0])))
    recipe = tiny_finetune("val_every=0.25", "patience=2")
    training = finetune(model, recipe, tmp_path)["training"]
    assert (training["steps"], training["best_step"], training["images"]) == (4, 2, 64)
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    shown = capsys.readouterr().err
    assert re.search(r"epoch 0.5 \(step 2/6\): validation top-1 [\d.]+ %, the best so far\n", shown)
    assert re.search(r"epoch 1 \(step 4/6\): validation top-1 [\d.]+ %, best 30.00 after epoch 0.5\n", shown)
    assert "no better one in 2 validations: the training ends after step 4" in shown
    (tmp_path / "config.json").unlink()  # killed before it was written
    written = sha256(tmp_path / "model.safetensors")
    assert finetune(model, recipe, tmp_path, resume=True, quiet=True)["training"]["steps"] == 4
    assert sha256(tmp_path / "model.safetensors") == written


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_killed_while_it_validates(
    processes: ForkServerContext, model: Path, tiny_finetune: Tiny, tmp_path: Path, calls: int
) -> None:
    recipe = tiny_finetune("val_every=0.5", "checkpoint_every=3", "ema=0.9", *BUSY)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finetune(model, recipe, whole, quiet=True)
    watch = ("sweet.tasks.classification.classify.Classify.measure",)
    work = {"verb": "finetune", "arguments": (model, recipe, cut), "watch": watch, "calls": calls}
    script = str(Path(__file__).with_name("killed.py"))
    process = processes.Process(target=runpy.run_path, args=(script, {"JOB": work}))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    finetune(model, recipe, cut, resume=True, quiet=True)
    assert log(cut) == log(whole)
    assert sha256(cut / "model.safetensors") == sha256(whole / "model.safetensors")


def test_a_signal_while_it_validates(
    model: Path, tiny_finetune: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is obeyed at once, and the resumed run validates first."""
    recipe = tiny_finetune("val_every=0.5", "checkpoint_every=5", *BUSY)
    whole, cut, measure = tmp_path / "whole", tmp_path / "cut", Classify.measure
    finetune(model, recipe, whole, quiet=True)
    seen: list[int] = []

    def interrupted(*words: Any) -> Metrics:
        seen.append(1)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGTERM)
        return measure(*words)

    with monkeypatch.context() as patch, pytest.raises(interrupts.Interrupted):
        patch.setattr(Classify, "measure", interrupted)
        finetune(model, recipe, cut, quiet=True)
    assert checkpoint.steps_of(cut)[-1] == 4
    finetune(model, recipe, cut, resume=True, quiet=True)
    assert log(cut) == log(whole)
    assert sha256(cut / "model.safetensors") == sha256(whole / "model.safetensors")


def test_logs_of_earlier_versions(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    """They had one log for both: a report draws it, and a resumed run sorts it."""
    recipe = tiny_finetune("val_every=0.5", "checkpoint_every=2", *BUSY)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finetune(model, recipe, whole, quiet=True)
    shutil.copytree(whole, cut)
    both = sorted(chain(*log(cut)), key=lambda line: (line["step"], "loss" not in line))
    (cut / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in both))
    (cut / "validation.jsonl").unlink()
    known = {"loss", "lr", "val_top1", "val_top5", "val_loss"}
    assert {key for key in read_run(cut).logged() if key in known} == known
    for key in known:
        assert read_run(cut).series(key) == read_run(whole).series(key), key
    (cut / "config.json").unlink()
    finetune(model, recipe, cut, resume=True, quiet=True)
    assert log(cut) == log(whole)


def test_how_often(tiny_finetune: Tiny) -> None:
    task, generator = Classify(["a", "b"]), Generate(["a", "b"])

    def every(*keys: str, task: Any = task, train: int = 1000, val: int = 200) -> int:
        return steps_between(tiny_finetune(*keys), task, 100, train, val)

    assert every() == 100
    assert every(val=2500) == 300  # at most a third of the work of training
    assert every(task=generator) == 0  # FID takes longer than an epoch
    assert every("val_every=2", task=generator) == every("val_every=2", val=10**6) == 200
    assert (every("val_every=0.25"), every("val_every=1e-9"), every("val_every=0")) == (25, 1, 0)


def test_patience_without_validation_is_refused(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="patience=3: has no effect where nothing is validated while training"):
        finetune(model, tiny_finetune("val_every=0", "patience=3"), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_metric_that_should_be_low() -> None:
    plan = Validation(lambda: Metrics({"fid": 3.0}, 1), TASKS["generate"], 10, 5, patience=2)
    so_far = plan.joined(plan.joined(Validated(), 10, 8.0), 20, 9.0)
    assert so_far == Validated(20, 10, 8.0) and not plan.enough(so_far)
    assert plan.enough(plan.joined(so_far, 30, 8.5))
    assert plan.joined(so_far, 30, 8.0) == Validated(30, 30, 8.0)  # as good, and trained longer
    assert plan.joined(so_far, 30, 7.5) == Validated(30, 30, 7.5)
    assert plan.score(Metrics({"fid": None}, 1)) == plan.score(Metrics({"fid": float("nan")}, 1)) == float("inf")
