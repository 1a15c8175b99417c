"""Verbs that make a model or a template without training it long."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.storage.outputs import loss_curve, output_folder

from .app import app
from .options import NUMBER, SOURCES, Device, Json, Method, Out, Overwrite, Pixels
from .words import split_words

SourceWords = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE|KEY=VALUE",
        help="A folder made by pretrain, or the hub's USER/NAME; options of the method (a wrong one prints the list).",
    ),
]
Depth = Annotated[int | None, typer.Option(**NUMBER, help="Blocks.")]
Heads = Annotated[int | None, typer.Option(**NUMBER, help="Attention heads; the width is heads x head_dim.")]
Params = Annotated[
    str | None, typer.Option(metavar="COUNT", help="Instead of a size: at most this many parameters, as 12M.")
]
Flops = Annotated[
    str | None, typer.Option(metavar="COUNT", help="Instead of a size: at most this many FLOPs per image, as 2G.")
]
Latency = Annotated[
    str | None,
    typer.Option(metavar="TIME[@DEVICE]", help="Instead of a size: at most this long per image, as 4ms@cuda."),
]
Order = Annotated[
    Literal["principal", "prefix"] | None,
    typer.Option(help="Basis in which the first channels are taken; default: the method's own."),
]
Layers = Annotated[
    Literal["even", "first"] | None,
    typer.Option(help="Which layers of the source a shallower model takes; default: the method's own."),
]
Fit = Annotated[str | None, typer.Option(metavar="SRC", help=f"Images for methods that need some: {SOURCES}.")]
FitImages = Annotated[int | None, typer.Option(**NUMBER, help="How many of them; default: the method's own.")]


@app.command()
def init(
    words: SourceWords,
    out: Out,
    depth: Depth = None,
    heads: Heads = None,
    params: Params = None,
    flops: Flops = None,
    latency: Latency = None,
    method: Method = "sweet",
    order: Order = None,
    layers: Layers = None,
    fit: Fit = None,
    fit_images: FitImages = None,
    img_size: Pixels = None,
    patch_size: Pixels = None,
    in_chans: Annotated[int | None, typer.Option(**NUMBER, help="Default: as the source.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a model of any depth and width from a source."""
    from sweet.costs.budget import read_budget

    source, switches = split_words(words, None)
    if source is None:
        raise UserError("SOURCE is missing: sweet init SOURCE --depth L --heads H --out DIR")
    budget = read_budget(params, flops, latency)
    size = [f"--{name}" for name, value in (("depth", depth), ("heads", heads)) if value is not None]
    if budget is not None and size:
        raise UserError(f"{budget.option}: chooses the size itself, leave out {' and '.join(size)}")
    given = dict(switch.split("=", 1) for switch in switches)
    given |= {name: value for name, value in (("order", order), ("layers", layers)) if value is not None}
    with output_folder(out, overwrite=overwrite):
        from sweet.initialise.make import initialise_to

        with loss_curve(out) as run:
            show(
                lambda: initialise_to(
                    source,
                    out,
                    depth=depth,
                    heads=heads,
                    budget=budget,
                    method=method,
                    fit=fit,
                    fit_images=fit_images,
                    img_size=img_size,
                    patch_size=patch_size,
                    in_chans=in_chans,
                    seed=seed,
                    device=device,
                    run=run,
                    given=given,
                ),
                as_json=as_json,
            )


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="timm:NAME|FILE|DIR",
            help="A model of timm, a .safetensors or MAE .pth file, a timm folder, a dense source of sweet or one of "
            "template.constraint=kronecker.",
        ),
    ],
    out: Out,
    ranks: Annotated[str | None, typer.Option(metavar="R1,R2,R3", help="Default: full ranks, without loss.")] = None,
    energy: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Instead of ranks: keep this share of the squared weights, as 0.99."),
    ] = None,
    metric: Annotated[
        Literal["activations", "weights"], typer.Option(help="How the error of lower ranks is measured.")
    ] = "activations",
    data: Annotated[
        str | None,
        typer.Option(metavar="SRC", help=f"Images for the principal order: {SOURCES}; default: synthetic scenes."),
    ] = None,
    images: Annotated[int, typer.Option(**NUMBER, help="How many of them.")] = 512,
    heads: Annotated[
        int | None, typer.Option(**NUMBER, help="Of a FILE, which does not record them; default: one per 64 channels.")
    ] = None,
    heal: Annotated[
        int,
        typer.Option(min=0, metavar="STEPS", help="Train the template on --data, to repair low ranks."),
    ] = 0,
    heal_lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = 1e-3,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a trained Vision Transformer to a template."""
    if ranks is not None and not re.fullmatch(r"\d+,\d+,\d+", ranks):
        raise UserError(f"--ranks {ranks}: expected three whole numbers, as 144,448,448")
    with output_folder(out, overwrite=overwrite):
        from sweet.convert.convert import convert as make

        with loss_curve(out) as run:
            show(
                lambda: make(
                    source,
                    out,
                    ranks=[int(rank) for rank in ranks.split(",")] if ranks else None,
                    energy=energy,
                    metric=metric,
                    data=data,
                    images=images,
                    heads=heads,
                    heal_steps=heal,
                    heal_lr=heal_lr,
                    device=device,
                    run=run,
                ),
                as_json=as_json,
            )
