"""The one exception that means: the person at the keyboard can fix this."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input, not in sweet.

    The message is one line and names the option, the file and the value, as in
    ``--data folder:/x: no such folder``. The command line prints ``error: message`` and exits with ``code``.
    """

    code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
