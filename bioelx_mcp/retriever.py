"""Mention to candidates: channels, fusion, distinct concepts in a fixed order.

Three channels find aliases: exact (normalised text), lexical (character grams) and dense (encoder). Each
alias found is given both similarities, `fuse` makes one score of them, and a concept has its best alias's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.errors import UsageError
from bioelx_mcp.filters import Scope
from bioelx_mcp.index import AliasIndex, Rows, Similarities
from bioelx_mcp.schema import AliasHit, Candidate, Channel, Filters, Mention
from bioelx_mcp.text import MAX_NAME_LENGTH, character_grams, has_surrogate, normalize_alias

MAX_CANDIDATES = 1000
# Share of the cosine in the fused score, and what the cosine is worth where spelling says little. Both were
# chosen by benchmarks/tune_fusion.py.
DENSE_WEIGHT = 0.4
DENSE_ALONE = 0.65
# Aliases asked for, for each concept wanted: about as many as a concept has.
_HITS_PER_CANDIDATE = 8
_LEXICAL_HITS = 128  # at most: beyond them spelling says nothing (benchmarks/LOG.md)
_BATCH = 64


@dataclass(frozen=True)
class Evidence:
    """The aliases that the channels found for a mention: row i of each array is one alias.

    `cosine` and `lexical` (Dice of the character grams, rare ones weighing more) lie in [0, 1]; `exact` marks equal normalised text.
    """

    rows: Rows
    cosine: Similarities
    lexical: Similarities
    exact: NDArray[np.bool_]


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


def fuse(
    evidence: Evidence, dense_weight: float = DENSE_WEIGHT, dense_alone: float = DENSE_ALONE
) -> NDArray[np.float64]:
    """The score of each alias, in [0, 1], higher is better; 1 for the mention itself and nothing else.

    The weighted mean of both similarities, but no less than `dense_alone` times the cosine: names that
    mean the same in two scripts share no gram.
    """
    mean = dense_weight * evidence.cosine + (1.0 - dense_weight) * evidence.lexical
    weighted = np.maximum(mean, dense_alone * evidence.cosine)
    scores: NDArray[np.float64] = np.where(evidence.exact, 1.0, np.minimum(weighted, 0.999))
    return scores


class Retriever:
    """Searches one index."""

    def __init__(self, index: AliasIndex) -> None:
        self.index = index
        kinds = index.alias_kind
        synonyms = np.array([kind != "preferred" for kind in kinds.dictionary.to_pylist()])
        self._synonym: NDArray[np.bool_] = synonyms[kinds.indices.to_numpy()]

    def search_candidates(
        self, mentions: Sequence[Mention], limit: int = 10, filters: Filters | None = None
    ) -> list[list[Candidate]]:
        """For each mention at most `limit` distinct concepts, best first; fewer only if the filters leave fewer.

        A mention that is a concept id finds that concept. Order is by score, then by evidence: preferred
        names before synonyms, concepts of many aliases before those of few, then by concept id.

        Raises:
            UsageError: a mention is empty or too long, the limit is not within 1 and MAX_CANDIDATES, or the
                filters leave nothing.
        """
        if not 1 <= limit <= MAX_CANDIDATES:
            raise UsageError(f"limit is {limit}; it must lie within 1 and {MAX_CANDIDATES}")
        for mention in mentions:
            check_mention(mention.text)
        scope = self.index.scope(filters) if filters else None
        found: list[list[Candidate]] = []
        for start in range(0, len(mentions), _BATCH):
            texts = [mention.text for mention in mentions[start : start + _BATCH]]
            vectors = self.index.encoder.encode(texts)
            hits = limit * _HITS_PER_CANDIDATE
            dense = self.index.search_dense(vectors, hits, scope)
            for text, vector, near in zip(texts, vectors, dense, strict=True):
                found.append(self._search(text, vector, near, hits, limit, scope))
        return found

    def gather(
        self, text: str, near: tuple[Rows, Similarities], hits: int, scope: Scope | None = None
    ) -> Evidence:
        """What the channels find in scope for a mention; `near` is what the dense one found."""
        normalized = normalize_alias(text)
        grams = character_grams(normalized)
        exact = self.index.search_exact(normalized, scope)
        spelt = self.index.search_lexical(grams, min(hits, _LEXICAL_HITS), scope)
        rows = np.unique(np.concatenate([near[0], spelt, exact]))
        # An alias that only spelling found has no cosine at hand: it counts as the farthest one that has.
        cosine = np.full(len(rows), near[1].min(initial=1.0), dtype=np.float32)
        cosine[np.searchsorted(rows, near[0])] = near[1]
        weight = self.index.lexicon.weight
        mine = {gram: weight(gram) for gram in grams}
        total = sum(mine.values())
        lexical = np.zeros(len(rows), dtype=np.float32)
        for i, alias in enumerate(self.index.alias_normalized.take(rows).to_pylist()):
            theirs = character_grams(alias)
            shared = sum(mine.get(gram, 0.0) for gram in theirs)
            lexical[i] = 2.0 * shared / (total + sum(map(weight, theirs)) or 1.0)
        return Evidence(rows, cosine, lexical, np.isin(rows, exact))

    def order(self, evidence: Evidence, scores: NDArray[np.float64]) -> NDArray[np.intp]:
        """Positions in the evidence, one for each concept, best first."""
        rows = evidence.rows
        concepts = self.index.alias_concept[rows]
        many = -self.index.aliases_of_concept[concepts]
        by_worth = np.lexsort((rows, many, self._synonym[rows], -np.round(scores, 6)))
        _, first = np.unique(concepts[by_worth], return_index=True)
        return by_worth[np.sort(first)]

    def _search(
        self,
        text: str,
        vector: NDArray[np.float32],
        near: tuple[Rows, Similarities],
        hits: int,
        limit: int,
        scope: Scope | None,
    ) -> list[Candidate]:
        """The candidates of one mention; asks for more aliases until there are enough concepts."""
        manifest = self.index.manifest
        held = (manifest.concepts, manifest.aliases)
        concepts, aliases = held if scope is None else (scope.concept_count, scope.size)
        wanted = min(limit, concepts)
        while True:
            evidence = self.gather(text, near, hits, scope)
            scores = fuse(evidence)
            places = self.order(evidence, scores)
            if len(places) >= wanted or hits >= aliases:
                break
            hits *= 8
            near = self.index.search_dense(vector[None], hits, scope)[0]
        given = self.index.find_concept(text)
        if given is not None and scope is not None and not scope.concepts[given]:
            given = None
        candidates = [] if given is None else [self._given(given, text)]
        for place in places[:limit].tolist():
            concept = int(self.index.alias_concept[evidence.rows[place]])
            if concept != given:
                candidates.append(self._candidate(concept, evidence, place, float(scores[place])))
        return candidates[:limit]

    def _candidate(self, row: int, evidence: Evidence, place: int, score: float) -> Candidate:
        index = self.index
        concept = index.concept(row)
        alias = int(evidence.rows[place])
        similarity, channel = self._told(evidence, place)
        hit = AliasHit(
            alias=index.alias_text[alias].as_py(),
            language=index.alias_language[alias].as_py(),
            source=index.alias_source[alias].as_py(),
            channel=channel,
            similarity=round(similarity, 4),
        )
        return Candidate(
            concept.concept_id, concept.preferred_name, concept.semantic_types, round(score, 4), hit
        )

    @staticmethod
    def _told(evidence: Evidence, place: int) -> tuple[float, Channel]:
        """The channel that speaks loudest for an alias, and what it says."""
        if evidence.exact[place]:
            return 1.0, "exact"
        cosine, lexical = float(evidence.cosine[place]), float(evidence.lexical[place])
        return (lexical, "lexical") if lexical > cosine else (cosine, "dense")

    def _given(self, row: int, text: str) -> Candidate:
        concept = self.index.concept(row)
        hit = AliasHit(alias=text.strip(), language="", source="", channel="id", similarity=1.0)
        return Candidate(
            concept.concept_id, concept.preferred_name, concept.semantic_types, 1.0, hit
        )
