"""Trained slices become a Tucker template: higher-order SVD, then some sweeps of HOOI.

Each of the three modes of the slices (12 L, D, D) keeps the leading eigenvectors of its Gram matrix (HOSVD, De
Lathauwer et al. 2000); a sweep chooses each mode's again with the two others already projected (HOOI). Two things
precede it:

* *balance*: each of the twelve components is divided by its rms over the layers, which goes into X. Else the largest
  component, often the MLP, takes the ranks of all others.
* *metric* (optional): with S = E[u u^T] of what the slices read, |S^(1/2) dW| is the error of the readers' outputs, so
  the residual mode is decomposed after S^(1/2) and U is freed of it again.

A mode at full rank stays as it is: there is nothing to choose, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .fold import folded
from .slices import SLICES, pack
from .source import Source, untiled
from .tucker import Full, Tucker

SWEEPS = 3


@dataclass
class Hosvd:
    """Slices ready to be cut to any ranks.

    ``slices`` (12 L, D, D) are balanced and in the metric; ``scale`` (12 L,) and ``undo`` (D, D) or None lead back.
    ``bases`` are the orthogonal eigenvectors of each mode, largest first, ``spectra`` their shares of the energy.
    ``components`` and ``hidden`` as in :func:`hosvd`.
    """

    slices: Tensor
    scale: Tensor
    undo: Tensor | None
    bases: tuple[Tensor, ...]
    spectra: tuple[Tensor, ...]
    components: int = SLICES
    hidden: int = 0

    def ranks(self, energy: float) -> tuple[int, int, int]:
        """Smallest ranks of which each mode loses at most a third of 1 - ``energy``.

        What all modes lose together bounds the squared error of the HOSVD, so the template keeps at least ``energy``.
        """
        loss = (1.0 - energy) / 3.0
        r1, r2, r3 = (int((s.flip(0).cumsum(0) > loss).sum()) for s in self.spectra)
        return max(1, r1), max(1, r2), max(1, r3)

    def tucker(self, ranks: Sequence[int], *, sweeps: int = SWEEPS) -> Tucker:
        """The Tucker of these ranks in our convention: scalers have orthonormal columns times
        sqrt(rows / rank). Raises ValueError for a rank that is not in 1 .. size of its mode."""
        for name, rank, size in zip(("r1", "r2", "r3"), ranks, self.slices.shape, strict=True):
            if not 1 <= rank <= size:
                raise ValueError(f"rank {name} = {rank} is not in 1..{size}")
        factors = [
            None if rank == size else basis[:, :rank]
            for basis, rank, size in zip(self.bases, ranks, self.slices.shape, strict=True)
        ]
        cut = [mode for mode, factor in enumerate(factors) if factor is not None]
        for _ in range(sweeps if len(cut) > 1 else 0):
            for mode in cut:
                projected = _project(self.slices, [f if i != mode else None for i, f in enumerate(factors)])
                factors[mode] = _leading(_gram(projected, mode))[0][:, : ranks[mode]]
        core = _project(self.slices, factors)
        eyes = (torch.eye(size, dtype=core.dtype) for size in self.slices.shape)
        x, u, v = (eye if factor is None else factor for factor, eye in zip(factors, eyes, strict=True))
        x, core = _orthonormal(self.scale[:, None] * x, core, 0)
        if self.undo is not None:
            u, core = _orthonormal(self.undo @ u, core, 1)
        for factor, rank in zip((x, u, v), ranks, strict=True):
            core = core * (rank / len(factor)) ** 0.5
        x, u, v = ((f * (f.shape[0] / f.shape[1]) ** 0.5).contiguous() for f in (x, u, v))
        return Tucker(core.contiguous(), x, u, v, self.hidden, self.components)


def hosvd(
    slices: Tensor, *, metric: Tensor | None = None, balance: bool = True, components: int = SLICES, hidden: int = 0
) -> Hosvd:
    """Decompose the slices (12 L, D, D) of a dense network, layer by layer, see :func:`sweet.template.slices.pack`.

    A block has ``components`` slices; ``hidden`` as in :class:`sweet.template.tucker.Tucker`.

    ``metric`` (D, D): the symmetric positive S above; its smallest eigenvalues are lifted to a hundredth of their mean.
    """
    slices, undo = _in_metric(slices, metric)
    slices, scale = _balanced(slices, components) if balance else (slices, slices.new_ones(len(slices)))
    bases, energies = zip(*(_leading(_gram(slices, mode)) for mode in range(3)), strict=True)
    total = [energy.clamp_min(0) for energy in energies]
    return Hosvd(slices, scale, undo, bases, tuple(energy / energy.sum() for energy in total), components, hidden)


def factored(source: Source) -> Source:
    """A dense source, or one of Kronecker tiles, as a template of full ranks: the same function, with the gains of its
    blocks' norms folded in. Raises TypeError for another template.
    """
    source = folded(untiled(source))
    found = hosvd_of(source)
    return replace(source, core=found.tucker(tuple(found.slices.shape)))


def hosvd_of(source: Source, *, metric: Tensor | None = None) -> Hosvd:
    """:func:`hosvd` of a dense source's slices; ``metric`` (D, D) as there."""
    assert isinstance(source.core, Full)
    slices = pack(source.core.weights, source.mlp)
    hidden = source.hidden(source.width) if source.ratio else 0
    return hosvd(slices.flatten(0, 1), metric=metric, components=slices.shape[1], hidden=hidden)


def _in_metric(slices: Tensor, metric: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if metric is None:
        return slices, None
    values, vectors = torch.linalg.eigh(metric.double())
    values = values.clamp_min(0.01 * values.mean().item()).sqrt()
    root, undo = ((vectors * v) @ vectors.t() for v in (values, 1.0 / values))
    return root.to(slices.dtype) @ slices, undo.to(slices.dtype)


def _balanced(slices: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Slices of which each component has rms one over the layers, and what each slice was divided by."""
    rms = slices.unflatten(0, (-1, components)).square().mean((0, 2, 3)).sqrt()
    scale = torch.where(rms > 0, rms, 1.0).repeat(len(slices) // components)
    return slices / scale[:, None, None], scale


def _project(slices: Tensor, factors: Sequence[Tensor | None]) -> Tensor:
    """Coordinates of the slices in the columns of each mode's factor; None leaves a mode as it is."""
    x, u, v = factors
    if v is not None:
        slices = slices @ v
    if u is not None:
        slices = u.t() @ slices
    return slices if x is None else torch.einsum("mr,mij->rij", x, slices)


def _gram(tensor: Tensor, mode: int) -> Tensor:
    if mode == 2:
        tensor = tensor.flatten(0, 1)
        return tensor.t() @ tensor
    tensor = tensor.movedim(mode, 0).flatten(1)
    return tensor @ tensor.t()


def _leading(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors as columns and eigenvalues, largest first; signs fixed, so that two machines agree."""
    values, vectors = torch.linalg.eigh(gram.double())
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    return vectors.flip(1).to(gram.dtype), values.flip(0).to(gram.dtype)


def _orthonormal(factor: Tensor, core: Tensor, mode: int) -> tuple[Tensor, Tensor]:
    """The same product with orthonormal columns: factor = Q R, and R goes into the core."""
    q, r = torch.linalg.qr(factor.double())
    signs = r.diagonal().sign()
    signs = torch.where(signs == 0, torch.ones_like(signs), signs)
    q, r = (q * signs).to(core.dtype), (r * signs[:, None]).to(core.dtype)
    return q, torch.tensordot(r, core, dims=([1], [mode])).movedim(0, mode)
