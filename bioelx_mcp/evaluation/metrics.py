"""Scores over distinct concepts: recall@k and MRR, on covered queries and on all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

RECALL_AT = (1, 5, 10, 64)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one query went: `rank` of the first right concept, from 1, None if it was not found.

    `covered`: a gold concept is in the index at all.
    """

    language: str
    rank: int | None
    covered: bool


def first_right(predicted: Sequence[frozenset[str]], gold: frozenset[str]) -> int | None:
    """Rank, from 1, of the first prediction any of whose ids is gold; None if there is none."""
    return next((rank for rank, ids in enumerate(predicted, 1) if ids & gold), None)


def summarize(outcomes: Sequence[Outcome]) -> dict[str, float | int]:
    """Counts, recall@k in percent on covered queries (`covered_`) and on all (`all_`), and MRR on covered ones."""
    covered = [outcome for outcome in outcomes if outcome.covered]
    summary: dict[str, float | int] = {"queries": len(outcomes), "covered": len(covered)}
    for name, group in (("covered", covered), ("all", outcomes)):
        for k in RECALL_AT:
            found = sum(outcome.rank is not None and outcome.rank <= k for outcome in group)
            summary[f"{name}_recall@{k}"] = 100.0 * found / len(group) if group else float("nan")
    reciprocal = sum(1.0 / outcome.rank for outcome in covered if outcome.rank is not None)
    summary["covered_mrr"] = reciprocal / len(covered) if covered else float("nan")
    return summary


def average(summaries: Sequence[dict[str, float | int]]) -> dict[str, float | int]:
    """The unweighted mean over the languages that have a value; counts are added up."""
    mean: dict[str, float | int] = {}
    for key in summaries[0] if summaries else ():
        values = [summary[key] for summary in summaries if not math.isnan(summary[key])]
        counted = key in ("queries", "covered")
        mean[key] = sum(values) if counted else sum(values) / len(values) if values else math.nan
    return mean
