"""TSV, CSV, Parquet (gzip where text) with named columns; a row is an alias, a concept, or both."""

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import pyarrow as pa
import pyarrow.parquet

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import ALIAS_KINDS, Alias, AliasKind, Concept
from bioelx_mcp.text import has_surrogate
from index_builder.sources.base import Record, Rejects, Source

if TYPE_CHECKING:
    import _csv

# What a column is called where the configuration does not say; the first that exists is taken.
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "concept_id": ("concept_id", "id", "cui", "curie"),
    "text": ("text", "name", "alias", "synonym", "label"),
    "language": ("language", "lang"),
    "kind": ("kind",),
    "source": ("source",),
    "license": ("license", "licence"),
    "preferred_name": ("preferred_name",),
    "semantic_types": ("semantic_types", "semantic_type", "type", "category", "branch"),
    "definition": ("definition",),
    "xrefs": ("xrefs",),
    "alt_ids": ("alt_ids", "alt_cuis"),
}
CONCEPT_COLUMNS = ("preferred_name", "semantic_types", "definition", "xrefs", "alt_ids")
_UNREADABLE = (pa.ArrowInvalid, OSError, EOFError, zlib.error, csv.Error)
DELIMITERS = {".tsv": "\t", ".txt": "\t", ".csv": ","}


def _text(value: Any) -> str:
    """A cell of any type as text; an empty one as the empty string."""
    return "" if value is None else str(value)


def _many(value: Any) -> tuple[str, ...]:
    """A list cell, or a text cell that joins its parts with `|`."""
    if not value:
        return ()
    parts = value if isinstance(value, list) else _text(value).split("|")
    return tuple(_text(part) for part in parts if part)


class TableSource(Source):
    """A table; `columns` maps our column names to the file's, `language` fills in where no column says it.

    `prefix` (as in `MESH:`) is put before ids that are bare.
    """

    columns: dict[str, str] = {}
    prefix: str = ""
    language: str = ""

    def check(self) -> None:
        super().check()
        if unknown := sorted(set(self.columns) - set(USUAL_NAMES)):
            raise UsageError(
                f"source {self.path}: unknown column role {unknown[0]!r}; known: {', '.join(USUAL_NAMES)}"
            )
        if self._format not in (*DELIMITERS, ".parquet"):
            raise UsageError(
                f"source {self.path}: a table ends in .tsv, .txt, .csv (with or without .gz) or .parquet"
            )
        self._roles(self._schema())

    @property
    def _format(self) -> str:
        return Path(self.path.name.removesuffix(".gz")).suffix.lower()

    def _roles(self, present: list[str]) -> dict[str, str]:
        """Role -> column of this file."""
        roles = {}
        for role, usual in USUAL_NAMES.items():
            if role in self.columns:
                if self.columns[role] not in present:
                    raise UsageError(
                        f"source {self.path}: no column {self.columns[role]!r} for {role}; it has {', '.join(present)}"
                    )
                roles[role] = self.columns[role]
            elif found := [name for name in usual if name in present]:
                roles[role] = found[0]
        if "concept_id" not in roles or not {"text", "preferred_name"} & set(roles):
            raise UsageError(
                f"source {self.path}: needs a concept_id column and a text or preferred_name column "
                f"(or `columns` that says which they are); it has {', '.join(present)}"
            )
        return roles

    def _schema(self) -> list[str]:
        try:
            if self._format == ".parquet":
                return list(pyarrow.parquet.read_schema(self.path).names)
            with self._open_text() as lines:
                return next(self._reader(lines), [])
        except _UNREADABLE as error:
            raise UsageError(f"source {self.path}: {error}") from error

    def _open_text(self) -> TextIO:
        """UTF-8 text; bytes that are none become surrogates, so that one bad row costs one row."""
        if self.path.suffix == ".gz":
            return gzip.open(
                self.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
        return self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _reader(self, lines: Iterable[str]) -> "_csv.Reader":
        if DELIMITERS[self._format] == "\t":
            return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return csv.reader(lines)

    def _rows(
        self, roles: dict[str, str], rejects: Rejects
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line (of Parquet: row) numbers, and rows as role -> cell."""
        if self._format == ".parquet":
            numbers = count(1)
            with pyarrow.parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(columns=list(dict.fromkeys(roles.values()))):
                    cells = [batch.column(name).to_pylist() for name in roles.values()]
                    for values in zip(*cells, strict=True):
                        yield next(numbers), dict(zip(roles, values, strict=True))
            return
        with self._open_text() as lines:
            reader = self._reader(lines)
            header = next(reader)
            places = {role: header.index(name) for role, name in roles.items()}
            for cells in reader:
                number = reader.line_num
                if len(cells) != len(header):
                    reason = f"{len(cells)} fields instead of {len(header)}"
                    rejects.add(reason, f"{self.path}:{number}", cells)
                    continue
                row = {role: cells[place] for role, place in places.items()}
                if any(map(has_surrogate, row.values())):
                    rejects.add("not UTF-8", f"{self.path}:{number}", cells)
                    continue
                yield number, row

    def read(self, rejects: Rejects) -> Iterator[Record]:
        roles = self._roles(self._schema())
        described = any(role in roles for role in CONCEPT_COLUMNS)
        try:
            for number, row in self._rows(roles, rejects):
                bare = _text(row["concept_id"]).strip()
                if not bare:
                    rejects.add("no concept_id", f"{self.path}:{number}", row)
                    continue
                if described:
                    yield Concept(
                        concept_id=self.prefix + bare,
                        preferred_name=_text(row.get("preferred_name")),
                        semantic_types=_many(row.get("semantic_types")),
                        definition=_text(row.get("definition")),
                        xrefs=_many(row.get("xrefs")),
                        alt_ids=_many(row.get("alt_ids")),
                    )
                if "text" in roles:
                    kind = row.get("kind")
                    yield Alias(
                        concept_id=self.prefix + bare,
                        text=_text(row["text"]),
                        language=_text(row.get("language")) or self.language,
                        kind=cast(AliasKind, kind) if kind in ALIAS_KINDS else "synonym",
                        source=_text(row.get("source")) or self.label,
                        license=_text(row.get("license")) or self.license,
                    )
        except _UNREADABLE as error:
            raise UsageError(f"source {self.path}: {error}") from error
