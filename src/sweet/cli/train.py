"""Verbs that train, and what they would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.files import verifying
from sweet.storage.outputs import output_folder

from .app import app
from .options import DataOrRecipe, Json, ModelWords, NoVerify, Out, Overwrite, Quiet, RecipeWords, Resume, Task
from .words import after_restart, check_apart, folder_and_recipe, need_source, saved_recipe, split_words


@app.command()
def pretrain(
    out: Out,
    words: RecipeWords = None,
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a template from images (default recipe: quickstart)."""
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe

    name, overrides = split_words(words, data)
    resume, overwrite = after_restart(resume, overwrite)
    saved = saved_recipe(out, resume)
    if resume and not overwrite and name is None and saved is None:
        raise UserError(f"--resume: --out {out} holds no run to go on with; name a RECIPE to start one")
    recipe = load_recipe(PretrainRecipe, name or saved or "quickstart", overrides)
    need_source(recipe.data.source)
    with output_folder(out, resume=resume, overwrite=overwrite, run=True):
        from sweet.training.pretrain import pretrain as run

        show(lambda: run(recipe, out, resume=resume, quiet=quiet), as_json=as_json)


@app.command()
def finetune(
    out: Out,
    words: ModelWords = None,
    task: Task = "classify",
    recipe_name: Annotated[
        str | None, typer.Option("--recipe", metavar="RECIPE", help="A YAML file, or the name of a task's recipe.")
    ] = None,
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on labelled images."""
    from sweet.recipes.loader import task_recipe

    resume, overwrite = after_restart(resume, overwrite)
    saved = saved_recipe(out, resume)
    if resume and not overwrite and saved is None and data is None and recipe_name is None:
        raise UserError(f"--resume: --out {out} holds no run to go on with; give --data SRC to start one")
    chosen = saved or recipe_name or task_recipe(task)
    usage = "sweet finetune MODEL --data SRC --out DIR [key=value ...]"
    model, recipe = folder_and_recipe("MODEL", words, data, chosen, usage=usage)
    check_apart(out, "MODEL", str(model))
    with output_folder(out, resume=resume, overwrite=overwrite, run=True), verifying(not no_verify):
        from sweet.training.finetune import finetune as run

        show(lambda: run(Path(model), recipe, out, task=task, resume=resume, quiet=quiet), as_json=as_json)


@app.command()
def plan(words: RecipeWords = None, data: DataOrRecipe = None, as_json: Json = False) -> None:
    """Check a recipe and count its cost; nothing is run."""
    from sweet.costs.plan import plan as run
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe

    name, overrides = split_words(words, data)
    recipe = load_recipe(PretrainRecipe, name or "quickstart", overrides)
    show(lambda: run(recipe), as_json=as_json)
