"""The verbs as functions: they check, keep ``out`` whole, work, and return what the command line prints.

Everything that can be checked without torch is checked before it is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from sweet.console import Listener, listening_to_progress, say
from sweet.costs.budget import chosen_budget
from sweet.errors import UserError
from sweet.files import dotted, verifying
from sweet.recipes.loader import load_recipe, task_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.storage.outputs import output_folder, training_folder
from sweet.storage.paths import (
    after_restart,
    check_apart,
    check_checkpoint,
    check_folder,
    check_images,
    check_whole,
    checked_pixels,
    need_source,
    saved_recipe,
    task_of_run,
)
from sweet.template.image_size import ImageSize

Place = str | Path
R = TypeVar("R", PretrainRecipe, FinetuneRecipe)


def pretrain(
    recipe: Place | None = None,
    *,
    out: Place,
    data: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Listener | None = None,
    overrides: Sequence[str] = (),
    **keys: object,
) -> Mapping[str, object]:
    """Learn a template from images, as ``sweet pretrain`` does.

    Arguments: ``recipe`` is the name of a bundled one (default: quickstart) or a YAML file, ``data`` the images,
    ``out`` the run folder. ``keys`` are those of the recipe, groups as dicts: ``epochs=3, optim={"weight_decay":
    0.1}``; so are ``overrides``, as on the command line: ``["optim.weight_decay=0.1"]``. ``progress`` is called with a
    :class:`sweet.console.Progress` at each line of the log, and nothing is shown then.
    Returns: what the run took. Raises: UserError for bad input, before anything is written.
    """
    place = Path(out)
    resume, overwrite = after_restart(resume, overwrite)
    saved = saved_recipe(place, resume)
    if resume and not overwrite and recipe is None and saved is None:
        raise UserError(f"--resume: --out {out} holds no run to go on with; name a RECIPE to start one")
    keys |= {} if data is None else {"data.source": data}
    name = recipe or saved or "quickstart"
    loaded = changed_recipe(PretrainRecipe, name, overrides, keys, resumed=saved is not None)
    with output_folder(place, resume=resume, overwrite=overwrite, run=True), listening_to_progress(progress):
        from sweet.models.device import plain_tensors
        from sweet.training.pretrain import pretrain as run

        _note_nothing(resume, saved, place)
        return plain_tensors()(run)(loaded, place, resume=resume, quiet=quiet)


def finetune(
    model: Place,
    *,
    out: Place,
    data: str | None = None,
    task: str | None = None,
    recipe: Place | None = None,
    resume: bool = False,
    overwrite: bool = False,
    verify: bool = True,
    quiet: bool = False,
    progress: Listener | None = None,
    overrides: Sequence[str] = (),
    **keys: object,
) -> Mapping[str, object]:
    """Train a model folder on labelled images, as ``sweet finetune`` does.

    Arguments: as of :func:`pretrain`; ``task`` is by default that of the run to resume, else classify, ``recipe`` the
    task's own. ``verify`` compares the model with its SHA256SUMS.
    Returns: the metrics of the best validation, the task's own first, and under ``training`` what the run took. Raises:
    UserError for bad input, before anything is written.
    """
    place = Path(out)
    resume, overwrite = after_restart(resume, overwrite)
    saved = saved_recipe(place, resume)
    if resume and not overwrite and saved is None and data is None and recipe is None:
        raise UserError(f"--resume: --out {out} holds no run to go on with; give --data SRC to start one")
    check_folder("MODEL", Path(model))
    keys |= {} if data is None else {"data.source": data}
    task = task_of_run(place, saved, task)
    name = saved or recipe or task_recipe(task)
    loaded = changed_recipe(FinetuneRecipe, name, overrides, keys, resumed=saved is not None)
    check_apart(place, "MODEL", str(model))
    with (
        output_folder(place, resume=resume, overwrite=overwrite, run=True),
        verifying(verify),
        listening_to_progress(progress),
    ):
        check_folder("MODEL", Path(model), "model")
        from sweet.models.device import plain_tensors
        from sweet.training.finetune import finetune as run

        _note_nothing(resume, saved, place)
        return plain_tensors()(run)(Path(model), loaded, place, task=task, resume=resume, quiet=quiet)


def init(
    source: Place,
    *,
    out: Place,
    depth: int | None = None,
    heads: int | None = None,
    params: str | float | None = None,
    flops: str | float | None = None,
    latency: str | None = None,
    method: str = "sweet",
    fit: str | None = None,
    fit_images: int | None = None,
    data: str | None = None,
    img_size: ImageSize | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    verify: bool = True,
    progress: Listener | None = None,
    **switches: object,
) -> Mapping[str, object]:
    """Make a model folder of any depth and width from a source, as ``sweet init`` does; returns what was made.

    Arguments: ``source`` is a folder of sweet or a checkpoint of others; a size, or one of ``params="12M"``,
    ``flops="2G"``, ``latency="4ms@cpu"``; ``switches`` of the ``method``; the others as of
    :func:`sweet.initialise.make.initialise_to`. Raises UserError for bad input, before anything is written.
    """
    place = Path(out)
    shape = {"depth": depth, "heads": heads, "patch_size": patch_size, "in_chans": in_chans}
    check_whole(shape | {"fit_images": fit_images}, least=1)
    check_whole({"seed": seed}, least=0)
    pixels = checked_pixels(img_size)
    budget = chosen_budget(params, flops, latency, {"--depth": depth, "--heads": heads})
    check_apart(place, "SOURCE", str(source))
    with output_folder(place, resume=resume, overwrite=overwrite), verifying(verify), listening_to_progress(progress):
        check_checkpoint("SOURCE", str(source))
        check_images("--fit", fit)
        check_images("--data", data)
        from sweet.initialise.make import finished, initialise_to
        from sweet.models.device import plain_tensors

        wanted: Mapping[str, Any] = {**shape, "img_size": pixels, "method": method, "seed": seed}
        if resume and (made := finished(place, wanted)):
            return made
        with training_folder(place) as run, plain_tensors():
            return initialise_to(
                str(source),
                place,
                budget=budget,
                fit=fit,
                fit_images=fit_images,
                data=data,
                device=device,
                run=run,
                given=switches,
                **wanted,
            )


def evaluate(
    model: Place,
    *,
    data: str,
    task: str | None = None,
    split: str = "val",
    batch_size: int = 256,
    device: str = "auto",
    limit: int | None = None,
    verify: bool = True,
    progress: Listener | None = None,
) -> Mapping[str, object]:
    """The metrics of a fine-tuned model folder on labelled images, as ``sweet evaluate`` does.

    Arguments: ``task`` checks that it was trained for that; ``limit`` takes the first images only. ``progress`` as of
    :func:`pretrain`, called at each batch. Raises: UserError for another task or other classes.
    """
    check_whole({"batch_size": batch_size, "limit": limit}, least=1)
    check_folder("MODEL", Path(model), "model")
    check_images("--data", data)
    with verifying(verify), listening_to_progress(progress):
        from sweet.inference.evaluate import evaluate as run
        from sweet.models.device import plain_tensors

        options: Mapping[str, Any] = {"split": split, "batch_size": batch_size, "device": device, "limit": limit}
        return plain_tensors()(run)(Path(model), task, data, **options)


def changed_recipe(
    cls: type[R],
    name: Place | None,
    overrides: Sequence[str],
    keys: Mapping[str, object] | None = None,
    *,
    resumed: bool,
) -> R:
    """A recipe with what is changed of it, ``key=value`` or as ``keys``.

    Raises UserError where it names no images, or some that are not there; a finished run that is resumed needs none.
    """
    more: list[str] = [f"{key}={json.dumps(value, default=str)}" for key, value in dotted(keys or {}).items()]
    try:
        loaded = load_recipe(cls, name, [*overrides, *more])
    except UserError:
        if resumed and name is not None:
            _check_begun(cls, Path(name))
        raise
    need_source(loaded.data.source, there=not resumed)
    return loaded


def _check_begun(cls: type[R], saved: Path) -> None:
    """Raises UserError where a recipe that cannot be resumed is that of the other verb that trains."""
    verbs: dict[type[BaseModel], str] = {PretrainRecipe: "pretrain", FinetuneRecipe: "finetune"}
    [other] = verbs.keys() - {cls}
    try:
        load_recipe(other, saved)
    except UserError:
        return
    raise UserError(f"--resume: --out {saved.parent} was begun by sweet {verbs[other]}, not {verbs[cls]}")


def _note_nothing(resume: bool, saved: str | None, out: Path) -> None:
    """Say that ``--resume`` begins a run where there is none; a scheduler starts one command again and again."""
    if resume and saved is None:
        say(f"note: --resume: --out {out} holds no run; this one begins")
