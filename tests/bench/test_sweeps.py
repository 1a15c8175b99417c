"""Settings are chosen on images that no table tests on, and a table takes what was chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweet.bench.arms import Arm, arms
from sweet.bench.protocol import Protocol
from sweet.bench.run import run
from sweet.bench.sweeps import RATES, rate_arms, rates_to_try, setting_arms, with_choices
from sweet.files import read_json, write_json
from sweet.results.choices import Variant, best, chosen_for, is_at_edge
from sweet.results.compare import compare
from sweet.results.fairness import check
from sweet.results.files import read_tables
from sweet.results.records import CellResult, Run
from sweet.results.sentences import sentences

from .test_bench import TINY

ROWS = arms("weight_selection", "weight_selection_conditioned")
SETTINGS = replace(
    TINY,
    arms=setting_arms(ROWS, {"weight_selection": [{"layers": "first"}]}),
    sizes=("L1H1",),
    seeds=1,
    shows_costs=False,
    validation=10,
    main="weight_selection@default",
)
SWEEP = replace(SETTINGS, arms=rate_arms(ROWS), main="weight_selection@1", chosen_by={"settings": SETTINGS})
TABLE = replace(
    TINY,
    arms=ROWS,
    sizes=("L1H1",),
    seeds=1,
    shows_costs=False,
    main="weight_selection",
    chosen_by={"settings": SETTINGS, "rates": SWEEP},
)


def tried(*scores: float, first: int = 3) -> list[Variant]:
    return [Variant(f"row@{1000 * RATES[first + i]:g}", score, RATES[first + i]) for i, score in enumerate(scores)]


FIRST = SWEEP.first_rates


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([], FIRST),
        (tried(1, 2), FIRST),  # not all of the first are measured
        (tried(1, 3, 2, 1), FIRST),
        (tried(1, 1, 2, 3), RATES[3:8]),
        (tried(3, 2, 1, 1), RATES[2:7]),
        (tried(4, 3, 2, 1, 1, first=2), RATES[1:7]),
        (tried(1, 2, 3, 5, 4), RATES[3:8]),
        (tried(*range(10), first=0), RATES),  # nowhere left to go
    ],
)
def test_a_sweep_is_widened_while_its_best_is_at_an_edge(found: list[Variant], wanted: tuple[float, ...]) -> None:
    sweep = replace(SWEEP, arms=rate_arms({"row": Arm("random")}))
    assert tuple(sweep.arms[name].lr for name in rates_to_try(sweep, {"row": found} if found else {})) == wanted


def test_a_sweep_that_begins_elsewhere_keeps_what_was_measured() -> None:
    sweep = replace(SWEEP, arms=rate_arms({"row": Arm("random")}), first_rates=RATES[2:5])
    for found, wanted in ((tried(3, 2, 1, 1), RATES[2:5]), (tried(3, 2, 1, 1, 1, first=2), RATES[1:7])):
        assert tuple(sweep.arms[name].lr for name in rates_to_try(sweep, {"row": found})) == wanted


def test_what_was_chosen_for_a_start_is_for_its_conditioned_one_too() -> None:
    found = {"row": tried(1, 3, 2, 1), "row_conditioned": []}
    assert best(found["row"]).lr == 2e-3 and not is_at_edge(found["row"])
    assert chosen_for("row_conditioned", found) == chosen_for("row@8", found) == [found["row"][1]]
    own = tried(1, 1, 1, 2)
    assert chosen_for("row_conditioned", found | {"row_conditioned": own}) == [found["row"][1], own[3]]
    assert chosen_for("other", found) == []
    assert is_at_edge(tried(1, 2)) and not is_at_edge(tried(1))


def put(out: Path, table: str, arm: str, top1: float) -> None:
    """Make a measured cell say something else."""
    path = out / "tiny" / table / f"classify-{arm}-L1H1.json"
    cell = read_json(path)
    cell["runs"][0]["top1"] = top1
    write_json(path, cell)


def violations(out: Path) -> list[str]:
    """But of tables that were written before their cells were changed."""
    return [line for line in check(out)["violations"] if "table.md" not in line]


def test_a_table_takes_what_was_chosen_on_validation_images(tmp_path: Path) -> None:
    def measure(protocol: Protocol, name: str, **more: Any) -> dict[str, Any]:
        return run(protocol, name, out=tmp_path, workers=1, device="cpu", quiet=True, **more)

    summary = measure(SETTINGS, "settings")
    assert summary["measured"] == 2 and "comparison" not in summary
    assert [one["row"] for one in summary["chosen"]] == ["weight_selection"]
    cell = read_json(tmp_path / "tiny" / "settings" / "classify-weight_selection@layers=first-L1H1.json")
    assert (cell["n_train"], cell["test_images"], cell["recipe"]["data"]["held_out"]) == (54, 10, 10)
    for arm, top1 in (("weight_selection@default", 10.0), ("weight_selection@layers=first", 20.0)):
        put(tmp_path, "settings", arm, top1)
    assert measure(SWEEP, "rates", methods=["weight_selection"], max_minutes=0)["open"] == 4
    [table] = read_tables(tmp_path / "tiny" / "settings")
    said = "Chosen on held-out training images, with the mean top-1, % at L1H1: weight_selection layers=first (20.00)."
    assert sentences(table) == [said] and compare(table) is None
    made = with_choices(TABLE, tmp_path)
    assert {arm.switches["layers"] for arm in made.arms.values()} == {"first"}
    assert {arm.lr for arm in made.arms.values()} == {None}

    whole = measure(SWEEP, "rates", methods=["weight_selection"])
    rates = {path.name.split("@")[1].split("-")[0] for path in (tmp_path / "tiny" / "rates").glob("classify-*.json")}
    assert whole["measured"] == len(rates) >= 4 and not whole["failed"]
    for rate in rates:
        put(tmp_path, "rates", f"weight_selection@{rate}", 50.0 if rate == "8" else 10.0)
    widened = measure(SWEEP, "rates", methods=["weight_selection"])
    rates |= {"16"}
    assert widened["measured"] == len(rates)
    put(tmp_path, "rates", "weight_selection@16", 40.0)
    assert {arm.lr for arm in with_choices(TABLE, tmp_path).arms.values()} == {8e-3}

    measure(TABLE, "table")
    for arm in ROWS:
        cell = read_json(tmp_path / "tiny" / "table" / f"classify-{arm}-L1H1.json")
        assert (cell["recipe"]["lr"], cell["switches"]["layers"], cell["test_images"]) == (8e-3, "first", 12)
        assert cell["recipe"]["data"]["held_out"] is None
    assert violations(tmp_path) == []
    put(tmp_path, "settings", "weight_selection@layers=first", 5.0)
    assert sorted(violations(tmp_path)) == [
        f"tiny/table: L1H1: {arm} has layers=first, the sweep has chosen even" for arm in ROWS
    ]
    put(tmp_path, "settings", "weight_selection@layers=first", 20.0)
    put(tmp_path, "rates", "weight_selection@16", 60.0)
    assert sorted(violations(tmp_path)) == [
        "tiny/rates: the best rate of weight_selection, 0.016, is at the edge of those that were tried: "
        + ", ".join(f"{lr / 1000:g}" for lr in sorted(map(float, rates))),
        *(f"tiny/table: {arm} is fine-tuned at 0.008, the sweep has chosen 0.016" for arm in ROWS),
    ]


def test_what_a_conditioned_row_left_alone_is_not_taken_from_the_plain_one(tmp_path: Path) -> None:
    """The plain row is best with first layers, the conditioned one evenly spaced and with the stream's scale."""
    given = {"weight_selection": [{"layers": "first"}]}
    given["weight_selection_conditioned"] = [{"layers": "first"}, {"writers": 0.2}, {"layers": "first", "writers": 0.2}]
    settings = replace(SETTINGS, arms=setting_arms(ROWS, given))
    best = ("weight_selection@layers=first", "weight_selection_conditioned@writers=0.2")
    for name, arm in settings.arms.items():
        cell = CellResult(
            protocol="tiny", arm=name, method=arm.method, size="L1H1", switches=dict(arm.switches), recipe={"lr": 1},
            runs=(Run(seed=0, top1=20.0 if name in best else 10.0),), n_train=9, test_images=9, classes=2,
        )  # fmt: skip
        write_json(tmp_path / "tiny" / "settings" / f"{name}.json", cell.model_dump(exclude_none=True))
    made = with_choices(replace(TABLE, chosen_by={"settings": settings}), tmp_path).arms
    assert made["weight_selection"].switches == {"rule": "consecutive", "layers": "first"}
    assert made["weight_selection_conditioned"].switches == {"rule": "consecutive", "condition": "true", "writers": 0.2}
