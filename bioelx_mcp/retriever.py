"""Mention to candidates: channels, fusion, distinct concepts in a fixed order.

Three channels find aliases: exact (normalised text), lexical (character grams) and dense (encoder). Each
alias found gets a score from both its similarities, each concept the best of its aliases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bioelx_mcp.errors import UsageError
from bioelx_mcp.index import AliasIndex, Rows, Similarities
from bioelx_mcp.schema import AliasHit, Candidate, Channel, Mention
from bioelx_mcp.text import MAX_NAME_LENGTH, character_grams, normalize_alias

MAX_CANDIDATES = 1000
DENSE_WEIGHT = 0.6  # of the fused score; the lexical similarity has the rest
_HITS_PER_CANDIDATE = (
    8  # aliases asked for, for each concept wanted; about the aliases of a concept
)
_BATCH = 64


@dataclass(frozen=True, slots=True)
class _Scored:
    """An alias found for a mention, with what orders it among others."""

    row: int
    score: float
    channel: Channel
    similarity: float


def check_mention(text: str) -> None:
    """Raise UsageError for a mention that cannot be searched: empty, or over MAX_NAME_LENGTH characters."""
    if not text.strip():
        raise UsageError("the mention is empty")
    if len(text) > MAX_NAME_LENGTH:
        raise UsageError(
            f"the mention has {len(text)} characters, at most {MAX_NAME_LENGTH} can be searched: {text[:40]!r}..."
        )


def fuse(dense: float, lexical: float) -> float:
    """The score of an alias that is not the mention itself, in [0, 1)."""
    return min(DENSE_WEIGHT * dense + (1.0 - DENSE_WEIGHT) * lexical, 0.999)


class Retriever:
    """Searches one index."""

    def __init__(self, index: AliasIndex) -> None:
        self.index = index

    def search_candidates(
        self, mentions: Sequence[Mention], limit: int = 10
    ) -> list[list[Candidate]]:
        """For each mention at most `limit` distinct concepts, best first; fewer only if the index holds fewer.

        A mention that is a concept id finds that concept. Order is by score, then by evidence: preferred
        names before synonyms, concepts of many aliases before those of few, then by concept id.

        Raises:
            UsageError: a mention is empty or too long, or the limit is not within 1 and MAX_CANDIDATES.
        """
        if not 1 <= limit <= MAX_CANDIDATES:
            raise UsageError(f"limit is {limit}; it must lie within 1 and {MAX_CANDIDATES}")
        for mention in mentions:
            check_mention(mention.text)
        found: list[list[Candidate]] = []
        for start in range(0, len(mentions), _BATCH):
            texts = [mention.text for mention in mentions[start : start + _BATCH]]
            vectors = self.index.encoder.encode(texts)
            hits = limit * _HITS_PER_CANDIDATE
            dense = self.index.search_dense(vectors, hits)
            for text, vector, near in zip(texts, vectors, dense, strict=True):
                candidates = self._candidates(text, near, hits, limit)
                wanted = min(limit, self.index.manifest.concepts)
                more = hits
                while len(candidates) < wanted and more < self.index.manifest.aliases:
                    more *= 8
                    near = self.index.search_dense(vector[None], more)[0]
                    candidates = self._candidates(text, near, more, limit)
                found.append(candidates)
        return found

    def _candidates(
        self, text: str, near: tuple[Rows, Similarities], hits: int, limit: int
    ) -> list[Candidate]:
        best: dict[int, _Scored] = {}
        for scored in self._scored_aliases(text, near, hits):
            concept = int(self.index.alias_concept[scored.row])
            if concept not in best or self._order(scored) < self._order(best[concept]):
                best[concept] = scored
        ordered = sorted(best.items(), key=lambda item: (*self._order(item[1]), item[0]))
        given = self.index.find_concept(text)
        candidates = [] if given is None else [self._given(given, text)]
        candidates += [
            self._candidate(concept, scored) for concept, scored in ordered if concept != given
        ]
        return candidates[:limit]

    def _scored_aliases(
        self, text: str, near: tuple[Rows, Similarities], hits: int
    ) -> list[_Scored]:
        normalized = normalize_alias(text)
        grams = set(character_grams(normalized))
        dense = dict(zip(near[0].tolist(), near[1].tolist(), strict=True))
        # An alias that only spelling found has no cosine at hand: it counts as the farthest one that has.
        floor = min(dense.values(), default=0.0)
        exact = set(self.index.search_exact(normalized).tolist()) if normalized else set()
        scored = [_Scored(row, 1.0, "exact", 1.0) for row in exact]
        rows = np.union1d(near[0], self.index.search_lexical(normalized, min(hits, 256)))
        texts = self.index.alias_normalized.take(rows).to_pylist()
        for row, alias in zip(rows.tolist(), texts, strict=True):
            if row in exact:
                continue
            theirs = character_grams(alias)
            lexical = 2.0 * len(grams.intersection(theirs)) / (len(grams) + len(theirs) or 1)
            cosine = dense.get(row)
            channel: Channel = "lexical" if cosine is None or lexical > cosine else "dense"
            shown = lexical if channel == "lexical" else float(cosine or 0.0)
            scored.append(
                _Scored(row, fuse(floor if cosine is None else cosine, lexical), channel, shown)
            )
        return scored

    def _order(self, scored: _Scored) -> tuple[float, bool, int, int]:
        """What decides between two aliases, smaller first."""
        index = self.index
        concept = index.alias_concept[scored.row]
        preferred = index.alias_kind[scored.row].as_py() == "preferred"
        return (
            -round(scored.score, 6),
            not preferred,
            -int(index.aliases_of_concept[concept]),
            scored.row,
        )

    def _candidate(self, row: int, scored: _Scored) -> Candidate:
        index = self.index
        concept = index.concept(row)
        hit = AliasHit(
            alias=index.alias_text[scored.row].as_py(),
            language=index.alias_language[scored.row].as_py(),
            source=index.alias_source[scored.row].as_py(),
            channel=scored.channel,
            similarity=round(scored.similarity, 4),
        )
        score = round(scored.score, 4)
        return Candidate(
            concept.concept_id, concept.preferred_name, concept.semantic_types, score, hit
        )

    def _given(self, row: int, text: str) -> Candidate:
        concept = self.index.concept(row)
        hit = AliasHit(alias=text.strip(), language="", source="", channel="id", similarity=1.0)
        return Candidate(
            concept.concept_id, concept.preferred_name, concept.semantic_types, 1.0, hit
        )
