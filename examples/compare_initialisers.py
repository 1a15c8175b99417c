"""Compare ways to initialise one size, from one dense source, before and after fine-tuning.

Toy source, sixty steps, one seed: the order of the rows means nothing here. For numbers that mean something:

    sweet bench table1 --protocol micro --data parquet:PATH/cifar10 --out results
"""

from __future__ import annotations

from toy import FINETUNE, SCENES, make_source, playground

import sweet
from sweet.data import eval_batches, open_images, packed
from sweet.inference.checks import knn
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

METHODS = ("random", "weight_selection", "isomorphic", "principal_slice")

with playground() as place:
    source = make_source(place / "dense", "template.constraint=none")
    data_config = sweet.load(source).data
    recipe = load_recipe(FinetuneRecipe, None, FINETUNE)

    def batches(split: str):
        images = packed(open_images(SCENES, split), 16)
        return eval_batches(images, batch_size=256, img_size=16, mean=data_config.mean, std=data_config.std)

    print(f"{'L3H2':18} k-NN, %  top-1 after {recipe.max_steps} steps, %")
    for method in METHODS:
        looks = {"fit": SCENES, "fit_images": 256} if method == "isomorphic" else {}
        initialise_to(str(source), place / method, depth=3, heads=2, method=method, device="cpu", **looks)
        near = knn(sweet.load(place / method), batches("train"), batches("val"))
        tuned = finetune(place / method, recipe, place / f"{method}-tuned", quiet=True)
        print(f"{method:18} {near:7.1f}  {tuned['top1']:7.1f}")
