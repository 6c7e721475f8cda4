"""What is asked of the Linker and what counts as a rank: our own protocol, and those of published numbers.

`distinct` ranks distinct concepts, as the Linker gives them, with the mention's context. `published` ranks names of
the dense channel alone, without context: as SapBERT scores XL-BEL (Liu et al., ACL 2021; evaluation code of the
authors) and CODER scores Mantra GSC (Yuan et al., 2022; test/mantra of the authors). One difference stays: the
encoder's graph ends in a unit norm, so names are compared by cosine where SapBERT takes the plain dot product.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.errors import UsageError
from bioelx_mcp.evaluation.datasets import Query
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.linker import Linker
from bioelx_mcp.ranker import retrieval_ranking
from bioelx_mcp.retriever import check_mention
from bioelx_mcp.schema import AliasHit, Candidate, Mention, RankedCandidate, Ranking

LIMIT = 64
RANKED = 10
_COMPOSITE = re.compile(r"[|+]")
_BLOCK = 32


class Scoring(Protocol):
    """A way to ask and to count. `answer` gives each query a ranking, or one for each part of a composite mention."""

    name: str

    def queries(self, queries: Sequence[Query]) -> list[Query]: ...

    def answer(self, mentions: Sequence[Mention]) -> list[list[Ranking]]: ...


class DistinctConcepts:
    """Ranks of distinct concepts: `Linker.search`, the first `ranked` of it ordered by the ranker."""

    name = "distinct"

    def __init__(self, linker: Linker, *, limit: int = LIMIT, ranked: int = 0) -> None:
        self._linker = linker
        self._limit = limit
        self._ranked = ranked

    def queries(self, queries: Sequence[Query]) -> list[Query]:
        return list(queries)

    def answer(self, mentions: Sequence[Mention]) -> list[list[Ranking]]:
        """A ranking a mention; one that cannot be searched (it is too long) has no candidate."""
        searchable = [mention for mention in mentions if _searchable(mention)]
        found = self._linker.search(searchable, self._limit)
        if self._ranked:
            heads = [candidates[: self._ranked] for candidates in found]
            rankings = [
                replace(ranking, candidates=ranking.candidates + _unranked(c[self._ranked :]))
                for ranking, c in zip(
                    self._linker.rank(zip(searchable, heads, strict=True)), found, strict=True
                )
            ]
        else:
            rankings = [
                retrieval_ranking(mention, candidates)
                for mention, candidates in zip(searchable, found, strict=True)
            ]
        known = dict(zip(searchable, rankings, strict=True))
        return [[known.get(mention) or retrieval_ranking(mention, ())] for mention in mentions]


@dataclass(frozen=True)
class NameRules:
    """How a published protocol differs.

    Attributes:
        lower: the names are lower-cased; the mentions are not.
        composite: a mention is split at `|` and `+`, and is right where every part is.
        each_gold: each annotation is a query of its own, with one gold id.
        english_of: only English names of these vocabularies are searched.
    """

    lower: bool = False
    composite: bool = False
    each_gold: bool = False
    english_of: frozenset[str] = frozenset()


PUBLISHED = {
    "xlbel": NameRules(lower=True, composite=True),
    "mantra": NameRules(
        each_gold=True,
        english_of=frozenset({"msh", "mesh", "snomedct_us", "snomedct", "mdr", "meddra"}),
    ),
}


class PublishedNames:
    """Ranks of names by the encoder alone; a concept stands as often as it has names that near."""

    name = "published"

    def __init__(self, linker: Linker, dataset: str, *, limit: int = LIMIT) -> None:
        """Encode the names of the index that the protocol searches: minutes for a million.

        Raises:
            UsageError: no protocol is published for this dataset, or the index has none of its names.
        """
        rules = PUBLISHED.get(dataset)
        if rules is None:
            known = ", ".join(PUBLISHED)
            raise UsageError(f"no published protocol for {dataset!r}; there are those of {known}")
        self._index = linker.index
        self._rules = rules
        self._rows = _rows(self._index, rules.english_of)
        if not len(self._rows):
            wanted = ", ".join(sorted(rules.english_of))
            raise UsageError(
                f"index {linker.manifest.index_id} has no English name of {wanted}, "
                f"which the published protocol of {dataset} searches"
            )
        names = self._index.alias_text.take(self._rows).to_pylist()
        if rules.lower:
            names = [name.lower() for name in names]
        distinct = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self._name = np.array([distinct[name] for name in names])
        self._vectors = self._index.encoder.encode(list(distinct))
        self._limit = min(limit, len(self._rows))

    def queries(self, queries: Sequence[Query]) -> list[Query]:
        if not self._rules.each_gold:
            return list(queries)
        return [
            replace(query, gold=frozenset({gold}))
            for query in queries
            for gold in sorted(query.gold)
        ]

    def answer(self, mentions: Sequence[Mention]) -> list[list[Ranking]]:
        """Rankings of names; a concept may stand in them several times."""
        split = [
            [part for part in _COMPOSITE.split(m.text) if part.strip()] or [m.text]
            if self._rules.composite
            else [m.text]
            for m in mentions
        ]
        flat = [part for parts in split for part in parts]
        found: list[Ranking] = []
        for start in range(0, len(flat), _BLOCK):
            vectors = self._index.encoder.encode(flat[start : start + _BLOCK])
            scores = (vectors @ self._vectors.T)[:, self._name]
            found += [self._ranking(*one) for one in zip(flat[start:], scores, strict=False)]
        answers = iter(found)
        return [[next(answers) for _ in parts] for parts in split]

    def _ranking(self, text: str, scores: NDArray[np.float32]) -> Ranking:
        near = np.argpartition(-scores, self._limit - 1)[: self._limit]
        near = near[np.lexsort((near, -scores[near]))]
        index, rows = self._index, self._rows[near]
        candidates = []
        shown = zip(index.labels(index.alias_concept[rows]), index.aliases(rows), strict=True)
        for (label, alias), cosine in zip(shown, np.clip(scores[near], 0, 1).tolist(), strict=True):
            score = round(cosine, 4)
            candidates.append(Candidate(*label, score, AliasHit(*alias, "dense", score)))
        return retrieval_ranking(Mention(text), candidates)


def _rows(index: AliasIndex, english_of: frozenset[str]) -> NDArray[np.int64]:
    """The rows of the aliases that a protocol searches."""
    if not english_of:
        return np.arange(len(index.alias_text))
    sources, languages = index.alias_source, index.alias_language
    source = [bool(english_of & set(s.lower().split("|"))) for s in sources.dictionary.to_pylist()]
    english = [language.partition("-")[0] == "en" for language in languages.dictionary.to_pylist()]
    wanted = (
        np.array(source)[sources.indices.to_numpy()]
        & np.array(english)[languages.indices.to_numpy()]
    )
    return np.flatnonzero(wanted)


def _unranked(candidates: Sequence[Candidate]) -> tuple[RankedCandidate, ...]:
    return tuple(RankedCandidate(candidate, None) for candidate in candidates)


def _searchable(mention: Mention) -> bool:
    try:
        check_mention(mention.text)
    except UsageError:
        return False
    return True
