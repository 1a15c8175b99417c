"""The page: one HTML file that holds all it shows, no server, no network, no script."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from sweet.files import SUMS, check_sums, sha256
from sweet.results.compare import AVERAGE, Comparison, compare, sentences
from sweet.results.paper import paper, paper_table
from sweet.results.read import BenchTable, Run
from sweet.results.tables import (
    budget_note,
    cost_rows,
    facts,
    gain_rows,
    record_rows,
    score_rows,
    size_rows,
    start_rows,
)
from sweet.storage.folders import load_source
from sweet.tasks.registry import METRICS
from sweet.version import VERSION

from .bench_figures import pictures
from .draw import png, style
from .run_figures import log_pictures, source_pictures, spectrum_picture

MARKS = {"gain": "▲", "worse": "▼", "no gain": "=", "one seed": "1"}
CLASSES = {"gain": "win", "worse": "loss", "no gain": "tie", "one seed": "single"}


def page(
    tables: Sequence[BenchTable],
    runs: Sequence[Run],
    *,
    data: str | None = None,
) -> str:
    """The report as HTML text. ``data`` are images for the reconstructions of sources among ``runs``."""
    environment = Environment(
        loader=PackageLoader("sweet.results.render", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    with style():
        sections = [_table(table, f"t{i}") for i, table in enumerate(tables)]
        sections += [_run(run, f"r{i}", data) for i, run in enumerate(runs)]
    names = [table.title for table in tables] + [run.title for run in runs]
    return environment.get_template("page.html").render(
        title=", ".join(names) if len(names) < 4 else f"{len(names)} tables and runs",
        sections=sections,
        paper=paper(),
        version=VERSION,
    )


def breakable(name: str) -> Markup:
    """A name that a narrow column may break after an underscore, a dot or an @."""
    return Markup("").join(escape(part) + Markup("<wbr>") for part in re.split(r"(?<=[_.@])", name))


def _table(table: BenchTable, name: str) -> dict[str, Any]:
    comparison, told = compare(table), paper_table(table.name, table.task)
    parts: list[dict[str, Any]] = []
    if comparison is not None:
        parts.append({"title": f"Where {comparison.ours} wins", "heat": heat_map(comparison)})
        if comparison.rivals:
            parts.append({"title": "Wins, ties and losses", "rows": record_rows(comparison), "look": "words"})
    if rows := start_rows(table):
        parts.append({"title": "What the rows are", "rows": rows, "look": "words"})
    for metric in table.metrics:
        # the first is what the reader came for, the others wait to be opened
        rows = score_rows(table, metric)
        beside = told["title"] if told and any(paper()["label"] in row["start"] for row in rows) else None
        parts.append(
            {"title": METRICS[metric].label, "rows": rows, "paper": beside, "folded": metric != table.metrics[0]}
        )
    if comparison is not None and (gains := gain_rows(table, comparison)):
        parts.append({"title": "Gain over the best rival", "rows": gains})
    drawn = pictures(table, name)
    for i, (source, values) in enumerate(_spectra(table).items()):
        svg, caption = spectrum_picture(values, f"{name}s{i}")
        drawn.append((svg, f"{source}: {caption}"))
    parts.append({"title": "Pictures", "pictures": _marked(drawn)})
    if sizes := size_rows(table):
        parts.append({"title": "Sizes of the targets", "rows": sizes, "folded": True})
    parts.append({"title": "Cost", "rows": cost_rows(table), "note": budget_note(table)})
    parts.append({"title": "Recipe of fine-tuning", "text": _yaml(table.first.get("recipe"))})
    parts.append({"title": "Recipes of the sources", "text": _yaml({n: _short(f) for n, f in table.sources.items()})})
    parts.append({"title": "Environment", "rows": environments(table), "folded": True})
    parts.append({"title": "Checksums of the results", "rows": [_sum(path) for path in table.files], "folded": True})
    return {"id": name, "title": table.title, "said": sentences(table), "facts": facts(table), "parts": parts}


def heat_map(comparison: Comparison) -> dict[str, Any]:
    """Rows of cells: text, mark, class, and how strong its colour is (0 to 1)."""
    table, metric = comparison.table, METRICS[comparison.metric]
    columns = [c for c in (*table.sizes, AVERAGE) if any(c in row for row in comparison.against.values())]
    largest = max((abs(one.value) for row in comparison.against.values() for one in row.values()), default=0) or 1
    groups = []
    for word, arms in ((table.others, comparison.rivals), ("other ways of ours", comparison.variants)):
        rows = []
        for arm in arms:
            cells = []
            for column in columns:
                one = comparison.against[arm].get(column)
                cells.append(
                    one
                    and {
                        "text": f"{one.value:+.{metric.digits}f}".replace("-", "\N{MINUS SIGN}"),
                        "error": "" if one.seeds < 2 else f"± {one.error:.{metric.digits}f}",
                        "mark": MARKS[one.verdict] + ("*" if one.sure and one.verdict != "no gain" else ""),
                        "class": f"{CLASSES[one.verdict]} {'up' if one.value > 0 else 'down'}",
                        "alpha": round(0.08 + 0.72 * (abs(one.value) / largest) ** 0.7, 2),
                        "said": f"{one.verdict}, {one.seeds} seeds",
                    }
                )
            rows.append({"arm": arm, "cells": cells})
        if rows:
            groups.append({"word": word, "rows": rows})
    return {"columns": columns, "groups": groups, "ours": comparison.ours, "unit": metric.label}


def environments(table: BenchTable) -> list[dict[str, str]]:
    """Machines, versions and commits that the runs were measured with, and how many each."""
    counted: dict[str, int] = {}
    for cell in table.cells.values():
        for run in cell["runs"]:
            told = {"commit": run.get("commit"), **run.get("environment", {})}
            counted[json.dumps(told)] = counted.get(json.dumps(told), 0) + 1
    rows = [(n, json.loads(told)) for told, n in counted.items()]
    keys = dict.fromkeys(key for _, told in rows for key in told)  # older runs tell less
    return [{"runs": str(n)} | {key: _text(told.get(key)) for key in keys} for n, told in rows]


def _run(run: Run, name: str, data: str | None) -> dict[str, Any]:
    info, training = run.info, run.info.get("training", {})
    parts: list[dict[str, Any]] = []
    said = [_what(run)]
    metrics = info.get("metrics", {})
    if metrics:
        plain = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
        parts.append(
            {
                "title": "Metrics",
                "rows": [{METRICS[k].label if k in METRICS else k: _text(v) for k, v in plain.items()}],
            }
        )
    drawn = log_pictures(run, name)
    parts.append({"title": "Curves", "pictures": _marked(drawn), "note": "" if drawn else "There is no metrics.jsonl."})
    for key, value in metrics.items():
        if isinstance(value, dict) and value:
            rows = [
                {"class": str(k), METRICS["top1"].label if key == "per_class" else key: _text(v)}
                for k, v in value.items()
            ]
            parts.append({"title": "Per class" if key == "per_class" else key, "rows": rows, "look": "narrow"})
    if run.kind in ("template", "dense"):
        parts += _source(run, name, data)
    if training:
        parts.append({"title": "Cost", "rows": _pairs(training), "look": "narrow"})
    for key, title in (("made", "Made by"), ("converted", "Converted from")):
        if key in info:
            parts.append({"title": title, "rows": _pairs(info[key]), "look": "narrow"})
    if run.recipe:
        parts.append({"title": "Recipe", "text": run.recipe})
    environment = run.environment or info.get("environment", {})
    if environment:
        parts.append({"title": "Environment", "rows": _pairs(environment), "look": "narrow"})
    parts.append(
        {"title": "Checksums", "rows": _sums(run.folder), "note": "" if _sums(run.folder) else f"There is no {SUMS}."}
    )
    vit = info.get("vit", {})
    shape = {
        key: str(vit[key]) for key in ("depth", "heads", "head_dim", "img_size", "patch_size", "family") if key in vit
    }
    ranks = {"ranks": _text(info["ranks"])} if info.get("ranks") else {}
    return {"id": name, "title": run.title, "said": said, "facts": {"kind": run.kind} | shape | ranks, "parts": parts}


def _source(run: Run, name: str, data: str | None) -> list[dict[str, Any]]:
    """Spectra of a template or dense source, and with images its reconstructions."""
    stored = load_source(run.folder)
    parts: list[dict[str, Any]] = [{"title": "Spectra", "pictures": _marked(source_pictures(stored, name))}]
    if data is None:
        return [*parts, {"title": "Reconstructions", "note": "Give images with --data to see them."}]
    from .reconstruct import reconstructions

    made = reconstructions(stored, data)
    if made is None:
        return [*parts, {"title": "Reconstructions", "note": "This source has no decoder."}]
    share = f"{stored.mae.mask_ratio:.0%}"
    note = f"{share} of the patches are hidden, the same for all sizes. "
    if stored.mae.norm_pix:
        note += "The network predicts patches normalised; their mean and spread are taken from the image. "
    note += f"Losses are means over {made.images} held-out images."
    losses = {size: f"{size}, loss {loss:.3f}" for size, loss in made.losses.items()}
    drawn = {"image": png(made.picture), "rows": [losses.get(row, row) for row in made.rows]}
    return [*parts, {"title": "Reconstructions", "note": note, "sheet": drawn}]


def _what(run: Run) -> str:
    training, metrics = run.info.get("training", {}), run.info.get("metrics", {})
    if not run.info:
        steps = [line["step"] for line in run.log if "step" in line]
        return f"An unfinished run{f', at step {steps[-1]}' if steps else ''}; it goes on with --resume."
    words = {"template": "A template", "dense": "A dense source", "model": "A model"}
    text = words.get(run.kind, run.kind)
    if training:
        images = f"{training['images']:,} images in " if "images" in training else ""
        text += f", trained on {images}{training.get('seconds', 0):,.0f} s; loss at the end {training.get('loss', '-')}"
    first = next((key for key in METRICS if key in metrics), None)
    if first is None:
        return f"{text}."
    label, percent, _ = METRICS[first].label.partition(", %")
    return f"{text}; {label} {METRICS[first].text(metrics[first])}{' %' if percent else ''} on held-out images."


def _spectra(table: BenchTable) -> dict[str, list[float]]:
    """Spectra that the results keep of their sources."""
    return {name: facts["order_spectrum"] for name, facts in table.sources.items() if facts.get("order_spectrum")}


def _marked(drawn: Sequence[tuple[str, str]]) -> list[tuple[Markup, str]]:
    return [(Markup(svg), caption) for svg, caption in drawn]


def _sums(folder: Path) -> list[dict[str, str]]:
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines() if (folder / SUMS).is_file() else []
    recorded = {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}
    return [
        {"file": name, "sha256": recorded[name], "now": "ok" if good else "WRONG"}
        for name, good in check_sums(folder).items()
    ]


def _sum(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256(path)}


def _short(source: dict[str, Any]) -> dict[str, Any]:
    """What made a source, without its classes."""
    return {k: source[k] for k in ("kind", "constraint", "ranks", "vit", "mae", "training") if k in source}


def _pairs(values: dict[str, Any]) -> list[dict[str, str]]:
    return [{"": key, " ": _text(value)} for key, value in values.items() if not isinstance(value, dict)]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=100) if value else ""


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
