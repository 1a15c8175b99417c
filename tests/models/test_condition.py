"""Another set of coordinates, the same function: to float64's rounding, for both norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sweet.models.condition import condition, with_stream_scale, writing
from sweet.models.config import ViTConfig
from sweet.models.forward import encode, linear, patchify
from sweet.models.mae import source_from_state
from sweet.models.moments import moments_of
from sweet.storage.folders import StoredSource
from sweet.template.gains import LEAST
from sweet.template.target import target_weights

MakeSource = Callable[..., StoredSource]
both_families = pytest.mark.parametrize("family", ["eva", "vit"])


def start(make_source: MakeSource, family: str) -> tuple[dict[str, Tensor], StoredSource, Tensor]:
    """Weights in float64 in which no bias is zero and no gain is one, with a head; and images."""
    stored = make_source(family, "none", depth=2)
    generator = torch.Generator().manual_seed(1)
    weights = target_weights(stored.source, 2, 24, order="prefix")
    weights |= {
        "head.weight": torch.randn(5, 24, generator=generator),
        "head.bias": torch.randn(5, generator=generator),
    }
    images = torch.randn(6, 3, 16, 16, generator=generator)
    return {name: value.double() for name, value in weights.items()}, stored, images


def answers(weights: dict[str, Tensor], config: ViTConfig, images: Tensor) -> list[Tensor]:
    tokens = encode(weights, patchify(images.double(), 4), config)
    return [linear(tokens, weights, name) for name in ("decoder.embed", "head")]


def error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


@both_families
@pytest.mark.parametrize("final_norm", [True, False])
def test_a_scaled_stream_is_the_same_function(make_source: MakeSource, family: str, final_norm: bool) -> None:
    weights, stored, images = start(make_source, family)
    config = stored.config
    if not final_norm:
        weights = {name: value for name, value in weights.items() if not name.startswith("norm.")}
        config = replace(config, final_norm="none")
    scaled = with_stream_scale(weights, 2, 0.2)
    for mine, theirs in zip(answers(scaled, config, images), answers(weights, config, images), strict=True):
        assert error(mine, theirs) < 1e-4  # it meets the norms' eps
    matrices = [scaled[name].flatten() for name in writing(scaled, 2) if "blocks" in name and "weight" in name]
    assert torch.cat(matrices).square().mean().sqrt().item() == pytest.approx(0.2)


@both_families
def test_the_function_is_the_same(make_source: MakeSource, family: str) -> None:
    weights, stored, images = start(make_source, family)
    rotated = condition(weights, stored.config, [images[:4], images[4:]])
    assert rotated.keys() == weights.keys()
    assert all(rotated[name].shape == value.shape for name, value in weights.items())
    assert error(rotated["blocks.1.mlp.fc2.weight"], weights["blocks.1.mlp.fc2.weight"]) > 0.5
    pairs = zip(answers(rotated, stored.config, images), answers(weights, stored.config, images), strict=True)
    for mine, theirs in pairs:
        assert error(mine, theirs) < 1e-9


@both_families
def test_channels_are_equalise_gains_and_apart(make_source: MakeSource, family: str) -> None:
    """What each norm hands on has the same energy in every channel, all norms together in uncorrelated ones."""
    weights, stored, images = start(make_source, family)
    rotated = condition(weights, stored.config, [images])
    source = source_from_state({name: value.float() for name, value in rotated.items()}, stored.config)
    moments = moments_of(source, stored.config, [images]).stream.double()
    total = moments.sum(0)
    if family == "eva":  # of a LayerNorm, the zero-mean subspace is placed into the channels by a reflection
        off = total - torch.diag(total.diagonal())
        assert off.norm() < 1e-4 * total.norm()
        assert total.diagonal().tolist() == sorted(total.diagonal().tolist(), reverse=True)
    for index, name in enumerate(["blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "norm"]):
        energy = moments[index].diagonal()
        share = energy / energy.mean()
        handed = share * rotated[f"{name}.weight"].square()
        loud = share > 1.01 * LEAST
        torch.testing.assert_close(handed[loud], torch.ones_like(handed[loud]), rtol=1e-3, atol=0)
        assert rotated[f"{name}.weight"].max() <= LEAST**-0.5 * 1.001


@both_families
def test_a_second_time_changes_little(make_source: MakeSource, family: str) -> None:
    weights, stored, images = start(make_source, family)
    once = condition(weights, stored.config, [images])
    twice = condition(once, stored.config, [images])
    for name, value in once.items():
        assert error(twice[name].abs(), value.abs()) < 1e-2 or value.abs().max() < 1e-6, name


def test_weights_without_a_reader_of_the_final_norm(make_source: MakeSource) -> None:
    """The features of a start without decoder and head are the same but for a linear map."""
    weights, stored, images = start(make_source, "eva")
    bare = {name: value.float() for name, value in weights.items() if not name.startswith(("decoder.", "head."))}
    rotated = condition(bare, stored.config, [images])
    assert all(value.dtype == torch.float32 for value in rotated.values())
    before, after = (encode(w, patchify(images, 4), stored.config).flatten(0, 1) for w in (bare, rotated))
    mapped = torch.linalg.lstsq(after.double(), before.double()).solution
    assert error(after.double() @ mapped, before.double()) < 1e-3
