"""Verbs that use a model or a source."""

from __future__ import annotations

import os
from contextlib import nullcontext
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from sweet.console import show
from sweet.costs.budget import read_sizes
from sweet.errors import UserError
from sweet.storage.outputs import check_output_file, output_folder
from sweet.storage.paths import check_apart, check_folder, check_images

from .app import app
from .options import NUMBER, ONE_OF_TASKS, BatchSize, Data, Device, Json, Model, NoVerify, Out, Overwrite, Split
from .words import expanded, listed


@app.command()
def evaluate(
    model: Model,
    data: Data,
    task: Annotated[
        str | None, typer.Option(**ONE_OF_TASKS, help="Check that the model was trained for this task.")
    ] = None,
    split: Split = "val",
    batch_size: BatchSize = 256,
    device: Device = "auto",
    limit: Annotated[int | None, typer.Option(**NUMBER, help="Only the first N images.")] = None,
    no_verify: NoVerify = False,
    as_json: Json = False,
) -> None:
    """Measure a model on labelled images."""
    from sweet import verbs

    show(
        lambda: verbs.evaluate(
            model,
            data=data,
            task=task,
            split=split,
            batch_size=batch_size,
            device=device,
            limit=limit,
            verify=not no_verify,
        ),
        as_json=as_json,
    )


@app.command()
def predict(
    model: Model,
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders of them, or patterns such as 'photos/**/*.jpg'.")
    ],
    top: Annotated[int | None, typer.Option(**NUMBER, help="Predictions per image; of classes 5 by default.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least probability or score of a prediction, as 0.5; default: the task's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder for pictures of boxes or masks.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Predict the classes, boxes or masks of images."""
    check_folder("MODEL", model)
    found = expanded("IMAGES", images)
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold:g}: should be from 0 to 1")
    check_folder("MODEL", model, "model")
    if out is not None:
        check_apart(out, "MODEL", str(model))
    with output_folder(out, overwrite=overwrite) if out is not None else nullcontext():
        from sweet.inference.evaluate import predict as run

        show(lambda: run(model, found, top, device, out, threshold=threshold), as_json=as_json)


@app.command()
def generate(
    model: Model,
    out: Out,
    classes: Annotated[str, typer.Option(metavar="A,B|all", help="Names of the model's classes.")] = "all",
    per_class: Annotated[int, typer.Option(**NUMBER, help="Images of each class.")] = 8,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, at least 1; default: the model's.")] = None,
    steps: Annotated[int | None, typer.Option(**NUMBER, help="Sampler steps; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    batch_size: BatchSize = 256,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Generate images with a model that was trained for it."""
    check_folder("MODEL", model, "model")
    if guidance is not None and not 1 <= guidance < inf:
        raise UserError(f"--guidance {guidance:g}: should be at least 1 (1: none)")
    check_apart(out, "MODEL", str(model))
    with output_folder(out, overwrite=overwrite):
        from sweet.inference.generate import generate as run

        show(
            lambda: run(
                model,
                out,
                classes=None if classes == "all" else classes,
                per_class=per_class,
                guidance=guidance,
                steps=steps,
                seed=seed,
                batch_size=batch_size,
                device=device,
            ),
            as_json=as_json,
        )


@app.command()
def embed(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The parquet file to write.")],
    split: Split = "val",
    batch_size: BatchSize = 256,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one feature vector per image to a parquet file."""
    check_folder("MODEL", model)
    check_output_file(out, overwrite=overwrite)
    check_folder("MODEL", model, "model")
    check_images("--data", data)
    from sweet.inference.embed import embed as run

    show(lambda: run(model, data, out, split, batch_size, device), as_json=as_json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="SOURCE|MODEL", help="A folder made by sweet.")],
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file with SHA256SUMS.")] = False,
    as_json: Json = False,
) -> None:
    """Show the contents of a folder."""
    check_folder("SOURCE", path)
    # of numpy: its threads wait for one another by spinning, longer than one of them takes for all of a core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sweet.describe import inspect as run

    show(lambda: run(path, verify=verify), as_json=as_json)


@app.command()
def reconstruct(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder made by pretrain.")],
    data: Data,
    sizes: Annotated[str, typer.Option(metavar="SIZES", help="Sizes to make from it, as for family: L12H12,L6H6.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The PNG file to write.")],
    split: Split = "val",
    images: Annotated[int, typer.Option(**NUMBER, help="How many, drawn by the seed.")] = 6,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw how models of several sizes reconstruct masked patches."""
    check_folder("SOURCE", source)
    check_output_file(out, overwrite=overwrite)
    wanted = listed(sizes) or []
    read_sizes(wanted)
    check_folder("SOURCE", source, "template", "dense")
    check_images("--data", data)
    from sweet.inference.reconstruct import draw_reconstructions

    show(
        lambda: draw_reconstructions(source, wanted, data, out, split=split, count=images, seed=seed),
        as_json=as_json,
    )
