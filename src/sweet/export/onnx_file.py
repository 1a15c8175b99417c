"""``model.onnx``: one graph, compared with the model in ONNX Runtime before it is handed out."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweet.errors import UserError, reason
from sweet.files import replacing
from sweet.storage.records import FolderRecord

from .graphs import Graph, difference

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INSTALL = f"pip install {' '.join(PACKAGES)}"
TOLERANCE = 1e-4  # relative to the largest output: two runtimes add in another order
HALF_TOLERANCE = 2e-2  # of weights in fp16: twenty of its steps
MAX_BYTES = 2_000_000_000  # of one protobuf file
OF_SOME = {"thresholds", "value_range"}  # what only some models have
SHOWN = {"classes", "mean", "std", "img_size", "crop", "interpolation"} | OF_SOME


def need_onnx() -> None:
    """Raises UserError naming the package and how to get it."""
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError:
            raise UserError(f"ONNX: the package {name} is missing: {INSTALL}") from None


def write_onnx(graph: Graph, record: FolderRecord, path: Path) -> float:
    """Write the graph; returns the largest difference of ONNX Runtime's outputs.

    Of a record in float16 the graph computes in it; what goes in and comes out stays float32. What the model expects
    of its images, its classes and what the graph says of itself stand in its metadata as JSON. Raises UserError, and
    writes nothing, when ONNX Runtime computes something else on one of the samples than the model in float32.
    """
    need_onnx()
    if sum(p.numel() * p.element_size() for p in graph.module.parameters()) > MAX_BYTES:
        raise UserError("--to onnx: the weights are more than the 2 GB of one ONNX file")
    half = record.dtype == "float16"
    program = _traced(replace(graph, module=_Half(graph.module)) if half else graph)
    without = {name for name in OF_SOME if getattr(record.data, name) is None}
    data = record.data.model_dump(mode="json", include=SHOWN - without)
    program.model.metadata_props.update({key: json.dumps(value) for key, value in (data | dict(graph.about)).items()})
    content = program.model_proto.SerializeToString()
    gap = compare(graph, content, HALF_TOLERANCE if half else TOLERANCE)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return gap


class _Half(nn.Module):
    """A copy of a module of one input and one output that computes in fp16 between them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).half()

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.module(images.half())
        return output.float()


def _traced(graph: Graph) -> Any:
    """The program that torch makes of a graph. Raises UserError where it cannot."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it lists what it does not fold
    sample = next(sample for sample in graph.samples if len(sample[0]) > 1 or not graph.any_batch)
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            graph.module.eval(),
            sample,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=({**batch},) if graph.any_batch else None,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise UserError("--to onnx: torch made no program")
    return program


@torch.no_grad()
def compare(graph: Graph, content: bytes, tolerance: float) -> float:
    """The largest difference between the model and the graph, relative to the largest output. Raises UserError."""
    session = open_session(content)
    worst = 0.0
    for sample in graph.samples:
        expected = graph.module(*sample)
        expected = expected if isinstance(expected, tuple) else (expected,)
        feeds = {name: value.numpy() for name, value in zip(graph.inputs, sample, strict=True)}
        found = [torch.from_numpy(value) for value in session.run(list(graph.outputs), feeds)]
        at = f"batch {len(sample[0])}"
        for one, other in zip(expected, found, strict=True):
            if one.shape != other.shape:
                raise UserError(f"--to onnx: shape {tuple(other.shape)} at {at}, not {tuple(one.shape)}")
        gap = difference(expected, found, graph.outputs)
        if not gap <= tolerance:
            raise UserError(f"--to onnx: ONNX Runtime computes another function at {at} ({gap:.1e})")
        worst = max(worst, gap)
    return worst


def open_session(graph: bytes | Path) -> Any:
    """An ONNX Runtime session on the CPU, of a file or of its bytes. Raises UserError naming the file."""
    need_onnx()
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    except Exception as problem:  # the runtime has its own tree of errors, and not all of them are public
        where = graph if isinstance(graph, Path) else "--to onnx"
        raise UserError(f"{where}: ONNX Runtime cannot read it ({reason(problem)})") from None
