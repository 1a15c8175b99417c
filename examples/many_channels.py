"""Learn from images of five channels and 16 bits: measure them, then train with the keys that fit.

The images are noise of two kinds. On the command line:

    sweet data stats folder:satellite
    sweet pretrain small --data folder:satellite --out runs/template model.in_chans=5 data.mean=[...] ...
"""

from __future__ import annotations

import numpy as np
from toy import make_source, playground

from sweet.data.stats import stats
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

KEYS = "device=cpu workers=0 max_steps=40 batch_size=16 lr=5e-3 data.augment=flip".split()

with playground() as place:
    generator = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 16)):
        for label, name in enumerate(("field", "water")):
            folder = place / "satellite" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                bands = generator.integers(0, 4000, (16, 16, 5)).astype(np.uint16)
                bands[..., 3] += np.uint16(3000 * label)  # only one band differs
                np.save(folder / f"{number}.npy", bands)
    data = f"folder:{place / 'satellite'}"
    report = stats(data)
    print(f"{report.depth.channels} channels; {' '.join(report.keys)}")

    source = make_source(place / "template", f"data.source={data}", "batch_size=16", *report.keys)
    initialise_to(str(source), place / "start", depth=2, heads=2)
    recipe = load_recipe(FinetuneRecipe, None, [f"data.source={data}", *KEYS])
    print(f"top-1 {finetune(place / 'start', recipe, place / 'classifier', quiet=True)['top1']:.0f} % of two classes")
