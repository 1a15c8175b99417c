"""A step of pre-training a template against the same MAE with dense weights, and against transformers' ViTMAE.

    python benchmarks/pretrain_step.py [--rounds 7] [--names dense,...] [--peaks] [--precision fp32] [--json FILE]

Contestants: ``dense``; ``quarter``, ranks (12 L, D/4, D/4), applied in factors; ``shared``, (4 L, D, D) with U and V in
the core (template.lr_u=0 template.lr_v=0), and ``shared_uv``, the same with both learned; ``tiles``; ``transformers``.
They take turns step by step on the same images; ratios are medians over rounds. With ``--peaks`` also the memory of
each, the peak of a process of its own above what it held before it made its model.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import torch
from measure import in_turns, medians, options, peak_mb, ratio, report
from steps import Shape, make

from sweet.training.device import resolve_precision

NAMES = "dense,quarter,shared,shared_uv,tiles,transformers"


def memory(name: str, precision: str) -> float:
    """Peak of two steps of a contestant, in MB."""

    def two_steps() -> None:
        step = make(Shape(precision=precision), name)
        step(0), step(1)

    return peak_mb(two_steps)


def main() -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--names", default=NAMES)
    parser.add_argument("--peaks", action="store_true")
    parser.add_argument("--precision", choices=("auto", "fp32"), default="auto")
    parser.add_argument("--memory", help="print the peak of one contestant and end")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape, names = Shape(precision=args.precision), args.names.split(",")
    if args.memory:
        print(memory(args.memory, args.precision))
        return
    peaks = {}
    for name in names if args.peaks else ():
        words = [sys.executable, __file__, "--memory", name, "--precision", args.precision]
        peaks[name] = round(float(subprocess.run(words, capture_output=True, text=True, check=True).stdout), 1)
    times = in_turns({name: make(shape, name) for name in names}, args.rounds)
    ratios = {
        f"{base}_over_ours": {
            name: ratio(times[base], times[name]) for name in names if name not in (base, "transformers")
        }
        for base in ("dense", "transformers")
        if base in names
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {
        "benchmark": "a step of MAE pre-training: templates, dense weights, transformers",
        "shape": asdict(shape),
        "precision": resolve_precision(args.precision, device),
        "seconds": medians(times, 4),
        **ratios,
        "peak_MB": peaks,
        "peak_over_dense": {name: round(peak / peaks["dense"], 3) for name, peak in peaks.items() if "dense" in peaks},
        "rounds": args.rounds,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
