"""Does the bundled extractor of FID see on photographs what it should? Real images against the same kind, made worse.

python benchmarks/extractor.py --data parquet:PATH/cifar10 --out results/extractor/cifar10.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sweet.data import open_images, pack
from sweet.files import write_json
from sweet.recipes.schema import without_path
from sweet.tasks.generation.extractor import BUNDLED, ImageQuality, find_extractor

COUNT = 2000  # images on each side


def noise(images: Tensor, level: float) -> Tensor:
    """Normal noise; ``level`` in grey values of 255."""
    return images + level * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def blur(images: Tensor, level: float) -> Tensor:
    """The mean of ``level`` x ``level`` pixels."""
    return F.avg_pool2d(images, int(level), 1, int(level) // 2, count_include_pad=False)


def mosaic(images: Tensor, level: float) -> Tensor:
    """Squares of ``level`` pixels, each from another image: every texture is right, no object is whole."""
    side, size = int(level), images.shape[-1]
    mixed = images.clone()
    for number, (top, left) in enumerate((y, x) for y in range(0, size, side) for x in range(0, size, side)):
        square = (..., slice(top, top + side), slice(left, left + side))
        mixed[square] = images.roll(number, 0)[square]
    return mixed


LADDERS = {
    "noise": (noise, (4, 8, 16, 32, 64)),
    "blur": (blur, (3, 5, 7, 9)),
    "mosaic": (mosaic, (16, 8, 4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--extractor", default=BUNDLED)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    held = pack(open_images(options.data, "train"), 32)
    assert held.labels is not None
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))
    real, pool = held.select(order[:COUNT]), held.select(order[COUNT:])
    made, extractor = pool.images[:COUNT].float(), find_extractor(options.extractor)

    def distance(images: Tensor) -> dict[str, float]:
        compare = ImageQuality(extractor, torch.device("cpu"))
        for side, truth in ((real.images, True), (images.round().clamp(0, 255).to(torch.uint8), False)):
            for part in side.split(500):
                compare.update(part, real=truth)
        return compare.compute()

    result: dict[str, object] = {"data": without_path(options.data), "images": COUNT, "extractor": extractor.label}
    result["other real images"] = distance(made)
    for name, (worsen, levels) in LADDERS.items():
        result[name] = {str(level): distance(worsen(made, level)) for level in levels}
    result["classes left"] = {
        str(count): distance(pool.images[pool.labels < count][:COUNT].float()) for count in (8, 5, 2, 1)
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
