"""Fine-tuning by ``sweet finetune`` against a plain timm loop: the same model, images, augmentations and batches.

    python benchmarks/finetune_loop.py [--images small|photographs] [--data FOLDER] [--rounds 5] [--json FILE]

``small`` are PNG files of 32 px, ``photographs`` JPEG files of 500 x 375, made here unless FOLDER (of an ImageFolder)
is given. timm's side is its dataset, its loader with its transform (random resized crop, flip) and a loop of AdamW.
Both decode in two worker processes; a run is some steps from a new loader to its end, and runs take turns. CPU seconds
are those of the process and its workers; on a busy machine they say more than the clock.
"""

from __future__ import annotations

import copy
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from measure import options, ratio, report
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import nn

from sweet.models.config import ViTConfig
from sweet.models.vit import build_vit, encoder_shapes
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.storage.cards import model_card
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import DataConfig, FolderRecord
from sweet.tasks.task import TrainSettings
from sweet.training.device import choose_attention
from sweet.training.finetune import Finetuning, parameter_groups, prepare
from sweet.training.state import TrainState

SHAPES = {
    "small": ViTConfig(depth=6, heads=6, head_dim=64, img_size=32, patch_size=4),
    "photographs": ViTConfig(depth=3, heads=3, head_dim=64, img_size=224, patch_size=16),
}
SIZES = {"small": (32, 32, "png"), "photographs": (500, 375, "jpg")}
STEPS, BATCH, CLASSES, WORKERS = 3, 32, 4, 2


def make_images(kind: str, count: int) -> Path:
    """An ImageFolder of smooth noise, as detailed as a photograph."""
    width, height, ending = SIZES[kind]
    root, rng = Path(mkdtemp()), np.random.default_rng(0)
    for index in range(count):
        folder = root / ("val" if index % 8 == 0 else "train") / f"class{index // 8 % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{index}.{ending}")
    return root


def prepared(kind: str, images: Path) -> Finetuning:
    """What ``sweet finetune`` works on, from random weights."""
    config, folder = SHAPES[kind], Path(mkdtemp())
    weights = {name: torch.randn(shape) * 0.02 for name, shape in encoder_shapes(config).items()}
    data = DataConfig(img_size=config.img_size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    record = FolderRecord(kind="model", vit=config, data=data)
    vit = build_vit(config, weights)
    write_folder(folder, (TENSORS["model"], vit.state_dict()), record, "", model_card(record))
    keys = [f"data.source=folder:{images}", f"batch_size={BATCH}", f"workers={WORKERS}"]
    return prepare(folder, load_recipe(FinetuneRecipe, None, keys), "classify")


def sweet_run(run: Finetuning) -> Callable[[], None]:
    """Steps of our loop, loader included."""
    recipe, device = run.recipe, run.accelerator.device
    network = run.network.to(device)
    choose_attention(network, run.accelerator)
    state = TrainState(
        network, parameter_groups(network, recipe), recipe, recipe.optim, run.accelerator, None, run.images
    )
    state.model.train()

    def go() -> None:
        batches = run.task.batches(run.train_data, TrainSettings(recipe, BATCH, device=device))
        for step, batch in enumerate(batches.iterate(0, STEPS)):
            state.micro_step(run.task.loss, *batch, step, 1e-3)

    return go


def timm_run(network: nn.Module, run: Finetuning, images: Path) -> Callable[[], None]:
    """Steps of a loop as a user of timm writes it."""
    device, keys = run.accelerator.device, run.recipe.data
    network = network.to(device).train()
    groups = parameter_groups(network, run.recipe)
    optimizer = torch.optim.AdamW([dict(group) for group in groups], lr=1e-3, fused=device.type == "cuda")
    loss_of = nn.CrossEntropyLoss(label_smoothing=run.recipe.label_smoothing)
    bf16 = run.accelerator.mixed_precision == "bf16"
    dataset = create_dataset("", root=str(images), split="train")

    def go() -> None:
        loader = create_loader(
            dataset,
            input_size=keys.img_size,
            batch_size=BATCH,
            is_training=True,
            use_prefetcher=False,
            scale=keys.crop_scale,
            hflip=keys.hflip,
            color_jitter=None,
            interpolation=keys.interpolation,
            mean=keys.mean,
            std=keys.std,
            num_workers=WORKERS,
            persistent_workers=False,
        )
        for step, (pixels, labels) in enumerate(loader):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(network(pixels.to(device)), labels.to(device))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step + 1 == STEPS:
                return

    return go


def cpu_seconds() -> float:
    """Of this process and of workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--images", choices=tuple(SHAPES), default="small")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = args.data or make_images(args.images, BATCH * (STEPS + 1) * 8 // 7 + 8)
    run = prepared(args.images, images)
    runs = {"timm": timm_run(copy.deepcopy(run.network), run, images), "sweet": sweet_run(run)}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.rounds + 1):
        for name in list(runs) if number % 2 else reversed(list(runs)):
            began, used = time.perf_counter(), cpu_seconds()
            runs[name]()
            if number:  # the first round warms up
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(cpu_seconds() - used)
    result = {
        "benchmark": "fine-tuning, sweet against a plain timm loop, loader included",
        "images": args.images if args.data is None else args.data.name,
        "model": f"{SHAPES[args.images].size}, width {SHAPES[args.images].width}, {run.recipe.data.img_size} px",
        "ratio_img_per_cpu_second": ratio(cpu["timm"], cpu["sweet"]),
        "ratio_img_per_second": ratio(wall["timm"], wall["sweet"]),
        "img_per_cpu_second": {n: round(BATCH * STEPS / statistics.median(v), 1) for n, v in cpu.items()},
        "img_per_second": {n: round(BATCH * STEPS / statistics.median(v), 1) for n, v in wall.items()},
        "batch": BATCH,
        "steps_a_run": STEPS,
        "workers": WORKERS,
        "precision": run.accelerator.mixed_precision,
        "rounds": args.rounds,
    }
    report(result, args.json)


if __name__ == "__main__":
    main()
