"""Give a number of parameters, FLOPs or milliseconds instead of a size.

The template is a toy. On the command line, where the choice is explained as here:

    sweet init runs/template --params 12M --out runs/vit
"""

from __future__ import annotations

from toy import make_source, playground

import sweet
from sweet.costs.budget import choose, read_budget

with playground() as place:
    config = sweet.load(make_source(place / "template")).config
    for option in ({"params": "10k"}, {"flops": "500k"}, {"latency": "4ms@cpu"}):
        budget = read_budget(**{"params": None, "flops": None, "latency": None} | option)
        choice = choose(config, budget)
        print(f"{budget.option}: {choice.size}, because it is {choice.why}")
        for row in choice.candidates:
            print("   ", row)

    # The same arithmetic for a template of ViT-B's shape. No weights are needed for it.
    from sweet.models.config import ViTConfig

    vit_b = ViTConfig(depth=12, heads=12, head_dim=64, img_size=224, patch_size=16)
    for params in ("3M", "6M", "12M", "25M"):
        size = choose(vit_b, read_budget(params, None, None)).size
        print(f"{params} of a ViT-B template: {size}, width {size.width}")
