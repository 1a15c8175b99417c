"""The arguments and options that several verbs share: one name, one type, one help text each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from sweet.errors import nearest
from sweet.initialise.registry import NAMES, check_method
from sweet.storage.paths import ON_DISK
from sweet.tasks.registry import TASKS
from sweet.template.image_size import ImageSize, read_image_size


def count(text: str | int) -> int:
    """Option parser for whole numbers from 1; unlike typer's own, its error repeats the value."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text} is not a whole number from 1")
    return int(text)


def pixels(text: object) -> ImageSize:
    """Option parser for the size of an image."""
    try:
        return read_image_size(text)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None


def task_name(text: str) -> str:
    """Option parser for the name of a task."""
    if text not in TASKS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(TASKS)}{nearest(text, list(TASKS))}")
    return text


def method_name(text: str) -> str:
    """Option parser for the name of an initialiser."""
    check_method(text)
    return text


def compared_method(text: str) -> str:
    """Option parser for the name of an initialiser that a family is compared with."""
    check_method(text, "--compare")
    return text


def complete(incomplete: str, words: Iterable[str]) -> list[str]:
    """For the shell: those of ``words`` that begin so, and files and folders."""
    paths = (f"{path}/" if path.is_dir() else str(path) for path in Path().glob(f"{incomplete}*"))
    return [*(word for word in words if word.startswith(incomplete)), *sorted(paths)]


def complete_pretraining(incomplete: str) -> list[str]:
    """Recipes and their keys."""
    from sweet.recipes.loader import bundled_recipes, key_names
    from sweet.recipes.schema import PretrainRecipe

    return complete(incomplete, [*bundled_recipes(), *(f"{key}=" for key in key_names(PretrainRecipe))])


def complete_finetuning(incomplete: str) -> list[str]:
    """Folders, and keys of a fine-tuning."""
    from sweet.recipes.loader import key_names
    from sweet.recipes.schema import FinetuneRecipe

    return complete(incomplete, [f"{key}=" for key in key_names(FinetuneRecipe)])


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes of fine-tunings."""
    from sweet.recipes.loader import bundled_recipes

    return complete(incomplete, bundled_recipes("finetune"))


def complete_task(incomplete: str) -> list[str]:
    """Names of tasks."""
    return [name for name in TASKS if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Names of initialisers."""
    return [name for name in NAMES if name.startswith(incomplete)]


ONE_OF_TASKS: Any = {"parser": task_name, "metavar": "|".join(TASKS), "autocompletion": complete_task}
NUMBER: Any = {"parser": count, "metavar": "N"}
SOURCES = (
    f"{', '.join(f'{name}:{place}' for name, place in ON_DISK.items())}, wds:PATTERN, hub:NAME, stream:NAME or shapes:"
)

RecipeWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE|KEY=VALUE",
        help="A bundled recipe or a YAML file, and overrides.",
        autocompletion=complete_pretraining,
    ),
]
ModelWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL|KEY=VALUE", help="A model folder, and overrides.", autocompletion=complete_finetuning
    ),
]
Model = Annotated[Path, typer.Argument(help="A model folder.")]
Source = Annotated[str, typer.Argument(metavar="SRC", help=SOURCES)]
Data = Annotated[str, typer.Option(metavar="SRC", help=SOURCES)]
DataOrRecipe = Annotated[str | None, typer.Option(metavar="SRC", help=f"{SOURCES}; wins over the recipe.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Output folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the contents of --out.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Load weights without comparing them with SHA256SUMS first.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
Split = Annotated[str, typer.Option(help="train, val or test.")]
BatchSize = Annotated[int, typer.Option(**NUMBER, help="Batch size.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
ONE_OF_METHODS: Any = {"metavar": "NAME", "autocompletion": complete_method}
Method = Annotated[str, typer.Option(**ONE_OF_METHODS, parser=method_name, help=f"Initialiser: {', '.join(NAMES)}.")]
LogWith = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER", help="Where curves go: tensorboard (default), wandb, mlflow, ...; may be repeated."
    ),
]
Pixels = Annotated[int | None, typer.Option(**NUMBER, help="Pixels; default: as the source.")]
PIXELS: Any = {"parser": pixels, "metavar": "N|HxW"}
ImagePixels = Annotated[Any, typer.Option(**PIXELS, help="Pixels, or height x width; default: as the source.")]
Task = Annotated[str, typer.Option(**ONE_OF_TASKS, help="The task.")]
TaskOrRun = Annotated[
    str | None, typer.Option(**ONE_OF_TASKS, help="The task; default: that of the run to resume, else classify.")
]
