"""The one exception that means: the person at the keyboard can fix this, and what its message is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

# C0 and C1 controls, line separators, marks that turn the direction of text, halves of surrogate pairs, invisible tags
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Text for a terminal: what would move the cursor, colour or reorder it is written ``\x1b``, ``\u202e``."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class UserError(Exception):
    """A mistake in the input, not in sweet.

    The message is one line and names the option, the file and the value, as in
    ``--data folder:/x: no such folder``. The command line prints ``error: message`` and exits with ``code``.
    """

    code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


def reason(problem: Exception) -> str:
    """The first line of what a library says, without a full stop; the type of its error where it says nothing."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[0] if lines else type(problem).__name__).rstrip(".")


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean X?`` with the same or the most similar last name, in whatever group; or nothing."""
    import difflib

    last = {key.rpartition(".")[2]: key for key in reversed(known)}
    close = difflib.get_close_matches(name, known, 1) or [
        last[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], last, 1)
    ]
    return f"; did you mean {close[0]}?" if close else ""
