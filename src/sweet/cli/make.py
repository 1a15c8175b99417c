"""Verbs that make a model or a template without training it long."""

from __future__ import annotations

import re
from inspect import signature
from typing import Annotated, Any, Literal

import typer

from sweet.console import show
from sweet.errors import UserError
from sweet.files import verifying
from sweet.storage.outputs import loss_curve, output_folder
from sweet.storage.paths import check_apart, check_checkpoint, check_images

from .app import app
from .options import NUMBER, PIXELS, SOURCES, Device, ImagePixels, Json, Method, NoVerify, Out, Overwrite, Pixels
from .words import conditioned_source, numbers, split_words

SourceWords = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE|KEY=VALUE",
        help="A folder made by pretrain or convert, the hub's USER/NAME, or a checkpoint as for convert, which is then "
        "converted on the way; options of the method (a wrong one prints the list).",
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


OrderImages = Annotated[
    str | None,
    typer.Option(metavar="SRC", help=f"Images for the order of a checkpoint converted on the way: {SOURCES}."),
]
Channels = Annotated[int | None, typer.Option(**NUMBER, help="Default: as the source.")]


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
    data: OrderImages = None,
    img_size: ImagePixels = None,
    patch_size: Pixels = None,
    in_chans: Channels = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a method that trains.")] = False,
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: Json = False,
) -> None:
    """Make a model of any depth and width from a source."""
    from sweet import verbs

    source, switches = split_words(words)
    if source is None:
        raise UserError("SOURCE is missing: sweet init SOURCE --depth L --heads H --out DIR")
    given: Any = dict(switch.split("=", 1) for switch in switches)
    given |= {name: value for name, value in (("order", order), ("layers", layers)) if value is not None}
    if reserved := next((name for name in given if name in signature(verbs.init).parameters), None):
        raise UserError(f"{reserved}={given[reserved]}: is no switch of a method; write --{reserved.replace('_', '-')}")
    show(
        lambda: verbs.init(
            source,
            out=out,
            depth=depth,
            heads=heads,
            params=params,
            flops=flops,
            latency=latency,
            method=method,
            fit=fit,
            fit_images=fit_images,
            data=data,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            seed=seed,
            device=device,
            resume=resume,
            overwrite=overwrite,
            verify=not no_verify,
            **given,
        ),
        as_json=as_json,
    )


CheckpointWords = Annotated[
    list[str],
    typer.Argument(
        metavar="timm:NAME|hub:USER/NAME|FILE|DIR [condition=true]",
        help="A model of timm, a repository of the hub, a file of weights, a folder of timm or transformers, a "
        "model or a dense source of sweet, or a template learned with template.constraint=kronecker. condition=true: "
        "store it in coordinates from which every start learns fast, not only those in principal order.",
    ),
]
Ranks = Annotated[str | None, typer.Option(metavar="R1,R2,R3", help="Default: full, nothing is lost.")]
Energy = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Instead of ranks: those that keep this share, as 0.99.")
]
Metric = Annotated[Literal["activations", "weights"], typer.Option(help="In what an error is measured at lower ranks.")]
ConvertData = Annotated[
    str | None,
    typer.Option(metavar="SRC", help=f"Images for the principal order: {SOURCES}; default: synthetic scenes."),
]
SeenAt = Annotated[
    Any, typer.Option(**PIXELS, help="Pixels at which they are seen; default: the source's, at most 224.")
]
FileHeads = Annotated[
    int | None,
    typer.Option(**NUMBER, help="Of a FILE, which does not say; default: as usual at its width and depth."),
]
Like = Annotated[
    str | None, typer.Option(metavar="TIMM_NAME", help="The model of timm that a FILE is: built and compared.")
]
WhichWeights = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which of several sets of weights in a FILE: teacher, model_ema.")
]
Dtype = Annotated[
    Literal["float32", "source"], typer.Option(help="Of the weights written; source: half where the source is.")
]
Heal = Annotated[
    int,
    typer.Option(min=0, metavar="STEPS", help="Train the template on --data for so many steps: repairs low ranks."),
]


@app.command()
def convert(
    words: CheckpointWords,
    out: Out,
    ranks: Ranks = None,
    energy: Energy = None,
    metric: Metric = "activations",
    data: ConvertData = None,
    images: Annotated[int, typer.Option(**NUMBER, help="How many of them.")] = 512,
    img_size: SeenAt = None,
    heads: FileHeads = None,
    like: Like = None,
    weights: WhichWeights = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Of its images; default: as it says.")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Of its images; default: as it says.")] = None,
    dtype: Dtype = "float32",
    heal: Heal = 0,
    heal_lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = 1e-3,
    device: Device = "auto",
    overwrite: Overwrite = False,
    no_verify: NoVerify = False,
    as_json: Json = False,
) -> None:
    """Convert a trained Vision Transformer to a template."""
    if ranks is not None and not re.fullmatch(r"\d{1,18},\d{1,18},\d{1,18}", ranks):
        raise UserError(f"--ranks {ranks}: expected three whole numbers, as 144,448,448")
    source, condition = conditioned_source(words)
    check_apart(out, "SOURCE", source)
    with output_folder(out, overwrite=overwrite), verifying(not no_verify):
        check_checkpoint("SOURCE", source)
        check_images("--data", data)
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
                    img_size=img_size,
                    heads=heads,
                    like=like,
                    weights=weights,
                    mean=numbers("--mean", mean),
                    std=numbers("--std", std),
                    dtype=dtype,
                    heal_steps=heal,
                    heal_lr=heal_lr,
                    condition=condition,
                    device=device,
                    run=run,
                ),
                as_json=as_json,
            )
