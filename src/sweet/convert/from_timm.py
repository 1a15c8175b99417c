"""A timm model as a checkpoint of ours.

Tensors alone do not describe a model: an activation, the order of norms or the layout of rotary positions leave no
trace in them. So the model is built and its modules are inspected; at last our encoder must give the same features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers import GluMlp, Mlp, SwiGLU
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from sweet.errors import UserError
from sweet.models.config import FAMILIES, ViTConfig
from sweet.models.vit import build_vit

from .checkpoints import Checkpoint, canonical, check_shapes, data_config

TOLERANCE = 1e-3


def from_model(model: nn.Module, where: str, digest: str) -> Checkpoint:
    """A timm ``VisionTransformer`` or ``Eva`` that :class:`ViTConfig` can express.

    ``where`` names the model in errors, ``digest`` is the SHA256 of its weights. Raises UserError naming why not.
    """
    if not isinstance(model, Eva | VisionTransformer):
        raise UserError(f"{where}: is a {type(model).__name__}, expected a VisionTransformer or Eva")
    state = canonical({k: v.detach().float() for k, v in model.state_dict().items()}, where)
    config = _config(model, where)
    check_shapes(state, config, where)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    cfg = cfg if isinstance(cfg, Mapping) else vars(cfg)
    data = data_config(config, cfg.get("mean"), cfg.get("std"), cfg.get("interpolation"))
    _compare(model, build_vit(config, state), config, where)
    name = where if where.startswith("timm:") else Path(where).name
    return Checkpoint(name, digest, config, state, data)


def _config(model: Any, where: str) -> ViTConfig:
    """The shape of a timm model. Raises UserError for the first thing that a ViT of ours does not have."""
    block, rope = model.blocks[0], getattr(model, "rope", None)
    norms = {type(m).__name__ for m in (block.norm1, block.norm2, model.norm)}
    norm = {"LayerNorm": "layer", "RmsNorm": "rms"}.get("".join(norms), "")
    mlp = {Mlp: "gelu", GluMlp: "swiglu", SwiGLU: "swiglu"}.get(type(block.mlp), "")
    activation = getattr(block.mlp, "act", None)
    named = type(activation).__name__
    heads, width = block.attn.num_heads, model.embed_dim
    img, patch = tuple(model.patch_embed.img_size or ()), tuple(model.patch_embed.patch_size)
    exact_gelu = isinstance(activation, nn.GELU) and activation.approximate == "none"
    family = next((name for name, blocks in FAMILIES.items() if blocks == (mlp, norm)), None)
    for wrong, what in (
        (type(block) not in (Block, EvaBlock), f"block_fn={type(block).__name__}"),
        (not norm, f"norm_layer={'/'.join(sorted(norms))}"),
        (not mlp, f"mlp_layer={type(block.mlp).__name__}"),
        (not exact_gelu if mlp == "gelu" else named != "SiLU", f"act_layer={named}"),
        (mlp == "swiglu" and getattr(block.mlp, "gate_last", False), "gate_last=True"),
        (family is None, f"mlp {mlp} with norm {norm}, sweet knows gelu with layer and swiglu with rms"),
        (family == "vit" and rope is not None, f"rope {type(rope).__name__} in a GELU ViT"),
        (family == "eva" and model.pos_embed is not None, "use_abs_pos_emb=True beside rotary positions"),
        (family == "eva" and rope is None, "use_rot_pos_emb=False"),
        (width % heads != 0 or block.attn.head_dim * heads != width, f"attn_head_dim={block.attn.head_dim}"),
        (len(img) != 2 or img[0] != img[1], f"img_size={img}"),
        (patch[0] != patch[1], f"patch_size={patch}"),
    ):
        if wrong:
            raise UserError(f"{where}: {what}: sweet's ViT cannot express it")
    theta, grid = _rope(rope, img[0] // patch[0], where) if family == "eva" else (100.0, 0)
    return ViTConfig(
        depth=len(model.blocks),
        heads=heads,
        head_dim=width // heads,
        img_size=img[0],
        patch_size=patch[0],
        in_chans=model.patch_embed.proj.in_channels,
        family=str(family),
        eps=block.norm1.eps,
        rope_theta=theta,
        rope_grid=grid,
    )


def _rope(rope: Any, grid: int, where: str) -> tuple[float, int]:
    """``rope_theta`` and ``rope_grid`` of timm's rotary module. Raises UserError for another layout than ours."""
    ours = {"in_pixels": False, "grid_offset": 0.0, "grid_indexing": "ij", "rotate_half": True}
    if type(rope).__name__ != "RotaryEmbeddingCat":
        raise UserError(f"{where}: rope_type: {type(rope).__name__}, sweet's ViT has cat")
    for key, value in ours.items():
        if getattr(rope, key, value) != value:
            raise UserError(f"{where}: rope_{key}={getattr(rope, key)}, sweet's ViT has {value}")
    reference = rope.ref_feat_shape or (grid, grid)
    if reference[0] != reference[1]:
        raise UserError(f"{where}: ref_feat_shape={tuple(reference)}: not square")
    return float(rope.temperature), int(reference[0])


@torch.no_grad()
def _compare(model: Any, ours: Any, config: ViTConfig, where: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, config.in_chans, config.img_size, config.img_size, generator=generator)
    theirs = model.float().eval().forward_features(images)
    error = float((ours.forward_features(images) - theirs).norm() / theirs.norm())
    if not error < TOLERANCE:
        raise UserError(f"{where}: has a part that sweet's ViT lacks: features differ by {error:.1e}")
