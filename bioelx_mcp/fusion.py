"""Fusion: from what the channels say of aliases to concepts in one order; pure functions of arrays.

An alias has one score of its two similarities; a concept has that of its best alias, a little more for each
further alias that is nearly as near, and a little more for being widely known. The numbers were chosen on
development data by benchmarks/tune_fusion.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.vectors import Rows, Similarities

# An alias that scores this much less than the best one of its concept counts 1/e of it.
_NEARLY = 0.05
_HIGHEST = 0.999  # of what is no exact match


@dataclass(frozen=True)
class Weights:
    """What each kind of evidence is worth.

    Attributes:
        dense: share of the cosine in an alias's score; the rest is the lexical similarity's.
        dense_alone: what the cosine is worth where spelling says nothing.
        further: for e times as many aliases as near as the best one.
        renown: for a concept known everywhere against one known nowhere.
        preferred: for an exact match that is its concept's preferred name.
        spoken: for an exact match in the mention's language.
    """

    dense: float = 0.45
    dense_alone: float = 0.75
    further: float = 0.04
    renown: float = 0.03
    preferred: float = 0.05
    spoken: float = 0.02


WEIGHTS = Weights()


@dataclass(frozen=True)
class Evidence:
    """The aliases that the channels found for a mention: row i of each array is one alias.

    `cosine` and `lexical` (Dice of the character grams, rare ones weighing more) lie in [0, 1]; `exact` marks
    equal normalised text, `preferred` the preferred names, `spoken` those in the mention's language; `concept` is
    the alias's concept, `renown` how widely that is known, in [0, 1].
    """

    rows: Rows
    concept: NDArray[np.int32]
    cosine: Similarities
    lexical: Similarities
    exact: NDArray[np.bool_]
    preferred: NDArray[np.bool_]
    spoken: NDArray[np.bool_]
    renown: NDArray[np.float32]


@dataclass(frozen=True)
class Fused:
    """Concepts best first: the place of each one's best alias in the evidence, and its score in [0, 1]."""

    places: NDArray[np.intp]
    scores: NDArray[np.float64]


def score_aliases(evidence: Evidence, weights: Weights = WEIGHTS) -> NDArray[np.float64]:
    """The score of each alias, in [0, 1], higher is better; 1 for the mention itself and nothing else.

    The weighted mean of both similarities, but no less than `dense_alone` times the cosine: names that
    mean the same in two scripts share no gram.
    """
    mean = weights.dense * evidence.cosine + (1.0 - weights.dense) * evidence.lexical
    weighted = np.maximum(mean, weights.dense_alone * evidence.cosine)
    scores: NDArray[np.float64] = np.where(evidence.exact, 1.0, np.minimum(weighted, _HIGHEST))
    return scores


def fuse(evidence: Evidence, weights: Weights = WEIGHTS) -> Fused:
    """Distinct concepts, best first; exact matches before all others, and 1 is the score of these alone.

    What is equal to the sixth decimal is ordered by preferred name before synonym, then by concept id.
    """
    worth = score_aliases(evidence, weights) + evidence.exact * (
        weights.preferred * evidence.preferred + weights.spoken * evidence.spoken
    )
    best_first = np.lexsort((evidence.rows, ~evidence.preferred, -np.round(worth, 6)))
    concepts, first, inverse = np.unique(
        evidence.concept[best_first], return_index=True, return_inverse=True
    )
    places = best_first[first]  # of the best alias of each concept
    best = worth[places]
    near = np.bincount(inverse, np.exp((worth[best_first] - best[inverse]) / _NEARLY))
    total = best + weights.further * np.log(near) + weights.renown * evidence.renown[places]
    exact = evidence.exact[places]
    order = np.lexsort((concepts, ~evidence.preferred[places], -np.round(total, 6), ~exact))
    shown = np.where(exact, 1.0, np.minimum(total, _HIGHEST))
    return Fused(places[order], shown[order])
