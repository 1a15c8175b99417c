"""Commands and code of README and the site work from the first line to the last, and their numbers were measured."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import typer.main
import yaml
from PIL import Image
from typer.testing import CliRunner

from sweet.cli import app
from sweet.costs.budget import size_cost
from sweet.models.config import ViTConfig
from sweet.tasks.registry import ENTRIES
from sweet.template.sizes import Size
from sweet.version import VERSION

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("tasks/*.md"))]
HISTORY = ("log.md", "decisions.md")  # not instructions


def commands(page: Path) -> list[list[str]]:
    """Every ``sweet ...`` of a page's code blocks as words, also behind ``torchrun ... -m``."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    text = "".join(code for language, code in blocks if language in ("", "bash"))
    found = (re.search(r"(?:^|-m )sweet (.*)", line) for line in text.replace("\\\n", " ").splitlines())
    return [shlex.split(match[1], comments=True) for match in found if match]


ALL = [(page.name, words) for page in PAGES if page.name not in HISTORY for words in commands(page)]


def test_the_pages_have_commands() -> None:
    assert len(ALL) > 50
    assert {"pretrain", "init", "convert", "finetune", "family", "bench"} <= {words[0] for _, words in ALL}


@pytest.mark.parametrize(("page", "words"), ALL, ids=[f"{page} {' '.join(words)}"[:90] for page, words in ALL])
def test_a_command_is_understood(page: str, words: list[str]) -> None:
    program = typer.main.get_command(app)
    context = program.context_class(program, info_name="sweet")
    while words and hasattr(program, "commands"):
        if words == ["--version"]:
            return
        assert words[0] in program.commands, f"{page}: no such verb: {words[0]}"
        program, words = program.commands[words[0]], words[1:]
    program.make_context(program.name, list(words), parent=context)  # raises for what it does not know


# A walk takes the words of a page and makes them small: they stand first, so that what is said later wins.
SMALL = {
    "pretrain": "device=cpu workers=0 max_steps=4 batch_size=8 model.depth=2 model.heads=2 model.head_dim=8 "
    "data.img_size=16 model.patch_size=4 mae.decoder_width=16 mae.decoder_depth=1 mae.decoder_head_dim=8 "
    "template.order_images=16 -q",
    "finetune": "device=cpu workers=0 max_steps=3 batch_size=8 -q",
    "family": "device=cpu workers=0 max_steps=3 batch_size=8 -q",
    "convert": "--images 16 --device cpu",
    "init": "--device cpu",
    "evaluate": "--device cpu",
    "predict": "--device cpu",
}
# What a small template or a missing network makes impossible, and what stands for it.
INSTEAD = {
    "timm:vit_small_patch14_dinov2.lvd142m": "checkpoint",
    "3M,6M,12M,25M": "3k,L1H2,L2H2",
    "2M,4M,8M,16M": "3k,L1H2,L2H2",
    "3M,8M": "3k,L2H2",
    "1M,3M,6M,12M": "3k,L1H2,L2H2",
    "shapes:n=6000,size=32": "folder:photos",
    "data.labels=1000": "data.labels=16",
    "3M,6M,12M,25M,50M": "3k,L1H2,L2H2,L3H2",
    "48,224,224": "12,12,12",
    "--heal=2000": "--heal=2",
    "2000": "2",
    "steps=2000": "steps=2",
    "98": "32",
    "224": "32",
    "folder:PATH": "folder:photos",
    "PATH": "photos",
}
WALKS = ("README.md", "tutorial-own-images.md", "tutorial-timm.md", "sizes.md", "resume.md", "data.md", "recipes.md")
NOT_HERE = ("bench", "generate", "plan", "--version")  # tested elsewhere


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of somebody who has photographs of two kinds of flowers, and a checkpoint of timm."""
    import timm
    from timm.models import save_for_hf

    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("daisy", "rose"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (24, 20 + number, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.jpg")
    shutil.copy(tmp_path / "photos" / "val" / "rose" / "0.jpg", tmp_path / "photo.jpg")
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0
    )
    save_for_hf(theirs, tmp_path / "checkpoint", safe_serialization=True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", WALKS)
def test_walk(page: str, desk: Path, template: Path) -> None:
    """Every command of a page, one after the other, on tiny settings."""
    place = next(path for path in PAGES if path.name == page)
    if "recipes" in page:
        yaml = re.search(r"```yaml\n(.*?)```", place.read_text(), re.S)
        assert yaml
        (desk / "flowers.yaml").write_text(yaml[1])
    if page in ("sizes.md", "resume.md"):  # these go on from a tutorial
        shutil.copytree(template, desk / "runs" / "template")
        run("init", "runs/template", "--depth", "2", "--heads", "2", "--out", "runs/vit")
        run(*f"finetune runs/vit --data folder:photos --out runs/classifier {SMALL['finetune']}".split())
    for command in commands(place):
        if command[0] in NOT_HERE:
            continue
        if any(word in ("masks:PATH", "coco:PATH") or "runs/segmenter" in word for word in command):
            continue  # these need other data than a folder of photographs; tests/tasks has them
        words = [INSTEAD.get(word, word.replace("folder:PATH", "folder:photos")) for word in command]
        small = [] if "--resume" in words and words[0] == "pretrain" else SMALL.get(words[0], "").split()
        if page == "sizes.md" and words[0] == "init":  # a size for the small template
            words = [{"12M": "5k", "2G": "200k", "4ms@cpu": "1s@cpu"}.get(word, word) for word in words]
            words += ["--overwrite"]
        run(words[0], *small, *words[1:]) if words[0] in ("pretrain", "finetune", "family") else run(*words, *small)
    if page == "README.md":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other libraries, about themselves
            read = run_python(place)
        assert read["loss"].isfinite() and read["vit"].num_classes == read["classifier"].num_labels == 2
        assert read["logits"][0].shape == (len(read["images"]), 2)
        assert sum(p.numel() for p in read["lora"].parameters() if p.requires_grad) > 0


def run_python(page: Path) -> dict[str, Any]:
    """The names that a page's Python code leaves behind, all blocks run in their order."""
    code = "".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def run(*words: str) -> None:
    result = CliRunner().invoke(app, list(words), prog_name="sweet")
    assert result.exit_code == 0, (" ".join(words), result.output, result.exception)


def test_pictures_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    draw = runpy.run_path(str(DOCS / "draw.py"))["draw"]
    for folder in ("one", "two"):
        draw(tmp_path / folder)
    pages = [ROOT / "README.md", DOCS / "index.md", DOCS / "method.md"]
    shown = {name for page in pages for name in re.findall(r"pictures/(\w+\.svg)", page.read_text())}
    assert {path.name for path in (tmp_path / "one").iterdir()} == shown
    assert {path.name for path in (DOCS / "pictures").glob("*.*")} == shown
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert ElementTree.parse(DOCS / "pictures" / path.name).getroot().tag.endswith("svg")


def test_readme_states_what_was_measured() -> None:
    """Every line that `docs/measured.py` computes from the committed results stands in README, and in the picture."""
    measured = runpy.run_path(str(DOCS / "measured.py"))
    words = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").split())
    for line in measured["lines"]():
        assert " ".join(line.split()) in words, f"README does not say: {line} (python docs/measured.py)"
    for name, state in measured["STATED"].items():
        page = " ".join((DOCS / name).read_text(encoding="utf-8").split())
        for line in state():
            assert " ".join(line.split()) in page, f"{name} does not say: {line} (python docs/measured.py)"
    title = ElementTree.parse(DOCS / "pictures" / "gain.svg").getroot().find("{*}metadata//{*}title")
    assert title is not None and title.text == measured["Headline"].read().sentence(), "run python docs/draw.py"


def test_what_readme_says_of_a_result_follows_it() -> None:
    """Other results give other words: the gain is that of the best baseline at each size, not of one chosen by us."""
    headline = runpy.run_path(str(DOCS / "measured.py"))["Headline"].read()
    table = headline.table
    for size in headline.sizes:
        best = max(means[size] for arm in table.baselines if size in (means := table.means(arm, "top1")))
        assert headline.gains[size] == pytest.approx(table.means("sweet", "top1")[size] - best)
        assert headline.top1(headline.best(size), size) == best
    assert headline.gain == pytest.approx(headline.average(lambda _: "sweet") - headline.average(headline.best))


def test_readme_is_short_and_in_order() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 120
    code = "".join(re.findall(r"^```.*?^```", "\n".join(lines), re.M | re.S)).splitlines()
    assert len(code) > 30 and max(map(len, code)) <= 120  # a page does not wrap it
    heads = ["Install", "Three commands", "Python", "Recipes", "What you get", "Use it elsewhere", "Results"]
    assert [line[3:] for line in lines if line.startswith("## ")] == [*heads, "How it works", "Cite, licence"]


def test_the_citation_names_paper_and_software() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION and citation["type"] == "software"
    assert citation["preferred-citation"]["url"] == "https://arxiv.org/abs/2601.19694"
    assert len(citation["preferred-citation"]["authors"]) == 6


OLD_WORDS = re.compile(
    r"\b(told|rivals?|loud|loudest|luck|mend(s|ed)?|asked|tells|facts)\b|\bsweet\.(budget|recipe|plan|metrics|report)\b"
)


def test_the_words_are_the_fields() -> None:
    """The field's words, also where a person reads: pages, help texts, recipes, examples and scripts."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in PAGES if path.name not in ("log.md", "results.md")}
    for folder, pattern in (("examples", "*.py"), ("scripts", "*"), ("src/sweet/recipes", "**/*.yaml")):
        found = [path for path in (ROOT / folder).glob(pattern) if path.is_file()]
        texts |= {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in found}
    texts["--help"] = runpy.run_path(str(DOCS / "generate.py"))["pages"]()["cli"]
    assert len(texts) > 50
    for name, text in texts.items():
        for line in text.splitlines():
            found_word = OLD_WORDS.search(line)
            assert found_word is None, f"{name}: {found_word and found_word[0]!r} in: {line}"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere_in_the_repository_too(page: Path) -> None:
    """The build of the site checks those between pages; here also those to files beside them."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert ":" in target or (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_site_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    """Strict: a link or an anchor that leads nowhere, or a page that is not in the menu, ends the build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "http_proxy": "http://0.0.0.0:9",
        "https_proxy": "http://0.0.0.0:9",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    tables = (tmp_path / "site" / "results" / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="(\.\./tables/[^"]*)"', tables)
    assert len(pictures) > 5 and all((tmp_path / "site" / "results" / picture).is_file() for picture in pictures)
    at_once = re.sub(r"<details.*?</details>", "", tables, flags=re.S)
    rankings = (DOCS / "results.md").read_text(encoding="utf-8").count("| arm | what it is | average |")
    assert at_once.count("<table") == rankings > 0  # those of the first screen; all others are folded
    assert tables.count("<table") > 5 * len(pictures)  # and rendered as tables
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(
            r"<(?:script|img|iframe)[^>]*src=\"(?:https?:)?//[^\"]*|<link[^>]*href=\"(?:https?:)?//[^\"]*", html
        )
    for page in DOCS.rglob("*.md"):  # none of their links to each other is lost, beside those of the menu
        name = page.relative_to(DOCS).as_posix().removesuffix("index.md").removesuffix(".md")
        built = tmp_path / "site" / name / "index.html"
        article = built.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
        leads = {(built.parent / target).resolve() for target in re.findall(r'href="([^"#]*)', article)}
        for target in re.findall(r"\]\(([^):#]+\.md)", page.read_text(encoding="utf-8")):
            place = (page.parent / target).resolve()
            if DOCS in place.parents:
                wanted = place.relative_to(DOCS).with_suffix("").as_posix().removesuffix("index")
                assert tmp_path / "site" / wanted in leads, f"{page.name}: {target}"
    assert 'href="reference/examples/"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "sweet.api.load" in (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")


def test_every_task_has_a_page_with_its_picture() -> None:
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)
    menu = str(site["nav"])
    for task in ENTRIES:
        page = DOCS / "tasks" / f"{task}.md"
        text = page.read_text(encoding="utf-8")
        [picture] = re.findall(r"!\[[^]]+\]\(([^)]*)\)", text)
        with Image.open(page.parent / picture) as image:
            assert min(image.size) > 150 and image.width <= 1100
        assert f"tasks/{task}.md" in menu
        assert any(words[0] == "finetune" for words in commands(page))


def test_the_notebook_has_what_its_commands_print(tmp_path: Path) -> None:
    """Its outputs are those of its commands: those that cost nothing are run once more, the others are complete."""
    notebook = runpy.run_path(str(DOCS / "notebook.py"))
    text = (DOCS / "notebook.md").read_text(encoding="utf-8")
    seen: list[tuple[str, str]] = []

    def run(number: int, command: str, before: str) -> str:
        seen.append((command, before))
        return f"output of {number}\n"

    again = notebook["with_outputs"](text, run)
    assert len(seen) == text.count("```bash") == again.count("\noutput of ") >= 8
    for command, output in seen:
        assert output.strip() and "Traceback" not in output and "error:" not in output, command
    shown = dict(zip(map(str.strip, (command for command, _ in seen)), (output for _, output in seen), strict=True))
    init = next(output for command, output in shown.items() if command.startswith("sweet init runs/template --depth 3"))
    size = size_cost(ViTConfig(depth=3, heads=6, head_dim=16, img_size=32, patch_size=4), Size(3, 6, 16))
    assert f"{size.params:,}" in init or str(size.params) in init
    assert notebook["printed"]("echo a; echo; echo 'b  '", tmp_path) == "a\nb\n"
    for found in notebook["PICTURE"].finditer(text):
        assert (DOCS / found["shown"]).is_file(), found["shown"]


def test_generated_pages() -> None:
    pages = runpy.run_path(str(DOCS / "generate.py"))["pages"]()
    program = typer.main.get_command(app)
    for verb in program.commands:  # type: ignore[attr-defined]
        assert f"\n## sweet {verb}\n" in pages["cli"]
    assert "principal|prefix" in pages["cli"]
    assert "weight_decay: 0.05" in pages["recipes"] and "class WidthKeys" in pages["recipes"]
    assert "anchor_scale: float" in pages["recipes"] and "frozenset" not in pages["recipes"]  # keys of head, no more
    for path in (ROOT / "examples").glob("*.py"):
        assert f"\n## {path.name}\n" in pages["examples"]
