"""Use a template from Python: the result is a plain timm model.

The template is a toy that was trained for a moment. This is loading and building; the verbs that train are in
``train_in_python.py``.
"""

from __future__ import annotations

import timm
import torch
from toy import make_source, playground

import sweet

with playground() as place:
    source = sweet.load(make_source(place / "template"))  # sweet.Template
    print(source)
    vit = source.build(depth=3, heads=2, num_classes=5)  # or build(params="12M", num_classes=5)
    assert isinstance(vit, timm.models.eva.Eva)

    # timm's transforms take the image size, mean and standard deviation from the model.
    print(timm.data.create_transform(**timm.data.resolve_model_data_config(vit)))

    images = torch.randn(4, 3, 16, 16)
    print("logits", tuple(vit(images).shape))
    tokens = vit.forward_features(images)
    print("tokens", tuple(tokens.shape), "of them the class token first")
    print("pooled", tuple(vit.forward_head(tokens, pre_logits=True).shape))
    maps = vit.forward_intermediates(images, indices=[0, 2], intermediates_only=True)
    print("maps after blocks 0 and 2", [tuple(m.shape) for m in maps])

    # Weights are the model's own: an ordinary training loop.
    optimizer = torch.optim.AdamW(vit.parameters(), lr=1e-3)
    labels = torch.tensor([0, 1, 2, 3])
    for step in range(20):
        loss = torch.nn.functional.cross_entropy(vit.train()(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in (0, 19):
            print(f"step {step}: loss {loss.item():.3f}")

    try:
        sweet.load(place / "nowhere")
    except sweet.UserError as problem:
        print("an error in your input is a sweet.UserError:", str(problem).replace(str(place), "..."))
