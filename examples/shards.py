"""Learn from tar shards in the layout of webdataset: for millions of images, which no process lists as a whole.

A batch depends on the seed and the step alone: a run may be resumed at the exact image, on more processes too.

    sweet pretrain small --data 'wds:PATH/train-{0000..0146}.tar' --out runs/template
"""

from __future__ import annotations

import io
import tarfile

from toy import PRETRAIN, SCENES, playground

from sweet.data import as_rgb, open_images
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import PretrainRecipe
from sweet.training.pretrain import pretrain

SHARDS, EACH = 4, 32

with playground() as place:
    # The files of a sample follow one another: NAME.png, and NAME.cls with the number of its class.
    scenes = open_images(SCENES, "train")
    assert scenes.labels is not None
    for shard in range(SHARDS):
        with tarfile.open(place / f"train-{shard:04}.tar", "w") as archive:
            for number in range(shard * EACH, (shard + 1) * EACH):
                image = io.BytesIO()
                as_rgb(scenes.decode(number)).save(image, format="PNG")
                for kind, data in (("png", image.getvalue()), ("cls", str(scenes.labels[number]).encode())):
                    member = tarfile.TarInfo(f"{number:06}.{kind}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))

    source = f"wds:{place}/train-{{0000..{SHARDS - 1:04}}}.tar"
    images = open_images(source, "train", val_share=0)
    print(f"{len(images)} images in {SHARDS} shards, the fifth is {images.where(4).split('/')[-1]}")

    recipe = load_recipe(PretrainRecipe, "quickstart", [*PRETRAIN, f"data.source={source}"])
    summary = pretrain(recipe, place / "template", quiet=True)
    print(f"reconstruction loss {summary['loss']:.3f} after {summary['steps']} steps")
