"""Ranking: a permutation of the candidates, probabilities, NIL, and what happens without a server."""

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import ModelServer, Reply, Request, Script, vllm_reranker

from bioelx_mcp.backends import Model, Prompts, count_bytes
from bioelx_mcp.backends.http import HttpServer
from bioelx_mcp.backends.probe import ProbingBackend
from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.prompt import PointwisePrompt, load_prompt
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.render import Description
from bioelx_mcp.schema import AliasHit, Candidate, Mention, Ranking

PROMPT = load_prompt("qwen3-reranker", PointwisePrompt)
MENTION = Mention("RF", "a child with RF")


def candidates(count: int) -> list[Candidate]:
    hit = AliasHit("RF", "en", "made", "exact", 1.0)
    return [Candidate(f"MADE:{i}", f"name {i}", (), 1 - i / 100, hit) for i in range(count)]


def describe(given: Sequence[Candidate]) -> list[Description]:
    return [Description(candidate.preferred_name, (), ("RF",)) for candidate in given]


class Scores:
    """A backend: what it is told, or a function of query and documents, gives the log-odds."""

    def __init__(
        self, score: Callable[[str, Sequence[str]], Sequence[float]], limit: int | None = None
    ) -> None:
        self.score = score
        self.limit = limit
        self.asked: list[tuple[str, list[str]]] = []

    async def connect(self) -> Model:
        return Model("tiny", self.limit)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return count_bytes(texts)

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        self.asked.append((prompts.head, prompts.tails))
        return [[score, 0.0] for score in self.score(prompts.head, prompts.tails)]

    async def close(self) -> None:
        """Nothing is held."""


def rank(log_odds: Sequence[float], **changes: float) -> Ranking:
    prompt = PROMPT.model_copy(update=changes)
    ranker = Ranker(describe, prompt, Scores(lambda query, documents: log_odds))
    [ranking] = ranker.rank_candidates([(MENTION, candidates(len(log_odds)))])
    return ranking


def ids(ranking: Ranking) -> list[str]:
    return [ranked.candidate.concept_id for ranked in ranking.candidates]


LOG_ODDS = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20)


@given(LOG_ODDS, st.floats(0.01, 100))
def test_a_ranking_is_a_permutation_of_the_candidates(
    log_odds: list[float], temperature: float
) -> None:
    ranking = rank(log_odds, temperature=temperature)
    given_candidates = candidates(len(log_odds))
    assert sorted(ids(ranking)) == sorted(c.concept_id for c in given_candidates)
    assert {ranked.candidate for ranked in ranking.candidates} == set(given_candidates)
    scores = [ranked.rank_score for ranked in ranking.candidates]
    assert all(score is not None and 0.0 <= score <= 1.0 for score in scores)
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert (ranking.best is None) == (max(log_odds) < 0 and (scores[0] or 0.0) < 0.5)
    assert ranking.best in (None, ranking.candidates[0])


def test_higher_log_odds_come_first_with_their_probability() -> None:
    ranking = rank([-2.51, 1.69, -0.52])
    assert ids(ranking) == ["MADE:1", "MADE:2", "MADE:0"]
    assert [ranked.rank_score for ranked in ranking.candidates] == [0.8442, 0.3729, 0.0752]
    assert ranking.best == ranking.candidates[0]
    assert (ranking.ranker, ranking.degraded) == ("tiny/qwen3-reranker@2", "")
    assert ranking.mention == MENTION


@pytest.mark.parametrize(
    ("log_odds", "threshold", "nil"),
    [(-0.1, 0.5, True), (0.0, 0.5, False), (-5.0, 0.0, False), (3.0, 0.96, True), (9e9, 1.0, False)],
)  # fmt: skip
def test_below_the_threshold_nothing_fits(log_odds: float, threshold: float, nil: bool) -> None:
    ranking = rank([-9.0, log_odds], nil_threshold=threshold)
    assert (ranking.best is None) == nil
    assert ids(ranking) == ["MADE:1", "MADE:0"]  # the order is told all the same


@pytest.mark.parametrize(("temperature", "score"), [(1.0, 0.8808), (2.0, 0.7311), (0.5, 0.982)])
def test_the_temperature_divides_the_log_odds(temperature: float, score: float) -> None:
    assert rank([2.0], temperature=temperature).candidates[0].rank_score == score
    assert 1 / (1 + math.exp(-2.0 / temperature)) == pytest.approx(score, abs=1e-4)


def test_equal_scores_keep_the_order_of_the_retrieval() -> None:
    assert ids(rank([1.0, 3.0, 1.0, 3.0, 1.0])) == [f"MADE:{i}" for i in (1, 3, 0, 2, 4)]


def test_log_odds_decide_where_the_probabilities_look_alike() -> None:
    ranking = rank([-14.0, 12.0, -11.0, 15.0])
    assert [ranked.rank_score for ranked in ranking.candidates] == [1.0, 1.0, 0.0, 0.0]
    assert ids(ranking) == [f"MADE:{i}" for i in (3, 1, 2, 0)]


def test_without_a_backend_the_retrieval_order_stands() -> None:
    [ranking] = Ranker(describe, PROMPT).rank_candidates([(MENTION, candidates(3))])
    assert ids(ranking) == ["MADE:0", "MADE:1", "MADE:2"]
    assert [ranked.rank_score for ranked in ranking.candidates] == [None] * 3
    assert ranking.best == ranking.candidates[0]
    assert (ranking.ranker, ranking.degraded) == ("retrieval", "")


def test_when_the_backend_fails_the_retrieval_order_stands_and_the_reason_is_told() -> None:
    def fail(query: str, documents: Sequence[str]) -> Sequence[float]:
        raise RankerBackendError("http://made/score answered 500: EngineCore")

    [ranking] = Ranker(describe, PROMPT, Scores(fail)).rank_candidates([(MENTION, candidates(3))])
    assert ids(ranking) == ["MADE:0", "MADE:1", "MADE:2"]
    assert ranking.best == ranking.candidates[0]
    assert ranking.ranker == "retrieval"
    assert ranking.degraded == "http://made/score answered 500: EngineCore"


def test_one_mention_that_fails_leaves_the_others_ranked() -> None:
    def fail_on_b(query: str, documents: Sequence[str]) -> Sequence[float]:
        if "[[b]]" in query:
            raise RankerBackendError("too long")
        return [float(i) for i in range(len(documents))]

    items = [(Mention(text), candidates(2)) for text in "abc"]
    rankings = Ranker(describe, PROMPT, Scores(fail_on_b)).rank_candidates(items)
    assert [ranking.degraded for ranking in rankings] == ["", "too long", ""]
    assert [ids(ranking)[0] for ranking in rankings] == ["MADE:1", "MADE:0", "MADE:1"]


def test_once_the_server_is_silent_the_rest_does_not_wait_for_it() -> None:
    def hang(query: str, documents: Sequence[str]) -> Sequence[float]:
        raise RankerBackendError("did not answer in time", silent=True)

    backend = Scores(hang)
    items = [(Mention(f"m{i}"), candidates(2)) for i in range(100)]
    rankings = Ranker(describe, PROMPT, backend).rank_candidates(items)
    assert {ranking.degraded for ranking in rankings} == {"did not answer in time"}
    assert len(backend.asked) <= 8
    [again] = Ranker(describe, PROMPT, Scores(lambda q, d: [0.0, 1.0])).rank_candidates(items[:1])
    assert again.degraded == ""


def test_no_candidate_is_nil_and_asks_nobody() -> None:
    backend = Scores(lambda query, documents: [])
    [ranking] = Ranker(describe, PROMPT, backend).rank_candidates([(MENTION, [])])
    assert (ranking.candidates, ranking.best, ranking.degraded) == ((), None, "")
    assert backend.asked == []
    assert Ranker(describe, PROMPT, backend).rank_candidates([]) == []


def test_each_mention_gets_its_own_ranking_in_the_order_given() -> None:
    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        number = int(query.split("[[m")[-1].split("]]")[0])
        return [10.0 if i == number % 5 else -10.0 for i in range(len(documents))]

    backend = Scores(score)
    items = [(Mention(f"m{i}"), candidates(5)) for i in range(50)]
    rankings = Ranker(describe, PROMPT, backend).rank_candidates(items)
    assert [ranking.mention.text for ranking in rankings] == [f"m{i}" for i in range(50)]
    assert [ids(ranking)[0] for ranking in rankings] == [f"MADE:{i % 5}" for i in range(50)]
    assert len(backend.asked) == 50  # one request a mention
    query, documents = backend.asked[0]
    assert query.startswith("<|im_start|>system\n")
    assert [d.startswith(f"<Document>: name {i} | names: RF") for i, d in enumerate(documents)]


def test_what_was_scored_is_not_asked_again() -> None:
    backend = Scores(lambda query, documents: [float(len(document)) for document in documents])
    ranker = Ranker(describe, PROMPT, backend)
    first = ranker.rank_candidates([(MENTION, candidates(3))])
    assert ranker.rank_candidates([(MENTION, candidates(3))]) == first
    assert len(backend.asked) == 1
    ranker.rank_candidates([(MENTION, candidates(5))])  # two of them are new
    assert [len(documents) for _, documents in backend.asked] == [3, 2]
    ranker.rank_candidates([(Mention("RF", "another context of RF"), candidates(3))])
    assert [len(documents) for _, documents in backend.asked] == [3, 2, 3]
    german = load_prompt("qwen3-reranker", PointwisePrompt, language="de")
    Ranker(describe, german, backend).rank_candidates([(MENTION, candidates(3))])
    assert len(backend.asked) == 4


def test_no_more_scores_are_remembered_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioelx_mcp.ranker._REMEMBERED", 4)
    backend = Scores(lambda query, documents: [0.0] * len(documents))
    ranker = Ranker(describe, PROMPT, backend)
    for text in ("a", "b", "a", "b"):
        ranker.rank_candidates([(Mention(text), candidates(3))])
    assert [len(documents) for _, documents in backend.asked] == [3, 3, 2, 2]


def test_what_the_server_finds_too_long_is_told_shorter() -> None:
    told: list[int] = []

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        told.append(max(len(query + document) for document in documents))
        if told[-1] > 1600:
            raise RankerBackendError("input is too large to process", status=500)
        return [1.0, 3.0]

    def long(given: Sequence[Candidate]) -> list[Description]:
        return [Description("x", definition="long " * 80), Description("y")]

    prompt = PROMPT.model_copy(update={"max_context": 4000})
    mention = Mention("RF", f"{'before ' * 200}RF{' after' * 200}")
    [ranking] = Ranker(long, prompt, Scores(score)).rank_candidates([(mention, candidates(2))])
    assert ids(ranking) == ["MADE:1", "MADE:0"]
    assert len(told) == 2 and told[0] > 1900
    told.clear()
    endless = Scores(lambda query, documents: score(query + "x" * 9000, documents))
    [ranking] = Ranker(long, prompt, endless).rank_candidates([(mention, candidates(2))])
    assert "too large" in ranking.degraded
    assert len(told) <= 3


def test_the_calibration_of_the_model_that_answers_is_used() -> None:
    fitted = {"org/Tiny": {"temperature": 2.0, "nil_threshold": 0.9}}
    raw = PROMPT.model_dump() | {"calibration": fitted}
    backend = Scores(lambda query, documents: [4.0])
    ranker = Ranker(describe, PointwisePrompt.model_validate(raw), backend)
    [ranking] = ranker.rank_candidates([(MENTION, candidates(1))])
    assert ranking.candidates[0].rank_score == 0.8808
    assert ranking.best is None


Served = Callable[[Script], ModelServer]


def test_ranking_that_is_stopped_closes_its_requests(model_server: Served) -> None:
    good, asked, stop = vllm_reranker(lambda q, d: 0.0), threading.Event(), threading.Event()

    def script(request: Request) -> Reply:
        if request.path == "/score" and request.body["queries"] != "a b":
            asked.set()
            return Reply(delay=60)
        return good(request)

    server = model_server(script)
    ranker = Ranker(describe, PROMPT, ProbingBackend(HttpServer(server.url)))
    items = [(Mention(f"m{i}"), candidates(2)) for i in range(20)]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ranker.rank_candidates, items, stop)
        assert asked.wait(10)
        stop.set()
        with pytest.raises(CancelledError):
            future.result(10)
    assert server.left_alone.wait(10)


def test_a_stop_that_is_not_used_changes_nothing() -> None:
    backend = Scores(lambda query, documents: [1.0, 2.0])
    ranker = Ranker(describe, PROMPT, backend)
    [ranking] = ranker.rank_candidates([(MENTION, candidates(2))], threading.Event())
    assert ids(ranking) == ["MADE:1", "MADE:0"]


def test_ranking_works_for_a_caller_that_has_an_event_loop_of_its_own() -> None:
    async def main() -> list[Ranking]:
        return Ranker(describe, PROMPT, Scores(lambda q, d: [1.0, 2.0])).rank_candidates(
            [(MENTION, candidates(2))]
        )

    assert ids(asyncio.run(main())[0]) == ["MADE:1", "MADE:0"]


def test_many_threads_share_one_ranker() -> None:
    ranker = Ranker(describe, PROMPT, Scores(lambda q, d: [float(len(d)), 0.0]))
    with ThreadPoolExecutor(8) as pool:
        work = [
            pool.submit(ranker.rank_candidates, [(Mention(f"m{i}"), candidates(2))])
            for i in range(40)
        ]
        assert all(future.result()[0].degraded == "" for future in work)
    assert sum(thread.name == "bioelx-ranker" for thread in threading.enumerate()) >= 1


def test_a_server_that_cannot_be_used_is_asked_once_a_call_and_degrades_all(
    model_server: Served,
) -> None:
    server = model_server(lambda request: Reply({"detail": "Not Found"}, 404))
    ranker = Ranker(describe, PROMPT, ProbingBackend(HttpServer(server.url)))
    items = [(Mention(f"m{i}"), candidates(2)) for i in range(20)]
    rankings = ranker.rank_candidates([*items, (MENTION, [])])
    assert {ranking.degraded for ranking in rankings[:20]} == {rankings[0].degraded}
    assert "404" in rankings[0].degraded
    assert rankings[20].degraded == ""
    assert len(server.requests) == 2  # /v1/models and /info


def test_a_server_that_dies_between_mentions_degrades_those_that_are_left(
    model_server: Served,
) -> None:
    good, left = vllm_reranker(lambda q, d: 0.0), [1] * 3

    def script(request: Request) -> Reply:
        if request.path == "/score" and request.body["queries"] != "a b":
            if not left:
                return Reply(status=0)
            left.pop()
        return good(request)

    ranker = Ranker(describe, PROMPT, ProbingBackend(HttpServer(model_server(script).url)))
    items = [(Mention(f"m{i}"), candidates(2)) for i in range(30)]
    rankings = ranker.rank_candidates(items)
    ranked = [ranking for ranking in rankings if not ranking.degraded]
    assert len(ranked) == 3
    assert all("cannot be reached" in r.degraded for r in rankings if r not in ranked)


def test_a_user_may_write_a_prompt_with_other_labels() -> None:
    told: list[tuple[str, ...]] = []

    class Labels(Scores):
        async def score_labels(self, prompts: Prompts) -> list[list[float]]:
            told.append(prompts.labels)
            return [[-1.0, -3.0] for _ in prompts.documents]

    prompt = PROMPT.model_copy(update={"labels": ("true", "false")})
    [ranking] = Ranker(describe, prompt, Labels(lambda q, d: [])).rank_candidates(
        [(MENTION, candidates(1))]
    )
    assert told == [("true", "false")]
    assert ranking.candidates[0].rank_score == 0.8808
