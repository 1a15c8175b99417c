"""What of a fine-tuned model becomes an ONNX graph: its module, the names and shapes of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sweet.errors import UserError
from sweet.storage.records import FolderRecord
from sweet.tasks.detection.detector import Detector
from sweet.tasks.segmentation.segment import Segment
from sweet.template.image_size import joined

from .detector_graph import NAMES, DetectorGraph
from .timm_folder import random_images

BATCHES = (1, 2, 5)
APART = 1e-4  # scores of two findings that differ by less may change places


@dataclass(frozen=True)
class Graph:
    """``module`` takes and gives tensors of these names; the batch of ``images`` is of any size where ``any_batch``.

    ``samples`` are inputs on which two runtimes are compared, ``about`` what stands in the metadata besides the classes
    and how images are normalised.
    """

    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]
    samples: Sequence[tuple[Tensor, ...]]
    any_batch: bool = True
    about: Mapping[str, object] = field(default_factory=dict)


def image_graph(model: nn.Module, record: FolderRecord) -> Graph:
    """``images`` (N, C, H, W) -> ``output`` (N, classes or width)."""
    samples = [(random_images(record.vit, batch),) for batch in BATCHES]
    return Graph(model, ["images"], ["output"], samples, about={"task": record.task} if record.task else {})


def segmenter_graph(model: nn.Module, record: FolderRecord, task: Segment) -> Graph:
    """``images`` (N, C, H, W) -> ``logits`` (N, classes, H, W), of the size of the windows that it is tested in."""
    window, stride = task.window(record.data), task.stride(record.data)
    generator = torch.Generator().manual_seed(0)
    samples = [(torch.randn(batch, record.vit.in_chans, *window, generator=generator),) for batch in BATCHES]
    pixels = {"window": joined(*window), "stride": joined(*stride), "short_side": task.head.short_side}
    return Graph(model, ["images"], ["logits"], samples, about={"task": "segment", **pixels})


def detector_graph(model: Detector, record: FolderRecord) -> Graph:
    """``images`` (1, C, H, W) and ``size`` (2,) -> boxes, scores, labels, see :class:`DetectorGraph`.

    Raises UserError where the graph finds something else than the detector.
    """
    module = DetectorGraph(model)
    (rows, columns), generator = model.transform.limits, torch.Generator().manual_seed(0)
    samples = []
    for height, width in ((rows, columns), (rows // 2, columns), (rows, columns * 3 // 4)):
        images = torch.zeros(1, record.vit.in_chans, *module.padded)
        images[..., :height, :width] = torch.randn(1, record.vit.in_chans, height, width, generator=generator)
        samples.append((images, torch.tensor([height, width]).float()))
        _same_as_detector(model, module, *samples[-1])
    outputs = NAMES if module.masks else NAMES[:3]
    padding = "zeros, after the normalisation, at the right and the bottom"
    about = {"task": "detect", "side": joined(*module.padded), "padding": padding}
    return Graph(module, ["images", "size"], outputs, samples, any_batch=False, about=about)


@torch.no_grad()
def _same_as_detector(model: Detector, graph: DetectorGraph, images: Tensor, size: Tensor) -> None:
    height, width = (int(edge) for edge in size)
    (expected,) = model([images[0, :, :height, :width]])
    found: dict[str, Any] = dict(zip(NAMES, graph(images, size), strict=False))
    count = int((found["scores"] > 0).sum())
    names = ("boxes", "scores", "labels")
    if count != len(expected["scores"]) or not all(torch.allclose(found[n][:count], expected[n]) for n in names):
        raise UserError("--to onnx: the graph of this detector finds something else than the detector")


def difference(expected: Sequence[Tensor], found: Sequence[Tensor], names: Sequence[str]) -> float:
    """The largest difference of the outputs of two runtimes, relative to the largest value of each output.

    Of findings in the order of their scores, those count whose score is not nearly that of another.
    """
    places: Any = slice(None)
    if "scores" in names:
        scores = expected[list(names).index("scores")]
        gaps = (scores[1:] - scores[:-1]).abs() > APART
        ends = torch.ones(1, dtype=torch.bool)
        places = (torch.cat([ends, gaps]) & torch.cat([gaps, ends])) | (scores == 0)
    worst = 0.0
    for name, one, other in zip(names, expected, found, strict=True):
        if name not in ("scores", "output", "logits"):
            one, other = one[places], other[places]
        if one.numel():
            gap = (other.double() - one.double()).abs().max() / one.double().abs().max().clamp_min(1e-30)
            worst = max(worst, float(gap)) if gap == gap else float("nan")
    return worst
