"""Verbs about images."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.storage.outputs import check_output_file, output_folder
from sweet.storage.paths import check_folder, check_images

from .app import data_app
from .options import NUMBER, PIXELS, Device, Json, Overwrite, Source, Split
from .words import counts, low_high


@data_app.command("check")
def data_check(source: Source, as_json: Json = False) -> None:
    """Count images and classes; say what is odd and what is done about it; measure mean and std."""
    check_images("--data", source)
    from sweet.data.check import check

    show(lambda: check(source).to_dict(), as_json=as_json)


@data_app.command("stats")
def data_stats(source: Source, split: Split = "train", as_json: Json = False) -> None:
    """Measure channels, range, mean and std of the images; propose the keys of a recipe."""
    check_images("--data", source)
    from sweet.data.stats import stats

    show(lambda: stats(source, split).to_dict(), as_json=as_json)


@data_app.command("pack")
def data_pack(
    source: Source,
    img_size: Annotated[Any, typer.Option(**PIXELS, help="Pixels that the centre of an image is resized to.")],
    out: Annotated[Path, typer.Option(metavar="DIR|FILE", help="A folder, or a file .safetensors.")],
    per_class: Annotated[
        str | None, typer.Option(metavar="SPLIT=N,...", help="At most N images of each class, of these splits only.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the images of --per-class.")] = 0,
    value_range: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Values of more than 8 bits that become 0 and 255.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the images, resized: parquet files that `parquet:DIR` reads, or one file that `packed:FILE` reads."""
    check_images("--data", source)
    chosen = None if per_class is None else counts("--per-class", per_class)
    ends = None if value_range is None else low_high("--value-range", value_range)
    single = out.suffix == ".safetensors"
    if single:
        check_output_file(out, overwrite=overwrite)
    with nullcontext() if single else output_folder(out, overwrite=overwrite):
        from sweet.data.repack import pack_to

        show(
            lambda: pack_to(source, out, img_size, per_class=chosen, seed=seed, value_range=ends).to_dict(),
            as_json=as_json,
        )


@data_app.command("near")
def data_near(
    embeddings: Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help="A parquet file that sweet embed wrote.")],
    query: Annotated[Path | None, typer.Option(metavar="IMAGE", help="Find what looks like this image.")] = None,
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="The model of the embeddings, for --query.")] = None,
    top: Annotated[int, typer.Option(**NUMBER, help="Rows to show.")] = 20,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find duplicates in a set of images, or the neighbours of one image, by cosine."""
    if not embeddings.is_file():
        raise UserError(f"EMBEDDINGS {embeddings}: no such file")
    if query is not None and not query.is_file():
        raise UserError(f"--query {query}: no such file")
    if model is not None:
        check_folder("--model", model)
    from sweet.inference.near import near

    show(lambda: near(embeddings, query=query, model=model, top=top, device=device), as_json=as_json)
