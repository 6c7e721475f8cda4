"""Aliases to vectors, in shards: a killed run goes on at the first shard that is missing.

Texts that a generation on disk has, by the same encoder, are not encoded again.

vectors/00000.arrow   one float16 vector column; rows are those of tables/aliases.parquet, SHARD_ROWS a file
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bioelx_mcp.encoder import Encoder
from bioelx_mcp.errors import InvalidArtifactError
from bioelx_mcp.manifest import ALIASES_TABLE, IndexLayout, vector_field
from index_builder.config import Report

SHARD_ROWS = 50_000


class KnownVectors:
    """What an earlier generation holds by the same encoder: its texts, and their vectors in a file of its own."""

    def __init__(self, table: lancedb.table.Table, directory: Path, dimension: int) -> None:
        """Read an alias table; the file lies below the directory and has no name, so that it goes by itself."""
        stored = table.search().select(["text"]).with_row_id(True).to_arrow().sort_by("_rowid")
        self._texts = stored["text"].combine_chunks()
        ids = stored["_rowid"].to_numpy()
        with tempfile.TemporaryFile(dir=directory) as file:
            self.vectors = np.memmap(file, np.float16, "w+", shape=(len(ids), dimension))
        for batch in table.search().select(["vector"]).with_row_id(True).to_batches():
            flat = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            places = np.searchsorted(ids, batch["_rowid"].to_numpy())
            self.vectors[places] = flat.reshape(-1, dimension)

    def find(self, texts: pa.ChunkedArray) -> NDArray[np.int64]:
        """Int64 (len(texts),): for each text a row of `vectors`, -1 where it is not known."""
        rows = pc.fill_null(pc.index_in(texts, value_set=self._texts), -1)
        return np.asarray(rows.to_numpy(), dtype=np.int64)


def read_known_vectors(
    layout: IndexLayout, encoder: Encoder, checksum: str, directory: Path
) -> KnownVectors | None:
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
            table = lancedb.connect(layout.tables(index_id)).open_table(ALIASES_TABLE)
            return KnownVectors(table, directory, encoder.dimension)
        except Exception:  # noqa: S112 (lancedb raises many classes; a broken one is as good as none)
            continue
    return None


def embed_aliases(
    aliases: Path,
    encoder: Encoder,
    directory: Path,
    progress: Report,
    known: KnownVectors | None = None,
) -> None:
    """Encode the `text` column of an aliases table, each distinct text of a shard once, and none that is known."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = pq.read_table(aliases, columns=["text"])["text"]
    rows = np.full(len(texts), -1, dtype=np.int64) if known is None else known.find(texts)
    told = f"aliases embedded, {np.count_nonzero(rows >= 0):,} of them before"
    schema = pa.schema([vector_field(encoder.dimension)])
    for number, start in enumerate(range(0, len(texts), SHARD_ROWS)):
        path = directory / f"{number:05d}.arrow"
        if not path.exists():
            shard = texts.slice(start, SHARD_ROWS).combine_chunks()
            vectors = _embed(shard, rows[start : start + len(shard)], encoder, known)
            temporary = path.with_suffix(".new")
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                writer.write_batch(pa.record_batch([vector_array(vectors)], schema=schema))
            temporary.replace(path)
        progress(min(start + SHARD_ROWS, len(texts)), len(texts), told)


def _embed(
    texts: pa.StringArray, rows: NDArray[np.int64], encoder: Encoder, known: KnownVectors | None
) -> NDArray[np.float32]:
    vectors = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    new = rows < 0
    if known is not None:
        vectors[~new] = known.vectors[rows[~new]]
    if new.any():
        distinct = texts.filter(pa.array(new)).dictionary_encode()
        encoded = encoder.encode(distinct.dictionary.to_pylist())
        vectors[new] = encoded[distinct.indices.to_numpy()]
    return vectors


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
