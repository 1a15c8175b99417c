"""Names of the initialisers, apart from their code: ``sweet init --help`` must not import torch."""

NAMES = ("sweet", "weight_selection", "random")
