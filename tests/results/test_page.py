"""The page: whole in itself, and not broken by names, gaps or damaged files."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from sweet.errors import UserError
from sweet.results.compare import compare
from sweet.results.render import panels
from sweet.results.render.colours import mark
from sweet.results.render.draw import apart, axes, round_ticks, style, svg
from sweet.results.render.markdown import results_page
from sweet.results.render.panels import write_picture
from sweet.results.render.strip import strip
from sweet.results.render.words import ABOUT, CONDITIONING
from sweet.results.report import command, read, report

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "br", "wbr", "input", "hr"}
Make = Callable[..., Path]


class Page(HTMLParser):
    """What a browser would make of it: loads, ids, references, headings, and whether tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.at_once: list[str] = []  # tags outside of what is folded
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if "details" not in self.open:
            self.at_once.append(tag)
        for key, value in attrs:
            assert not key.startswith("on"), f"<{tag} {key}> is a script"
            if key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                (self.refers if (value or "").startswith("#") else self.loads).append(value or "")
            if key == "id":
                self.ids.append(value or "")
            self.refers += re.findall(r"url\((#[^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def checked(path: Path) -> Page:
    """Nothing is loaded, no script runs, every id is there once and every reference has its id."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "iframe" not in page.tags
    assert all(load.startswith("data:") for load in page.loads), page.loads
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert {reference[1:] for reference in page.refers} <= set(page.ids)
    return page


def headings(page: Page) -> list[str]:
    return [word.strip() for word in page.words if word.strip()]


def test_the_committed_results(committed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, reported = committed
    page = checked(out)
    words = headings(page)
    for title in ("Where sweet wins", "Wins, ties and losses, top-1, %", "Figures", "Cost",
                  "Gain over the best baseline, top-1, %",
                  "Environment", "Checksums of the results"):  # fmt: skip
        assert title in words, title
    assert any(word.startswith("Recipe of fine-tuning: sweet at ") for word in words)
    for table in reported["tables"]:
        assert table["table"] in words
        assert table["summary"].partition(". ")[0] in page.text
    beside = "SWEET (paper, ImageNet-1K)" in page.text.replace("\n", "")
    assert beside == any(table["table"].endswith("table1") for table in reported["tables"])
    assert page.tags.count("svg") >= 12
    assert out.stat().st_size < 0.4e6 * len(reported["tables"])
    with pytest.raises(UserError, match="nothing"):
        report([tmp_path / "nothing"], out)


def test_a_reader_sees_a_paragraph_a_chart_and_a_strip_of_each_table(committed: tuple[Path, dict[str, Any]]) -> None:
    """Everything else is folded, so that all tables are less than 15 screens (9 of 1366 x 900, 14 of 390 x 844)."""
    out, reported = committed
    page = checked(out)
    assert page.text.count(ABOUT) == 1 and page.text.count(CONDITIONING) <= 1
    charts = page.at_once.count("svg")
    assert charts == len(reported["tables"]) and "table" not in page.at_once
    assert page.tags.count("svg") > 2 * charts
    assert page.at_once.count("summary") == 0 and page.tags.count("summary") > 5 * charts  # one word each, then more


def test_a_strip_counts_and_a_loss_has_its_context(results: Make) -> None:
    cells = {("random", "L6H6"): [30.0, 32.0], ("sweet", "L6H6"): [47.0, 48.0], ("sweet_tiles", "L6H6"): [50.0, 51.0]}
    cells |= {("wave", "L6H6"): [60.0, 61.0], ("dmae", "L6H6"): [47.5, 47.5]}
    about = {"sweet_tiles": "of tiles", "wave": "by its paper"}
    arms = [{"name": arm, "method": arm, "role": "ours" if "sweet" in arm else "baseline", "about": about.get(arm, "")}
            for arm, _ in cells]  # fmt: skip
    found = compare(read([results(cells, spec={"arms": arms})])[0][0])
    assert found
    made = strip(found)
    assert made and [tile.style for tile in made.tiles] == ["win", "tie", "loss"]
    assert made.counted == "1 win, 1 tie, 1 loss"
    assert made.tiles[0].title == "sweet minus random at L6H6: +16.50 ± 1.39 points (gain)"
    assert "sweet_tiles (of tiles) at L6H6, by 3.00 points" in made.losses
    assert "wave (by its paper) at L6H6, by 13.00 points" in made.losses
    assert "4 degrees of freedom" in made.losses and "95 % interval" in made.losses


def test_names_are_explained_where_they_are_touched(results: Make, tmp_path: Path) -> None:
    cells = {("sweet", "L6H6"): [47.0, 48.0], ("wave", "L6H6"): [1.0, 2.0]}
    arms = [{"name": "sweet", "method": "sweet", "role": "ours"},
            {"name": "wave", "method": "wave", "role": "baseline", "about": "tiles <of> others"}]  # fmt: skip
    report([results(cells, spec={"arms": arms})], tmp_path / "a.html")
    checked(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert '<abbr title="tiles &lt;of&gt; others">wave</abbr>' in text  # in tables
    assert "<title>tiles &lt;of&gt; others</title>wave</text>" in text  # in drawings
    assert '<abbr title="6 layers, 6 heads, width 96: 0.68 million parameters without a head">L6H6</abbr>' in text


def test_labels_do_not_collide() -> None:
    values = [50.0, 50.1, 50.2, 10.0, 49.0, 11.5]
    places = apart(values, 2.0)
    assert all(abs(a - b) > 2 - 1e-9 for i, a in enumerate(places) for b in places[:i])
    order = sorted(range(6), key=lambda i: values[i])
    assert order == sorted(range(6), key=lambda i: places[i])
    assert sum(places) == pytest.approx(sum(values)) and apart([1.0, 5.0], 2.0) == [1.0, 5.0]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.3, 12, [1, 3, 10]), (2.7, 27, [5, 10, 20]), (10, 2000, [10, 100, 1000]), (0.34, 0.68, [0.4, 0.5, 0.6])],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    found = round_ticks(low, high)
    assert [tick for tick in ticks if any(tick == pytest.approx(one) for one in found)] == ticks
    assert 3 <= len(found) <= 12 and all(low <= tick <= high for tick in found)


def test_arms_that_stand_together_look_different() -> None:
    from sweet.bench.protocols import PROTOCOLS

    for protocol in PROTOCOLS.values():
        if protocol.arms and len(protocol.arms) <= 30:  # sweeps vary one arm
            seen = [mark(arm) for arm in protocol.arms if "@" not in arm]
            assert len(seen) == len(set(seen)), [*protocol.arms]


def test_a_table_is_drawn_as_rows_of_panels(results: Make, tmp_path: Path) -> None:
    cells = {(arm, f"L{n}H6"): [30.0 + n, 32.0] for arm in ("sweet", "random") for n in range(1, 6)}
    [table], _ = read([results(cells)])
    write_picture(table, tmp_path / "table.png")
    with Image.open(tmp_path / "table.png") as image:
        wide, high = image.size
    assert 1.5 < wide / high < 6 and wide > 1300  # three panels in a row, two rows
    write_picture(replace(table, cells={key: cell for key, cell in table.cells.items() if key[1] == "L1H6"}),
                  tmp_path / "one.png")  # fmt: skip
    with Image.open(tmp_path / "one.png") as image:
        assert image.size[0] < wide / 2 and image.size[1] < high


def test_the_picture_of_one_column_is_as_wide_as_its_title(
    results: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [table], _ = read([results({("sweet", "L6H6"): [47.0], ("random", "L6H6"): [30.0]})])
    drawn: list[Figure] = []
    monkeypatch.setattr(panels, "write_png", lambda figure, _: drawn.append(figure))
    write_picture(table, tmp_path / "table.png")
    [figure] = drawn
    figure.draw_without_rendering()
    [title] = figure.texts
    place = title.get_window_extent()
    assert place.x0 >= 0 and place.x1 <= figure.bbox.width


def test_one_cell_is_enough(results: Make, tmp_path: Path) -> None:
    folder = results({("sweet", "L6H6"): [47.0]}, sources=False)
    page_of_one = tmp_path / "one.html"
    report([folder], page_of_one, markdown=tmp_path / "one.md")
    assert "Nothing to compare yet." in checked(page_of_one).text
    assert "47.00 (1)" in (tmp_path / "one.md").read_text(encoding="utf-8")


def test_names_are_only_names(results: Make, tmp_path: Path) -> None:
    arm = '<b onclick="x()">&$\\frac{1}{2}$'
    folder = results({("sweet", "L6H6"): [47.0, 48.0], (arm, "L6H6"): [1.0, 2.0]}, data="<script>1</script>")
    report([folder], tmp_path / "a.html")
    page = checked(tmp_path / "a.html")
    assert arm in page.text  # as text, in the tables and in the pictures
    assert "<script>1</script>" in page.text


def test_curves_and_checks_before_tuning_are_drawn_where_they_were_kept(results: Make, tmp_path: Path) -> None:
    cells = {(arm, size): [10.0, 12.0] for arm in ("random", "sweet", "sweet_prefix") for size in ("L6H6", "L3H12")}
    extra = {"curve": [[10, 2.0], [20, 1.5]], "init_mae_loss": 0.5, "init_knn": 20.0, "init_images": 51200}
    report([results(cells, extra=extra)], tmp_path / "a.html")
    text = checked(tmp_path / "a.html").text
    for caption in ("Convergence at L6H6", "Convergence at L3H12", "Before any fine-tuning: MAE loss",
                    "Ways to take a size", "sizes on, one template costs less than: own"):  # fmt: skip
        assert caption in text, caption


def test_tasks_of_one_table_are_tables_of_their_own(results: Make, tmp_path: Path) -> None:
    folder = results({("sweet", "L6H6"): [47.0, 48.0], ("random", "L6H6"): [1.0, 2.0]})
    for path in sorted((folder / "micro" / "table1").glob("cell-*.json")):
        cell = json.loads(path.read_text()) | {"task": "detect"}
        cell["runs"] = [{"seed": run["seed"], "ap_box": run["top1"] / 2, "ap_mask": 3.0} for run in cell["runs"]]
        path.with_name(f"detect-{path.name}").write_text(json.dumps(cell))
    tables, _ = read([folder, folder])  # named twice, read once
    assert [(table.title, [metric.key for metric in table.metrics]) for table in tables] == [
        ("micro / table1", ["top1"]),
        ("micro / table1 / detect", ["ap_box", "ap_mask"]),
    ]
    report([folder], tmp_path / "a.html", markdown=tmp_path / "a.md")
    assert "Mask AP" in checked(tmp_path / "a.html").text
    assert "Table 1, object detection" in (tmp_path / "a.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ('{"runs": [', "cell-0.json: not valid JSON"),
        ('{"runs": []}', "cell-0.json: arm: Field required"),
        ('{"arm": "a", "size": "L1H1", "runs": []}', "cell-0.json: has no run"),
        ('{"arm": "a", "size": "big", "runs": [{"seed": 0}]}', "cell-0.json: size: a size is written"),
        ('{"arm": "a", "size": "L1H1", "runs": [{"top1": 0}]}', "cell-0.json: runs.0.seed: Field required"),
        ('{"arm": "a", "size": "L1H1", "runs": [{"seed": 0, "top1": "x"}]}', "cell-0.json: runs.0: top1 is 'x'"),
        ('{"arm": "a", "size": "L1H1", "runs": 3}', "cell-0.json: runs: Input should be a valid"),
        ('{"arm": "a", "size": "L1H1", "runs": [{"seed": 0, "speed": 1}]}', "no metric that this version knows"),
    ],
)
def test_a_damaged_result_is_named(results: Make, tmp_path: Path, damage: str, said: str) -> None:
    folder = results({("sweet", "L6H6"): [47.0]})
    (folder / "micro" / "table1" / "cell-0.json").write_text(damage)
    with pytest.raises(UserError, match=re.escape(said)):
        report([folder], tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_a_damaged_source_is_named(results: Make, tmp_path: Path) -> None:
    folder = results({("sweet", "L6H6"): [47.0]})
    (folder / "micro" / "sources" / "none.json").write_text('{"source": "a", "vit": {}}')
    with pytest.raises(UserError, match=r"none\.json: format: |none\.json: kind: Field required"):
        report([folder], tmp_path / "a.html")


def test_runs(template: Path, classifier: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs.html"
    report([template, classifier], out, data="shapes:n=64,size=16")
    page = checked(out)
    words = headings(page)
    for title in ("Curves", "Spectra", "Reconstructions", "Cost", "Recipe", "Environment", "Checksums", "Metrics",
                  "Per class", "Made by", "L2H2, loss", "L1H1, loss"):  # fmt: skip
        assert any(word.startswith(title) for word in words), title
    assert words.count("ok") == 8 and "WRONG" not in words
    assert "circle" in words
    for title in ("Environment", "Checksums"):  # folded
        assert (
            page.words[page.words.index(title) - 1].strip() == "" and f"<summary>{title}</summary>" in out.read_text()
        )
    [picture] = [load for load in page.loads if load.startswith("data:image/png")]
    sheet = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    assert (sheet.width, sheet.height) == (6 * 192, 6 * 192)  # six images; the image, what is visible, four sizes


def test_what_a_run_lacks_is_left_out(template: Path, classifier: Path, tmp_path: Path) -> None:
    for folder in (template, classifier):
        shutil.copytree(folder, tmp_path / folder.name)
    broken = tmp_path / template.name
    for name in ("metrics.jsonl", "env.json", "recipe.yaml"):
        (broken / name).unlink()
    unfinished = tmp_path / classifier.name
    (unfinished / "config.json").unlink()
    (unfinished / "SHA256SUMS").unlink()
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # killed while it wrote
    (unfinished / "validation.jsonl").write_text('{"step": 4, "val_top1": 50.0}\n')
    report([broken, unfinished], tmp_path / "a.html")
    text = checked(tmp_path / "a.html").text
    for said in (
        "There is no metrics.jsonl",
        "WRONG",
        "An unfinished run, at step 6",
        "There is no SHA256SUMS",
        "--data",
    ):
        assert said in text, said
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write("\nnothing\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:\d+: not valid JSON"):
        report([unfinished], tmp_path / "b.html")
    with pytest.raises(UserError, match="neither a run nor results"):
        report([ROOT / "scripts"], tmp_path / "b.html")
    with pytest.raises(UserError, match=r"--markdown .*needs results"):
        report([broken], markdown=tmp_path / "b.md")


def test_an_svg_is_the_same_twice_and_keeps_its_ids_apart() -> None:
    def draw(name: str) -> str:
        with style():
            ax = axes()
            ax.plot([1, 2], [3, 4], "o", label="a < b")
            ax.set_title("5 $ and 6 $")
            return svg(ax, name)

    one, two = draw("a"), draw("b")
    assert one == draw("a")
    ids = [set(re.findall(r'\bid="([^"]*)"', text)) for text in (one, two)]
    assert ids[0] and not ids[0] & ids[1]
    assert "currentColor" in one and "5 $ and 6 $" in one and "#010203" not in one


def test_what_was_found_by_earlier_rules_comes_first_until_it_is_measured_anew(results: Make, tmp_path: Path) -> None:
    arms = {"random": [30.0, 32.0], "wave": [40.0, 41.0], "sweet": [47.0, 48.0], "wave_conditioned": [42.0, 44.0]}
    cells = {(arm, size): values for arm, values in arms.items() for size in ("L6H6", "L3H6")}
    choices = {key: [50.0, 51.0] if key[0] == "wave" else [47.0, 48.0] for key in cells if key[0] in ("wave", "sweet")}
    results(choices, table="table4", spec={"ablation": True})
    lost = "- Choices of ours that lose, in points on average: sweet against wave −3.00"
    for version in (1, 2):
        page = results_page(read([results(cells, spec={"version": version})])[0], tmp_path / "page.md", "this command")
        at_once = page.partition("## How to read")[0]
        assert ("main comparison so far" in at_once) == (lost in at_once) == (version == 1)
        assert ("Against the best baseline at each size: +7.00 points" in at_once) == (version == 1)
        assert at_once.count("one source stands behind all seeds") == at_once.count("(#history)") == (version == 1)
        ranked = re.findall(r"^\| (\S+) \| (.+?) \| (.+?) \| (.+?) \|$", at_once, re.M)
        assert [row[:3] for row in ranked if row[0] not in ("---", "arm")] == (version == 2) * [
            ("sweet", "ours", "47.50"),
            ("wave_conditioned", "baseline, conditioned", "43.00"),
            ("wave", "baseline", "40.50"),
            ("random", "baseline", "31.00"),
        ]
        assert all(row[3].startswith(("+4.50 ± ", "+7.00 ± ", "+16.50 ± ")) for row in ranked[3:])


def test_the_documentation_is_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails: sweet report results --markdown docs/results.md --overwrite"""
    monkeypatch.chdir(ROOT)
    page = Path("docs/results.md")
    tables, _ = read([Path("results")])
    written = results_page(tables, page, command([Path("results")], page))
    assert written == page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", written):
        assert (page.parent / link).exists(), link
