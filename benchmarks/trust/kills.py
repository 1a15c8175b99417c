"""SIGKILL at random moments: whatever was killed ends, started again, with the same bits as if nothing had happened.

    python benchmarks/trust/kills.py [--kills 50] [--jobs NAME,NAME] [--json FILE]

Every run is a forked real process that has torch already; it is killed one to three times at moments drawn evenly from
its whole duration, started again with the same command each time, and then left to finish. ``init`` starts anew with
--overwrite; ``fit`` and ``distilled`` are methods that train and go on from their checkpoints. Rows of other jobs that
are in FILE already stay.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parents[1])]
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import torch
import torch.utils.tensorboard
from measure import report

from sweet.__main__ import main as program
from sweet.bench import schedule
from sweet.bench.arms import ARMS, arms
from sweet.bench.protocol import Protocol
from sweet.bench.run import run as run_bench
from sweet.storage.outputs import TRAINING
from sweet.training import short_run

TINY = ROOT / "tests" / "tiny.yaml"
SHAPES = "shapes:n=64,size=16"
SETTINGS = "device=cpu workers=0 batch_size=16 optim.precision=fp32".split()
STEPS = ["max_steps=24", "checkpoint_every=2"]


@dataclass(frozen=True)
class Job:
    """``start(out)`` does the whole work into ``out``, or the rest of it; ``weights`` are the files to compare."""

    start: Callable[[Path], None]
    weights: str


def sweet_(*words: object) -> None:
    sys.argv = ["sweet", *map(str, words)]
    program()


def pretrain(out: Path) -> None:
    sweet_("pretrain", TINY, "--out", out, "--resume", "width.mode=independent", *STEPS)


def finetune(out: Path) -> None:
    noise = ["drop_path=0.2", "mixup=0.2", "ema=0.9"]
    sweet_("finetune", "model", "--data", SHAPES, "--out", out, "--resume", *SETTINGS, *STEPS, *noise)


def init(out: Path) -> None:
    again = ["--overwrite"] if out.exists() else []
    fitted = ["--method", "sweet_fitted", "--fit", SHAPES, "steps=40", "batch=16", "--device", "cpu"]
    sweet_("init", "template", "--depth", 1, "--heads", 1, *fitted, "--out", out, *again)


def trained(method: str, out: Path) -> None:
    """``sweet init`` by a method that trains: goes on where a training was begun, and starts anew where none was."""
    short_run.CHECKPOINT = 5
    begun = (out / TRAINING).is_dir() or (out / "config.json").is_file()
    again = ["--resume"] if begun else ["--overwrite"] if out.exists() else []
    switches = ["--method", method, "--fit", SHAPES, "steps=40", "batch=16", "--device", "cpu"]
    sweet_("init", "template", "--depth", 1, "--heads", 1, *switches, "--out", out, *again)


def family(out: Path) -> None:
    sweet_("family", "template", "--sizes", "L1H1,L2H2", "--data", SHAPES, "--out", out, "--resume", *SETTINGS, *STEPS)


def bench(out: Path) -> None:
    tiny = Protocol(
        name="tiny",
        pretrain=str(TINY),
        sizes=("L1H1",),
        arms=arms("random") | {"sweet": ARMS["sweet_tucker"]},
        seeds=1,
        finetune=("max_steps=12", "checkpoint_every=2", "data.augment=crop", "data.val_split=test", *SETTINGS),
    )
    os.environ["SWEET_CACHE"] = str(out / "cache")
    fork = multiprocessing.get_context("fork")
    schedule.multiprocessing.get_context = lambda _: fork
    schedule.cores = lambda: 1
    run_bench(tiny, "tiny", out=out, workers=1, device="cpu", quiet=True)


JOBS = {
    "pretrain": Job(pretrain, "template.safetensors"),
    "finetune": Job(finetune, "model.safetensors"),
    "init": Job(init, "model.safetensors"),
    "fit": Job(partial(trained, "sweet_fitted"), "model.safetensors"),
    "distilled": Job(partial(trained, "distilled"), "model.safetensors"),
    "family": Job(family, "L*/model.safetensors"),
    "bench": Job(bench, "tiny/tiny/classify-*.json"),
}


def started(start: Callable[[Path], None], out: Path) -> int:
    """The process group of a new process that does the work."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        os.setpgid(process, process)  # here as well: a kill may come before the child's own call
        return process
    code = 1
    try:
        os.setpgid(0, 0)
        said = os.open(f"{out}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(said, stream)
        torch.set_num_threads(1)
        start(out)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException as problem:
        print(repr(problem), file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def finished(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill(process: int) -> bool:
    """Whether it was still there to be killed, its workers with it."""
    if os.waitpid(process, os.WNOHANG)[0]:
        return False
    os.killpg(process, signal.SIGKILL)
    return finished(process) == -signal.SIGKILL


def result(job: Job, out: Path) -> dict[str, str]:
    """What a finished run gave: checksums of weights, or what a bench measured, without times."""
    found = {}
    for path in sorted(out.glob(job.weights)):
        value = path.read_bytes()
        if path.suffix == ".json":
            keys = ("seed", "top1", "top5", "test_loss", "train_loss", "source_sha256")
            value = json.dumps([[run.get(key) for key in keys] for run in json.loads(value)["runs"]]).encode()
        found[str(path.relative_to(out))] = hashlib.sha256(value).hexdigest()
    return found


def killed_runs(name: str, kills: int, draw: random.Random, work: Path) -> dict[str, object]:
    """Kill a job ``kills`` times in chains of one to three; counts of what came out."""
    job = JOBS[name]
    began = time.monotonic()
    assert finished(started(job.start, work / "whole")) == 0, (work / "whole.said").read_text()
    seconds, expected = time.monotonic() - began, result(job, work / "whole")
    assert expected
    counts = {"kills": 0, "chains": 0, "equal": 0, "too_late": 0}
    wrong: list[str] = []
    while counts["kills"] < kills:
        out = work / f"{name}-{counts['chains']}"
        before = counts["kills"]
        for _ in range(min(draw.randint(1, 3), kills - before)):
            process = started(job.start, out)
            time.sleep(draw.uniform(0, seconds))
            if kill(process):
                counts["kills"] += 1
            else:
                counts["too_late"] += 1
                break
        if counts["kills"] == before:  # it had ended by itself
            shutil.rmtree(out, ignore_errors=True)
            continue
        counts["chains"] += 1
        code = finished(started(job.start, out))
        if code == 0 and result(job, out) == expected:
            counts["equal"] += 1
        else:
            wrong.append(f"chain {counts['chains']}: code {code}, {Path(f'{out}.said').read_text()[-300:]}")
        shutil.rmtree(out, ignore_errors=True)
    print(name, counts, *wrong, sep="\n  ", flush=True)
    return {"job": name, **counts, "seconds_of_one_run": round(seconds, 1), "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=5, help="of each job")
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    place = args.json and args.json.absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["SWEET_CACHE"] = str(Path(folder) / "cache")
        work = Path(folder) / "work"
        work.mkdir()
        prepared = [
            lambda out: sweet_("pretrain", TINY, "--out", "template"),
            lambda out: sweet_("init", "template", "--depth", 2, "--heads", 2, "--out", "model"),
        ]
        for step, start in enumerate(prepared):
            assert finished(started(start, work / f"prepare-{step}")) == 0
        rows = {row["job"]: row for row in json.loads(place.read_text())["jobs"]} if place and place.exists() else {}
        for name in args.jobs.split(","):
            (work / name).mkdir()
            draw = random.Random(f"{args.seed} {name}")
            rows[name] = {"seed": args.seed, **killed_runs(name, args.kills, draw, work / name)}
            report({"jobs": list(rows.values())}, place)
    sys.exit(any(row["wrong"] for row in rows.values()))


if __name__ == "__main__":
    main()
