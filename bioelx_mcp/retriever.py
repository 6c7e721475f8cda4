"""Mention to candidates: channels, fusion, distinct concepts in a fixed order.

Three channels find aliases: exact (normalised text), lexical (character grams) and dense (encoder). Each
alias found is given both similarities; `fusion.py` makes concepts of them. An abbreviation that the context
defines is searched for in both forms.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.abbreviations import expand_abbreviations
from bioelx_mcp.errors import UsageError
from bioelx_mcp.filters import Scope
from bioelx_mcp.fusion import Evidence, fuse
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.language import speaks, wanted_languages
from bioelx_mcp.schema import AliasHit, Candidate, Filters, Mention
from bioelx_mcp.text import MAX_NAME_LENGTH, character_grams, has_surrogate, normalize_alias
from bioelx_mcp.vectors import Near, Rows
from bioelx_mcp.weak import weakly

MAX_CANDIDATES = 1000
# Aliases that the dense channel is asked for: more of them make the first concepts no better, and where they are of
# too few concepts it is asked again. Beyond so many of the lexical channel spelling says nothing (benchmarks/LOG.md).
_HITS_PER_CANDIDATE = 4
_LEAST_HITS = 96
_LEXICAL_HITS = 48
# An alias whose cosine is less says nothing, and Lance is faster without it; where there are too few others, it counts.
_LEAST_COSINE = 0.34
# What the abbreviation's own similarities are worth beside those of its definition.
_SHORT_FORM = 0.9
# Queries of one search of the channels: of many at most, at least, and into how many searches a call is cut on each core.
_BATCH, _LEAST_BATCH, _BATCHES = 256, 16, 2
_AHEAD = 4  # searches that are done or begun before their answers are wanted

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Query:
    """What is searched of a mention: its forms, the one that counts first and as it is given last, and its language."""

    texts: tuple[str, ...]
    language: str


@dataclass(frozen=True)
class Found:
    """What the channels found for one text: aliases that are it (`exact`), near by spelling (`spelt`), by meaning (`near`)."""

    grams: list[str]
    vector: NDArray[np.float32]
    exact: Rows
    spelt: Rows
    near: Near


@dataclass(frozen=True)
class Chosen:
    """Distinct concepts of a query, best first: row i of each array is one, with the row of its best alias.

    `given` is the concept whose id the mention is, if it is one; it goes before all.
    """

    given: list[Candidate]
    rows: Rows
    concepts: NDArray[np.int32]
    scores: NDArray[np.float64]
    similarities: NDArray[np.float64]
    channels: NDArray[np.str_]


def check_mention(text: str) -> None:
    """Raise UsageError for a mention that cannot be searched: empty, too long, or no Unicode text."""
    if not text.strip():
        raise UsageError("the mention is empty")
    if len(text) > MAX_NAME_LENGTH:
        raise UsageError(
            f"the mention has {len(text)} characters, at most {MAX_NAME_LENGTH} can be searched: {text[:40]!r}..."
        )
    if has_surrogate(text):
        raise UsageError(f"the mention holds a lone surrogate, no Unicode character: {text!a}")


class Retriever:
    """Searches one index."""

    def __init__(self, index: AliasIndex) -> None:
        self.index = index
        kinds = index.alias_kind.dictionary.to_pylist()
        self._preferred = np.array([kind == "preferred" for kind in kinds])  # by code
        self._speaking = lru_cache(maxsize=256)(weakly(self._speakers))

    def search_candidates(
        self, mentions: Sequence[Mention], limit: int = 10, filters: Filters | None = None
    ) -> list[list[Candidate]]:
        """For each mention at most `limit` distinct concepts, best first; fewer only if the filters leave fewer.

        A mention that is a concept id finds that concept. Order is that of `fusion.fuse`.

        Raises:
            UsageError: a mention is empty or too long, the limit is not within 1 and MAX_CANDIDATES, or the
                filters leave nothing.
        """
        if not 1 <= limit <= MAX_CANDIDATES:
            raise UsageError(f"limit is {limit}; it must lie within 1 and {MAX_CANDIDATES}")
        for mention in mentions:
            check_mention(mention.text)
        scope = self.index.scope(filters) if filters else None
        limit = min(limit, self.index.manifest.concepts if scope is None else scope.concept_count)
        asked = [Query(forms_of(mention), mention.language) for mention in mentions]
        queries = list(dict.fromkeys(asked))  # documents repeat their mentions
        found = dict(zip(queries, self._search_queries(queries, limit, scope), strict=True))
        return [list(found[query]) for query in asked]

    def _search_queries(
        self, queries: Sequence[Query], limit: int, scope: Scope | None
    ) -> list[list[Candidate]]:
        """The candidates of each query; of many, channels are searched ahead in other threads.

        Encoder, Lance and tantivy work outside of Python's lock, what is made of their answers mostly under it.
        """
        cores = os.cpu_count() or 1
        size = min(_BATCH, max(_LEAST_BATCH, -(-len(queries) // (_BATCHES * cores))))
        batches = [queries[start : start + size] for start in range(0, len(queries), size)]
        search = partial(self.search_channels, hits=_dense_hits(limit), scope=scope)
        with ThreadPoolExecutor(cores) as threads:
            # A thread would only delay a single mention.
            found = _ahead(threads, search, batches) if len(batches) > 1 else map(search, batches)
            return [
                candidates
                for batch, each in zip(batches, found, strict=True)
                for candidates in self._tell(
                    [self._choose(*one, limit, scope) for one in zip(batch, each, strict=True)]
                )
            ]

    def search_channels(
        self, queries: Sequence[Query], hits: int, scope: Scope | None = None
    ) -> list[tuple[Found, ...]]:
        """What is found in scope for each text of each query, `hits` aliases by the dense channel."""
        index = self.index
        texts = [text for query in queries for text in query.texts]
        vectors = index.encoder.encode(texts)

        def search(text: str, vector: NDArray[np.float32], near: Near) -> Found:
            normalized = normalize_alias(text)
            grams = character_grams(normalized)
            exact = index.search_exact(normalized, scope)
            spelt = index.search_lexical(grams, _LEXICAL_HITS, scope)
            return Found(grams, vector, exact, spelt, near)

        near = index.search_dense(vectors, hits, scope, _LEAST_COSINE)
        found = map(search, texts, vectors, near)
        return [tuple(islice(found, len(query.texts))) for query in queries]

    def gather(self, query: Query, found: Sequence[Found]) -> Evidence:
        """What is known of the aliases that the channels found for the texts of a query."""
        index = self.index
        exact = found[0].exact  # of what a mention is short for, not of the short form
        rows = np.unique(
            np.concatenate([exact, *(f.spelt for f in found), *(f.near[0] for f in found)])
        )
        cosine = np.zeros(len(rows), dtype=np.float32)
        lexical = np.zeros(len(rows), dtype=np.float32)
        for number, one in enumerate(found):
            worth = _SHORT_FORM if number else 1.0
            near, similarity = one.near
            # An alias that only spelling found has no cosine at hand: it counts as the farthest one that has.
            farthest = similarity[-1] if len(similarity) else _LEAST_COSINE
            near_by = np.full(len(rows), farthest, dtype=np.float32)
            near_by[np.searchsorted(rows, near)] = similarity
            cosine = np.maximum(cosine, worth * near_by)
            alike = index.lexical_similarities(one.grams, rows)
            lexical = np.maximum(lexical, worth * alike)
        return Evidence(
            rows=rows,
            concept=index.alias_concept[rows],
            cosine=cosine,
            lexical=lexical,
            exact=np.isin(rows, exact),
            preferred=self._preferred[index.kind_codes[rows]],
            spoken=self._speaking(query.language)[index.language_codes[rows]],
            renown=index.alias_renown[rows],
        )

    def _choose(
        self, query: Query, found: Sequence[Found], limit: int, scope: Scope | None
    ) -> Chosen:
        """The best concepts of one query; asks for more aliases until there are enough of them."""
        aliases = self.index.manifest.aliases if scope is None else scope.size
        hits, unbounded = _dense_hits(limit), 0  # asked for first; then whatever their cosine
        while True:
            evidence = self.gather(query, found)
            fused = fuse(evidence)
            if len(fused.places) >= limit or unbounded >= aliases:
                break
            hits = unbounded = hits * 8
            near = self.index.search_dense(np.stack([one.vector for one in found]), hits, scope)
            found = [replace(one, near=more) for one, more in zip(found, near, strict=True)]
        text = query.texts[-1]
        given = self.index.find_concept(text)
        if given is not None and scope is not None and not scope.concepts[given]:
            given = None
        first = [] if given is None else [self._given(given, text)]
        others = np.flatnonzero(evidence.concept[fused.places] != (-1 if given is None else given))
        others = others[: limit - len(first)]
        places = fused.places[others]
        cosine, lexical = evidence.cosine[places], evidence.lexical[places]
        exact = evidence.exact[places]
        return Chosen(
            first,
            evidence.rows[places],
            evidence.concept[places],
            fused.scores[others],
            np.where(exact, 1.0, np.maximum(cosine, lexical)),
            np.where(exact, "exact", np.where(lexical > cosine, "lexical", "dense")),
        )

    def _tell(self, chosen: Sequence[Chosen]) -> list[list[Candidate]]:
        """The candidates of each query; what an index holds of them is read for all at once."""
        rows = np.concatenate([one.rows for one in chosen])
        concepts = np.concatenate([one.concepts for one in chosen])
        told = zip(self.index.labels(concepts), self.index.aliases(rows), strict=True)
        return [
            one.given
            + [
                Candidate(*label, round(score, 4), AliasHit(*name, channel, round(similarity, 4)))
                for (label, name), score, channel, similarity in zip(
                    islice(told, len(one.rows)),
                    one.scores.tolist(),
                    one.channels.tolist(),
                    one.similarities.tolist(),
                    strict=True,
                )
            ]
            for one in chosen
        ]

    def _given(self, row: int, text: str) -> Candidate:
        hit = AliasHit(alias=text.strip(), language="", source="", channel="id", similarity=1.0)
        (label,) = self.index.labels(np.array([row]))
        return Candidate(*label, 1.0, hit)

    def _speakers(self, language: str) -> NDArray[np.bool_]:
        """Bool (languages,): the codes of aliases that are in a mention's language; none where that is unknown.

        Raises:
            UsageError: it is no BCP-47 tag.
        """
        tags = self.index.alias_language.dictionary.to_pylist()
        if not language:
            return np.zeros(len(tags), dtype=np.bool_)
        wanted = wanted_languages((language,))
        return np.array([speaks(tag, wanted) for tag in tags])


def forms_of(mention: Mention) -> tuple[str, ...]:
    """The mention, before it written out where its context defines an abbreviation in it."""
    long = expand_abbreviations(mention.text, mention.context)
    return (mention.text,) if long is None else (long[:MAX_NAME_LENGTH], mention.text)


def _dense_hits(limit: int) -> int:
    return max(_LEAST_HITS, limit * _HITS_PER_CANDIDATE)


def _ahead(threads: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What the work makes of each item, in order; at most `_AHEAD` of them wait to be taken."""
    begun: deque[Future[R]] = deque()
    for item in items:
        begun.append(threads.submit(work, item))
        if len(begun) > _AHEAD:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
