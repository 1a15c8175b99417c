"""A file of weights alone: the model is read off its tensors, and what they do not say is stated in one line.

Tensors do not say heads, activation, rotary positions, or how images were normalised. A ``config.json`` beside the
file, or ``--like TIMM_NAME``, does; else well-known sizes give heads, and ``assumed`` lists what was taken for granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from timm.layers import LayerNorm, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sweet.errors import UserError
from sweet.files import sha256
from sweet.template.slices import under

from . import from_transformers
from .checkpoints import Checkpoint, assumed_pixels, depth_of, mae_decoder, split_decoder
from .from_timm import from_model
from .snapshot import config_of
from .timm_source import filled, from_folder, like
from .towers import DINOV3
from .weights_file import read_weights

# (width, depth) of the models that everybody trains: their heads.
KNOWN_HEADS = {
    (192, 12): 3, (384, 12): 6, (768, 12): 12, (1024, 24): 16, (1280, 32): 16, (1408, 40): 16, (1536, 40): 24,
    (1664, 48): 16, (4096, 40): 32,
}  # fmt: skip
# Grids that are trained on, of images whose positions have no place for the class token.
KNOWN_GRIDS = (7, 14, 16, 24, 27, 28, 32, 37)
HINT = "--like TIMM_NAME checks all of it"


def read_file(
    path: Path, *, heads: int | None = None, like_name: str | None = None, part: str | None = None
) -> Checkpoint:
    """A file of weights: as the ``config.json`` beside it says, as timm's model ``like_name``, or as its tensors look.

    ``part`` names the set of weights where the file holds several. Raises UserError naming the file.
    """
    if like_name is not None and heads is not None:
        raise UserError(f"--heads {heads}: --like {like_name} says how many heads {path} has")
    if like_name is not None:
        return like(like_name, path, part=part)
    if heads is None and (beside := _by_config(path, part)):
        return beside
    weights = read_weights(path, part)
    encoder, decoder = split_decoder(weights.tensors)
    if "register_tokens" in encoder or "storage_tokens" in encoder or "decoder_embed.weight" not in decoder:
        encoder |= {name: value for name, value in decoder.items() if name == "mask_token"}
    guess = guessed(encoder, str(path), heads)
    found = from_model(filled(guess.model, encoder, str(path)), str(path), sha256(path))
    tensors, mae = mae_decoder(decoder, found.config) if decoder else ({}, None)
    return replace(
        found, name=path.name, state=found.state | tensors, mae=mae, dtype=weights.dtype, assumed=guess.assumed
    )


def _by_config(path: Path, part: str | None) -> Checkpoint | None:
    """What the config.json beside the file makes of it, None where there is none of timm or transformers."""
    config = config_of(path.parent)
    if "architecture" in config:
        return from_folder(path.parent, file=path, part=part)
    if "model_type" in config:
        return from_transformers.from_folder(path.parent, file=path, part=part)
    return None


@dataclass(frozen=True)
class Guess:
    """timm's model of the shape of some tensors, without them, and what had to be assumed."""

    model: nn.Module
    assumed: tuple[str, ...]


def guessed(tensors: Mapping[str, Tensor], where: str, heads: int | None = None) -> Guess:
    """The model whose tensors these are. Raises UserError for what does not fit together or is ambiguous."""
    depth = depth_of(tensors, where)
    patch = tensors.get("patch_embed.proj.weight")
    if patch is None or patch.dim() != 4 or patch.shape[2] != patch.shape[3]:
        raise UserError(f"{where}: patch_embed.proj.weight: expected (width, channels, patch, patch)")
    width = patch.shape[0]
    count, line = _heads(width, depth, heads, where)
    fc2 = tensors.get("blocks.0.mlp.fc2.weight", tensors.get("blocks.0.mlp.w3.weight"))
    common: dict[str, Any] = {
        "depth": depth,
        "embed_dim": width,
        "num_heads": count,
        "patch_size": patch.shape[-1],
        "in_chans": patch.shape[1],
        "num_classes": 0,
        "mlp_ratio": 4.0 if fc2 is None else (fc2.shape[-1] + 0.5) / width,
    }
    if "storage_tokens" in tensors or "rope_embed.periods" in tensors:
        return Guess(_dinov3(tensors, common), (line, assumed_pixels(patch.shape[1])))
    if "pos_embed" not in tensors:
        raise UserError(f"{where}: no pos_embed; a rotary model's file does not say its shape: say --like TIMM_NAME")
    model, pixels = _plain(tensors, common, where)
    dino = "mask_token" in tensors and "blocks.0.ls1.gamma" in tensors
    more = () if dino else ("GELU", "no rotary positions")
    return Guess(model, (line, f"square images of {pixels} px", *more, assumed_pixels(patch.shape[1])))


def _heads(width: int, depth: int, heads: int | None, where: str) -> tuple[int, str]:
    if heads is not None:
        if width % heads:
            raise UserError(f"--heads {heads}: the width {width} of {where} is not a multiple of it")
        return heads, f"{heads} heads as given"
    if known := KNOWN_HEADS.get((width, depth)):
        return known, f"{known} heads as usual at width {width}, depth {depth}"
    if width % 64:
        raise UserError(f"{where}: width {width} is not a multiple of 64; say --heads N or --like TIMM_NAME")
    return width // 64, f"{width // 64} heads of 64 channels"


def _plain(tensors: Mapping[str, Tensor], common: dict[str, Any], where: str) -> tuple[nn.Module, int]:
    """A ``VisionTransformer``, and the side of its images in pixels."""
    block = under("blocks.0.", tensors)
    registers = tensors.get("register_tokens", tensors.get("reg_token"))
    prefix = sum(name in tensors for name in ("cls_token", "dist_token"))
    official = "register_tokens" in tensors  # DINOv2: positions of the class token, none of registers
    own = prefix + (0 if registers is None or official else registers.shape[1])
    side, in_positions = _grid(tensors["pos_embed"], own, prefix, where)
    packed = "mlp.w12.weight" in block
    args = common | {
        "img_size": side * common["patch_size"],
        "class_token": "cls_token" in tensors,
        "reg_tokens": 0 if registers is None else registers.shape[1],
        "no_embed_class": official or (own > 0 and not in_positions),
        "qkv_bias": "attn.qkv.bias" in block,
        "proj_bias": "attn.proj.bias" in block,
        "qk_norm": "attn.q_norm.weight" in block,
        "scale_attn_norm": "attn.norm.weight" in block,
        "scale_mlp_norm": "mlp.norm.weight" in block,
        "init_values": 1.0 if "ls1.gamma" in block or "gamma_1" in block else None,
        "pre_norm": "norm_pre.weight" in tensors,
        "final_norm": "norm.weight" in tensors or "fc_norm.weight" in tensors,
        "fc_norm": "fc_norm.weight" in tensors,
        "global_pool": "token" if "cls_token" in tensors else "avg",
        "norm_layer": partial(LayerNorm, eps=1e-6),
    }
    if packed:
        hidden = block["mlp.w12.weight"].shape[0]
        args |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": (hidden + 0.5) / common["embed_dim"]}
    if "dist_token" in tensors:
        from timm.models.deit import VisionTransformerDistilled

        return VisionTransformerDistilled(**args), args["img_size"]
    return VisionTransformer(**args), args["img_size"]


def _grid(positions: Tensor, own: int, prefix: int, where: str) -> tuple[int, bool]:
    """Patches along one side, and whether the ``own`` prefix tokens have positions of their own."""
    shape, count = tuple(positions.shape), positions.shape[1]
    with_tokens, without = isqrt(max(count - own, 0)), isqrt(count)
    if with_tokens > 0 and with_tokens**2 + own == count:
        return with_tokens, True
    if own and without**2 == count:
        if without in KNOWN_GRIDS:
            return without, False
        raise UserError(
            f"{where}: pos_embed {shape}: {without} x {without} patches without a class position, or {count - own} "
            "that are not square: say --like TIMM_NAME"
        )
    raise UserError(f"{where}: pos_embed {shape}: not a square grid and {prefix} prefix tokens; say --like TIMM_NAME")


def _dinov3(tensors: Mapping[str, Tensor], common: dict[str, Any]) -> nn.Module:
    """DINOv3 as its authors name it: registers, rotary positions, no bias of the keys."""
    registers = tensors.get("storage_tokens")
    bias = tensors.get("blocks.0.attn.qkv.bias")
    gated = "blocks.0.mlp.w1.weight" in tensors
    if gated:
        common = common | {"mlp_ratio": (tensors["blocks.0.mlp.w1.weight"].shape[0] + 0.5) / common["embed_dim"]}
    biased = bias is not None and any(
        bool(torch.count_nonzero(value)) for name, value in tensors.items() if name.endswith("attn.qkv.bias")
    )
    return Eva(
        **common,
        img_size=16 * common["patch_size"],
        qkv_bias=biased,
        init_values=1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        rope_temperature=100,
        swiglu_mlp=gated,
        swiglu_align_to=1 if gated else 0,
        num_reg_tokens=0 if registers is None else registers.shape[1],
        norm_layer=partial(LayerNorm, eps=1e-5),
        **DINOV3,
    )
