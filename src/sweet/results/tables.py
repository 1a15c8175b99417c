"""The tables of a report as rows of text, for the page and for Markdown alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from sweet.tasks.registry import METRICS

from .compare import AVERAGE, PLAIN, Comparison, cell_means, gains_over_best
from .costs import pretraining_of, targets
from .paired import mean_and_spread, spread_text
from .paper import paper, paper_table
from .read import BenchTable

Rows = list[dict[str, str]]
NONE = "-"
EQUAL = 0.05  # pre-training FLOPs that differ by less count as equal (design section 7)


def score_rows(table: BenchTable, metric: str) -> Rows:
    """Mean ± standard deviation (seeds) of each cell; then the paper's rows of the same columns, where it has any."""
    means = cell_means(table, metric)
    rows = []
    for arm in table.arms:
        if not means[arm]:
            continue
        row = {"start": arm}
        for size in table.sizes:
            values = list(table.values(arm, size, metric).values())
            row[size] = spread_text(values, METRICS[metric]) if values else NONE
        rows.append(row | _average([means[arm].get(size) for size in table.common], metric))
    told = paper_table(table.name, table.task)
    for name, values in (told["rows"] if told else {}).items():
        found = dict(zip(told["columns"], values.get(metric, ()), strict=False)) if told else {}
        if any(size in found for size in table.sizes):
            row = {"start": f"{name} ({paper()['label']})"}
            row |= {size: METRICS[metric].text(found[size]) if size in found else NONE for size in table.sizes}
            rows.append(row | _average([found.get(size) for size in table.common], metric))
    return rows


def gain_rows(table: BenchTable, comparison: Comparison) -> Rows:
    """Ours minus the best rival, here and in the paper; both averages of it (methods 0, check 5)."""
    metric, rivals = comparison.metric, comparison.rivals
    higher = METRICS[metric].higher_is_better
    rows = []
    means = cell_means(table, metric)
    for ours in dict.fromkeys([comparison.ours, PLAIN]) if rivals else ():
        if ours in means:
            gains = gains_over_best(means, ours, table.sizes, rivals=rivals, higher=higher, common=table.common)
            rows.append({"gain over the best rival": ours} | _gains(gains, table.sizes, metric))
    told = paper_table(table.name, table.task)
    if told and all(metric in row for row in told["rows"].values()) and set(told["columns"]) & set(table.sizes):
        means = {name: dict(zip(told["columns"], row[metric], strict=True)) for name, row in told["rows"].items()}
        ours = paper()["ours"]
        others = [name for name in means if name != ours]
        gains = gains_over_best(means, ours, told["columns"], rivals=others, higher=higher, common=table.common)
        rows.append({"gain over the best rival": f"{ours} ({paper()['label']})"} | _gains(gains, table.sizes, metric))
    return rows


def record_rows(comparison: Comparison) -> Rows:
    """Where ours wins, ties and loses against each arm, and on average."""
    rows = []
    for arm in [*comparison.rivals, *comparison.variants]:
        row = {f"{comparison.ours} against": arm}
        for key, word in (
            ("gain", "wins at"),
            ("no gain", "level at"),
            ("worse", "loses at"),
            ("one seed", "one seed"),
        ):
            row[word] = ", ".join(comparison.sizes_of(arm, key)) or NONE
        average = comparison.against[arm].get(AVERAGE)
        digits = METRICS[comparison.metric].digits
        rows.append(row | {"on average": f"{average.text(digits)}, {average.verdict}" if average else NONE})
    return rows


def paired_rows(comparison: Comparison) -> Rows:
    """Every paired difference; ``*``: a t test at 95 % sees it too."""
    rows = []
    digits = METRICS[comparison.metric].digits
    columns = [*comparison.table.sizes, AVERAGE]
    for arm in [*comparison.rivals, *comparison.variants]:
        found = comparison.against[arm]
        row = {f"{comparison.ours} minus": arm}
        for size in columns:
            one = found.get(size)
            row[size] = f"{one.text(digits)} {one.verdict}{'*' if one.sure else ''}" if one else NONE
        rows.append(row)
    return rows


def start_rows(table: BenchTable) -> Rows:
    """What the rows are, those that differ by their rate alone once."""
    told = table.told.arms if table.told else {}
    known = {arm.partition("@")[0]: told[arm].about for arm in table.arms if arm in told and told[arm].about}
    return [{"start": arm, "what it is": about} for arm, about in known.items()]


def size_rows(table: BenchTable) -> Rows:
    """Parameters and FLOPs of the targets."""
    return [
        {"size": size, "parameters": f"{one['params']:,}", "FLOPs of one image": f"{one['flops']:,}"}
        for size, one in targets(table).items()
    ]


def cost_rows(table: BenchTable) -> Rows:
    """What each arm took: its source's pre-training, an initialisation, a fine-tuning.

    Seconds of the last two are medians over seeds, averaged over the sizes that all arms can make.
    """
    rows = []
    for arm in table.arms:
        training = (table.source(arm) or {}).get("training", {})
        spent = pretraining_of(table, arm)
        rows.append(
            {
                "start": arm,
                "source": next((c.get("source") or NONE for (name, _), c in table.cells.items() if name == arm), NONE),
                "pre-training images": _count(training.get("images")),
                "seconds": _count(training.get("seconds")),
                "PFLOPs": NONE if spent is None else f"{spent:.4f}",
                "init, s": _mean(table, arm, "init_seconds", 3),
                "unlabelled images": _mean(table, arm, "init_images", 0),
                "fine-tuning, s": _mean(table, arm, "seconds", 0),
            }
        )
    return rows


def budget_note(table: BenchTable) -> str:
    """Whether the sources had equal pre-training FLOPs, and whose had more; empty with fewer than two."""
    spent = {arm: value for arm in table.arms if (value := pretraining_of(table, arm))}
    if len(spent) < 2:
        return ""
    least = min(spent.values())
    more = {arm: value / least for arm, value in spent.items() if value > (1 + EQUAL) * least}
    apart = max(value for arm, value in spent.items() if arm not in more) / least - 1
    note = f"The sources' pre-training FLOPs differ by up to {100 * apart:.1f} %, which counts as equal"
    if more:
        note += f", but for {', '.join(more)}: up to {max(more.values()):.2f} times as much"
    if silent := [arm for arm in table.arms if pretraining_of(table, arm) is None]:
        note += f"; those of {', '.join(silent)} are not told"
    return note + "."


def facts(table: BenchTable) -> dict[str, str]:
    """What a reader has to know before the numbers."""
    first = table.first
    seeds = sorted({len(cell["runs"]) for cell in table.cells.values()})
    told = {
        "data": first.get("data"),
        "labelled images": _count(first.get("n_train")),
        "test images": _count(first.get("test_images")),
        "classes": first.get("classes"),
        "chance": f"{first['chance_top1']:g} %" if "chance_top1" in first else None,
        "images of fine-tuning": _count(first["runs"][0].get("images_seen")),
        "sources": f"L{table.config.depth}H{table.config.heads}" if table.config else None,
        "seeds": " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))),
        "runs": str(sum(len(cell["runs"]) for cell in table.cells.values())),
        "run on": _machines(table),
        "averages over": ", ".join(table.common) if table.common != table.sizes else None,
        "not measured yet": ", ".join(table.open_sizes) or None,
    }
    return {key: str(value) for key, value in told.items() if value not in (None, NONE)}


def _machines(table: BenchTable) -> str:
    """The kinds of machine, and of several how many runs each."""
    runs = [run.get("environment", {}) for cell in table.cells.values() for run in cell["runs"]]
    counted = Counter(one.get("gpu") or "CPU" for one in runs if one)
    return " and ".join(f"{name} ({count} runs)" if len(counted) > 1 else name for name, count in counted.items())


def _gains(gains: dict[str, float], sizes: Sequence[str], metric: str) -> dict[str, str]:
    columns = [*sizes, "mean gain", "gain in average"]
    digits = METRICS[metric].digits
    return {
        key: f"{gains[key]:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if key in gains else NONE for key in columns
    }


def _average(values: Sequence[float | None], metric: str) -> dict[str, str]:
    """Of all sizes, or none."""
    found = [value for value in values if value is not None]
    return {"average": METRICS[metric].text(sum(found) / len(found)) if found and len(found) == len(values) else NONE}


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def _mean(table: BenchTable, arm: str, key: str, digits: int) -> str:
    found = [table.values(arm, size, key) for size in table.common]
    middle = [median(values.values()) for values in found if values]
    return f"{mean_and_spread(middle)[0]:,.{digits}f}" if middle else NONE
