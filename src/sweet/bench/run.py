"""``sweet bench``: the open cells of a table, measured by worker processes, each result written as it comes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from sweet.errors import UserError
from sweet.files import read_json
from sweet.recipe import PretrainRecipe

from .cells import (
    copy_source_summary,
    finetune_recipe,
    learn_source,
    measure,
    source_folder,
    source_recipe,
    use_threads,
)
from .protocols import ARMS, PROTOCOLS, Protocol
from .results import add_run, comparison, markdown, read_table, result_path


def run(
    name: str,
    *,
    protocol: str,
    out: Path,
    data: str | None = None,
    methods: list[str] | None = None,
    sizes: list[str] | None = None,
    seeds: int | None = None,
    workers: int = 2,
    max_minutes: float | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure what is missing of table ``name`` and return it; killed and started again, it goes on.

    Raises UserError for an unknown table, method or size and for missing data.
    """
    if (name, protocol) not in PROTOCOLS:
        known = ", ".join(f"{n} --protocol {p}" for n, p in PROTOCOLS)
        raise UserError(f"bench {name} --protocol {protocol}: unknown, there are: {known}")
    told = PROTOCOLS[name, protocol]
    arms, chosen = methods or list(told.arms), sizes or list(told.sizes)
    for arm in arms:
        if arm not in ARMS:
            raise UserError(f"--methods {arm}: unknown, expected some of {', '.join(ARMS)}")
    source_data = data or _own_data(told)
    recipes = {source: _with_device(source_recipe(told, source, source_data), device) for source in told.sources}
    count = told.seeds if seeds is None else seeds
    deadline = time.monotonic() + 60 * max_minutes if max_minutes else None

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    cells = [(arm, size, seed) for seed in range(count) for size in chosen for arm in arms]
    open_cells = [cell for cell in cells if not _done(out, told.name, name, *cell)]
    needed = sorted({ARMS[arm].source or next(iter(recipes)) for arm, _, _ in open_cells})
    note(f"{name} ({told.name}): {len(open_cells)} of {len(cells)} cells open")
    failed: list[str] = []
    with _pool(workers) as pool:
        learning = {
            pool.submit(learn_source, recipes[s]): s
            for s in needed
            if not (source_folder(recipes[s]) / "config.json").is_file()
        }
        for future in learning:
            note(f"learned {learning[future]}: {future.result()}")
        for source in needed:
            copy_source_summary(source_folder(recipes[source]), out / told.name / "sources" / f"{source}.json")
        began, finished = time.monotonic(), 0
        waiting = list(open_cells)
        running: dict[Future[Any], tuple[str, str, int]] = {}
        while waiting or running:
            while waiting and len(running) < workers and not (deadline and time.monotonic() > deadline):
                arm, size, seed = waiting.pop(0)
                source = ARMS[arm].source or next(iter(recipes))
                recipe = finetune_recipe(told, recipes[source], source_data, seed)
                folder = source_folder(recipes[source])
                running[pool.submit(measure, ARMS[arm], arm, size, recipe, folder, told.layers)] = (
                    arm,
                    size,
                    seed,
                )
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                arm, size, seed = running.pop(future)
                try:
                    head, result = future.result()
                except Exception as problem:  # a failed cell is marked, the table goes on
                    failed.append(f"{arm} {size} seed {seed}: {type(problem).__name__}: {problem}")
                    note(f"FAILED {failed[-1]}")
                    continue
                path = result_path(out, told.name, name, arm, size)
                add_run(path, {"protocol": told.name, "table": name, **head, "commit": _commit()}, result)
                finished += 1
                left = (time.monotonic() - began) / finished * (len(waiting) + len(running))
                note(
                    f"[{finished}/{len(open_cells)}] {arm} {size} seed {seed}: top-1 {result['top1']:.2f}"
                    f"  {result['seconds']:.0f} s  ETA {left / 60:.0f} min"
                )
    table = read_table(out, told.name, name)
    shown = [arm for arm in told.arms if any(key[0] == arm for key in table)]
    text = markdown(table, shown, told.sizes)
    rivals = [arm for arm in shown if not arm.startswith("sweet")]
    return {
        "table": name,
        "protocol": told.name,
        "cells": sum(len(cell["runs"]) for cell in table.values()),
        "open": len(waiting),
        "failed": failed,
        "chance_top1": next((cell["chance_top1"] for cell in table.values()), None),
        "top1": text,
        "sweet_against": {rival: comparison(table, "sweet", rival, told.sizes) for rival in rivals},
        "out": str(out / told.name / name),
    }


def _pool(workers: int) -> ProcessPoolExecutor:
    threads = max(1, (os.cpu_count() or 1) // workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by the workers' libraries when they load
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=use_threads, initargs=(threads,)
    )


def _done(out: Path, protocol: str, table: str, arm: str, size: str, seed: int) -> bool:
    path = result_path(out, protocol, table, arm, size)
    return path.is_file() and any(run["seed"] == seed for run in read_json(path)["runs"])


def _own_data(protocol: Protocol) -> str:
    if protocol.data is None:
        raise UserError(f"--data: protocol {protocol.name} needs images, for example --data parquet:PATH/cifar10")
    from sweet.recipe import load_recipe

    source = load_recipe(PretrainRecipe, protocol.pretrain, []).data.source
    assert source is not None, "a protocol with its own data names it in its recipe"
    return source


def _with_device(recipe: PretrainRecipe, device: str) -> PretrainRecipe:
    return recipe.model_copy(update={"device": device})


def _commit() -> str | None:
    """The commit that is measured, or None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
