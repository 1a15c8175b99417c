"""How much of a checkpoint's energy principal orders keep that were computed from other images and at other sizes.

    python benchmarks/order_images.py [--model ../shared/models/dinov2-s14] [--data parquet:../shared/data/flowers102]
        [--images 128] [--json FILE]

Orders: of photographs (split train) at the largest default size and at the checkpoint's own, of synthetic scenes, and
none (prefix). Energy: of the stream of other photographs (split test) at ``--img-size``, kept by the first directions,
mean over all norm inputs. ``best`` is the order of those photographs themselves: what no other can reach.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measure import report
from torch import Tensor

from sweet.convert.order_images import LARGEST, OrderImages
from sweet.convert.read import read
from sweet.data import open_images
from sweet.models.mae import source_from_state
from sweet.models.moments import compute_order, moments_of
from sweet.models.resample import at_image_size
from sweet.template.fold import folded
from sweet.template.order import principal_axes

SHARES = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6)


def kept(axes: Tensor, moments: Tensor, channels: int) -> float:
    """Share of the energy of ``moments`` (n, D, D) in the first columns of ``axes`` (D, D), mean over n."""
    energy = torch.einsum("dk,ndc,ck->nk", axes, moments, axes)
    return round(float((energy[:, :channels].sum(1) / energy.sum(1)).mean()), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="../shared/models/dinov2-s14")
    parser.add_argument("--data", default="parquet:../shared/data/flowers102")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--img-size", type=int, default=LARGEST)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    checkpoint, _ = read(args.model)
    config, cpu = checkpoint.config, torch.device("cpu")
    dense, centred = folded(source_from_state(checkpoint.state, config)), config.norm == "layer"

    def images(data: str | None, img_size: int) -> OrderImages:
        return OrderImages.of(checkpoint, data, args.images, img_size, cpu)

    def order(data: str | None, img_size: int) -> Tensor:
        batches = images(data, img_size).shown(f"{data or 'scenes'} at {img_size} px")
        return compute_order(*at_image_size(dense, config, img_size), batches).rotation.double()

    test = OrderImages(
        open_images(args.data, "test").select(range(args.images)), args.img_size, checkpoint.data, cpu, ""
    )
    seen = at_image_size(dense, config, args.img_size)
    moments = moments_of(*seen, test.shown("measured on")).stream.double()
    orders = {
        f"photographs at {args.img_size} px": order(args.data, args.img_size),
        f"photographs at {config.img_size} px": order(args.data, config.img_size),
        f"synthetic scenes at {args.img_size} px": order(None, args.img_size),
        "prefix": torch.eye(config.width, dtype=torch.double),
        "best": principal_axes(moments.sum(0), centred=centred),
    }
    channels = [round(share * config.width) for share in SHARES]
    result = {
        "benchmark": "energy of photographs' streams kept by orders of other images",
        "model": Path(args.model).name,
        "data": Path(args.data).name,
        "images": args.images,
        "img_size": args.img_size,
        "channels": channels,
        "kept": {name: [kept(axes, moments, count) for count in channels] for name, axes in orders.items()},
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
