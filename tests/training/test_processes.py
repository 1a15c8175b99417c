"""Two processes over gloo, as torchrun starts them: one run, one folder, and the same weights after a crash."""

from __future__ import annotations

import json
import runpy
import shutil
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from sweet.files import check_sums, read_json, sha256
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.training.checkpoint import steps_of
from sweet.training.pretrain import pretrain


def run_two(
    processes: ForkServerContext,
    verb: str,
    arguments: tuple[Any, ...],
    *,
    resume: bool = False,
    stop: int | None = None,
) -> list[int | None]:
    """Exit codes of both processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = str(Path(__file__).with_name("one_of_two.py"))
    job = {"port": port, "verb": verb, "arguments": arguments, "resume": resume, "stop": stop}
    both = [processes.Process(target=runpy.run_path, args=(script, {"JOB": job | {"rank": rank}})) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    return [process.exitcode for process in both]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_pretraining_by_two_is_one_run_that_resumes(
    processes: ForkServerContext, tiny: Callable[..., PretrainRecipe], template: Path, tmp_path: Path
) -> None:
    recipe = tiny("checkpoint_every=2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_two(processes, "pretrain", (recipe, whole)) == [0, 0]
    info = read_json(whole / "config.json")
    assert (info["training"]["steps"], info["training"]["images"]) == (6, 6 * 16)
    assert all(check_sums(whole).values())
    # the same images as one process takes, under other masks: as good a step, other numbers
    assert losses(whole) != losses(template)
    assert losses(whole) == pytest.approx(losses(template), rel=0.2)

    assert run_two(processes, "pretrain", (recipe, broken), stop=3) == [9, 9]
    assert steps_of(broken) == [2]
    alone = tmp_path / "alone"
    shutil.copytree(broken, alone)
    assert pretrain(recipe, alone, resume=True, quiet=True)["steps"] == 6  # one process takes over from two
    assert losses(alone) == pytest.approx(losses(whole), rel=0.2)
    assert run_two(processes, "pretrain", (recipe, broken), resume=True) == [0, 0]
    assert sha256(broken / "template.safetensors") == sha256(whole / "template.safetensors")


@pytest.mark.slow
def test_finetuning_by_two(
    processes: ForkServerContext, model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path
) -> None:
    out = tmp_path / "classifier"
    assert run_two(processes, "finetune", (model, tiny_finetune(), out)) == [0, 0]
    info = read_json(out / "config.json")
    assert info["training"]["images"] == 6 * 16 and info["metrics"]["images"] > 0
    assert all(check_sums(out).values())
