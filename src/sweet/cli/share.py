"""Verbs that export a model, and check an export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sweet.console import show
from sweet.files import verifying
from sweet.storage.outputs import output_folder
from sweet.storage.paths import check_apart, check_folder, check_images

from .app import app
from .options import BatchSize, Device, Json, NoVerify, Out, Overwrite, Split


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder; a source for hub and safetensors.")],
    to: Annotated[Literal["timm", "onnx", "hub", "safetensors", "transformers"], typer.Option(help="Target format.")],
    out: Out,
    head: Annotated[
        bool, typer.Option("--head/--no-head", help="With its head (a classifier, or all around the ViT) or without.")
    ] = True,
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"], typer.Option(help="Of the weights written; the half ones take half the space.")
    ] = "fp32",
    seeds: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="A run of the same recipe with another seed, for the model card; may be repeated."
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", metavar="NAME", help="As the hub names it, as mit; default: the source's, or other."),
    ] = None,
    repo: Annotated[str | None, typer.Option(metavar="USER/NAME", help="Upload the folder of --to hub.")] = None,
    private: Annotated[bool | None, typer.Option("--private/--public", help="Visibility of a new repository.")] = None,
    token: Annotated[str | None, typer.Option(help="Of the hub; default: your login.")] = None,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: Json = False,
) -> None:
    """Write a model for timm, transformers, ONNX or the hub."""
    check_folder("MODEL", model)
    check_apart(out, "MODEL", str(model))
    check_folder("MODEL", model, "template", "dense", "model")
    with output_folder(out, overwrite=overwrite), verifying(not no_verify):
        from sweet.export import export as run

        show(
            lambda: run(
                model,
                to,
                out,
                head=head,
                dtype=dtype,
                seeds=seeds or (),
                licence=licence,
                repo=repo,
                private=private,
                token=token,
            ),
            as_json=as_json,
        )


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that sweet wrote.")],
    data: Annotated[str | None, typer.Option(metavar="SRC", help="Measure its metrics again on these images.")] = None,
    split: Split = "val",
    batch_size: BatchSize = 256,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check a folder: checksums, loading, metrics."""
    check_folder("DIR", path)
    check_images("--data", data)
    from sweet.export import verify as run

    show(lambda: run(path, data=data, split=split, batch_size=batch_size, device=device), as_json=as_json)
