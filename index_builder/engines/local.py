"""The engine of one process: parts one after the other, with as many threads as there are cores."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import lancedb
import pyarrow as pa

from index_builder.engines import Read, Worker


class LocalEngine:
    """See `Engine`."""

    def map(self, worker: Worker, parts: Sequence[pa.Table]) -> Iterator[pa.Table]:
        return map(worker(0), parts) if parts else iter(())

    def write_table(
        self, path: Path, schema: pa.Schema, read: Read, parts: Sequence[pa.Table]
    ) -> None:
        batches = chain.from_iterable(map(read, parts))
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        lancedb.connect(path.parent).create_table(path.stem, reader)


LOCAL = LocalEngine()
