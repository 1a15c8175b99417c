"""Principal order: the basis of the residual stream in which a prefix of channels is worth taking.

A pre-norm network is unchanged when its residual stream is rotated, once norm gains are folded into the matrices
that read the stream. So "the first d channels" is a choice of basis; this one keeps the most energy of the
normalised stream at every d. Related: SliceGPT (arXiv 2401.15024) rotates each block of a language model apart; here
one rotation serves the whole network, so that the target stays a plain ViT.

Inside a block whole heads and hidden units are kept or left out, so there the order is a permutation: by falling
energy of what each adds to the stream. A target keeps those of the highest energy of each layer.

A LayerNorm sees only the part of the stream that is orthogonal to the vector of ones. Its principal directions span
D - 1 dimensions; a target of width d takes the first d - 1 of them and places them in *its own* zero-mean subspace
(:func:`embedding_basis`), where LayerNorm and RMSNorm agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Order:
    """Rotation Q (D, D), columns by falling energy, and energy (2 L + 1, D): E[(Q^T u)^2] at each norm input.

    u is the stream divided by its root mean square, so every row of ``energy`` sums to D. Norms are numbered as
    they are met: block 0 attention, block 0 MLP, block 1 attention, ..., final.

    ``heads`` (L, h) and ``units`` (L, hidden units) number each layer's heads and hidden units, highest energy first.

    ``embedding`` (D,), of a source whose embedding passes a norm: energy of that norm's output, less its bias, along
    each direction. None for others.

    ``absorbed``: the source is stored in this basis already, so that its first channels are the principal ones. Heads
    and units stay where they are.
    """

    rotation: Tensor
    energy: Tensor
    heads: Tensor
    units: Tensor
    absorbed: bool = False
    embedding: Tensor | None = None

    @property
    def spectrum(self) -> Tensor:
        """Share of the energy at each index (D,), all norms together."""
        return self.energy.sum(0) / self.energy.sum()

    def kept(self, channels: int) -> Tensor:
        """Share of the energy that the first ``channels`` directions keep, for each norm (2 L + 1,)."""
        return self.energy[:, :channels].sum(1) / self.energy.sum(1)

    def highest_energy(self, inner: int, units: int) -> tuple[Tensor, Tensor]:
        """Head channels (L, ``inner``) and hidden units (L, ``units``) that a target keeps of each layer."""
        dim = len(self.rotation) // self.heads.shape[1]
        channels = self.heads[:, : inner // dim, None].long() * dim + torch.arange(dim, device=self.heads.device)
        return channels.flatten(1), self.units[:, :units].long()


def principal_order(
    moments: Tensor, heads: Tensor, units: Tensor, embedding: Tensor | None = None, *, centred: bool
) -> Order:
    """Order from second moments E[u u^T] (2 L + 1, D, D), one for each norm input, and from the energies that each head
    (L, h) and each hidden unit (L, units) adds to the stream; ``embedding`` (D, D) is the moment of an embedding that
    passes a norm, see :class:`Order`.

    ``centred`` (LayerNorm): the moments live in the zero-mean subspace and the vector of ones becomes the last column.
    """
    rotation = principal_axes(moments.sum(0, dtype=torch.double), centred=centred)
    energy = torch.stack([_along(rotation, moment) for moment in moments])
    by_head, by_unit = (values.argsort(dim=1, descending=True, stable=True).int() for values in (heads, units))
    passed = None if embedding is None else _along(rotation, embedding).float()
    return Order(rotation.float().contiguous(), energy.float(), by_head, by_unit, embedding=passed)


def _along(rotation: Tensor, moment: Tensor) -> Tensor:
    """Energy (D,) of a second moment (D, D) along each column of ``rotation``."""
    return (rotation * (moment.double() @ rotation)).sum(0).clamp_min(0)


def principal_axes(total: Tensor, *, centred: bool) -> Tensor:
    """Eigenvectors (D, D) of a second moment as columns, in float64, largest first; ``centred`` as above."""
    total, width = total.double(), total.shape[0]
    if centred:
        ones = torch.ones(width, 1, dtype=torch.double) / width**0.5
        total = total - ones @ (ones.t() @ total)
        total = total - (total @ ones) @ ones.t() - ones @ ones.t()  # ones strictly below every real direction
    rotation = torch.linalg.eigh(total).eigenvectors.flip(1)
    # an eigenvector's sign is free: fix it, so that two runs and two machines agree
    return rotation * rotation.gather(0, rotation.abs().argmax(0, keepdim=True)).sign()


def embedding_basis(width: int, *, centred: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """Orthonormal columns (d, m) of a target's stream: all d axes, or for LayerNorm d - 1 that have zero mean.

    The zero-mean basis is the identity up to one reflection (Householder), so channel i still means direction i.
    """
    eye = torch.eye(width, dtype=dtype)
    if not centred:
        return eye
    normal = torch.full((width,), width**-0.5, dtype=dtype)
    normal[-1] -= 1.0
    norm = normal.norm()
    if norm == 0:
        return eye[:, : width - 1]
    normal = normal / norm
    return (eye - 2 * torch.outer(normal, normal))[:, : width - 1]
