"""A neuron that is wrong and sure of it learns slowly: Nielsen's chapter 3, its two figures with the quadratic cost.

    python -m reproductions.neurons

One sigmoid neuron learns to give 0 for the input 1, by steps of lr 0.15 on (a - y)² / 2. The book starts it at
w = 0.6, b = 0.9, where it gives 0.82, and at w = b = 2, where it gives 0.98, and prints what it gives 300 epochs on.
There is no chance in it; the network is handgrad's, in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad import SGD, Network, Trainer

from .tables import Figures, Row, Run, Table, main


def train(choices: dict[str, Any], seed: int) -> Figures:
    """What the neuron gives at first, and after every fifty epochs."""
    network = Network([1, 1], loss="quadratic", rng=seed, dtype=np.float64)
    network.parameters[...] = choices["w"], choices["b"]
    trainer = Trainer(network, SGD(choices["lr"]), batch_size=1, rng=seed)
    x, y = np.ones((1, 1)), np.zeros((1, 1))
    figures = {"0": float(network.outputs(x).item())}
    for epochs in range(50, choices["epochs"] + 1, 50):
        trainer.fit(x, y, epochs=epochs)
        figures[str(epochs)] = float(network.outputs(x).item())
    return figures


RUNS = {
    "fast": Run({"w": 0.6, "b": 0.9, "lr": 0.15, "epochs": 300}, 1),
    "slow": Run({"w": 2.0, "b": 2.0, "lr": 0.15, "epochs": 300}, 1),
}

ROWS = [
    Row("w = 0.6, b = 0.9", "output at the start", 0.82, "fast", "0"),
    Row("w = 0.6, b = 0.9", "output after 300 epochs", 0.09, "fast", "300"),
    Row("w = 2, b = 2", "output at the start", 0.98, "slow", "0"),
    Row("w = 2, b = 2", "output after 300 epochs", 0.20, "slow", "300"),
]

TABLE = Table(
    "neurons",
    "Nielsen, Neural Networks and Deep Learning (2015), chapter 3: one neuron, quadratic cost, lr 0.15.",
    train,
    RUNS,
    ROWS,
    least=0.005,  # the book's last digit
    most=0.005,
    show=lambda value: f"{value:.3f}",
    what="start",
)

if __name__ == "__main__":
    main(TABLE, __doc__)
