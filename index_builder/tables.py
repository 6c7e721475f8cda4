"""Staged sources to two tables: concepts and aliases, merged, deduplicated, sorted.

DIR/concepts.parquet   manifest.CONCEPTS_SCHEMA, sorted by concept_id
DIR/aliases.parquet    manifest.ALIASES_SCHEMA, sorted by concept, kind, language, text
DIR/report.json        counts by source, language, licence; homonyms, conflicts, what was set aside
DIR/rejected.jsonl     the rows set aside: reason, file and line, how they begin
Equal inputs give equal files. Of aliases that are equal but for spelling the first source's stays. The
work is done by DuckDB, within a bound of memory and on disk beyond it.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from bioelx_mcp.errors import UsageError
from bioelx_mcp.manifest import ALIASES_SCHEMA, CONCEPTS_SCHEMA, write_atomically
from bioelx_mcp.schema import ALIAS_KINDS
from bioelx_mcp.text import visible_json
from index_builder.config import MergeConfig
from index_builder.identity import merge_ids
from index_builder.staging import STAGED_ALIASES, STAGED_CONCEPTS, Staged

CONCEPTS_FILE = "concepts.parquet"
ALIASES_FILE = "aliases.parquet"
REPORT_FILE = "report.json"
REJECTED_FILE = "rejected.jsonl"
_ROW_GROUP = 100_000
_EXAMPLES = 20
_ROWS_PER_MB = 1000  # that are grouped at once
_ORIGIN_BITS = 40  # an alias's place is origin * 2 ** 40 + row: all sources in one order


def build_tables(
    sources: Sequence[Staged], directory: Path, config: MergeConfig | None = None
) -> dict[str, Any]:
    """Merge staged sources into the two tables and the report; the report is returned.

    Raises:
        UsageError: no alias is left, or the memory that the merge may take is too little.
    """
    config = config or MergeConfig()
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / "scratch"
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{config.memory_mb}MB",
        "temp_directory": str(scratch),
        "preserve_insertion_order": "false",
    }
    try:
        with duckdb.connect(config=settings) as database:
            merge = _Merge(database, sources, config)
            return merge.write(directory)
    except duckdb.OutOfMemoryException as error:
        raise UsageError(
            f"merging needs more memory than merge.memory_mb, {config.memory_mb}: set it higher"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Merge:
    """The steps of one merge, each a table of a database in memory."""

    def __init__(
        self, database: duckdb.DuckDBPyConnection, sources: Sequence[Staged], config: MergeConfig
    ) -> None:
        self._db = database
        self._sources = sources
        self._config = config

    def write(self, directory: Path) -> dict[str, Any]:
        self._read("staged_names", "aliases", STAGED_ALIASES)
        self._read("staged_facts", "concepts", STAGED_CONCEPTS)
        conflicts = self._identify()
        self._merge_names()
        self._merge_facts()
        (aliases,) = self._row("SELECT count(*) FROM names")
        if aliases == 0:
            rejected = sum((staged.counts() for staged in self._sources), Counter[str]())
            paths = ", ".join(str(staged.source.path) for staged in self._sources)
            raise UsageError(
                f"no alias is left of {paths}; set aside: {dict(rejected) or 'nothing'}"
            )
        self._write(directory / CONCEPTS_FILE, CONCEPTS_SCHEMA, "concepts", "row")
        order = "concept, kind_order, language, text"
        self._write(directory / ALIASES_FILE, ALIASES_SCHEMA, "aliases", order)
        report = self._report(directory, conflicts)
        write_atomically(directory / REPORT_FILE, visible_json(report, indent=1) + "\n")
        return report

    def _read(self, view: str, what: str, schema: pa.Schema) -> None:
        """All shards of all sources as one view, with `origin`, the number of the source, and `place`."""
        columns = ", ".join(field.name for field in schema if field.name != "row")
        whole = self._db.from_arrow(schema.empty_table())
        whole = whole.project(f"{columns}, 0 AS origin, row AS place")
        for origin, staged in enumerate(self._sources):
            if paths := [str(path) for path in staged.files(what)]:
                rows = self._db.read_parquet(paths)
                place = f"{origin} AS origin, {origin << _ORIGIN_BITS} + row AS place"
                whole = whole.union(rows.project(f"{columns}, {place}"))
        whole.create_view(view)

    def _identify(self) -> list[tuple[str, str, str, str]]:
        """Table `identity`: id -> concept_id, for every id that goes by another one; the conflicts."""
        # Within a source, what states an id of the authority outright goes before what leads to one.
        outright = " OR ".join(
            f"starts_with({one}, '{prefix}:')"
            for one in ("concept_id", "other")
            for prefix in self._config.id_order[:1]
        )
        mappings = self._db.sql(
            "SELECT concept_id, other FROM "
            "(SELECT concept_id, unnest(exact) AS other, origin, place FROM staged_facts) "
            f"WHERE concept_id <> other ORDER BY origin, NOT ({outright or 'true'}), place, other"
        ).fetchall()
        found = merge_ids(
            mappings, self._config.id_order, join_authority=self._config.join_authority
        )
        # A retired id that nobody describes goes by the concept that claims it.
        claims = self._db.sql(
            "WITH described AS (SELECT DISTINCT concept_id FROM staged_facts "
            "  WHERE preferred_name <> '' OR definition <> '' OR len(semantic_types) > 0), "
            "claims AS (SELECT concept_id, unnest(alt_ids) AS other, place FROM staged_facts) "
            "SELECT other, concept_id FROM claims ANTI JOIN described ON described.concept_id = other "
            "WHERE other <> claims.concept_id ORDER BY place, other"
        ).fetchall()
        for other, owner in claims:
            found.canonical.setdefault(other, found.canonical.get(owner, owner))
        changed = [(one, other) for one, other in found.canonical.items() if one != other]
        table = pa.table(
            {
                "id": pa.array([one for one, _ in changed], pa.string()),
                "canonical": pa.array([other for _, other in changed], pa.string()),
            }
        )
        self._db.register("identity", table)
        return found.conflicts

    def _merge_names(self) -> None:
        """Table `names`: one row for each (concept, normalised text, language); view `said`: every mention of one."""
        self._run(
            "CREATE TABLE provenance AS SELECT row_number() OVER (ORDER BY source, license) - 1 AS code, * "
            "FROM (SELECT DISTINCT source, license FROM staged_names)"
        )
        (last,) = self._row("SELECT greatest(count(*) - 1, 0) FROM provenance")
        self._run(
            f"""CREATE VIEW said AS
            SELECT coalesce(identity.canonical, concept_id) AS concept_id, text, normalized, language,
                list_position({list(ALIAS_KINDS)!r}, kind) AS kind, disambiguation, rank, origin, place, code
            FROM staged_names JOIN provenance USING (source, license)
                LEFT JOIN identity ON identity.id = concept_id"""
        )
        # What an aggregate holds of texts stays in memory: so many concepts at a time as there is room for.
        (said,) = self._row("SELECT count(*) FROM staged_names")
        parts = 1 + said // (self._config.memory_mb * _ROWS_PER_MB)
        for part in range(parts):
            self._run(
                f"""{"INSERT INTO names" if part else "CREATE TABLE names AS"}
                SELECT concept_id, normalized, language, arg_min(text, place) AS text, min(kind) AS kind,
                    coalesce(arg_min(disambiguation, place) FILTER (disambiguation <> ''), '') AS disambiguation,
                    bitstring_agg(code, 0, {last}) AS codes
                FROM said WHERE hash(concept_id) % {parts} = {part} GROUP BY ALL"""
            )
        # A name without a language counts where no name says the same in one.
        self._run(
            """DELETE FROM names AS bare WHERE language = '' AND EXISTS (
                SELECT 1 FROM names AS told WHERE told.language <> ''
                AND told.concept_id = bare.concept_id AND told.normalized = bare.normalized)"""
        )
        said_by = self._db.sql(
            "SELECT code, source, license FROM provenance ORDER BY code"
        ).fetchall()
        combinations = self._db.sql("SELECT DISTINCT codes, codes::VARCHAR FROM names").fetchall()
        rows = []
        for _, bits in combinations:
            present = [row for row, bit in zip(said_by, bits, strict=True) if bit == "1"]
            rows.append(
                (bits, _joined(row[1] for row in present), _joined(row[2] for row in present))
            )
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        names = ("bits", "source", "license")
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._db.register("sayers", pa.table(dict(zip(names, arrays, strict=True))))
        self._run(
            """CREATE TABLE homonyms AS SELECT normalized, count(DISTINCT concept_id) AS concepts
            FROM names GROUP BY normalized HAVING concepts > 1"""
        )

    def _merge_facts(self) -> None:
        """Table `concepts`, numbered by `row`: one for each concept that has a name; view `aliases`: the names of these."""
        self._run(
            """CREATE TABLE best AS
            SELECT concept_id, arg_min(text, {
                'foreign': NOT (language = '' OR language = 'en' OR starts_with(language, 'en-')),
                'origin': origin, 'kind': kind, 'rank': -rank, 'place': place}) AS preferred_name
            FROM said GROUP BY concept_id"""
        )
        self._run(
            """CREATE VIEW facts AS
            SELECT coalesce(identity.canonical, concept_id) AS concept_id, * EXCLUDE (concept_id, id, canonical)
            FROM staged_facts LEFT JOIN identity ON identity.id = concept_id"""
        )
        self._run(
            """CREATE TABLE links AS
            SELECT concept_id, what, list(id ORDER BY id) AS ids FROM (
                SELECT concept_id, 'xrefs' AS what, unnest(xrefs) AS id FROM facts
                UNION SELECT concept_id, 'alt_ids', unnest(alt_ids) FROM facts
                UNION SELECT canonical, 'alt_ids', id FROM identity
                UNION SELECT child, 'parents', coalesce(identity.canonical, parent) FROM (
                    SELECT concept_id AS child, unnest(parents) AS parent FROM facts
                ) LEFT JOIN identity ON identity.id = parent
            )
            WHERE id <> concept_id AND (what <> 'parents' OR id IN (SELECT concept_id FROM best))
            GROUP BY concept_id, what"""
        )
        self._run(
            """CREATE TABLE types AS SELECT concept_id, arg_min(types, origin) AS semantic_types FROM (
                SELECT concept_id, origin, list(DISTINCT type ORDER BY type) AS types
                FROM (SELECT concept_id, origin, unnest(semantic_types) AS type FROM facts) GROUP BY ALL
            ) GROUP BY concept_id"""
        )
        self._run(
            """CREATE TABLE told AS SELECT concept_id, max(popularity) AS popularity,
                arg_min(definition, place) FILTER (definition <> '') AS definition
            FROM facts GROUP BY concept_id"""
        )
        lists = ", ".join(f"coalesce({n}.ids, []) AS {n}" for n in ("xrefs", "alt_ids", "parents"))
        joins = " ".join(
            f"LEFT JOIN (SELECT concept_id, ids FROM links WHERE what = '{n}') AS {n} USING (concept_id)"
            for n in ("xrefs", "alt_ids", "parents")
        )
        self._run(
            f"""CREATE TABLE concepts AS
            SELECT row_number() OVER (ORDER BY concept_id) - 1 AS row, concept_id, preferred_name,
                coalesce(semantic_types, []) AS semantic_types, coalesce(definition, '') AS definition,
                {lists}, coalesce(popularity, 0) AS popularity
            FROM best LEFT JOIN types USING (concept_id) LEFT JOIN told USING (concept_id) {joins}"""
        )
        self._run(
            f"""CREATE VIEW aliases AS
            SELECT concepts.row AS concept, text, normalized, language,
                {list(ALIAS_KINDS)!r}[names.kind] AS kind, names.kind AS kind_order, sayers.source, sayers.license,
                disambiguation, coalesce(homonyms.concepts - 1, 0) AS homonyms
            FROM names JOIN concepts USING (concept_id) JOIN sayers ON sayers.bits = codes::VARCHAR
                LEFT JOIN homonyms USING (normalized)"""
        )

    def _write(self, path: Path, schema: pa.Schema, view: str, order: str) -> None:
        """A view in order as Parquet, in row groups of fixed size."""
        columns = ", ".join(field.name for field in schema)
        reader = self._db.sql(f"SELECT {columns} FROM {view} ORDER BY {order}").to_arrow_reader(
            _ROW_GROUP
        )
        temporary = path.with_suffix(".new")
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in _regrouped(reader, schema):
                writer.write_table(table)
        temporary.replace(path)

    def _report(
        self, directory: Path, conflicts: list[tuple[str, str, str, str]]
    ) -> dict[str, Any]:
        def counts(column: str) -> dict[str, int]:
            """Aliases of each value; where several are joined, each counts."""
            rows = self._db.sql(
                f"SELECT value, count(*) AS n FROM (SELECT unnest(string_split({column}, '|')) AS value FROM aliases) "
                "GROUP BY value ORDER BY n DESC, value"
            ).fetchall()
            return dict(rows)

        shared = self._db.sql(
            f"SELECT normalized, concepts FROM homonyms ORDER BY concepts DESC, normalized LIMIT {_EXAMPLES}"
        ).fetchall()
        (homonyms,) = self._row("SELECT count(*) FROM homonyms")
        (concepts,) = self._row("SELECT count(*) FROM concepts")
        (aliases,) = self._row("SELECT count(*) FROM names")
        (merged,) = self._row("SELECT count(*) FROM identity")
        return {
            "concepts": concepts,
            "aliases": aliases,
            "languages": counts("language"),
            "sources": counts("source"),
            "licenses": counts("license"),
            "source_licenses": self._source_licenses(),
            "versions": {
                k: v for staged in self._sources for k, v in staged.source.versions().items()
            },
            "homonyms": {"names": homonyms, "examples": dict(shared)},
            "merged_ids": merged,
            "conflicts": {
                "mappings": len(conflicts),
                "examples": [
                    f"{one} = {other} would join {a} and {b}"
                    for one, other, a, b in conflicts[:_EXAMPLES]
                ],
            },
            "rejected": self._rejected(directory),
        }

    def _source_licenses(self) -> dict[str, list[str]]:
        """The licences that each source's names came under."""
        found: dict[str, set[str]] = {}
        for source, license in self._db.sql("SELECT source, license FROM provenance").fetchall():
            for one in filter(None, source.split("|")):
                found.setdefault(one, set()).update(filter(None, license.split("|")))
        return {source: sorted(found[source]) for source in sorted(found)}

    def _rejected(self, directory: Path) -> dict[str, Any]:
        """Rows and names set aside, by reason, with the first examples; all go into a file."""
        counts = sum((staged.counts() for staged in self._sources), Counter[str]())
        examples: dict[str, list[str]] = {reason: [] for reason in sorted(counts)}
        paths = [path for staged in self._sources for path in staged.files("rejected")]
        with (directory / REJECTED_FILE).open("w", encoding="utf-8") as out:
            for path in paths:
                with path.open(encoding="utf-8") as lines:
                    for line in lines:
                        out.write(line)
                        row = json.loads(line)
                        if len(examples[row["reason"]]) < _EXAMPLES:
                            examples[row["reason"]].append(f"{row['where']}: {row['row']}")
        return {r: {"rows": counts[r], "examples": told} for r, told in examples.items()}

    def _run(self, sql: str) -> None:
        self._db.execute(sql)

    def _row(self, sql: str) -> tuple[Any, ...]:
        (row,) = self._db.sql(sql).fetchall()
        return tuple(row)


def _joined(values: Iterable[str]) -> str:
    """Sorted distinct non-empty parts joined with `|`; a value may itself be joined."""
    return "|".join(sorted({part for value in values for part in value.split("|") if part}))


def _regrouped(reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of exactly _ROW_GROUP rows (but the last), whatever the batches were."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        while batch.num_rows:
            part = batch.slice(0, _ROW_GROUP - rows)
            held.append(part)
            rows += part.num_rows
            batch = batch.slice(part.num_rows)
            if rows == _ROW_GROUP:
                yield _as(held, schema)
                held, rows = [], 0
    if held:
        yield _as(held, schema)


def _as(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_batches(batches)
    return pa.Table.from_arrays(
        [table[field.name].cast(field.type) for field in schema], schema=schema
    )
