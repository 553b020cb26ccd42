"""A callback that records a run with Weights & Biases (pip install wandb), offline, in the directory wandb.

python wandb_logger.py
wandb sync wandb/offline-run-*         # to upload it; needs an account
"""

import math

import numpy as np
import wandb

from handgrad import Callback, Momentum, Network, Trainer


class WandbLogger(Callback):
    """Record one run for each `fit`: the settings, and the metrics of each epoch."""

    order = 1  # after callbacks that add metrics

    def __init__(self, project, mode="offline"):
        self.project, self.mode = project, mode

    def on_train_begin(self, trainer):
        optimizer = trainer.optimizer
        settings = {"optimizer": type(optimizer).__name__, **optimizer.config(), "batch_size": trainer.batch_size}
        settings["layers"] = repr(trainer.network.layers)
        self.run = wandb.init(project=self.project, config=settings, mode=self.mode)

    def on_epoch_end(self, trainer):
        metrics = {name: value for name, value in trainer.metrics.items() if not math.isnan(value)}
        self.run.log(metrics, step=trainer.epoch)

    def on_train_end(self, trainer):
        self.run.finish()


rng = np.random.default_rng(0)
y = rng.integers(0, 3, 600)
x = rng.standard_normal((600, 2)) + 3 * np.array([[0, 0], [1, 0], [0, 1]])[y]  # three clusters

network = Network([2, 10, 3], activation="tanh", loss="cross_entropy", rng=0)
trainer = Trainer(network, Momentum(lr=0.01), batch_size=20, callbacks=[WandbLogger("clusters")], rng=0)
trainer.fit(x[:500], y[:500], epochs=5, validation=(x[500:], y[500:]))
print(f"validation accuracy {trainer.metrics['val_accuracy']:.1%}, recorded in the directory wandb")
