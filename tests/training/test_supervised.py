"""A source learned from labels and a teacher: its loss by hand, which labels it sees, and WAVE made of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sweet.data import ImageSource, open_images
from sweet.errors import UserError
from sweet.files import read_json
from sweet.inference.checks import mae_loss
from sweet.initialise.apply import initialise
from sweet.models.vit import build_vit
from sweet.recipes.schema import PretrainRecipe
from sweet.storage.folders import StoredSource, load_source
from sweet.template.sizes import Size
from sweet.template.target import target_weights
from sweet.training.pretrain import pretrain
from sweet.training.supervised import SupervisedSource, class_logits, distance, known_labels, new_head

Tiny = Callable[..., PretrainRecipe]
BY_LABELS = ("objective=supervised", "template.constraint=kronecker")


def test_the_loss_by_hand(make_source: Callable[..., StoredSource]) -> None:
    stored = make_source("eva", "kronecker")
    source = new_head(stored.source, 4)
    source.decoder["embed.weight"] = torch.randn(4, 24)
    torch.manual_seed(0)
    images, labels = torch.randn(3, 3, 16, 16), torch.tensor([2, -1, 0])
    weights = target_weights(source, 3, 24, order="prefix")
    head = {"head.weight": weights["decoder.embed.weight"], "head.bias": weights["decoder.embed.bias"]}
    vit = build_vit(stored.config, weights | head, num_classes=4)
    logits = class_logits(weights, images, stored.config)
    torch.testing.assert_close(logits, vit(images), rtol=1e-4, atol=1e-4)

    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4))
    p, q = teacher(images).softmax(-1), logits.softmax(-1)
    by_hand = (p * (p / q).log()).sum(-1).mean() - (q[0, 2].log() + q[2, 0].log()) / 3
    model = SupervisedSource(source, stored.config, teacher)
    torch.testing.assert_close(model(images, labels), by_hand, rtol=1e-4, atol=1e-5)
    assert not any("teacher" in name for name in model.state_dict())
    alone = SupervisedSource(source, stored.config, None)
    torch.testing.assert_close(alone(images[::2], labels[::2]), F.cross_entropy(logits[::2], labels[::2]))


def test_only_the_labels_that_may_be_seen(tiny: Tiny) -> None:
    images = open_images("shapes:n=64,size=16", "train")
    assert known_labels(images, tiny("objective=supervised")).labels == images.labels
    some = known_labels(images, tiny("objective=supervised", "data.labels=20"))
    assert some.fingerprint() == images.fingerprint()  # the same pixels, decoded once
    few = some.labels
    assert few is not None and images.labels is not None
    assert sum(label >= 0 for label in few) == 20
    assert all(label in (-1, true) for label, true in zip(few, images.labels, strict=True))


def test_from_labels_and_a_teacher_to_wave(tiny: Tiny, classifier: Path, tmp_path: Path) -> None:
    out, images = tmp_path / "wave", open_images("shapes:n=64,size=16", "train")
    pretrain(tiny(*BY_LABELS, f"teacher={classifier}", "data.labels=20"), out, quiet=True)
    info, source = read_json(out / "config.json"), load_source(out)
    assert info["objective"] == "supervised" and "mae" not in info
    assert source.source.decoder["embed.weight"].shape == (10, source.source.width)
    assert source.source.decoder["embed.weight"].abs().max() > 0

    def distance_to_source(steps: int) -> float:
        made = initialise(
            "wave", source, Size(1, 1, source.config.head_dim), data=images, budget=64, steps=steps, batch=16,
            lr=1e-2, device="cpu",
        )  # fmt: skip
        config = source.config.resized(1, 1)
        assert mae_loss(made, config, source.mae, images, info["data"]) is None
        pixels = torch.stack([torch.full((3, 16, 16), value) for value in (-1.0, 0.0, 1.0)])
        whole = target_weights(source.source, source.source.depth, source.source.width, order="prefix")
        return distance(class_logits(made, pixels, config), class_logits(whole, pixels, source.config)).item()

    assert distance_to_source(8) != distance_to_source(0)


def test_mistakes_are_one_line(tiny: Tiny, classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a meaning only with objective=supervised"):
        tiny(f"teacher={classifier}")
    with pytest.raises(UserError, match="has no class labels"):
        known_labels(unlabelled(open_images("shapes:n=20,size=16", "train")), tiny("objective=supervised"))
    other = tiny(*BY_LABELS, f"teacher={classifier}", "data.source=shapes:n=64,size=32", "data.img_size=32")
    with pytest.raises(UserError, match=r"teacher=.*: takes 16 px, not 32"):
        pretrain(other, tmp_path / "out", quiet=True)
    for key, own in (
        ("mean=[0.1, 0.5, 0.5]", "mean=[0.5, 0.5, 0.5]"),
        ("std=[0.1, 0.5, 0.5]", "std=[0.25, 0.25, 0.25]"),
        ("value_range=[0.0, 9.0]", "value_range=null"),
    ):
        said = re.escape(f"teacher={classifier}: takes images of data.{own}, the recipe says {key.partition('=')[2]}")
        with pytest.raises(UserError, match=f"^{said}$"):
            pretrain(tiny(*BY_LABELS, f"teacher={classifier}", f"data.{key}"), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def unlabelled(images: ImageSource) -> ImageSource:
    images.labels = None
    return images
