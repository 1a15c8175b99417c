"""The command line: parse, call, print. Whatever needs torch is imported inside the verb that needs it.

One file for each group of verbs; they stand in ``--help`` in the order of these imports.
"""

from . import train, make, use, family, share, bench, report, doctor, data, cache  # noqa: F401, I001
from .app import app, run

__all__ = ["app", "run"]
