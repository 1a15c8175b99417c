"""Verbs that train, and what they would take."""

from __future__ import annotations

from typing import Annotated

import typer

from sweet.console import show
from sweet.storage.outputs import output_folder

from .app import app
from .options import DataOrRecipe, Json, ModelWords, Out, Overwrite, Quiet, RecipeWords, Resume, Task
from .words import folder_and_recipe, need_source, saved_recipe, split_words


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
    recipe = load_recipe(PretrainRecipe, name or saved_recipe(out, resume) or "quickstart", overrides)
    need_source(recipe.data.source)
    with output_folder(out, resume=resume, overwrite=overwrite):
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
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on labelled images."""
    from sweet.recipes.loader import task_recipe

    chosen = saved_recipe(out, resume) or recipe_name or task_recipe(task)
    usage = "sweet finetune MODEL --data SRC --out DIR [key=value ...]"
    model, recipe = folder_and_recipe("MODEL", words, data, chosen, usage=usage)
    with output_folder(out, resume=resume, overwrite=overwrite):
        from sweet.training.finetune import finetune as run

        show(lambda: run(model, recipe, out, task=task, resume=resume, quiet=quiet), as_json=as_json)


@app.command()
def plan(words: RecipeWords = None, data: DataOrRecipe = None, as_json: Json = False) -> None:
    """Check a recipe and count its cost; nothing is run."""
    from sweet.costs.plan import plan as run
    from sweet.recipes.loader import load_recipe
    from sweet.recipes.schema import PretrainRecipe

    name, overrides = split_words(words, data)
    recipe = load_recipe(PretrainRecipe, name or "quickstart", overrides)
    show(lambda: run(recipe), as_json=as_json)
