"""Where a verb may write: an empty place, a run to resume, or one that the user gives up with --overwrite."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweet.errors import UserError

# At least one of these lies in every folder that a verb has begun to write.
WRITTEN_BY_SWEET = ("env.json", "recipe.yaml", "config.json", "metrics.jsonl", "SHA256SUMS", "checkpoints")


@contextmanager
def output_folder(out: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """Guard the work that fills ``out``: UserError when it holds something, unless resumed or overwritten.

    What is overwritten stays aside until the work is done, and comes back if the work ends without writing.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    # Of several processes (torchrun), the first one decides; its exit ends the others.
    if os.environ.get("RANK", "0") == "0":
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: exists and is not a folder")
        filled = out.is_dir() and any(out.iterdir())
        if filled and not (resume or overwrite):
            raise UserError(f"--out {out}: not empty; use --resume to go on or --overwrite to start anew")
        if filled and overwrite:
            with _replaced(out):
                yield
            return
    yield


@contextmanager
def _replaced(out: Path) -> Iterator[None]:
    _check_replaceable(out)
    aside = out.absolute().with_name(f".{out.absolute().name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    out.rename(aside)
    try:
        yield
    finally:
        if out.is_dir() and any(out.iterdir()):
            shutil.rmtree(aside)
        else:
            if out.is_dir():
                out.rmdir()
            aside.rename(out)


@contextmanager
def loss_curve(out: Path) -> Iterator[Path]:
    """A folder for the loss curve of a short run; it goes to ``out`` in the end, when that is written whole."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        curve = Path(folder) / "metrics.jsonl"
        if curve.is_file():
            shutil.copyfile(curve, out / curve.name)


def check_output_file(out: Path, *, overwrite: bool, option: str = "--out") -> None:
    """UserError when a file to be written exists, or its folder does not."""
    if out.is_dir():
        raise UserError(f"{option} {out}: is a folder, not a file")
    if out.exists() and not overwrite:
        raise UserError(f"{option} {out}: the file exists (--overwrite replaces it)")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{option} {out}: no such folder {out.parent}")


def _check_replaceable(out: Path) -> None:
    """A slip of the finger must not delete a home folder or somebody's photographs."""
    place = out.resolve()
    if any(Path(keep).resolve().is_relative_to(place) for keep in (Path.cwd(), Path.home())):
        raise UserError(f"--overwrite: --out {out} contains the current or the home folder")
    if out.is_symlink() or not any((out / name).exists() for name in WRITTEN_BY_SWEET):
        raise UserError(f"--overwrite: --out {out} was not written by sweet; delete it yourself if you mean it")
