"""One source to shards of clean rows: read in parallel, normalised, and resumed where a killed run stopped.

DIR/00000.aliases.parquet    STAGED_ALIASES, in the order of the input
DIR/00000.concepts.parquet   STAGED_CONCEPTS
DIR/00000.rejected.jsonl     rows set aside: reason, where, row
DIR/00000.json               how far the input is read, and the counts; the last write of a shard
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bioelx_mcp.errors import UsageError
from bioelx_mcp.language import normalize_language, speaks, wanted_languages
from bioelx_mcp.manifest import write_atomically
from bioelx_mcp.schema import ALIAS_KINDS
from bioelx_mcp.text import (
    MAX_NAME_LENGTH,
    normalize_alias,
    normalize_concept_id,
    visible_json,
)
from index_builder.config import Report
from index_builder.sources import RAW_ALIASES, RAW_CONCEPTS, Block, Rejected, Rows, Source

SHARD_ROWS = 250_000  # aliases of a shard, about
SHARD_BLOCKS = 2048  # blocks after which a shard ends, however little was in them
PARALLEL_BYTES = 32 << 20  # below this a source is read by the process itself
MOST_DEFINITION = 20_000  # characters kept; the longest of the open ontologies have some thousand
EXPLICIT_RANK = 2**30  # of the name that a source states as a concept's preferred one

STAGED_ALIASES = pa.schema(
    [
        *(RAW_ALIASES.field(n) for n in ("concept_id", "text")),
        pa.field("normalized", pa.string()),
        *(RAW_ALIASES.field(n) for n in ("language", "kind", "source", "license")),
        *(RAW_ALIASES.field(n) for n in ("disambiguation", "rank")),
        pa.field("row", pa.int64()),  # rises through the source
    ]
)
STAGED_CONCEPTS = pa.schema([*list(RAW_CONCEPTS)[:-1], pa.field("row", pa.int64())])
# Ids that `normalize_concept_id` leaves as they are: most of a large source, and not worth a call each.
_CANONICAL = r"^(UMLS:C[0-9]{7}|(MONDO|DOID|ORPHA|MESH|HP|NCIT|OMIM|SNOMEDCT|CHEBI):[A-Z0-9]+)$"
_NOTHING = (pa.array([], pa.string()), pa.array([], pa.int32()))
_PREFERRED = ("concept_id", "preferred_name", "line")


@dataclass
class Tally:
    """What was read of a source so far. `rows` are those of the input, `names` the aliases they gave."""

    blocks: int = 0
    rows: int = 0
    names: int = 0
    aliases: int = 0  # kept
    concepts: int = 0
    bad_rows: int = 0
    bad_names: int = 0


@dataclass(frozen=True)
class Clean:
    """One block, cleaned: STAGED tables without their last column, and what was set aside."""

    aliases: pa.Table
    concepts: pa.Table
    rejected: list[Rejected]
    counts: Counter[str]
    rows: int
    names: int
    bad_rows: int
    position: int


@dataclass(frozen=True)
class Staged:
    """A source in shards: what `tables.py` merges."""

    source: Source
    directory: Path

    def files(self, what: str) -> list[Path]:
        """The shards of `aliases`, `concepts` or `rejected`, in order."""
        ending = "jsonl" if what == "rejected" else "parquet"
        return sorted(self.directory.glob(f"[0-9]*.{what}.{ending}"))

    def counts(self) -> Counter[str]:
        """Rows and names set aside, by reason."""
        total: Counter[str] = Counter()
        for path in _markers(self.directory):
            total.update(json.loads(path.read_text(encoding="utf-8"))["counts"])
        return total


def stage_source(
    source: Source, directory: Path, *, workers: int, max_rejected: float, report: Report
) -> Staged:
    """Read a source into shards, a large one by `workers` processes (0: one a core); shards that are there stay.

    Raises:
        UsageError: the source cannot be read, or more than `max_rejected` of its rows or names are bad.
    """
    directory.mkdir(parents=True, exist_ok=True)
    staged, size = Staged(source, directory), max(1, source.size)
    markers = _markers(directory)
    tally = Tally(**json.loads(markers[-1].read_text(encoding="utf-8"))["tally"] if markers else {})
    blocks = islice(source.blocks(), tally.blocks, None)
    read = _read_in_parallel if workers != 1 and size >= PARALLEL_BYTES else _read_in_turn
    shard: list[Clean] = []
    for clean in read(source, blocks, workers):
        shard.append(clean)
        report(min(clean.position, size), size, f"{source.label}: {_names(tally, shard):,} names")
        kept = sum(one.aliases.num_rows for one in shard)
        if kept >= SHARD_ROWS or len(shard) >= SHARD_BLOCKS:
            tally = _write_shard(directory, shard, tally)
            shard = []
    if shard:
        tally = _write_shard(directory, shard, tally)
    _check_share(staged, tally, max_rejected)
    return staged


def read_clean(source: Source, block: Block) -> Clean:
    """One block read and cleaned: runs in any process."""
    rows = source.read(block)
    bad_rows = rows.counts.total()
    raw = rows.concepts()
    concepts = _clean_concepts(raw, source, rows)
    bad_rows += raw.num_rows - concepts.num_rows
    names = pa.concat_tables([rows.aliases(), _preferred_names(raw, source)])
    aliases = _clean_aliases(names, source, rows)
    return Clean(
        aliases,
        concepts,
        rows.rejected,
        rows.counts,
        rows.read,
        len(names),
        bad_rows,
        block.position,
    )


def _read_in_turn(source: Source, blocks: Iterator[Block], workers: int) -> Iterator[Clean]:
    return (read_clean(source, block) for block in blocks)


def _read_in_parallel(source: Source, blocks: Iterator[Block], workers: int) -> Iterator[Clean]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    # Batches are of one block and few are on their way, so that memory stays bounded.
    run = Parallel(
        n_jobs=workers or -1, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1
    )
    try:
        yield from run(delayed(read_clean)(source, block) for block in blocks)
    finally:
        get_reusable_executor().shutdown(wait=True)  # their memory is wanted by what comes next


def _preferred_names(concepts: pa.Table, source: Source) -> pa.Table:
    """The preferred names that concept rows state, as aliases without a language."""
    told = concepts.select(_PREFERRED).filter(pc.not_equal(concepts["preferred_name"], ""))
    rows = Rows("", source.label, source.license)
    rows.add_aliases(
        told.rename_columns(["concept_id", "text", "line"])
        .append_column("kind", pa.repeat("preferred", told.num_rows))
        .append_column("rank", pa.repeat(pa.scalar(EXPLICIT_RANK, pa.int32()), told.num_rows))
    )
    return rows.aliases()


def _clean_aliases(raw: pa.Table, source: Source, rows: Rows) -> pa.Table:
    """Aliases with canonical ids and languages and normalised texts; the others are set aside."""
    ids = _map_distinct(raw["concept_id"], normalize_concept_id, _CANONICAL)
    tags = _map_distinct(raw["language"], normalize_language)
    texts = _map_distinct(raw["text"], lambda text: " ".join(text.split()))
    normalized = _map_distinct(texts, normalize_alias)
    long = pc.greater(pc.utf8_length(texts), MAX_NAME_LENGTH)
    unusable = {
        "concept_id is no CURIE": (pc.is_null(ids), raw["concept_id"]),
        "language is no BCP-47 tag": (pc.is_null(tags), raw["language"]),
        f"name over {MAX_NAME_LENGTH} characters": (long, texts),
        "name without a letter or digit": (pc.equal(normalized, ""), texts),
    }
    good = pa.array(np.ones(raw.num_rows, dtype=bool))
    for reason, (bad, shown) in unusable.items():
        hit = pc.and_(good, bad.combine_chunks() if isinstance(bad, pa.ChunkedArray) else bad)
        if pc.any(hit).as_py():
            at = np.flatnonzero(hit.to_numpy(zero_copy_only=False))
            for i in at.tolist():
                row = [raw["concept_id"][i].as_py(), shown[i].as_py()]
                rows.set_aside(reason, raw["line"][i].as_py(), row)
            good = pc.and_not(good, hit)
    if wanted := wanted_languages(source.languages):
        keep = _map_distinct(tags, lambda tag: "1" if not tag or speaks(tag, wanted) else "")
        good = pc.and_(good, pc.equal(keep, "1").combine_chunks())
    kinds = pc.is_in(raw["kind"], pa.array(ALIAS_KINDS))
    columns = {
        "concept_id": ids,
        "text": texts,
        "normalized": normalized,
        "language": tags,
        "kind": pc.if_else(kinds, raw["kind"], "synonym"),
        **{name: raw[name] for name in ("source", "license", "disambiguation", "rank")},
    }
    return pa.table(columns, schema=pa.schema(list(STAGED_ALIASES)[:-1])).filter(good)


def _clean_concepts(raw: pa.Table, source: Source, rows: Rows) -> pa.Table:
    """Concepts with canonical ids; what says of itself that it is exact by `exact_xrefs` is added there."""
    ids = _map_distinct(raw["concept_id"], normalize_concept_id, _CANONICAL)
    bad = pc.is_null(ids).combine_chunks()
    for i in np.flatnonzero(bad.to_numpy(zero_copy_only=False)).tolist():
        row = raw["concept_id"][i].as_py()
        rows.set_aside("concept_id is no CURIE", raw["line"][i].as_py(), row)

    def known(column: str, otherwise: Callable[[str], str | None]) -> pa.Array:
        return _map_lists(
            raw[column], lambda other: normalize_concept_id(other) or otherwise(other)
        )

    xrefs = known("xrefs", lambda other: other)
    exact = known("exact", lambda other: None)
    for prefix in source.exact_xrefs:
        same = _map_lists(xrefs, partial(_starting, f"{prefix}:"))
        alone = pc.equal(pc.list_value_length(same), 1)  # of several none can be the very same
        exact = _joined_lists(exact, pc.if_else(alone, same, _lists(*_NOTHING, len(same))))
    columns = {
        "concept_id": ids,
        "preferred_name": _map_distinct(raw["preferred_name"], lambda name: " ".join(name.split())),
        "semantic_types": raw["semantic_types"],
        "definition": pc.utf8_slice_codeunits(raw["definition"], 0, MOST_DEFINITION),
        "xrefs": xrefs,
        "alt_ids": known("alt_ids", lambda other: other),
        "exact": exact,
        "parents": known("parents", lambda other: None),
        "popularity": raw["popularity"],
    }
    return pa.table(columns, schema=pa.schema(list(STAGED_CONCEPTS)[:-1])).filter(pc.invert(bad))


def _starting(prefix: str, text: str) -> str | None:
    return text if text.startswith(prefix) else None


def _map_distinct(
    column: pa.ChunkedArray, function: Callable[[str], str | None], unchanged: str = ""
) -> pa.ChunkedArray:
    """A function of each text, called once for each distinct one; not for what matches `unchanged`."""
    coded = column.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):  # of no chunk
        return column
    values = coded.dictionary
    if unchanged:
        open_ = pc.invert(pc.match_substring_regex(values, unchanged))
        made = [function(value) for value in values.filter(open_).to_pylist()]
        values = pc.replace_with_mask(values, open_, pa.array(made, pa.string()))
    else:
        values = pa.array([function(value) for value in values.to_pylist()], pa.string())
    return pa.chunked_array([values.take(coded.indices)])


def _map_lists(
    column: pa.ChunkedArray | pa.ListArray,
    function: Callable[[str], str | None],
    unchanged: str = "",
) -> pa.ListArray:
    """A function of each text in lists of texts; where it says None the text is left out."""
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = pa.chunked_array([lists.flatten()])
    values = _map_distinct(flat, function, unchanged).combine_chunks()
    parents = pc.list_parent_indices(lists)
    kept = pc.is_valid(values)
    return _lists(values.filter(kept), parents.filter(kept), len(lists))


def _lists(values: pa.Array, parents: pa.Array, count: int) -> pa.ListArray:
    sizes = np.bincount(parents.to_numpy(), minlength=count)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _joined_lists(first: pa.ListArray, second: pa.ListArray) -> pa.ListArray:
    """Lists of the same length with the values of both, row by row."""
    values = pa.concat_arrays([first.flatten(), second.flatten()])
    parents = np.concatenate([pc.list_parent_indices(a).to_numpy() for a in (first, second)])
    order = np.argsort(parents, kind="stable")
    return _lists(values.take(pa.array(order)), pa.array(parents[order]), len(first))


def _markers(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9]*[0-9].json"))


def _names(tally: Tally, shard: list[Clean]) -> int:
    return tally.names + sum(clean.names for clean in shard)


def _write_shard(directory: Path, shard: list[Clean], before: Tally) -> Tally:
    """Write a shard, its marker last; the tally up to its end."""
    number = f"{len(_markers(directory)):05d}"
    counts = sum((clean.counts for clean in shard), Counter[str]())
    after = Tally(
        blocks=before.blocks + len(shard),
        rows=before.rows + sum(clean.rows for clean in shard),
        names=_names(before, shard),
        aliases=before.aliases,
        concepts=before.concepts,
        bad_rows=before.bad_rows + (bad := sum(clean.bad_rows for clean in shard)),
        bad_names=before.bad_names + counts.total() - bad,
    )
    for what, start in (("aliases", before.aliases), ("concepts", before.concepts)):
        table = pa.concat_tables([getattr(clean, what) for clean in shard])
        rows = pa.array(np.arange(start, start + table.num_rows))
        setattr(after, what, start + table.num_rows)
        _write_parquet(table.append_column("row", rows), directory / f"{number}.{what}.parquet")
    rejected = [visible_json(asdict(one)) for c in shard for one in c.rejected]
    write_atomically(directory / f"{number}.rejected.jsonl", "".join(f"{r}\n" for r in rejected))
    marker = {"tally": asdict(after), "counts": dict(counts)}
    write_atomically(directory / f"{number}.json", visible_json(marker))
    return after


def _write_parquet(table: pa.Table, path: Path) -> None:
    temporary = path.with_suffix(".new")
    pq.write_table(table, temporary, compression="lz4", use_dictionary=["source", "license"])
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _check_share(staged: Staged, tally: Tally, most: float) -> None:
    for bad, of, what in (
        (tally.bad_rows, tally.rows, "rows"),
        (tally.bad_names, tally.names, "names"),
    ):
        if bad > most * of:
            path = next(p for p in staged.files("rejected") if p.stat().st_size)
            first = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
            raise UsageError(
                f"source {staged.source.path}: {bad:,} of {of:,} {what} cannot be used, more than "
                f"max_rejected = {most:g}; the first is {first['where']}: {first['reason']}: {first['row']}; "
                f"all are in {staged.directory}/*.rejected.jsonl: mend the input, or raise max_rejected"
            )
