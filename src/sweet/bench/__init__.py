"""The paper's tables as runnable protocols: which cells, on what budget, and what was measured."""

from __future__ import annotations

from .table import run

__all__ = ["run"]
