"""CamVid by a ready-made segmenter, torchvision's LRASPP on MobileNetV3, for as many steps of the same loop and recipe.

python benchmarks/ready_made.py --data ../shared/data --work runs/ready-made --out results/tasks

What recipe `segment` reaches with a ViT is in table `tasks` of `sweet bench`; this says what could be expected. No
pretrained weights, as the ViT's template knows no labels and no other images either; views of images, loss, optimiser,
steps and metrics are the recipe's own. A stopped run goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from sweet.data import open_images
from sweet.files import write_json
from sweet.recipes.loader import load_recipe, task_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.records import DataConfig
from sweet.tasks.registry import task_class
from sweet.tasks.task import EvalSettings, TrainSettings
from sweet.training.device import make_accelerator
from sweet.training.finetune import open_splits
from sweet.training.loop import train
from sweet.training.run_folder import environment


class ReadyMade(nn.Module):
    """Images (B, 3, H, W) -> logits (B, K, H, W); in training with None for the auxiliary head that it lacks."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)

    def forward(self, images: Tensor) -> Any:
        logits = self.net(images)["out"].float()
        return (logits, None) if self.training else logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    source = f"masks:{options.data / 'camvid'}"
    recipe = load_recipe(FinetuneRecipe, task_recipe("segment"), [f"data.source={source}", "data.img_size=160"])
    images, val = open_splits(recipe)
    segment = task_class("segment")
    classes = segment.classes_of(images)
    task = segment(classes, recipe)
    torch.manual_seed(recipe.seed)
    network = ReadyMade(len(classes))
    options.work.mkdir(parents=True, exist_ok=True)
    accelerator = make_accelerator(recipe.device, recipe.optim.precision, recipe.optim.accumulate)
    device = accelerator.device
    finished = train(
        network.to(device),
        [{"params": list(network.parameters()), "weight_decay": recipe.optim.weight_decay}],
        task.batches(images, TrainSettings(recipe, recipe.batch_size, device=device)),
        task.loss,
        keys=recipe,
        optim=recipe.optim,
        accelerator=accelerator,
        run=options.work,
        resume=True,
    )
    before = perf_counter()
    settings = EvalSettings(DataConfig.of_recipe(recipe.data, classes), device)
    splits = {"val": val, "test": open_images(source, "test")}
    metrics = {split: task.evaluate(network, images, settings).to_dict() for split, images in splits.items()}
    write_json(
        options.out / "segment-camvid-ready-made.json",
        {
            "model": "torchvision lraspp_mobilenet_v3_large, random weights",
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "data": "camvid",
            "metrics": metrics,
            "training": {
                "steps": finished.steps,
                "images": finished.images,
                "loss": round(finished.loss, 5),
                "seconds": round(finished.seconds, 1),
            },
            "evaluation_seconds": round(perf_counter() - before, 1),
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
