"""A callback of one's own: it draws the loss as it falls, and stops once the loss is low enough.

    python examples/own_callback.py

A callback overrides what it needs of on_train_begin, on_batch_end, on_epoch_end and on_train_end; each is given the
trainer, which has the network, the history and where training stands. `trainer.stop = True` ends it after the epoch.
"""

import numpy as np

from handgrad import Callback, Momentum, Network, Trainer


class GoodEnough(Callback):
    """A bar for each epoch's loss; the end when it is below `loss`."""

    def __init__(self, loss):
        self.loss = loss

    def on_epoch_end(self, trainer):
        loss = trainer.history["loss"][-1]
        print(f"epoch {trainer.epoch:2}  {loss:.3f}  {'#' * round(60 * loss)}")
        trainer.stop = loss < self.loss

    def on_train_end(self, trainer):
        print(f"good enough after {trainer.epoch} of {trainer.epochs} epochs" if trainer.stop else "not good enough")


rng = np.random.default_rng(0)
y = rng.integers(0, 3, 600)
x = rng.standard_normal((600, 2)) + 3 * np.array([[0, 0], [1, 0], [0, 1]])[y]  # three clouds

network = Network([2, 10, 3], activation="tanh", loss="cross_entropy", rng=0)
trainer = Trainer(network, Momentum(lr=0.01), batch_size=20, callbacks=[GoodEnough(loss=0.25)], rng=0)
trainer.fit(x, y, epochs=40)
