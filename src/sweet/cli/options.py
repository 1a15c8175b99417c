"""The arguments and options that several verbs share: one name, one type, one help text each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sweet.initialise.registry import NAMES
from sweet.tasks.registry import TASKS


def count(text: str | int) -> int:
    """Option parser for whole numbers from 1; unlike typer's own, its error repeats the value."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text} is not a whole number from 1")
    return int(text)


def task_name(text: str) -> str:
    """Option parser for the name of a task."""
    if text not in TASKS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(TASKS)}")
    return text


ONE_OF_TASKS: Any = {"parser": task_name, "metavar": "|".join(TASKS)}
NUMBER: Any = {"parser": count, "metavar": "N"}
SOURCES = (
    "folder:PATH, parquet:PATH, csv:PATH, coco:PATH, yolo:PATH, masks:PATH, packed:FILE, wds:PATTERN, hub:NAME "
    "or shapes:"
)

RecipeWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="RECIPE|KEY=VALUE", help="A bundled recipe or a YAML file, and overrides."),
]
ModelWords = Annotated[
    list[str] | None, typer.Argument(metavar="MODEL|KEY=VALUE", help="A model folder, and overrides.")
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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
Split = Annotated[str, typer.Option(help="train, val or test.")]
BatchSize = Annotated[int, typer.Option(**NUMBER, help="Batch size.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Method = Annotated[str, typer.Option(help=f"Initialiser: {', '.join(NAMES)}.")]
Pixels = Annotated[int | None, typer.Option(**NUMBER, help="Pixels; default: as the source.")]
Task = Annotated[str, typer.Option(**ONE_OF_TASKS, help="The task.")]
