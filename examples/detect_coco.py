"""Fine-tune a detector on COCO's JSON with a file a split, as Roboflow writes it, and make a folder for the hub.

Synthetic scenes, some steps. On the command line:

    sweet finetune runs/vit --task detect --data coco:PATH --out runs/detector
    sweet export runs/detector --to hub --out runs/for-the-hub
"""

from __future__ import annotations

import json
from pathlib import Path

from toy import make_source, playground

from sweet.data import open_images
from sweet.export import export
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

KEYS = (
    "device=cpu workers=0 max_steps=10 batch_size=4 lr=2e-3 "
    "head.channels=16 head.fc_width=32 head.convs=1 head.proposals=50 head.rois=16"
).split()


def write_coco(folder: Path) -> str:
    """Scenes as ``<split>/N.png`` beside ``<split>/_annotations.coco.json``, with boxes ``x y width height``."""
    for split in ("train", "valid"):
        scenes = open_images("shapes:n=40,size=32", split.removesuffix("id"))
        (folder / split).mkdir(parents=True)
        images, boxes = [], []
        for index in range(len(scenes)):
            scenes.decode(index).save(folder / split / f"{index}.png")
            images.append({"id": index, "file_name": f"{index}.png", "width": 32, "height": 32})
            found = scenes.objects(index)
            for label, (x0, y0, x1, y1) in zip(found.labels.tolist(), found.boxes.tolist(), strict=True):
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                boxes.append({"id": len(boxes), "image_id": index, "category_id": label, **box})
        categories = [{"id": label, "name": name} for label, name in enumerate(scenes.classes or ())]
        values = {"images": images, "annotations": boxes, "categories": categories}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(values))
    return f"coco:{folder}"


with playground() as place:
    data = write_coco(place / "scenes")
    initialise_to(str(make_source(place / "template")), place / "vit", depth=2, heads=2, img_size=32, patch_size=4)
    recipe = load_recipe(FinetuneRecipe, None, [*KEYS, f"data.source={data}"])
    result = finetune(place / "vit", recipe, place / "detector", task="detect", quiet=True)
    print(f"{result['boxes']} boxes to find, box AP {result['ap_box']:.2f} % after {result['training']['steps']} steps")
    export(place / "detector", "hub", place / "for-the-hub")
    print("for the hub:", *sorted(path.name for path in (place / "for-the-hub").iterdir()))
