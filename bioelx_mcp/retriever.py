"""Mention to candidates: channels, fusion, distinct concepts in a fixed order.

Three channels find aliases: exact (normalised text), lexical (character grams) and dense (encoder). Each
alias found is given both similarities; `fusion.py` makes concepts of them. An abbreviation that the context
defines is searched for in both forms.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.abbreviations import expand_abbreviations
from bioelx_mcp.errors import UsageError
from bioelx_mcp.filters import Scope
from bioelx_mcp.fusion import Evidence, fuse
from bioelx_mcp.index import AliasIndex
from bioelx_mcp.language import speaks, wanted_languages
from bioelx_mcp.schema import AliasHit, Candidate, Channel, Filters, Mention
from bioelx_mcp.text import MAX_NAME_LENGTH, character_grams, has_surrogate, normalize_alias
from bioelx_mcp.vectors import Near
from bioelx_mcp.weak import weakly

MAX_CANDIDATES = 1000
# Aliases that the dense channel is asked for: more of them make the first concepts no better, and where they are of
# too few concepts it is asked again. Beyond so many of the lexical channel spelling says nothing (benchmarks/LOG.md).
_HITS_PER_CANDIDATE = 4
_LEAST_HITS = 128
_LEXICAL_HITS = 64
# What the abbreviation's own similarities are worth beside those of its definition.
_SHORT_FORM = 0.9
_BATCH = 256  # queries at most of one search; a thread each
_LEAST_BATCH = 32


@dataclass(frozen=True)
class Query:
    """What is searched of a mention: its forms, the one that counts first and as it is given last, and its language."""

    texts: tuple[str, ...]
    language: str


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
        """The candidates of each query; many are searched in batches, a thread each."""
        workers = (os.cpu_count() or 1) + 1  # one of them waits for Python's lock
        size = min(_BATCH, max(_LEAST_BATCH, -(-len(queries) // workers)))
        batches = [queries[start : start + size] for start in range(0, len(queries), size)]
        if len(batches) <= 1:
            return self._search_batch(queries, limit, scope) if batches else []
        # Encoder, Lance and tantivy work outside of Python's lock.
        with ThreadPoolExecutor(workers) as threads:
            found = threads.map(lambda batch: self._search_batch(batch, limit, scope), batches)
            return [candidates for batch in found for candidates in batch]

    def _search_batch(
        self, queries: Sequence[Query], limit: int, scope: Scope | None
    ) -> list[list[Candidate]]:
        vectors = self.index.encoder.encode([text for query in queries for text in query.texts])
        near = self.index.search_dense(vectors, _dense_hits(limit), scope)
        found: list[list[Candidate]] = []
        row = 0
        for query in queries:
            stop = row + len(query.texts)
            found.append(self._search(query, vectors[row:stop], near[row:stop], limit, scope))
            row = stop
        return found

    def gather(self, query: Query, near: Sequence[Near], scope: Scope | None = None) -> Evidence:
        """What the channels find in scope; `near` is what the dense one found for each text of the query."""
        index = self.index
        normalized = [normalize_alias(text) for text in query.texts]
        grams = [character_grams(name) for name in normalized]
        exact = index.search_exact(normalized[0], scope)
        spelt = [index.search_lexical(each, _LEXICAL_HITS, scope) for each in grams]
        rows = np.unique(np.concatenate([exact, *spelt, *(found for found, _ in near)]))
        cosine = np.zeros(len(rows), dtype=np.float32)
        lexical = np.zeros(len(rows), dtype=np.float32)
        for number, (found, similarity) in enumerate(near):
            worth = _SHORT_FORM if number else 1.0
            # An alias that only spelling found has no cosine at hand: it counts as the farthest one that has.
            near_by = np.full(len(rows), similarity.min(initial=1.0), dtype=np.float32)
            near_by[np.searchsorted(rows, found)] = similarity
            cosine = np.maximum(cosine, worth * near_by)
            alike = index.lexical_similarities(grams[number], rows)
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

    def _search(
        self,
        query: Query,
        vectors: NDArray[np.float32],
        near: Sequence[Near],
        limit: int,
        scope: Scope | None,
    ) -> list[Candidate]:
        """The candidates of one query; asks for more aliases until there are enough concepts."""
        aliases = self.index.manifest.aliases if scope is None else scope.size
        hits = _dense_hits(limit)
        while True:
            evidence = self.gather(query, near, scope)
            fused = fuse(evidence)
            if len(fused.places) >= limit or hits >= aliases:
                break
            hits *= 8
            near = self.index.search_dense(vectors, hits, scope)
        text = query.texts[-1]
        given = self.index.find_concept(text)
        if given is not None and scope is not None and not scope.concepts[given]:
            given = None
        candidates = [] if given is None else [self._given(given, text)]
        for place, score in zip(fused.places[:limit].tolist(), fused.scores.tolist(), strict=False):
            if evidence.concept[place] != given:
                candidates.append(self._candidate(evidence, place, score))
        return candidates[:limit]

    def _candidate(self, evidence: Evidence, place: int, score: float) -> Candidate:
        similarity, channel = self._told(evidence, place)
        hit = self.index.hit(int(evidence.rows[place]), channel, round(similarity, 4))
        label = self.index.label(int(evidence.concept[place]))
        return Candidate(*label, round(score, 4), hit)

    @staticmethod
    def _told(evidence: Evidence, place: int) -> tuple[float, Channel]:
        """The channel that speaks loudest for an alias, and what it says."""
        if evidence.exact[place]:
            return 1.0, "exact"
        cosine, lexical = float(evidence.cosine[place]), float(evidence.lexical[place])
        return (lexical, "lexical") if lexical > cosine else (cosine, "dense")

    def _given(self, row: int, text: str) -> Candidate:
        hit = AliasHit(alias=text.strip(), language="", source="", channel="id", similarity=1.0)
        return Candidate(*self.index.label(row), 1.0, hit)

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
