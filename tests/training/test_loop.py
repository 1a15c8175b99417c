"""The training loop: schedule, accumulation, groups, numbers that stay, Ctrl-C."""

from __future__ import annotations

import json
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from sweet.errors import UserError
from sweet.files import read_json, read_tensors, sha256
from sweet.models.device import resolve_device
from sweet.models.mae import MaskedAutoencoder
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import OptimKeys, PretrainRecipe, TrainKeys
from sweet.storage.folders import load_source
from sweet.training.checkpoint import steps_of
from sweet.training.device import make_accelerator, resolve_precision
from sweet.training.loop import TrainResult, learning_rate, micro_batch_size, total_steps, train
from sweet.training.pretrain import initial_source, networks_at, parameter_groups, prepare, pretrain

GOLDEN = Path(__file__).parents[1] / "golden" / "pretrain_losses.txt"


class Line:
    """y = X w with fixed X, in micro-batches of ``rows`` of the rows of a batch of eight."""

    def __init__(self, rows: int) -> None:
        self.rows, self.steps_per_epoch = rows, 100
        self.x = torch.randn(800, 5, generator=torch.Generator().manual_seed(0))
        self.y = self.x @ torch.arange(5.0)

    def whole(self, step: int) -> Tensor:
        return torch.arange(step * self.rows, (step + 1) * self.rows)

    def iterate(self, start: int, stop: int) -> Iterator[tuple[Tensor, Any]]:
        for micro in range(start, stop):
            where = slice(micro * self.rows, (micro + 1) * self.rows)
            yield self.x[where], self.y[where]


def keys(**values: Any) -> TrainKeys:
    return TrainKeys(**{"epochs": 1, "max_steps": 8, "batch_size": 8, "lr": 0.1, "checkpoint_every": 3} | values)


def squared_error(model: nn.Module, x: Tensor, y: Tensor, _: int) -> Tensor:
    return (model(x)[:, 0] - y).square().mean()


def fit(
    *,
    optim: OptimKeys | None = None,
    loss_of: Callable[[nn.Module, Tensor, Any, int], Tensor] = squared_error,
    run: Path | None = None,
    resume: bool = False,
    **values: Any,
) -> tuple[TrainResult, Tensor]:
    """Train a linear model on Line; what it cost and its weights."""
    optim = optim or OptimKeys()
    model = nn.Linear(5, 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    finished = train(
        model,
        [{"params": model.parameters()}],
        Line(8 // optim.accumulate),
        loss_of,
        keys=keys(**values),
        optim=optim,
        accelerator=make_accelerator("cpu", "fp32", optim.accumulate),
        run=run,
        resume=resume,
        quiet=True,
    )
    return finished, model.weight.detach().clone()


def test_schedule() -> None:
    optim = OptimKeys(warmup=0.1, min_lr=0.01)
    rates = [learning_rate(step, 100, 0.5, optim) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert rates[10] == 0.5
    assert rates[55] == pytest.approx(0.01 + 0.49 / 2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(100, 100, 0.5, optim) == pytest.approx(0.01)
    assert learning_rate(0, 100, 0.5, OptimKeys(warmup=0.0)) == 0.5
    assert learning_rate(0, 1, 0.5, OptimKeys(warmup=0.9)) == 0.5


def test_milestones_stand_in_for_the_cosine() -> None:
    optim = OptimKeys(warmup=0.1, milestones=(0.8, 0.9))
    rates = [learning_rate(step, 100, 0.5, optim) for step in (4, 10, 79, 80, 89, 90, 99)]
    assert rates == pytest.approx([0.25, 0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_number_of_steps() -> None:
    assert total_steps(keys(max_steps=None, epochs=2.5), 100) == 250
    assert total_steps(keys(max_steps=30, epochs=2.5), 100) == 30
    assert total_steps(keys(max_steps=None, epochs=0.001), 100) == 1
    assert micro_batch_size(keys(batch_size=24), 3, 2) == 4
    with pytest.raises(UserError, match="batch_size=24: not a multiple of 5"):
        micro_batch_size(keys(batch_size=24), 5, 1)


def test_the_rate_of_each_step_is_used(tmp_path: Path) -> None:
    fit(run=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == [learning_rate(step, 8, 0.1, OptimKeys()) for step in range(8)]
    first, _ = fit(max_steps=1, optim=OptimKeys(warmup=0.0))
    assert first.loss == pytest.approx(float(Line(8).y[:8].square().mean()))
    _, weight = fit(max_steps=1, optim=OptimKeys(warmup=0.0))
    assert weight.abs() == pytest.approx(torch.full((1, 5), 0.1), rel=1e-4)  # AdamW's first step is the rate itself


@pytest.mark.parametrize("clip", [None, 0.1])
def test_two_accumulated_micro_batches_equal_the_whole_batch(clip: float | None) -> None:
    whole, expected = fit(optim=OptimKeys(clip=clip))
    parts, weight = fit(optim=OptimKeys(clip=clip, accumulate=2))
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (parts.steps, parts.images) == (whole.steps, whole.images) == (8, 64)


def test_the_gradient_of_the_whole_batch_is_clipped() -> None:
    lengths: list[float] = []

    def measure(optimizer: Any, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        lengths.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))

    handle = register_optimizer_step_pre_hook(measure)
    try:
        fit(optim=OptimKeys(clip=0.1, accumulate=2))
    finally:
        handle.remove()
    assert lengths == pytest.approx([0.1] * 8, rel=1e-4)


def test_golden_losses(tiny: Callable[..., PretrainRecipe], tmp_path: Path) -> None:
    """Twenty steps of a Tucker source with drawn widths: a change of the numbers must be meant.

    To accept one, write what this test prints into the file.
    """
    y, x, colour = np.meshgrid(np.arange(16), np.arange(16), np.arange(3), indexing="ij")
    for i in range(48):
        wave = abs((x * (i % 7) + y * (i % 5 + 1) + colour * (i % 11) + i) % 32 - 16) * 15
        Image.fromarray(wave.astype(np.uint8)).save(tmp_path / f"{i:02d}.png")
    keys = ["max_steps=20", "width.mode=independent", "seed=1", "template.ranks=[24,8,8]"]
    recipe = tiny(f"data.source=folder:{tmp_path}", *keys)
    pretrain(recipe, tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    print("".join(f"{line['step']} {line['loss']:.7f}\n" for line in lines))
    expected = [line.split() for line in GOLDEN.read_text().splitlines() if not line.startswith("#")]
    assert [line["step"] for line in lines] == [int(step) for step, _ in expected]
    assert [line["loss"] for line in lines] == pytest.approx([float(loss) for _, loss in expected], rel=1e-4)


def checkpointed(recipe: PretrainRecipe, out: Path, step: int = 2) -> dict[str, Tensor]:
    """The parameters after ``step`` steps, as trained: before the principal order is stored in them."""
    pretrain(recipe, out, quiet=True)
    return read_tensors(out / "checkpoints" / f"step-{step}" / "model.safetensors")


@pytest.mark.parametrize(("fixed", "key"), [("core.x", "lr_x"), ("core.u", "lr_u"), ("core.v", "lr_v")])
def test_step_sizes_of_the_factors(tiny: Callable[..., PretrainRecipe], tmp_path: Path, fixed: str, key: str) -> None:
    recipe = tiny(f"template.{key}=0", "max_steps=5")
    short = checkpointed(recipe, tmp_path / "a", 2)
    long = checkpointed(recipe, tmp_path / "b", 4)
    same = {name for name, value in long.items() if torch.equal(value, short[name])}
    assert same == {fixed}


def test_square_scalers_that_do_not_learn_are_left_out(tiny: Callable[..., PretrainRecipe], tmp_path: Path) -> None:
    """They are in the core: nothing is multiplied at each step, and the folder is the same."""
    recipe = tiny("template.lr_u=0", "template.lr_v=0", "template.ranks=[8,16,16]", "model.norm_gain=false")
    learned = checkpointed(recipe, tmp_path / "run")
    assert {name for name in learned if name.startswith("core.")} == {"core.core", "core.x"}
    stored = load_source(tmp_path / "run")
    assert stored.source.order is not None and stored.source.order.absorbed
    again = tiny("template.lr_u=0", "template.lr_v=0", "template.ranks=[8,16,16]", f"init_from={tmp_path / 'run'}")
    assert initial_source(resolve(again)).core.u is None
    narrow = tiny("template.lr_u=0", "template.lr_v=0", "template.ranks=[8,8,8]")
    assert initial_source(resolve(narrow)).core.u is not None


def test_weight_decay_is_for_matrices_and_of_a_tucker_for_its_core(tiny: Callable[..., PretrainRecipe]) -> None:
    for constraint, decayed in (
        ("tucker", {"core.core"}),
        ("none", {"core.attn/qkv/weight", "core.mlp/fc2/weight"}),
    ):
        recipe = tiny(f"template.constraint={constraint}", "optim.weight_decay=0.3", "template.lr_u=0.5")
        resolved = resolve(recipe)
        model = MaskedAutoencoder(initial_source(resolved), resolved.vit, resolved.mae)
        names = {parameter: name for name, parameter in model.named_parameters()}
        groups = parameter_groups(model, recipe)
        scales = {names[p]: group["lr_scale"] for group in groups for p in group["params"]}
        with_decay = {names[p] for group in groups if group["weight_decay"] == 0.3 for p in group["params"]}
        without = {names[p] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
        assert with_decay | without == set(names.values())
        assert {name for name in with_decay if name.startswith("core")} >= decayed
        assert all(model.get_parameter(name).dim() > 1 for name in with_decay)
        assert {name for name in without if name.startswith("core")} == (
            {"core.x", "core.u", "core.v"} if constraint == "tucker" else set()
        )
        assert {"stem.patch_embed/proj/weight", "decoder.embed/weight"} <= with_decay
        assert {"stem.cls_token", "decoder.mask_token", "stem.norm/weight", "blocks.norm1/weight"} <= without
        assert {name: scale for name, scale in scales.items() if scale != 1} == (
            {"core.u": 0.5} if constraint == "tucker" else {}
        )


def test_norm_gains_can_stay_at_one(tiny: Callable[..., PretrainRecipe], tmp_path: Path) -> None:
    def gains(*overrides: str) -> list[Tensor]:
        tensors = checkpointed(tiny(*overrides), tmp_path / "-".join(overrides))
        return [value for name, value in tensors.items() if "norm" in name and not name.startswith("decoder")]

    assert len(gains("model.norm_gain=false")) == 3
    assert all(torch.equal(gain, torch.ones_like(gain)) for gain in gains("seed=5", "model.norm_gain=false"))
    assert not any(torch.equal(gain, torch.ones_like(gain)) for gain in gains("seed=5"))


@pytest.mark.parametrize("kind", ["template", "dense"])
def test_continue_from_a_source(
    tiny: Callable[..., PretrainRecipe], tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """A child starts where its parent stopped; one that hardly moves hands on the same function."""
    constraint = f"template.constraint={'tucker' if kind == 'template' else 'none'}"

    def first_loss(name: str, *overrides: str) -> float:
        recipe = tiny(constraint, "lr=1e-12", "max_steps=1", "optim.weight_decay=0", *overrides)
        return float(pretrain(recipe, tmp_path / name, quiet=True)["loss"])

    scratch = first_loss("scratch")
    child = first_loss("child", f"init_from={request.getfixturevalue(kind)}")
    grandchild = first_loss("grandchild", f"init_from={tmp_path / 'child'}")
    assert child < scratch - 0.2
    assert grandchild == pytest.approx(child, abs=2e-5)  # the summary rounds to five digits


def test_what_cannot_be_continued_is_said(
    tiny: Callable[..., PretrainRecipe], template: Path, dense: Path, tmp_path: Path
) -> None:
    for overrides, message in (
        ((f"init_from={template}", "model.depth=3"), "its encoder is"),
        ((f"init_from={template}", "mae.decoder_depth=2"), "its decoder is"),
        ((f"init_from={dense}",), "its constraint is none"),
        ((f"init_from={dense}", "objective=supervised"), "its constraint is none"),
        ((f"init_from={template}", "objective=supervised", "template.ranks=[8,8,8]"), "its ranks are"),
        (("init_from=nowhere",), "nowhere: no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            pretrain(tiny(*overrides), tmp_path / "out", quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def listening() -> Iterator[None]:
    """Ctrl-C as in a terminal: a test run in the background is started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_between_optimiser_and_average(tmp_path: Path) -> None:
    """The moment at which weights, average and step counter disagree."""
    _, expected = fit(run=tmp_path / "whole")
    steps = 0

    def press(optimizer: Any, *_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            os.kill(os.getpid(), signal.SIGINT)

    handle = register_optimizer_step_post_hook(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(run=tmp_path / "run")
    finally:
        handle.remove()
    assert steps_of(tmp_path / "run") == [3, 5]
    assert torch.equal(fit(run=tmp_path / "run", resume=True)[1], expected)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_after_the_last_step(tmp_path: Path) -> None:
    """A resumed run that has nothing left to do still knows its loss and its time."""

    def pressed(model: nn.Module, x: Tensor, y: Tensor, micro: int) -> Tensor:
        if micro == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return squared_error(model, x, y, micro)

    whole, expected = fit(run=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(run=tmp_path / "run", loss_of=pressed)
    resumed, weight = fit(run=tmp_path / "run", resume=True)
    assert torch.equal(weight, expected)
    assert resumed.loss == whole.loss
    assert resumed.seconds >= read_json(tmp_path / "run" / "checkpoints" / "step-8" / "state.json")["seconds"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    fit(run=tmp_path)
    with pytest.raises(UserError, match=f"--resume: {tmp_path} was begun with another model"):
        train(
            nn.Linear(3, 1),
            [{"params": nn.Linear(3, 1).parameters()}],
            Line(8),
            squared_error,
            keys=keys(),
            optim=OptimKeys(),
            accelerator=make_accelerator("cpu", "fp32", 1),
            run=tmp_path,
            resume=True,
            quiet=True,
        )


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        fit(loss_of=lambda model, x, y, _: squared_error(model, x, y, 0) * math.nan)


def test_networks_are_functions_of_seed_and_step(tiny: Callable[..., PretrainRecipe], tmp_path: Path) -> None:
    recipe = tiny("model.heads=8", "width.mode=independent", "width.start=0.5")
    shallow = tiny("model.depth=8", "depth.mode=even", "depth.start=0.5")
    drawn = [networks_at(recipe, step, 40) for step in range(40)]
    assert drawn == [networks_at(recipe, step, 40) for step in range(40)]
    assert set(map(tuple, drawn[:20])) == {((2, 8, 8),)}
    sides = Counter(side for step in range(1000, 2000) for _, *both in networks_at(recipe, step, 2000) for side in both)
    for heads in range(1, 9):  # full with probability a half, else uniform: within four standard deviations
        share = 0.5 * (heads == 8) + 0.5 / 8
        assert sides[heads] / 2000 == pytest.approx(share, abs=4 * (share * (1 - share) / 2000) ** 0.5)
    depths = [networks_at(shallow, step, 40)[0].depth for step in range(40)]
    assert set(depths[:20]) == {8} and {3, 8} < set(depths[20:]) <= set(range(3, 9))
    first = tiny("model.depth=8", "depth.mode=first", "depth.start=0.5")
    assert depths == [networks_at(first, step, 40)[0].depth for step in range(40)]
    assert prepare(first, tmp_path).model.layers == "first" and prepare(shallow, tmp_path).model.layers == "even"


def test_accelerator_says_what_this_machine_lacks() -> None:
    for name in ("tpu", "cuda:99", "cpu:x", "mps:0:0", "meta"):
        with pytest.raises(UserError, match=f"device={name}: "):
            resolve_device(name)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"optim.precision=fp16: needs a GPU"):
        resolve_precision("fp16", torch.device("cpu"))
    assert resolve_precision("fp32", torch.device("cpu")) == "no"


def test_bf16_and_larger_images_run(tiny: Callable[..., PretrainRecipe], tmp_path: Path) -> None:
    """Mixed precision and decoding workers: other paths through the loop, the same contract."""
    recipe = tiny("optim.precision=bf16", "max_steps=2", "optim.accumulate=2", "workers=1")
    summary = pretrain(recipe, tmp_path / "a", quiet=True)
    assert summary["precision"] == "bf16" and math.isfinite(summary["loss"])
    pretrain(recipe, tmp_path / "b", quiet=True)
    assert sha256(tmp_path / "a" / "template.safetensors") == sha256(tmp_path / "b" / "template.safetensors")


def test_a_background_job_ignores_ctrl_c(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def pressed(model: nn.Module, x: Tensor, y: Tensor, micro: int) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return squared_error(model, x, y, micro)

    try:
        finished, _ = fit(run=tmp_path / "run", loss_of=pressed)
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished.steps == 8


def test_a_compiled_model_is_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, in place: names, and so checkpoints, stay. (Here by the compiler that changes nothing.)"""
    compiled: list[nn.Module] = []
    whole = nn.Module.compile

    def compile_eagerly(self: nn.Module) -> None:
        compiled.append(self)
        whole(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    _, plain = fit()
    assert compiled == []
    _, weights = fit(optim=OptimKeys(compile=True))
    assert [list(model.state_dict()) for model in compiled] == [["weight", "bias"]]
    assert torch.equal(weights, plain)
    compiled.clear()
    monkeypatch.setenv("PATH", "")  # no compiler
    monkeypatch.delenv("CXX", raising=False)
    _, weights = fit(optim=OptimKeys(compile=True))
    assert compiled == [] and torch.equal(weights, plain)


def test_few_steps_of_large_batches_are_noted(
    tiny: Callable[..., PretrainRecipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe for a GPU on few images: two steps an epoch learn nothing."""
    pretrain(tiny("batch_size=260", "epochs=2", "max_steps=null"), tmp_path / "large")
    assert "note: 64 images in batches of 260 make 2 steps in all" in capsys.readouterr().err
    pretrain(tiny("max_steps=2"), tmp_path / "small")
    assert "note" not in capsys.readouterr().err
    pretrain(tiny("max_steps=2", "data.source=shapes:n=64,size=32"), tmp_path / "shrunk")
    said = "note: images of 32 x 32 pixels are seen at 16; data.img_size=32 shows more, and takes about four times"
    assert said in capsys.readouterr().err
