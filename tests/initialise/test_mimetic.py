"""Products of attention weights are the noisy identities of the paper."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sweet.initialise.apply import initialise
from sweet.models.mae import sincos
from sweet.storage.folders import StoredSource
from sweet.template.sizes import Size

MakeSource = Callable[..., StoredSource]


def products(weights: dict[str, Tensor], heads: int, layer: int = 0) -> tuple[list[Tensor], Tensor]:
    """W_q W_k^T of each head and W_v W_proj, in the paper's orientation x W."""
    q, k, v = weights[f"blocks.{layer}.attn.qkv.weight"].chunk(3)
    pairs = zip(q.chunk(heads), k.chunk(heads), strict=True)
    return [a.t() @ b for a, b in pairs], v.t() @ weights[f"blocks.{layer}.attn.proj.weight"].t()


def moments(product: Tensor) -> tuple[float, float]:
    """(mean of the diagonal, standard deviation of the rest times sqrt(D))."""
    width = len(product)
    rest = product[~torch.eye(width, dtype=torch.bool)]
    return product.diagonal().mean().item(), rest.std().item() * width**0.5


def test_value_times_projection_is_a_negative_noisy_identity(make_source: MakeSource) -> None:
    weights = initialise("mimetic", make_source("vit"), Size(2, 12, 8))
    for layer in (0, 1):
        diagonal, noise = moments(products(weights, 12, layer)[1])
        assert diagonal == pytest.approx(-0.4, abs=0.03) and noise == pytest.approx(0.4, rel=0.05)


def test_one_head_reaches_query_times_key_exactly(make_source: MakeSource) -> None:
    source = make_source("eva", head_dim=64, heads=1)
    [product], _ = products(initialise("mimetic", source, Size(1, 1, 64)), 1)
    diagonal, noise = moments(product)
    assert diagonal == pytest.approx(0.7, abs=0.05) and noise == pytest.approx(0.7, rel=0.1)
    [exact], value = products(initialise("mimetic", source, Size(1, 1, 64), alpha_qk=0, alpha_vo=0), 1)
    torch.testing.assert_close(exact, 0.7 * torch.eye(64), rtol=0, atol=1e-5)
    torch.testing.assert_close(value, -0.4 * torch.eye(64), rtol=0, atol=1e-5)


def test_a_head_is_the_best_approximation_of_its_rank(make_source: MakeSource) -> None:
    """Its singular values are those of a noisy identity, the head_dim largest: q and k share them evenly."""
    weights = initialise("mimetic", make_source("vit"), Size(1, 6, 8))
    heads, _ = products(weights, 6)
    for product in heads:
        values = torch.linalg.svdvals(product)
        assert values[8:].max() < 1e-5
        assert values[7] > 0.9 * 1.0  # all values of 0.7 Z + 0.7 I reach from 0 to 2.1; their upper sixth lies here
    q, k, _ = weights["blocks.0.attn.qkv.weight"].chunk(3)
    for a, b in zip(q.chunk(6), k.chunk(6), strict=True):
        gram = a @ a.t()
        torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-5)
        torch.testing.assert_close(gram, b @ b.t(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(heads[0], heads[1])


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_positions_and_biases(make_source: MakeSource, family: str) -> None:
    source = make_source(family)
    weights = initialise("mimetic", source, Size(2, 2, 8), seed=5)
    for layer in (0, 1):
        assert not weights[f"blocks.{layer}.attn.qkv.bias"].any()
        assert not weights[f"blocks.{layer}.attn.proj.bias"].any()
    assert ("pos_embed" in weights) == (family == "vit")
    if family == "vit":
        assert torch.equal(weights["pos_embed"][0], sincos(4, 16, nested=True))
    rest = initialise("random", source, Size(2, 2, 8), seed=5)
    assert all(torch.equal(weights[name], rest[name]) for name in rest if ".attn." not in name)
