"""Where a verb may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweet.errors import UserError
from sweet.storage.outputs import check_output_file, output_folder


def old_run(tmp_path: Path) -> Path:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text("old")
    return out


def test_a_new_or_empty_folder_is_free(tmp_path: Path) -> None:
    with output_folder(tmp_path / "new"), output_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_and_stays(tmp_path: Path) -> None:
    out = old_run(tmp_path)
    with pytest.raises(UserError, match=f"--out {out}: .*--resume.*--overwrite"), output_folder(out):
        pytest.fail("entered")
    assert (out / "config.json").read_text() == "old"


def test_resume_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    out = old_run(tmp_path)
    with output_folder(out, resume=True):
        assert (out / "config.json").read_text() == "old"
    with pytest.raises(UserError, match="exclude"), output_folder(out, resume=True, overwrite=True):
        pytest.fail("entered")


def test_overwrite_starts_from_nothing(tmp_path: Path) -> None:
    out = old_run(tmp_path)
    with output_folder(out, overwrite=True):
        assert not out.exists()
        out.mkdir()
        (out / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "new"]


@pytest.mark.parametrize("made_folder", [False, True])
def test_overwrite_gives_the_old_run_back_when_nothing_was_written(tmp_path: Path, made_folder: bool) -> None:
    out = old_run(tmp_path)
    with pytest.raises(UserError, match="no such data"), output_folder(out, overwrite=True):
        if made_folder:
            out.mkdir()
        raise UserError("no such data")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "config.json"]


def test_overwrite_deletes_only_what_sweet_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    link = tmp_path / "link"
    link.symlink_to(old_run(tmp_path))
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    (home / "config.json").touch()
    monkeypatch.chdir(home / "work")
    for out, why in [
        (photos, "not written by sweet"),
        (link, "not written by sweet"),
        (home, "current or the"),
    ]:
        with pytest.raises(UserError, match=why), output_folder(out, overwrite=True):
            pytest.fail("entered")
    assert (photos / "a.jpg").exists() and (link / "config.json").exists() and (home / "config.json").exists()


def test_only_the_first_of_several_processes_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = old_run(tmp_path)
    monkeypatch.setenv("RANK", "1")
    with output_folder(out, overwrite=True):
        assert (out / "config.json").exists()


def test_a_file_to_write_must_be_free(tmp_path: Path) -> None:
    taken = tmp_path / "a.parquet"
    taken.touch()
    check_output_file(tmp_path / "b.parquet", overwrite=False)
    check_output_file(taken, overwrite=True)
    for out, why in [(taken, "exists"), (tmp_path, "is a folder"), (tmp_path / "no" / "a", "no such folder")]:
        with pytest.raises(UserError, match=why):
            check_output_file(out, overwrite=False)
    with pytest.raises(UserError, match="not a folder"), output_folder(taken):
        pytest.fail("entered")
