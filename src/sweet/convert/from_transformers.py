"""Folders of transformers: their tensors under timm's names in a model of timm, then the way of every timm model.

ViT, DeiT, BEiT, ViTMAE, DINOv2 with and without registers, DINOv3, and the vision towers of CLIP and SigLIP. A model's
switches stand in ``config.json``, its mean and deviation in ``preprocessor_config.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sweet.errors import UserError
from sweet.files import read_json, sha256
from sweet.models.device import own_draws

from .checkpoints import Checkpoint, assumed_pixels, mae_decoder, split_decoder, tensors_sha256
from .from_timm import from_model
from .snapshot import config_of, images_of, origin_of
from .timm_source import filled
from .towers import BUILDERS, DEFAULTS, Tower, built, relative
from .weights_file import FILES, Weights, file_in, read_shards, read_weights

INDEX = "model.safetensors.index.json"
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
    if mae is not None:
        mae = replace(mae, norm_pix=bool(tower.get("norm_pix_loss", False)))
    name = folder.resolve().name if file is None or file.name in FILES else file.name
    assumed = () if model.pretrained_cfg["mean"] else (assumed_pixels(found.config.in_chans),)
    found = replace(found, name=name, state=found.state | tensors, mae=mae, dtype=weights.dtype)
    return replace(found, assumed=assumed, origin=origin_of(folder, name))


def check_folder(folder: Path, where: str) -> None:
    """Raises UserError unless an encoder of one block with this config.json, of random weights, can be converted."""
    tower = tower_of(folder / "config.json", where)
    small = Tower({**tower.keys, "num_hidden_layers": 1}, tower.kind)
    with own_draws(0):
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
    return Tower({**DEFAULTS.get(kind, {}), **keys}, kind)


def _weights(folder: Path, file: Path | None, part: str | None) -> tuple[Weights, str]:
    """The tensors of one file, or of the shards that an index lists, and a checksum."""
    if file is None and (folder / INDEX).is_file():
        shards = sorted(set(config_of(folder, INDEX).get("weight_map", {}).values()))
        weights = read_shards([folder / name for name in shards], folder / INDEX, part)
        return weights, tensors_sha256(weights.tensors)
    file = file or file_in(folder)
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
    apart = tower.kind == "dinov3_vit" or relative(tower)  # timm's class has the biases one by one, none of keys
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


def _mae_heads(tower: Tower) -> bool:
    """Whether its decoder has the sixteen heads that :func:`mae_decoder` takes for granted."""
    return tower.kind == "vit_mae" and tower.get("decoder_num_attention_heads", 16) == 16
