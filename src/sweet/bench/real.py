"""Protocol ``real``: a checkpoint that somebody else trained, at several image sizes."""

from __future__ import annotations

from typing import Any

from .arms import ARMS, OWN_RANKS, SCALED, Arm, Checkpoint, Converted, Recipe, Switches, conditioned, ours
from .protocol import Protocol, Trial
from .sweeps import rate_arms, setting_arms

REAL_FINETUNE = tuple(
    "epochs=15 batch_size=64 lr=1e-3 checkpoint_every=100 label_smoothing=0.0 workers=0 optim.layer_decay=0.75 "
    "data.labels=2000 data.augment=crop data.val_split=test".split()
)
REAL_SOURCES: dict[str, Recipe] = {
    "checkpoint": Checkpoint(
        ("model.family=vit", "model.heads=6", "model.patch_size=14", "data.img_size=98", *OWN_RANKS)
    ),
    "template": Converted("checkpoint"),
}
FIRST_LAYERS: Switches = {"layers": "first"}
FIRST_RATES = (5e-4, 1e-3, 2e-3)  # trained weights take lower rates than those learned here
CIFAR = Trial(data="cifar10", img_size=56, images=50_000)
REAL_TRIALS = (
    Trial(data="flowers102", finetune=("epochs=30", "data.labels=null"), img_size=98, images=1020),
    CIFAR,
    Trial(data="tiny-imagenet-100", finetune=("data.val_split=val",), img_size=70, images=50_000),
)


def _selected(rule: str, layers: str, about: str) -> Arm:
    return Arm("weight_selection", "checkpoint", {"rule": rule, "layers": layers}, about=about)


SELECTED = _selected("consecutive", "even", "first channels; rule and layers as the settings chose")
ISOMORPHIC = Arm("isomorphic", "checkpoint", about="pruned by Taylor scores of its own features")
WHOLE = Arm("weight_selection", "checkpoint", {"rule": "consecutive"}, role="reference", about="the whole checkpoint")
REAL_ARMS = {
    "random": ARMS["random"],
    "weight_selection_uniform": _selected("uniform", "even", "evenly spaced channels, the released rule; even layers"),
    "weight_selection_uniform_first": _selected("uniform", "first", "the released rule; first layers"),
    "weight_selection": SELECTED,
    "weight_selection_conditioned": conditioned(SELECTED),
    "isomorphic": ISOMORPHIC,
    "isomorphic_conditioned": conditioned(ISOMORPHIC),
    "distilled_selected": Arm(
        "distilled",
        "checkpoint",
        {"start": "weight_selection"},
        about="first channels; all weights then learn the checkpoint's features, 500 steps of 128",
    ),
    "distilled": ours("distilled", "template", about="sweet; the same 500 steps"),
    "distilled_half": ours(
        "distilled", "template", {**FIRST_LAYERS, **SCALED, "steps": 250}, about="sweet; half as many steps"
    ),
    "sweet": ours("sweet", "template", about="principal order, equal gains, highest-energy heads"),
    "sweet_fitted": ours("sweet_fitted", "template", about="sweet, its scalers then fitted on unlabelled images"),
    "checkpoint": WHOLE,
    "checkpoint_conditioned": conditioned(WHOLE, role="reference"),
}


def _real() -> dict[tuple[str, str], Protocol]:
    """Table ``real`` and the sweeps that choose its settings, at L6H3 on the set that takes the least.

    Its cells have as many steps as those of the others, a third of the tokens of flowers.
    """
    cut, whole = ("L6H3", "L12H3", "L6H6"), "L12H6"
    partial: dict[str, tuple[str, ...]] = dict.fromkeys(REAL_ARMS, cut)
    partial |= {"distilled": cut[:2], "distilled_selected": cut[:2], "distilled_half": cut[:1]}
    partial |= {name: (whole,) for name, arm in REAL_ARMS.items() if arm.role == "reference"}

    def table(sizes: tuple[str, ...], rows: dict[str, Arm], *, seeds: int = 3, **more: Any) -> Protocol:
        return Protocol(
            "real", "vit_b16_in1k", sizes, rows, seeds, REAL_FINETUNE, REAL_SOURCES, {"L6H6": 1, whole: 1},
            one_source=True, **more,
        )  # fmt: skip

    def sweep(rows: dict[str, Arm], **more: Any) -> Protocol:
        places = {name: (whole if arm.role == "reference" else cut[0],) for name, arm in rows.items()}
        return table((cut[0], whole), rows, seeds=1, trials=(CIFAR,), validation=2000, partial=places, **more)

    rules: list[Switches] = [FIRST_LAYERS, {"rule": "uniform"}, {"rule": "uniform", **FIRST_LAYERS}]
    scale_alone: Switches = {"condition": "false", **FIRST_LAYERS, **SCALED}  # nothing but the scale of the stream
    tried: dict[str, list[Switches]] = {
        "weight_selection": [FIRST_LAYERS],  # its other rules are rows
        "weight_selection_conditioned": [*rules, *({**rule, **SCALED} for rule in ({}, *rules)), scale_alone],
        "isomorphic": [FIRST_LAYERS],
        "isomorphic_conditioned": [FIRST_LAYERS, SCALED, {**FIRST_LAYERS, **SCALED}, scale_alone],
        "distilled_selected": [FIRST_LAYERS, {**FIRST_LAYERS, **SCALED}],
        "distilled": [FIRST_LAYERS, {**FIRST_LAYERS, **SCALED}],
        # Adam at 1e-3 moves every entry of U and V, 384 a row, as far as an entry of them is large
        "sweet_fitted": [
            FIRST_LAYERS,
            *({**FIRST_LAYERS, **SCALED, **more} for more in ({}, {"lr": 1e-4}, {"train": "x"})),
        ],
        "checkpoint_conditioned": [SCALED],
        "sweet": [FIRST_LAYERS, SCALED, {**FIRST_LAYERS, **SCALED}, {"gains": "rms", **FIRST_LAYERS, **SCALED}],
    }
    settings = sweep(setting_arms(REAL_ARMS, tried), main="sweet@default")
    rates = sweep(rate_arms(REAL_ARMS), main="sweet@1", first_rates=FIRST_RATES, chosen_by={"settings": settings})
    return {
        ("settings", "real"): settings,
        ("learning_rates", "real"): rates,
        ("real", "real"): table(
            (*cut, whole), REAL_ARMS, trials=REAL_TRIALS, partial=partial,
            chosen_by={"settings": settings, "learning_rates": rates},
        ),
    }  # fmt: skip


REAL = _real()
