"""The sources of a table: each is learned once, into the user's cache, under a name that tells its whole recipe."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import astuple
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sweet.files import TENSORS, read_json, sha256, write_folder
from sweet.models.config import ViTConfig
from sweet.plan import ranks_of
from sweet.recipe import FinetuneRecipe, PretrainRecipe, load_recipe

from .arms import Converted, FineTuned, Rotated
from .protocols import Protocol, overrides_of

TRAINING_VERSION = 2  # a source that other code has learned is another one: raised when a recipe gives other weights
HOW: Any = {"device": True, "workers": True, "checkpoint_every": True, "optim": {"compile"}}  # how a run is run


def cache_folder() -> Path:
    """$SWEET_CACHE, by default the user's cache folder: sources and checkpoints of a bench live here."""
    return Path(os.environ.get("SWEET_CACHE") or Path.home() / ".cache" / "sweet")


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def before(protocol: Protocol, source: str) -> str | None:
    """The source that this one is made from, goes on from or is taught by (override ``KEY=@NAME``)."""
    told = protocol.sources[source]
    return told.of if not isinstance(told, list) else next(iter(_others(told).values()), None)


def _others(told: list[str]) -> dict[str, str]:
    """{key: name of another source} of overrides."""
    return dict(value.split("=@") for value in told if "=@" in value)


def source_recipe(protocol: Protocol, source: str, data: str) -> PretrainRecipe:
    """What a source is trained by; of one that is made of another, what that was trained by."""
    told = protocol.sources[source]
    if not isinstance(told, list):
        return source_recipe(protocol, told.of, data)
    overrides = overrides_of(told)
    for key, other in _others(told).items():
        overrides.append(f"{key}={source_folder(protocol, other, data)}")
        if key == "teacher":
            overrides.append(f"data.labels={json.dumps(protocol.finetune['data'].get('labels'))}")
    return load_recipe(PretrainRecipe, protocol.pretrain, [f"data.source={data}", *overrides])


def source_folder(protocol: Protocol, source: str, data: str) -> Path:
    """Where a source is cached: by the version of the training code and by everything in its recipe but how it is run
    and where its images lie.

    A key at its default is left out, so that a new key does not make old sources strangers; ranks never are, for
    their default follows from the size.
    """
    recipe, told = source_recipe(protocol, source, data), protocol.sources[source]
    folder = cache_folder() / "sources"
    if not isinstance(told, list):
        about = [source_folder(protocol, told.of, data).name, *astuple(told)[1:]]
        if isinstance(told, FineTuned):
            about.append(protocol.finetune)
        return folder / f"{recipe.name}-{type(told).__name__.lower()}-{digest(about)}"
    changed = recipe.model_dump(exclude=HOW, exclude_defaults=True)
    values = {key: value for key, value in changed.items() if value != {}}  # only how it runs
    values["data"]["source"] = Path(values["data"]["source"]).name
    if TRAINING_VERSION > 1:
        values["training"] = TRAINING_VERSION
    if recipe.template.constraint != "tucker":
        values["template"].pop("learn", None)
    elif not recipe.template.turned:
        values.setdefault("template", {})["ranks"] = ranks_of(recipe)
    for key in ("init_from", "teacher"):
        if values.get(key) is not None:
            values[key] = Path(values[key]).name
    return folder / f"{recipe.name}-{recipe.template.constraint}-{digest(values)}"


def chain(protocol: Protocol, source: str) -> list[str]:
    """The sources that one is made from, the first first, and itself."""
    parent = before(protocol, source)
    return [*(chain(protocol, parent) if parent else []), source]


def learned(protocol: Protocol, source: str, data: str) -> bool:
    """Whether a source lies in the cache, complete."""
    return (source_folder(protocol, source, data) / "config.json").is_file()


def learn_source(protocol: Protocol, source: str, data: str, device: str) -> Path:
    """Make a source in the cache unless it is there; resumes an interrupted one. What it is made from must be there."""
    from sweet.convert import convert
    from sweet.training.pretrain import pretrain

    folder, told = source_folder(protocol, source, data), protocol.sources[source]
    if learned(protocol, source, data):
        return folder
    if isinstance(told, Converted):
        parent = str(source_folder(protocol, told.of, data))
        ranks, metric, steps = told.ranks, told.metric, told.heal
        convert(parent, folder, ranks=ranks, metric=metric, heal_steps=steps, data=data, device=device)
    elif isinstance(told, Rotated):
        rotate(source_folder(protocol, told.of, data), folder)
    elif isinstance(told, FineTuned):
        teach(protocol, source_folder(protocol, told.of, data), folder, data, device)
    else:
        recipe = source_recipe(protocol, source, data).model_copy(update={"device": device})
        pretrain(recipe, folder, resume=True, quiet=False)
    return folder


def rotate(dense: Path, out: Path) -> None:
    """The same function with the stream in its principal order, as a dense source of its own."""
    from sweet.models.mae import source_from_state
    from sweet.models.store import load_source, source_tensors
    from sweet.template.target import target_weights

    stored = load_source(dense)
    size = stored.config.size
    turned = source_from_state(target_weights(stored.source, size.depth, size.width), stored.config)
    info = {key: value for key, value in stored.info.items() if key not in ("training", "width")}
    write_folder(out, (TENSORS["dense"], source_tensors(turned)), info, f"rotated: {dense.name}\n", "")


def teach(protocol: Protocol, source: Path, out: Path, data: str, device: str) -> None:
    """A source of the protocol as a classifier of its own size, fine-tuned as cells are; seed 0."""
    from sweet.initialise.make import initialise_to
    from sweet.training.finetune import finetune

    config, start = _config_of(source), out.with_name(f".{out.name}-start")
    if not (start / "config.json").is_file():
        initialise_to(str(source), start, depth=config.depth, heads=config.heads, method="weight_selection")
    values = {key: value for key, value in protocol.finetune.items() if key != "data"}
    keys = protocol.finetune["data"] | {"source": data, "label_seed": 0}
    recipe = FinetuneRecipe.model_validate({**values, "device": device, "data": keys})
    finetune(start, recipe, out, resume=True)
    shutil.rmtree(start)


def _config_of(folder: Path) -> ViTConfig:
    return ViTConfig.from_dict(read_json(folder / "config.json")["vit"])


def source_facts(protocol: Protocol, source: str, data: str) -> dict[str, Any]:
    """The ``config.json`` of a source in the cache; images, seconds and FLOPs of its training include its parents'."""
    folder = source_folder(protocol, source, data)
    facts = read_json(folder / "config.json")
    own = _spent(protocol, source, data)
    tensors = folder / TENSORS[facts["kind"]]
    return {"source": folder.name, **facts, "training": own, "sha256": sha256(tensors), **_spectrum(tensors)}


def _spent(protocol: Protocol, source: str, data: str) -> dict[str, Any]:
    """What training a source took, all before it included."""
    folder = source_folder(protocol, source, data)
    facts = read_json(folder / "config.json")
    own: dict[str, Any] = facts.get("training") or facts.get("converted", {}).get("healing") or {}
    told = protocol.sources[source]
    if isinstance(told, list) and "teacher" in _others(told):
        own = own | {"teacher": source_folder(protocol, _others(told)["teacher"], data).name}
    if isinstance(told, FineTuned):
        own = own | {"pflops": 3 * own["images"] * _config_of(folder).cost().flops(attention=True) / 1e15}
    parent = before(protocol, source)
    if parent is not None:
        for key, value in _spent(protocol, parent, data).items():
            own[key] = (
                own.get(key, 0) + value if key in ("images", "steps", "seconds", "pflops") else own.get(key, value)
            )
    return own


def _spectrum(tensors: Path) -> dict[str, list[float]]:
    """Share of the normalised stream's energy at each index of the principal order, where a source has one."""
    with safe_open(tensors, "numpy") as stored:
        if "order.energy" not in stored.keys():  # noqa: SIM118
            return {}
        energy = stored.get_tensor("order.energy").sum(0)
    return {"order_spectrum": [round(float(share), 6) for share in energy / energy.sum()]}
