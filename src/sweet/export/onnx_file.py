"""``model.onnx``: any batch size, compared with the model in ONNX Runtime before it is handed out."""

from __future__ import annotations

import json
import logging
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sweet.errors import UserError
from sweet.files import replacing
from sweet.models.config import ViTConfig
from sweet.storage.records import FolderRecord

from .timm_folder import random_images

FILE = "model.onnx"
BATCHES = (1, 2, 5)
TOLERANCE = 1e-4  # relative to the largest output: two runtimes add in another order
MAX_BYTES = 2_000_000_000  # of one protobuf file


def need_onnx() -> None:
    """Raises UserError naming the package and how to get it."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError:
            raise UserError(f"ONNX: the package {name} is missing: pip install sweet-vit[onnx]") from None


def write_onnx(model: nn.Module, record: FolderRecord, path: Path) -> float:
    """Write the graph ``images`` (N, C, S, S) -> ``output`` (N, classes or width); returns the largest difference.

    Class names, mean, std, size and crop stand in its metadata as JSON. Raises UserError, and writes nothing, when
    ONNX Runtime computes something else at one of several batch sizes.
    """
    need_onnx()
    if sum(p.numel() * p.element_size() for p in model.parameters()) > MAX_BYTES:
        raise UserError("--to onnx: the weights are more than the 2 GB of one ONNX file")
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it lists what it does not fold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            model.eval(),
            (random_images(record.vit, 2),),
            input_names=["images"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise UserError("--to onnx: torch made no program")
    data = record.data.model_dump(mode="json", include={"classes", "mean", "std", "img_size", "crop"})
    program.model.metadata_props.update({key: json.dumps(value) for key, value in data.items()})
    graph = program.model_proto.SerializeToString()
    difference = compare(model, record.vit, graph)
    with replacing(path) as temporary:
        temporary.write_bytes(graph)
        temporary.chmod(0o644)
    return difference


@torch.no_grad()
def compare(model: nn.Module, config: ViTConfig, graph: bytes) -> float:
    """The largest difference between the model and the graph, relative to the largest output. Raises UserError."""
    session = open_session(graph)
    worst = 0.0
    for batch in BATCHES:
        images = random_images(config, batch)
        expected = model(images)
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        if found.shape != expected.shape:
            raise UserError(f"--to onnx: shape {tuple(found.shape)} for {batch} images, not {tuple(expected.shape)}")
        difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
        if not difference <= TOLERANCE:
            raise UserError(f"--to onnx: ONNX Runtime computes another function at batch {batch} ({difference:.1e})")
        worst = max(worst, difference)
    return worst


def open_session(graph: bytes | Path) -> Any:
    """An ONNX Runtime session on the CPU, of a file or of its bytes. Raises UserError naming the file."""
    need_onnx()
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    except Exception as problem:  # the runtime has its own tree of errors, and not all of them are public
        where = graph if isinstance(graph, Path) else "--to onnx"
        raise UserError(f"{where}: ONNX Runtime cannot read it ({str(problem).splitlines()[0]})") from None
