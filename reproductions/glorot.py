"""Five hidden layers of a thousand: Glorot & Bengio (2010), table 1, the column of MNIST.

    python -m reproductions.glorot

The paper: one thousand units a layer, softmax and its log-likelihood, plain stochastic gradient descent in batches of
ten, the rate and the number of epochs chosen on held-out digits, 50,000 digits to train on; W ~ U(-r, r) with r = 1 /
√n_in, the usual start of its time, or, where the table says N, r = √(6 / (n_in + n_out)), b = 0. Here the network and
its starts are the paper's, the training is shorter: batches of 50, momentum 0.9, a rate that falls to 0 as a half
cosine over six epochs. The rate was chosen on the digits held out: 0.015 for tanh, the best of 0.005, 0.015 and 0.05
with tanh N after five epochs of the other 50,000 (`--tune --images 50000 --epochs 5`); 0.05 for softsign, half of what
was the best in batches of 100 after six epochs of 10,000. The test set is read once for each seed. Sigmoids are trained
by Adam: by momentum they do not leave the place where they start, with a rate of 0.1, 0.3, 1 or 3, in twelve epochs of
10,000 digits, for what five of them leave of the difference between two digits is too little to learn by, and Adam's
step is no shorter where the gradient is small (lr 3e-4: 40 % wrong after six epochs of 10,000 digits; 1e-4: 45 %, 1e-3:
89 %). Softsign is no layer of handgrad's: it stands below, and `check_gradient` looks at its derivative before anything
is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from handgrad import Adam, Dense, Layer, Momentum, Network, Optimizer, Sigmoid, Tanh, check_gradient
from handgrad.arrays import Array

from .tables import Figures, Row, Run, Table, errors, main


class Softsign(Layer):
    """a = z / (1 + |z|)"""

    def forward(self, z: Array) -> Array:
        self.d = 1 / (1 + np.abs(z))
        return z * self.d

    def backward(self, da: Array) -> Array:
        return da * self.d * self.d  # da/dz = 1 / (1 + |z|)²


ACTIVATIONS: dict[str, Callable[[], Layer]] = {"tanh": Tanh, "softsign": Softsign, "sigmoid": Sigmoid}
USUAL = {"hidden": [1000] * 5, "batch_size": 50, "momentum": 0.9, "epochs": 6, "images": 50_000}


def born(choices: dict[str, Any], rng: np.random.Generator) -> Network:
    """The network, with the start of its row."""
    kind, sizes = ACTIVATIONS[choices["activation"]], [784, *choices["hidden"]]
    hidden = [part for pair in pairwise(sizes) for part in (Dense(*pair, "xavier_uniform"), kind())]
    layers = [*hidden, Dense(sizes[-1], 10, "xavier_uniform")]
    network = Network(layers, loss="cross_entropy", rng=rng)
    if not choices["normalised"]:
        for W, _ in network.weights:
            n_out, n_in = W.shape
            W *= math.sqrt((n_in + n_out) / (6 * n_in))  # U(-r, r) of one r is U(-r, r) of the other, scaled
    return network


def train(choices: dict[str, Any], seed: int) -> Figures:
    """One run: the test set's error after the last epoch, and the training set's as training saw it."""
    check_gradient(Softsign(), np.random.default_rng(seed).standard_normal((5, 7)))
    rng, lr, momentum = np.random.default_rng(seed), choices["lr"], choices["momentum"]
    optimizer: Optimizer = Adam(lr) if momentum is None else Momentum(lr, momentum)
    return errors(born(choices, rng), optimizer, choices, rng)


RUNS = {
    "softsign": Run({"activation": "softsign", "normalised": False, "lr": 0.05, **USUAL}, 2),
    "softsign N": Run({"activation": "softsign", "normalised": True, "lr": 0.05, **USUAL}, 2),
    "tanh": Run({"activation": "tanh", "normalised": False, "lr": 0.015, **USUAL}, 2),
    "tanh N": Run({"activation": "tanh", "normalised": True, "lr": 0.015, **USUAL}, 2),
    "sigmoid, Adam": Run({"activation": "sigmoid", "normalised": False, "lr": 3e-4, **USUAL, "momentum": None}, 2),
}

PAPER = {"softsign": 0.0164, "softsign N": 0.0172, "tanh": 0.0176, "tanh N": 0.0164, "sigmoid, Adam": 0.0221}
ROWS = [Row(f"784-5x1000-10, {name}", "test error, last epoch", error, name, "error") for name, error in PAPER.items()]

TABLE = Table(
    "glorot",
    "Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks (2010), table 1; "
    "6 epochs in batches of 50, momentum 0.9.",
    train,
    RUNS,
    ROWS,
    least=0.0015,  # as in simard
    most=0.003,
    rates=(0.005, 0.015, 0.05),
)

if __name__ == "__main__":
    main(TABLE, __doc__)
