"""How sure a measured number is: bootstrap intervals, and paired tests of two runs over the same queries.

The unit that is drawn is a document where the corpus has documents (the mentions of one text are alike), else a
query. Averages are over languages, so each language is drawn from by itself. Equal seeds give equal answers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.evaluation.metrics import METRICS, Outcome, measures

RESAMPLES = 2000
SEED = 0
_BLOCK = 50
Sums = NDArray[np.float64]


def intervals(
    outcomes: Sequence[Outcome], units: Sequence[str], *, seed: int = SEED
) -> dict[str, dict[str, tuple[float, float]]]:
    """95% percentile intervals of every metric, by language and for their `average`.

    Efron and Tibshirani, An introduction to the bootstrap (1993), chapter 13; what is drawn is a cluster.

    Args:
        outcomes: one a query.
        units: the document of each; an empty one stands for itself.
        seed: of the drawing.
    """
    drawn: dict[str, dict[str, Sums]] = {}
    for number, language in enumerate(sorted({outcome.language for outcome in outcomes})):
        generator = np.random.default_rng([seed, number])
        sums = _unit_sums(outcomes, units, language)
        drawn[language] = _named(_ratios(_resampled(sums, generator)))
    bounds = {language: _bounds(values) for language, values in drawn.items()}
    if drawn:
        averages = {
            name: _mean(np.stack([values[name] for values in drawn.values()]))
            for name in _named(np.empty((1, 2 * len(METRICS))))
        }
        bounds["average"] = _bounds(averages)
    return bounds


def paired_test(
    ours: Sequence[Outcome],
    theirs: Sequence[Outcome],
    units: Sequence[str],
    *,
    seed: int = SEED,
    rounds: int = 10_000,
) -> dict[str, dict[str, float]]:
    """For each metric of all queries, averaged over languages: the difference, and how likely chance makes it.

    `p` is that of a two-sided paired randomisation test: were the runs alike, each unit's difference could as
    well have the other sign. Noreen, Computer-intensive methods for testing hypotheses (1989); Dror et al., The
    hitchhiker's guide to testing statistical significance in NLP (ACL 2018).

    Args:
        ours: outcomes of one run.
        theirs: of the other, of the same queries in the same order.
        units: as for `intervals`.
        seed: of the signs.
        rounds: how often the signs are drawn.
    """
    differences = []
    languages = sorted({outcome.language for outcome in ours})
    for language in languages:
        rows = [i for i, outcome in enumerate(ours) if outcome.language == language]
        place = _numbered([units[i] or f"#{i}" for i in rows])
        added = np.array([measures(ours[i]) for i in rows]) - [measures(theirs[i]) for i in rows]
        sums = np.zeros((place.max() + 1, len(METRICS)))
        np.add.at(sums, place, added)
        differences.append(sums / (len(rows) * len(languages)))
    unit = np.concatenate(differences)
    observed = unit.sum(axis=0)
    generator = np.random.default_rng(seed)
    beyond = np.zeros(len(METRICS))
    for start in range(0, rounds, _BLOCK):
        signs = generator.integers(0, 2, (min(_BLOCK, rounds - start), len(unit))) * 2.0 - 1.0
        beyond += (np.abs(signs @ unit) >= np.abs(observed) - 1e-12).sum(axis=0)
    return {
        name: {"difference": float(observed[i]), "p": float((beyond[i] + 1) / (rounds + 1))}
        for i, name in enumerate(METRICS)
    }


def _unit_sums(outcomes: Sequence[Outcome], units: Sequence[str], language: str) -> Sums:
    """(units, 2 + 2 metrics): queries and covered ones of a unit, the sums of the metrics over both."""
    rows = [i for i, outcome in enumerate(outcomes) if outcome.language == language]
    place = _numbered([units[i] or f"#{i}" for i in rows])
    values = np.array([measures(outcomes[i]) for i in rows])
    covered = np.array([[float(outcomes[i].covered)] for i in rows])
    columns = np.hstack([np.ones_like(covered), covered, values, values * covered])
    sums = np.zeros((place.max() + 1, columns.shape[1]))
    np.add.at(sums, place, columns)
    return sums


def _resampled(sums: Sums, generator: np.random.Generator) -> Sums:
    """(RESAMPLES, columns): sums over as many units as there are, drawn with replacement."""
    count = len(sums)
    blocks = []
    for start in range(0, RESAMPLES, _BLOCK):
        rounds = min(_BLOCK, RESAMPLES - start)
        drawn = generator.integers(0, count, (rounds, count))
        drawn += np.arange(rounds)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rounds * count).reshape(rounds, count)
        blocks.append(times @ sums)
    return np.concatenate(blocks)


def _ratios(sums: Sums) -> Sums:
    """(rounds, 2 metrics): the metrics on all queries, then on covered ones; NaN of no query."""
    width = len(METRICS)
    with np.errstate(invalid="ignore"):
        return np.hstack(
            [sums[:, 2 : 2 + width] / sums[:, :1], sums[:, 2 + width :] / sums[:, 1:2]]
        )


def _named(ratios: Sums) -> dict[str, Sums]:
    names = [f"{part}_{metric}" for part in ("all", "covered") for metric in METRICS]
    return {name: ratios[:, i] for i, name in enumerate(names)}


def _mean(values: Sums) -> Sums:
    """The mean over the languages that have a value."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Sums = np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)
    return mean


def _bounds(values: dict[str, Sums]) -> dict[str, tuple[float, float]]:
    bounds = {}
    for name, drawn in values.items():
        known = drawn[~np.isnan(drawn)]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        bounds[name] = (float(low), float(high))
    return bounds


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """A number for each name, equal ones alike, from 0."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
