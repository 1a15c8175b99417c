"""Synthetic scenes that need no download: the label is the shape of the largest object, never its colour.

Everything about a scene is drawn from (seed, split, index). Scenes carry boxes and masks of every object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweet.errors import UserError

from .images import ImageSource, digest
from .objects import Objects
from .splits import Splits

Grid = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

VERSION = 1  # part of the fingerprint: raise it when the pixels of a scene change
SUPERSAMPLE = 2
DEFAULTS = {"n": 2000, "size": 32, "seed": 0}
MIN_SIZE, MAX_SIZE, MOST = 8, 4096, 10_000_000
TILT = 0.4  # radians
VISIBLE = 4  # pixels; an object of which less is seen is not listed


def _polygon(u: Grid, v: Grid, corners: int, inner: float = 1.0) -> Mask:
    """A regular polygon of radius 1; with ``inner`` < 1 a star whose notches lie at that radius."""
    turn = np.arctan2(v, u) % (2 * np.pi / corners)
    turn = np.minimum(turn, 2 * np.pi / corners - turn)  # angle to the nearest tip, 0 .. pi / corners
    x, y = np.hypot(u, v) * np.cos(turn), np.hypot(u, v) * np.sin(turn)
    reach = inner if inner < 1 else np.cos(np.pi / corners)
    notch_x, notch_y = reach * np.cos(np.pi / corners), reach * np.sin(np.pi / corners)
    return (1 - x) * notch_y - (1 - notch_x) * y > 0  # inside of the edge from the tip (1, 0) to the notch


SHAPES: dict[str, Callable[[Grid, Grid], Mask]] = {
    "circle": lambda u, v: u * u + v * v < 0.8,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.75,
    "triangle": lambda u, v: _polygon(u, v, 3),
    "star": lambda u, v: _polygon(u, v, 5, inner=0.4),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.7) < 0.25,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.26) & (np.maximum(abs(u), abs(v)) < 0.95),
    "crescent": lambda u, v: (u * u + v * v < 0.9) & ((u - 0.55) ** 2 + v * v > 0.55),
    "half": lambda u, v: (u * u + (v + 0.4) ** 2 < 1) & (v > -0.4),
    "bar": lambda u, v: (abs(u) < 1) & (abs(v) < 0.3),
    "arrow": lambda u, v: ((abs(v) < 0.22) & (abs(u) < 0.9)) | ((u > 0.05) & (abs(v) < (0.95 - u) * 0.9)),
}
CLASSES = list(SHAPES)


@dataclass(frozen=True)
class Scene:
    """image (S, S, 3) uint8; ``label`` of the main object, which is also the last of the objects.

    Per visible object: class, box (x0, y0, x1, y1) in pixels (n, 4), mask of what is seen (n, S, S).
    """

    image: NDArray[np.uint8]
    label: int
    object_labels: list[int]
    boxes: Grid
    masks: Mask


def draw_scene(size: int, label: int, key: list[int]) -> Scene:
    """The scene of one key (such as [seed, split, index]) with ``label`` as its main object."""
    random = np.random.default_rng(key)
    fine = size * SUPERSAMPLE
    axis = ((np.arange(fine, dtype=np.float32) + 0.5) / fine) * 2 - 1
    x, y = np.meshgrid(axis, axis)
    background, colour = _two_colours(random)
    canvas = _texture(random, x, y, background)
    owner = np.zeros((fine, fine), dtype=np.int8)
    labels = [*random.integers(len(CLASSES), size=random.integers(1, 4)).tolist(), label]
    for number, shape in enumerate(labels, start=1):
        main = number == len(labels)
        radius = random.uniform(0.6, 0.85) if main else random.uniform(0.12, 0.25)
        reach = 0.25 if main else 1.0
        inside = _place(random, SHAPES[CLASSES[shape]], x, y, radius, reach)
        paint = colour if main else _colour(random, 0.0, 1.0)
        canvas[inside] = _texture(random, x, y, paint)[inside]
        owner[inside] = number
    noise = random.standard_normal((size, size, 3), dtype=np.float32)
    image = (_shrink(canvas) * 255 + 6 * noise).clip(0, 255).astype(np.uint8)
    owned = owner[..., None] == np.arange(1, len(labels) + 1)
    seen = (_shrink(owned.astype(np.float32)) > 0.5).transpose(2, 0, 1)
    kept = [number for number in range(len(labels)) if seen[number].sum() >= VISIBLE]
    masks = seen[kept]
    return Scene(image, label, [labels[number] for number in kept], _boxes(masks), masks)


def _two_colours(random: np.random.Generator) -> tuple[Grid, Grid]:
    """Colours of background and main object: any, but of different brightness, either one the lighter."""
    dark, light = _colour(random, 0.0, 0.4), _colour(random, 0.55, 1.0)
    return (dark, light) if random.random() < 0.5 else (light, dark)


def _texture(random: np.random.Generator, x: Grid, y: Grid, colour: Grid) -> Grid:
    """(S, S, 3): a colour with a wave across it, whose tint, direction and fineness are drawn."""
    angle, phase = random.uniform(0, 2 * math.pi), random.uniform(0, 2 * math.pi)
    frequency = random.uniform(0, 4 * math.pi)
    wave = np.sin(frequency * math.cos(angle) * x + frequency * math.sin(angle) * y + phase)
    return colour + wave[..., None] * _colour(random, -0.1, 0.1)


def _colour(random: np.random.Generator, low: float, high: float) -> Grid:
    return random.uniform(low, high, 3).astype(np.float32)


def _place(
    random: np.random.Generator,
    shape: Callable[[Grid, Grid], Mask],
    x: Grid,
    y: Grid,
    radius: float,
    reach: float,
) -> Mask:
    """The shape tilted by up to ``TILT``, its centre anywhere within ``reach`` of the middle."""
    centre_x, centre_y = random.uniform(-reach, reach), random.uniform(-reach, reach)
    angle = random.uniform(-TILT, TILT)
    cos, sin = math.cos(angle) / radius, math.sin(angle) / radius
    dx, dy = x - centre_x, y - centre_y
    return shape(cos * dx + sin * dy, cos * dy - sin * dx)


def _shrink(canvas: Grid) -> Grid:
    side, channels = len(canvas) // SUPERSAMPLE, canvas.shape[2]
    return canvas.reshape(side, SUPERSAMPLE, side, SUPERSAMPLE, channels).mean((1, 3))


def _boxes(masks: Mask) -> Grid:
    boxes = np.zeros((len(masks), 4), dtype=np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


class ShapeImages(ImageSource):
    """``count`` scenes, the classes in turn; in their masks 0 is the background."""

    has_boxes = has_masks = True

    def __init__(self, name: str, split: str, count: int, size: int, seed: int) -> None:
        super().__init__(name, split, count, [index % len(CLASSES) for index in range(count)], CLASSES)
        self.mask_classes = ["background", *CLASSES]
        self.pixels = size
        self.seed = seed

    def scene(self, index: int) -> Scene:
        """The scene of one index with all its objects. Raises IndexError beyond the last."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return draw_scene(self.pixels, index % len(CLASSES), [self.seed, int(self.split == "train"), index])

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.scene(index).image)

    def objects(self, index: int) -> Objects:
        scene = self.scene(index)
        nobody = [False] * len(scene.boxes)
        return Objects.of(scene.boxes, scene.object_labels, nobody, scene.masks.sum((1, 2)), scene.masks)

    def size(self, index: int) -> tuple[int, int]:
        return self.pixels, self.pixels

    def mask(self, index: int) -> NDArray[np.uint8]:
        scene = self.scene(index)
        classes = np.zeros(scene.image.shape[:2], dtype=np.uint8)
        for label, seen in zip(scene.object_labels, scene.masks, strict=True):
            classes[seen] = label + 1
        return classes

    def where(self, index: int) -> str:
        return f"{self.name} {self.split} image {index}"

    def fingerprint(self) -> str:
        return digest("shapes", VERSION, self.split, self.count, self.pixels, self.seed)


def shapes_splits(spec: str, rest: str) -> Splits:
    """``n`` training scenes and a fifth as many for validation. Raises UserError on a wrong option."""
    given: dict[str, int] = {}
    for word in filter(None, rest.split(",")):
        key, _, value = word.partition("=")
        if key not in DEFAULTS or not value.isdecimal() or len(value) > 18:  # Python may read no more digits
            raise UserError(f"--data {spec}: {word!r} not understood; expected n=2000,size=32,seed=0")
        if key in given:
            raise UserError(f"--data {spec}: {key} stands twice")
        given[key] = int(value)
    options = DEFAULTS | given
    if not (1 <= options["n"] <= MOST and MIN_SIZE <= options["size"] <= MAX_SIZE):
        raise UserError(f"--data {spec}: n must be from 1 to {MOST:,}, size from {MIN_SIZE} to {MAX_SIZE}")
    counts = {"train": options["n"], "val": max(len(CLASSES), options["n"] // 5)}
    return {
        split: partial(ShapeImages, spec, split, count, options["size"], options["seed"])
        for split, count in counts.items()
    }
