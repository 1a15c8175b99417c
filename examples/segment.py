"""Fine-tune a segmenter (UPerNet) and measure the mean intersection over union.

Toy template, synthetic scenes, some steps. On the command line:

    sweet init runs/template --depth 6 --heads 6 --img-size 160 --patch-size 8 --out runs/vit
    sweet finetune runs/vit --task segment --data masks:PATH --out runs/segmenter
    sweet predict runs/segmenter photo.jpg --out runs/pictures
"""

from __future__ import annotations

from toy import make_source, playground

from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

SMALL = (
    "device=cpu workers=0 max_steps=30 batch_size=8 lr=3e-3 data.source=shapes:n=100,size=32 data.augment=crop "
    "head.channels=16 head.aux_channels=8"
).split()

with playground() as place:
    source = make_source(place / "template")
    initialise_to(str(source), place / "vit", depth=2, heads=2, img_size=32, patch_size=4)
    recipe = load_recipe(FinetuneRecipe, None, SMALL)
    result = finetune(place / "vit", recipe, place / "segmenter", task="segment", quiet=True)
    print(f"{result['training']['steps']} steps, training loss {result['training']['loss']:.2f}")
    print(f"mIoU {result['miou']:.1f} %, mean recall of a class {result['macc']:.1f} %")
    print("pictures:", *sorted(path.name for path in (place / "segmenter" / "pictures").iterdir()))
