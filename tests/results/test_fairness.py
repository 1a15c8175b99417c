"""``sweet bench check``: every unfair comparison is a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweet.errors import UserError
from sweet.files import read_json, write_json
from sweet.results.fairness import check

ROOT = Path(__file__).parents[2]


def cell(arm: str, size: str, source: str | None, seeds: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    runs = [{"seed": seed, "top1": 10.0 + seed, "top5": 50.0, "steps": 9, "images_seen": 90} for seed in seeds]
    head = {"arm": arm, "size": size, "source": source, "n_train": 10, "test_set": 5, "test_images": 5, "classes": 10}
    return head | {"recipe": {"epochs": 1, "lr": 1}, "switches": {"layers": "even"}, "runs": runs}


def folder(tmp_path: Path, *cells: dict[str, Any], **pflops: float) -> Path:
    for one in cells:
        write_json(tmp_path / "micro" / "table1" / f"classify-{one['arm']}-{one['size']}.json", one)
    there = read_json(ROOT / "results/quickstart/sources/template.json")
    for source, value in pflops.items():
        training = there["training"] | {"pflops": value}
        write_json(tmp_path / "micro" / "sources" / f"{source}.json", there | {"source": source, "training": training})
    return tmp_path


def test_a_fair_table_is_let_through(tmp_path: Path) -> None:
    fair = [cell("sweet", "L1H1", "a"), cell("dmae", "L1H1", "b"), cell("random", "L1H1", None)]
    fair[1]["recipe"] = {"epochs": 1, "lr": 2}  # a sweep may find another rate
    assert check(folder(tmp_path, *fair, a=1.0, b=1.049)) == {"tables": 1, "violations": []}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "source b took 1.06 PFLOPs, 6.0 % more than a with 1"),
        ({"source": "c"}, "source c: the FLOPs of its pre-training are not recorded"),
        ({"n_train": 11}, "L1H1: n_train of sweet is 10, of dmae 11"),
        ({"test_images": 4}, "L1H1: dmae is tested on 4 of 5 images"),
        ({"recipe": {"epochs": 2, "lr": 1}}, "L1H1: sweet is fine-tuned by another recipe than dmae"),
        ({"runs": cell("dmae", "L1H1", "b", (0,))["runs"]}, "L1H1: dmae has seeds [0], others [0, 1]"),
    ],
)
def test_every_violation_is_a_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    out = folder(tmp_path, cell("sweet", "L1H1", "a"), cell("dmae", "L1H1", "b") | change, a=1.0, b=1.06)
    assert f"micro/table1: {line}" in check(out)["violations"]


def test_a_source_learned_once_more_is_a_line(tmp_path: Path) -> None:
    cells = [cell(arm, "L1H1", "a") for arm in ("sweet", "dmae")]
    for one, weights in zip(cells, ("one", "two"), strict=True):
        one["runs"][0]["source_sha256"] = weights  # older runs record none
    [line] = check(folder(tmp_path, *cells, a=1.0))["violations"]
    assert line == "micro/table1: source a was learned more than once: its checksums are one, two"


def test_means_are_computed_again(tmp_path: Path) -> None:
    out = folder(tmp_path, cell("sweet", "L1H1", "a"), a=1.0)
    written = out / "micro" / "table1" / "table.md"
    written.write_text("| arm | L1H1 |\n| sweet | 10.50 ± 0.71 (2) |\n\n| sweet | 50.00 ± 0.00 (2) |\n")
    assert check(out)["violations"] == []
    written.write_text(written.read_text().replace("10.50", "11.50"))
    [line] = check(out)["violations"]
    assert line == "micro/table1: table.md: top-1, % of sweet at L1H1 is 10.50 ± 0.71 (2) by the results"


def test_without_results_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results of a bench"):
        check(tmp_path)


def test_committed_tables_are_fair() -> None:
    """A study asks what a budget does; a table compares methods at one."""
    assert [line for line in check(ROOT / "results")["violations"] if not line.startswith("history/nano/study")] == []
