"""Lexicon: an inverted index from character grams to the aliases that hold them, by tantivy, memory-mapped.

The builder writes it and the reader searches it with the same grams (`text.character_grams`). Rows are those
of the alias table. Thread-safe.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from functools import lru_cache
from math import log
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray

from bioelx_mcp.text import character_grams

_GRAMS, _ROW, _FACET = "grams", "row", "facet"
_WRITER_BYTES = 300_000_000
_WEIGHTS = 1 << 18  # that are remembered


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    # A gram stands in a name once, so that neither frequencies nor positions are kept.
    builder.add_text_field(_GRAMS, tokenizer_name="whitespace", index_option="basic")
    builder.add_integer_field(_ROW, fast=True)
    builder.add_integer_field(_FACET, indexed=True)
    return builder.build()


def write_lexicon(normalized: Iterable[str], directory: Path, facets: Iterable[int]) -> None:
    """Index normalised names in the order of their rows into an empty directory, as one segment.

    `facets` holds the facet (`filters.py`) of each name.
    """
    directory.mkdir(parents=True)
    writer = tantivy.Index(_schema(), str(directory)).writer(_WRITER_BYTES, 1)
    for row, (text, facet) in enumerate(zip(normalized, facets, strict=True)):
        grams = " ".join(character_grams(text))
        writer.add_document(tantivy.Document(grams=grams, row=row, facet=facet))
    writer.commit()
    writer.wait_merging_threads()
    for path in directory.iterdir():
        path.chmod(0o644)  # tantivy makes its list of files for one user alone


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
        self.weight = lru_cache(maxsize=_WEIGHTS)(self._weight)

    def search(
        self, grams: Iterable[str], limit: int, facets: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Rows (at most `limit`,) of names of these facets that hold some of the grams, best BM25 first."""
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, _GRAMS, gram))
            for gram in grams
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

    def _weight(self, gram: str) -> float:
        """The inverse document frequency of a gram: log of names over names that hold it, above 0."""
        held = self._searcher.doc_freq(_GRAMS, gram)
        return log((self.size + 1.0) / (held + 0.5))
