"""The encoder as a function of its weights: numbers equal to timm's modules, for weights that are computed.

Pre-training needs three things that a module does not give: weights that come out of a template, sub-networks whose
residual and inner widths differ, and only the kept patches. Weights are a flat dict under timm's names.

Shape letters: B images, N tokens, D residual width, h heads, d head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from timm.layers.pos_embed_sincos import get_mixed_freqs, get_mixed_grid
from timm.models.beit import gen_relative_position_index
from torch import Tensor

from .config import ViTConfig
from .vit import rope_module

Weights = Mapping[str, Tensor]
RELATIVE = "relative_position_bias_table"
Hook = Callable[[int, Tensor], None]
"""Called with an index and an activation; it returns nothing and changes nothing."""


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) -> patches (B, N, C * patch^2), pixels of a patch in the order of a convolution kernel."""
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(patches: Tensor, patch: int, channels: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of :func:`patchify` on ``grid``, rows and columns of patches: (B, N, C * patch^2) -> (B, C, H, W)."""
    rows, columns = grid
    x = patches.reshape(len(patches), rows, columns, channels, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), channels, rows * patch, columns * patch)


@lru_cache(maxsize=16)
def rope_table(config: ViTConfig, device: torch.device) -> Tensor:
    """(P + N, d): cosines then sines of half the head dimension each; the P tokens before the patches do not turn."""
    return _with_prefix(rope_module(config).get_embed().float(), config).to(device)  # kept: a copy would stall a GPU


def mixed_table(freqs: Tensor, config: ViTConfig) -> Tensor:
    """(P + N, h, d): the table of a block whose frequencies (2, h, d / 2) were learned."""
    x, y = get_mixed_grid(list(config.grid), grid_indexing=config.rope_indexing, device=freqs.device)
    return _with_prefix(get_mixed_freqs(freqs, x, y), config).transpose(0, 1)


def _with_prefix(embedding: Tensor, config: ViTConfig) -> Tensor:
    """timm's sines and cosines (..., N, 2 d), each there twice, as (..., P + N, d), cosines first."""
    sin, cos = embedding.chunk(2, -1)
    half = config.head_dim // 2
    once = slice(None, half) if config.rope_layout == "half" else slice(None, None, 2)
    table = torch.cat([cos[..., once], sin[..., once]], -1)
    identity = table.new_ones(*table.shape[:-2], config.prefix_tokens, half)
    return torch.cat([torch.cat([identity, torch.zeros_like(identity)], -1), table], -2)


def rotate(x: Tensor, table: Tensor, layout: str = "half") -> Tensor:
    """Rotary positions: channel i and i + d/2 are a pair, or 2i and 2i + 1. The table broadcasts against x."""
    cos, sin = table.chunk(2, -1)
    if layout == "interleaved":
        first, second = x[..., ::2], x[..., 1::2]
        return torch.stack([first * cos - second * sin, second * cos + first * sin], -1).flatten(-2)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for q, k, v (B, h, N, d) and a bias (h, N, N).

    The fused kernel, which never holds the N x N products, but for gradients in half precision on a CPU: its backward
    is several times slower there at small d. In float32 it is 1.1 to 1.4 times as fast, with gradients and without
    (``benchmarks/attention.py``).
    """
    if q.device.type == "cpu" and torch.is_grad_enabled() and q.dtype.itemsize == 2:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return (scores if bias is None else scores + bias).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, bias)


def relative_bias(table: Tensor, config: ViTConfig) -> Tensor:
    """BEiT's bias (h, 1 + N, 1 + N) from one entry for each relative position (distances, h)."""
    index = gen_relative_position_index(config.grid).to(table.device)
    return table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


def norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    """LayerNorm of x (..., D) where the weights hold a bias, RMSNorm where they do not."""
    weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
    if bias is None:  # the fused kernel wants one type, and autocast leaves the gain in float32
        return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).to(x.dtype)
    return F.layer_norm(x, weight.shape, weight, bias.to(weight.dtype), eps)  # a rotated bias is a product, in bf16


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """The layer ``name`` of ``w``: x (..., in) -> (..., out)."""
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def read(x: Tensor, w: Weights, name: str) -> Tensor:
    """What a matrix reads from the normed stream (B, N, D): its first channels, where masks leave no more.

    One that is left in factors (:mod:`sweet.template.factored`) reads them through its ``basis`` (d, r2).
    """
    basis = w.get(f"{name}.basis")
    if basis is not None:
        return linear(x[..., : len(basis)] @ basis, w, name)
    return linear(x[..., : w[f"{name}.weight"].shape[1]], w, name)


def write(x: Tensor, values: Tensor, w: Weights, name: str) -> Tensor:
    """The stream x (B, N, D) and what a matrix adds to it: to its first channels, where masks leave no more.

    The bias is no part of the matrix and adds to all. One that is left in factors writes through its ``basis``.
    """
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    basis = w.get(f"{name}.basis")
    if basis is not None:
        values, weight = F.linear(values, weight), basis
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
    layout: str = "half",
    bias: Tensor | None = None,
    activation: str = "gelu",
    hook: Hook | None = None,
    inner: Hook | None = None,
) -> Tensor:
    """One pre-norm block: (B, N, D) -> (B, N, D); the widths inside, and the live ones, are read off the weights.

    ``rope`` is a table for :func:`rotate` that broadcasts against q and k (B, N, 2, h, d), None for no rotation,
    ``bias`` (h, N, N) is added to the attention's logits, ``activation`` is that of an MLP without gates. Norms within
    the block are applied where the weights have them. The hooks are called with 0 for the attention and 1 for the MLP.
    """
    b, n, _ = x.shape
    if hook:
        hook(0, x)
    qkv = read(norm(x, w, f"{prefix}norm1", eps), w, f"{prefix}attn.qkv")
    qkv = qkv.reshape(b, n, 3, -1, head_dim)
    qk, v = qkv[:, :, :2], qkv[:, :, 2]
    if f"{prefix}attn.q_norm.weight" in w:
        qk = torch.stack([norm(qk[:, :, i], w, f"{prefix}attn.{'qk'[i]}_norm", eps) for i in (0, 1)], 2)
    qk = qk if rope is None else rotate(qk, rope, layout)
    q, k, v = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].transpose(1, 2), v.transpose(1, 2)
    heads = attention(q, k, v, bias).transpose(1, 2).reshape(b, n, -1)
    if f"{prefix}attn.norm.weight" in w:
        heads = norm(heads, w, f"{prefix}attn.norm", eps)
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
        hidden = ACTIVATIONS[activation](hidden)
    if f"{prefix}mlp.norm.weight" in w:
        hidden = norm(hidden, w, f"{prefix}mlp.norm", eps)
    if inner:
        inner(1, hidden)
    return write(x, hidden, w, f"{prefix}mlp.fc2")


def _projected(w: Weights, patches: Tensor) -> Tensor:
    return F.linear(patches, w["patch_embed.proj.weight"].flatten(1), w.get("patch_embed.proj.bias"))


def embed(w: Weights, patches: Tensor, keep: Tensor | None, eps: float = 1e-6) -> Tensor:
    """Patches (B, N, pixels) -> tokens (B, P + n, D): class token and registers first, only the patches of ``keep``.

    ``keep`` (B, n) are indices, None for all. A norm of the patches is applied, one of all tokens is not.
    """
    if keep is not None:
        patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
    tokens = _projected(w, patches)
    if "patch_embed.norm.weight" in w:
        tokens = norm(tokens, w, "patch_embed.norm", eps)
    known = [w[name] for name in ("cls_token", "reg_token") if name in w]
    prefix = torch.cat(known, 1) if len(known) > 1 else known[0] if known else None
    count = 0 if prefix is None else prefix.shape[1]
    if "pos_embed" in w:
        positions = w["pos_embed"]
        prefix = None if prefix is None else prefix + positions[:, :count]
        patch_positions = positions[:, count:].expand(len(tokens), -1, -1)
        if keep is not None:
            patch_positions = patch_positions.gather(1, keep[..., None].expand(-1, -1, positions.shape[-1]))
        tokens = tokens + patch_positions
    return tokens if prefix is None else torch.cat([prefix.expand(len(tokens), -1, -1), tokens], 1)


def normed_embedding(w: Weights, patches: Tensor, config: ViTConfig) -> Tensor | None:
    """What a norm of the embedding puts out, less its bias (B, n, D); None where there is none."""
    if config.pre_norm:
        x, name = embed(w, patches, None, config.eps), "norm_pre"
    elif config.patch_norm:
        x, name = _projected(w, patches), "patch_embed.norm"
    else:
        return None
    out = norm(x, w, name, config.eps)
    return out - w[f"{name}.bias"] if f"{name}.bias" in w else out


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
    """Patches (B, N, pixels) -> tokens after the final norm, where the tokens have one (B, P + n, D).

    ``w`` are an encoder's weights under our names. ``keep`` (B, n) are the indices of the visible patches, by
    default all; their rotary positions are gathered with them. ``hook`` is called with (norm index, stream (B, P + n,
    D)) at each norm input, numbered as in :class:`sweet.template.order.Order`; ``inner`` with the same index and what
    the attention or MLP behind that norm gives to its writer: heads (B, P + n, h d) or hidden units.
    """
    x = embed(w, patches, keep, config.eps)
    if config.pre_norm:
        x = norm(x, w, "norm_pre", config.eps)
    rope = _rope(rope_table(config, x.device), keep, x, config) if config.rope in ("cat", "dinov3") else None
    for i in range(config.depth):
        bias, prefix = None, f"blocks.{i}."
        if config.rope == "mixed":
            rope = _rope(mixed_table(w[f"{prefix}attn.freqs"], config), keep, x, config)
        if f"{prefix}attn.{RELATIVE}" in w:
            bias = relative_bias(w[f"{prefix}attn.{RELATIVE}"], config)
        x = block(
            x,
            w,
            prefix,
            head_dim=config.head_dim,
            mlp=config.mlp,
            eps=config.eps,
            rope=rope,
            layout=config.rope_layout,
            bias=bias if keep is None or bias is None else _gathered(bias, keep, config),
            activation=config.activation,
            hook=_numbered(hook, i),
            inner=_numbered(inner, i),
        )
    if hook:
        hook(2 * config.depth, x)
    return norm(x, w, "norm", config.eps) if config.final_norm == "tokens" else x


def _tokens(keep: Tensor, config: ViTConfig) -> Tensor:
    """Indices of the tokens (B, P + n) with the patches ``keep`` (B, n)."""
    prefix = torch.arange(config.prefix_tokens, device=keep.device).expand(len(keep), -1)
    return torch.cat([prefix, keep + config.prefix_tokens], 1)


def visible_tokens(tokens: Tensor, keep: Tensor, config: ViTConfig) -> Tensor:
    """Of all tokens (B, P + N, D) those before the patches and the patches ``keep`` (B, n): (B, P + n, D)."""
    return tokens.gather(1, _tokens(keep, config)[..., None].expand(-1, -1, tokens.shape[-1]))


def _rope(table: Tensor, keep: Tensor | None, x: Tensor, config: ViTConfig) -> Tensor:
    """A rotary table (P + N, d) or (P + N, h, d) for q and k (B, P + n, 2, h, d), in their type."""
    table = table if table.dim() == 3 else table[:, None]
    if keep is not None:
        table = table[_tokens(keep, config)]
    table = table.view(-1, *table.shape[-3:-2], 1, *table.shape[-2:])
    return table.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else table


def _gathered(bias: Tensor, keep: Tensor, config: ViTConfig) -> Tensor:
    """The bias (h, T, T) between the visible tokens of each image (B, h, P + n, P + n)."""
    tokens = _tokens(keep, config)
    return bias[:, tokens[:, :, None], tokens[:, None]].transpose(0, 1)
