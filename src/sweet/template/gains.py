"""The same function with equal gains: every channel carries as much energy. Ours, for principal order.

Principal channels carry very unequal energies: the first some ten thousand times that of the last. Adam moves every
number of a matrix by as much, whatever passes through it, so what is read from low-energy channels hardly learns. Here
a norm's gain is divided by the root mean square of its output, channel by channel, and what reads it is multiplied by
that: nothing changes before the first step, and each channel counts as much in it. (Whitened inputs for gradient
descent: LeCun et al., "Efficient BackProp", 1998; a rotation makes them so for Adam, as in SOAP, arXiv 2409.11321.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from .order import Order, embedding_basis
from .slices import FC1, QKV

READERS = ("decoder.embed.weight", "head.weight")  # of the features
LEAST = 1e-2  # a channel with less than this share of the mean energy is taken to have it: no gain above ten


def equalise_gains(weights: Mapping[str, Tensor], energy: Tensor, in_place: Collection[str] = ()) -> dict[str, Tensor]:
    """A state dict (timm's names) of the same function, in which every norm puts out equal energies.

    ``energy`` (2 L + 1, d) is E[x^2] of each channel of each norm's output, norms numbered as in
    :class:`.order.Order`, up to a factor for each norm. The decoder's embedding and a classifier's head read
    the last one. Weights named by ``in_place`` are changed where they lie.
    """
    rms = (energy / energy.mean(1, keepdim=True)).clamp_min(LEAST).sqrt()
    result = dict(weights)
    for index, scale in enumerate(rms):
        block, sublayer = divmod(index, 2)
        norm, readers = f"blocks.{block}.norm{sublayer + 1}", [f"blocks.{block}.{(QKV, FC1)[sublayer]}"]
        if index == len(rms) - 1:
            norm = last_norm(result) or ""
            readers = [*READERS] if norm else []
        result |= {name: result[name] / scale for name in (f"{norm}.weight", f"{norm}.bias") if name in result}
        for name in readers:
            if name in result:
                result[name] = result[name].mul_(scale) if name in in_place else result[name] * scale
    return result


def last_norm(weights: Mapping[str, Tensor]) -> str | None:
    """The norm of the features; None where what reads them reads the stream."""
    return next((name for name in ("norm", "fc_norm") if f"{name}.weight" in weights), None)


def principal_energy(order: Order, width: int, *, centred: bool) -> Tensor:
    """Energies (2 L + 1, d) of a target's channels in principal order; one that the source lacks has their mean."""
    basis = embedding_basis(width, centred=centred)
    known = min(basis.shape[1], order.energy.shape[1] - centred)
    energy = order.energy[:, :known].cpu() @ basis[:, :known].t().square()
    if known < basis.shape[1]:
        energy[:, known:] = energy[:, :known].mean(1, keepdim=True)
    return energy


def stored_energy(order: Order) -> Tensor:
    """Energies (2 L + 1, D) of the channels as the source stores them.

    Exact summed over norms; at one norm it takes the principal directions for uncorrelated, which they are on average.
    """
    return order.energy if order.absorbed else order.energy @ order.rotation.t().square()
