"""Models of others in which nothing is neutral, and images for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def shaken(model: Any, scale: float = 0.1) -> Any:
    """All parameters moved, so that no bias is zero and no gain one; a decoder's fixed positions stay."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not name.endswith("decoder_pos_embed"):
                value.add_(torch.randn(value.shape, generator=generator) * (0.3 if value.dim() < 2 else scale))
    return model.eval()


def images(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
