"""Intervals and paired tests: what they must hold of any numbers, and of small ones known by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioelx_mcp.evaluation.metrics import METRICS, Outcome, average, summarize
from bioelx_mcp.evaluation.statistics import intervals, paired_test

OUTCOMES = st.builds(
    Outcome, st.sampled_from(["de", "th"]), st.one_of(st.none(), st.integers(1, 80)), st.booleans()
)


def right(count: int, of: int, language: str = "de") -> list[Outcome]:
    return [Outcome(language, 1 if i < count else None, True) for i in range(of)]


@given(st.lists(OUTCOMES, min_size=1, max_size=30))
def test_an_interval_lies_around_what_was_measured_or_at_least_in_its_range(
    outcomes: list[Outcome],
) -> None:
    told = intervals(outcomes, [""] * len(outcomes))
    assert set(told) == {outcome.language for outcome in outcomes} | {"average"}
    for name in ("all_recall@1", "covered_recall@64", "all_mrr"):
        for low, high in (bounds[name] for bounds in told.values()):
            assert math.isnan(low) or 0 <= low <= high <= 100


def test_an_interval_of_a_share_is_that_of_the_binomial() -> None:
    told = intervals(right(50, 100), [""] * 100)["de"]["all_recall@1"]
    assert list(told) == pytest.approx([40, 60], abs=1.5)
    assert intervals(right(9, 9), [""] * 9)["average"]["covered_recall@1"] == (100.0, 100.0)


def test_equal_seeds_give_equal_intervals_and_others_give_others() -> None:
    outcomes, units = [Outcome("de", rank, True) for rank in range(1, 71)], [""] * 70
    assert intervals(outcomes, units) == intervals(outcomes, units)
    assert intervals(outcomes, units) != intervals(outcomes, units, seed=1)


def test_mentions_of_one_document_are_drawn_together() -> None:
    outcomes = right(50, 100)
    alone = intervals(outcomes, [""] * 100)["de"]["all_recall@1"]
    together = intervals(outcomes, [f"d{i // 10}" for i in range(100)])["de"]["all_recall@1"]
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_the_interval_of_the_average_is_of_languages_not_of_queries() -> None:
    outcomes = right(90, 90) + right(0, 10, "th")
    assert average([summarize(outcomes[:90]), summarize(outcomes[90:])])["all_recall@1"] == 50.0
    assert intervals(outcomes, [""] * 100)["average"]["all_recall@1"] == (50.0, 50.0)


def test_no_covered_query_has_no_interval() -> None:
    low, high = intervals([Outcome("de", None, False)], [""])["de"]["covered_recall@1"]
    assert math.isnan(low) and math.isnan(high)
    assert intervals([], []) == {}


def test_a_run_does_not_differ_from_itself() -> None:
    outcomes = right(3, 7)
    told = paired_test(outcomes, outcomes, [""] * 7)
    assert set(told) == set(METRICS)
    assert all(one == {"difference": 0.0, "p": 1.0} for one in told.values())


def test_a_difference_is_that_of_the_averages_and_turns_its_sign() -> None:
    ours, theirs = right(8, 10) + right(1, 4, "th"), right(6, 10) + right(1, 4, "th")
    units = [""] * 14
    forth, back = (
        paired_test(a, b, units)["recall@1"] for a, b in ((ours, theirs), (theirs, ours))
    )
    assert [forth["difference"], back["difference"]] == pytest.approx([10, -10])
    assert forth["p"] == back["p"]


def test_p_is_that_of_all_signs() -> None:
    """Five queries differ, all to one side: of the 32 signs 2 are as far out."""
    told = paired_test(right(5, 10), right(0, 10), [""] * 10)["recall@1"]
    assert told["p"] == pytest.approx(2 / 32, abs=0.01)


def test_what_differs_within_one_document_is_one_difference() -> None:
    told = paired_test(right(9, 9), right(0, 9), ["d"] * 9)["recall@1"]
    assert [told["difference"], told["p"]] == pytest.approx([100.0, 1.0])
