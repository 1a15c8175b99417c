"""Fine-tune several sizes of one template, chart their accuracy, and see what the template is worth on these images.

Toy template, toy data, sixty steps. On the command line:

    sweet family runs/template --sizes 3M,6M,12M,25M --data folder:PATH --compare random --out runs/family
    sweet inspect runs/family
    sweet report runs/family --out family.html
"""

from __future__ import annotations

from toy import FINETUNE, make_source, playground

from sweet.family import family
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe

with playground() as place:
    source = make_source(place / "template")
    recipe = load_recipe(FinetuneRecipe, None, FINETUNE)
    family(source, ["2k", "L3H3"], recipe, place / "family", compare=["random"], quiet=True)
    print((place / "family" / "table.md").read_text())
    print("written:", *sorted(path.name for path in (place / "family").iterdir()))
