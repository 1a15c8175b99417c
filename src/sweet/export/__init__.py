"""A finished model leaves sweet: as a folder that timm, transformers, ONNX Runtime or the hub take."""

from __future__ import annotations

from .run import export
from .verify import verify

__all__ = ["export", "verify"]
