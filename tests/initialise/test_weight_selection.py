"""The published rule, written again over flat state dicts; what each rule does to heads and rotary pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sweet.initialise.apply import initialise
from sweet.models.vit import encoder_shapes
from sweet.storage.folders import StoredSource, source_tensors
from sweet.template.sizes import Size
from sweet.template.source import target_layers
from sweet.template.target import target_weights

Wide = Callable[..., StoredSource]


def published(value: Tensor, shape: torch.Size) -> Tensor:
    """The release, axis after axis: every s-th entry where s is whole, else evenly rounded ones."""
    for axis, new in enumerate(shape):
        old = value.shape[axis]
        if old % new == 0:
            index = list(range(0, old, old // new))
        else:
            index = [round(i * (old - 1) / (new - 1)) for i in range(new)]
        value = value.index_select(axis, torch.tensor(index))
    return value


@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize("size", ["L3H12", "L6H6", "L12H3", "L5H2"])
def test_uniform_is_the_released_rule_where_widths_divide(family: str, size: str, wide: Wide) -> None:
    source, target = wide(family), Size.parse(size, 4)
    weights = initialise("weight_selection", source, target)
    state = source_tensors(source.source)
    for name, shape in encoder_shapes(source.config.resized(target.depth, target.heads)).items():
        torch.testing.assert_close(weights[name], published(state[name], shape), rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("family", ["eva", "vit"])
def test_uniform_selects_fused_matrices_part_by_part(family: str, wide: Wide) -> None:
    source = wide(family)
    weights = initialise("weight_selection", source, Size(5, 7, 4), layers="even")
    state, layers = source_tensors(source.source), target_layers(12, 5, "even")
    for layer, old in enumerate(layers):
        fused = {"attn.qkv": 3, "mlp.fc1": 2 if family == "eva" else 1}
        for name, value in ((n, v) for n, v in weights.items() if n.startswith(f"blocks.{layer}.")):
            origin = state[name.replace(f"blocks.{layer}.", f"blocks.{old}.")]
            parts = next((count for matrix, count in fused.items() if matrix in name), 1)
            pairs = zip(value.chunk(parts), origin.chunk(parts), strict=True)
            expected = torch.cat([published(part, new.shape) for new, part in pairs])
            torch.testing.assert_close(value, expected, rtol=0, atol=0, msg=name)


def test_consecutive_is_the_prefix_cut_up_to_the_choice_of_hidden_units(wide: Wide) -> None:
    """Hidden units are exchangeable: the released axis rule takes the first ones, a slice some of each slice."""
    source = wide("eva")
    weights = initialise("weight_selection", source, Size(6, 6, 4), rule="consecutive", layers="even")
    prefix = target_weights(source.source, 6, 24, order="prefix", layers="even")
    assert weights.keys() == prefix.keys()
    for name in weights:
        if ".mlp.fc1" not in name and ".mlp.fc2.weight" not in name:
            torch.testing.assert_close(weights[name], prefix[name], rtol=0, atol=0, msg=name)
    gate, up = source.source.core.weights["mlp.fc1.weight"][0].chunk(2)
    expected = torch.cat([gate[:64, :24], up[:64, :24]])
    assert torch.equal(weights["blocks.0.mlp.fc1.weight"], expected)
    down = source.source.core.weights["mlp.fc2.weight"][0]
    assert torch.equal(weights["blocks.0.mlp.fc2.weight"], down[:24, :64])


@pytest.mark.parametrize(
    ("rule", "whole"), [("uniform", False), ("random_consistent", False), ("consecutive", True), ("whole_heads", True)]
)
@pytest.mark.parametrize("heads", [6, 7])
def test_rotary_pairs(rule: str, whole: bool, heads: int, wide: Wide) -> None:
    """A rotary position turns channels i and i + head_dim / 2 of a head, by an angle that depends on i."""
    source = wide("eva")
    bias = source.source.blocks["attn.qkv.bias"][0]
    cut = initialise("weight_selection", source, Size(1, heads, 4), rule=rule)["blocks.0.attn.qkv.bias"]
    origin = torch.tensor([int((bias == value).nonzero()) for value in cut]).view(3, heads, 4)
    assert (origin // 48 == torch.arange(3).view(3, 1, 1)).all()  # q from q, k from k, v from v
    assert torch.equal(origin[0], origin[1] - 48) and torch.equal(origin[0], origin[2] - 96)
    stays = (origin % 4 == torch.arange(4)).all() and (origin // 4 == origin[..., :1] // 4).all()
    assert bool(stays) == whole


def test_whole_heads_are_evenly_spaced(wide: Wide) -> None:
    source = wide("vit")
    cut = initialise("weight_selection", source, Size(2, 3, 4), rule="whole_heads")
    state = source_tensors(source.source)
    columns = torch.tensor([0, 1, 2, 3, 16, 17, 18, 19, 32, 33, 34, 35])
    expected = state["blocks.1.attn.proj.weight"][::4][:, columns]
    assert torch.equal(cut["blocks.1.attn.proj.weight"], expected)


def test_random_consistent_takes_the_same_everywhere(wide: Wide) -> None:
    source = wide("eva")
    one, other = (
        initialise("weight_selection", source, Size(2, 3, 4), rule="random_consistent", seed=s) for s in (0, 1)
    )
    gain = source.source.blocks["norm1.weight"]
    taken = [torch.stack([(gain[i] == v).nonzero()[0, 0] for v in one[f"blocks.{i}.norm1.weight"]]) for i in (0, 1)]
    assert torch.equal(taken[0], taken[1]) and torch.equal(taken[0], taken[0].unique())
    assert torch.equal(one["cls_token"], source.source.stem["cls_token"][..., taken[0]])
    assert torch.equal(one["blocks.0.mlp.fc2.bias"], source.source.blocks["mlp.fc2.bias"][0, taken[0]])
    assert not torch.equal(one["cls_token"], other["cls_token"])
