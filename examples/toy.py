"""What the examples share: toy images and a toy template.

Settings are chosen so that everything runs in seconds on one core. They are far too small to learn anything of use;
see docs/tutorial-own-images.md for real settings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe
from sweet.training.finetune import finetune
from sweet.training.pretrain import pretrain

SCENES = "shapes:n=600,size=16"  # synthetic scenes of ten classes: nothing is downloaded

PRETRAIN = f"""
data.source={SCENES} data.img_size=16 model.depth=4 model.heads=4 model.head_dim=8 mae.decoder_width=32
mae.decoder_head_dim=8 template.order_images=256 batch_size=64 max_steps=40 device=cpu
""".split()
FINETUNE = f"data.source={SCENES} data.augment=none batch_size=64 max_steps=60 lr=3e-3 device=cpu workers=0".split()


@contextmanager
def playground() -> Iterator[Path]:
    """A folder that is gone when the example ends."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def make_source(out: Path, *overrides: str) -> Path:
    """Learn a toy template, as ``sweet pretrain quickstart --out OUT KEY=VALUE ...`` would."""
    pretrain(load_recipe(PretrainRecipe, "quickstart", [*PRETRAIN, *overrides]), out, quiet=True)
    return out


def make_classifier(source: Path, out: Path) -> Path:
    """Make a toy model of three blocks and two heads and fine-tune it on the labels of the scenes."""
    initialise_to(str(source), out / "start", depth=3, heads=2)
    finetune(out / "start", load_recipe(FinetuneRecipe, None, FINETUNE), out / "classifier", quiet=True)
    return out / "classifier"
