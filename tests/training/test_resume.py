"""Kill a run anywhere, resume it: the same weights, bit for bit."""

from __future__ import annotations

import json
import runpy
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweet.cli import app
from sweet.errors import UserError
from sweet.files import check_sums, read_json, read_tensors, sha256, write_tensors
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.storage.layout import TENSORS
from sweet.training import checkpoint
from sweet.training.finetune import finetune
from sweet.training.pretrain import pretrain
from sweet.verbs import changed_recipe

CrashAt = Callable[[int], AbstractContextManager[None]]
# whatever changes the disk for good: between any two of these the power may go
DISK = ("os.fsync", "os.replace", "os.unlink", "os.rmdir", "os.mkdir")


@dataclass
class Job:
    """A run that was not interrupted, and how to start it again elsewhere."""

    verb: str
    arguments: Callable[[Path], tuple[Any, ...]]
    finished: Path

    def start(self, out: Path) -> dict[str, Any]:
        """Run it here, from the newest checkpoint in ``out``."""
        return {"pretrain": pretrain, "finetune": finetune}[self.verb](*self.arguments(out), resume=True, quiet=True)


@pytest.fixture(scope="module")
def pretraining(tiny: Callable[..., PretrainRecipe], tmp_path_factory: pytest.TempPathFactory) -> Job:
    recipe = tiny("width.mode=independent", "checkpoint_every=1", "seed=3")
    out = tmp_path_factory.mktemp("whole") / "template"
    pretrain(recipe, out, quiet=True)
    return Job("pretrain", lambda out: (recipe, out), out)


@pytest.fixture(scope="module")
def finetuning(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path_factory: pytest.TempPathFactory
) -> Job:
    recipe = tiny_finetune("drop_path=0.3", "mixup=0.8", "cutmix=1.0", "ema=0.9", "checkpoint_every=1", "seed=3")
    out = tmp_path_factory.mktemp("whole") / "model"
    finetune(model, recipe, out, quiet=True)
    return Job("finetune", lambda out: (model, recipe, out), out)


@pytest.fixture(params=["pretraining", "finetuning"])
def job(request: pytest.FixtureRequest) -> Job:
    return request.getfixturevalue(request.param)


def run_until_killed(processes: ForkServerContext, job: Job, out: Path, watch: tuple[str, ...], calls: int) -> bool:
    """Whether the run was killed; False when it came to its end."""
    work = {"verb": job.verb, "arguments": job.arguments(out), "watch": watch, "calls": calls}
    script = str(Path(__file__).with_name("killed.py"))
    process = processes.Process(target=runpy.run_path, args=(script, {"JOB": work}))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def assert_as_if_never_stopped(out: Path, job: Job) -> None:
    kind = read_json(job.finished / "config.json")["kind"]
    assert sha256(out / TENSORS[kind]) == sha256(job.finished / TENSORS[kind])
    assert losses(out) == losses(job.finished)
    assert log(out) == log(job.finished)
    assert [step for step, _ in losses(out)] == [1, 2, 3, 4, 5, 6]
    assert check_sums(out) and all(check_sums(out).values())


def losses(out: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def log(out: Path) -> list[dict[str, Any]]:
    """Every line, validations too, without what depends on the clock."""
    files = [out / name for name in ("metrics.jsonl", "validation.jsonl") if (out / name).is_file()]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("img_per_s", "data_wait")} for line in lines]


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and hash of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, sha256(path)) for path in files}


def test_the_seed_and_the_width_draws_matter(pretraining: Job, template: Path) -> None:
    """Otherwise equal weights would prove nothing."""
    assert sha256(pretraining.finished / "template.safetensors") != sha256(template / "template.safetensors")


@pytest.mark.parametrize("calls", [1, 5])
def test_killed_in_the_middle_of_a_step(processes: ForkServerContext, job: Job, tmp_path: Path, calls: int) -> None:
    assert run_until_killed(processes, job, tmp_path, ("torch.optim.AdamW.step",), calls)
    assert checkpoint.steps_of(tmp_path) == {1: [], 5: [3, 4]}[calls]
    job.start(tmp_path)
    assert_as_if_never_stopped(tmp_path, job)


@pytest.mark.parametrize("calls", [28, 43, 81, 100, 105, 119, 123])
def test_killed_while_it_writes(processes: ForkServerContext, pretraining: Job, tmp_path: Path, calls: int) -> None:
    """Before its n-th change of the disk: there are about 125, mostly for checkpoints, at the end for the result."""
    assert run_until_killed(processes, pretraining, tmp_path, DISK, calls)
    pretraining.start(tmp_path)
    assert_as_if_never_stopped(tmp_path, pretraining)


def test_killed_again_and_again(processes: ForkServerContext, job: Job, tmp_path: Path) -> None:
    """Every process dies at its 61st change of the disk; one after the other they come to the end."""
    deaths = 0
    while run_until_killed(processes, job, tmp_path, DISK, 61):
        deaths += 1
        assert deaths < 5, "no progress from one death to the next"
    assert deaths >= 2
    assert_as_if_never_stopped(tmp_path, job)


@pytest.mark.parametrize("calls", [1, 4, 11])
def test_killed_when_half_of_a_file_is_written(
    processes: ForkServerContext, finetuning: Job, tmp_path: Path, calls: int
) -> None:
    """A checkpoint holds two files; the eleventh file is the result itself."""
    assert run_until_killed(processes, finetuning, tmp_path, ("safetensors.torch.save_file",), calls)
    assert not (tmp_path / "config.json").exists()
    assert checkpoint.steps_of(tmp_path) == {1: [], 4: [1], 11: [4, 5]}[calls]
    finetuning.start(tmp_path)
    assert_as_if_never_stopped(tmp_path, finetuning)


def test_a_finished_run_is_left_alone(job: Job) -> None:
    before = everything(job.finished)
    again = job.start(job.finished)
    assert again["finished_before"]
    assert everything(job.finished) == before


def test_resume_alone_goes_on(
    pretraining: Job, finetuning: Job, model: Path, tmp_path: Path, crash_at: CrashAt
) -> None:
    """`--out DIR --resume` needs no recipe and no overrides: the run folder knows them."""
    for job, words in ((pretraining, ["pretrain"]), (finetuning, ["finetune", str(model)])):
        out = tmp_path / job.verb
        with crash_at(3):
            job.start(out)
        result = CliRunner().invoke(app, [*words, "--out", str(out), "--resume", "--quiet", "--json"])
        assert result.exit_code == 0, result.output
        assert_as_if_never_stopped(out, job)


def test_leftovers_are_harmless(job: Job, tmp_path: Path, crash_at: CrashAt) -> None:
    with crash_at(3):
        job.start(tmp_path)
    for folder in (".step-3", ".step-4", "step-x"):
        (tmp_path / "checkpoints" / folder).mkdir()
        (tmp_path / "checkpoints" / folder / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".config.json.abc").write_text("{")
    (tmp_path / ".model.safetensors.abc").write_bytes(b"half")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    job.start(tmp_path)
    assert_as_if_never_stopped(tmp_path, job)


def test_without_a_checkpoint_it_starts_at_step_0(job: Job, tmp_path: Path, crash_at: CrashAt) -> None:
    with crash_at(2):
        job.start(tmp_path)
    for folder in (tmp_path / "checkpoints").iterdir():
        folder.rename(folder.with_name(f".{folder.name}"))
    job.start(tmp_path)
    assert_as_if_never_stopped(tmp_path, job)


def test_time_and_loss_are_those_of_the_whole_run(pretraining: Job, tmp_path: Path, crash_at: CrashAt) -> None:
    with crash_at(4):
        pretraining.start(tmp_path)
    state = tmp_path / "checkpoints" / "step-4" / "state.json"
    values = read_json(state)
    assert values["seconds"] > 0
    state.write_text(json.dumps(values | {"seconds": 1000.1}))
    summary = pretraining.start(tmp_path)
    assert 1000 <= summary["seconds"] < 1060
    assert summary["img_per_s"] == pytest.approx(6 * 16 / summary["seconds"], rel=0.6)
    assert summary["loss"] == read_json(pretraining.finished / "config.json")["training"]["loss"]


def test_another_recipe_is_refused(
    pretraining: Job, tiny: Callable[..., PretrainRecipe], tmp_path: Path, crash_at: CrashAt
) -> None:
    with crash_at(3):
        pretraining.start(tmp_path)
    before = everything(tmp_path)
    keys = ("width.mode=independent", "checkpoint_every=1", "seed=3")
    for override in ("seed=4", "lr=1e-3", "model.depth=3", "data.limit=32"):
        with pytest.raises(UserError, match=f"--resume: {override.replace('1e-3', '0.001')}"):
            pretrain(tiny(*keys, override), tmp_path, resume=True, quiet=True)
    with pytest.raises(UserError, match=r"optim\.clip=null, but .* was begun with optim\.clip="):  # as YAML
        pretrain(tiny(*keys, "optim.clip=null"), tmp_path, resume=True, quiet=True)
    assert everything(tmp_path) == before
    pretrain(tiny(*keys, "checkpoint_every=4", "workers=1"), tmp_path, resume=True, quiet=True)
    assert_as_if_never_stopped(tmp_path, pretraining)


def test_another_model_is_refused(model: Path, finetuning: Job, tmp_path: Path, crash_at: CrashAt) -> None:
    """Of the same shape: its weights would not be used, but its name would stand in the result."""
    run, other = tmp_path / "run", shutil.copytree(model, tmp_path / "other")
    with crash_at(3):
        finetuning.start(run)
    before = everything(run)
    file = other / TENSORS["model"]
    write_tensors(file, {name: value + 0.01 for name, value in read_tensors(file).items()})
    (other / "SHA256SUMS").unlink()
    _, recipe, *more = finetuning.arguments(run)
    with pytest.raises(UserError, match=f"MODEL: --resume: {run} was begun with another one"):
        finetune(other, recipe, *more, resume=True, quiet=True)
    assert everything(run) == before
    finetune(shutil.copytree(model, tmp_path / "moved"), recipe, *more, resume=True, quiet=True)
    assert_as_if_never_stopped(run, finetuning)


def test_a_folder_of_another_kind_is_not_a_run_to_resume(pretraining: Job, finetuning: Job, model: Path) -> None:
    with pytest.raises(UserError, match="is a model, expected a template or a dense"):
        pretraining.start(finetuning.finished)
    with pytest.raises(UserError, match="is a template, expected a model"):
        finetuning.start(pretraining.finished)
    with pytest.raises(UserError, match="holds a model that was not fine-tuned"):
        finetuning.start(model)
    recipe = finetuning.finished / "recipe.yaml"
    with pytest.raises(UserError, match=f"--out {finetuning.finished} was begun by sweet finetune, not pretrain"):
        changed_recipe(PretrainRecipe, recipe, [], resumed=True)


def test_a_damaged_checkpoint_is_named(pretraining: Job, tmp_path: Path, crash_at: CrashAt) -> None:
    with crash_at(2):
        pretraining.start(tmp_path)
    damaged = tmp_path / "checkpoints" / "step-2" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{damaged}: not a safetensors file"):
        pretraining.start(tmp_path)


def test_muon_goes_on_too(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, crash_at: CrashAt
) -> None:
    """Its state holds what is no tensor."""
    recipes = [tiny_finetune("checkpoint_every=1", "seed=3", f"optim.name={name}") for name in ("muon", "adamw")]
    for recipe in recipes:
        finetune(model, recipe, tmp_path / recipe.optim.name, quiet=True)
    assert losses(tmp_path / "muon")[-1] != losses(tmp_path / "adamw")[-1]
    job = Job("finetune", lambda out: (model, recipes[0], out), tmp_path / "muon")
    with crash_at(3):
        job.start(tmp_path / "broken")
    job.start(tmp_path / "broken")
    assert_as_if_never_stopped(tmp_path / "broken", job)


def test_a_key_that_has_come_since_then_does_not_matter(pretraining: Job, tmp_path: Path, crash_at: CrashAt) -> None:
    with crash_at(3):
        pretraining.start(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    lines = recipe.read_text().splitlines()
    without = [line for line in lines if line.strip() not in ("name: adamw", "on_error: fail")]
    assert len(without) == len(lines) - 2
    recipe.write_text("\n".join(without))
    pretraining.start(tmp_path)
    assert_as_if_never_stopped(tmp_path, pretraining)
