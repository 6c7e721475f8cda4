"""Vectors: the dense channel of an index, by LanceDB; read and searched exactly where that is faster.

Distances end here: what leaves is rows and cosine similarities in [0, 1]. Thread-safe.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.background_loop import LOOP
from numpy.typing import NDArray

from bioelx_mcp.errors import InvalidArtifactError
from bioelx_mcp.filters import Scope
from bioelx_mcp.manifest import ALIASES_TABLE, Manifest
from bioelx_mcp.weak import weakly

Rows = NDArray[np.int64]
Similarities = NDArray[np.float32]
Near = tuple[Rows, Similarities]

# A filter that leaves no more of the vectors has them read, as float32, and searched exactly; so many are kept.
_BLOCK_BYTES = 64 << 20
_BLOCKS = 2
# Lance's IVF_RQ answers `cosine` with the squared distance of the unit vectors: so much times (1 - cosine).
_DISTANCE = 2.0
# Lance reads this once. Left alone it keeps two cores for reading, and of two searches with one (benchmarks/LOG.md).
_LANCE_THREADS = "LANCE_CPU_THREADS"


class Vectors:
    """The opened vectors of `size` aliases."""

    def __init__(
        self,
        tables: str,
        manifest: Manifest,
        row_ids: NDArray[np.uint64],
        storage: dict[str, str] | None = None,
    ) -> None:
        """Open them.

        Args:
            tables: directory or URL of the tables.
            manifest: what is promised of them.
            row_ids: Lance's, in the order of the aliases.
            storage: LanceDB's options of object storage.

        Raises:
            Exception: whatever lancedb raises of tables that it cannot read.
        """
        self._manifest = manifest
        self._tables = tables
        self._row_ids = row_ids
        os.environ.setdefault(_LANCE_THREADS, str(os.cpu_count() or 1))
        # A query of the asynchronous interface crosses between threads once, one of the other five times.
        self._table = LOOP.run(_open(tables, storage))
        self.size: int = LOOP.run(self._table.count_rows())
        self._block = lru_cache(maxsize=_BLOCKS)(weakly(self._read_block))
        self._all: NDArray[np.float32] | None = None
        if manifest.dense_index == "exact":
            self._all = self.read()

    def search(
        self,
        vectors: NDArray[np.float32],
        limit: int,
        scope: Scope | None = None,
        least: float = 0.0,
    ) -> list[Near]:
        """For each unit vector, float32 (n, dimension), the nearest rows in scope, best first, and their cosines.

        Rows whose cosine is below `least`, if that is above 0, need not be found: Lance is the faster for it.

        Raises:
            InvalidArtifactError: what LanceDB has not yet read cannot be read any more.
        """
        if len(vectors) == 0:
            return []
        if self._all is not None:
            rows = None if scope is None else scope.rows
            return [_nearest(row, limit, rows) for row in vectors @ self._all.T]
        if scope is not None and scope.size * vectors.shape[1] * 4 <= _BLOCK_BYTES:
            with self._readable():
                block = self._block(scope)
            found = (_nearest(row, limit) for row in vectors @ block.T)
            return [(scope.rows[rows], similarity) for rows, similarity in found]
        query = (
            self._table.query()
            .nearest_to(list(vectors))
            .column("vector")
            .distance_type("cosine")
            .nprobes(self._manifest.nprobes)
            .select(["_distance"])
            .with_row_id()
            .limit(limit)
        )
        if least > 0.0:
            query = query.distance_range(None, _DISTANCE * (1.0 - least))
        if scope is not None:  # a filter changes which partitions are near: it looks into all
            facets = ", ".join(map(str, scope.facets.tolist()))
            query = query.where(f"facet IN ({facets})").nprobes(self._manifest.partitions)
        with self._readable():
            answer = LOOP.run(query.to_arrow())
        return self._split(answer, len(vectors))

    def read(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """The vectors of these rows (ascending), or all: float32 (n, dimension), of unit norm, in their order."""
        if rows is None:
            query = self._table.query()
        else:
            query = self._table.take_row_ids(self._row_ids[rows].tolist())
        stored = LOOP.run(query.select(["vector"]).with_row_id().to_arrow())
        flat = stored["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        matrix = flat.reshape(-1, self._manifest.encoder.dimension).astype(np.float32)
        ids = stored["_rowid"].to_numpy()
        ordered: NDArray[np.float32] = (
            matrix if np.all(ids[:-1] < ids[1:]) else matrix[ids.argsort()]
        )
        return ordered

    def _split(self, found: pa.Table, queries: int) -> list[Near]:
        """What Lance found, by query."""
        rows = np.searchsorted(self._row_ids, found["_rowid"].to_numpy())
        cosine = 1.0 - found["_distance"].to_numpy() / _DISTANCE
        similarity = np.clip(cosine, 0.0, 1.0).astype(np.float32)
        if queries == 1:
            return [(rows, similarity)]
        number = found["query_index"].to_numpy()
        return [(rows[number == i], similarity[number == i]) for i in range(queries)]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:
            raise InvalidArtifactError(
                f"the vectors in {self._tables} can no longer be read ({error}): check the network or the disk"
            ) from error

    def _read_block(self, scope: Scope) -> NDArray[np.float32]:
        """The vectors of the rows in scope; those of the last few scopes are remembered."""
        return self.read(scope.rows)


async def _open(tables: str, storage: dict[str, str] | None) -> Any:
    database = await lancedb.connect_async(tables, storage_options=storage)
    return await database.open_table(ALIASES_TABLE)


def _nearest(similarity: Similarities, limit: int, among: Rows | None = None) -> Near:
    """The `limit` rows of the highest similarity, best first, the similarity clipped to [0, 1]."""
    if among is not None:
        similarity = similarity[among]
    limit = min(limit, len(similarity))
    rows = np.argpartition(-similarity, limit - 1)[:limit]
    rows = rows[np.lexsort((rows, -similarity[rows]))]
    found = np.clip(similarity[rows], 0.0, 1.0)
    return rows if among is None else among[rows], found
