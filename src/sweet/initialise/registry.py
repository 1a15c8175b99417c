"""The registry of initialisers, apart from their code: ``sweet init --help`` must not import torch.

A line here and a file of the same name in ``initialise/`` are all that a new one needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweet.errors import UserError, nearest


@dataclass(frozen=True)
class Method:
    """What an initialiser can do; a request for anything else is refused before it is called."""

    takes: tuple[str, ...] = ()  # constraints of the sources it can start from; none named: any
    grows: bool = True  # it makes sizes beyond the source
    images: int | None = 0  # unlabelled images it looks at when no budget is given; 0: none at all, None: all there are
    writers: float | None = None  # scale of the stream of others' checkpoints by default (``rescale.py``)
    lr: float | None = None  # its rate from others' checkpoints by default: their scalers are as wide as the stream
    trains: bool = False  # it runs an optimiser: it takes ``device``, and ``run``, a folder for its loss curve


# switches of every method, for what is done to a finished start: ``rescale.py``, then ``sweet.models.condition``
STREAM, CONDITION = "writers", "condition"
RESCALING = ("rms", "flat", "noise", STREAM)
AFTER = (*RESCALING, CONDITION)
STREAM_RMS = 0.2  # docs/log.md
NAMES: dict[str, Method] = {
    "sweet": Method(writers=STREAM_RMS),
    "sweet_fitted": Method(takes=("tucker",), images=51200, writers=STREAM_RMS, lr=1e-4, trains=True),
    "distilled": Method(images=None, trains=True),
    "principal_slice": Method(takes=("none",)),
    "weight_selection": Method(takes=("none",), grows=False),
    "isomorphic": Method(takes=("none",), grows=False, images=3200),
    "dmae": Method(takes=("none",), grows=False, images=None, trains=True),
    "tleg": Method(takes=("none", "linear")),
    "wave": Method(takes=("kronecker",), images=51200, trains=True),
    "mimetic": Method(),
    "random": Method(),
}


def check_method(name: str, option: str = "--method") -> None:
    """Raises UserError for an unknown initialiser, given as ``option``."""
    if name not in NAMES:
        raise UserError(
            f"{option} {name}: unknown, expected one of {', '.join(NAMES)}{nearest(str(name), list(NAMES))}"
        )
