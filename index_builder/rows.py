"""The memory-mapped files of a generation (`manifest.py` has their columns): written once, in one batch each.

A reader pays for the pages that it touches, readers of one machine share them, and opening costs nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bioelx_mcp.manifest import CONCEPTS_SCHEMA, FACETS_SCHEMA, IDS_SCHEMA, ROWS_SCHEMA, alias_key

_WORLD = 50  # languages, or Wikipedia pages, that make a concept known everywhere


def write_rows(
    concepts: pa.Table,
    aliases: pa.Table,
    facet: NDArray[np.int32],
    grams: NDArray[np.float32],
    row_ids: NDArray[np.uint64],
    directory: Path,
) -> None:
    """Write aliases.arrow, concepts.arrow and ids.arrow.

    In the order of the aliases: `grams` are the weights of their grams, `row_ids` Lance's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    keys = np.fromiter(map(alias_key, strings(aliases["normalized"])), np.int64, len(aliases))
    order = np.argsort(keys, kind="stable").astype(np.int32)
    columns = {
        "concept": aliases["concept"],
        "text": aliases["text"],
        "normalized": aliases["normalized"],
        **{name: _named(aliases[name]) for name in ("language", "kind", "source")},
        "facet": facet,
        "grams": grams,
        "renown": _renown(concepts, aliases),
        "row_id": row_ids,
        "key": keys[order],
        "key_row": order,
    }
    _write(pa.table(columns, schema=ROWS_SCHEMA), directory / "aliases.arrow")
    _write(concepts.cast(CONCEPTS_SCHEMA), directory / "concepts.arrow")
    _write(_ids(concepts), directory / "ids.arrow")


def write_facets(concepts: pa.Table, aliases: pa.Table, directory: Path) -> NDArray[np.int32]:
    """Write facets.arrow; the facet of each alias comes back, int32 (aliases,)."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = concepts["concept_id"]
    prefix = pc.list_element(pc.split_pattern(ids, ":", max_splits=1), 0)
    types = pc.binary_join(concepts["semantic_types"], "\0")
    kinds = _named(pc.binary_join_element_wise(prefix, types, "\0"))
    of_concept = kinds.indices.to_numpy()[aliases["concept"].to_numpy()].astype(np.int64)
    language, source = _named(aliases["language"]), _named(aliases["source"])
    code = of_concept * len(language.dictionary) + language.indices.to_numpy()
    code = code * len(source.dictionary) + source.indices.to_numpy()
    _, first, facet = np.unique(code, return_index=True, return_inverse=True)
    told = [text.split("\0") for text in kinds.dictionary.take(of_concept[first]).to_pylist()]
    columns = {
        "language": language.take(first).dictionary_decode(),
        "source": source.take(first).dictionary_decode(),
        "prefix": [parts[0] for parts in told],
        "semantic_types": [[name for name in parts[1:] if name] for parts in told],
    }
    _write(pa.table(columns, schema=FACETS_SCHEMA), directory / "facets.arrow")
    return np.asarray(facet, dtype=np.int32)


def _renown(concepts: pa.Table, aliases: pa.Table) -> NDArray[np.float32]:
    """Float32 (aliases,) in [0, 1]: how widely an alias's concept is known, by its languages or Wikipedia pages."""
    spoken = aliases.group_by("concept").aggregate([("language", "count_distinct")])
    widely = np.array(concepts["popularity"], dtype=np.float64)
    rows = spoken["concept"].to_numpy()
    widely[rows] = np.maximum(widely[rows], spoken["language_count_distinct"].to_numpy())
    known: NDArray[np.float32] = np.minimum(np.log1p(widely) / np.log1p(_WORLD), 1.0).astype(
        np.float32
    )
    of_alias: NDArray[np.float32] = known[aliases["concept"].to_numpy()]
    return of_alias


def _ids(concepts: pa.Table) -> pa.Table:
    """Each id and alternative id once: a concept's own id goes first, then the first concept that claims it."""
    own = concepts["concept_id"].to_pylist()
    rows = {one: row for row, one in enumerate(own)}
    for row, others in enumerate(concepts["alt_ids"].to_pylist()):
        for other in others:
            rows.setdefault(other, row)
    keys = np.fromiter(map(alias_key, rows), np.int64, len(rows))
    order = np.argsort(keys, kind="stable")
    concept = np.fromiter(rows.values(), np.int32, len(rows))[order]
    return pa.table({"key": keys[order], "concept": concept}, schema=IDS_SCHEMA)


def _named(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.combine_chunks().dictionary_encode()


def strings(column: pa.ChunkedArray) -> Iterator[str]:
    """The texts of a column, one chunk in memory at a time."""
    return (text for chunk in column.iterchunks() for text in chunk.to_pylist())


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
