"""Where images come from and how they become batches.

Every kind of fault has one place: ``decode.py`` (what a file's bytes mean), ``splits.py`` (which splits there are),
``class_names.py`` (names in text files); a format's own file finds its images and reads its labels.
"""

from __future__ import annotations

from .augment import normalise, onto, random_crop_flip, random_resized_crop
from .bands import Picture, as_rgb
from .batches import Batches, BatchSource, eval_batches, whole_images
from .decode import PixelFormat
from .epoch_order import step_generator
from .findings import Finding, class_findings
from .images import IGNORE, ImageSource
from .joint import jittered
from .masks import class_pixels, unseen_classes
from .objects import Objects
from .packed import ImageSet, Packed, pack, packed, should_pack, to_tensor
from .samples import Samples, in_order
from .skips import Skips, readable_images, write_skipped
from .sources import open_images
from .subset import a_few, balanced_subset, learned_and_held, shuffled, some
from .views import random_view, scaled

__all__ = [
    "IGNORE",
    "BatchSource",
    "Batches",
    "Finding",
    "ImageSet",
    "ImageSource",
    "Objects",
    "Packed",
    "Picture",
    "PixelFormat",
    "Samples",
    "Skips",
    "a_few",
    "as_rgb",
    "balanced_subset",
    "class_findings",
    "class_pixels",
    "eval_batches",
    "in_order",
    "jittered",
    "learned_and_held",
    "normalise",
    "onto",
    "open_images",
    "pack",
    "packed",
    "random_crop_flip",
    "random_resized_crop",
    "random_view",
    "readable_images",
    "scaled",
    "should_pack",
    "shuffled",
    "some",
    "step_generator",
    "to_tensor",
    "unseen_classes",
    "whole_images",
    "write_skipped",
]
