"""What is odd about a set of images, and what is done about it: lines of a table, and warnings of a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAMES_SHOWN = 5
UNEQUAL = 4  # times as many images of the largest class as of the smallest
BALANCED = {"image": "optim.balance=weights or sampler", "image with them": "optim.balance=weights"}


@dataclass(frozen=True)
class Finding:
    """One line: in which split (or "" for the whole set), what was found, and what sweet does with it.

    ``warn``: a training says it too, because the result may not be what was meant.
    """

    split: str
    found: str
    handling: str
    warn: bool = False

    def to_dict(self) -> dict[str, str]:
        """For JSON and for a table."""
        return {"split": self.split or "all", "found": self.found, "what sweet does": self.handling}

    def text(self) -> str:
        """As one line."""
        return " ".join(f"{self.split + ': ' if self.split else ''}{self.found}: {self.handling}".split())


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def some_names(names: Sequence[str], what: str = "") -> str:
    """``files (a, b, c and 2 more)``: the first few, or those alone where they are not called anything."""
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{shown}{more}" if not what else f"{what} ({shown}{more})"


def is_training(split: str) -> bool:
    """Whether a split, as its source calls it, is the one to learn from."""
    return split.lower().startswith("train")


def class_findings(
    split: str, classes: Sequence[str] | None, labels: Iterable[int] | None, *, what: str = "image"
) -> list[Finding]:
    """Classes without an image (or another ``what``) in a split, classes of unequal size, and one class alone."""
    if classes is None or labels is None:
        return []
    counts = Counter(labels)
    found = []
    if missing := [name for label, name in enumerate(classes) if not counts[label]]:
        training = is_training(split)
        handling = "they keep their place and are never learned" if training else "no metric is measured for them"
        found.append(Finding(split, some_names(missing, f"classes without an {what}"), handling, warn=training))
    if what in BALANCED and is_training(split) and counts and max(counts.values()) >= UNEQUAL * min(counts.values()):
        (common, most), (rare, least) = counts.most_common()[0], counts.most_common()[-1]
        sizes = f"from {least} ({classes[rare]}) to {most} ({classes[common]}) images of a class"
        found.append(Finding(split, sizes, f"learned as they come; alike with {BALANCED[what]}"))
    if len(classes) == 1 and what == "image":
        handling = "there is nothing to tell apart: every answer is right"
        found.append(Finding(split, f"one class only ({classes[0]})", handling, warn=True))
    return found
