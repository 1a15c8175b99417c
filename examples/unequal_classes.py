"""Learn from classes of unequal size: rare ones weigh more in the loss, or are shown as often as the others.

Toy template, synthetic scenes of which two classes are rare in training. On the command line:

    sweet data check folder:PATH
    sweet finetune runs/vit --data folder:PATH --out runs/classifier optim.balance=sampler
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from toy import FINETUNE, SCENES, make_source, playground

from sweet.data import open_images
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

RARE, FEW = ("star", "ring"), 4  # images of each rare class to learn from


def write_folder(folder: Path) -> str:
    """Scenes as ``<split>/<class>/N.png``, of rare classes a few in ``train`` and all in ``val``."""
    for split in ("train", "val"):
        scenes, written = open_images(SCENES, split), Counter[str]()
        assert scenes.classes is not None and scenes.labels is not None
        for index, label in enumerate(scenes.labels):
            name = scenes.classes[label]
            if split == "val" or name not in RARE or written[name] < FEW:
                (folder / split / name).mkdir(parents=True, exist_ok=True)
                scenes.decode(index).save(folder / split / name / f"{index}.png")
                written[name] += 1
    return f"folder:{folder}"


with playground() as place:
    data = write_folder(place / "scenes")
    initialise_to(str(make_source(place / "template")), place / "vit", depth=3, heads=3)
    for balance in ("none", "weights", "sampler"):
        keys = [*FINETUNE, f"data.source={data}", f"optim.balance={balance}", "val_every=0"]
        recipe = load_recipe(FinetuneRecipe, None, keys)
        result = finetune(place / "vit", recipe, place / balance, task="classify", quiet=True)
        found = sum(result["per_class"][name] for name in RARE) / len(RARE)
        print(f"optim.balance={balance:8} top-1 {result['top1']:.1f} %, of the rare classes {found:.1f} %")
