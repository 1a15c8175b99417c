"""Learn a template from a folder of images without labels.

The settings are chosen so that it runs in seconds and do not follow the paper. On the command line:

    sweet data check folder:PATH
    sweet pretrain small --data folder:PATH --out runs/template
"""

from __future__ import annotations

import json

from toy import PRETRAIN, SCENES, playground

import sweet
from sweet.data import open_images
from sweet.data.check import check
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import PretrainRecipe
from sweet.training.pretrain import pretrain

with playground() as place:
    # Your own images: a folder, with or without subfolders. Here some synthetic scenes stand in for them.
    photos = place / "photos"
    photos.mkdir()
    scenes = open_images(SCENES, "train")
    for index in range(200):
        scenes.decode(index).save(photos / f"{index:03}.png")
    found = check(f"folder:{photos}").splits["train"]
    print(f"{found.count} images, {len(found.corrupt)} corrupt")

    # PRETRAIN are toy sizes. Keys that are not set keep the value of the bundled recipe.
    recipe = load_recipe(PretrainRecipe, "quickstart", [*PRETRAIN, f"data.source=folder:{photos}"])
    pretrain(recipe, place / "template", quiet=True)

    steps = [json.loads(line) for line in (place / "template" / "metrics.jsonl").read_text().splitlines()]
    print(f"reconstruction loss: {steps[0]['loss']:.3f} -> {steps[-1]['loss']:.3f} in {steps[-1]['step']} steps")

    source = sweet.load(place / "template")
    print(
        f"template of shape {source.info['vit']['depth']} x {source.info['vit']['heads']}, ranks {source.info['ranks']}"
    )
