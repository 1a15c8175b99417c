"""How long a training takes on GPUs, from the peak of a kind and the share of it that is used. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweet.errors import UserError

PEAKS = {"h200": 989.0, "h100": 989.0, "a100": 312.0, "l40s": 362.0, "rtx4090": 165.0}
"""bf16 matmul of dense matrices, TFLOP/s, as the makers state it."""
CORES = 12  # of the machine for each GPU: what a cloud gives


@dataclass(frozen=True)
class GpuGuess:
    """What a training is thought to run on, and of how many ``images`` an epoch is; by default those of ImageNet-1K.

    ``utilisation`` is the share of the peak that is reached, in 0..1. Raises UserError for an unknown kind or an
    impossible share.
    """

    kind: str = "h200"
    utilisation: float = 0.3
    images: int = 1_281_167

    def __post_init__(self) -> None:
        if self.kind not in PEAKS:
            raise UserError(f"--gpu {self.kind}: unknown, expected {', '.join(PEAKS)}")
        if not 0 < self.utilisation <= 1:
            raise UserError(f"--utilisation {self.utilisation:g}: expected a share above 0 and at most 1")

    @classmethod
    def of(cls, kind: str | None, utilisation: float | None, images: int | None) -> GpuGuess | None:
        """What is given, the rest by default; None where nothing is."""
        if kind is None and utilisation is None and images is None:
            return None
        share = cls.utilisation if utilisation is None else utilisation
        return cls(kind or cls.kind, share, images or cls.images)

    @property
    def text(self) -> str:
        """The assumption in words: none of it was measured here."""
        share = f"{100 * self.utilisation:g} % of {PEAKS[self.kind]:g} TFLOP/s (bf16)"
        return f"{self.kind} at {share}, {CORES} cores a GPU; not measured"

    def table(self, flops: float, images: int) -> list[Mapping[str, str | int | float]]:
        """Hours and days of a training of ``flops`` that sees ``images`` in all, on one and on eight GPUs.

        ``loader_img_per_s_core`` is what each core of the machine must deliver.
        """
        rows: list[Mapping[str, str | int | float]] = []
        for count in (1, 8):
            seconds = flops / (count * PEAKS[self.kind] * 1e12 * self.utilisation)
            rows.append(
                {
                    "gpus": f"{count} x {self.kind}",
                    "hours": _digits(seconds / 3600),
                    "days": _digits(seconds / 86400),
                    "img_per_s": round(images / seconds),
                    "loader_img_per_s_core": round(images / seconds / (count * CORES)),
                }
            )
        return rows


def _digits(value: float) -> float:
    """Four digits, wherever the point is: a minute is not 0.0 hours."""
    return float(f"{value:.4g}")
