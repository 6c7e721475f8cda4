"""Calibration finds the temperature and the threshold that the data were made with."""

import math
import random

import pytest

from bioelx_mcp.evaluation.calibration import Judged, decided_rightly, fit_calibration
from bioelx_mcp.prompt import Calibration


def made(temperature: float, nil: float, count: int = 1500) -> list[Judged]:
    """Log-odds too bold by a temperature; a share of mentions has no right candidate among its lower ones."""
    rng = random.Random(7)
    mentions: list[Judged] = []
    for _ in range(count):
        true = [rng.gauss(-5, 2) for _ in range(5)]
        if rng.random() > nil:
            true[rng.randrange(5)] = rng.gauss(2.5, 2)
        right = [rng.random() < 1 / (1 + math.exp(-x)) for x in true]
        mentions.append(([x * temperature for x in true], right))
    return mentions


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature: float) -> None:
    fitted = fit_calibration(made(temperature, 0.3))
    assert fitted.temperature == pytest.approx(temperature, rel=0.08)


def test_the_threshold_decides_more_mentions_rightly_than_keeping_or_dropping_all() -> None:
    mentions, held = made(2.0, 0.5), made(2.0, 0.5)[::-1]
    fitted = fit_calibration(mentions)
    rightly = decided_rightly(held, fitted)
    assert 0.2 < fitted.nil_threshold < 0.8
    for threshold in (0.0, 1.0):
        plain = Calibration(temperature=fitted.temperature, nil_threshold=threshold)
        assert rightly > decided_rightly(held, plain) + 0.05


def test_mentions_without_a_candidate_are_decided_rightly_by_nil() -> None:
    mentions: list[Judged] = [([], []), ([3.0], [True]), ([-3.0, -4.0], [False, False])]
    fitted = fit_calibration(mentions)
    assert decided_rightly(mentions, fitted) == 1.0
    assert fit_calibration([([], [])]).temperature > 0
