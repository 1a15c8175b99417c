"""The program: its groups of verbs, and how an error ends it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sweet.errors import UserError
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
data_app = typer.Typer(help="Check images, or resize them.", rich_markup_mode=None)
app.add_typer(data_app, name="data")


def main() -> None:
    """The command ``sweet``."""
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
