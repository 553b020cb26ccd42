"""A callback that records settings, metrics and the model with MLflow (pip install mlflow), in a local file.

python mlflow_logger.py
mlflow ui --backend-store-uri sqlite:///mlflow.db
"""

import math
import tempfile
from pathlib import Path

import mlflow
import numpy as np

from handgrad import Callback, Momentum, Network, Trainer, save
from handgrad.diagnostics.model_card import model_card


class MLflowLogger(Callback):
    """Record one MLflow run for each `fit`: settings, the metrics of each epoch, the model and its card."""

    order = 1  # after callbacks that add metrics

    def __init__(self, experiment):
        self.experiment = experiment

    def on_train_begin(self, trainer):
        mlflow.set_experiment(self.experiment)
        mlflow.start_run()
        optimizer = trainer.optimizer
        settings = {"optimizer": type(optimizer).__name__, **optimizer.config(), "batch_size": trainer.batch_size}
        mlflow.log_params(settings | {"layers": repr(trainer.network.layers)})

    def on_epoch_end(self, trainer):
        metrics = {name: value for name, value in trainer.metrics.items() if not math.isnan(value)}
        mlflow.log_metrics(metrics, step=trainer.epoch)

    def on_train_end(self, trainer):
        with tempfile.TemporaryDirectory() as directory:
            save(trainer.network, Path(directory) / "model.safetensors")
            (Path(directory) / "model.md").write_text(model_card(trainer.network, trainer.history))
            mlflow.log_artifacts(directory)
        mlflow.end_run()


rng = np.random.default_rng(0)
y = rng.integers(0, 3, 600)
x = rng.standard_normal((600, 2)) + 3 * np.array([[0, 0], [1, 0], [0, 1]])[y]  # three clusters

mlflow.set_tracking_uri("sqlite:///mlflow.db")  # a file, no server
network = Network([2, 10, 3], activation="tanh", loss="cross_entropy", rng=0)
trainer = Trainer(network, Momentum(lr=0.01), batch_size=20, callbacks=[MLflowLogger("clusters")], rng=0)
trainer.fit(x[:500], y[:500], epochs=5, validation=(x[500:], y[500:]))
print(f"validation accuracy {trainer.metrics['val_accuracy']:.1%}, recorded in mlflow.db")
