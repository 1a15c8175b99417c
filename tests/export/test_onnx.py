"""One ONNX file for any batch size, the same numbers in another runtime, or no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import sweet
from sweet.errors import UserError
from sweet.export import export, onnx_file, verify
from sweet.files import read_json, read_tensors, write_json, write_sums
from sweet.inference.evaluate import predict

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "out"
    found = export(classifier, "onnx", out)
    assert 0 <= found["difference"] <= onnx_file.TOLERANCE
    return out


def test_a_folder_for_onnx_runtime_says_so(exported: Path) -> None:
    with pytest.raises(UserError, match="out: is for ONNX Runtime, not for sweet"):
        predict(exported, [], None, "cpu")


def graph(folder: Path) -> Any:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.slow
@torch.no_grad()
def test_parity_at_any_batch_size(classifier: Path, exported: Path) -> None:
    vit, session = sweet.load(classifier), graph(exported)
    for batch in (1, 2, 5, 7):
        images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(None, {"images": images.numpy()})
        expected = vit(images)  # type: ignore[operator]
        assert found.shape == (batch, 10)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@torch.no_grad()
def test_the_other_family_without_a_head(write_model: Callable[..., Path], tmp_path: Path) -> None:
    made = write_model(tmp_path / "made", "vit", 1, 3, 4, in_chans=2)
    export(made, "onnx", tmp_path / "out", head=False)
    images = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(3))
    (found,) = graph(tmp_path / "out").run(None, {"images": images.numpy()})
    expected = sweet.load(made, num_classes=0)(images)  # type: ignore[operator]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["eva", "vit"])
@torch.no_grad()
def test_half_precision(write_model: Callable[..., Path], tmp_path: Path, family: str) -> None:
    """Half the bytes, inputs and outputs as before, and a gap that is of fp16: neither zero nor more."""
    made = write_model(tmp_path / "made", family, 6, 4, 5, head_dim=16)
    reports = {dtype: export(made, "onnx", tmp_path / dtype, dtype=dtype) for dtype in ("fp32", "fp16")}
    assert onnx_file.TOLERANCE < float(str(reports["fp16"]["difference"])) < onnx_file.HALF_TOLERANCE
    sizes = {dtype: (tmp_path / dtype / "model.onnx").stat().st_size for dtype in reports}
    weights = (made / "model.safetensors").stat().st_size
    assert 0.35 * weights < sizes["fp32"] - sizes["fp16"] < 0.5 * weights
    session, images = graph(tmp_path / "fp16"), torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    (found,) = session.run(None, {"images": images.numpy()})
    expected = sweet.load(made)(images)  # type: ignore[operator]
    gap = (torch.from_numpy(found) - expected).abs().max() / expected.abs().max()
    assert found.dtype == "float32" and 0 < gap < onnx_file.HALF_TOLERANCE
    assert verify(tmp_path / "fp16")["loads"] is True


@pytest.mark.slow
def test_a_model_that_fp16_cannot_hold(write_model: Callable[..., Path], tmp_path: Path) -> None:
    made = write_model(tmp_path / "made", "vit", 1, 2, 5)
    tensors = read_tensors(made / "model.safetensors")
    save_file(
        {name: 1e5 * value if "fc2" in name else value for name, value in tensors.items()}, made / "model.safetensors"
    )
    (made / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match=r"--to onnx: ONNX Runtime computes another function at batch 1 \(nan\)"):
        export(made, "onnx", tmp_path / "out", dtype="fp16")


@pytest.mark.slow
def test_what_travels(classifier: Path, exported: Path) -> None:
    metadata = graph(exported).get_modelmeta().custom_metadata_map
    data = json.loads((classifier / "config.json").read_text())["data"]
    for key in ("classes", "mean", "std", "img_size"):
        assert json.loads(metadata[key]) == data[key] is not None
    assert {path.name for path in exported.iterdir()} == {
        "model.onnx", "config.json", "recipe.yaml", "README.md", "SHA256SUMS"
    }  # fmt: skip
    found = verify(exported, data="shapes:n=64,size=16")
    assert found["layout"] == "onnx" and found["measured"]["images"] == found["recorded"]["images"]
    with pytest.raises(UserError, match="images, the metrics are of"):
        verify(exported, data="shapes:n=32,size=16")


@pytest.mark.slow
def test_what_becomes_black_and_white_travels(write_model: Callable[..., Path], tmp_path: Path) -> None:
    made = write_model(tmp_path / "made", "vit", 1, 1, in_chans=1)
    config = read_json(made / "config.json")
    config["data"]["value_range"] = [0, 4095]  # of files of more than 8 bits
    write_json(made / "config.json", config)
    write_sums(made, {name: made / name for name in ("model.safetensors", "config.json")})
    export(made, "onnx", tmp_path / "out")
    assert json.loads(graph(tmp_path / "out").get_modelmeta().custom_metadata_map["value_range"]) == [0, 4095]


@pytest.mark.slow
def test_what_the_runtime_computes_otherwise_is_not_written(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)  # as if every difference were too large
    made = write_model(tmp_path / "made", "vit", 1, 1)
    with pytest.raises(UserError, match="computes another function at batch 1"):
        export(made, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made = write_model(tmp_path / "made", "vit", 1, 1)

    def absent(wanted: str) -> None:
        if wanted == name:
            raise ModuleNotFoundError(wanted)

    monkeypatch.setattr(onnx_file, "import_module", absent)
    with pytest.raises(UserError, match=rf"the package {name} is missing: pip install onnx onnxruntime onnxscript$"):
        export(made, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
