"""The verb that writes reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.storage.outputs import check_output_file
from sweet.storage.paths import check_folder, check_images

from .app import app
from .options import SOURCES, Json, Overwrite


@app.command()
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR|RESULTS_DIR...", help="Folders of runs, models or a bench.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The HTML file to write.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tables as Markdown, instead of or beside the HTML.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SRC", help=f"Images that templates reconstruct: {SOURCES}.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one HTML file about runs and benches, to read anywhere."""
    if out is None and markdown is None:
        raise UserError("--out is missing, for example --out report.html")
    for option, file in (("--out", out), ("--markdown", markdown)):
        if file is not None:
            check_output_file(file, overwrite=overwrite, option=option)
    for path in paths:
        check_folder("RUN_DIR", path)
    check_images("--data", data)
    from sweet.results.report import report as run

    show(lambda: run(paths, out, markdown=markdown, data=data), as_json=as_json)
