"""The verbs as functions: pre-train, make a size, fine-tune and evaluate, with your own display of the progress.

Toy images, seconds. They do what these do:

    sweet pretrain micro --data folder:PATH --out runs/template
    sweet init runs/template --params 3M --out runs/vit
    sweet finetune runs/vit --data folder:PATH --out runs/classifier epochs=30
    sweet evaluate runs/classifier --data folder:PATH
"""

from __future__ import annotations

from toy import SCENES, playground

import sweet

TOY = {"device": "cpu", "workers": 0, "batch_size": 32, "lr": 2e-3, "max_steps": 20}


def show(progress: sweet.Progress) -> None:
    """Called at each line of the log: its values are loss, lr, img_per_s, or val_top1 and so on."""
    if "val_top1" in progress.values:
        print(f"{progress.what}: step {progress.done} of {progress.total}, top-1 {progress.values['val_top1']:.1f} %")


with playground() as place:
    small = {"model": {"depth": 3, "heads": 3}, "overrides": ["data.img_size=16"]}  # keys in either way
    sweet.pretrain("quickstart", data=SCENES, out=place / "template", quiet=True, **TOY, **small)
    made = sweet.init(place / "template", params="40k", out=place / "vit")
    print("made", made["size"])
    sweet.finetune(place / "vit", data=SCENES, out=place / "classifier", val_every=0.5, progress=show, **TOY)
    metrics = sweet.evaluate(place / "classifier", data=SCENES, device="cpu")
    print(f"top-1 {metrics['top1']:.1f} % on {metrics['images']} images")
