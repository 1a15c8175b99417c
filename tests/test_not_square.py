"""Images of 16 x 24 pixels on every path: learned, made, fine-tuned for each task, judged, used, handed on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import sweet
from sweet.cli import app
from sweet.errors import UserError
from sweet.export import export, verify
from sweet.files import read_json
from sweet.inference.evaluate import evaluate, predict
from sweet.initialise.make import initialise_to
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.training.finetune import finetune
from sweet.training.pretrain import pretrain

WIDE = [16, 24]
TASKS = {
    "classify": "",
    "multilabel": "",
    "segment": "head.channels=16 head.aux_channels=8 head.pool_scales=1,2",
    "detect": "head.channels=16 head.fc_width=32 head.convs=1 head.proposals=60 head.rois=16",
    "generate": "head.samples=10 head.steps=2",
}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="sweet")


@pytest.fixture(scope="module")
def wide(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 16 x 24 pixels from a source of 16."""
    out = tmp_path_factory.mktemp("wide") / "model"
    made = run("init", template, "--depth", 2, "--heads", 2, "--img-size", "16x24", "--out", out)
    assert made.exit_code == 0, made.output
    return out


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images with several labels each."""
    folder, rows = tmp_path_factory.mktemp("tags"), ["image,labels,split"]
    for number in range(24):
        values = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{('a', 'b', 'a;b', '')[number % 4]},{'train' if number < 16 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return f"csv:{folder}"


@pytest.mark.parametrize("task", TASKS)
def test_every_task(
    wide: Path, tags: str, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, task: str
) -> None:
    data = tags if task == "multilabel" else "shapes:n=20,size=40"
    recipe = tiny_finetune(f"data.source={data}", "max_steps=1", "batch_size=4", *TASKS[task].split())
    finetune(wide, recipe, tmp_path / "run", task=task, quiet=True)
    stored = read_json(tmp_path / "run" / "config.json")
    assert stored["data"]["img_size"] == stored["vit"]["img_size"] == WIDE
    metrics = evaluate(tmp_path / "run", task, data, split="val", batch_size=4, device="cpu", limit=None)
    assert metrics["images"]
    if task == "generate":
        made = run("generate", tmp_path / "run", "--classes", "star", "--out", tmp_path / "made", "--per-class", 2)
        assert made.exit_code == 0, made.output
        first = next((tmp_path / "made").glob("*-star-*.png"))
        with Image.open(first) as image:
            assert image.size == (24, 16)
        return
    Image.new("RGB", (50, 20), "red").save(tmp_path / "red.png")
    predict(tmp_path / "run", [tmp_path / "red.png"], 1, "cpu")
    if task != "multilabel":
        export(tmp_path / "run", "onnx", tmp_path / "onnx")  # compared with the model while it is written
        assert verify(tmp_path / "onnx")["loads"] is True


def test_it_leaves_for_timm(wide: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path) -> None:
    finetune(wide, tiny_finetune("max_steps=1"), tmp_path / "run", quiet=True)
    export(tmp_path / "run", "timm", tmp_path / "timm")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, *WIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), sweet.load(tmp_path / "run")(images))
    assert timm.data.resolve_model_data_config(theirs)["input_size"] == (3, 16, 24)


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_a_source_is_learned_and_gives_other_shapes(
    tiny: Callable[..., PretrainRecipe], tmp_path: Path, family: str
) -> None:
    pretrain(tiny("data.img_size=[16,24]", f"model.family={family}"), tmp_path / "source", quiet=True)
    assert read_json(tmp_path / "source" / "config.json")["data"]["img_size"] == WIDE
    for given, written in ((None, WIDE), ((24, 16), [24, 16]), (16, 16)):
        out = tmp_path / f"{given}"
        initialise_to(str(tmp_path / "source"), out, depth=1, heads=2, img_size=given)
        assert read_json(out / "config.json")["vit"]["img_size"] == written
    words = ("--data", "shapes:n=20,size=40", "--sizes", "L2H2", "--out", tmp_path / "completed.png")
    drawn = run("reconstruct", tmp_path / "source", *words)
    assert drawn.exit_code == 0, drawn.output


def test_embeddings(wide: Path, tmp_path: Path) -> None:
    made = run("embed", wide, "--data", "shapes:n=10,size=40", "--out", tmp_path / "e.parquet")
    assert made.exit_code == 0, made.output


@pytest.mark.parametrize("given", ["16x", "x24", "0x16", "16x24x3", "16.5", "-4", "16,24", "wide"])
def test_a_wrong_size_is_named(template: Path, tmp_path: Path, given: str) -> None:
    result = run("init", template, "--depth", 1, "--heads", 1, f"--img-size={given}", "--out", tmp_path / "out")
    assert result.exit_code == 2 and f"height and width, got {given}" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(
    wide: Path, template: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data.img_size=16x20: the model .* takes 16x24 px; make one with .* 16x20"):
        finetune(wide, tiny_finetune("data.img_size=[16,20]"), tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="--img-size 16x22 is not a multiple of the source's patch size 4"):
        initialise_to(str(template), tmp_path / "out", depth=1, heads=1, img_size=(16, 22))
    with pytest.raises(UserError, match=r"img_size=\(16, 0\): should be pixels"):
        sweet.load(template).build(depth=1, heads=1, img_size=(16, 0))


@pytest.mark.parametrize("damage", [[16], [16, 24, 3], [0, 24], "16 24", 16.5, True, [16, 25], [24, 16]])
def test_a_damaged_size_on_disk_is_named(wide: Path, tmp_path: Path, damage: object) -> None:
    stored = read_json(wide / "config.json")
    stored["data"]["img_size"] = damage
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"config\.json: .*(img_size|should be pixels)"):
        sweet.load(tmp_path)
