"""Verbs that compare."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sweet.console import show
from sweet.outputs import output_folder

from .app import app
from .options import NUMBER, DataOrRecipe, Device, Json, Out, Overwrite, Resume
from .words import listed


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Which table; a wrong name lists them.")],
    out: Out,
    protocol: Annotated[Literal["nano", "micro", "small", "paper"], typer.Option(help="How much work.")] = "micro",
    methods: Annotated[str | None, typer.Option(help="Initialisers, with commas; default: all.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Sizes as L6H6, with commas; default: the table's.")] = None,
    seeds: Annotated[int | None, typer.Option(**NUMBER, help="Default: the table's.")] = None,
    workers: Annotated[
        int | None, typer.Option(**NUMBER, help="Processes side by side; default: up to 2 on a CPU, 1 on a GPU.")
    ] = None,
    device: Device = "auto",
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop starting cells after this.")] = None,
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare initialisers: a table and a picture."""
    with output_folder(out, resume=resume, overwrite=overwrite):
        from sweet.bench import run

        show(
            lambda: run(
                name,
                protocol=protocol,
                methods=listed(methods),
                sizes=listed(sizes),
                seeds=seeds,
                workers=workers,
                max_minutes=max_minutes,
                device=device,
                out=out,
                data=data,
            ),
            as_json=as_json,
        )
