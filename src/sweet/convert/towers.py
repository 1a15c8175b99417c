"""Encoders of transformers as models of timm: the class and its arguments that a ``config.json`` means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

from timm.layers import LayerNorm, Mlp, SwiGLUPacked
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sweet.errors import UserError, reason

ACTIVATIONS: dict[str, Any] = {
    "gelu": nn.GELU, "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip
# What every DINOv3 is to timm's Eva.
DINOV3: Mapping[str, Any] = {
    "rope_type": "dinov3", "rope_rotate_half": True, "use_rot_pos_emb": True, "use_abs_pos_emb": False,
    "use_fc_norm": False, "dynamic_img_size": True,
}  # fmt: skip


class Common(TypedDict):
    """Constructor arguments that all of timm's classes take; sizes in pixels, channels and blocks."""

    img_size: int
    patch_size: int
    in_chans: int
    embed_dim: int
    depth: int
    num_heads: int
    num_classes: int


_BASE = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "image_size": 224,
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # what transformers takes where a vision tower's config.json is silent
    "clip_vision_model": {**_BASE, "patch_size": 32, "hidden_act": "quick_gelu"},
    "siglip_vision_model": {**_BASE, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh"},
}


@dataclass(frozen=True)
class Tower:
    """The encoder that a ``config.json`` describes: its own keys, those of a vision tower included."""

    keys: Mapping[str, Any]
    kind: str

    def get(self, name: str, default: Any) -> Any:
        """A key of config.json."""
        value = self.keys.get(name, default)
        return default if value is None else value


def built(tower: Tower, where: str, tensors: Mapping[str, Tensor]) -> Any:
    """timm's model of the shape that config.json states; ``tensors`` show which biases there are.

    Raises UserError for an activation that timm does not know by name.
    """
    activation = str(tower.get("hidden_act", "gelu"))
    if activation not in ACTIVATIONS:
        raise UserError(f"{where}: hidden_act={activation}: expected one of {', '.join(ACTIVATIONS)}")
    try:
        common: Common = {
            "img_size": tower.keys["image_size"],
            "patch_size": tower.keys["patch_size"],
            "in_chans": tower.get("num_channels", 3),
            "embed_dim": tower.keys["hidden_size"],
            "depth": tower.keys["num_hidden_layers"],
            "num_heads": tower.keys["num_attention_heads"],
            "num_classes": 0,
        }
        return BUILDERS[tower.kind](tower, common, ACTIVATIONS[activation], tensors)
    except KeyError as problem:
        raise UserError(f"{where}: config.json has no {problem}") from None
    except (ValueError, TypeError, AssertionError) as problem:
        raise UserError(f"{where}: timm cannot make its shape ({reason(problem)})") from None


def _norm(tower: Tower, default: float) -> Any:
    return partial(LayerNorm, eps=float(tower.get("layer_norm_eps", default)))


def _ratio(tower: Tower, width: int) -> float:
    if "intermediate_size" in tower.keys:
        return (int(tower.keys["intermediate_size"]) + 0.5) / width
    return float(tower.get("mlp_ratio", 4))


def _plain(tower: Tower, common: Common, activation: Any, tensors: Mapping[str, Tensor]) -> nn.Module:
    make = VisionTransformerDistilled if "dist_token" in tensors else VisionTransformer
    return make(
        **common,
        mlp_ratio=_ratio(tower, common["embed_dim"]),
        qkv_bias=bool(tower.get("qkv_bias", True)),
        act_layer=activation,
        norm_layer=_norm(tower, 1e-12),
    )


def relative(tower: Tower) -> bool:
    """Whether it is a BEiT with relative positions; without any, timm holds it in another class."""
    wanted = [tower.get(f"use_{name}relative_position_bias", False) for name in ("", "shared_")]
    if tower.kind == "beit" and all(wanted):
        raise ValueError("use_shared_relative_position_bias beside a table for each block")
    return tower.kind == "beit" and any(wanted)


def _beit(tower: Tower, common: Common, activation: Any, tensors: Mapping[str, Tensor]) -> nn.Module:
    scale = float(tower.get("layer_scale_init_value", 0.1))
    table = bool(tower.get("use_absolute_position_embeddings", False))
    pooled = "fc_norm.weight" in tensors or (not tensors and bool(tower.get("use_mean_pooling", True)))
    ratio, norm = _ratio(tower, common["embed_dim"]), _norm(tower, 1e-12)
    if not relative(tower):
        return VisionTransformer(
            **common,
            mlp_ratio=ratio,
            act_layer=activation,
            init_values=scale or None,
            pos_embed="learn" if table else "none",
            fc_norm=pooled,
            norm_layer=norm,
        )
    if activation is not nn.GELU:
        raise ValueError(f"hidden_act={tower.get('hidden_act', 'gelu')}")
    return Beit(
        **common,
        mlp_ratio=ratio,
        init_values=scale or None,
        use_abs_pos_emb=table,
        use_rel_pos_bias=True,
        use_fc_norm=pooled,
        norm_layer=norm,
    )


def _dinov2(tower: Tower, common: Common, activation: Any, _: Mapping[str, Tensor]) -> nn.Module:
    registers = int(tower.get("num_register_tokens", 4)) if tower.kind == "dinov2_with_registers" else 0
    ratio = float(tower.get("mlp_ratio", 4))
    gated = bool(tower.get("use_swiglu_ffn", False))
    if gated:
        hidden = (int(common["embed_dim"] * ratio * 2 / 3) + 7) // 8 * 8
        ratio = (2 * hidden + 0.5) / common["embed_dim"]
    layer: Any = SwiGLUPacked if gated else Mlp  # a partial, which timm's annotation leaves out
    return VisionTransformer(
        **common,
        mlp_ratio=ratio,
        act_layer=nn.SiLU if gated else activation,
        mlp_layer=layer,
        qkv_bias=bool(tower.get("qkv_bias", True)),
        init_values=float(tower.get("layerscale_value", 1.0)),
        reg_tokens=registers,
        no_embed_class=registers > 0,
        norm_layer=_norm(tower, 1e-6),
    )


def _dinov3(tower: Tower, common: Common, activation: Any, _: Mapping[str, Tensor]) -> nn.Module:
    gated = bool(tower.get("use_gated_mlp", False))
    if activation != ("silu" if gated else nn.GELU):
        raise ValueError(f"hidden_act={tower.get('hidden_act', 'gelu')}")
    return Eva(
        **common,
        mlp_ratio=_ratio(tower, common["embed_dim"]),
        qkv_bias=bool(tower.get("query_bias", True)),
        init_values=float(tower.get("layerscale_value", 1.0)),
        rope_temperature=float(tower.get("rope_theta", 100.0)),
        swiglu_mlp=gated,
        swiglu_align_to=1 if gated else 0,
        num_reg_tokens=int(tower.get("num_register_tokens", 0)),
        norm_layer=_norm(tower, 1e-5),
        **DINOV3,
    )


def _clip(tower: Tower, common: Common, activation: Any, _: Mapping[str, Tensor]) -> nn.Module:
    return VisionTransformer(
        **common,
        mlp_ratio=_ratio(tower, common["embed_dim"]),
        act_layer=activation,
        pre_norm=True,
        norm_layer=_norm(tower, 1e-5),
    )


def _siglip(tower: Tower, common: Common, activation: Any, _: Mapping[str, Tensor]) -> nn.Module:
    return VisionTransformer(
        **common,
        mlp_ratio=_ratio(tower, common["embed_dim"]),
        act_layer=activation,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
        final_norm=True,
        norm_layer=_norm(tower, 1e-6),
    )


Builder = Callable[[Tower, Common, Any, Mapping[str, Tensor]], nn.Module]
BUILDERS: dict[str, Builder] = {
    "vit": _plain,
    "vit_mae": _plain,
    "deit": _plain,
    "beit": _beit,
    "dinov2": _dinov2,
    "dinov2_with_registers": _dinov2,
    "dinov3_vit": _dinov3,
    "clip_vision_model": _clip,
    "siglip_vision_model": _siglip,
}
