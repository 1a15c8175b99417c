"""Fit the scalers of a target on unlabelled images (Eq. 9) instead of slicing them.

Core and scalers are toys and the fit takes few steps. On the command line:

    sweet init runs/template --depth 3 --heads 2 --method sweet_fitted --fit folder:PATH --out runs/vit
"""

from __future__ import annotations

from toy import SCENES, make_source, playground

import sweet
from sweet.data import open_images
from sweet.inference.checks import mae_loss
from sweet.initialise.apply import initialise
from sweet.template.sizes import Size

with playground() as place:
    source = sweet.load(make_source(place / "template"))
    size = Size(depth=3, heads=2, head_dim=source.config.head_dim)
    train, held_out = open_images(SCENES, "train"), open_images(SCENES, "val")

    direct = initialise("sweet", source, size)
    fitted = initialise("sweet_fitted", source, size, data=train, steps=60, batch=64, lr=1e-2, device="cpu")
    for name, weights in (("direct", direct), ("fitted", fitted)):
        config = source.config.resized(size.depth, size.heads)
        loss = mae_loss(weights, config, source.mae, held_out, source.data)
        print(f"{name}: reconstruction loss on held-out images {loss:.4f}")
