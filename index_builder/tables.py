"""Sources to two tables: concepts and aliases, merged, deduplicated, sorted; bad rows set aside.

    tables/concepts.parquet   manifest.CONCEPTS_SCHEMA, sorted by concept_id
    tables/aliases.parquet    manifest.ALIASES_SCHEMA, sorted by concept, kind, language, text
    tables/report.json        counts by source, language, licence; rejected rows by reason, with examples
Equal inputs give equal files. Of aliases that are equal but for spelling the first source's stays.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bioelx_mcp.errors import UsageError
from bioelx_mcp.manifest import ALIASES_SCHEMA, CONCEPTS_SCHEMA, write_atomically
from bioelx_mcp.schema import ALIAS_KINDS, Concept
from bioelx_mcp.text import MAX_NAME_LENGTH, normalize_alias, normalize_concept_id
from index_builder.sources import Rejects, Source

CONCEPTS_FILE = "concepts.parquet"
ALIASES_FILE = "aliases.parquet"
REPORT_FILE = "report.json"
_CHUNK = 200_000
_COLUMNS = ("concept_id", "text", "normalized", "language", "kind", "source", "license")
_NO_TEXT = "name without a letter or digit"


class _Aliases:
    """Aliases in order of arrival, packed into Arrow as they come."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, ...]] = []
        self._chunks: list[pa.Table] = []

    def add(self, *row: str) -> None:
        self._rows.append(row)
        if len(self._rows) >= _CHUNK:
            self._pack()

    def _pack(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(_COLUMNS)
        self._chunks.append(
            pa.table({n: pa.array(c, pa.string()) for n, c in zip(_COLUMNS, columns, strict=True)})
        )
        self._rows = []

    def table(self) -> pa.Table:
        self._pack()
        return pa.concat_tables(self._chunks)


def build_tables(sources: Sequence[Source], directory: Path) -> dict[str, Any]:
    """Read every source and write the two tables and the report; the report is returned.

    Raises:
        UsageError: a source cannot be read, or no alias is left.
    """
    rejects = Rejects()
    concepts: dict[str, Concept] = {}
    aliases = _Aliases()
    for source in sources:
        _read(source, concepts, aliases, rejects)
    merged = _merge(aliases.table())
    if merged.num_rows == 0:
        paths = ", ".join(str(source.path) for source in sources)
        raise UsageError(
            f"no alias is left of {paths}; rejected: {dict(rejects.counts) or 'nothing'}"
        )
    concept_table = _concept_table(concepts, merged)
    ids = concept_table["concept_id"].combine_chunks()
    alias_table = pa.table(
        [
            pc.index_in(merged["concept_id"], ids),
            *(merged[field.name] for field in list(ALIASES_SCHEMA)[1:]),
        ],
        schema=ALIASES_SCHEMA,
    )
    report = _report(alias_table, concept_table, rejects)
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(concept_table, directory / CONCEPTS_FILE, compression="zstd")
    pq.write_table(alias_table, directory / ALIASES_FILE, compression="zstd")
    write_atomically(
        directory / REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    )
    return report


def _read(
    source: Source, concepts: dict[str, Concept], aliases: _Aliases, rejects: Rejects
) -> None:
    origin = str(source.path)
    for record in source.read(rejects):
        concept_id = normalize_concept_id(record.concept_id)
        if concept_id is None:
            rejects.add("concept_id is no CURIE", origin, record.concept_id)
        elif isinstance(record, Concept):
            record = replace(
                record,
                concept_id=concept_id,
                preferred_name=" ".join(record.preferred_name.split()),
            )
            known = concepts.get(concept_id)
            concepts[concept_id] = _join(known, record) if known else record
            if record.preferred_name:
                preferred = (record.preferred_name, "", "preferred", source.label, source.license)
                _add(aliases, rejects, origin, concept_id, *preferred)
        else:
            text = " ".join(record.text.split())
            told = (text, record.language, record.kind, record.source, record.license)
            _add(aliases, rejects, origin, concept_id, *told)


def _add(
    aliases: _Aliases, rejects: Rejects, origin: str, concept_id: str, text: str, *rest: str
) -> None:
    """Keep an alias, or set it aside with the reason."""
    if len(text) > MAX_NAME_LENGTH:
        rejects.add(f"name over {MAX_NAME_LENGTH} characters", origin, [concept_id, text])
    elif normalized := normalize_alias(text):
        aliases.add(concept_id, text, normalized, *rest)
    else:
        rejects.add(_NO_TEXT, origin, [concept_id, text])


def _join(first: Concept, second: Concept) -> Concept:
    """What the first source says stands; the second fills gaps and adds to the lists."""
    return replace(
        first,
        preferred_name=first.preferred_name or second.preferred_name,
        definition=first.definition or second.definition,
        semantic_types=first.semantic_types or second.semantic_types,
        xrefs=tuple(dict.fromkeys(first.xrefs + second.xrefs)),
        alt_ids=tuple(dict.fromkeys(first.alt_ids + second.alt_ids)),
    )


def _merge(rows: pa.Table) -> pa.Table:
    """One row for each (concept, normalised text, language), sorted; sources and licences are joined."""
    kinds = pa.array(ALIAS_KINDS, pa.string())
    texts = rows["text"]
    rows = rows.append_column("order", pa.array(range(rows.num_rows), pa.int64()))
    rows = rows.append_column("rank", pc.index_in(rows["kind"], kinds))
    keys = ["concept_id", "normalized", "language"]
    # A preferred name comes without a language: it counts where no alias says it in one.
    told = pc.not_equal(rows["language"], "")
    said = pc.unique(_pair_keys(rows.filter(told)))
    rows = rows.filter(pc.or_(told, pc.invert(pc.is_in(_pair_keys(rows), said))))
    grouped = rows.group_by(keys, use_threads=False).aggregate(
        [("order", "min"), ("rank", "min"), ("source", "distinct"), ("license", "distinct")]
    )
    merged = grouped.append_column("text", pc.take(texts, grouped["order_min"]))
    merged = merged.append_column("kind", pc.take(kinds, merged["rank_min"]))
    for name in ("source", "license"):
        merged = merged.append_column(name, _joined(merged[f"{name}_distinct"]))
    order = [
        ("concept_id", "ascending"),
        ("rank_min", "ascending"),
        ("language", "ascending"),
        ("text", "ascending"),
    ]
    return merged.sort_by(order).select(_COLUMNS)


def _pair_keys(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows["concept_id"], rows["normalized"], "\t")


def _joined(lists: pa.ChunkedArray) -> pa.Array:
    """Sorted distinct non-empty values joined with `|`; the combinations are few, so each is made once."""
    texts = pc.binary_join(lists, "|").dictionary_encode().combine_chunks()
    clean = [
        "|".join(sorted({part for part in text.split("|") if part}))
        for text in texts.dictionary.to_pylist()
    ]
    return pc.take(pa.array(clean, pa.string()), texts.indices)


def _concept_table(concepts: dict[str, Concept], aliases: pa.Table) -> pa.Table:
    """A row for every concept that has an alias; an undescribed one is named by its best alias."""
    best: dict[str, str] = {}
    for language in ("en", None):
        wanted = (
            aliases if language is None else aliases.filter(pc.equal(aliases["language"], language))
        )
        for concept_id, text in zip(
            wanted["concept_id"].to_pylist(), wanted["text"].to_pylist(), strict=True
        ):
            best.setdefault(concept_id, text)
    rows = []
    for concept_id in sorted(best):
        concept = concepts.get(concept_id) or Concept(concept_id, "")
        rows.append(
            {
                "concept_id": concept_id,
                "preferred_name": concept.preferred_name or best[concept_id],
                "semantic_types": list(concept.semantic_types),
                "definition": concept.definition,
                "xrefs": list(concept.xrefs),
                "alt_ids": [normalize_concept_id(other) or other for other in concept.alt_ids],
            }
        )
    return pa.Table.from_pylist(rows, schema=CONCEPTS_SCHEMA)


def _report(aliases: pa.Table, concepts: pa.Table, rejects: Rejects) -> dict[str, Any]:
    def counts(column: str) -> dict[str, int]:
        totals: dict[str, int] = {}
        for entry in pc.value_counts(aliases[column]).to_pylist():
            for value in entry["values"].split("|"):
                totals[value] = totals.get(value, 0) + entry["counts"]
        return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))

    return {
        "concepts": concepts.num_rows,
        "aliases": aliases.num_rows,
        "languages": counts("language"),
        "sources": counts("source"),
        "licenses": counts("license"),
        "rejected": {
            reason: {"rows": rows, "examples": rejects.examples[reason]}
            for reason, rows in sorted(rejects.counts.items())
        },
    }
