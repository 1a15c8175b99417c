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

from sweet.data import ImageSource, eval_batches, packed
from sweet.errors import UserError
from sweet.initialise_names import NAMES
from sweet.models.condition import IMAGES, condition
from sweet.models.store import StoredSource
from sweet.template.sizes import Size

from .conditioning import SWITCHES as CONDITION
from .conditioning import conditioned

Weights = dict[str, Tensor]
COMMON = ("source", "size", "data", "budget", "seed")
OF_TRAINING = ("device", "run")
TURNED = "condition"


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
    **given: Any,
) -> Weights:
    """Weights of ``size`` made from ``source`` by a method of the registry, with the switches ``given``.

    Raises UserError for an unknown method or switch, a source, a size or missing images that the method cannot do
    with, and ValueError when ``size`` has another head dimension than the source.
    """
    chosen = switches(method, given)
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
    turned = chosen.pop(TURNED, False)
    if (able.images != 0 or turned) and data is None:
        why = "looks" if able.images != 0 else f"{TURNED}=true looks"
        raise UserError(f"--method {method}: {why} at images; name some with --fit, for example --fit folder:PATH")
    if able.trains:
        chosen |= {"device": device, "run": run}
    scales = {name: chosen.pop(name) for name in CONDITION if name in chosen}
    weights = _function(method)(source, size, data=data, budget=budget or able.images, seed=seed, **chosen)
    weights = conditioned(weights, seed=seed, **scales) if scales else weights
    return _turned(weights, source, size, data) if turned and data is not None else weights


def _turned(weights: Weights, source: StoredSource, size: Size, data: ImageSource) -> Weights:
    """:func:`sweet.models.condition.condition` of a finished start, from the first images."""
    told, config = source.info["data"], source.config.resized(size.depth, size.heads)
    images = packed(data.select(range(min(IMAGES, len(data)))), config.img_size)
    batches = eval_batches(images, batch_size=256, img_size=config.img_size, mean=told["mean"], std=told["std"])
    return condition(weights, config, (batch for batch, _ in batches))


def looks_at_images(method: str, chosen: Mapping[str, Any] | None = None) -> bool:
    """Whether a method does, with these switches."""
    return NAMES[method].images != 0 or bool((chosen or {}).get(TURNED))


def images_used(
    method: str, budget: int | None, data: ImageSource | None, chosen: Mapping[str, Any] | None = None
) -> int:
    """How many of ``data`` a method looks at, with these switches."""
    wanted = budget or NAMES[method].images
    if NAMES[method].images == 0 and looks_at_images(method, chosen):
        wanted = IMAGES
    return 0 if data is None or wanted == 0 else len(data) if wanted is None else min(wanted, len(data))


def switches(method: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All switches of a method with their values: what was given (text is understood), else the default.

    None stands for not given. Every method has those of :mod:`.conditioning` too, and ``condition=true``, which gives
    its result the coordinates of :mod:`sweet.models.condition`; they do nothing unless given.
    Raises UserError for an unknown method, switch or value.
    """
    function = _function(method)
    types = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    result = {p.name: p.default for p in parameters if p.name not in COMMON + OF_TRAINING}
    for name, value in (given or {}).items():
        if value is None:
            continue
        if name == TURNED:
            if _read(name, str(value).lower(), Literal["true", "false"]) == "true":
                result[name] = True
            continue
        if name in CONDITION:
            result[name] = _read(name, value, float)
            if result[name] < 0 or (name == "rms" and result[name] == 0):
                raise UserError(f"{name}={value}: should be {'above' if name == 'rms' else 'at least'} 0")
            if name == "noise" and result[name] > 1:
                raise UserError(f"{name}={value}: is a share, at most 1")
            continue
        if name not in result:
            has = ", ".join(result) or "none"
            raise UserError(f"{name}={value}: --method {method} has no such switch; its switches: {has}")
        result[name] = _read(name, value, types[name])
    return result


def _read(name: str, value: Any, kind: Any) -> Any:
    """A switch's value by its type: one of a Literal's words, or a number."""
    words = get_args(kind)
    if words:
        if value not in words:
            raise UserError(f"{name}={value}: expected one of {', '.join(words)}")
        return value
    try:
        number = kind(value)
    except ValueError:
        raise UserError(f"{name}={value}: should be a number") from None
    if not math.isfinite(number):
        raise UserError(f"{name}={value}: should be a number")
    return number


def _function(method: str) -> Callable[..., Weights]:
    if method not in NAMES:
        raise UserError(f"--method {method}: unknown, expected one of {', '.join(NAMES)}")
    function: Callable[..., Weights] = import_module(f"{__name__}.{method}").initialise
    return function


__all__ = ["NAMES", "Weights", "images_used", "initialise", "looks_at_images", "switches"]
