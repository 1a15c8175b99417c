"""What the principal order of a checkpoint costs, against timm's own forward passes over the same images.

    python benchmarks/order.py [--model ../shared/models/dinov2-s14] [--images 64] [--img-size 224] [--json FILE]

Both see the same batches of 16 normalised images, taking turns. Memory is the peak of a process of its own above
what it held with the weights read: of the order, and of timm's model and one batch of its forward pass. The aims: the
order takes at most 1.3 times as long, and holds at most twice the weights and that one batch.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import torch
from measure import host_peak_mb, in_turns, options, report, timed

from sweet.convert.convert import ConvertOptions, prepare
from sweet.convert.order_images import BATCH, OrderImages
from sweet.convert.read import read
from sweet.models.mae import source_from_state
from sweet.models.moments import compute_order
from sweet.models.resample import at_image_size
from sweet.models.vit import build_vit
from sweet.template.fold import folded


def times(model: str, images: int, img_size: int, rounds: int) -> dict[str, float]:
    """Seconds per image of our order and of timm's forward pass, medians over rounds that take turns."""
    checkpoint, _ = read(model)
    stream = OrderImages.of(checkpoint, None, images, img_size, torch.device("cpu"))
    batches = list(stream)  # the same for both, and not part of the time
    dense = folded(source_from_state(checkpoint.state, checkpoint.config))
    seen = at_image_size(dense, checkpoint.config, img_size)
    theirs = build_vit(checkpoint.config, checkpoint.state, img_size=img_size)

    @torch.no_grad()
    def timm(_: int) -> None:
        for batch in batches:
            theirs.forward_features(batch)

    found = in_turns({"order": timed(lambda _: compute_order(*seen, batches)), "timm": timed(timm)}, rounds)
    return {name: statistics.median(values) / images for name, values in found.items()}


def memory(model: str, images: int, img_size: int, what: str) -> None:
    """Print the peak of a process that does one thing, above what its imports and the images take."""
    checkpoint, _ = read(model)
    weights = sum(value.numel() * value.element_size() for value in checkpoint.state.values()) / 1e6

    def order() -> None:
        prepare(checkpoint, None, ConvertOptions(images=images, img_size=img_size, device="cpu"))

    @torch.no_grad()
    def timm() -> None:
        theirs = build_vit(checkpoint.config, checkpoint.state, img_size=img_size)
        for batch in OrderImages.of(checkpoint, None, images, img_size, torch.device("cpu")):
            theirs.forward_features(batch)

    print(f"{weights} {host_peak_mb(order if what == 'order' else timm)}")


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--model", default="../shared/models/dinov2-s14")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--memory", choices=("order", "timm"))
    args = parser.parse_args()
    if args.memory:
        memory(args.model, args.images, args.img_size, args.memory)
        return
    peaks = {}
    for what in ("order", "timm"):
        words = [sys.executable, __file__, "--memory", what, "--model", args.model, "--images", str(args.images)]
        out = subprocess.run([*words, "--img-size", str(args.img_size)], capture_output=True, text=True, check=True)
        weights, peaks[what] = map(float, out.stdout.split())
    seconds = times(args.model, args.images, args.img_size, args.rounds)
    result = {
        "benchmark": "principal order of a checkpoint, against timm's forward passes over the same images",
        "model": Path(args.model).name,
        "images": args.images,
        "img_size": args.img_size,
        "batch": BATCH,
        "seconds_per_image": {name: round(value, 4) for name, value in seconds.items()},
        "order_over_timm": round(seconds["order"] / seconds["timm"], 3),
        "weights_MB": round(weights, 1),
        "peak_above_loading_MB": {name: round(value, 1) for name, value in peaks.items()},
        "peak_with_weights_MB": round(weights + peaks["order"], 1),
        "aims": {"order_over_timm": 1.3, "peak_with_weights_MB": round(2 * weights + peaks["timm"], 1)},
        "rounds": args.rounds,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
