"""Tables and vectors to a served index: a new generation, then the manifest that puts it into service.

Everything is written beside the generation in service and renamed at the end; readers of the old
generation go on. One older generation is kept; those before it are removed.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from lancedb.index import Bitmap, IvfRq
from numpy.typing import NDArray

from bioelx_mcp import __version__
from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import BioelxError, InvalidArtifactError
from bioelx_mcp.generations import check_files, remove_generations
from bioelx_mcp.lexicon import write_lexicon
from bioelx_mcp.manifest import (
    ALIASES_SCHEMA,
    ALIASES_TABLE,
    CONCEPTS_TABLE,
    FACET_FIELD,
    EncoderCard,
    IndexLayout,
    Manifest,
    Probe,
    SourceCard,
    encoder_checksum,
    read_manifest,
    render_manifest,
    vector_field,
    write_manifest,
)
from index_builder.config import BuildLayout, IndexConfig
from index_builder.embed import check_vectors, read_slice, read_vectors
from index_builder.engines import FRAGMENT_ROWS, Engine
from index_builder.engines.local import LOCAL
from index_builder.rows import strings, write_facets, write_rows
from index_builder.tables import ALIASES_FILE, CONCEPTS_FILE, REPORT_FILE

_PARTITION_ROWS = 4096
# Share of the partitions that a search looks into, and how many at least; benchmarks/LOG.md.
_PROBED, _LEAST_PROBED = 0.65, 48
_PROBES = 4


@dataclass(frozen=True)
class DensePlan:
    """How vectors are searched: the index, bits of a number, partitions, and how many of them a search looks into."""

    index: str
    bits: int = 0
    partitions: int = 0
    nprobes: int = 0


def plan_dense(aliases: int, config: IndexConfig) -> DensePlan:
    """The dense index for so many aliases, unless the configuration says otherwise.

    Vectors lie in the table as float16. Measured in benchmarks/LOG.md:

    aliases               index    precision       partitions      looked into
    below exact_below     exact    float32         -               all
    above                 ivf_rq   6 bits          aliases / 4096  0.65 of them, at least 48
    """
    index = config.dense_index
    if index == "auto":
        index = "exact" if aliases < config.exact_below else "ivf_rq"
    if index == "exact":
        return DensePlan(index)
    partitions = config.partitions or max(1, aliases // _PARTITION_ROWS)
    nprobes = config.nprobes or max(_LEAST_PROBED, round(_PROBED * partitions))
    return DensePlan(index, config.bits, partitions, min(nprobes, partitions))


def materialize_index(
    build: BuildLayout,
    encoder_directory: Path,
    layout: IndexLayout,
    config: IndexConfig,
    *,
    name: str,
    index_id: str,
    engine: Engine = LOCAL,
) -> Manifest:
    """Write generation `index_id` and put it into service; its manifest comes back.

    Raises:
        InvalidArtifactError: the shards of vectors are broken, or rows got lost on the way to the table.
    """
    concepts = pq.read_table(build.tables / CONCEPTS_FILE)
    aliases = pq.read_table(build.tables / ALIASES_FILE)
    report = json.loads((build.tables / REPORT_FILE).read_text(encoding="utf-8"))
    encoder = OnnxEncoder(encoder_directory)
    check_vectors(build.vectors, aliases.num_rows)
    plan = plan_dense(aliases.num_rows, config)

    fresh = layout.generations / f".new-{index_id}-{os.getpid()}"
    for leftover in layout.generations.glob(".new-*"):
        shutil.rmtree(leftover)
    shutil.copytree(encoder_directory, fresh / "encoder")
    facet = write_facets(concepts, aliases, fresh / "rows")
    database = lancedb.connect(fresh / "tables")
    database.create_table(CONCEPTS_TABLE, concepts)
    row_ids = _write_aliases(build, aliases, facet, fresh / "tables", encoder.dimension, engine)
    table = database.open_table(ALIASES_TABLE)
    grams = write_lexicon(strings(aliases["normalized"]), fresh / "lexicon", facet.tolist())
    write_rows(concepts, aliases, facet, grams, row_ids, fresh / "rows")
    if plan.index == "ivf_rq":
        table.create_index(FACET_FIELD.name, config=Bitmap())
        table.create_index(
            "vector",
            config=IvfRq(
                distance_type="cosine", num_partitions=plan.partitions, num_bits=plan.bits
            ),
        )
    manifest = Manifest(
        index_id=index_id,
        name=name,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
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
        dense_index=plan.index,
        bits=plan.bits,
        partitions=plan.partitions,
        nprobes=plan.nprobes,
        files={
            path.relative_to(fresh).as_posix(): path.stat().st_size
            for path in sorted(fresh.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        },
        probes=_probes(aliases, encoder),
    )
    (fresh / "manifest.json").write_text(render_manifest(manifest), encoding="utf-8")
    generation = layout.generation(index_id)
    if generation.exists():
        shutil.rmtree(generation)
    fresh.rename(generation)
    serve_generation(layout, manifest, config)
    return manifest


def serve_generation(layout: IndexLayout, manifest: Manifest, config: IndexConfig) -> None:
    """Put a whole generation into service, and remove those that are too old."""
    before = _served(layout)
    write_manifest(layout, manifest)
    remove_generations(layout, config.keep, before)


def read_whole_manifest(layout: IndexLayout, index_id: str | None = None) -> Manifest | None:
    """The manifest in service, or of a generation; None where there is none or it lacks what it promises."""
    try:
        manifest = read_manifest(layout, index_id)
        check_files(layout, manifest)
        checksum = encoder_checksum(layout.encoder(manifest.index_id))
    except BioelxError:
        return None
    return manifest if checksum == manifest.encoder.checksum else None


def _served(layout: IndexLayout) -> str | None:
    try:
        return read_manifest(layout).index_id
    except BioelxError:
        return None


def _write_aliases(
    build: BuildLayout,
    aliases: pa.Table,
    facet: NDArray[np.int32],
    tables: Path,
    dimension: int,
    engine: Engine,
) -> NDArray[np.uint64]:
    """Write the alias table of Lance; the row ids of the aliases, ascending."""
    schema = pa.schema([*ALIASES_SCHEMA, FACET_FIELD, vector_field(dimension)])
    parts = [
        pa.table({"start": [start], "facet": [facet[start : start + FRAGMENT_ROWS]]})
        for start in range(0, len(facet), FRAGMENT_ROWS)
    ]
    path = (build.tables / ALIASES_FILE).absolute()
    read = partial(_rows, path, build.vectors.absolute(), schema)
    engine.write_table((tables / f"{ALIASES_TABLE}.lance").absolute(), schema, read, parts)
    table = lancedb.connect(tables).open_table(ALIASES_TABLE)
    stored = table.search().select(["concept"]).with_row_id(True).to_arrow().sort_by("_rowid")
    if not stored["concept"].equals(aliases["concept"]):  # the order of fragments is the engine's
        raise InvalidArtifactError(
            f"{tables} does not hold the aliases in their order: run the build again"
        )
    row_ids: NDArray[np.uint64] = stored["_rowid"].to_numpy()
    return row_ids


def _rows(
    aliases: Path, vectors: Path, schema: pa.Schema, part: pa.Table
) -> Iterator[pa.RecordBatch]:
    """The rows of a part: of the aliases from `start` on, as many as it has facets, with their vectors."""
    start, facet = part["start"][0].as_py(), part["facet"][0].values
    at = 0
    for shard in read_vectors(vectors):
        low, high = max(start, at), min(start + len(facet), at + len(shard))
        if low < high:
            told = read_slice(aliases, low, high - low).combine_chunks()
            columns = [told[field.name].combine_chunks() for field in ALIASES_SCHEMA]
            mine = facet.slice(low - start, high - low), shard.slice(low - at, high - low)
            yield pa.record_batch([*columns, *mine], schema=schema)
        at += len(shard)


def _probes(aliases: pa.Table, encoder: OnnxEncoder) -> tuple[Probe, ...]:
    """A few aliases spread over the table, with the vectors a reader's own encoder must give."""
    rows = sorted({i * (aliases.num_rows - 1) // (_PROBES - 1) for i in range(_PROBES)})
    texts = pc.take(aliases["text"], pa.array(rows)).to_pylist()
    vectors = encoder.encode(texts)
    return tuple(
        Probe(text=text, vector=tuple(round(float(x), 5) for x in vector))
        for text, vector in zip(texts, vectors, strict=True)
    )
