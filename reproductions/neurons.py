"""A saturated neuron learns slowly with the quadratic cost: two figures of Nielsen's chapter 3.

    python -m reproductions.neurons

One sigmoid neuron learns to output 0 for the input 1, with the cost (a - y)² / 2 and a learning rate of 0.15. The book
starts it at w = 0.6, b = 0.9, where its output is 0.82, and at w = b = 2, where its output is 0.98, and reports the
output after 300 epochs. Nothing in this experiment is random. The network uses float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad import SGD, Network, SquaredError, Trainer

from .tables import Metrics, Row, Run, Table, main


def train(settings: dict[str, Any], seed: int) -> Metrics:
    """Return the initial output of the neuron, and its output after every 50 epochs."""
    network = Network([1, 1], loss=SquaredError("sigmoid"), rng=seed, dtype=np.float64)
    network.parameters[...] = settings["w"], settings["b"]
    trainer = Trainer(network, SGD(settings["lr"]), batch_size=1, rng=seed)
    x, y = np.ones((1, 1)), np.zeros((1, 1))
    outputs = {"0": float(network.predict_proba(x).item())}
    for epoch in range(50, settings["epochs"] + 1, 50):
        trainer.fit(x, y, until_epoch=epoch)
        outputs[str(epoch)] = float(network.predict_proba(x).item())
    return outputs


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
    least=0.005,  # the last printed digit
    most=0.005,
    show=lambda value: f"{value:.3f}",
    what="start",
)

if __name__ == "__main__":
    main(TABLE, __doc__)
