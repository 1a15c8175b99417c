"""``sweet export``: which layout, from which folder, and the files around the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from sweet.api import Template
from sweet.errors import UserError
from sweet.files import decode_text
from sweet.storage import hub
from sweet.storage.cards import default_licence, front_matter, model_card, shareable
from sweet.storage.folders import in_float32, in_type, load_model
from sweet.storage.integrity import checked_tensors
from sweet.storage.layout import TENSORS, complete_folder, write_folder
from sweet.storage.records import FolderRecord, read_record
from sweet.tasks.detection.detector import Detector
from sweet.tasks.segmentation.segment import Segment
from sweet.training.network import FinetunedModel

from .graphs import Graph, detector_graph, image_graph, segmenter_graph
from .onnx_file import FILE, need_onnx, write_onnx
from .timm_folder import timm_folder
from .transformers_folder import transformers_folder

ON_THE_VIT = ("classify", "multilabel")  # tasks whose head is timm's own
DTYPES = {"fp32": None, "fp16": "float16", "bf16": "bfloat16"}  # as a record has them
LAYOUTS = ("timm", "onnx", "hub", "safetensors", "transformers")


def export(
    model: Path,
    to: str,
    out: Path,
    *,
    head: bool = True,
    dtype: str = "fp32",
    seeds: Sequence[Path] = (),
    licence: str | None = None,
    repo: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> Mapping[str, object]:
    """Write a model folder in another layout (a source folder: ``hub`` and ``safetensors`` only); returns a summary.

    ``licence`` is by default that of the checkpoint it was made from, else "other". ``head=False`` leaves the
    classifier out. ``dtype`` fp16 or bf16 halves the file; a model of it computes as well as these numbers are, and
    an ONNX graph of fp16 in them.
    ``seeds`` are runs of the same recipe by other seeds, for the card.
    With ``repo`` the written folder is uploaded. Raises UserError for a task or a shape that the layout cannot
    express, and when the written model would not compute the same.
    """
    if to not in LAYOUTS:
        raise UserError(f"--to {to}: unknown, expected one of {', '.join(LAYOUTS)}")
    if repo is None and (private is not None or token is not None):
        raise UserError("--private and --token: go with --repo")
    if repo is not None and to != "hub":
        raise UserError(f"--repo {repo}: goes with --to hub")
    if repo is not None:
        hub.check_repo(repo)
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    if to == "onnx" and dtype == "bf16":
        raise UserError("--dtype bf16: ONNX Runtime has no convolution of it; --dtype fp16 halves the file as well")
    record = read_record(model, tuple(TENSORS))
    if seeds and not head:
        raise UserError("--seeds: has no effect with --no-head, whose card has no metrics")
    if record.kind != "model":
        _check_source(model, record.kind, to, head=head, seeds=seeds, licence=licence)
    if to == "onnx" and dtype == "fp16" and head and record.task == "detect":
        raise UserError("--dtype fp16: places of boxes need more digits, so a detector's ONNX file is written in fp32")
    record = record.model_copy(update={"dtype": DTYPES[dtype]})
    written: Mapping[str, object]
    if record.kind == "model":
        stated = licence or default_licence(record)
        written = _export_model(model, record, to, out, head=head, seeds=seeds, licence=stated)
    else:
        written = _export_source(model, record, to, out, licence)
    where = {"out": str(out)}
    if repo is not None:
        where["repo"] = hub.upload(out, repo, private=private, token=token, message="Upload by sweet")
    return {**written, **where}


def _check_source(source: Path, kind: str, to: str, *, head: bool, seeds: Sequence[Path], licence: str | None) -> None:
    """Raises UserError for a layout that takes no source, and for options that are for others."""
    if to not in ("hub", "safetensors"):
        raise UserError(f"{source}: is a {kind}, and --to {to} takes a model: sweet init {source} makes one")
    options = {"--no-head": not head, "--seeds": bool(seeds), "--license": licence is not None and to != "hub"}
    if unused := next((option for option, given in options.items() if given), None):
        raise UserError(f"{unused}: has no effect on {source}, a {kind}, with --to {to}")


def _export_model(
    folder: Path, record: FolderRecord, to: str, out: Path, *, head: bool, seeds: Sequence[Path], licence: str
) -> Mapping[str, object]:
    if to == "onnx":
        need_onnx()  # before the work
    if head and record.task not in (None, *ON_THE_VIT):
        return _export_whole(folder, record, to, out, seeds=seeds, licence=licence)
    model, _ = load_model(folder, num_classes=None if head else 0)
    if not head:
        data = record.data.model_copy(update={"classes": None, "thresholds": None})
        record = record.model_copy(update={"task": None, "head": None, "metrics": None, "data": data})
    recipe_text, recipe = _recipe(folder)
    others = _other_seeds(folder, recipe, seeds)
    use = {"hub": "timm", "safetensors": "model"}.get(to, to)
    card = model_card(record, recipe, use=use, licence=licence, seeds=others)
    shown = {"to": to, "size": str(record.vit.size), "classes": len(record.data.classes or ())}
    if to == "onnx":
        return {**shown, **_write_onnx(image_graph(model, record), record, out, recipe_text, card)}
    if to == "safetensors":
        write_folder(out, (TENSORS["model"], weights(model.state_dict(), record)), record, recipe_text, card)
        return shown
    if to == "hub":
        card = front_matter(record, licence=licence, library="timm") + card
    made = transformers_folder(model, record) if to == "transformers" else timm_folder(model, record, licence)
    tensors, theirs = weights(made.tensors, record), {} if record.dtype is None else {"dtype": record.dtype}
    write_folder(out, (TENSORS["model"], tensors), {**made.config, **theirs}, recipe_text, card, made.texts)
    return {**shown, **made.shown}


def _export_whole(
    folder: Path, record: FolderRecord, to: str, out: Path, *, seeds: Sequence[Path], licence: str
) -> Mapping[str, object]:
    """A detector or a segmenter with all that it has around the ViT. Raises UserError for what has no such layout."""
    if to not in ("onnx", "hub", "safetensors") or record.task not in ("detect", "segment"):
        raise UserError(
            f"--to {to}: {folder} was trained to {record.task}, and {to} has no layout for it; --no-head exports its "
            "ViT, and --to onnx, hub or safetensors detectors and segmenters as a whole"
        )
    recipe_text, recipe = _recipe(folder)
    use = f"onnx {record.task}" if to == "onnx" else "predict"
    card = model_card(record, recipe, use=use, licence=licence, seeds=_other_seeds(folder, recipe, seeds))
    shown = {"to": to, "size": str(record.vit.size), "task": record.task, "classes": len(record.data.classes or ())}
    if to == "onnx":
        tuned = FinetunedModel(folder, "cpu")
        if isinstance(tuned.task, Segment):
            graph = segmenter_graph(tuned.model, record, tuned.task)
        else:
            assert isinstance(tuned.model, Detector)
            graph = detector_graph(tuned.model, record)
        return {**shown, **_write_onnx(graph, record, out, recipe_text, card)}
    if to == "hub":
        card = front_matter(record, licence=licence, library="sweet") + card
    tensors = weights(checked_tensors(folder, read_record(folder, ("model",))), record)
    write_folder(out, (TENSORS["model"], tensors), record, recipe_text, card)
    return shown


def weights(tensors: Mapping[str, Tensor], record: FolderRecord) -> Mapping[str, Tensor]:
    """The tensors in the precision of a record; those that it cannot hold stay as they are."""
    return in_float32(tensors) if record.dtype is None else in_type(tensors, getattr(torch, record.dtype))


def _write_onnx(graph: Graph, record: FolderRecord, out: Path, recipe: str, card: str) -> Mapping[str, object]:
    difference = write_onnx(graph, record, out / FILE)
    texts = {"recipe.yaml": recipe, "README.md": card}
    complete_folder(out, [FILE], {"onnx": FILE, "sweet": record.to_dict()}, texts)
    return {"difference": difference}


def _export_source(folder: Path, record: FolderRecord, to: str, out: Path, licence: str | None) -> Mapping[str, object]:
    source = Template.from_pretrained(folder)
    source.record = record
    source.save_pretrained(out, licence=source.hub_licence(licence) if to == "hub" else None)
    return {"to": to, "kind": source.record.kind}


def _recipe(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """``recipe.yaml`` as it is handed on, and its keys. Raises UserError naming the folder for what is none."""
    path = folder / "recipe.yaml"
    text = decode_text(path) if path.is_file() else ""
    try:
        text = shareable(text)
    except UserError as problem:
        raise UserError(f"{folder}: {problem}") from None
    keys = yaml.safe_load(text) or {}
    if not isinstance(keys, dict):
        raise UserError(f"{path}: holds no keys of a recipe")
    return text, keys


def _other_seeds(folder: Path, recipe: Mapping[str, object], others: Sequence[Path]) -> list[dict[str, float]]:
    """The metrics of the same recipe by other seeds. Raises UserError for anything else."""
    known, found = {recipe.get("seed"): folder}, []
    for other in others:
        record, (_, theirs) = read_record(other, ("model",)), _recipe(other)
        if not record.scores:
            raise UserError(f"--seeds {other}: has no metrics")
        if (seed := theirs.get("seed")) in known:
            raise UserError(f"--seeds {other}: has the seed {seed} of {known[seed]}, and is no other run")
        for key in recipe.keys() | theirs.keys():
            if key != "seed" and recipe.get(key) != theirs.get(key):
                raise UserError(f"--seeds {other}: {key} differs from {folder}, so it is no run of the same recipe")
        known[seed] = other
        found.append(record.scores)
    return found
