"""Candidates to a ranking: one prompt a candidate, log-odds to probabilities, NIL below a threshold.

Without a backend, or when it fails, the retrieval order stands and the ranking says so.
"""

import asyncio
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

from bioelx_mcp.backends import Backend, Model, Prompts
from bioelx_mcp.backends.http import together
from bioelx_mcp.background import Background
from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.letters import SecondLook
from bioelx_mcp.prompt import PointwisePrompt
from bioelx_mcp.render import Description, fit_prompts
from bioelx_mcp.schema import Candidate, Mention, RankedCandidate, Ranking

RETRIEVAL = "retrieval"  # what a ranking names when no ranker ordered it
_IN_FLIGHT = 8  # mentions at a time
_REMEMBERED = 1 << 17  # scores
_TOO_LONG = re.compile(
    r"context|too (long|large)|max\w*[ _](model|length|tokens|context)", re.IGNORECASE
)
_FITS = 3  # a prompt that the server finds too long is halved twice

Items = Sequence[tuple[Mention, Sequence[Candidate]]]
Describe = Callable[[Sequence[Candidate]], list[Description]]
"""What is told of each of a mention's candidates."""


class Ranker:
    """Orders candidates with one prompt and one backend, and looks a second time where the best two are close.

    Thread-safe. Scores are remembered by model, prompt, mention in its context, and what is told of the candidate.
    """

    def __init__(
        self,
        describe: Describe,
        prompt: PointwisePrompt,
        backend: Backend | None = None,
        second: SecondLook | None = None,
    ) -> None:
        self._describe = describe
        self.prompt = prompt
        self.backend = backend
        self._second = second
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._starting = threading.Lock()
        self._background: Background | None = None

    def rank_candidates(self, items: Items, stop: threading.Event | None = None) -> list[Ranking]:
        """A ranking for each item, in order; each holds exactly the item's candidates. Never fails.

        Raises:
            CancelledError: `stop` was set; the requests in flight are closed.
        """
        if self.backend is None or not items:
            return [retrieval_ranking(mention, candidates) for mention, candidates in items]
        with self._starting:
            if self._background is None:
                others = [self._second.backend] if self._second else []
                self._background = Background(*(b.close for b in (self.backend, *others)))
        return self._background.run(self._rank_all(self.backend, items), stop)

    async def _rank_all(self, backend: Backend, items: Items) -> list[Ranking]:
        try:
            model = await backend.connect()
        except RankerBackendError as error:
            return [
                retrieval_ranking(mention, candidates, str(error) if candidates else "")
                for mention, candidates in items
            ]
        slots = asyncio.Semaphore(_IN_FLIGHT)
        silence: list[str] = []  # why, once the server is silent: the others do not wait for it

        async def rank(mention: Mention, candidates: Sequence[Candidate]) -> Ranking:
            async with slots:
                if not candidates:
                    return retrieval_ranking(mention, candidates)
                if silence:
                    return retrieval_ranking(mention, candidates, silence[0])
                try:
                    return await self._rank(backend, model, mention, candidates)
                except RankerBackendError as error:
                    if error.silent:
                        silence.append(str(error))
                    return retrieval_ranking(mention, candidates, str(error))

        return await together(rank(*item) for item in items)

    async def _rank(
        self, backend: Backend, model: Model, mention: Mention, candidates: Sequence[Candidate]
    ) -> Ranking:
        told = self._describe(candidates)
        log_odds = await self._score(backend, model, mention, told)
        calibration = self.prompt.calibrated(model.name)
        scaled = [round(value / calibration.temperature, 3) for value in log_odds]
        # By log-odds, since probabilities near 0 and 1 look alike; stable: ties keep the retrieval order.
        order = sorted(range(len(scaled)), key=lambda i: -scaled[i])
        ranked = [RankedCandidate(candidates[i], round(_sigmoid(scaled[i]), 4)) for i in order]
        fits = (ranked[0].rank_score or 0.0) >= calibration.nil_threshold
        ranking = Ranking(
            mention, tuple(ranked), ranked[0] if fits else None, f"{model.name}/{self.prompt.label}"
        )
        second = self._second
        if second is None or len(order) < 2:
            return ranking
        if scaled[order[0]] - scaled[order[1]] >= second.prompt.margin:
            return ranking
        try:
            return await _look_again(second, ranking, [told[i] for i in order])
        except RankerBackendError as error:
            return replace(ranking, degraded=f"no second look: {error}")

    async def _score(
        self, backend: Backend, model: Model, mention: Mention, told: Sequence[Description]
    ) -> list[float]:
        """Log-odds for each description; what the server finds too long is told shorter."""
        limit = model.max_tokens or self.prompt.max_tokens
        refusal: RankerBackendError | None = None
        for _ in range(_FITS):
            try:
                prompts = await fit_prompts(self.prompt, mention, told, limit, backend.count_tokens)
                return await self._recall(backend, model, prompts)
            except RankerBackendError as error:
                refusal = refusal or error
                if not _TOO_LONG.search(str(error)):
                    break
                longest = max(len((prompts.head + tail).encode()) for tail in prompts.tails)
                limit = min(limit, longest) // 2
        assert refusal is not None
        raise refusal

    async def _recall(self, backend: Backend, model: Model, prompts: Prompts) -> list[float]:
        """Log-odds for each document; only those are asked for that are not remembered."""
        shared = blake2b(
            "\0".join((model.name, self.prompt.label, prompts.head)).encode(), digest_size=16
        )
        keys = []
        for tail in prompts.tails:
            whole = shared.copy()
            whole.update(tail.encode())
            keys.append(whole.digest())
        new = [i for i, key in enumerate(keys) if key not in self._remembered]
        found = {key: self._remembered[key] for key in keys if key in self._remembered}
        if new:
            asked = replace(prompts, documents=tuple(prompts.documents[i] for i in new))
            weights = await backend.score_labels(asked)
            found |= {keys[i]: yes - no for i, (yes, no) in zip(new, weights, strict=True)}
        for key in keys:
            self._remembered[key] = found[key]
            self._remembered.move_to_end(key)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return [found[key] for key in keys]


async def _look_again(second: SecondLook, ranking: Ranking, told: Sequence[Description]) -> Ranking:
    """The ranking with its first candidates in the order of the second look; the others stay behind them."""
    most = second.prompt.candidates
    verdict, who = await second.choose(ranking.mention, told[:most])
    order = sorted(range(len(verdict.probabilities)), key=lambda i: -verdict.probabilities[i])
    first = [
        replace(ranking.candidates[i], rank_score=round(verdict.probabilities[i], 4)) for i in order
    ]
    least = first[-1].rank_score or 0.0
    rest = [
        replace(one, rank_score=min(one.rank_score or 0.0, least))
        for one in ranking.candidates[most:]
    ]
    nil = verdict.nil > max(verdict.probabilities)
    return Ranking(
        ranking.mention,
        (*first, *rest),
        None if nil else first[0],
        f"{ranking.ranker}+{who}",
        agreement=round(verdict.agreement, 4),
    )


def retrieval_ranking(
    mention: Mention, candidates: Sequence[Candidate], degraded: str = ""
) -> Ranking:
    """The candidates as retrieval ordered them; `best` is the first, there is no threshold to tell NIL."""
    ranked = tuple(RankedCandidate(candidate, None) for candidate in candidates)
    return Ranking(mention, ranked, ranked[0] if ranked else None, RETRIEVAL, degraded)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
