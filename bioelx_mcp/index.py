"""AliasIndex: an opened index directory; rows of aliases and concepts, and the three searches over them.

Distances and BM25 scores end here: what leaves is rows and similarities in [0, 1]. Thread-safe. Filters go
before the search: exact search over the vectors that a filter leaves where they are few, else a search of all
partitions with a pre-filter; asking for more and filtering afterwards loses recall (benchmarks/LOG.md).
"""

from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bioelx_mcp.encoder import OnnxEncoder
from bioelx_mcp.errors import InvalidArtifactError
from bioelx_mcp.filters import Facets, Scope
from bioelx_mcp.lexicon import Lexicon
from bioelx_mcp.location import Location
from bioelx_mcp.manifest import Manifest, alias_key, encoder_checksum
from bioelx_mcp.remote import open_location
from bioelx_mcp.schema import Concept, Filters
from bioelx_mcp.text import normalize_concept_id
from bioelx_mcp.vectors import Near, Rows, Similarities, Vectors
from bioelx_mcp.weak import weakly

PROBE_COSINE = 0.99  # kernels differ a little between processors
_ROW_FILES = ("aliases", "concepts", "ids", "facets")
_SCOPES = 8  # filters that are remembered


class AliasIndex:
    """One generation of an index, open for reading; it stays on disk for as long as it is open.

    Attributes:
        manifest: what the index promises.
        encoder: the query encoder that made its vectors.
        lexicon: the inverted index of its aliases' character grams.
        vectors: the dense channel.
        concepts: the concepts table (`manifest.CONCEPTS_SCHEMA`), one row a concept.
    """

    def __init__(self, location: Location, *, threads: int = 1, cache: Path | None = None) -> None:
        """Open and verify the index in service.

        Args:
            location: where it is.
            threads: of its encoder.
            cache: where files of a remote one are kept; as the settings say if not given.

        Raises:
            MissingArtifactError: there is no index at `location`, or it cannot be reached.
            InvalidArtifactError: the index is broken, or its encoder is not the one that made it.
            UsageError: the cache cannot be written to.
        """
        self._generation = open_location(location, cache)
        self.manifest, _, layout, tables, storage, self._mend = self._generation
        index_id = self.manifest.index_id
        self.encoder = OnnxEncoder(layout.encoder(index_id), threads=threads)
        _verify_encoder(self.manifest, self.encoder, layout.encoder(index_id), self._mend)
        try:
            self.lexicon = Lexicon(layout.lexicon(index_id))
            rows = layout.rows(index_id)
            self._load(*(_mapped(rows / f"{name}.arrow") for name in _ROW_FILES))
            self.vectors = Vectors(tables, self.manifest, self._row_ids, storage)
        except Exception as error:  # lancedb raises RuntimeError, ValueError, OSError and its own
            raise InvalidArtifactError(
                f"the tables of {location} cannot be read ({error}): {self._mend}"
            ) from error
        self._check_counts(location)
        self.scope = lru_cache(maxsize=_SCOPES)(weakly(self._scope))

    def _check_counts(self, location: Location) -> None:
        vectors = self.vectors.size
        aliases, concepts = len(self.alias_concept), len(self.concepts)
        promised = self.manifest.aliases
        if (aliases, self.lexicon.size, vectors, concepts) != (
            promised,
            promised,
            promised,
            self.manifest.concepts,
        ):
            raise InvalidArtifactError(
                f"{location} holds {aliases} aliases ({self.lexicon.size} in the lexicon, {vectors} with a vector) "
                f"of {concepts} concepts, its manifest promises {promised} of {self.manifest.concepts}: {self._mend}"
            )

    def _load(
        self,
        aliases: pa.RecordBatch,
        concepts: pa.RecordBatch,
        ids: pa.RecordBatch,
        facets: pa.RecordBatch,
    ) -> None:
        self.alias_concept: NDArray[np.int32] = aliases["concept"].to_numpy()
        self.alias_text = aliases["text"]
        self.alias_normalized = aliases["normalized"]
        self.alias_language = aliases["language"]
        self.alias_kind = aliases["kind"]
        self.alias_source = aliases["source"]
        self.language_codes: NDArray[np.int32] = self.alias_language.indices.to_numpy()
        self.kind_codes: NDArray[np.int32] = self.alias_kind.indices.to_numpy()
        self._tags = [
            (column.indices.to_numpy(), column.dictionary.to_pylist())
            for column in (self.alias_language, self.alias_source)
        ]
        self._facet: NDArray[np.int32] = aliases["facet"].to_numpy()
        self._row_ids: NDArray[np.uint64] = aliases["row_id"].to_numpy()
        self._keys: NDArray[np.int64] = aliases["key"].to_numpy()
        self._key_rows: NDArray[np.int32] = aliases["key_row"].to_numpy()
        self.concepts = concepts
        self._labels = [
            concepts[name] for name in ("concept_id", "preferred_name", "semantic_types")
        ]
        self.alias_renown: NDArray[np.float32] = aliases["renown"].to_numpy()
        self._alias_grams: NDArray[np.float32] = aliases["grams"].to_numpy()
        self._id_keys: NDArray[np.int64] = ids["key"].to_numpy()
        self._id_concepts: NDArray[np.int32] = ids["concept"].to_numpy()
        self._facets = Facets(facets)

    def _scope(self, filters: Filters) -> Scope:
        """What a filter leaves; the last few are remembered.

        Raises:
            UsageError: it leaves nothing.
        """
        facets = self._facets.select(filters)
        mask = facets[self._facet]
        concepts = np.zeros(len(self.concepts), dtype=np.bool_)
        concepts[self.alias_concept[mask]] = True
        return Scope(np.flatnonzero(facets), mask, concepts)

    def labels(self, concepts: NDArray[np.int32]) -> list[tuple[str, str, tuple[str, ...]]]:
        """Id, preferred name and semantic types of the concepts of these rows: what a candidate shows, without the rest."""
        rows, inverse = np.unique(concepts, return_inverse=True)
        columns = (column.take(pa.array(rows)).to_pylist() for column in self._labels)
        each = [
            (one, name, tuple(map(intern, types)))
            for one, name, types in zip(*columns, strict=True)
        ]
        return [each[place] for place in inverse.tolist()]

    def aliases(self, rows: Rows) -> list[tuple[str, str, str]]:
        """Text, language and source of the aliases of these rows."""
        texts = self.alias_text.take(pa.array(rows)).to_pylist()
        languages, sources = (  # of equal ones the same string
            [values[code] for code in codes[rows].tolist()] for codes, values in self._tags
        )
        return list(zip(texts, languages, sources, strict=True))

    def concept(self, row: int) -> Concept:
        """The concept of a row of the concepts table."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.concepts.slice(row, 1).to_pylist()[0].items()
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
        if curie is None:
            return None
        for row in self._id_concepts[_equal(self._id_keys, alias_key(curie))].tolist():
            concept = self.concepts.slice(row, 1)
            if curie in (concept["concept_id"][0].as_py(), *concept["alt_ids"][0].as_py()):
                return int(row)
        return None

    def complete_id(self, start: str, limit: int) -> tuple[list[str], int]:
        """At most `limit` concept ids that begin so, in order, and how many do; rows are sorted by id."""
        ids = self.concepts["concept_id"]
        low = bisect_left(ids, start, key=_text)
        high = bisect_left(ids, start + chr(0x10FFFF), lo=low, key=_text)
        return ids.slice(low, min(limit, high - low)).to_pylist(), high - low

    def search_exact(self, normalized: str, scope: Scope | None = None) -> Rows:
        """Rows of the aliases in scope whose normalised text is this one."""
        rows = self._key_rows[_equal(self._keys, alias_key(normalized))].astype(np.int64)
        if scope is not None:
            rows = rows[scope.mask[rows]]
        same = [self.alias_normalized[row].as_py() == normalized for row in rows.tolist()]
        return rows[np.array(same, dtype=np.bool_)]

    def search_lexical(self, grams: Iterable[str], limit: int, scope: Scope | None = None) -> Rows:
        """Rows of at most `limit` aliases in scope that share character grams, best BM25 first."""
        return self.lexicon.search(grams, limit, None if scope is None else scope.facets)

    def lexical_similarities(self, grams: Iterable[str], rows: Rows) -> Similarities:
        """Float32 (len(rows),) in [0, 1]: the Dice coefficient of character grams, rare ones weighing more."""
        names = self.alias_normalized.take(pa.array(rows)).to_pylist()
        return self.lexicon.similarities(grams, names, self._alias_grams[rows])

    def search_dense(
        self,
        vectors: NDArray[np.float32],
        limit: int,
        scope: Scope | None = None,
        least: float = 0.0,
    ) -> list[Near]:
        """For each unit vector the rows of its nearest aliases in scope, with cosine similarity clipped to [0, 1].

        Those whose cosine is below `least`, if that is above 0, need not be found: search is the faster for it.
        """
        return self.vectors.search(vectors, limit, scope, least)


def _mapped(path: Path) -> pa.RecordBatch:
    """The one batch of an Arrow file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def _equal(keys: NDArray[np.int64], key: int) -> slice:
    """Where a key stands in ascending ones."""
    return slice(*(np.searchsorted(keys, np.int64(key), side=side) for side in ("left", "right")))


def _text(scalar: Any) -> str:
    return str(scalar.as_py())


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
