"""Temperature and NIL threshold of a prompt for one model, from ranked mentions whose gold concepts are known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.prompt import Calibration

_SPAN = (0.05, 20.0)  # of temperatures
_STEPS = 80
Judged = tuple[Sequence[float], Sequence[bool]]
"""For the candidates of a mention, in the order of retrieval: log-odds, and which of them are right."""


def fit_calibration(mentions: Sequence[Judged]) -> Calibration:
    """The temperature under which log-odds are the likeliest, and the threshold that decides most mentions rightly.

    Temperature scaling as of Guo et al. (ICML 2017), on "is it this one", fitted by golden-section search. A mention is
    decided rightly where its first candidate is right and kept, or where no candidate is right and none is kept.
    """
    used = [(np.array(odds), np.array(right)) for odds, right in mentions if len(odds)]
    odds = np.concatenate([one for one, _ in used]) if used else np.zeros(0)
    right = np.concatenate([one for _, one in used]) if used else np.zeros(0, dtype=bool)
    low, high = np.log(_SPAN)
    for _ in range(_STEPS):
        left, middle = low + 0.382 * (high - low), low + 0.618 * (high - low)
        if _loss(odds / np.exp(left), right) <= _loss(odds / np.exp(middle), right):
            high = middle
        else:
            low = left
    temperature = round(float(np.exp((low + high) / 2)), 3)
    firsts = [(float(one[one.argmax()]) / temperature, one.argmax(), told) for one, told in used]
    probability = np.array([1 / (1 + np.exp(-first)) for first, _, _ in firsts])
    kept = np.array([bool(told[place]) for _, place, told in firsts], dtype=bool)
    dropped = np.array([not told.any() for _, _, told in firsts], dtype=bool)
    cuts = np.unique(probability)
    between = [0.0, *((cuts[1:] + cuts[:-1]) / 2), 1.0]
    decided = [
        np.sum(kept & (probability >= cut)) + np.sum(dropped & (probability < cut))
        for cut in between
    ]
    return Calibration(
        temperature=temperature, nil_threshold=round(float(between[int(np.argmax(decided))]), 3)
    )


def decided_rightly(mentions: Sequence[Judged], calibration: Calibration) -> float:
    """The share of mentions that are decided rightly under a calibration."""
    right = 0
    for odds, told in mentions:
        first = int(np.argmax(odds)) if len(odds) else None
        fits = first is not None and (
            1 / (1 + np.exp(-odds[first] / calibration.temperature)) >= calibration.nil_threshold
        )
        right += told[first] if fits and first is not None else not any(told)
    return right / len(mentions)


def _loss(scaled: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Negative log-likelihood, in total."""
    return float(np.logaddexp(0.0, np.where(right, -scaled, scaled)).sum())
