"""The images that a principal order is computed from, as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweet.console import progress, say
from sweet.data import ImageSource, open_images, shuffled, whole_images
from sweet.models.config import ViTConfig
from sweet.recipes.schema import without_path
from sweet.storage.paths import check_patches
from sweet.storage.records import DataConfig
from sweet.template.image_size import ImageSize, joined, sides, size_text

from .checkpoints import Checkpoint

BATCH = 16
LARGEST = 224  # pixels; a larger order costs more and keeps less where models are used (docs/log.md)


@dataclass(frozen=True)
class OrderImages:
    """Normalised batches (B, C, H, W) at ``img_size``, decoded anew each time, so that one of them is in memory."""

    found: ImageSource
    img_size: ImageSize
    data: DataConfig
    device: torch.device
    described: str

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, spec: str | None, count: int, img_size: ImageSize | None, device: torch.device
    ) -> OrderImages:
        """``count`` images of ``spec``, or synthetic scenes. Raises UserError for an image size of no whole patches."""
        config = checkpoint.config
        size = img_size or default_size(config)
        check_patches(size, config.patch_size)
        scenes = f"shapes:n={count},size={max(sides(size))}"
        found = open_images(spec or scenes, "train", val_share=0.0, pixels=checkpoint.data).pixels_only()
        # of a set in shards from few of them: each may have to be downloaded
        chosen = shuffled(len(found), 0) if found.shard_counts is None else found.spread(count)
        found = found.select(chosen[:count])
        origin = f"of {without_path(spec)}" if spec else "synthetic scenes; --data gives a better order"
        return cls(found, size, checkpoint.data, device, f"{len(found)} {origin}")

    def __iter__(self) -> Iterator[Tensor]:
        keys = self.data.model_copy(update={"img_size": self.img_size})
        return whole_images(self.found, keys, batch_size=BATCH, device=self.device)

    def first(self, count: int) -> OrderImages:
        """The first ``count`` of them."""
        return replace(self, found=self.found.select(range(min(count, len(self.found)))))

    def shown(self, what: str) -> Iterator[Tensor]:
        """The batches, with progress."""
        return progress(self, len(self.found), BATCH, what)


def default_size(config: ViTConfig) -> ImageSize:
    """The checkpoint's own image size, at most 224 pixels a side, in whole patches."""
    most = max(1, LARGEST // config.patch_size) * config.patch_size
    return joined(*(side if side <= LARGEST else most for side in sides(config.img_size)))


def note_size(checkpoint: Checkpoint, img_size: ImageSize | None) -> None:
    """Say that models take images of the checkpoint's own size, where these are large and ``img_size`` is not given."""
    config, smaller = checkpoint.config, default_size(checkpoint.config)
    if img_size is not None or smaller == config.img_size:
        return
    patch, pairs = config.patch_size, map(sides, (config.img_size, smaller))
    patches, fewer = ((height // patch) * (width // patch) for height, width in pairs)
    say(
        f"note: {checkpoint.name} takes images of {size_text(config.img_size)} pixels ({patches:,} patches), as do "
        f"models made from it; --img-size {size_text(smaller)} of init and family (img_size of load and build) makes "
        f"faster ones ({fewer:,} patches), and the order is computed at it"
    )
