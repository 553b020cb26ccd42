"""Every perceptron of Nielsen's Neural Networks and Deep Learning, chapters 1, 3 and 5, with the book's settings.

    python -m reproductions.nielsen

The book trains on 50,000 digits in batches of 10 and looks at a set after every epoch: at the test set, or at the
10,000 digits held out, as each row says; it reports the best epoch, for the quadratic cost that of the best of three
runs. So do the rows here, and beside them stands the last epoch, which is the honest figure. Nothing was tuned: the
settings are the book's. Its λ / n is our l2. Two ways to begin: "large" is W, b ~ N(0, 1); "scaled", chapter 3's better
one, is W ~ N(0, 1 / n_in), b ~ N(0, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad import SGD, Network, Trainer
from handgrad.data import load

from .tables import Figures, Row, Run, Table, main


def settings(*hidden: int, **choices: Any) -> dict[str, Any]:
    """The book's usual choices with these in their place."""
    usual = {"loss": "binary_cross_entropy", "lr": 0.5, "lambda_": 0.0, "init": "large", "epochs": 30, "images": 50_000}
    return {"hidden": list(hidden), **usual, "watched": "test", **choices}


def train(choices: dict[str, Any], seed: int) -> Figures:
    """One run: the accuracy on the watched set after three of its epochs; on the training set at the end."""
    (x, y), validation, test = load("mnist").split(10_000)
    x, y = x[: choices["images"]], y[: choices["images"]]
    rng = np.random.default_rng(seed)
    large = choices["init"] == "large"
    sizes = [784, *choices["hidden"], 10]
    network = Network(sizes, loss=choices["loss"], init="normal" if large else "lecun", rng=rng)
    if not large:
        scaled(network, seed)
    trainer = Trainer(network, SGD(choices["lr"], l2=choices["lambda_"] / len(x)), batch_size=10, rng=rng)
    watched = test if choices["watched"] == "test" else validation
    accuracy = trainer.fit(x, y, epochs=choices["epochs"], validation=watched)["val_accuracy"]
    seen = network.evaluate(x, y).accuracy
    return {"first": accuracy[0], "best": max(accuracy), "last": accuracy[-1], "train": seen}


def scaled(network: Network, seed: int) -> Network:
    """The book's scaled start of a network whose W are ~ N(0, 1 / n_in): b ~ N(0, 1) too, where handgrad's are 0."""
    biases = np.random.default_rng((seed, 1))
    for name, p in network.named_parameters.items():
        if name.endswith("b"):
            p[...] = biases.standard_normal(p.shape)
    return network


DEEP = {"lambda_": 5.0, "lr": 0.1, "watched": "validation"}
RUNS = {
    "quadratic 30": Run(settings(30, loss="quadratic", lr=3.0), 6),
    "quadratic 100": Run(settings(100, loss="quadratic", lr=3.0), 6),
    "30": Run(settings(30), 5),
    "100": Run(settings(100), 5),
    "lr 0.001": Run(settings(100, loss="quadratic", lr=0.001), 5),
    "lr 100": Run(settings(30, loss="quadratic", lr=100.0), 5),
    "1000 images": Run(settings(30, images=1000, epochs=400), 5),
    "1000 images, lambda 0.1": Run(settings(30, images=1000, epochs=400, lambda_=0.1), 5),
    "30, lambda 5": Run(settings(30, lambda_=5.0), 5),
    "large": Run(settings(30, **DEEP), 5),
    "depth 1": Run(settings(30, **DEEP, init="scaled"), 5),
    "depth 2": Run(settings(30, 30, **DEEP, init="scaled"), 5),
    "depth 3": Run(settings(30, 30, 30, **DEEP, init="scaled"), 5),
    "depth 4": Run(settings(30, 30, 30, 30, **DEEP, init="scaled"), 5),
    "100, lambda 5": Run(settings(100, lambda_=5.0, watched="validation"), 5),
    "100, lambda 5, lr 0.1": Run(settings(100, **DEEP, epochs=60), 5),
}

TEST, HELD_OUT = "test, best epoch", "validation, best epoch"
ROWS = [
    Row("784-30-10, quadratic, lr 3", "test, best epoch of 3 runs", 0.9542, "quadratic 30", "best", "", 3, "last"),
    Row("784-100-10, quadratic, lr 3", "test, best epoch of 3 runs", 0.9659, "quadratic 100", "best", "", 3, "last"),
    Row("784-100-10, quadratic, lr 0.001", "test, last epoch", 0.2142, "lr 0.001", "last"),
    Row("784-30-10, quadratic, lr 100", "test, last epoch", 0.10, "lr 100", "last"),
    Row("784-30-10, cross-entropy", TEST, 0.9549, "30", "best", last="last"),
    Row("784-100-10, cross-entropy", TEST, 0.9682, "100", "best", last="last"),
    Row("784-30-10, 1,000 images, 400 epochs", TEST, 0.8227, "1000 images", "best", last="last"),
    Row("the same, λ 0.1", TEST, 0.871, "1000 images, lambda 0.1", "best", last="last"),
    Row("784-30-10, cross-entropy", "train, last epoch", 0.9786, "30", "train"),
    Row("784-30-10, cross-entropy", "test, last epoch", 0.9533, "30", "last"),
    Row("784-30-10, λ 5", TEST, 0.9649, "30, lambda 5", "best", last="last"),
    Row("784-100-10, λ 5", HELD_OUT, 0.9792, "100, lambda 5", "best", last="last"),
    Row("784-100-10, λ 5, lr 0.1, 60 epochs", HELD_OUT, 0.9804, "100, lambda 5, lr 0.1", "best", last="last"),
    Row("784-30-10, λ 5, lr 0.1, large start", "validation, first epoch", 0.87, "large", "first", "<"),
    Row("the same, scaled start", "validation, first epoch", 0.93, "depth 1", "first"),
    Row("784-30-10, λ 5, lr 0.1, large start", HELD_OUT, 0.96, "large", "best", last="last"),
    Row("784-30-10, λ 5, lr 0.1, scaled start", HELD_OUT, 0.9648, "depth 1", "best", last="last"),
    Row("784-30-30-10", HELD_OUT, 0.9690, "depth 2", "best", last="last"),
    Row("784-30-30-30-10", HELD_OUT, 0.9657, "depth 3", "best", last="last"),
    Row("784-30-30-30-30-10", HELD_OUT, 0.9653, "depth 4", "best", last="last"),
]

TABLE = Table(
    "nielsen",
    "Nielsen, Neural Networks and Deep Learning (2015), chapters 1, 3 and 5; sigmoids, batches of 10, 50,000 digits, "
    "30 epochs, cross-entropy with lr 0.5, where a row says nothing else.",
    train,
    RUNS,
    ROWS,
)

if __name__ == "__main__":
    main(TABLE, __doc__)
