"""Four tasks on real images from one template, by the commands that a user types: what each reaches, and in what time.

python benchmarks/tasks.py TEMPLATE --data ../shared/data --work runs/tasks --out results/tasks

TEMPLATE is one of 32 px in patches of 4, such as `sweet pretrain nano` learns. Runs stay in --work, with pictures; one
that was stopped goes on where it was. One JSON per run goes to --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from sweet.files import read_json, write_json
from sweet.training.run_folder import environment

SIZE = ["--depth", "4", "--heads", "4"]


@dataclass(frozen=True)
class Run:
    """``data`` is a source with PATH for the folder of all sets; ``split`` the one to be tested on."""

    task: str
    data: str
    split: str
    keys: tuple[str, ...] = ()
    pixels: tuple[str, ...] = ()  # options of `sweet init`


LARGE = ("--img-size", "256", "--patch-size", "8")
SCENES = ("--img-size", "160", "--patch-size", "8")
RATE = ("lr=4e-3", "optim.layer_decay=0.75")  # what starts like best, docs/log.md
NO_VAL = ("data.val_split=test",)  # CIFAR-10 has none
RUNS = {
    "classify": Run("classify", "parquet:PATH/cifar10", "test", ("epochs=3", "data.augment=crop", *RATE, *NO_VAL)),
    "detect-bccd": Run("detect", "coco:PATH/bccd", "test", ("max_steps=200",), LARGE),
    "detect-penn-fudan": Run("detect", "coco:PATH/penn-fudan", "val", ("max_steps=200",), LARGE),
    "segment-camvid": Run("segment", "masks:PATH/camvid", "test", (), SCENES),
    "segment-camvid-balanced": Run("segment", "masks:PATH/camvid", "test", ("head.balance=1",), SCENES),
    "segment-camvid-half-balanced": Run("segment", "masks:PATH/camvid", "test", ("head.balance=0.5",), SCENES),
    "generate": Run("generate", "parquet:PATH/cifar10", "test", ("max_steps=300", *NO_VAL)),
    "generate-untrained": Run("generate", "parquet:PATH/cifar10", "test", ("max_steps=1", *NO_VAL)),
}


def sweet(*words: str | Path) -> dict[str, object]:
    """What a command prints as JSON; its progress goes to this terminal."""
    told = ["sweet", *map(str, words), "--json"]
    print("$", *told, file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", *told], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def go(name: str, run: Run, template: Path, data: Path, work: Path) -> dict[str, object]:
    """Make the model, fine-tune and evaluate it: metrics, seconds and commands of one run."""
    model, tuned = work / f"{name}-start", work / name
    source = run.data.replace("PATH", str(data))
    if not (model / "config.json").is_file():
        sweet("init", template, *SIZE, *run.pixels, "--out", model, "--overwrite")
    given = ("--task", run.task, "--data", source)
    sweet("finetune", model, *given, "--out", tuned, "--resume", *run.keys)
    before = perf_counter()
    metrics = sweet("evaluate", tuned, *given, "--split", run.split)
    return {
        "data": run.data.split("PATH/")[-1],
        "init": [*SIZE, *run.pixels],
        "finetune": ["--task", run.task, *run.keys],
        "split": run.split,
        "metrics": metrics,
        "training": read_json(tuned / "config.json")["training"],
        "evaluation_seconds": round(perf_counter() - before, 1),
        "template": read_json(template / "config.json").get("training"),
        "environment": environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("template", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", default=",".join(RUNS))
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    told.out.mkdir(parents=True, exist_ok=True)
    for name in told.runs.split(","):
        write_json(told.out / f"{name}.json", go(name, RUNS[name], told.template, told.data, told.work))


if __name__ == "__main__":
    main()
