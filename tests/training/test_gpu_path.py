"""A step does not wait for the GPU: by the device that knows no numbers, and where there is one, by CUDA itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sweet.data import Batches, open_images, pack
from sweet.models.mae import MaskedAutoencoder
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.storage.folders import load_model, load_source
from sweet.training.finetune import finetune
from sweet.training.pretrain import pretrain

AUGMENTS = ("rrc", "crop", "none")


def batches(augment: str, device: str) -> Batches:
    images = pack(open_images("shapes:n=40,size=16", "train"), 16)
    return Batches(images, batch_size=8, seed=0, img_size=16, augment=augment, device=device)  # type: ignore[arg-type]


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_batch_is_made_on_the_device(augment: str) -> None:
    """Of all images on the device; on ``meta`` whoever asks for a number fails."""
    made = batches(augment, "meta")
    assert made._images is not None and made._images.device.type == "meta" and made._images.dtype == torch.uint8
    images, labels = made.at(3)
    assert images.device.type == "meta" and images.shape == (8, 3, 16, 16)
    assert labels is not None and labels.device.type == "meta"


@pytest.mark.parametrize("constraint", ["template", "dense"])
def test_pre_training_asks_for_no_number(
    constraint: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # it does not know this device
    stored = load_source(request.getfixturevalue(constraint))
    model = MaskedAutoencoder(stored.source, stored.config, stored.mae).to("meta")
    images, _ = batches("rrc", "meta").at(0)
    model(images, torch.rand(8, stored.config.patches, device="meta")).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_fine_tuning_asks_for_no_number(model: Path) -> None:
    vit, _ = load_model(model, num_classes=10)
    images, labels = batches("crop", "meta").at(0)
    assert labels is not None
    torch.nn.functional.cross_entropy(vit.to("meta")(images), labels).backward()


class Enough(Exception):
    pass


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From the fourth batch on a synchronisation is an error, and the ninth is the last."""
    whole = Batches.iterate

    def iterate(self: Batches, start: int, stop: int) -> Iterator[Any]:
        for step, batch in enumerate(whole(self, start, stop)):
            if step == 3:
                torch.cuda.set_sync_debug_mode("error")
            if step == 8:
                torch.cuda.set_sync_debug_mode("default")
                raise Enough
            yield batch

    monkeypatch.setattr(Batches, "iterate", iterate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("default")  # the first call warns
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("constraint", ["tucker", "none", "linear", "kronecker"])
def test_no_step_of_pre_training_waits(
    tmp_path: Path, tiny: Callable[..., PretrainRecipe], constraint: str, watched: None
) -> None:
    recipe = tiny(
        "device=cuda", "epochs=1000", "max_steps=1000", "checkpoint_every=1000", f"template.constraint={constraint}"
    )
    with pytest.raises(Enough):
        pretrain(recipe, tmp_path / "run", quiet=True)


@pytest.mark.gpu
@pytest.mark.parametrize("augment", AUGMENTS)
def test_no_step_of_fine_tuning_waits(
    tmp_path: Path, model: Path, tiny_finetune: Callable[..., FinetuneRecipe], augment: str, watched: None
) -> None:
    recipe = tiny_finetune(
        "device=cuda", "epochs=1000", "max_steps=1000", "checkpoint_every=1000", f"data.augment={augment}"
    )
    with pytest.raises(Enough):
        finetune(model, recipe, tmp_path / "run", quiet=True)
