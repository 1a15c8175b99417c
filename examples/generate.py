"""Fine-tune a diffusion model whose blocks start from the template, and generate images.

Toy template, synthetic scenes, twenty steps: coloured noise. On the command line:

    sweet finetune runs/vit --task generate --data folder:PATH --out runs/generator
    sweet generate runs/generator --classes all --per-class 8 --out runs/made
"""

from __future__ import annotations

from toy import SCENES, make_source, playground

from sweet.inference.generate import generate
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

SMALL = (
    f"device=cpu workers=0 max_steps=20 batch_size=32 lr=2e-3 ema=0.9 data.source={SCENES} data.augment=flip "
    "head.gate=one head.context=2 head.steps=4 head.samples=40"
).split()

with playground() as place:
    source = make_source(place / "template")
    initialise_to(str(source), place / "vit", depth=2, heads=2)
    recipe = load_recipe(FinetuneRecipe, None, SMALL)
    result = finetune(place / "vit", recipe, place / "generator", task="generate", quiet=True)
    print(f"{result['training']['steps']} steps; FID {result['fid']:.1f} by the features of {result['fid_extractor']}")
    generate(place / "generator", place / "made", per_class=1, device="cpu")
    print("made:", *sorted(path.name for path in (place / "made").iterdir())[:4], "...")
