"""What must cost no model: names that are hard to draw, images of any shape and of any number of channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sweet.data import ImageSource, PixelFormat, normalise, open_images
from sweet.data.views import LONGEST, random_view, scaled
from sweet.errors import UserError
from sweet.inference.generate import named_classes
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig
from sweet.tasks.classification.classify import Classify
from sweet.tasks.pictures import contact_sheet, drawn, file_name, save_grid, short
from sweet.tasks.registry import task_class
from sweet.tasks.task import EvalSettings, Metrics
from sweet.training.finetune import finetune

NAMES = [
    "$1_to_$2",
    "$\\frac{1}$ ^_%|<b>",
    "two\nlines\tand a tab",
    "\U0001f600 emoji",
    "\u05e9\u05dc\u05d5\u05dd \u202eabc",
    "caf\u00e9, tench, Tinca tinca",
    "n" * 300,
    "\x1b[31mred",
]


def test_a_name_is_one_short_line() -> None:
    for name in NAMES:
        line = short(name)
        assert len(line) <= 32 and line.isprintable()
    assert short("$1_to_$2") == "$1_to_$2" and short("a\nb") == "a\\nb"
    assert len(file_name("000", "x/" + "\u00e9" * 250 + ".png").encode()) < 200


def test_every_picture_takes_every_name(tmp_path: Path) -> None:
    count = len(NAMES)
    metrics = Metrics({"top1": 50.0}, count, confusion=np.eye(count, dtype=int).tolist())
    settings = EvalSettings(DataConfig(img_size=8, mean=(0.5,) * 3, std=(0.2,) * 3))
    images = open_images("shapes:n=1", "train")
    Classify(NAMES).pictures(nn.Identity(), images, settings, metrics, tmp_path)
    pixels = np.zeros((8, 8, 3), np.uint8)
    save_grid(
        tmp_path / "grid.png", [[pixels, pixels]], ["image", "predicted"], [(name, pixels[0, 0]) for name in NAMES]
    )
    contact_sheet(tmp_path / "sheet.png", torch.zeros(count, 5, 8, 8, dtype=torch.uint8), NAMES, title="a $b$")
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(count, 1)
    drawn(Image.new("RGB", (8, 8)), boxes, [0] * count, NAMES, None)
    for name in ("confusion", "grid", "sheet"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 20 and max(image.size) < 4000


def test_a_picture_that_fails_costs_a_warning(
    model: Path, tiny_finetune: Callable[..., FinetuneRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def broken(*_: object) -> None:
        raise ValueError("cannot\ndraw")

    monkeypatch.setattr(Classify, "pictures", broken)
    finetune(model, tiny_finetune("max_steps=1"), tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "model.safetensors").is_file() and (tmp_path / "out" / "config.json").is_file()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"warning: no pictures in {tmp_path / 'out' / 'pictures'}: ValueError: cannot draw"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tench, Tinca tinca", ["tench, Tinca tinca"]),
        ("goldfish,tench, Tinca tinca", ["goldfish", "tench, Tinca tinca"]),
        (" goldfish , goldfish", ["goldfish", "goldfish"]),
        ("tench,unknown", ["tench", "unknown"]),
        ("a,b,c", ["a,b", "c"]),
        ("cafe\u0301", ["caf\u00e9"]),
    ],
)
def test_names_with_commas(text: str, expected: list[str]) -> None:
    assert named_classes(text, ["tench, Tinca tinca", "goldfish", "a", "b", "a,b", "c", "caf\u00e9"]) == expected


@pytest.mark.parametrize("task", ["detect", "segment", "generate", "classify", "multilabel"])
@pytest.mark.parametrize(
    ("key", "without"),
    [
        ("mixup=0.3", {"detect", "segment", "generate", "multilabel"}),
        ("cutmix=1", {"detect", "segment", "generate", "multilabel"}),
        ("label_smoothing=0.3", {"detect", "generate"}),
        ("data.scale_jitter=[0.5,1]", {"classify", "multilabel", "segment", "generate"}),
        ("data.crop_scale=[0.5,1]", {"detect", "segment"}),
        ("data.augment=flip", {"detect"}),
    ],
)
def test_a_key_without_effect_is_refused(
    tiny_finetune: Callable[..., FinetuneRecipe], task: str, key: str, without: set[str]
) -> None:
    if task in without:
        with pytest.raises(UserError, match=rf"^{key.partition('=')[0]}=.*: has no effect on --task {task}"):
            task_class(task)(["a", "b"], tiny_finetune(key))
    else:
        task_class(task)(["a", "b"], tiny_finetune(key))


def test_keys_that_depend_on_another(tiny_finetune: Callable[..., FinetuneRecipe]) -> None:
    for keys in (("data.augment=crop", "data.crop_scale=[0.5,1]"), ("data.augment=none", "data.hflip=0.3")):
        with pytest.raises(UserError, match=rf"^{keys[1].partition('=')[0]}=.*no effect with data.augment"):
            Classify(["a", "b"], tiny_finetune(*keys))
    Classify(["a", "b"], tiny_finetune("data.augment=none", "data.hflip=0"))


@pytest.mark.parametrize("size", [(300, 2), (2, 300), (1, 1), (5000, 1), (7, 3)])
def test_a_strip_stays_small(size: tuple[int, int]) -> None:
    width, height = scaled(size, 512)
    assert max(width, height) <= LONGEST * 512 and min(width, height) >= 1
    generator = torch.Generator().manual_seed(0)
    image = Image.new("RGB", size, "red")
    pixels, mask = random_view(
        image, np.zeros(size[::-1], np.uint8), 32, short_side=64, augment="rrc", hflip=0.5,
        mean=[0.5] * 3, std=[0.2] * 3, interpolation="bicubic", generator=generator,
    )  # fmt: skip
    assert pixels.shape == (3, *mask.shape) and 1 <= min(mask.shape) <= max(mask.shape) <= 32
    assert scaled((640, 480), 512) == (683, 512)  # ordinary images as ever


@pytest.mark.parametrize("channels", [2, 5, 12])
def test_other_channels_in_every_view(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    np.save(tmp_path / "0.npy", values)
    images: ImageSource = open_images(f"folder:{tmp_path}", "train", val_share=0).read_as(PixelFormat(channels))
    mean, std = [0.5] * channels, [0.2] * channels
    pixels, _ = random_view(
        images.decode(0), np.zeros((20, 30), np.uint8), 16, short_side=0, augment="rrc", hflip=0.5,
        mean=mean, std=std, interpolation="bilinear", generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert pixels.shape == (channels, 16, 16)
    drawn(images.decode(0), torch.zeros(0, 4), [], [], None)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 8, 8), (3, 3, 3), (1, 3, 3, 5)])
def test_one_mean_makes_grey_of_any_rgb(shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    grey = normalise(images, [0.5], [0.25])
    assert grey.shape == (*shape[:-3], 1, *shape[-2:])
    luma = (images.float() / 255 * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3, keepdim=True)
    torch.testing.assert_close(grey, (luma - 0.5) / 0.25)


@pytest.mark.parametrize("count", [40, 100, 1000])
def test_what_a_screen_shows_and_the_file_has(capsys: pytest.CaptureFixture[str], count: int) -> None:
    from sweet.console import show

    result = {
        "top1": 5.0,
        "per_class": {f"class{i:03d}": float(i) for i in range(count)},
        "confusion": [[0] * count for _ in range(count)],
    }
    show(lambda: result, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["top1", "5"] and len(lines) < 20
    assert any("class000" in line for line in lines) and f"{count} x {count}, see --json" in lines[-1]
    show(lambda: result, as_json=True)
    assert json.loads(capsys.readouterr().out) == result
