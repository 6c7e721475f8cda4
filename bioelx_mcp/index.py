"""AliasIndex: an opened index directory; rows of aliases and concepts, and the three searches over them.

Distances and BM25 scores end here: what leaves is rows and similarities in [0, 1]. Thread-safe.
"""

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError
from bioelx_mcp.lexicon import Lexicon
from bioelx_mcp.manifest import (
    ALIASES_TABLE,
    CONCEPTS_TABLE,
    IndexLayout,
    Manifest,
    alias_key,
    encoder_checksum,
    read_manifest,
)
from bioelx_mcp.schema import Concept
from bioelx_mcp.text import normalize_concept_id

Rows = NDArray[np.int64]
Similarities = NDArray[np.float32]

PROBE_COSINE = 0.99  # kernels differ a little between processors
_IN_MEMORY = ["concept", "text", "normalized", "language", "kind", "source", "key"]


class AliasIndex:
    """One generation of an index, open for reading.

    Attributes:
        manifest: what the index promises.
        encoder: the query encoder that made its vectors.
        lexicon: the inverted index of its aliases' character grams.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """Open and verify the index in service.

        Raises:
            MissingArtifactError: there is no index at `path`.
            InvalidArtifactError: the index is broken, or its encoder is not the one that made it.
        """
        layout = IndexLayout(path)
        self.manifest = read_manifest(layout)
        index_id = self.manifest.index_id
        self._rebuild = f"rebuild it with `bioelx-mcp build-index --out {path}`"
        if not layout.generation(index_id).is_dir():
            raise InvalidArtifactError(
                f"{path} lacks the generation {index_id} that its manifest names: {self._rebuild}"
            )
        self.encoder = OnnxEncoder(layout.encoder(index_id), threads=threads)
        _verify_encoder(self.manifest, self.encoder, layout.encoder(index_id), self._rebuild)
        try:
            self.lexicon = Lexicon(layout.lexicon(index_id))
            database = lancedb.connect(layout.tables(index_id))
            concepts = database.open_table(CONCEPTS_TABLE).to_arrow()
            self._table = database.open_table(ALIASES_TABLE)
            columns = self._scan(_IN_MEMORY)
        except Exception as error:  # lancedb raises RuntimeError, ValueError, OSError and its own
            raise InvalidArtifactError(
                f"the tables of {path} cannot be read ({error}): {self._rebuild}"
            ) from error
        self._check_counts(path, columns.num_rows, concepts.num_rows)
        self._load(columns, concepts)

    def _check_counts(self, path: Path, aliases: int, concepts: int) -> None:
        promised = self.manifest.aliases
        if (aliases, self.lexicon.size, concepts) != (promised, promised, self.manifest.concepts):
            raise InvalidArtifactError(
                f"{path} holds {aliases} aliases ({self.lexicon.size} in the lexicon) of {concepts} concepts, "
                f"its manifest promises {promised} of {self.manifest.concepts}: {self._rebuild}"
            )

    def _scan(self, columns: list[str]) -> pa.Table:
        """Columns of all aliases in the order of the table, with `_rowid`."""
        rows = self._table.search().select(columns).with_row_id(True).to_arrow()
        ids = rows["_rowid"].to_numpy()
        return rows if np.all(ids[:-1] < ids[1:]) else rows.sort_by("_rowid")

    def _load(self, columns: pa.Table, concepts: pa.Table) -> None:
        self._row_ids = columns["_rowid"].to_numpy()
        self.alias_concept: NDArray[np.int32] = columns["concept"].to_numpy()
        self.alias_text = columns["text"].combine_chunks()
        self.alias_normalized = columns["normalized"].combine_chunks()
        self.alias_language = columns["language"].combine_chunks().dictionary_encode()
        self.alias_kind = columns["kind"].combine_chunks().dictionary_encode()
        self.alias_source = columns["source"].combine_chunks().dictionary_encode()
        keys = columns["key"].to_numpy()
        self._key_order = np.argsort(keys, kind="stable")
        self._keys = keys[self._key_order]
        self._concepts = concepts
        self.aliases_of_concept = np.bincount(self.alias_concept, minlength=len(concepts))
        self._concept_rows: dict[str, int] = {}
        for row, others in enumerate(concepts["alt_ids"].to_pylist()):
            for other in others:
                self._concept_rows.setdefault(other, row)
        self._concept_rows.update(
            {c: row for row, c in enumerate(concepts["concept_id"].to_pylist())}
        )
        self._vectors: NDArray[np.float32] | None = None
        if self.manifest.dense_index == "exact":
            flat = self._scan(["vector"])["vector"].combine_chunks().flatten()
            matrix = flat.to_numpy(zero_copy_only=False).astype(np.float32)
            self._vectors = matrix.reshape(-1, self.manifest.encoder.dimension)

    def concept(self, row: int) -> Concept:
        """The concept of a row of the concepts table."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self._concepts.slice(row, 1).to_pylist()[0].items()
        }
        return Concept(**values)

    def names(self, row: int) -> list[tuple[str, str]]:
        """(text, language) of the aliases of a concept; rows are sorted by concept, preferred names first."""
        low, high = (
            int(np.searchsorted(self.alias_concept, row, side=side)) for side in ("left", "right")
        )
        texts = self.alias_text.slice(low, high - low).to_pylist()
        languages = self.alias_language.slice(low, high - low).to_pylist()
        return list(zip(texts, languages, strict=True))

    def find_concept(self, concept_id: str) -> int | None:
        """The row of a concept, by its id or an alternative id in any spelling; None if it is not here."""
        curie = normalize_concept_id(concept_id)
        return None if curie is None else self._concept_rows.get(curie)

    def complete_id(self, start: str, limit: int) -> tuple[list[str], int]:
        """At most `limit` concept ids that begin so, in order, and how many do; rows are sorted by id."""
        ids = self._concepts["concept_id"]
        low = bisect_left(ids, start, key=_text)
        high = bisect_left(ids, start + chr(0x10FFFF), lo=low, key=_text)
        return ids.slice(low, min(limit, high - low)).to_pylist(), high - low

    def search_exact(self, normalized: str) -> Rows:
        """Rows of the aliases whose normalised text is this one."""
        key = alias_key(normalized)
        low, high = (np.searchsorted(self._keys, key, side=side) for side in ("left", "right"))
        rows = self._key_order[low:high]
        return (
            rows[[self.alias_normalized[row].as_py() == normalized for row in rows.tolist()]]
            if len(rows)
            else rows
        )

    def search_lexical(self, grams: Iterable[str], limit: int) -> Rows:
        """Rows of at most `limit` aliases that share character grams, best BM25 first."""
        return self.lexicon.search(grams, limit)

    def search_dense(
        self, vectors: NDArray[np.float32], limit: int
    ) -> list[tuple[Rows, Similarities]]:
        """For each unit vector the rows of its nearest aliases, with cosine similarity clipped to [0, 1]."""
        if self._vectors is not None:
            return [_nearest(self._vectors, vector, limit) for vector in vectors]
        if len(vectors) == 0:
            return []
        found = (
            self._table.search(list(vectors), vector_column_name="vector")
            .distance_type("cosine")
            .nprobes(self.manifest.nprobes)
            .select(["_distance"])
            .with_row_id(True)
            .limit(limit)
            .to_arrow()
        )
        rows = self._rows_of(found["_rowid"].to_numpy())
        # Lance's IVF_RQ answers `cosine` with the squared distance of the unit vectors: 2 (1 - cosine).
        similarity = np.clip(1.0 - found["_distance"].to_numpy() / 2, 0.0, 1.0).astype(np.float32)
        if len(vectors) == 1:
            return [(rows, similarity)]
        query = found["query_index"].to_numpy()
        return [(rows[query == i], similarity[query == i]) for i in range(len(vectors))]

    def _rows_of(self, row_ids: NDArray[np.uint64]) -> Rows:
        return np.searchsorted(self._row_ids, row_ids)


def _text(scalar: Any) -> str:
    return str(scalar.as_py())


def _nearest(
    matrix: NDArray[np.float32], vector: NDArray[np.float32], limit: int
) -> tuple[Rows, Similarities]:
    similarity = matrix @ vector
    limit = min(limit, len(similarity))
    rows = np.argpartition(-similarity, limit - 1)[:limit]
    rows = rows[np.lexsort((rows, -similarity[rows]))]
    return rows, np.clip(similarity[rows], 0.0, 1.0)


def _verify_encoder(manifest: Manifest, encoder: OnnxEncoder, directory: Path, mend: str) -> None:
    if encoder_checksum(directory) != manifest.encoder.checksum:
        raise InvalidArtifactError(
            f"the encoder in {directory} is not the one that made the index: {mend}"
        )
    if any(len(probe.vector) != encoder.dimension for probe in manifest.probes):
        raise InvalidArtifactError(f"the probe vectors of the index have another width: {mend}")
    expected = np.array([probe.vector for probe in manifest.probes], dtype=np.float32)
    expected = expected.reshape(-1, encoder.dimension)
    cosine = np.sum(expected * encoder.encode([probe.text for probe in manifest.probes]), axis=1)
    if not np.all(cosine >= PROBE_COSINE):
        raise InvalidArtifactError(
            f"the encoder in {directory} does not reproduce the stored probe vectors "
            f"(cosine {cosine.min():.3f} < {PROBE_COSINE}): {mend}"
        )
