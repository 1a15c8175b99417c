"""Find images that are twice in a set, and the neighbours of one image, by the cosine of their embeddings.

The model is a toy. On the command line:

    sweet embed runs/classifier --data folder:photos --split train --out features.parquet
    sweet data near features.parquet --top 20
    sweet data near features.parquet --query photo.jpg --model runs/classifier
"""

from __future__ import annotations

import shutil
from pathlib import Path

from toy import make_source, playground

from sweet.data import open_images
from sweet.inference.embed import embed
from sweet.inference.near import near
from sweet.initialise.make import initialise_to

with playground() as place:
    initialise_to(str(make_source(place / "template")), place / "vit", depth=2, heads=2)
    photos, scenes = place / "photos", open_images("shapes:n=20,size=16", "train")
    photos.mkdir()
    for index in range(20):
        scenes.decode(index).save(photos / f"{index:02d}.png")
    shutil.copy(photos / "07.png", photos / "copy.png")

    embed(place / "vit", f"folder:{photos}", place / "features.parquet", "train", 32, "cpu")
    for row in near(place / "features.parquet", query=None, model=None, top=3):
        print(f"{Path(str(row['image'])).name} and {Path(str(row['other'])).name}: {row['cosine']:.4f}")
    print("like copy.png:")
    for row in near(place / "features.parquet", query=photos / "copy.png", model=place / "vit", top=3, device="cpu"):
        print(f"  {Path(str(row['image'])).name}: {row['cosine']:.4f}")
