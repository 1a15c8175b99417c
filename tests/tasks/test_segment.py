"""Segmentation from end to end on synthetic scenes, its numbers against torchmetrics, its windows by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.functional.classification import multiclass_jaccard_index
from typer.testing import CliRunner

import sweet
from sweet.cli import app
from sweet.data import ImageSource, open_images
from sweet.data.images import IGNORE
from sweet.errors import UserError
from sweet.files import read_json, read_sums, read_tensors, write_sums
from sweet.inference.evaluate import evaluate, predict
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig
from sweet.tasks.pictures import palette
from sweet.tasks.segmentation.segment import Segment, median_frequency, metrics_of, stacked, starts
from sweet.tasks.segmentation.upernet import UPerHead
from sweet.tasks.task import EvalSettings, Metrics
from sweet.training.finetune import finetune, parameter_groups
from sweet.training.network import FinetunedModel, start_network

SHAPES = "shapes:n=64,size=16"
DATA_CONFIG = DataConfig(img_size=16, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")
SMALL = "head.channels=16 head.aux_channels=8 head.pool_scales=1,2 label_smoothing=0".split()
Recipe = Callable[..., FinetuneRecipe]


@pytest.fixture(scope="module")
def recipe(tiny_finetune: Recipe) -> Recipe:
    return lambda *overrides: tiny_finetune("batch_size=8", *SMALL, *overrides)


@pytest.fixture(scope="module")
def segmenter(model: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "segmenter"
    finetune(model, recipe(), out, task="segment", quiet=True)
    return out


def tensors(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / "model.safetensors")


def test_it_learns(model: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Light squares on dark ground: the mask can be read off the brightness."""
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 6)):
        for folder in ("images", "masks"):
            (tmp_path / "set" / folder / split).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((20, 24), np.uint8)
            top, left = random.integers(0, 12, 2)
            mask[top : top + 8, left : left + 8] = 1
            pixels = (mask[..., None] * 150 + random.integers(20, 80, (20, 24, 3))).astype(np.uint8)
            mask[0, :3] = IGNORE
            Image.fromarray(pixels).save(tmp_path / f"set/images/{split}/{i}.png")
            Image.fromarray(mask).save(tmp_path / f"set/masks/{split}/{i}.png")
    (tmp_path / "set" / "classes.txt").write_text("ground\nsquare\n")
    keys = recipe(f"data.source=masks:{tmp_path / 'set'}", "max_steps=40", "epochs=100", "lr=1e-2")
    result = finetune(model, keys, tmp_path / "out", task="segment", quiet=True)
    assert result["miou"] > 70  # all ground: 43
    assert set(result["per_class"]) == {"ground", "square"}


def test_what_is_written(segmenter: Path) -> None:
    info = read_json(segmenter / "config.json")
    assert info["task"] == "segment"
    assert info["data"]["classes"] == open_images(SHAPES, "val").mask_classes
    assert info["head"]["channels"] == 16 and info["head"]["window"] == 0
    assert 0 < info["metrics"]["miou"] < info["metrics"]["pixel_acc"] <= 100
    with Image.open(segmenter / "pictures" / "segments.png") as sheet:
        assert sheet.size == (6 * 480, round(240 * (3 * 2 + 0.3 + 2 * 0.25)))  # six scenes, a legend of 2 lines
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    assert set(map(tuple, palette(11).tolist())) <= set(map(tuple, np.unique(pixels, axis=0).tolist()))
    vit = sweet.load(segmenter, num_classes=0)  # the backbone alone is a plain timm model again
    assert isinstance(vit, nn.Module)
    assert vit(torch.zeros(1, 3, 16, 16)).shape == (1, 16)


@pytest.mark.parametrize("void", [False, True])
def test_what_is_not_judged_is_in_the_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, void: bool) -> None:
    images, legends = open_images(SHAPES, "val").select(range(2)), []
    module = "sweet.tasks.segmentation.segment"
    monkeypatch.setattr(f"{module}.save_grid", lambda *words: legends.append(words[3]))
    monkeypatch.setattr(Segment, "_classes_in", lambda self, model, image, settings: np.zeros((16, 16), np.uint8))
    mask = np.full((16, 16), IGNORE if void else 1, np.uint8)
    monkeypatch.setattr(type(images), "mask", lambda self, index: mask)
    task = Segment(["a", "b"])
    task.pictures(nn.Identity(), images, EvalSettings(DATA_CONFIG), Metrics({"miou": 1.0}, 2), tmp_path)
    assert [name for name, _ in legends[0]] == [*(["void, not judged"] if void else []), "a", "b"]


def test_evaluate_repeats_what_finetune_measured(segmenter: Path) -> None:
    stored = read_json(segmenter / "config.json")["metrics"]
    for batch_size in (1, 9):
        again = evaluate(segmenter, None, SHAPES, split="val", batch_size=batch_size, device="cpu", limit=None)
        assert again == stored
    few = evaluate(segmenter, "segment", SHAPES, split="val", batch_size=1, device="cpu", limit=3)
    assert few["images"] == 3
    with pytest.raises(UserError, match=r"--task classify: .* was trained to segment"):
        evaluate(segmenter, "classify", SHAPES, split="val", batch_size=1, device="cpu", limit=None)


def test_resume_ends_at_the_same_weights(model: Path, recipe: Recipe, tmp_path: Path) -> None:
    keys = recipe("max_steps=3", "ema=0.9", "drop_path=0.2", "head.dropout=0.3", "head.balance=0.5")
    finetune(model, keys, tmp_path / "whole", task="segment", quiet=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "cut" / name).unlink()
    resumed = finetune(model, keys, tmp_path / "cut", task="segment", resume=True, quiet=True)
    assert resumed["training"]["steps"] == 3 and (tmp_path / "cut" / "checkpoints" / "step-2").is_dir()
    whole, cut = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    other = tmp_path / "other"
    finetune(model, keys.model_copy(update={"ema": None}), other, task="segment", quiet=True)
    assert any(not torch.equal(whole[name], value) for name, value in tensors(other).items())


def test_predict_gives_the_shares(segmenter: Path, tmp_path: Path) -> None:
    val = open_images(SHAPES, "val")
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        val.decode(i).resize((30, 21)).save(path)  # neither square nor a multiple of the patch, larger than the window
    rows = predict(segmenter, paths, 99, "cpu", tmp_path / "out")
    for path in paths:
        own = [row for row in rows if row["image"] == str(path)]
        shares = [row["share"] for row in own]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-4)
        assert {row["class"] for row in own} <= set(val.mask_classes or ())
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["000-0.png", "001-1.png"]
    assert len(predict(segmenter, paths[:1], 1, "cpu")) == 1


def test_the_command_line(model: Path, tmp_path: Path) -> None:
    def run(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="sweet")

    overrides = "device=cpu workers=0 max_steps=1 head.crop=16 head.short_side=0 head.channels=16".split()
    out = tmp_path / "out"
    done = run("finetune", model, "--task", "segment", "--data", SHAPES, "--out", out, "-q", *overrides)
    assert done.exit_code == 0, done.output
    assert "miou" in done.stdout
    for words, message in (
        (
            ["head.chanels=3"],
            "head.chanels=3: Extra inputs are not permitted; keys of head here: channels, pool_scales",
        ),
        (["head.pool_scales=0,1"], "head.pool_scales=0,1: "),
        (["head.stride=9", "head.window=8"], "head.stride=9: more than the window of 8 pixels"),
        (
            ["head.stride=17", "head.window=0", "head.crop=0"],
            "head.stride=17: more than the window of 16 pixels",
        ),  # that of the model
        (["mixup=0.5"], "mixup=0.5: has no effect on --task segment"),
        (["data.source=folder:nowhere"], "--data folder:nowhere"),
    ):
        failed = run(
            "finetune", model, "--task=segment", f"data.source={SHAPES}", "--out", tmp_path / "no", *overrides, *words
        )
        assert failed.exit_code == 2 and message in failed.stderr, (failed.stderr, failed.exception)
        assert not (tmp_path / "no").exists()


def test_a_wrong_mask_ends_a_run_before_it_begins(model: Path, recipe: Recipe, tmp_path: Path) -> None:
    for folder, split in ((folder, split) for folder in ("images", "masks") for split in ("train", "val")):
        (tmp_path / folder / split).mkdir(parents=True)
        for i in range(3):
            picture = Image.new(
                "RGB" if folder == "images" else "L", (16, 16), 7 if (folder, split, i) == ("masks", "val", 1) else 1
            )
            picture.save(tmp_path / folder / split / f"{i}.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"masks/val/1.png: value 7 is no line"):
        finetune(model, recipe(f"data.source=masks:{tmp_path}"), tmp_path / "out", task="segment", quiet=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="has no masks, and segmentation needs them"):
        finetune(
            model, recipe(f"data.source=folder:{tmp_path / 'images'}"), tmp_path / "out", task="segment", quiet=True
        )


def test_layers_near_the_input_learn_slower_and_the_decoder_at_the_full_rate(model: Path, recipe: Recipe) -> None:
    task = Segment(list("abc"), recipe())
    network = start_network(model, task, "segment")
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, recipe("optim.layer_decay=0.5", "optim.weight_decay=0.3"))
    scales = {names[p]: group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    decays = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(scales) == set(names.values())
    assert scales["vit.blocks.0.attn.qkv.weight"] == 0.5 * scales["vit.blocks.1.attn.qkv.weight"] < 1
    assert {scales[name] for name in scales if not name.startswith("vit.")} == {1.0}
    assert decays["decoder.fuse.0.weight"] == 0.3 and decays["decoder.fuse.1.weight"] == 0


def test_a_trained_decoder_is_taken_up_again(segmenter: Path, recipe: Recipe) -> None:
    stored = tensors(segmenter)
    same = start_network(segmenter, Segment(["background", *open_images(SHAPES, "val").classes], recipe()), "segment")  # type: ignore[misc]
    assert all(torch.equal(value, stored[name]) for name, value in same.state_dict().items())
    classes = open_images(SHAPES, "val").mask_classes or []
    for keys, left in (
        ("dropout=0.3 short_side=20 crop=12 window=8 stride=4 balance=0.5", False),
        ("aux_channels=4", True),
    ):
        task = Segment(classes, recipe(*(f"head.{key}" for key in keys.split())))
        state = start_network(segmenter, task, "segment").state_dict()
        assert torch.equal(state["decoder.fuse.0.weight"], stored["decoder.fuse.0.weight"]) != left
        notes = [f"the trained head of {segmenter} is not taken over: head.aux_channels=4, not 8"]
        assert task.notes == (notes if left else [])
    other = start_network(segmenter, Segment(list("abc"), recipe()), "segment").state_dict()
    assert torch.equal(other["vit.cls_token"], stored["vit.cls_token"])
    assert other["decoder.classify.1.weight"].shape[0] == 3


def test_a_segmenter_of_an_earlier_version(model: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Its maps were four times as fine as the patches, whatever these were, and its record does not say so."""
    finetune(model, recipe("max_steps=1", "head.upsample=4"), tmp_path, task="segment", quiet=True)
    config = read_json(tmp_path / "config.json")
    assert config["head"].pop("upsample") == 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_sums(tmp_path, {name: tmp_path / name for name in read_sums(tmp_path)})
    again = evaluate(tmp_path, None, SHAPES, split="val", batch_size=9, device="cpu", limit=None)
    assert again == config["metrics"]


def test_small_images_are_not_filled_up_to_the_crop() -> None:
    """Of the views of a batch, some may be smaller: the network sees no more than the largest of them."""
    views = [(torch.ones(3, *size), torch.ones(size, dtype=torch.uint8)) for size in ((5, 40), (8, 8))]
    images, masks = stacked(views)
    assert images.shape == (2, 3, 8, 40) and masks.shape == (2, 8, 40)
    assert images.sum() == 3 * (5 * 40 + 64) and (masks == 1).sum() == 5 * 40 + 64
    assert (masks[0, 5:] == IGNORE).all() and (masks[1, :, 8:] == IGNORE).all()


@pytest.mark.parametrize(
    ("shape", "cells"),  # of 2 x 2 pixels, in all
    [((2, 300), 5_000), ((300, 2), 5_000), ((20, 3000), 5_000), ((1, 1), 25_000), ((300, 400), 30_000)],
)
def test_the_recipe_costs_little_for_images_of_any_shape(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], cells: int
) -> None:
    """A step, an evaluation and the pictures of two images, by the recipe of the verb: once minutes."""
    random, seen = np.random.default_rng(0), []
    for split in ("train", "val"):
        for name, size in (("images", (*shape, 3)), ("masks", shape)):
            folder = tmp_path / "data" / name / split
            folder.mkdir(parents=True)
            values = random.integers(0, 256 if name == "images" else 2, size, np.uint8)
            Image.fromarray(values).save(folder / "0.png")
    (tmp_path / "data" / "classes.txt").write_text("a\nb\n")
    keys = [f"data.source=masks:{tmp_path / 'data'}", "device=cpu", "workers=0", "max_steps=1", "batch_size=1"]
    recipe = load_recipe(FinetuneRecipe, "finetune/segment", keys)
    forward = UPerHead.forward
    monkeypatch.setattr(UPerHead, "forward", lambda self, levels: seen.append(levels[0]) or forward(self, levels))
    finetune(model, recipe, tmp_path / "out", task="segment", quiet=True)
    assert sum(level.shape[0] * level.shape[2] * level.shape[3] for level in seen) < cells


# Numbers.


def confusion(truth: Tensor, seen: Tensor, count: int) -> Tensor:
    known = truth != IGNORE
    return torch.bincount(truth[known] * count + seen[known], minlength=count**2).view(count, count)


@pytest.mark.parametrize("absent", [None, 2])
def test_figures_are_those_of_torchmetrics(absent: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(5, (4, 9, 9), generator=generator)
    seen = torch.where(
        torch.rand(truth.shape, generator=generator) < 0.6, truth, torch.randint(5, truth.shape, generator=generator)
    )
    if absent is not None:
        truth[truth == absent], seen[seen == absent] = 0, 1
    truth[:, 0, :4] = IGNORE
    mine = metrics_of(confusion(truth, seen, 5), list("abcde"), 4).to_dict()
    assert mine["miou"] == pytest.approx(
        100 * float(MulticlassJaccardIndex(5, average="macro", ignore_index=IGNORE)(seen, truth)), abs=1e-3
    )
    each = multiclass_jaccard_index(seen, truth, 5, average="none", ignore_index=IGNORE).tolist()
    names = [name for i, name in enumerate("abcde") if i != absent]
    assert list(mine["per_class"]) == names
    assert list(mine["per_class"].values()) == pytest.approx(
        [100 * x for i, x in enumerate(each) if i != absent], abs=0.01
    )
    for key, average in (("macc", "macro"), ("pixel_acc", "micro")):
        theirs = MulticlassAccuracy(5, average=average, ignore_index=IGNORE)(seen, truth)
        assert mine[key] == pytest.approx(100 * float(theirs), abs=1e-3)


def test_a_class_that_is_seen_but_never_there() -> None:
    table = torch.tensor([[6, 2, 0], [0, 0, 0], [0, 0, 0]])
    mine = metrics_of(table, list("abc"), 1).to_dict()
    assert mine == {"miou": 37.5, "macc": 75.0, "pixel_acc": 75.0, "images": 1, "per_class": {"a": 75.0, "b": 0.0}}


class Bright(nn.Module):
    """Class 1 where the first channel is positive; counts the windows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.windows: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.windows += [tuple(image.shape[1:]) for image in images]
        return torch.stack([-images[:, 0], images[:, 0]], 1) * self.weight


class Given(ImageSource):
    """One image and its mask."""

    def __init__(self, image: Image.Image, classes: np.ndarray) -> None:
        super().__init__("given:", "val", 1, None, None)
        self.image, self.classes_of_pixels, self.mask_classes = image, classes, ["dark", "light"]

    def open(self, index: int) -> Image.Image:
        return self.image

    def where(self, index: int) -> str:
        return "given"

    def fingerprint(self) -> str:
        return "given"

    def mask(self, index: int) -> np.ndarray:
        return self.classes_of_pixels


@pytest.mark.parametrize(
    ("head", "windows"),
    [
        ({"window": 8, "stride": 5}, {(8, 8): 4 * 2}),  # rows 0, 5 of 13; columns 0, 5, 10, 12 of 20
        ({"window": 8}, {(8, 8): 4 * 2}),
        ({"window": 16}, {(13, 16): 2}),
        ({"window": 20}, {(13, 20): 1}),
        ({"window": 99}, {(13, 20): 1}),
        ({"window": 99, "short_side": 26}, {(26, 40): 1}),
    ],
)
def test_windows_cover_the_image(head: dict[str, int], windows: dict[tuple[int, int], int]) -> None:
    light = np.kron(np.random.default_rng(0).integers(0, 2, (13, 5)), np.ones((1, 4))).astype(np.uint8)
    image = Image.fromarray(np.stack([light * 255] * 3, -1))
    truth = light.copy()
    truth[:2] = 1 - truth[:2]
    truth[2:4] = IGNORE
    truth[4] = IGNORE
    model = Bright()
    result = Segment(["dark", "light"], head=head).evaluate(
        model, Given(image, truth), EvalSettings(DATA_CONFIG, batch_size=3)
    )
    assert {size: model.windows.count(size) for size in set(model.windows)} == windows
    if "short_side" not in head:
        assert result.scores["pixel_acc"] == pytest.approx(100 * 8 / 10)  # two rows of ten were inverted
    else:
        assert 70 < result.scores["pixel_acc"] < 80.1


def test_overlapping_windows_are_averaged() -> None:
    class Numbered(Bright):
        def forward(self, images: Tensor) -> Tensor:
            self.windows += [(1, 1)] * len(images)
            return torch.stack([torch.zeros_like(images[:, 0]), torch.full_like(images[:, 0], len(self.windows))], 1)

    task = Segment(["dark", "light"], head={"window": 4, "stride": 2})
    logits = task.logits(Numbered(), torch.zeros(3, 4, 6), (4, 6), EvalSettings(DATA_CONFIG, batch_size=1))
    assert logits[1, 0].tolist() == [1, 1, 1.5, 1.5, 2, 2]


def test_starts() -> None:
    assert starts(5, 8, 3) == [0]
    assert starts(8, 8, 3) == [0]
    assert starts(14, 8, 3) == [0, 3, 6]
    assert starts(15, 8, 3) == [0, 3, 6, 7]


class Logits(nn.Module):
    def __init__(self, *logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.ParameterList(logits)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.logits)


def test_the_loss_by_hand(recipe: Recipe) -> None:
    generator = torch.Generator().manual_seed(0)
    model = Logits(*(torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2)))
    targets = torch.randint(3, (2, 4, 4), generator=generator).to(torch.uint8)
    targets[0, 0] = IGNORE
    inputs = torch.zeros(2, 3, 4, 4)
    main, auxiliary = (F.cross_entropy(x, targets.long(), ignore_index=IGNORE) for x in model.logits)
    task = Segment(list("abc"), recipe())
    torch.testing.assert_close(task.loss(model, inputs, targets, 0), main + 0.4 * auxiliary)
    task.weights = torch.tensor([1.0, 2.0, 5.0])
    main, auxiliary = (F.cross_entropy(x, targets.long(), task.weights, ignore_index=IGNORE) for x in model.logits)
    torch.testing.assert_close(task.loss(model, inputs, targets, 0), main + 0.4 * auxiliary)
    nothing = task.loss(model, inputs, torch.full_like(targets, IGNORE), 0)
    assert nothing.item() == 0


def test_rare_classes_weigh_more() -> None:
    pixels = torch.tensor([[90, 10, 0, 0], [60, 0, 40, 0], [100, 0, 0, 0]])
    assert median_frequency(pixels).tolist() == pytest.approx([0.4 / (250 / 300), 0.4 / 0.1, 1.0, 1.0])


def test_a_mask_that_says_nothing() -> None:
    image = Image.new("RGB", (8, 8))
    with pytest.raises(UserError, match="given:: no pixel of val has a class"):
        Segment(["dark", "light"]).evaluate(
            Bright(), Given(image, np.full((8, 8), IGNORE, np.uint8)), EvalSettings(DATA_CONFIG)
        )


@pytest.mark.parametrize(("name", "crop"), [("finetune/segment", 160), ("finetune/segment_paper", 512)])
def test_recipes(name: str, crop: int) -> None:
    recipe = load_recipe(FinetuneRecipe, name)
    assert Segment(list("abc"), recipe).head.crop == crop
    assert recipe.label_smoothing == 0


def test_any_backbone_size(segmenter: Path) -> None:
    """Trained at 16 pixels, used at others."""
    ready = FinetunedModel(segmenter, "cpu")
    with torch.no_grad():
        assert ready.model(torch.zeros(1, 3, 40, 24)).shape == (1, 11, 40, 24)
