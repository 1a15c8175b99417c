"""Evaluate a fine-tuned model, and predict the class of an image file.

The classifier is a toy that was trained for a moment. On the command line:

    sweet evaluate runs/classifier --data folder:PATH
    sweet predict runs/classifier photo.jpg
    sweet predict runs/classifier photos/ 'more/**/*.png' --threshold 0.5
"""

from __future__ import annotations

from toy import SCENES, make_classifier, make_source, playground

from sweet.data import open_images
from sweet.inference.evaluate import evaluate, predict

with playground() as place:
    model = make_classifier(make_source(place / "template"), place)

    metrics = evaluate(model, "classify", SCENES, split="val", batch_size=256, device="cpu", limit=None)
    print(f"top-1 {metrics['top1']:.1f} % on {metrics['images']} held-out images; by class:")
    print("   ", ", ".join(f"{name} {value:.0f}" for name, value in metrics["per_class"].items()))

    held_out = open_images(SCENES, "val")
    held_out.decode(3).save(place / "photo.png")
    print(f"photo.png shows a {held_out.classes[held_out.labels[3]]}; the model predicts:")
    for row in predict(model, [place / "photo.png"], top=3, device="cpu"):
        print(f"    {row['class']} with probability {row['probability']:.2f}")
    sure = predict(model, [place / "photo.png"], top=3, device="cpu", threshold=0.5)
    print(f"{len(sure)} of them with probability 0.5 or more")
