"""The program: its groups of verbs, and how an error ends it."""

from __future__ import annotations

import copy
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sweet import interrupts
from sweet.errors import UserError, printable
from sweet.version import VERSION

from .failures import one_line

CTRL_C = 130


class _Verbs(TyperGroup):
    """A user error is one line on stderr and exit code 2; whatever else goes wrong keeps its traceback."""

    def main(self, *args: Any, **options: Any) -> None:
        options["standalone_mode"] = False  # else typer draws a box around its own errors
        exit_code = 2
        try:
            code = super().main(*args, **options)
        except UserError as error:
            message, exit_code = str(error), error.code
        except Exception as error:
            line = _line(error)
            if line is None:
                raise
            message, exit_code = line, 2
        else:
            if code == CTRL_C:  # typer's word for any KeyboardInterrupt
                code = interrupts.exit_code()
                if interrupts.received() is not None:
                    print(f"interrupted by {interrupts.signal_name()}", file=sys.stderr)
            sys.exit(code if isinstance(code, int) else 0)
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(exit_code)


def _line(error: Exception) -> str | None:
    """The message of an error of the option parser, or of the machine; None for a bug."""
    if hasattr(error, "format_message"):
        message = " ".join(error.format_message().split()).removesuffix(".").replace("Value error, ", "")
        return message + _hint(getattr(error, "option_name", ""), getattr(error, "ctx", None))
    return one_line(error)


def _hint(option: str, context: Any) -> str:
    """What somebody meant who wrote an option that there is not."""
    name, verb = option.lstrip("-").replace("-", "_"), getattr(context, "info_name", "")
    if name in ("gpus", "gpu", "devices", "num_gpus", "nproc_per_node", "num_processes"):
        return "; several GPUs: torchrun --nproc-per-node N -m sweet ... (docs/nodes.md)"
    if verb == "init" and name in ("size", "sizes"):
        return "; a size such as L6H6 is written --depth 6 --heads 6"
    from sweet.recipes.loader import key_names, usual_name
    from sweet.recipes.schema import FinetuneRecipe, PretrainRecipe, TrainKeys

    recipe: dict[str, type[TrainKeys]]
    recipe = {"pretrain": PretrainRecipe, "plan": PretrainRecipe, "finetune": FinetuneRecipe, "family": FinetuneRecipe}
    keys, name = key_names(recipe[verb]) if verb in recipe and name else (), usual_name(name)
    meant = next((key for key in keys if name in (key, key.rpartition(".")[2])), None)
    return "" if meant is None else f"; a key of the recipe is written without dashes: {meant}=..."


app = typer.Typer(cls=_Verbs, rich_markup_mode=None, pretty_exceptions_enable=False)
data_app = typer.Typer(help="Check, measure, resize and compare images.", rich_markup_mode=None)
app.add_typer(data_app, name="data")
cache_app = typer.Typer(help="Look at what is kept on this machine, or remove it.", rich_markup_mode=None)
app.add_typer(cache_app, name="cache")


def run() -> None:
    """The command line. Where it begins with a verb only that one is built: to build all takes a tenth of a second."""
    chosen, verb = copy.copy(app), sys.argv[1:2]
    named = [one for one in app.registered_commands if one.callback and [one.callback.__name__] == verb]
    if named:
        chosen.registered_commands, chosen.registered_groups = named, []
    chosen(prog_name="sweet")


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
