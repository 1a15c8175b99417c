"""Fine-tune a model, and use it: which images, which weights, which numbers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sweet
from sweet.data import normalise, open_images
from sweet.errors import UserError
from sweet.files import read_json, read_tensors
from sweet.inference.embed import embed
from sweet.inference.evaluate import evaluate, predict
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.tasks.classification.classify import Classify
from sweet.training.finetune import finetune, open_splits, parameter_groups

Tiny = Callable[..., FinetuneRecipe]
SHAPES = "shapes:n=64,size=16"
ON_CPU: dict[str, Any] = {"batch_size": 7, "device": "cpu", "limit": None}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of lying, standing and no stripes in random colours: easy, but not for a random head."""
    folder = tmp_path_factory.mktemp("stripes")
    random = np.random.default_rng(0)
    for i in range(60):
        name = ("lying", "plain", "standing")[i % 3]
        pixels = np.empty((16, 16, 3), np.uint8)
        pixels[:] = random.integers(20, 120, 3)
        if name != "plain":
            pixels[i % 2 :: 4] += 100
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(pixels.transpose(1, 0, 2) if name == "standing" else pixels).save(folder / name / f"{i}.png")
    return folder


def files(images: object) -> set[str]:
    return {images.where(i) for i in range(len(images))}  # type: ignore[attr-defined, arg-type]


def encoder(folder: Path) -> dict[str, Tensor]:
    tensors = read_tensors(folder / "model.safetensors")
    return {name: value for name, value in tensors.items() if not name.startswith("head.")}


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(torch.cat([(a[name] - b[name]).flatten() for name in a]).norm())


def test_a_subset_of_the_labels(tiny_finetune: Tiny) -> None:
    few, val = open_splits(tiny_finetune("data.source=shapes:n=200,size=16", "data.labels=20"))
    more, _ = open_splits(tiny_finetune("data.source=shapes:n=200,size=16", "data.labels=40"))
    others, same_val = open_splits(
        tiny_finetune("data.source=shapes:n=200,size=16", "data.labels=20", "data.label_seed=1", "seed=7")
    )
    assert few.labels is not None
    assert np.bincount(few.labels).tolist() == [2] * 10
    assert files(few) < files(more)
    assert files(few) != files(others)
    assert files(val) == files(same_val) and len(val) == 40
    with pytest.raises(UserError, match=r"data.labels=25: not a multiple of the 10 classes"):
        open_splits(tiny_finetune("data.labels=25"))


@pytest.mark.parametrize("label_seed", [0, 5])
def test_what_is_evaluated_was_never_trained_on(tiny_finetune: Tiny, stripes: Path, label_seed: int) -> None:
    """A folder has no validation split: one is drawn, and it is the same for every verb and every seed."""
    data = f"folder:{stripes}"
    recipe = tiny_finetune(f"data.source={data}", f"data.label_seed={label_seed}", f"seed={label_seed}")
    train, val = open_splits(recipe)
    held = files(open_images(data, "val"))
    assert len(held) == 6
    assert files(val) == held
    assert not files(train) & held
    limited, _ = open_splits(recipe.model_copy(update={"data": recipe.data.model_copy(update={"limit": 10})}))
    assert len(limited) == 10 and files(limited) < files(train)


def test_no_validation_on_the_images_that_are_learned_from(tiny_finetune: Tiny, stripes: Path, tmp_path: Path) -> None:
    """A set of one split that is not called train, as some of the hub are: none is drawn from it."""
    shutil.copytree(stripes, tmp_path / "test")
    data = (f"data.source=folder:{tmp_path}", "data.train_split=test")
    with pytest.raises(UserError, match=r"data.train_split=test: folder:.* has no other split to validate on"):
        open_splits(tiny_finetune(*data))
    train, val = open_splits(tiny_finetune(*data, "data.held_out=6"))
    assert len(val) == 6 and not files(train) & files(val)
    train, val = open_splits(tiny_finetune(*data, "data.val_split=test"))  # wanted
    assert files(train) == files(val)


def test_it_learns(model: Path, stripes: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        FinetuneRecipe,
        None,
        [
            *"device=cpu workers=0 optim.precision=fp32 max_steps=40 epochs=100 batch_size=18 lr=1e-2".split(),
            *f"data.source=folder:{stripes} data.augment=none data.interpolation=bilinear".split(),
        ],
    )
    result = finetune(model, recipe, tmp_path, quiet=True)
    seen = evaluate(tmp_path, "classify", f"folder:{stripes}", split="train", **ON_CPU)
    print(seen, result)
    assert seen["top1"] > 90  # chance is 33
    assert result["top1"] > 60


def test_evaluate_repeats_what_finetune_measured(classifier: Path) -> None:
    info = read_json(classifier / "config.json")
    again = evaluate(classifier, "classify", SHAPES, split="val", **ON_CPU)
    assert again == info["metrics"]
    assert again["images"] == 12
    assert set(again["per_class"]) <= set(info["data"]["classes"])
    first = evaluate(classifier, "classify", SHAPES, split="val", batch_size=7, device="cpu", limit=5)
    assert first["images"] == 5


def test_predict_agrees_with_evaluate(classifier: Path, tmp_path: Path) -> None:
    val = open_images(SHAPES, "val")
    assert val.labels is not None and val.classes is not None
    paths = [tmp_path / f"{i}.png" for i in range(len(val))]
    for i, path in enumerate(paths):
        val.decode(i).save(path)
    rows = predict(classifier, paths, 1, "cpu")
    hits = [row["class"] == val.classes[label] for row, label in zip(rows, val.labels, strict=True)]
    assert 100 * np.mean(hits) == pytest.approx(
        evaluate(classifier, "classify", SHAPES, split="val", **ON_CPU)["top1"], abs=1e-3
    )
    rows = predict(classifier, paths[:1], 99, "cpu")
    assert {row["class"] for row in rows} == set(val.classes)
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-4)


def test_embed_writes_what_the_model_gives(model: Path, classifier: Path, tmp_path: Path) -> None:
    for folder in (model, classifier):  # a head or none: features are of the encoder
        written = embed(folder, SHAPES, tmp_path / "features.parquet", "val", 5, "cpu")
        table = pq.read_table(tmp_path / "features.parquet")
        val = open_images(SHAPES, "val")
        assert (written["images"], written["width"]) == (12, 16) == (table.num_rows, 16)
        assert table["label"].to_pylist() == val.labels
        pixels = torch.stack([torch.from_numpy(np.array(val.decode(i))).permute(2, 0, 1) for i in range(12)])
        vit = sweet.load(folder, num_classes=0)
        assert isinstance(vit, nn.Module)
        with torch.no_grad():
            expected = vit(normalise(pixels, [0.5] * 3, [0.25] * 3))
        torch.testing.assert_close(torch.tensor(table["embedding"].to_pylist()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such name")
def test_embed_writes_any_name(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    embed(model, f"folder:{tmp_path}", tmp_path / "features.parquet", "train", 5, "cpu")
    [name] = pq.read_table(tmp_path / "features.parquet")["image"].to_pylist()
    assert name == f"{tmp_path}/caf\\udce9.png"


def test_what_travels_with_a_model(classifier: Path, model: Path) -> None:
    info = read_json(classifier / "config.json")
    assert info["data"]["classes"] == open_images(SHAPES, "val").classes
    assert info["made"] == read_json(model / "config.json")["made"]
    assert info["task"] == "classify"
    vit = sweet.load(classifier)
    assert isinstance(vit, nn.Module)
    assert vit(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_size_mean_and_std_are_the_models_unless_told(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    """The recipe's own defaults are 32 pixels and the statistics of ImageNet."""
    keys = ("max_steps=1", "data.std=[0.5,0.5,0.5]", "data.img_size=16")
    finetune(model, tiny_finetune(*keys), tmp_path / "out", quiet=True)
    data = read_json(tmp_path / "out" / "config.json")["data"]
    assert (data["img_size"], data["mean"], data["std"]) == (16, [0.5] * 3, [0.5] * 3)
    assert data["interpolation"] == "bilinear"
    saved = load_recipe(FinetuneRecipe, tmp_path / "out" / "recipe.yaml", ())
    assert (saved.data.img_size, saved.data.mean, saved.data.std) == (16, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UserError, match=r"data.img_size=32: the model .* takes 16 px"):
        finetune(model, tiny_finetune("data.img_size=32"), tmp_path / "other", quiet=True)
    assert not (tmp_path / "other").exists()


def test_a_probe_trains_the_head_alone(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    for probe in (True, False):
        out = tmp_path / str(probe)
        recipe = tiny_finetune("max_steps=2", "drop_path=0.1", "data.augment=crop", f"probe={probe}".lower())
        finetune(model, recipe, out, quiet=True)
        assert (distance(encoder(out), encoder(model)) == 0) == probe
        head = read_tensors(out / "model.safetensors")["head.weight"]
        assert head.abs().max() > 1e-3  # it began at 2e-5


def test_the_average_follows_from_the_first_step_on(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    """A decay near one would hand back the start of so short a run: it has to warm up."""
    finetune(model, tiny_finetune(), tmp_path / "plain", quiet=True)
    finetune(model, tiny_finetune("ema=0.9999"), tmp_path / "ema", quiet=True)
    start, plain, average = encoder(model), encoder(tmp_path / "plain"), encoder(tmp_path / "ema")
    assert 0 < distance(average, plain) < 0.5 * distance(start, plain)


def test_regularisers_change_the_result(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    seen = []
    for override in (
        "seed=0", "drop_path=0.5", "mixup=1.0", "cutmix=1.0", "label_smoothing=0.0", "optim.layer_decay=0.5"
    ):  # fmt: skip
        finetune(model, tiny_finetune("max_steps=3", override), tmp_path / override, quiet=True)
        seen.append(encoder(tmp_path / override))
    assert all(distance(seen[0], other) > 1e-5 for other in seen[1:])


def test_layers_near_the_input_learn_slower(model: Path, tiny_finetune: Tiny) -> None:
    vit = sweet.load(model, num_classes=10)
    names = {parameter: name for name, parameter in vit.named_parameters()}
    groups = parameter_groups(vit, tiny_finetune("optim.layer_decay=0.5", "optim.weight_decay=0.3"))
    scales = {names[p]: group["lr_scale"] for group in groups for p in group["params"]}
    decays = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(scales) == set(names.values())
    assert scales["head.weight"] == 1
    order = ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight", "head.weight"]
    assert [scales[b] / scales[a] for a, b in pairwise(order)] == pytest.approx([2, 2, 2])
    assert decays["blocks.0.attn.qkv.weight"] == 0.3
    assert decays["blocks.0.attn.qkv.bias"] == decays["blocks.0.norm1.weight"] == decays["cls_token"] == 0


class Fixed(nn.Module):
    """Says what it is given to say."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[images.flatten().long()]


def test_metrics_by_hand() -> None:
    logits = torch.arange(7.0).flip(0).repeat(4, 1)  # class 0 first, class 6 last
    batches = [
        (torch.tensor([0, 1, 2]), torch.tensor([0, 0, 4])),
        (torch.tensor([3]), torch.tensor([6])),
    ]
    metrics = Classify(list("abcdefg")).measure(Fixed(logits), batches).to_dict()
    assert (metrics["top1"], metrics["top5"], metrics["images"]) == (50.0, 75.0, 4)
    assert metrics["per_class"] == {"a": 100.0, "e": 0.0, "g": 0.0}
    expected = nn.functional.cross_entropy(logits, torch.tensor([0, 0, 4, 6]))
    assert metrics["loss"] == pytest.approx(float(expected), abs=1e-5)


def test_mixing_is_a_function_of_the_step(tiny_finetune: Tiny) -> None:
    def loss(step: int, *overrides: str) -> float:
        job = Classify(list("abc"), tiny_finetune(*overrides))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
        return job.loss(model, torch.rand(8, 3, 8, 8), torch.arange(8) % 3, step).item()

    for mix in ("mixup=1.0", "cutmix=1.0"):
        assert loss(3, mix) == loss(3, mix)
        assert len({loss(step, mix) for step in range(5)}) > 1
        assert loss(3, mix) != loss(3, mix, "seed=1")
    assert loss(3) == loss(4)


def test_labels_that_do_not_fit(model: Path, tiny_finetune: Tiny, stripes: Path, tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16))
    for split, names in (("train", ["a", "b"]), ("val", [""])):
        for name in names:
            (tmp_path / "half" / split / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "half" / split / name / "x.png")
    with pytest.raises(UserError, match="has no class labels"):
        finetune(model, tiny_finetune(f"data.source=folder:{tmp_path / 'half'}"), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
