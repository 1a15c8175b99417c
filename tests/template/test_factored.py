"""Matrices in factors compute what built ones compute, and are chosen where they take fewer products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sweet.models.forward import encode, linear, patchify
from sweet.models.mae import MaskedAutoencoder
from sweet.models.source_module import Part
from sweet.storage.folders import StoredSource
from sweet.template.constraints import core_of
from sweet.template.factored import left_apart
from sweet.template.networks import Network
from sweet.template.sizes import MATRICES, hidden_features
from sweet.template.slices import combined, unpack
from sweet.template.source import Source
from sweet.template.target import absorb, as_trained, masked_weights, target_weights
from sweet.template.tucker import Tucker

MakeSource = Callable[..., StoredSource]

both_families = pytest.mark.parametrize("family", ["eva", "vit"])
MANY = 10**6  # tokens: enough that every matrix whose factors are cheaper is left in them


def in_double(source: Source) -> tuple[Source, dict[str, Tensor]]:
    """The source in float64, and its tensors, which take gradients."""
    parts = {"core": source.core.tensors(), "blocks": source.blocks, "stem": source.stem, "decoder": source.decoder}
    new = {
        part: {name: value.double().requires_grad_() for name, value in values.items()}
        for part, values in parts.items()
    }
    core = core_of(source.core.constraint, new.pop("core"), source.depth)
    made = replace(source, core=core, **new)
    tensors = {**core.tensors(), **made.blocks, **made.stem, **made.decoder}
    return made, {name: value for name, value in tensors.items() if name != "pos_embed"}


@both_families
@pytest.mark.parametrize("ranks", [(10, 6, 6), (36, 6, 20), (36, 12, 4)], ids=str)
@pytest.mark.parametrize(("residual", "inner"), [(3, 3), (2, 3), (3, 1), (1, 2)], ids=lambda heads: f"H{heads}")
def test_factors_give_the_numbers_and_gradients_of_built_matrices(
    make_source: MakeSource, family: str, ranks: tuple[int, int, int], residual: int, inner: int
) -> None:
    stored = make_source(family, ranks=ranks)
    source, tensors = in_double(stored.source)
    config = stored.config
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 16, 16, generator=generator).double()
    down = torch.randn(2, 17, 16, generator=generator).double()
    outputs, gradients = [], []
    for tokens in (None, MANY):
        w = masked_weights(source, 3, 8 * residual, 8 * inner, tokens=tokens)
        apart = [name for name in w if name.endswith(".basis")]
        assert bool(apart) == (tokens is not None and ranks[1] < 8 * residual)
        out = linear(encode(w, patchify(images, 4), config), w, "decoder.embed")
        outputs.append(out)
        gradients.append(torch.autograd.grad((out * down).sum(), list(tensors.values()), allow_unused=True))
    assert (outputs[0] - outputs[1]).norm() < 1e-9 * outputs[0].norm()
    for name, built, factored in zip(tensors, *gradients, strict=True):
        assert (built is None) == (factored is None), name
        if built is not None:
            assert (built - factored).norm() <= 1e-9 * built.norm() + 1e-12, name


@both_families
def test_the_choice_takes_the_fewest_products(make_source: MakeSource, family: str) -> None:
    """Counted by torch while forward runs: no other choice of matrices is cheaper."""
    config = make_source(family).config
    hidden = hidden_features(24, config.mlp)
    for ranks, tokens in product([(36, 4, 4), (36, 12, 12), (36, 18, 18), (12, 24, 24)], [3, 40, 400]):
        core = make_source(family, ranks=ranks).source.core
        assert isinstance(core, Tucker)
        chosen = left_apart(core, tokens, 24, 24, hidden, config.mlp)

        def cost(apart: frozenset[str], core: Tucker = core, tokens: int = tokens) -> int:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                small = core if apart else core.narrowed(24, 24)
                weights, x = small.stacked(24, config.mlp), torch.zeros(tokens, 24)
                for name in MATRICES:
                    reads = name in (MATRICES[0], MATRICES[2])
                    for w in weights[name]:
                        if small.u is not None and name not in apart:
                            w = w @ small.u.t() if reads else small.u @ w
                        y = x if reads else torch.zeros(tokens, w.shape[1])
                        if name in apart and small.u is not None:
                            y @ small.u @ w.t() if reads else y @ w.t() @ small.u.t()
                        else:
                            y @ w.t()
            return counter.get_total_flops()

        subsets = [
            frozenset(n for n, taken in zip(MATRICES, bits, strict=True) if taken) for bits in product((0, 1), repeat=4)
        ]
        assert cost(chosen) == min(map(cost, subsets)), (ranks, tokens, chosen)


def test_no_factors_unless_tokens_are_named(make_source: MakeSource) -> None:
    source = make_source(ranks=(10, 6, 6)).source
    assert not [name for name in target_weights(source, 3, 24, order="prefix") if name.endswith("basis")]
    assert not [name for name in target_weights(absorb(source), 3, 32, order="prefix", tokens=MANY) if "basis" in name]


@both_families
def test_micro_batches_of_a_step_share_one_rebuild(
    make_source: MakeSource, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_source(family, ranks=(10, 20, 18))
    images, noise = torch.randn(6, 3, 16, 16), torch.rand(6, 16)
    model = MaskedAutoencoder(stored.source, stored.config, stored.mae)
    built: list[Network] = []
    build = model.weights
    monkeypatch.setattr(model, "weights", lambda network, tokens: built.append(network) or build(network, tokens))
    networks = [Network(3, 3, 3), Network(3, 2, 1), Network(3, 3, 3)]  # a sandwich may draw the same width twice
    gradients = []
    for parts in (1, 3):
        built.clear()
        for index, (some, masks) in enumerate(zip(images.chunk(parts), noise.chunk(parts), strict=True)):
            (model(some, masks, networks, Part(index, parts)) / parts).backward()
        assert built == networks[: 3 if parts == 1 else 2]
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        model.zero_grad()
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize(("residual", "inner"), [(16, 16), (10, 25), (100, 100), (7, 50), (4, 2)])
def test_combined_slices_are_unpacked_ones(mlp: str, residual: int, inner: int) -> None:
    x, core = torch.randn(24, 5).double(), torch.randn(5, residual, inner).double()
    expected = unpack((x @ core.flatten(1)).view(2, 12, residual, inner), mlp)
    for needed in (False, True):
        found = combined(x, core.requires_grad_(needed), mlp)
        assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in expected.items()}
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ranks", [(10, 24, 24), (10, 20, 18)], ids=["contracted", "with U"])
def test_what_absorb_rotates_is_rotated_back(make_source: MakeSource, ranks: tuple[int, int, int]) -> None:
    source = make_source("eva", ranks=ranks, ordered=True, unit_gains=True).source
    absorbed = absorb(source)
    assert absorbed.order is not None and absorbed.order.absorbed
    back = as_trained(absorbed)
    assert back.order is not None and not back.order.absorbed and as_trained(back) is back
    expected = target_weights(source, 3, 24, order="prefix")
    for name, value in target_weights(back, 3, 24, order="prefix").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)
