"""README.md of a folder, from its config and recipe: what it is, from what, at what cost, how good, how to use it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from sweet.errors import UserError, printable
from sweet.models.config import ViTConfig
from sweet.recipes.schema import PretrainRecipe, without_path
from sweet.template.image_size import size_text

from .records import FolderRecord, OriginRecord, flops_text

PAPER = "SWEET: Self-Supervised Weight Templates for Scalable Vision Model Initialization (arXiv 2601.19694)"
CHECK = "the SHA256 of all that makes the model stands in `SHA256SUMS`: `sweet verify .` or `sha256sum -c SHA256SUMS`"
USE_SOURCE = """```
sweet init this-folder --depth 6 --heads 6 --out my-vit
```
```python
import sweet

source = sweet.load("this-folder")  # or the hub's user/name
vit = source.build(depth=6, heads=6, num_classes=100)  # a plain timm model
```
"""
# Those that the hub knows by these names; another one is "other" with a name of its own.
HUB_LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0", "cc0-1.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "openrail", "unlicense", "gemma", "llama3",
    "apple-amlr", "unknown",
)  # fmt: skip
# How to use what `sweet export --to` wrote; FOLDER stands for the folder or the hub's name.
USE = {
    "model": """```python
import sweet

vit = sweet.load("this-folder")  # a plain timm model
```
`sweet export this-folder --to timm --out DIR` writes a folder that timm loads without sweet.
""",
    "timm": """```python
import timm

vit = timm.create_model("local-dir:this-folder", pretrained=True)  # or hf-hub:user/name; sweet is not needed
maps = timm.create_model("local-dir:this-folder", pretrained=True, features_only=True)
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(vit))
```
""",
    "onnx": """```python
import onnxruntime

session = onnxruntime.InferenceSession("this-folder/model.onnx")
output = session.run(None, {"images": images})[0]  # float32 (N, channels, height, width), normalised; any N
session.get_modelmeta().custom_metadata_map  # classes, mean, std, img_size, interpolation as JSON
```
""",
    "onnx segment": """```python
import onnxruntime

session = onnxruntime.InferenceSession("this-folder/model.onnx")
logits = session.run(None, {"images": images})[0]  # float32 (N, channels, window, window), normalised; any N
classes = logits.argmax(1)  # of each pixel
session.get_modelmeta().custom_metadata_map  # classes, mean, std, window, stride, short_side as JSON
```
An image is resized so that its short side has `short_side` pixels (0: as it is), and looked at in windows.
""",
    "onnx detect": """```python
import onnxruntime

session = onnxruntime.InferenceSession("this-folder/model.onnx")
found = session.run(None, {"images": image, "size": size})  # boxes (x0, y0, x1, y1), scores, labels, and masks if any
session.get_modelmeta().custom_metadata_map  # classes, mean, std, img_size, side as JSON
```
`image`: float32 (1, channels, height, width), resized to fit into `img_size` (bilinear, antialiased), normalised,
then padded with zeros at the right and the bottom; `size`: float32, the height and the width of what is image in it.
Places that are not needed have score 0 and label -1.
""",
    "predict": """```
sweet predict this-folder photo.jpg --out pictures  # from the hub: hf download user/name --local-dir this-folder
```
`sweet export this-folder --to onnx --out DIR` writes a graph that needs no sweet.
""",
    "transformers": """```python
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("this-folder")
encoder = AutoModel.from_pretrained("this-folder")  # last_hidden_state: class token, then patches
classifier = AutoModelForImageClassification.from_pretrained("this-folder")  # where the model has a head
```
""",
}

MADE = {  # rows about how a model was made
    "method": "initialised by",
    "images": "unlabelled images for it",
    "seed": "seed of the initialisation",
    "train_images": "images that it learned from",
    "train_seconds": "seconds that it learned",
    "train_pflops": "compute that it took",
    "source_kind": "source",
    "source_size": "size of the source",
    "source_sha256": "sha256 of the source",
    "source_data": "the source was made from",
}

POOLED = {"tokens": "after the final norm", "pooled": "before the final norm", "none": "without a final norm"}
PIPELINES = {  # of the hub, by task
    "classify": "image-classification",
    "multilabel": "image-classification",
    "detect": "object-detection",
    "segment": "image-segmentation",
}


def source_card(record: FolderRecord, recipe: PretrainRecipe) -> str:
    """The card of a source that was learned by ``recipe``."""
    training = record.training
    assert training is not None
    what = "Template" if record.kind == "template" else "Dense source"
    ranks = f", ranks {record.ranks}" if record.ranks else ""
    rows = {
        "learned at": _shape(record.vit),
        "constraint": f"{record.constraint}{ranks}",
        "objective": f"masked autoencoding, {recipe.mae.mask_ratio:.0%} of the patches masked"
        if recipe.objective == "mae"
        else "labels and a teacher"
        if recipe.teacher
        else "labels",
        "images": f"{_plain(training.data)} ({training.data_images:,}); their terms apply to what is made from them",
        **training.words(),
        "seed": recipe.seed,
        "method": PAPER,
        "checksums": CHECK,
    }
    return _of_source(f"{what} {_code(recipe.name)}", record, rows)


def converted_card(record: FolderRecord) -> str:
    """The card of a source that was made from a checkpoint."""
    converted = record.converted
    assert converted is not None
    rows = {
        "made from": f"{_code(converted.source)}, whose licence and terms apply to it and to what is made from it",
        **_origin(converted.origin),
        "sha256 of the source": converted.source_sha256,
        "shape": _shape(record.vit),
        "ranks": record.ranks,
        "relative error of the weights": converted.error.overall,
        "of the features": converted.feature_error,
        "images for the principal order": _plain(converted.order_images),
        "seen at": f"{size_text(converted.order_size)} px" if converted.order_size else None,
        "coordinates": "conditioned" if converted.condition else None,
        "assumed of the source": _plain("; ".join(converted.assumed or ())) or None,
    }
    if healing := converted.healing:
        rows["healed"] = f"{healing.steps} steps on {_plain(healing.data)}, whose terms apply as well"
        rows["error of the features since then"] = healing.feature_error
    rows["checksums"] = CHECK
    return _of_source(f"Template from {_code(converted.source)}", record, rows)


def _of_source(title: str, record: FolderRecord, rows: Mapping[str, object]) -> str:
    return f"""# {title}

The weights of a Vision Transformer of any depth and width come out of this folder (sweet {record.sweet}).

{_table({key: value for key, value in rows.items() if value is not None})}
{USE_SOURCE}"""


def model_card(
    record: FolderRecord,
    recipe: Mapping[str, Any] | None = None,
    *,
    use: str = "model",
    licence: str | None = None,
    seeds: Sequence[Mapping[str, float]] = (),
) -> str:
    """The card of a model.

    ``recipe`` is the one of fine-tuning, ``use`` a key of :data:`USE`, ``seeds`` metrics of its runs by other seeds.
    """
    made = _made(record)
    rows = {"shape": _shape(record.vit), **made, **_training_rows(record, recipe or {})}
    if record.task not in ("detect", "segment", "generate"):  # these read all tokens
        rows["features"] = f"the mean of the patch tokens {POOLED[record.vit.final_norm]}"
    rows |= {"method of the source": PAPER, "checksums": CHECK}
    return f"""# {record.vit.size} Vision Transformer

Made by sweet {record.sweet}.

{_table(rows)}
{_results(record, seeds)}## Use

{USE[use]}
## Licence

{_terms(record, recipe or {}, licence)}
"""


def front_matter(record: FolderRecord, *, licence: str, library: str) -> str:
    """The YAML block by which the hub finds a repository."""
    from huggingface_hub import ModelCardData

    tag = PIPELINES.get(record.task or "classify") if record.kind == "model" and record.data.classes else None
    named = licence in HUB_LICENCES
    data = ModelCardData(
        license=licence if named else "other",
        license_name="terms-of-the-images" if licence == "other" else None if named else licence,
        library_name=library,
        pipeline_tag=tag or "image-feature-extraction",
        tags=["vision-transformer", "sweet", *(["timm"] if library == "timm" else []), record.kind],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def without_front_matter(card: str) -> str:
    """A card without such a block."""
    return card.partition("\n---\n")[2] if card.startswith("---\n") else card


def default_licence(record: FolderRecord) -> str:
    """That of the checkpoint of others that it was made from, else ``other``."""
    return (record.origin_record.licence if record.origin_record else None) or "other"


def shareable(recipe: str) -> str:
    """A recipe's text without paths of this machine. Raises UserError for what is no YAML."""
    try:
        keys = yaml.safe_load(recipe)
    except yaml.YAMLError as problem:
        raise UserError(f"recipe.yaml: not valid YAML ({problem})") from None
    if not isinstance(keys, dict):
        return recipe
    data = keys.get("data")
    if isinstance(data, dict) and isinstance(data.get("source"), str):
        data["source"] = without_path(data["source"])
    for key in ("init_from", "teacher"):
        if isinstance(keys.get(key), str):
            keys[key] = Path(keys[key]).name
    return yaml.safe_dump(keys, sort_keys=False, width=110)


def _origin(origin: OriginRecord | None) -> dict[str, Any]:
    """Rows about the checkpoint of others that something was made from."""
    if origin is None:
        return {}
    rows = {"licence of the source": origin.licence, "its address": origin.url, "to cite": origin.citation}
    return {key: value for key, value in rows.items() if value is not None}


def _made(record: FolderRecord) -> dict[str, Any]:
    if record.made is None:
        return {}
    rows = record.made.to_dict()
    rows.pop("origin", None)
    rows["parameters"] = f"{record.made.parameters:,}" if record.made.parameters else None
    rows["images"] = f"{record.made.images:,}" if record.made.images else None
    if record.made.train_pflops:
        rows["train_pflops"] = flops_text(1e15 * record.made.train_pflops)
    named = {MADE.get(key, key): value for key, value in rows.items() if value is not None}
    return {key: _plain(value) for key, value in (named | _origin(record.made.origin)).items()}


def _training_rows(record: FolderRecord, recipe: Mapping[str, Any]) -> dict[str, str]:
    training = record.training
    if training is None:
        return {}
    rows = {"task": record.task, "fine-tuned on": _plain(_tuned_on(recipe))}
    if "lr" in recipe:
        words = (f"{name} {recipe.get(key)}" for name, key in (("lr", "lr"), ("batch", "batch_size"), ("seed", "seed")))
        rows["recipe"] = f"{_plain(', '.join(words))}; see recipe.yaml"
    return {key: value for key, value in rows.items() if value is not None} | training.words()


def _label(key: str, metrics: Mapping[str, Any]) -> str:
    """A metric as people call it: one of features has the name of what extracted them."""
    if key in ("fid", "is"):
        return f"{key.upper()}-{_plain(str(metrics.get('fid_extractor', '')).partition(' ')[0])}".rstrip("-")
    return str(_plain(key.replace("_", " ")))


def _tuned_on(recipe: Mapping[str, Any]) -> str | None:
    data = recipe.get("data") or {}
    source = data.get("source")
    if source is None:
        return None
    labels = f", {data['labels']:,} labels" if data.get("labels") else ""
    return without_path(source) + labels


def _results(record: FolderRecord, seeds: Sequence[Mapping[str, float]]) -> str:
    """A row for each number; with the mean and the standard deviation where other seeds are known."""
    metrics = record.scores
    if not metrics:
        return ""
    if not seeds:
        values = record.metrics or {}
        rows = {_label(k, values): _plain(v) for k, v in values.items() if isinstance(v, int | float | str)}
        chosen = record.training is not None and record.training.best_step is not None
        how = "One seed, on the validation split" + (", which also chose the step that is kept" if chosen else "")
        return f"## Results\n\n{how}.\n\n{_table(rows)}\n"
    head = f"| | this model | mean of {len(seeds) + 1} seeds | standard deviation |\n|---|---|---|---|\n"
    lines = []
    for key, value in metrics.items():
        both = [value, *(float(other[key]) for other in seeds if key in other)]
        if len(both) > 1:
            lines.append(f"| {_label(key, record.metrics or {})} | {value} | {mean(both):.5g} | {stdev(both):.3g} |\n")
    return f"## Results\n\nOn the validation split.\n\n{head}{''.join(lines)}\n"


def _terms(record: FolderRecord, recipe: Mapping[str, Any], licence: str | None) -> str:
    source_data = record.made.source_data if record.made is not None else None
    sources = dict.fromkeys(text for text in (source_data, _tuned_on(recipe)) if text)
    origin = record.origin_record
    stated = f"Licence: {_plain(licence)}. " if licence else ""
    if origin is not None and origin.licence and origin.licence != licence:
        stated += f"Licence of {_code(origin.name)}, from which it was made: {_plain(origin.licence)}. "
    if not sources:
        return f"{stated}The terms of the images from which it was learned apply to it."
    return f"{stated}The terms of what it was learned from apply to it: {', '.join(map(_code, sources))}."


def _shape(vit: ViTConfig) -> str:
    return f"{vit.size}, width {vit.width}, {size_text(vit.img_size)} px, patch {vit.patch_size}, family {vit.family}"


def _table(rows: Mapping[str, Any]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {key} | {value} |\n" for key, value in rows.items())


def _plain(value: Any) -> Any:
    """A name that somebody gave, as text in a table: neither Markdown nor HTML, on one line. Numbers stay."""
    if not isinstance(value, str):
        return value
    text = printable(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|$])", lambda found: f"&#{ord(found[0])};", text)


def _code(text: str) -> str:
    """The same as code; a backtick would end it and a bar a table's cell."""
    return f"`{printable(text).replace('`', chr(39)).replace('|', '/')}`"
