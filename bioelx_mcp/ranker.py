"""Candidates to a ranking: one prompt a candidate, log-odds to probabilities, NIL below a threshold.

Without a backend, or when it fails, the retrieval order stands and the ranking says so.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bioelx_mcp.backends import Backend
from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.prompt import Prompt, render_document, render_query
from bioelx_mcp.schema import Candidate, Concept, Mention, RankedCandidate, Ranking

RETRIEVAL = "retrieval"  # what a ranking names when no ranker ordered it
_IN_FLIGHT = 8  # requests at a time

Describe = Callable[[Candidate], tuple[Concept, Sequence[str]]]
"""A candidate's concept, and names of it worth showing."""


class Ranker:
    """Orders candidates with one prompt and one backend."""

    def __init__(self, describe: Describe, prompt: Prompt, backend: Backend | None) -> None:
        self._describe = describe
        self.prompt = prompt
        self.backend = backend

    def rank_candidates(
        self, items: Sequence[tuple[Mention, Sequence[Candidate]]]
    ) -> list[Ranking]:
        """A ranking for each item, in order; each holds exactly the item's candidates. Never fails."""
        if self.backend is None or not items:
            return [retrieval_ranking(mention, candidates) for mention, candidates in items]
        silence: list[str] = []  # why, once the server is silent: the others do not wait for it
        with ThreadPoolExecutor(min(_IN_FLIGHT, len(items))) as pool:
            return list(pool.map(lambda item: self._rank(item[0], item[1], silence), items))

    def _rank(
        self, mention: Mention, candidates: Sequence[Candidate], silence: list[str]
    ) -> Ranking:
        assert self.backend is not None
        if not candidates or silence:
            reason = silence[0] if candidates else ""
            return retrieval_ranking(mention, candidates, degraded=reason)
        query = render_query(self.prompt, mention)
        documents = [
            render_document(self.prompt, *self._describe(candidate)) for candidate in candidates
        ]
        try:
            log_odds = self.backend.score_documents(query, documents)
            ranker = f"{self.backend.model}/{self.prompt.label}"
        except RankerBackendError as error:
            if error.silent:
                silence.append(str(error))
            return retrieval_ranking(mention, candidates, degraded=str(error))
        scaled = [round(value / self.prompt.temperature, 3) for value in log_odds]
        # By log-odds, since probabilities near 0 and 1 look alike; stable: ties keep the retrieval order.
        order = sorted(range(len(scaled)), key=lambda i: -scaled[i])
        ranked = [RankedCandidate(candidates[i], round(_sigmoid(scaled[i]), 4)) for i in order]
        top = ranked[0]
        fits = (top.rank_score or 0.0) >= self.prompt.nil_threshold
        return Ranking(mention, tuple(ranked), top if fits else None, ranker)


def retrieval_ranking(
    mention: Mention, candidates: Sequence[Candidate], degraded: str = ""
) -> Ranking:
    """The candidates as retrieval ordered them; `best` is the first, there is no threshold to tell NIL."""
    ranked = tuple(RankedCandidate(candidate, None) for candidate in candidates)
    return Ranking(mention, ranked, ranked[0] if ranked else None, RETRIEVAL, degraded)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
