"""Gradients that vanish down the layers: the lengths that Nielsen prints in chapter 5, at the very start of training.

    python -m reproductions.gradients

‖δˡ‖, δˡ = ∂C/∂bˡ averaged over the first 1,000 digits, for each hidden layer of 30 sigmoids, with the book's start
W ~ N(0, 1 / n_in), b ~ N(0, 1) and cross-entropy, before the first step. The book prints the lengths of one network
each; how far one network may be from another is the spread over seeds, and that is how near the rows are held.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from handgrad import Dense, Network

from .nielsen import scaled
from .tables import Figures, Row, Run, Table, digits, main


def train(choices: dict[str, Any], seed: int) -> Figures:
    """The length of the gradient by each hidden layer's biases, lowest layer first. Nothing is trained."""
    (images, y), _ = digits(choices)
    x = images.reshape(len(y), 784) / 255
    hidden = choices["hidden"]
    network = scaled(Network([784, *hidden, 10], init="lecun", rng=seed, dtype=np.float64), seed)
    network.backprop(x, network.loss.targets(y, len(x), 10, np.float64))
    dense = [layer for layer in network.layers if isinstance(layer, Dense)]
    return {f"layer {i}": float(np.linalg.norm(layer.db)) for i, layer in enumerate(dense[:-1], 1)}


PRINTED = {2: (0.07, 0.31), 3: (0.012, 0.060, 0.283), 4: (0.003, 0.017, 0.070, 0.285)}
RUNS = {f"{depth} layers": Run({"hidden": [30] * depth, "images": 1000}, 20) for depth in PRINTED}
ROWS = [
    Row("784-" + "30-" * depth + "10", f"‖δ‖ of hidden layer {i}", length, f"{depth} layers", f"layer {i}")
    for depth, lengths in PRINTED.items()
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
