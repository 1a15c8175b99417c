"""The shape of the model to make: a size or a budget, and another image, patch or channel size than the source's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sweet.costs.budget import Budget, Choice, choose
from sweet.errors import UserError
from sweet.models.config import ViTConfig
from sweet.models.vit import resizable
from sweet.storage.paths import check_patches
from sweet.template.image_size import ImageSize
from sweet.template.sizes import Size


@dataclass(frozen=True)
class Shape:
    """The whole shape of the model, and how a budget chose its size, if one did."""

    config: ViTConfig
    choice: Choice | None = None


def resolve_shape(
    source: ViTConfig,
    depth: int | None,
    heads: int | None,
    budget: Budget | None,
    *,
    img_size: ImageSize | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
) -> Shape:
    """The shape of a model of ``depth`` and ``heads``, or of one within ``budget``; allocates nothing.

    ``source`` is the shape of the source; sizes are in pixels. Raises UserError for a shape that cannot be made.
    """
    pixels, patch = img_size or source.img_size, patch_size or source.patch_size
    check_patches(pixels, patch, "--patch-size" if patch_size else "the source's patch size")
    try:
        config = replace(source, img_size=pixels, patch_size=patch, in_chans=in_chans or source.in_chans)
    except ValueError as problem:  # larger than any model is
        raise UserError(f"--img-size/--patch-size/--in-chans: {problem}") from None
    choice = None if budget is None else choose(config, budget)
    if choice is not None:
        size = choice.size
    elif depth is not None and heads is not None:
        size = Size(depth, heads, config.head_dim)
    else:
        raise UserError("--depth and --heads: give both, or one of --params, --flops and --latency")
    if reason := resizable(source, img_size=img_size, patch_size=patch_size, in_chans=in_chans):
        raise UserError(f"--img-size/--patch-size/--in-chans: {reason}")
    return Shape(config.resized(size.depth, size.heads), choice)
