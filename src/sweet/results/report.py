"""What was measured, for people: one HTML file to send to somebody, and the page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweet.errors import UserError
from sweet.files import write_text

from .read import read


def report(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    markdown: Path | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """Write what ``paths`` hold (run folders, results of a bench) to ``out`` as HTML, to ``markdown`` as a page.

    ``data`` are images for the reconstructions of sources. Returns each table's summary and what was written. Raises
    UserError naming the folder or file that cannot be read, before anything is written.
    """
    from .render.html import page
    from .render.markdown import results_page, summary

    tables, runs = read(paths)
    if markdown is not None and not tables:
        raise UserError(f"--markdown {markdown}: needs results of sweet bench; {paths[0]} holds none")
    written = {}
    if out is not None:
        written[out] = page(tables, runs, data=data)
    if markdown is not None:
        written[markdown] = results_page(tables, markdown, command(paths, markdown))
    for path, text in written.items():
        write_text(path, text)
    return {
        "tables": [{"table": table.title, "summary": summary(table)} for table in tables],
        "runs": [{"run": str(run.folder), "kind": run.kind} for run in runs],
        "written": [str(path) for path in written],
    }


def command(paths: Sequence[Path], markdown: Path) -> str:
    """The command that writes a page again."""
    return f"sweet report {' '.join(path.as_posix() for path in paths)} --markdown {markdown.as_posix()} --overwrite"
