"""Mined neighbours: concepts whose names lie near, other than the same name and the same concept."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from index_builder.mining import NEIGHBOURS, mine_neighbours
from index_builder.pairs import Names, PairSampler

# Concept -> the angles (degrees) of its two names on the unit circle.
ANGLES = {0: (0, 2), 1: (30, 33), 2: (34, 36), 3: (120, 124), 4: (1, 2), 5: (200, 203)}


def names(angles: dict[int, tuple[int, int]] = ANGLES) -> Names:
    texts = [str(angle) for pair in angles.values() for angle in pair]
    keys = sorted(set(texts))
    return Names(
        pa.array(texts, pa.large_string()),
        np.repeat(np.arange(10, 10 + len(angles)), 2).astype(np.int64),
        np.zeros(len(texts), dtype=np.int64),
        np.zeros(len(texts), dtype=np.int64),
        np.array([keys.index(text) for text in texts], dtype=np.int64),
        np.ones(len(texts)),
    )


def embed(texts: Sequence[str]) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor([float(text) for text in texts]))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_neighbours_are_near_but_neither_the_same_nor_too_near() -> None:
    sampler = PairSampler(names(), cross_lingual=0.5, exponent=0.5, seed=0)
    found = mine_neighbours(sampler, embed, seed=0, step=0)
    assert found.shape == (len(ANGLES), NEIGHBOURS)
    assert found.dtype == np.int32
    nearest = [row[0] for row in found.tolist()]
    assert nearest[0] in (1, 2)  # not 4: its names lie within the cosine of one and the same thing
    assert nearest[3] in (2, 5)  # not itself
    for concept, row in enumerate(found.tolist()):
        told = [one for one in row if one >= 0]
        assert concept not in told
        assert len(set(told)) == len(told)
        assert row == [*told, *[-1] * (NEIGHBOURS - len(told))]
    again = mine_neighbours(sampler, embed, seed=0, step=0)
    assert np.array_equal(found, again)


def test_of_the_concepts_that_are_not_looked_at_nothing_is_known() -> None:
    sampler = PairSampler(names(), cross_lingual=0.5, exponent=0.5, seed=0)
    found = mine_neighbours(sampler, embed, seed=0, step=0, concepts=3)
    assert np.sum(found[:, 0] >= 0) <= 3


def test_a_concept_that_shares_a_name_is_no_neighbour() -> None:
    """Concept 1 lies nearest to concept 0 by its other name, which is not the one they share."""
    sampler = PairSampler(
        names({0: (0, 60), 1: (60, 30), 2: (40, 45), 3: (200, 205)}),
        cross_lingual=0.5,
        exponent=0.5,
        seed=0,
    )
    for step in range(5):
        found = mine_neighbours(sampler, embed, seed=0, step=step)
        assert 1 not in found[0]
        assert 0 not in found[1]
        assert 2 in found[0]
