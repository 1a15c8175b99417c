"""How long one image takes, measured by torch's own benchmark: median and spread, on a named device."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sweet.models.config import ViTConfig
from sweet.models.vit import build_vit, encoder_shapes

SECONDS = 0.5  # of measuring; torch warms up before
RUNS = 10  # blocks of one or more passes, at least about


@dataclass(frozen=True)
class Timing:
    """Seconds of one forward pass: median, and the range between the quartiles, over ``runs`` blocks of passes."""

    median: float
    iqr: float
    runs: int

    def to_dict(self) -> dict[str, float]:
        """In milliseconds, for JSON."""
        return {"ms": round(1e3 * self.median, 4), "iqr_ms": round(1e3 * self.iqr, 4), "runs": self.runs}


def measure_latency(config: ViTConfig, device: torch.device) -> Timing:
    """Time a plain timm model without a head on a batch of one image, in float32 and evaluation mode."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it reports a GPU that is not used
    from torch.utils.benchmark import Timer

    generator = torch.Generator().manual_seed(0)
    weights = {n: torch.rand(s, generator=generator) * 0.04 - 0.02 for n, s in encoder_shapes(config).items()}
    model = build_vit(config, weights).to(device)
    image = torch.rand(1, config.in_chans, config.img_size, config.img_size, generator=generator).to(device)
    timer = Timer("model(image)", globals={"model": model, "image": image}, num_threads=torch.get_num_threads())
    with torch.inference_mode(), torch.accelerator.device_index(device.index):  # what the timer synchronises
        measured = timer.blocked_autorange(min_run_time=SECONDS)
        if len(measured.times) < RUNS:
            measured = timer.blocked_autorange(min_run_time=RUNS * measured.median)
    return Timing(measured.median, measured.iqr, len(measured.times))


def protocol(device: torch.device) -> Mapping[str, object]:
    """How a latency is measured: everything that one needs to repeat it."""
    return {
        "device": f"{device} ({_device_name(device)})",
        "batch": 1,
        "dtype": "float32",
        "model": "timm, no head",
        "timer": "torch.utils.benchmark.Timer.blocked_autorange",
        "runs": f"{SECONDS:g} s, at least about {RUNS} blocks",
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
