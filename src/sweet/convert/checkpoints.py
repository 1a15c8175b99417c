"""Vision Transformers that others trained: what one is, how its images are read, and the decoder that MAE left."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweet.data.batches import IMAGENET_MEAN, IMAGENET_STD
from sweet.errors import UserError
from sweet.models.config import MaeConfig, ViTConfig
from sweet.models.mae import sincos
from sweet.storage.records import DataConfig, OriginRecord, WidthRecord

HEAD = ("head.", "fc_norm.", "head_drop.", "attn_pool.")
MAE_DECODER_HEADS = 16


@dataclass
class Checkpoint:
    """An encoder under timm's names (no head; ``decoder.*`` where MAE left one), and where it comes from.

    ``data`` is how its images are read and normalised, ``dtype`` the type of its numbers on disk, ``assumed`` what
    no file says and was taken for granted, ``origin`` whose it is, ``width`` the stochastic width that sweet learned
    it by.
    """

    name: str
    sha256: str
    config: ViTConfig
    state: dict[str, Tensor]
    data: DataConfig
    mae: MaeConfig | None = None
    dtype: torch.dtype = torch.float32
    assumed: tuple[str, ...] = ()
    origin: OriginRecord | None = None
    width: WidthRecord | None = None


def data_config(
    config: ViTConfig,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
) -> DataConfig:
    """How the images of a checkpoint are read; what it does not say is ImageNet's, or 0.5 for other channels."""
    rgb, grey = config.in_chans == 3, (0.5,) * config.in_chans
    return DataConfig(
        img_size=config.img_size,
        mean=tuple(mean or (IMAGENET_MEAN if rgb else grey)),
        std=tuple(std or (IMAGENET_STD if rgb else grey)),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
    )


def assumed_pixels(channels: int) -> str:
    """What :func:`data_config` takes for granted where a source says no mean."""
    return "ImageNet's mean and std" if channels == 3 else "mean and std of 0.5"


def depth_of(state: Mapping[str, Tensor], where: str) -> int:
    """Number of blocks. Raises UserError where they are not numbered as timm's."""
    blocks = {int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}
    if not blocks or blocks != set(range(len(blocks))):
        raise UserError(f"{where}: no Vision Transformer under timm's names (blocks.0 ... are not there)")
    return len(blocks)


def split_decoder(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The encoder, and MAE's decoder (``mask_token``, ``decoder_*``) under its own names."""
    decoder = {name: value for name, value in tensors.items() if name.startswith("decoder_") or name == "mask_token"}
    return {name: value for name, value in tensors.items() if name not in decoder}, decoder


def mae_decoder(decoder: Mapping[str, Tensor], config: ViTConfig) -> tuple[dict[str, Tensor], MaeConfig | None]:
    """MAE's decoder as ours; nothing where it is incomplete or its positions are not the fixed sines.

    MAE gives pixels as (row, column, channel), we as a convolution kernel does. MAE's decoders have sixteen heads.
    """
    needed = {"mask_token", "decoder_embed.weight", "decoder_pred.weight", "decoder_norm.weight"}
    if not needed <= decoder.keys():
        return {}, None
    width = len(decoder["decoder_embed.weight"])
    positions = decoder.get("decoder_pos_embed")
    if width % MAE_DECODER_HEADS or (
        positions is not None
        and (positions.shape[1] != config.patches + 1 or not _close(positions[0], sincos(config.grid, width)))
    ):
        return {}, None
    ours = {f"decoder.{name.removeprefix('decoder_')}": value for name, value in decoder.items()}
    ours.pop("decoder.pos_embed", None)
    for name in ("decoder.pred.weight", "decoder.pred.bias"):
        pixels = ours[name].unflatten(0, (config.patch_size, config.patch_size, config.in_chans))
        ours[name] = pixels.movedim(2, 0).flatten(0, 2)
    depth = len({name.split(".")[2] for name in ours if name.startswith("decoder.blocks.")})
    return ours, MaeConfig(decoder_width=width, decoder_depth=depth, decoder_head_dim=width // MAE_DECODER_HEADS)


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, atol=1e-4))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA256 (hex) of names and values, for weights that came from no file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
