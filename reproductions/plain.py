"""Three of Nielsen's experiments in twenty lines of plain NumPy, in float64, without handgrad's training code.

    python -m reproductions.plain

If handgrad and the book differ, an independent implementation can decide. This one has the same network, the same
settings, and the update of the book: W ← (1 - lr λ / n) W - lr / m Σ dW over a batch of m examples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad.data import load

from .nielsen import RUNS, TEST
from .nielsen import TABLE as NIELSEN
from .tables import Metrics, Row, Table, main


def sigmoid(z: Any) -> Any:
    """Compute σ(z) without overflow."""
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))


def train(settings: dict[str, Any], seed: int) -> Metrics:
    """Do one run with one hidden layer, cross-entropy and the initialization "large"."""
    (x, y), _, (x_test, y_test) = load("mnist").split(10_000)
    n, lr, (hidden,) = settings["images"], settings["lr"], settings["hidden"]
    x, x_test, t = x[:n].reshape(n, 784) / 255, x_test.reshape(-1, 784) / 255, np.eye(10)[y[:n]]
    rng = np.random.default_rng(seed)
    W1, b1 = rng.standard_normal((hidden, 784)), rng.standard_normal(hidden)
    W2, b2 = rng.standard_normal((10, hidden)), rng.standard_normal(10)
    decay, accuracy = 1 - lr * settings["lambda_"] / n, []
    for _ in range(settings["epochs"]):
        order = rng.permutation(n)
        for first in range(0, n, 10):
            batch = order[first : first + 10]
            a0 = x[batch]
            a1 = sigmoid(a0 @ W1.T + b1)
            a2 = sigmoid(a1 @ W2.T + b2)
            d2 = a2 - t[batch]
            d1 = d2 @ W2 * a1 * (1 - a1)
            W2, b2 = decay * W2 - lr / len(batch) * d2.T @ a1, b2 - lr / len(batch) * d2.sum(axis=0)
            W1, b1 = decay * W1 - lr / len(batch) * d1.T @ a0, b1 - lr / len(batch) * d1.sum(axis=0)
        predictions = (sigmoid(x_test @ W1.T + b1) @ W2.T + b2).argmax(axis=1)
        accuracy.append(float(np.mean(predictions == y_test)))
    return {"best": max(accuracy), "last": accuracy[-1]}


NAMES = ("1000 images", "1000 images, lambda 0.1", "30, lambda 5")
TABLE = Table(
    "plain",
    "Nielsen, Neural Networks and Deep Learning (2015), chapter 3, in plain NumPy without handgrad.",
    train,
    {name: RUNS[name] for name in NAMES},
    [Row(row.what, TEST, row.paper, row.run, "best", last="last") for row in NIELSEN.rows if row.run in NAMES],
    program="plain NumPy",
)

if __name__ == "__main__":
    main(TABLE, __doc__)
