"""Write one feature vector per image to a parquet file, and find neighbours in it.

The model is a toy. On the command line:

    sweet embed runs/classifier --data folder:PATH --out features.parquet
"""

from __future__ import annotations

import pyarrow.parquet as pq
import torch
from toy import SCENES, make_classifier, make_source, playground

from sweet.inference.embed import embed

with playground() as place:
    model = make_classifier(make_source(place / "template"), place)
    written = embed(model, SCENES, place / "features.parquet", split="val", batch_size=256, device="cpu")
    print(f"{written['images']} images, {written['width']} numbers each")

    table = pq.read_table(place / "features.parquet")
    features = torch.nn.functional.normalize(torch.tensor(table["embedding"].to_pylist()), dim=1)
    labels = torch.tensor(table["label"].to_pylist())
    alike = (features @ features.t()).fill_diagonal_(-1)
    same = (labels[alike.argmax(1)] == labels).float().mean()
    print(f"the nearest neighbour of an image is of its class in {100 * same:.0f} % of cases (chance: 10 %)")
