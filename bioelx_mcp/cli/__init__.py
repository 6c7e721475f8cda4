"""The command `bioelx-mcp`. Results go to stdout, everything else to stderr; errors are one line.

Exit status: 0 done, 1 internal error, 2 usage or bad input, 3 missing extra, 4 missing artifact,
5 invalid artifact, 6 ranker backend. One module for each group of commands; what is heavy is imported when a command runs.
"""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from bioelx_mcp import __version__
from bioelx_mcp.cli import building, evaluating, indexes, linking, serving
from bioelx_mcp.errors import BioelxError
from bioelx_mcp.text import visible_line

app = typer.Typer(
    help="Biomedical entity linking in any language.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for commands in (linking.app, serving.app, building.app, indexes.cards, evaluating.app):
    app.add_typer(commands)
app.add_typer(indexes.app, name="index")


def main() -> None:
    """Run the command line; the process ends with the documented exit status."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):  # whatever a pipe or locale says: names are UTF-8
            stream.reconfigure(encoding="utf-8")
    try:
        status = app(standalone_mode=False)
        if status == 130:  # typer's answer to Ctrl-C
            _fail("interrupted", 130)
        if status:  # a command that ended so itself
            sys.exit(status)
    except BioelxError as error:
        _fail(str(error), error.exit_code)
    except SystemExit as stop:  # typer's answer to a reader of stdout that left: 1
        sys.exit(141 if isinstance(stop.__context__, BrokenPipeError) else stop.code)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(f"{error.format_message()} (see bioelx-mcp --help)", 2)
        raise


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bioelx-mcp: {visible_line(message)}\n")
    sys.exit(code)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Biomedical entity linking in any language."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
