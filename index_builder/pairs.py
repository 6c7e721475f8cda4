"""Aliases to positive pairs: two names of one concept, balanced over languages, the same under a seed.

The draw of a step depends on (seed, step) alone, so a resumed training sees the pairs it would have seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bioelx_mcp.errors import UsageError
from index_builder.tables import ALIASES_FILE


@dataclass(frozen=True)
class Names:
    """The names of a set of concepts, rows sorted by concept.

    `concept` (n,) int64 rises; `language` (n,) int64 numbers the languages, `source` (n,) int64 the sources
    (of several together: that set of them); `key` (n,) int64 is equal where normalised names are (homonyms and
    repetitions); `weight` (n,) float64 is the weight of its source.
    """

    texts: pa.Array
    concept: NDArray[np.int64]
    language: NDArray[np.int64]
    source: NDArray[np.int64]
    key: NDArray[np.int64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.concept)

    def text(self, rows: NDArray[np.int64]) -> list[str]:
        return self.texts.take(pa.array(rows)).to_pylist()  # type: ignore[no-any-return]

    def select(self, mask: NDArray[np.bool_]) -> "Names":
        return Names(
            self.texts.filter(pa.array(mask)),
            self.concept[mask],
            self.language[mask],
            self.source[mask],
            self.key[mask],
            self.weight[mask],
        )


def read_names(directory: Path, source_weights: Mapping[str, float]) -> Names:
    """The aliases of a tables directory, as names to train on.

    An unnamed source weighs 1, a name of several sources as much as the greatest; what weighs 0 is left out.
    """
    columns = ["concept", "text", "normalized", "language", "source"]
    table = pq.read_table(directory / ALIASES_FILE, columns=columns)

    def codes(column: str) -> NDArray[np.int64]:
        indices = table[column].dictionary_encode().combine_chunks().indices
        return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int64)

    concept = table["concept"].to_numpy().astype(np.int64)
    texts = pc.cast(table["text"].combine_chunks(), pa.large_string())
    sources = table["source"].dictionary_encode().combine_chunks()
    weights = [
        max(source_weights.get(s, 1.0) for s in text.split("|"))
        for text in sources.dictionary.to_pylist()
    ]
    weight = np.array(weights, dtype=np.float64)[sources.indices.to_numpy()]
    source, key = np.asarray(sources.indices.to_numpy(), dtype=np.int64), codes("normalized")
    names = Names(texts, concept, codes("language"), source, key, weight)
    return names if weight.all() else names.select(weight > 0)


def sample_texts(names: Names, most: int, exponent: float, seed: int) -> list[str]:
    """At most `most` distinct names, a language of N names drawn like N ** exponent: what a tokenizer learns from."""
    if len(names) <= most:
        return names.texts.to_pylist()  # type: ignore[no-any-return]
    weights = _language_weights(names, exponent)
    rows = np.random.default_rng([seed, 0]).choice(
        len(names), size=most, replace=False, p=weights / weights.sum()
    )
    return names.text(np.sort(rows))


def _language_weights(names: Names, exponent: float) -> NDArray[np.float64]:
    """N ** (exponent - 1) for a name of a language that has N of them."""
    sizes = np.bincount(names.language).astype(np.float64)
    return (sizes[names.language] ** (exponent - 1.0)).astype(np.float64)


def cap_names(names: Names, most: int, exponent: float, seed: int) -> Names:
    """At most `most` names of each concept, drawn with its languages balanced as pairs are; 0 is no cap.

    Weighted draws without replacement: the least of exponential variates of these rates (Efraimidis and
    Spirakis, 2006).
    """
    counts = np.bincount(names.concept) if most else np.zeros(1, dtype=np.int64)
    if counts.max(initial=0) <= most:
        return names
    variates = np.random.default_rng([seed, 5]).exponential(size=len(names))
    order = np.lexsort((variates / _language_weights(names, exponent), names.concept))
    ends = np.cumsum(counts)[names.concept]
    place = np.arange(len(names)) - (ends - counts[names.concept])  # within the concept
    kept = np.zeros(len(names), dtype=np.bool_)
    kept[order[place < most]] = True
    return names.select(kept)


def split_concepts(names: Names, held_out: int, seed: int) -> tuple[Names, Names]:
    """(training, validation): `held_out` concepts of at least two different names, at most one in ten."""
    pairable = _pairable(names)
    count = min(held_out, len(pairable) // 10)
    chosen = np.random.default_rng([seed, 1]).permutation(pairable)[:count]
    mask = np.isin(names.concept, chosen)
    return names.select(~mask), names.select(mask)


def _pairable(names: Names) -> NDArray[np.int64]:
    """Concepts with at least two different normalised names."""
    distinct = np.unique(np.stack([names.concept, names.key]), axis=1)[0]
    concepts, counts = np.unique(distinct, return_counts=True)
    return concepts[counts > 1]


class PairSampler:
    """Draws pairs of differently spelt names of one concept.

    A concept of n names is drawn like log(1 + n) times the greatest weight of its sources; of its names, one of a language with N names in all
    like N ** (exponent - 1), so that English does not drown Thai; the second name is asked to be of
    another language in a `cross_lingual` share of the draws, and of another source (an ontology's with Wikidata's)
    in a `cross_source` share, where the concept has one.
    """

    def __init__(
        self,
        names: Names,
        *,
        cross_lingual: float,
        cross_source: float = 0.0,
        exponent: float,
        seed: int,
    ) -> None:
        concepts = _pairable(names)
        if len(concepts) == 0:
            raise UsageError("nothing to train on: no concept has two different names")
        self.names = names
        self._cross_lingual = cross_lingual
        self._cross_source = cross_source
        self._seed = seed
        weights = _language_weights(names, exponent)
        self.concepts = len(concepts)  # that pairs can be drawn of
        # `starts` (concepts,) are the rows of their first names
        self._cumulative = np.concatenate([[0.0], np.cumsum(weights)])
        self.starts = np.searchsorted(names.concept, concepts, side="left")
        self._ends = np.searchsorted(names.concept, concepts, side="right")
        bounds = np.column_stack([self.starts, self._ends]).ravel()
        greatest = np.maximum.reduceat(np.append(names.weight, 0.0), bounds)[::2]
        share = np.log1p(self._ends - self.starts) * greatest
        if not share.any():
            raise UsageError("nothing to train on: every source weighs 0")
        self._share = np.cumsum(share) / share.sum()
        self._concepts = concepts
        # Which names each concept has: float32 (concepts, keys).
        keys = names.key[np.isin(names.concept, concepts)]
        ends = np.append(0, np.cumsum(self._ends - self.starts))
        shape = (len(concepts), int(names.key.max()) + 1)
        self._held = csr_array((np.ones(len(keys), np.float32), keys, ends), shape=shape)
        self._held.sum_duplicates()

    def share_names(self, some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a name of each of some concepts (numbers) is also one of the other beside it, bool (len(some),)."""
        shared: NDArray[np.bool_] = self._held[some].multiply(self._held[others]).sum(axis=1) > 0
        return shared

    def homonyms(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the concepts of two names (rows) share a name, bool (len(rows), len(rows)).

        Such concepts may be one that nobody has merged: there is nothing to learn from telling them apart.
        """
        concepts, inverse = np.unique(self.names.concept[rows], return_inverse=True)
        held = self._held[np.searchsorted(self._concepts, concepts)]
        shared: NDArray[np.bool_] = (held @ held.T).toarray() > 0
        return shared[inverse[:, None], inverse]

    def sample_concepts(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Numbers (count,) of concepts, int64, in 0 to `self.concepts`, each drawn by its share."""
        drawn = np.minimum(np.searchsorted(self._share, rng.random(count)), self.concepts - 1)
        return drawn.astype(np.int64)

    def sample_names(
        self, concepts: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """A row of a name for each of these concepts (numbers), int64, languages balanced."""
        low, high = (
            self._cumulative[self.starts[concepts]],
            self._cumulative[self._ends[concepts]],
        )
        points = low + rng.random(len(concepts)) * (high - low)
        found = np.searchsorted(self._cumulative, points, side="right") - 1
        clipped = np.clip(found, self.starts[concepts], self._ends[concepts] - 1)
        return clipped.astype(np.int64)  # type: ignore[no-any-return]

    def sample_pairs(
        self,
        step: int,
        count: int,
        neighbours: NDArray[np.int32] | None = None,
        hard: float = 0.0,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows (count,) of first and second names, int64.

        With `neighbours` (concepts, k), of which -1 is none, a `hard` share of the pairs are of neighbours of
        concepts that the others are of.
        """
        rng = np.random.default_rng([self._seed, 2, step])
        drawn = self.sample_concepts(count, rng)
        if neighbours is not None and hard > 0:
            places = np.arange(count - int(count * hard), count)
            anchors = drawn[rng.integers(0, places[0], len(places))]
            near = neighbours[anchors, rng.integers(0, neighbours.shape[1], len(places))]
            drawn[places] = np.where(near >= 0, near, drawn[places])

        def draw(rows: NDArray[np.int64]) -> NDArray[np.int64]:
            return self.sample_names(drawn[rows], rng)

        first = draw(np.arange(count))
        second = draw(np.arange(count))
        language, source = self.names.language, self.names.source
        other_language = rng.random(count) < self._cross_lingual
        other_source = np.zeros(count, dtype=np.bool_)
        if self._cross_source:
            other_source = rng.random(count) < self._cross_source
        for attempt in range(24):  # redraw what is the same name, or (at first) not what was asked
            same = self.names.key[first] == self.names.key[second]
            if attempt < 8:
                same |= other_language & (language[first] == language[second])
                same |= other_source & (source[first] == source[second])
            rows = np.flatnonzero(same)
            if len(rows) == 0:
                break
            second[rows] = draw(rows)
            stuck = rows[self.names.key[first[rows]] == self.names.key[second[rows]]]
            first[stuck] = draw(stuck)
        different = self.names.key[first] != self.names.key[second]
        return first[different], second[different]
