"""A custom callback: plot the loss as text after each epoch, and stop when it is low enough.

    python examples/custom_callback.py

A callback overrides some of on_train_begin, on_batch_end, on_epoch_end and on_train_end. Each method receives the
trainer, with its network, history and epoch. `trainer.stop = True` ends the training after the current epoch.
"""

import numpy as np

from handgrad import Callback, Momentum, Network, Trainer


class StopBelow(Callback):
    """Print a bar for the loss of each epoch. Stop when the loss is below `threshold`."""

    def __init__(self, threshold):
        self.threshold = threshold

    def on_epoch_end(self, trainer):
        loss = trainer.history["loss"][-1]
        print(f"epoch {trainer.epoch:2}  {loss:.3f}  {'#' * round(60 * loss)}")
        trainer.stop = loss < self.threshold

    def on_train_end(self, trainer):
        reason = f"loss below {self.threshold}" if trainer.stop else "maximum number of epochs"
        print(f"stopped after {trainer.epoch} of {trainer.epochs} epochs: {reason}")


rng = np.random.default_rng(0)
y = rng.integers(0, 3, 600)
x = rng.standard_normal((600, 2)) + 3 * np.array([[0, 0], [1, 0], [0, 1]])[y]  # three clusters

network = Network([2, 10, 3], activation="tanh", loss="cross_entropy", rng=0)
trainer = Trainer(network, Momentum(lr=0.01), batch_size=20, callbacks=[StopBelow(0.25)], rng=0)
trainer.fit(x, y, epochs=40)
