"""Where images come from and how they become batches."""

from __future__ import annotations

from .augment import normalise, onto, random_crop_flip, random_resized_crop
from .batches import Batches, eval_batches, step_generator
from .images import ImageSource
from .joint import jittered
from .objects import Objects
from .packed import Packed, pack, packed, should_pack
from .samples import Samples, in_order
from .sources import open_images
from .subset import balanced_subset, shuffled, some

__all__ = [
    "Batches",
    "ImageSource",
    "Objects",
    "Packed",
    "Samples",
    "balanced_subset",
    "eval_batches",
    "in_order",
    "jittered",
    "normalise",
    "onto",
    "open_images",
    "pack",
    "packed",
    "random_crop_flip",
    "random_resized_crop",
    "should_pack",
    "shuffled",
    "some",
    "step_generator",
]
