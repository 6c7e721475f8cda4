"""Ranking: a permutation of the candidates, probabilities, NIL, and what happens without a server."""

import math
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.prompt import Prompt, load_prompt
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.schema import AliasHit, Candidate, Concept, Mention, Ranking

PROMPT = load_prompt("qwen3-reranker")
MENTION = Mention("RF", "a child with RF")


def candidates(count: int) -> list[Candidate]:
    hit = AliasHit("RF", "en", "made", "exact", 1.0)
    return [Candidate(f"MADE:{i}", f"name {i}", (), 1 - i / 100, hit) for i in range(count)]


def describe(candidate: Candidate) -> tuple[Concept, Sequence[str]]:
    return Concept(candidate.concept_id, candidate.preferred_name), ("RF",)


class Scores:
    """A backend: what it is told, or a function of query and documents, gives the log-odds."""

    model = "tiny"

    def __init__(self, score: Callable[[str, Sequence[str]], Sequence[float]]) -> None:
        self.score = score
        self.asked: list[tuple[str, list[str]]] = []

    def score_documents(self, query: str, documents: Sequence[str]) -> list[float]:
        self.asked.append((query, list(documents)))
        return list(self.score(query, documents))


def rank(log_odds: Sequence[float], **changes: float) -> Ranking:
    prompt: Prompt = PROMPT.model_copy(update=changes)
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
    assert (ranking.ranker, ranking.degraded) == ("tiny/qwen3-reranker@1", "")
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
    [ranking] = Ranker(describe, PROMPT, None).rank_candidates([(MENTION, candidates(3))])
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
    busy = threading.Semaphore(8)

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        assert busy.acquire(blocking=False), "more than eight requests at a time"
        number = int(query.split("[[m")[-1].split("]]")[0])
        busy.release()
        return [10.0 if i == number % 5 else -10.0 for i in range(len(documents))]

    backend = Scores(score)
    items = [(Mention(f"m{i}"), candidates(5)) for i in range(50)]
    rankings = Ranker(describe, PROMPT, backend).rank_candidates(items)
    assert [ranking.mention.text for ranking in rankings] == [f"m{i}" for i in range(50)]
    assert [ids(ranking)[0] for ranking in rankings] == [f"MADE:{i % 5}" for i in range(50)]
    assert len(backend.asked) == 50  # one request a mention
    query, documents = backend.asked[0]
    assert query.startswith(PROMPT.prefix)
    assert [d.startswith(f"<Document>: name {i} | names: RF") for i, d in enumerate(documents)]
