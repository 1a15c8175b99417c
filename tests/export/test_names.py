"""Class names that look like something else, from the images to every format that people get, unharmed and harmless."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from sweet.cli import app
from sweet.errors import printable
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

NAMES = sorted(
    ["\x1b[31mred", "\x9b2J", "\u202egpj", "two\nlines", "a|b", "<script>alert(1)<", "[x](javascript:1)", "`tick`"]
)


def clean(text: str) -> bool:
    """Whether nothing in it but line ends moves a cursor, colours, or turns the direction of text."""
    return all(line == printable(line) for line in text.split("\n"))


@pytest.fixture(scope="module")
def named(model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("named")
    for split in ("train", "val"):
        for number, name in enumerate(NAMES):
            folder = place / "set" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (16, 16), (20 * number, 90, 9)).save(folder / "0.png")
    keys = (f"data.source=folder:{place / 'set'}", "max_steps=1", "batch_size=8")
    finetune(model, tiny_finetune(*keys), place / "out", quiet=True)
    return place / "out"


def sweet(*words: object) -> Result:
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0 and clean(result.output), result.output
    return result


def test_cards_and_the_terminal(named: Path) -> None:
    card = (named / "README.md").read_text()
    assert clean(card) and "<script" not in card and "](javascript" not in card
    image = named.parent / "set" / "val" / NAMES[0] / "0.png"
    sweet("predict", named, image, "--top", "8", "--device", "cpu")
    sweet("evaluate", named, "--data", f"folder:{named.parent / 'set'}", "--device", "cpu")
    sweet("data", "check", f"folder:{named.parent / 'set'}")
    sweet("inspect", named)
    rows = json.loads(sweet("predict", named, image, "--top", "8", "--device", "cpu", "--json").stdout)
    assert {row["class"] for row in rows} == set(NAMES)  # for machines, as they are


def test_timm(named: Path, tmp_path: Path) -> None:
    sweet("export", named, "--to", "timm", "--out", tmp_path / "timm")
    sweet("verify", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert config["label_names"] == NAMES and clean((tmp_path / "timm" / "README.md").read_text())


def test_onnx(named: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    sweet("export", named, "--to", "onnx", "--out", tmp_path / "onnx")
    sweet("verify", tmp_path / "onnx")
    found = runtime.InferenceSession(tmp_path / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    stored = found.get_modelmeta().custom_metadata_map["classes"]
    assert clean(stored) and json.loads(stored) == NAMES
