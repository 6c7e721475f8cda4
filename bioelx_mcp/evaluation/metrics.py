"""Scores over distinct concepts: recall@k, accuracy@1 and MRR, on covered queries and on all; NIL; calibration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RECALL_AT = (1, 5, 10, 64)
CURVE_AT = (1, 2, 3, 5, 10, 20, 30, 40, 50, 64)
_BINS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one query went: `rank` of the first right concept, from 1, None if it was not found.

    `covered`: a gold concept is in the index at all. `answered`: the answer was right; without it, that the first is.
    """

    language: str
    rank: int | None
    covered: bool
    answered: bool | None = None

    @property
    def right(self) -> bool:
        return self.rank == 1 if self.answered is None else self.answered


def first_right(predicted: Sequence[frozenset[str]], gold: frozenset[str]) -> int | None:
    """Rank, from 1, of the first prediction any of whose ids is gold; None if there is none."""
    return next((rank for rank, ids in enumerate(predicted, 1) if ids & gold), None)


def summarize(outcomes: Sequence[Outcome]) -> dict[str, float | int]:
    """Counts; recall@k and accuracy@1 in percent and MRR on covered queries (`covered_`) and on all (`all_`).

    A query whose right concept is not found, or not in the index, counts 0 in each.
    """
    covered = [outcome for outcome in outcomes if outcome.covered]
    summary: dict[str, float | int] = {"queries": len(outcomes), "covered": len(covered)}
    for name, group in (("covered", covered), ("all", outcomes)):
        values = [measures(outcome) for outcome in group]
        for column, metric in enumerate(METRICS):
            total = sum(value[column] for value in values)
            summary[f"{name}_{metric}"] = total / len(group) if group else math.nan
    return summary


METRICS = (*(f"recall@{k}" for k in RECALL_AT), "accuracy@1", "mrr")


def measures(outcome: Outcome) -> tuple[float, ...]:
    """What one query adds to the sum of each of METRICS."""
    rank = outcome.rank
    found = [100.0 * (rank is not None and rank <= k) for k in RECALL_AT]
    return (*found, 100.0 * outcome.right, 1.0 / rank if rank else 0.0)


def average(summaries: Sequence[dict[str, float | int]]) -> dict[str, float | int]:
    """The unweighted mean over the languages that have a value; counts are added up."""
    mean: dict[str, float | int] = {}
    for key in summaries[0] if summaries else ():
        values = [summary[key] for summary in summaries if not math.isnan(summary[key])]
        counted = key in ("queries", "covered")
        mean[key] = sum(values) if counted else sum(values) / len(values) if values else math.nan
    return mean


def recall_curve(outcomes: Sequence[Outcome]) -> list[tuple[int, float, float]]:
    """(k, recall@k on covered queries, on all) in percent, averaged over the languages."""
    languages = sorted({outcome.language for outcome in outcomes})
    curve = []
    for k in CURVE_AT:
        points = []
        for only in (True, False):
            shares = []
            for language in languages:
                ranks = [
                    o.rank for o in outcomes if o.language == language and (o.covered or not only)
                ]
                if ranks:
                    found = sum(rank is not None and rank <= k for rank in ranks)
                    shares.append(100.0 * found / len(ranks))
            points.append(sum(shares) / len(shares) if shares else math.nan)
        curve.append((k, points[0], points[1]))
    return curve


def nil_scores(answers: Sequence[tuple[bool, bool, bool]]) -> dict[str, Any]:
    """Precision, recall and F1 of linking and of NIL, in percent.

    Args:
        answers: for each query whether its gold is NIL, whether NIL was answered, and whether the concept
            answered was right. A link is right where the concept is; recall is over all gold concepts.
    """
    gold_nil = sum(nil for nil, _, _ in answers)
    said_nil = sum(said for _, said, _ in answers)
    both = sum(nil and said for nil, said, _ in answers)
    right = sum(right for _, _, right in answers)
    return {
        "linking": _f1(right, len(answers) - said_nil, len(answers) - gold_nil),
        "nil": _f1(both, said_nil, gold_nil),
    }


def _f1(right: int, said: int, gold: int) -> dict[str, float | int]:
    precision = 100.0 * right / said if said else math.nan
    recall = 100.0 * right / gold if gold else math.nan
    f1 = 200.0 * right / (said + gold) if said + gold else math.nan
    counts = {"right": right, "answered": said, "gold": gold}
    return {**counts, "precision": precision, "recall": recall, "f1": f1}


def calibration(scores: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """How far the scores are from being probabilities: expected calibration error, and its ten bins.

    Equal-width bins, weighted by their size: Naeini et al., Obtaining well calibrated probabilities using Bayesian
    binning (AAAI 2015).

    Args:
        scores: (rank score in [0, 1] of the first candidate, whether it is right) of each query.
    """
    bins = []
    error = 0.0
    for number in range(_BINS):
        inside = [(s, right) for s, right in scores if min(int(s * _BINS), _BINS - 1) == number]
        if inside:
            confidence = sum(score for score, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            error += abs(confidence - accuracy) * len(inside) / len(scores)
            low, high = number / _BINS, (number + 1) / _BINS
            bins.append(
                {
                    "from": low,
                    "to": high,
                    "queries": len(inside),
                    "confidence": confidence,
                    "accuracy": accuracy,
                }
            )
    return {"ece": error, "queries": len(scores), "bins": bins}
