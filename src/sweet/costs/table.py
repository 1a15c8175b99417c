"""Parameters and FLOPs of several sizes of a model, by closed formula. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from sweet.models.config import ViTConfig
from sweet.template.sizes import Size

SHARES = ((1, 1), (4, 1), (2, 1), (2, 2), (1, 2), (1, 4))  # of a source's depth and heads: it, and the paper's Table 1


def size_table(config: ViTConfig, sizes: list[Size], num_classes: int) -> list[Mapping[str, str | int | float]]:
    """Parameters (M) and forward FLOPs (G) of sizes, by both conventions of :meth:`sweet.template.sizes.Size.flops`."""
    rows: list[Mapping[str, str | int | float]] = []
    for size in sizes:
        c = config.resized(size.depth, size.heads).cost(num_classes)
        positions = config.positions == "table"
        rows.append(
            {
                "size": str(size),
                "width": size.width,
                "params_m": round(c.parameters(positions=positions) / 1e6, 3),
                "params_no_head_m": round(c.parameters(head=False, positions=positions) / 1e6, 3),
                "gflops": round(c.flops() / 1e9, 3),
                "gflops_with_attention": round(c.flops(attention=True) / 1e9, 3),
            }
        )
    return rows


def example_sizes(config: ViTConfig) -> list[Size]:
    """The source's own size and smaller ones: of L12H12 those of the paper's Table 1, of others the same shares."""
    sizes = [
        Size(max(1, config.depth // depth), max(1, config.heads // heads), config.head_dim) for depth, heads in SHARES
    ]
    return list(dict.fromkeys(sizes))
