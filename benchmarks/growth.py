"""How a step of pre-training and its memory grow with width, depth, batch and tokens; exponents fitted in log-log.

    python benchmarks/growth.py [--name dense] [--rounds 3] [--json FILE]

Around D = 384, L = 12, 64 patches, batch 16 each quantity is changed alone; the decoder's width is half of the
encoder's. ``--name`` as in pretrain_step.py. An exponent of 1 is linear. Memory is the peak above what was held before.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import torch
from measure import in_turns, options, peak_mb, report
from steps import Shape, make

BASE = Shape(batch=16)
AXES: dict[str, dict[float, Shape]] = {
    "width": {d: replace(BASE, width=d, decoder_width=d // 2) for d in (192, 384, 768)},
    "depth": {n: replace(BASE, depth=n) for n in (6, 12, 24)},
    "batch": {n: replace(BASE, batch=n) for n in (16, 32)},
    "tokens": {n * n: replace(BASE, grid=n) for n in (8, 16)},
}


def measured(shape: Shape, name: str, rounds: int) -> tuple[float, float]:
    """CPU seconds of a step and peak memory in MB."""
    seconds: list[float] = []
    peak = peak_mb(lambda: seconds.extend(in_turns({name: make(shape, name)}, rounds)[name]))
    return statistics.median(seconds), peak


def exponent(values: dict[float, float]) -> float:
    """Slope of log(value) over log(quantity)."""
    return round(float(np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0]), 2)


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--name", default="dense")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, dict[str, dict[float, float]]] = {}
    for axis, shapes in AXES.items():
        table[axis] = {"seconds": {}, "peak_MB": {}}
        for value, shape in shapes.items():
            seconds, peak = measured(shape, args.name, args.rounds)
            table[axis]["seconds"][value], table[axis]["peak_MB"][value] = round(seconds, 4), round(peak, 1)
    result = {
        "benchmark": "growth of a step of MAE pre-training and of its memory",
        "contestant": args.name,
        "measured": table,
        "exponents": {axis: {what: exponent(values) for what, values in rows.items()} for axis, rows in table.items()},
        "rounds": args.rounds,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
