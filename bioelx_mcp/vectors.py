"""Vectors: the dense channel of an index, by LanceDB; read and searched exactly where that is faster.

Distances end here: what leaves is rows and cosine similarities in [0, 1]. Thread-safe.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.background_loop import LOOP
from numpy.typing import NDArray

from bioelx_mcp.filters import Scope
from bioelx_mcp.manifest import ALIASES_TABLE, Manifest
from bioelx_mcp.weak import weakly

Rows = NDArray[np.int64]
Similarities = NDArray[np.float32]
Near = tuple[Rows, Similarities]

# A filter that leaves no more of the vectors has them read, as float32, and searched exactly; so many are kept.
_BLOCK_BYTES = 64 << 20
_BLOCKS = 2


class Vectors:
    """The opened vectors of `size` aliases."""

    def __init__(self, tables: Path, manifest: Manifest, row_ids: NDArray[np.uint64]) -> None:
        """Open them; `row_ids` are Lance's, in the order of the aliases.

        Raises:
            Exception: whatever lancedb raises of tables that it cannot read.
        """
        self._manifest = manifest
        self._row_ids = row_ids
        # A query of the asynchronous interface crosses between threads once, one of the other five times.
        self._table = LOOP.run(_open(tables))
        self.size: int = LOOP.run(self._table.count_rows())
        self._block = lru_cache(maxsize=_BLOCKS)(weakly(self._read_block))
        self._all: NDArray[np.float32] | None = None
        if manifest.dense_index == "exact":
            self._all = self.read()

    def search(
        self, vectors: NDArray[np.float32], limit: int, scope: Scope | None = None
    ) -> list[Near]:
        """For each unit vector, float32 (n, dimension), the nearest rows in scope, best first, and their cosines."""
        if len(vectors) == 0:
            return []
        if self._all is not None:
            rows = None if scope is None else scope.rows
            return [_nearest(row, limit, rows) for row in vectors @ self._all.T]
        if scope is not None and scope.size * vectors.shape[1] * 4 <= _BLOCK_BYTES:
            found = (_nearest(row, limit) for row in vectors @ self._block(scope).T)
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
        if scope is not None:  # a filter changes which partitions are near: it looks into all
            facets = ", ".join(map(str, scope.facets.tolist()))
            query = query.where(f"facet IN ({facets})").nprobes(self._manifest.partitions)
        return self._split(LOOP.run(query.to_arrow()), len(vectors))

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
        # Lance's IVF_RQ answers `cosine` with the squared distance of the unit vectors: 2 (1 - cosine).
        similarity = np.clip(1.0 - found["_distance"].to_numpy() / 2, 0.0, 1.0).astype(np.float32)
        if queries == 1:
            return [(rows, similarity)]
        number = found["query_index"].to_numpy()
        return [(rows[number == i], similarity[number == i]) for i in range(queries)]

    def _read_block(self, scope: Scope) -> NDArray[np.float32]:
        """The vectors of the rows in scope; those of the last few scopes are remembered."""
        return self.read(scope.rows)


async def _open(tables: Path) -> Any:
    database = await lancedb.connect_async(tables)
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
