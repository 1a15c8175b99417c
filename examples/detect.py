"""Fine-tune a detector with masks, measure it by COCO's average precision, and draw what it finds.

Toy template, synthetic scenes, sixteen steps: it finds nothing yet. On the command line:

    sweet init runs/template --depth 4 --heads 4 --img-size 256 --patch-size 8 --out runs/vit
    sweet finetune runs/vit --task detect --data coco:PATH --out runs/detector
    sweet predict runs/detector photo.jpg --out runs/pictures
"""

from __future__ import annotations

from toy import make_source, playground

from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

SMALL = (
    "device=cpu workers=0 max_steps=16 batch_size=4 data.source=shapes:n=32,size=32 head.channels=16 head.convs=1 "
    "head.fc_width=32 head.window=0 head.anchor_scale=2 head.proposals=32 head.rois=16"
).split()

with playground() as place:
    source = make_source(place / "template")
    initialise_to(str(source), place / "vit", depth=2, heads=2, img_size=32, patch_size=4)
    recipe = load_recipe(FinetuneRecipe, None, SMALL)
    result = finetune(place / "vit", recipe, place / "detector", task="detect", quiet=True)
    print(f"{result['training']['steps']} steps, training loss {result['training']['loss']:.2f}")
    print(f"box AP {result['ap_box']:.1f} %, AP50 {result['ap_box50']:.1f} %, mask AP {result['ap_mask']:.1f} %")
    print("pictures:", *sorted(path.name for path in (place / "detector" / "pictures").iterdir()))
