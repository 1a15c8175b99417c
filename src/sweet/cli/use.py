"""Verbs that use what was made."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.outputs import check_output_file, output_folder

from .app import app
from .options import NUMBER, ONE_OF_TASKS, BatchSize, Data, Device, Json, Model, Overwrite, Split
from .words import check_folder


@app.command()
def evaluate(
    model: Model,
    data: Data,
    task: Annotated[str | None, typer.Option(**ONE_OF_TASKS, help="What it was trained for, to be checked.")] = None,
    split: Split = "val",
    batch_size: BatchSize = 256,
    device: Device = "auto",
    limit: Annotated[int | None, typer.Option(**NUMBER, help="Only the first N images.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on labelled images."""
    check_folder("MODEL", model)
    from sweet.training.evaluate import evaluate as run

    show(
        lambda: run(model, task, data, split=split, batch_size=batch_size, device=device, limit=limit),
        as_json=as_json,
    )


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int | None, typer.Option(**NUMBER, help="Answers per image; of classes 5 if not told.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder for pictures of what is seen.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Tell what is in the images."""
    check_folder("MODEL", model)
    for image in images:
        if not image.is_file():
            raise UserError(f"IMAGES {image}: no such file")
    from sweet.training.evaluate import predict as run

    with output_folder(out, overwrite=overwrite) if out is not None else nullcontext():
        show(lambda: run(model, images, top, device, out), as_json=as_json)


@app.command()
def embed(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The parquet file to write.")],
    split: Split = "val",
    batch_size: BatchSize = 256,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one feature vector per image to a parquet file."""
    check_folder("MODEL", model)
    check_output_file(out, overwrite=overwrite)
    from sweet.training.evaluate import embed as run

    show(lambda: run(model, data, out, split, batch_size, device), as_json=as_json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="SOURCE|MODEL", help="A folder made by sweet.")],
    as_json: Json = False,
) -> None:
    """Show what a folder holds, and check its sums."""
    check_folder("SOURCE", path)
    from sweet.inspect import inspect as run

    show(lambda: run(path), as_json=as_json)
