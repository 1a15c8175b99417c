"""Verbs that compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.storage.outputs import output_folder
from sweet.storage.paths import check_images

from .app import app
from .options import NUMBER, DataOrRecipe, Device, Json, Overwrite, Resume
from .words import listed

CHECK = "check"
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        envvar="SWEET_CHECKPOINT",
        help="The pre-trained ViT that `--protocol real` starts from: a folder of timm or transformers.",
    ),
]


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help=f"Which table; an unknown name prints the list. `{CHECK}`: check that --out compares fairly."
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write.")] = None,
    protocol: Annotated[
        Literal["nano", "micro", "small", "paper", "real"], typer.Option(help="Scale of the experiment.")
    ] = "micro",
    methods: Annotated[str | None, typer.Option(help="Rows of the table, with commas; default: all.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Sizes as L6H6, with commas; default: the table's.")] = None,
    seeds: Annotated[int | None, typer.Option(**NUMBER, help="Default: the table's.")] = None,
    workers: Annotated[
        int | None, typer.Option(**NUMBER, help="Processes side by side; default: up to 2 on a CPU, 1 on a GPU.")
    ] = None,
    device: Device = "auto",
    max_minutes: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="Stop at a checkpoint after this many minutes.")
    ] = None,
    data: DataOrRecipe = None,
    transfer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SRC", help="Where a further data set of the table is; may be repeated."),
    ] = None,
    checkpoint: Checkpoint = None,
    archive: Annotated[
        Path | None, typer.Option(metavar="FILE.tar", help="Also put all JSON of --out into one file.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--dry-run", help="Check the protocol and count its cost; run nothing.")
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare initialisers: a table and a picture."""
    cells: dict[str, Any] = {"methods": listed(methods), "sizes": listed(sizes), "seeds": seeds}
    if name == CHECK and not plan:
        _check(out, as_json)
        return
    check_images("--data", data)
    for images in transfer or ():
        check_images("--transfer", images.partition("=")[2])
    from sweet.bench.protocols import find
    from sweet.bench.run import dry_run, run

    table, found = find(name, protocol)
    if plan:
        show(lambda: dry_run(found, table, out=out, **cells), as_json=as_json)
        return
    place = _needed(out)
    cells |= {"workers": workers, "max_minutes": max_minutes, "device": device}
    cells |= {"data": data, "transfer": transfer, "checkpoint": checkpoint, "archive": archive}
    with output_folder(place, resume=resume, overwrite=overwrite):
        result = show(lambda: run(found, table, out=place, **cells), as_json=as_json)
    if result["failed"]:
        raise typer.Exit(1 if result["measured"] else 2)


def _check(out: Path | None, as_json: bool) -> None:
    """Print what is unfair in the results of a folder; exit code 2 where anything is."""
    from sweet.results.fairness import check

    found = check(_needed(out))
    show(lambda: found, as_json=as_json)
    if found["violations"]:
        raise typer.Exit(2)


def _needed(out: Path | None) -> Path:
    if out is None:
        raise UserError("--out is missing: the folder of the results")
    return out
