"""Vanishing gradients: the norms that Nielsen reports in chapter 5, before the first training step.

    python -m reproductions.gradients

The metric is ‖δˡ‖ with δˡ = ∂C/∂bˡ, the mean over the first 1,000 digits, for each hidden layer of 30 sigmoids. The
network has the initialization of the book, W ~ N(0, 1 / n_in) and b ~ N(0, 1), and cross-entropy. The book reports the
norms of one network for each depth. The spread over our seeds shows how much networks differ, and is the tolerance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from handgrad import Dense, Network

from .nielsen import randomize_biases
from .tables import Metrics, Row, Run, Table, digits, main


def train(settings: dict[str, Any], seed: int) -> Metrics:
    """Compute the norm of the gradient with respect to the biases of each hidden layer. Nothing is trained."""
    (images, y), _ = digits(settings)
    x = images.reshape(len(y), 784) / 255
    hidden = settings["hidden"]
    network = randomize_biases(Network([784, *hidden, 10], init="lecun", rng=seed, dtype=np.float64), seed)
    network.backprop(x, network.loss.targets(y, len(x), 10, np.float64))
    dense = [layer for layer in network.layers if isinstance(layer, Dense)]
    return {f"layer {i}": float(np.linalg.norm(layer.db)) for i, layer in enumerate(dense[:-1], 1)}


PUBLISHED = {2: (0.07, 0.31), 3: (0.012, 0.060, 0.283), 4: (0.003, 0.017, 0.070, 0.285)}
RUNS = {f"{depth} layers": Run({"hidden": [30] * depth, "images": 1000}, 20) for depth in PUBLISHED}
ROWS = [
    Row("784-" + "30-" * depth + "10", f"‖δ‖ of hidden layer {i}", length, f"{depth} layers", f"layer {i}")
    for depth, lengths in PUBLISHED.items()
    for i, length in enumerate(lengths, 1)
]

TABLE = Table(
    "gradients",
    "Nielsen, Neural Networks and Deep Learning (2015), chapter 5: sigmoids, cross-entropy, before the first step.",
    train,
    RUNS,
    ROWS,
    least=0.0,
    most=math.inf,
    show=lambda value: f"{value:.3f}",
    what="network",
)

if __name__ == "__main__":
    main(TABLE, __doc__)
