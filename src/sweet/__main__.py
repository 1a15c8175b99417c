"""``python -m sweet``: the same as the ``sweet`` command."""

from __future__ import annotations

from sweet.cli import main

if __name__ == "__main__":
    main()
