"""Three layers of 1,024 ReLUs, with and without dropout: Srivastava et al. (2014), table 2.

    python -m reproductions.srivastava

The paper uses dropout rates of 0.5 in the hidden layers and 0.2 at the input, other settings chosen with a validation
set, and a million updates. It reports an error of 1.25 %, and of 1.06 % with max-norm. Its table also has 1.60 % for a
"standard neural net", two layers of 800 logistic units by Simard et al. We train the same three layers of 1,024 ReLUs
without dropout instead, which is the relevant comparison; this row has no verdict.

In the max-norm row, the norm of each row of W is at most 2, as in the appendix of the paper (from memory), which ends
with momentum 0.95. We use a batch size of 100, momentum 0.9, and a cosine schedule over 25 epochs, which are 15,000
updates. The learning rate is 0.03 in all rows: with dropout, it had the best validation accuracy of 0.01, 0.03 and 0.1
after five epochs on 50,000 digits (`--tune --images 50000 --epochs 5`). The training set has all 60,000 digits. The
test set is evaluated once per seed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from handgrad import Dense, Dropout, Layer, Momentum, Network, ReLU

from .tables import Metrics, Row, Run, Table, errors, main


def train(settings: dict[str, Any], seed: int) -> Metrics:
    """Do one run. Returns the error after the last epoch and the training error."""
    rng = np.random.SeedSequence(seed)
    sizes, (at_input, hidden) = [784, *settings["hidden"]], settings["dropout"]
    layers: list[Layer] = [Dropout(at_input)] if at_input else []
    for n_in, n_out in pairwise(sizes):
        layers += [Dense(n_in, n_out), ReLU()] + ([Dropout(hidden)] if hidden else [])
    network = Network([*layers, Dense(sizes[-1], 10)], loss="cross_entropy", rng=rng)
    optimizer = Momentum(settings["lr"], settings["momentum"], max_norm=settings["max_norm"])
    return errors(network, optimizer, settings, rng)


USUAL = {"hidden": [1024] * 3, "lr": 0.03, "momentum": 0.9, "batch_size": 100, "epochs": 25, "images": 60_000}
RUNS = {
    "none": Run({**USUAL, "dropout": [0.0, 0.0], "max_norm": None}, 2),
    "dropout": Run({**USUAL, "dropout": [0.2, 0.5], "max_norm": None}, 2),
    "dropout, max-norm": Run({**USUAL, "dropout": [0.2, 0.5], "max_norm": 2.0}, 2),
}

MEASURED = "test error, last epoch"
ROWS = [
    Row("784-3x1024-10, ReLU", MEASURED, None, "none", "error", text="1.60%, 2x800 logistic"),
    Row("784-3x1024-10, ReLU, dropout", MEASURED, 0.0125, "dropout", "error"),
    Row("784-3x1024-10, ReLU, dropout, max-norm", MEASURED, 0.0106, "dropout, max-norm", "error"),
]

TABLE = Table(
    "srivastava",
    "Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting (2014), table 2; 25 epochs, "
    "batch size 100, momentum 0.9.",
    train,
    RUNS,
    ROWS,
    least=0.0015,  # as in simard.py
    most=0.003,
    rates=(0.01, 0.03, 0.1),
)

if __name__ == "__main__":
    main(TABLE, __doc__)
