"""Several sizes of one source, each fine-tuned, and how good they are for what they cost."""

from __future__ import annotations

from .make import family

__all__ = ["family"]
