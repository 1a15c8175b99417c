"""Twelve slices and back, and that a prefix of slices is a narrower block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sweet.template.sizes import hidden_features
from sweet.template.slices import (
    FC1,
    FC2,
    PROJ,
    QKV,
    SLICES,
    is_new_unit,
    pack,
    select_inner,
    stack_blocks,
    unpack,
    unstack_blocks,
)

MLPS = st.sampled_from(["swiglu", "gelu"])
WIDTHS = st.integers(3, 14)


def random_slices(depth: int, residual: int, inner: int) -> Tensor:
    return torch.randn(depth, SLICES, residual, inner, generator=torch.Generator().manual_seed(0)) / 4


def vectors() -> Tensor:
    return torch.randn(5, 10, generator=torch.Generator().manual_seed(1))


def mlp_output(weights: dict[str, Tensor], x: Tensor, mlp: str) -> Tensor:
    hidden = F.linear(x, weights[FC1][0])
    if mlp == "gelu":
        return F.linear(F.gelu(hidden), weights[FC2][0])
    gate, up = hidden.chunk(2, -1)
    return F.linear(F.silu(gate) * up, weights[FC2][0])


def mlp_of_slices(slices: Tensor, x: Tensor, mlp: str) -> Tensor:
    """The rule as the methods state it (7.3), straight from the eight slices (8, R, d)."""
    if mlp == "gelu":
        return sum(F.gelu(x @ slices[j]) @ slices[4 + j].t() for j in range(4))
    units = slices.shape[2] // 3
    columns = [slices[:, :, part : 3 * units : 3] for part in range(3)]
    return sum((F.silu(x @ gate) * (x @ up)) @ down.t() for gate, up, down in zip(*columns, strict=True))


@settings(deadline=None, max_examples=30)
@given(MLPS, WIDTHS, WIDTHS)
def test_unpack_gives_timms_shapes_and_pack_is_its_inverse(mlp: str, residual: int, inner: int) -> None:
    slices = random_slices(2, residual, inner)
    weights = unpack(slices, mlp)
    hidden = hidden_features(inner, mlp)
    assert weights[QKV].shape == (2, 3 * inner, residual)
    assert weights[PROJ].shape == (2, residual, inner)
    assert weights[FC1].shape == (2, hidden * (2 if mlp == "swiglu" else 1), residual)
    assert weights[FC2].shape == (2, residual, hidden)
    packed = pack(weights, mlp)
    used = 3 * (inner // 3) if mlp == "swiglu" else inner
    assert torch.equal(packed[:, :4], slices[:, :4])
    assert torch.equal(packed[:, 4:, :, :used], slices[:, 4:, :, :used])
    assert not packed[:, 4:, :, used:].any()  # columns that belong to no hidden unit
    for name, value in unpack(packed, mlp).items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize("inner", [12, 13, 14])
def test_the_mlp_of_the_slices(mlp: str, inner: int) -> None:
    slices = random_slices(1, 10, inner)
    x = vectors()
    torch.testing.assert_close(
        mlp_output(unpack(slices, mlp), x, mlp), mlp_of_slices(slices[0, 4:], x, mlp), rtol=1e-4, atol=1e-5
    )


def test_attention_slices_read_transposed_and_write_straight() -> None:
    slices = random_slices(1, 10, 6)
    weights = unpack(slices, "swiglu")
    assert torch.equal(weights[QKV][0], torch.cat([slices[0, part].t() for part in range(3)]))
    assert torch.equal(weights[PROJ][0], slices[0, 3])


@settings(deadline=None, max_examples=40)
@given(MLPS, st.data())
def test_a_prefix_of_slices_is_a_narrower_block(mlp: str, data: st.DataObject) -> None:
    inner = data.draw(WIDTHS)
    target = data.draw(st.integers(3, inner))
    slices = random_slices(2, 7, inner)
    narrow = unpack(slices[:, :, :5, :target], mlp)
    selected = select_inner(unpack(slices[:, :, :5], mlp), inner, target, mlp)
    for name, value in narrow.items():
        assert torch.equal(value, selected[name]), name


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize(("source", "target"), [(8, 16), (7, 11), (6, 20)])
def test_a_wider_block_computes_the_same(mlp: str, source: int, target: int) -> None:
    slices = random_slices(1, 10, source)
    weights = unpack(slices, mlp)
    biases = {
        "attn.qkv.bias": torch.randn(1, 3 * source),
        "mlp.fc1.bias": torch.randn(1, weights[FC1].shape[1]),
    }
    wide = select_inner(weights | biases, source, target, mlp)
    x = vectors()
    torch.testing.assert_close(mlp_output(wide, x, mlp), mlp_output(weights, x, mlp), rtol=1e-4, atol=1e-5)
    assert not wide[PROJ][:, :, source:].any()
    assert torch.equal(wide[PROJ][:, :, :source], weights[PROJ])
    # new readers are copies of old ones, never zero, so that they can learn
    assert all(bool(wide[name].any(-1).all()) for name in (QKV, FC1))
    assert torch.equal(wide["attn.qkv.bias"].view(3, target)[:, source], biases["attn.qkv.bias"].view(3, source)[:, 0])
    assert int(is_new_unit(source, target, mlp, FC2).sum()) == wide[FC2].shape[2] - weights[FC2].shape[2]


def test_stacking_blocks_and_back() -> None:
    state = {f"blocks.{i}.{name}": torch.randn(3) for i in range(3) for name in ("norm1.weight", "mlp.fc1.bias")}
    stacked = stack_blocks(state | {"cls_token": torch.zeros(1)}, 3)
    assert {name: value.shape for name, value in stacked.items()} == {"norm1.weight": (3, 3), "mlp.fc1.bias": (3, 3)}
    back = unstack_blocks(stacked)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
