"""Verbs that train, and what they would take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.storage.paths import check_images

from .app import app
from .options import (
    NUMBER,
    DataOrRecipe,
    Json,
    LogWith,
    ModelWords,
    NoVerify,
    Out,
    Overwrite,
    Quiet,
    RecipeWords,
    Resume,
    TaskOrRun,
    complete_recipe,
)
from .words import split_words


@app.command()
def pretrain(
    out: Out,
    words: RecipeWords = None,
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    log_with: LogWith = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a template from images (default recipe: quickstart)."""
    from sweet import verbs

    name, overrides = split_words(words, data, log_with)
    show(
        lambda: verbs.pretrain(name, out=out, resume=resume, overwrite=overwrite, quiet=quiet, overrides=overrides),
        as_json=as_json,
    )


@app.command()
def finetune(
    out: Out,
    words: ModelWords = None,
    task: TaskOrRun = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE", help="A YAML file, or the name of a task's recipe.", autocompletion=complete_recipe
        ),
    ] = None,
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    log_with: LogWith = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on labelled images."""
    from sweet import verbs

    model, overrides = split_words(words, log_with=log_with)
    if model is None:
        raise UserError("MODEL is missing: sweet finetune MODEL --data SRC --out DIR [key=value ...]")
    show(
        lambda: verbs.finetune(
            model,
            out=out,
            data=data,
            task=task,
            recipe=recipe,
            resume=resume,
            overwrite=overwrite,
            verify=not no_verify,
            quiet=quiet,
            overrides=overrides,
        ),
        as_json=as_json,
    )


@app.command()
def plan(
    words: RecipeWords = None,
    data: DataOrRecipe = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="GPU", help="Estimate the hours on one: h200, h100, a100, l40s, rtx4090.")
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the peak of --gpu that is reached; default: 0.3.")
    ] = None,
    images: Annotated[int | None, typer.Option(**NUMBER, help="In an epoch, for --gpu without --data.")] = None,
    as_json: Json = False,
) -> None:
    """Check a recipe and count its cost; with --data also look at the images and time two steps."""
    from sweet.costs.plan import plan as run
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe

    name, overrides = split_words(words, data)
    recipe = load_recipe(PretrainRecipe, name or "quickstart", overrides)
    from sweet.costs.gpus import GpuGuess

    guess = GpuGuess.of(gpu, utilisation, images)
    if data is None:
        show(lambda: run(recipe, guess), as_json=as_json)
        return
    if images is not None:
        raise UserError(f"--images {images}: has no effect beside --data, whose images are counted")
    check_images("--data", data)
    from sweet.training.trial import trial

    def here() -> Mapping[str, object]:
        found = trial(recipe)
        return {"here": found.to_dict(), **run(recipe, guess, found.images)}

    show(here, as_json=as_json)
