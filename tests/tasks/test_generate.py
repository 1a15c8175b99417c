"""Images from a model: trained, resumed, sampled, judged, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import sweet
from sweet.cli import app
from sweet.data import Batches, open_images, packed
from sweet.errors import UserError
from sweet.files import check_sums, read_json, read_tensors, sha256
from sweet.inference.embed import embed
from sweet.inference.evaluate import evaluate
from sweet.inference.generate import generate
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig
from sweet.tasks.generation.generate import Generate, pixels_of
from sweet.tasks.generation.jit import JiT
from sweet.training.finetune import finetune

Tiny = Callable[..., FinetuneRecipe]
SHAPES = "shapes:n=64,size=16"
HEAD = ("head.steps=3", "head.samples=20", "head.guidance=1.5", "head.context=2", "head.gate=one", "ema=0.9")
DATA_CONFIG = DataConfig(img_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.array(image).astype(int)


@pytest.fixture(scope="module")
def recipe(tiny_finetune: Tiny) -> FinetuneRecipe:
    return tiny_finetune("data.augment=flip", *HEAD)


@pytest.fixture(scope="module")
def generator(model: Path, recipe: FinetuneRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, trained for a moment to generate. Shared: copy before writing."""
    out = tmp_path_factory.mktemp("models") / "generator"
    finetune(model, recipe, out, task="generate", quiet=True)
    return out


def test_what_a_run_leaves_behind(generator: Path) -> None:
    info = read_json(generator / "config.json")
    assert info["task"] == "generate" and info["head"]["context"] == 2
    metrics = info["metrics"]
    assert metrics["fid"] > 0 and 1 <= metrics["is"] <= 10
    assert (metrics["samples"], metrics["images"], metrics["steps"]) == (20, 12, 3)
    assert metrics["fid_extractor"].startswith("shapes32 ")
    sheet = pixels(generator / "pictures" / "samples.png")  # ten rows of eight, four times as large, a title above
    assert sheet.shape[:2] == (4 * (10 * 18 + 2) + 30 + 6, 4 * (8 * 18 + 2) + 14 + 7 * len("triangle") + 6)
    assert metrics["fid_extractor"] in (generator / "README.md").read_text()


def test_evaluate_repeats_what_finetune_measured(generator: Path) -> None:
    metrics = read_json(generator / "config.json")["metrics"]
    again = evaluate(generator, "generate", SHAPES, split="val", batch_size=9, device="cpu", limit=None)
    assert again.pop("fid_extractor") == metrics.pop("fid_extractor")
    assert again == pytest.approx(metrics, rel=1e-3)
    with pytest.raises(UserError, match="at least two images"):
        evaluate(generator, None, SHAPES, split="val", batch_size=9, device="cpu", limit=1)


def test_resumed_it_ends_with_the_same_weights(
    generator: Path, model: Path, recipe: FinetuneRecipe, tmp_path: Path
) -> None:
    for name in ("recipe.yaml", "env.json", "metrics.jsonl"):
        shutil.copyfile(generator / name, tmp_path / name)
    shutil.copytree(generator / "checkpoints" / "step-4", tmp_path / "checkpoints" / "step-4")
    finetune(model, recipe, tmp_path, task="generate", resume=True, quiet=True)
    assert sha256(tmp_path / "model.safetensors") == sha256(generator / "model.safetensors")


def test_the_backbone_is_still_a_vit(generator: Path, tmp_path: Path) -> None:
    vit = sweet.load(generator, num_classes=0)
    assert not isinstance(vit, JiT)
    assert embed(generator, SHAPES, tmp_path / "features.parquet", "val", 5, "cpu")["width"] == 16


@pytest.mark.parametrize(("other", "same"), [("head.samples=30", True), ("head.context=1", False)])
def test_it_goes_on_from_its_own_head(
    generator: Path, tiny_finetune: Tiny, tmp_path: Path, other: str, same: bool
) -> None:
    recipe = tiny_finetune(*HEAD, other, "max_steps=1", "lr=1e-9", "optim.precision=bf16")
    assert np.isfinite(finetune(generator, recipe, tmp_path / "on", task="generate", quiet=True)["fid"])
    before, after = (read_tensors(folder / "model.safetensors") for folder in (generator, tmp_path / "on"))
    assert before["last.weight"].any()
    assert torch.allclose(after["last.weight"], before["last.weight"], rtol=1e-4, atol=1e-6) == same


def test_it_learns_what_classes_look_like(model: Path, tmp_path: Path) -> None:
    """Two classes of one colour each, under so much noise that only the class tells which."""
    for name, colour in (("dark", 40), ("light", 220)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.fromarray(np.full((16, 16, 3), colour + number, np.uint8))
            image.save(tmp_path / "data" / name / f"{number}.png")
    overrides = (
        f"device=cpu workers=0 optim.precision=fp32 max_steps=120 batch_size=18 lr=5e-3 epochs=200 data.source=folder:"
        f"{tmp_path / 'data'} data.augment=none optim.weight_decay=0 head.steps=6 head.samples=20 head.gate=one "
        "head.noise=10"  # a weaker noise would leave the colour to be seen, and the class would not be needed
    )
    finetune(model, load_recipe(FinetuneRecipe, None, overrides.split()), tmp_path / "out", task="generate", quiet=True)
    generate(tmp_path / "out", tmp_path / "made", per_class=4, device="cpu")
    means = {
        name: [pixels(file).mean() for file in sorted((tmp_path / "made").glob(f"*{name}*"))]
        for name in ("dark", "light")
    }
    assert len(means["dark"]) == 4
    assert max(means["dark"]) < 128 < min(means["light"])


def test_the_loss_is_a_function_of_the_step(tiny_finetune: Tiny) -> None:
    class Zero(torch.nn.Module):
        def forward(self, images: Tensor, times: Tensor, labels: Tensor) -> Tensor:
            seen.append(labels)
            return torch.zeros_like(images)

    seen: list[Tensor] = []
    task, images, labels = Generate(list("abc"), tiny_finetune()), torch.randn(200, 3, 8, 8), torch.arange(200) % 3
    losses = [task.loss(Zero(), images, labels, step).item() for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    # E x^2 E (1 - t)^-2 = E (1 + exp(n))^2 with n = -0.8 + 0.8 N(0, 1) is about 2.4
    assert losses[0] == pytest.approx(2.4, rel=0.3)
    dropped = seen[0] == 3
    assert 0.03 < dropped.float().mean() < 0.2
    assert seen[0][~dropped].equal(labels[~dropped])
    task.rank, task.world = 1, 2
    assert task.loss(Zero(), images, labels, 0).item() != losses[0]


def test_pixels_come_back() -> None:
    image = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    assert pixels_of((image / 255 - 0.5) / 0.25, DATA_CONFIG).equal(image)


def test_flip_moves_nothing_else() -> None:
    source = open_images(SHAPES, "train")
    scenes = packed(source, 16)
    for data in (scenes, source):
        batches = Batches(data, batch_size=16, seed=0, img_size=16, augment="flip", mean=[0.0] * 3, std=[1 / 255] * 3)
        images, _ = batches.at(0)
        plain = scenes.images[batches.indices(0)].float()  # type: ignore[union-attr]
        same = (images - plain).abs().amax((1, 2, 3)) < 1e-2
        flipped = (images - plain.flip(3)).abs().amax((1, 2, 3)) < 1e-2
        assert (same | flipped).all() and same.any() and flipped.any()


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="sweet")
    return result.exit_code, result.stderr if result.exit_code else result.stdout


def test_generate_writes_images_and_a_sheet(generator: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    words = ("generate", generator, "--classes", "ring,bar", "--per-class", 3, "--device", "cpu", "--json")
    code, text = run(*words, "--out", out)
    assert code == 0, text
    assert {k: v for k, v in json.loads(text).items() if k != "out"} == {
        "images": 6, "classes": 2, "steps": 3, "guidance": 1.5, "seed": 0
    }  # fmt: skip
    names = [f"{n:03d}-{c}-{i:04d}.png" for n, c in ((4, "ring"), (8, "bar")) for i in range(3)]
    assert sorted(path.name for path in out.glob("[!.]*")) == sorted([*names, "contact_sheet.png", "SHA256SUMS"])
    assert pixels(out / names[0]).shape == (16, 16, 3)
    assert all(check_sums(out).values())
    run(*words, "--out", out, "--overwrite", "--seed", 1)
    other = sha256(out / names[0])
    run("generate", generator, "--per-class", 1, "--device", "cpu", "--batch-size", 3, "--out", out, "--overwrite")
    assert len(list(out.glob("*-0000.png"))) == 10
    first = pixels(out / names[0])
    run(*words, "--out", tmp_path / "again")
    assert abs(first - pixels(tmp_path / "again" / names[0])).max() <= 1  # whatever else is generated
    assert other != sha256(tmp_path / "again" / names[0])


def test_mistakes(generator: Path, classifier: Path, model: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(image)
    (tmp_path / "flat").mkdir()
    for name in "abc":
        shutil.copyfile(image, tmp_path / "flat" / f"{name}.png")
    train = ("finetune", model, "--task", "generate", "--data", SHAPES, "--out", tmp_path / "out", "device=cpu")
    make = ("generate", generator, "--out", tmp_path / "out")
    for words, *fragments in (
        ((*make, "--classes", "ring,unicorn"), "--classes unicorn: unknown", "ring"),
        ((*make, "--classes", ","), "--classes ',': names no class", "ring"),
        ((*make, "--classes", ""), "--classes '': names no class", "ring"),
        ((*make, "--guidance", "0.5"), "--guidance", "0.5"),
        ((*make, "--steps", "0"), "--steps", "0"),
        (("generate", classifier, "--out", tmp_path / "out"), "was trained to classify, not to generate"),
        (("generate", model, "--out", tmp_path / "out"), "fine-tune it first"),
        (("predict", generator, image), "sweet generate"),
        ((*train, "--data", f"folder:{tmp_path / 'flat'}"), "no class labels"),
        ((*train, "head.gate=half"), "head.gate=half"),
        ((*train, "head.extractor=nowhere"), "head.extractor=nowhere", "no such folder"),
        ((*train, "head.guidance_from=0.5", "head.guidance_to=0.2"), "head.guidance_from=0.5"),
    ):
        code, text = run(*words)
        assert code == 2, (words, text)
        assert text.startswith("error: ") and text.count("\n") == 1
        assert all(fragment in text for fragment in fragments), text
        assert not (tmp_path / "out").exists()
