"""How a table is laid out: its format, its columns, and which of them plays which role.

The format is known by the file's ending or, of lines `ID||name`, by the first line; only the top is read.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from bioelx_mcp.errors import UsageError
from index_builder.sources.formats.cells import Format, below, csv_rows, decode, json_object
from index_builder.sources.formats.columns import is_list
from index_builder.sources.formats.reading import bare_name, numbered_lines, read_blocks

ENDINGS: dict[str, Format] = {
    ".tsv": "tsv",
    ".txt": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
# What a column is called where the configuration does not say; the first that exists is taken.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "concept_id": ("concept_id", "id", "cui", "curie"),
    "text": ("text", "name", "alias", "synonym", "label"),
    "language": ("language", "lang"),
    "kind": ("kind",),
    "source": ("source",),
    "license": ("license", "licence"),
    "disambiguation": ("disambiguation",),
    "rank": (),  # to be asked for: in tables of taxa a column of this name holds no numbers
    "preferred_name": ("preferred_name",),
    "semantic_types": ("semantic_types", "semantic_type", "type", "category", "branch"),
    "definition": ("definition",),
    "xrefs": ("xrefs",),
    "alt_ids": ("alt_ids", "alt_cuis"),
    "exact": ("exact",),
    "parents": ("parents",),
    "popularity": ("popularity",),
}
SEVERAL = ("text", "semantic_types", "xrefs", "alt_ids", "exact", "parents")  # cells may be lists
UNREADABLE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, csv.Error)
_HEAD_BYTES = 1 << 16
_HEAD_OBJECTS = 1000


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file is read: its format, all its columns in order, role -> column, the lines above the first row."""

    format: Format
    names: tuple[str, ...]
    roles: dict[str, str]
    above: int = 0


def find_shape(
    path: Path,
    form: Format | None,
    header: tuple[str, ...],
    columns: Mapping[str, str],
    comment: str,
) -> Shape:
    """The layout of a file; `form`, `header` and `columns` (role -> column) say what it does not.

    Raises:
        UsageError: the file cannot be read, or has no column for what is needed or asked for.
    """
    form, names, above = form or _format(path, comment), header, 0
    if header and form not in ("tsv", "csv"):
        raise UsageError(f"source {path}: `header` is for tsv and csv, this is {form}")
    kinds = {}
    try:
        if form == "parquet":
            schema = pa.parquet.read_schema(path)
            names, kinds = tuple(schema.names), dict(zip(schema.names, schema.types, strict=True))
        elif form == "jsonl":
            names = _keys(path, comment)
        elif form == "dictionary":
            names = ("concept_id", "text")
        elif not header:
            names, above = _header(path, form, comment)
    except UNREADABLE as error:
        raise UsageError(f"source {path}: {error}") from error
    roles = _roles(path, names, columns)
    for role, name in roles.items():
        kind = kinds.get(name, pa.string())
        if pa.types.is_nested(kind.value_type if role in SEVERAL and is_list(kind) else kind):
            raise UsageError(f"source {path}: column {name!r} for {role} holds no text but {kind}")
    return Shape(form, names, roles, above)


def _format(path: Path, comment: str) -> Format:
    ending = Path(bare_name(path)).suffix.lower()
    if ending not in ENDINGS or ending == ".txt":
        first = next((line for _, line in _head(path, comment)), b"")
        if b"||" in first and b"\t" not in first:
            return "dictionary"
    if ending not in ENDINGS:
        raise UsageError(
            f"source {path}: a table ends in {', '.join(ENDINGS)} (then .gz, .bz2, .zst or .zip); "
            "what it is under another name is to be said, as in format = 'tsv'"
        )
    return ENDINGS[ending]


def _head(path: Path, comment: str) -> Iterator[tuple[int, bytes]]:
    """(number, line) from the top of a text file, comments left out."""
    for block in below(0, read_blocks(path, _HEAD_BYTES)):
        if block.problem:
            raise UsageError(f"source {path}: {block.problem}")
        for number, line in numbered_lines(block):
            if not (comment and line.startswith(comment.encode())):
                yield number, line


def _header(path: Path, form: Format, comment: str) -> tuple[tuple[str, ...], int]:
    """The column names, and the number of their line."""
    number, line = next(_head(path, comment), (0, b""))
    text = decode(line)
    names = next(csv_rows(text), (0, []))[1] if form == "csv" else text.split("\t")
    return tuple(names), number


def _keys(path: Path, comment: str) -> tuple[str, ...]:
    """The keys of the objects at the top."""
    objects = (json_object(line) or {} for _, line in islice(_head(path, comment), _HEAD_OBJECTS))
    return tuple(dict.fromkeys(key for row in objects for key in row))


def _roles(path: Path, present: tuple[str, ...], columns: Mapping[str, str]) -> dict[str, str]:
    """Role -> column of this file."""
    if unknown := sorted(set(columns) - set(USUAL_NAMES)):
        known = ", ".join(USUAL_NAMES)
        raise UsageError(f"source {path}: unknown column role {unknown[0]!r}; known: {known}")
    roles, has = {}, f"it has {', '.join(filter(None, present)) or 'none that can be read'}"
    for role, usual in USUAL_NAMES.items():
        wanted = (columns[role],) if role in columns else usual
        if found := [name for name in wanted if name in present]:
            roles[role] = found[0]
        elif role in columns:
            raise UsageError(f"source {path}: no column {columns[role]!r} for {role}; {has}")
    if "concept_id" not in roles or not {"text", "preferred_name"} & set(roles):
        raise UsageError(
            f"source {path}: needs a concept_id column and a text or preferred_name column "
            f"(or `columns` that says which they are); {has}"
        )
    return roles
