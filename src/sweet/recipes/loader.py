"""Reading and writing recipes: YAML plus ``key=value``, and errors that say where and what to write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sweet.errors import UserError, nearest

from .schema import FinetuneRecipe

R = TypeVar("R", bound=BaseModel)
Places = dict[str, str]  # dotted key -> where it was written: "micro.yaml:12" or "lr=1e-3"


MAX_TEXT, MAX_VALUES = 100_000, 10_000
"""Of a recipe: characters, and values with its aliases filled in. More is a slip, or meant to fill the memory."""


TAG = "tag:yaml.org,2002:"
NUMBERS = {
    "int": r"[-+]?(0|[1-9][\d_]*|0x[\da-fA-F]+)",
    "float": r"[-+]?(\d[\d_]*\.\d*|\.\d+|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
"""As people write them: ``1e-3`` is a number; ``010`` (8 in YAML 1.1), ``1:30`` (90) and dates are text."""
KINDS = (*NUMBERS, "str", "bool", "null", "seq", "map", "merge")
"""Of values in a recipe; others, such as sets and bytes, are refused."""


class _Loader(yaml.SafeLoader):
    """Safe YAML with :data:`NUMBERS` and :data:`KINDS`."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.removeprefix(TAG) in set(KINDS) - set(NUMBERS)]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(TAG) in KINDS
}


class _Dumper(yaml.SafeDumper):
    """Groups as blocks, lists on one line; text in quotes where any reader of YAML would take it for something else."""


for kind, written in NUMBERS.items():
    for reader in (_Loader, _Dumper):
        reader.add_implicit_resolver(f"{TAG}{kind}", re.compile(f"^({written})$"), list("-+.0123456789"))
_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


OTHER_NAMES = {
    "learningrate": "lr", "wd": "weight_decay", "bs": "batch_size", "batch": "batch_size", "numepochs": "epochs",
    "steps": "max_steps", "iterations": "max_steps", "numworkers": "workers", "randomseed": "seed",
}  # fmt: skip
"""What other programs call a key, without underscores: the key."""


def bundled_recipes(verb: str = "") -> list[str]:
    """Names of the recipes that come with the package: to pre-train by, or those of the verb ``finetune``."""
    folder = resources.files("sweet") / "recipes" / verb
    return sorted(f"{verb}/{e.name[:-5]}".lstrip("/") for e in folder.iterdir() if e.name.endswith(".yaml"))


def task_recipe(task: str) -> str | None:
    """The bundled recipe that a task is fine-tuned by when no other is named; None: the keys' own defaults."""
    return f"finetune/{task}" if f"finetune/{task}" in bundled_recipes("finetune") else None


def load_recipe(cls: type[R], name_or_path: str | Path | None, overrides: Sequence[str] = ()) -> R:
    """A checked recipe of class ``cls`` from a bundled name or a YAML path, and ``key=value`` overrides.

    None stands for an empty file: defaults and overrides only. Raises UserError, one line, with the file and
    line (or the override), the key, and the value or the nearest name.
    """
    label, text = ("defaults", "") if name_or_path is None else _read(cls, name_or_path)
    values, places = _parse(label, text)
    for override in overrides:
        _override(values, places, override)
    try:
        # Through JSON: its strict mode takes a list for a tuple but neither "3" for 3 nor true for 1.
        return cls.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise UserError(_describe(error, cls, label, places)) from None


def dump_recipe(recipe: BaseModel) -> str:
    """The recipe as YAML with every key written out; ``load_recipe`` reads it back to an equal recipe."""
    return as_yaml(recipe.model_dump(mode="json"))


def as_yaml(keys: Mapping[str, object]) -> str:
    """Keys in their order, quoted where YAML wants it."""
    return yaml.dump(dict(keys), Dumper=_Dumper, sort_keys=False, width=110)


def _read(cls: type[BaseModel], name_or_path: str | Path) -> tuple[str, str]:
    """The label for messages and the text of a recipe."""
    name, bundled, of_other = str(name_or_path), bundled_recipes(), bundled_recipes("finetune")
    verb, other = "pretrain", "finetune"
    if issubclass(cls, FinetuneRecipe):
        verb, bundled, other, of_other = other, of_other, verb, bundled
    if name in of_other:
        raise UserError(f"RECIPE {name}: is one of sweet {other} (of sweet {verb}: {', '.join(bundled)})")
    if name in bundled:
        text = (resources.files("sweet") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
        return f"{name}.yaml", text
    path = Path(name)
    if not path.exists() and path.suffix not in {".yaml", ".yml"}:
        raise UserError(
            f"RECIPE {name}: no such file or bundled recipe{nearest(name, bundled)} (bundled: {', '.join(bundled)})"
        )
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_TEXT + 1)
        if len(text) > MAX_TEXT:
            raise UserError(f"RECIPE {name}: longer than {MAX_TEXT:,} characters, and no recipe is")
        return name, text
    except FileNotFoundError:
        raise UserError(f"RECIPE {name}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"RECIPE {name}: not a text file") from None
    except OSError as error:
        raise UserError(f"RECIPE {name}: {error.strerror}") from None


def _parse(label: str, text: str) -> tuple[dict[str, Any], Places]:
    """Values and where each key stands."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_size(node, label)
        values = loader.construct_document(node) if node is not None else {}
        keys = list(_keys(node))
    except yaml.MarkedYAMLError as error:
        place = f"{label}:{error.problem_mark.line + 1}" if error.problem_mark else label
        raise UserError(f"{place}: not valid YAML: {error.problem}") from None
    except RecursionError:
        raise UserError(f"{label}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError) as error:  # of a tag that does not fit its value
        raise UserError(f"{label}: not valid YAML: {shortened(str(error))}") from None
    if not isinstance(values, dict):
        raise UserError(f"{label}:1: a recipe is a list of `key: value` lines, got {shortened(repr(values))}")
    places: Places = {}
    for key, line in keys:
        if key in places:
            raise UserError(f"{label}:{line}: {key}: written twice, first at {places[key]}")
        places[key] = f"{label}:{line}"
    return values, places


def _check_size(node: yaml.Node | None, label: str) -> None:
    """Aliases may make a short text long, or endless: raises UserError for more values than any recipe has."""
    sizes: dict[int, int] = {}

    def size(one: Any, inside: tuple[int, ...] = ()) -> int:
        if not isinstance(one, yaml.CollectionNode):
            return 1
        if id(one) in inside:
            raise UserError(f"{label}:{one.start_mark.line + 1}: not valid: an alias inside its own anchor")
        if id(one) not in sizes:
            below = (*inside, id(one))
            parts = (part for entry in one.value for part in (entry if isinstance(entry, tuple) else (entry,)))
            sizes[id(one)] = 1 + sum(size(part, below) for part in parts)
        return sizes[id(one)]

    if size(node) > MAX_VALUES:
        raise UserError(f"{label}: holds more than {MAX_VALUES:,} values once its aliases are filled in")


def _keys(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every dotted key below ``node`` with its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            yield path, key.start_mark.line + 1
            yield from _keys(value, f"{path}.")


def _override(values: dict[str, Any], places: Places, override: str) -> None:
    """Set one ``a.b=value`` in place."""
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise UserError(f"{override}: an override is written key=value, as in data.img_size=32")
    *groups, leaf = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise UserError(f"{override}: {group} is not a group of keys")
    values[leaf] = _value(text)
    places[path] = override


def _value(text: str) -> Any:
    """A scalar or a [list] as YAML would read it; anything else, such as `shapes:` or `a # b`, is text."""
    try:
        loader = _Loader(text if text[:1] in {"[", '"', "'"} else "")
        node = loader.get_single_node()
        if node is None:
            node = yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError):
        return text


def _describe(error: ValidationError, cls: type[BaseModel], label: str, places: Places) -> str:
    """One line for the first error: where, which key, what is wrong."""
    # a mistyped key is also a missing one; the typing error is what helps
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    more = error.error_count() - 1
    keys = first.get("ctx", {}).get("keys") or [".".join(map(str, first["loc"]))]
    spots = {key: _place(key, label, places) for key in keys}
    # Of several keys that do not fit together, blame the one that was just overridden.
    blamed = next((key for key in keys if not spots[key].startswith(label)), keys[0])
    tail = f" (and {more} more)" if more else ""
    return f"{spots[blamed]}: {blamed}: {_problem(first, cls)}{tail}"


def _place(key: str, label: str, places: Places) -> str:
    """Where ``key``, the nearest group around it, or else something inside it was written."""
    inside = next((place for name, place in places.items() if name.startswith(f"{key}.")), label)
    while key:
        if key in places:
            return places[key]
        key = key.rpartition(".")[0]
    return inside


def _problem(error: ErrorDetails, cls: type[BaseModel]) -> str:
    """What is wrong, in the words of someone who writes YAML."""
    problem, message = error["type"], error["msg"]
    if problem == "extra_forbidden":
        name = ".".join(map(str, error["loc"]))
        return "unknown key" + nearest(usual_name(name), list(key_names(cls)))
    if problem == "missing":
        return "missing, and it has no default"
    if problem == "recipe":
        return message
    if problem == "model_type":
        message = "should be a group of keys"
    message = message.replace("Input should", "should").replace("array", "list")
    return f"{message}, got {shortened(json.dumps(error['input']))}"


def usual_name(name: str) -> str:
    """The last name of a key that another program calls so; any other name is returned as it is."""
    return OTHER_NAMES.get(name.rpartition(".")[2].replace("_", "").lower(), name)


def shortened(text: str, limit: int = 120) -> str:
    """The beginning of a text that is too long for a message."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def key_names(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that ``cls`` knows, groups included."""
    for name, field in cls.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from key_names(field.annotation, f"{prefix}{name}.")
