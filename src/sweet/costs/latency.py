"""How long one image takes, measured: warm-up, median and spread, on a named device.

Not by torch.utils.benchmark: it times blocks of passes, and a spread between blocks is not one between passes.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sweet.models.config import ViTConfig
from sweet.models.vit import build_vit, encoder_shapes
from sweet.template.image_size import sides

WARM_UP = 3
RUNS = (10, 100)  # at least, at most
SECONDS = 1.0  # between the two, stop after this


@dataclass(frozen=True)
class Timing:
    """Seconds of one forward pass: median, and the range between the quartiles, over ``runs`` passes."""

    median: float
    iqr: float
    runs: int

    def to_dict(self) -> dict[str, float]:
        """In milliseconds, for JSON."""
        return {"ms": round(1e3 * self.median, 4), "iqr_ms": round(1e3 * self.iqr, 4), "runs": self.runs}


def measure_latency(config: ViTConfig, device: torch.device) -> Timing:
    """Time a plain timm model without a head on a batch of one image, in float32 and evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    weights = {n: torch.rand(s, generator=generator) * 0.04 - 0.02 for n, s in encoder_shapes(config).items()}
    model = build_vit(config, weights).to(device)
    image = torch.rand(1, config.in_chans, *sides(config.img_size), generator=generator).to(device)

    def run() -> float:
        began = time.perf_counter()
        model(image)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)  # not the current one, which may be another
        return time.perf_counter() - began

    with torch.inference_mode():
        for _ in range(WARM_UP):
            run()
        seconds: list[float] = []
        while len(seconds) < RUNS[0] or (len(seconds) < RUNS[1] and sum(seconds) < SECONDS):
            seconds.append(run())
    low, median, high = statistics.quantiles(seconds, n=4)
    return Timing(median, high - low, len(seconds))


def protocol(device: torch.device) -> Mapping[str, object]:
    """How a latency is measured: everything that one needs to repeat it."""
    return {
        "device": f"{device} ({_device_name(device)})",
        "batch": 1,
        "dtype": "float32",
        "model": "timm, no head",
        "warm_up": WARM_UP,
        "runs": f"{RUNS[0]} to {RUNS[1]}, {SECONDS:g} s",
        "statistic": "median, range between the quartiles",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if device.type == "cpu" and cpus.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
