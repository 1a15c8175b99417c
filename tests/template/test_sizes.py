"""Parameters and FLOPs: the paper's Table 1, and what timm really builds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet.models.config import ViTConfig
from sweet.models.vit import skeleton
from sweet.template.sizes import Cost, Size, cost, hidden_features

# size: paper (M, G); LN + GELU (M, G); RMSNorm + SwiGLU with and without a position table (M); with attention (G)
TABLE = {
    "L3H12": ((22.8, 8.6), (22.777, 8.61), 22.775, 22.623, 8.96),
    "L6H12": ((44.0, 17.0), (44.040, 16.99), 44.037, 43.885, 17.68),
    "L6H6": ((11.4, 4.3), (11.404, 4.31), 11.402, 11.326, 4.66),
    "L12H6": ((22.1, 8.5), (22.051, 8.50), 22.047, 21.972, 9.20),
    "L12H3": ((5.7, 2.2), (5.717, 2.16), 5.716, 5.678, 2.51),
}


def plain(size: str) -> Cost:
    return cost(Size.parse(size), mlp="gelu", norm="layer")


def rotary(size: str) -> Cost:
    return cost(Size.parse(size), mlp="swiglu", norm="rms")


@pytest.mark.parametrize("size", TABLE)
def test_table_1(size: str) -> None:
    paper, (params, gflops), with_table, without_table, with_attention = TABLE[size]
    vit = plain(size)
    assert round(vit.parameters() / 1e6, 3) == params
    assert vit.flops() / 1e9 == pytest.approx(gflops, abs=0.006)  # the table's last digit
    assert round(vit.flops(attention=True) / 1e9, 2) == with_attention
    assert (round(vit.parameters() / 1e6, 1), round(vit.flops() / 1e9, 1)) == paper
    assert round(rotary(size).parameters() / 1e6, 3) == with_table
    assert round(rotary(size).parameters(positions=False) / 1e6, 3) == without_table


def test_head_is_counted_apart() -> None:
    vit = plain("L6H6")
    assert vit.parameters() - vit.parameters(head=False) == 1000 * 384 + 1000
    assert vit.flops() - vit.flops(head=False) == 2 * 1000 * 384
    assert cost(Size(1, 1), mlp="gelu", norm="layer", num_classes=0).head == 0


@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize(
    ("depth", "heads", "head_dim", "num_classes"),
    [(12, 3, 64, 1000), (6, 12, 64, 1000), (3, 4, 64, 7), (2, 5, 20, 0), (1, 1, 4, 3), (5, 7, 16, 10)],
)
def test_counts_are_those_of_timms_models(family: str, depth: int, heads: int, head_dim: int, num_classes: int) -> None:
    config = ViTConfig(depth, heads, head_dim, img_size=24, patch_size=4, in_chans=2, family=family)
    counted = cost(
        config.size,
        mlp=config.mlp,
        norm=config.norm,
        img_size=24,
        patch_size=4,
        in_chans=2,
        num_classes=num_classes,
    )
    real = sum(p.numel() for p in skeleton(config, num_classes).parameters())
    assert counted.parameters(positions=family == "vit") == real


def test_vit_b_is_86_million() -> None:
    config = ViTConfig(12, 12, 64, img_size=224, patch_size=16, family="vit")
    assert sum(p.numel() for p in skeleton(config, 1000).parameters()) == plain("L12H12").parameters() == 86_567_656


def test_hidden_features_of_the_methods() -> None:
    """7.3: 8 floor(D / 3) for SwiGLU."""
    assert [hidden_features(64 * h, "swiglu") for h in (3, 4, 5, 6, 9, 12)] == [512, 680, 848, 1024, 1536, 2048]
    assert hidden_features(320, "gelu") == 1280


@given(st.integers(1, 99), st.integers(1, 99))
def test_a_size_is_read_as_it_is_written(depth: int, heads: int) -> None:
    size = Size(depth, heads, 32)
    assert Size.parse(str(size), 32) == size
    assert size.width == 32 * heads


@pytest.mark.parametrize("text", ["", "L6", "6x3", "L6H", "L6H3 ", "l6h3"])
def test_other_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="L6H3"):
        Size.parse(text)


@pytest.mark.parametrize("values", [(0, 1, 64), (1, 0, 64), (1, 1, 0), (-3, 1, 64)])
def test_impossible_sizes(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Size(*values)
