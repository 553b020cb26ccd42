"""Thirty layers of ReLUs learn with Kaiming's start and stand still with Xavier's: He et al. (2015), figures 2 and 3.

    python -m reproductions.he

The paper trains convolutional networks on ImageNet: 22 layers learn with either start, Xavier's later; 30 learn with
Kaiming's alone. Here the layers are Dense, 64 ReLUs wide, on MNIST, and the same is asked: does the loss leave where
it started? A network counts as learning above 90 %, as standing still below 12 %, what the commonest digit alone
gives. Momentum 0.9 and weight decay 0.0005 are the paper's; lr 0.01 and batches of 128 too, with ten epochs of MNIST
in place of its eighty. W is drawn from a normal distribution in both; a ReLU halves the mean square of what comes
through it, so that each layer of Xavier's start (equal widths: variance 1 / n_in) takes it down by half.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad import Momentum, Network, Trainer
from handgrad.data import load

from .tables import Figures, Row, Run, Table, main


def train(choices: dict[str, Any], seed: int) -> Figures:
    """One run: the held-out accuracy after every epoch, and how large the outputs and the lowest gradient begin."""
    (x, y), validation, _ = load("mnist").split(10_000)
    rng = np.random.default_rng(seed)
    sizes = [784, *[64] * (choices["layers"] - 1), 10]
    network = Network(sizes, activation="relu", loss="softmax_cross_entropy", init=choices["init"], rng=rng)
    optimizer = Momentum(choices["lr"], choices["momentum"], l2=choices["l2"])
    trainer = Trainer(network, optimizer, batch_size=choices["batch_size"], rng=rng)
    z = network.outputs(x[:1000])
    accuracy = trainer.fit(x, y, epochs=choices["epochs"], validation=validation)["val_accuracy"]
    figures = {f"epoch {epoch}": right for epoch, right in enumerate(accuracy, 1)}
    return {"first outputs": float(np.sqrt(np.mean(z * z))), "last": accuracy[-1], **figures}


USUAL = {"lr": 0.01, "momentum": 0.9, "l2": 5e-4, "batch_size": 128, "epochs": 10}
RUNS = {
    f"{init} {layers}": Run({"layers": layers, "init": f"{init}_normal", **USUAL}, 3)
    for layers in (22, 30)
    for init in ("kaiming", "xavier")
}

ROWS = [
    Row("22 layers, Kaiming", "learns: validation, epoch 10", 0.9, "kaiming 22", "last", ">"),
    Row("22 layers, Xavier", "learns: validation, epoch 10", 0.9, "xavier 22", "last", ">"),
    Row("30 layers, Kaiming", "learns: validation, epoch 10", 0.9, "kaiming 30", "last", ">"),
    Row("30 layers, Xavier", "stands still: validation, epoch 10", 0.12, "xavier 30", "last", "<"),
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
