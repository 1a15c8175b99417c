"""Detectors and segmenters leave as a whole: ONNX Runtime finds what the model finds; the hub gets a folder of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweet.convert.convert import convert
from sweet.errors import UserError
from sweet.export import export, verify
from sweet.export.detector_graph import DetectorGraph
from sweet.export.graphs import difference
from sweet.files import read_json
from sweet.inference.evaluate import predict
from sweet.initialise.make import initialise_to
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune
from sweet.training.network import FinetunedModel

onnxruntime = pytest.importorskip("onnxruntime")
Tiny = Callable[..., FinetuneRecipe]
SMALL = "data.source=shapes:n=20,size=32 max_steps=3 batch_size=4 head.channels=16".split()
HEADS = "head.fc_width=32 head.convs=1 head.proposals=60 head.rois=16 head.detections=20 head.score=0.01".split()


@pytest.fixture(scope="module")
def vit(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vit") / "vit"
    initialise_to(str(template), out, depth=2, heads=2, img_size=32, patch_size=4)
    return out


@pytest.fixture(scope="module")
def detector(vit: Path, tiny_finetune: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "detector"
    finetune(vit, tiny_finetune(*SMALL, *HEADS), out, task="detect", quiet=True)
    return out


@pytest.fixture(scope="module")
def segmenter(vit: Path, tiny_finetune: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "segmenter"
    finetune(vit, tiny_finetune(*SMALL, "head.aux_channels=8"), out, task="segment", quiet=True)
    return out


def session(folder: Path) -> Any:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 32), (32, 9)])
def test_the_graph_of_a_detector_finds_what_the_detector_finds(detector: Path, height: int, width: int) -> None:
    model = FinetunedModel(detector, "cpu").model
    graph = DetectorGraph(model)  # type: ignore[arg-type]
    pixels = torch.randn(3, height, width, generator=torch.Generator().manual_seed(height + width))
    (expected,) = model([pixels])
    square = torch.zeros(1, 3, *graph.padded)
    square[0, :, :height, :width] = pixels
    boxes, scores, labels, masks = graph(square, torch.tensor([height, width]).float())
    count = len(expected["scores"])
    assert count > 3 and len(scores) == 20
    torch.testing.assert_close(boxes[:count], expected["boxes"])
    torch.testing.assert_close(scores[:count], expected["scores"])
    assert labels[:count].tolist() == expected["labels"].tolist()
    assert masks.shape == (20, 28, 28)
    assert (scores[count:] == 0).all() and (labels[count:] == -1).all() and (boxes[count:] == 0).all()


@torch.no_grad()
def test_the_first_image_changes_nothing_for_the_others(detector: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    wide, square = torch.randn(3, 8, 32, generator=generator), torch.randn(3, 32, 32, generator=generator)
    alone = FinetunedModel(detector, "cpu").model([square])[0]
    model = FinetunedModel(detector, "cpu").model
    model([wide])
    torch.testing.assert_close(model([square])[0]["boxes"], alone["boxes"])


@pytest.mark.slow
@torch.no_grad()
def test_a_detector_in_onnx_runtime(detector: Path, tmp_path: Path) -> None:
    told = export(detector, "onnx", tmp_path / "out")
    assert isinstance(told["difference"], float) and told["difference"] < 1e-4
    with pytest.raises(UserError, match="--dtype fp16: places of boxes need more digits"):
        export(detector, "onnx", tmp_path / "half", dtype="fp16")
    graph, model = session(tmp_path / "out"), FinetunedModel(detector, "cpu").model
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    found = graph.run(None, {"images": image.numpy(), "size": np.array([32, 32], np.float32)})
    (expected,) = model([image[0]])
    count = len(expected["scores"])
    np.testing.assert_allclose(found[0][:count], expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(found[1][:count], expected["scores"], atol=1e-5)
    about = {key: json.loads(value) for key, value in graph.get_modelmeta().custom_metadata_map.items()}
    data = read_json(detector / "config.json")["data"]
    assert {key: about[key] for key in ("classes", "mean", "std", "img_size", "crop")} == {
        key: data[key] for key in ("classes", "mean", "std", "img_size", "crop")
    }
    assert about["task"] == "detect" and about["side"] == 32
    assert verify(tmp_path / "out")["loads"] is True


@pytest.mark.slow
@torch.no_grad()
def test_a_segmenter_in_onnx_runtime(segmenter: Path, tmp_path: Path) -> None:
    export(segmenter, "onnx", tmp_path / "out")
    graph, model = session(tmp_path / "out"), FinetunedModel(segmenter, "cpu").model
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        (found,) = graph.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(images), rtol=1e-4, atol=1e-5)
    about = {key: json.loads(value) for key, value in graph.get_modelmeta().custom_metadata_map.items()}
    assert about["window"] == 32 and about["stride"] == 21 and about["classes"][0] == "background"
    assert verify(tmp_path / "out")["loads"] is True
    half = export(segmenter, "onnx", tmp_path / "half", dtype="fp16")
    assert 1e-4 < float(str(half["difference"])) < 2e-2
    with pytest.raises(UserError, match="an ONNX file that was trained to segment is not measured"):
        verify(tmp_path / "out", data="shapes:n=20,size=32")


@pytest.mark.parametrize(("name", "tag"), [("detector", "object-detection"), ("segmenter", "image-segmentation")])
def test_a_folder_for_the_hub_is_one_of_ours(
    name: str, tag: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(name)
    export(folder, "hub", tmp_path / "out")
    assert f"pipeline_tag: {tag}" in (tmp_path / "out" / "README.md").read_text()
    from sweet.data import open_images

    open_images("shapes:n=20,size=32", "val").decode(0).save(tmp_path / "0.png")
    theirs = predict(tmp_path / "out", [tmp_path / "0.png"], None, "cpu")
    assert theirs and theirs == predict(folder, [tmp_path / "0.png"], None, "cpu")
    assert verify(tmp_path / "out", data="shapes:n=20,size=32")["checksums"] == "ok"


def test_what_has_no_layout_is_refused_and_its_vit_is_not(segmenter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--to timm: .* was trained to segment, and timm has no layout for it"):
        export(segmenter, "timm", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(segmenter, "safetensors", tmp_path / "bare", head=False)
    described = read_json(tmp_path / "bare" / "config.json")
    assert "task" not in described and "classes" not in described["data"]


def test_a_damaged_file_is_not_exported(detector: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(detector, tmp_path / "damaged", ignore=shutil.ignore_patterns("checkpoints"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match=r"damaged/model.safetensors: .*SHA256"):
        export(folder, "safetensors", tmp_path / "out")


def test_the_vit_of_a_detector_is_converted(detector: Path, tmp_path: Path) -> None:
    made = convert(str(detector), tmp_path / "template", data=SMALL[0].removeprefix("data.source="), device="cpu")
    assert made["size"] == "L2H2" and made["error"] < 1e-5


def test_findings_that_may_change_places_are_not_compared() -> None:
    scores = torch.tensor([0.9, 0.5, 0.49999, 0.2])
    boxes = torch.arange(16.0).view(4, 4)
    swapped = boxes[[0, 2, 1, 3]]
    names = ("boxes", "scores")
    assert difference((boxes, scores), (swapped, scores), names) == 0
    other = boxes.clone()
    other[3] += 1
    assert difference((boxes, scores), (other, scores), names) > 0.05
    assert not difference((boxes, scores), (boxes * float("nan"), scores), names) <= 1e-4
