"""Thirty layers of ReLUs learn with Kaiming's start and stand still with Xavier's: He et al. (2015), figures 2 and 3.

    python -m reproductions.he

The paper trains convolutional networks on ImageNet: 22 layers learn with either start, Xavier's later; 30 learn with
Kaiming's alone. Here the layers are Dense, 64 ReLUs wide, on MNIST, and the same is asked: does it leave where it
started? A network counts as learning above 50 %, as standing still below 12 %, about what the commonest digit alone
gives: our bounds, for the paper shows curves. Batches of 128, momentum 0.9, weight decay 0.0005 and a rate that begins
at 0.01 are the paper's, all of this from memory of it; it lowers the rate where the error stands still, here it falls
to 0 as a half cosine over six epochs. (With 0.01 all through, thirty layers learn with Kaiming's start as well, but do
not stay where they come: 44 to 84 % of the digits held out, from epoch to epoch.) W is drawn from a normal distribution
in both. A ReLU halves the mean square of what comes through it, so Xavier's start (equal widths: variance 1 / n_in) has
half of it left after each layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad import Momentum, Network, Trainer, schedules

from .tables import Figures, Row, Run, Table, digits, main


def train(choices: dict[str, Any], seed: int) -> Figures:
    """One run: how large the outputs begin, the test set's accuracy at the end, the training set's after each epoch."""
    (x, y), seen = digits(choices)
    rng = np.random.default_rng(seed)
    sizes = [784, *[64] * (choices["layers"] - 1), 10]
    network = Network(sizes, activation="relu", loss="cross_entropy", init=choices["init"], rng=rng)
    optimizer = Momentum(choices["lr"], choices["momentum"], l2=choices["l2"])
    schedule, batch_size = schedules.cosine(), choices["batch_size"]
    trainer = Trainer(network, optimizer, batch_size=batch_size, schedule=schedule, rng=rng)
    z = network.outputs(x[:1000])
    history = trainer.fit(x, y, epochs=choices["epochs"])
    figures = {f"train, epoch {epoch}": right for epoch, right in enumerate(history["accuracy"], 1)}
    return {"first outputs": float(np.sqrt(np.mean(z * z))), "last": network.evaluate(*seen).accuracy, **figures}


USUAL = {"lr": 0.01, "momentum": 0.9, "l2": 5e-4, "batch_size": 128, "epochs": 6, "images": 60_000}
RUNS = {
    f"{init} {layers}": Run({"layers": layers, "init": f"{init}_normal", **USUAL}, 5)
    for layers in (22, 30)
    for init in ("kaiming", "xavier")
}

ROWS = [
    Row("22 layers, Kaiming", "test, last epoch: > 50 %", 0.5, "kaiming 22", "last", ">", said="learns"),
    Row("22 layers, Xavier", "test, last epoch: > 50 %", 0.5, "xavier 22", "last", ">", said="learns"),
    Row("30 layers, Kaiming", "test, last epoch: > 50 %", 0.5, "kaiming 30", "last", ">", said="learns"),
    Row("30 layers, Xavier", "test, last epoch: < 12 %", 0.12, "xavier 30", "last", "<", said="stands still"),
]

TABLE = Table(
    "he",
    "He et al., Delving Deep into Rectifiers (2015), figures 2 and 3, asked of Dense layers on MNIST: does it learn?",
    train,
    RUNS,
    ROWS,
    least=0.0,
    most=0.0,
)

if __name__ == "__main__":
    main(TABLE, __doc__)
