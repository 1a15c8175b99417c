"""README.md of a folder: what it is, from what, at what cost, how to use it. Written from its config."""

from __future__ import annotations

from typing import Any

from sweet.recipe import PretrainRecipe


def source_card(info: dict[str, Any], recipe: PretrainRecipe) -> str:
    training = info["training"]
    what = "Template" if info["kind"] == "template" else "Dense source"
    ranks = f", ranks {tuple(info['ranks'])}" if info["ranks"] else ""
    rows = {
        "learned at": _shape(info["vit"]),
        "constraint": f"{info['constraint']}{ranks}",
        "objective": f"masked autoencoding, {recipe.mae.mask_ratio:.0%} of the patches masked"
        if recipe.objective == "mae"
        else "labels and a teacher"
        if recipe.teacher
        else "labels",
        "images": f"{training['data']} ({training['data_images']:,}); their terms apply to what is made from them",
        "images seen": f"{training['images']:,}",
        "compute": f"{training['pflops']} PFLOP",
        "time": f"{training['seconds']:.0f} s on {training['device']} in {training['precision']}",
        "loss at the end": training["loss"],
    }
    return f"""# {what} `{recipe.name}`

The weights of a Vision Transformer of any depth and width come out of this folder (sweet {info["sweet"]}).

{_table(rows)}
```
sweet init this-folder --depth 6 --heads 6 --out my-vit
```
"""


def converted_card(info: dict[str, Any]) -> str:
    converted = info["converted"]
    rows = {
        "made from": f"`{converted['source']}`, whose licence and terms apply to it and to what is made from it",
        "sha256 of the source": converted["source_sha256"],
        "shape": _shape(info["vit"]),
        "ranks": tuple(info["ranks"]),
        "relative error of the weights": converted["error"]["overall"],
        "of the features": converted["feature_error"],
        "images for the principal order": converted["order_images"],
    }
    if healing := converted["healing"]:
        rows["healed"] = f"{healing['steps']} steps on {healing['data']}, whose terms apply as well"
        rows["error of the features since then"] = healing["feature_error"]
    return f"""# Template from `{converted["source"]}`

The weights of a Vision Transformer of any depth and width come out of this folder (sweet {info["sweet"]}).

{_table({key: value for key, value in rows.items() if value is not None})}
```
sweet init this-folder --depth 6 --heads 6 --out my-vit
```
"""


def model_card(info: dict[str, Any]) -> str:
    vit = info["vit"]
    metrics = {key: value for key, value in info.get("metrics", {}).items() if not isinstance(value, list | dict)}
    return f"""# L{vit["depth"]}H{vit["heads"]} Vision Transformer

Made by sweet {info["sweet"]}.

{_table({"shape": _shape(vit), **info["made"], **metrics})}
```python
import sweet

vit = sweet.load("this-folder")  # a plain timm model
```
"""


def _shape(vit: dict[str, Any]) -> str:
    size = f"L{vit['depth']}H{vit['heads']}, width {vit['heads'] * vit['head_dim']}"
    return f"{size}, {vit['img_size']} px, patch {vit['patch_size']}, family {vit['family']}"


def _table(rows: dict[str, Any]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {key} | {value} |\n" for key, value in rows.items())
