"""Aliases to vectors, in shards: a killed run goes on with the shards that are missing.

Texts that a generation on disk has, by the same encoder, are not encoded again.

vectors/00000.arrow   one float16 vector column; rows are those of tables/aliases.parquet, SHARD_ROWS a file
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError
from bioelx_mcp.manifest import ALIASES_TABLE, IndexLayout, vector_field
from index_builder.config import Report
from index_builder.engines import Engine

SHARD_ROWS = 50_000


class KnownVectors:
    """Where an earlier generation has, by the same encoder, the vectors of its texts."""

    def __init__(self, tables: Path) -> None:
        self.tables = tables
        stored = _open(tables).search().select(["text"]).with_row_id(True).to_arrow()
        stored = stored.sort_by("_rowid")
        self._texts = stored["text"].combine_chunks()
        self._ids = stored["_rowid"].to_numpy().astype(np.int64)

    def find(self, texts: pa.ChunkedArray) -> NDArray[np.int64]:
        """Int64 (len(texts),): for each text a row id of Lance's, -1 where it is not known."""
        rows = pc.fill_null(pc.index_in(texts, value_set=self._texts), -1).to_numpy()
        return np.where(rows < 0, -1, self._ids[rows])


def read_known_vectors(layout: IndexLayout, checksum: str) -> KnownVectors | None:
    """The vectors of the newest generation that this encoder made, of whatever version; None without one."""
    cards = []
    for path in layout.generations.glob("[!.]*"):
        # up to version 2 only the manifest in service told what a generation is
        manifest = path / "manifest.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads((manifest if manifest.exists() else layout.manifest).read_bytes())
            if (told["index_id"], told["encoder"]["checksum"]) == (path.name, checksum):
                cards.append((str(told["created"]), path.name))
    for _, index_id in sorted(cards, reverse=True):
        try:
            return KnownVectors(layout.tables(index_id).absolute())
        except Exception:  # noqa: S112 (lancedb raises many classes; a broken one is as good as none)
            continue
    return None


def embed_aliases(
    aliases: Path,
    encoder: Path,
    directory: Path,
    progress: Report,
    engine: Engine,
    known: KnownVectors | None = None,
) -> None:
    """Encode the `text` column of an aliases table, each distinct text of a shard once, and none that is known."""
    directory.mkdir(parents=True, exist_ok=True)
    if known is None:
        rows = np.full(pq.read_metadata(aliases).num_rows, -1, dtype=np.int64)
    else:
        rows = known.find(pq.read_table(aliases, columns=["text"])["text"])
    told = f"aliases embedded, {np.count_nonzero(rows >= 0):,} of them before"
    shards, done = [], len(rows)
    for number, start in enumerate(range(0, len(rows), SHARD_ROWS)):
        if not _shard_path(directory, number).exists():
            part = rows[start : start + SHARD_ROWS]
            shards.append(pa.table({"shard": [number], "start": [start], "known": [part]}))
            done -= len(part)
    worker = partial(
        _Embedder,
        aliases.absolute(),
        encoder.absolute(),
        directory.absolute(),
        None if known is None else known.tables,
    )
    for written in engine.map(worker, shards):
        (answer,) = written.to_pylist()
        # A worker that outlives its builder would else write a shard of other tables.
        (directory / answer["file"]).replace(_shard_path(directory, answer["shard"]))
        done += answer["rows"]
        progress(done, len(rows), told)
    for leftover in directory.glob(".new-*"):  # of workers that were killed
        leftover.unlink(missing_ok=True)
    progress(len(rows), len(rows), told)


class _Embedder:
    """Writes the shards that it is told to; made in the process that works."""

    def __init__(
        self, aliases: Path, encoder: Path, directory: Path, known: Path | None, threads: int
    ) -> None:
        self._aliases = aliases
        self._directory = directory
        self._encoder = OnnxEncoder(encoder, threads=threads)
        self._known = None if known is None else _open(known)

    def __call__(self, shard: pa.Table) -> pa.Table:
        """Write a shard beside its place; its number, the file and the rows in it."""
        number, start, known = (shard[name][0] for name in ("shard", "start", "known"))
        rows = known.values.to_numpy()
        texts = read_slice(self._aliases, start.as_py(), len(rows), ["text"])["text"]
        schema = pa.schema([vector_field(self._encoder.dimension)])
        vectors = self._embed(texts.combine_chunks(), rows)
        file = f".new-{number}-{uuid4().hex}"
        with (
            pa.OSFile(str(self._directory / file), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            writer.write_batch(pa.record_batch([vector_array(vectors)], schema=schema))
        return pa.table({"shard": [number.as_py()], "file": [file], "rows": [len(rows)]})

    def _embed(self, texts: pa.StringArray, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self._encoder.dimension), dtype=np.float32)
        new = rows < 0
        if not new.all():
            try:
                vectors[~new] = self._take(rows[~new])
            except Exception:  # lancedb raises many classes; what it cannot read is encoded
                new[:] = True
        if new.any():
            distinct = texts.filter(pa.array(new)).dictionary_encode()
            encoded = self._encoder.encode(distinct.dictionary.to_pylist())
            vectors[new] = encoded[distinct.indices.to_numpy()]
        return vectors

    def _take(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """Float16 (len(ids), dimension): the known vectors of these row ids."""
        wanted, places = np.unique(ids, return_inverse=True)
        assert self._known is not None
        stored = self._known.take_row_ids(wanted.tolist()).select(["vector"]).with_row_id()
        found = stored.to_arrow().sort_by("_rowid")
        flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors: NDArray[np.float16] = flat.reshape(len(wanted), -1)[places]
        return vectors


def _open(tables: Path) -> lancedb.table.Table:
    return lancedb.connect(tables).open_table(ALIASES_TABLE)


def read_slice(path: Path, start: int, rows: int, columns: Sequence[str] | None = None) -> pa.Table:
    """So many rows of a Parquet file; no more is read than the row groups that hold them."""
    with pq.ParquetFile(path) as file:
        held = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = np.cumsum(held)
        first, last = np.searchsorted(ends, (start, start + rows - 1), side="right").tolist()
        table = file.read_row_groups(range(first, last + 1), columns)
    return table.slice(start - int(ends[first] - held[first]), rows)


def vector_array(vectors: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Rows of a matrix as an Arrow column of float16 lists."""
    flat = pa.array(vectors.astype(np.float16).reshape(-1), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, type=vector_field(vectors.shape[1]).type)


def read_vectors(directory: Path) -> Iterator[pa.FixedSizeListArray]:
    """The shards in order, memory-mapped.

    Raises:
        InvalidArtifactError: one is broken.
    """
    for path in shard_paths(directory):
        try:
            with pa.memory_map(str(path)) as source:
                shard = pa.ipc.open_file(source).get_batch(0).column(0)
        except (OSError, ValueError) as error:  # what Arrow raises is one of both
            raise InvalidArtifactError(
                f"{path} cannot be read ({error}): remove {directory} and run the build again"
            ) from error
        yield shard


def check_vectors(directory: Path, aliases: int) -> None:
    """Raise InvalidArtifactError unless the shards can be read and hold a vector for each alias."""
    held = sum(map(len, read_vectors(directory)))
    if held != aliases:
        raise InvalidArtifactError(
            f"{directory} holds {held} vectors of {aliases} aliases: remove it and run the build again"
        )


def shard_paths(directory: Path) -> Sequence[Path]:
    return sorted(directory.glob("[0-9]*.arrow"))


def _shard_path(directory: Path, number: int) -> Path:
    return directory / f"{number:05d}.arrow"
