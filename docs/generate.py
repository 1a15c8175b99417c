"""Hook of mkdocs: the pages that are written by the program itself, so that they cannot be out of date.

``reference/cli.md`` is every ``--help``, ``reference/recipes.md`` every key with its default, ``reference/examples.md``
the files of ``examples/``, ``reference/converts.md`` the census of ``scripts/census.py``. Pages link to what these are
written from, which is there in the repository too; on the site the link leads to the page.

Pictures of tables, which lie beside their results, are added as ``tables/``.
"""

from __future__ import annotations

import ast
import inspect
import json
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
WIDTH = 100
WRITTEN_FROM = {
    "src/sweet/recipes/schema.py": "docs/reference/recipes.md",
    "examples": "docs/reference/examples.md",
    "results/convert/census.json": "docs/reference/converts.md",
}
OPTION = re.compile(r"(?<=[\s>])(--[a-z][a-z-]*)")
LINK = re.compile(r"(?P<picture>!?)\[(?P<words>[^]]*)\]\((?P<target>\.\./[^)#]*)(?P<rest>[^)]*)\)")


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs before it looks for pages."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for picture in sorted((ROOT / "results").rglob("*table.png")):
        place = f"tables/{picture.relative_to(ROOT / 'results').as_posix()}"
        files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called with every page: what lies outside of docs/ is on the site as a page or a picture, or as its path."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def link(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(folder, found["target"]))
        if place.startswith("docs/"):
            return found[0]
        shown = WRITTEN_FROM.get(place)
        if found["picture"]:
            shown = place.replace("results/", "docs/tables/", 1)
        if shown is None:
            return f"{found['words']} `{place}`"
        return f"{found['picture']}[{found['words']}]({posixpath.relpath(shown, folder)}{found['rest']})"

    return LINK.sub(link, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Called with every page: docstrings name other things as sphinx does, and a line may not end inside of `--`."""
    html = re.sub(
        r'<div class="language-bash.*?</div>', lambda found: OPTION.sub(r"<span>\1</span>", found[0]), html, flags=re.S
    )
    return re.sub(r":(class|func|data|mod):(<code>)[.~]*", r"\2", html)


def pages() -> dict[str, str]:
    return {"cli": command_line(), "recipes": recipe_keys(), "examples": examples(), "converts": what_converts()}


def command_line() -> str:
    """Help of the program and of every verb, as a terminal shows it."""
    import typer.main

    from sweet.cli import app

    parts = ["# Command line\n\nThe text of `--help`, verb by verb.\n"]
    for words, text in _helps(typer.main.get_command(app), "sweet"):
        parts.append(f"## {words}\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(parts)


def _helps(command: Any, words: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=words.rpartition(" ")[2], parent=parent, terminal_width=WIDTH)
    yield words, command.get_help(context)
    for name, child in getattr(command, "commands", {}).items():
        yield from _helps(child, f"{words} {name}", context)


def recipe_keys() -> str:
    """A whole recipe of either verb, and the classes that check it and the tasks' ``head``."""
    from sweet.recipes import schema
    from sweet.recipes.loader import dump_recipe, load_recipe
    from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
    from sweet.tasks.registry import ENTRIES, task_class

    text = "# Keys of recipes\n\nNested keys are dotted on the command line: `optim.weight_decay=0.1`.\n"
    for title, recipe in (
        ("`sweet pretrain`: recipe `small`", load_recipe(PretrainRecipe, "small")),
        ("`sweet finetune`: the defaults", load_recipe(FinetuneRecipe, None)),
    ):
        text += f"\n## {title}\n\n```yaml\n{dump_recipe(recipe)}```\n"
    text += "\n## Types and ranges\n\nWhat stands after `=` is the default; a key without one has to be given.\n"
    for name, cls in sorted(vars(schema).items()):
        if inspect.isclass(cls) and cls.__module__ == schema.__name__ and not name.startswith("_"):
            text += f"\n### {name}\n\n```python\n{_fields(inspect.getsource(cls))}\n```\n"
    text += "\n## Keys of `head`\n\nEach task has its own; its recipe changes some of the defaults.\n"
    for task in ENTRIES:
        options = task_class(task).Options
        keys = f"```python\n{_fields(inspect.getsource(options))}\n```" if options.model_fields else "None."
        text += f"\n### {task}\n\n{keys}\n"
    return text


def _fields(source: str) -> str:
    """A class without its methods (they check, which the messages of errors say better) and what is no key."""
    lines = source.splitlines()
    others = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.FunctionDef | ast.Assign)]  # type: ignore[attr-defined]
    for node in reversed(others):
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
        del lines[first - 1 : node.end_lineno]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).rstrip())


def examples() -> str:
    """Every file of ``examples/``: its own words, and its code."""
    text = (
        "# Examples\n\nOne file for each thing that sweet can do. Each runs in seconds on one core and downloads "
        "nothing: `python examples/NAME.py`. The tests run them all.\n"
    )
    for path in sorted((ROOT / "examples").glob("*.py"), key=lambda path: (path.stem != "toy", path.stem)):
        code = path.read_text(encoding="utf-8")
        words = (ast.get_docstring(ast.parse(code)) or "").partition("\n")[0]
        text += f"\n## {path.name}\n\n{words}\n\n```python\n{code}```\n"
    return text


def what_converts() -> str:
    """Which of timm's pre-trained ViTs ``sweet convert`` takes, from the committed census."""
    census = json.loads((ROOT / "results" / "convert" / "census.json").read_text(encoding="utf-8"))
    rows = census["rows"]
    text = (
        f"# What converts\n\n`sweet convert timm:NAME` takes {census['tags']} of the {census['of']} pre-trained "
        f"plain ViTs of timm {census['timm']}. Each architecture was made at a reduced size with no weight at a "
        "neutral value and converted: the full size in prefix order has timm's features, also at twice the image size, "
        "and three smaller sizes and a larger one were made, exported under the architecture's own name and loaded by "
        "timm (`python scripts/census.py`).\n\n"
        "In principal order the network is the same one too, but for architectures with a norm of the embedding, which "
        "no rotation passes: there the mean length of the tokens stands for that of each, and the last column is the "
        "relative difference of the products between tokens after the blocks, at random weights.\n"
    )
    text += "\n## By family\n\n| family | tags | convert |\n|---|---|---|\n"
    for family, members in _by(rows, lambda row: _family(row["architecture"])).items():
        good = sum(len(row["tags"]) for row in members if row["converts"])
        text += f"| {family} | {sum(len(row['tags']) for row in members)} | {good} |\n"
    text += "\n## What they have\n\n| | architectures | tags |\n|---|---|---|\n"
    good_rows = [row for row in rows if row["converts"]]
    for feature in sorted({feature for row in good_rows for feature in row["features"]}):
        having = [row for row in good_rows if feature in row["features"]]
        text += f"| {feature} | {len(having)} | {sum(len(row['tags']) for row in having)} |\n"
    text += "\n## Refused\n\n| architecture | tags | why |\n|---|---|---|\n"
    for row in rows:
        if not row["converts"]:
            text += f"| {row['architecture']} | {len(row['tags'])} | {'; '.join(row['reasons'])} |\n"
    text += "\n## All that convert\n\n| architecture | tags | features | at twice the size | principal |\n"
    text += "|---|---|---|---|---|\n"
    for row in good_rows:
        numbers = " | ".join(f"{row[name]:.0e}" for name in ("error", "error_2x", "principal"))
        text += f"| {row['architecture']} | {len(row['tags'])} | {numbers} |\n"
    return text


FAMILIES = {
    "clip": "CLIP", "siglip": "SigLIP", "dinov2": "DINOv2", "dinov3": "DINOv3", "^eva": "EVA", "^beit": "BEiT",
    "^deit": "DeiT", "^flexivit": "FlexiViT", "^aimv2": "AIMv2", "_pe_": "Perception Encoder", "radio": "RADIO",
    "^naflexvit": "NaFlexViT", "^samvit": "SAM", "sapiens": "Sapiens", "rope": "rotary ViT",
    "relpos": "relative positions", r"reg\d": "ViT with registers",
}  # fmt: skip


def _family(architecture: str) -> str:
    return next(
        (name for pattern, name in FAMILIES.items() if re.search(pattern, architecture)),
        "other ViT (AugReg, MAE, DINO, ...)",
    )


def _by(rows: list[Any], key: Any) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: -sum(len(row["tags"]) for row in item[1])))
