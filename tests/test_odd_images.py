"""Some of the images of benchmarks/trust/images.py, through every verb: used by all, or refused by all in one line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks" / "trust"
CHOSEN = ("zero.jpg", "half.gif", "end2.jpg", "cmyk.tif", "16.png", "exif6.jpg", "huge30000.png", "esc\x1b[31m.jpg")


@pytest.mark.slow
def test_odd_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    images, common = (import_module(name) for name in ("images", "common"))
    known = {name: (data, usable) for name, data, usable in images.cases()}
    tally: Any = common.Tally()
    images.prepare(tmp_path)
    for name in CHOSEN:
        images.judge(name, *known[name], tmp_path, tally)
    assert tally.wrong == []
    assert tally.counts["predict: line"] >= 3 and tally.counts["predict: right"] >= 4
