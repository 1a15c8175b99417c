"""One verb for several sizes."""

from __future__ import annotations

from typing import Annotated

import typer

from sweet.console import show
from sweet.files import verifying
from sweet.storage.outputs import output_folder

from .app import app
from .options import DataOrRecipe, ImagePixels, Json, Method, NoVerify, Out, Overwrite, Quiet, Resume, Task
from .words import check_apart, folder_and_recipe, listed, saved_recipe


@app.command()
def family(
    sizes: Annotated[
        str, typer.Option(metavar="LIST", help="Parameters or sizes, with commas: 3M,6M,12M or L3H6,L6H6.")
    ],
    out: Out,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE|KEY=VALUE", help="A source or a checkpoint as for init, and overrides of finetune."
        ),
    ] = None,
    task: Task = "classify",
    data: DataOrRecipe = None,
    method: Method = "sweet",
    img_size: ImagePixels = None,
    latency: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Also time one image there: cpu, cuda, cuda:N or mps.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune several sizes and chart accuracy against parameters."""
    usage = "sweet family SOURCE --sizes 3M,6M --data SRC --out DIR [key=value ...]"
    source, recipe = folder_and_recipe("SOURCE", words, data, saved_recipe(out, resume), usage=usage, anywhere=True)
    check_apart(out, "SOURCE", str(source))
    with output_folder(out, resume=resume, overwrite=overwrite), verifying(not no_verify):
        from sweet.family import family as run

        show(
            lambda: run(
                source,
                listed(sizes) or [],
                recipe,
                out,
                task=task,
                method=method,
                img_size=img_size,
                latency=latency,
                resume=resume,
                quiet=quiet,
            ),
            as_json=as_json,
        )
