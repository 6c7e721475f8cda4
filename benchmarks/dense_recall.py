"""Recall of vectors alone: exact search, over distinct concepts, in the tables of a build.

An index is not needed, so that encoders can be compared that nobody would index a knowledge base with.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bioelx_mcp.evaluation.datasets import Query
from bioelx_mcp.evaluation.metrics import RECALL_AT, Outcome, average, summarize
from index_builder.tables import ALIASES_FILE, CONCEPTS_FILE

_BATCH = 64


@dataclass(frozen=True)
class Dictionary:
    """Names to search in, rows sorted by concept; `concept` (n,) numbers the concepts of the tables."""

    texts: list[str]
    concept: NDArray[np.int64]
    languages: list[str]
    sources: list[str]  # several joined by |
    numbers: dict[str, int]  # of a concept, by its id and its further ids

    def gold(self, query: Query) -> list[int]:
        return [self.numbers[one] for one in query.gold if one in self.numbers]

    def select(self, mask: NDArray[np.bool_]) -> "Dictionary":
        """Fewer names; the concepts keep their numbers, so what loses its last name can only be missed."""
        rows = np.flatnonzero(mask).tolist()
        texts, languages, sources = (
            [column[row] for row in rows] for column in (self.texts, self.languages, self.sources)
        )
        return Dictionary(texts, self.concept[mask], languages, sources, self.numbers)


def read_dictionary(
    tables: Path, queries: Sequence[Query] = (), others: int | None = None
) -> Dictionary:
    """The names of all concepts; with `others`, of the gold ones and as many more, always the same."""
    concepts = pq.read_table(tables / CONCEPTS_FILE, columns=["concept_id", "alt_ids"]).to_pydict()
    numbers: dict[str, int] = {}
    for row, (one, further) in enumerate(
        zip(concepts["concept_id"], concepts["alt_ids"], strict=True)
    ):
        for known in (one, *further):
            numbers.setdefault(known, row)
    columns = ["concept", "text", "language", "source"]
    aliases = pq.read_table(tables / ALIASES_FILE, columns=columns)
    concept = aliases["concept"].to_numpy().astype(np.int64)
    whole = Dictionary(
        aliases["text"].to_pylist(),
        concept,
        aliases["language"].to_pylist(),
        aliases["source"].to_pylist(),
        numbers,
    )
    if others is None:
        return whole
    gold = [number for query in queries for number in whole.gold(query)]
    drawn = np.random.default_rng(0).permutation(len(concepts["concept_id"]))[:others]
    return whole.select(np.isin(concept, np.concatenate([gold, drawn])))


def dense_recall(
    dictionary: Dictionary,
    names: NDArray[np.float32],
    mentions: NDArray[np.float32],
    queries: Sequence[Query],
    whole: Dictionary | None = None,
) -> dict[str, Any]:
    """Recall by language, averaged, and of the named and unnamed slices; both matrices have unit rows.

    Where the dictionary is a part of a `whole` one, that decides what is named.
    """
    starts = np.flatnonzero(np.diff(dictionary.concept, prepend=-1))
    owner = dictionary.concept[starts]
    spoken: dict[int, set[str]] = defaultdict(set)
    told = whole or dictionary
    for number, language in zip(told.concept.tolist(), told.languages, strict=True):
        spoken[number].add(language)
    slices: dict[str, list[Outcome]] = defaultdict(list)
    for begin in range(0, len(queries), _BATCH):
        part = slice(begin, begin + _BATCH)
        # a concept is as near as its nearest name
        near = np.maximum.reduceat(mentions[part] @ names.T, starts, axis=1)
        most = min(max(RECALL_AT), near.shape[1] - 1)
        top = np.argpartition(-near, most, axis=1)[:, :most]
        order = np.take_along_axis(-near, top, axis=1).argsort(axis=1, kind="stable")
        found = owner[np.take_along_axis(top, order, axis=1)]
        for query, row in zip(queries[part], found, strict=True):
            gold = dictionary.gold(query)
            right = np.flatnonzero(np.isin(row, gold))
            rank = int(right[0]) + 1 if len(right) else None
            outcome = Outcome(query.language, rank, bool(gold))
            slices[query.language].append(outcome)
            if gold:
                named = any(query.language in spoken[number] for number in gold)
                slices["named" if named else "unnamed"].append(outcome)
    parts = {part: summarize(slices.pop(part, [])) for part in ("named", "unnamed")}
    languages = {language: summarize(slices[language]) for language in sorted(slices)}
    return {"languages": languages, "average": average(list(languages.values())), **parts}
