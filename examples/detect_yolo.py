"""Fine-tune a detector on YOLO's text files, with ``data.yaml`` as Ultralytics and Roboflow write it.

Synthetic scenes, some steps. On the command line:

    sweet finetune runs/vit --task detect --data yolo:PATH --out runs/detector
    sweet export runs/detector --to onnx --out runs/detector-onnx
"""

from __future__ import annotations

from pathlib import Path

from toy import make_source, playground

from sweet.data import open_images
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

KEYS = (
    "device=cpu workers=0 max_steps=10 batch_size=4 lr=2e-3 "
    "head.channels=16 head.fc_width=32 head.convs=1 head.proposals=50 head.rois=16"
).split()


def write_yolo(folder: Path) -> str:
    """Scenes as ``train/images/N.png`` with ``train/labels/N.txt``, a line ``class x y width height`` an object."""
    for split in ("train", "val"):
        scenes = open_images("shapes:n=40,size=32", split)
        for name in ("images", "labels"):
            (folder / split / name).mkdir(parents=True)
        for index in range(len(scenes)):
            scenes.decode(index).save(folder / split / "images" / f"{index}.png")
            found = scenes.objects(index)
            rows = [
                f"{label} {(x0 + x1) / 64:.4f} {(y0 + y1) / 64:.4f} {(x1 - x0) / 32:.4f} {(y1 - y0) / 32:.4f}"
                for label, (x0, y0, x1, y1) in zip(found.labels, found.boxes, strict=True)
            ]
            (folder / split / "labels" / f"{index}.txt").write_text("\n".join(rows))
    (folder / "data.yaml").write_text(f"train: train/images\nval: val/images\nnames: {scenes.classes}\n")
    return f"yolo:{folder}"


with playground() as place:
    data = write_yolo(place / "scenes")
    initialise_to(str(make_source(place / "template")), place / "vit", depth=2, heads=2, img_size=32, patch_size=4)
    recipe = load_recipe(FinetuneRecipe, None, [*KEYS, f"data.source={data}"])
    result = finetune(place / "vit", recipe, place / "detector", task="detect", quiet=True)
    print(f"{result['boxes']} boxes to find, box AP {result['ap_box']:.2f} % after {result['training']['steps']} steps")
