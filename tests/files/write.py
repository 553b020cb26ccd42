"""How the files beside this were written, once, by handgrad 0.1.0: later versions read them, and write none of them.

python tests/files/write.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from handgrad import (
    Adam,
    BatchNorm,
    Committee,
    Dense,
    Deskew,
    Dropout,
    ExponentialAverage,
    Gelu,
    LeakyRelu,
    Network,
    SoftmaxCrossEntropy,
    Softplus,
    Trainer,
    save,
)
from handgrad.files import Checkpoint, resume

HERE = Path(__file__).parent


def write() -> None:
    """All of them, and what they answer to x."""
    rng = np.random.default_rng(0)
    x, y = np.round(rng.random((6, 4)), 3), np.arange(6) % 3

    every = [Dense(4, 5), LeakyRelu(0.2), Dropout(0.3), Dense(5, 4), Gelu(), Dense(4, 4), Softplus(), Dense(4, 3)]
    batch_norm = Network([4, 5, 3], activation="relu", batch_norm=True, loss="softmax_cross_entropy", rng=2)
    Trainer(batch_norm, Adam(0.05), batch_size=3, rng=0).fit(x, y, epochs=3)
    deskew = Network([4, 5, 3], activation="tanh", loss="softmax_cross_entropy", rng=3, preprocessing=Deskew(2, 2))
    members = [
        Network([4, 5, 3], loss="softmax_cross_entropy", rng=4),
        Network([BatchNorm(4), Dense(4, 3)], loss=SoftmaxCrossEntropy(0.1, temperature=2), rng=5),
    ]
    numbers = Network([4, 5, 1], activation="tanh", loss="huber", rng=8)
    models = {
        "network-1": Network([4, 5, 3], rng=0),
        "layers-1": Network(every, loss="softmax_cross_entropy", rng=1, dtype=np.float64),
        "batch-norm-2": batch_norm,
        "deskew-2": deskew,
        "yes-or-no-3": Network([4, 5, 1], rng=9),
        "numbers-3": numbers,
    }
    for network in (*models.values(), *members):
        network.classes, network.image_shape = ("ant", "bee", "cat ü")[: network.n_classes], (2, 2)
    deskew.views = 5
    expected = {"x": x.tolist()}
    for name, model in {**models, "committee-2": Committee(members)}.items():
        save(model, HERE / f"{name}.safetensors")
        expected[name] = model.outputs(x).tolist()

    checkpoint = HERE / "checkpoint-1.safetensors"
    callbacks = [ExponentialAverage(0.9), Checkpoint(checkpoint)]
    Trainer(Network([4, 5, 3], rng=6), Adam(0.01), batch_size=3, callbacks=callbacks, rng=7).fit(x, y, epochs=2)
    trainer = Trainer(Network([4, 5, 3], rng=0), Adam(0.01), batch_size=3, callbacks=[ExponentialAverage(0.9)], rng=0)
    resume(trainer, checkpoint)
    expected["checkpoint-1"] = trainer.network.outputs(x).tolist()
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write()
