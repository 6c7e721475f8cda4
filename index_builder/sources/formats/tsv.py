"""Tables that curators keep: `#` lines of metadata, a line of column names, then rows; tabs or commas between.

Cells may be quoted as spreadsheets do it (a quoted cell holds no line end). A row as wide as the header is
read; another one, or one that is no UTF-8, is set aside.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bioelx_mcp.errors import UsageError
from index_builder.sources.base import Block, Rows
from index_builder.sources.formats.reading import bare_name, numbered_lines, read_blocks

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Head:
    """How a table begins: metadata without its `#`, column names, the number of their line, the first row."""

    metadata: tuple[str, ...]
    columns: tuple[str, ...]
    line: int
    first: tuple[str, ...]


def read_head(path: Path, wanted: tuple[str, ...] = ()) -> Head:
    """How the table begins; only its beginning is read, so this is cheap whatever its size.

    Raises:
        UsageError: it has no header, or lacks a wanted column.
    """
    metadata: list[str] = []
    columns: tuple[str, ...] = ()
    line, first = 0, tuple[str, ...]()
    for number, text in _first_lines(path):
        if not columns and text.startswith("#"):
            metadata.append(text[1:].rstrip())
        elif not columns:
            columns, line = tuple(cell.strip() for cell in _cells(text, path)), number
        else:
            first = tuple(_cells(text, path))
            break
    if missing := [name for name in wanted if name not in columns]:
        has = ", ".join(columns) or "nothing that can be read"
        raise UsageError(f"source {path}: no column {missing[0]!r}; it has {has}")
    return Head(tuple(metadata), columns, line, first)


def read_table(block: Block, head: Head, rows: Rows) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column -> cell) of a block; rows that cannot be read are set aside."""
    for number, line in numbered_lines(block):
        if number <= head.line:
            continue
        rows.read += 1
        try:
            text = line.decode()
        except UnicodeDecodeError:
            rows.set_aside("not UTF-8", number, line.decode(errors="backslashreplace"))
            continue
        cells = _cells(text, Path(block.file))
        if len(cells) != len(head.columns):
            rows.set_aside("another number of fields than the header", number, text)
        else:
            yield number, dict(zip(head.columns, cells, strict=True))


def _first_lines(path: Path) -> Iterator[tuple[int, str]]:
    for block in read_blocks(path, _HEAD_BYTES):
        for number, line in numbered_lines(block):
            yield number, line.decode("utf-8-sig", errors="replace")


def _cells(text: str, path: Path) -> list[str]:
    comma = bare_name(path).endswith(".csv")
    try:
        return next(csv.reader([text], delimiter="," if comma else "\t"))
    except csv.Error:  # longer than any cell may be
        return []
