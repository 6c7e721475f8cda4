"""Where the heavy stages run: in this process, or on a Ray cluster. Both give the same index.

A part is an Arrow table of one row that tells a worker what to do. What a worker reads and writes are files under
paths that every machine of a cluster sees; between processes go parts and what is said of them, no vectors.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from bioelx_mcp.errors import MissingExtraError

FRAGMENT_ROWS = 1 << 20  # as many as Lance puts into one file

Worker = Callable[[int], Callable[[pa.Table], pa.Table]]
"""Makes what answers a part, once in each process; it is told how many threads it may use, 0: one a core."""
Read = Callable[[pa.Table], Iterator[pa.RecordBatch]]


class Engine(Protocol):
    """What runs the parts of a stage."""

    def map(self, worker: Worker, parts: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """What is answered to the parts, each as soon as it is there."""

    def write_table(
        self, path: Path, schema: pa.Schema, read: Read, parts: Sequence[pa.Table]
    ) -> None:
        """Write a new Lance table (`path` ends in .lance): the rows that are read for each part, in their order.

        Parts are of FRAGMENT_ROWS rows, but the last: so row ids are the same whoever writes.
        """


def open_engine(name: str) -> AbstractContextManager[Engine]:
    """The engine `local` or `ray`; a cluster is looked for when there is work.

    Raises:
        MissingExtraError: it is not installed.
    """
    if name == "local":
        from index_builder.engines.local import LOCAL

        return nullcontext(LOCAL)
    try:
        from index_builder.engines.ray import RayEngine
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"engine {name!r} needs {error.name}: pip install 'bioelx-mcp[ray]', or build with --engine local"
        ) from error
    return closing(RayEngine())
