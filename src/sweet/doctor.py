"""``sweet doctor``: versions, devices and threads of this machine, and what is missing for which verb."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping

import torch
from accelerate.tracking import get_available_trackers

from sweet.costs.memory import machine_memory
from sweet.export import onnx_file
from sweet.files import cache_folder
from sweet.models.device import resolve_device
from sweet.training.compiling import can_compile
from sweet.training.device import resolve_precision
from sweet.version import VERSION

PACKAGES = (
    "torch", "torchvision", "timm", "accelerate", "safetensors", "huggingface_hub", "datasets", "transformers", "onnx",
    "onnxruntime", "peft",
)  # fmt: skip
WANTED = {  # module: who needs it, what brings it
    **dict.fromkeys(onnx_file.PACKAGES, f"sweet export --to onnx; {onnx_file.INSTALL}"),
    "transformers": "checking what sweet export --to transformers wrote; pip install transformers",
    "faster_coco_eval": "sweet finetune --task detect; pip install faster-coco-eval",
}
LITTLE = 2e9  # bytes of free disk below which a training is in danger


def doctor() -> Mapping[str, object]:
    """What a person who asks for help is to send along. ``missing`` says what does not work for the lack of what."""
    device, memory = resolve_device("auto"), machine_memory()
    place = next(folder for folder in (cache_folder(), *cache_folder().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    missing = [f"{name}: needed for {why}" for name, why in WANTED.items() if importlib.util.find_spec(name) is None]
    if not can_compile(device):
        missing.append("a C++ compiler (g++, clang++): needed for optim.compile=true, which is left out without one")
    if device.type == "cpu":
        missing.append("a GPU that torch can use: the recipes small and vit_b16_in1k take days without one")
    if free < LITTLE:
        missing.append(f"disk space: {free / 1e9:.1f} GB are free where {cache_folder()} lies")
    return {
        "sweet": VERSION,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "device": str(device),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "precision": resolve_precision("auto", device).replace("no", "fp32"),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        "trackers": [str(name) for name in get_available_trackers()],
        "cache": f"{cache_folder()} ({free / 1e9:.0f} GB free)",
        "missing": missing,
    }


def installed(name: str) -> str | None:
    """The version of a package, None where it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
