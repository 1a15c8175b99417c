"""Several processes of one run, started by the real launchers over gloo: what ends them, and what they come to.

    python benchmarks/trust/ranks.py [--tries 10] [--json results/trust/ranks.json]

``--tries`` is how often a process is killed under ``torchrun --max-restarts``, at moments drawn from the whole run; the
weights must be those of the run that nothing has happened to. The rest is done once. Minutes; no GPU.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parents[1])]

from measure import report

from sweet.files import read_tensors, sha256

TINY = str(ROOT / "tests" / "tiny.yaml")
SHORT = ["device=cpu", "max_steps=20", "checkpoint_every=5", "width.mode=independent"]
LONG = ["device=cpu", "max_steps=4000", "checkpoint_every=5"]
BIN = Path(sys.executable).parent
WEIGHTS, PATIENCE = "template.safetensors", 300.0


@dataclass(frozen=True)
class Row:
    """What one launch came to; ``seconds`` from what happened to its end, ``right`` whether it should be so."""

    case: str
    code: int
    seconds: float
    result: str
    right: bool


def torchrun(*more: str) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    return [str(BIN / "torchrun"), "--nproc-per-node", "2", *place, *more, "-m", "sweet"]


def accelerate(*more: str) -> list[str]:
    words = "launch --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
    return [str(BIN / "accelerate"), *words.split(), *more, "-m", "sweet"]


def started(launcher: list[str], out: str, keys: list[str]) -> subprocess.Popen[bytes]:
    words = [*launcher, "pretrain", TINY, *keys, "--out", out]
    with Path(f"{out}.said").open("wb") as said:
        return subprocess.Popen(words, stdout=said, stderr=said)


def ended(run: subprocess.Popen[bytes]) -> int:
    try:
        return run.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        run.kill()
        return run.wait()


def kill_rank_1(run: subprocess.Popen[bytes]) -> bool:
    """SIGKILL to the process of rank 1 among the children of a launcher; whether there was one."""
    for task in Path(f"/proc/{run.pid}/task").glob("*/children"):
        for child in task.read_text().split():
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"RANK=1" in environment:
                os.kill(int(child), signal.SIGKILL)
                return True
    return False


def await_path(run: subprocess.Popen[bytes], path: Path) -> bool:
    while not path.exists():
        if run.poll() is not None:
            return False
        time.sleep(0.01)
    return True


def said(out: str, word: str) -> str:
    lines = Path(f"{out}.said").read_text(errors="replace").splitlines()
    return next((line for line in lines if word in line), "")


def apart(one: str, two: str) -> float:
    """The largest difference of two runs' weights, but for the bias of keys, which changes nothing."""
    first, second = (read_tensors(Path(out) / WEIGHTS) for out in (one, two))
    names = [name for name in first if not name.endswith("qkv.bias") and not name.startswith("order")]
    return max(float((first[name] - second[name]).abs().max()) for name in names)


def same(one: str, two: str) -> bool:
    return all((Path(out) / WEIGHTS).is_file() for out in (one, two)) and sha256(Path(one) / WEIGHTS) == sha256(
        Path(two) / WEIGHTS
    )


def undisturbed() -> list[Row]:
    """The run of one process, of two, of accelerate's two, and of two that hold half of the model each."""
    rows = []
    for case, launcher, out in (
        ("one process", [sys.executable, "-m", "sweet"], "one"),
        ("torchrun", torchrun(), "whole"),
        ("accelerate launch", accelerate("--multi_gpu"), "launched"),
        ("accelerate launch --use_fsdp", accelerate("--use_fsdp"), "divided"),
    ):
        began = time.monotonic()
        code = ended(started(launcher, out, [*SHORT, "-q"]))
        gap = apart(out, "one") if code == 0 else float("nan")
        result = f"weights differ from one process's by {gap:.1e}"
        rows.append(Row(case, code, round(time.monotonic() - began, 1), result, code == 0 and gap <= 1e-6))
        print(rows[-1], flush=True)
    return rows


def killed() -> Row:
    run = started(torchrun(), "lost", [*LONG, "-q"])
    await_path(run, Path("lost/checkpoints/step-10"))
    hit, since = kill_rank_1(run), time.monotonic()
    code = ended(run)
    line = said("lost", "error: another process")
    right = hit and code == 1 and bool(line)
    return Row("a process is killed", code, round(time.monotonic() - since, 1), line, right)


def terminated() -> Row:
    run = started(torchrun(), "term", [*LONG, "checkpoint_every=3000"])
    await_path(run, Path("term/metrics.jsonl"))
    run.terminate()
    since = time.monotonic()
    code = ended(run)
    saved = [path.name for path in Path("term/checkpoints").glob("step-*")]
    line = said("term", "saving a checkpoint")
    seconds = round(time.monotonic() - since, 1)
    return Row("SIGTERM to torchrun", code, seconds, f"{line}; {saved}", len(saved) == 1 and bool(line))


def restarted(number: int, draw: random.Random) -> Row:
    """A process killed at a moment of the run; torchrun starts both again."""
    out = f"again{number}"
    run = started(torchrun("--max-restarts", "1"), out, [*SHORT, "-q"])
    step = draw.choice((5, 10, 15))
    await_path(run, Path(out) / "checkpoints" / f"step-{step}")
    time.sleep(draw.uniform(0, 0.2))
    hit, since = kill_rank_1(run), time.monotonic()
    code = ended(run)
    equal = same(out, "whole")
    weights = "same weights" if equal else f"OTHER WEIGHTS: {Path(f'{out}.said').read_text()[-300:]}"
    what = f"{'killed' if hit else 'TOO LATE'} after step {step}; {weights}"
    right = hit and code == 0 and equal
    return Row("torchrun --max-restarts", code, round(time.monotonic() - since, 1), what, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    place = args.json and args.json.absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "SWEET_CACHE": f"{folder}/cache"}
        draw = random.Random(args.seed)
        rows = [*undisturbed(), killed(), terminated()]
        for number in range(args.tries):
            rows.append(restarted(number, draw))
            print(rows[-1], flush=True)
        report({"seed": args.seed, "launches": [asdict(row) for row in rows]}, place)
    sys.exit(not all(row.right for row in rows))


if __name__ == "__main__":
    main()
