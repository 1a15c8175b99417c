"""``sweet bench check``: every unfair comparison is a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweet.errors import UserError
from sweet.files import read_json, write_json
from sweet.results.fairness import check
from sweet.results.records import RULES

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


ENVIRONMENT = {"cpu": "AVX2", "gpu": None}
NEW = {"code": 2, "precision": "no", "environment": ENVIRONMENT}


def replicated(tmp_path: Path, **spec: Any) -> Path:
    """A table of two arms and two replicates by today's rules, each with a source of its own, nothing wrong."""
    cells = [cell(arm, "L1H1", None) for arm in ("sweet", "dmae")]
    for one in cells:
        place = "a" if one["arm"] == "sweet" else "b"
        one["runs"] = [run | NEW | {"source": f"{place}{run['seed']}"} for run in one["runs"]]
    names = {f"{place}{seed}": 1.0 for place in "ab" for seed in (0, 1)}
    out = folder(tmp_path, *cells, **names)
    for name in names:
        path = out / "micro" / "sources" / f"{name}.json"
        one = read_json(path) | {"seed": int(name[1]), "code": 2, "environment": ENVIRONMENT}
        write_json(path, one | {"training": one["training"] | {"precision": "no"}})
    arms = [{"name": arm, "method": arm} for arm in ("sweet", "dmae")]
    whole = {"table": "table1", "protocol": "micro", "version": RULES, "arms": arms, "main": "sweet"}
    write_json(out / "micro" / "table1" / "table.json", whole | {"columns": [{"size": "L1H1", "seeds": 2}]} | spec)
    return out


def changed(path: Path, **changes: Any) -> None:
    """Keys of a file, or of the first run of a cell."""
    value = read_json(path)
    target = value["runs"][0] if "runs" in value else value
    target |= changes
    write_json(path, value)


GPU = {"gpu": "H200", "cpu": "AVX512"}


@pytest.mark.parametrize(
    ("file", "changes", "line"),
    [
        ("table1/classify-dmae-L1H1", {"environment": GPU}, "L1H1: replicate 0 has several machines: CPU AVX2, H200"),
        ("sources/a0", {"environment": GPU}, "L1H1: replicate 0 has several machines: CPU AVX2, H200"),
        ("table1/classify-dmae-L1H1", {"precision": "bf16"}, "L1H1: replicate 0 has several precisions: bf16, no"),
        ("table1/classify-dmae-L1H1", {"code": 1}, "L1H1: replicate 0 has several versions of the training code: 1, 2"),
        ("sources/b0", {"code": 1}, "L1H1: replicate 0 has several versions of the training code: 1, 2"),
        ("table1/classify-dmae-L1H1", {"source": "b1"}, "L1H1: replicate 0 starts from source b1 of another one"),
        ("table1/classify-dmae-L1H1", {"seed": 2}, "L1H1: dmae lacks replicate 0"),
    ],
)
def test_what_a_replicate_must_share(tmp_path: Path, file: str, changes: dict[str, Any], line: str) -> None:
    out = replicated(tmp_path)
    assert check(out)["violations"] == []
    changed(out / "micro" / f"{file}.json", **changes)
    assert f"micro/table1: {line}" in check(out)["violations"]


def test_columns_and_rows_of_a_sweep_may_be_of_other_machines(tmp_path: Path) -> None:
    names = ("sweet@1", "sweet@2", "dmae@1", "dmae@2")
    cells = [cell(name, size, None) for name in names for size in ("L1H1", "L2H1")]
    for one in cells:
        here = GPU if one["size"] == "L2H1" else ENVIRONMENT
        one["runs"] = [run | NEW | {"environment": here} for run in one["runs"]]
        one["recipe"] = {"epochs": 1, "lr": int(one["arm"][-1])}
    out = folder(tmp_path, *cells)
    spec = {"table": "table1", "protocol": "micro", "version": RULES, "main": "sweet@1"}
    spec["arms"] = [{"name": name, "method": name[:-2]} for name in names]
    spec["columns"] = [{"size": size, "seeds": 2} for size in ("L1H1", "L2H1")]
    where = out / "micro" / "table1" / "table.json"
    write_json(where, spec)
    assert check(out)["violations"] == []
    swept = {"validation": True}
    write_json(where, spec | swept)  # variants of a row are compared over both sizes
    assert "micro/table1: dmae: replicate 0 has several machines: CPU AVX2, H200" in check(out)["violations"]
    for path in where.parent.glob("classify-*.json"):
        changed(path, environment=GPU if "sweet" in path.name else ENVIRONMENT)
        both = read_json(path)
        write_json(path, both | {"runs": [both["runs"][0]]})
    assert not [line for line in check(out)["violations"] if "machines" in line]


def test_a_conversion_may_be_made_again(tmp_path: Path) -> None:
    cells = [cell(arm, "L1H1", "a") for arm in ("sweet", "dmae")]
    for one, weights in zip(cells, ("one", "two"), strict=True):
        one["runs"][0]["source_sha256"] = weights
    out = folder(tmp_path, *cells, a=0.0)
    path = out / "micro" / "sources" / "a.json"
    write_json(path, read_json(path) | {"training": read_json(path)["training"] | {"steps": 0}})
    assert check(out)["violations"] == []


def test_a_row_that_was_not_measured_at_all_is_a_line(tmp_path: Path) -> None:
    arms = [{"name": arm, "method": arm} for arm in ("sweet", "dmae", "wave", "random")]
    out = replicated(tmp_path, arms=arms, impossible=[["random", "L1H1"]])
    assert check(out)["violations"] == ["micro/table1: L1H1: wave lacks replicate 0, 1"]


def test_a_source_of_each_size_has_the_images_of_the_others_not_their_flops(tmp_path: Path) -> None:
    arms = [{"name": "sweet", "method": "sweet"}, {"name": "dmae", "method": "dmae", "source": "own.{size}"}]
    out = replicated(tmp_path, arms=arms)
    for place in "ab":
        for seed in (0, 1):
            path = out / "micro" / "sources" / f"{place}{seed}.json"
            one = read_json(path)
            training = one["training"] | {"images": 512, "steps": 4, "pflops": 1.0 if place == "a" else 0.1}
            write_json(path, one | {"constraint": "none", "ranks": None, "training": training})
    assert check(out)["violations"] == []
    path = out / "micro" / "sources" / "b0.json"
    write_json(path, read_json(path) | {"training": read_json(path)["training"] | {"steps": 8, "images": 1024}})
    assert check(out)["violations"] == [
        "micro/table1: source b0 took 1024 images in 8 steps, a source of the table 512 in 4"
    ]


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
    """History as well, but for a study whose rows had budgets of their own, and that compares none of them."""
    assert check(ROOT / "results")["violations"] == []


def chosen(out: Path, protocol: str, lr: float) -> None:
    """A sweep in which ``lr`` was the best of three rates of sweet."""
    arms = [{"name": f"sweet@{rate}", "method": "sweet"} for rate in (1, 2, 3)]
    spec = {
        "table": "rates",
        "protocol": "micro",
        "version": RULES,
        "arms": arms,
        "main": "sweet@1",
        "validation": True,
    }
    write_json(out / protocol / "rates" / "table.json", spec | {"columns": [{"size": "L1H1"}]})
    for rate in (1, 2, 3):
        one = cell(f"sweet@{rate}", "L1H1", None, (0,)) | {"recipe": {"epochs": 1, "lr": rate}}
        one["runs"] = [one["runs"][0] | NEW | {"top1": 90.0 if rate == lr else 10.0}]
        write_json(out / protocol / "rates" / f"classify-{rate}.json", one)


def test_a_table_is_compared_with_the_sweep_beside_it(tmp_path: Path) -> None:
    """History has tables of the same protocol and name; a row that no sweep varies keeps the table's rate."""
    out = replicated(tmp_path, chosen_by=["rates"])
    chosen(out, "micro", 2)
    chosen(out, "history/micro", 3)
    wrong = "micro/table1: sweet is fine-tuned at 1, the sweep has chosen 2"
    assert [line for line in check(out)["violations"] if "rates:" not in line] == [wrong]
