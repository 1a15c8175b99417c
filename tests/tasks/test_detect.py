"""Detection from end to end: fine-tune, resume, evaluate, predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sweet
from sweet.cli import app
from sweet.data import jittered, open_images
from sweet.errors import UserError
from sweet.files import read_json, read_tensors, sha256
from sweet.inference.evaluate import evaluate, predict
from sweet.recipes.loader import bundled_recipes, load_recipe, task_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import read_record
from sweet.tasks.detection.detect import Detect, training_sample
from sweet.tasks.detection.detector import DetectOptions
from sweet.training.finetune import finetune, parameter_groups
from sweet.training.network import start_network

Tiny = Callable[..., FinetuneRecipe]
CrashAt = Callable[[int], AbstractContextManager[None]]
SCENES = "shapes:n=16,size=16"
HEAD = (
    "head.window=2 head.channels=16 head.convs=1 head.fc_width=32 head.anchor_scale=4 head.proposals=32 head.rois=16 "
    "head.detections=20"
).split()
TINY = ["batch_size=4", "max_steps=4", f"data.source={SCENES}", "checkpoint_every=1", *HEAD]
USED = {"window": 0, "proposals": 16, "rois": 8, "score": 0.3, "overlap": 0.4, "detections": 5}  # not in the weights
ON_CPU: dict[str, Any] = {"batch_size": 5, "device": "cpu", "limit": None}


@pytest.fixture(scope="module")
def detector(model: Path, tiny_finetune: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of ten shapes, trained for a moment with all that a recipe offers. Shared: copy before writing."""
    out = tmp_path_factory.mktemp("detect") / "detector"
    finetune(model, recipe_of(tiny_finetune), out, task="detect", quiet=True)
    return out


def recipe_of(tiny_finetune: Tiny, *more: str) -> FinetuneRecipe:
    return tiny_finetune(*TINY, "drop_path=0.2", "ema=0.9", "optim.layer_decay=0.8", "head.score=0", "seed=3", *more)


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark images of 20 x 16 pixels with a red or a blue plate in each; boxes only, every eighth image is empty."""
    root = tmp_path_factory.mktemp("plates")
    random = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    for split, count in (("train", 48), ("val", 12)):
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels = random.integers(0, 40, (16, 20, 3)).astype(np.uint8)
            name, label = f"{split}-{number}.png", number % 2
            x, y, width, height = (int(random.integers(*span)) for span in ((0, 10), (0, 7), (7, 10), (7, 9)))
            if number % 8:
                pixels[y : y + height, x : x + width, 2 * label] = 250
                box = [x, y, width, height]
                annotations.append({"id": number, "image_id": number, "category_id": label + 1, "bbox": box})
            Image.fromarray(pixels).save(root / "images" / name)
            images.append({"id": number, "file_name": name, "width": 20, "height": 16})
        categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.mark.slow
def test_it_learns(model: Path, plates: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    recipe = tiny_finetune(
        *HEAD, f"data.source=coco:{plates}", "batch_size=8", "max_steps=80", "epochs=100", "lr=1e-2",
        "data.scale_jitter=[0.9,1.1]", "head.window=0", "seed=1",
    )  # fmt: skip
    result = finetune(model, recipe, tmp_path / "out", task="detect", quiet=True)
    print(result)
    assert result["ap_box50"] > 20  # 46 were seen here; 0 at the start
    assert set(result["per_class_box"]) == {"red", "blue"}
    assert "ap_mask" not in result  # boxes only


def test_what_travels_with_a_detector(detector: Path) -> None:
    info = read_json(detector / "config.json")
    assert info["task"] == "detect" and info["data"]["classes"] == open_images(SCENES, "val").classes
    assert info["head"] == DetectOptions.model_validate(dict(word[5:].split("=") for word in HEAD)).model_copy(
        update={"masks": True, "score": 0.0}
    ).model_dump()  # fmt: skip
    assert info["data"]["crop"] == "resized to fit, padded at the right and the bottom"
    vit = sweet.load(detector)  # what is around the ViT stays behind
    assert vit(torch.zeros(1, 3, 16, 16)).shape == (1, 16)
    with Image.open(detector / "pictures" / "detections.png") as sheet:  # 8 pairs, 2 in a row, of 320 px and a caption
        assert sheet.size == (4 * (320 + 4) + 4, 4 * (320 + 22 + 4) + 4)


def test_evaluate_repeats_what_finetune_measured(detector: Path) -> None:
    again = evaluate(detector, "detect", SCENES, split="val", **ON_CPU)
    assert again == read_json(detector / "config.json")["metrics"]
    val = open_images(SCENES, "val")
    assert (again["images"], again["boxes"]) == (10, sum(len(val.objects(index)) for index in range(10)))
    assert {"ap_box", "ap_box50", "ap_box75", "ap_mask", "ap_mask_small", "per_class_mask"} <= set(again)
    assert evaluate(detector, None, SCENES, split="val", **{**ON_CPU, "limit": 3})["images"] == 3


def test_in_bfloat16(model: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_finetune, "optim.precision=bf16", "max_steps=1")
    assert finetune(model, recipe, tmp_path / "out", task="detect", quiet=True)["ap_mask"] is not None


@pytest.mark.parametrize("after", [0, 2])
def test_a_stopped_run_ends_as_if_it_had_not(
    model: Path, detector: Path, tiny_finetune: Tiny, tmp_path: Path, crash_at: CrashAt, after: int
) -> None:
    with crash_at(after):
        finetune(model, recipe_of(tiny_finetune), tmp_path, task="detect", quiet=True)
    finetune(model, recipe_of(tiny_finetune), tmp_path, task="detect", resume=True, quiet=True)
    assert sha256(tmp_path / "model.safetensors") == sha256(detector / "model.safetensors")


def test_predict_gives_rows_and_pictures(detector: Path, tmp_path: Path) -> None:
    val = open_images(SCENES, "val")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    val.decode(0).save(paths[0])
    val.decode(1).resize((50, 30)).save(paths[1])
    rows = predict(detector, paths, None, "cpu", tmp_path / "out")
    assert {row["image"] for row in rows} == set(map(str, paths))
    for path, (width, height) in zip(paths, ((16, 16), (50, 30)), strict=True):
        mine = [row for row in rows if row["image"] == str(path)]
        scores = [row["score"] for row in mine]
        assert 5 < len(mine) <= 20 and scores == sorted(scores, reverse=True)
        assert all(0 <= row["x0"] < row["x1"] <= width and 0 <= row["y0"] < row["y1"] <= height for row in mine)
        assert {row["class"] for row in mine} <= set(val.classes or ())
    for name, size in (("0000-a.png", (16, 16)), ("0001-b.png", (50, 30))):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == size
    assert len(predict(detector, paths, 3, "cpu")) == 6


def test_a_detector_goes_on_learning(detector: Path, tiny_finetune: Tiny) -> None:
    """Of the same classes and options the head is taken over; of others the backbone alone."""
    stored = read_tensors(detector / "model.safetensors")
    classes = read_json(detector / "config.json")["data"]["classes"]
    for names, options, same in (
        (classes, ("head.masks=true", "head.score=0"), True),
        (classes, ("head.masks=true", *(f"head.{key}={value}" for key, value in USED.items())), True),
        (["x"], ("head.masks=true", "head.score=0"), False),
        (classes, ("head.masks=false", "head.score=0"), False),
    ):
        task = Detect(names, tiny_finetune(*TINY, *options))
        state = start_network(detector, task, "detect").state_dict()
        assert torch.equal(state["vit.blocks.0.attn.qkv.weight"], stored["vit.blocks.0.attn.qkv.weight"])
        head = "rpn.head.conv.0.0.weight"
        assert torch.equal(state[head], stored[head]) == same
        left = [] if same else ["it is for other classes" if names == ["x"] else "head.masks=False, not True"]
        assert task.notes == [f"the trained head of {detector} is not taken over: {key}" for key in left]


def test_layers_below_the_head_learn_slower(model: Path, tiny_finetune: Tiny) -> None:
    recipe = tiny_finetune(*TINY, "optim.layer_decay=0.5", "optim.weight_decay=0.3", "head.masks=true")
    network = start_network(model, Detect(["a"], recipe), "detect")
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, recipe)
    scales = {names[p]: group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    decays = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(scales) == set(names.values())
    assert scales["pyramid.levels.0.0.weight"] == scales["roi_heads.box_head.0.0.weight"] == 1
    assert scales["vit.blocks.0.attn.qkv.weight"] == 0.5 * scales["vit.blocks.1.attn.qkv.weight"] < 1
    assert decays["rpn.head.cls_logits.weight"] == 0.3 and decays["rpn.head.cls_logits.bias"] == 0


def test_masks_can_be_refused_and_demanded(tiny_finetune: Tiny, plates: Path) -> None:
    scenes, boxes = open_images(SCENES, "val"), open_images(f"coco:{plates}", "val")
    for options, images, expected in (((), scenes, True), ((), boxes, False), (("head.masks=false",), scenes, False)):
        task = Detect(["a"], tiny_finetune(*options))
        task.adapt(images, images)
        assert task.head.masks is expected
    task = Detect(["a"], tiny_finetune())
    task.adapt(scenes, boxes)
    assert task.head.masks is False
    with pytest.raises(UserError, match=r"head.masks=true: not all objects of val in coco:.* have a mask"):
        Detect(["a"], tiny_finetune("head.masks=true")).adapt(scenes, boxes)


def test_a_sample_is_normalised(tiny_finetune: Tiny) -> None:
    keys = tiny_finetune("data.img_size=16", "data.mean=[0.1,0.2,0.3]", "data.std=[0.5,0.4,0.3]").data
    scenes = open_images(SCENES, "train")
    image, objects = training_sample(scenes, keys, True, 2, torch.Generator().manual_seed(0))
    again, _ = training_sample(scenes, keys, True, 2, torch.Generator().manual_seed(0))
    assert torch.equal(image, again) and image.dtype == torch.float32
    pixels, same = jittered(
        scenes.decode(2), scenes.objects(2), 16, scale=keys.scale_jitter, hflip=keys.hflip, masks=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    mean, std = torch.tensor(keys.mean).view(3, 1, 1), torch.tensor(keys.std).view(3, 1, 1)
    torch.testing.assert_close(image * std + mean, pixels / 255)
    assert all(torch.equal(objects[key], same[key]) for key in ("boxes", "labels", "masks"))


def test_bad_input(model: Path, detector: Path, plates: Path, tiny_finetune: Tiny, tmp_path: Path) -> None:
    def refused(message: str, *overrides: str, start: Path = model) -> None:
        with pytest.raises(UserError, match=message):
            finetune(start, tiny_finetune(*TINY, *overrides), tmp_path / "out", task="detect", quiet=True)
        assert not (tmp_path / "out").exists()

    for name in ("a", "b"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (16, 16)).save(tmp_path / "folder" / name / f"{number}.png")
    refused("has no boxes, and detection needs them", f"data.source=folder:{tmp_path / 'folder'}")
    refused(r"head.chanels=8: .*keys of head here: masks, window, channels", "head.chanels=8")
    refused(r"head.upsample=3", "head.upsample=3")
    refused(r"head.score=1", "head.score=1")
    own = read_record(model, ("model",)).data.interpolation
    other = {"bilinear": "bicubic", "bicubic": "bilinear"}[own]
    refused(rf"^data\.interpolation={other}: has no effect on --task detect", f"data.interpolation={other}")
    refused("has no class labels", "data.labels=10", f"data.source=coco:{plates}")
    with pytest.raises(UserError, match=r"data\.scale_jitter: should rise"):
        tiny_finetune("data.scale_jitter=[2,1]")

    empty = {"images": [{"id": 1, "file_name": "train-1.png", "width": 20, "height": 16}], "annotations": []}
    for split, categories in (("train", ["red"]), ("val", ["red"]), ("test", [])):
        content = empty | {"categories": [{"id": n, "name": name} for n, name in enumerate(categories)]}
        (plates / "annotations" / f"instances_{split}-none.json").write_text(json.dumps(content))
    for split, message in (("train-none", "train-none has no objects"), ("test-none", "has no classes")):
        refused(message, f"data.source=coco:{plates}", f"data.train_split={split}", f"data.val_split={split}")
    with pytest.raises(UserError, match="its 2 classes are not the 10 of"):
        evaluate(detector, "detect", f"coco:{plates}", split="val", **ON_CPU)
    with pytest.raises(UserError, match="was trained to detect"):
        evaluate(detector, "classify", SCENES, split="val", **ON_CPU)


def test_recipes() -> None:
    assert task_recipe("detect") == "finetune/detect"
    for name in ("finetune/detect", "finetune/detect_paper"):
        assert name in bundled_recipes("finetune")
        recipe = load_recipe(FinetuneRecipe, name)
        Detect(["a"], recipe)
    paper = Detect(["a"], recipe)
    assert paper.head == DetectOptions()  # the defaults are ViTDet's
    assert recipe.optim.milestones == (0.889, 0.963)


def test_from_the_command_line(model: Path, tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    overrides = "device=cpu workers=0 batch_size=2 max_steps=1 optim.precision=fp32".split()
    out = tmp_path / "out"
    words = ["--task", "detect", "--data", SCENES, "--out", str(out), "--quiet"]
    result = run("finetune", str(model), *words, *overrides, *HEAD)
    assert result["ap_box"] >= 0 and result["training"]["steps"] == 1
    assert run("evaluate", str(out), "--data", SCENES, "--device", "cpu")["ap_mask"] == result["ap_mask"]
    open_images(SCENES, "val").decode(0).save(tmp_path / "a.png")
    words = ["predict", str(out), str(tmp_path / "a.png"), "--out", str(tmp_path / "seen"), "--device", "cpu"]
    assert isinstance(run(*words), list)
    assert (tmp_path / "seen" / "0000-a.png").is_file()
