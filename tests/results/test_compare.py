"""Who wins: orientation, few seeds, the strongest baseline, averages, and the paper's own sums as an oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import t

from sweet.files import read_json, write_json
from sweet.results.compare import Differences, compare, gains_over_best
from sweet.results.files import find_tables
from sweet.results.paper import paper
from sweet.results.render.markdown import results_page
from sweet.results.sentences import sentences
from sweet.tasks.registry import METRICS

ROOT = Path(__file__).parents[2]
Make = Callable[..., Path]


def compared(folder: Path) -> Differences:
    found = compare(find_tables(folder)[0])
    assert found is not None
    return found


def test_wins_ties_and_losses(results: Make) -> None:
    found = compared(
        results(
            {
                ("sweet", "L6H6"): [50.0, 52.0],
                ("sweet", "L12H3"): [30.0],
                ("sweet", "L3H12"): [40.0, 41.0],
                ("random", "L6H6"): [40.0, 41.0],
                ("random", "L3H12"): [40.5, 40.0],
                ("random", "L12H3"): [10.0],
                ("dmae", "L6H6"): [53.0, 55.0],
                ("dmae", "L3H12"): [43.0, 44.2],
                ("sweet_prefix", "L6H6"): [50.0, 50.0],
            }
        )
    )
    assert (found.main, found.baselines, found.variants) == ("sweet", ["random", "dmae"], ["sweet_prefix"])
    verdicts = {arm: {size: one.verdict for size, one in row.items()} for arm, row in found.against.items()}
    assert verdicts == {
        "random": {"L6H6": "gain", "L12H3": "one seed", "L3H12": "no gain", "average": "gain"},
        "dmae": {"L6H6": "worse", "L3H12": "worse"},
        "sweet_prefix": {"L6H6": "no gain"},
    }
    assert found.strongest == "dmae"
    # from replicate 0 to 1 the arms change by 2, 1, 2, 0 and by 1, -0.5, 1.2: half the squares beside the mean change
    variance = (sum((d - 1.25) ** 2 for d in (2, 1, 2, 0)) + sum((d - 1.7 / 3) ** 2 for d in (1, -0.5, 1.2))) / 2 / 5
    assert (found.noise.freedom, found.noise.variance) == (5, pytest.approx(variance))
    # the larger p of the two losses is multiplied by as many as are left, but is no smaller than the one before it
    p = [2 * t.sf(value / variance**0.5, 5) for value in (3.1, 3.0)]
    assert found.against["dmae"]["L3H12"].p == found.against["dmae"]["L6H6"].p == pytest.approx(max(3 * p[0], 2 * p[1]))
    # the average: its noise from averages over the sizes of two replicates, a whole error for that of one
    own = sum((d - 3.35 / 3) ** 2 for d in (1.5, 0.25, 1.6)) / 2 / 2
    average = found.against["random"]["average"]
    assert average.value == pytest.approx((10.5 + 20 + 0.25) / 3)
    assert average.error == pytest.approx((2 * own**0.5 + (2 * variance) ** 0.5) / 3) and average.freedom == 2
    assert Counter(one.verdict for one in found.decided()) == {"gain": 1, "no gain": 1, "one seed": 1, "worse": 2}
    first, second, third, fourth = sentences(found.table)
    assert first == (
        "Against dmae, the strongest of 2 baselines here, sweet loses at L3H12 and L6H6 (by 3.00 to 3.10 points)."
    )
    assert second == (
        "All baselines and sizes: 1 win, 1 tie, 2 losses and 1 single seed of 5 (a win or a loss: p below 5 % after "
        "Holm's correction)."
    )
    assert third == (
        "Where sweet is not ahead of every other method: L6H6 (dmae \N{MINUS SIGN}3.00 ± 1.72); L3H12 (random +0.25 ± "
        "1.72, dmae \N{MINUS SIGN}3.10 ± 1.72)."
    )
    assert fourth == (
        "Runs spread by 0.67 points beside what a replicate shares (standard deviation pooled over the table, 5 "
        "degrees of freedom); ± is a 95 % interval. The choice of test images leaves ±0.98 points open, the same "
        "for all arms."
    )


def test_published_and_conditioned_baselines_are_judged_apart(results: Make) -> None:
    """And so are the paper's method and lines to reach; an arm that the table has at some sizes only keeps no other
    from its average."""
    arms = {
        "sweet": 50.0, "dmae": 40.0, "wave": 45.0, "wave_conditioned": 49.0, "dmae_conditioned": 46.0,
        "sweet_paper": 44.0, "own_mae": 52.0,
    }  # fmt: skip
    cells = {
        (arm, size): [value + i, value + i + 0.1 * (i + place % 2)][: 3 if size != "L12H6" else 1]
        for place, (arm, value) in enumerate(arms.items())
        for i, size in enumerate(("L6H6", "L12H3", "L12H6"))
        if size != "L12H6" or "_conditioned" not in arm
    }
    cells = {key: values[:1] if key[1] == "L12H6" else values for key, values in cells.items()}
    left_out = [[arm, "L12H6"] for arm in ("wave_conditioned", "dmae_conditioned")]
    found = compared(results(cells, spec={"impossible": left_out}))
    assert (found.baselines, found.of_role("conditioned")) == (
        ["dmae", "wave"],
        ["wave_conditioned", "dmae_conditioned"],
    )
    assert (found.of_role("paper"), found.of_role("reference")) == (["sweet_paper"], ["own_mae"])
    assert (found.strongest, found.least(found.of_role("conditioned"))) == ("wave", "wave_conditioned")
    words = sentences(found.table)
    assert words[0].startswith("Against wave, the strongest of 2 baselines here, sweet wins at L6H6 and L12H3")
    assert "on average over 3 sizes it is ahead (+5." in words[0]
    assert "All baselines and sizes: 4 wins, 0 losses and 2 single seeds of 6" in words[1]
    assert words[2].startswith(
        "Against baselines conditioned as ours is: 4 wins and 0 losses of 4; the strongest is wave_c"
    )
    assert "on average over 2 sizes it is ahead (+0.95 ± 0.09 points)" in words[2]
    assert words[3].startswith("Lines to reach: against own_mae it is behind (\N{MINUS SIGN}2.")
    assert words[4].startswith(
        "The paper's method (sweet_paper) against the same baselines: 2 wins, 2 losses and 2 single seeds of 6; on "
        "average over 3 sizes it is behind (\N{MINUS SIGN}0.97 ± 0.11 points) against wave."
    )
    assert words[5].startswith("Where sweet is not ahead of every other method: L6H6 (own_mae \N{MINUS SIGN}2.")


def test_where_less_is_better_a_smaller_value_wins(results: Make) -> None:
    cells = {("sweet", "L6H6"): [20.0, 21.0], ("dmae", "L6H6"): [25.0, 26.5]}
    found = compared(results(cells, metric="fid", task="generate", table="table2"))
    one = found.against["dmae"]["L6H6"]
    assert (found.metric.key, one.value, one.verdict) == ("fid", 5.25, "gain")


def test_without_the_main_arm_there_is_nothing_to_compare(results: Make) -> None:
    [table] = find_tables(results({("random", "L6H6"): [1.0]}))
    assert compare(table) is None
    assert sentences(table) == ["Nothing to compare yet: sweet was not measured."]


def test_baselines_with_the_same_initial_weights_count_once(results: Make) -> None:
    """At full width isomorphic pruning is weight selection."""
    cells = {("sweet", "L6H6"): [50.0, 52.0], ("sweet", "L3H12"): [50.0, 51.0]}
    for arm, narrow in (("weight_selection", [40.0, 41.0]), ("isomorphic", [44.0, 45.5])):
        cells |= {(arm, "L6H6"): narrow, (arm, "L3H12"): [48.0, 47.0]}
    found = compared(results(cells))
    assert len(found.decided()) == 3
    assert "3 wins and 0 losses of 3" in sentences(found.table)[1]


def test_averages_leave_out_sizes_that_an_arm_cannot_make(results: Make) -> None:
    """A size beyond the source is made by some methods only; an average over what each has would be unfair."""
    sizes = ("L6H6", "L3H12", "L16H14")
    cells = {("sweet", size): [50.0, 51.0] for size in sizes} | {("dmae", size): [40.0, 42.0] for size in sizes[:2]}
    cells["sweet", "L16H14"] = [90.0, 90.0]
    found = compared(results(cells, spec={"impossible": [["dmae", "L16H14"]]}))
    assert found.table.common == ["L6H6", "L3H12"]
    assert found.against["dmae"]["average"].value == pytest.approx(9.5)
    assert found.table.average(found.table.means("sweet", "top1")) == pytest.approx(50.5)


def test_an_average_needs_every_common_size(results: Make) -> None:
    cells = {("sweet", "L6H6"): [50.0], ("sweet", "L3H12"): [60.0], ("dmae", "L6H6"): [40.0]}
    table = compared(results(cells)).table
    assert [table.average(table.means(arm, "top1")) for arm in ("sweet", "dmae")] == [55.0, None]


def test_an_ablation_compares_the_main_arm_with_its_variants(results: Make) -> None:
    cells = {(arm, "L6H6"): [50.0, 51.0] for arm in ("sweet", "sweet_prefix", "random")}
    assert compared(results(cells)).baselines == ["random"]
    assert compared(results(cells, spec={"ablation": True})).baselines == ["sweet_prefix", "random"]


def test_an_ablation_says_what_each_choice_is_worth(results: Make) -> None:
    worth = {"sweet": 0.0, "sweet_prefix": -2.0, "random": -20.0}
    cells = {(arm, size): [50.0 + more, 51.0 + more] for arm, more in worth.items() for size in ("L6H6", "L3H12")}
    folder = results(cells, spec={"ablation": True})
    words = sentences(compared(folder).table)[2]
    assert words.startswith("On average over 2 sizes, sweet minus each other arm: sweet_prefix +2.00 ± ")
    assert "random +20.00 ± " in words and words in results_page(find_tables(folder), folder / "page.md", "a command")
    without = sentences(compared(results(cells)).table)
    assert not [sentence for sentence in without if "minus each other arm" in sentence]


def test_data_sets_of_one_table_are_its_columns(results: Make) -> None:
    folder = results({("sweet", "L6H6"): [50.0, 51.0], ("random", "L6H6"): [40.0, 41.0]}, table="table3", spec=None)
    for path in sorted((folder / "micro" / "table3").glob("*.json")):
        cell = read_json(path)
        for name, less in (("flowers102", 20.0), ("tiny-imagenet-100", 0.0)):
            runs = [run | {"top1": run["top1"] - less} for run in cell["runs"]]
            write_json(path.with_name(f"{name}-{path.name}"), cell | {"set": name, "runs": runs})
        path.unlink()
    [table] = find_tables(folder)
    assert table.columns == ["flowers102 L6H6", "tiny-imagenet-100 L6H6"]
    assert [table.values("random", column, "top1")[0] for column in table.columns] == [20.0, 40.0]
    assert table.average(table.means("random", "top1")) == 30.5
    assert "on average over 2 data sets it is ahead" in sentences(table)[0]


# What the paper prints behind its arrows, column "Average".
PRINTED = {
    ("classify", "top1"): 1.60,
    ("classify", "top5"): 0.87,
    ("detect", "ap_box"): 2.04,
    ("detect", "ap_mask"): 1.59,
    ("segment", "miou"): 2.76,
    ("segment", "macc"): 3.43,
    ("generate", "fid"): 2.19,
    ("generate", "is"): 1.76,
}


@pytest.mark.parametrize(("task", "metric"), PRINTED)
def test_the_papers_gain_in_average_comes_out_of_its_rows(task: str, metric: str) -> None:
    printed = next(one for one in paper().tables if one.task == task and one.table in ("table1", "table2"))
    means, sign = printed.means(metric), METRICS[metric].sign
    others = [name for name in means if name != "SWEET"]
    gains = gains_over_best(means, "SWEET", printed.columns, baselines=others, sign=sign)
    assert gains.mean is not None and gains.in_average is not None
    assert gains.in_average == pytest.approx(PRINTED[task, metric], abs=0.0101)
    assert gains.mean == pytest.approx(sum(gains.columns[size] for size in printed.columns) / 5)
    assert gains.mean <= gains.in_average + 1e-9  # each size has its own best baseline


def test_every_row_of_the_paper_has_its_columns() -> None:
    for one in paper().tables:
        for row in one.rows.values():
            assert {len(values) for values in row.values()} == {len(one.columns)}
            assert set(row) <= set(METRICS)
        assert "SWEET" in one.rows


def test_the_strongest_is_looked_for_where_all_were_measured(results: Make) -> None:
    """One that was measured where the lead is small is not stronger for that."""
    cells = {("sweet", size): [50.0, 51.0] for size in ("L6H6", "L12H3", "L3H12")}
    cells |= {("wave", size): [45.0, 46.1] for size in ("L6H6", "L3H12")}
    cells |= {("dmae", size): [46.0, 46.9] for size in ("L6H6", "L3H12")} | {("dmae", "L12H3"): [30.0, 31.0]}
    assert compared(results(cells, spec={"impossible": [["wave", "L12H3"]]})).strongest == "dmae"


def test_arms_of_one_source_do_not_count_as_independent(results: Make) -> None:
    """Three sources (of templates, of plain weights, none) and three replicates: 2 x 2 degrees of freedom."""
    values = {"sweet": [50.0, 51.0, 52.5], "sweet_tucker": [49.0, 50.5, 51.0], "wave": [45.0, 46.0, 46.5]}
    values |= {"dmae": [40.0, 41.0, 43.0], "random": [30.0, 32.0, 31.0]}
    cells = {(arm, size): row for arm, row in values.items() for size in ("L6H6", "L12H3")}
    free, bound, single = (
        compared(results(cells, spec={"version": 2} | more)) for more in ({"version": 1}, {}, {"one_source": True})
    )
    assert [found.noise.freedom for found in (free, bound, single)] == [16, 4, 16]
    assert free.noise.variance == bound.noise.variance
    one, other = (found.against["wave"]["L6H6"] for found in (free, bound))
    assert other.margin == pytest.approx(one.margin * t.ppf(0.975, 4) / t.ppf(0.975, 16))
    assert bound.against["wave"]["average"].freedom == 4


def test_a_source_and_what_is_converted_from_it_are_one(results: Make) -> None:
    values = {"sweet": [50.0, 51.0, 52.5], "dmae": [40.0, 41.0, 43.0], "random": [30.0, 32.0, 31.0]}
    folder = results({(arm, "L6H6"): row for arm, row in values.items()}, spec={"version": 2})
    cells = sorted((folder / "micro" / "table1").glob("cell-*.json"))
    for path in cells:
        cell = read_json(path)
        write_json(path, cell | {"runs": [run | {"source": cell["source"]} for run in cell["runs"]]})
    [table] = find_tables(folder)
    apart = compare(table)
    source = folder / "micro" / "sources" / "tucker.json"
    converted = read_json(ROOT / "results" / "nano" / "sources" / "tiles.json")["converted"]
    write_json(source, read_json(source) | {"converted": converted | {"source": "micro-none"}})
    [table] = find_tables(folder)
    together = compare(table)
    assert apart and together and (apart.noise.freedom, together.noise.freedom) == (4, 2)


def test_a_whole_checkpoint_beside_smaller_targets_is_in_no_average(results: Make) -> None:
    cells = {("sweet", size): [50.0, 51.0] for size in ("L6H6", "L12H3")} | {("own_mae", "L12H12"): [90.0, 91.0]}
    apart = [["sweet", "L12H12"], ["own_mae", "L6H6"], ["own_mae", "L12H3"]]
    folder = results(cells, spec={"impossible": apart})
    [table] = find_tables(folder)
    assert table.common == ["L6H6", "L12H3"]
    assert table.average(table.means("sweet", "top1")) == 50.5 and table.average(table.means("own_mae", "top1")) is None
