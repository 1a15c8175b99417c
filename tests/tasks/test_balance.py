"""``optim.balance``: what a classifier learns from when its classes are of unequal size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from sweet.data import Packed
from sweet.errors import UserError
from sweet.recipes.schema import FinetuneRecipe
from sweet.tasks.classification.classify import Classify
from sweet.tasks.task import TrainSettings
from sweet.training.finetune import finetune

Tiny = Callable[..., FinetuneRecipe]
LABELS = torch.tensor([0] * 12 + [1] * 3 + [2])


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> str:
    """30 images of one class and 3 of the other."""
    root = tmp_path_factory.mktemp("uneven")
    random = np.random.default_rng(0)
    for name, count, level in (("common", 30, 90), ("rare", 3, 170)):
        for split in ("train", "val"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(level - 60, level + 60, (16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return f"folder:{root}"


def task_of(recipe: FinetuneRecipe) -> Classify:
    task = Classify(["a", "b", "c"], recipe)
    data = Packed(torch.zeros(16, 3, 16, 16, dtype=torch.uint8), LABELS, task.classes)
    task.batches(data, TrainSettings(recipe, 4))
    return task


class Fixed(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_weighted_loss(tiny_finetune: Tiny, smoothing: float) -> None:
    task = task_of(tiny_finetune("optim.balance=weights", "data.img_size=16", f"label_smoothing={smoothing}"))
    logits, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1])
    weights = torch.tensor([16 / 36, 16 / 9, 16 / 3])
    soft = torch.full((5, 3), smoothing / 3).scatter_add(1, targets[:, None], torch.full((5, 1), 1 - smoothing))
    expected = -(soft * weights * logits.log_softmax(1)).sum(1).mean()
    loss = task.loss(Fixed(logits), torch.zeros(5, 3, 16, 16), targets, 0)
    torch.testing.assert_close(loss, expected)


def test_a_batch_in_parts_has_the_loss_of_the_whole(tiny_finetune: Tiny) -> None:
    task = task_of(tiny_finetune("optim.balance=weights", "data.img_size=16"))
    logits, targets = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 0, 0, 2])
    images = torch.zeros(4, 3, 16, 16)
    whole = task.loss(Fixed(logits), images, targets, 0)
    parts = [task.loss(Fixed(logits[i : i + 2]), images[:2], targets[i : i + 2], 0) for i in (0, 2)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_what_is_said(tiny_finetune: Tiny) -> None:
    (said,) = task_of(tiny_finetune("optim.balance=weights", "data.img_size=16")).notes
    assert said == (
        "optim.balance=weights: 16 images in 3 classes, from 1 (c) to 12 (a); weights in the loss from 0.444 to 5.33"
    )
    (said,) = task_of(tiny_finetune("optim.balance=sampler", "data.img_size=16")).notes
    assert said.endswith("from 1 (c) to 12 (a); every class is shown as often as the others")
    assert task_of(tiny_finetune("data.img_size=16")).notes == []


@pytest.mark.parametrize("balance", ["weights", "sampler"])
def test_a_resumed_run_equals_an_unbroken_one(
    uneven: str, model: Path, tiny_finetune: Tiny, tmp_path: Path, balance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = (f"data.source={uneven}", f"optim.balance={balance}", "mixup=0.2", "checkpoint_every=3")
    finetune(model, tiny_finetune(*keys), tmp_path / "whole")
    assert f"optim.balance={balance}: 66" not in capsys.readouterr().out
    plain = finetune(model, tiny_finetune(f"data.source={uneven}", "mixup=0.2"), tmp_path / "plain", quiet=True)
    assert plain["val_loss"] is not None
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    other = load_file(tmp_path / "plain" / "model.safetensors")
    assert not all(torch.equal(whole[name], other[name]) for name in whole)
    # stopped after the checkpoint of step 3
    broken = tmp_path / "broken"
    finetune(model, tiny_finetune(*keys), broken, quiet=True)
    for name in ("config.json", "model.safetensors", "SHA256SUMS"):
        (broken / name).unlink()
    finetune(model, tiny_finetune(*keys), broken, resume=True, quiet=True)
    again = load_file(broken / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_one_class_only_leaves_nothing_to_balance(tiny_finetune: Tiny) -> None:
    task = Classify(["a", "b"], tiny_finetune("optim.balance=weights", "data.img_size=16"))
    data = Packed(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), task.classes)
    with pytest.raises(UserError, match=r"optim.balance=weights: all images are of one class"):
        task.batches(data, TrainSettings(task.recipe, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["detect", "segment", "generate"])
def test_other_tasks_refuse_it(model: Path, tiny_finetune: Tiny, tmp_path: Path, task: str) -> None:
    with pytest.raises(UserError, match=r"optim.balance=sampler: here only none"):
        finetune(model, tiny_finetune("optim.balance=sampler"), tmp_path / "out", task=task, quiet=True)
    assert not (tmp_path / "out").exists()
