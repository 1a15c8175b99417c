"""``pretrained_cfg`` of a timm model: what timm's transforms and heads have to know about it."""

from __future__ import annotations

from typing import Any

from torch import nn

from sweet.version import VERSION

from .records import DataConfig


def pretrained_cfg(model: Any, data: DataConfig, licence: str | None = None) -> dict[str, object]:
    """Input size, normalisation, interpolation and number of classes of a timm ViT, for timm's data pipeline.

    ``data`` is how its images are read; the image size and the number of channels are the model's own.
    """
    channels = model.patch_embed.proj.in_channels
    data = data.with_channels(channels)
    size = f"L{len(model.blocks)}H{model.blocks[0].attn.num_heads}"
    return {
        "tag": "sweet",
        "input_size": [channels, *model.patch_embed.img_size],
        "fixed_input_size": True,
        "interpolation": data.interpolation,
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": list(data.mean),
        "std": list(data.std),
        "num_classes": model.num_classes,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        **({} if licence is None else {"license": licence}),
        "description": f"{size} Vision Transformer made by sweet {VERSION}",
        "paper_name": "SWEET: Self-Supervised Weight Templates for Scalable Vision Model Initialization",
        "paper_ids": "arXiv:2601.19694",
    }


def attach_cfg(model: nn.Module, data: DataConfig) -> None:
    """Give a timm ViT ``pretrained_cfg`` and ``default_cfg``, so that ``timm.data.resolve_model_data_config`` works.

    The names of the classes are added where ``data`` names as many as the head has outputs.
    """
    cfg: Any = pretrained_cfg(model, data)
    if data.classes and len(data.classes) == cfg["num_classes"]:
        cfg["label_names"] = list(data.classes)
    found: Any = model
    found.pretrained_cfg = found.default_cfg = cfg
