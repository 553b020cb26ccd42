"""Five hidden layers of a thousand: Glorot & Bengio (2010), table 1, the column of MNIST.

    python -m reproductions.glorot

The paper: one thousand units a layer, softmax and its log-likelihood, plain stochastic gradient descent in batches of
ten, the rate and the number of epochs chosen on held-out digits, 50,000 digits to train on; W ~ U(-r, r) with
r = 1 / √n_in, the usual start of its time, or, where the table says N, r = √(6 / (n_in + n_out)), b = 0. Here the
network and its starts are the paper's, the training is shorter: batches of 100, momentum 0.9, a rate that falls to 0
as a half cosine over six epochs. The rate, one for each activation, was set by one epoch on 10,000 digits, read on the
10,000 held out (`--tune` does it again); the test set is read once for each seed. Softsign is no layer of handgrad's:
it stands below, and `check_gradient` looks at its derivative before anything is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from handgrad import Dense, Layer, Momentum, Network, Sigmoid, Tanh, Trainer, check_gradient, schedules
from handgrad.arrays import Array

from .tables import Figures, Row, Run, Table, digits, main


class Softsign(Layer):
    """a = z / (1 + |z|)"""

    def forward(self, z: Array) -> Array:
        self.d = 1 / (1 + np.abs(z))
        return z * self.d

    def backward(self, da: Array) -> Array:
        return da * self.d * self.d  # da/dz = 1 / (1 + |z|)²


ACTIVATIONS: dict[str, Callable[[], Layer]] = {"tanh": Tanh, "softsign": Softsign, "sigmoid": Sigmoid}
USUAL = {"hidden": [1000] * 5, "batch_size": 100, "momentum": 0.9, "epochs": 6, "images": 50_000}
LR = {"tanh": 0.03, "softsign": 0.1, "sigmoid": 0.1}


def built(choices: dict[str, Any], seed: int) -> Trainer:
    """The network and its trainer."""
    kind, sizes = ACTIVATIONS[choices["activation"]], [784, *choices["hidden"]]
    rng = np.random.default_rng(seed)
    hidden = [part for pair in pairwise(sizes) for part in (Dense(*pair, "xavier_uniform"), kind())]
    layers = [*hidden, Dense(sizes[-1], 10, "xavier_uniform")]
    network = Network(layers, loss="softmax_cross_entropy", rng=rng)
    if not choices["normalised"]:
        for W, _ in network.weights:
            n_out, n_in = W.shape
            W *= math.sqrt((n_in + n_out) / (6 * n_in))  # U(-r, r) of one r is U(-r, r) of the other, scaled
    optimizer = Momentum(choices["lr"], choices["momentum"])
    return Trainer(network, optimizer, batch_size=choices["batch_size"], schedule=schedules.cosine(), rng=rng)


def train(choices: dict[str, Any], seed: int) -> Figures:
    """One run: the test set's error after the last epoch, and the training set's as training saw it."""
    check_gradient(Softsign(), np.random.default_rng(seed).standard_normal((5, 7)))
    (x, y), seen = digits(choices)
    trainer = built(choices, seed)
    history = trainer.fit(x, y, epochs=choices["epochs"])
    return {"error": 1 - trainer.network.evaluate(*seen).accuracy, "train error": 1 - history["accuracy"][-1]}


RUNS = {
    activation + (" N" if normalised else ""): Run(
        {"activation": activation, "normalised": normalised, "lr": LR[activation], **USUAL}, 2
    )
    for activation, normalised in [("tanh", False), ("tanh", True), ("softsign", False), ("softsign", True)]
} | {"sigmoid": Run({"activation": "sigmoid", "normalised": False, "lr": LR["sigmoid"], **USUAL}, 2)}

PAPER = {"softsign": 0.0164, "softsign N": 0.0172, "tanh": 0.0176, "tanh N": 0.0164, "sigmoid": 0.0221}
ROWS = [Row(f"784-5x1000-10, {name}", "test error, last epoch", error, name, "error") for name, error in PAPER.items()]

TABLE = Table(
    "glorot",
    "Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks (2010), table 1; "
    "6 epochs in batches of 100, momentum 0.9.",
    train,
    RUNS,
    ROWS,
    rates=(0.01, 0.03, 0.1, 0.3),
)

if __name__ == "__main__":
    main(TABLE, __doc__)
