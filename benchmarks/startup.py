"""CPU seconds of whole commands, against the imports that they cannot do without.

    python benchmarks/startup.py [--rounds 5] [--json FILE]

``sweet init`` of a ViT-S (12 blocks, 6 heads of 64, 224 px) from a template of its size against ``import torch, timm``;
``inspect`` of that template, ``inspect`` of the model and ``plan`` against ``import pydantic, typer``. Commands take
turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import torch
from measure import in_turns, medians, options, ratio, report

from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import init_source
from sweet.models.moments import compute_order
from sweet.storage.folders import source_tensors
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import DataConfig, FolderRecord
from sweet.template.target import absorb

SWEET = [sys.executable, "-m", "sweet"]
AGAINST = {"init": "torch, timm", "plan": "pydantic, typer", "inspect_model": "pydantic, typer"}
AGAINST["inspect_template"] = "pydantic, typer"


def template(folder: Path) -> None:
    """A template of a ViT-S with random numbers."""
    config, generator = ViTConfig(depth=12, heads=6, head_dim=64, img_size=224, patch_size=16), torch.Generator()
    source = init_source(config, MaeConfig(), constraint="tucker", ranks=(48, 384, 384), generator=generator)
    source.order = compute_order(source, config, [torch.randn(2, 3, 224, 224, generator=generator)])
    record = FolderRecord(
        kind="template",
        vit=config,
        mae=MaeConfig(),
        constraint="tucker",
        ranks=(48, 384, 384),
        data=DataConfig(img_size=224, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    )
    write_folder(folder, (TENSORS["template"], source_tensors(absorb(source))), record, "", "")


def cpu_seconds(command: list[str], _: int) -> float:
    """User and system seconds of a command that has to succeed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    args = options(__doc__, rounds=5).parse_args()
    torch.set_num_threads(1)
    root = Path(mkdtemp())
    template(root / "template")
    init = [*SWEET, "init", str(root / "template"), "--depth", "12", "--heads", "6", "--out", str(root / "model")]
    commands = {
        "torch, timm": [sys.executable, "-c", "import torch, timm"],
        "init": [*init, "--overwrite"],
        "pydantic, typer": [sys.executable, "-c", "import pydantic, typer"],
        "plan": [*SWEET, "plan", "vit_b16_in1k"],
        "inspect_model": [*SWEET, "inspect", str(root / "model")],
        "inspect_template": [*SWEET, "inspect", str(root / "template")],
        "help": [*SWEET, "--help"],
    }
    cpu_seconds(commands["init"], 0)  # the model that is inspected
    times = in_turns({name: partial(cpu_seconds, words) for name, words in commands.items()}, args.rounds)
    shutil.rmtree(root)
    result = {
        "benchmark": "CPU seconds of whole commands",
        "seconds": medians(times),
        "over_imports": {name: ratio(times[name], times[base], 2) for name, base in AGAINST.items()},
        "rounds": args.rounds,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
