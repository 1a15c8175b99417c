"""``sweet family``: models of several sizes from one source, fine-tuned one after the other, and a Pareto chart."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch

from sweet.console import say
from sweet.convert.cached import as_source, is_source
from sweet.costs.budget import size_cost
from sweet.errors import UserError
from sweet.files import sha256, write_json
from sweet.initialise.apply import switches
from sweet.initialise.make import initialise_to
from sweet.initialise.registry import NAMES
from sweet.models.config import ViTConfig
from sweet.models.device import resolve_device
from sweet.recipes.schema import FinetuneRecipe, without_path
from sweet.results.family import Family, Latency, Member
from sweet.storage.folders import load_source
from sweet.storage.layout import TENSORS
from sweet.storage.ownership import FAMILY, STARTS
from sweet.storage.paths import check_patches
from sweet.storage.records import read_record
from sweet.tasks.registry import TASKS, task_class
from sweet.template.image_size import ImageSize
from sweet.template.sizes import Size
from sweet.training.finetune import finetune, open_splits
from sweet.training.inherited import with_model_data
from sweet.training.nonfinite import LOWER, NonFinite
from sweet.training.run_folder import begin, check_recipe

from .chart import write_chart, write_table
from .sizes import members


def family(
    source: Path | str,
    sizes: Sequence[str],
    recipe: FinetuneRecipe,
    out: Path,
    *,
    task: str = "classify",
    method: str = "sweet",
    img_size: ImageSize | None = None,
    latency: str | None = None,
    compare: Sequence[str] = (),
    seeds: int = 1,
    resume: bool = False,
    quiet: bool = False,
) -> Mapping[str, object]:
    """Make, fine-tune and measure a model of every size; returns the rows of the table that it writes.

    Arguments: ``sizes`` are numbers of parameters (``12M``) or names (``L6H6``). ``latency`` names a device on which
    one image is timed. A method that looks at images is shown the training images, from which the order of a checkpoint
    that is converted on the way is computed as well.
    ``compare`` names initialisers by which the same sizes are made and fine-tuned besides: ``random`` says what the
    source is worth on these images. Each size is fine-tuned by ``seeds`` seeds, and the means are compared.
    Each model is a run folder ``<out>/<size>``, or ``<out>/<method>/<size>``. ``family.json``, ``table.md`` and
    ``pareto.png|svg`` are written anew after each, so that an interrupted family is worth something; with ``resume``
    it goes on, and takes further sizes. Raises UserError for bad input, before anything is written.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("sweet family: runs in one process; fine-tune the sizes one by one with torchrun instead")
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: one or more")
    for other in compare:
        switches(other)  # checks its name
        if other == method:
            raise UserError(f"--compare {other}: is how the family itself is initialised (--method)")
    clock = None if latency is None else resolve_device(latency)
    called = Path(source).expanduser().absolute().name  # of a checkpoint too, which the cache calls by its checksum
    for images in open_splits(recipe):  # those that the task cannot learn from are refused before a conversion
        task_class(task).classes_of(images)
    source = _folder(source, recipe, img_size)
    work = prepare(source, called, sizes, recipe, task, method, img_size, seeds)
    methods = [None, *dict.fromkeys(compare)]
    known = work.family.continued(out) if resume else work.family
    check_recipe(out, work.recipe, resume=resume)
    work.make_starts(source, out, img_size, methods)
    begin(out, work.recipe, resume=resume)
    jobs = [(size, requested, name) for size, requested in work.sizes.items() for name in methods]
    for number, (size, requested, name) in enumerate(jobs, 1):
        if not quiet:
            how = f"{size_cost(work.config, size).params:,} parameters{f', {name}' if name else ''}"
            print(f"[{number}/{len(jobs)}] {size}: {how}", file=sys.stderr, flush=True)
        try:
            member = work.made(out, size, requested, name, known, clock, quiet=quiet, advises=number == 1)
        except KeyboardInterrupt:
            say(f"{number - 1} of {len(jobs)} models are finished; the same command with --resume makes the others")
            raise
        known = known.joined(member)
        write(known, out)
    shutil.rmtree(out / STARTS, ignore_errors=True)
    result = {"members": known.rows(), "metric": known.metric, "out": str(out)}
    return result | {"conclusion": " ".join(known.sentences())} if known.baselines else result


def _folder(source: Path | str, recipe: FinetuneRecipe, img_size: ImageSize | None) -> Path:
    """The source itself, or what it is converted to by the images of the recipe."""
    data = None if is_source(source) else recipe.data.source
    return as_source(source, data=data, img_size=img_size, device=recipe.device)


@dataclass(frozen=True)
class FamilyPlan:
    """What is made: ``sizes`` with the words that requested them, ``config`` the shape of all but for the size."""

    family: Family
    sizes: dict[Size, str]
    config: ViTConfig
    recipe: FinetuneRecipe
    seeds: int = 1

    def make_starts(self, source: Path, out: Path, img_size: ImageSize | None, methods: Sequence[str | None]) -> None:
        """Models of all sizes that are not finished, by the family's own method (None) and others.

        The largest first: a method that cannot make the sizes says so before anything is written.
        """
        recipe = self.recipe
        largest = sorted(self.sizes, key=lambda size: size_cost(self.config, size).params, reverse=True)
        for size, name in product(largest, methods):
            method, place = name or self.family.method, Member.folder_of(str(size), name)
            fit = recipe.data.source if NAMES[method].images != 0 else None
            start, runs = out / STARTS / place, self.runs(out, size, name).values()
            for made in (start, *runs):
                self.check_made(made, method, out)
            finished = all((run / "config.json").is_file() for run in runs)
            if not finished and not (start / "config.json").is_file():
                initialise_to(
                    str(source),
                    start,
                    depth=size.depth,
                    heads=size.heads,
                    method=method,
                    fit=fit,
                    img_size=img_size,
                    seed=recipe.seed,
                    device=recipe.device,
                )

    def check_made(self, folder: Path, method: str, out: Path) -> None:
        """Raises UserError for a model of another family, which was stopped before it wrote down what it is."""
        record = read_record(folder, ("model",)) if (folder / "config.json").is_file() else None
        if record is None or record.made is None:
            return
        for key, was, now in (
            ("source_sha256", record.made.source_sha256, self.family.source_sha256),
            ("method", record.made.method, method),
            ("img_size", record.vit.img_size, self.family.img_size),
        ):
            if was not in ("", now):
                raise UserError(f"--resume: {out} was begun with {key} {was}, now it is {now}")

    def made(
        self,
        out: Path,
        size: Size,
        requested: str,
        name: str | None,
        known: Family,
        clock: torch.device | None,
        *,
        quiet: bool,
        advises: bool,
    ) -> Member:
        """The model of a size by a method, fine-tuned by all seeds; ``known`` may have its latency."""
        place = Member.folder_of(str(size), name)
        start, runs = out / STARTS / place, self.runs(out, size, name)
        for seed, run in runs.items():
            self.finetune(start, run, seed, quiet=quiet, advises=advises and seed == self.recipe.seed)
        shutil.rmtree(start, ignore_errors=True)
        before = known.member(str(size), name)
        timing = before.latency if before and clock is None else self.latency(size, clock)
        return self.member(size, requested, runs, timing, name)

    def finetune(self, start: Path, run: Path, seed: int, *, quiet: bool, advises: bool) -> None:
        """Fine-tune the model ``start`` by a seed into ``run``, from where that was left; ``advises``: with notes."""
        recipe = self.recipe.model_copy(update={"seed": seed})
        try:
            finetune(start, recipe, run, task=self.family.task, resume=True, quiet=quiet, advises=advises)
        except NonFinite as problem:
            advice = "; all members have one rate: a lower one begins anew, with --overwrite lr=..."
            raise NonFinite(str(problem).removesuffix(LOWER) + advice) from None

    def runs(self, out: Path, size: Size, method: str | None) -> dict[int, Path]:
        """{seed: folder} of the fine-tunings of a size; the first is that of the recipe."""
        first = self.recipe.seed
        return {
            seed: out / Member.folder_of(str(size), method, None if seed == first else seed)
            for seed in range(first, first + self.seeds)
        }

    def latency(self, size: Size, clock: torch.device | None) -> Latency | None:
        """How long one image takes on ``clock``."""
        if clock is None:
            return None
        from sweet.costs.latency import measure_latency, protocol

        timing = measure_latency(self.config.resized(size.depth, size.heads), clock)
        return Latency.model_validate({**timing.to_dict(), "protocol": protocol(clock)})

    def member(
        self, size: Size, requested: str, runs: Mapping[int, Path], latency: Latency | None, method: str | None
    ) -> Member:
        """The fine-tuned model in the folders ``runs``; the first seed's is shown, where one is."""
        records = {seed: read_record(run, ("model",)) for seed, run in runs.items()}
        record, metric = records[self.recipe.seed], self.family.metric
        if unmeasured := next((runs[seed] for seed, one in records.items() if metric not in one.scores), None):
            raise UserError(f"{unmeasured}: has no {metric}: its validation images hold nothing to measure that by")
        values = {str(seed): one.scores[metric] for seed, one in records.items()}
        return Member(
            size=str(size),
            method=method,
            requested=requested,
            width=size.width,
            params=size_cost(self.config, size).params,
            flops=size_cost(self.config, size).flops,
            latency=latency,
            metrics=record.metrics or {},
            training=record.training,
            seeds=values if len(values) > 1 else {},
        )


def prepare(
    source: Path,
    name: str,
    sizes: Sequence[str],
    recipe: FinetuneRecipe,
    task: str,
    method: str,
    img_size: ImageSize | None,
    seeds: int = 1,
) -> FamilyPlan:
    """Sizes, recipe and record of a family; ``name`` is that of the source.

    Raises UserError now for what the first fine-tuning would say later.
    """
    make_task = task_class(task)
    stored = load_source(source)
    config = stored.config
    check_patches(img_size or config.img_size, config.patch_size)
    config = replace(config, img_size=img_size or config.img_size)
    requested = members(sizes, config)
    switches(method)  # checks its name
    data = stored.data.model_copy(update={"img_size": config.img_size})
    recipe = with_model_data(recipe, data, source, make_task)
    known = Family(
        source=name,
        source_sha256=sha256(source / TENSORS[stored.record.kind]),
        task=task,
        data=without_path(recipe.data.source or ""),
        method=method,
        img_size=config.img_size,
        metric=TASKS[task].key,
    )
    return FamilyPlan(known, requested, config, recipe, seeds)


def write(known: Family, out: Path) -> None:
    """A family as a file, a table and a chart."""
    title = f"{known.task} on {known.data}, from {known.source} ({known.method})"
    write_json(out / FAMILY, known.to_dict())
    write_table(known, out / "table.md", about=title)
    write_chart(known, out, title=title)
