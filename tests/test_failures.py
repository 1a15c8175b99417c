"""What is the machine's doing is one line, too; a bug is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from sweet.cli import app
from sweet.cli.failures import one_line
from sweet.files import write_tensors, write_text

FULL = os.strerror(errno.ENOSPC)


def test_which_errors_are_of_the_machine() -> None:
    assert one_line(OSError(errno.ENOSPC, FULL, "a/b")) == f"a/b: {FULL}"
    assert one_line(OSError(errno.EIO, "Input/output error", "a", None, "b")) == "a: Input/output error (to b)"
    assert one_line(SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)"))
    assert "not enough memory" in str(one_line(RuntimeError("x\nDefaultCPUAllocator: can't allocate memory: 9 bytes")))
    on_gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
    assert "not enough memory (CUDA out of memory. Tried" in str(one_line(on_gpu))
    for bug in (OSError("cannot identify image file"), KeyError("a"), RuntimeError("shape"), ValueError("1")):
        assert one_line(bug) is None


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def full(*_: object) -> None:
        raise SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"x\.safetensors") as error:
        write_tensors(tmp_path / "x.safetensors", {})
    assert error.value.errno == errno.ENOSPC

    def no_sync(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", no_sync)
    with pytest.raises(OSError, match=r"x\.json"):
        write_text(tmp_path / "x.json", "{}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["replace", "fsync", "mkdir"])
def test_a_verb_that_meets_a_fault_says_it_in_one_line(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fault(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, FULL)

    words = ["init", str(template), "--depth", "1", "--heads", "1", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fault)
        result = CliRunner().invoke(app, words, prog_name="sweet")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and FULL in result.stderr
    assert CliRunner().invoke(app, words, prog_name="sweet").exit_code == 0
