"""Verbs about images."""

from __future__ import annotations

from typing import Annotated

import typer

from sweet.console import show
from sweet.outputs import output_folder

from .app import data_app
from .options import NUMBER, Json, Out, Overwrite, Source


@data_app.command("check")
def data_check(source: Source, as_json: Json = False) -> None:
    """Count images and classes; find corrupt and duplicate files; measure mean and std."""
    from sweet.data.check import check

    show(lambda: check(source), as_json=as_json)


@data_app.command("pack")
def data_pack(
    source: Source,
    img_size: Annotated[int, typer.Option(**NUMBER, help="Pixels of the short side; then a centre crop.")],
    out: Out,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the images, resized, as parquet files that `parquet:DIR` reads."""
    with output_folder(out, overwrite=overwrite):
        from sweet.data.check import pack_to

        show(lambda: pack_to(source, out, img_size), as_json=as_json)
