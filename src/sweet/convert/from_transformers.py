"""Folders of transformers: their tensors under timm's names in a model of timm, then the way of every timm model.

ViT, DeiT, BEiT, ViTMAE, DINOv2 with and without registers, DINOv3, and the vision towers of CLIP and SigLIP. A model's
switches stand in ``config.json``, its mean and deviation in ``preprocessor_config.json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from timm.layers import LayerNorm, Mlp, SwiGLUPacked
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sweet.errors import UserError
from sweet.files import read_json, sha256

from .checkpoints import Checkpoint, mae_decoder, split_decoder, tensors_sha256
from .from_timm import from_model
from .snapshot import images_of, origin_of
from .timm_source import filled, reason
from .weights_file import Weights, read_weights

INDEX = "model.safetensors.index.json"
FILES = ("model.safetensors", "pytorch_model.bin")
ACTIVATIONS: dict[str, Any] = {
    "gelu": nn.GELU, "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip
# Heads, poolers, text towers and what only pre-training used.
LEFT_OUT = re.compile(
    r"pooler\.dense|classifier|cls_classifier|distillation_classifier|head\.|visual_projection|text_|logit_|"
    r"embeddings\.mask_token|embeddings\.position_ids|.*rope_embeddings\.|lm_head|decoder\.decoder_pos_ids"
)
TABLE = "attn.relative_position_bias_table"
SHARED = "relative_position_bias_table"  # BEiT's, of all blocks
# transformers' names as timm's, one rule after the other.
NAMES = (
    (r"^decoder\.(?:decoder_layers|decoder_encoder\.layer)\.", "decoder_blocks."),
    (r"^decoder\.decoder_", "decoder_"),
    (r"^decoder\.mask_token$", "mask_token"),
    (r"^embeddings\.(?:cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embedding(?:s|\.weight)$", "pos_embed"),
    (r"^embeddings\.patch_embeddings?(?:\.projection)?\.", "patch_embed.proj."),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^(?:encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.(?:attention\.attention|self_attn|attention)\.(?:query|q_proj)\.", ".attn.q."),
    (r"\.(?:attention\.attention|self_attn|attention)\.(?:key|k_proj)\.", ".attn.k."),
    (r"\.(?:attention\.attention|self_attn|attention)\.(?:value|v_proj)\.", ".attn.v."),
    (r"\.(?:attention\.output\.dense|self_attn\.out_proj|attention\.o_proj)\.", ".attn.proj."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.(?:intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(?:output\.dense|mlp\.down_proj|mlp\.weights_out)\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.lambda_(\d)$", r".ls\1.gamma"),
    (r"^(?:encoder\.relative_position_bias|shared_position_bias)\.relative_position_bias_table$", SHARED),
    (r"\.(?:attention\.attention\.)?relative_position_bias\.relative_position_bias_table$", f".{TABLE}"),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (r"^pre_layrnorm\.", "norm_pre."),
)


class Common(TypedDict):
    """Constructor arguments that all of timm's classes take; sizes in pixels, channels and blocks."""

    img_size: int
    patch_size: int
    in_chans: int
    embed_dim: int
    depth: int
    num_heads: int
    num_classes: int


@dataclass(frozen=True)
class Tower:
    """The encoder that a ``config.json`` describes: its own keys, those of a vision tower included."""

    keys: Mapping[str, Any]
    kind: str

    def get(self, name: str, default: Any) -> Any:
        """A key of config.json."""
        value = self.keys.get(name, default)
        return default if value is None else value


def from_folder(folder: Path, *, file: Path | None = None, part: str | None = None) -> Checkpoint:
    """A folder of transformers' ``save_pretrained``, or ``file`` beside its config.json.

    Raises UserError naming the folder for a model type that is not one of ours.
    """
    tower = tower_of(folder / "config.json")
    weights, digest = _weights(folder, file, part)
    renamed = renamed_tensors(weights.tensors)
    encoder, decoder = split_decoder(renamed)
    model = filled(built(tower, str(folder), encoder), fused(encoder, tower), str(folder))
    model.pretrained_cfg = images_of(folder)
    found = from_model(model, str(folder), digest)
    tensors, mae = mae_decoder(fused(decoder, tower), found.config) if decoder and _mae_heads(tower) else ({}, None)
    name = folder.name if file is None or file.name in FILES else file.name
    origin = origin_of(folder, name)
    return replace(found, name=name, state=found.state | tensors, mae=mae, dtype=weights.dtype, origin=origin)


def check_folder(folder: Path, where: str) -> None:
    """Raises UserError unless an encoder of one block with this config.json, of random weights, can be converted."""
    tower = tower_of(folder / "config.json", where)
    small = Tower({**tower.keys, "num_hidden_layers": 1}, tower.kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = built(small, where, {})
    from_model(model.eval(), where, "")


def tower_of(path: Path, where: str | None = None) -> Tower:
    """Raises UserError for a model type that cannot be read, naming it."""
    config = read_json(path)
    where = where or str(path.parent)
    kind = str(config.get("model_type")) if isinstance(config, dict) else "None"
    keys = config
    if kind in ("clip", "siglip") and isinstance(config.get("vision_config"), dict):
        keys = config["vision_config"]
    kind = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}.get(kind, kind)
    if kind not in BUILDERS:
        raise UserError(f"{where}: model_type={kind}: expected one of {', '.join(BUILDERS)}")
    return Tower(keys, kind)


def _weights(folder: Path, file: Path | None, part: str | None) -> tuple[Weights, str]:
    """The tensors of one file, or of the shards that an index lists, and a checksum."""
    if file is None and (folder / INDEX).is_file():
        shards = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        parts = [read_weights(folder / name, part) for name in shards]
        tensors = {name: value for shard in parts for name, value in shard.tensors.items()}
        return Weights(tensors, parts[0].dtype if parts else torch.float32), tensors_sha256(tensors)
    file = file or next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: holds none of {', '.join(FILES)}")
    return read_weights(file, part), sha256(file)


def renamed_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under timm's names, queries, keys and values still apart (``attn.q``); heads are left out."""
    result = {}
    for name, value in tensors.items():
        if LEFT_OUT.match(name):
            continue
        for old, new in NAMES:
            name = re.sub(old, new, name)
        if name == "cls_token":
            value = value.reshape(1, 1, -1)
        elif name == "pos_embed" and value.dim() == 2:
            value = value[None]
        if name == "reg_token" and value.shape[1] == 0:
            continue
        result[name] = value
    return result


def fused(tensors: Mapping[str, Tensor], tower: Tower) -> dict[str, Tensor]:
    """Queries, keys and values of each block in one matrix, and what else timm's class calls differently."""
    result = {name: value for name, value in tensors.items() if not re.search(r"\.attn\.[qkv]\.", name)}
    apart = tower.kind == "dinov3_vit" or _relative(tower)  # timm's class has the biases one by one, none of keys
    for name in [name for name in tensors if name.endswith(".attn.q.weight")]:
        block = name.removesuffix("q.weight")
        result[f"{block}qkv.weight"] = torch.cat([tensors[f"{block}{letter}.weight"] for letter in "qkv"])
        biases = [tensors.get(f"{block}{letter}.bias") for letter in "qkv"]
        known = [value for value in biases if value is not None]
        if not known:
            continue
        q, k, v = (torch.zeros_like(known[0]) if value is None else value for value in biases)
        if apart and biases[1] is None:
            result |= {f"{block}q_bias": q, f"{block}v_bias": v}
        else:
            result[f"{block}qkv.bias"] = torch.cat([q, k, v])
    if apart:
        result = {re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", name): value for name, value in result.items()}
    if tower.kind == "dinov3_vit":
        gated = any(".mlp.gate_proj." in name for name in result)
        for old, new in (
            (".mlp.up_proj.", ".mlp.fc1_x." if gated else ".mlp.fc1."),
            (".mlp.gate_proj.", ".mlp.fc1_g."),
        ):
            result = {name.replace(old, new): value for name, value in result.items()}
    if tower.kind == "dinov2_with_registers" and "pos_embed" in result:  # timm's positions are of patches only
        result["cls_token"] = result["cls_token"] + result["pos_embed"][:, :1]
        result["pos_embed"] = result["pos_embed"][:, 1:]
    if (shared := result.pop(SHARED, None)) is not None:
        result |= {f"blocks.{i}.{TABLE}": shared for i in range(int(tower.keys["num_hidden_layers"]))}
    return result


def built(tower: Tower, where: str, tensors: Mapping[str, Tensor]) -> Any:
    """timm's model of the shape that config.json states; ``tensors`` tell which biases there are.

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


def _relative(tower: Tower) -> bool:
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
    if not _relative(tower):
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
        rope_type="dinov3",
        rope_temperature=float(tower.get("rope_theta", 100.0)),
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        swiglu_mlp=gated,
        swiglu_align_to=1 if gated else 0,
        num_reg_tokens=int(tower.get("num_register_tokens", 0)),
        use_fc_norm=False,
        norm_layer=_norm(tower, 1e-5),
        dynamic_img_size=True,
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


def _mae_heads(tower: Tower) -> bool:
    """Whether its decoder has the sixteen heads that :func:`mae_decoder` takes for granted."""
    return tower.kind == "vit_mae" and tower.get("decoder_num_attention_heads", 16) == 16


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
