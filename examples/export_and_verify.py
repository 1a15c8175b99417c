"""Export a model for timm and ONNX Runtime, which do not need sweet, and verify the export.

Toy template, toy data. On the command line:

    sweet export runs/classifier --to timm --out runs/timm
    sweet export runs/classifier --to timm --dtype bf16 --out runs/half
    sweet export runs/classifier --to onnx --out runs/onnx
    sweet verify runs/timm --data folder:PATH
"""

from __future__ import annotations

import timm
import torch
from toy import SCENES, make_classifier, make_source, playground

import sweet
from sweet.export import export, verify

with playground() as place:
    classifier = make_classifier(make_source(place / "template"), place)
    export(classifier, "timm", place / "timm")
    theirs = timm.create_model(f"local-dir:{place / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, 16, 16)
    difference = (theirs(images) - sweet.load(classifier)(images)).abs().max().item()
    print(f"timm computes the same to {difference:.0e}")
    checked = verify(place / "timm", data=SCENES)
    print("verified:", checked["measured"])
    export(classifier, "timm", place / "half", dtype="bf16")
    sizes = [(place / name / "model.safetensors").stat().st_size for name in ("timm", "half")]
    print(f"in bf16 {sizes[1]:,} bytes instead of {sizes[0]:,}")
    print("onnx differs by", f"{export(classifier, 'onnx', place / 'onnx')['difference']:.0e}")
