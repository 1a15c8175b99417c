"""The page: whole in itself, and not broken by names, gaps or damaged files."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sweet.errors import UserError
from sweet.results.render.draw import axes, style, svg
from sweet.results.render.markdown import results_page
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
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
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
                  "Environment", "Checksums of the results", "Recipe of fine-tuning"):  # fmt: skip
        assert title in words, title
    for table in reported["tables"]:
        assert table["table"] in words
        assert table["summary"].partition(". ")[0] in page.text
    beside = "SWEET (paper, ImageNet-1K)" in page.text.replace("\n", "")
    assert beside == any(table["table"].endswith("table1") for table in reported["tables"])
    assert page.tags.count("svg") >= 12
    assert out.stat().st_size < 3e6
    with pytest.raises(UserError, match="nothing"):
        report([tmp_path / "nothing"], out)


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
    [picture] = [load for load in page.loads if load.startswith("data:image/png")]
    sheet = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
    assert (sheet.width, sheet.height) == (6 * 64, 6 * 64)  # six images; the image, what is visible, four sizes


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


def test_the_documentation_is_what_the_results_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails: sweet report results --markdown docs/results.md --overwrite"""
    monkeypatch.chdir(ROOT)
    page = Path("docs/results.md")
    tables, _ = read([Path("results")])
    written = results_page(tables, page, command([Path("results")], page))
    assert written == page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", written):
        assert (page.parent / link).exists(), link
