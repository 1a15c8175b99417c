"""Other ways to compute a masked step of a source than Eq. 7-8, for `nano.py`.

``taught``: a masked network learns the whole one's predictions of the same patches as well as the pixels (US-Nets,
arXiv 1903.05134). ``crossed``: U masks what a matrix takes in and V what it gives out, so that writers swap the two.
``dropped``: the live channels of the stream are no prefix but drawn by their energy, as dropout by importance does
(PIAD, arXiv 2511.11683).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sweet.models.config import ViTConfig
from sweet.models.mae import MaskedAutoencoder, reconstruct
from sweet.models.source_module import WHOLE_STEP, Part, SourceModule
from sweet.template.networks import Network
from sweet.template.target import masked_weights

# of a block; the decoder's matrices are never masked
READERS = re.compile(r"blocks\.\d+\.(attn\.qkv|mlp\.fc1\w*)\.weight")
WRITERS = re.compile(r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.weight")


@contextmanager
def masked_steps(way: str, energy: Tensor | None = None) -> Iterator[None]:
    """Pre-training within computes its masked steps so; ``energy`` (D,) is that of the stream's channels."""
    forward, weights = MaskedAutoencoder.forward, SourceModule.weights
    if way == "taught":
        MaskedAutoencoder.forward = taught  # type: ignore[method-assign]
    elif way == "crossed":
        SourceModule.weights = crossed  # type: ignore[method-assign]
    elif way == "dropped":
        assert energy is not None
        SourceModule.weights = Dropped(energy)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        MaskedAutoencoder.forward, SourceModule.weights = forward, weights  # type: ignore[method-assign]


def taught(
    self: MaskedAutoencoder,
    images: Tensor,
    noise: Tensor,
    networks: Sequence[Network] | None = None,
    part: Part = WHOLE_STEP,
) -> Tensor:
    """The mean of the pixels' loss and of the distance to the whole network's predictions, which are not trained."""
    losses = []
    for network in networks or [self.whole]:
        made, config = self.weights(network)
        found = reconstruct(made, images, noise, config, self.mae, self.decoder_positions)
        loss = found.loss
        if network != self.whole:
            with torch.no_grad():
                made, config = self.weights(self.whole)
                wanted = reconstruct(made, images, noise, config, self.mae, self.decoder_positions).prediction
            loss = (loss + (found.prediction.float() - wanted.float()).square().mean()) / 2
        losses.append(loss)
    return torch.stack(losses).mean()


def crossed(self: SourceModule, network: Network, tokens: int | None = None) -> tuple[dict[str, Tensor], ViTConfig]:
    """Readers take ``residual`` heads of the stream and give ``inner`` ones, writers take and give the other way."""
    head, config = self.config.head_dim, self.config
    taken, given = network.residual * head, network.inner * head
    wide, inner = max(taken, given), min(taken, given)
    made = masked_weights(self.source(), network.depth, wide, inner, layers=self.layers)
    for name, value in made.items():
        if READERS.fullmatch(name):
            made[name] = value[:, :taken]
        elif WRITERS.fullmatch(name):
            made[name] = value[:given]
    return made, config.resized(network.depth, config.heads)


class Dropped:
    """``SourceModule.weights`` whose live channels are drawn, more likely those of much energy."""

    def __init__(self, energy: Tensor) -> None:
        self.amplitude, self.generator = energy.clamp(min=1e-12).sqrt(), torch.Generator().manual_seed(0)

    def __get__(self, module: Any, owner: type) -> Any:
        return lambda network, tokens=None: self(module, network)

    def __call__(self, module: SourceModule, network: Network) -> tuple[dict[str, Tensor], ViTConfig]:
        config = module.config
        live, inner = network.residual * config.head_dim, network.inner * config.head_dim
        made = masked_weights(module.source(), network.depth, config.width, inner, layers=module.layers)
        if live < config.width:
            mask = torch.zeros(config.width)
            mask[torch.multinomial(self.amplitude, live, generator=self.generator)] = 1.0
            for name, value in made.items():
                if READERS.fullmatch(name):
                    made[name] = value * mask
                elif WRITERS.fullmatch(name):
                    made[name] = value * mask[:, None]
        return made, config.resized(network.depth, config.heads)
