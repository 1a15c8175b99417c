"""Tables from numbers: what counts as a gain, and that unequal budgets never meet in one cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweet.bench.protocols import Cell, Trial
from sweet.errors import UserError
from sweet.files import read_json, write_json
from sweet.results.cells import (
    add_run,
    budgets,
    comparison,
    costs,
    markdown,
    means,
    read_sources,
    read_table,
    result_path,
    write_source,
)
from sweet.results.render.table_figure import picture
from sweet.tasks.registry import TASKS

HEAD: dict[str, Any] = {"recipe_hash": "a", "n_train": 10, "test_images": 5, "chance_top1": 10.0}


def cell(arm: str, size: str, *values: float, first_seed: int = 0) -> dict[str, Any]:
    runs = [{"seed": seed, "top1": value} for seed, value in enumerate(values, first_seed)]
    return HEAD | {"arm": arm, "size": size, "runs": runs}


def table(*cells: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["arm"], one["size"]): one for one in cells}


def test_markdown() -> None:
    cells = table(cell("random", "L1H1", 10.0, 12.0), cell("random", "L2H2", 20.0), cell("sweet", "L1H1", 30.126))
    assert markdown(means(cells, ["random", "sweet"], ["L1H1", "L2H2"])).splitlines() == [
        "| start | L1H1 | L2H2 | average |",
        "| --- | --- | --- | --- |",
        "| random | 11.00 ± 1.41 (2) | 20.00 (1) | 15.50 |",
        "| sweet | 30.13 (1) | - | - |",
    ]


def test_comparison_needs_common_seeds() -> None:
    cells = table(
        cell("sweet", "L1H1", 12.0, 15.0),
        cell("random", "L1H1", 10.0, 11.0),
        cell("sweet", "L2H2", 12.0),
        cell("random", "L2H2", 11.0),
        cell("sweet", "L3H3", 12.0),
        cell("random", "L3H3", 11.0, first_seed=1),
        cell("sweet", "L4H4", 12.0),
    )
    assert comparison(cells, "sweet", "random", ["L1H1", "L2H2", "L3H3", "L4H4"], TASKS["classify"]) == [
        {"size": "L1H1", "difference": 3.0, "standard_error": 1.0, "seeds": 2, "verdict": "gain"},
        {"size": "L2H2", "difference": 1.0, "standard_error": None, "seeds": 1, "verdict": "one seed"},
    ]


def test_lower_may_be_better() -> None:
    cells = table(cell("sweet", "L1H1", 12.0, 15.0), cell("random", "L1H1", 10.0, 11.0))
    for one in cells.values():
        one["runs"] = [run | {"fid": run["top1"]} for run in one["runs"]]
    [row] = comparison(cells, "sweet", "random", ["L1H1"], TASKS["generate"])
    assert (row["difference"], row["verdict"]) == (-3.0, "worse")  # above zero ours is better, whatever the metric


def test_a_failed_cell_is_marked() -> None:
    rows = means(table(cell("random", "L1H1", 10.0)), ["random"], ["L1H1", "L2H2", "L3H3"], failed={("random", "L2H2")})
    assert rows == [{"start": "random", "L1H1": "10.00 (1)", "L2H2": "failed", "L3H3": "-", "average": "-"}]


def test_a_set_is_a_column_of_its_own(tmp_path: Path) -> None:
    trial = Trial(data="flowers")
    path = result_path(tmp_path, "micro", "table3", Cell("sweet", trial, "L2H2", 0))
    assert path.name == "classify-sweet-L2H2-flowers.json"
    write_json(path, cell("sweet", "L2H2", 1.0) | {"set": "flowers"})
    write_json(path.with_name("classify-sweet-L2H2.json"), cell("sweet", "L2H2", 2.0))
    write_json(path.with_name("detect-sweet-L2H2.json"), cell("sweet", "L2H2", 3.0))
    found = read_table(tmp_path, "micro", "table3")
    assert {key: one["runs"][0]["top1"] for key, one in found.items()} == {
        ("sweet", trial.column("L2H2")): 1.0,
        ("sweet", "L2H2"): 2.0,
    }


def test_what_a_source_took_is_told_once(tmp_path: Path) -> None:
    first, second = ({"source": f"a-{n}", "training": {"pflops": n, "images": 8, "seconds": 2.4}} for n in (1, 1.06))
    for facts in (first, second, first):  # another budget later, under the same name in the table
        write_source(tmp_path, "micro", "dense", facts)
    assert {path.name for path in (tmp_path / "micro" / "sources").iterdir()} == {"dense.json", "dense-1.06.json"}
    sources = read_sources(tmp_path, "micro")
    used = table(*(cell("sweet", size, 1.0) | {"source": name} for size, name in (("L1H1", "a-1"), ("L2H2", "a-1.06"))))
    assert [row["against the least"] for row in budgets(used, sources)] == ["1.000", "1.060"]


def test_runs_of_one_cell_gather_in_one_file(tmp_path: Path) -> None:
    path = result_path(tmp_path, "micro", "table1", Cell("sweet", Trial(), "L2H2", 0))
    assert path == tmp_path / "micro" / "table1" / "classify-sweet-L2H2.json"
    head = HEAD | {"arm": "sweet", "size": "L2H2", "source": "one"}
    for seed, top1 in ((1, 11.0), (0, 10.0), (1, 12.0)):
        add_run(path, head, {"seed": seed, "top1": top1})
    assert read_json(path)["runs"] == [{"seed": 0, "top1": 10.0}, {"seed": 1, "top1": 12.0}]
    assert list(read_table(tmp_path, "micro", "table1")) == [("sweet", "L2H2")]
    before = path.read_bytes()
    for other in ({"recipe_hash": "b"}, {"n_train": 11}, {"test_images": 6}, {"source": "another"}):
        with pytest.raises(UserError, match=f"{next(iter(other))} is .*, this run has"):
            add_run(path, head | other, {"seed": 2, "top1": 99.0})
    assert path.read_bytes() == before


def test_another_recipe_is_named_by_its_keys(tmp_path: Path) -> None:
    path, head = tmp_path / "a.json", HEAD | {"recipe": {"lr": 1e-3, "optim": {"clip": 1.0}}}
    add_run(path, head, {"seed": 0, "top1": 10.0})
    with pytest.raises(UserError, match=r"a.json: optim.clip is 1.0, this run has 2.0; remove"):
        add_run(path, head | {"recipe_hash": "b", "recipe": {"lr": 1e-3, "optim": {"clip": 2.0}}}, {"seed": 1})
    with pytest.raises(UserError, match="recipe_hash is a, this run has b"):  # another rule of layers
        add_run(path, head | {"recipe_hash": "b"}, {"seed": 1})


def test_a_source_learned_once_more_makes_no_mean_with_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for seed, weights in ((0, "one"), (0, "two"), (1, "two")):  # the only seed may be measured again
        add_run(path, HEAD, {"seed": seed, "top1": 10.0, "source_sha256": weights})
    with pytest.raises(UserError, match="source_sha256 is two, this run has three"):
        add_run(path, HEAD, {"seed": 2, "source_sha256": "three"})


def test_what_older_cells_said_of_all_runs_is_moved_into_each(tmp_path: Path) -> None:
    path = tmp_path / "micro" / "table1" / "classify-sweet-L1H1.json"
    write_json(path, cell("sweet", "L1H1", 1.0) | {"commit": "old", "environment": {"gpu": None}})
    [one] = read_table(tmp_path, "micro", "table1").values()
    before = {"commit": "old", "environment": {"gpu": None}, "seed": 0, "top1": 1.0}
    assert one == cell("sweet", "L1H1") | {"runs": [before]}
    after = {"seed": 1, "top1": 2.0, "commit": "new", "environment": {"gpu": "some"}}
    add_run(path, HEAD, after)
    assert read_json(path) == one | {"runs": [before, after]}


def test_costs() -> None:
    cells = table(cell("random", "L1H1", 10.0), cell("sweet", "L1H1", 30.0, 32.0), cell("sweet", "L2H2", 40.0))
    cells["random", "L1H1"] |= {"source": None}
    cells["sweet", "L1H1"] |= {"source": "a-1"}
    for one, loss in zip(cells["sweet", "L1H1"]["runs"], (0.4, 0.5), strict=True):
        one |= {"init_mae_loss": loss, "init_knn": 20.0, "init_seconds": 0.125, "init_images": 50000}
    cells["random", "L1H1"]["runs"][0] |= {"init_mae_loss": None, "init_knn": 9.0}
    rows = costs(cells, ["random", "sweet"], ["L1H1", "L2H2"], {"a-1": {"seconds": 99.6, "pflops": 0.25}})
    assert markdown(rows).splitlines()[2:] == [
        "| random | L1H1 | - | 9.00 | 10.00 (1) | - | - | - | - |",
        "| sweet | L1H1 | 0.4500 | 20.00 | 31.00 ± 1.41 (2) | 0.12 | 50000 | 100 | 0.2500 |",
        "| sweet | L2H2 | - | - | 40.00 (1) | - | - | - | - |",  # an older result
    ]


def test_picture(tmp_path: Path) -> None:
    cells = table(cell("random", "L1H1", 10.0, 12.0), cell("sweet", "L1H1", 30.0), cell("new_arm", "L2H2", 5.0))
    picture(cells, ["random", "sweet", "new_arm"], ["L1H1", "L2H2"], tmp_path / "a.png", title="x")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
