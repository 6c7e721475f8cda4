"""What the commands read from stdin and write: mentions in, tables and JSON lines out.

A terminal obeys what is written to it; names, contexts and what servers say are written out, never obeyed.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import typer
from pydantic import TypeAdapter, ValidationError

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import Mention, Ranking
from bioelx_mcp.text import visible_json, visible_line


def read_mentions(mentions: Sequence[str] | None, context: str = "") -> Iterator[Mention]:
    """The mentions given as arguments, else those of stdin.

    Raises:
        UsageError: there is none, or a line is of another form.
    """
    if mentions:
        yield from (Mention(text, context) for text in mentions)
        return
    if sys.stdin.isatty():
        raise UsageError("no mention given: name some, or pipe them in, one a line")
    try:
        lines = [(number, line.strip()) for number, line in enumerate(sys.stdin, 1) if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin is not UTF-8: {error}") from error
    if not lines:
        raise UsageError("no mention on stdin: one a line, or JSON lines {mention, context, start}")
    for number, line in lines:
        yield _json_mention(number, line) if line.startswith("{") else Mention(line, context)


def _json_mention(number: int, line: str) -> Mention:
    try:
        row = json.loads(line)
        row["text"] = row.pop("mention")
        if unknown := row.keys() - {field.name for field in fields(Mention)}:
            raise KeyError(*unknown)
        return TypeAdapter(Mention).validate_python(row)
    except (ValueError, KeyError, AttributeError, ValidationError) as error:
        raise UsageError(
            f"stdin:{number}: not of the form {{mention, context, start}}: {line[:80]!r}"
        ) from error


def warn_degraded(rankings: Sequence[Ranking]) -> None:
    """Say once on stderr why a ranker that was wanted did not answer."""
    for reason in dict.fromkeys(ranking.degraded for ranking in rankings if ranking.degraded):
        sys.stderr.write(
            "bioelx-mcp: the ranker did not answer, the retrieval order stands: "
            f"{visible_line(reason)}\n"
        )


def echo_json(value: Any) -> None:
    """One line of JSON."""
    typer.echo(visible_json(value))


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on a terminal, tab-separated where the output is piped."""
    if not sys.stdout.isatty():
        for row in (header, *rows):
            typer.echo("\t".join(map(visible_line, row)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(visible_line(cell), overflow="fold") for cell in row))
    Console().print(table)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal; call what it gives with (done, of how many)."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, disable=not terminal.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
