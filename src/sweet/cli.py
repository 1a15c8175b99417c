"""The command line: parse, call, print. Whatever needs torch is imported inside the verb that needs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from sweet.cli_options import (
    NUMBER,
    SOURCES,
    BatchSize,
    Data,
    DataOrRecipe,
    Device,
    Json,
    Model,
    ModelWords,
    Out,
    Overwrite,
    Quiet,
    RecipeWords,
    Resume,
    Source,
    Split,
    Task,
)
from sweet.console import show
from sweet.errors import UserError
from sweet.initialise_names import NAMES
from sweet.outputs import check_output_file, loss_curve, output_folder
from sweet.version import VERSION


class _Verbs(TyperGroup):
    """A user error is one line on stderr and exit code 2; whatever else goes wrong keeps its traceback."""

    def main(self, *args: Any, **options: Any) -> None:
        options["standalone_mode"] = False  # else typer draws a box around its own errors
        try:
            code = super().main(*args, **options)
        except UserError as error:
            message = str(error)
        except Exception as error:
            if not hasattr(error, "format_message"):  # not an error of the option parser
                raise
            message = " ".join(error.format_message().split()).removesuffix(".").replace("Value error, ", "")
        else:
            sys.exit(code if isinstance(code, int) else 0)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


app = typer.Typer(cls=_Verbs, rich_markup_mode=None, pretty_exceptions_enable=False)
data_app = typer.Typer(help="Look at images, or shrink them.", rich_markup_mode=None)
app.add_typer(data_app, name="data")


def main() -> None:
    app(prog_name="sweet")


@app.callback(invoke_without_command=True)
def sweet(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Vision Transformers of any size from one learned template."""
    if version:
        print(f"sweet {VERSION}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def pretrain(
    out: Out,
    words: RecipeWords = None,
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a template from images (recipe: quickstart)."""
    from sweet.recipe import PretrainRecipe, load_recipe

    name, overrides = _split(words, data)
    recipe = load_recipe(PretrainRecipe, name or _saved_recipe(out, resume) or "quickstart", overrides)
    _need_source(recipe.data.source)
    with output_folder(out, resume=resume, overwrite=overwrite):
        from sweet.training.pretrain import pretrain as run

        show(lambda: run(recipe, out, resume=resume, quiet=quiet), as_json=as_json)


@app.command()
def init(
    words: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE|KEY=VALUE", help="A folder made by pretrain, and switches of the method."),
    ],
    out: Out,
    depth: Annotated[int | None, typer.Option(**NUMBER, help="Blocks.")] = None,
    heads: Annotated[int | None, typer.Option(**NUMBER, help="Attention heads; the width is heads x head_dim.")] = None,
    params: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Instead of a size: at most this many parameters, as 12M.")
    ] = None,
    flops: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Instead of a size: at most this many FLOPs per image, as 2G.")
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(metavar="TIME[@DEVICE]", help="Instead of a size: at most this long per image, as 4ms@cuda."),
    ] = None,
    method: Annotated[str, typer.Option(help=f"Initialiser: {', '.join(NAMES)}.")] = "sweet",
    order: Annotated[
        Literal["principal", "prefix"] | None,
        typer.Option(help="Basis in which the first channels are taken; default: the method's own."),
    ] = None,
    layers: Annotated[
        Literal["even", "first"] | None,
        typer.Option(help="Which layers of the source a shallower model takes; default: the method's own."),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="SRC", help=f"Images for a method that looks at some: {SOURCES}.")
    ] = None,
    fit_images: Annotated[
        int | None, typer.Option(**NUMBER, help="How many of them; default: the method's own.")
    ] = None,
    img_size: Annotated[int | None, typer.Option(**NUMBER, help="Pixels; default: as the source.")] = None,
    patch_size: Annotated[int | None, typer.Option(**NUMBER, help="Pixels; default: as the source.")] = None,
    in_chans: Annotated[int | None, typer.Option(**NUMBER, help="Default: as the source.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a model of any depth and width from a source."""
    from sweet.budget import read_budget

    source, switches = _split(words, None)
    if source is None:
        raise UserError("SOURCE is missing: sweet init SOURCE --depth L --heads H --out DIR")
    budget = read_budget(params, flops, latency)
    size = [f"--{name}" for name, value in (("depth", depth), ("heads", heads)) if value is not None]
    if budget is None and len(size) < 2:
        raise UserError("--depth and --heads: give both, or one of --params, --flops and --latency")
    if budget is not None and size:
        raise UserError(f"{budget.asked}: chooses the size itself, leave out {' and '.join(size)}")
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
            help="A model of timm, a .safetensors or MAE .pth file, a timm folder, or a dense source of sweet.",
        ),
    ],
    out: Out,
    ranks: Annotated[str | None, typer.Option(metavar="R1,R2,R3", help="Default: full, nothing is lost.")] = None,
    energy: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Instead of ranks: those that keep this share, as 0.99.")
    ] = None,
    metric: Annotated[
        Literal["activations", "weights"], typer.Option(help="In what an error is measured at lower ranks.")
    ] = "activations",
    data: Annotated[
        str | None,
        typer.Option(metavar="SRC", help=f"Images for the principal order: {SOURCES}; default: synthetic scenes."),
    ] = None,
    images: Annotated[int, typer.Option(**NUMBER, help="How many of them.")] = 512,
    heads: Annotated[
        int | None, typer.Option(**NUMBER, help="Of a FILE, which does not tell; default: one for 64 channels.")
    ] = None,
    heal: Annotated[
        int, typer.Option(min=0, metavar="STEPS", help="Train the template on --data for so long: mends low ranks.")
    ] = 0,
    heal_lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = 1e-3,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn a Vision Transformer that somebody trained into a template."""
    if ranks is not None and not re.fullmatch(r"\d+,\d+,\d+", ranks):
        raise UserError(f"--ranks {ranks}: expected three whole numbers, as 144,448,448")
    with output_folder(out, overwrite=overwrite):
        from sweet.convert import convert as make

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


@app.command()
def finetune(
    out: Out,
    words: ModelWords = None,
    task: Task = "classify",
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on labelled images."""
    from sweet.recipe import FinetuneRecipe, load_recipe

    model, overrides = _split(words, data)
    if model is None:
        raise UserError("MODEL is missing: sweet finetune MODEL --data SRC --out DIR [key=value ...]")
    _check_folder("MODEL", Path(model))
    recipe = load_recipe(FinetuneRecipe, _saved_recipe(out, resume), overrides)
    _need_source(recipe.data.source)
    with output_folder(out, resume=resume, overwrite=overwrite):
        from sweet.training.finetune import finetune as run

        show(
            lambda: run(Path(model), recipe, out, task=task, resume=resume, quiet=quiet),
            as_json=as_json,
        )


@app.command()
def evaluate(
    model: Model,
    data: Data,
    task: Task = "classify",
    split: Split = "val",
    batch_size: BatchSize = 256,
    device: Device = "auto",
    limit: Annotated[int | None, typer.Option(**NUMBER, help="Only the first N images.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on labelled images."""
    _check_folder("MODEL", model)
    from sweet.training.evaluate import evaluate as run

    show(
        lambda: run(model, task, data, split=split, batch_size=batch_size, device=device, limit=limit),
        as_json=as_json,
    )


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(**NUMBER, help="Classes per image.")] = 5,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Name what is in the images."""
    _check_folder("MODEL", model)
    for image in images:
        if not image.is_file():
            raise UserError(f"IMAGES {image}: no such file")
    from sweet.training.evaluate import predict as run

    show(lambda: run(model, images, top, device), as_json=as_json)


@app.command()
def embed(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The parquet file to write.")],
    split: Split = "val",
    batch_size: BatchSize = 256,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one feature vector per image to a parquet file."""
    _check_folder("MODEL", model)
    check_output_file(out, overwrite=overwrite)
    from sweet.training.evaluate import embed as run

    show(lambda: run(model, data, out, split, batch_size, device), as_json=as_json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="SOURCE|MODEL", help="A folder made by sweet.")],
    as_json: Json = False,
) -> None:
    """Show what a folder holds, and check its sums."""
    _check_folder("SOURCE", path)
    from sweet.inspect import inspect as run

    show(lambda: run(path), as_json=as_json)


@app.command()
def plan(words: RecipeWords = None, data: DataOrRecipe = None, as_json: Json = False) -> None:
    """Check a recipe and count what it takes; runs nothing."""
    from sweet.plan import plan as run
    from sweet.recipe import PretrainRecipe, load_recipe

    name, overrides = _split(words, data)
    recipe = load_recipe(PretrainRecipe, name or "quickstart", overrides)
    show(lambda: run(recipe), as_json=as_json)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Which table; a wrong name lists them.")],
    out: Out,
    protocol: Annotated[Literal["nano", "micro", "small", "paper"], typer.Option(help="How much work.")] = "micro",
    methods: Annotated[str | None, typer.Option(help="Initialisers, with commas; default: all.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Sizes as L6H6, with commas; default: the table's.")] = None,
    seeds: Annotated[int | None, typer.Option(**NUMBER, help="Default: the table's.")] = None,
    workers: Annotated[
        int | None, typer.Option(**NUMBER, help="Processes side by side; default: up to 2 on a CPU, 1 on a GPU.")
    ] = None,
    device: Device = "auto",
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop starting cells after this.")] = None,
    data: DataOrRecipe = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare initialisers: a table and a picture."""
    with output_folder(out, resume=resume, overwrite=overwrite):
        from sweet.bench import run

        show(
            lambda: run(
                name,
                protocol=protocol,
                methods=_list(methods),
                sizes=_list(sizes),
                seeds=seeds,
                workers=workers,
                max_minutes=max_minutes,
                device=device,
                out=out,
                data=data,
            ),
            as_json=as_json,
        )


@data_app.command("check")
def data_check(source: Source, as_json: Json = False) -> None:
    """Count images and classes; find corrupt and duplicate files; measure mean and std."""
    from sweet.data.check import check

    show(lambda: check(source), as_json=as_json)


@data_app.command("pack")
def data_pack(
    source: Source,
    img_size: Annotated[int, typer.Option(**NUMBER, help="Pixels of the short side; then a centre crop.")],
    out: Out,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the images, resized, as parquet files that `parquet:DIR` reads."""
    with output_folder(out, overwrite=overwrite):
        from sweet.data.check import pack_to

        show(lambda: pack_to(source, out, img_size), as_json=as_json)


def _split(words: list[str] | None, data: str | None) -> tuple[str | None, list[str]]:
    """The one word that is not key=value (or None), and the overrides, --data last."""
    overrides = [word for word in words or () if re.match(r"[\w.]+=", word)]
    plain = [word for word in words or () if word not in overrides]
    if len(plain) > 1:
        raise UserError(f"{plain[1]}: not understood after {plain[0]}; an override is written key=value")
    if data is not None:
        overrides.append(f"data.source={data}")
    return (plain[0] if plain else None), overrides


def _saved_recipe(out: Path, resume: bool) -> str | None:
    """The recipe of the run to resume, so that `--out DIR --resume` alone continues it."""
    saved = out / "recipe.yaml"
    return str(saved) if resume and saved.is_file() else None


def _need_source(source: str | None) -> None:
    if source is None:
        raise UserError("--data is missing, and the recipe has no data.source")


def _check_folder(word: str, path: Path) -> None:
    if not path.is_dir():
        raise UserError(f"{word} {path}: no such folder")


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
