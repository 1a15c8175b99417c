"""The program: ``sweet``, and ``python -m sweet``. It listens to signals before anything else is imported."""

from __future__ import annotations

import os
import sys

from sweet import interrupts

# of pydantic: to look for some in every package that is installed takes as long as to read a folder's header
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> None:
    """Run the command line and end with its exit code."""
    try:
        with interrupts.listening():
            run()
    finally:
        interrupts.ignore()


def run() -> None:
    """The command line; whatever a signal has interrupted ends in one line."""
    try:
        from sweet.cli import run as run_verb

        run_verb()
    except BaseException as problem:
        # an import that a signal has ended may look like anything
        if interrupts.received() is None or isinstance(problem, SystemExit):
            raise
        print(f"interrupted by {interrupts.signal_name()}", file=sys.stderr)
        sys.exit(interrupts.exit_code())


if __name__ == "__main__":
    main()
