"""Masked autoencoding (Eq. 1; He et al. 2022): the decoder, the loss, and the module that learns a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sweet.template.constraints import core_of, init_kronecker
from sweet.template.image_size import ImageSize, sides
from sweet.template.networks import Network
from sweet.template.sizes import default_tile, hidden_features
from sweet.template.slices import FC1, FC2, MATRICES, PROJ, QKV, pack, stack_blocks, under
from sweet.template.source import Source
from sweet.template.tucker import Full, init_tucker

from .config import MaeConfig, ViTConfig
from .forward import Hook, Weights, block, encode, linear, norm, patchify
from .shapes import decoder_shapes
from .source_module import WHOLE_STEP, Part, SourceModule
from .vit import encoder_shapes


@dataclass
class Reconstruction:
    """``loss`` () over the masked patches, their indices ``masked`` (B, m) and ``prediction`` (B, m, C * patch^2)."""

    loss: Tensor
    prediction: Tensor
    masked: Tensor


def split_patches(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """Noise (B, N) -> indices of the kept (B, n) and of the masked patches (B, N - n): the smallest noise stays."""
    kept = int(noise.shape[1] * (1 - mask_ratio))
    order = noise.argsort(1)
    return order[:, :kept], order[:, kept:]


def patch_targets(patches: Tensor, norm_pix: bool) -> Tensor:
    """What a decoder should say (B, N, pixels): the patches, or (``norm_pix``) each with mean 0 and variance 1."""
    if not norm_pix:
        return patches
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def reconstruct(
    w: Weights,
    images: Tensor,
    noise: Tensor,
    config: ViTConfig,
    mae: MaeConfig,
    positions: Tensor,
    *,
    hook: Hook | None = None,
) -> Reconstruction:
    """One masked autoencoding pass (Eq. 1).

    ``w`` holds the encoder and ``decoder.*``; images are normalised (B, C, H, W). ``noise`` (B, N) chooses the masked
    patches (:func:`split_patches`). ``positions`` (1 + N, decoder width) are the decoder's fixed positions
    (:func:`sincos`), ``hook`` is the encoder's.
    """
    patches = patchify(images, config.patch_size)
    keep, masked = split_patches(noise, mae.mask_ratio)
    prefix = config.prefix_tokens
    tokens = linear(encode(w, patches, config, keep=keep, hook=hook), w, "decoder.embed")
    width = tokens.shape[-1]
    full = w["decoder.mask_token"].to(tokens.dtype).expand(len(tokens), patches.shape[1], -1)
    full = full.scatter(1, keep[..., None].expand(-1, -1, width), tokens[:, prefix:])
    x = torch.cat([tokens[:, :prefix], full], 1) + for_tokens(positions, prefix)
    for i in range(mae.decoder_depth):
        x = block(x, w, f"decoder.blocks.{i}.", head_dim=mae.decoder_head_dim, mlp="gelu", eps=config.eps)
    x = x[:, prefix:].gather(1, masked[..., None].expand(-1, -1, width))
    prediction = linear(norm(x, w, "decoder.norm", config.eps), w, "decoder.pred")
    target = patch_targets(patches, mae.norm_pix).gather(1, masked[..., None].expand(-1, -1, patches.shape[-1]))
    return Reconstruction((prediction.float() - target).square().mean(), prediction, masked)


def sincos(grid: ImageSize, width: int, *, nested: bool = False) -> Tensor:
    """Fixed 2-D sine-cosine positions (1 + N, width) of N patches; the class token's row is zero (MAE).

    MAE's layout is [column sin | column cos | row sin | row cos]. ``nested`` interleaves the four and takes the
    frequencies in bit-reversed order, so that the first channels alone are a usable code.
    """
    bands = width // 4
    omega = 1.0 / 10000 ** (torch.arange(bands, dtype=torch.float64) / max(bands, 1))
    axes = [torch.arange(side, dtype=torch.float64) for side in sides(grid)]
    rows, columns = torch.meshgrid(axes, indexing="ij")
    angles = [a.reshape(-1, 1) * omega for a in (columns, rows)]
    parts = [f(a) for a in angles for f in (torch.sin, torch.cos)]  # each (N, bands)
    if nested:
        bits = max(1, (bands - 1).bit_length())
        reversed_order = sorted(range(bands), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
        table = torch.stack(parts, -1)[:, reversed_order].flatten(1)
    else:
        table = torch.cat(parts, 1)
    padded = torch.zeros(1 + rows.numel(), width, dtype=torch.float64)
    padded[1:, : table.shape[1]] = table
    return padded.float()


def for_tokens(positions: Tensor, prefix: int) -> Tensor:
    """Those of :func:`sincos` for ``prefix`` tokens before the patches, (P + N, width): each has the zero row."""
    return positions if prefix == 1 else torch.cat([positions[:1].expand(prefix, -1), positions[1:]])


def position_table(config: ViTConfig) -> Tensor:
    """The fixed positions of an encoder's tokens (1, P + N, D): a ``pos_embed`` that carries no learned knowledge."""
    return for_tokens(sincos(config.grid, config.width, nested=True), config.prefix_tokens)[None]


def init_decoder(config: ViTConfig, mae: MaeConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Random decoder by MAE's rule: Xavier-uniform matrices, zero biases, N(0, 0.02) mask token."""
    shapes = decoder_shapes(config, mae)
    token = shapes.pop("mask_token")
    tensors = {name: _initial(name, shape, generator) for name, shape in shapes.items()}
    tensors["mask_token"] = torch.randn(*token, generator=generator) * 0.02
    return tensors


def _initial(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """MAE's initialisation by a parameter's name: gains one, biases zero, matrices Xavier-uniform as they are stored.

    That is q, k and v as one matrix, as the released code has it, and of a SwiGLU gate and up.
    """
    if name.endswith("bias"):
        return torch.zeros(*shape)
    if "norm" in name:
        return torch.ones(*shape)
    if name == "cls_token":
        return torch.randn(*shape, generator=generator) * 0.02
    return (torch.rand(*shape, generator=generator) * 2 - 1) * 3**0.5 * _deviation(shape)


def _deviation(shape: Sequence[int]) -> float:
    """Xavier's standard deviation of a matrix."""
    return (2.0 / (shape[0] + prod(shape[1:]))) ** 0.5


def _slice_deviations(deviations: Mapping[str, float], width: int, mlp: str) -> Tensor:
    """Root mean square (12,) that the slices of a block have if its matrices have the ``deviations``.

    A slice of a SwiGLU holds columns of gate, up and down.
    """
    hidden = hidden_features(width, mlp)
    shapes = {QKV: (3 * width, width), PROJ: (width, width), FC1: (hidden, width), FC2: (width, hidden)}
    if mlp == "swiglu":
        shapes[FC1] = (2 * hidden, width)
    squares = {name: torch.full((1, *shape), deviations[name] ** 2) for name, shape in shapes.items()}
    packed = pack(squares, mlp)[0]
    return (packed.sum((1, 2)) / (packed > 0).sum((1, 2))).sqrt()


def init_source(
    config: ViTConfig,
    mae: MaeConfig,
    *,
    constraint: str,
    ranks: Sequence[int],
    tile: int | None = None,
    generator: torch.Generator,
) -> Source:
    """A source before training, with its decoder: ``tucker``, ``none`` (plain MAE), ``linear`` or
    ``kronecker`` (the alternatives of the paper's Table 4).

    ``ranks`` are those of a Tucker; the templates of ``kronecker``, with tiles of ``tile`` channels, have as many
    parameters as its core. The weights of both begin at the scale that plain MAE's have. ``linear`` has 24 D^2
    parameters whatever they are: base and slope are drawn like two blocks of a plain MAE, but the slope of norm gains
    is zero.
    """
    rows = config.resized(2, config.heads) if constraint == "linear" else config
    state = {
        name: position_table(config) if name == "pos_embed" else _initial(name, shape, generator)
        for name, shape in encoder_shapes(rows).items()
    }
    source = source_from_state(state, rows)
    source.decoder = init_decoder(config, mae, generator)
    depth, width = config.depth, config.width
    std = {name: _deviation(state[f"blocks.0.{name}"].shape) for name in MATRICES}
    if constraint == "tucker":
        scales = _slice_deviations(std, width, config.mlp)
        source.core = init_tucker(depth, width, ranks, std=scales, generator=generator)
    elif constraint == "kronecker":
        tile = tile or default_tile(config.heads, config.head_dim)
        source.core = init_kronecker(depth, width, tile, prod(ranks), config.mlp, std=std, generator=generator)
    elif constraint == "linear":
        source.core = core_of(constraint, source.core.tensors(), depth)
        for name in ("norm1.weight", "norm2.weight"):
            source.blocks[name][1] = 0.0
    return source


def source_from_state(state: Mapping[str, Tensor], config: ViTConfig) -> Source:
    """A dense source from an encoder's state dict (timm's names); ``decoder.*`` come along, a head does not."""
    stacked = stack_blocks(state, config.depth)
    return Source(
        core=Full({name: stacked.pop(name) for name in MATRICES}),
        blocks=stacked,
        stem={k: v for k, v in state.items() if not k.startswith(("blocks.", "decoder.", "head."))},
        decoder=under("decoder.", state),
        mlp=config.mlp,
        norm=config.norm,
    )


class MaskedAutoencoder(SourceModule):
    """A source to be learned; its forward is the MAE loss of one or more sub-networks (Eq. 6-8).

    ``how`` as in :class:`SourceModule`.
    """

    def __init__(self, source: Source, config: ViTConfig, mae: MaeConfig, **how: str) -> None:
        super().__init__(source, config, **how)
        self.mae = mae
        self.decoder_positions: Tensor
        self.register_buffer("decoder_positions", sincos(config.grid, mae.decoder_width), persistent=False)

    def forward(
        self, images: Tensor, noise: Tensor, networks: Sequence[Network] | None = None, part: Part = WHOLE_STEP
    ) -> Tensor:
        """Mean loss () of the sub-networks ``networks``, default the full one; images (B, C, H, W), noise (B, N).

        ``part`` says which micro-batch of a step this is.
        """
        visible = int(noise.shape[1] * (1 - self.mae.mask_ratio)) + self.config.prefix_tokens
        losses = [
            reconstruct(weights, images, noise, config, self.mae, self.decoder_positions).loss
            for weights, config in self.step_weights(networks or [self.whole], len(images) * visible, part)
        ]
        return torch.stack(losses).mean()
