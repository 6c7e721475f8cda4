"""The linear map that evens out the directions of vectors."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bioelx_mcp.errors import UsageError
from index_builder.whitening import whitening

RNG = np.random.default_rng(0)
VECTORS = (RNG.normal(size=(5000, 8)) * [9, 5, 3, 2, 1, 1, 0.5, 0.1] + 1).astype(np.float32)


def moment(power: float) -> NDArray[np.float32]:
    """The second moment of the vectors behind the map, its first entry 1."""
    mapped = VECTORS @ whitening(VECTORS, power, 0)
    product: NDArray[np.float32] = mapped.T @ mapped
    product /= product[0, 0]
    return product


def test_the_power_decides_how_even_the_directions_become() -> None:
    np.testing.assert_allclose(moment(1.0), np.eye(8), atol=1e-3)
    turned, soft = np.diag(moment(0.0)), np.diag(moment(0.5))
    np.testing.assert_allclose(soft, np.sqrt(turned), rtol=1e-3)
    assert np.all(np.diff(turned) < 0)


def test_turning_alone_keeps_every_cosine() -> None:
    mapped = VECTORS @ whitening(VECTORS, 0.0, 0)
    np.testing.assert_allclose(mapped @ mapped[:3].T, VECTORS @ VECTORS[:3].T, rtol=1e-3, atol=1e-2)


def test_the_strongest_directions_are_kept() -> None:
    assert whitening(VECTORS, 0.5, 3).shape == (8, 3)
    np.testing.assert_array_equal(whitening(VECTORS, 0.5, 3), whitening(VECTORS, 0.5, 0)[:, :3])
    with pytest.raises(UsageError, match="dimensions = 16: the vectors of this encoder have 8"):
        whitening(VECTORS, 0.5, 16)


def test_a_direction_that_nothing_lies_in_does_not_break_it() -> None:
    flat = VECTORS * np.array([1, 1, 1, 1, 1, 1, 1, 0], dtype=np.float32)
    assert np.isfinite(whitening(flat, 1.0, 0)).all()
