"""30 layers of ReLUs learn with Kaiming initialization, not with Xavier: He et al. (2015), figures 2 and 3.

    python -m reproductions.he

The paper trains convolutional networks on ImageNet. With 22 layers, both initializations learn, Xavier later. With 30
layers, only Kaiming learns. We ask the same question for Dense layers of 64 ReLUs on MNIST. A network learns if its
accuracy is above 50 %, and it does not learn if its accuracy is below 12 %, about the share of the most frequent digit.
These bounds are ours, because the paper shows curves. W has a normal distribution in both cases.

Batch size 128, momentum 0.9, weight decay 0.0005 and an initial learning rate of 0.01 are those of the paper (from
memory). The paper reduces the learning rate when the error stops improving; we use a cosine schedule over six epochs.
With a constant learning rate of 0.01, 30 layers with Kaiming initialization learn too, but the validation accuracy
varies between 44 and 84 % from epoch to epoch.

A ReLU halves the mean square of its input. With Xavier initialization (variance 1 / n_in for equal widths), half of it
is therefore lost in each layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handgrad import Momentum, Network, Trainer, schedules

from .tables import Metrics, Row, Run, Table, digits, main


def train(settings: dict[str, Any], seed: int) -> Metrics:
    """Do one run. Returns the size of the initial outputs, the test accuracy, the training accuracy of each epoch."""
    (x, y), evaluated = digits(settings)
    rng = np.random.SeedSequence(seed)
    sizes = [784, *[64] * (settings["layers"] - 1), 10]
    network = Network(sizes, activation="relu", loss="cross_entropy", init=settings["init"], rng=rng)
    optimizer = Momentum(settings["lr"], settings["momentum"], l2=settings["l2"])
    schedule, batch_size = schedules.cosine(), settings["batch_size"]
    trainer = Trainer(network, optimizer, batch_size=batch_size, schedule=schedule, rng=rng)
    z = network.outputs(x[:1000])
    history = trainer.fit(x, y, epochs=settings["epochs"])
    accuracies = {f"train, epoch {epoch}": accuracy for epoch, accuracy in enumerate(history["accuracy"], 1)}
    return {
        "first outputs": float(np.sqrt(np.mean(z * z))),
        "last": network.evaluate(*evaluated).accuracy,
        **accuracies,
    }


USUAL = {"lr": 0.01, "momentum": 0.9, "l2": 5e-4, "batch_size": 128, "epochs": 6, "images": 60_000}
RUNS = {
    f"{init} {layers}": Run({"layers": layers, "init": f"{init}_normal", **USUAL}, 5)
    for layers in (22, 30)
    for init in ("kaiming", "xavier")
}

ROWS = [
    Row("22 layers, Kaiming", "test, last epoch: > 50 %", 0.5, "kaiming 22", "last", ">", text="learns"),
    Row("22 layers, Xavier", "test, last epoch: > 50 %", 0.5, "xavier 22", "last", ">", text="learns"),
    Row("30 layers, Kaiming", "test, last epoch: > 50 %", 0.5, "kaiming 30", "last", ">", text="learns"),
    Row("30 layers, Xavier", "test, last epoch: < 12 %", 0.12, "xavier 30", "last", "<", text="does not learn"),
]

TABLE = Table(
    "he",
    "He et al., Delving Deep into Rectifiers (2015), figures 2 and 3, with Dense layers on MNIST.",
    train,
    RUNS,
    ROWS,
    least=0.0,
    most=0.0,
)

if __name__ == "__main__":
    main(TABLE, __doc__)
