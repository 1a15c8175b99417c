"""How long a training takes on GPUs, from the peak of a kind and the share of it that is used. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from sweet.errors import UserError

PEAKS = {"h200": 989.0, "h100": 989.0, "a100": 312.0, "l40s": 362.0, "rtx4090": 165.0}
"""bf16 matmul of dense matrices, TFLOP/s, as the makers state it."""
CORES = 12  # of the machine for each GPU: what a cloud gives


def gpu_table(
    flops: float, images: int, *, kind: str, utilisation: float, devices: tuple[int, ...] = (1, 8)
) -> list[Mapping[str, str | int | float]]:
    """Hours and days of a training of ``flops`` that sees ``images`` in all, and what its loader must deliver.

    ``utilisation`` is the share of the peak that is reached, in 0..1. ``loader_img_per_s_core`` is for
    :data:`CORES` cores a GPU. Raises UserError for an unknown kind or an impossible share.
    """
    if kind not in PEAKS:
        raise UserError(f"--gpu {kind}: unknown, expected {', '.join(PEAKS)}")
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation {utilisation:g}: expected a share between 0 and 1")
    rows: list[Mapping[str, str | int | float]] = []
    for count in devices:
        seconds = flops / (count * PEAKS[kind] * 1e12 * utilisation)
        rows.append(
            {
                "gpus": f"{count} x {kind}",
                "hours": round(seconds / 3600, 1),
                "days": round(seconds / 86400, 2),
                "img_per_s": round(images / seconds),
                "loader_img_per_s_core": round(images / seconds / (count * CORES)),
            }
        )
    return rows
