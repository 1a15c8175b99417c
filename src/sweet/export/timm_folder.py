"""A folder that ``timm.create_model("local-dir:DIR", pretrained=True)`` loads where sweet is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn

from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.vit import timm_args
from sweet.storage.records import FolderRecord
from sweet.storage.timm_cfg import pretrained_cfg

# Entries of timm whose constructors we borrow. Eva takes its norm as a callable, which JSON cannot carry, so the
# entry must bring RMSNorm itself; every other argument is ours.
ENTRY = {"eva": "vit_base_patch16_sapiens2", "vit": "vit_base_patch16_224"}
EPS = 1e-6  # of both entries, and not to be had as an argument
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
    if config.eps != EPS:
        raise UserError(f"--to timm: the norms have eps {config.eps:g}, and timm's {ENTRY[config.family]} has {EPS:g}")
    tensors = timm_tensors(model, config)
    count = len(tensors["head.bias"]) if "head.bias" in tensors else 0
    architecture = ENTRY[config.family]
    described = {
        "architecture": architecture,
        "num_classes": count,
        "num_features": config.width,
        "global_pool": "avg",
        **({"label_names": record.data.classes} if count else {}),
        "model_args": model_args(config),
        "pretrained_cfg": pretrained_cfg(model, record.data, licence),
        # timm reads past this; with it the folder is one of sweet's as well
        "sweet": record.to_dict(),
    }
    _compare(model, tensors, config, count)
    return Exported(tensors, described, {"architecture": architecture})


def timm_tensors(model: nn.Module, config: ViTConfig) -> dict[str, Tensor]:
    """The state dict with the neutral layer scales that the borrowed entry has."""
    tensors = {name: value.detach() for name, value in model.state_dict().items()}
    if config.family == "eva":
        tensors |= {f"blocks.{i}.gamma_1": torch.ones(config.width) for i in range(config.depth)}
    return tensors


def model_args(config: ViTConfig) -> dict[str, Any]:
    """Constructor arguments for JSON. timm drops those that are None, so what is off is set to a neutral value."""
    if config.family == "vit":
        return timm_args(config)
    return timm_args(config) | {
        "num_kv_heads": config.heads,
        "qkv_fused": True,
        "qk_norm": False,
        "num_reg_tokens": 0,
        "init_values": 1.0,
        "rope_rescale_coords": 1.0,
        "dynamic_img_size": False,
    }


@torch.no_grad()
def _compare(model: nn.Module, tensors: dict[str, Tensor], config: ViTConfig, count: int) -> None:
    entry = ENTRY[config.family]
    try:
        theirs = timm.create_model(entry, num_classes=count, **model_args(config)).eval()
        theirs.load_state_dict(tensors)
    except (RuntimeError, TypeError) as problem:
        reason = str(problem).splitlines()[0]
        raise UserError(f"--to timm: timm {timm.__version__} cannot make {entry} of this size ({reason})") from None
    images = random_images(config, 2)
    difference = float((model(images) - theirs(images)).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(model(images).abs().max())):
        raise UserError(f"--to timm: timm {timm.__version__} computes another function ({difference:.1e} apart)")


def random_images(config: ViTConfig, count: int) -> Tensor:
    """(count, C, S, S) of unit variance, the same at every call: something to compare two models on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, config.in_chans, config.img_size, config.img_size, generator=generator)
