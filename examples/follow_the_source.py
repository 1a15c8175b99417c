"""Make a small model from somebody's checkpoint and let it follow that checkpoint on unlabelled images.

A tiny random ViT that timm makes here stands in for a trained one, so that nothing is downloaded. On the command line:

    sweet init timm:vit_small_patch14_dinov2.lvd142m --params 6M --img-size 224 --method distilled \
        --data folder:PATH --out runs/vit steps=2000
"""

from __future__ import annotations

import timm
import torch
from timm.models import save_for_hf
from toy import SCENES, playground

import sweet
from sweet.data import open_images
from sweet.initialise.distilled import Distilled, first_images

with playground() as place:
    torch.manual_seed(0)
    args = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 4, "num_heads": 4}
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, **args)
    save_for_hf(theirs, place / "checkpoint", model_args=args, safe_serialization=True)

    # Converted on the way and kept in the cache: the second time takes no time (`sweet cache list` shows it).
    source = sweet.load(place / "checkpoint", data=SCENES)
    print(f"a {type(source).__name__} of {source.config.size}, whose order comes from {SCENES}")

    pixels = next(first_images(open_images(SCENES, "val"), source, None, seed=0))
    noise = torch.zeros(len(pixels), source.config.patches)
    for method, given in (("sweet", {}), ("distilled", {"steps": 40, "batch": 32, "lr": 2e-3})):
        vit = source.build(depth=2, heads=2, method=method, data=SCENES, device="cpu", **given)
        size = source.config.resized(2, 2).size
        judge = Distilled(vit.state_dict(), source, size)
        judge.fit_reader([pixels])
        with torch.no_grad():
            missed = judge(pixels, noise).item()
        print(f"{method}: misses {missed:.2f} of the variance of the checkpoint's features")
