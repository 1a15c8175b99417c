"""What is printed at the end of a verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweet.console import show
from sweet.errors import UserError


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> dict[str, object]:
        print("progress")
        return {"out": Path("runs/a"), "top1": 0.5, "sizes": [1, 2]}

    show(work, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"out": "runs/a", "top1": 0.5, "sizes": [1, 2]}
    assert captured.err == "progress\n"


def test_people_get_aligned_rows(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        lambda: {
            "loss": 0.123456,
            "model": {"depth": 3, "parameters": 1234567},
            "ranks": (1, 2),
            "corrupt": [],
            "x": None,
        },
        as_json=False,
    )
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["loss", "0.1235"],
        ["model.depth", "3"],
        ["model.parameters", "1,234,567"],
        ["ranks", "1, 2"],
        ["corrupt", "none"],
        ["x", "-"],
    ]


def test_sentences_come_below_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        "a short one",
        "and one that is as long as what somebody may want to read in a line of its own",
    ]
    show(lambda: {"violations": found, "tables": 2, "arms": ["a", "b"]}, as_json=False)
    assert capsys.readouterr().out == "tables  2\narms    a, b\n\nviolations\n" + "\n".join(found) + "\n"


def test_a_terminal_folds_what_a_pipe_gets_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe goes to grep and awk: one line for each row, and no blanks at its end."""
    long = {"why": "a reason " * 30, "rows": [{"name": "x", "text": "[red] word " * 30}, {"name": "much longer"}]}
    show(lambda: long, as_json=False)
    piped = capsys.readouterr().out
    assert piped == f"why  {'a reason ' * 30}".rstrip() + "\n\nrows\n" + "\n".join(
        ("name         text", f"x            {'[red] word ' * 30}".rstrip(), "much longer  -", "")
    )
    monkeypatch.setenv("COLUMNS", "80"), monkeypatch.setenv("TERM", "dumb")  # no bold headings
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(lambda: long, as_json=False)
    folded = capsys.readouterr().out
    assert max(map(len, folded.splitlines())) <= 80 and "[red]" in folded


def test_a_list_becomes_a_table_with_headings(capsys: pytest.CaptureFixture[str]) -> None:
    show(lambda: [{"image": "[red]a.png", "class": "cat"}, {"image": "b.png"}], as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["image", "class"],
        ["[red]a.png", "cat"],
        ["b.png", "-"],
    ]


def test_a_table_inside_comes_below(capsys: pytest.CaptureFixture[str]) -> None:
    show(lambda: {"sizes": [{"size": "L3H6", "top1": 0.5}], "recipe": "micro"}, as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["recipe", "micro"],
        [],
        ["sizes"],
        ["size", "top1"],
        ["L3H6", "0.5"],
    ]


def test_nothing_moves_the_cursor_or_turns_text(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "new\nline\x1b[31mred\x07\u202eLTR\x9b"
    show(
        lambda: [{"class": evil}, {"class": ["\u06af\u200c\u0647\u0627", "\U0001f469\u200d\U0001f52c"]}], as_json=False
    )
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown)
    assert r"new\nline\x1b[31mred\x07\u202eLTR\x9b" in shown
    assert "\u200c" in shown and "\u200d" in shown  # joiners belong to words
    assert str(UserError(f"--data {evil}: no")) == r"--data new line\x1b[31mred\x07\u202eLTR\x9b: no"


def test_numbers_that_are_none_and_lists_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Strict JSON has no NaN; a table without rows says so."""
    show(lambda: {"loss": float("nan"), "most": [float("inf"), 1.5]}, as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"loss": None, "most": [None, 1.5]}
    show(lambda: [], as_json=False)
    assert capsys.readouterr().out == "none\n"


def test_a_large_number_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    show(lambda: {"seconds": 86400.25, "loss": -9999.7, "flops": 1.25e12}, as_json=False)
    assert capsys.readouterr().out.split() == ["seconds", "86,400", "loss", "-10,000", "flops", "1.25e+12"]
