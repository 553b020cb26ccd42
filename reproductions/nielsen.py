"""All perceptrons of Nielsen's Neural Networks and Deep Learning, chapters 1, 3 and 5, with the settings of the book.

    python -m reproductions.nielsen

The book trains on 50,000 digits with a batch size of 10. After every epoch it evaluates the test set or the 10,000
validation digits, as stated in each row, and reports the best epoch (for the quadratic cost, the best epoch of three
runs). The rows do the same, and also report the last epoch, which is not biased by choosing an epoch. Nothing was
tuned. The book's λ / n is `l2` in handgrad. The initialization "large" is W, b ~ N(0, 1), and "scaled", the better one
of chapter 3, is W ~ N(0, 1 / n_in), b ~ N(0, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad import SGD, BinaryCrossEntropy, Network, SquaredError, Trainer
from handgrad.data import load

from .tables import Metrics, Row, Run, Table, main

LOSSES = {"binary_cross_entropy": BinaryCrossEntropy(), "squared_error": SquaredError("sigmoid")}


def settings_for(*hidden: int, **changes: Any) -> dict[str, Any]:
    """Return the default settings of the book with these changes."""
    defaults = {
        "loss": "binary_cross_entropy",
        "lr": 0.5,
        "lambda_": 0.0,
        "init": "large",
        "epochs": 30,
        "images": 50_000,
    }
    return {"hidden": list(hidden), **defaults, "evaluated": "test", **changes}


def train(settings: dict[str, Any], seed: int) -> Metrics:
    """Do one run. Returns the accuracy after the first, the best and the last epoch, and the training accuracy."""
    (x, y), validation, test = load("mnist").split(10_000)
    x, y = x[: settings["images"]], y[: settings["images"]]
    rng = np.random.SeedSequence(seed)  # the network and the trainer spawn different generators from it
    large = settings["init"] == "large"
    sizes = [784, *settings["hidden"], 10]
    network = Network(sizes, loss=LOSSES[settings["loss"]], init="normal" if large else "lecun", rng=rng)
    if not large:
        randomize_biases(network, seed)
    trainer = Trainer(network, SGD(settings["lr"], l2=settings["lambda_"] / len(x)), batch_size=10, rng=rng)
    evaluated = test if settings["evaluated"] == "test" else validation
    accuracy = trainer.fit(x, y, epochs=settings["epochs"], validation=evaluated)["val_accuracy"]
    train_accuracy = network.evaluate(x, y).accuracy
    return {"first": accuracy[0], "best": max(accuracy), "last": accuracy[-1], "train": train_accuracy}


def randomize_biases(network: Network, seed: int) -> Network:
    """Set b ~ N(0, 1), as in the book. The biases of the initializer "lecun" are 0."""
    biases = np.random.default_rng((seed, 1))
    for name, p in network.named_parameters.items():
        if name.endswith("b"):
            p[...] = biases.standard_normal(p.shape)
    return network


DEEP = {"lambda_": 5.0, "lr": 0.1, "evaluated": "validation"}
RUNS = {
    "quadratic 30": Run(settings_for(30, loss="squared_error", lr=3.0), 6),
    "quadratic 100": Run(settings_for(100, loss="squared_error", lr=3.0), 6),
    "30": Run(settings_for(30), 5),
    "100": Run(settings_for(100), 5),
    "lr 0.001": Run(settings_for(100, loss="squared_error", lr=0.001), 5),
    "lr 100": Run(settings_for(30, loss="squared_error", lr=100.0), 5),
    "1000 images": Run(settings_for(30, images=1000, epochs=400), 5),
    "1000 images, lambda 0.1": Run(settings_for(30, images=1000, epochs=400, lambda_=0.1), 5),
    "30, lambda 5": Run(settings_for(30, lambda_=5.0), 5),
    "large": Run(settings_for(30, **DEEP), 5),
    "depth 1": Run(settings_for(30, **DEEP, init="scaled"), 5),
    "depth 2": Run(settings_for(30, 30, **DEEP, init="scaled"), 5),
    "depth 3": Run(settings_for(30, 30, 30, **DEEP, init="scaled"), 5),
    "depth 4": Run(settings_for(30, 30, 30, 30, **DEEP, init="scaled"), 5),
    "100, lambda 5": Run(settings_for(100, lambda_=5.0, evaluated="validation"), 5),
    "100, lambda 5, lr 0.1": Run(settings_for(100, **DEEP, epochs=60), 5),
}

TEST, VALIDATION = "test, best epoch", "validation, best epoch"
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
    Row("784-100-10, λ 5", VALIDATION, 0.9792, "100, lambda 5", "best", last="last"),
    Row("784-100-10, λ 5, lr 0.1, 60 epochs", VALIDATION, 0.9804, "100, lambda 5, lr 0.1", "best", last="last"),
    Row("784-30-10, λ 5, lr 0.1, large init", "validation, first epoch", 0.87, "large", "first", "<"),
    Row("the same, scaled init", "validation, first epoch", 0.93, "depth 1", "first"),
    Row("784-30-10, λ 5, lr 0.1, large init", VALIDATION, 0.96, "large", "best", last="last"),
    Row("784-30-10, λ 5, lr 0.1, scaled init", VALIDATION, 0.9648, "depth 1", "best", last="last"),
    Row("784-30-30-10", VALIDATION, 0.9690, "depth 2", "best", last="last"),
    Row("784-30-30-30-10", VALIDATION, 0.9657, "depth 3", "best", last="last"),
    Row("784-30-30-30-30-10", VALIDATION, 0.9653, "depth 4", "best", last="last"),
]

TABLE = Table(
    "nielsen",
    "Nielsen, Neural Networks and Deep Learning (2015), chapters 1, 3 and 5; sigmoids, batch size 10, 50,000 digits, "
    "30 epochs, cross-entropy with lr 0.5, unless a row states something else.",
    train,
    RUNS,
    ROWS,
)

if __name__ == "__main__":
    main(TABLE, __doc__)
