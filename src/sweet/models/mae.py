"""Masked autoencoding (Eq. 1; He et al. 2022): the decoder, the loss, and the module that learns a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn

from sweet.template.constraints import core_of, init_kronecker
from sweet.template.networks import APPLY, Network
from sweet.template.sizes import hidden_features
from sweet.template.slices import FC1, FC2, MATRICES, PROJ, QKV, pack
from sweet.template.target import Source, masked_weights, target_weights
from sweet.template.tucker import Full, init_tucker

from .config import MaeConfig, ViTConfig
from .costs import default_tile
from .forward import Tap, Weights, block, encode, linear, norm, patchify
from .vit import encoder_shapes


@dataclass
class Reconstruction:
    """``loss`` over masked patches; ``prediction`` (B, m, pixels) of the patches ``masked`` (B, m)."""

    loss: Tensor
    prediction: Tensor
    masked: Tensor


def split_patches(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """Noise (B, N) -> indices of the kept (B, n) and of the masked patches (B, N - n): the smallest noise stays."""
    kept = int(noise.shape[1] * (1 - mask_ratio))
    order = noise.argsort(1)
    return order[:, :kept], order[:, kept:]


def patch_targets(patches: Tensor, norm_pix: bool) -> Tensor:
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
    tap: Tap | None = None,
) -> Reconstruction:
    """One masked autoencoding pass. ``w`` holds the encoder and ``decoder.*``; images are normalised (B, C, H, W).

    ``positions`` (1 + N, decoder width) are the decoder's fixed positions (:func:`sincos`), ``tap`` is the encoder's.
    """
    patches = patchify(images, config.patch_size)
    keep, masked = split_patches(noise, mae.mask_ratio)
    tokens = linear(encode(w, patches, config, keep=keep, tap=tap), w, "decoder.embed")
    width = tokens.shape[-1]
    full = w["decoder.mask_token"].to(tokens.dtype).expand(len(tokens), patches.shape[1], -1)
    full = full.scatter(1, keep[..., None].expand(-1, -1, width), tokens[:, 1:])
    x = torch.cat([tokens[:, :1], full], 1) + positions
    for i in range(mae.decoder_depth):
        x = block(
            x,
            w,
            f"decoder.blocks.{i}.",
            head_dim=mae.decoder_head_dim,
            mlp="gelu",
            eps=config.eps,
        )
    x = x[:, 1:].gather(1, masked[..., None].expand(-1, -1, width))
    prediction = linear(norm(x, w, "decoder.norm", config.eps), w, "decoder.pred")
    target = patch_targets(patches, mae.norm_pix).gather(1, masked[..., None].expand(-1, -1, patches.shape[-1]))
    return Reconstruction((prediction.float() - target).square().mean(), prediction, masked)


def sincos(grid: int, width: int, *, nested: bool = False) -> Tensor:
    """Fixed 2-D sine-cosine positions (1 + grid^2, width); the class token's row is zero (MAE).

    MAE's layout is [column sin | column cos | row sin | row cos]. ``nested`` interleaves the four and takes the
    frequencies in bit-reversed order, so that the first channels alone are a usable code (methods 7.2).
    """
    bands = width // 4
    omega = 1.0 / 10000 ** (torch.arange(bands, dtype=torch.float64) / max(bands, 1))
    axis = torch.arange(grid, dtype=torch.float64)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    angles = [a.reshape(-1, 1) * omega for a in (columns, rows)]
    parts = [f(a) for a in angles for f in (torch.sin, torch.cos)]  # each (N, bands)
    if nested:
        bits = max(1, (bands - 1).bit_length())
        reversed_order = sorted(range(bands), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
        table = torch.stack(parts, -1)[:, reversed_order].flatten(1)
    else:
        table = torch.cat(parts, 1)
    padded = torch.zeros(1 + grid * grid, width, dtype=torch.float64)
    padded[1:, : table.shape[1]] = table
    return padded.float()


def init_decoder(config: ViTConfig, mae: MaeConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Random decoder by MAE's rule: Xavier-uniform matrices, zero biases, N(0, 0.02) mask token."""
    width, pixels = mae.decoder_width, config.in_chans * config.patch_size**2
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (width, config.width), "embed.bias": (width,)}
    for i in range(mae.decoder_depth):
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (rows, columns)
            shapes[f"blocks.{i}.{name}.bias"] = (rows,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{name}.weight"] = shapes[f"blocks.{i}.{name}.bias"] = (width,)
    shapes |= {
        "norm.weight": (width,),
        "norm.bias": (width,),
        "pred.weight": (pixels, width),
        "pred.bias": (pixels,),
    }
    tensors = {name: _initial(name, shape, generator) for name, shape in shapes.items()}
    tensors["mask_token"] = torch.randn(1, 1, width, generator=generator) * 0.02
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
    """A source before training, with its decoder: ``tucker`` (methods 12.2), ``none`` (plain MAE), ``linear`` or
    ``kronecker`` (the rivals of the paper's Table 4).

    ``ranks`` are those of a Tucker; the templates of ``kronecker``, with tiles of ``tile`` channels, have as many
    parameters as its core. The weights of both begin at the scale that plain MAE's have. ``linear`` has 24 D^2
    parameters whatever they are: base and slope are drawn like two blocks of a plain MAE, but the slope of norm gains
    is zero.
    """
    rows = config.resized(2, config.heads) if constraint == "linear" else config
    state = {
        name: sincos(config.grid, config.width, nested=True)[None]
        if name == "pos_embed"
        else _initial(name, shape, generator)
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
    """A dense source from an encoder's state dict (timm's names)."""
    from sweet.template.slices import MATRICES, stack_blocks

    stacked = stack_blocks(state, config.depth)
    return Source(
        core=Full({name: stacked.pop(name) for name in MATRICES}),
        blocks=stacked,
        stem={k: v for k, v in state.items() if not k.startswith(("blocks.", "decoder.", "head."))},
        decoder={k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")},
        mlp=config.mlp,
        norm=config.norm,
    )


class MaskedAutoencoder(nn.Module):
    """A source whose tensors are parameters; its forward is the MAE loss of one or more sub-networks (Eq. 6-8).

    ``apply`` says what the width of a sub-network is of, see :mod:`sweet.template.networks`.
    """

    def __init__(self, source: Source, config: ViTConfig, mae: MaeConfig, *, apply: str = "mask") -> None:
        super().__init__()
        if apply not in APPLY:
            raise ValueError(f"unknown apply {apply!r}, expected one of {', '.join(APPLY)}")
        self.config, self.mae, self.masked = config, mae, apply == "mask"
        self.core = as_parameters(source.core.tensors())
        self.constraint = source.core.constraint
        self.blocks = as_parameters(source.blocks)
        self.stem = as_parameters({k: v for k, v in source.stem.items() if k != "pos_embed"})
        self.decoder = as_parameters(source.decoder)
        self.pos_embed: Tensor | None
        self.decoder_positions: Tensor
        self.register_buffer("pos_embed", source.stem.get("pos_embed"))
        self.register_buffer("decoder_positions", sincos(config.grid, mae.decoder_width), persistent=False)

    def source(self) -> Source:
        """The source made of this module's own tensors: gradients flow."""
        stem = as_tensors(self.stem)
        if self.pos_embed is not None:
            stem["pos_embed"] = self.pos_embed
        return Source(
            core=core_of(self.constraint, as_tensors(self.core), self.config.depth),
            blocks=as_tensors(self.blocks),
            stem=stem,
            decoder=as_tensors(self.decoder),
            mlp=self.config.mlp,
            norm=self.config.norm,
        )

    def detached(self) -> Source:
        """The source as it is now: float32 on the CPU, no gradients."""

        def cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.detach().float().cpu() for name, value in tensors.items()}

        source = self.source()
        core = core_of(source.core.constraint, cpu(source.core.tensors()), source.depth)
        return replace(source, core=core, blocks=cpu(source.blocks), stem=cpu(source.stem), decoder=cpu(source.decoder))

    @property
    def whole(self) -> Network:
        return Network(self.config.depth, self.config.heads, self.config.heads)

    def weights(self, network: Network) -> tuple[Weights, ViTConfig]:
        """A sub-network's weights, through which gradients flow, and what :func:`encode` has to know of its shape."""
        config, source = self.config, self.source()
        depth, live, inner = network.depth, network.residual * config.head_dim, network.inner * config.head_dim
        if self.masked:
            weights = masked_weights(source, depth, live, inner)
        else:
            weights = target_weights(source, depth, live, inner_width=inner, order="prefix")
        return weights, config.resized(depth, config.heads)

    def forward(self, images: Tensor, noise: Tensor, networks: Sequence[Network] | None = None) -> Tensor:
        """Mean loss of the sub-networks ``networks``, default the full one."""
        losses = [
            reconstruct(weights, images, noise, config, self.mae, self.decoder_positions).loss
            for weights, config in map(self.weights, networks or [self.whole])
        ]
        return torch.stack(losses).mean()


def as_parameters(tensors: Mapping[str, Tensor], *, learn: bool = True) -> nn.ParameterDict:
    """Copies of tensors as parameters of a module; a parameter's name may not contain a dot."""
    copies = {name.replace(".", "/"): nn.Parameter(value.clone(), learn) for name, value in tensors.items()}
    return nn.ParameterDict(copies)


def as_tensors(parameters: nn.ParameterDict) -> dict[str, Tensor]:
    """The parameters themselves under their names with dots again: gradients flow."""
    return {name.replace("/", "."): value for name, value in parameters.items()}
