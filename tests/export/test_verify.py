"""A folder is what it says, or one line tells what is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sweet.api import Template
from sweet.errors import UserError
from sweet.export import export, verify
from sweet.files import read_json, read_tensors, write_json, write_sums, write_tensors

SHAPES = "shapes:n=64,size=16"


def resum(folder: Path) -> None:
    write_sums(folder, {name: folder / name for name in ("model.safetensors", "config.json")})


@pytest.mark.parametrize("name", ["template", "dense", "model", "classifier"])
def test_what_sweet_wrote_is_right(request: pytest.FixtureRequest, name: str) -> None:
    found = verify(request.getfixturevalue(name))
    assert found == {"files": 4, "checksums": "ok", "layout": "sweet", "loads": True}


def test_a_source_without_an_order_is_right(make_source: Callable[..., Template], tmp_path: Path) -> None:
    make_source("vit").save_pretrained(tmp_path / "source")
    assert verify(tmp_path / "source")["loads"] is True


@pytest.mark.parametrize("to", ["sweet", "timm", "safetensors"])
def test_metrics_are_measured_again(classifier: Path, tmp_path: Path, to: str) -> None:
    folder = classifier
    if to != "sweet":
        folder = tmp_path / "out"
        export(classifier, to, folder)
    found = verify(folder, data=SHAPES, device="cpu")
    assert found["measured"] == found["recorded"]
    assert {"top1", "loss", "images"} <= found["recorded"].keys()


def test_one_line_for_what_is_wrong(classifier: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(classifier, folder)

    fresh()
    with (folder / "README.md").open("a") as file:
        file.write("!")
    with pytest.raises(UserError, match=r"README.md: its SHA256 is not the one in SHA256SUMS"):
        verify(folder)
    (folder / "README.md").unlink()
    with pytest.raises(UserError, match=r"README.md: is missing"):
        verify(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="folder: no SHA256SUMS"):
        verify(folder)

    fresh()
    tensors = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {k: v for k, v in tensors.items() if k != "norm.weight"})
    resum(folder)
    with pytest.raises(UserError, match=r"tensor norm.weight is missing"):
        verify(folder)
    write_tensors(folder / "model.safetensors", tensors | {"norm.weight": tensors["norm.weight"] * torch.nan})
    resum(folder)
    with pytest.raises(UserError, match="not finite"):
        verify(folder)

    fresh()
    config = read_json(folder / "config.json")
    config["metrics"]["top1"] += 30
    write_json(folder / "config.json", config)
    resum(folder)
    verify(folder)
    with pytest.raises(UserError, match=rf"folder: top1 is \S+ on {SHAPES}, recorded is \S+"):
        verify(folder, data=SHAPES, device="cpu")

    with pytest.raises(UserError, match="records no metrics"):
        verify(model, data=SHAPES)
    with pytest.raises(UserError, match="val has 10 images, the metrics are of 12"):
        verify(classifier, data="shapes:n=32,size=16", device="cpu")


def test_a_damaged_export_does_not_load(write_model: Callable[..., Path], tmp_path: Path) -> None:
    export(write_model(tmp_path / "made", "eva", 1, 2), "timm", tmp_path / "out")
    config = read_json(tmp_path / "out" / "config.json")
    config["model_args"]["depth"] = 2
    write_json(tmp_path / "out" / "config.json", config)
    resum(tmp_path / "out")
    with pytest.raises(UserError, match="timm cannot load it"):
        verify(tmp_path / "out")
