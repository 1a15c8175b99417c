"""A timm model as a checkpoint of ours.

Tensors alone do not describe a model: an activation, the order of norms or the layout of rotary positions leave no
trace in them. So the model is built and its modules are inspected; at last our encoder must give the same features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from timm.layers import (
    GELU,
    Attention,
    AttentionRope,
    GELUTanh,
    GluMlp,
    LayerNorm,
    Mlp,
    PatchEmbed,
    QuickGELU,
    RmsNorm,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    SwiGLU,
)
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.beit import Block as BeitBlock
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.vit import build_vit, encoder_shapes, mismatch
from sweet.template.image_size import joined, sides
from sweet.template.sizes import hidden_features

from .canonical import encoder_state
from .checkpoints import Checkpoint, data_config

FAMILY = {VisionTransformer: "vit", VisionTransformerDistilled: "vit", Eva: "eva", Beit: "beit"}
NORMS = {LayerNorm: "layer", nn.LayerNorm: "layer", RmsNorm: "rms"}
ATTENTION = (Attention, AttentionRope, EvaAttention, BeitAttention)
MLPS = (Mlp, GluMlp, SwiGLU)
ROPES = {RotaryEmbeddingCat: "cat", RotaryEmbeddingDinoV3: "dinov3", RotaryEmbeddingMixed: "mixed"}
BLOCKS = {
    "ResPostBlock": "norms after the layers",
    "EvaBlockPostNorm": "norms after the layers",
    "ParallelScalingBlock": "attention and MLP side by side",
    "DiffParallelScalingBlock": "differential attention beside the MLP",
    "ParallelThingsBlock": "several attentions side by side",
}
TOLERANCE = 1e-3


def from_model(model: nn.Module, where: str, digest: str) -> Checkpoint:
    """A plain ViT of timm that :class:`ViTConfig` can express.

    ``where`` names the model in errors, ``digest`` is the SHA256 of its weights. Raises UserError naming every reason
    why not.
    """
    if reasons := refusals(model):
        raise UserError(f"{where}: {'; '.join(reasons)}")
    try:
        config = config_of_model(model)
    except ValueError as unfit:  # timm leaves a rest where an image is no whole number of patches
        raise UserError(f"{where}: {unfit}") from None
    state = encoder_state(
        {k: v.detach().float() for k, v in model.state_dict().items()}, config.patches, config.head_dim
    )
    if problem := mismatch(state, encoder_shapes(config)):
        raise UserError(f"{where}: {problem}")
    cfg = cfg_values(getattr(model, "pretrained_cfg", None))
    try:
        data = data_config(config, cfg.get("mean"), cfg.get("std"), cfg.get("interpolation"))
    except UserError as problem:
        raise UserError(f"{where}: {problem}") from None
    _compare(model, build_vit(config, state), config, where)
    name = where if where.startswith("timm:") else Path(where).name
    return Checkpoint(name, digest, config, state, data)


def refusals(model: nn.Module) -> list[str]:
    """All reasons why a model of timm cannot be converted; none where it can. Weights are not looked at: a model on the
    meta device will do."""
    if type(model) not in FAMILY:
        known = ", ".join(sorted(kind.__name__ for kind in FAMILY))
        return [f"is a {type(model).__name__}, expected one of {known}"]
    vit: Any = model
    if type(vit.patch_embed) is not PatchEmbed:
        return [f"embed_layer={type(vit.patch_embed).__name__}: an embedding that is not one convolution"]
    block = vit.blocks[0]
    if type(block) not in (Block, EvaBlock, BeitBlock):
        return [f"block_fn={type(block).__name__}: {BLOCKS.get(type(block).__name__, 'not a pre-norm block')}"]
    return [f"{what}: sweet's ViT cannot express it" for wrong, what in _unlike_ours(vit, block) if wrong]


def _unlike_ours(model: Any, block: Any) -> Iterator[tuple[bool, str]]:
    """What a pre-norm ViT may still have that ours has not: whether it does, and its name."""
    attn, mlp, rope = block.attn, block.mlp, getattr(model, "rope", None)
    norms = {type(m) for m in (block.norm1, block.norm2, model.norm, model.fc_norm)} - {nn.Identity}
    yield len(norms & NORMS.keys()) != 1 or len(norms) != 1, f"norm_layer={'/'.join(sorted(k.__name__ for k in norms))}"
    yield type(attn) not in ATTENTION, f"attn_layer={type(attn).__name__}"
    yield getattr(attn, "gate", None) is not None, "gated_attn=True"
    width, heads = model.embed_dim, block.attn.num_heads
    inner = getattr(attn, "head_dim", width // heads) * heads
    yield inner != width, f"attn_head_dim={inner // heads}"
    yield type(mlp) not in MLPS, f"mlp_layer={type(mlp).__name__}"
    yield type(mlp) is GluMlp and mlp.gate_last, "gate_last=True"
    yield _activation(mlp) is None, f"act_layer={type(getattr(mlp, 'act', None)).__name__}"
    rows, columns = model.patch_embed.patch_size
    yield rows != columns, f"patch_size=({rows}, {columns})"
    yield getattr(model, "rel_pos_bias", None) is not None, "use_shared_rel_pos_bias=True"
    if rope is None:
        return
    yield type(rope) not in ROPES, f"rope_type: {type(rope).__name__}"
    yield bool(getattr(rope, "in_pixels", False)), "rope_in_pixels=True"
    yield getattr(rope, "normalize_coords", "separate") != "separate", "normalize_coords"


def config_of_model(model: Any) -> ViTConfig:
    """The shape of a model that is not refused."""
    block, attn, mlp, rope = model.blocks[0], model.blocks[0].attn, model.blocks[0].mlp, getattr(model, "rope", None)
    width, patch = model.embed_dim, model.patch_embed
    prefix = [getattr(model, name, None) for name in ("reg_token", "dist_token")]
    gated = type(mlp) in (GluMlp, SwiGLU)
    hidden = mlp.fc2.in_features
    plain = hidden == hidden_features(width, "swiglu" if gated else "gelu")
    present = [name for name in ("norm", "fc_norm") if not isinstance(getattr(model, name), nn.Identity)]
    return ViTConfig(
        depth=len(model.blocks),
        heads=attn.num_heads,
        head_dim=width // attn.num_heads,
        img_size=joined(*patch.img_size),
        patch_size=patch.patch_size[0],
        in_chans=patch.proj.in_channels,
        family=FAMILY[type(model)],
        eps=block.norm1.eps,
        mlp="swiglu" if gated else "gelu",
        activation=str(_activation(mlp)),
        mlp_ratio=0.0 if plain else hidden / width,
        norm=NORMS[type(block.norm1)],
        final_norm={"norm": "tokens", "fc_norm": "pooled"}[present[0]] if present else "none",
        pre_norm=not isinstance(getattr(model, "norm_pre", nn.Identity()), nn.Identity),
        patch_norm=not isinstance(patch.norm, nn.Identity),
        qk_norm=not isinstance(getattr(attn, "q_norm", nn.Identity()), nn.Identity),
        attn_norm=not isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity),
        mlp_norm=not isinstance(getattr(mlp, "norm", nn.Identity()), nn.Identity),
        positions="none" if model.pos_embed is None else "table",
        class_token=model.cls_token is not None,
        registers=sum(token.shape[1] for token in prefix if token is not None),
        entry=_entry(model),
        **_rotary(rope),
    )


def _entry(model: nn.Module) -> str:
    """The architecture by which timm made a model; a folder's own ``pretrained_cfg`` may not say it."""
    own, made = (cfg_values(getattr(model, name, None)) for name in ("pretrained_cfg", "default_cfg"))
    return str(own.get("architecture") or made.get("architecture") or "")


def _rotary(rope: Any) -> dict[str, Any]:
    """The fields of :class:`ViTConfig` that describe a rotary module of timm."""
    if rope is None:
        return {"rope": "none"}
    reference = getattr(rope, "ref_feat_shape", None)
    half = bool(getattr(rope, "rotate_half", False)) and type(rope) is not RotaryEmbeddingMixed
    return {
        "rope": ROPES[type(rope)],
        "rope_theta": float(rope.temperature),
        "rope_grid": joined(*map(int, reference)) if reference else -1,
        "rope_layout": "half" if half else "interleaved",
        "rope_indexing": rope.grid_indexing,
        "rope_offset": float(getattr(rope, "grid_offset", 0.0)),
    }


def _activation(mlp: Any) -> str | None:
    """The name of an MLP's activation; None for one that ours has not."""
    act = getattr(mlp, "act", None)
    if type(mlp) in (GluMlp, SwiGLU):
        return "silu" if isinstance(act, nn.SiLU) else None
    if isinstance(act, GELUTanh) or (isinstance(act, nn.GELU) and act.approximate == "tanh"):
        return "gelu_tanh"
    if isinstance(act, QuickGELU):
        return "quick_gelu"
    return "gelu" if isinstance(act, nn.GELU | GELU) else None


def cfg_values(cfg: Any) -> Mapping[str, Any]:
    """What timm says of a model's weights, in a mapping, an object or nothing."""
    return cfg if isinstance(cfg, Mapping) else vars(cfg) if cfg else {}


@torch.no_grad()
def _compare(model: Any, ours: Any, config: ViTConfig, where: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, config.in_chans, *sides(config.img_size), generator=generator)
    theirs = model.float().eval().forward_features(images)
    error = float((ours.forward_features(images) - theirs).norm() / theirs.norm())
    if not error < TOLERANCE:
        raise UserError(f"{where}: has a part that sweet's ViT lacks: features differ by {error:.1e}")
