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
    Ensemble,
    Dense,
    Deskew,
    Dropout,
    EMA,
    GELU,
    LeakyReLU,
    Network,
    CrossEntropy,
    Softplus,
    Trainer,
    save,
)
from handgrad.callbacks import Checkpoint, resume
from handgrad.sklearn import MLPClassifier
from handgrad.sklearn import save as save_estimator

HERE = Path(__file__).parent


def write() -> None:
    """All of them, and what they answer to x."""
    rng = np.random.default_rng(0)
    x, y = np.round(rng.random((6, 4)), 3), np.arange(6) % 3

    every = [Dense(4, 5), LeakyReLU(0.2), Dropout(0.3), Dense(5, 4), GELU(), Dense(4, 4), Softplus(), Dense(4, 3)]
    batch_norm = Network([4, 5, 3], activation="relu", batch_norm=True, loss="cross_entropy", rng=2)
    Trainer(batch_norm, Adam(0.05), batch_size=3, rng=0).fit(x, y, epochs=3)
    deskew = Network([4, 5, 3], activation="tanh", loss="cross_entropy", rng=3, preprocessing=Deskew(2, 2))
    members = [
        Network([4, 5, 3], loss="cross_entropy", rng=4),
        Network([BatchNorm(4), Dense(4, 3)], loss=CrossEntropy(0.1, temperature=2), rng=5),
    ]
    numbers = Network([4, 5, 1], activation="tanh", loss="huber", rng=8)
    models = {
        "network-1": Network([4, 5, 3], rng=0),
        "layers-1": Network(every, loss="cross_entropy", rng=1, dtype=np.float64),
        "batch-norm-2": batch_norm,
        "deskew-2": deskew,
        "yes-or-no-3": Network([4, 5, 1], rng=9),
        "numbers-3": numbers,
    }
    for network in (*models.values(), *members):
        network.classes, network.image_shape = ("ant", "bee", "cat ü")[: network.n_classes], (2, 2)
    deskew.views = 5
    expected = {"x": x.tolist()}
    for name, model in {**models, "ensemble-2": Ensemble(members)}.items():
        save(model, HERE / f"{name}.safetensors")
        expected[name] = model.outputs(x).tolist()

    checkpoint = HERE / "checkpoint-1.safetensors"
    callbacks = [EMA(0.9), Checkpoint(checkpoint)]
    Trainer(Network([4, 5, 3], rng=6), Adam(0.01), batch_size=3, callbacks=callbacks, rng=7).fit(x, y, epochs=2)
    trainer = Trainer(Network([4, 5, 3], rng=0), Adam(0.01), batch_size=3, callbacks=[EMA(0.9)], rng=0)
    resume(trainer, checkpoint)
    expected["checkpoint-1"] = trainer.network.outputs(x).tolist()

    estimator = MLPClassifier((5,), activation="tanh", solver="sgd", batch_size=3, dtype="float32", random_state=10)
    for _ in range(2):
        estimator.partial_fit(x, np.array(["ant", "bee", "cat ü"])[y], classes=["ant", "bee", "cat ü"])
    estimator.network_.image_shape = (2, 2)
    save_estimator(estimator, HERE / "estimator-3.safetensors")
    expected["estimator-3"] = estimator.network_.outputs(x).tolist()
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write()
