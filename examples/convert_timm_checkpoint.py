"""Convert a trained ViT to a template, and make smaller models from it.

A tiny random ViT that timm makes here stands in for a trained one, so that nothing is downloaded. On the command line:

    sweet convert timm:vit_small_patch14_dinov2.lvd142m --data folder:PATH --out runs/template
"""

from __future__ import annotations

import timm
import torch
from timm.models import save_for_hf
from toy import playground

import sweet
from sweet.convert.convert import convert

with playground() as place:
    torch.manual_seed(0)
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=4, num_classes=0
    ).eval()
    save_for_hf(theirs, place / "checkpoint", safe_serialization=True)

    made = convert(str(place / "checkpoint"), place / "template", device="cpu", images=64)
    print(f"{made['size']} at full ranks {made['ranks']}: relative error of the weights {made['error']}")

    # At full ranks and full size nothing is lost: the features are the checkpoint's (in principal order rotated, in
    # prefix order number by number).
    images = torch.randn(8, 3, 32, 32)
    source = sweet.load(place / "template")
    with torch.no_grad():
        expected = theirs.forward_features(images)
        ours = source.build(depth=4, heads=4, order="prefix").forward_features(images)
        off = (ours - expected).norm() / expected.norm()
    print(f"relative difference of the features: {off:.1e}")
    assert off < 1e-4

    small = source.build(depth=2, heads=2, num_classes=10)
    print(f"L2H2 from it: {sum(p.numel() for p in small.parameters()):,} parameters")

    made = convert(str(place / "checkpoint"), place / "half", ranks=[24, 32, 32], device="cpu", images=64)
    print(f"at ranks {made['ranks']} the weights are off by {made['error']:.2f}; --heal STEPS restores a trained one")
