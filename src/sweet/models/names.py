"""One set of names for the tensors of every encoder, whichever class of timm holds it.

Ours are those of timm's ``VisionTransformer``: one ``attn.qkv`` with a bias, one ``mlp.fc1`` that holds gates before
values, no layer scales, a position for every token. Learned rotary frequencies lie in their blocks, as
``attn.freqs`` (2, h, d / 2).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .shapes import LAYER_SCALES, SCALES

FREQS = "rope.freqs"


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under timm's names of any class, under ours: renamed and joined, nothing computed.

    ``state`` has biases wherever its class can have them, and no layer scales.
    """
    result = dict(state)
    if FREQS in result:
        for layer, freqs in enumerate(result.pop(FREQS).unbind(1)):
            result[f"blocks.{layer}.attn.freqs"] = freqs
    for name in state:
        if name.endswith("attn.q_bias"):
            attention = name.removesuffix("q_bias")
            q, v = result.pop(name), result.pop(f"{attention}v_bias")
            result[f"{attention}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
        elif ".mlp.fc1_g." in name:
            gate, up = result.pop(name), result.pop(name.replace("fc1_g", "fc1_x"))
            result[name.replace("fc1_g", "fc1")] = torch.cat([gate, up])
    return result


def without_layer_scales(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function without layer scales: folded into what writes to the residual stream."""
    result = dict(state)
    for name in state:
        if scale := SCALES.match(name):
            gamma, writer = result.pop(name), f"{scale[1]}{LAYER_SCALES[scale[2]]}"
            result[f"{writer}.weight"] = result[f"{writer}.weight"] * gamma[:, None]
            if f"{writer}.bias" in result:
                result[f"{writer}.bias"] = result[f"{writer}.bias"] * gamma
    return result


def timm_names(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """An encoder under our names for a class of timm with the parameters ``shapes``: the same function.

    Layer scales that the class has are one. The bias of keys, which ``Beit`` cannot have, is left out: without rotary
    positions it adds the same to all of a query's products. What does not fit is left as it is.
    """
    result = dict(state)
    for name in shapes.keys() - state.keys():
        if name == FREQS:
            layers = [f"blocks.{i}.attn.freqs" for i in range(len(state)) if f"blocks.{i}.attn.freqs" in state]
            if layers:
                result[name] = torch.stack([result.pop(layer) for layer in layers], 1)
        elif SCALES.match(name):
            result[name] = torch.ones(shapes[name])
        elif name.endswith("attn.q_bias"):
            attention = name.removesuffix("q_bias")
            if f"{attention}qkv.bias" in result:
                q, _, v = result.pop(f"{attention}qkv.bias").chunk(3)
                result |= {name: q, f"{attention}v_bias": v}
        elif ".mlp.fc1_g." in name and name.replace("fc1_g", "fc1") in result:
            gate, up = result.pop(name.replace("fc1_g", "fc1")).chunk(2)
            result |= {name: gate, name.replace("fc1_g", "fc1_x"): up}
    return result
