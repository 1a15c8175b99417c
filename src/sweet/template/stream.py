"""The residual stream of a target: everything that reads or writes it is mapped from D channels to d.

Both maps are linear, see ``target.py`` for the algebra: readers W become W R, writers T^T W, R and T (D, d).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .order import Order, embedding_basis
from .source import EMBEDDING_NORMS, Source

EMBEDDED = ("patch_embed.proj.", "cls_token", "reg_token", "pos_embed")


class StreamMaps:
    """The maps of one target, ``width`` = d, applied to whatever touches the stream of ``source``.

    ``order`` is the source's for a target in principal order, None for one in prefix order. ``gains`` is one of
    :data:`sweet.template.target.GAINS`, None for the order's own. ``seed`` draws readers of channels beyond the source.
    """

    def __init__(self, source: Source, width: int, order: Order | None, seed: int, gains: str | None = None) -> None:
        self.source, self.width, self.order = source, width, order
        self.gains = gains or ("none" if order is None else "rms")
        self.read, self.write = _maps(source, width, principal=order is not None, seed=seed)
        self.fold = order is not None and not source.unit_gains
        self.plain = self.read is None and self.write is None and not self.fold  # the first d channels as they are

    def written(self, value: Tensor) -> Tensor:
        """(..., D) -> (..., d): a vector that is added to the stream."""
        return _along(value, self.write, self.width)

    def writer(self, weight: Tensor, u: Tensor | None) -> Tensor:
        """(n, R, c) -> (n, d, c): a matrix that adds to the stream, in the core's residual coordinates.

        ``u`` (D, R) says which these are, None for the stream's own.
        """
        if u is not None:
            return self.written(u.t()).t() @ weight
        return weight[:, : self.width] if self.write is None else self.write.t() @ weight

    def reader(self, weight: Tensor, gain: Tensor, u: Tensor | None) -> Tensor:
        """(n, c, R) -> (n, c, d): a matrix that reads the stream; in principal order the norm's gain is folded in."""
        if u is None:
            folded = weight * gain[:, None] if self.fold else weight
            return _along(folded, self.read, self.width)
        basis = u.t() * gain[:, None] if self.fold else u.t()
        return weight @ _along(basis, self.read, self.width)

    def reader_bias(self, weight: Tensor, shift: Tensor | None) -> Tensor | float:
        """What a LayerNorm's bias adds to the outputs of the matrix behind it (n, c); zero unless folded."""
        if shift is None or not self.fold:
            return 0.0
        u = self.source.core.u
        return torch.einsum("ncr,nr->nc", weight, shift if u is None else shift @ u)

    def gain(self, gain: Tensor, norms: slice) -> Tensor:
        """(n, D) -> (n, d): norm gains. ``norms`` number the norm inputs, see :class:`Order`."""
        source_width = self.source.width
        scale: Tensor | float = 1.0
        if self.gains == "rms" and self.order is not None:
            kept = self.order.kept(min(self.width, source_width) - (self.source.norm == "layer"))[norms]
            scale = (kept * source_width / self.width).sqrt()[:, None]
        elif self.gains == "sqrt":
            scale = (source_width / self.width) ** 0.5
        if self.order is not None:
            return gain.new_ones(len(gain), self.width) * scale
        if self.width <= source_width:
            return gain[:, : self.width] * scale if self.gains != "none" else gain[:, : self.width]
        new = gain.new_ones(len(gain), self.width - source_width)
        return torch.cat([gain, new], 1) * (source_width / self.width) ** 0.5

    def shift(self, shift: Tensor) -> Tensor:
        """(n, D) -> (n, d): norm biases; zero once folded into the readers."""
        if self.order is not None:
            return shift.new_zeros(len(shift), self.width)
        return _along(shift, self.write, self.width)

    def stem(self) -> dict[str, Tensor]:
        """Everything outside the blocks, under timm's names."""
        result, source = {}, self.source.stem
        before = self._before_norm()
        for name, value in source.items():
            if name in ("norm.weight", "fc_norm.weight"):
                result[name] = self.gain(value[None], slice(2 * self.source.depth, None))[0]
            elif name in ("norm.bias", "fc_norm.bias"):
                result[name] = self.shift(value[None])[0]
            elif name in EMBEDDING_NORMS:
                result[name] = self._embedding_gain(value)
            else:
                axis = 0 if name == "patch_embed.proj.weight" else -1
                value = value.movedim(axis, -1)
                result[name] = self.written(value * before[name] if name in before else value).movedim(-1, axis)
        return result

    def _before_norm(self) -> dict[str, Tensor]:
        """What writes to the stream through a norm, and that norm's gain: in principal order it is folded in here."""
        stem = self.source.stem
        if self.order is None:
            return {}
        if "norm_pre.weight" in stem:
            return {name: stem["norm_pre.weight"] for name in stem if name.startswith(EMBEDDED)}
        gain = stem.get("patch_embed.norm.weight")
        return {} if gain is None else {name: gain for name in stem if name.startswith("patch_embed.proj.")}

    def _embedding_gain(self, gain: Tensor) -> Tensor:
        """(D,) -> (d,): the gain of a norm whose output is the stream.

        Such a norm does not commute with a rotation: each token has a length of its own before it, and after it all
        have nearly the same. In principal order its gain is folded into what it reads, which keeps the direction of
        every token, and the target's norm gives all of them the mean energy.
        """
        source_width = self.source.width
        if self.order is None:
            if self.width <= source_width:
                return gain[: self.width]
            return torch.cat([gain, gain.new_ones(self.width - source_width)]) * (source_width / self.width) ** 0.5
        known = self.order.embedding
        if known is None:  # as if the norm put out white noise
            known = self.order.rotation.square().t() @ gain.square()
        kept = min(self.width, source_width) - (self.source.norm == "layer")
        return gain.new_ones(self.width) * (known[:kept].sum() / self.width).sqrt()

    def decoder(self) -> dict[str, Tensor]:
        """The MAE decoder as ``decoder.*``: its embedding reads the stream; nothing where the source has none."""
        result = {f"decoder.{name}": value for name, value in self.source.decoder.items()}
        if result:
            weight = result["decoder.embed.weight"]
            if self.fold and "norm.weight" in self.source.stem:  # else nothing norms what it reads
                if "norm.bias" in self.source.stem:
                    result["decoder.embed.bias"] = result["decoder.embed.bias"] + weight @ self.source.stem["norm.bias"]
                weight = weight * self.source.stem["norm.weight"]
            result["decoder.embed.weight"] = _along(weight, self.read, self.width)
        return result


def _along(value: Tensor, maps: Tensor | None, width: int) -> Tensor:
    return value[..., :width] if maps is None else value @ maps


def _maps(source: Source, width: int, *, principal: bool, seed: int) -> tuple[Tensor | None, Tensor | None]:
    """Maps R and T (D, d) of readers and writers; None is the first d axes, which a slice gives at no cost."""
    centred = principal and source.norm == "layer"
    directions = None  # the axes as they are stored
    if source.order is not None and principal != source.order.absorbed:
        directions = source.order.rotation if principal else source.order.rotation.t()
    if directions is None and width <= source.width and not centred:
        return None, None
    device = source.stem["patch_embed.proj.weight"].device
    basis = embedding_basis(width, centred=centred).to(device)
    known = min(basis.shape[1], source.width - centred)
    directions = torch.eye(source.width, device=device) if directions is None else directions
    write = directions[:, :known] @ basis[:, :known].t()
    if known == basis.shape[1]:
        return write, write
    generator = torch.Generator().manual_seed(seed)
    mixtures = torch.randn(source.width, basis.shape[1] - known, generator=generator).to(device)
    return write + (mixtures / mixtures.norm(dim=0)) @ basis[:, known:].t(), write
