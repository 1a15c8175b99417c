"""Attention by plain products against torch's fused kernel, by head size and number of tokens.

    python benchmarks/attention.py [--rounds 9] [--dtype float32|bfloat16] [--json FILE]

With gradients (forward and backward) and without. What :func:`sweet.models.forward.attention` chooses follows this.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import options, report
from torch import Tensor

from sweet.training.device import keep_memory

SHAPES = [(64, 6, 17, 64), (64, 12, 17, 16), (64, 3, 65, 64), (64, 12, 65, 16), (16, 6, 197, 64), (8, 6, 197, 32)]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two products and a softmax."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def seconds(attend: Attention, shape: tuple[int, int, int, int], dtype: torch.dtype, *, gradients: bool) -> float:
    """CPU seconds of one call, its backward pass included."""
    b, h, n, d = shape
    q, k, v = (torch.randn(b, n, h, d, dtype=dtype, requires_grad=gradients).transpose(1, 2) for _ in range(3))
    began = time.process_time()
    with torch.set_grad_enabled(gradients):
        out = attend(q, k, v)
    if gradients:
        out.sum().backward()
    return time.process_time() - began


def main() -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    rows, dtype = [], getattr(torch, args.dtype)
    for shape in SHAPES:
        row: dict[str, object] = dict(zip(("images", "heads", "tokens", "head_dim"), shape, strict=True))
        for gradients in (True, False):
            ratios = [
                seconds(plain, shape, dtype, gradients=gradients)
                / seconds(F.scaled_dot_product_attention, shape, dtype, gradients=gradients)
                for _ in range(args.rounds + 1)
            ]
            row["with_gradients" if gradients else "without"] = round(statistics.median(ratios[1:]), 2)
        rows.append(row)
    result = {
        "benchmark": "attention, plain products over the fused kernel",
        "dtype": args.dtype,
        "plain_over_fused": rows,
    }
    report({**result, "rounds": args.rounds}, args.json)


if __name__ == "__main__":
    main()
