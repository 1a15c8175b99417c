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
from sweet.models.shapes import decoder_shapes
from sweet.storage.records import DataConfig, OriginRecord, TrainingRecord, WidthRecord

MAE_DECODER_HEADS = 16


@dataclass
class Checkpoint:
    """An encoder under timm's names (no head; ``decoder.*`` where MAE left one), and where it comes from.

    ``data`` is how its images are read and normalised, ``dtype`` the type of its numbers on disk, ``assumed`` what
    no file says and was taken for granted, ``origin`` whose it is. ``training`` is what learning it took where sweet
    did that, ``width`` the stochastic width by which.
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
    training: TrainingRecord | None = None


def data_config(
    config: ViTConfig,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
) -> DataConfig:
    """How the images of a checkpoint are read; what it does not say is ImageNet's, or 0.5 for other channels.

    timm keeps the mean of three channels in a model that was made with another number of them, and transformers takes
    one number for all. Raises UserError for what is no mean and deviation.
    """
    channels = config.in_chans
    rgb, grey = channels == 3, (0.5,) * channels

    def each(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels

    try:
        return DataConfig(
            img_size=config.img_size,
            mean=each(mean or (IMAGENET_MEAN if rgb else grey)),
            std=each(std or (IMAGENET_STD if rgb else grey)),
            interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
        )
    except (ValueError, TypeError):
        raise UserError(f"mean {mean} and std {std}: expected a number for each channel, of std above 0") from None


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
    """MAE's decoder as ours; nothing where it has other tensors, or positions that are not the fixed sines.

    MAE gives pixels as (row, column, channel), we as a convolution kernel does. MAE's decoders have sixteen heads.
    """
    ours = {name.removeprefix("decoder_"): value for name, value in decoder.items()}
    positions = ours.pop("pos_embed", None)
    width = len(ours.get("embed.weight", ()))
    depth = len({name.split(".")[1] for name in ours if name.startswith("blocks.")})
    try:
        mae = MaeConfig(decoder_width=width, decoder_depth=depth, decoder_head_dim=width // MAE_DECODER_HEADS)
    except ValueError:  # no decoder has such a size
        return {}, None
    if {name: tuple(value.shape) for name, value in ours.items()} != decoder_shapes(config, mae):
        return {}, None
    fixed = sincos(config.grid, width)
    if width % MAE_DECODER_HEADS or (positions is not None and not _close(positions, fixed[None])):
        return {}, None
    for name in ("pred.weight", "pred.bias"):
        pixels = ours[name].unflatten(0, (config.patch_size, config.patch_size, config.in_chans))
        ours[name] = pixels.movedim(2, 0).flatten(0, 2)
    return {f"decoder.{name}": value for name, value in ours.items()}, mae


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, atol=1e-4))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA256 (hex) of names and values, for weights that came from no file."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
