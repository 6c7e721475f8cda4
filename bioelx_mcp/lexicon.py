"""Lexicon: an inverted index from character grams to the aliases that hold them, by tantivy, memory-mapped.

The builder writes it and the reader searches it with the same grams (`text.character_grams`). Rows are those
of the alias table. Thread-safe.
"""

import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray

from bioelx_mcp.text import character_grams
from bioelx_mcp.weak import weakly

_GRAMS, _ROW, _FACET = "grams", "row", "facet"
_WRITER_BYTES = 300_000_000
_WEIGHTS = 1 << 18  # that are remembered
# Share of a mention's weight that its rarest grams hold which are searched for: the common rest takes most of the time
# and finds nothing more (benchmarks/LOG.md).
_TELLING = 0.5
_BLOCK = 1 << 16  # names whose totals are summed at once
_LEAST = 1e-6  # weight of a mention and a name without grams
_NEWLINE = ord("\n")  # stands in no normalised name
_LETTER_BITS = 21  # of a Unicode character; three of them are one int64


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    # A gram stands in a name once, so that neither frequencies nor positions are kept.
    builder.add_text_field(_GRAMS, tokenizer_name="whitespace", index_option="basic")
    builder.add_integer_field(_ROW, fast=True)
    builder.add_integer_field(_FACET, indexed=True)
    return builder.build()


def write_lexicon(
    normalized: Iterable[str], directory: Path, facets: Iterable[int]
) -> NDArray[np.float32]:
    """Index normalised names in the order of their rows into an empty directory, as one segment.

    `facets` holds the facet (`filters.py`) of each name. The weight of all grams of each name comes back,
    float32 (names,), that `Lexicon.similarities` wants.
    """
    directory.mkdir(parents=True)
    writer = tantivy.Index(_schema(), str(directory)).writer(_WRITER_BYTES, 1)
    numbers: dict[str, int] = {}
    held, ends = array("i"), array("q")
    for row, (text, facet) in enumerate(zip(normalized, facets, strict=True)):
        grams = character_grams(text)
        writer.add_document(tantivy.Document(grams=" ".join(grams), row=row, facet=facet))
        held.extend(numbers.setdefault(gram, len(numbers)) for gram in grams)
        ends.append(len(held))
    writer.commit()
    writer.wait_merging_threads()
    for path in directory.iterdir():
        path.chmod(0o644)  # tantivy makes its list of files for one user alone
    return _totals(np.asarray(held), np.asarray(ends))


def _totals(held: NDArray[np.int32], ends: NDArray[np.int64]) -> NDArray[np.float32]:
    """Float32 (names,): the weights of the grams of each name, whose numbers stand in `held` up to its end."""
    weights = _weight(np.bincount(held), len(ends))
    totals = np.zeros(len(ends), dtype=np.float32)
    for start in range(0, len(ends), _BLOCK):
        stops = ends[start : start + _BLOCK]
        begin = ends[start - 1] if start else 0
        sums = np.concatenate([[0.0], np.cumsum(weights[held[begin : stops[-1]]])])
        totals[start : start + _BLOCK] = np.diff(sums[stops - begin], prepend=0.0)
    return totals


def _weight(held: Any, names: int) -> Any:
    """The inverse document frequency of grams that so many of the names hold; above 0."""
    return np.log((names + 1.0) / (held + 0.5))


class Lexicon:
    """An opened lexicon of `size` names."""

    def __init__(self, directory: Path) -> None:
        """Open it; a directory that cannot be written to is read through links, since tantivy locks by files.

        Raises:
            ValueError, OSError: it is broken, or not there.
        """
        if not os.access(directory, os.W_OK):
            links = Path(tempfile.mkdtemp(prefix="bioelx-lexicon-"))
            weakref.finalize(self, shutil.rmtree, links, ignore_errors=True)
            for path in directory.iterdir():
                if path.suffix != ".lock":
                    (links / path.name).symlink_to(path.absolute())
            directory = links
        self._index = tantivy.Index.open(str(directory))
        self._searcher = self._index.searcher()
        self._schema = self._index.schema
        self.size: int = self._searcher.num_docs
        self._unknown = float(_weight(0, self.size))  # of a gram that no name holds
        self.weight = lru_cache(maxsize=_WEIGHTS)(weakly(self._weight))

    def search(
        self, grams: Iterable[str], limit: int, facets: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Rows (at most `limit`,) of names that hold some of the grams, best BM25 first.

        Of all names those that hold one of the telling grams; of names of these `facets` any.
        """
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, _GRAMS, gram))
            for gram in (self._telling(grams) if facets is None else grams)
        ]
        if not terms:
            return np.empty(0, dtype=np.int64)
        query = tantivy.Query.boolean_query(terms)
        if facets is not None:
            among = tantivy.Query.term_set_query(self._schema, _FACET, facets.tolist())
            inside = tantivy.Query.const_score_query(among, 0.0)
            query = tantivy.Query.boolean_query(
                [(tantivy.Occur.Must, query), (tantivy.Occur.Must, inside)]
            )
        hits = self._searcher.search(query, limit, count=False).hits
        rows = self._searcher.fast_field_values(_ROW, [address for _, address in hits])
        return np.array(rows, dtype=np.int64)

    def similarities(
        self, grams: Iterable[str], names: Sequence[str], totals: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Float32 (len(names),) in [0, 1]: the Dice coefficient of these grams and those of normalised names.

        A gram counts by its weight; `totals` are the weights of all grams of each name.
        """
        grams = list(grams)
        weights = np.array([self.weight(gram) for gram in grams], dtype=np.float64)
        both = np.maximum(weights.sum() + totals, _LEAST)
        # Of a long name some grams are left out of the total, and yet found in it.
        shared = 2.0 * (_held(grams, names) @ weights)
        dice: NDArray[np.float32] = np.minimum(shared / both, 1.0).astype(np.float32)
        return dice

    def _telling(self, grams: Iterable[str]) -> list[str]:
        """The rarest of the grams that some name holds, which have most of their weight together."""
        weights = {gram: self.weight(gram) for gram in grams}
        known = (gram for gram in weights if weights[gram] < self._unknown)
        rarest = sorted(known, key=weights.__getitem__)[::-1]
        before = np.cumsum([0.0, *(weights[gram] for gram in rarest)])
        return rarest[: int(np.searchsorted(before, _TELLING * before[-1]))]

    def _weight(self, gram: str) -> float:
        return float(_weight(self._searcher.doc_freq(_GRAMS, gram), self.size))


def _held(grams: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    """Bool (names, grams): which normalised names hold which grams."""
    held = np.zeros((len(names), len(grams)), dtype=np.bool_)
    # Every two and three neighbouring letters of all names at once, each as one number.
    padded = "·" + "·\n·".join(names).replace(" ", "··") + "·"
    letters = np.frombuffer(padded.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    owner = np.cumsum(letters == _NEWLINE)
    windows = letters
    for size in (2, 3):
        windows = windows[:-1] << _LETTER_BITS | letters[size - 1 :]
        columns = np.array([i for i, gram in enumerate(grams) if len(gram) == size], dtype=np.int64)
        if len(columns):
            wanted = np.array([_packed(grams[i]) for i in columns])
            order = wanted.argsort()
            columns, wanted = columns[order], wanted[order]
            nearest = np.minimum(np.searchsorted(wanted, windows), len(wanted) - 1)
            found = np.flatnonzero(wanted[nearest] == windows)
            held[owner[found], columns[nearest[found]]] = True
    for column, gram in enumerate(grams):
        if len(gram) == 1:  # a gram of its own in a word of at most two letters
            held[:, column] = [_holds_letter(name, gram) for name in names]
    return held


def _packed(gram: str) -> int:
    """The letters of a gram as one number."""
    number = 0
    for letter in gram:
        number = number << _LETTER_BITS | ord(letter)
    return number


def _holds_letter(name: str, letter: str) -> bool:
    return letter in name and any(letter in word for word in name.split() if len(word) <= 2)
