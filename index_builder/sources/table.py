"""Tables: TSV, CSV, Parquet, JSON lines, and dictionaries of lines `ID||name`; all but Parquet also compressed.

A row is a name, a concept, or both. Columns are known by their usual names, or by `columns`.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from pydantic import Field

from bioelx_mcp.errors import UsageError
from bioelx_mcp.schema import ALIAS_KINDS
from bioelx_mcp.text import has_surrogate, split_disambiguation
from index_builder.sources.base import Block, Rows, Source
from index_builder.sources.formats.cells import (
    Format,
    below,
    decode,
    json_column,
    json_object,
    json_values,
    odd_cells,
    read_clean,
    read_rows,
    whole_records,
)
from index_builder.sources.formats.columns import (
    column,
    distinct,
    explode,
    is_list,
    or_else,
    text_lists,
    texts,
    whole_numbers,
    with_column,
)
from index_builder.sources.formats.reading import numbered_lines, read_blocks
from index_builder.sources.formats.shape import SEVERAL, UNREADABLE, USUAL_NAMES, Shape, find_shape

CONCEPT_TEXTS = ("preferred_name", "definition")
LISTS = SEVERAL[1:]
NUMBERS = ("rank", "popularity")
CONCEPT_ROLES = (*CONCEPT_TEXTS, *LISTS, "popularity")


class TableSource(Source):
    """A table; `columns` maps roles to its columns, `header` names the columns of a file that does not.

    `language` fills in where no column says it; `prefix` (as in `MESH:`) is put before ids and parents that
    have none; `separator` stands between the parts of a cell that holds several, with `split_text` also
    between names, the preferred one first; `titles` are Wikipedia's: what they say in brackets is no part of
    the name; lines that begin with `comment` are skipped.
    """

    columns: dict[str, str] = {}
    header: tuple[str, ...] = ()
    format: Format | None = None
    prefix: str = ""
    language: str = ""
    separator: str = Field("|", min_length=1)
    split_text: bool = False
    titles: bool = False
    comment: str = ""

    def check(self) -> None:
        super().check()
        _ = self._shape

    @cached_property
    def _shape(self) -> Shape:
        """Found once: it goes to the workers with the source."""
        return find_shape(self.path, self.format, self.header, self.columns, self.comment)

    def blocks(self) -> Iterator[Block]:
        shape = self._shape
        if shape.format == "parquet":
            return self._row_groups()
        blocks = below(shape.above, read_blocks(self.path))
        return whole_records(blocks) if shape.format == "csv" else blocks

    def _row_groups(self) -> Iterator[Block]:
        """A block for each row group: the number of the group, and of its first row."""
        metadata, row, position = pa.parquet.read_metadata(self.path), 1, 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            parts = map(group.column, range(group.num_columns))
            position += sum(part.total_compressed_size for part in parts)
            yield Block(str(self.path), row, str(number).encode(), position)
            row += group.num_rows

    def parse(self, block: Block, rows: Rows) -> None:
        read = {"parquet": self._read_group, "jsonl": self._read_objects}
        try:
            for table in read.get(self._shape.format, self._read_text)(block, rows):
                self._tell(table, rows)
        except UNREADABLE as error:
            raise UsageError(f"source {self.path}: {error}") from error

    def _read_group(self, block: Block, rows: Rows) -> Iterator[pa.Table]:
        """The roles' columns of a row group, in pieces."""
        line, roles = block.line, self._shape.roles
        names = list(dict.fromkeys(roles.values()))
        with pa.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(row_groups=[int(block.data)], columns=names):
                batch.validate(full=True)  # texts are UTF-8
                rows.read += batch.num_rows
                numbers = np.arange(line, line := line + batch.num_rows)
                yield _table({role: batch.column(n) for role, n in roles.items()}, numbers)

    def _read_text(self, block: Block, rows: Rows) -> Iterator[pa.Table]:
        """The roles' columns of a block of lines."""
        shape = self._shape
        places = {role: shape.names.index(name) for role, name in shape.roles.items()}
        commented = bool(self.comment) and f"\n{self.comment}".encode() in b"\n" + block.data
        wanted = sorted(set(places.values()))
        clean = None if commented else read_clean(block, shape.format, wanted, len(shape.names))
        if clean is not None:
            rows.read += clean.num_rows
            numbers = np.arange(block.line, block.line + clean.num_rows)
            yield _table({role: clean[str(at)] for role, at in places.items()}, numbers)
            return
        good = [row for row in read_rows(block, shape.format) if self._is_good(*row, rows)]
        columns = {
            role: pa.array([cells[at] for _, cells in good], pa.string())
            for role, at in places.items()
        }
        yield _table(columns, [number for number, _ in good])

    def _is_comment(self, text: bytes) -> bool:
        return bool(self.comment) and text.startswith(self.comment.encode())

    def _is_good(self, line: int, cells: list[str], rows: Rows) -> bool:
        """Whether a row can be used; set aside if not, comments aside."""
        if self.comment and cells[0].startswith(self.comment):
            return False
        rows.read += 1
        if len(cells) != len(self._shape.names):
            rows.set_aside("another number of fields than the header", line, _shown(cells))
        elif any(map(has_surrogate, cells)):
            rows.set_aside("not UTF-8", line, _shown(cells))
        else:
            return True
        return False

    def _read_objects(self, block: Block, rows: Rows) -> Iterator[pa.Table]:
        """The roles' values of JSON lines; a key may be absent, a name be a list of names."""
        good: list[tuple[int, dict[str, Any]]] = []
        for number, line in numbered_lines(block):
            if self._is_comment(line):
                continue
            rows.read += 1
            if (row := json_object(line)) is None:
                rows.set_aside("no JSON object in UTF-8", number, _shown([decode(line)]))
            else:
                good.append((number, row))
        columns, bad = {}, dict[int, str]()
        for role in self._shape.roles:
            asked = self.columns.get(role)
            names = (asked,) if asked else USUAL_NAMES[role]
            columns[role] = json_values([row for _, row in good], names)
            for place in odd_cells(columns[role], role in SEVERAL):
                bad[place] = role
        for place, role in sorted(bad.items()):
            rows.set_aside(f"{role} is of another type", *good[place])
        kept = [place for place in range(len(good)) if place not in bad]
        yield _table(
            {role: json_column([values[at] for at in kept]) for role, values in columns.items()},
            [good[place][0] for place in kept],
        )

    def _tell(self, table: pa.Table, rows: Rows) -> None:
        """The names and concepts in columns of roles."""
        ids = pc.utf8_trim_whitespace(texts(column(table, "concept_id")))
        table = with_column(table, "concept_id", ids)
        table = _without(table, pc.equal(ids, ""), "no concept_id", rows)
        for role in NUMBERS:
            if role in table.column_names:
                numbers, bad = whole_numbers(column(table, role))
                table = _without(
                    with_column(table, role, numbers), bad, f"{role} is no whole number", rows
                )
        if self._shape.format == "dictionary":
            several = text_lists(column(table, "concept_id"), self.separator)
            table, _ = explode(with_column(table, "concept_id", several), "concept_id")
        table = with_column(table, "concept_id", self._prefixed(column(table, "concept_id")))
        described = [role for role in CONCEPT_ROLES if role in table.column_names]
        if "text" in table.column_names:
            self._tell_names(table, bool(described), rows)
        if described:
            self._tell_concepts(table.select(["concept_id", *described, "line"]), rows)

    def _prefixed(self, ids: pa.StringArray) -> pa.StringArray:
        bare = pc.invert(pc.match_substring(ids, ":"))
        return pc.if_else(bare, pc.binary_join_element_wise(self.prefix, ids, ""), ids)

    def _tell_names(self, table: pa.Table, described: bool, rows: Rows) -> None:
        """The names; a row without one is bad, unless it describes a concept."""
        names, first = column(table, "text"), None
        if self.split_text or is_list(names.type):
            lists = text_lists(names, self.separator if self.split_text else "")
            empty = pc.equal(pc.list_value_length(lists), 0)
            table = _without(with_column(table, "text", lists), empty, "no name", rows, described)
            table, first = explode(table, "text")
        else:
            names = texts(names)
            empty = pc.equal(names, "")
            table = _without(with_column(table, "text", names), empty, "no name", rows, described)

        def cells(role: str, otherwise: str = "") -> pa.StringArray:
            if role in table.column_names:
                return or_else(texts(column(table, role)), otherwise)
            return pa.repeat(otherwise, table.num_rows)

        kinds, disambiguation, names = cells("kind"), cells("disambiguation"), column(table, "text")
        if self.split_text:
            kinds = pc.if_else(pc.and_(first, pc.equal(kinds, "")), "preferred", kinds)
        if self.titles:
            names, parts = _split_titles(names)
            disambiguation = pc.if_else(pc.equal(disambiguation, ""), parts, disambiguation)
        told = {
            "concept_id": table["concept_id"],
            "text": names,
            "language": cells("language", self.language),
            "kind": pc.if_else(pc.is_in(kinds, pa.array(ALIAS_KINDS)), kinds, "synonym"),
            "source": cells("source", self.label),
            "license": cells("license", self.license),
            "disambiguation": disambiguation,
            "line": table["line"],
        }
        rows.add_aliases(
            pa.table(told | ({"rank": table["rank"]} if "rank" in table.column_names else {}))
        )

    def _tell_concepts(self, table: pa.Table, rows: Rows) -> None:
        """What is said of concepts: once, where each of its names repeats it."""
        for role in table.column_names:
            if role not in ("line", *NUMBERS):
                cells = column(table, role)
                cells = text_lists(cells) if is_list(cells.type) else texts(cells)
                table = with_column(table, role, cells)
        table = distinct(table, but="line")
        for role in LISTS:
            if role in table.column_names:
                lists = text_lists(column(table, role), self.separator)
                if role == "parents":
                    lists = pa.ListArray.from_arrays(lists.offsets, self._prefixed(lists.values))
                table = with_column(table, role, lists)
        rows.add_concepts(table)


def _table(columns: dict[str, Any], lines: Any) -> pa.Table:
    return pa.table(columns | {"line": pa.array(lines, pa.int64())})


def _without(
    table: pa.Table, bad: pa.BooleanArray, reason: str, rows: Rows, quietly: bool = False
) -> pa.Table:
    """The table without bad rows; they are set aside, unless `quietly`."""
    if not pc.any(bad).as_py():
        return table
    if not quietly:
        for row in table.filter(bad).to_pylist():
            rows.set_aside(reason, row.pop("line"), row)
    return table.filter(pc.invert(bad))


def _split_titles(titles: pa.StringArray) -> tuple[pa.StringArray, pa.StringArray]:
    """Names, and what stood in brackets behind them: see `text.split_disambiguation`."""
    titles = pc.utf8_trim_whitespace(pc.replace_substring(titles, "_", " "))
    bracketed = pc.or_(pc.ends_with(titles, ")"), pc.ends_with(titles, "）"))
    split = [split_disambiguation(title) for title in titles.filter(bracketed).to_pylist()]
    names, parts = (pa.array([pair[at] for pair in split], pa.string()) for at in (0, 1))
    return (
        pc.replace_with_mask(titles, bracketed, names),
        pc.replace_with_mask(pa.repeat("", len(titles)), bracketed, parts),
    )


def _shown(cells: list[str]) -> list[str]:
    """Cells for the report: bytes that are no UTF-8 are written out."""
    return [
        cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for cell in cells
    ]
