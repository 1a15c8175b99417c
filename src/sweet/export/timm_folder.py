"""A folder that ``timm.create_model("local-dir:DIR", pretrained=True)`` loads where sweet is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.layers import SwiGLU
from torch import Tensor, nn

from sweet.errors import UserError, reason
from sweet.models.config import ViTConfig
from sweet.models.names import our_names, timm_names
from sweet.models.vit import CLASSES, timm_args
from sweet.storage.records import FolderRecord
from sweet.storage.timm_cfg import pretrained_cfg
from sweet.template.image_size import sides

# Entries of timm whose constructors we borrow, for models of our own. Norms and activations are callables, which JSON
# cannot carry, so the entry must bring them itself; every other argument is ours. What was converted has an entry of
# its own: that of its source.
ENTRY = {"eva": "vit_base_patch16_sapiens2", "vit": "vit_base_patch16_224", "beit": "beit_base_patch16_224"}
EPS = 1e-6  # of these entries, and not to be had as an argument
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Exported:
    """A model in the layout of another library: tensors, ``config.json``, further text files, and what to show."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, object]
    shown: Mapping[str, object]
    texts: Mapping[str, str] = field(default_factory=dict)


def timm_folder(model: nn.Module, record: FolderRecord, licence: str) -> Exported:
    """A model as timm's, compared with the model before it is handed out.

    Raises UserError for a model that timm cannot describe, or of which it makes another function.
    """
    config = record.vit
    architecture = entry_of(config)
    if not config.entry and config.eps != EPS:
        raise UserError(f"--to timm: the norms have eps {config.eps:g}, and timm's {architecture} has {EPS:g}")
    count = len(model.head.bias) if isinstance(model.head, nn.Linear) else 0
    theirs = _made(config, count)
    tensors = timm_tensors(model, theirs)
    described = {
        "architecture": architecture,
        "num_classes": count,
        "num_features": config.width,
        "global_pool": "avg",
        **({"label_names": record.data.classes} if count else {}),
        "model_args": model_args(config),
        "pretrained_cfg": pretrained_cfg(model, record.data, licence) | dict(_source(record)),
        # timm reads past this; with it the folder is one of sweet's as well
        "sweet": record.to_dict(),
    }
    _compare(model, theirs, tensors, config)
    return Exported(tensors, described, {"architecture": architecture})


@lru_cache(maxsize=8)
def _smallest(entry: str) -> nn.Module:
    """A model of an architecture of timm, without numbers: to look at its class and its layers."""
    with torch.device("meta"):
        try:
            made: nn.Module = timm.create_model(entry, pretrained=False, depth=1, num_classes=0)
        except AssertionError:  # it says something for each block
            made = timm.create_model(entry, pretrained=False, num_classes=0)
    return made


def entry_of(config: ViTConfig) -> str:
    """The architecture of timm that makes such a model: its source's, or one that we borrow."""
    if not config.entry or type(_smallest(config.entry)) is not CLASSES[config.family]:
        return ENTRY[config.family]
    return config.entry


def timm_tensors(model: nn.Module, theirs: nn.Module) -> dict[str, Tensor]:
    """The state dict under the names of the borrowed entry, with the neutral layer scales that it has."""
    tensors = our_names({name: value.detach() for name, value in model.state_dict().items()})
    return timm_names(tensors, {name: value.shape for name, value in theirs.named_parameters()})


def model_args(config: ViTConfig) -> dict[str, Any]:
    """Constructor arguments for JSON. timm drops those that are None, so what is off is set to a neutral value."""
    args = timm_args(config)
    if config.family == "eva":
        args |= {
            "num_kv_heads": config.heads,
            "qkv_fused": True,
            "qk_norm": config.qk_norm,
            "num_reg_tokens": config.registers,
            "init_values": 1.0,
            "rope_rescale_coords": 1.0,
            "dynamic_img_size": False,
        }
    if not config.entry:
        return args
    return args | _against_entry(config)


def _against_entry(config: ViTConfig) -> dict[str, Any]:
    """What an entry may have switched on, and a converted model has not or has said already in its weights."""
    if config.family == "beit":
        return {}
    common = {"no_embed_class": False, "dynamic_img_size": False}
    if config.family == "vit":
        args: dict[str, object] = common | {
            "reg_tokens": config.registers,
            "pre_norm": config.pre_norm,
            "qk_norm": config.qk_norm,
            "proj_bias": True,
            "pool_include_prefix": False,
        }
        entry: Any = _smallest(config.entry)
        if isinstance(entry.blocks[0].mlp, SwiGLU):  # its gates do not count as hidden units
            args["mlp_ratio"] = (config.hidden + 0.5) / config.width
        return args
    post = config.final_norm == "tokens"
    norms = {"use_pre_transformer_norm": config.pre_norm, "use_post_transformer_norm": post}
    return common | {"swiglu_align_to": 0} | norms


def _source(record: FolderRecord) -> Mapping[str, object]:
    """Where the weights come from, under keys of timm."""
    origin = record.origin_record
    if origin is None:
        return {}
    notes = [f"made from {origin.name}", *([f"cite {origin.citation}"] if origin.citation else [])]
    return {"origin_url": origin.url, "notes": notes} if origin.url else {"notes": notes}


def _made(config: ViTConfig, count: int) -> nn.Module:
    """The entry's own model of this size. Raises UserError where timm cannot make it."""
    entry = entry_of(config)
    try:
        theirs: nn.Module = timm.create_model(entry, pretrained=False, num_classes=count, **model_args(config)).eval()
    except (RuntimeError, TypeError, AssertionError) as problem:
        why = f"timm {timm.__version__} cannot make {entry} of this size ({reason(problem)})"
        raise UserError(f"--to timm: {why}") from None
    return theirs


@torch.no_grad()
def _compare(model: nn.Module, theirs: nn.Module, tensors: dict[str, Tensor], config: ViTConfig) -> None:
    try:
        theirs.load_state_dict(tensors)
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())
        entry = entry_of(config)
        raise UserError(f"--to timm: timm {timm.__version__} cannot make {entry} of this size ({reason})") from None
    images = random_images(config, 2)
    difference = float((model(images) - theirs(images)).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(model(images).abs().max())):
        raise UserError(f"--to timm: timm {timm.__version__} computes another function ({difference:.1e} apart)")


def random_images(config: ViTConfig, count: int) -> Tensor:
    """(count, C, H, W) of unit variance, the same at every call: something to compare two models on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, config.in_chans, *sides(config.img_size), generator=generator)
