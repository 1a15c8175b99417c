"""Questions of part C of the paper's method (docs/log.md, 2026-11-29), at a scale where a source takes six minutes.

    python experiments/nano.py parquet:PATH/cifar10 [GROUP ...]
    python experiments/nano.py table

Everything is chosen on 5,000 *training* images of CIFAR-10, drawn by seed: no source and no label comes from them, and
the test images are never read. A source is learned once, into sweet's cache ($SWEET_CACHE), and resumed where it was
interrupted; every fine-tuning appends one line to experiments/results/nano.jsonl and is skipped when that is there.
Several processes may run side by side. ``--commit`` commits each line as it comes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from masked_steps import masked_steps

from sweet.data import balanced_subset, eval_batches, open_images, packed
from sweet.files import cache_folder
from sweet.initialise.apply import initialise
from sweet.initialise.rescale import rescaled
from sweet.models.mae import source_from_state
from sweet.models.vit import build_vit
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.storage.folders import StoredSource, load_source, source_tensors
from sweet.storage.layout import TENSORS, write_folder
from sweet.storage.records import DataConfig
from sweet.tasks.registry import task_class
from sweet.template.sizes import Size, hidden_features
from sweet.template.slices import INNER_BIASES, MATRICES, select_inner_of_layers
from sweet.template.target import target_weights
from sweet.training.device import make_accelerator
from sweet.training.finetune import finetune_model, open_splits
from sweet.training.network import with_new_head
from sweet.training.pretrain import pretrain

CACHE = cache_folder() / "nano"
RESULTS = Path(os.environ.get("NANO_RESULTS", Path(__file__).parent / "results" / "nano.jsonl"))
VALIDATION, SEED = 5000, 2026

# L6 H6 D96, 1,000 steps of 128: six minutes on one AVX2 core. Float32 everywhere, so that machines can be compared.
BASE = [
    "model.depth=6", "model.heads=6", "mae.decoder_width=64", "mae.decoder_depth=1", "template.learn=factored",
    "epochs=4", "max_steps=1000", "batch_size=128", "lr=1.5e-3", "width.min_heads=2", "workers=0", "device=cpu",
    "optim.compile=false", "optim.precision=fp32", "checkpoint_every=100",
]  # fmt: skip
DENSE, TUCKER = "template.constraint=none", "template.ranks=[24,96,96]"
TILES = "template.constraint=kronecker"
MASK, SLICE = "width.mode=independent", "width.apply=slice"
LATE = [DENSE, "lr=7.5e-4", "seed=5"]
PLAIN_LATE = ["model.norm_gain=false", "lr=7.5e-4", "seed=5", "max_steps=250"]


# ways to draw masks; the default: half of the steps at full width, independent, at least two heads, from the first step
MASKS: dict[str, tuple[str, ...]] = {
    "full30": ("width.full_probability=0.3",),
    "from67": ("width.start=0.67",),
    "shared": ("width.mode=shared",),
    "full75": ("width.full_probability=0.75",),
    "least1": ("width.min_heads=1",),
    "flops": ("max_steps=1150",),  # as many as the unmasked source has
    "slow": ("template.lr_u=0.3", "template.lr_v=0.3"),
    "from33": ("width.start=0.33",),
    "full90": ("width.full_probability=0.9",),
    "from80": ("width.start=0.8",),
    "fixed": ("template.lr_u=0", "template.lr_v=0"),
    "fast_x": ("template.lr_x=3",),
    "least4": ("width.min_heads=4",),
}


@dataclass(frozen=True)
class Learned:
    """A source: overrides of BASE; ``rotated`` is another one that it goes on from, rotated and sorted, ``after`` one
    that it goes on from as it is stored: without norm gains that is in principal order, still a template. ``way`` is
    how masked steps are computed (`masked_steps.py`)."""

    spec: tuple[str, ...]
    rotated: str | None = None
    after: str | None = None
    way: str = ""


def late(of: str, *spec: str, steps: int = 250, way: str = "") -> Learned:
    return Learned((*LATE, f"max_steps={steps}", *spec), of, way=way)


SOURCES = {
    "tucker": Learned((TUCKER,)),
    "tucker.mask": Learned((TUCKER, MASK)),
    "tucker.slice": Learned((TUCKER, MASK, SLICE)),
    **{f"tucker.mask.{name}": Learned((TUCKER, MASK, *spec)) for name, spec in MASKS.items()},
    "tiles.mask": Learned((TILES, MASK)),
    **{f"tucker.mask.{way}": Learned((TUCKER, MASK), way=way) for way in ("taught", "crossed")},
    **{
        f"tucker.mask30.{way}": late("tucker", MASK, "width.full_probability=0.3", way=way)
        for way in ("taught", "dropped")
    },
    **{f"tucker.depths{share}": Learned((TUCKER, "depth.mode=even", f"depth.start=0.{share}")) for share in (0, 67)},
    "tucker.on": late("tucker"),
    "tucker.mask30": late("tucker", MASK, "width.full_probability=0.3"),
    "tucker.mask50": late("tucker", MASK),
    "tucker.shared30": late("tucker", "width.mode=shared", "width.full_probability=0.3"),
    "tucker.on500": late("tucker", steps=500),
    "tucker.mask500": late("tucker", MASK, "width.full_probability=0.3", steps=500),
    "tucker.plain": Learned((TUCKER, "model.norm_gain=false")),
    "tucker.plain.on": Learned((TUCKER, *PLAIN_LATE), after="tucker.plain"),
    "tucker.plain.mask30": Learned((TUCKER, *PLAIN_LATE, MASK, "width.full_probability=0.3"), after="tucker.plain"),
    "dense": Learned((DENSE,)),
    "own": Learned((DENSE, "model.depth=3", "model.heads=3")),
    "tiles": Learned((TILES,)),
    "dense.seed1": Learned((DENSE, "seed=1")),
    "tiles.seed1": Learned((TILES, "seed=1")),
    **{f"tucker.seed{seed}": Learned((TUCKER, f"seed={seed}")) for seed in (1, 2)},
    **{
        f"tucker.mask.from80.seed{seed}": Learned((TUCKER, MASK, *MASKS["from80"], f"seed={seed}")) for seed in (1, 2)
    },
    **{
        f"tiles.first{share}": Learned((TILES, "depth.mode=first", "depth.min_blocks=2", f"depth.start=0.{share}"))
        for share in (0, 67)
    },
    "tiles.on": late("tiles"),
    "tiles.mask30": late("tiles", MASK, "width.full_probability=0.3"),
}  # fmt: skip

EVEN = {"layers": "even"}  # the defaults have changed since
PREFIX = EVEN | {"order": "prefix", "gains": "none"}
STARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "prefix": ("sweet", PREFIX),
    "prefix-sqrt": ("sweet", PREFIX | {"gains": "sqrt"}),
    "principal": ("sweet", EVEN | {"writers": "none"}),
    "best": ("sweet", {"layers": "first", "writers": 0.2}),
    "random": ("random", {}),
    "selected": ("weight_selection", {"rule": "consecutive", "layers": "even"}),
    "fitted": ("sweet_fitted", EVEN | {"order": "prefix", "train": "xuv", "objective": "mae"}),
}


@dataclass(frozen=True)
class Trial:
    """A start of a size from a source, fine-tuned at a rate; ``condition`` (None: not) are its options."""

    source: str
    start: str
    size: str
    lr: float = 4e-3
    seeds: tuple[int, ...] = (0, 1)
    condition: dict[str, Any] | None = field(default=None, hash=False)
    optimiser: str = "adamw"
    epochs: int = 5

    @property
    def name(self) -> str:
        how = "" if self.condition is None else "+condition" + "".join(f",{k}={v}" for k, v in self.condition.items())
        by = "" if self.optimiser == "adamw" else f" {self.optimiser}"
        long = "" if self.epochs == 5 else f" {self.epochs} epochs"
        return f"{self.source} {self.start}{how} {self.size} @{1000 * self.lr:g}{by}{long}"


def each(source: str, size: str, *starts: str) -> list[Trial]:
    return [Trial(source, start, size) for start in starts]


def ways(source: str, *conditions: dict[str, Any] | None, lr: float = 4e-3, seeds: tuple[int, ...] = (0, 1)) -> list:
    return [Trial(source, "selected", "L3H3", lr, seeds, given) for given in conditions]


def lasting(epochs: int, *rates: float) -> list[Trial]:
    return [Trial("own", "selected", "L3H3", lr, (0,), how, epochs=epochs) for how in (None, {}) for lr in rates]


def others(source: str, *conditions: dict[str, Any] | None, seeds: tuple[int, ...] = (0,)) -> list[Trial]:
    """Optimisers that find a basis of their own, at two rates; that of Muon is matched to AdamW's by timm."""
    return [
        Trial(source, "selected", "L3H3", lr, seeds, given, optimiser)
        for optimiser in ("muon", "soap")
        for given in conditions
        for lr in (2e-3, 4e-3)
    ]


LOUD = {"writers": 0.2}
# in the order of what is wanted most, for the time may not be enough for all
GROUPS: dict[str, list[Trial]] = {
    # masks as they are written, against none, from the first step
    "masks": [
        *each("tucker.mask", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker", "L3H3", "prefix-sqrt", "principal", "prefix"),
        *each("tucker.mask", "L3H3", "prefix"),
    ],
    # the same function in other coordinates
    "condition": [
        *ways("own", None, {}),
        *ways("own", None, {}, lr=2e-3, seeds=(0,)),
        *ways("own", None, {}, lr=8e-3, seeds=(0,)),
        *ways("dense", None, {}),
        *each("dense", "L3H3", "principal"),
        *ways("own", LOUD),
    ],
    # does an optimiser that looks for a basis make up for the coordinates? SOAP is pytorch_optimizer's
    "optimisers": [*others("own", None, {}), *others("dense", None)],
    # ... and what is left of the lead when every start has such an optimiser?
    "lead": [
        *[
            Trial(source, start, "L3H3", lr, (0,), None, optimiser)
            for optimiser in ("muon", "soap")
            for source, start in (("dense", "principal"), ("tucker", "principal"), ("dense", "random"))
            for lr in (4e-3, 8e-3)
        ],
        *[
            Trial(source, "selected", "L3H3", 8e-3, (0,), given, optimiser)
            for optimiser in ("muon", "soap")
            for source, given in (("dense", None), ("own", None), ("own", {}))
        ],
        *[Trial("dense", "random", "L3H3", lr, (0,)) for lr in (4e-3, 8e-3)],
    ],
    # masks in the principal basis, after the network is learned, against the same steps without
    "late": [
        *each("tucker.on", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.mask30", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.on", "L3H2", "prefix-sqrt"),
        *each("tucker.mask30", "L3H2", "prefix-sqrt"),
        *each("tucker.mask50", "L3H3", "prefix-sqrt"),
    ],
    "tiles": [*each("tiles", "L3H3", "principal"), *each("tiles", "L3H6", "principal")],
    # is the scale of the whole stream worth as much to a start in principal order?
    "stream": [
        Trial(source, "principal", "L3H3", condition=given)
        for source in ("tucker", "dense", "tiles")
        for given in (None, LOUD)
    ],
    # the same late masks within the constraint: no norm gains, so that U alone takes the rotation
    "plain": [
        *each("tucker.plain", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.plain.on", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.plain.mask30", "L3H3", "prefix-sqrt", "principal"),
    ],
    # how masks are drawn, and when; the unmasked source and the masks' defaults are in group "masks"
    "draws": [t for name in MASKS for t in each(f"tucker.mask.{name}", "L3H3", "prefix-sqrt", "principal")],
    # do masks in the last fifth of the steps help? Three sources each
    "from80": [
        t
        for seed in ("", ".seed1", ".seed2")
        for name in (f"tucker{seed}", f"tucker.mask.from80{seed}")
        for t in each(name, "L3H3", "prefix-sqrt", "principal")
    ],
    # other ways to compute a masked step, from the first step and late
    "ways": [
        *each("tucker.mask.taught", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.mask.crossed", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.mask30.taught", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.mask30.dropped", "L3H3", "prefix-sqrt", "principal"),
    ],
    # how long does conditioning last? At 5 epochs: group "condition"
    "lasting": [*lasting(3, 4e-3, 8e-3), *lasting(30, 2e-3, 4e-3)],
    "lasting-100": lasting(100, 2e-3),
    "masked-tiles": each("tiles.mask", "L3H3", "prefix-sqrt", "principal"),
    # sub-networks in depth, from the first step and late
    "depths": [t for name in ("tucker", "tucker.depths0", "tucker.depths67") for t in each(name, "L3H6", "principal")],
    # the blocks that a target takes by default learn to end there
    "first": [
        t
        for name in ("tiles", "tiles.first67", "tiles.first0")
        for size in ("L3H6", "L3H3")
        for t in each(name, size, "best")
    ],
    "slice": each("tucker.slice", "L3H3", "prefix-sqrt", "prefix", "principal"),
    "more": [
        *ways("dense", None, {}, lr=2e-3, seeds=(0,)),
        *ways("dense", None, {}, lr=8e-3, seeds=(0,)),
        *ways("dense", LOUD),
        *each("dense", "L3H6", "principal"),
        *each("tucker", "L3H6", "principal"),
        *each("tucker.shared30", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.mask", "L3H3", "fitted"),
        *each("tucker", "L3H3", "fitted"),
    ],
    "seeds": [
        trial
        for source in ("tiles.seed1", "dense.seed1", "tucker.seed1")
        for size in ("L3H3", "L3H6")
        for trial in each(source, size, "principal")
    ],
    "long": [
        *each("tucker.on500", "L3H3", "prefix-sqrt", "principal"),
        *each("tucker.mask500", "L3H3", "prefix-sqrt", "principal"),
        *each("tiles.on", "L3H3", "prefix-sqrt", "principal"),
        *each("tiles.mask30", "L3H3", "prefix-sqrt", "principal"),
    ],
}


def split(data: str) -> str:
    """The training images as two files in the cache: train, 45,000, and val; there is no test."""
    folder = CACHE / "cifar10-validated"
    if not (folder / "val.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(Path(data.partition(":")[2]).glob("train-*.parquet"))
        whole = pa.concat_tables([pq.read_table(file) for file in files])
        held = pa.array(balanced_subset(whole["label"].to_pylist(), VALIDATION, SEED))
        mask = pc.is_in(pa.array(range(len(whole))), value_set=held)
        pq.write_table(whole.filter(pc.invert(mask)), folder / "train.parquet")
        pq.write_table(whole.filter(mask), folder / "val.parquet.part")
        (folder / "val.parquet.part").rename(folder / "val.parquet")
    return f"parquet:{folder}"


@contextmanager
def claimed(name: str) -> Iterator[bool]:
    """Whether this process may do something now: not while another one does."""
    path = CACHE / "claims" / name.replace(" ", "_").replace("/", "_")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def rotated(of: Path, out: Path) -> None:
    """A dense source of the same function: principal order, gains folded, each layer's heads and units by energy."""
    stored = load_source(of)
    size, order, mlp = stored.config.size, stored.source.order, stored.config.mlp
    assert order is not None
    state = target_weights(stored.source, size.depth, size.width, inner="prefix")
    source = source_from_state(state, stored.config)
    channels, units = order.highest_energy(size.width, hidden_features(size.width, mlp))
    inside = source.core.tensors() | {name: source.blocks[name] for name in INNER_BIASES}
    inside = select_inner_of_layers(inside, channels, units)
    source.core = replace(source.core, weights={name: inside[name] for name in MATRICES})
    source.blocks |= {name: inside[name] for name in INNER_BIASES}
    changed = {"training": None, "width": None, "ranks": None, "kind": "dense", "constraint": "none", "absorbed": False}
    record = stored.record.model_copy(update=changed)
    write_folder(out, (TENSORS["dense"], source_tensors(source)), record, f"rotated and sorted: {of.name}\n", "")


def learn(name: str, data: str) -> Path | None:
    """The folder of a source, learned where it is not there yet; None while another process is at it."""
    spec, out = SOURCES[name], CACHE / "sources" / name
    if (out / "config.json").is_file():
        return out
    overrides = [*BASE, f"data.source={data}", *spec.spec]
    if spec.rotated is not None:
        parent = learn(spec.rotated, data)
        if parent is None:
            return None
        start = CACHE / "sources" / f"{spec.rotated}.rotated"
        if not (start / "config.json").is_file():
            rotated(parent, start)
        overrides.append(f"init_from={start}")
    if spec.after is not None:
        parent = learn(spec.after, data)
        if parent is None:
            return None
        overrides.append(f"init_from={parent}")
    with claimed(f"source {name}") as mine:
        if not mine:
            return None
        began = time.time()
        print(f"learning {name}", flush=True)
        recipe = load_recipe(PretrainRecipe, "nano", overrides)
        order = None if spec.rotated is None else load_source(CACHE / "sources" / spec.rotated).source.order
        with masked_steps(spec.way, None if order is None else order.energy.sum(0)):
            summary = pretrain(recipe, out, resume=out.exists(), quiet=True)
        print(f"learned {name} in {time.time() - began:.0f} s, loss {summary['loss']}", flush=True)
    return out


def start_of(stored: StoredSource, trial: Trial, data: str) -> dict[str, torch.Tensor]:
    method, switches = STARTS[trial.start]
    size = Size.parse(trial.size, stored.config.head_dim)
    images = open_images(data, "train")
    device = {"data": images, "device": "cpu"} if method == "sweet_fitted" else {}
    weights = initialise(method, stored, size, **device, **switches)
    if trial.condition is None:
        return weights
    from sweet.models.condition import condition

    keys = stored.data
    batches = eval_batches(
        packed(images.select(range(1024)), keys.img_size),
        batch_size=256,
        img_size=keys.img_size,
        mean=keys.mean,
        std=keys.std,
    )
    config = stored.config.resized(size.depth, size.heads)
    return rescaled(condition(weights, config, (batch for batch, _ in batches)), **trial.condition)


@contextmanager
def optimised_by(name: str) -> Iterator[None]:
    """Fine-tuning builds another optimiser in place of AdamW, of the same groups, rate, betas and decay."""
    whole = torch.optim.AdamW

    def other(groups: Any, lr: float, betas: tuple[float, float], fused: bool) -> torch.optim.Optimizer:
        if name == "muon":
            from timm.optim.muon import Muon

            return Muon(groups, lr=lr, betas=betas, nesterov=True)
        from pytorch_optimizer import SOAP

        return SOAP(groups, lr=lr, betas=betas)

    torch.optim.AdamW = whole if name == "adamw" else other  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.optim.AdamW = whole  # type: ignore[misc]


def top1(stored: StoredSource, weights: dict[str, torch.Tensor], trial: Trial, seed: int, data: str) -> float:
    """5,000 labels, 5 epochs by default; accuracy on the validation images."""
    keys = stored.data.model_dump(include={"img_size", "mean", "std", "interpolation"})
    keys |= {"source": data, "labels": 5000, "label_seed": 0, "augment": "crop", "val_split": "val"}
    recipe = FinetuneRecipe.model_validate(
        {
            "epochs": trial.epochs,
            "batch_size": 64,
            "lr": trial.lr,
            "seed": seed,
            "checkpoint_every": 100000,
            "label_smoothing": 0.0,
            "workers": 0,
            "device": "cpu",
            "optim": {"layer_decay": 0.75, "precision": "fp32"},
            "data": keys,
        }
    )
    train_images, val_images = open_splits(recipe)
    make_task = task_class("classify")
    classes = make_task.classes_of(train_images)
    task, data_config = make_task(classes, recipe), DataConfig.of_recipe(recipe.data, classes)
    task.adapt(train_images, val_images)
    size = Size.parse(trial.size, stored.config.head_dim)
    config = stored.config.resized(size.depth, size.heads)
    vit = build_vit(config, weights, num_classes=task.outputs, seed=seed, **task.timm_options)
    network, accelerator = with_new_head(vit, task, seed), make_accelerator("cpu", "fp32", 1)
    train_data, val_data = (task.prepare_data(images, data_config) for images in (train_images, val_images))
    with optimised_by(trial.optimiser):
        _, metrics = finetune_model(network, task, train_data, val_data, recipe, accelerator=accelerator)
    return float(metrics.scores["top1"] or 0.0)


def known() -> set[tuple[str, int]]:
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    return {(line["trial"], line["seed"]) for line in map(json.loads, lines)}


def write(line: dict[str, Any], commit: bool) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)
    if commit:  # never in the midst of a rebase; a failure is made good by the next line
        git = ["git", "-C", str(RESULTS.parent)]
        where = Path(subprocess.run([*git, "rev-parse", "--git-dir"], capture_output=True, text=True).stdout.strip())
        if not any((where / name).exists() for name in ("rebase-merge", "rebase-apply", "MERGE_HEAD")):
            subprocess.run([*git, "add", RESULTS.name], capture_output=True)
            spec = ["-m", f"Nano: {line['trial']}, seed {line['seed']}"]
            subprocess.run([*git, "commit", "-q", "--only", RESULTS.name, *spec], capture_output=True)


def run(trial: Trial, data: str, commit: bool) -> bool:
    """Do what is missing of a trial; False when another process is at its source."""
    missing = [seed for seed in trial.seeds if (trial.name, seed) not in known()]
    if not missing:
        return True
    folder = learn(trial.source, data)
    if folder is None:
        return False
    stored = load_source(folder)
    for seed in missing:
        with claimed(f"{trial.name} {seed}") as mine:
            if not mine or (trial.name, seed) in known():
                continue
            began = time.time()
            weights = start_of(stored, trial, data)
            value = top1(stored, weights, trial, seed, data)
            line = {"trial": trial.name, "seed": seed, "top1": round(value, 2), "seconds": round(time.time() - began)}
            line |= {
                key: getattr(trial, key)
                for key in ("source", "start", "size", "lr", "condition", "optimiser", "epochs")
            }
            write(line | {"loss": stored.record.training.loss if stored.record.training else None}, commit)
    return True


def table() -> str:
    """A row for each trial: validation top-1 of each seed, the mean, and the source's loss at its end."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, RESULTS.read_text().splitlines()):
        rows.setdefault(line["trial"], []).append(line)
    text = "| trial | seeds | mean | source loss |\n|---|---|---|---|\n"
    for name, lines in rows.items():
        values = [line["top1"] for line in sorted(lines, key=lambda line: line["seed"])]
        each = " ".join(f"{value:.1f}" for value in values)
        text += f"| {name} | {each} | {sum(values) / len(values):.2f} | {lines[0]['loss']:.3f} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="parquet:PATH, or 'table' to print what is there")
    parser.add_argument("groups", nargs="*", help=f"default: all ({', '.join(GROUPS)})")
    parser.add_argument("--commit", action="store_true")
    spec = parser.parse_args()
    if spec.data == "table":
        print(table())
        return
    torch.set_num_threads(1)
    data = split(spec.data)
    trials = [trial for group in spec.groups or list(GROUPS) for trial in GROUPS[group]]
    while not all([run(trial, data, spec.commit) for trial in trials]):
        time.sleep(20)  # what waits for a source of another process


if __name__ == "__main__":
    main()
