"""``sweet bench``: the open cells of a table, measured by worker processes, each result written as it comes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from sweet.errors import UserError
from sweet.files import read_json, write_json, write_text
from sweet.recipe import FinetuneRecipe, PretrainRecipe, load_recipe

from .arms import Arm
from .cells import (
    CHECKED,
    finetune_recipe,
    hash_of,
    measure,
    start_worker,
    switches_of,
    write_model,
)
from .protocols import PROTOCOLS, Protocol
from .results import (
    add_run,
    check_same,
    comparison,
    costs,
    markdown,
    means,
    read_cell,
    read_sources,
    read_table,
    result_path,
)
from .sources import before, learn_source, source_facts, source_folder, source_recipe

Cell = tuple[str, str, int]  # arm, size, seed
COSTS = f"""
What initialising gives and takes: MAE loss and k-NN on up to {CHECKED:,} test images before any fine-tuning, top-1
after it; seconds and unlabelled images of one initialisation; seconds and PFLOPs of its source's pre-training

"""
PAIRED = """
Top-1, paired over seeds; a gain is a difference of at least two standard errors

"""


def run(
    name: str,
    *,
    protocol: str,
    out: Path,
    data: str | None = None,
    methods: list[str] | None = None,
    sizes: list[str] | None = None,
    seeds: int | None = None,
    workers: int | None = None,
    max_minutes: float | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure what is missing of table ``name`` and return it; killed and started again, it goes on.

    Raises UserError for an unknown table, method or size and for missing data, before anything is written.
    """
    from sweet.data.sources import source_splits
    from sweet.training.device import resolve_device

    told = _protocol(name, protocol)
    arms, chosen = _known("--methods", methods, told.arms), _known("--sizes", sizes, told.sizes)
    source_data = data or _own_data(told)
    recipes, folders = {}, {}
    for source in {_source(told, arm) for arm in arms}:
        recipes[source] = source_recipe(told, source, source_data).model_copy(update={"device": device})
        folders[source] = source_folder(told, source, source_data)
    source_splits(source_data)  # a UserError now, not one from each worker
    kind = resolve_device(device).type
    workers = workers or (min(2, _cores()) if kind == "cpu" else 1)
    seeds = told.seeds if seeds is None else seeds
    cells = [(arm, size, seed) for seed in range(seeds) for size in chosen for arm in arms]
    for cell in cells:
        source = _source(told, cell[0])
        tuned = finetune_recipe(told, told.arms[cell[0]], recipes[source], source_data, cell[2])
        head = _head(told, cell[0], tuned, folders[source])
        path = result_path(out, told.name, name, cell[0], cell[1])
        if path.is_file():
            check_same(path, _today(read_cell(path), told), head, list(head))
        _borrow(out, name, told, cell, head)
    open_cells = [cell for cell in cells if not _done(out, told.name, name, cell)]
    commit = _commit()

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    note(f"{name} ({told.name}): {len(open_cells)} of {len(cells)} cells open, {workers} workers")
    # which folder this is, for --overwrite; what was measured where stands in each result
    write_json(out / "env.json", {"bench": name, "protocol": told.name, "workers": workers})
    needed = sorted({_source(told, arm) for arm, _, _ in open_cells})
    _learn_sources(told, needed, source_data, device, workers, note)
    for source in needed:
        write_json(out / told.name / "sources" / f"{source}.json", source_facts(told, source, source_data))
    if told.write_models:
        for size in chosen:
            note(f"made {write_model(folders[_source(told, 'sweet')], size, out / 'models' / size)}")

    def submit(pool: ProcessPoolExecutor, cell: Cell) -> Future[Any]:
        arm, size, seed = cell
        source = _source(told, arm)
        tuned = finetune_recipe(told, told.arms[arm], recipes[source], source_data, seed)
        return pool.submit(measure, told.arms[arm], arm, size, tuned, folders[source], told.layers)

    def keep(cell: Cell, head: dict[str, Any], result: dict[str, Any]) -> None:
        path = result_path(out, told.name, name, cell[0], cell[1])
        add_run(path, {"protocol": told.name, "table": name, **head}, {**result, "commit": commit})

    left, failed = _work(open_cells, submit, keep, workers, max_minutes, note)
    return _summary(out, name, told) | {"open": left, "failed": failed}


def _work(
    cells: list[Cell],
    submit: Callable[[ProcessPoolExecutor, Cell], Future[Any]],
    keep: Callable[[Cell, dict[str, Any], dict[str, Any]], None],
    workers: int,
    max_minutes: float | None,
    note: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Measure cells, ``workers`` at a time; (how many were not started, which failed)."""
    began, finished, failed = time.monotonic(), 0, []
    waiting, running = list(cells), dict[Future[Any], Cell]()
    with _pool(workers) as pool:
        while waiting or running:
            late = max_minutes is not None and time.monotonic() - began > 60 * max_minutes
            while waiting and len(running) < workers and not late:
                cell = waiting.pop(0)
                running[submit(pool, cell)] = cell
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                told = f"{cell[0]} {cell[1]} seed {cell[2]}"
                try:
                    head, result = future.result()
                except Exception as problem:  # a failed cell is marked, the table goes on
                    failed.append(f"{told}: {type(problem).__name__}: {problem}")
                    note(f"FAILED {failed[-1]}")
                    continue
                keep(cell, head, result)
                finished += 1
                eta = (time.monotonic() - began) / finished * (len(waiting) + len(running)) / 60
                note(
                    f"[{finished}/{len(cells)}] {told}: top-1 {result['top1']:.2f} %"
                    f"  {result['seconds']:.0f} s  ETA {eta:.0f} min"
                )
    return len(waiting), failed


def _learn_sources(
    told: Protocol, needed: list[str], data: str, device: str, workers: int, note: Callable[[str], None]
) -> None:
    """Make the sources that the cache lacks, and first what they are made from: side by side where they can be."""
    waiting = list(needed)
    for source in waiting:  # grows while it is read
        parent = before(told, source)
        if parent is not None and parent not in waiting:
            waiting.append(parent)
    waiting = [s for s in waiting if not (source_folder(told, s, data) / "config.json").is_file()]
    while waiting:
        ready = [source for source in waiting if before(told, source) not in waiting]
        waiting = [source for source in waiting if source not in ready]
        with _pool(min(workers, len(ready))) as pool:
            for future in [pool.submit(learn_source, told, source, data, device) for source in ready]:
                note(f"learned {future.result().name}")


def _summary(out: Path, name: str, told: Protocol) -> dict[str, Any]:
    """Table and picture of everything measured so far, also written beside the results."""
    from .figures import picture

    cells = read_table(out, told.name, name)
    arms = [arm for arm in told.arms if any(key[0] == arm for key in cells)]
    folder = out / told.name / name
    ours = told.ours
    rivals = [arm for arm in arms if not arm.startswith("sweet")] if ours in arms else []
    against = [
        {f"{ours} against": rival, **row}
        for rival in rivals
        for row in comparison(cells, ours, rival, told.sizes)
        if rival != ours
    ]
    chance = next((cell["chance_top1"] for cell in cells.values()), None)
    top1 = means(cells, arms, told.sizes)
    costing = costs(cells, arms, told.sizes, read_sources(out, told.name)) if told.costs else []
    if cells:
        text = f"""Protocol {told.name}, held-out images, mean ± spread (seeds). Chance is {chance:g} % top-1.

Top-1, %

{markdown(top1)}
Top-5, %

{markdown(means(cells, arms, told.sizes, "top5"))}"""
        if against:
            text += PAIRED + markdown(against)
        if costing:
            text += COSTS + markdown(costing)
        write_text(folder / "table.md", text)
        picture(cells, arms, told.sizes, folder / "table.png", title=f"{name}, protocol {told.name}")
    return {
        "table": name,
        "protocol": told.name,
        "measured": sum(len(cell["runs"]) for cell in cells.values()),
        "chance_top1": chance,
        "top1": top1,
        "comparison": against,
        **({"costs": costing} if costing else {}),
        "written": str(folder),
    }


def _protocol(name: str, protocol: str) -> Protocol:
    if (name, protocol) not in PROTOCOLS:
        known = ", ".join(f"{n} --protocol {p}" for n, p in PROTOCOLS)
        raise UserError(f"bench {name} --protocol {protocol}: unknown, there are: {known}")
    return PROTOCOLS[name, protocol]


def _known(option: str, asked: list[str] | None, there: Iterable[str]) -> list[str]:
    for word in asked or ():
        if word not in there:
            raise UserError(f"{option} {word}: not in this table, expected some of {', '.join(there)}")
    return asked or list(there)


def _source(told: Protocol, arm: str) -> str:
    """The source of an arm; one without any takes its shape from the first."""
    return told.arms[arm].source or next(iter(told.sources))


def _cores() -> int:
    """Cores that this process may use, by ``taskset`` or a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool(workers: int) -> ProcessPoolExecutor:
    threads = max(1, _cores() // workers)
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker, initargs=(threads,)
    )


def _done(out: Path, protocol: str, table: str, cell: Cell) -> bool:
    path = result_path(out, protocol, table, cell[0], cell[1])
    return path.is_file() and any(run["seed"] == cell[2] for run in read_json(path)["runs"])


def _head(told: Protocol, arm: str, recipe: FinetuneRecipe, source: Path) -> dict[str, Any]:
    """What has to be the same for two runs to be seeds of one cell."""
    return {
        "recipe_hash": hash_of(recipe, told.layers),
        "source": source.name if told.arms[arm].source else None,
        "switches": switches_of(told.arms[arm], told.layers),
    }


def _today(cell: dict[str, Any], told: Protocol) -> dict[str, Any]:
    """A cell with all switches that its method has now: one that came later stood at its default then.

    The oldest cells tell no switches; nothing can be compared with them.
    """
    if "switches" not in cell:
        return cell
    return cell | {"switches": switches_of(Arm(cell["method"], switches=cell["switches"]), told.layers)}


def _borrow(out: Path, name: str, told: Protocol, cell: Cell, same: dict[str, Any]) -> None:
    """Take over the run of an open cell from another table, where the same was measured there, checks included."""
    arm, size, seed = cell
    if _done(out, told.name, name, cell):
        return
    for path in (result_path(out, told.name, other, arm, size) for other in told.borrows):
        head = _today(read_cell(path), told) if path.is_file() else {"runs": []}
        for run in head.pop("runs"):
            if run["seed"] == seed and "init_knn" in run and all(head.get(key) == same[key] for key in same):
                add_run(result_path(out, told.name, name, arm, size), head | {"table": name}, run)
                return


def _own_data(protocol: Protocol) -> str:
    source = load_recipe(PretrainRecipe, protocol.pretrain, []).data.source
    if source is None:
        raise UserError(f"--data: protocol {protocol.name} needs images, for example --data parquet:PATH/cifar10")
    return source


def _commit() -> str | None:
    """The commit that is measured, or None outside a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
