"""The shape of the house: arrows point one way, no cycle, template/ stands alone; recipes tell results."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from importlib.util import resolve_name
from pathlib import Path

import pytest

import sweet
from sweet.recipes.loader import bundled_recipes, load_recipe
from sweet.recipes.schema import PretrainRecipe

ROOT = Path(sweet.__file__).parent

# From the ground up: a file may import files of its own row and of the rows above it in this list.
ROWS = [
    {"errors", "version", "console", "files", "interrupts", "template"},
    {"recipes", "models"},  # models.config is a plain record that recipes build
    {"data"},
    {"costs", "storage"},
    {"tasks"},
    {"training"},
    {"inference"},
    {"initialise", "convert"},
    {"results"},
    {"api", "describe", "doctor", "export", "family", "bench", "verbs"},
    {"cli"},
    {"__main__"},
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, also inside functions."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                full = f"{module}.{alias.name}"
                found.add(full if full in MODULES else module)
    return found


# The package itself only hands out what others define, lazily; nobody inside may import from it.
GRAPH = {
    name: {other for other in imports(path) if other.partition(".")[0] == "sweet"}
    for name, path in MODULES.items()
    if name != "sweet"
}


def row(module: str) -> int:
    unit = module.split(".")[1]
    rows = [number for number, units in enumerate(ROWS) if unit in units]
    assert rows, f"sweet.{unit}: give it a row in tests/test_structure.py"
    return rows[0]


def test_the_import_graph_has_no_cycle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_arrows_point_one_way() -> None:
    for module, others in GRAPH.items():
        for other in others:
            assert other != "sweet", f"{module} imports from the package itself"
            assert row(other) <= row(module), f"{module} imports {other}"


def test_rooms_are_few_and_do_not_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for module, others in GRAPH.items():
        room = module.split(".")[1]
        rooms.setdefault(room, set()).update(other.split(".")[1] for other in others if other != "sweet")
    assert len(rooms) <= 26
    # models.config is a plain record below the recipes that build it
    below = {room: others - {room} for room, others in rooms.items()}
    TopologicalSorter(below).prepare()


def test_a_function_fits_on_a_screen_and_a_file_on_a_few() -> None:
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 350, f"{module} has {len(text.splitlines())} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= 60, f"{module}.{node.name} has {lines} lines"


def test_records_are_typed_and_words_are_the_fields() -> None:
    texts = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}
    assert sum(text.count("dict[str, Any]") for text in texts.values()) < 50
    for module, text in texts.items():
        word = re.search(r"\b(told|facts|asked)\b", text)
        assert word is None, f"{module}: {word and word[0]!r} is not one of our words"


def test_template_stands_alone() -> None:
    for name, path in MODULES.items():
        if name.startswith("sweet.template"):
            strangers = {
                other
                for other in imports(path)
                if not other.startswith("sweet.template")
                and other.partition(".")[0] not in sys.stdlib_module_names | {"torch"}
            }
            assert not strangers, f"{name} imports {strangers}"


def test_no_pickle() -> None:
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"import pickle|torch\.(load\((?!.*weights_only=True)|save\()|allow_pickle", text), name


@pytest.mark.parametrize("name", bundled_recipes())
def test_a_recipe_says_what_it_gave(name: str) -> None:
    text = (resources.files("sweet") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    header = text.partition("\nname:")[0]
    for field in ("result", "spread", "time", "hardware", "command"):
        assert re.search(rf"^# {field}: +\S", header, re.M), f"{name}.yaml does not state its {field}"
    assert f"sweet pretrain {name}" in header
    assert load_recipe(PretrainRecipe, name).name == name
