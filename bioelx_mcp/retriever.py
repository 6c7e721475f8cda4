"""Mention to candidates: channels, fusion, distinct concepts in a fixed order.

Three channels find aliases: exact (normalised text), lexical (character grams) and dense (encoder). Each
alias found is given both similarities; `fusion.py` makes concepts of them. An abbreviation that the context
defines is searched for in both forms.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.abbreviations import expand_abbreviations
from bioelx_mcp.errors import UsageError
from bioelx_mcp.fusion import Evidence, fuse
from bioelx_mcp.index import AliasIndex, Rows, Similarities
from bioelx_mcp.schema import AliasHit, Candidate, Channel, Mention
from bioelx_mcp.text import MAX_NAME_LENGTH, character_grams, has_surrogate, normalize_alias

MAX_CANDIDATES = 1000
# Aliases that the dense channel is asked for: about as many as the concepts wanted have, and never few, so that a
# longer list begins as a shorter one does.
_HITS_PER_CANDIDATE = 8
_LEAST_HITS = 256
_LEXICAL_HITS = 128  # beyond them spelling says nothing (benchmarks/LOG.md)
_SHORT_FORM = 0.9  # what the abbreviation's own similarities are worth beside those of its definition
_BATCH = 64

Near = tuple[Rows, Similarities]  # what the dense channel found for one text


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
        kinds = index.alias_kind
        preferred = np.array([kind == "preferred" for kind in kinds.dictionary.to_pylist()])
        self._preferred: NDArray[np.bool_] = preferred[kinds.indices.to_numpy()]

    def search_candidates(
        self, mentions: Sequence[Mention], limit: int = 10
    ) -> list[list[Candidate]]:
        """For each mention at most `limit` distinct concepts, best first; fewer only if the index holds fewer.

        A mention that is a concept id finds that concept. Order is that of `fusion.fuse`.

        Raises:
            UsageError: a mention is empty or too long, or the limit is not within 1 and MAX_CANDIDATES.
        """
        if not 1 <= limit <= MAX_CANDIDATES:
            raise UsageError(f"limit is {limit}; it must lie within 1 and {MAX_CANDIDATES}")
        for mention in mentions:
            check_mention(mention.text)
        found: list[list[Candidate]] = []
        for start in range(0, len(mentions), _BATCH):
            forms = [_forms(mention) for mention in mentions[start : start + _BATCH]]
            vectors = self.index.encoder.encode([text for texts in forms for text in texts])
            near = self.index.search_dense(vectors, _dense_hits(limit))
            row = 0
            for texts in forms:
                stop = row + len(texts)
                found.append(self._search(texts, vectors[row:stop], near[row:stop], limit))
                row = stop
        return found
    def gather(
        self, texts: Sequence[str], near: Sequence[Near], language: str = ""
    ) -> Evidence:
        """What the channels find for the forms of a mention, the one that counts first.

        `near` is what the dense channel found for each form, `language` that of the mention, if known.
        """
        index = self.index
        normalized = [normalize_alias(text) for text in texts]
        grams = [character_grams(name) for name in normalized]
        exact = index.search_exact(normalized[0])
        spelt = [index.search_lexical(each, _LEXICAL_HITS) for each in grams]
        rows = np.unique(np.concatenate([exact, *spelt, *(found for found, _ in near)]))
        names = index.alias_normalized.take(rows).to_pylist()
        cosine = np.zeros(len(rows), dtype=np.float32)
        lexical = np.zeros(len(rows), dtype=np.float32)
        for number, (found, similarity) in enumerate(near):
            worth = _SHORT_FORM if number else 1.0
            # An alias that only spelling found has no cosine at hand: it counts as the farthest one that has.
            each = np.full(len(rows), similarity.min(initial=1.0), dtype=np.float32)
            each[np.searchsorted(rows, found)] = similarity
            cosine = np.maximum(cosine, worth * each)
            dice = index.lexicon.similarities(grams[number], rows, names)
            lexical = np.maximum(lexical, worth * dice)
        concept = index.alias_concept[rows]
        return Evidence(
            rows=rows,
            concept=concept,
            cosine=cosine,
            lexical=lexical,
            exact=np.isin(rows, exact),
            preferred=self._preferred[rows],
            spoken=self._spoken(language)[index.alias_language.indices.to_numpy()[rows]],
            renown=index.renown[concept],
        )

    def _search(
        self, texts: Sequence[str], vectors: NDArray[np.float32], near: Sequence[Near], limit: int
    ) -> list[Candidate]:
        """The candidates of one mention; asks for more aliases until there are enough concepts."""
        wanted = min(limit, self.index.manifest.concepts)
        hits = _dense_hits(limit)
        while True:
            evidence = self.gather(texts, near)
            fused = fuse(evidence)
            if len(fused.places) >= wanted or hits >= self.index.manifest.aliases:
                break
            hits *= 8
            near = self.index.search_dense(vectors, hits)
        given = self.index.find_concept(texts[-1])
        candidates = [] if given is None else [self._given(given, texts[-1])]
        for place, score in zip(fused.places[:limit].tolist(), fused.scores.tolist(), strict=False):
            if evidence.concept[place] != given:
                candidates.append(self._candidate(evidence, place, score))
        return candidates[:limit]

    def _candidate(self, evidence: Evidence, place: int, score: float) -> Candidate:
        index = self.index
        concept = index.concept(int(evidence.concept[place]))
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


def _forms(mention: Mention) -> list[str]:
    """The mention, behind it written out where its context defines an abbreviation in it."""
    long = expand_abbreviations(mention.text, mention.context)
    return [mention.text] if long is None else [long[:MAX_NAME_LENGTH], mention.text]


def _dense_hits(limit: int) -> int:
    return max(_LEAST_HITS, limit * _HITS_PER_CANDIDATE)
