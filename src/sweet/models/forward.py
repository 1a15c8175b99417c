"""The encoder as a function of its weights: numbers equal to timm's modules, for weights that are computed.

Pre-training needs three things that a module does not give: weights that come out of a template, sub-networks whose
residual and inner widths differ, and only the kept patches. Weights are a flat dict under timm's names.

Shape letters: B images, N tokens, D residual width, h heads, d head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ViTConfig
from .vit import rope_module

Weights = Mapping[str, Tensor]
Hook = Callable[[int, Tensor], None]
"""Called with an index and an activation; it returns nothing and changes nothing."""


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) -> patches (B, N, C * patch^2), pixels of a patch in the order of a convolution kernel."""
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(patches: Tensor, patch: int, channels: int) -> Tensor:
    """Inverse of :func:`patchify` for square images: (B, N, C * patch^2) -> (B, C, S, S)."""
    grid = math.isqrt(patches.shape[1])
    x = patches.reshape(len(patches), grid, grid, channels, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), channels, grid * patch, grid * patch)


@lru_cache(maxsize=16)
def rope_table(config: ViTConfig, device: torch.device) -> Tensor:
    """(1 + N, d): cosines then sines of half the head dimension each; the class token is not rotated."""
    sin, cos = rope_module(config).get_embed().float().chunk(2, -1)
    half = config.head_dim // 2
    table = torch.cat([cos[:, :half], sin[:, :half]], -1)
    identity = torch.cat([torch.ones(1, half), torch.zeros(1, half)], -1)
    return torch.cat([identity, table]).to(device)  # kept there: a copy at every step would stall a GPU


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotary positions in the half layout: channel i and i + d/2 are a pair. The table broadcasts against x."""
    cos, sin = table.chunk(2, -1)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for q, k, v (B, h, N, d).

    Plain products on a CPU: the fused kernel's bf16 backward is several times slower there at small d.
    """
    if q.device.type == "cpu":
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


def norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    """LayerNorm of x (..., D) where the weights hold a bias, RMSNorm where they do not."""
    weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
    if bias is None:  # the fused kernel wants one type, and autocast leaves the gain in float32
        return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).to(x.dtype)
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """The layer ``name`` of ``w``: x (..., in) -> (..., out)."""
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def read(x: Tensor, w: Weights, name: str) -> Tensor:
    """What a matrix reads from the normed stream (B, N, D): its first channels, where masks leave no more."""
    return linear(x[..., : w[f"{name}.weight"].shape[1]], w, name)


def write(x: Tensor, values: Tensor, w: Weights, name: str) -> Tensor:
    """The stream x (B, N, D) and what a matrix adds to it: to its first channels, where masks leave no more.

    The bias is no part of the matrix and adds to all.
    """
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    dead = x.shape[-1] - weight.shape[0]
    if not dead:
        return x + F.linear(values, weight, bias)
    return x + (F.pad(F.linear(values, weight), (0, dead)) + bias)


def block(
    x: Tensor,
    w: Weights,
    prefix: str,
    *,
    head_dim: int,
    mlp: str,
    eps: float,
    rope: Tensor | None = None,
    hook: Hook | None = None,
    inner: Hook | None = None,
) -> Tensor:
    """One pre-norm block: (B, N, D) -> (B, N, D); the widths inside, and the live ones, are read off the weights.

    ``rope`` is a table for :func:`rotate` that broadcasts against q and k (B, N, 2, h, d), None for no rotation. The
    hooks are called with 0 for the attention and 1 for the MLP.
    """
    b, n, _ = x.shape
    if hook:
        hook(0, x)
    qkv = read(norm(x, w, f"{prefix}norm1", eps), w, f"{prefix}attn.qkv")
    qkv = qkv.reshape(b, n, 3, -1, head_dim)
    qk, v = (qkv[:, :, :2] if rope is None else rotate(qkv[:, :, :2], rope)), qkv[:, :, 2]
    q, k, v = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].transpose(1, 2), v.transpose(1, 2)
    heads = attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
    if inner:
        inner(0, heads)
    x = write(x, heads, w, f"{prefix}attn.proj")
    if hook:
        hook(1, x)
    hidden = read(norm(x, w, f"{prefix}norm2", eps), w, f"{prefix}mlp.fc1")
    if mlp == "swiglu":
        gate, up = hidden.chunk(2, -1)
        hidden = F.silu(gate) * up
    else:
        hidden = F.gelu(hidden)
    if inner:
        inner(1, hidden)
    return write(x, hidden, w, f"{prefix}mlp.fc2")


def embed(w: Weights, patches: Tensor, keep: Tensor | None) -> Tensor:
    """Patches (B, N, pixels) -> tokens (B, 1 + n, D): class token first, only the patches of ``keep`` (B, n)."""
    if keep is not None:
        patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
    tokens = F.linear(patches, w["patch_embed.proj.weight"].flatten(1), w["patch_embed.proj.bias"])
    cls = w["cls_token"]
    if "pos_embed" in w:
        positions = w["pos_embed"]
        cls = cls + positions[:, :1]
        patch_positions = positions[:, 1:].expand(len(tokens), -1, -1)
        if keep is not None:
            patch_positions = patch_positions.gather(1, keep[..., None].expand(-1, -1, positions.shape[-1]))
        tokens = tokens + patch_positions
    return torch.cat([cls.expand(len(tokens), -1, -1), tokens], 1)


def _numbered(hook: Hook | None, block: int) -> Hook | None:
    return (lambda sublayer, value: hook(2 * block + sublayer, value)) if hook else None


def encode(
    w: Weights,
    patches: Tensor,
    config: ViTConfig,
    *,
    keep: Tensor | None = None,
    hook: Hook | None = None,
    inner: Hook | None = None,
) -> Tensor:
    """Patches (B, N, pixels) -> tokens after the final norm (B, 1 + n, D).

    ``w`` are an encoder's weights under timm's names. ``keep`` (B, n) are the indices of the visible patches, by
    default all; their rotary positions are gathered with them. ``hook`` is called with (norm index, stream (B, 1 + n,
    D)) at each norm input, numbered as in :class:`sweet.template.order.Order`; ``inner`` with the same index and what
    the attention or MLP behind that norm gives to its writer: heads (B, 1 + n, h d) or hidden units.
    """
    x = embed(w, patches, keep)
    rope = None
    if config.rotary:
        rope = rope_table(config, x.device)
        if keep is not None:
            tokens = torch.cat([keep.new_zeros(len(keep), 1), keep + 1], 1)
            rope = rope[tokens]
        rope = rope.view(-1, rope.shape[-2], 1, 1, config.head_dim)
        if torch.is_autocast_enabled(x.device.type):
            rope = rope.to(torch.get_autocast_dtype(x.device.type))
    for i in range(config.depth):
        x = block(
            x,
            w,
            f"blocks.{i}.",
            head_dim=config.head_dim,
            mlp=config.mlp,
            eps=config.eps,
            rope=rope,
            hook=_numbered(hook, i),
            inner=_numbered(inner, i),
        )
    if hook:
        hook(2 * config.depth, x)
    return norm(x, w, "norm", config.eps)
