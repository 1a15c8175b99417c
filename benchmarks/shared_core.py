"""Training on all cores while another program keeps one busy: how long threads may wait for each other.

    python benchmarks/shared_core.py [--rounds 3] [--json FILE]

Steps of a small ViT by a plain timm loop, in processes of their own that take turns: with libgomp's own waiting and
with the one that ``import sweet`` sets (GOMP_SPINCOUNT), alone and beside a program that never rests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from measure import medians, options, ratio, report

import sweet

SECONDS = 6.0
WAITING = {"libgomp": None, "sweet": os.environ["GOMP_SPINCOUNT"]}


def steps() -> float:
    """Images a second of this process."""
    import timm
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = timm.create_model("vit_tiny_patch16_224", img_size=56, patch_size=14, depth=6, num_classes=10).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images, labels = torch.randn(64, 3, 56, 56), torch.randint(0, 10, (64,))
    began, done = 0.0, -2
    while done < 0 or time.perf_counter() - began < SECONDS:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        done += 1
        if not done:  # two steps to warm up
            began = time.perf_counter()
    return len(images) * done / (time.perf_counter() - began)


def measured(waiting: str | None) -> float:
    """:func:`steps` in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    if waiting is not None:
        environment["GOMP_SPINCOUNT"] = waiting
    # torch first: importing sweet would set the waiting of both
    words = [sys.executable, "-c", "import torch, shared_core; print(shared_core.steps())"]
    done = subprocess.run(words, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    args = options(__doc__, rounds=3).parse_args()
    speed: dict[str, dict[str, list[float]]] = {"alone": {}, "shared": {}}
    for _ in range(args.rounds):
        for place, found in speed.items():
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if place == "shared" else None
            try:
                for name, waiting in WAITING.items():
                    found.setdefault(name, []).append(measured(waiting))
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
    result = {
        "benchmark": "training on all cores, alone and beside a program that keeps one busy",
        "spincount": WAITING["sweet"],
        "sweet": sweet.__version__,
        "img_per_second": {place: medians(found, 1) for place, found in speed.items()},
        "sweet_over_libgomp": {place: ratio(found["sweet"], found["libgomp"], 2) for place, found in speed.items()},
        "rounds": args.rounds,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
