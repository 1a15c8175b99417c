"""A source for images of another size: only its positions differ, resampled as timm does."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.beit import resize_rel_pos_bias_table
from torch import Tensor

from sweet.template.image_size import ImageSize
from sweet.template.source import Source

from .config import ViTConfig
from .forward import RELATIVE


class Sized(NamedTuple):
    """A source and its shape at an image size."""

    source: Source
    config: ViTConfig


def at_image_size(source: Source, config: ViTConfig, img_size: ImageSize | None) -> Sized:
    """The source for images of ``img_size`` pixels, in whole patches; as it is where that is None or its own."""
    if img_size is None or img_size == config.img_size:
        return Sized(source, config)
    resized = replace(config, img_size=img_size)
    stem, blocks, tables = dict(source.stem), dict(source.blocks), f"attn.{RELATIVE}"
    if "pos_embed" in stem:
        stem["pos_embed"] = resample_abs_pos_embed(
            stem["pos_embed"], list(resized.grid), list(config.grid), config.prefix_tokens
        )
    if tables in blocks:
        blocks[tables] = torch.stack([_table(table, config.grid, resized.grid) for table in blocks[tables]])
    return Sized(replace(source, stem=stem, blocks=blocks), resized)


def _table(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """BEiT's table (distances, h), of which three entries are the class token's."""
    distances = (2 * new[0] - 1) * (2 * new[1] - 1) + 3
    resized: Tensor = resize_rel_pos_bias_table(table, new, (distances, table.shape[1]), old)
    return resized
