"""A source as a torch module: its tensors are parameters, its weights a differentiable function of them (Eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sweet.template.constraints import core_of
from sweet.template.networks import APPLY, Network
from sweet.template.source import Source
from sweet.template.target import masked_weights, target_weights

from .config import ViTConfig
from .forward import Weights


@dataclass(frozen=True)
class Part:
    """Micro-batch ``index`` of the ``count`` that make an optimiser step."""

    index: int
    count: int


WHOLE_STEP = Part(0, 1)


class SourceModule(nn.Module):
    """A source whose tensors are parameters; what is learned with it gives it a forward.

    ``apply`` says how the width of a sub-network is computed, ``layers`` (even or first) which blocks a shallower one
    has, see :mod:`sweet.template.networks`.
    """

    def __init__(self, source: Source, config: ViTConfig, *, apply: str = "mask", layers: str = "even") -> None:
        super().__init__()
        if apply not in APPLY:
            raise ValueError(f"unknown apply {apply!r}, expected one of {', '.join(APPLY)}")
        self.config, self.masked, self.layers = config, apply == "mask", layers
        self.core = as_parameters(source.core.tensors())
        self.constraint = source.core.constraint
        self.blocks = as_parameters(source.blocks)
        self.stem = as_parameters({k: v for k, v in source.stem.items() if k != "pos_embed"})
        self.decoder = as_parameters(source.decoder)
        self.pos_embed: Tensor | None
        self.register_buffer("pos_embed", source.stem.get("pos_embed"))
        self._built: dict[Network, tuple[Weights, Weights, ViTConfig]] = {}  # of the step that is under way

    def source(self) -> Source:
        """The source made of this module's own tensors: gradients flow."""
        stem = as_tensors(self.stem)
        if self.pos_embed is not None:
            stem["pos_embed"] = self.pos_embed
        return Source(
            core=core_of(self.constraint, as_tensors(self.core), self.config.depth, self.config.own_hidden),
            blocks=as_tensors(self.blocks),
            stem=stem,
            decoder=as_tensors(self.decoder),
            mlp=self.config.mlp,
            norm=self.config.norm,
        )

    def detached(self) -> Source:
        """The source as it is now: float32 on the CPU, no gradients."""

        def cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.detach().float().cpu() for name, value in tensors.items()}

        source = self.source()
        core = core_of(source.core.constraint, cpu(source.core.tensors()), source.depth, self.config.own_hidden)
        return replace(source, core=core, blocks=cpu(source.blocks), stem=cpu(source.stem), decoder=cpu(source.decoder))

    @property
    def whole(self) -> Network:
        """The sub-network that is all of it."""
        return Network(self.config.depth, self.config.heads, self.config.heads)

    def weights(self, network: Network, tokens: int | None = None) -> tuple[Weights, ViTConfig]:
        """A sub-network's weights, through which gradients flow, and what :func:`encode` has to know of its shape.

        ``tokens``, how many they are for, as in :func:`sweet.template.target.target_weights`; None builds all.
        """
        config, source = self.config, self.source()
        depth, live, inner = network.depth, network.residual * config.head_dim, network.inner * config.head_dim
        if self.masked:
            weights = masked_weights(source, depth, live, inner, layers=self.layers, tokens=tokens)
        else:
            weights = target_weights(
                source, depth, live, inner_width=inner, order="prefix", layers=self.layers, tokens=tokens
            )
        return weights, config.resized(depth, config.heads)

    def step_weights(self, networks: Sequence[Network], tokens: int, part: Part) -> list[tuple[Weights, ViTConfig]]:
        """As :meth:`weights` of each, but built once for all micro-batches of a step, of ``tokens`` tokens each.

        Compiled code builds them for each micro-batch.
        """
        if part.count == 1 or torch.compiler.is_compiling():
            return [self.weights(network, tokens) for network in networks]
        made = {network: self._shared_weights(network, tokens, part) for network in dict.fromkeys(networks)}
        return [made[network] for network in networks]

    def _shared_weights(self, network: Network, tokens: int, part: Part) -> tuple[Weights, ViTConfig]:
        """All but the last micro-batch see copies, whose gradients add up there; the last hands the sum on to the
        source's tensors."""
        if part.index == 0:
            made, config = self.weights(network, tokens * part.count)
            copies = {n: v if v.is_leaf else v.detach().requires_grad_(v.requires_grad) for n, v in made.items()}
            self._built[network] = made, copies, config
        weights, leaves, config = self._built[network]
        if part.index < part.count - 1:
            return leaves, config
        del self._built[network]
        return {n: v if v.is_leaf else _WithGradient.apply(v, leaves[n]) for n, v in weights.items()}, config


class _WithGradient(torch.autograd.Function):
    """A tensor as it is, whose gradient is its own and what has added up in a copy."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, copy: Tensor) -> Tensor:
        ctx.copy = copy
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), before = gradients, ctx.copy.grad
        return gradient if before is None else gradient + before, None


def as_parameters(tensors: Mapping[str, Tensor], *, learn: bool = True) -> nn.ParameterDict:
    """Copies of tensors as parameters of a module; a parameter's name may not contain a dot."""
    copies = {name.replace(".", "/"): nn.Parameter(value.clone(), learn) for name, value in tensors.items()}
    return nn.ParameterDict(copies)


def as_tensors(parameters: nn.ParameterDict) -> dict[str, Tensor]:
    """The parameters themselves under their names with dots again: gradients flow."""
    return {name.replace("/", "."): value for name, value in parameters.items()}
