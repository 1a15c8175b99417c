"""Where a verb may write, and that nothing is lost on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sweet.errors import UserError
from sweet.files import check_sums, write_sums, write_text
from sweet.storage import overwrite
from sweet.storage.outputs import LOCK, check_output_file, output_folder
from sweet.storage.ownership import FOLDERS, MARKER, Marker, sweep


def old_run(tmp_path: Path) -> Path:
    """A finished run of today, small."""
    out = tmp_path / "run"
    with output_folder(out, run=True):
        fill(out, "old")
    return out


def fill(out: Path, text: str) -> None:
    (out / "checkpoints" / "step-2").mkdir(parents=True)
    write_text(out / "checkpoints" / "step-2" / "state.json", text)
    write_text(out / "recipe.yaml", text)
    write_text(out / "config.json", text)
    write_sums(out, {name: out / name for name in ("config.json", "recipe.yaml")})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(MARKER))


def whole(out: Path, text: str = "old") -> bool:
    return (out / "config.json").read_text() == text and names(out)[:4] == [
        "SHA256SUMS",
        "checkpoints",
        "config.json",
        "recipe.yaml",
    ]


def test_a_new_or_empty_folder_is_free_and_stays_empty_where_nothing_is_written(tmp_path: Path) -> None:
    with output_folder(tmp_path / "new" / "deep"):
        pass
    with output_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", [".", "run"])
def test_a_link_to_nothing_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    out, said = tmp_path / "link" / below, "link is a link to nowhere, which does not exist"
    with pytest.raises(UserError, match=said), output_folder(out):
        pytest.fail("entered")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_holds_something_is_refused_and_stays(tmp_path: Path) -> None:
    out = old_run(tmp_path)
    with pytest.raises(UserError, match=f"--out {out}: .*--resume.*--overwrite"), output_folder(out):
        pytest.fail("entered")
    assert whole(out)


def test_resume_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    out = old_run(tmp_path)
    with output_folder(out, resume=True):
        assert whole(out)
    with pytest.raises(UserError, match="exclude"), output_folder(out, resume=True, overwrite=True):
        pytest.fail("entered")


@pytest.mark.parametrize(
    "name", ["README.md", "metrics.jsonl", "env.json", "SHA256SUMS", "model.safetensors", "checkpoints"]
)
@pytest.mark.parametrize("run", [False, True])
def test_resume_begins_no_run_over_files_of_others(tmp_path: Path, name: str, run: bool) -> None:
    place = tmp_path / name
    place.mkdir() if name in FOLDERS else place.write_text("{}")
    (tmp_path / "recipe.yaml").write_text("mine")
    said = f"--resume: --out {tmp_path} holds no run, .*overwritten: .*{name}"
    with pytest.raises(UserError, match=said), output_folder(tmp_path, resume=True, run=run):
        pytest.fail("entered")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "recipe.yaml"])


def test_resume_takes_a_run_whose_marker_a_copy_left_behind_and_a_log_beside_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "slurm.log").write_text("")
    with output_folder(tmp_path, resume=True, run=True):
        write_text(tmp_path / "env.json", '{"torch": "2.9"}')
        write_text(tmp_path / "recipe.yaml", "lr: 1")
    (tmp_path / MARKER).unlink()
    with output_folder(tmp_path, resume=True, run=True):
        pass


def test_what_is_locked_is_not_the_marker(tmp_path: Path) -> None:
    """Many versions of filelock empty the file that they lock, or remove it."""
    with output_folder(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK).exists() and Marker.of(tmp_path / "out") == Marker(
            pid=os.getpid(), host=socket.gethostname(), files=()
        )
        write_text(tmp_path / "out" / "new.json", "{}")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MARKER, "new.json"]


def test_overwrite_starts_from_nothing(tmp_path: Path) -> None:
    out = old_run(tmp_path)
    with output_folder(out, overwrite=True):
        assert not any((out / name).exists() for name in ("config.json", "checkpoints"))
        write_text(out / "new.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "new.json"]


@pytest.mark.parametrize("error", [UserError("no such data"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("written", ["nothing", "a little", "a checkpoint"])
def test_a_failed_or_interrupted_overwrite_gives_the_old_run_back(
    tmp_path: Path, error: BaseException, written: str
) -> None:
    out = old_run(tmp_path)
    with pytest.raises(type(error)), output_folder(out, overwrite=True, run=True):
        if written == "a little":
            (out / "recipe.yaml").write_text("new")
        if written == "a checkpoint":
            fill(out, "new")
        raise error
    assert whole(out)
    assert (out / overwrite.NEW).is_dir() == (written == "a checkpoint")
    # what was interrupted goes on with --resume, and replaces the old one then
    if written == "a checkpoint":
        with output_folder(out, resume=True, run=True):
            assert whole(out, "new")
        assert whole(out, "new") and names(out) == ["SHA256SUMS", "checkpoints", "config.json", "recipe.yaml"]


def test_what_a_killed_overwrite_left_is_settled_by_the_next_start(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from sweet.storage.outputs import output_folder
out = Path(sys.argv[1])
with output_folder(out, overwrite=True, run=True):
    (out / "checkpoints" / "step-4").mkdir(parents=True)
    (out / "recipe.yaml").write_text("new")
    os.kill(os.getpid(), 9)
"""
    out = old_run(tmp_path)

    def kill() -> None:
        assert subprocess.run([sys.executable, "-c", script, str(out)]).returncode == -9
        assert (out / overwrite.OLD / "config.json").read_text() == "old"

    for _ in range(2):  # killed again, it is still there
        kill()
    with pytest.raises(UserError, match="not empty"), output_folder(out):
        pytest.fail("entered")
    assert whole(out)
    kill()
    with output_folder(out, resume=True, run=True):
        assert (out / "checkpoints" / "step-4").is_dir() and (out / "recipe.yaml").read_text() == "new"
    assert not any((out / state).exists() for state in (overwrite.OLD, overwrite.NEW, overwrite.MOVING))


CALLS = ("replace", "mkdir", "rmdir", "fsync", "unlink")


@pytest.mark.parametrize("killed", [False, True], ids=["fault", "kill"])
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_a_fault_at_any_call_of_an_overwrite_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool, fails: bool
) -> None:
    """``kill``: every call after it fails too, as if there were none."""
    number = 0
    while True:
        number += 1
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        out = old_run(tmp_path)
        with monkeypatch.context() as patch:
            reached = fault(patch, number, killed)
            with suppress(OSError, KeyboardInterrupt), output_folder(out, overwrite=True, run=True):
                fill(out, "new")
                if fails:
                    raise KeyboardInterrupt
        if not reached():
            break
        with suppress(UserError), output_folder(out):  # the next start settles it
            pytest.fail("the folder was empty")
        assert whole(out) or whole(out, "new"), (number, names(out))
        assert all(good for good in check_sums(out).values())
    assert number > 15


def fault(patch: pytest.MonkeyPatch, number: int, killed: bool) -> Callable[[], bool]:
    """Let the ``number``-th call that changes the disk fail. Returns whether it came to that."""
    count = 0

    def failing(name: str) -> Callable[..., object]:
        call = getattr(os, name)

        def one(*args: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == number or (killed and count > number):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(args[0]))
            return call(*args, **options)

        return one

    for name in CALLS:
        patch.setattr(os, name, failing(name))
    return lambda: count >= number


def foreign_folders(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Folders that --overwrite must not touch, and what the message says."""
    unknown = "not written by sweet"
    for name, files in {
        "photos": ["a.jpg"],
        "hf-model": ["config.json", "model.safetensors", "thesis.txt"],
        "data": ["SHA256SUMS", "a.jpg"],
        "project": ["recipe.yaml", "checkpoints/best.pt", "work/a.txt"],
        "log": ["metrics.jsonl", "notes.md"],
        "env": ["env.json", "a.py"],
    }.items():
        folder = tmp_path / name
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("{}")
        yield folder, unknown
    sums = tmp_path / "listed"
    sums.mkdir()
    (sums / "a.jpg").write_text("x")
    (sums / "config.json").write_text('{"model_type": "vit"}')
    write_sums(sums, {name: sums / name for name in ("a.jpg", "config.json")})
    yield sums, unknown
    for file in ("thesis.txt", "checkpoints/mine.pt", "work/a.txt"):
        (place := tmp_path / file.replace("/", "-")).mkdir()
        run = old_run(place)
        (run / file).parent.mkdir(exist_ok=True)
        (run / file).write_text("precious")
        yield run, f"did not write: {file}"
    link = tmp_path / "link"
    link.symlink_to(old_run(tmp_path))
    yield link, unknown


def test_overwrite_deletes_only_what_sweet_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything() -> list[str]:
        return sorted(str(path) for path in tmp_path.rglob("*") if path.name != MARKER)

    cases = list(foreign_folders(tmp_path))
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    monkeypatch.chdir(home / "work")
    before = everything()
    for out, why in [*cases, (home, "current or the")]:
        with pytest.raises(UserError, match=why), output_folder(out, overwrite=True):
            pytest.fail("entered")
    assert everything() == before


def test_a_folder_of_before_the_marker_is_known_by_its_sums(tmp_path: Path) -> None:
    out = tmp_path / "before"
    out.mkdir()
    fill(out, json.dumps({"sweet": "0.1", "kind": "model"}))
    for name in ("metrics.jsonl", "env.json", "report.html"):
        (out / name).touch()
    (out / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"thesis\.txt"), output_folder(out, overwrite=True):
        pytest.fail("entered")
    (out / "thesis.txt").unlink()
    with output_folder(out, overwrite=True):
        (out / "config.json").touch()
    assert names(out) == ["config.json"]


def test_what_a_verb_names_itself_is_remembered(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out):
        (out / "scene 3").mkdir(parents=True)
        (out / "scene 3" / "a.png").touch()
        (out / "notes.txt").touch()  # by somebody else, meanwhile
    with pytest.raises(UserError, match=r"did not write: notes\.txt;"), output_folder(out, overwrite=True):
        pytest.fail("entered")
    (out / "notes.txt").unlink()
    with output_folder(out, overwrite=True):
        (out / "b.png").touch()
    assert names(out) == ["b.png"]
    (out / "mine.png").touch()
    with pytest.raises(UserError, match=r"did not write: mine\.png;"), output_folder(out, overwrite=True):
        pytest.fail("entered")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "run"
    script = """
import sys
from pathlib import Path
from sweet.storage.outputs import output_folder
with output_folder(Path(sys.argv[1]), run=True):
    (Path(sys.argv[1]) / "recipe.yaml").touch()
    print("in", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        for words in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match=f"process {other.pid} on .* is writing"), output_folder(out, **words):
                pytest.fail("entered")
        other.kill()
        other.wait()
        with output_folder(out, resume=True):  # free at once
            pass


def test_leftovers_of_kills_are_cleaned(tmp_path: Path) -> None:
    out = old_run(tmp_path)
    for name in (".config.json.abcd_123", "checkpoints/.model.safetensors.00000000", ".mine.json", ".thesis.abcd1234"):
        (out / name).touch()
    (out / "checkpoints" / ".step-7").mkdir()
    with output_folder(out, resume=True, run=True):
        assert names(out / "checkpoints") == ["step-2"]
    assert {".mine.json", ".thesis.abcd1234"} <= set(names(out)) and ".config.json.abcd_123" not in names(out)


def test_what_another_process_may_still_write_is_left_alone(tmp_path: Path) -> None:
    places = [tmp_path / "cells" / "a" / "checkpoints" / name for name in (".step-7", ".step-8")]
    for place in places:
        place.mkdir(parents=True)
    os.utime(places[0], (0, 0))
    sweep(tmp_path, older=3600)
    assert [place.exists() for place in places] == [False, True]
    folders = [tmp_path / "converted" / name for name in (".vit-0123.abc.begun", ".vit-0123.new.begun", "vit-0123")]
    for folder in folders:
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0) if "new" not in folder.name else None)
    sweep(tmp_path, older=3600)
    assert [folder.exists() for folder in folders] == [False, True, True]


def test_only_the_first_of_several_processes_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = old_run(tmp_path)
    monkeypatch.setenv("RANK", "1")
    with output_folder(out, overwrite=True):
        assert (out / "config.json").exists()


def test_a_file_to_write_must_be_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "a.parquet"
    taken.touch()
    check_output_file(tmp_path / "b.parquet", overwrite=False)
    check_output_file(taken, overwrite=True)
    for out, why in [(taken, "exists"), (tmp_path, "is a folder"), (tmp_path / "no" / "a", "no such folder")]:
        with pytest.raises(UserError, match=why):
            check_output_file(out, overwrite=False)
    with pytest.raises(UserError, match="/dev/null: is a device, not a file"):  # a rename would replace it
        check_output_file(Path("/dev/null"), overwrite=True)
    with monkeypatch.context() as patched:  # root may write to what is read-only
        patched.setattr("os.access", lambda *_: False)
        with pytest.raises(UserError, match=rf"--out .*b.parquet: the folder {tmp_path} may not be written to"):
            check_output_file(tmp_path / "b.parquet", overwrite=False)
    for out in (taken, taken / "below"):
        with pytest.raises(UserError, match="not a folder"), output_folder(out):
            pytest.fail("entered")
