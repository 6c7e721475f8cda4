"""What a source is: an input cut into blocks that are read apart, each to raw rows and what is set aside.

`Source.blocks` runs in one process and only cuts; `Source.parse` reads one block and may run in any process,
so that a large input is read in parallel, in constant memory, and a killed build goes on where it was.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import AliasKind

RAW_ALIASES = pa.schema(
    [
        pa.field("concept_id", pa.string()),  # any spelling of a CURIE
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),  # any spelling of a BCP-47 tag; empty: none stated
        pa.field("kind", pa.string()),  # one of schema.ALIAS_KINDS
        pa.field("source", pa.string()),
        pa.field("license", pa.string()),
        pa.field("disambiguation", pa.string()),  # what a title says in brackets behind the name
        pa.field("rank", pa.int32()),  # higher is better: decides the preferred name
        pa.field("line", pa.int64()),  # where it stands in the block's file; 0: not known
    ]
)
_STRINGS = pa.list_(pa.string())
RAW_CONCEPTS = pa.schema(
    [
        pa.field("concept_id", pa.string()),
        pa.field("preferred_name", pa.string()),  # empty: the best alias
        pa.field("semantic_types", _STRINGS),
        pa.field("definition", pa.string()),
        pa.field("xrefs", _STRINGS),
        pa.field("alt_ids", _STRINGS),  # retired and secondary ids, answered for as well
        pa.field("exact", _STRINGS),  # ids of other vocabularies that mean the same: merged
        pa.field("parents", _STRINGS),
        pa.field("popularity", pa.int32()),  # number of Wikipedia pages and the like
        pa.field("line", pa.int64()),
    ]
)
MOST_EXAMPLES = 100  # rows set aside that are kept of each block and reason; all are counted


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the input, read on its own.

    `file` is what a reader of the report finds it by; `line` the number of its first line (or row, or record).
    `data` holds its bytes, or nothing where `parse` opens the file itself. `position` is how many bytes of the
    source (as they lie on disk) are used up after it. A block with a `problem` only says what is wrong there.
    """

    file: str
    line: int = 1
    data: bytes = b""
    position: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row set aside: why, where (`file:line`), and how it begins."""

    reason: str
    where: str
    row: str


class Rows:
    """What one block gave: raw aliases and concepts, and the rows set aside.

    `read` counts the rows (lines, terms, entities) of the input, good and bad: what shares are shares of.
    """

    def __init__(self, file: str, source: str, license: str) -> None:
        self.read = 0
        self.rejected: list[Rejected] = []
        self.counts: Counter[str] = Counter()
        self._file = file
        self._source = source
        self._license = license
        self._aliases: list[tuple[object, ...]] = []
        self._concepts: list[tuple[object, ...]] = []
        self._tables: dict[str, list[pa.Table]] = {"aliases": [], "concepts": []}

    def alias(
        self,
        concept_id: str,
        text: str,
        language: str,
        kind: AliasKind = "synonym",
        *,
        source: str = "",
        license: str = "",
        disambiguation: str = "",
        rank: int = 0,
        line: int = 0,
    ) -> None:
        """A name of a concept; it may come before, after or without the row that describes the concept."""
        told = (source or self._source, license or self._license, disambiguation, rank, line)
        self._aliases.append((concept_id, text, language, kind, *told))

    def concept(
        self,
        concept_id: str,
        preferred_name: str = "",
        *,
        semantic_types: Iterable[str] = (),
        definition: str = "",
        xrefs: Iterable[str] = (),
        alt_ids: Iterable[str] = (),
        exact: Iterable[str] = (),
        parents: Iterable[str] = (),
        popularity: int = 0,
        line: int = 0,
    ) -> None:
        """Facts about a concept; several rows of one concept add up, the first name and definition stand."""
        lists = [list(xrefs), list(alt_ids), list(exact), list(parents)]
        head = (concept_id, preferred_name, list(semantic_types), definition)
        self._concepts.append((*head, *lists, popularity, line))

    def add_aliases(self, table: pa.Table) -> None:
        """Many aliases at once: columns of RAW_ALIASES without nulls; those it lacks are filled in."""
        fill = {"source": self._source, "license": self._license, "kind": "synonym"}
        self._tables["aliases"].append(_complete(table, RAW_ALIASES, fill))

    def add_concepts(self, table: pa.Table) -> None:
        """Many concepts at once: columns of RAW_CONCEPTS without nulls; those it lacks are filled in."""
        self._tables["concepts"].append(_complete(table, RAW_CONCEPTS, {}))

    def set_aside(self, reason: str, line: int, row: object) -> None:
        """A row that cannot be used; `reason` names a kind of trouble, not the row."""
        self.counts[reason] += 1
        if self.counts[reason] <= MOST_EXAMPLES:
            shown = (
                row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=str)
            )
            where = f"{self._file}:{line}" if line else self._file
            self.rejected.append(Rejected(reason, where, shown[:300]))

    def aliases(self) -> pa.Table:
        """All aliases, RAW_ALIASES; tables that came whole stand behind single rows."""
        return pa.concat_tables([_table(self._aliases, RAW_ALIASES), *self._tables["aliases"]])

    def concepts(self) -> pa.Table:
        """All concepts, RAW_CONCEPTS."""
        return pa.concat_tables([_table(self._concepts, RAW_CONCEPTS), *self._tables["concepts"]])


class Source(BaseModel, ABC):
    """A source with its options. `name` and `license` mark the aliases that carry none of their own.

    `languages` keeps the aliases in these languages (`pt` also keeps `pt-BR`) and those that state none;
    `exact_xrefs` names prefixes (as in `UMLS`) whose cross-references mean the same concept and merge it,
    where a concept has one of the prefix and not several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    name: str = ""
    license: str = ""
    languages: tuple[str, ...] = ()
    exact_xrefs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.name or self.path.name.split(".")[0]

    @property
    def size(self) -> int:
        """Bytes on disk: what `Block.position` runs up to."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())

    def check(self) -> None:
        """Raise UsageError when the source cannot be read at all: before any work is done."""
        if not self.path.exists():
            raise UsageError(f"source {self.path}: no such file or directory")

    def blocks(self) -> Iterator[Block]:
        """The parts of the input, in a fixed order; by default the path as a whole.

        Raises:
            UsageError: the input as a whole cannot be read as this kind.
        """
        yield Block(str(self.path), position=self.size)

    @abstractmethod
    def parse(self, block: Block, rows: Rows) -> None:
        """Read one block into `rows`; what is bad in it is set aside there.

        Raises:
            UsageError: the input as a whole cannot be read as this kind.
        """

    def read(self, block: Block) -> Rows:
        """The rows of one block."""
        rows = Rows(block.file, self.label, self.license)
        if block.problem:
            rows.read = 1
            rows.set_aside(block.problem, block.line, "")
        else:
            self.parse(block, rows)
        return rows

    def versions(self) -> dict[str, str]:
        """Versions of what is in it, by name, for the report; empty where the input states none."""
        return {}


def _table(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _complete(table: pa.Table, schema: pa.Schema, fill: dict[str, str]) -> pa.Table:
    """The table with the columns of the schema, missing ones filled with a constant."""
    empty: dict[pa.DataType, object] = {pa.string(): "", _STRINGS: []}
    columns = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            value = pa.scalar(fill.get(field.name, empty.get(field.type, 0)), field.type)
            full = pa.repeat(value, table.num_rows) if table.num_rows else pa.array([], field.type)
            columns.append(full)
    return pa.Table.from_arrays(columns, schema=schema)
