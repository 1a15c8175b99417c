"""Ways to initialise a ViT of a given size. One file each, found by the name in the registry, one signature:

    initialise(source, size, *, data=None, budget=None, seed=0, **switches) -> Weights

``source`` is a template or dense source, ``size`` the target's; ``data`` are unlabelled images and ``budget`` how many
of them a method may look at. Switches differ: each file documents its own as keyword arguments, whose type (a
``Literal`` or a number) is checked here and whose default is the method's published or best known choice. One that
runs an optimiser also takes ``device`` and ``run``, a folder for its loss curve. Weights are a state dict under timm's
names without a head; the source's MAE decoder comes along as ``decoder.*`` where it can.

:func:`initialise` is the door: it refuses in one line what a method cannot do.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from torch import Tensor

from sweet.data import ImageSource, a_few, packed, whole_images
from sweet.errors import UserError
from sweet.models.condition import IMAGES, condition
from sweet.models.config import ViTConfig
from sweet.models.device import own_draws
from sweet.storage.folders import StoredSource
from sweet.storage.legacy import OLD_SWITCHES
from sweet.template.image_size import ImageSize
from sweet.template.sizes import Size

from . import closed_form
from .registry import AFTER, CONDITION, NAMES, RESCALING, STREAM, STREAM_RMS, check_method
from .rescale import ABOVE_0, rescaled

Weights = dict[str, Tensor]
Switch = str | float
COMMON = ("source", "size", "data", "budget", "seed")
OF_TRAINING = ("device", "run")
SMALLEST, LARGEST = 1e-6, 1e3  # of what rescales; float32 ends somewhere


def initialise(
    method: str,
    source: StoredSource,
    size: Size,
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
    device: str = "auto",
    run: Path | None = None,
    **given: object,
) -> Weights:
    """Weights of ``size`` made from ``source`` by a method of the registry, with the switches ``given``.

    Arguments are those of the one signature above; ``device`` and ``run`` are for methods that train. Returns timm's
    names without a head, ``decoder.*`` beside them where there is one. Raises UserError for an unknown method or
    switch, and for a source, a size or missing images that the method cannot work with; ValueError when ``size`` has
    another head dimension than the source.
    """
    chosen: dict[str, Any] = {**switches(method, given)}
    able = NAMES[method]
    if size.head_dim != source.config.head_dim:
        raise ValueError(f"head_dim is {size.head_dim}, the source has {source.config.head_dim}")
    constraint = source.source.core.constraint
    if able.takes and constraint not in able.takes:
        needed = " or ".join(f"template.constraint={name}" for name in able.takes)
        raise UserError(f"--method {method}: the source's constraint is {constraint}; pretrain one with {needed}")
    if not able.grows and (size.depth > source.config.depth or size.heads > source.config.heads):
        raise UserError(
            f"--method {method}: {size} is larger than the source {source.config.size}, and this method does not grow"
        )
    wants_condition = chosen.get(CONDITION, False)
    if (able.images != 0 or wants_condition) and data is None:
        why = "looks" if able.images != 0 else f"{CONDITION}=true looks"
        raise UserError(f"--method {method}: {why} at images; name some with --fit, for example --fit folder:PATH")
    if able.trains:
        chosen |= {"device": device, "run": run}
    after = {name: chosen.pop(name) for name in AFTER if name in chosen}
    with own_draws():  # a training seeds the global generators at each step
        weights = _function(method)(source, size, data=data, budget=budget or able.images, seed=seed, **chosen)
    return finished(weights, source, size, after, data=data, budget=budget, seed=seed)


def finished(
    weights: Weights,
    source: StoredSource,
    size: Size,
    after: Mapping[str, Any],
    *,
    data: ImageSource | None = None,
    budget: int | None = None,
    seed: int = 0,
) -> Weights:
    """What a method made, with the switches ``AFTER`` of every method: rescaled, then conditioned by at most
    ``budget`` images of ``data``."""
    scales = {name: value for name, value in after.items() if name != CONDITION}
    weights = rescaled(weights, seed=seed, **scales) if scales else weights
    if not after.get(CONDITION) or data is None:
        return weights
    config = source.config.resized(size.depth, size.heads)
    images = packed(a_few(data, min(budget or IMAGES, IMAGES)), config.img_size)
    return condition(weights, config, whole_images(images, source.data, batch_size=256))


def looks_at_images(method: str, chosen: Mapping[str, object] | None = None) -> bool:
    """Whether a method does, with these switches."""
    return NAMES[method].images != 0 or bool((chosen or {}).get(CONDITION))


def at_size_of_use(
    stored: StoredSource,
    method: str,
    chosen: Mapping[str, object],
    img_size: ImageSize | None,
    patch_size: int | None,
) -> StoredSource:
    """The source that a method works on: one that looks at images sees them as the target will.

    Not where the patches change as well, which timm resamples together at the end.
    """
    return stored.at_size(img_size) if patch_size is None and looks_at_images(method, chosen) else stored


def images_used(
    method: str, budget: int | None, data: ImageSource | None, chosen: Mapping[str, object] | None = None
) -> int:
    """How many of ``data`` a method looks at with these switches, ``budget`` being None for its own choice."""
    wanted = budget or NAMES[method].images
    if NAMES[method].images == 0:
        wanted = min(budget or IMAGES, IMAGES) if looks_at_images(method, chosen) else 0
    elif (chosen or {}).get("objective") == "closed":
        wanted = min(wanted or closed_form.IMAGES, closed_form.IMAGES)
    return 0 if data is None or wanted == 0 else len(data) if wanted is None else min(wanted, len(data))


def training_cost(method: str, source: ViTConfig, target: ViTConfig, chosen: Mapping[str, Switch]) -> dict[str, float]:
    """``train_images`` and ``train_pflops`` of a method that says what its training takes; else nothing."""
    cost = getattr(import_module(f"sweet.initialise.{method}"), "cost", None)
    return cost(source, target, chosen) if cost is not None else {}


def switches(method: str, given: Mapping[str, object] | None = None) -> dict[str, Switch]:
    """All switches of a method with their values: what was given (text is understood), else the default.

    None stands for not given; old names of values are understood. Every method has those of :mod:`.rescale` too, and
    ``condition=true`` (:mod:`sweet.models.condition`); they do nothing unless given, and ``writers=none`` is not given.

    Raises UserError for an unknown method, switch or value.
    """
    function = _function(method)
    types = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    result = {p.name: p.default for p in parameters if p.name not in COMMON + OF_TRAINING}
    for name, value in (given or {}).items():
        if value is None:
            continue
        if name == CONDITION:
            if _read(name, str(value).lower(), Literal["true", "false"]) == "true":
                result[name] = True
        elif name == STREAM and value == "none":
            continue
        elif name in RESCALING:
            result[name] = _rescaling(name, value)
        elif name in result:
            result[name] = _read(name, OLD_SWITCHES.get(str(value), value) if name == "inner" else value, types[name])
        else:
            has = ", ".join(dict.fromkeys([*result, *AFTER]))
            raise UserError(f"{name}={value}: --method {method} has no such switch; its switches: {has}")
    return result


def recommended(method: str, source: StoredSource, given: Mapping[str, object] | None = None) -> dict[str, Switch]:
    """:func:`switches` for who names but a few: with the rate and the scale of the stream that are best for a source.

    A start in principal coordinates, by order or by condition, has a scale where the source is somebody else's
    checkpoint, whose matrices may be small (docs/log.md); not where ``rms`` sets the scale of all of them. It is
    ``none`` where the stream stays as it is.
    """
    result, known, named = switches(method, given), NAMES[method], given or {}
    if not source.record.of_others:
        return result
    if known.lr is not None and named.get("lr") is None:
        result = {**result, "lr": known.lr}
    if STREAM in result or "rms" in result:
        return result
    scale = STREAM_RMS if result.get(CONDITION) else known.writers if result.get("order") != "prefix" else None
    if scale is None:
        return result
    return {**result, STREAM: scale if named.get(STREAM) is None else "none"}


def _rescaling(name: str, value: object) -> float:
    number = float(_read(name, value, float))
    least = SMALLEST if name in ABOVE_0 else 0.0
    if not least <= number <= LARGEST:
        raise UserError(f"{name}={value}: should be from {least:g} to {LARGEST:g}")
    if name == "noise" and number > 1:
        raise UserError(f"{name}={value}: is a share, at most 1")
    return number


def _read(name: str, value: object, annotation: Any) -> Switch:
    """A switch's value by its type: one of a Literal's words, or a number."""
    words = get_args(annotation)
    if words:
        if value not in words:
            raise UserError(f"{name}={value}: expected one of {', '.join(words)}")
        return str(value)
    try:
        number: float = annotation(value)
        known = math.isfinite(number) and not isinstance(value, bool)
        whole = isinstance(value, str) or number == value  # of a float int() takes the whole part
    except (ValueError, TypeError, OverflowError):
        known = whole = False
    if not (known and whole):
        raise UserError(f"{name}={value}: should be a {'whole ' if annotation is int else ''}number")
    return number


def _function(method: str) -> Callable[..., Weights]:
    check_method(method)
    function: Callable[..., Weights] = import_module(f"sweet.initialise.{method}").initialise
    return function
