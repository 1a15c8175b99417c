"""``sweet data check``: look at every image of a source once, and say what sweet will do with what was found."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sweet.errors import UserError

from .bands import Picture, stripes
from .check_findings import name_table, place_table, use_table
from .decode import ORDINARY, frames, is_rotated
from .findings import Finding, class_findings, counted, some_names
from .folder import SUFFIXES
from .images import IGNORE, ImageSource
from .label_lists import flat_labels, list_findings
from .masks import unseen_classes
from .sources import source_splits
from .splits import split_findings
from .stats import MEASURED, depth_handling, find_depth, mean_and_std, moments_of, picked, proposed_keys

USUAL = {  # suffixes of formats, as most people write them
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # of phones: a JPEG with a second picture inside
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
LONG = 4  # sides: what is longer is special to segmentation
TINY = 8  # pixels


@dataclass(frozen=True)
class SizeRange:
    """(width, height) in pixels, each apart: the median of each need not be the size of any image."""

    min: list[int]
    median: list[int]
    max: list[int]


@dataclass(frozen=True)
class ObjectCounts:
    """Objects of each class, whether all of them have a mask, and how many lie outside their image."""

    per_class: dict[str, int]
    masks: bool
    left_out: int


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    count: images, readable or not; classes: images of each class, or that have it among others; mask_classes: percent
    of the pixels of all masks; modes: images of each colour mode as stored; corrupt: a message for each file that
    cannot be used; duplicates: groups of pixel-identical images; mean and std: of each channel, in 0..1, over at most
    ``MEASURED`` images.
    None where there is nothing of that sort.
    """

    count: int
    classes: dict[str, int] | None
    mask_classes: dict[str, float] | None
    objects: ObjectCounts | None
    sizes: SizeRange | None
    modes: dict[str, int]
    corrupt: list[str]
    duplicates: list[list[str]]
    mean: list[float] | None
    std: list[float] | None


@dataclass(frozen=True)
class CheckReport:
    """What a source holds, and groups of images that are pixel-identical though in different splits."""

    source: str
    splits: dict[str, SplitReport]
    duplicates_across_splits: list[list[str]]
    findings: list[Finding]

    def to_dict(self) -> dict[str, object]:
        """For JSON; a split without boxes has no key ``objects``."""
        values = asdict(self, dict_factory=lambda items: {k: v for k, v in items if k != "objects" or v is not None})
        return values | {"findings": [finding.to_dict() for finding in self.findings]}


def check(spec: str) -> CheckReport:
    """Decode every image of every split of a source. Raises UserError when the source cannot be read at all."""
    seen: dict[bytes, list[tuple[str, str]]] = {}  # hash of the pixels: (split, file) of every image with them
    opener = source_splits(spec)
    splits, findings, names = {}, [*place_table(spec), *split_findings(opener)], list[str]()
    for split, opened in opener.items():
        survey = Survey(opened())
        splits[split] = survey.report()
        findings += survey.findings()
        names += survey.images.classes or survey.images.mask_classes or []
        for key, same in survey.same.items():
            seen.setdefault(key, []).extend((split, survey.images.where(index)) for index in same)
    shared = [[file for _, file in group] for group in seen.values() if len({split for split, _ in group}) > 1]
    if shared:
        findings.append(
            Finding(
                "", f"{counted(len(shared), 'image')} in several splits", "kept: the metrics are too good", warn=True
            )
        )
    findings += name_table(list(dict.fromkeys(names)))
    return CheckReport(spec, splits, shared, list(dict.fromkeys(findings)))


@dataclass
class Survey:
    """Everything that one pass over the images of a split collects."""

    images: ImageSource
    same: dict[bytes, list[int]] = field(default_factory=dict)  # hash of the pixels: the images with them
    sizes: list[tuple[int, int]] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    rotated: int = 0  # images, as EXIF says
    suffixes: Counter[str] = field(default_factory=Counter)  # names of files with the formats that they hold
    several: Counter[str] = field(default_factory=Counter)  # formats of files with several frames or pages
    corrupt: list[str] = field(default_factory=list)
    objects: Counter[int] = field(default_factory=Counter)  # of each class
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))  # of each value of the masks
    moments: list[NDArray[np.float32]] = field(default_factory=list)

    def report(self) -> SplitReport:
        """Look at every image, and sum up."""
        images, count = self.images, len(self.images)
        self.depth = find_depth(images)
        images.read_as(self.depth.pixel_format)
        measured = set(picked(count, MEASURED))
        for index in range(count):
            try:
                self._add(index, measured=index in measured)
            except UserError as problem:
                self.corrupt.append(str(problem))
        mean, std = self.mean_and_std()
        labels = images.labels if images.labels is not None else flat_labels(images)
        return SplitReport(
            count=count,
            classes=_named(images.classes, Counter(labels)) if labels is not None else None,
            mask_classes=self._pixel_shares(),
            objects=self._object_counts(),
            sizes=self._size_range(),
            modes=dict(self.modes),
            corrupt=self.corrupt,
            duplicates=[[images.where(index) for index in group] for group in self.identical()],
            mean=mean,
            std=std,
        )

    def _add(self, index: int, *, measured: bool) -> None:
        images = self.images
        image = images.decode(index)
        if images.has_boxes:
            self.objects.update(images.objects(index).labels.tolist())
        self.sizes.append(image.size)
        self._look_at_file(index)
        self.same.setdefault(_pixel_hash(image), []).append(index)
        if measured:
            self.moments.append(moments_of(image))
        if images.mask_classes is not None:
            self.pixels += np.bincount(images.mask(index).ravel(), minlength=256)

    def _look_at_file(self, index: int) -> None:
        with self.images.open(index) as stored:
            self.modes[stored.mode] += 1
            suffix, contents = Path(self.images.where(index)).suffix.lower(), str(stored.format)
            if suffix in SUFFIXES and suffix not in USUAL.get(contents, (suffix,)):
                self.suffixes[f"{suffix} ({contents})"] += 1
            if frames(stored) > 1:
                self.several[contents] += 1
            self.rotated += is_rotated(stored)  # this may load all pixels

    def identical(self) -> list[list[int]]:
        """Groups of images with the same pixels."""
        return [group for group in self.same.values() if len(group) > 1]

    def at_odds(self) -> list[str]:
        """An image of each group of identical ones that have different labels."""
        images = self.images
        labels = images.labels if images.labels is not None else images.label_lists
        if labels is None:
            return []
        groups = (group for group in self.identical() if any(labels[i] != labels[group[0]] for i in group))
        return [Path(images.where(group[0])).name for group in groups]

    def _pixel_shares(self) -> dict[str, float] | None:
        if self.images.mask_classes is None:
            return None
        shares = (100 * self.pixels / max(1, self.pixels.sum())).round(3).tolist()
        named = {name: shares[label] for label, name in enumerate(self.images.mask_classes)}
        return named | {"no class": shares[IGNORE]}

    def _object_counts(self) -> ObjectCounts | None:
        images = self.images
        if not images.has_boxes:
            return None
        return ObjectCounts(_named(images.classes, self.objects) or {}, images.has_masks, images.left_out)

    def _size_range(self) -> SizeRange | None:
        if not self.sizes:
            return None
        both = np.array(self.sizes)
        return SizeRange(both.min(0).tolist(), np.median(both, 0).astype(int).tolist(), both.max(0).tolist())

    def mean_and_std(self) -> tuple[list[float], list[float]] | tuple[None, None]:
        """Of each channel; None where no image could be read."""
        return mean_and_std(self.moments) if self.moments else (None, None)

    def findings(self) -> list[Finding]:
        """Rows of the table, once :meth:`report` has looked at the images."""
        images, split = self.images, self.images.split
        rows = [*use_table(images), *images.findings()]
        rows += [*class_findings(split, images.classes, images.labels), *list_findings(images)]
        rows += [*_files(self), *_depths(self), *_sizes(self), *_damage(self)]
        if images.mask_classes is not None and self.pixels.any():
            if void := self.pixels[IGNORE]:
                shown = f"{100 * void / self.pixels.sum():.2g} % of the pixels of the masks without a class"
                rows.append(Finding(split, shown, "left out of the loss and of every metric"))
            try:
                pixels = torch.from_numpy(self.pixels[None, : len(images.mask_classes)])
                rows += unseen_classes(images, pixels, without_class=bool(self.pixels[IGNORE]))
            except UserError as problem:
                rows.append(Finding(split, str(problem), "a training refuses it", warn=True))
        return rows


def _files(survey: Survey) -> list[Finding]:
    found, split = list[Finding](), survey.images.split
    for name, count in survey.suffixes.items():
        found.append(Finding(split, f"{counted(count, 'image')} called {name}", "read as what it holds"))
    for contents, count in survey.several.items():
        files = f"{counted(count, f'{contents} file')} of several images (frames, pages)"
        found.append(Finding(split, files, "the first one is taken, the others are left out"))
    return found


def _depths(survey: Survey) -> list[Finding]:
    depth, split, found = survey.depth, survey.images.split, list[Finding]()
    for mode, count in survey.modes.items():
        handling = depth_handling(mode)
        if handling is None and mode != "RGB":
            handling = "see below: every value is mapped to 0..255"
        if handling is not None:
            found.append(Finding(split, f"{counted(count, 'image')} stored as {mode}", handling))
    if depth.low is not None:
        handling = "stretched to 0..255 by their type"
        if depth.value_range is not None:
            low, high = depth.value_range
            handling = f"{low:g} becomes 0, {high:g} becomes 255; {depth.clipped:.2g} % clipped, with the keys below"
        found.append(Finding(split, f"values from {depth.low:g} to {depth.high:g}", handling))
    if depth.blank:
        found.append(Finding(split, f"{depth.blank:.2g} % of the values are no numbers", "become 0, black"))
    odd, (mean, std) = depth.channels not in ORDINARY, survey.mean_and_std()
    if (odd or depth.value_range is not None) and mean and std:
        without = "refused" if odd or not depth.typed else "dark, with few levels,"
        keys = " ".join(proposed_keys(depth, mean, std))
        handling = f"{without} unless the recipe says {keys}"
        found.append(Finding(split, counted(depth.channels, "channel"), handling))
    return found


def _sizes(survey: Survey) -> list[Finding]:
    found, split = list[Finding](), survey.images.split
    long = sum(max(size) > LONG * min(size) for size in survey.sizes)
    if survey.rotated:
        handling = "rotated upright; boxes and masks are those of the upright image"
        found.append(Finding(split, f"{counted(survey.rotated, 'image')} that EXIF turns", handling))
    tiny = sum(min(size) < TINY for size in survey.sizes)
    if long:
        handling = f"the centre is taken; detect pads; segment makes the long side {LONG} x the short one at most"
        found.append(Finding(split, f"{counted(long, 'image')} longer than {LONG} to 1", handling))
    if tiny:
        found.append(Finding(split, f"{counted(tiny, 'image')} below {TINY} pixels", "enlarged, like any other"))
    return found


def _damage(survey: Survey) -> list[Finding]:
    found, split = list[Finding](), survey.images.split
    if survey.corrupt:
        handling = "a training stops and names it; with data.on_error=skip up to 0.1 % are left out and listed"
        handling += f"; the first: {survey.corrupt[0]}"
        found.append(Finding(split, f"{counted(len(survey.corrupt), 'image')} that cannot be used", handling))
    if groups := survey.identical():
        found.append(Finding(split, f"{counted(len(groups), 'group')} of identical images", "kept"))
    if odd := survey.at_odds():
        what = some_names(odd, "identical images with different labels")
        found.append(Finding(split, what, "kept: at most one of the labels is right", warn=True))
    return found


def _pixel_hash(image: Picture) -> bytes:
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    for stripe in stripes(image):
        digest.update(np.ascontiguousarray(stripe).data)
    return digest.digest()


def _named(classes: list[str] | None, counts: Counter[int]) -> dict[str, int] | None:
    return None if classes is None else {name: counts[label] for label, name in enumerate(classes)}
