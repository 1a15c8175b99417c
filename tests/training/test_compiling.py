"""torch.compile: only where it is worth its start, said beforehand, and given up where it does not work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sweet.costs.plan import pretraining_cost
from sweet.files import read_tensors
from sweet.recipes.loader import load_recipe
from sweet.recipes.resolved import resolve
from sweet.recipes.schema import OptimKeys, PretrainRecipe
from sweet.training.compiling import decided
from sweet.training.pretrain import pretrain

CPU = torch.device("cpu")


def test_micro_is_compiled_as_a_whole_and_not_for_a_look() -> None:
    def compiles(*overrides: str, images: int = 50_000) -> bool | str:
        recipe = load_recipe(PretrainRecipe, "micro", list(overrides))
        return decided(recipe.optim, pretraining_cost(resolve(recipe), images), CPU).compile

    assert compiles() is True
    assert compiles("max_steps=8") is False
    assert compiles(images=300) is False
    assert compiles("max_steps=8", "optim.compile=true") is True
    assert compiles("optim.compile=false") is False
    assert decided(OptimKeys(compile="auto"), 1e15, CPU, varies=True).compile is False
    assert decided(OptimKeys(compile="auto"), 1e15, torch.device("cuda")).compile is False


@pytest.mark.parametrize("overrides", ["width.mode=independent", "depth.mode=even depth.min_blocks=1"])
def test_a_network_that_varies_is_not_compiled(
    tiny: Callable[..., PretrainRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: str
) -> None:
    compiled: list[object] = []
    monkeypatch.setattr("sweet.training.compiling.ON_A_CPU", 0.0)
    monkeypatch.setattr("sweet.training.state.can_compile", lambda device: True)
    monkeypatch.setattr("sweet.training.state.compile_in_place", compiled.append)
    pretrain(tiny("optim.compile=auto", "max_steps=1", *overrides.split()), tmp_path / "varies", quiet=True)
    assert not compiled
    pretrain(tiny("optim.compile=auto", "max_steps=1"), tmp_path / "same", quiet=True)
    assert compiled


@pytest.mark.parametrize("problem", ["compiler", "cache"])
def test_it_goes_on_without(
    tiny: Callable[..., PretrainRecipe],
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: str,
) -> None:
    """The numbers are those of a training that was never compiled."""

    def broken(graph: Any, inputs: Any) -> Any:
        if problem == "cache":
            raise OSError("x.so: invalid ELF header")
        raise RuntimeError("no header file")

    whole = nn.Module.compile
    monkeypatch.setattr("sweet.training.state.can_compile", lambda device: True)
    monkeypatch.setattr(nn.Module, "compile", lambda self: whole(self, backend=broken))
    pretrain(tiny("optim.compile=true"), tmp_path / "out")
    shown = capsys.readouterr().err
    assert "compiling the network: the first step takes some minutes (optim.compile=false begins at once)" in shown
    assert "warning: torch.compile does not work here (" in shown and "going on without it" in shown
    plain, mine = (read_tensors(folder / "template.safetensors") for folder in (template, tmp_path / "out"))
    assert all(torch.equal(value, mine[name]) for name, value in plain.items())
