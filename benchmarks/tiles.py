"""Real images with several labels each: frames with masks cut into 2 x 2 tiles, each with the classes seen in it.

python benchmarks/tiles.py ../shared/data/camvid runs/tiles
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from sweet.data import open_images

SIZE = (112, 84)  # of a tile: width, height
SEEN = 0.01  # of its pixels; of less of a class a tile does not have it


def main(frames: Path, out: Path) -> None:
    """Write the tiles of all splits and ``labels.csv``; void is no class."""
    out.mkdir(parents=True)
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "labels", "split"))
        for split in ("train", "val", "test"):
            images = open_images(f"masks:{frames}", split)
            classes = images.mask_classes or []
            for index in range(len(images)):
                image, mask = images.decode(index), images.mask(index)
                width, height = image.width // 2, image.height // 2
                for place in range(4):
                    left, top = place % 2 * width, place // 2 * height
                    part = mask[top : top + height, left : left + width]
                    shares = np.bincount(part.ravel(), minlength=256) / part.size
                    seen = [name for label, name in enumerate(classes) if shares[label] >= SEEN]
                    name = f"{split}-{Path(images.where(index)).stem}-{place}.jpg"
                    image.crop((left, top, left + width, top + height)).resize(SIZE).save(out / name, quality=92)
                    table.writerow((name, ";".join(seen), split))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
