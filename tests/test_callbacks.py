"""Callbacks: early stopping, EMA and SWA, checkpoints, and their combinations."""

import copy
import csv
import gc
import math
import pickle
import re
import weakref

import numpy as np
import pytest

from handgrad import (
    EMA,
    SGD,
    SWA,
    Adam,
    AdamW,
    Callback,
    Dense,
    Dropout,
    EarlyStopping,
    HandgradError,
    Lookahead,
    Momentum,
    Muon,
    Network,
    ReLU,
    Tanh,
    Trainer,
    callbacks,
    save,
    schedules,
)
from handgrad.callbacks import Checkpoint, CSVLogger, resume
from handgrad.errors import HandgradWarning
from handgrad.io.safetensors import read_arrays, write_arrays
from handgrad.training import DivergedError

N = 23  # with batches of 5: five steps per epoch
X, Y = np.random.default_rng(0).random((N, 4)), np.arange(N) % 3
VALIDATION = np.random.default_rng(1).random((7, 4)), np.arange(7) % 3
EXACT = {"rtol": 1e-12, "atol": 1e-14}


class Call(Callback):
    """Calls a function after every epoch."""

    def __init__(self, at_epoch):
        self.at_epoch = at_epoch

    def on_epoch_end(self, trainer):
        self.at_epoch(trainer)


class RecordSteps(Callback):
    """Keeps θ after each step, and raises an exception at one of them."""

    def __init__(self, fail_at=None):
        self.thetas, self.fail_at = [], fail_at

    def on_batch_end(self, trainer):
        self.thetas.append(trainer.network.parameters.copy())
        if (trainer.epoch, trainer.batch) == self.fail_at:
            raise InterruptedError


def make(*callbacks, layers=(4, 5, 3), optimizer=None, dtype=np.float64, rng=0, **options):
    of_sizes = {"activation": "tanh"} if isinstance(layers[0], int) else {}
    network = Network(list(layers), loss="cross_entropy", rng=rng, dtype=dtype, **of_sizes)
    options = {"batch_size": 5, "rng": rng} | options
    return Trainer(network, optimizer or SGD(0.5), callbacks=callbacks, **options)


def comparable(history):
    """The history without the time."""
    return {name: values for name, values in history.items() if name != "seconds"}


# ---- Early stopping --------------------------------------------------------------------------------------------------


def scripted(monitor, values, **options):
    """A training in which the metric has these values. Returns the trainer, its EarlyStopping, and θ of each epoch."""
    thetas = []

    def write(trainer):
        trainer.metrics[monitor] = values[trainer.epoch - 1]
        thetas.append(trainer.network.parameters.copy())

    stopping = EarlyStopping(monitor, **options)
    trainer = make(Call(write), stopping)
    trainer.fit(X, Y, epochs=len(values), validation=VALIDATION)
    return trainer, stopping, thetas


@pytest.mark.parametrize(
    ("monitor", "values", "options", "epochs", "best_epoch"),
    [
        ("val_loss", [5, 4, 3, 2, 1], {"patience": 1}, 5, 5),
        ("val_loss", [3, 2, 2.5, 2.2, 1, 1], {"patience": 2}, 4, 2),  # 2.5 and 2.2 are two epochs without a better one
        ("val_loss", [3, 2, 2.5, 1, 1, 1], {"patience": 2}, 6, 4),
        ("val_loss", [3, 3, 3, 3], {"patience": 1}, 2, 1),  # the same value is not better
        ("val_loss", [3, 2.95, 2.85, 2.8], {"patience": 2, "min_delta": 0.1}, 4, 3),
        ("val_loss", [3, 2.95, 2.91, 2.0], {"patience": 2, "min_delta": 0.1}, 3, 1),
        ("loss", [3, 4, 0], {"patience": 1}, 2, 1),
        ("val_accuracy", [0.5, 0.6, 0.4, 0.5], {"patience": 2}, 4, 2),  # larger is better
        ("f1_score", [0.1, 0.2, 0.1], {"patience": 1}, 3, 2),
        ("f1_score", [math.nan, 0.1, 0.2, math.nan, math.nan, 0.9], {"patience": 2}, 5, 3),  # NaN is not the best value
    ],
)
def test_early_stopping_waits_for_its_patience_and_restores_the_best_weights(
    monitor, values, options, epochs, best_epoch
):
    trainer, stopping, thetas = scripted(monitor, values, **options)
    assert (trainer.epoch, stopping.best_epoch, stopping.best) == (epochs, best_epoch, values[best_epoch - 1])
    np.testing.assert_array_equal(trainer.network.parameters, thetas[best_epoch - 1])


@pytest.mark.parametrize("value", [np.float32(0.5), math.inf])
def test_checkpoint_holds_the_best_value_of_a_metric_that_is_a_number_of_numpy_or_infinite(value, tmp_path):
    def trainer():
        measured = Call(lambda trainer: trainer.metrics.update(ratio=value))
        return make(measured, EarlyStopping("ratio"), Checkpoint(tmp_path / "c"))

    trainer().fit(X, Y, epochs=2)
    resumed = trainer()
    resume(resumed, tmp_path / "c")
    assert (resumed.callbacks[1].best, resumed.callbacks[1].best_epoch) == (value, 1)


def test_early_stopping_without_any_value_stops_after_its_patience_and_keeps_the_last_weights():
    trainer, stopping, thetas = scripted("f1_score", [math.nan] * 9, patience=2)
    assert (trainer.epoch, stopping.best, stopping.best_epoch) == (2, None, 0)
    np.testing.assert_array_equal(trainer.network.parameters, thetas[1])
    trainer.fit(X, Y, epochs=3)
    assert trainer.epoch == 4


def test_early_stopping_can_keep_the_last_weights():
    trainer, stopping, thetas = scripted("val_loss", [1, 2, 3, 4], patience=2, restore_best=False)
    assert (trainer.epoch, stopping.best_epoch) == (3, 1)
    np.testing.assert_array_equal(trainer.network.parameters, thetas[2])
    assert (thetas[2] != thetas[0]).any()


def test_early_stopping_needs_its_metric(rejects):
    with rejects("no metric 'f1' in this epoch, only loss, lr, accuracy, seconds"):
        make(EarlyStopping("f1")).fit(X, Y, epochs=2)


def test_early_stopping_asks_for_a_validation_set_only_without_one(rejects):
    with rejects(r"val_loss, val_accuracy, seconds\Z"):
        make(EarlyStopping("val_score")).fit(X, Y, epochs=2, validation=VALIDATION)


def test_early_stopping_does_not_use_the_metric_of_an_earlier_fit(rejects):
    """After a fit with validation, a fit without it has no val_loss: the last value of the history is of before."""
    trainer = make(EarlyStopping("val_loss"))
    trainer.fit(X, Y, epochs=2, validation=VALIDATION)
    with rejects("'val_loss' needs a validation set"):
        trainer.fit(X, Y, epochs=2)


def test_second_fit_with_early_stopping_starts_without_a_best_value():
    increasing = Call(lambda trainer: trainer.metrics.update(loss=float(trainer.epoch)))
    stopping = EarlyStopping("loss", patience=2)
    trainer = make(increasing, stopping)
    trainer.fit(X, Y, epochs=9)
    assert (trainer.epoch, stopping.best_epoch) == (3, 1)
    trainer.fit(X, Y, epochs=9)  # it trains although it had stopped; epoch 4 is the best of this fit
    assert (trainer.epoch, stopping.best_epoch) == (6, 4)


def test_training_that_had_stopped_is_resumed_as_stopped(tmp_path):
    def trainer():
        increasing = Call(lambda trainer: trainer.metrics.update(loss=float(trainer.epoch)))
        return make(increasing, Checkpoint(tmp_path / "c"), EarlyStopping("loss", patience=2))

    first, resumed = trainer(), trainer()
    first.fit(X, Y, epochs=9)
    resume(resumed, tmp_path / "c")
    resumed.fit(X, Y, until_epoch=9)
    assert first.epoch == resumed.epoch == 3
    np.testing.assert_array_equal(resumed.network.parameters, first.network.parameters)


def test_checkpoint_contains_the_learning_rate_of_a_layer(tmp_path):
    whole, interrupted, resumed = make(), make(Checkpoint(tmp_path / "c")), make(Checkpoint(tmp_path / "d"))
    for trainer in (whole, interrupted):
        trainer.network.layers[0].lr_scale = 0.1
    whole.fit(X, Y, epochs=4)
    interrupted.fit(X, Y, epochs=2)
    resume(resumed, tmp_path / "c")
    assert [layer.lr_scale for layer in resumed.network.layers][:2] == [0.1, 1]
    resumed.fit(X, Y, until_epoch=4)
    np.testing.assert_array_equal(resumed.network.parameters, whole.network.parameters)


@pytest.mark.parametrize("name", ["layers.0.lr_scale", "layers.9.lr_scale"])
def test_checkpoint_with_an_invalid_learning_rate_of_a_layer_is_rejected(name, rejects):
    trainer = make()
    trainer.fit(X, Y, epochs=1)
    before = trainer.state_dict()
    with rejects(r"lr_scale"):
        trainer.load_state_dict(before | {name: -1})
    assert trainer.network.layers[0].lr_scale == 1


@pytest.mark.parametrize("first", [0, 1], ids=["from its start", "from its second epoch"])
@pytest.mark.parametrize("layers", [[4, 5, 3], [4, 3]], ids=["same size", "other size"])
def test_early_stopping_forgets_another_training(layers, first):
    """Its best weights are those of another network: if the size is the same they would be taken silently."""
    used, fresh = EarlyStopping("loss", patience=9), EarlyStopping("loss", patience=9)
    make(used, optimizer=SGD(1.0)).fit(X, Y, epochs=30)
    networks = []
    for stopping in (used, fresh):
        trainer = make(layers=layers, rng=7)
        trainer.fit(X, Y, epochs=first)
        trainer.callbacks = [stopping]
        trainer.fit(X, Y, until_epoch=3)
        networks.append(trainer.network.parameters)
    np.testing.assert_array_equal(*networks)
    assert used.best_epoch == fresh.best_epoch <= 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"patience": 0}, "patience must be an integer >= 1, got 0"),
        ({"patience": 2.5}, "patience must be an integer >= 1, got 2.5"),
        ({"patience": math.nan}, "patience must be an integer >= 1, got nan"),
        ({"min_delta": -0.1}, "min_delta must be a finite number >= 0, got -0.1"),
        ({"min_delta": math.nan}, "min_delta must be a finite number >= 0, got nan"),
    ],
)
def test_early_stopping_rejects_invalid_options(options, says, rejects):
    with rejects(f"EarlyStopping: {says}"):
        EarlyStopping(**options)


# ---- EMA and SWA: the equations --------------------------------------------------------------------------------------

KINDS = {
    "ema": lambda: EMA(0.8),
    "ema-every-2": lambda: EMA(0.8, every=2),
    "swa": lambda: SWA(0.3),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def run(callback, epochs=4, **options):
    """A finished training, and θ after each of its steps."""
    record = RecordSteps()
    trainer = make(callback, record, **options)
    trainer.fit(X, Y, epochs=epochs, validation=VALIDATION)
    return trainer, record.thetas


def exponential_mean(thetas, d):
    weights = np.array([d ** (len(thetas) - i) for i in range(1, len(thetas) + 1)])
    return weights @ thetas / weights.sum()


@pytest.mark.parametrize(("decay", "every"), [(0.0, 1), (0.5, 3), (0.9, 1), (0.999, 7), (0.999, 1)])
def test_ema_is_the_weighted_mean_of_the_steps(decay, every):
    trainer, thetas = run(EMA(decay, every=every))
    used = thetas[every - 1 :: every]
    np.testing.assert_allclose(trainer.network.parameters, exponential_mean(used, decay**every), **EXACT)
    assert len(thetas) == 20
    if decay:
        assert np.abs(trainer.network.parameters - exponential_mean(used, 0.9 * decay**every)).max() > 1e-6


@pytest.mark.parametrize(("start", "skipped"), [(0.0, 0), (0.5, 9), (0.75, 14), (0.33, 6), (0.99, 19)])
def test_swa_is_the_mean_of_the_steps_from_its_start_on(start, skipped):
    trainer, thetas = run(SWA(start))
    np.testing.assert_allclose(trainer.network.parameters, np.mean(thetas[skipped:], axis=0), **EXACT)
    for wrong in {skipped - 1, skipped + 1} & set(range(20)):
        assert np.abs(trainer.network.parameters - np.mean(thetas[wrong:], axis=0)).max() > 1e-6


def test_swa_of_a_second_fit_starts_at_its_fraction_of_that_fit():
    trainer, _ = run(SWA(0.5))
    record = trainer.callbacks[1]
    record.thetas.clear()
    trainer.fit(X, Y, epochs=4)
    np.testing.assert_allclose(trainer.network.parameters, np.mean(record.thetas[9:], axis=0), **EXACT)


@every_kind
def test_blocks_give_the_same_bits(kind, monkeypatch):
    expected, _ = run(KINDS[kind]())
    assert expected.network.parameters.size == 43
    monkeypatch.setattr(callbacks, "UPDATE_CHUNK", 42)
    cut, _ = run(KINDS[kind]())
    np.testing.assert_array_equal(cut.network.parameters, expected.network.parameters)


@every_kind
def test_average_in_float32_stays_float32_and_close_to_float64(kind):
    single, _ = run(KINDS[kind](), dtype=np.float32)
    double, _ = run(KINDS[kind]())
    callback = single.callbacks[0]
    assert {a.dtype for a in (callback.average, callback.raw, *callback._blocks[0])} == {np.dtype(np.float32)}
    np.testing.assert_allclose(single.network.parameters, double.network.parameters, rtol=1e-3, atol=1e-4)


# ---- EMA and SWA: training, evaluation, several fits -----------------------------------------------------------------


@every_kind
def test_averaging_does_not_change_the_training(kind):
    with_average, thetas = run(KINDS[kind]())
    without, expected = run(Callback())
    np.testing.assert_array_equal(thetas, expected)
    for name in ("loss", "accuracy", "lr"):
        assert with_average.history[name] == without.history[name]
    np.testing.assert_array_equal(with_average.callbacks[0].raw, without.network.parameters)
    assert (with_average.network.parameters != without.network.parameters).any()


@every_kind
def test_averaged_weights_are_evaluated_after_each_epoch(kind):
    """val_loss of the history is that of the weights that a fit of this length returns."""
    evaluated = []
    trainer = make(KINDS[kind](), Call(lambda trainer: evaluated.append(trainer.network.evaluate(*VALIDATION).loss)))
    history = trainer.fit(X, Y, epochs=4, validation=VALIDATION)
    assert history["val_loss"] == evaluated
    assert history["val_loss"][-1] == trainer.network.evaluate(*VALIDATION).loss
    if kind != "swa":  # its start depends on the length of the fit
        shorter = make(KINDS[kind]())
        shorter.fit(X, Y, epochs=2)
        assert history["val_loss"][1] == shorter.network.evaluate(*VALIDATION).loss
    raw, _ = run(Callback())
    assert raw.history["val_loss"] != history["val_loss"]


@pytest.mark.parametrize("kind", ["ema", "ema-every-2"])
def test_second_fit_continues_from_the_raw_weights_and_the_average(kind):
    once, expected = run(KINDS[kind](), epochs=8)
    twice, _ = run(KINDS[kind](), epochs=2)
    result = twice.network.parameters.copy()
    twice.fit(X, Y, epochs=0, validation=VALIDATION)
    np.testing.assert_array_equal(twice.network.parameters, result)
    twice.fit(X, Y, epochs=6, validation=VALIDATION)
    np.testing.assert_array_equal(twice.callbacks[1].thetas, expected)
    np.testing.assert_array_equal(twice.network.parameters, once.network.parameters)


@every_kind
def test_fit_without_steps_changes_nothing(kind):
    trainer = make(KINDS[kind]())
    initial = trainer.network.parameters.copy()
    trainer.fit(X, Y, epochs=0)
    np.testing.assert_array_equal(trainer.network.parameters, initial)


def test_run_that_stops_before_the_start_of_swa_returns_its_raw_weights():
    def stop(trainer):
        trainer.stop = True

    record = RecordSteps()
    trainer = make(SWA(0.5), record, Call(stop))
    trainer.fit(X, Y, epochs=4)
    assert len(record.thetas) == 5
    np.testing.assert_array_equal(trainer.network.parameters, record.thetas[-1])


@every_kind
def test_weights_set_between_two_fits_start_a_new_average(kind):
    trainer, _ = run(KINDS[kind](), optimizer=SGD(1e-300))
    trainer.network.parameters[...] = 0.25
    history = trainer.fit(X, Y, epochs=1, validation=VALIDATION)
    assert history["loss"][-1] == pytest.approx(math.log(3), rel=1e-12)  # all outputs are equal
    np.testing.assert_allclose(trainer.network.parameters, 0.25, rtol=1e-12)


@pytest.mark.parametrize(("kind", "hidden"), [("ema", 5), ("ema", 6), ("swa", 5)])
def test_another_training_starts_a_new_average(kind, hidden):
    used = KINDS[kind]()
    other = Network([4, hidden, 3], rng=3, dtype=np.float64)
    Trainer(other, SGD(0.5), batch_size=5, callbacks=[used], rng=3).fit(X, Y, epochs=4)
    ours, _ = run(used)
    expected, _ = run(KINDS[kind]())
    np.testing.assert_array_equal(ours.network.parameters, expected.network.parameters)


@every_kind
def test_average_contains_nothing_of_a_diverged_epoch(kind):
    network, record = Network([Dense(4, 5), ReLU(), Dense(5, 3)], loss="squared_error", rng=0), RecordSteps()
    trainer = Trainer(network, SGD(1e-3), callbacks=[KINDS[kind]()], batch_size=5, rng=0)
    trainer.schedule = lambda epoch, epochs: 1.0 if epoch < 1.5 else 1e12
    with pytest.raises(DivergedError):
        trainer.fit(X, np.eye(3)[Y], epochs=4)
    trainer.schedule = schedules.constant()
    trainer.callbacks.append(record)
    trainer.fit(X, np.eye(3)[Y], epochs=3)
    assert len(record.thetas) == 15
    low, high = np.min(record.thetas, axis=0), np.max(record.thetas, axis=0)
    assert (low - 1e-6 <= network.parameters).all()  # a mean of these in float32
    assert (network.parameters <= high + 1e-6).all()


def test_two_averages_are_rejected(rejects):
    with rejects(r"\[EMA\(decay=0.9, every=1\), SWA\(start=0.5\)\] average the weights twice"):
        make(EMA(0.9), SWA(0.5)).fit(X, Y, epochs=1)


# ---- Averages with early stopping ------------------------------------------------------------------------------------

ORDER = "average", "stopping", "checkpoint"


def combined(kind, order, path, rng=0, fail_at=None):
    """A training with an average, early stopping and a checkpoint, in this order of the list."""
    parts = {"average": KINDS[kind](), "stopping": EarlyStopping(patience=3), "checkpoint": Checkpoint(path)}
    layers = [Dense(4, 6), Tanh(), Dropout(0.2), Dense(6, 3)]
    callbacks = [parts[name] for name in order] + [RecordSteps(fail_at)]
    return make(*callbacks, layers=layers, optimizer=Adam(0.05), rng=rng, schedule=schedules.cosine()), parts


@every_kind
def test_early_stopping_restores_the_averaged_weights_in_every_order_of_the_callbacks(kind, tmp_path):
    trainer, parts = combined(kind, ORDER[::-1], tmp_path / "c")
    history = trainer.fit(X, Y, epochs=12, validation=VALIDATION)
    reference, _ = combined(kind, ORDER, tmp_path / "d")
    assert comparable(reference.fit(X, Y, epochs=12, validation=VALIDATION)) == comparable(history)
    np.testing.assert_array_equal(trainer.network.parameters, reference.network.parameters)
    stopping = parts["stopping"]
    assert stopping.best == min(history["val_loss"]) == history["val_loss"][stopping.best_epoch - 1]
    assert trainer.network.evaluate(*VALIDATION).loss == stopping.best


@pytest.mark.parametrize(("kind", "order", "place"), [("ema", ORDER[::-1], (2, 1)), ("swa", ORDER, (3, 5))])
def test_training_with_average_and_early_stopping_is_resumed_to_the_same_bits(kind, order, place, tmp_path):
    uninterrupted, expected = combined(kind, order, tmp_path / "a")
    uninterrupted.fit(X, Y, epochs=8, validation=VALIDATION)
    killed, _ = combined(kind, order, tmp_path / "b", fail_at=place)
    with pytest.raises(InterruptedError):
        killed.fit(X, Y, epochs=8, validation=VALIDATION)
    resumed, parts = combined(kind, order, tmp_path / "b", rng=99)
    resume(resumed, tmp_path / "b")
    assert resumed.epoch == place[0]
    history = resumed.fit(X, Y, until_epoch=8, validation=VALIDATION)
    assert comparable(history) == comparable(uninterrupted.history)
    np.testing.assert_array_equal(resumed.network.parameters, uninterrupted.network.parameters)
    np.testing.assert_array_equal(parts["average"].average, expected["average"].average)
    np.testing.assert_array_equal(parts["average"].raw, expected["average"].raw)


def test_exception_during_the_evaluation_does_not_lose_the_raw_weights():
    """EarlyStopping raises while the network has the averaged weights."""
    expected, _ = run(EMA(0.8), epochs=3)
    trainer = make(EMA(0.8), EarlyStopping("f1"))
    with pytest.raises(HandgradError):
        trainer.fit(X, Y, epochs=2)
    trainer.callbacks.pop()
    trainer.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(trainer.network.parameters, expected.network.parameters)


# ---- Averages: resume, copies ----------------------------------------------------------------------------------------


def resumable(kind, path, seed, optimizer, fail_at=None):
    layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    network = Network(layers, loss="cross_entropy", rng=seed)
    callbacks = [KINDS[kind](), RecordSteps(fail_at), Checkpoint(path)]
    return Trainer(network, optimizer, batch_size=5, schedule=schedules.one_cycle(), callbacks=callbacks, rng=seed)


@pytest.mark.parametrize(
    ("kind", "make_optimizer", "place"),
    [
        ("ema", lambda: Adam(0.05), (1, 1)),
        ("ema-every-2", lambda: Muon(0.05), (3, 3)),
        ("swa", lambda: Lookahead(Muon(0.05), k=3), (5, 5)),
        ("swa", lambda: AdamW(0.05), (1, 1)),
    ],
)
def test_averaged_training_killed_in_an_epoch_is_resumed_to_the_same_bits(kind, make_optimizer, place, tmp_path):
    uninterrupted = resumable(kind, tmp_path / "a", 0, make_optimizer())
    uninterrupted.fit(X, Y, epochs=7)
    killed = resumable(kind, tmp_path / "b", 0, make_optimizer(), fail_at=place)
    with pytest.raises(InterruptedError):
        killed.fit(X, Y, epochs=7)
    for resumed in (resumable(kind, tmp_path / "c", 99, make_optimizer()), killed):  # a new process, and the old one
        resume(resumed, tmp_path / "b")
        assert resumed.epoch == place[0]
        resumed.callbacks[1].fail_at = None
        resumed.fit(X, Y, until_epoch=7)
        np.testing.assert_array_equal(resumed.network.parameters, uninterrupted.network.parameters)
        np.testing.assert_array_equal(resumed.callbacks[0].average, uninterrupted.callbacks[0].average)
        np.testing.assert_array_equal(resumed.callbacks[0].raw, uninterrupted.callbacks[0].raw)


@pytest.mark.parametrize(("kind", "how"), [("ema", "state"), ("swa", "state"), ("ema", "copy"), ("swa", "pickle")])
def test_state_or_copy_between_two_fits_continues_as_the_original(kind, how):
    trainer, _ = run(KINDS[kind]())
    if how == "state":
        other = make(KINDS[kind](), RecordSteps(), rng=9)
        other.load_state_dict(trainer.state_dict())
    else:
        other = copy.deepcopy(trainer) if how == "copy" else pickle.loads(pickle.dumps(trainer))
    np.testing.assert_array_equal(other.network.parameters, trainer.network.parameters)
    before = trainer.network.parameters.copy()
    other.fit(X, Y, epochs=2, validation=VALIDATION)
    np.testing.assert_array_equal(trainer.network.parameters, before)
    trainer.fit(X, Y, epochs=2, validation=VALIDATION)
    np.testing.assert_array_equal(other.network.parameters, trainer.network.parameters)


@every_kind
def test_state_dict_of_an_average_is_a_copy(kind):
    trainer, _ = run(KINDS[kind]())
    state = trainer.state_dict()
    saved = copy.deepcopy(state)
    trainer.fit(X, Y, epochs=1, validation=VALIDATION)
    other = make(KINDS[kind](), RecordSteps())
    other.load_state_dict(state)
    other.fit(X, Y, epochs=1, validation=VALIDATION)
    np.testing.assert_equal(state, saved)


@pytest.mark.parametrize(
    ("make_callback", "says"),
    [
        *((lambda v=v: EMA(v), r"EMA: decay must be in \[0, 1\)") for v in (-0.1, 1.0, math.nan)),
        *((lambda v=v: EMA(every=v), "EMA: every must be an integer >= 1") for v in (0, 2.5)),
        *((lambda v=v: SWA(v), r"SWA: start must be in \[0, 1\)") for v in (-0.1, 1.0, math.nan)),
    ],
)
def test_invalid_option_of_an_average_is_rejected(make_callback, says, rejects):
    with rejects(says):
        make_callback()


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (EarlyStopping("loss"), "EarlyStopping(monitor='loss', patience=5, min_delta=0.0, restore_best=True)"),
        (EMA(0.9, every=2), "EMA(decay=0.9, every=2)"),
        (SWA(0.5), "SWA(start=0.5)"),
        (Checkpoint("c"), f"Checkpoint(path={Checkpoint('c').path!r}, max_share=1.0)"),
        (Callback(), "Callback()"),
    ],
    ids=["early stopping", "ema", "swa", "checkpoint", "callback"],
)
def test_repr_of_a_callback_shows_its_options_and_pickles_keep_them(callback, expected):
    assert repr(callback) == expected
    if not isinstance(callback, Checkpoint):  # which would write a file
        make(callback).fit(X, Y, epochs=2)
        assert repr(callback) == expected  # the state is not shown
    assert repr(pickle.loads(pickle.dumps(callback))) == expected


def test_early_stopping_needs_a_validation_set_before_the_first_epoch(rejects):
    trainer = make(EarlyStopping())
    before = trainer.network.parameters.copy()
    with rejects("'val_loss' needs a validation set: pass validation= to fit"):
        trainer.fit(X, Y, epochs=3)
    assert trainer.epoch == 0
    np.testing.assert_array_equal(trainer.network.parameters, before)


# ---- Checkpoints -----------------------------------------------------------------------------------------------------


def checkpointed(path, optimizer=None, **options):
    """A trainer that has written its checkpoint."""
    trainer = make(Checkpoint(path), optimizer=optimizer, **options)
    trainer.fit(X, Y, epochs=2)
    return trainer


@pytest.mark.parametrize("make_optimizer", [SGD, Momentum, Adam])
def test_checkpoint_has_the_whole_state_of_the_trainer(make_optimizer, tmp_path):
    path = tmp_path / "c.safetensors"
    before = checkpointed(path, make_optimizer(0.1))
    after = make(Checkpoint(path), optimizer=make_optimizer(0.1), rng=5)
    resume(after, path)
    np.testing.assert_array_equal(after.network.parameters, before.network.parameters)
    np.testing.assert_array_equal(after.optimizer.state, before.optimizer.state)
    assert (after.epoch, after.history) == (2, before.history)
    assert after.shuffling.bit_generator.state == before.shuffling.bit_generator.state
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_keeps_nan_in_the_history(tmp_path):
    before = checkpointed(tmp_path / "c")
    before.fit(X, Y, epochs=1, validation=VALIDATION)
    after = make()
    resume(after, tmp_path / "c")
    assert np.isnan(after.history["val_loss"]).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": [4, 6, 3]}, "43 parameters in float64: expected 51 in float64"),
        ({"dtype": np.float32}, "43 parameters in float64: expected 43 in float32"),
        ({"optimizer": SGD(0.1)}, "has the state of Adam: expected SGD"),
        ({"layers": [Dense(4, 5), Dropout(), Dense(5, 3)]}, "from another training: it lacks layers.1.rng"),
    ],
    ids=["sizes", "dtype", "sgd", "dropout"],
)
def test_checkpoint_of_another_training_is_rejected(options, says, tmp_path, rejects):
    checkpointed(tmp_path / "c", Adam())
    trainer = make(**{"optimizer": Adam()} | options)
    before = trainer.network.parameters.copy()
    with rejects(says):
        resume(trainer, tmp_path / "c")
    np.testing.assert_array_equal(trainer.network.parameters, before)
    assert (trainer.epoch, trainer.optimizer.steps) == (0, 0)


def test_model_file_is_not_a_checkpoint(tmp_path, rejects):
    save(make().network, tmp_path / "m")
    with rejects("m is not a checkpoint: its metadata has no training state"):
        resume(make(), tmp_path / "m")


def test_truncated_checkpoint_is_rejected(tmp_path, rejects):
    path = tmp_path / "c"
    checkpointed(path, Adam())
    content = path.read_bytes()
    for length in (0, 9, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with rejects(f"{path} is"):
            resume(make(optimizer=Adam()), path)


class Clock:
    """A clock that advances by `step` seconds each time it is read."""

    def __init__(self, step):
        self.now, self.step = 1000.0, step

    def monotonic(self):
        self.now += self.step
        return self.now


def saved_epochs(max_share, epochs, path, monkeypatch, step=1.0, stop=None):
    """After each epoch, the last epoch that is saved: by the attribute, which the file must confirm."""
    monkeypatch.setattr(callbacks, "time", Clock(step))
    checkpoint, saved = Checkpoint(path, max_share), []

    def set_stop(trainer):
        trainer.stop = trainer.epoch == stop

    class Look(Callback):
        order = 3  # after the checkpoint

        def on_epoch_end(self, trainer):
            again = make(rng=5)
            resume(again, path)
            assert again.epoch == checkpoint.epoch
            saved.append(checkpoint.epoch)

    make(checkpoint, Call(set_stop), Look()).fit(X, Y, epochs=epochs)
    return saved


@pytest.mark.parametrize(
    ("max_share", "expected"),
    [
        (1.0, [1, 2, 3, 4, 5, 6, 7, 8]),
        (0.5, [1, 2, 3, 4, 5, 6, 7, 8]),  # writing takes a second, and a second passes until the next look
        (0.25, [1, 1, 1, 4, 4, 4, 7, 8]),  # after a second of writing, three are for training
        (0.1, [1, 1, 1, 1, 1, 1, 1, 8]),
    ],
)
def test_checkpoint_takes_its_share_of_the_time_and_always_saves_the_last_epoch(
    max_share, expected, tmp_path, monkeypatch
):
    assert saved_epochs(max_share, 8, tmp_path / "c", monkeypatch) == expected


def test_checkpoint_saves_the_epoch_in_which_training_stops(tmp_path, monkeypatch):
    assert saved_epochs(0.1, 8, tmp_path / "c", monkeypatch, stop=4) == [1, 1, 1, 4]


def test_checkpoint_saves_every_epoch_if_writing_takes_no_time(tmp_path, monkeypatch):
    assert saved_epochs(0.01, 5, tmp_path / "c", monkeypatch, step=0.0) == [1, 2, 3, 4, 5]


def test_checkpoint_of_a_resumed_training_knows_the_saved_epoch(tmp_path):
    path = tmp_path / "c"
    checkpointed(path)
    again = Checkpoint(path)
    assert again.epoch == 0
    trainer = make(again, rng=5)
    resume(trainer, path)
    trainer.fit(X, Y, until_epoch=2)
    assert again.epoch == 2


@pytest.mark.parametrize("max_share", [0, -0.5, 1.5, math.nan])
def test_invalid_max_share_is_rejected(max_share, tmp_path, rejects):
    with rejects(rf"Checkpoint: max_share must be in \(0, 1\], got {max_share}"):
        Checkpoint(tmp_path / "c", max_share)


@pytest.mark.parametrize(
    "callback", [EarlyStopping("loss"), EMA(), SWA()], ids=lambda callback: type(callback).__name__
)
def test_callback_does_not_keep_its_trainer_alive(callback):
    trainer = Trainer(Network([4, 3], rng=0), SGD(0.1), callbacks=[callback], rng=0)
    trainer.fit(np.eye(4), [0, 1, 2, 0], epochs=2)
    reference = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert reference() is None


# ---- Damaged checkpoints ---------------------------------------------------------------------------------------------

COMPLETE = {
    "ema": lambda path: make(EMA(0.8), EarlyStopping("loss"), Checkpoint(path), optimizer=Adam(0.01)),
    "swa": lambda path: make(SWA(0.1), Checkpoint(path), optimizer=Lookahead(Momentum(0.1))),
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *(("ema", "epoch", value) for value in (-1, True, "2", 3, 10**400)),
        *(("ema", "first_epoch", value) for value in (-1, 3, [])),
        ("ema", "stop", 0),
        *(("ema", "history", value) for value in (None, {}, {"loss": [1.0]}, {"loss": 5}, {"loss": [1.0, None]})),
        ("ema", "history", {"loss": [1.0, 10**400]}),
        ("ema", "parameters", np.full(43, np.nan)),
        ("ema", "parameters", [0.0] * 43),
        *(("ema", "optimizer.steps", value) for value in (-1, 10**400)),
        ("ema", "optimizer.kind", ["Adam"]),
        *(("ema", "optimizer.state", value) for value in (None, np.zeros((1, 43)), np.zeros((2, 42)), np.zeros(86))),
        ("ema", "optimizer.state", np.full((2, 43), np.nan)),
        ("ema", "optimizer.state", np.zeros((2, 43), np.int64)),
        ("swa", "optimizer.inner.state", np.zeros((1, 43), np.float32)),
        *(("ema", "callbacks.0.count", value) for value in (-1, 0, 10**400)),
        *(("ema", "callbacks.0.average", value) for value in (None, np.zeros(42), np.full(43, np.inf), 5)),
        ("swa", "callbacks.0.raw", np.zeros((43, 1))),
        *(("ema", "callbacks.1.best", value) for value in ("1", math.nan, 10**400)),
        ("ema", "callbacks.1.best_epoch", None),
        ("ema", "callbacks.1.best_parameters", np.zeros(42)),
        *(("ema", "shuffling", value) for value in (None, {"bit_generator": "MT19937"})),
        (
            "ema",
            "shuffling",
            {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}, "has_uint32": 0, "uinteger": 0},
        ),
        ("ema", "augmenting", {"bit_generator": "PCG64", "state": 5}),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:20],
)
def test_damaged_checkpoint_is_rejected_and_changes_nothing(kind, name, value, tmp_path, rejects):
    path, used = tmp_path / "c", tmp_path / "used"
    COMPLETE[kind](path).fit(X, Y, epochs=2)
    arrays, description = read_arrays(path)
    assert name in {**arrays, **description["state"]}
    arrays.pop(name, None), description["state"].pop(name, None)
    (arrays if isinstance(value, np.ndarray) else description["state"])[name] = value
    write_arrays(path, arrays, {"state": description["state"]})
    trainer = COMPLETE[kind](used)
    trainer.fit(X, Y, epochs=1)
    before = copy.deepcopy(trainer.state_dict())
    with rejects("c"):
        resume(trainer, path)
    np.testing.assert_equal(trainer.state_dict(), before)
    trainer.fit(X, Y, epochs=1)


@pytest.mark.parametrize("state", [None, 5, [], "state"])
def test_state_that_is_not_a_mapping_is_rejected(state, tmp_path, rejects):
    write_arrays(tmp_path / "c", {}, {"state": state})
    with rejects("is not a checkpoint"):
        resume(make(), tmp_path / "c")


def test_callback_that_raises_leaves_the_trainer_unchanged(tmp_path, rejects):
    class Broken(Callback):
        def load_state_dict(self, state):
            raise RuntimeError("a\nb")

    def trainer(extra):
        return make(EMA(0.5), extra, EMA(0.9), Checkpoint(tmp_path / "c"), optimizer=Adam(0.01))

    saved = trainer(Callback())
    saved.callbacks[2].count, saved.callbacks[2].average = 1, np.ones(43)
    write_arrays(
        tmp_path / "c",
        {k: v for k, v in saved.state_dict().items() if isinstance(v, np.ndarray)},
        {"state": {k: v for k, v in saved.state_dict().items() if not isinstance(v, np.ndarray)}},
    )
    broken = trainer(Broken())
    before = broken.state_dict()
    with rejects("the checkpoint is damaged: RuntimeError"):
        resume(broken, tmp_path / "c")
    np.testing.assert_equal(broken.state_dict(), before)


# ---- CSV log ---------------------------------------------------------------------------------------------------------


def read_csv(path):
    header, *rows = csv.reader(path.read_text().splitlines())
    assert [len(row) for row in rows] == [len(header)] * len(rows)
    return {name: [float(row[i] or "nan") for row in rows] for i, name in enumerate(header)}


def assert_logged(path, trainer):
    logged = read_csv(path)
    assert logged.pop("epoch") == list(range(1, trainer.epoch + 1))
    assert list(logged) == list(trainer.history)
    for name, values in trainer.history.items():
        np.testing.assert_array_equal(logged[name], values)
    trainer.history.to_csv(path.with_name("history.csv"))
    assert path.read_bytes() == path.with_name("history.csv").read_bytes()


def test_csv_log_has_one_exact_row_for_each_epoch_and_empty_fields_for_nan(tmp_path):
    path = tmp_path / "log, 1.csv"
    trainer = make(CSVLogger(path))
    trainer.fit(X, Y, epochs=2)
    assert_logged(path, trainer)
    trainer.fit(X, Y, epochs=2, validation=(X, Y))  # new columns
    assert_logged(path, trainer)
    assert path.read_text().splitlines()[1].endswith(",,")
    assert math.isnan(read_csv(path)["val_loss"][1])


def test_csv_log_writes_a_row_at_the_end_of_its_epoch(tmp_path):
    path, counts = tmp_path / "log.csv", []

    class Count(Callback):
        order = 1

        def on_epoch_end(self, trainer):
            counts.append(len(path.read_text().splitlines()))

    make(Count(), CSVLogger(path)).fit(X, Y, epochs=3)
    assert counts == [2, 3, 4]


def test_csv_log_of_a_resumed_run_has_every_epoch_once(tmp_path):
    path = tmp_path / "log.csv"

    def trainer():
        return make(CSVLogger(path), Checkpoint(tmp_path / "c"))

    trainer().fit(X, Y, epochs=2)
    with path.open("a") as file:
        file.write("3,0.1,0.")  # the process was killed in epoch 3, after the checkpoint of epoch 2
    resumed = trainer()
    resume(resumed, tmp_path / "c")
    resumed.fit(X, Y, until_epoch=4)
    assert_logged(path, resumed)
    assert len(resumed.history["loss"]) == 4


def test_csv_log_of_a_new_run_starts_a_new_file(tmp_path):
    path = tmp_path / "log.csv"
    make(CSVLogger(path)).fit(X, Y, epochs=3)
    trainer = make(CSVLogger(path))
    trainer.fit(X, Y, epochs=1)
    assert_logged(path, trainer)


def test_csv_log_quotes_the_name_of_a_metric(tmp_path):
    class Margin(Callback):
        def on_evaluation_begin(self, trainer):
            trainer.metrics['margin, "0.1"'] = np.float32(trainer.epoch)

    trainer = make(Margin(), CSVLogger(tmp_path / "log.csv"), Checkpoint(tmp_path / "checkpoint"))
    trainer.fit(X, Y, epochs=2)
    assert_logged(tmp_path / "log.csv", trainer)


def test_csv_log_that_cannot_be_written_is_an_error_before_the_first_step(tmp_path, rejects):
    trainer = make(CSVLogger(tmp_path / "no" / "log.csv"))
    before = trainer.network.parameters.copy()
    with rejects("cannot write"):
        trainer.fit(X, Y, epochs=1)
    np.testing.assert_array_equal(trainer.network.parameters, before)


@pytest.mark.parametrize(
    ("optimizer", "other"),
    [
        (Momentum(0.1), Momentum(0.2)),
        (Momentum(0.1), Momentum(0.1, 0.5)),
        (SGD(0.1), SGD(0.1, l2=1e-3)),
        (Lookahead(SGD(0.1)), Lookahead(SGD(0.1), k=3)),
        (Lookahead(SGD(0.1)), Lookahead(SGD(0.3))),
    ],
    ids=str,
)
def test_resume_with_other_options_of_the_optimizer_warns(optimizer, other, tmp_path):
    path = tmp_path / "c.safetensors"
    checkpointed(path, optimizer)
    after = make(Checkpoint(path), optimizer=other)
    with pytest.warns(HandgradWarning, match=re.escape(f"had the optimizer {optimizer}, and continues with {other}")):
        resume(after, path)
    assert after.epoch == 2
