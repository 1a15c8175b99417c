"""Before a long training: what this machine has, what a recipe takes on these images, and what does not fit.

On the command line:

    sweet doctor
    sweet plan micro --data folder:PATH
"""

from __future__ import annotations

from toy import SCENES

from sweet.doctor import doctor
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import PretrainRecipe
from sweet.training.trial import trial

machine = doctor()
print(f"sweet {machine['sweet']} on {machine['device']}, {machine['threads']} threads; missing:")
for line in machine["missing"]:
    print("   ", line)

recipe = load_recipe(PretrainRecipe, "quickstart", [f"data.source={SCENES}", "data.img_size=16", "device=cpu"])
found = trial(recipe)  # two steps against the clock; nothing is written
print(f"{found.images} images make {found.steps} steps")
print(f"{found.steps * found.seconds_per_step / 60:.1f} minutes and {found.memory_mb:,} MB here")
for line in found.notes:
    print("note:", line)
