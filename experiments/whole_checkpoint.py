"""Does conditioning help a real checkpoint at its own size? (docs/log.md, 2026-11-30)

    python experiments/whole_checkpoint.py PATH/dinov2-s14 parquet:PATH/cifar10

The checkpoint as it is, conditioned, and conditioned with the stream scaled, each at three rates: 1,000 labels of
CIFAR-10 at 56 pixels, 5 epochs, top-1 on the 5,000 training images that `nano.py` holds out. Every cell is one run of
`sweet finetune` and appends a line to experiments/results/whole_checkpoint.jsonl; one that is there is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from nano import CACHE, split

RESULTS = Path(os.environ.get("WHOLE_RESULTS", Path(__file__).parent / "results" / "whole_checkpoint.jsonl"))
STARTS = {
    "as it is": ("condition=false", "writers=none"),
    "conditioned": ("condition=true", "writers=none"),
    "conditioned, scaled": ("condition=true", "writers=0.2"),
    "scaled": ("condition=false", "writers=0.2"),
}
RATES = ("3e-4", "1e-3", "1e-4")
FINETUNE = (
    "epochs=5 batch_size=32 label_smoothing=0.0 workers=0 device=cpu optim.layer_decay=0.75 data.labels=1000 "
    "data.augment=crop data.val_split=val val_every=0 checkpoint_every=1000"
).split()


def sweet(*args: str) -> dict:
    """What a command prints with --json."""
    done = subprocess.run([sys.executable, "-m", "sweet", *args, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    checkpoint, data = sys.argv[1], split(sys.argv[2])
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    known = {(line["start"], line["lr"]) for line in map(json.loads, lines)}
    for lr in RATES:
        for name, switches in STARTS.items():
            if (name, lr) in known:
                continue
            start = CACHE / "whole" / name.replace(", ", "-").replace(" ", "-")
            if not (start / "config.json").is_file():  # prefix order at its own size: the checkpoint's weights
                size = ("--depth", "12", "--heads", "6", "--img-size", "56", "--data", data)
                sweet("init", checkpoint, *size, "--order", "prefix", "--out", str(start), "gains=none", *switches)
            out = CACHE / "whole" / "run"
            done = sweet(
                "finetune", str(start), "--data", data, "--out", str(out), "--overwrite", *FINETUNE, f"lr={lr}"
            )
            line = {"start": name, "lr": lr, "top1": round(done["top1"], 2), "steps": done["training"]["steps"]}
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
