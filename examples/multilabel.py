"""Learn which of several classes each image has; each class gets its own threshold, chosen on the validation images.

Synthetic scenes, listed in a table ``image,labels,split``. On the command line:

    sweet finetune MODEL --task multilabel --data csv:PATH --out runs/tags optim.balance=weights
    sweet predict runs/tags photo.jpg
"""

from __future__ import annotations

from pathlib import Path

from toy import make_source, playground

from sweet.data import open_images
from sweet.inference.evaluate import predict
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

KEYS = "device=cpu workers=0 max_steps=40 batch_size=16 lr=3e-3 label_smoothing=0.0 optim.balance=weights".split()


def write_table(folder: Path) -> str:
    """Scenes, each with the names of all shapes in it."""
    folder.mkdir()
    lines = ["image,labels,split"]
    for split in ("train", "val"):
        scenes = open_images("shapes:n=80,size=32", split)
        assert scenes.classes is not None
        for index in range(len(scenes)):
            scenes.decode(index).save(folder / f"{split}{index}.png")
            names = {scenes.classes[label] for label in scenes.objects(index).labels}
            lines.append(f"{split}{index}.png,{';'.join(sorted(names))},{split}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return f"csv:{folder}"


with playground() as place:
    data = write_table(place / "scenes")
    initialise_to(str(make_source(place / "template")), place / "vit", depth=2, heads=2, img_size=32, patch_size=4)
    recipe = load_recipe(FinetuneRecipe, "finetune/multilabel", [*KEYS, f"data.source={data}"])
    result = finetune(place / "vit", recipe, place / "tags", task="multilabel", quiet=True)
    print(f"mAP {result['map']:.1f} %, F1 {result['f1']:.1f} %")
    for row in predict(place / "tags", [place / "scenes" / "val0.png"], 3, "cpu"):
        print(f"{row['class']}: {row['probability']:.2f} (threshold {row['threshold']:.2f})")
