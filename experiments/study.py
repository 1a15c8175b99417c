"""Questions about the method as arms of a table: protocol nano, table ``study``.

    python experiments/study.py --data parquet:PATH/cifar10 --out results [--methods random@2,...]

A default of the method changes only by rows of this table. What was measured and found is in docs/log.md. An arm's name
is its source, what is done with it and, after @, the fine-tuning rate in thousandths. The names of 2026 stay, so that
results/history/nano/study can be read: ``turned`` is rotated or converted, ``loudest`` the highest-energy heads and
units.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sweet.bench.arms import DENSE, KRONECKER, Arm, Converted, Recipe, Rotated, Switches, ours
from sweet.bench.protocol import Protocol
from sweet.bench.run import run
from sweet.errors import UserError

RATES = {"@1": 1e-3, "@2": None, "@4": 4e-3, "@8": 8e-3}  # None: the table's own 2e-3

SLOW = ["lr=4e-3", "template.lr_u=0.1", "template.lr_v=0.1"]
# a third of the slices' numbers, as was first the default, and all of them
LOW_RANKS = ["template.ranks=[96,72,72]"]
FULL_RANKS = ["template.ranks=[96,128,128]"]

# recipe nano as it was then
SHAPE = [
    "model.depth=8", "model.heads=8", "mae.decoder_width=64", "mae.decoder_depth=2", "epochs=4", "lr=2e-3",
    "template.learn=factored", "optim.compile=true",
]  # fmt: skip

# Overrides of that recipe; only the sources of the chosen arms are learned.
SOURCES: dict[str, Recipe] = {
    **{f"dense{lr}": [DENSE, f"lr={lr}e-3"] for lr in (1, 2, 4, 8)},
    **{f"tucker{lr}": [f"lr={lr}e-3", *LOW_RANKS] for lr in (1, 2, 4)},
    **{f"tiles{lr}": [KRONECKER, f"lr={lr}e-3"] for lr in (1, 2)},
    "dense1-decay": [DENSE, "lr=1e-3", "optim.weight_decay=0.5"],
    "own": [DENSE, "lr=1e-3", "model.depth=4", "model.heads=4"],  # L4H4 learned at its own size for as long
    "full1": ["lr=1e-3", *FULL_RANKS],
    "slow4": [*SLOW, *LOW_RANKS],
    "full4": [*SLOW, *FULL_RANKS],
    # as many numbers as slow4 in fewer, wider slices; the last is today's default
    "mid4": [*SLOW, "template.ranks=[64,90,90]"],
    "few4": [*SLOW, "template.ranks=[32,128,128]"],
    "frozen4": ["lr=4e-3", "template.lr_u=0", "template.lr_v=0", "template.ranks=[32,128,128]"],
    "dense-depth4": [DENSE, "lr=4e-3", "depth.mode=even", "depth.min_blocks=2"],
    "dense-width4": [DENSE, "lr=4e-3", "width.mode=shared", "width.min_heads=2"],
    # the last two thirds in the principal basis of the first third, and a control
    "third4": [DENSE, "lr=4e-3", "epochs=1.33"],
    "third-turned4": Rotated("third4"),
    "dense-basis4": [DENSE, "init_from=@third-turned4", "lr=4e-3", "epochs=2.67"],
    "dense-parts4": [DENSE, "init_from=@third4", "lr=4e-3", "epochs=2.67"],
    # a dense source converted into a template of as many numbers as tucker2 has, and healed for a quarter of the steps
    "turned1": Converted("dense1"),
    "turned4": Converted("dense4"),
    "cut4": Converted("dense4", ranks=(96, 72, 72)),
    "healed4": Converted("dense4", ranks=(96, 72, 72), heal=390),
}
SOURCES = {name: [*SHAPE, *made] if isinstance(made, list) else made for name, made in SOURCES.items()}
DENSES = [source for source in SOURCES if source.startswith("dense")]
RANKED = ("slow4", "mid4", "few4", "frozen4")
TILES = ("tiles1", "tiles2")
TUCKERS = [source for source in SOURCES if source not in (*DENSES, *TILES, "third4", "third-turned4")]
# Most questions came before equal gains and the highest-energy heads and units, today's defaults, were tried.
INNER_PREFIX: Switches = {"inner": "prefix"}
RMS: Switches = {"gains": "rms", "inner": "prefix"}
PREFIX: Switches = {"order": "prefix", "gains": "none"}


def fits(source: str, switches: Mapping[str, Switches]) -> dict[str, Arm]:
    """On whole images, as fits were at the time."""
    return {
        f"{source}.fit-{name}": ours("sweet_fitted", source, {**more, **RMS, "mask_ratio": 0.0})
        for name, more in switches.items()
    }


BY_MAE = {name: {"train": train, "objective": "mae"} for name, train in
          (("none", "decoder"), ("x", "x"), ("xuv", "xuv"), ("all", "all"))}  # fmt: skip
OTHERWISE = {"features": {"train": "x", "objective": "features"}, "closed": {"train": "x", "objective": "closed"}}
ARMS = {
    "random": Arm("random"),
    **{f"{source}.principal": Arm("principal_slice", source) for source in DENSES},
    **{f"{source}.prefix": Arm("weight_selection", source, {"rule": "consecutive"}) for source in DENSES},
    **{f"{source}.principal": ours("sweet", source, RMS) for source in TUCKERS},
    **{f"{source}.prefix": ours("sweet", source, PREFIX) for source in TUCKERS},
    "dense4.prefix-sqrt": Arm("weight_selection", "dense4", {"rule": "consecutive", "gains": "sqrt"}),
    "tucker2.prefix-sqrt": ours("sweet", "tucker2", {"order": "prefix", "gains": "sqrt"}),
    **{
        f"tucker2.gains-{gains}": ours("sweet", "tucker2", {"gains": gains, **INNER_PREFIX})
        for gains in ("none", "sqrt")
    },
    **fits("tucker2", BY_MAE | OTHERWISE),
    # of the best source, converted without loss
    **fits("turned1", BY_MAE | OTHERWISE | {"features-all": {"train": "all", "objective": "features"}}),
    **{
        f"turned1.gains-{gains}": ours("sweet", "turned1", {"gains": gains, **INNER_PREFIX})
        for gains in ("none", "sqrt", "equal")
    },
    "turned1.fit-equal": ours("sweet_fitted", "turned1", INNER_PREFIX),
    **{f"{source}.loudest": ours("sweet", source) for source in ("turned1", *RANKED, *TILES)},
    "turned1.fit-loudest": ours("sweet_fitted", "turned1"),
    "dense1.prefix-equal": Arm("weight_selection", "dense1", {"rule": "consecutive", "gains": "equal"}),
    "dense1.dmae": Arm("dmae", "dense1"),
    "dense1.isomorphic": Arm("isomorphic", "dense1"),
}
FITS = [n for n in ARMS if n.startswith(("turned1", "dense1.prefix-equal", "dense1.dmae", "dense1.isomorphic"))]
ARMS |= {
    f"{name}.{'.'.join(f'{key}{value:g}' for key, value in given.items())}": replace(
        ARMS[name], switches=dict(ARMS[name].switches) | given
    )
    for name in ("random", "dense2.principal", "dense4.principal", "slow4.principal", "tucker2.principal")
    for given in ({"rms": 0.05}, {"rms": 0.07}, {"rms": 0.1}, {"flat": 0.5, "rms": 0.07}, {"flat": 0.0, "rms": 0.07})
}
RANKS = [f"{source}.{how}" for source in RANKED for how in ("principal", "loudest")]
for name in (*FITS, *RANKS, *(f"{source}.loudest" for source in TILES)):
    ARMS[f"{name}.decay0.75"] = replace(ARMS[name], layer_decay=0.75)
for name in ("random", "dense1.principal", "dense1.prefix", "own.prefix", "tucker1.principal", "full1.principal"):
    for noise in (0.1, 0.3, 0.5):
        ARMS[f"{name}.noise{noise:g}"] = replace(ARMS[name], switches=dict(ARMS[name].switches) | {"noise": noise})
    ARMS[f"{name}.first"] = replace(ARMS[name], switches=dict(ARMS[name].switches) | {"layers": "first"})
    for decay in (0.5, 0.65, 0.75):
        ARMS[f"{name}.decay{decay:g}"] = replace(ARMS[name], layer_decay=decay)
del ARMS["random.first"]

STUDY = Protocol(
    name="nano",
    pretrain="nano",
    sizes=("L4H4", "L8H2", "L2H8"),
    arms={f"{name}{ending}": replace(arm, lr=lr) for name, arm in ARMS.items() for ending, lr in RATES.items()},
    seeds=2,
    finetune=tuple(
        "epochs=5 batch_size=64 lr=2e-3 checkpoint_every=100 label_smoothing=0.0 workers=0 data.labels=5000 "
        "data.augment=crop data.val_split=test".split()
    ),
    sources=SOURCES,
    one_source=True,
    main="turned1.loudest.decay0.75@4",
    ablation=True,
)


def main() -> None:
    """Measure what is missing of the study in a folder of results; killed and started again, it goes on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="images of pre-training")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--methods", type=lambda text: text.split(","), help="arms, with commas; default: all")
    parser.add_argument("--sizes", type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--archive", type=Path, help="tar file of all JSON of --out")
    try:
        print(json.dumps(run(STUDY, "study", **vars(parser.parse_args())), indent=2, default=str))
    except UserError as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
