"""Make Vision Transformers of any depth and width from one template, smaller and larger than it.

The template is a toy that was trained for a moment. On the command line:

    sweet init runs/template --depth 6 --heads 3 --out runs/vit
"""

from __future__ import annotations

import time

import torch
from toy import make_source, playground

import sweet

with playground() as place:
    source = sweet.load(make_source(place / "template"))  # L4H4: four blocks, four heads of eight channels
    images = torch.randn(2, 3, 16, 16)

    for depth, heads in [(4, 4), (2, 4), (4, 2), (1, 1), (6, 5)]:
        began = time.perf_counter()
        vit = source.build(depth=depth, heads=heads, num_classes=10)
        seconds = time.perf_counter() - began
        parameters = sum(p.numel() for p in vit.parameters())
        print(
            f"L{depth}H{heads}: {parameters:7,} parameters, logits {tuple(vit(images).shape)}, {1000 * seconds:.0f} ms"
        )

    # Other image sizes, patch sizes and channels are timm's own resampling of the first layer.
    grey = source.build(depth=2, heads=2, img_size=32, patch_size=8, in_chans=1)
    print(f"32 px, patch 8, one channel: features {tuple(grey(torch.randn(2, 1, 32, 32)).shape)}")
