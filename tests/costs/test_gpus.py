"""Hours on GPUs, by hand."""

from __future__ import annotations

import pytest

from sweet.costs.gpus import CORES, gpu_table
from sweet.errors import UserError


def test_by_hand() -> None:
    """1e21 FLOPs at half of 312 TFLOP/s: 6.41 million seconds; eight take an eighth."""
    one, eight = gpu_table(1e21, 10**9, kind="a100", utilisation=0.5)
    assert one["days"] == pytest.approx(74.19, abs=0.01) and eight["days"] == pytest.approx(9.27, abs=0.01)
    assert one["img_per_s"] == 156 and eight["img_per_s"] == 1248
    assert eight["loader_img_per_s_core"] == one["loader_img_per_s_core"] == round(156 / CORES)


@pytest.mark.parametrize(
    ("kind", "share", "message"), [("h20", 0.3, "--gpu h20: unknown"), ("h200", 0, "--util"), ("h200", 1.1, "--util")]
)
def test_what_is_refused(kind: str, share: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gpu_table(1, 1, kind=kind, utilisation=share)
