"""Numbers as text, the same in every renderer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from html import unescape
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from PIL import Image

from sweet.results.files import find_tables, read_spec, read_tables
from sweet.results.records import ArmSpec, ColumnSpec, TableSpec
from sweet.results.render.markdown import markdown, section
from sweet.results.render.parts import text
from sweet.results.rows import blocks, cost_grid, description, score_grid
from sweet.results.summary import summarise
from sweet.results.table import Table
from sweet.tasks.registry import TASKS

ROOT = Path(__file__).parents[2]
TABLES = find_tables(ROOT / "results")
Make = Callable[..., Path]


def table_of(folder: Path) -> Table:
    [table] = find_tables(folder)
    return table


def spec_of(folder: Path, table: str = "table1") -> TableSpec:
    spec = read_spec(folder / "micro" / table)
    assert spec is not None
    return spec


def test_scores(results: Make) -> None:
    cells = {("random", "L1H1"): [10.0, 12.0], ("random", "L2H2"): [20.0], ("sweet", "L1H1"): [30.126]}
    table = table_of(results(cells, table="other"))
    assert markdown(score_grid(table, TASKS["classify"])).splitlines() == [
        "| arm | L1H1 | L2H2 | average |",
        "| --- | --- | --- | --- |",
        "| random | 11.00 ± 1.41 (2) | 20.00 (1) | 15.50 |",
        "| sweet | 30.13 (1) | - | - |",
    ]


def test_a_failed_cell_is_marked(results: Make) -> None:
    columns = [{"size": size} for size in ("L1H1", "L2H2", "L3H3")]
    table = table_of(results({("random", "L1H1"): [10.0]}, spec={"columns": columns}))
    grid = score_grid(table, TASKS["classify"], {("random", "L2H2")})
    assert grid.rows() == [{"arm": "random", "L1H1": "10.00 (1)", "L2H2": "failed", "average": "10.00"}]
    assert description(table)["not measured yet"] == "L2H2, L3H3"


def test_a_summary_is_written_and_printed(results: Make) -> None:
    values = {"sweet": [12.0, 15.0], "random": [10.0, 11.0]}
    cells = {(arm, "L1H1"): row for arm, row in values.items()} | {
        (arm, "L2H2"): row[:1] for arm, row in values.items()
    }
    folder = results(cells, spec={"shows_costs": True}, extra={"init_seconds": 0.25, "init_images": 8})
    summary = summarise(folder, spec_of(folder)).to_dict()
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["table"], summary["protocol"], summary["measured"], summary["chance_top1"]) == (
        "table1",
        "micro",
        6,
        10.0,
    )
    assert summary["top1"][0] == {"arm": "sweet", "L1H1": "13.50 ± 2.12 (2)", "L2H2": "12.00 (1)", "average": "12.75"}
    one = {"sweet against": "random", "size": "L1H1", "difference": 3.0, "margin": 12.706, "seeds": 2}
    other = {"sweet against": "random", "size": "L2H2", "difference": 2.0, "margin": None, "seeds": 1}
    assert summary["comparison"] == [one | {"verdict": "no gain"}, other | {"verdict": "one seed"}]
    assert (summary["costs"][0]["init, s"], summary["costs"][0]["PFLOPs"]) == ("0.250", "0.2800")
    place = folder / "micro" / "table1"
    assert (place / "table.md").read_text(encoding="utf-8") == section(table_of(folder))
    assert "### One initialisation, s\n\n| arm | L1H1 |" in (place / "table.md").read_text(encoding="utf-8")
    with Image.open(place / "table.png") as picture:
        assert picture.width > picture.height > 200


def test_a_table_of_several_tasks_has_a_picture_of_each(results: Make) -> None:
    folder = results({("sweet", "L1H1"): [1.0]}, metric="fid", task="generate", spec=None)
    columns = (ColumnSpec(size="L1H1"), ColumnSpec(size="L1H1", task="generate"))
    arm = ArmSpec(name="sweet", method="sweet", role="ours")
    spec = TableSpec(table="table1", protocol="micro", arms=(arm,), columns=columns, main="sweet")
    summary = summarise(folder, spec).to_dict()
    assert summary["generate_fid"] == [{"arm": "sweet", "L1H1": "1.00 (1)", "average": "1.00"}]
    assert {path.name for path in (folder / "micro" / "table1").glob("*.png")} == {"generate-table.png"}


def test_nothing_is_written_before_anything_is_measured(tmp_path: Path) -> None:
    spec = TableSpec(table="t", protocol="p", arms=(), columns=(), main="sweet")
    assert summarise(tmp_path, spec).to_dict()["measured"] == 0
    assert not list(tmp_path.iterdir())


def test_costs(results: Make) -> None:
    cells = {("random", "L1H1"): [10.0], ("sweet", "L1H1"): [30.0, 32.0], ("sweet", "L2H2"): [40.0]}
    extra = {"init_seconds": 0.125, "init_images": 50000, "seconds": 9.6}
    table = table_of(results(cells, extra=extra, spec={"impossible": [["random", "L2H2"]]}))
    assert cost_grid(table).lines == (
        ("random", "-", "-", "-", "0.0000", "0.125", "50,000", "10"),
        ("sweet", "micro-tucker", "399,360", "4,000", "0.2800", "0.125", "50,000", "10"),
    )


def test_a_source_with_more_flops_is_named(results: Make) -> None:
    cells = {("sweet", "L1H1"): [1.0], ("dmae", "L1H1"): [1.0]}  # 0.28 and 0.25 PFLOPs
    *_, cost = blocks(table_of(results(cells)))
    assert cost.note.endswith("counts as equal, except for sweet: up to 1.12 times as many.")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (True, "True"), (9999, "9999"), (12345, "12,345"), (0.123456, "0.12346"), (1234.56, "1,234.6")],
)
def test_values_for_people(value: object, shown: str) -> None:
    assert text(value) == shown
    assert text([value, value]) == f"{shown}, {shown}"


def digits(lines: Iterable[Sequence[str]]) -> list[list[str]]:
    """Every number, line by line."""
    return [re.findall(r"\d[\d.,]*", " ".join(line)) for line in lines]


def in_markdown(page: str, title: str) -> dict[str, list[list[str]]]:
    """{heading: lines of its table} in the section of a page, folded or not."""
    own = next(
        part
        for part in re.split(r"^(?:## |<details.*<summary>All numbers of )", page, flags=re.M)
        if re.match(rf"{re.escape(title)}(\n|</summary>)", part)
    )
    parts = [part.partition("\n") for part in re.split(r"^####? ", own.partition("</details>")[0], flags=re.M)[1:]]
    return {
        heading: [line[2:-2].split(" | ") for line in rest.splitlines() if line.startswith("| ")][2:]
        for heading, _, rest in parts
    }


def in_html(page: str, title: str) -> dict[str, list[list[str]]]:
    """The same of the page to send to somebody."""
    [own] = [part for part in page.split("<section")[1:] if f"<small>{title}</small></h2>" in part]
    parts = re.split(r"<(?:h3|details><summary)>(.*?)</(?:h3|summary)>", own)[1:]
    found = {}
    for heading, rest in zip(parts[::2], parts[1::2], strict=True):
        rows = re.findall(r"<tr[^>]*>\s*(<th scope=\"row\">.*?)</tr>", rest, re.S)
        cells = [re.split(r"</t[hd]>", row)[:-1] for row in rows]
        found[unescape(heading)] = [[unescape(re.sub(r"<[^>]*>", "", one)) for one in row] for row in cells]
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_all_renderers_show_the_same_digits(table: Table, committed: tuple[Path, dict[str, Any]]) -> None:
    """table.md, docs/results.md and the page. Old files are written again by sweet bench --resume and sweet report."""
    beside = in_markdown((table.folder / "table.md").read_text(encoding="utf-8"), table.title)
    documented = in_markdown((ROOT / "docs" / "results.md").read_text(encoding="utf-8"), table.title)
    page = in_html(committed[0].read_text(encoding="utf-8"), table.title)
    computed = {block.title: block.grid.lines for block in blocks(table)}
    assert list(computed) == list(beside) == list(documented) == [title for title in page if title in computed]
    for title, lines in computed.items():
        assert digits(lines) == digits(beside[title]) == digits(documented[title]) == digits(page[title]), title


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_averages_by_hand(table: Table) -> None:
    """Over the columns that no arm of the table is unable to make, and only where all of those are measured.

    In a sweep over all that the arm can make. An arm with no column of the main one, a line to reach, has no say.
    """
    metric, home = table.metrics[0], {*table.makes(table.spec.main)}
    beside = {arm.name for arm in table.spec.arms if home and not home & {*table.makes(arm.name)}}
    impossible = {size for name, size in table.spec.impossible if name not in beside}
    impossible |= {table.column(name).size for name in table.columns if home and name not in home}
    averages = {line[0]: line[-1] for line in score_grid(table, metric).lines}
    for arm in table.arms:
        if table.spec.validation:
            impossible = {size for name, size in table.spec.impossible if name == arm}
        cells = {cell.column: cell for cell in table.cells_of(arm) if cell.size not in impossible}
        if {cell.column for cell in table.cells.values() if cell.size not in impossible} == cells.keys():
            expected = mean(mean(cell.values(metric.key).values()) for cell in cells.values())
            assert float(averages[arm]) == pytest.approx(expected, abs=0.50001 * 10**-metric.digits), arm
        else:
            assert averages[arm] == "-", arm


def test_the_averages_of_table1_leave_out_what_some_arms_cannot_make() -> None:
    """They once were over all sizes in table.md, and over the common ones in the documentation."""
    [table] = [one for one in read_tables(ROOT / "results" / "history" / "micro" / "table1")]
    averages = {line[0]: line[-1] for line in score_grid(table, TASKS["classify"]).lines}
    assert (averages["sweet_prefix"], averages["weight_selection"]) == ("43.80", "44.58")
