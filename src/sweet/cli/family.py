"""One verb for several sizes."""

from __future__ import annotations

from typing import Annotated

import typer

from sweet.console import show
from sweet.costs.budget import read_sizes
from sweet.errors import UserError
from sweet.files import verifying
from sweet.storage.outputs import output_folder
from sweet.storage.paths import check_apart, check_checkpoint, saved_recipe

from .app import app
from .options import (
    ONE_OF_METHODS,
    DataOrRecipe,
    ImagePixels,
    Json,
    Method,
    NoVerify,
    Out,
    Overwrite,
    Quiet,
    Resume,
    Task,
    compared_method,
    complete_finetuning,
)
from .words import listed, split_words

SourceWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE|KEY=VALUE",
        help="A source or a checkpoint as for init, and overrides of finetune.",
        autocompletion=complete_finetuning,
    ),
]


@app.command()
def family(
    sizes: Annotated[
        str, typer.Option(metavar="LIST", help="Parameters or sizes, with commas: 3M,6M,12M or L3H6,L6H6.")
    ],
    out: Out,
    words: SourceWords = None,
    task: Task = "classify",
    data: DataOrRecipe = None,
    method: Method = "sweet",
    img_size: ImagePixels = None,
    latency: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Also time one image there: cpu, cuda, cuda:N or mps.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            **ONE_OF_METHODS,
            parser=compared_method,
            help="Also fine-tune the same sizes from this initialiser, as random; may be repeated.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Fine-tune each size by so many seeds; means, spread.")] = 1,
    resume: Resume = False,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune several sizes and chart accuracy against parameters."""
    source, overrides = split_words(words, data)
    if source is None:
        raise UserError("SOURCE is missing: sweet family SOURCE --sizes 3M,6M --data SRC --out DIR [key=value ...]")
    requested = listed(sizes) or []
    read_sizes(requested)
    from sweet.recipes.loader import task_recipe
    from sweet.verbs import FinetuneRecipe, changed_recipe

    recipe = changed_recipe(FinetuneRecipe, saved_recipe(out, resume) or task_recipe(task), overrides, resumed=resume)
    check_apart(out, "SOURCE", source)
    with output_folder(out, resume=resume, overwrite=overwrite), verifying(not no_verify):
        check_checkpoint("SOURCE", source)
        from sweet.family import family as run

        show(
            lambda: run(
                source,
                requested,
                recipe,
                out,
                task=task,
                method=method,
                img_size=img_size,
                latency=latency,
                compare=compare or (),
                seeds=seeds,
                resume=resume,
                quiet=quiet,
            ),
            as_json=as_json,
        )
