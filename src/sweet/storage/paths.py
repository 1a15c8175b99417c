"""What is looked at before the seconds that an import of torch takes: paths, names and recipes. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path

from sweet.errors import UserError
from sweet.files import read_json
from sweet.template.image_size import ImageSize, joined, read_image_size, sides, size_text, whole_patches

from .hub import is_hub_name
from .overwrite import NEW

ON_DISK = {name: "PATH" for name in ("folder", "parquet", "csv", "coco", "yolo", "masks")} | {"packed": "FILE"}
"""Readers of images whose names are followed by a path, and what that is."""

MOST = 2**63 - 1  # as a recipe's seed: torch's generators take no larger one


def need_source(source: str | None, *, there: bool = True) -> None:
    """Raises UserError where neither --data nor a recipe names images; ``there``: or where they are not there."""
    if source is None:
        raise UserError("--data is missing, and the recipe has no data.source")
    if there:
        check_images("--data", source)


def check_images(option: str, source: str | None) -> None:
    """Raises UserError for images on disk that are not there: before the seconds that an import of torch takes."""
    reader, _, place = (source or "").partition(":")
    if reader in ON_DISK and place and not Path(place).expanduser().exists():
        what = {"folder": "folder", "packed": "file"}.get(reader, "file or folder")
        raise UserError(f"{option} {source}: no such {what}")


def check_folder(option: str, path: Path, *kinds: str) -> None:
    """Raises UserError unless ``path``, given as ``option``, is a folder; of one of ``kinds``, where any are named."""
    if not path.is_dir():
        raise UserError(f"{option} {path}: no such folder")
    if kinds:
        from .records import read_record  # the schema of recipes takes a while, too

        read_record(path, kinds)


def check_checkpoint(option: str, text: str) -> None:
    """Raises UserError unless ``text`` is a path that is there, or the name of a checkpoint elsewhere."""
    if not (Path(text).expanduser().exists() or text.startswith("timm:") or is_hub_name(text)):
        raise UserError(f"{option} {text}: no such file or folder")


def check_whole(values: Mapping[str, object], *, least: int) -> None:
    """Raises UserError for the first of {argument: value} that is neither None nor a whole number from ``least`` to
    :data:`MOST`."""
    for name, value in values.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if value is not None and not whole:
            raise UserError(f"{name}={value!r}: expected a whole number")
        if isinstance(value, Integral) and value < least:
            raise UserError(f"{name}={value}: must be at least {least}")
        if isinstance(value, Integral) and int(value) > MOST:
            raise UserError(f"{name}={value}: must be at most {MOST}")


def checked_pixels(img_size: ImageSize | None) -> ImageSize | None:
    """The size of an image as :func:`read_image_size` reads it. Raises UserError."""
    try:
        return None if img_size is None else read_image_size(img_size)
    except ValueError as problem:
        raise UserError(f"img_size={img_size}: {problem}") from None


def check_apart(out: Path, option: str, source: str) -> None:
    """Raises UserError where ``out`` is the folder ``source`` that is read, given as ``option``."""
    if Path(source).is_dir() and out.resolve() == Path(source).resolve():
        raise UserError(f"--out {out}: is {option} itself")


def saved_recipe(out: Path, resume: bool) -> str | None:
    """The recipe of the run to resume, so that `--out DIR --resume` alone continues it."""
    saved = (folder / "recipe.yaml" for folder in (out / NEW, out))  # of what an interrupted --overwrite began, first
    return next((str(path) for path in saved if resume and path.is_file()), None)


def task_of_run(out: Path, saved: str | None, task: str | None) -> str:
    """The task of a fine-tuning: ``task``, which was named, or that of the run of the recipe ``saved``, or classify.

    Raises UserError where the run to resume was begun with another one; a run of earlier versions does not say its own.
    """
    machine = None if saved is None else Path(saved).with_name("env.json")
    values = read_json(machine) if machine is not None and machine.is_file() else None
    begun = values.get("task") if isinstance(values, dict) else None
    if begun is not None and task not in (None, begun):
        raise UserError(
            f"--task {task}: --resume: --out {out} was begun with --task {begun}; leave it out, or start anew with "
            "--overwrite"
        )
    return task or begun or "classify"


def after_restart(resume: bool, overwrite: bool) -> tuple[bool, bool]:
    """--resume and --overwrite as they are meant where ``torchrun --max-restarts`` starts a process again."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    return resume or again, overwrite and not again


def check_patches(size: ImageSize, patch: int, whose: str = "the source's patch size") -> None:
    """Raises UserError, with the nearest size that would do, for an ``--img-size`` that leaves a rest."""
    if not whole_patches(size, patch):
        near = joined(*(max(1, round(side / patch)) * patch for side in sides(size)))
        raise UserError(f"--img-size {size_text(size)} is not a multiple of {whose} {patch}; {size_text(near)} is")
