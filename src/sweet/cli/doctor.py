"""The verb about this machine."""

from __future__ import annotations

from sweet.console import show

from .app import app
from .options import Json


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions, devices and threads, and what is missing for which verb."""
    from sweet.doctor import doctor as run

    show(run, as_json=as_json)
