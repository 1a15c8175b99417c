"""sweet: Vision Transformers of any size from one learned template.

    source = sweet.load("runs/template")                      # a template or a dense source
    vit = source.build(depth=6, heads=6, num_classes=100)     # a plain timm model
    vit(images)

``sweet.load`` also takes a name of the Hugging Face hub, and of a model it gives the timm model itself.
Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweet.errors import UserError
from sweet.version import VERSION as __version__

if TYPE_CHECKING:
    from sweet.api import Template, load

__all__ = ["Template", "UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Template", "load"):
        from sweet import api

        return getattr(api, name)
    raise AttributeError(f"module 'sweet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
