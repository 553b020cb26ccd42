"""The small network of the walkthrough: two inputs, two hidden units, one output, with numbers that fit on a page."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..network import Network

SMALL_EXAMPLE = "2-2-1"


def small_network() -> tuple[Network, Array, NDArray[np.int64], float]:
    """Return a 2-2-1 network with sigmoids, an example, its label and a learning rate."""
    network = Network([2, 2, 1], rng=0, dtype=np.float64)
    network.parameters[...] = [0.5, -0.4, 0.3, 0.8, 0.1, -0.2, 0.7, -0.6, 0.2]
    return network, np.array([[1.0, 0.5]]), np.array([1]), 0.5
