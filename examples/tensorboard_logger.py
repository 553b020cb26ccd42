"""A callback that writes the metrics for TensorBoard (pip install tensorboardX), as files in a local directory.

    python tensorboard_logger.py
    tensorboard --logdir runs/tensorboard

TensorBoard shows one curve for each metric, and the distribution of the parameters of each layer.
"""

import math

import numpy as np
from tensorboardX import SummaryWriter

from handgrad import Callback, Momentum, Network, Trainer


class TensorBoardLogger(Callback):
    """Write the metrics of each epoch, and histograms of the parameters, to a directory."""

    order = 1  # after callbacks that add metrics

    def __init__(self, directory):
        self.directory = directory

    def on_train_begin(self, trainer):
        self.writer = SummaryWriter(self.directory)
        self.writer.add_text("trainer", repr(trainer), trainer.epoch)

    def on_epoch_end(self, trainer):
        for name, value in trainer.metrics.items():
            if not math.isnan(value):
                self.writer.add_scalar(name, value, trainer.epoch)
        for name, parameter in trainer.network.named_parameters.items():
            self.writer.add_histogram(name, parameter, trainer.epoch)
        self.writer.flush()

    def on_train_end(self, trainer):
        self.writer.close()


rng = np.random.default_rng(0)
y = rng.integers(0, 3, 600)
x = rng.standard_normal((600, 2)) + 3 * np.array([[0, 0], [1, 0], [0, 1]])[y]  # three clusters

network = Network([2, 10, 3], activation="tanh", loss="cross_entropy", rng=0)
logger = TensorBoardLogger("runs/tensorboard")
trainer = Trainer(network, Momentum(lr=0.01), batch_size=20, callbacks=[logger], rng=0)
trainer.fit(x[:500], y[:500], epochs=5, validation=(x[500:], y[500:]))
print(f"validation accuracy {trainer.metrics['val_accuracy']:.1%}, logged to {logger.directory}")
