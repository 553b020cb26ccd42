"""Early stopping: when it ends a training, with which weights, and what it remembers of it."""

import numpy as np
import pytest

from handgrad import SGD, Callback, EarlyStopping, Network, Trainer
from handgrad.callbacks import Checkpoint, resume

X, Y = np.random.default_rng(0).random((23, 4)), np.arange(23) % 3
X_HELD_OUT, Y_HELD_OUT = np.random.default_rng(1).random((7, 4)), np.arange(7) % 3


class Each(Callback):
    """Calls a function at every epoch."""

    def __init__(self, at_epoch):
        self.at_epoch = at_epoch

    def on_epoch_end(self, trainer):
        self.at_epoch(trainer)


def make(layers=(4, 5, 3), optimizer=None, rng=0, **options):
    network = Network(list(layers), activation="tanh", loss="cross_entropy", rng=rng, dtype=np.float64)
    return Trainer(network, optimizer or SGD(0.1), batch_size=5, rng=rng, **options)


def scripted(monitor, values, **options):
    """A training whose `monitor` takes these values, and the early stopping that watched it; θ of each epoch."""
    thetas = []

    def write(trainer):
        trainer.history[monitor][-1] = values[trainer.epoch - 1]
        thetas.append(trainer.network.parameters.copy())

    stopping = EarlyStopping(monitor, **options)
    trainer = make(callbacks=[Each(at_epoch=write), stopping])
    trainer.fit(X, Y, epochs=len(values), validation=(X_HELD_OUT, Y_HELD_OUT))
    return trainer, stopping, thetas


@pytest.mark.parametrize(
    ("monitor", "values", "options", "epochs", "best_epoch"),
    [
        ("val_loss", [5, 4, 3, 2, 1], {"patience": 1}, 5, 5),
        ("val_loss", [3, 2, 2.5, 2.2, 1, 1], {"patience": 2}, 4, 2),  # 2.5 and 2.2 are two epochs without a better one
        ("val_loss", [3, 2, 2.5, 1, 1, 1], {"patience": 2}, 6, 4),
        ("val_loss", [3, 3, 3, 3], {"patience": 1}, 2, 1),  # as good is not better
        ("val_loss", [3, 2.95, 2.85, 2.8], {"patience": 2, "min_delta": 0.1}, 4, 3),
        ("val_loss", [3, 2.95, 2.91, 2.0], {"patience": 2, "min_delta": 0.1}, 3, 1),
        ("loss", [3, 4, 0], {"patience": 1}, 2, 1),
        ("val_accuracy", [0.5, 0.6, 0.4, 0.5], {"patience": 2}, 4, 2),  # more is better
        ("val_accuracy", [0.9, 0.8, 0.95], {"patience": 1}, 2, 1),
        ("accuracy", [0.1, 0.2, 0.3], {"patience": 1}, 3, 3),
    ],
)
def test_early_stopping_waits_as_long_as_its_patience(monitor, values, options, epochs, best_epoch):
    trainer, stopping, thetas = scripted(monitor, values, **options)
    assert (trainer.epoch, stopping.best_epoch, stopping.best) == (epochs, best_epoch, values[best_epoch - 1])
    np.testing.assert_array_equal(trainer.network.parameters, thetas[best_epoch - 1])


def test_early_stopping_may_leave_the_last_weights():
    trainer, stopping, thetas = scripted("val_loss", [1, 2, 3, 4], patience=2, restore_best=False)
    assert (trainer.epoch, stopping.best_epoch) == (3, 1)
    np.testing.assert_array_equal(trainer.network.parameters, thetas[2])
    assert (thetas[2] != thetas[0]).any()


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "f1"])
def test_a_monitor_that_the_history_has_not_is_refused(monitor, refused):
    with refused(f"'{monitor}'.*loss, accuracy, lr, seconds"):
        make(callbacks=[EarlyStopping(monitor)]).fit(X, Y, epochs=2)


@pytest.mark.parametrize("options", [{"patience": 0}, {"patience": -1}, {"min_delta": -0.1}])
def test_early_stopping_refuses_what_makes_no_sense(options, refused):
    with refused("patience"):
        EarlyStopping(**options)


def test_a_training_that_had_stopped_is_resumed_as_stopped(tmp_path):
    def worse_each_time(trainer):
        trainer.history["loss"][-1] = float(trainer.epoch)

    def stopping():
        callbacks = [Each(at_epoch=worse_each_time), EarlyStopping("loss", patience=2), Checkpoint(tmp_path / "c")]
        return make(callbacks=callbacks)

    first, resumed = stopping(), stopping()
    first.fit(X, Y, epochs=9)
    resume(resumed, tmp_path / "c")
    resumed.fit(X, Y, epochs=9)
    assert first.epoch == resumed.epoch == 3
    np.testing.assert_array_equal(resumed.network.parameters, first.network.parameters)


@pytest.mark.parametrize("layers", [[4, 5, 3], [4, 3]])
def test_early_stopping_begins_anew_with_another_training(layers):
    """What it kept is another network's: of the same size it would be taken silently."""
    stopping = EarlyStopping("loss", patience=9)
    make(optimizer=SGD(1.0), callbacks=[stopping]).fit(X, Y, epochs=30)
    with_used, with_fresh = (
        make(layers, rng=7, callbacks=[stopping]),
        make(layers, rng=7, callbacks=[EarlyStopping("loss")]),
    )
    with_used.fit(X, Y, epochs=2)
    with_fresh.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(with_used.network.parameters, with_fresh.network.parameters)
    assert stopping.best_epoch == with_fresh.callbacks[0].best_epoch <= 2


def test_early_stopping_forgets_another_training_that_has_begun_without_it():
    stopping = EarlyStopping("loss", patience=9)
    make(optimizer=SGD(1.0), callbacks=[stopping]).fit(X, Y, epochs=30)
    late, fresh = make(rng=7), make(rng=7)
    for trainer, callback in ((late, stopping), (fresh, EarlyStopping("loss"))):
        trainer.fit(X, Y, epochs=1)
        trainer.callbacks = [callback]
        trainer.fit(X, Y, epochs=3)
    np.testing.assert_array_equal(late.network.parameters, fresh.network.parameters)
