"""Two processes over gloo, as torchrun starts them: one run, one folder, the weights of one process."""

from __future__ import annotations

import json
import multiprocessing.connection
import runpy
import shutil
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sweet.data import Batches, Packed, Samples
from sweet.files import check_sums, read_json, read_tensors, sha256
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.training.checkpoint import steps_of
from sweet.training.finetune import finetune
from sweet.training.pretrain import pretrain

Stop = tuple[int, int | None, str]  # the step, the process (None: both), what happens


def run_two(
    processes: ForkServerContext,
    verb: str,
    arguments: tuple[Any, ...],
    *,
    resume: bool = False,
    stop: Stop | None = None,
    agent: dist.TCPStore | None = None,
    late: int | None = None,
    divided: bool = False,
) -> list[int | None]:
    """Exit codes of both processes, None of one that does not end after the other.

    ``agent`` is the store of a torchrun that has started them. Process ``late`` starts two seconds after the other;
    ``divided``: as ``accelerate launch --use_fsdp`` would.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] if agent is None else agent.port
    script = str(Path(__file__).with_name("one_of_two.py"))
    environment = {"TORCHELASTIC_USE_AGENT_STORE": str(agent is not None), "ACCELERATE_USE_FSDP": str(divided)}
    job = {
        "port": port,
        "environment": environment,
        "verb": verb,
        "arguments": arguments,
        "resume": resume,
        "stop": stop,
    }
    both = [processes.Process(target=runpy.run_path, args=(script, {"JOB": job | {"rank": rank}})) for rank in range(2)]
    for rank in sorted(range(2), key=lambda rank: rank == late):
        time.sleep(2.0 * (rank == late))
        both[rank].start()
    # starting takes long on a busy machine; ending does not, whatever ended the other one
    multiprocessing.connection.wait([process.sentinel for process in both], 300)
    for process in both:
        process.join(60)
    return [process.exitcode for process in both]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def validations(out: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (out / "validation.jsonl").read_text().splitlines())
    return [(line["step"], line["val_top1"]) for line in lines]


def assert_same_weights(file: str, one: Path, two: Path) -> None:
    """To 1e-6, except for the bias of the keys: it changes no output, so its gradient is rounding, which Adam scales.

    Of the principal order, what follows from the weights by an eigendecomposition, to 1e-4.
    """
    first, second = (read_tensors(folder / file) for folder in (one, two))
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        if name.endswith("qkv.bias"):
            value, other = (torch.cat(t.chunk(3, -1)[::2], -1) for t in (value, other))
        apart = float((value - other).abs().max())
        assert apart <= (1e-4 if name.startswith("order") else 1e-6), f"{name}: {apart}"


@pytest.mark.slow
def test_pretraining_by_two_is_the_run_of_one_and_resumes(
    processes: ForkServerContext, tiny: Callable[..., PretrainRecipe], template: Path, tmp_path: Path
) -> None:
    recipe = tiny("checkpoint_every=2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_two(processes, "pretrain", (recipe, whole)) == [0, 0]
    info = read_json(whole / "config.json")
    assert (info["training"]["steps"], info["training"]["images"]) == (6, 6 * 16)
    assert all(check_sums(whole).values())
    assert losses(whole) == pytest.approx(losses(template), abs=1e-6)  # the mean of both, not the first one's
    assert_same_weights("template.safetensors", template, whole)

    assert run_two(processes, "pretrain", (recipe, broken), stop=(3, None, "death")) == [9, 9]
    assert steps_of(broken) == [2]
    alone = tmp_path / "alone"
    shutil.copytree(broken, alone)
    assert pretrain(recipe, alone, resume=True, quiet=True)["steps"] == 6  # one process takes over from two
    assert_same_weights("template.safetensors", template, alone)
    assert run_two(processes, "pretrain", (recipe, broken), resume=True) == [0, 0]
    assert sha256(broken / "template.safetensors") == sha256(whole / "template.safetensors")


@pytest.mark.slow
def test_two_take_over_from_one(
    processes: ForkServerContext, tiny: Callable[..., PretrainRecipe], template: Path, tmp_path: Path
) -> None:
    recipe = tiny("checkpoint_every=2")
    pretrain(recipe, tmp_path, quiet=True)
    (tmp_path / "config.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "step-4")
    assert run_two(processes, "pretrain", (recipe, tmp_path), resume=True) == [0, 0]
    assert_same_weights("template.safetensors", template, tmp_path)


@pytest.mark.slow
def test_finetuning_by_two(
    processes: ForkServerContext, model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path
) -> None:
    # slowly: a new head gives gradients of the size of their rounding, and Adam makes steps of lr of them
    alone, out, recipe = tmp_path / "alone", tmp_path / "two", tiny_finetune("lr=5e-4")
    finetune(model, recipe, alone, quiet=True)
    assert run_two(processes, "finetune", (model, recipe, out)) == [0, 0]
    info = read_json(out / "config.json")
    assert info["training"]["images"] == 6 * 16 and info["metrics"]["images"] > 0
    assert all(check_sums(out).values())
    assert losses(out) == pytest.approx(losses(alone), abs=1e-6)
    assert_same_weights("model.safetensors", alone, out)
    assert validations(out) == validations(alone) and len(validations(out)) == 2


@pytest.mark.slow
def test_a_divided_model_learns_what_a_whole_one_does(
    processes: ForkServerContext, model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path
) -> None:
    """FSDP: each of two processes holds half of every tensor; the folders and checkpoints are the same as ever."""
    recipe, alone, out = tiny_finetune("lr=5e-4"), tmp_path / "alone", tmp_path / "two"
    finetune(model, recipe, alone, quiet=True)
    assert run_two(processes, "finetune", (model, recipe, out), stop=(3, 1, "SIGTERM"), divided=True) == [130, 143]
    assert steps_of(out) == [2, 4]
    saved = read_tensors(out / "checkpoints" / "step-4" / "model.safetensors")
    assert {n: v.shape for n, v in saved.items()} == {
        n: v.shape for n, v in read_tensors(alone / "model.safetensors").items()
    }
    taken_over = tmp_path / "taken-over"
    shutil.copytree(out, taken_over)
    assert run_two(processes, "finetune", (model, recipe, out), resume=True, divided=True) == [0, 0]
    finetune(model, recipe, taken_over, resume=True, quiet=True)
    for folder in (out, taken_over):
        assert losses(folder) == pytest.approx(losses(alone), abs=1e-6)
        assert_same_weights("model.safetensors", alone, folder)


@pytest.mark.slow
def test_a_divided_source_learns_what_a_whole_one_does(
    processes: ForkServerContext, tiny: Callable[..., PretrainRecipe], template: Path, tmp_path: Path
) -> None:
    assert run_two(processes, "pretrain", (tiny(), tmp_path), divided=True) == [0, 0]
    assert losses(tmp_path) == pytest.approx(losses(template), abs=1e-6)
    assert_same_weights("template.safetensors", template, tmp_path)


@pytest.mark.slow
def test_a_lost_process_ends_the_run_in_seconds(
    processes: ForkServerContext, tiny: Callable[..., PretrainRecipe], tmp_path: Path
) -> None:
    assert run_two(processes, "pretrain", (tiny(), tmp_path), stop=(3, 1, "death")) == [1, 9]
    assert steps_of(tmp_path)[-1] in (4, 5)  # the first one had done its step when the second one died


@pytest.mark.slow
def test_torchrun_starts_both_again_and_they_find_each_other(
    processes: ForkServerContext, tiny: Callable[..., PretrainRecipe], tmp_path: Path
) -> None:
    """torchrun keeps one store, in which the addresses of the dead processes stand."""
    recipe, whole, out = tiny("checkpoint_every=2"), tmp_path / "whole", tmp_path / "out"
    assert run_two(processes, "pretrain", (recipe, whole)) == [0, 0]
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert run_two(processes, "pretrain", (recipe, out), stop=(3, 1, "death"), agent=agent) == [1, 9]
    for late in range(2):  # whoever comes first
        again = tmp_path / f"late-{late}"
        shutil.copytree(out, again)
        assert run_two(processes, "pretrain", (recipe, again), resume=True, agent=agent, late=late) == [0, 0]
        assert sha256(again / "template.safetensors") == sha256(whole / "template.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1, None])
def test_a_signal_to_any_process_stops_both_after_the_same_step(
    processes: ForkServerContext, tiny: Callable[..., PretrainRecipe], tmp_path: Path, rank: int | None
) -> None:
    codes = run_two(processes, "pretrain", (tiny(), tmp_path), stop=(2, rank, "SIGTERM"))
    assert all(codes[number] == 143 for number in range(2) if rank in (None, number))
    assert steps_of(tmp_path)[-1] == 3


def test_every_process_takes_its_part_of_the_whole_batch() -> None:
    """Images, crops, flips and shifts do not depend on the number of processes."""
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)

    def part(rank: int, world: int, augment: Any) -> torch.Tensor:
        data = Packed(images, None, None)
        size = 8 // world
        batches = Batches(data, batch_size=size, seed=0, img_size=16, augment=augment, rank=rank, world=world)
        assert batches.whole(3).tolist() == Batches(data, batch_size=8, seed=0, img_size=16).indices(3).tolist()
        return batches.at(3)[0]

    for augment in ("rrc", "crop", "flip", "none"):
        together = torch.cat([part(rank, 4, augment) for rank in range(4)])
        torch.testing.assert_close(together, part(0, 1, augment), rtol=0, atol=1e-6)

    def samples(rank: int, world: int) -> list[float]:
        load, join = (lambda index, generator: float(torch.rand((), generator=generator))), (lambda many: (many, None))
        return list(Samples(12, load, join, batch_size=8 // world, seed=0, rank=rank, world=world).at(2)[0])

    assert samples(0, 1) == [value for rank in range(4) for value in samples(rank, 4)]
