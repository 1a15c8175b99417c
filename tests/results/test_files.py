"""Files of results: runs gather in cells, unequal budgets never meet in one cell, and old files are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweet.bench.protocol import spec_of
from sweet.bench.protocols import PROTOCOLS
from sweet.errors import UserError
from sweet.files import read_json, write_json
from sweet.results.fairness import check
from sweet.results.files import (
    add_run,
    check_same,
    check_source,
    find_tables,
    read_cell,
    read_source_folder,
    read_spec,
    read_tables,
    result_path,
    write_source,
    write_spec,
)
from sweet.results.records import RULES, ArmSpec, CellResult, ColumnSpec, Run, SourceResult, TableSpec

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "results").rglob("table.json"))
CELL = CellResult(arm="sweet", method="sweet", size="L2H2", recipe_hash="a", n_train=10, test_images=5)


def cell(**changes: Any) -> CellResult:
    return CELL.model_copy(update=changes)


def run(seed: int, top1: float = 10.0, **more: Any) -> Run:
    return Run.model_validate({"seed": seed, "top1": top1, **more})


def test_paths() -> None:
    place, out = {"task": "classify", "arm": "sweet", "size": "L2H2"}, Path("a")
    assert result_path(out, "micro", "table1", **place, set=None) == out / "micro/table1/classify-sweet-L2H2.json"
    assert result_path(out, "micro", "table3", **place, set="b").name == "classify-sweet-L2H2-b.json"


def test_runs_of_one_cell_gather_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for seed, top1 in ((1, 11.0), (0, 10.0), (1, 12.0)):
        add_run(path, CELL, run(seed, top1, curve=[[1, 0.5]], init_mae_loss=None))
    assert read_cell(path).values("top1") == {0: 10.0, 1: 12.0}
    assert read_json(path)["runs"][1]["curve"] == [[1, 0.5]]
    before = path.read_bytes()
    for other in ({"recipe_hash": "b"}, {"n_train": 11}, {"test_images": 6}):
        with pytest.raises(UserError, match=f"a.json: {next(iter(other))} is .*, this run has .*; remove the file"):
            add_run(path, cell(**other), run(2, 99.0))
    assert path.read_bytes() == before


def test_another_recipe_is_named_by_its_keys(tmp_path: Path) -> None:
    path, one = tmp_path / "a.json", cell(recipe={"lr": 1e-3, "optim": {"clip": 1.0}})
    add_run(path, one, run(0))
    with pytest.raises(UserError, match=r"a.json: optim.clip is 1.0, this run has 2.0; remove"):
        add_run(path, cell(recipe_hash="b", recipe={"lr": 1e-3, "optim": {"clip": 2.0}}), run(1))
    with pytest.raises(UserError, match="recipe_hash is a, this run has b"):  # another rule of layers
        add_run(path, one.model_copy(update={"recipe_hash": "b"}), run(1))


def test_a_source_learned_once_more_makes_no_mean_with_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for seed, weights in ((0, "one"), (0, "two"), (1, "two")):  # the only seed may be measured again
        add_run(path, CELL, run(seed, source="a", source_sha256=weights))
    with pytest.raises(UserError, match="source_sha256 is two, this run has three"):
        add_run(path, CELL, run(2, source="a", source_sha256="three"))
    add_run(path, CELL, run(2, source="b", source_sha256="three"))  # another replicate
    assert read_cell(path).sources == ["a", "b"]


def test_the_source_of_an_old_cell_is_that_of_its_runs(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", CELL.to_dict() | {"source": "one", "runs": [{"seed": 0}, {"seed": 1}]})
    assert [one.source for one in read_cell(tmp_path / "a.json").runs] == ["one", "one"]
    with pytest.raises(UserError, match=r"a\.json: source of seed 1 is one, this run has two; remove the file"):
        check_source(tmp_path / "a.json", read_cell(tmp_path / "a.json").runs[1], "two")


def test_what_a_file_does_not_record_is_not_compared() -> None:
    """Older files have fewer keys."""
    old = cell(recipe_hash=None, switches={})
    check_same(Path("a"), old, cell(switches={"order": "prefix"}), ("recipe_hash", "switches"))
    with pytest.raises(UserError, match="switches is"):
        check_same(Path("a"), cell(switches={"order": "prefix"}), cell(switches={"order": "principal"}), ("switches",))


def test_old_names_of_switches_are_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", CELL.to_dict() | {"switches": {"inner": "loudest"}, "runs": [{"seed": 0}]})
    assert read_cell(tmp_path / "a.json").switches == {"inner": "energy"}


@pytest.mark.parametrize("damage", [{"runs": [1], "source": "a"}, {"runs": [1]}, {"runs": {}}, {"switches": [3]}])
def test_a_damaged_cell_is_one_line(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = tmp_path / "classify-a-L1H1.json"
    add_run(path, cell(), run(0))
    write_json(path, read_json(path) | damage)
    with pytest.raises(UserError, match=r"classify-a-L1H1\.json: (runs|switches)"):
        read_cell(path)


def test_results_of_a_task_that_there_is_not(results: Callable[..., Path]) -> None:
    out = results({("random", "L6H6"): [1.0], ("sweet", "L6H6"): [1.0]})
    for path in out.rglob("classify-*.json"):
        write_json(path, read_json(path) | {"task": "dream"})
    for path in out.rglob("table.json"):
        (path.parent / "table.md").touch()
    check(out)  # what is unfair is said of them, too


def test_a_table_describes_itself(tmp_path: Path) -> None:
    arms = tuple(ArmSpec(name=name, method=name, role="baseline") for name in ("random", "dmae"))
    columns = tuple(ColumnSpec(size=size) for size in ("L2H2", "L1H1"))
    spec = TableSpec(table="t", protocol="p", arms=arms, columns=columns, main="dmae", impossible=(("dmae", "L1H1"),))
    write_spec(tmp_path, spec)
    assert read_spec(tmp_path / "p" / "t") == spec
    assert read_spec(tmp_path) is None
    assert read_tables(tmp_path / "p" / "t") == []
    for arm, size in (("sweet", "L3H3"), ("dmae", "L2H2"), ("random", "L1H1")):  # one of another version of the table
        path = result_path(tmp_path, "p", "t", task="classify", arm=arm, size=size, set=None)
        add_run(path, cell(arm=arm, method=arm, size=size), run(0))
    [table] = find_tables(tmp_path)
    assert (table.arms, table.columns, table.common) == (
        ["random", "dmae", "sweet"],
        ["L2H2", "L1H1", "L3H3"],
        ["L2H2", "L3H3"],
    )
    (tmp_path / "p" / "t" / "table.json").write_text('{"table": "t"}')
    with pytest.raises(UserError, match=r"table\.json: protocol: Field required"):
        find_tables(tmp_path)


def test_a_folder_from_before_tables_described_themselves_is_read(results: Callable[..., Path]) -> None:
    [table] = find_tables(results({(arm, "L6H6"): [1.0] for arm in ("dmae", "sweet")}, spec=None))
    assert (table.title, table.main, table.baselines, table.columns) == ("micro / table1", "sweet", ["dmae"], ["L6H6"])


def test_each_source_is_kept_once(tmp_path: Path) -> None:
    there = read_json(ROOT / "results/quickstart/sources/template.json")
    first, second = (SourceResult.model_validate(there | {"source": f"a-{n}"}) for n in (1, 2))
    for source in (first, second, first):  # another one later, under the same name in the table
        write_source(tmp_path, "micro", "dense", source.source, lambda source=source: source)
    assert {path.name for path in (tmp_path / "micro" / "sources").iterdir()} == {"dense.json", "dense-2.json"}
    assert read_source_folder(tmp_path / "micro" / "sources") == {"a-1": first, "a-2": second}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_committed_tables_describe_all_that_was_measured(path: Path) -> None:
    spec = read_spec(path.parent)
    assert spec is not None
    assert (spec.protocol, spec.table) == path.parts[-3:-1]
    assert spec.main in {arm.name for arm in spec.arms}
    arms, columns = {arm.name for arm in spec.arms}, {(column.task, column.name) for column in spec.columns}
    out = path.parents[2]
    sources = read_source_folder(out / spec.protocol / "sources")
    for file in path.parent.glob("*-*.json"):
        one = read_cell(file)
        assert (one.protocol, one.table, one.arm in arms) == (spec.protocol, spec.table, True)
        assert (one.task, one.column) in columns and (one.arm, one.size) not in spec.impossible
        assert all(sources[name].training.pflops is not None for name in one.sources)
        assert file == result_path(out, one.protocol, one.table, task=one.task, arm=one.arm, size=one.size, set=one.set)


@pytest.mark.parametrize("key", PROTOCOLS, ids=" ".join)
def test_committed_tables_are_those_of_the_protocols(key: tuple[str, str]) -> None:
    """When this fails: sweet bench TABLE --out results --resume writes table.json again."""
    spec = spec_of(PROTOCOLS[key], key[0])
    found = read_spec(ROOT / "results" / spec.protocol / spec.table)
    assert found is None or found.version < RULES or found == spec
