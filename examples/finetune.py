"""Fine-tune a model of your size on labelled images.

Toy template, toy data, sixty steps. On the command line:

    sweet finetune runs/vit --data folder:PATH --out runs/classifier epochs=30 lr=1e-3 patience=5

It is validated each epoch, and the best epoch is what is written; the curve is in ``validation.jsonl`` and TensorBoard.
"""

from __future__ import annotations

from toy import FINETUNE, make_source, playground

from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

with playground() as place:
    source = make_source(place / "template")
    made = initialise_to(str(source), place / "vit", depth=3, heads=3)
    print(f"made {made['size']}, {made['parameters']:,} parameters, in {made['seconds']} s")

    recipe = load_recipe(FinetuneRecipe, None, [*FINETUNE, "label_smoothing=0"])
    result = finetune(place / "vit", recipe, place / "classifier", quiet=True)
    took = result["training"]
    print(f"{took['steps']} steps, {took['images']:,} images, training loss {took['loss']:.3f}")
    print(f"best after epoch {took['best_epoch']:g}, validation loss {result['val_loss']:.3f}")
    print(f"held-out top-1 {result['top1']:.1f} %, top-5 {result['top5']:.1f} % (chance: 10 and 50 %)")
    print("written:", *sorted(path.name for path in (place / "classifier").iterdir()))
