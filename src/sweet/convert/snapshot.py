"""What a folder of the Hugging Face hub says beside its weights: the preprocessing, the licence, where it is from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sweet.data.decode import KERNELS
from sweet.files import read_json
from sweet.storage.records import OriginRecord

INTERPOLATION = {int(kernel): name for name, kernel in KERNELS.items()}  # by Pillow's numbers


def config_of(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Such a file; empty where there is none, or no mapping in it."""
    found = read_json(folder / name) if (folder / name).is_file() else {}
    return found if isinstance(found, dict) else {}


def images_of(folder: Path) -> dict[str, Any]:
    """Mean, deviation and interpolation under timm's names, from ``preprocessor_config.json`` where there is one."""
    values = config_of(folder, "preprocessor_config.json")
    mean, std = values.get("image_mean"), values.get("image_std")
    if values.get("do_normalize") is False:  # a mean beside it is not used
        mean, std = 0.0, 1.0
    mean, std = ([value] if isinstance(value, int | float) else value for value in (mean, std))
    return {"mean": mean, "std": std, "interpolation": INTERPOLATION.get(values.get("resample", 3), "bicubic")}


def origin_of(folder: Path, name: str) -> OriginRecord:
    """The licence that the card of the folder states, and the repository that it is a snapshot of."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    block = re.match(r"---\n(.*?)\n---", text, re.S)
    try:
        values = yaml.safe_load(block[1]) if block else {}
    except yaml.YAMLError:
        values = {}
    values = values if isinstance(values, dict) else {}
    licence = values.get("license_name") if values.get("license") == "other" else values.get("license")
    snapshot = re.search(r"models--([\w.-]+)--([\w.-]+)/snapshots/", str(folder.resolve()) + "/")
    url = f"https://huggingface.co/{snapshot[1]}/{snapshot[2]}" if snapshot else None
    return OriginRecord(name=name, licence=None if licence is None else str(licence), url=url)
