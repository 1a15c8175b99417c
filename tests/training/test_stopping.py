"""What ends a run before its time: signals, errors, numbers that are none. Nothing is lost, one line is said."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from sweet import interrupts
from sweet.cli import app
from sweet.data import open_images
from sweet.data.identity import differences, identity
from sweet.errors import UserError
from sweet.files import read_json, read_tensors, sha256
from sweet.recipes.schema import FinetuneRecipe, OptimKeys, PretrainRecipe, TrainKeys, without_path
from sweet.training import divided
from sweet.training.checkpoint import steps_of
from sweet.training.device import make_accelerator
from sweet.training.loop import TrainResult, train
from sweet.training.nonfinite import NonFinite, read_events
from sweet.training.pretrain import pretrain

TINY = Path(__file__).parents[1] / "tiny.yaml"
Loss = Callable[[nn.Module, Tensor, Any, int], Tensor]


class Rows:
    """A batch of eight rows for each step; ``broken`` cannot be read."""

    steps_per_epoch = 100

    def __init__(self, broken: int | None) -> None:
        self.broken = broken
        self.x = torch.randn(800, 5, generator=torch.Generator().manual_seed(0))
        self.y = self.x @ torch.arange(5.0)

    def whole(self, step: int) -> Tensor:
        return torch.arange(step * 8, step * 8 + 8)

    def iterate(self, start: int, stop: int) -> Iterator[tuple[Tensor, Any]]:
        for step in range(start, stop):
            if step == self.broken:
                raise UserError("cat.png: not an image")
            yield self.x[self.whole(step)], self.y[self.whole(step)]


def squared_error(model: nn.Module, x: Tensor, y: Tensor, _: int) -> Tensor:
    return (model(x)[:, 0] - y).square().mean()


def fit(
    run: Path | None,
    loss_of: Loss = squared_error,
    *,
    resume: bool = False,
    broken: int | None = None,
    model: nn.Module | None = None,
    optim: OptimKeys | None = None,
    quiet: bool = True,
    **values: Any,
) -> tuple[TrainResult, Tensor]:
    """Train a linear model for 12 steps, a checkpoint every third; what it took and its weights."""
    if model is None:
        model = nn.Linear(5, 1)
        nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    keys = {"epochs": 1, "max_steps": 12, "batch_size": 8, "lr": 0.1, "checkpoint_every": 3} | values
    finished = train(
        model,
        [{"params": model.parameters()}],
        Rows(broken),
        loss_of,
        keys=TrainKeys(**keys),
        optim=optim or OptimKeys(),
        accelerator=make_accelerator("cpu", "fp32", 1),
        run=run,
        resume=resume,
        quiet=quiet,
    )
    return finished, next(model.parameters()).detach().clone()


def at(step: int, happens: Callable[[], Any]) -> Loss:
    """A loss at whose step ``step`` (from 0) something happens."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, micro: int) -> Tensor:
        factor = happens() if micro == step else None
        return squared_error(model, x, y, micro) * (1.0 if factor is None else factor)

    return loss


@pytest.fixture
def listening() -> Iterator[None]:
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}  # nohup has it ignored
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138)])
def test_every_signal_saves(tmp_path: Path, name: str, code: int) -> None:
    number = signal.Signals[name]
    _, expected = fit(tmp_path / "whole")
    before = signal.getsignal(number)
    with pytest.raises(interrupts.Interrupted) as stopped:
        fit(tmp_path / "run", at(4, lambda: os.kill(os.getpid(), number)))
    assert stopped.value.args == (number,) and interrupts.exit_code() == code
    assert steps_of(tmp_path / "run") == [3, 5]
    assert signal.getsignal(number) is before
    assert torch.equal(fit(tmp_path / "run", resume=True)[1], expected)


@pytest.mark.usefixtures("listening")
def test_a_second_signal_does_not_lose_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the step, and at every fsync of the checkpoint."""

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    fsync = os.fsync

    def pressed(handle: int) -> None:
        if interrupts.received() is not None:
            os.kill(os.getpid(), signal.SIGINT)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", pressed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, at(4, twice))
    assert steps_of(tmp_path) == [3, 5]


@pytest.mark.usefixtures("listening")
def test_a_signal_that_a_library_swallows_still_stops(tmp_path: Path) -> None:
    class Swallowing(Rows):
        def iterate(self, start: int, stop: int) -> Iterator[tuple[Tensor, Any]]:
            for step, batch in enumerate(super().iterate(start, stop), start):
                if step == 4:
                    try:
                        os.kill(os.getpid(), signal.SIGTERM)
                        time.sleep(0.01)
                    except BaseException:
                        pass
                yield batch

    original, globals()["Rows"] = Rows, Swallowing
    try:
        with pytest.raises(interrupts.Interrupted):
            fit(tmp_path)
    finally:
        globals()["Rows"] = original
    assert steps_of(tmp_path) == [3, 4]


@pytest.mark.usefixtures("listening")
def test_ctrl_c_while_torch_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    compile_module = nn.Module.compile

    def slow(graph: Any, inputs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(300)
        return graph

    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend=slow))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, optim=OptimKeys(compile=True), quiet=False)
    assert time.monotonic() - began < 200
    said = capfd.readouterr().err
    assert "interrupted during torch.compile" in said
    assert "the first step was not done; the same command with --resume" in said and "checkpoint" not in said
    assert steps_of(tmp_path) == []  # nothing was learned yet


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_program_ends_with_the_code_of_its_signal(
    processes: ForkServerContext, tmp_path: Path, name: str, code: int
) -> None:
    out, errors = tmp_path / "run", tmp_path / "errors"
    words = ["pretrain", TINY, "--out", out, "max_steps=4000", "checkpoint_every=4000"]
    job = {"words": words, "errors": str(errors)}
    script = str(Path(__file__).with_name("as_program.py"))
    process = processes.Process(target=runpy.run_path, args=(script, {"JOB": job}))
    process.start()
    deadline = time.monotonic() + 300
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.Signals[name])
    time.sleep(0.002)
    os.kill(process.pid, signal.Signals[name])
    process.join(60)
    said = errors.read_text()
    assert process.exitcode == code, said
    [step] = steps_of(out)
    assert (
        f"saving a checkpoint at step {step}; the same command with --resume (and no --overwrite) goes on" in said
        and "Traceback" not in said
    )


@pytest.mark.parametrize("module", ["typer", "torch", "torch.nn"])
def test_ctrl_c_while_the_program_starts(tmp_path: Path, module: str) -> None:
    """In the seconds of the imports: one line, and nothing is left behind."""
    script = """
import os, signal, sys
module = sys.argv.pop()
signal.signal(signal.SIGINT, signal.default_int_handler)
class Pressed:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Pressed())
from sweet.__main__ import main
main()
"""
    words = ["pretrain", str(TINY), "--out", str(tmp_path / "out"), module]
    ended = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, ended.stdout) == (130, "interrupted by Ctrl-C\n", "")
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_cannot_be_read_late(tmp_path: Path) -> None:
    _, expected = fit(tmp_path / "whole")
    with pytest.raises(UserError, match=r"cat.png: not an image"):
        fit(tmp_path / "run", broken=5)
    assert steps_of(tmp_path / "run") == [3, 5]
    assert torch.equal(fit(tmp_path / "run", resume=True)[1], expected)


def test_too_little_memory_names_the_micro_batch_to_try(tmp_path: Path) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    line = r"optim.accumulate=1: the GPU has too little memory for 8 images at a time; try optim.accumulate=2, 4 at"
    with pytest.raises(UserError, match=line):
        fit(tmp_path, at(4, full))
    assert steps_of(tmp_path) == [3, 4]
    with pytest.raises(UserError, match="for 1 images at a time; try a smaller model"):
        fit(None, at(4, full), batch_size=1)


def test_a_loss_that_is_no_number_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFinite, match=r"the loss is nan at step 5, lr=.*goes back to the checkpoint of step 3 and"):
        fit(tmp_path, at(4, lambda: math.nan))
    assert steps_of(tmp_path) == [3]
    [event] = read_events(tmp_path)  # what is needed to compute the step again
    assert (event.step, event.good, event.skip, event.value) == (5, 3, (4, 5), "nan")
    [micro] = event.micro_batches
    assert micro.images == list(range(32, 40)) and micro.number == 4
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(json.loads((tmp_path / "nonfinite.json").read_text()), dict)


def test_resumed_it_goes_back_and_leaves_the_window_out_once(tmp_path: Path) -> None:
    computed: list[int] = []

    def noted(model: nn.Module, x: Tensor, y: Tensor, micro: int) -> Tensor:
        computed.append(micro)
        return squared_error(model, x, y, micro)

    with pytest.raises(NonFinite):
        fit(tmp_path, at(7, lambda: math.inf))
    assert steps_of(tmp_path) == [3, 6]
    finished, _ = fit(tmp_path, noted, resume=True)
    assert computed == [8, 9, 10, 11]
    assert (finished.steps, finished.images) == (12, 10 * 8)
    assert math.isfinite(finished.loss)
    assert steps_of(tmp_path) == [6, 9]


def test_a_resumed_run_that_is_killed_leaves_out_the_same(tmp_path: Path) -> None:
    """Bit-equal to the one that was not."""
    for name in ("whole", "killed"):
        with pytest.raises(NonFinite):
            fit(tmp_path / name, at(4, lambda: math.nan))
    _, expected = fit(tmp_path / "whole", resume=True)

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        fit(tmp_path / "killed", at(7, kill), resume=True)
    assert torch.equal(fit(tmp_path / "killed", resume=True)[1], expected)


def test_a_weight_that_is_no_number_is_not_saved_either(tmp_path: Path) -> None:
    model = nn.Linear(5, 1)

    def break_weight() -> None:
        with torch.no_grad():
            model.weight.register_hook(lambda gradient: gradient * math.nan)

    with pytest.raises(NonFinite, match="a number of weight is nan at step 6"):
        fit(tmp_path, at(5, break_weight), model=model, optim=OptimKeys(clip=None))
    assert steps_of(tmp_path) == [3]


def test_on_a_gpu_the_loss_is_looked_at_before_every_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looking would wait for the device, it is done at the intervals of the log and at saves."""
    from sweet.training import loop

    monkeypatch.setattr(loop._Session, "cheap", property(lambda _: False, lambda *_: None), raising=False)
    monkeypatch.setattr(loop.RunLog, "due", lambda self, done: done == self.steps)
    with pytest.raises(NonFinite, match="the loss is nan at step 5"):  # found at step 6, named as it happened
        fit(tmp_path, at(4, lambda: math.nan))
    assert steps_of(tmp_path) == [3]


def test_the_command_line_of_it(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def sweet(*words: object) -> Any:
        return CliRunner().invoke(app, ["pretrain", *map(str, words), "--out", str(out), "-q"])

    first = sweet(TINY, "lr=1e30", "optim.clip=null", "optim.warmup=0", "max_steps=8", "checkpoint_every=1")
    assert first.exit_code == 2 and first.stderr.count("\n") == 1, first.output
    assert "is nan at step" in first.stderr and "--resume" in first.stderr
    for folder in (out / "checkpoints").glob("step-*"):
        assert all(bool(value.isfinite().all()) for value in read_tensors(folder / "model.safetensors").values())
    assert "lr=1" in sweet("--resume", "lr=1e31").stderr  # a higher one is another run
    assert read_events(out)[0].good == 0 and (out / "checkpoints" / "nonfinite-step-1").is_dir()
    lower = sweet("--resume", "lr=1e-3")
    assert lower.exit_code == 0, lower.output
    assert read_json(out / "config.json")["training"]["steps"] == 8
    assert sweet(TINY, "--overwrite", "max_steps=1").exit_code == 0  # the checkpoint kept for looking is ours as well


def test_an_overwrite_that_ends_so_can_be_looked_at_and_resumed(tmp_path: Path) -> None:
    """The old run is in place again, and the line names where the new one's notes lie."""
    out = tmp_path / "run"

    def sweet(*words: object) -> Any:
        return CliRunner().invoke(app, ["pretrain", *map(str, words), "--out", str(out), "-q"])

    assert sweet(TINY, "max_steps=1").exit_code == 0
    before = sha256(out / "template.safetensors")
    ended = sweet(TINY, "lr=1e30", "optim.clip=null", "optim.warmup=0", "max_steps=8", "--overwrite")
    assert ended.exit_code == 2 and ended.stderr.count("\n") == 1
    [event] = read_events(Path(re.search(r"see (\S+)/nonfinite.json", ended.stderr)[1]))  # type: ignore[index]
    assert event.good == 0 and sha256(out / "template.safetensors") == before
    lower = sweet("--resume", "lr=1e-3")
    assert lower.exit_code == 0, lower.output
    assert read_json(out / "config.json")["training"]["steps"] == 8
    assert read_events(out) == [event]


def test_resume_of_a_folder_that_is_no_run(tmp_path: Path) -> None:
    for words in (["pretrain"], ["finetune", str(tmp_path)]):
        result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "mistyped"), "--resume"])
        assert result.exit_code == 2 and "holds no run to go on with" in result.stderr
    assert list(tmp_path.iterdir()) == []


def pictures(folder: Path, count: int = 64, shade: int = 0) -> None:
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, shade, 0)).save(path)


def test_a_resumed_run_notices_other_images(tiny: Callable[..., PretrainRecipe], tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    pictures(photos)

    def run(place: Path = photos, **options: Any) -> Any:
        return pretrain(tiny(f"data.source=folder:{place}", "checkpoint_every=1"), out, quiet=True, **options)

    run()
    weights = sha256(out / "template.safetensors")
    (out / "config.json").unlink()  # as if it had not finished
    for change, restore, said in (
        (lambda: (photos / "cat" / "00.png").rename(tmp_path / "00.png"), None, "57 images, before 58"),
        (lambda: (tmp_path / "00.png").rename(photos / "cat" / "01b.png"), None, "other file names"),
        (lambda: (photos / "cat" / "01b.png").rename(photos / "cat" / "00.png"), None, None),
        (lambda: pictures(photos, 64, 9), lambda: pictures(photos), "other bytes in the files"),
        (
            lambda: (photos / "cat").rename(photos / "bat"),
            lambda: (photos / "bat").rename(photos / "cat"),
            "class 0 is 'bat', before 'cat'",
        ),
    ):
        change()
        if said is not None:
            with pytest.raises(UserError, match=rf"--resume: .* other images \(train: .*{said}"):
                run(resume=True)
        if restore is not None:
            restore()
    moved = tmp_path / "elsewhere" / "photos"
    photos.rename(moved.parent.mkdir() or moved)
    run(moved, resume=True)
    assert sha256(out / "template.safetensors") == weights


def test_the_identity_of_every_kind_of_set(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 8)
    for spec in ("shapes:n=8,size=16", f"folder:{tmp_path / 'photos'}"):
        images = open_images(spec, "train")
        assert differences(identity(images), identity(open_images(spec, "train"))) == []
        assert identity(images).first_bytes is not None
        assert differences(identity(images), identity(images.select(range(len(images) - 1))))
        assert differences(identity(images), identity(images.select([*range(len(images))][::-1])))


def test_where_images_came_from() -> None:
    assert without_path("hub:uoft-cs/cifar10") == "hub:uoft-cs/cifar10"
    assert without_path("folder:C:\\Users\\somebody\\photos") == "folder:photos"
    assert without_path("folder:/home/somebody/photos") == "folder:photos"
    assert without_path("shapes:n=64,size=16") == "shapes:n=64,size=16"
    assert without_path("yolo:\\\\server\\share\\cells\\") == "yolo:cells"
    assert without_path("csv:../somebody/labels.csv") == "csv:labels.csv"
    assert without_path("hub:anna/photos:small") == "hub:anna/photos:small"
    assert without_path("stream:anna/photos:small") == "stream:anna/photos:small"


def test_torchrun_starts_again_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start of the same command line finds its own folder: neither refused nor overwritten."""
    out = tmp_path / "run"
    words = ["pretrain", str(TINY), "--out", str(out), "-q", "--overwrite"]
    assert CliRunner().invoke(app, words).exit_code == 0
    before = (out / "config.json").stat().st_mtime_ns
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    assert (out / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("key", ["optim.precision=fp16", "optim.name=muon", "ema=0.9"])
def test_what_a_divided_model_cannot_have(
    tiny_finetune: Callable[..., FinetuneRecipe], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    recipe, plain = tiny_finetune(key), tiny_finetune()
    divided.check(recipe.optim, 2, recipe.ema)  # not wanted
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    divided.check(recipe.optim, 1, recipe.ema)
    divided.check(plain.optim, 2, plain.ema)
    with pytest.raises(UserError, match=f"{key}: not with accelerate launch --use_fsdp"):
        divided.check(recipe.optim, 2, recipe.ema)
