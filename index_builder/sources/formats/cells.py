"""Cells of text tables (TSV, CSV, lines `ID||name`) and objects of JSON lines, from blocks of bytes.

A clean block is parsed by Arrow as a whole; one with quotes, comments or anything wrong row by row, to the line.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv

from bioelx_mcp.errors import UsageError
from bioelx_mcp.text import has_surrogate
from index_builder.sources.base import Block
from index_builder.sources.formats.reading import BOM, numbered_lines

Format = Literal["tsv", "csv", "parquet", "jsonl", "dictionary"]


def decode(data: bytes) -> str:
    """Text; bytes that are no UTF-8 become lone surrogates, so that one bad row costs one row."""
    return data.decode("utf-8", "surrogateescape")


def below(lines: int, blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks of a text file without its first lines and its byte order mark."""
    for block in blocks:
        above = 0 if block.problem else max(0, lines + 1 - block.line)
        data = block.data.removeprefix(BOM) if block.line == 1 else block.data
        data = b"".join(data.split(b"\n", above)[above:])
        yield replace(block, line=block.line + above, data=data)


def whole_records(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks of CSV cut anew where records end: a quoted cell may hold line ends.

    Raises:
        UsageError: a cell is longer than any may be: a quote is opened and never closed.
    """
    rest = Block("")
    for block in blocks:
        if block.problem:
            break
        data, line = rest.data + block.data, rest.line if rest.data else block.line
        try:
            end = _end_of_records(data) if b'"' in data else len(data)
        except csv.Error as error:
            raise UsageError(
                f"source {block.file}: {error}, behind line {line}: is a quote not closed?"
            ) from error
        yield replace(block, line=line, data=data[:end])
        rest = replace(block, line=line + data.count(b"\n", 0, end), data=data[end:])
    else:
        block = rest
    if rest.data:
        yield rest
    if block.problem:
        yield block


def _end_of_records(data: bytes) -> int:
    """Where the last record ends that is whole."""
    lines = list(io.StringIO(data.decode("latin-1"), newline=""))  # a character for each byte
    reader, before, end = csv.reader([*lines, "\0"]), 0, 0
    for cells in reader:
        if cells == ["\0"]:  # no quote was open
            return len(data)
        before, end = end, reader.line_num
    return sum(map(len, lines[:before]))


def read_clean(block: Block, form: Format, columns: list[int], width: int) -> pa.Table | None:
    """Some columns of a block as texts, named by their number; None where it must be read row by row."""
    data, delimiter = block.data, "," if form == "csv" else "\t"
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if form == "csv" and b'"' in data:
        return None
    if form == "dictionary":
        if b"\t" in data or data.count(b"||") != lines:
            return None
        data = data.replace(b"||", b"\t")
    names = [str(number) for number in range(width)]
    wanted = [str(number) for number in columns]
    try:
        table = pa.csv.read_csv(
            io.BytesIO(data),
            pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
            pa.csv.ParseOptions(delimiter=delimiter, quote_char=False),
            pa.csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table if table.num_rows == lines else None  # else there are empty lines


def read_rows(block: Block, form: Format) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a block, empty lines left out; see `decode`."""
    if form == "csv":
        yield from csv_rows(decode(block.data), block.line)
    else:
        for number, line in numbered_lines(block):
            text = decode(line)
            yield number, text.split("||", 1) if form == "dictionary" else text.split("\t")


def csv_rows(text: str, line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of CSV, empty lines left out."""
    reader, done = csv.reader(io.StringIO(text, newline="")), 0
    for cells in reader:
        if cells:
            yield line + done, cells
        done = reader.line_num


def json_object(line: bytes) -> dict[str, Any] | None:
    """The object in a line of JSON; None where there is none, or it is no Unicode."""
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    odd = b"\\u" in line and has_surrogate(json.dumps(value, ensure_ascii=False))
    return value if isinstance(value, dict) and not odd else None


def json_values(objects: list[dict[str, Any]], names: tuple[str, ...]) -> list[Any]:
    """Of each object the first value that is not null under one of the names."""
    values: list[Any] = [None] * len(objects)
    for name in names:
        if None in values:
            pairs = zip(objects, values, strict=True)
            values = [row.get(name) if value is None else value for row, value in pairs]
    return values


def odd_cells(values: list[Any], several: bool) -> list[int]:
    """Where JSON values are objects, or lists where no list may be (`several`: of objects or lists)."""
    if not {list, dict} & set(map(type, values)):
        return []

    def fits(value: object) -> bool:
        if several and isinstance(value, list):
            return not {list, dict} & set(map(type, value))
        return not isinstance(value, list | dict)

    return [place for place, value in enumerate(values) if not fits(value)]


def json_column(values: list[Any]) -> pa.Array:
    """JSON values as texts, or as lists of texts where one of them is a list."""
    if list not in (kinds := set(map(type, values))):
        told = values if kinds <= {str, type(None)} else map(_text, values)
        return pa.array(told, pa.string())
    lists = [value if isinstance(value, list) else [value] for value in values]
    return pa.array([list(map(_text, parts)) for parts in lists], pa.list_(pa.string()))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
