"""Models of timm by name and timm's folders: built as timm does, and refused before anything is downloaded."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sweet.errors import UserError, reason
from sweet.files import read_json, sha256
from sweet.models.device import own_draws
from sweet.storage import hub
from sweet.storage.records import OriginRecord

from .checkpoints import Checkpoint, assumed_pixels, depth_of, tensors_sha256
from .from_timm import cfg_values, from_model, refusals
from .weights_file import FILES, dtype_of, file_in, read_weights

HEAD = ("head.", "fc_norm.", "head_drop.", "attn_pool.")  # of these a file may have more or fewer
UNUSED = ("mask_token", "decoder_")  # of a pre-training; no part of the encoder


def from_name(name: str) -> Checkpoint:
    """``timm.create_model(name, pretrained=True)``, downloaded only when it can be converted.

    Raises UserError naming the model.
    """
    where = f"timm:{name}"
    check_name(name)
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as problem:  # no network, no such file: each library has its own type
        raise UserError(f"{where}: timm cannot load it ({reason(problem)})") from None
    state = model.state_dict()
    found = from_model(model, where, tensors_sha256(state))
    return replace(found, dtype=dtype_of(state), origin=origin_of(name, getattr(model, "pretrained_cfg", None)))


def check_name(name: str) -> None:
    """Raises UserError for a model that timm has not or that cannot be converted, or when its weights are out of reach.

    Downloads nothing.
    """
    where = f"timm:{name}"
    architecture = name.partition(".")[0]
    if name.startswith("local-dir:"):
        raise UserError(f"{where}: name the folder itself: {name.removeprefix('local-dir:')}")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        hint = f"; close to it: {', '.join(near)}" if near else ""
        raise UserError(f"{where}: timm cannot load it (Unknown model ({name}){hint})")
    cfg = _pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise UserError(f"{where}: timm cannot load it (no weights of that name; with weights: {tags})")
    check_architecture(architecture, {}, where)
    if cfg.hf_hub_id and (trouble := hub.out_of_reach(cfg.hf_hub_id, (cfg.hf_hub_filename or FILES[0], FILES[1]))):
        raise UserError(f"{where}: {trouble}")


def _pretrained_cfg(name: str) -> Any:
    """What timm knows of the weights of that name, None where there are none."""
    try:
        return get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        return None


def check_architecture(architecture: str, args: Mapping[str, Any], where: str) -> None:
    """Raises UserError unless a model of one block of this architecture, with random weights, can be converted."""
    try:
        with own_draws(0):
            try:
                model = timm.create_model(architecture, pretrained=False, **{**args, "depth": 1})
            except (TypeError, AssertionError):  # it has no depth, or says something for each block
                with torch.device("meta"):
                    model = timm.create_model(architecture, pretrained=False, **args)
    except Exception as problem:
        raise UserError(f"{where}: timm cannot make architecture {architecture} ({reason(problem)})") from None
    if reasons := refusals(model):
        raise UserError(f"{where}: {'; '.join(reasons)}")
    if not any(value.is_meta for value in model.parameters()):
        from_model(model, where, "")


def from_folder(folder: Path, *, file: Path | None = None, part: str | None = None) -> Checkpoint:
    """A folder of timm's ``save_for_hf``: config.json and weights, or ``file`` beside that config.json.

    Raises UserError naming the folder or the file.
    """
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise UserError(f"{path}: neither sweet's nor timm's (no architecture)")
    file = file or file_in(folder)
    weights = read_weights(file, part)
    options = {key: config[key] for key in ("num_classes", "global_pool") if config.get(key) is not None}
    args = options | (config.get("model_args") or {})
    cfg = config["pretrained_cfg"] if isinstance(config.get("pretrained_cfg"), dict) else {}
    size = cfg.get("input_size")
    if isinstance(size, list | tuple) and len(size) == 3 and "img_size" not in args:
        args["img_size"] = tuple(size[1:])
    model = built(config["architecture"], args, weights.tensors, f"{folder}")
    if cfg:
        model.pretrained_cfg = cfg
    found = from_model(model, str(folder), sha256(file))
    name = folder.resolve().name if file.name in FILES else file.name
    assumed = () if cfg.get("mean") else (assumed_pixels(found.config.in_chans),)
    return replace(found, name=name, dtype=weights.dtype, assumed=assumed, origin=origin_of(name, cfg))


def like(name: str, path: Path, *, part: str | None = None) -> Checkpoint:
    """A bare file as timm's model ``name``: built, filled and compared; its image size is that of its positions.

    Raises UserError naming the file where a tensor is missing, unknown or of another shape.
    """
    option = f"--like {name}"
    if not timm.is_model(name.partition(".")[0]):
        raise UserError(f"{option}: timm has no such model")
    weights = read_weights(path, part)
    cfg = _pretrained_cfg(name)
    args: dict[str, Any] = {} if any(key.startswith("head.") for key in weights.tensors) else {"num_classes": 0}
    if "head.weight" in weights.tensors:
        args["num_classes"] = len(weights.tensors["head.weight"])
    plain = _created(name, args, option)
    if pixels := _square_size(plain, weights.tensors):
        args["img_size"] = pixels
    model = built(name, args, weights.tensors, f"{option}: {path}")
    if cfg is not None:
        model.pretrained_cfg = cfg
    found = replace(from_model(model, str(path), sha256(path)), name=path.name, dtype=weights.dtype)
    if "." in name:  # a tag says whose weights they are
        return replace(found, origin=origin_of(path.name, cfg))
    assumed = (f"mean and std of {cfg.architecture}.{cfg.tag}",) if cfg is not None else ()
    return replace(found, origin=OriginRecord(name=path.name), assumed=assumed)


def built(architecture: str, args: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Any:
    """timm's model with exactly these tensors, renamed as timm renames official ones; a head may be missing.

    Raises UserError naming the tensor that does not fit.
    """
    model = _created(architecture, args, where)
    if reasons := refusals(model):
        raise UserError(f"{where}: architecture {architecture}: {'; '.join(reasons)}")
    return filled(model, tensors, where)


def _created(architecture: str, args: Mapping[str, Any], where: str) -> Any:
    try:
        return timm.create_model(architecture, pretrained=False, **args)
    except Exception as problem:
        raise UserError(f"{where}: timm cannot make architecture {architecture} ({reason(problem)})") from None


def filled(model: Any, tensors: Mapping[str, Tensor], where: str) -> Any:
    """``model`` with exactly these tensors. Raises UserError naming the first that does not fit."""
    depth = depth_of(tensors, where)
    if depth != len(model.blocks):
        raise UserError(
            f"{where}: has {depth} blocks, the model {len(model.blocks)}: see blocks.{min(depth, len(model.blocks))}"
        )
    _check_resampled(model, tensors, where)
    try:
        state = _renamed(model, dict(tensors))
    except Exception as problem:
        raise UserError(f"{where}: its tensors do not fit {type(model).__name__} ({reason(problem)})") from None
    expected, buffers = dict(model.state_dict()), {name for name, _ in model.named_buffers()}
    for name in sorted(expected.keys() | state.keys()):
        if name not in state and not name.startswith(HEAD) and name not in buffers:
            raise UserError(f"{where}: tensor {name} is missing")
        if name not in expected and not name.startswith((*HEAD, *UNUSED)):
            raise UserError(f"{where}: tensor {name} is unknown")
        if name in state and name in expected and state[name].shape != expected[name].shape:
            if name.startswith("head."):
                state.pop(name)
                continue
            shapes = f"shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
            raise UserError(f"{where}: tensor {name}: {shapes}")
    if not any(name.startswith("fc_norm") for name in state) and any(name.startswith("fc_norm") for name in expected):
        raise UserError(f"{where}: tensor fc_norm.weight is missing")
    model.load_state_dict({name: value for name, value in state.items() if name in expected}, strict=False)
    return model.eval()


def _renamed(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official names of DINOv2, DINOv3, CLIP and others as timm's, by timm's own rule for this class of models."""
    if isinstance(model, VisionTransformer):
        unused = ("decoder_",) if "register_tokens" in tensors else UNUSED
        tensors = {name: value for name, value in tensors.items() if not name.startswith(unused)}
    rename: Any = sys.modules[type(model).__module__].checkpoint_filter_fn
    renamed: dict[str, Tensor] = rename(tensors, model)
    return renamed


def _check_resampled(model: Any, tensors: Mapping[str, Tensor], where: str) -> None:
    """timm would resample positions of another grid, and patches of another size, without a word."""
    for name in ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.relative_position_bias_table"):
        found, expected = tensors.get(name), dict(model.named_parameters()).get(name)
        if found is None or expected is None or found.dim() != expected.dim() or "register_tokens" in tensors:
            continue
        if found.shape != expected.shape:
            raise UserError(f"{where}: tensor {name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")


def _square_size(model: Any, tensors: Mapping[str, Tensor]) -> int | None:
    """The side in pixels of the square images that a file's positions are for, given the model's prefix tokens."""
    positions = tensors.get("pos_embed")
    if positions is None or getattr(model, "pos_embed", None) is None:
        return None
    own = model.pos_embed.shape[1] - model.patch_embed.num_patches
    count = positions.shape[1] - (1 if "register_tokens" in tensors else own)
    side = round(max(count, 0) ** 0.5)
    return side * int(model.patch_embed.patch_size[0]) if side**2 == count else None


def origin_of(name: str, cfg: object) -> OriginRecord:
    """Licence, address and paper as timm's ``pretrained_cfg`` has them."""
    values = cfg_values(cfg)
    ids = values.get("paper_ids")
    ids = [ids] if isinstance(ids, str) else list(ids) if isinstance(ids, Sequence) else []
    paper = values.get("paper_name")
    citation = f"{paper} ({', '.join(ids)})" if paper and ids else paper or ", ".join(ids) or None
    hosted = f"https://huggingface.co/{values['hf_hub_id']}" if values.get("hf_hub_id") else None
    return OriginRecord(
        name=name, licence=values.get("license"), url=values.get("origin_url") or hosted, citation=citation
    )
