"""Folders of the first version, kept as they were written: they load, and compute the same, for ever."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sweet
from sweet.describe import inspect
from sweet.export import verify
from sweet.files import read_json, read_tensors, sha256
from sweet.inference.evaluate import evaluate
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.storage.records import parse_record, read_record
from sweet.training.finetune import finetune
from sweet.training.pretrain import pretrain

FROZEN = Path(__file__).parent / "frozen_v1"
SOURCES, MODELS = ("template", "dense", "converted"), ("model", "classifier")
SCENES = "shapes:n=64,size=16"
IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
OUTPUTS = read_tensors(FROZEN / "outputs.safetensors")

EARLIER: dict[str, Any] = {"layers": "even", "writers": "none"}  # defaults of then, where today's depend on the source

each_source = pytest.mark.parametrize("name", SOURCES)
each_folder = pytest.mark.parametrize("name", SOURCES + MODELS)


@torch.no_grad()
def compare(vit: nn.Module, output: str) -> None:
    torch.testing.assert_close(vit(IMAGES), OUTPUTS[output], rtol=1e-4, atol=1e-5)


def without_null(values: dict[str, Any]) -> dict[str, Any]:
    """What was null is left out now."""
    return {k: without_null(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}


@each_folder
def test_the_record_is_read_and_written_again(name: str) -> None:
    record = read_record(FROZEN / name, (*SOURCES, *MODELS))
    assert record.data.crop == "short side resized, centre cropped" and record.data.std == (0.25,) * 3
    again = parse_record(record.to_dict(), FROZEN / name)
    assert again == record
    written = read_json(FROZEN / name / "config.json")
    today = {"constraint": "none", "absorbed": False} | record.to_dict()
    before = {"constraint": "none", "absorbed": False} | without_null(written)
    if "made" in before:
        before["made"]["inner"] = "energy"  # of what was called loudest
    assert today == before


@each_folder
def test_it_is_inspected_and_verified(name: str) -> None:
    assert inspect(FROZEN / name, verify=True)["checksums"] == "ok"
    assert verify(FROZEN / name)["loads"]


@each_source
def test_models_of_it_compute_the_same(name: str) -> None:
    source = sweet.load(FROZEN / name)
    assert isinstance(source, sweet.Template)
    for order in ("principal", "prefix"):
        for depth, heads in ((1, 1), (2, 2)):
            compare(source.build(depth, heads, order=order, **EARLIER), f"{name}-{order}-L{depth}H{heads}")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same(name: str) -> None:
    model = sweet.load(FROZEN / name)
    assert isinstance(model, nn.Module)
    compare(model, name)


def test_init_writes_the_same_weights(tmp_path: Path) -> None:
    """``inner=loudest``, as it was called then, and as it is called now."""
    frozen = read_tensors(FROZEN / "model" / "model.safetensors")
    for inner in ("loudest", "energy"):
        initialise_to(str(FROZEN / "template"), tmp_path / inner, depth=2, heads=1, given={"inner": inner})
        tensors = read_tensors(tmp_path / inner / "model.safetensors")
        assert tensors.keys() == frozen.keys()
        for key, value in tensors.items():
            torch.testing.assert_close(value, frozen[key], rtol=1e-4, atol=1e-6)


def test_it_is_evaluated_as_it_was() -> None:
    folder = FROZEN / "classifier"
    recorded = read_json(folder / "config.json")["metrics"]
    measured = evaluate(folder, "classify", SCENES, split="val", batch_size=5, device="cpu", limit=None)
    assert measured["loss"] == pytest.approx(recorded["loss"], rel=1e-3)
    assert measured.keys() == recorded.keys() and measured["confusion"] == recorded["confusion"]


def test_it_is_trained_on(tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path) -> None:
    result = finetune(FROZEN / "classifier", tiny_finetune("lr=1e-9", "max_steps=1"), tmp_path / "model", quiet=True)
    assert result["training"]["loss"] == pytest.approx(
        read_json(FROZEN / "classifier" / "config.json")["metrics"]["loss"], rel=0.2
    )
    recipe = FROZEN / "template" / "recipe.yaml"
    keys = [f"init_from={FROZEN / 'template'}", "lr=1e-12", "max_steps=1"]
    child = pretrain(load_recipe(PretrainRecipe, recipe, keys), tmp_path / "template", quiet=True)
    parent = read_json(FROZEN / "template" / "config.json")["training"]["loss"]
    assert child["loss"] == pytest.approx(parent, rel=0.1)


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    for name in ("template", "classifier"):
        folder = tmp_path / name
        shutil.copytree(FROZEN / name, folder)
        before = {path.name: sha256(path) for path in folder.iterdir()}
        if name == "template":
            result = pretrain(load_recipe(PretrainRecipe, folder / "recipe.yaml"), folder, resume=True, quiet=True)
        else:
            recipe = load_recipe(FinetuneRecipe, folder / "recipe.yaml")
            result = finetune(FROZEN / "model", recipe, folder, resume=True, quiet=True)
        assert result["finished_before"] is True
        assert {path.name: sha256(path) for path in folder.iterdir()} == before
