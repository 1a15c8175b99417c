"""Images that are not square: a model of 16 x 24 pixels from a source that learned squares of 16.

On the command line:

    sweet init SOURCE --depth 6 --heads 6 --img-size 96x160 --out runs/wide
    sweet finetune runs/wide --task classify --data folder:PATH --out runs/classifier
    sweet pretrain small --data folder:PATH --out runs/template data.img_size=[96,160]
"""

from __future__ import annotations

from toy import make_source, playground

import sweet
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

KEYS = "device=cpu workers=0 max_steps=20 batch_size=16 data.source=shapes:n=60,size=32".split()

with playground() as place:
    initialise_to(str(make_source(place / "template")), place / "vit", depth=2, heads=2, img_size=(16, 24))
    made = finetune(place / "vit", load_recipe(FinetuneRecipe, None, KEYS), place / "classifier", quiet=True)
    grid = sweet.load(place / "classifier").patch_embed.grid_size
    print(f"{grid} patches of 4 pixels, top-1 {made['top1']:.0f} % after {made['training']['steps']} steps")
