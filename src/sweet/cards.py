"""README.md of a folder: what it is, from what, at what cost, how to use it. Written from its config."""

from __future__ import annotations

from typing import Any

from sweet.recipe import PretrainRecipe


def source_card(info: dict[str, Any], recipe: PretrainRecipe) -> str:
    vit, training = info["vit"], info["training"]
    what = "Template" if info["kind"] == "template" else "Dense source"
    ranks = f", ranks {tuple(info['ranks'])}" if info["ranks"] else ""
    return f"""# {what} `{recipe.name}`

{what} of sweet {info["sweet"]}: the weights of a Vision Transformer of any depth and width come out of it.

| | |
|---|---|
| learned at | L{vit["depth"]}H{vit["heads"]}, head_dim {vit["head_dim"]}, {vit["img_size"]} px, patch {vit["patch_size"]}, family {vit["family"]} |
| constraint | {info["constraint"]}{ranks} |
| objective | masked autoencoding, {recipe.mae.mask_ratio:.0%} masked |
| images | {training["data"]} ({training["data_images"]:,}); the terms of these images apply to what is made from them |
| budget | {training["images"]:,} images seen, {training["pflops_full_width"]} PFLOP at full width, {training["seconds"]:.0f} s on {training["device"]} |
| loss at the end | {training["loss"]} |

```
sweet init . --depth 6 --heads 6 --out my-vit
```
"""


def model_card(info: dict[str, Any]) -> str:
    vit, made = info["vit"], info["made"]
    lines = [f"| {key} | {value} |" for key, value in made.items()]
    metrics = info.get("metrics") or {}
    lines += [f"| {key} | {value} |" for key, value in metrics.items() if not isinstance(value, list | dict)]
    return f"""# L{vit["depth"]}H{vit["heads"]} Vision Transformer

Width {vit["heads"] * vit["head_dim"]}, {vit["img_size"]} px, patch {vit["patch_size"]}, family {vit["family"]}; made by sweet {info["sweet"]}.

| | |
|---|---|
{chr(10).join(lines)}

```python
import sweet
vit = sweet.load("this-folder")   # a plain timm model
```
"""
