"""Weights of half precision: half the bytes, the same model to that precision, and known as such when it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

import sweet
from sweet.describe import inspect
from sweet.errors import UserError
from sweet.export import export, verify
from sweet.files import read_json, read_tensors

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
EPSILON = {"fp16": 2**-10, "bf16": 2**-7}  # of numbers near one


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("to", ["timm", "safetensors", "hub", "transformers"])
def test_half_the_bytes_of_the_same_model(
    classifier: Path, write_model: Callable[..., Path], tmp_path: Path, to: str, dtype: str
) -> None:
    exact, half = tmp_path / "exact", tmp_path / "half"
    if to == "transformers":  # has no class for the other family
        classifier = write_model(tmp_path / "vit", "vit", 2, 2, classes=3)
    export(classifier, to, exact)
    export(classifier, to, half, dtype=dtype)
    long, short = (read_tensors(folder / "model.safetensors") for folder in (exact, half))
    wanted = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert long.keys() == short.keys()
    for name, value in short.items():
        assert value.dtype == wanted
        torch.testing.assert_close(value.float(), long[name], rtol=EPSILON[dtype], atol=1e-6)
    assert verify(half)["checksums"] == "ok"
    if to == "transformers":
        return
    model = timm.create_model(f"local-dir:{half}", pretrained=True) if to in ("timm", "hub") else sweet.load(half)
    assert isinstance(model, torch.nn.Module) and next(model.parameters()).dtype == torch.float32
    reference = sweet.load(classifier)
    assert isinstance(reference, torch.nn.Module)
    with torch.no_grad():
        apart = (model.eval()(IMAGES) - reference.eval()(IMAGES)).abs().max()
    assert 0 < apart < 20 * EPSILON[dtype]


def test_a_source_too(template: Path, tmp_path: Path) -> None:
    export(template, "safetensors", tmp_path / "half", dtype="bf16")
    assert read_json(tmp_path / "half" / "config.json")["dtype"] == "bfloat16"
    source = sweet.load(tmp_path / "half")
    assert isinstance(source, sweet.Template)
    assert source.build(1, 1)(IMAGES).shape[0] == 4
    tensors = read_tensors(tmp_path / "half" / "template.safetensors")
    assert tensors["core.core"].dtype == torch.bfloat16 and tensors["order.rotation"].dtype == torch.float32


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["template", "classifier"])
def test_half_precision_is_inspected_and_left_again(
    kind: str, dtype: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(kind)
    export(folder, "safetensors", tmp_path / "half", dtype=dtype)
    exact, shown = inspect(folder), inspect(tmp_path / "half")
    assert shown.get("ranks") == exact.get("ranks") and shown.get("kept_energy") == exact.get("kept_energy")
    export(tmp_path / "half", "safetensors", tmp_path / "whole", dtype="fp32")
    assert "dtype" not in read_json(tmp_path / "whole" / "config.json")
    (file,) = (tmp_path / "whole").glob("*.safetensors")
    assert {value.dtype for value in read_tensors(file).values()} <= {torch.float32, torch.int32}


def test_options_of_models_are_refused_for_a_source(template: Path, tmp_path: Path) -> None:
    for given, option in (({"head": False}, "--no-head"), ({"seeds": [template]}, "--seeds")):
        with pytest.raises(UserError, match=f"^{option}: has no effect on {template}, a template, with --to hub$"):
            export(template, "hub", tmp_path / "out", **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"^--license: has no effect on {template}, a template, with --to safetensors$"):
        export(template, "safetensors", tmp_path / "out", licence="mit")
    assert not (tmp_path / "out").exists()


def test_what_is_not_recorded_is_refused(classifier: Path, tmp_path: Path) -> None:
    export(classifier, "safetensors", tmp_path / "half", dtype="fp16")
    config = (tmp_path / "half" / "config.json").read_text()
    (tmp_path / "half" / "config.json").write_text(config.replace('"dtype": "float16",', ""))
    (tmp_path / "half" / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="is F16, expected F32"):
        sweet.load(tmp_path / "half")
    with pytest.raises(UserError, match="--dtype bf16: ONNX Runtime has no convolution of it; --dtype fp16 halves"):
        export(classifier, "onnx", tmp_path / "onnx", dtype="bf16")
    with pytest.raises(UserError, match="--dtype int8: expected one of fp32, fp16, bf16"):
        export(classifier, "timm", tmp_path / "timm", dtype="int8")
