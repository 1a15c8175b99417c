"""sweet: Vision Transformers of any size from one learned template.

    source = sweet.load("runs/template")                      # a template or a dense source
    vit = source.build(depth=6, heads=6, num_classes=100)     # a plain timm model
    vit(images)

``sweet.load`` also takes a name of the Hugging Face hub, and of a model it gives the timm model itself.
``sweet.pretrain``, ``sweet.init``, ``sweet.finetune`` and ``sweet.evaluate`` do what the verbs do.
Importing this package imports no torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sweet.errors import UserError
from sweet.version import VERSION as __version__

if TYPE_CHECKING:
    from sweet.api import Template, load
    from sweet.console import Progress
    from sweet.verbs import evaluate, finetune, init, pretrain

# Read when torch is loaded. It asks for big pages where it allocates more than 2 MB: without, a ViT-B takes 100,000
# page faults to make. And threads that wait for a slower one soon let others run: without, a training beside another
# program is several times slower (benchmarks/shared_core.py).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__all__ = ["Progress", "Template", "UserError", "__version__", "evaluate", "finetune", "init", "load", "pretrain"]

HOME = {"Template": "api", "load": "api", "Progress": "console"} | dict.fromkeys(
    ("evaluate", "finetune", "init", "pretrain"), "verbs"
)


def __getattr__(name: str) -> Any:
    if name in HOME:
        return getattr(import_module(f"sweet.{HOME[name]}"), name)
    raise AttributeError(f"module 'sweet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
