"""Aliases to vectors, in shards: a killed run goes on at the first shard that is missing.

vectors/00000.arrow   one float16 vector column; rows are those of tables/aliases.parquet, SHARD_ROWS a file
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bioelx_mcp.encoder import Encoder
from bioelx_mcp.manifest import vector_field
from index_builder.config import Report

SHARD_ROWS = 50_000


def embed_aliases(aliases: Path, encoder: Encoder, directory: Path, progress: Report) -> None:
    """Encode the `text` column of an aliases table, each distinct text of a shard once."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = pq.read_table(aliases, columns=["text"])["text"]
    schema = pa.schema([vector_field(encoder.dimension)])
    for number, start in enumerate(range(0, len(texts), SHARD_ROWS)):
        path = directory / f"{number:05d}.arrow"
        if not path.exists():
            shard = texts.slice(start, SHARD_ROWS).combine_chunks().dictionary_encode()
            vectors = encoder.encode(shard.dictionary.to_pylist())[shard.indices.to_numpy()]
            temporary = path.with_suffix(".new")
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                writer.write_batch(pa.record_batch([vector_array(vectors)], schema=schema))
            temporary.replace(path)
        progress(min(start + SHARD_ROWS, len(texts)), len(texts), "aliases embedded")


def vector_array(vectors: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Rows of a matrix as an Arrow column of float16 lists."""
    flat = pa.array(vectors.astype(np.float16).reshape(-1), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, type=vector_field(vectors.shape[1]).type)


def read_vectors(directory: Path) -> Iterator[pa.FixedSizeListArray]:
    """The shards in order, memory-mapped."""
    for path in shard_paths(directory):
        with pa.memory_map(str(path)) as source:
            yield pa.ipc.open_file(source).get_batch(0).column(0)


def shard_paths(directory: Path) -> Sequence[Path]:
    return sorted(directory.glob("[0-9]*.arrow"))
