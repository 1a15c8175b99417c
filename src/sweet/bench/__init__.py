"""The paper's tables as runnable protocols: which cells, on what budget, and what was measured."""

from __future__ import annotations

from .check import check
from .table import dry_run, run

__all__ = ["check", "dry_run", "run"]
