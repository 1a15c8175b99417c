"""What is odd about a set of images, and what is done about it: lines of a table, and warnings of a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAMES_SHOWN = 5


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


def some_names(names: Sequence[str], what: str = "") -> str:
    """``3 files (a, b, c)``: a count with the first few."""
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{shown}{more}" if not what else f"{len(names)} {what} ({shown}{more})"


def class_findings(split: str, classes: Sequence[str] | None, labels: Iterable[int] | None) -> list[Finding]:
    """Classes without an image in a split, and a set of one class only."""
    if classes is None or labels is None:
        return []
    counts = Counter(labels)
    found = []
    if missing := [name for label, name in enumerate(classes) if not counts[label]]:
        training = split == "train"
        handling = "they keep their place and are never learned" if training else "no metric is measured for them"
        found.append(Finding(split, some_names(missing, "classes without an image"), handling, warn=training))
    if len(classes) == 1:
        handling = "there is nothing to tell apart: every answer is right"
        found.append(Finding(split, f"one class only ({classes[0]})", handling, warn=True))
    return found
