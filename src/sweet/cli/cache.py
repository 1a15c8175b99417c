"""Verbs about what sweet keeps on this machine so as not to make it again."""

from __future__ import annotations

from typing import Annotated

import typer

from sweet.console import show

from .app import cache_app
from .options import Json


@cache_app.command("list")
def cache_list(as_json: Json = False) -> None:
    """Show conversions, sources of a bench and decoded images, with their sizes."""
    from sweet.storage.cache import listing

    show(listing, as_json=as_json)


@cache_app.command("clear")
def cache_clear(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="As list shows them.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Of this kind only: converted, sources, starts, cells or data; or all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove entries; by default all conversions of checkpoints."""
    from sweet.storage.cache import clear

    show(lambda: clear(names or [], kind=kind), as_json=as_json)
