"""The weights of any plain ViT of timm under our names, without what can be folded away exactly.

Fused queries, keys and values with biases, gates before values, no layer scales, a position for every token, one kind
of extra token. Nothing is lost: all of it is the same function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sweet.models.names import our_names, without_layer_scales

HEAD = ("head.", "head_dist.", "head_drop.", "attn_pool.")
UNUSED = ("mask_token",)  # of a pre-training; no part of the encoder


def encoder_state(state: Mapping[str, Tensor], patches: int, head_dim: int) -> dict[str, Tensor]:
    """An encoder under our names; ``patches`` is the number of them that its table of positions is for.

    Keys and values that several heads of ``head_dim`` channels share are there once for each. Returns tensors of the
    type of ``state``; a head is left out.
    """
    result = {name: value for name, value in state.items() if not name.startswith((*HEAD, *UNUSED))}
    result = {name: value for name, value in result.items() if not name.endswith("relative_position_index")}
    result = without_layer_scales(result)
    blocks = {found[0] for name in result if (found := re.match(r"blocks\.\d+\.", name))}
    for block in blocks:
        _joined_queries(result, f"{block}attn.", head_dim)
        for name in ("mlp.fc1_g", "mlp.fc1_x", "mlp.fc1", "mlp.fc2", "attn.proj"):
            _with_bias(result, f"{block}{name}")
    if "norm_pre.weight" not in result:  # with it timm gives the embedding none
        _with_bias(result, "patch_embed.proj")
    if "dist_token" in result:  # a register with a head of its own
        result["reg_token"] = result.pop("dist_token")
    result = our_names(result)
    positions = result.get("pos_embed")
    if positions is not None:
        prefix = sum(result[name].shape[1] for name in ("cls_token", "reg_token") if name in result)
        missing = prefix + patches - positions.shape[1]
        result["pos_embed"] = torch.cat([positions.new_zeros(1, missing, positions.shape[2]), positions], 1)
    return result


def _joined_queries(state: dict[str, Tensor], attention: str, head_dim: int) -> None:
    if f"{attention}q_proj.weight" in state:
        weights = [state.pop(f"{attention}{name}_proj.weight") for name in "qkv"]
        biases = [
            state.pop(f"{attention}{name}_proj.bias", weight.new_zeros(len(weight)))
            for name, weight in zip("qkv", weights, strict=True)
        ]
        weights, biases = (
            [value.unflatten(0, (-1, head_dim)).repeat_interleave(len(values[0]) // len(value), 0).flatten(0, 1)
             for value in values]
            for values in (weights, biases)
        )  # fmt: skip
        state[f"{attention}qkv.weight"], state[f"{attention}qkv.bias"] = torch.cat(weights), torch.cat(biases)
    _with_bias(state, f"{attention}qkv")


def _with_bias(state: dict[str, Tensor], layer: str) -> None:
    weight = state.get(f"{layer}.weight")
    if weight is not None:
        state.setdefault(f"{layer}.bias", weight.new_zeros(len(weight)))
