"""A bench from the recipe to the table: every cell once, also when it is killed on the way."""

from __future__ import annotations

import os
import runpy
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sweet.bench import schedule
from sweet.bench.arms import ARMS, Arm, Converted, FineTuned, arms, conditioned
from sweet.bench.protocol import Protocol, Trial, spec_of
from sweet.bench.protocols import find
from sweet.bench.run import run
from sweet.bench.sources import TRAINING_VERSION, Sources
from sweet.data import open_images
from sweet.errors import UserError
from sweet.files import cache_folder, read_json, read_tensors, sha256, write_json
from sweet.initialise.apply import finished
from sweet.recipes.schema import PretrainRecipe
from sweet.results.files import read_spec, read_tables
from sweet.results.summary import summarise
from sweet.storage.folders import load_source
from sweet.template.sizes import Size
from sweet.training import pretrain
from sweet.training.checkpoint import steps_of

SHAPES = "shapes:n=64,size=16"  # as tiny.yaml says
TINY = Protocol(
    name="tiny",
    pretrain=str(Path(__file__).parents[1] / "tiny.yaml"),
    sizes=("L2H2", "L1H1"),
    arms=arms("random", "weight_selection") | {"sweet": ARMS["sweet_tucker"]},
    seeds=2,
    finetune=(
        "max_steps=3",
        "batch_size=16",
        "workers=0",
        "optim.precision=fp32",
        "data.augment=crop",
        "data.val_split=test",
    ),
    shows_costs=True,
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole bench by two workers, and what it returned."""
    out = tmp_path_factory.mktemp("results")
    return out, run(TINY, "tiny", out=out, workers=2, device="cpu", quiet=True)


def numbers(out: Path) -> dict[tuple[str, int], tuple[float, ...]]:
    """What each run measured, all that is not a time."""
    return {
        (path.stem, one["seed"]): (one["top1"], one["top5"], one["test_loss"], one["train_loss"])
        for path in sorted((out / "tiny" / "tiny").glob("classify-*.json"))
        for one in read_json(path)["runs"]
    }


def test_a_template_and_models_for_who_only_wants_to_use_them(
    measured: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(measured[0], tmp_path / "results"))
    for _ in range(2):
        run(replace(TINY, write_models=True), "tiny", out=out, workers=1, device="cpu")
    assert capsys.readouterr().err.count(f"sweet init {out}/models/template ") == 1  # the second run finds it there
    assert {path.name for path in (out / "models").iterdir()} == {"template", *TINY.sizes}
    source = Sources(TINY, SHAPES, 0).folder("template")
    assert (out / "models/template/SHA256SUMS").read_bytes() == (source / "SHA256SUMS").read_bytes()
    assert load_source(out / "models" / "template").config == load_source(source).config


def test_every_cell_is_measured(measured: tuple[Path, dict[str, Any]]) -> None:
    out, summary = measured
    assert (summary["measured"], summary["open"], summary["failed"]) == (12, 0, [])
    assert summary["chance_top1"] == 10.0
    assert [row["arm"] for row in summary["top1"]] == list(TINY.arms)
    assert {(row["sweet against"], row["size"]) for row in summary["comparison"]} == {
        (arm, size) for arm in ("random", "weight_selection") for size in TINY.sizes
    }
    found = numbers(out)
    assert set(found) == {
        (f"classify-{arm}-{size}", seed) for arm in TINY.arms for size in TINY.sizes for seed in (0, 1)
    }
    assert len(set(found.values())) == 12  # no two cells are the same run
    cell = read_json(out / "tiny" / "tiny" / "classify-weight_selection-L1H1.json")
    assert (cell["protocol"], cell["table"], cell["method"], cell["n_train"]) == (
        "tiny",
        "tiny",
        "weight_selection",
        64,
    )
    # a replicate: the source's seed is that of the fine-tuning
    assert [one["source"] for one in cell["runs"]] == [
        Sources(TINY, SHAPES, seed).folder("dense").name for seed in (0, 1)
    ]
    assert len({one["source_sha256"] for one in cell["runs"]}) == 2
    for one in cell["runs"]:  # two runs of one cell may come from two machines and two commits
        assert one["code"] == TRAINING_VERSION and one["precision"] == "no" and one["environment"]["cpu"]
        assert one["init_mae_loss"] > 0 and 0 <= one["init_knn"] <= 100 and one["init_images"] == 0
        assert one["environment"]["threads"] == 1 and "commit" in one
        assert [step for step, _ in one["curve"]] == [1, 2, 3] and one["curve"][-1][1] > 0
    assert not {"commit", "environment"} & cell.keys()
    assert not list((cache_folder() / "cells").glob("*"))  # what is written down is not kept twice
    random = read_json(out / "tiny" / "tiny" / "classify-random-L1H1.json")
    assert not any("init_mae_loss" in one for one in random["runs"])  # it brings no decoder
    assert {path.name for path in (out / "tiny" / "sources").iterdir()} == {
        f"{name}{seed}.json" for name in ("dense", "template") for seed in ("", ".seed1")
    }
    learned = read_json(out / "tiny" / "sources" / "dense.seed1.json")
    assert (learned["seed"], learned["code"], learned["environment"]["cpu"]) == (
        1, TRAINING_VERSION, cell["runs"][0]["environment"]["cpu"]
    )  # fmt: skip
    [row] = [row for row in summary["top1"] if row["arm"] == "sweet"]
    line = f"| {' | '.join(row.values())} |\n"
    assert line in (out / "tiny" / "tiny" / "table.md").read_text() and row["L1H1"] == spread(out, "sweet", "L1H1")
    with Image.open(out / "tiny" / "tiny" / "table.png") as picture:
        assert min(picture.size) > 100 and len(picture.convert("RGB").getcolors(1 << 20) or ()) > 3
    spec = read_spec(out / "tiny" / "tiny")
    assert spec == spec_of(TINY, "tiny") and [arm.role for arm in spec.arms] == ["baseline", "baseline", "ours"]


def spread(out: Path, arm: str, size: str) -> str:
    """Mean and spread of two seeds, as a table shows them."""
    a, b = (run["top1"] for run in read_json(out / "tiny" / "tiny" / f"classify-{arm}-{size}.json")["runs"])
    return f"{(a + b) / 2:.2f} ± {abs(a - b) / 2**0.5:.2f} (2)"


def test_a_finished_bench_measures_nothing(measured: tuple[Path, dict[str, Any]]) -> None:
    out, summary = measured
    results = sorted((out / "tiny" / "tiny").glob("classify-*.json"))
    before = [(path.stat().st_mtime_ns, sha256(path)) for path in results]
    assert run(TINY, "tiny", out=out, workers=1, device="cpu", quiet=True) == summary
    assert [(path.stat().st_mtime_ns, sha256(path)) for path in results] == before


def test_a_switch_that_came_later_does_not_make_old_cells_strangers(
    measured: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "results"
    shutil.copytree(measured[0], out)
    path = out / "tiny" / "tiny" / "classify-sweet-L2H2.json"
    cell = read_json(path)
    order = cell["switches"].pop("order")
    write_json(path, cell)
    assert run(TINY, "tiny", out=out, workers=1, device="cpu", quiet=True)["open"] == 0
    write_json(path, cell | {"switches": {"order": "prefix" if order == "principal" else "principal"}})
    with pytest.raises(UserError, match=r"switches is .*, this run has"):
        run(TINY, "tiny", out=out, workers=1, device="cpu", quiet=True)


def test_a_part_of_a_table(measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """One worker, one cell: the same numbers as two workers gave in the whole table."""
    summary = run(TINY, "tiny", out=tmp_path, methods=["sweet"], sizes=["L1H1"], seeds=1, workers=1, device="cpu")
    assert summary["measured"] == 1
    assert numbers(tmp_path).items() < numbers(measured[0]).items()


def test_only_sources_that_are_needed_are_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def note(jobs: list[schedule.Job], *_: Any, **__: Any) -> schedule.Outcome:
        seen.extend(f"{job.name} after {', '.join(job.needs) or 'nothing'}" for job in jobs)
        return schedule.Outcome()

    monkeypatch.setenv("SWEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sweet.bench.run.work", note)
    broken = replace(TINY, sources=TINY.sources | {"linear": ["template.constraint=unheard_of"]})
    for methods, needed in ((["weight_selection", "random"], "dense"), (["sweet"], "template")):
        run(broken, "tiny", out=tmp_path, methods=methods, sizes=["L1H1"], seeds=1, device="cpu", quiet=True)
        learning = f"source {needed} {Sources(broken, SHAPES).folder(needed).name.rpartition('-')[2]}"
        assert seen == [
            f"{learning} after nothing",
            *(f"{method} L1H1 seed 0 after {learning}" for method in methods),
        ]
        seen.clear()


def test_runs_of_another_table_are_taken_over(measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Where they are the same cell, and checked if the table shows what arms give before fine-tuning."""
    out = tmp_path / "results"
    shutil.copytree(measured[0], out)
    old = out / "tiny" / "tiny" / "classify-random-L2H2.json"
    cell = read_json(old)
    for one in cell["runs"]:
        del one["init_knn"]
    write_json(old, cell)
    costly = replace(TINY, arms={name: TINY.arms[name] for name in ("random", "sweet")}, seeds=1, borrows=("tiny",))

    def fill(name: str, protocol: Protocol) -> dict[str, Any]:
        return run(protocol, name, out=out, max_minutes=0, workers=1, device="cpu", quiet=True)

    summary = fill("costly", costly)
    assert (summary["measured"], summary["open"]) == (3, 1)
    taken = read_json(out / "tiny" / "costly" / "classify-sweet-L1H1.json")
    given = read_json(out / "tiny" / "tiny" / "classify-sweet-L1H1.json")
    assert taken == given | {"table": "costly", "runs": given["runs"][:1]}
    random, sweet = summary["costs"]
    assert (random["arm"], random["source"], sweet["arm"]) == ("random", "-", "sweet")
    assert (
        sweet["source"] == given["runs"][0]["source"]
        and float(sweet["PFLOPs"]) >= 0
        and sweet["unlabelled images"] == "0"
    )
    cheap = fill("cheap", replace(costly, shows_costs=False))
    assert cheap["measured"] == 4 and "costs" not in cheap
    assert fill("other", replace(costly, layers="first"))["measured"] == 0  # another rule for layers is another cell


def test_no_time_left(tmp_path: Path) -> None:
    summary = run(TINY, "tiny", out=tmp_path, max_minutes=0, workers=1, device="cpu", quiet=True)
    assert (summary["measured"], summary["open"]) == (0, 12)


def test_a_failed_cell_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    wrong = arms("weight_selection", "random") | {
        "sweet": Arm("sweet", "template", {"gains": "rms", "order": "prefix"})
    }
    broken = replace(TINY, sizes=("L1H1",), arms=wrong, seeds=1)
    summary = run(broken, "tiny", out=tmp_path, workers=1, device="cpu", quiet=True)
    assert (summary["measured"], summary["open"]) == (2, 0)
    [failed] = summary["failed"]
    assert failed.startswith("sweet L1H1 seed 0: UserError: gains=rms: ")
    assert {row["arm"]: row["L1H1"] for row in summary["top1"]}["sweet"] == "failed"
    spec = read_tables(tmp_path / "tiny" / "tiny")[0].spec
    other = summarise(tmp_path, spec, {("segment", "sweet", "L1H1")}).to_dict()  # that of another task, of that name
    assert "sweet" not in {row["arm"] for row in other["top1"]}  # type: ignore[union-attr]
    assert not (tmp_path / "tiny" / "tiny" / "classify-sweet-L1H1.json").exists()


def test_what_a_method_cannot_do_is_left_out(tmp_path: Path) -> None:
    larger = replace(TINY, sizes=("L3H2",), arms=arms("weight_selection", "random"), seeds=1)
    summary = run(larger, "tiny", out=tmp_path, workers=1, device="cpu", quiet=True)
    assert (summary["measured"], summary["open"], summary["failed"]) == (1, 0, [])


def test_killed_it_goes_on(processes: ForkServerContext, measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    job = {"protocol": TINY, "out": tmp_path, "workers": 1}
    process = started(processes, job)
    await_that(lambda: len(numbers(tmp_path)) >= 2, process.is_alive)
    workers = children(process.pid)
    process.kill()
    process.join()
    await_that(lambda: not any(map(alive, workers)))  # nobody goes on in secret
    kept = {path.name: read_json(path)["runs"] for path in (tmp_path / "tiny" / "tiny").glob("classify-*.json")}
    assert 2 <= len(numbers(tmp_path)) < 12

    again = started(processes, job)
    again.join(120)
    assert again.exitcode == 0
    for name, runs in kept.items():
        now = read_json(tmp_path / "tiny" / "tiny" / name)["runs"]
        assert [one for one in now if one in runs] == runs  # with its seconds: not measured again
    assert numbers(tmp_path) == numbers(measured[0])


def started(processes: ForkServerContext, job: dict[str, Any]) -> Any:
    """A bench in a process of its own."""
    script = str(Path(__file__).with_name("bench_process.py"))
    process = processes.Process(target=runpy.run_path, args=(script, {"JOB": job}))
    process.start()
    return process


def await_that(condition: Any, still: Any = lambda: True, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert still() and time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def children(parent: int) -> list[int]:
    """Processes below another one, where the system tells."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(status[1]) == parent:
            found.append(int(folder.name))
    return found


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_options_are_checked_first(tmp_path: Path) -> None:
    for options, message in (
        ({"methods": ["sweet", "magic"]}, "--methods magic: not in this table"),
        ({"sizes": ["L7H7"]}, "--sizes L7H7: not in this table"),
        ({"data": "folder:nowhere"}, "--data folder:nowhere: no such folder"),
        ({"device": "tpu"}, "device=tpu"),
    ):
        with pytest.raises(UserError, match=message):
            run(TINY, "tiny", **({"out": tmp_path / "out"} | options))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="bench table1 --protocol huge: unknown"):
        find("table1", "huge")


def test_results_of_another_version_are_left_alone(measured: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Their recipes had other keys, so that their hashes cannot be compared."""
    out = tmp_path / "results"
    shutil.copytree(measured[0], out)
    path = out / "tiny" / "tiny" / "classify-sweet-L2H2.json"
    cell = read_json(path)
    del cell["recipe"]["data"]["augment"]
    write_json(path, cell | {"recipe_hash": "0123456789ab"})
    with pytest.raises(UserError, match=f"{path}: measured by a version with other recipe keys"):
        run(TINY, "tiny", out=out, workers=1, device="cpu", quiet=True)


def test_sources_made_of_others_come_after_them(tmp_path: Path) -> None:
    """A conversion, a template that goes on from one, one with a teacher: in their order, under stable names."""
    chain = {
        "dense": ["template.constraint=none"],
        "on": ["init_from=@converted", "template.ranks=[24,16,16]"],
        "converted": Converted("dense"),
        "taught": FineTuned("dense"),
        "tiles": ["template.constraint=kronecker", "template.tile=8", "objective=supervised", "teacher=@taught"],
    }
    rows = {
        "on": Arm("sweet", "on"),
        "converted": Arm("sweet", "converted"),
        "tiles": Arm("wave", "tiles", {"steps": 2}),
    }
    protocol = replace(TINY, sources=chain, arms=rows, sizes=("L1H1",), seeds=1)
    summary = run(protocol, "tiny", out=tmp_path / "out", workers=1, device="cpu", quiet=True)
    assert summary["measured"] == 3 and not summary["failed"]
    names = {source: Sources(protocol, SHAPES).folder(source).name for source in chain}
    assert "-converted-" in names["converted"] and len(set(names.values())) == 5
    spent = {path.stem: read_json(path)["training"] for path in (tmp_path / "out" / "tiny" / "sources").glob("*.json")}
    assert spent["on"]["images"] == 2 * spent["converted"]["images"] > 0  # what it is made from is counted
    assert spent["tiles"]["teacher"] == names["taught"]
    assert spent["tiles"]["images"] == spent["on"]["images"] + 3 * 16  # of the teacher's fine-tuning
    assert spent["tiles"]["pflops"] > spent["converted"]["pflops"]


# A start that trains, and other images than those of pre-training.
DISTILLED = replace(
    TINY,
    name="distilled",
    arms={"dmae": Arm("dmae", "dense", {"steps": 4, "batch": 16})},
    trials=(Trial(), Trial(data="squares", finetune=("max_steps=2", "data.labels=20"))),
    sizes=("L1H1",),
)


def test_a_conditioned_start_shares_its_training(tmp_path: Path) -> None:
    """It is what conditioning makes of the plain row's start, and pays for both."""
    plain = DISTILLED.arms["dmae"]
    loud = conditioned(replace(plain, switches={**plain.switches, "writers": 0.2}))
    protocol = replace(DISTILLED, arms={"loud": loud, "dmae": plain}, trials=(Trial(),), sizes=("L2H2",))
    options: dict[str, Any] = {"seeds": 1, "workers": 1, "device": "cpu", "quiet": True}
    assert run(protocol, "tiny", out=tmp_path / "out", **options)["measured"] == 2
    starts = sorted((cache_folder() / "starts").glob("dmae-L2H2-*"), key=lambda folder: folder.stat().st_mtime)
    assert [(folder / "metrics.jsonl").is_file() for folder in starts] == [True, False]
    weights, changed = (read_tensors(folder / "weights.safetensors") for folder in starts)
    source = load_source(Sources(protocol, SHAPES).folder("dense"))
    data, after = open_images(SHAPES, "train"), {"condition": True, "writers": 0.2}
    expected = finished(weights, source, Size.parse("L2H2", source.config.head_dim), after, data=data)
    assert all(torch.equal(value, expected[name]) for name, value in changed.items())
    one, other = (read_json(folder / "start.json")["init_seconds"] for folder in starts)
    assert other > one > 0


def test_other_images_and_a_start_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once for both columns of a replicate, on the images of pre-training."""
    made: list[str] = []
    whole = schedule.work

    def note(jobs: list[schedule.Job], *rest: Any, **options: Any) -> schedule.Outcome:
        made.extend(job.name.split()[0] for job in jobs if job.name.startswith("start"))
        return whole(jobs, *rest, **options)

    monkeypatch.setattr("sweet.bench.run.work", note)
    options: dict[str, Any] = {"out": tmp_path / "out", "workers": 1, "device": "cpu", "quiet": True}
    squares = "squares=shapes:n=40,size=16,seed=9"
    summary = run(DISTILLED, "tiny", transfer=[squares], archive=tmp_path / "all.tar", **options)
    assert (summary["measured"], summary["failed"], made) == (4, [], ["start", "start"])
    folder = tmp_path / "out" / "distilled" / "tiny"
    own, other = (read_json(folder / f"classify-dmae-L1H1{end}.json") for end in ("", "-squares"))
    assert (own["n_train"], other["n_train"], other["set"], other["runs"][0]["steps"]) == (64, 20, "squares", 2)
    assert [one["init_seconds"] for one in own["runs"]] == [one["init_seconds"] for one in other["runs"]]
    assert len({one["test_loss"] for one in own["runs"]}) == 2
    assert [one["runs"][0]["init_images"] for one in (own, other)] == [64, 64]
    assert len(list((cache_folder() / "starts").glob("dmae-L1H1-*"))) == 2  # as long as the sources
    assert "| arm | L1H1 | squares L1H1 | average |" in (folder / "table.md").read_text()
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert {"distilled/tiny/classify-dmae-L1H1-squares.json", "distilled/sources/dense.json"} <= set(tar.getnames())
        assert all(name.endswith(".json") for name in tar.getnames())
    with pytest.raises(UserError, match=r"--transfer circles=x: expected NAME=SRC with NAME one of squares"):
        run(DISTILLED, "tiny", transfer=["circles=x"], **options)


def test_killed_while_it_learns_a_source_it_goes_on(
    processes: ForkServerContext, measured: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    job = {"protocol": TINY, "out": tmp_path / "out", "workers": 1, "cache": str(tmp_path / "cache")}
    process = started(processes, job)
    sources = tmp_path / "cache" / "sources"
    await_that(lambda: any(sources.glob("*/checkpoints/step-*")), process.is_alive)
    workers = children(process.pid)
    process.kill()
    process.join()
    await_that(lambda: not any(map(alive, workers)))
    again = started(processes, job)
    again.join(240)
    assert again.exitcode == 0
    assert numbers(tmp_path / "out") == numbers(measured[0])


def test_time_that_is_up_stops_a_training_at_a_checkpoint(
    tmp_path: Path, tiny: Callable[..., PretrainRecipe], template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker does to a source when --max-minutes are over: the next call goes on from there."""
    whole, until = pretrain.networks_at, time.time() + 3

    def slow(recipe: PretrainRecipe, step: int, steps: int) -> Any:
        while step == 3 and time.time() < until + 0.2:
            time.sleep(0.02)
        return whole(recipe, step, steps)

    monkeypatch.setattr(pretrain, "networks_at", slow)
    recipe = tiny("checkpoint_every=1000")
    with pytest.raises(schedule.OutOfTime):
        schedule.limited(until, pretrain.pretrain, recipe, tmp_path / "run")
    assert steps_of(tmp_path / "run") == [4]  # the step that ran was finished
    pretrain.pretrain(recipe, tmp_path / "run", resume=True, quiet=True)
    learned = [folder / "template.safetensors" for folder in (tmp_path / "run", template)]
    assert sha256(learned[0]) == sha256(learned[1])
