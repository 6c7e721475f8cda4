"""The second look: letters in cyclic orders, without the model's leaning to some letters."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ranker import MENTION, PROMPT, Scores, candidates, describe, ids

from bioelx_mcp.backends import Prompts
from bioelx_mcp.errors import RankerBackendError
from bioelx_mcp.letters import NONE, SecondLook, cyclic_orders, settle
from bioelx_mcp.prompt import ListwisePrompt, load_prompt
from bioelx_mcp.ranker import Ranker
from bioelx_mcp.schema import Ranking

LETTERS = load_prompt("letters", ListwisePrompt)


def answers(
    orders: Sequence[Sequence[int]], worth: Sequence[float], leaning: Sequence[float]
) -> list[list[float]]:
    """What a model says that leans to letters and otherwise knows what the options are worth; NONE is the last."""
    return [[worth[option] + leaning[place] for place, option in enumerate(o)] for o in orders]


def test_orders_are_cyclic_and_hold_nil() -> None:
    assert cyclic_orders(2, 9) == [[0, 1, NONE], [1, NONE, 0], [NONE, 0, 1]]
    assert len(cyclic_orders(8, 4)) == 4
    assert all(sorted(order) == list(range(-1, 8)) for order in cyclic_orders(8, 4))


@given(st.integers(2, 8), st.integers(0, 999))
def test_a_leaning_to_letters_does_not_change_the_verdict(size: int, seed: int) -> None:
    """Every option stands at every letter once: what is told is exact, whatever the leaning."""
    rng = random.Random(seed)
    orders = cyclic_orders(size, 9)
    worth = [rng.gauss(0, 2) for _ in range(size + 1)]
    total = sum(map(math.exp, worth))
    for spread in (0.0, 1.0, 6.0):
        leaning = [rng.gauss(0, spread) for _ in range(size + 1)]
        verdict = settle(orders, answers(orders, worth, leaning))
        told = [*verdict.probabilities, verdict.nil]
        assert told == pytest.approx([math.exp(x) / total for x in worth])
        assert verdict.agreement == 1.0


@pytest.mark.parametrize("most", [2, 3, 4])
def test_with_fewer_orders_the_leaning_is_still_told_apart(most: int) -> None:
    orders = cyclic_orders(8, most)
    right = 0
    for seed in range(100):
        rng = random.Random(seed)
        meant = rng.randrange(9)
        worth = [3.0 if option == meant else rng.gauss(0, 0.5) for option in range(9)]
        leaning = [rng.gauss(0, 3) for _ in range(9)]
        verdict = settle(orders, answers(orders, worth, leaning))
        told = [*verdict.probabilities, verdict.nil]
        right += told.index(max(told)) == meant
    assert right >= 80


def test_a_model_that_always_says_a_knows_nothing() -> None:
    orders = cyclic_orders(3, 4)
    verdict = settle(orders, [[0.0, -9.0, -9.0, -9.0]] * 4)
    assert [*verdict.probabilities, verdict.nil] == pytest.approx([0.25] * 4)


def test_the_agreement_is_the_share_of_orders_that_name_the_first() -> None:
    orders = cyclic_orders(7, 8)
    rows = answers(orders, [5.0, *[0.0] * 7], [0.0] * 8)
    assert settle(orders, rows).agreement == 1.0
    rows[3] = rows[4]
    assert settle(orders, rows).agreement == pytest.approx(7 / 8)


class Writer(Scores):
    """Leans to A, and holds the option of a name for right; other options weigh little."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda query, documents: [])
        self.name = name
        self.prompts: list[Prompts] = []

    async def score_labels(self, prompts: Prompts) -> list[list[float]]:
        self.prompts.append(prompts)
        return [
            [
                -1.0 * i + (4.0 if self.name in line else 0.0)
                for i, line in enumerate(document.splitlines()[: len(prompts.labels)])
            ]
            for document in prompts.documents
        ]


def look(log_odds: Sequence[float], writer: Scores) -> Ranking:
    first = Scores(lambda query, documents: log_odds)
    ranker = Ranker(describe, PROMPT, first, SecondLook(LETTERS, writer))
    [ranking] = ranker.rank_candidates([(MENTION, candidates(len(log_odds)))])
    return ranking


def test_where_the_best_two_are_close_the_letters_decide() -> None:
    writer = Writer("name 2 ")
    ranking = look([1.0, 0.9, 0.8, 0.1, -0.5, -1.0, -2.0, -3.0, -4.0, -5.0], writer)
    assert ids(ranking)[0] == "MADE:2"
    assert sorted(ids(ranking)) == [f"MADE:{i}" for i in range(10)]
    assert ids(ranking)[8:] == ["MADE:8", "MADE:9"]  # were no options
    assert ranking.best == ranking.candidates[0]
    scores = [ranked.rank_score or 0.0 for ranked in ranking.candidates]
    assert scores == sorted(scores, reverse=True)
    assert ranking.ranker == "tiny/qwen3-reranker@2+tiny/letters@1"
    assert ranking.agreement == 1.0
    [prompts] = writer.prompts
    assert prompts.labels == tuple("ABCDEFGHI")
    assert len(prompts.documents) == 4


def test_where_the_best_two_are_apart_nobody_looks_again() -> None:
    writer = Writer("name 2 ")
    ranking = look([3.0, 1.9, 1.8], writer)
    assert (ids(ranking)[0], ranking.agreement, writer.prompts) == ("MADE:0", None, [])
    assert look([0.1], writer).agreement is None


def test_none_of_the_options_is_nil() -> None:
    ranking = look([1.0, 0.9], Writer("none of the other"))
    assert ranking.best is None
    assert sorted(ids(ranking)) == ["MADE:0", "MADE:1"]
    assert ranking.degraded == ""


def test_without_a_second_look_the_first_stands_and_says_so() -> None:
    class Broken(Scores):
        async def score_labels(self, prompts: Prompts) -> list[list[float]]:
            raise RankerBackendError("no letters")

    ranking = look([1.0, 0.9], Broken(lambda query, documents: []))
    assert ids(ranking) == ["MADE:0", "MADE:1"]
    assert ranking.candidates[0].rank_score == 0.7311
    assert (ranking.degraded, ranking.ranker) == (
        "no second look: no letters",
        "tiny/qwen3-reranker@2",
    )
