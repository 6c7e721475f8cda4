"""Lexicon: an inverted index from character grams to the aliases that hold them, by tantivy, memory-mapped.

The builder writes it and the reader searches it with the same grams (`text.character_grams`). Rows are those
of the alias table; `totals.npy` holds the weight of all grams of each. Thread-safe.
"""

import operator
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

_GRAMS, _ROW = "grams", "row"
_WRITER_BYTES = 300_000_000
_WEIGHTS = 1 << 18  # that are remembered
# Share of a mention's weight that its rarest grams hold which are searched for: the common rest takes two
# thirds of the time and finds nothing more (benchmarks/LOG.md).
_TELLING = 0.8
_TOTALS = "totals.npy"
_BLOCK = 1 << 16  # names whose totals are summed at once


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    # A gram stands in a name once, so that neither frequencies nor positions are kept.
    builder.add_text_field(_GRAMS, tokenizer_name="whitespace", index_option="basic")
    builder.add_integer_field(_ROW, fast=True)
    return builder.build()


def write_lexicon(normalized: Iterable[str], directory: Path) -> None:
    """Index normalised names in the order of their rows into an empty directory, as one segment."""
    directory.mkdir(parents=True)
    writer = tantivy.Index(_schema(), str(directory)).writer(_WRITER_BYTES, 1)
    numbers: dict[str, int] = {}
    held, ends = array("i"), array("q")
    for row, text in enumerate(normalized):
        grams = character_grams(text)
        writer.add_document(tantivy.Document(grams=" ".join(grams), row=row))
        held.extend(numbers.setdefault(gram, len(numbers)) for gram in grams)
        ends.append(len(held))
    writer.commit()
    writer.wait_merging_threads()
    np.save(directory / _TOTALS, _totals(np.asarray(held), np.asarray(ends)))
    for path in directory.iterdir():
        path.chmod(0o644)  # tantivy makes its list of files for one user alone


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
        self._totals = np.load(directory / _TOTALS, mmap_mode="r")
        if self._totals.shape != (self.size,):
            raise ValueError(f"{_TOTALS} holds {self._totals.shape} weights of {self.size} names")
        self.weight = lru_cache(maxsize=_WEIGHTS)(self._weight)

    def search(self, grams: Iterable[str], limit: int) -> NDArray[np.int64]:
        """Rows (at most `limit`,) of names that hold some of the telling grams, best BM25 first."""
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, _GRAMS, gram))
            for gram in self._telling(grams)
        ]
        if not terms:
            return np.empty(0, dtype=np.int64)
        hits = self._searcher.search(tantivy.Query.boolean_query(terms), limit, count=False).hits
        rows = self._searcher.fast_field_values(_ROW, [address for _, address in hits])
        return np.array(rows, dtype=np.int64)

    def similarities(
        self, grams: Iterable[str], rows: NDArray[np.int64], names: Sequence[str]
    ) -> NDArray[np.float32]:
        """Float32 (len(rows),) in [0, 1]: the Dice coefficient of these grams and those of names by row.

        A gram counts by its weight. `names` are the normalised names of the rows.
        """
        weights = {gram: self.weight(gram) for gram in grams}
        padded = ["·" + name.replace(" ", "··") + "·" for name in names]
        shared = np.zeros(len(rows))
        for gram, weight in weights.items():
            holds = _holds_letter if len(gram) == 1 else operator.contains
            shared += weight * np.fromiter((holds(name, gram) for name in padded), bool, len(rows))
        totals = sum(weights.values()) + self._totals[rows]
        with np.errstate(invalid="ignore"):
            dice = np.nan_to_num(2.0 * shared / totals)
        return np.minimum(dice, 1.0).astype(np.float32)  # of a long name some grams are left out

    def _telling(self, grams: Iterable[str]) -> list[str]:
        """The rarest of the grams, that hold most of their weight together."""
        rarest = sorted(grams, key=self.weight, reverse=True)
        before = np.cumsum([0.0, *map(self.weight, rarest)])
        return rarest[: int(np.searchsorted(before, _TELLING * before[-1]))]

    def _weight(self, gram: str) -> float:
        return float(_weight(self._searcher.doc_freq(_GRAMS, gram), self.size))


def _holds_letter(padded: str, letter: str) -> bool:
    """Whether a letter is a gram of its own: in a word of at most two."""
    return letter in padded and any(letter in w for w in padded.split("·") if len(w) <= 2)
