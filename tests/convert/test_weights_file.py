"""What trainers wrap around weights comes off; where there is a choice it is named, and no code runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sweet.convert.weights_file import read_weights
from sweet.errors import UserError

STATE = {"patch_embed.proj.weight": torch.ones(4, 3, 2, 2), "blocks.0.norm1.weight": torch.arange(4.0)}
NOTES = {"epoch": 3, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1.0)}


def under(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, **NOTES},
        {"state_dict": under("module."), **NOTES},
        {"model_state_dict": under("_orig_mod.")},
        {"state_dict": {"model": STATE}},
        {"teacher": under("backbone.") | {"head.mlp.0.weight": torch.ones(2, 2)}},
        under("module._orig_mod.encoder."),
        under("student_backbone.vit.") | {"projector.0.weight": torch.ones(2, 2)},
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "ckpt", "pth.tar"])
def test_wrappers_and_prefixes_come_off(tmp_path: Path, content: dict[str, Any], suffix: str) -> None:
    torch.save(content, tmp_path / f"x.{suffix}")
    found = read_weights(tmp_path / f"x.{suffix}").tensors
    assert found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    ("content", "names", "chosen"),
    [
        ({"state_dict": STATE, "state_dict_ema": STATE}, "state_dict, state_dict_ema", "state_dict_ema"),
        ({"model": STATE, "model_ema": STATE}, "model, model_ema", "model_ema"),
        ({"student": under("module.backbone."), "teacher": under("backbone.")}, "teacher, student", "teacher"),
        ({"state_dict": under("module.a.") | under("module.b.")}, "module.a, module.b", "module.b"),
    ],
)
def test_several_sets_are_named_and_one_is_chosen(
    tmp_path: Path, content: dict[str, Any], names: str, chosen: str
) -> None:
    path = tmp_path / "x.pth"
    content = {key: {n: v + (key == chosen or f"{chosen}." in n) for n, v in s.items()} for key, s in content.items()}
    torch.save(content, path)
    with pytest.raises(UserError, match=f"x.pth: holds several .*{names}; choose one with --weights NAME"):
        read_weights(path)
    found = read_weights(path, chosen)
    assert torch.equal(found.tensors["blocks.0.norm1.weight"], torch.arange(4.0) + 1)
    with pytest.raises(UserError, match=r"nothing|several"):
        read_weights(path, "nothing")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_type_of_the_numbers_is_remembered(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({name: value.to(dtype) for name, value in STATE.items()}, tmp_path / "x.safetensors")
    found = read_weights(tmp_path / "x.safetensors")
    assert found.dtype == dtype and {value.dtype for value in found.tensors.values()} == {torch.float32}


class Trap:
    """An object whose reading would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_no_code_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": STATE, "args": argparse.Namespace(x=Trap())}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="sweet runs no code of a checkpoint"):
        read_weights(tmp_path / "x.pth")
    assert "code ran" not in capsys.readouterr().out
    torch.save({"model": STATE, "path": tmp_path}, tmp_path / "y.pth")
    with pytest.raises(UserError, match=r"it holds a pathlib\S*PosixPath"):
        read_weights(tmp_path / "y.pth")
