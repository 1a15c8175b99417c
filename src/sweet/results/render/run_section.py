"""The part of the page about a run, a model or a source."""

from __future__ import annotations

from sweet.data.skips import FILE, skipped
from sweet.files import SUMS, check_sums, read_sums
from sweet.results.rows import Grid
from sweet.results.runs import RunFolder
from sweet.storage.folders import load_source
from sweet.tasks.registry import METRICS, Metric, measured_by

from .draw import png
from .parts import Part, Section, Sheet, pairs, text
from .run_figures import log_figures, source_figures

SHAPE = ("depth", "heads", "head_dim", "img_size", "patch_size", "family")


def run_section(run: RunFolder, name: str, data: str | None) -> Section:
    """Everything about a run; ids inside begin with ``name``. ``data`` are images for reconstructions."""
    record, drawn, sums = run.record, log_figures(run, name), _sums(run)
    parts = _metrics(run)
    parts.insert(1, Part("Curves", drawings=drawn, note="" if drawn else "There is no metrics.jsonl."))
    if run.kind in ("template", "dense"):
        parts += _source(run, name, data)
    if record is not None:
        records = {
            "Cost": record.training and record.training.words(),
            "Made by": record.made and record.made.to_dict(),
            "Converted from": record.converted and record.converted.to_dict(),
        }
        parts += [Part(title, pairs(one), look="narrow") for title, one in records.items() if one]
    if left_out := skipped(run.folder / FILE):
        lines = tuple((problem,) for problem in left_out)
        parts.append(Part("Images left out", Grid(("why",), lines), "By data.on_error=skip.", look="words"))
    parts.append(Part("Recipe", text=run.recipe))
    parts.append(Part("Environment", pairs(run.environment), look="narrow", folded=True))
    parts.append(Part("Checksums", sums, note="" if sums.lines else f"There is no {SUMS}.", folded=True))
    properties = {"kind": run.kind}
    if record is not None:
        properties |= {key: str(getattr(record.vit, key)) for key in SHAPE}
        properties |= {"ranks": text(record.ranks)} if record.ranks else {}
    return Section(name, run.title, summary(run), properties, parts)


def summary(run: RunFolder) -> str:
    """What a folder holds, in one sentence."""
    record = run.record
    if record is None:
        steps = [step for key in run.logged() for step, _ in run.series(key)]  # of the training and of validations
        return f"An unfinished run{f', at step {max(steps)}' if steps else ''}; --resume continues it."
    says = {"template": "A template", "dense": "A dense source", "model": "A model"}[record.kind]
    if training := record.training:
        says += f", trained on {training.images:,} images in {training.seconds:,.0f} s; final loss {training.loss}"
    first = next((_metric(run, key) for key in METRICS if key in record.scores), None)
    if first is None:
        return f"{says}."
    label, percent, _ = first.label.partition(", %")
    return f"{says}; {label} {first.text(record.scores[first.key])}{' %' if percent else ''} on held-out images."


def _metrics(run: RunFolder) -> list[Part]:
    """All numbers in one line, then a part for each metric that has several, of classes for example."""
    metrics = (run.record.metrics if run.record else None) or {}
    plain = {key: value for key, value in metrics.items() if not isinstance(value, dict | list)}
    labels = {key: _metric(run, key).label if key in METRICS else key for key in plain}
    parts = [Part("Metrics", Grid.of([{labels[key]: text(value) for key, value in plain.items()}] if plain else []))]
    for key, values in metrics.items():
        if isinstance(values, dict) and values:
            classes = key == "per_class"
            heads = ("class", METRICS["top1"].label if classes else key)
            grid = Grid(heads, tuple((str(one), text(value)) for one, value in values.items()))
            parts.append(Part("Per class" if classes else key, grid, look="narrow"))
    return parts


def _metric(run: RunFolder, key: str) -> Metric:
    """What a number of a run is."""
    metrics = (run.record.metrics if run.record else None) or {}
    return measured_by(METRICS[key], metrics.get("fid_extractor"))


def _source(run: RunFolder, name: str, data: str | None) -> list[Part]:
    """Spectra of a template or dense source, and with images its reconstructions."""
    stored = load_source(run.folder)
    spectra = Part("Spectra", drawings=source_figures(stored, name))
    if data is None:
        return [spectra, Part("Reconstructions", note="Give images with --data to see them.")]
    from .reconstruct import reconstructions

    made = reconstructions(stored, data)
    if made is None:
        return [spectra, Part("Reconstructions", note="This source has no decoder.")]
    note = f"{stored.mae.mask_ratio:.0%} of the patches are hidden, the same for all sizes. "
    if stored.mae.norm_pix:
        note += "The network predicts normalised patches; their mean and spread are taken from the image. "
    note += f"Losses are means over {made.images} held-out images."
    losses = {size: f"{size}, loss {loss:.3f}" for size, loss in made.losses.items()}
    sheet = Sheet(png(made.picture), [losses.get(row, row) for row in made.rows])
    return [spectra, Part("Reconstructions", note=note, sheet=sheet)]


def _sums(run: RunFolder) -> Grid:
    good = check_sums(run.folder)
    rows = ((name, digest, "ok" if good[name] else "WRONG") for name, digest in read_sums(run.folder).items())
    return Grid(("file", "sha256", "now"), tuple(rows))
