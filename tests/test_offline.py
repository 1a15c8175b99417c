"""Without a network: every verb but those that name the hub does its work, and none so much as looks for a way out."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from PIL import Image
from typer.testing import CliRunner

import sweet
from sweet.cli import app

TINY = Path(__file__).parent / "tiny.yaml"
SHAPES = "shapes:n=64,size=16"
VERBS = [
    f"plan {TINY}",
    f"pretrain {TINY} --out template -q",
    f"pretrain {TINY} template.constraint=none max_steps=2 --out dense -q",
    "init template --depth 1 --heads 2 --out vit",
    "init dense --depth 1 --heads 1 --method weight_selection --out small",
    "convert dense --out converted",
    f"finetune vit --data {SHAPES} --out classifier device=cpu max_steps=2 batch_size=16 optim.precision=fp32 -q",
    f"evaluate classifier --data {SHAPES} --device cpu",
    "predict classifier picture.png --device cpu",
    f"embed classifier --data {SHAPES} --out features.parquet --device cpu",
    "inspect template",
    "inspect classifier",
    "export classifier --to timm --out timm",
    "export classifier --to safetensors --out plain",
    "export classifier --to hub --out hub",
    "export template --to hub --out hub-template",
    f"verify classifier --data {SHAPES} --device cpu",
    "verify timm",
    "verify template",
    f"data check {SHAPES}",
    f"data pack {SHAPES} --img-size 8 --out packed",
]
ONNX = ["export classifier --to onnx --out onnx", f"verify onnx --data {SHAPES}"]


class NetworkError(Exception):
    """Not an OSError: nobody retries, and nobody takes it for a lost connection."""


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every connection that is tried; each attempt fails."""
    attempts: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        attempts.append(arguments)
        raise NetworkError("a network was wanted")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # or its library would not even try
    return attempts


@pytest.mark.slow
def test_every_verb_works_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 16), "red").save("picture.png")
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        verbs = VERBS
    else:
        verbs = VERBS + ONNX
    for words in verbs:
        result = CliRunner().invoke(app, words.split(), prog_name="sweet")
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert attempts == []


def test_the_walls_hold(attempts: list[Any]) -> None:
    """So that the silence above means something."""
    with pytest.raises(sweet.UserError, match=r"anna/nothing: .*a network was wanted"):
        sweet.load("anna/nothing")
    assert attempts
