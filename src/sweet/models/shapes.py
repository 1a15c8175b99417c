"""Names and shapes of parameters by closed formula, without torch."""

from __future__ import annotations

import re

from .config import MaeConfig, ViTConfig

Shape = tuple[int, ...]
# Layer scales of timm's classes, which ours have not, and the layers that they scale.
LAYER_SCALES = {"gamma_1": "attn.proj", "ls1.gamma": "attn.proj", "gamma_2": "mlp.fc2", "ls2.gamma": "mlp.fc2"}
SCALES = re.compile(rf"^(blocks\.\d+\.)({'|'.join(map(re.escape, LAYER_SCALES))})$")


def plain_shapes(config: ViTConfig) -> dict[str, Shape] | None:
    """Those of an encoder (no head) under our names, see :mod:`.names`; None where only timm can say.

    That is where anything is normed besides the stream, where positions are learned in the blocks, and where timm makes
    no model at all.
    """
    inside = config.pre_norm or config.patch_norm or config.qk_norm or config.attn_norm or config.mlp_norm
    rotary = config.rope == "none" or (config.rope == "cat" and config.head_dim % 4 == 0 and config.family == "eva")
    if inside or not rotary or config.family == "beit" or (config.registers and config.positions == "table"):
        return None
    width, patch, hidden = config.width, config.patch_size, config.hidden
    shapes: dict[str, Shape] = {}
    if config.class_token:
        shapes["cls_token"] = (1, 1, width)
    if config.registers:
        shapes["reg_token"] = (1, config.registers, width)
    if config.positions == "table":
        shapes["pos_embed"] = (1, config.patches + config.prefix_tokens, width)
    shapes |= {"patch_embed.proj.weight": (width, config.in_chans, patch, patch), "patch_embed.proj.bias": (width,)}
    for i in range(config.depth):
        for norm, layers in (
            ("norm1", {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}),
            ("norm2", {"mlp.fc1": (hidden * (2 if config.mlp == "swiglu" else 1), width), "mlp.fc2": (width, hidden)}),
        ):
            shapes |= _norm(f"blocks.{i}.{norm}", config)
            for name, (rows, columns) in layers.items():
                shapes |= {f"blocks.{i}.{name}.weight": (rows, columns), f"blocks.{i}.{name}.bias": (rows,)}
    final = {"tokens": "norm", "pooled": "fc_norm"}.get(config.final_norm)
    return shapes | (_norm(final, config) if final else {})


def _norm(name: str, config: ViTConfig) -> dict[str, Shape]:
    gain: dict[str, Shape] = {f"{name}.weight": (config.width,)}
    return gain if config.norm == "rms" else gain | {f"{name}.bias": (config.width,)}


def decoder_shapes(config: ViTConfig, mae: MaeConfig) -> dict[str, Shape]:
    """Name and shape of every parameter of a decoder."""
    width, pixels = mae.decoder_width, config.in_chans * config.patch_size**2
    shapes: dict[str, Shape] = {"embed.weight": (width, config.width), "embed.bias": (width,)}
    for i in range(mae.decoder_depth):
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (rows, columns)
            shapes[f"blocks.{i}.{name}.bias"] = (rows,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{name}.weight"] = shapes[f"blocks.{i}.{name}.bias"] = (width,)
    shapes |= {"norm.weight": (width,), "norm.bias": (width,), "pred.weight": (pixels, width), "pred.bias": (pixels,)}
    return shapes | {"mask_token": (1, 1, width)}
