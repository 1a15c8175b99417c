"""What was measured, for people: one HTML file to send to somebody, and the page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweet.errors import UserError
from sweet.files import write_text

from .family import is_family, read_family
from .files import find_tables
from .runs import RunFolder, is_run, read_run
from .sentences import sentences
from .table import Table


def report(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    markdown: Path | None = None,
    data: str | None = None,
) -> dict[str, object]:
    """Write what ``paths`` hold (run folders, results of a bench) to ``out`` as HTML, to ``markdown`` as a page.

    ``data`` are images for the reconstructions of sources. Returns each table's summary and what was written. Raises
    UserError naming the folder or file that cannot be read, before anything is written.
    """
    from .render.html import page
    from .render.markdown import results_page

    tables, runs = read(paths)
    families = {path: read_family(path) for path in paths if is_family(path)}
    if markdown is not None and not tables:
        raise UserError(f"--markdown {markdown}: needs results of sweet bench; {paths[0]} holds none")
    written = {}
    if out is not None:
        written[out] = page(tables, runs, families, data=data)
    if markdown is not None:
        written[markdown] = results_page(tables, markdown, command(paths, markdown))
    for path, text in written.items():
        write_text(path, text)
    return {
        "tables": [{"table": table.title, "summary": " ".join(sentences(table))} for table in tables],
        "families": [{"family": str(folder), "members": len(one.members)} for folder, one in families.items()],
        "runs": [{"run": str(run.folder), "kind": run.kind} for run in runs],
        "written": [str(path) for path in written],
    }


def read(paths: Sequence[Path]) -> tuple[list[Table], list[RunFolder]]:
    """Every table and run of ``paths``, those of families too, each once.

    Raises UserError naming a folder that has neither, or a bad file.
    """
    tables: dict[tuple[Path, str], Table] = {}
    runs: dict[Path, RunFolder] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder")
        if is_family(path):
            known = read_family(path)
            members = [path / name for name in known.folders]
            runs |= {member.resolve(): read_run(member) for member in members if is_run(member)}
            continue
        if is_run(path):
            runs[path.resolve()] = read_run(path)
            continue
        found = find_tables(path)
        if not found:
            raise UserError(f"{path}: holds neither a run nor results of sweet bench")
        tables |= {(table.folder.resolve(), table.task): table for table in found}
    return list(tables.values()), list(runs.values())


def command(paths: Sequence[Path], markdown: Path) -> str:
    """The command that writes a page again."""
    return f"sweet report {' '.join(path.as_posix() for path in paths)} --markdown {markdown.as_posix()} --overwrite"
