"""Whitening: a linear map after pooling, by which no direction of the vectors outweighs the others.

Names of one field lie close together: a few directions hold most of every cosine and say little. The map is
computed, not trained, and becomes part of the exported encoder.
"""

import numpy as np
from numpy.typing import NDArray

from bioelx_mcp.errors import UsageError

_LEAST = 1e-6  # of the greatest moment: a direction that nothing lies in is not blown up


def whitening(vectors: NDArray[np.float32], power: float, dimensions: int) -> NDArray[np.float32]:
    """Float32 (dimension, dimensions or dimension): what vectors are multiplied with, before their norm is made 1.

    The principal directions of the second moment, greatest first, each divided by its moment to the
    power / 2: 0 only turns, 1 whitens (Su et al. 2021, arXiv 2103.15316), between them is soft whitening.
    `dimensions` of them are kept; 0: all.

    Raises:
        UsageError: the vectors have fewer dimensions.
    """
    if dimensions > vectors.shape[1]:
        raise UsageError(
            f"dimensions = {dimensions}: the vectors of this encoder have {vectors.shape[1]}"
        )
    moment = vectors.T.astype(np.float64) @ vectors / len(vectors)
    values, directions = np.linalg.eigh(moment)  # least first
    values, directions = values[::-1], directions[:, ::-1]
    scale = np.maximum(values / values[0], _LEAST) ** (-power / 2)
    kept: NDArray[np.float32] = (directions * scale)[:, : dimensions or None].astype(np.float32)
    return kept
