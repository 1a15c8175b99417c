"""Write a segmenter as one ONNX file, compared with the model, and run it where there is no sweet.

A detector is exported the same way; its graph takes one padded image and the size of it. On the command line:

    sweet export runs/segmenter --to onnx --out runs/segmenter-onnx
    sweet export runs/detector --to hub --out runs/for-the-hub
"""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
from toy import make_source, playground

from sweet.export import export
from sweet.initialise.make import initialise_to
from sweet.recipes.loader import load_recipe
from sweet.recipes.schema import FinetuneRecipe
from sweet.training.finetune import finetune

KEYS = (
    "device=cpu workers=0 max_steps=5 batch_size=4 data.source=shapes:n=20,size=32 head.channels=16 head.aux_channels=8"
).split()

with playground() as place:
    initialise_to(str(make_source(place / "template")), place / "vit", depth=2, heads=2, img_size=32, patch_size=4)
    finetune(place / "vit", load_recipe(FinetuneRecipe, None, KEYS), place / "segmenter", task="segment", quiet=True)
    report = export(place / "segmenter", "onnx", place / "onnx")
    print(f"largest difference in ONNX Runtime: {report['difference']:.1e}")

    session = onnxruntime.InferenceSession(place / "onnx" / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    side, classes = json.loads(about["window"]), json.loads(about["classes"])
    (logits,) = session.run(None, {"images": np.zeros((1, 3, side, side), np.float32)})
    print(
        f"{logits.shape[1]} logits a pixel; the middle is {classes[int(logits[0, :, side // 2, side // 2].argmax())]}"
    )
