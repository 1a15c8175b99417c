"""``sweet verify``: a folder is what it says: its bytes, that it loads, and its metrics on the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sweet.api import Template
from sweet.api import load as load_any
from sweet.data import open_images
from sweet.errors import UserError, reason
from sweet.files import SUMS, check_sums, read_json, read_tensors
from sweet.inference.evaluate import evaluate
from sweet.models.config import ViTConfig
from sweet.results.family import is_family, read_family
from sweet.storage.records import FolderRecord, RecordedMetrics, numbers, parse_record
from sweet.tasks.registry import task_class
from sweet.tasks.task import EvalSettings

from .onnx_file import open_session
from .run import ON_THE_VIT
from .timm_folder import random_images

# bf16 training, another device and another runtime move a few images across the boundary, not one in a hundred
RELATIVE = 0.01


def verify(
    folder: Path, *, data: str | None = None, split: str = "val", batch_size: int = 256, device: str = "auto"
) -> Mapping[str, object]:
    """Check sums, load, and, given ``data``, measure again; returns what was checked. Of a family, each of its models.

    Raises UserError in one line for the first file, tensor or metric that is not as recorded.
    """
    if is_family(folder):
        known = read_family(folder)
        each = partial(verify, data=data, split=split, batch_size=batch_size, device=device)
        return {"layout": "family", "members": [{"model": name, **each(folder / name)} for name in known.folders]}
    sums = check_sums(folder)
    if not folder.is_dir() or not sums:
        raise UserError(f"{folder}: no {SUMS}" if folder.is_dir() else f"{folder}: no such folder")
    wrong = [name for name, good in sums.items() if not good]
    if wrong:
        missing = not (folder / wrong[0]).is_file()
        raise UserError(f"{folder / wrong[0]}: {'is missing' if missing else f'its SHA256 is not the one in {SUMS}'}")
    if "config.json" not in sums:
        raise UserError(f"{folder / SUMS}: does not name config.json")
    loaded = _load(folder)
    result: dict[str, object] = {"files": len(sums), "checksums": "ok", "layout": loaded.layout}
    if loaded.model is not None:
        _runs(folder, loaded.model, loaded.record.vit)
        result["loads"] = True
    return result if data is None else result | _measure(loaded, data, split, batch_size, device)


@dataclass(frozen=True)
class Loaded:
    """A folder that loads; transformers' own tools have to make a ``model`` of its layout."""

    folder: Path
    layout: str
    record: FolderRecord
    model: nn.Module | None


def _load(folder: Path) -> Loaded:
    """Raises UserError for what does not load."""
    described = read_json(folder / "config.json")
    record = parse_record(described, folder / "config.json")
    if "onnx" in described:
        return Loaded(folder, "onnx", record, _Onnx(folder / described["onnx"]))
    if "architectures" in described:
        read_tensors(folder / "model.safetensors")
        return Loaded(folder, "transformers", record, None)
    if "architecture" in described:
        return Loaded(folder, "timm", record, _timm(folder))
    loaded = load_any(folder)
    if isinstance(loaded, Template):
        loaded = loaded.build(1, 1, order=None if loaded.source.order else "prefix")
    return Loaded(folder, "sweet", record, loaded)


def _timm(folder: Path) -> nn.Module:
    import timm

    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as problem:
        raise UserError(f"{folder}: timm cannot load it ({reason(problem)})") from None


@torch.no_grad()
def _runs(folder: Path, model: nn.Module, config: ViTConfig) -> None:
    images = model.example() if isinstance(model, _Onnx) else random_images(config, 2)
    if not bool(model(images).isfinite().all()):
        raise UserError(f"{folder}: its outputs are not finite")


def _measure(loaded: Loaded, data: str, split: str, batch_size: int, device: str) -> dict[str, object]:
    """Metrics, recorded and measured. Raises UserError where they differ."""
    folder, record = loaded.folder, loaded.record
    recorded = record.scores
    if not recorded:
        raise UserError(f"--data {data}: {folder} records no metrics to compare with")
    if loaded.layout == "transformers":
        raise UserError(f"--data {data}: a transformers folder is not measured; its own tools do that")
    if loaded.layout == "onnx" and loaded.model is not None:
        metrics = _measure_onnx(loaded.model, record, data, split, batch_size)
    else:
        task = record.task or "classify"
        metrics = evaluate(folder, task, data, split=split, batch_size=batch_size, device=device, limit=None)
    measured = numbers(metrics)
    count = measured.get("images", recorded.get("images"))
    if count != recorded.get("images"):
        raise UserError(f"--data {data}: {split} has {count} images, the metrics are of {recorded.get('images')}")
    for name, value in recorded.items():
        slack = max(RELATIVE * abs(value), 100 / count if count else 0.0)
        if name in measured and not abs(measured[name] - value) <= slack:
            raise UserError(f"{folder}: {name} is {measured[name]} on {data}, recorded is {value}")
    return {"recorded": recorded, "measured": {name: measured[name] for name in recorded if name in measured}}


def _measure_onnx(model: nn.Module, record: FolderRecord, data: str, split: str, batch_size: int) -> RecordedMetrics:
    task = record.task or "classify"
    if task not in ON_THE_VIT:
        raise UserError(
            f"--data {data}: an ONNX file that was trained to {task} is not measured; sweet evaluate MODEL does"
        )
    images, make_task = open_images(data, split, pixels=record.data), task_class(task)
    known = record.data.classes or []
    classes = make_task.classes_of(images)
    if classes != known:
        raise UserError(f"--data {data}: its {len(classes)} classes are not the {len(known)} of the model")
    settings = EvalSettings(record.data, batch_size=batch_size)
    return make_task(classes).evaluate(model, images, settings).to_dict()


class _Onnx(nn.Module):
    """A session that can be evaluated like any classifier."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.session = open_session(path)
        self.place = nn.Parameter(torch.zeros(()))  # an evaluation reads the device off the parameters

    def example(self) -> Tensor:
        """Random images of the shape that the graph takes."""
        shape = self.session.get_inputs()[0].shape
        sides = [side if isinstance(side, int) else 2 for side in shape]
        return torch.randn(sides, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> what the graph gives."""
        feeds = {"images": images.numpy()}
        if len(self.session.get_inputs()) > 1:
            feeds["size"] = np.array(images.shape[-2:], np.float32)
        return torch.from_numpy(self.session.run(None, feeds)[0])
