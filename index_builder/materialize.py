"""Tables and vectors to a served index: a new generation, then the manifest that puts it into service.

Everything is written beside the generation in service and renamed at the end; readers of the old
generation go on. One older generation is kept; those before it are removed.
"""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import lancedb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from lancedb.index import IvfRq

from bioelx_mcp import __version__
from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import BioelxError
from bioelx_mcp.lexicon import Lexicon, write_lexicon
from bioelx_mcp.manifest import (
    ALIASES_SCHEMA,
    ALIASES_TABLE,
    CONCEPTS_TABLE,
    KEY_FIELD,
    EncoderCard,
    IndexLayout,
    Manifest,
    Probe,
    SourceCard,
    alias_key,
    encoder_checksum,
    read_manifest,
    vector_field,
    write_manifest,
)
from index_builder.config import BuildLayout, IndexConfig
from index_builder.embed import read_vectors
from index_builder.tables import ALIASES_FILE, CONCEPTS_FILE, REPORT_FILE

RQ_BITS = 5
RQ_PARTITION_ROWS = 4096
RQ_PROBED = 0.5  # share of the partitions that a search looks into; benchmarks/LOG.md
RQ_MOST_PROBES = 400
_PROBES = 4


def materialize_index(
    build: BuildLayout,
    encoder_directory: Path,
    layout: IndexLayout,
    config: IndexConfig,
    *,
    name: str,
    index_id: str,
) -> Manifest:
    """Write generation `index_id` and put it into service; its manifest comes back."""
    concepts = pq.read_table(build.tables / CONCEPTS_FILE)
    aliases = pq.read_table(build.tables / ALIASES_FILE)
    report = json.loads((build.tables / REPORT_FILE).read_text(encoding="utf-8"))
    encoder = OnnxEncoder(encoder_directory)
    dense = config.dense_index
    if dense == "auto":
        dense = "exact" if aliases.num_rows < config.exact_below else "ivf_rq"

    fresh = layout.generations / f".new-{index_id}-{os.getpid()}"
    for leftover in layout.generations.glob(f".new-{index_id}-*"):
        shutil.rmtree(leftover)
    shutil.copytree(encoder_directory, fresh / "encoder")
    database = lancedb.connect(fresh / "tables")
    database.create_table(CONCEPTS_TABLE, concepts)
    schema = pa.schema([*ALIASES_SCHEMA, KEY_FIELD, vector_field(encoder.dimension)])
    batches = pa.RecordBatchReader.from_batches(schema, _rows(aliases, build.vectors, schema))
    table = database.create_table(ALIASES_TABLE, batches)
    write_lexicon(_normalized(aliases), fresh / "lexicon")
    nprobes = 0
    if dense == "ivf_rq":
        partitions = max(1, aliases.num_rows // RQ_PARTITION_ROWS)
        nprobes = min(max(1, round(RQ_PROBED * partitions)), RQ_MOST_PROBES)
        table.create_index(
            "vector",
            config=IvfRq(distance_type="cosine", num_partitions=partitions, num_bits=RQ_BITS),
        )
    manifest = Manifest(
        index_id=index_id,
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        builder=f"bioelx-mcp {__version__}",
        concepts=concepts.num_rows,
        aliases=aliases.num_rows,
        languages=report["languages"],
        sources=tuple(
            SourceCard(name=name, aliases=count, licenses=report["source_licenses"].get(name, ()))
            for name, count in report["sources"].items()
        ),
        encoder=EncoderCard(
            name=encoder.config.name,
            dimension=encoder.dimension,
            checksum=encoder_checksum(fresh / "encoder"),
        ),
        dense_index=dense,
        nprobes=nprobes,
        probes=_probes(aliases, encoder),
    )
    generation = layout.generation(index_id)
    if generation.exists():
        shutil.rmtree(generation)
    fresh.rename(generation)
    served = _served(layout)
    write_manifest(layout, manifest)
    for old in layout.generations.iterdir():
        if old.name not in (index_id, served):
            shutil.rmtree(old, ignore_errors=True)
    return manifest


def read_whole_manifest(layout: IndexLayout) -> Manifest | None:
    """The manifest in service; None where there is none, or its generation lacks what it promises."""
    try:
        manifest = read_manifest(layout)
        database = lancedb.connect(layout.tables(manifest.index_id))
        rows = [database.open_table(name).count_rows() for name in (CONCEPTS_TABLE, ALIASES_TABLE)]
        rows.append(Lexicon(layout.lexicon(manifest.index_id)).size)
        checksum = encoder_checksum(layout.encoder(manifest.index_id))
    except Exception:  # lancedb and tantivy raise many classes; the mend is the same
        return None
    promised = ([manifest.concepts, manifest.aliases, manifest.aliases], manifest.encoder.checksum)
    return manifest if (rows, checksum) == promised else None


def _served(layout: IndexLayout) -> str | None:
    try:
        return read_manifest(layout).index_id
    except BioelxError:
        return None


def _normalized(aliases: pa.Table) -> Iterator[str]:
    for batch in aliases.select(["normalized"]).to_batches():
        yield from batch.column(0).to_pylist()


def _rows(aliases: pa.Table, vectors: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    start = 0
    for shard in read_vectors(vectors):
        part = aliases.slice(start, len(shard)).combine_chunks()
        normalized = part["normalized"].to_pylist()
        keys = pa.array([alias_key(text) for text in normalized], pa.int64())
        columns = [part[field.name].combine_chunks() for field in ALIASES_SCHEMA]
        yield pa.record_batch([*columns, keys, shard], schema=schema)
        start += len(shard)


def _probes(aliases: pa.Table, encoder: OnnxEncoder) -> tuple[Probe, ...]:
    """A few aliases spread over the table, with the vectors a reader's own encoder must give."""
    rows = sorted({i * (aliases.num_rows - 1) // (_PROBES - 1) for i in range(_PROBES)})
    texts = pc.take(aliases["text"], pa.array(rows)).to_pylist()
    vectors = encoder.encode(texts)
    return tuple(
        Probe(text=text, vector=tuple(round(float(x), 5) for x in vector))
        for text, vector in zip(texts, vectors, strict=True)
    )
