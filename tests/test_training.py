"""The training loop: epochs and batches, the history, callbacks, sample weights, resuming, divergence."""

import copy
import itertools
import math
import pickle
import threading
import time

import numpy as np
import pytest

from handgrad import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Adversarial,
    BatchNorm,
    Callback,
    CrossEntropy,
    Dense,
    Dropout,
    EarlyStopping,
    Ensemble,
    HandgradError,
    History,
    Layer,
    Lookahead,
    Momentum,
    Muon,
    Nesterov,
    Network,
    ReLU,
    SquaredError,
    Standardize,
    Tanh,
    Trainer,
    VirtualAdversarial,
    one_hot,
    schedules,
    training,
)
from handgrad.arrays import check_sample_weight, spawn_rngs
from handgrad.callbacks import Checkpoint, resume
from handgrad.distributed.threads import run_threads
from handgrad.losses import LOSSES
from handgrad.training import DivergedError

N = 23  # with batches of 5: four complete ones and one of 3
X = np.random.default_rng(0).random((N, 4))
X[:, 0] = np.arange(N)  # the first input is the number of the example
Y = np.arange(N) % 3
VALIDATION = np.random.default_rng(1).random((7, 4)), np.arange(7) % 3
METRICS = {"loss", "accuracy", "lr", "seconds"}


class Record(Layer):
    """Passes x on, and keeps a copy of each training batch."""

    def __init__(self):
        self.batches = []

    def forward(self, x):
        self.batches.append(x.copy())
        return x

    def backward(self, dy):
        return dy

    def infer(self, x):
        return x

    def numbers(self):
        """The numbers of the examples, in the order of training."""
        return [int(number) for batch in self.batches for number in batch[:, 0]]


class Call(Callback):
    """Calls a function after every step, or every epoch."""

    def __init__(self, at_batch=None, at_epoch=None):
        self.at_batch, self.at_epoch = at_batch, at_epoch

    def on_batch_end(self, trainer):
        if self.at_batch:
            self.at_batch(trainer)

    def on_epoch_end(self, trainer):
        if self.at_epoch:
            self.at_epoch(trainer)


def make(layers=(4, 5, 3), optimizer=None, dtype=np.float64, rng=0, loss="cross_entropy", **options):
    of_sizes = {"activation": "tanh", "init": "lecun"} if isinstance(layers[0], int) else {}
    network = Network(list(layers), loss=loss, rng=rng, dtype=dtype, **of_sizes)
    return Trainer(network, optimizer or SGD(0.1), **{"batch_size": 5, "rng": rng} | options)


def recorded(**options):
    """A trainer, and the layer that keeps its batches."""
    record = Record()
    network = Network([record, Dense(4, 3)], loss="cross_entropy", rng=0, dtype=np.float64)
    return Trainer(network, **{"optimizer": SGD(0.01), "batch_size": 5, "rng": 0} | options), record


def comparable(history):
    """The history without the time."""
    return {name: values for name, values in history.items() if name != "seconds"}


# ---- Epochs and batches ----------------------------------------------------------------------------------------------


def test_epoch_uses_every_example_once_in_a_new_order():
    trainer, record = recorded()
    trainer.fit(X, Y, epochs=3)
    orders = [record.numbers()[i * N : (i + 1) * N] for i in range(3)]
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(N))]}) == 4


def test_last_batch_of_an_epoch_has_the_remaining_examples():
    trainer, record = recorded()
    trainer.fit(X, Y, epochs=2)
    assert [len(batch) for batch in record.batches] == [5, 5, 5, 5, 3] * 2


def test_examples_are_shuffled_rather_than_batches():
    trainer, record = recorded(batch_size=1)
    trainer.fit(X, Y, epochs=2)
    first, second = ([set(record.numbers()[e * N + i : e * N + i + 5]) for i in range(0, N, 5)] for e in (0, 1))
    assert not any(batch in second for batch in first)


def test_targets_stay_with_their_examples():
    """The target is the number of the example: the loss of each batch shows whether they were shuffled together."""
    network = Network([Record(), Dense(4, 1)], loss="squared_error", rng=0, dtype=np.float64)
    network.layers[1].W[...], network.layers[1].b[...] = [[1, 0, 0, 0]], 0
    history = Trainer(network, SGD(0.1), batch_size=5, rng=0).fit(X, X[:, :1], epochs=2)
    assert history["loss"] == [0, 0]


@pytest.mark.parametrize(
    ("floats", "batch_size", "weights"),
    [(1, 1, None), (7, 5, np.arange(N)), (41, 5, None), (60, 1, np.arange(N)), (60, N, None)],
    ids=str,
)
def test_every_block_size_gives_the_same_bits(floats, batch_size, weights, monkeypatch):
    one_block, cut = (make(batch_size=batch_size) for _ in range(2))
    expected = one_block.fit(X, Y, epochs=3, sample_weight=weights)
    monkeypatch.setattr(training, "GATHER_FLOATS", floats)
    history = cut.fit(X, Y, epochs=3, sample_weight=weights)
    np.testing.assert_array_equal(cut.network.parameters, one_block.network.parameters)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)  # summed in another order
    assert history["accuracy"] == expected["accuracy"]


def test_batch_size_larger_than_the_data_is_clipped():
    clipped, exact = make(batch_size=1000), make(batch_size=N)
    assert comparable(clipped.fit(X, Y, epochs=3)) == comparable(exact.fit(X, Y, epochs=3))
    np.testing.assert_array_equal(clipped.network.parameters, exact.network.parameters)
    assert (clipped.batch_size, clipped.batches) == (1000, 1)
    clipped.batch_size = 10  # a second fit uses the attribute again
    clipped.fit(X, Y, epochs=1)
    assert clipped.batches == 3


def test_epoch_equals_its_steps_written_out():
    trainer, twin = make(), make().network
    order = spawn_rngs(0).shuffling.permutation(N)
    for first in range(0, N, 5):
        rows = order[first : first + 5]
        twin.backprop(X[rows], one_hot(Y[rows], 3, np.float64))
        twin.parameters -= 0.1 * twin.gradient
    trainer.fit(X, Y, epochs=1)
    np.testing.assert_allclose(trainer.network.parameters, twin.parameters, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimizer", [SGD(0.01), Momentum(0.01)], ids=["sgd", "momentum"])
def test_network_gradient_in_a_callback_is_the_mean_gradient_of_the_batch(optimizer):
    trainer, record = recorded(optimizer=optimizer)
    before, sizes = [trainer.network.parameters.copy()], []

    def compare(trainer):
        x, twin = record.batches[-1], copy.deepcopy(trainer.network)
        twin.parameters[...] = before[-1]
        twin.backprop(x, one_hot(Y[x[:, 0].astype(int)], 3, np.float64))
        np.testing.assert_allclose(trainer.network.gradient, twin.gradient, rtol=1e-12, atol=1e-14)
        before.append(trainer.network.parameters.copy())
        sizes.append(len(x))

    trainer.callbacks = [Call(at_batch=compare)]
    trainer.fit(X, Y, epochs=1)
    assert sizes == [5, 5, 5, 5, 3]


# ---- Inputs ----------------------------------------------------------------------------------------------------------


class Fixed(Layer):
    """The squares of x. It counts the rows that it has received."""

    def __init__(self, fixed):
        self.fixed, self.received = fixed, []

    def forward(self, x):
        self.received.append(len(x))
        return x**2 / 100

    def backward(self, dy):
        raise AssertionError("no derivative is needed before the first layer with parameters")


def train_after(fixed, **options):
    first = Fixed(fixed)
    network = Network([first, Dense(4, 5), ReLU(), Dropout(0.2), Dense(5, 3)], loss="cross_entropy", rng=0)
    gradients = []

    class Gradients(Callback):
        def on_batch_end(self, trainer):
            gradients.append(trainer.network.gradient.copy())

    trainer = Trainer(network, SGD(0.1), batch_size=5, rng=0, callbacks=[Gradients()], **options)
    trainer.fit(X, Y, epochs=3, progress=False)
    return sum(first.received), network.parameters, gradients


@pytest.fixture
def without_checks(monkeypatch):
    for name in ("before_training", "after_training"):
        monkeypatch.setattr(training, name, lambda *arguments: {})


def test_outputs_of_fixed_first_layers_are_computed_once(without_checks):
    """Not once per epoch, and with the same result."""
    rows, once, gradients_once = train_after(True)
    rows_each, each, gradients_each = train_after(False)
    assert (rows, rows_each) == (N, 3 * N)
    np.testing.assert_array_equal(once, each)
    np.testing.assert_array_equal(gradients_once, gradients_each)


@pytest.mark.parametrize(
    "options",
    [
        {"augment": lambda x, rng, out: np.copyto(out, x)},
        {"perturb": lambda network, x, t: (x, t)},
        {"teacher": Network([4, 3], loss="cross_entropy", rng=0)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_fixed_layers_are_computed_again_if_their_inputs_change_or_are_needed(options, without_checks):
    assert train_after(True, **options)[0] == 3 * N


def test_fixed_layers_of_large_data_and_of_several_threads_are_computed_in_every_step(without_checks, monkeypatch):
    in_threads = run_threads(2, lambda comm: train_after(True, comm=comm, sync_every=1)[0])
    assert sum(in_threads) == 3 * N
    monkeypatch.setattr(training, "MAX_FIXED_BYTES", N * 4 * 4 - 1)
    assert train_after(True)[0] == 3 * N


def test_a_layer_that_a_callback_freezes_after_an_epoch_stays_as_it_is(without_checks):
    states = []

    class Freeze(Callback):
        def on_epoch_end(self, trainer):
            states.append(trainer.network.layers[1].W.copy())
            trainer.network.layers[1].trainable = False
            trainer.optimizer.refresh()

    network = Network([Fixed(True), Dense(4, 5), ReLU(), Dense(5, 3)], loss="cross_entropy", rng=0)
    Trainer(network, Adam(0.1), batch_size=5, rng=0, callbacks=[Freeze()]).fit(X, Y, epochs=2, progress=False)
    np.testing.assert_array_equal(*states)


def test_seconds_of_the_first_epoch_include_fixed_layers(without_checks):
    class Slow(Fixed):
        def forward(self, x):
            time.sleep(0.05)
            return super().forward(x)

    network = Network([Slow(True), Dense(4, 3)], loss="cross_entropy", rng=0)
    seconds = Trainer(network, SGD(0.1), rng=0).fit(X, Y, epochs=2, progress=False)["seconds"]
    assert seconds[0] > 0.05


def test_labels_and_one_hot_rows_give_the_same_training():
    from_labels, from_rows = make(), make()
    from_labels.fit(X, Y, epochs=2)
    from_rows.fit(X, np.eye(3)[Y], epochs=2)
    np.testing.assert_array_equal(from_labels.network.parameters, from_rows.network.parameters)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-11)])
@pytest.mark.parametrize("integer", [np.uint8, np.int64])
def test_integer_images_train_as_floats_divided_by_255(integer, dtype, rtol):
    images = np.random.default_rng(0).integers(0, 256, (N, 2, 2)).astype(integer)
    from_integers, from_floats = (make(dtype=dtype) for _ in range(2))
    from_integers.fit(images, Y, epochs=3)
    from_floats.fit(images.reshape(N, 4) / 255, Y, epochs=3)
    ours, theirs = from_integers.network.parameters, from_floats.network.parameters
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)  # p · (1/255) and p / 255 differ in the last bit
    assert (from_integers.network.image_shape, from_floats.network.image_shape) == ((2, 2), None)


@pytest.mark.parametrize("integer", [np.uint8, np.int64, bool])
def test_integer_numbers_are_used_unchanged(integer):
    """XOR learns from uint8 as from floats."""
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], integer), np.array([0, 1, 1, 0])
    from_integers, from_floats = (make([2, 4, 2], dtype=np.float32) for _ in range(2))
    from_integers.fit(x, y, epochs=5)
    from_floats.fit(x.astype(float), y, epochs=5)
    np.testing.assert_array_equal(from_integers.network.parameters, from_floats.network.parameters)


def test_arrays_of_the_user_are_not_changed(digits):
    x, y, *_ = digits  # not writeable
    images, floats, weights = x.reshape(-1, 8, 8), x / 255, np.ones(len(x))
    for array in (floats, weights):
        array.flags.writeable = False
    for examples in (images, floats):
        trainer = make([64, 5, 10], batch_size=50)
        history = trainer.fit(examples, y, epochs=1, validation=(examples, y), sample_weight=weights)
        assert len(history["val_loss"]) == 1


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_tiny_numbers_are_trained_if_floating_point_errors_raise(loss):
    x, t = X * np.array([1, 1, 1, 1e-200]), np.where(np.eye(3)[Y] > 0, 1, 1e-60)
    weights = np.where(np.arange(N) % 5, 1, 1e-300)
    trainer = make(dtype=np.float32, loss=loss)
    with np.errstate(all="raise"):
        trainer.fit(Standardize.fit(x)(x), t, epochs=1, sample_weight=weights)
        history = trainer.fit(x, t, epochs=1, sample_weight=weights)
    assert np.isfinite(history["loss"]).all()


# ---- History ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [None, VALIDATION], ids=["without", "with"])
def test_history_has_one_entry_per_epoch(validation):
    history = make().fit(X, Y, epochs=4, validation=validation)
    names = METRICS | ({"val_loss", "val_accuracy"} if validation else set())
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(names, 4)
    assert all(seconds > 0 for seconds in history["seconds"])
    assert history["lr"] == [0.1] * 4


def test_history_has_nan_for_epochs_without_validation():
    trainer = make()
    trainer.fit(X, Y, epochs=2)
    trainer.fit(X, Y, epochs=3, validation=VALIDATION)
    trainer.fit(X, Y, epochs=1)
    assert {len(values) for values in trainer.history.values()} == {6}
    for name in ("val_loss", "val_accuracy"):
        assert np.isnan(trainer.history[name]).tolist() == [True, True, False, False, False, True]
    assert np.isfinite(trainer.history["loss"]).all()
    assert (set(trainer.metrics), trainer.validation) == (METRICS, None)  # of the last epoch only
    again = make()
    again.load_state_dict(trainer.state_dict())
    np.testing.assert_equal((again.history, again.metrics), (trainer.history, trainer.metrics))


def test_regression_has_no_accuracy():
    trainer = make(loss="squared_error")
    history = trainer.fit(X, np.eye(3)[Y], epochs=2, validation=(X, np.eye(3)[Y]))
    assert set(history) == {"loss", "lr", "seconds", "val_loss"}
    assert trainer.validation.accuracy is None


@pytest.mark.parametrize("batch_size", [5, 23])
def test_loss_of_an_epoch_is_the_mean_over_its_examples(batch_size):
    """With a learning rate that changes nothing it is the loss of the initial network."""
    trainer = make(optimizer=SGD(1e-300), batch_size=batch_size)
    initial = trainer.network.evaluate(X, Y)
    history = trainer.fit(X, Y, epochs=1)
    assert history["loss"] == [pytest.approx(initial.loss, rel=1e-12)]
    assert history["accuracy"] == [initial.accuracy]


def test_loss_of_a_batch_is_computed_before_its_step():
    trainer = make(batch_size=N)
    before = []
    for _ in range(3):
        before.append(trainer.network.evaluate(X, Y).loss)
        trainer.fit(X, Y, epochs=1)
    assert trainer.history["loss"] == pytest.approx(before, rel=1e-12)
    assert before == sorted(before, reverse=True)


def test_loss_of_batches_of_different_sizes_matches_the_hand_worked_mean():
    """Batches of 5 and 3: the loss of the epoch is (5 L₁ + 3 L₂) / 8, each L for the weights before its step."""
    trainer, record = recorded()
    before = [trainer.network.parameters.copy()]
    trainer.callbacks = [Call(at_batch=lambda t: before.append(t.network.parameters.copy()))]
    history = trainer.fit(X[:8], Y[:8], epochs=1)
    twin, losses = copy.deepcopy(trainer.network), []
    for theta, x in zip(before, list(record.batches), strict=False):
        twin.parameters[...] = theta
        losses.append(twin.evaluate(x, Y[x[:, 0].astype(int)]).loss)
    assert history["loss"] == [pytest.approx((5 * losses[0] + 3 * losses[1]) / 8, rel=1e-12)]


def test_validation_metrics_are_those_of_evaluate():
    evaluations = []
    trainer = make(callbacks=[Call(at_epoch=lambda t: evaluations.append(t.network.evaluate(*VALIDATION)))])
    history = trainer.fit(X, Y, epochs=3, validation=VALIDATION)
    assert history["val_loss"] == [e.loss for e in evaluations]
    assert history["val_accuracy"] == [e.accuracy for e in evaluations]
    assert trainer.validation == evaluations[-1]


def test_validation_does_not_change_the_training():
    alone, with_validation = make(optimizer=Momentum(0.1)), make(optimizer=Momentum(0.1))
    alone.fit(X, Y, epochs=3)
    with_validation.fit(X, Y, epochs=3, validation=VALIDATION)
    np.testing.assert_array_equal(alone.network.parameters, with_validation.network.parameters)


class RecordLr(SGD):
    """Keeps the learning rate of each step."""

    def __init__(self, lr):
        super().__init__(lr)
        self.rates = []

    def step(self, network, lr=None):
        self.rates.append(lr)
        super().step(network, lr)


def test_schedule_is_evaluated_at_every_step():
    calls = []

    def schedule(epoch, epochs):
        calls.append((round(epoch, 9), epochs))
        return 1 / (1 + epoch)

    optimizer = RecordLr(0.5)
    history = make(optimizer=optimizer, schedule=schedule).fit(X, Y, epochs=2)
    at = [k / 5 for k in range(10)]
    assert {*calls} == {(round(epoch, 9), 2) for epoch in at}
    assert optimizer.rates == pytest.approx([0.5 / (1 + epoch) for epoch in at], rel=1e-12)
    assert history["lr"] == pytest.approx([0.5, 0.25], rel=1e-12)


def test_a_metric_of_a_callback_may_be_nan_or_infinite():
    class Measure(Callback):
        def on_evaluation_begin(self, trainer):
            trainer.metrics["ratio"] = [math.nan, math.inf, 2.0][trainer.epoch]

    history = make(callbacks=[Measure()]).fit(X, Y, epochs=3, validation=VALIDATION)
    np.testing.assert_array_equal(history["ratio"], [math.nan, math.inf, 2.0])


def test_negative_schedule_is_rejected(rejects):
    """1 - epoch / (epochs - 1) is 0 at the start of the last epoch, and negative after it."""
    trainer = make(schedule=lambda epoch, epochs: 1 - epoch / (epochs - 1))
    with rejects("the schedule is -0.1 at epoch 2.2 of 3: expected a factor >= 0"):
        trainer.fit(X, Y, epochs=3)


# ---- Number of epochs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_second_fit_trains_as_many_epochs_again(optimizer):
    once, twice = make(optimizer=optimizer(0.05)), make(optimizer=optimizer(0.05))
    once.fit(X, Y, epochs=6)
    twice.fit(X, Y, epochs=3)
    assert twice.epoch == 3
    twice.fit(X, Y, epochs=3)
    assert twice.epoch == len(twice.history["loss"]) == 6
    np.testing.assert_array_equal(once.network.parameters, twice.network.parameters)
    assert comparable(once.history) == comparable(twice.history)


def test_schedule_of_a_second_fit_starts_again():
    optimizer = RecordLr(1.0)
    trainer = make(optimizer=optimizer, schedule=schedules.cosine())
    trainer.fit(X, Y, epochs=2)
    first, optimizer.rates = optimizer.rates, []
    trainer.fit(X, Y, epochs=2)
    assert optimizer.rates == first
    assert first[0] == 1


def test_until_epoch_continues_the_schedule_of_the_whole_run():
    whole, parts = (make(optimizer=RecordLr(1.0), schedule=schedules.one_cycle()) for _ in range(2))
    whole.fit(X, Y, epochs=6)

    def stop(trainer):
        trainer.stop = trainer.epoch == 2

    parts.callbacks = [Call(at_epoch=stop)]
    parts.fit(X, Y, epochs=6)
    assert parts.epoch == 2
    parts.callbacks, parts.stop = [], False
    parts.fit(X, Y, until_epoch=6)
    assert parts.epoch == 6
    assert parts.optimizer.rates == whole.optimizer.rates
    np.testing.assert_array_equal(parts.network.parameters, whole.network.parameters)
    parts.fit(X, Y, until_epoch=6)  # nothing is left to train
    assert len(parts.history["loss"]) == 6


def test_stop_ends_the_training_after_the_epoch_and_the_next_fit_trains_again():
    def stop(trainer):
        trainer.stop |= (trainer.epoch, trainer.batch) == (1, 2)

    trainer = make(callbacks=[Call(at_batch=stop)])
    assert len(trainer.fit(X, Y, epochs=5)["loss"]) == trainer.epoch == 2
    assert len(trainer.fit(X, Y, epochs=5)["loss"]) == trainer.epoch == 7


def test_fit_of_zero_epochs_changes_nothing():
    trainer = make()
    before = trainer.network.parameters.copy()
    assert trainer.fit(X, Y, epochs=0) == {}
    np.testing.assert_array_equal(trainer.network.parameters, before)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
        ({"epochs": 2.5}, "epochs must be an integer >= 0, got 2.5"),
        ({"until_epoch": "2"}, "until_epoch must be an integer >= 0, got '2'"),
        ({}, "fit needs either epochs .* or until_epoch"),
        ({"epochs": 1, "until_epoch": 2}, "fit needs either epochs .* or until_epoch"),
    ],
)
def test_invalid_number_of_epochs_is_rejected(options, says, rejects):
    with rejects(says):
        make().fit(X, Y, **options)


def test_numpy_integers_are_accepted():
    n = np.int64
    trainer = Trainer(Network([n(4), n(5), n(3)], rng=0), SGD(0.1), batch_size=n(5))
    assert len(trainer.fit(X, Y, epochs=n(2))["loss"]) == 2


# ---- Independent random generators -----------------------------------------------------------------------------------


def test_dropout_does_not_change_the_order_of_the_examples():
    orders = []
    for rate in (0.0, 0.5):
        record = Record()
        network = Network([record, Dropout(rate), Dense(4, 3)], rng=0)
        Trainer(network, SGD(0.01), batch_size=5, rng=0).fit(X, Y, epochs=2)
        orders.append(record.numbers())
    assert orders[0] == orders[1]


def test_same_seed_gives_the_same_bits_and_another_seed_does_not():
    layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    runs = []
    for network_seed, seed in [(0, 0), (0, 0), (0, 1), (1, 0)]:
        network = Network(copy.deepcopy(layers), rng=network_seed)
        Trainer(network, SGD(0.1), batch_size=5, rng=seed).fit(X, Y, epochs=2)
        runs.append(network.parameters)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    assert (runs[0] != runs[3]).any()


# ---- Callbacks -------------------------------------------------------------------------------------------------------


def test_callbacks_receive_all_events_by_order_and_then_by_position():
    events = []

    class Log(Callback):
        def __init__(self, name, order=0):
            self.name, self.order = name, order

        def on_train_begin(self, trainer):
            events.append((self.name, "train begin", trainer.epoch))

        def on_batch_end(self, trainer):
            events.append((self.name, "batch end", trainer.epoch, trainer.batch, trainer.batches))

        def on_evaluation_begin(self, trainer):
            events.append((self.name, "evaluation begin", trainer.epoch, "val_loss" in trainer.metrics))

        def on_epoch_end(self, trainer):
            metrics = {name: values[-1] for name, values in trainer.history.items()}
            assert trainer.metrics == metrics
            events.append((self.name, "epoch end", trainer.epoch, len(trainer.history["val_loss"])))

        def on_evaluation_end(self, trainer):
            events.append((self.name, "evaluation end", trainer.epoch))

        def on_train_end(self, trainer):
            events.append((self.name, "train end", trainer.epoch))

    callbacks = [Log("c", 1), Log("b1"), Callback(), Log("a", -1), Log("b2")]
    make(callbacks=callbacks, batch_size=10).fit(X, Y, epochs=2, validation=VALIDATION)
    expected = [("train begin", 0)]
    for epoch in (0, 1):
        expected += [("batch end", epoch, batch, 3) for batch in (1, 2, 3)] + [("evaluation begin", epoch, False)]
        expected += [("epoch end", epoch + 1, epoch + 1), ("evaluation end", epoch + 1)]
    expected += [("train end", 2)]
    assert events == [(name, *event) for event in expected for name in ("a", "b1", "b2", "c")]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [400_000, 40])
def test_totals_within_an_epoch_are_those_of_its_batches_before_their_steps(weighted, block, monkeypatch):
    monkeypatch.setattr("handgrad.training.GATHER_FLOATS", block)  # one block, or blocks of two batches
    w = np.arange(1.0, N + 1) if weighted else None
    seen, at_end = [], []
    trainer = make(callbacks=[Call(lambda t: seen.append(t.totals()), lambda t: at_end.append(t.totals()))])
    trainer.fit(X, Y, epochs=2, sample_weight=w)
    assert [total.examples for total in seen] == [5, 10, 15, 20, 23] * 2
    assert at_end == [seen[4], seen[9]]
    for epoch, total in enumerate(at_end):
        assert total.loss / N == pytest.approx(trainer.history["loss"][epoch])
        assert total.correct / N == trainer.history["accuracy"][epoch]
    assert trainer.totals() == at_end[-1]


def test_exception_of_a_callback_is_not_changed():
    def fail(trainer):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        make(callbacks=[Call(at_epoch=fail)]).fit(X, Y, epochs=1)
    assert not isinstance(caught.value, HandgradError)


# ---- Resume, copy, pickle --------------------------------------------------------------------------------------------


class PowerCutError(Exception):
    """An exception that no part of the library expects."""


def cut_at(epoch, batch):
    def cut(trainer):
        if (trainer.epoch, trainer.batch) == (epoch, batch):
            raise PowerCutError

    return cut


def stateful(optimizer, schedule, path, seed, cut=None):
    """A training in which every part has a state."""
    layers = [Dropout(0.1), Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    network = Network(layers, loss="cross_entropy", rng=seed)
    callbacks = [EarlyStopping(patience=4), Call(at_batch=cut), Checkpoint(path)]
    return Trainer(network, optimizer, batch_size=5, schedule=schedule, callbacks=callbacks, rng=seed)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "place"),
    [
        (SGD, schedules.cosine, (1, 1)),
        (Momentum, schedules.one_cycle, (2, 3)),
        (AdamW, schedules.cosine, (4, 5)),
    ],
)
def test_training_killed_in_an_epoch_is_resumed_to_the_same_bits(optimizer, schedule, place, tmp_path):
    uninterrupted = stateful(optimizer(0.05), schedule(), tmp_path / "a", seed=0)
    expected = comparable(uninterrupted.fit(X, Y, epochs=8, validation=VALIDATION))

    killed = stateful(optimizer(0.05), schedule(), tmp_path / "b", seed=0, cut=cut_at(*place))
    with pytest.raises(PowerCutError):
        killed.fit(X, Y, epochs=8, validation=VALIDATION)

    resumed = stateful(optimizer(0.05), schedule(), tmp_path / "b", seed=99)  # other initial weights and generators
    resume(resumed, tmp_path / "b")
    assert resumed.epoch == place[0]
    assert resumed.metrics == {name: values[-1] for name, values in killed.history.items()}
    history = comparable(resumed.fit(X, Y, until_epoch=8, validation=VALIDATION))
    assert history == expected
    np.testing.assert_array_equal(resumed.network.parameters, uninterrupted.network.parameters)
    ours, theirs = resumed.callbacks[0], uninterrupted.callbacks[0]
    assert (ours.best, ours.best_epoch) == (theirs.best, theirs.best_epoch)
    np.testing.assert_array_equal(ours.best_parameters, theirs.best_parameters)
    np.testing.assert_array_equal(resumed.network.outputs(X), uninterrupted.network.outputs(X))


def test_run_that_continued_an_earlier_fit_is_resumed_with_its_own_schedule(tmp_path):
    """The second fit begins at epoch 2: its schedule covers epochs 2 to 6, before and after the interruption."""

    def trainer(rng=0, cut=None):
        callbacks = [Call(at_batch=cut), Checkpoint(tmp_path / "c")]
        return make(optimizer=Momentum(0.1), schedule=schedules.one_cycle(), callbacks=callbacks, rng=rng)

    uninterrupted, killed, resumed = trainer(), trainer(cut=cut_at(4, 2)), trainer(rng=9)
    for each in (uninterrupted, killed):
        each.fit(X, Y, epochs=2)
    uninterrupted.fit(X, Y, epochs=4)
    with pytest.raises(PowerCutError):
        killed.fit(X, Y, epochs=4)
    resume(resumed, tmp_path / "c")
    resumed.fit(X, Y, until_epoch=6)
    np.testing.assert_array_equal(resumed.network.parameters, uninterrupted.network.parameters)
    assert resumed.history["lr"] == uninterrupted.history["lr"]


def test_state_before_the_first_epoch_gives_the_whole_training():
    fresh, other = make(optimizer=Adam()), make(optimizer=Adam(), rng=7)
    other.load_state_dict(fresh.state_dict())
    assert comparable(fresh.fit(X, Y, epochs=3)) == comparable(other.fit(X, Y, until_epoch=3))
    np.testing.assert_array_equal(fresh.network.parameters, other.network.parameters)


@pytest.mark.parametrize("epochs", [0, 2])
def test_trainer_can_return_to_an_earlier_state(epochs):
    trainer, never_further = make(optimizer=Momentum(0.1)), make(optimizer=Momentum(0.1))
    for each in (trainer, never_further):
        each.fit(X, Y, epochs=epochs)
    state = trainer.state_dict()
    trainer.fit(X, Y, epochs=3)
    trainer.load_state_dict(state)
    assert trainer.epoch == epochs
    for each in (trainer, never_further):
        each.fit(X, Y, epochs=1)
    np.testing.assert_array_equal(trainer.network.parameters, never_further.network.parameters)


def test_weights_set_between_two_fits_are_trained_further():
    trainer = make(optimizer=SGD(1e-300), callbacks=[EarlyStopping("loss", patience=9)])
    trainer.fit(X, Y, epochs=1)
    trainer.network.parameters[...] = 0.25
    trainer.fit(X, Y, epochs=1)
    assert trainer.history["loss"][1] == pytest.approx(math.log(3), rel=1e-12)  # all outputs are equal


def test_state_dict_is_a_copy():
    trainer = make(optimizer=Momentum(0.1))
    trainer.fit(X, Y, epochs=2)
    state = trainer.state_dict()
    saved = copy.deepcopy(state)
    trainer.fit(X, Y, epochs=2)
    other = make(optimizer=Momentum(0.1))
    other.load_state_dict(state)
    other.fit(X, Y, epochs=1)
    np.testing.assert_equal(state, saved)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["copy", "pickle"])
def test_copied_or_pickled_trainer_continues_to_the_same_bits(copied):
    layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    callbacks = [EMA(0.9), EarlyStopping("loss", restore_best=False)]
    trainer = make(layers, Adam(0.05), callbacks=callbacks, perturb=VirtualAdversarial(0.1, rng=0))
    trainer.fit(X, Y, epochs=2)
    twin, before = copied(trainer), trainer.network.parameters.copy()
    twin.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(trainer.network.parameters, before)
    trainer.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(trainer.network.parameters, twin.network.parameters)
    assert (trainer.network.parameters != before).any()


def test_repr_shows_the_parts_and_the_epoch():
    trainer = make([4, 3], schedule=schedules.cosine(), callbacks=[EarlyStopping(patience=3)])
    trainer.fit(X, Y, epochs=2, validation=VALIDATION)
    assert repr(trainer) == (
        f"Trainer({trainer.network!r}, SGD(lr=0.1), batch_size=5, schedule=schedules.cosine(final=0.0), "
        "callbacks=[EarlyStopping(monitor='val_loss', patience=3, min_delta=0.0, restore_best=True)]): epoch 2"
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        (make([4, 6, 3]), make([4, 5, 3]), "has 51 parameters in float64: expected 43"),
        (make(dtype=np.float32), make(dtype=np.float64), "43 parameters in float32: expected 43 in float64"),
        (make(optimizer=Adam()), make(optimizer=Momentum(0.1)), "has the state of Adam: expected Momentum"),
        (make(), make(callbacks=[EarlyStopping("loss")]), "from another training: it lacks callbacks.0.best"),
        (make(callbacks=[EMA(0.9)]), make(), "from another training: it also has callbacks.0.average"),
        (make(), make([Dense(4, 5), Dropout(), Dense(5, 3)]), "it lacks layers.1.rng"),
    ],
    ids=["size", "dtype", "optimizer", "callback missing", "callback added", "dropout"],
)
def test_state_of_another_training_is_rejected_and_changes_nothing(theirs, ours, says, rejects):
    theirs.fit(X, Y, epochs=1)
    before = ours.network.parameters.copy()
    with rejects(says):
        ours.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(ours.network.parameters, before)
    assert (ours.epoch, ours.history, ours.optimizer.steps) == (0, {}, 0)


def test_state_without_parameters_is_rejected(rejects):
    with rejects("from another training: it lacks .*, parameters,"):
        make().load_state_dict({})


# ---- Augmentation, teacher, perturbation -----------------------------------------------------------------------------

IMAGES = np.random.default_rng(5).integers(0, 256, (N, 3, 4)).astype(np.uint8)


def noisy(x, rng, out):
    """Augmentation: the pixels in [0, 1], with noise."""
    out[...] = x.reshape(out.shape) / 255 + rng.normal(0, 0.1, out.shape)
    return out


def keep(batches):
    """A perturbation that changes nothing and keeps a copy of each batch."""
    return lambda network, x, t: (batches.append((x.copy(), t.copy())), (x, t))[1]


def with_all_parts(rng=0, callbacks=(), **options):
    """A training in which every part uses random numbers or has a state."""
    layers = [Dense(12, 8), BatchNorm(8), ReLU(), Dropout(0.2), Dense(8, 3)]
    network = Network(layers, loss=CrossEntropy(temperature=2), rng=rng)
    teacher = Network([12, 6, 3], loss="cross_entropy", rng=42)
    perturb = VirtualAdversarial(0.3, rng=rng)
    parts = {"augment": noisy, "teacher": teacher, "perturb": perturb, "schedule": schedules.one_cycle()}
    return Trainer(network, Adam(0.01), batch_size=5, callbacks=[EMA(0.9), *callbacks], rng=rng, **parts | options)


@pytest.fixture
def one_batch_per_block(monkeypatch):
    """Blocks of one batch, so that some are computed ahead in the background."""
    monkeypatch.setattr(training, "GATHER_FLOATS", 12 * 5)


@pytest.mark.parametrize("place", [(1, 2), (2, 1), (3, 4)])
def test_training_with_all_parts_killed_in_an_epoch_is_resumed_to_the_same_bits(place, tmp_path, one_batch_per_block):
    uninterrupted = with_all_parts()
    expected = comparable(uninterrupted.fit(IMAGES, Y, epochs=4))
    killed = with_all_parts(callbacks=[Call(at_batch=cut_at(*place)), Checkpoint(tmp_path / "c")])
    with pytest.raises(PowerCutError):
        killed.fit(IMAGES, Y, epochs=4)
    resumed = with_all_parts(rng=99, callbacks=[Call(), Checkpoint(tmp_path / "c")])
    resume(resumed, tmp_path / "c")
    assert resumed.epoch == place[0]
    assert comparable(resumed.fit(IMAGES, Y, until_epoch=4)) == expected
    np.testing.assert_array_equal(resumed.network.parameters, uninterrupted.network.parameters)
    np.testing.assert_array_equal(resumed.callbacks[0].average, uninterrupted.callbacks[0].average)


def test_training_with_all_parts_stopped_after_an_epoch_is_resumed_to_the_same_bits(tmp_path, one_batch_per_block):
    uninterrupted = with_all_parts()
    expected = comparable(uninterrupted.fit(IMAGES, Y, epochs=4))

    def stop(trainer):
        trainer.stop = trainer.epoch == 2

    stopped = with_all_parts(callbacks=[Call(at_epoch=stop), Checkpoint(tmp_path / "c")])
    stopped.fit(IMAGES, Y, epochs=4)
    assert stopped.epoch == 2
    resumed = with_all_parts(rng=99, callbacks=[Call(), Checkpoint(tmp_path / "c")])
    resume(resumed, tmp_path / "c")
    resumed.stop = False
    assert comparable(resumed.fit(IMAGES, Y, until_epoch=4)) == expected
    np.testing.assert_array_equal(resumed.network.parameters, uninterrupted.network.parameters)


@pytest.mark.parametrize("part", ["augmenting", "perturb.rng", "layers.3.rng", "shuffling"])
def test_state_without_one_of_its_generators_is_rejected_by_name(part, rejects):
    state = with_all_parts().state_dict()
    del state[part]
    with rejects(f"lacks {part}"):
        with_all_parts().load_state_dict(state)


@pytest.mark.parametrize("floats", [1, 12 * 10, 10_000])
def test_blocks_computed_in_the_background_are_the_same(floats, monkeypatch):
    monkeypatch.setattr(training, "GATHER_FLOATS", floats)
    background, foreground = with_all_parts(), with_all_parts()
    expected = comparable(background.fit(IMAGES, Y, epochs=3))
    monkeypatch.setattr(training, "prefetch", lambda make, count: map(make, range(count)))
    assert comparable(foreground.fit(IMAGES, Y, epochs=3)) == expected
    np.testing.assert_array_equal(background.network.parameters, foreground.network.parameters)
    assert background.state_dict()["augmenting"] == foreground.state_dict()["augmenting"]


def test_prefetch_computes_one_block_ahead_and_never_two():
    started, used = threading.Event(), threading.Event()
    made, main = [], threading.get_ident()

    def make(number):
        assert threading.get_ident() != main
        made.append(number)
        if number == 1:
            started.set()
            assert used.wait(10)
        return number, number

    blocks = training.prefetch(make, 4)
    assert next(blocks) == (0, 0)
    assert started.wait(10)  # block 1 is computed while block 0 is in use
    used.set()
    seen = [0]
    for number, _ in blocks:
        seen.append(number)
        assert len(made) <= number + 2
    assert seen == made == [0, 1, 2, 3]


def test_block_in_use_is_not_overwritten_however_long_a_step_takes(one_batch_per_block):
    made, used = [], []

    def numbered(x, rng, out):
        out[...] = rng.random((len(x), 1))
        made.append(out.copy())
        return out

    def slow(network, x, t):
        before = x.copy()
        time.sleep(0.002)
        np.testing.assert_array_equal(x, before)
        used.append(before)
        return x, t

    with_all_parts(augment=numbered, perturb=slow, teacher=None).fit(IMAGES, Y, epochs=2)
    assert len(made) == len(used) == 10
    for a, b in zip(made, used, strict=True):
        np.testing.assert_array_equal(a, b)


def background_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


def test_augmentation_that_does_not_write_into_out_is_rejected(rejects):
    with rejects("augment returned a new array: write the images into out"):
        with_all_parts(augment=lambda x, rng, out: x.reshape(out.shape) / 255).fit(IMAGES, Y, epochs=1)


@pytest.mark.parametrize("call", [0, 3])
@pytest.mark.parametrize("part", ["augment", "teacher"])
def test_exception_in_the_background_is_raised_unchanged(part, call, monkeypatch, one_batch_per_block):
    calls = itertools.count()

    def fail(x):
        if next(calls) == call:
            raise PowerCutError("in the background")
        return x

    trainer = with_all_parts()
    if part == "augment":
        trainer.augment = lambda x, rng, out: noisy(fail(x), rng, out)
    else:
        soft_labels = trainer.teacher.soft_labels
        monkeypatch.setattr(trainer.teacher, "soft_labels", lambda x, T: soft_labels(fail(x), T))
    with pytest.raises(PowerCutError, match="in the background"):
        trainer.fit(IMAGES, Y, epochs=2)
    assert trainer.batch == call  # all blocks before it were used
    assert background_threads() == []


@pytest.mark.parametrize("error", [PowerCutError, KeyboardInterrupt])
def test_exception_leaves_no_thread_that_uses_the_generators(error, one_batch_per_block):
    def slow(x, rng, out):
        time.sleep(0.02)
        return noisy(x, rng, out)

    def cut(trainer):
        raise error

    trainer = with_all_parts(callbacks=[Call(at_batch=cut)], augment=slow)
    try:
        trainer.fit(IMAGES, Y, epochs=1)
    except error:
        state = trainer.state_dict()["augmenting"]
        running = background_threads()
        time.sleep(0.05)
        assert running == []
        assert trainer.state_dict()["augmenting"] == state
    else:
        pytest.fail("the exception was lost")


def test_augmentation_receives_the_images_in_the_order_of_the_batches():
    calls = []

    def keep_calls(x, rng, out):
        calls.append((x.copy(), rng))
        return noisy(x, rng, out)

    trainer = with_all_parts(augment=keep_calls, teacher=None)
    trainer.fit(IMAGES, Y, epochs=1)
    ((x, rng),) = calls
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x, IMAGES[spawn_rngs(0).shuffling.permutation(N)])
    assert rng is trainer.augmenting


def test_augmentation_is_new_at_each_epoch_and_does_not_change_the_shuffling():
    orders, images = [], []
    for augment in (noisy, None):
        batches = []
        trainer = with_all_parts(augment=augment, teacher=None, perturb=keep(batches))
        trainer.fit(IMAGES, Y, epochs=2)
        orders.append(trainer.state_dict()["shuffling"])
        images.append(np.concatenate([x for x, _ in batches]))
    assert orders[0] == orders[1]
    noise = images[0] - images[1]
    assert 0.09 < noise.std() < 0.11
    first, second = noise[:N], noise[N:]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3
    assert abs(noise.mean()) < 0.02


@pytest.mark.parametrize("members", [1, 2])
def test_soft_labels_of_the_teacher_for_the_augmented_inputs_are_the_targets(members):
    """At the temperature 2 of the loss: p^(1/2), normalized."""
    networks = [Network([12, 6, 3], loss="cross_entropy", rng=seed) for seed in range(1, 1 + members)]
    batches = []
    teacher = networks[0] if members == 1 else Ensemble(networks)
    with_all_parts(teacher=teacher, perturb=keep(batches)).fit(IMAGES, Y, epochs=2)
    assert len(batches) == 10
    for x, t in batches:
        p = np.mean([network.predict_proba(x) for network in networks], axis=0) ** 0.5
        np.testing.assert_allclose(t, p / p.sum(axis=1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "says"), [([11, 3], "has 11 inputs and 3 outputs: expected 12 and 3"), ([12, 4], "12 inputs and 4")]
)
def test_teacher_with_other_inputs_or_outputs_is_rejected(sizes, says, rejects):
    with rejects(f"the teacher {says}" if says.startswith("has") else says):
        with_all_parts(teacher=Network(sizes, rng=0))


def test_labels_are_not_used_with_a_teacher():
    a, b, without = with_all_parts(), with_all_parts(), with_all_parts(teacher=None)
    a.fit(IMAGES, Y, epochs=2)
    b.fit(IMAGES, (Y + 1) % 3, epochs=2)
    without.fit(IMAGES, Y, epochs=2)
    np.testing.assert_array_equal(a.network.parameters, b.network.parameters)
    assert (a.network.parameters != without.network.parameters).any()


@pytest.mark.filterwarnings("ignore:column")  # large features
def test_perturbation_receives_every_batch_and_its_result_is_trained_on():
    trainer, record = recorded()
    given = []

    def change(network, x, t):
        assert network is trainer.network
        given.append((x.copy(), t.copy(), trainer.batch))
        return x + 100, np.roll(t, 1, axis=1)

    trainer.perturb = change
    trainer.fit(X, Y, epochs=2)
    assert [batch for *_, batch in given] == [0, 1, 2, 3, 4] * 2
    for (x, t, _), trained_on in zip(given, record.batches, strict=True):
        np.testing.assert_array_equal(trained_on, x + 100)
        np.testing.assert_array_equal(t, one_hot(Y[x[:, 0].astype(int)], 3, np.float64))
    plain, _ = recorded()
    plain.fit(X + 100, np.roll(one_hot(Y, 3, np.float64), 1, axis=1), epochs=2)
    np.testing.assert_array_equal(plain.network.parameters, trainer.network.parameters)
    assert trainer.history["loss"] != plain.history["loss"]  # the history has the loss for the original targets


def change_dropout(network):
    network.layers[3].rate = 0.5


def change_loss(network):
    network.loss = CrossEntropy(temperature=4.0)


@pytest.mark.parametrize("change", [change_dropout, change_loss])
@pytest.mark.parametrize("method", [Adversarial, VirtualAdversarial])
def test_perturbation_follows_a_change_of_the_network_between_two_fits(method, change):
    """As that of an unpickled trainer, which has no copy of the network yet."""
    layers = [Dense(4, 6), BatchNorm(6), Tanh(), Dropout(0.1), Dense(6, 3)]
    trainer = make(layers, perturb=method(0.3))
    trainer.fit(X, Y, epochs=1)
    change(trainer.network)
    twin = pickle.loads(pickle.dumps(trainer))
    for each in (trainer, twin):
        each.fit(X, Y, epochs=1)
    np.testing.assert_array_equal(trainer.network.parameters, twin.network.parameters)


def test_adversarial_training_keeps_the_statistics_of_a_layer_that_is_frozen_after_a_fit():
    trainer = make([Dense(4, 6), BatchNorm(6), Tanh(), Dense(6, 3)], perturb=Adversarial(0.3))
    trainer.fit(X, Y, epochs=1)
    norm = trainer.network.layers[1]
    norm.trainable, before = False, (norm.running_mean.copy(), norm.running_var.copy())
    trainer.fit(X, Y, epochs=1)
    np.testing.assert_array_equal((norm.running_mean, norm.running_var), before)


# ---- Sample weights --------------------------------------------------------------------------------------------------

W = np.random.default_rng(5).integers(0, 5, N)
W[[0, 7]] = 0, 3
OPTIMIZERS = {
    "sgd": lambda: SGD(0.01),
    "sgd with l2 and clip_norm": lambda: SGD(0.01, l2=0.01, clip_norm=0.5),
    "momentum": lambda: Momentum(0.01),
    "nesterov": lambda: Nesterov(0.01),
    "adam": lambda: Adam(0.01),
    "adamw": lambda: AdamW(0.01),
    "muon": lambda: Muon(0.02),
    "lookahead": lambda: Lookahead(Adam(0.01), k=2),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def targets(loss):
    """Targets for three outputs and this loss."""
    return Y if LOSSES[loss]().is_classification else np.eye(3)[Y] * 3


def assert_close(one, other):
    """Two trainers with the same weights, except for rounding."""
    np.testing.assert_allclose(one.network.parameters, other.network.parameters, rtol=1e-9, atol=1e-11)


@every_optimizer
def test_weight_2_equals_the_row_twice_and_weight_0_no_row(optimizer):
    rows = np.repeat(np.arange(N), W)
    weighted, repeated = (make(optimizer=optimizer(), batch_size=size) for size in (N, int(W.sum())))
    ours = weighted.fit(X, Y, epochs=7, sample_weight=W)
    theirs = repeated.fit(X[rows], Y[rows], epochs=7)
    assert_close(weighted, repeated)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-9)
    unweighted = make(optimizer=optimizer(), batch_size=N)
    unweighted.fit(X, Y, epochs=7)
    assert np.abs(unweighted.network.parameters - weighted.network.parameters).max() > 1e-4


@pytest.mark.parametrize(("factor", "dtype"), [(0.25, np.float64), (1e-300, np.float64), (1e300, np.float32)])
def test_only_the_ratios_of_the_weights_matter(factor, dtype):
    trainers = [Trainer(Network([4, 5, 3], rng=0, dtype=dtype), Adam(0.01), batch_size=5, rng=0) for _ in range(2)]
    histories = [t.fit(X, Y, epochs=3, sample_weight=w) for t, w in zip(trainers, (W, factor * W), strict=True)]
    rounding = 1e-4 if dtype == np.float32 else 1e-12
    ours, theirs = (t.network.parameters for t in trainers)
    np.testing.assert_allclose(ours, theirs, rtol=rounding, atol=rounding)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=rounding)
    assert ours.dtype == dtype


@pytest.mark.parametrize(("weight", "batch_size"), [(1, 1), (0.1, 5), (True, N)])
def test_equal_weights_change_nothing(weight, batch_size):
    plain, weighted = (make(optimizer=Momentum(0.01), batch_size=batch_size) for _ in range(2))
    ours = weighted.fit(X, Y, epochs=3, sample_weight=np.full(N, weight))
    theirs = plain.fit(X, Y, epochs=3)
    assert_close(weighted, plain)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-12)
    assert ours["accuracy"] == theirs["accuracy"]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_with_weights_matches_finite_differences_of_the_weighted_mean(loss):
    """One step of SGD on all examples, against finite differences of Σ w L / Σ w, entry by entry."""
    trainer, x = make(optimizer=SGD(1.0), batch_size=N, loss=loss), X / 10
    network, h = copy.deepcopy(trainer.network), 1e-6
    t = network.loss.targets(targets(loss), N, 3, np.float64)
    initial, numerical = network.parameters.copy(), np.empty_like(network.parameters)

    def value(i, step):
        network.parameters[i] = initial[i] + step
        mean = np.average(network.loss.per_example(network.outputs(x), t), weights=W)
        network.parameters[i] = initial[i]
        return mean

    for i in range(len(initial)):
        numerical[i] = (value(i, h) - value(i, -h)) / (2 * h)
    trainer.fit(x, targets(loss), epochs=1, sample_weight=W)
    assert np.abs(numerical).max() > 1e-2
    np.testing.assert_allclose(initial - trainer.network.parameters, numerical, atol=1e-7)


def test_weighted_steps_of_mini_batches_written_out():
    """The gradient of a batch is the mean of w dL, where w has a mean of 1 over all examples, not over the batch."""
    trainer, w = make(), W / W.mean()
    twin = copy.deepcopy(trainer.network)
    order, t = copy.deepcopy(trainer.shuffling).permutation(N), np.eye(3)[Y]
    losses = np.empty(N)
    for first in range(0, N, 5):
        rows = order[first : first + 5]
        z = twin.backprop(X[rows], t[rows], w[rows, None] / len(rows))
        losses[rows] = twin.loss.per_example(z, t[rows])
        twin.parameters -= 0.1 * twin.gradient
    history = trainer.fit(X, Y, epochs=1, sample_weight=W)
    np.testing.assert_allclose(trainer.network.parameters, twin.parameters, rtol=1e-12, atol=1e-14)
    assert history["loss"] == [pytest.approx(np.average(losses, weights=W), rel=1e-12)]


@pytest.mark.parametrize(("batch_size", "loss"), [(1, "cross_entropy"), (5, "huber"), (5, "cross_entropy")])
def test_loss_of_the_history_is_weighted_and_accuracy_and_validation_are_not(batch_size, loss):
    """With a learning rate that changes nothing they are those of the initial network."""
    trainer, y = make(optimizer=SGD(1e-300), batch_size=batch_size, loss=loss), targets(loss)
    network = trainer.network
    losses = network.loss.per_example(network.outputs(X), network.loss.targets(y, N, 3, np.float64))
    initial = network.evaluate(X, y)
    history = trainer.fit(X, y, epochs=2, sample_weight=W, validation=(X, y))
    assert history["loss"] == pytest.approx([np.average(losses, weights=W)] * 2, rel=1e-12)
    assert history["val_loss"] == [initial.loss] * 2
    assert history.get("accuracy") == (None if loss == "huber" else [initial.accuracy] * 2)
    assert abs(history["loss"][0] - initial.loss) > 1e-4


@every_optimizer
def test_batches_of_weight_0_give_finite_weights(optimizer):
    """One example of all has a weight: most batches have none."""
    w = np.zeros(N)
    w[3] = 1e-30
    trainer = make(optimizer=optimizer(), batch_size=1)
    before = trainer.network.evaluate(X[3:4], Y[3:4]).loss
    history = trainer.fit(X, Y, epochs=20, sample_weight=w)
    assert np.isfinite(trainer.network.parameters).all()
    assert np.isfinite(history["loss"]).all()
    assert trainer.network.evaluate(X[3:4], Y[3:4]).loss < before


@pytest.mark.parametrize("optimizer", ["adam", "lookahead"])
def test_weighted_training_is_resumed_to_the_same_bits(optimizer, tmp_path):
    def trainer(rng, *callbacks):
        layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
        return make(layers, OPTIMIZERS[optimizer](), callbacks=callbacks, rng=rng)

    uninterrupted, first = trainer(0), trainer(0, Checkpoint(tmp_path / "c"))
    expected = uninterrupted.fit(X, Y, epochs=5, sample_weight=W)
    first.fit(X, Y, epochs=2, sample_weight=W)
    resumed = trainer(9, Checkpoint(tmp_path / "c"))
    resume(resumed, tmp_path / "c")
    history = resumed.fit(X, Y, until_epoch=5, sample_weight=W)
    np.testing.assert_array_equal(resumed.network.parameters, uninterrupted.network.parameters)
    assert comparable(history) == comparable(expected)


@pytest.mark.parametrize("perturb", [lambda: Adversarial(0.3), lambda: VirtualAdversarial(0.3, rng=0)])
def test_weights_stay_with_perturbed_examples(perturb):
    one, other, plain = (make(optimizer=SGD(0.05), perturb=perturb()) for _ in range(3))
    one.fit(X, Y, epochs=3, sample_weight=W)
    other.fit(X, Y, epochs=3, sample_weight=4 * W)
    plain.fit(X, Y, epochs=3)
    assert_close(one, other)
    assert np.abs(one.network.parameters - plain.network.parameters).max() > 1e-3


def test_examples_of_weight_0_have_no_effect_with_augmentation_and_a_teacher():
    def trained(images, labels):
        augment = lambda x, rng, out: np.copyto(out, x.reshape(out.shape) / 255) or out  # noqa: E731
        teacher = Network([12, 3], loss="cross_entropy", rng=7, dtype=np.float64)
        trainer = make([12, 5, 3], Momentum(0.1), augment=augment, teacher=teacher)
        trainer.fit(images, labels, epochs=3, sample_weight=W)
        return trainer

    used = W[:, None, None] > 0
    assert_close(trained(IMAGES, Y), trained(np.where(used, IMAGES, 255 - IMAGES), np.where(W > 0, Y, 0)))


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (np.ones(N - 1), rf"float64 and shape \({N - 1},\): expected {N} numbers"),
        (np.ones((N, 1)), rf"shape \({N}, 1\)"),
        (["1"] * N, "dtype <U1"),
        ([*np.ones(N - 1), -0.5], "must be finite and >= 0"),
        ([*np.ones(N - 1), np.nan], "must be finite and >= 0"),
        (np.zeros(N), "not all weights may be 0"),
        ([[1], [1, 2]], "different lengths"),
    ],
    ids=["count", "column", "text", "negative", "nan", "zeros", "ragged"],
)
def test_invalid_sample_weight_is_rejected_before_the_first_step(weights, says, rejects):
    trainer = make()
    initial = trainer.network.parameters.copy()
    with rejects(f"sample_weight.*{says}"):
        trainer.fit(X, Y, epochs=1, sample_weight=weights)
    np.testing.assert_array_equal(trainer.network.parameters, initial)
    assert trainer.history == {}


@pytest.mark.parametrize(
    ("weights", "dtype"),
    [
        ([True, False, True], np.float64),
        *itertools.product(([1e308, 0, 1e308], [5e-324, 0, 5e-324]), (np.float32, np.float64)),
    ],
)
def test_sample_weights_have_a_mean_of_1_for_every_size(weights, dtype):
    w = check_sample_weight(weights, 3, dtype)
    assert (w.shape, w.dtype) == ((3, 1), dtype)
    assert w.mean() == pytest.approx(1, rel=1e-6)
    assert w[0, 0] > w[1, 0] == 0


# ---- Divergence ------------------------------------------------------------------------------------------------------


def diverging(lr, optimizer=SGD, batch_size=5, **options):
    network = Network([Dense(4, 5), ReLU(), Dense(5, 3)], loss="squared_error", rng=0)
    return Trainer(network, optimizer(lr), batch_size=batch_size, rng=0, **options)


ROWS = np.eye(3)[Y]


def steps_until_not_finite(lr):
    """The number of steps before the first batch whose outputs are not finite, written out."""
    twin, order, steps = diverging(lr).network, spawn_rngs(0).shuffling.permutation(N), 0
    with np.errstate(all="ignore"):
        for first in range(0, N, 5):
            rows = order[first : first + 5]
            if not np.isfinite(twin.backprop(X[rows].astype(np.float32), ROWS[rows].astype(np.float32))).all():
                break
            SGD(lr).step(twin)
            steps += 1
    return steps


@pytest.mark.parametrize("lr", [1e3, 1e8, 1e20])
def test_divergence_names_the_step_and_restores_the_weights(lr, rejects):
    trainer = diverging(lr)
    initial = trainer.network.parameters.copy()
    with rejects(f"diverged at step {steps_until_not_finite(lr)} of epoch 1: .*learning rate below") as caught:
        trainer.fit(X, ROWS, epochs=3)
    assert caught.type is DivergedError
    np.testing.assert_array_equal(trainer.network.parameters, initial)
    assert (trainer.epoch, trainer.history) == (0, {})


def test_divergence_in_a_later_epoch_restores_the_weights_of_the_last_epoch():
    good = []
    trainer = diverging(1e-3, callbacks=[Call(at_epoch=lambda t: good.append(t.network.parameters.copy()))])
    trainer.schedule = lambda epoch, epochs: 1 if epoch < 2 else 1e12
    with pytest.raises(DivergedError, match=r"step \d of epoch 3"):
        trainer.fit(X, ROWS, epochs=5)
    np.testing.assert_array_equal(trainer.network.parameters, good[1])
    assert len(trainer.history["loss"]) == trainer.epoch == 2


def test_divergence_at_the_last_step_of_an_epoch_is_detected_in_that_epoch():
    trainer = diverging(1e30, batch_size=N)
    with pytest.raises(DivergedError, match="step 1 of epoch 1"):
        trainer.fit(X, ROWS, epochs=1)


@pytest.mark.parametrize(("lr", "batch_size"), [(1e2, 1), (1e10, N), (1e22, 1), (1e34, N)])
def test_no_learning_rate_leaves_values_that_are_not_finite(lr, batch_size):
    """With validation and without a warning: either training diverges, or every weight and metric is finite."""
    trainer = diverging(lr, batch_size=batch_size)
    try:
        trainer.fit(X, ROWS, epochs=2, validation=(X, ROWS))
    except DivergedError:
        assert trainer.epoch < 2
    assert np.isfinite(trainer.network.parameters).all()
    assert all(math.isfinite(value) for values in trainer.history.values() for value in values)


@pytest.mark.parametrize("optimizer", [SGD, Momentum, Adam])
def test_training_continues_with_a_smaller_lr_after_divergence(optimizer):
    trainer = diverging(1e20, optimizer)
    with pytest.raises(DivergedError):
        trainer.fit(X, ROWS, epochs=2)
    trainer.optimizer.lr = 1e-4
    assert len(trainer.fit(X, ROWS, epochs=2)["loss"]) == 2


def test_training_continues_after_divergence_with_blocks_in_the_background(one_batch_per_block, rejects):
    trainer = with_all_parts(perturb=None, teacher=None)
    before = trainer.network.parameters.copy()
    trainer.augment = lambda x, rng, out: np.copyto(out, np.float32(np.nan)) or out
    with rejects("diverged at step 0 of epoch 1"):
        trainer.fit(IMAGES, Y, epochs=2)
    np.testing.assert_array_equal(trainer.network.parameters, before)
    trainer.augment = noisy
    assert len(trainer.fit(IMAGES, Y, epochs=1)["loss"]) == 1


def test_saturated_sigmoids_do_not_diverge():
    trainer = make(optimizer=SGD(100.0), loss="binary_cross_entropy", dtype=np.float32)
    assert np.isfinite(trainer.fit(X, Y, epochs=3)["loss"]).all()


# ---- Invalid input ---------------------------------------------------------------------------------------------------

NAN = X.copy()
NAN[3, 2] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (X[:, :3], Y, r"x has shape \(23, 3\): expected \(23, 4\)"),
        (np.ones((N, 5, 5)), Y, r"x has shape \(23, 5, 5\)"),
        (X[:0], Y[:0], "at least one example"),
        (NAN, Y, r"x\[3, 2\] is nan"),
        (X.astype(str), Y, "expected numbers"),
        (X, Y[:-1], r"shape \(22,\): expected \(23,\)"),
        (X, Y + 1, "label 3: expected 0 to 2"),
        (X, np.eye(4)[Y], r"shape \(23, 4\)"),
    ],
    ids=["inputs", "images", "empty", "nan", "text", "count", "label", "rows"],
)
def test_invalid_examples_are_rejected_before_the_first_step(x, y, says, rejects):
    events = []
    trainer = make(callbacks=[Call(at_batch=events.append, at_epoch=events.append)])
    initial = trainer.network.parameters.copy()
    for training_set, validation in (((x, y), None), ((X, Y), (x, y))):
        with rejects(says):
            trainer.fit(*training_set, epochs=2, validation=validation)
    assert (events, trainer.epochs) == ([], 0)
    np.testing.assert_array_equal(trainer.network.parameters, initial)


@pytest.mark.parametrize("batch_size", [0, 2.5, "5"])
def test_invalid_batch_size_is_rejected(batch_size, rejects):
    with rejects("batch_size must be an integer >= 1"):
        make(batch_size=batch_size)


# ---- Learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        (SGD(1.0), "binary_cross_entropy"),
        (Momentum(0.3), "cross_entropy"),
        (Nesterov(0.3), "binary_cross_entropy"),
        (Adam(0.05), "cross_entropy"),
    ],
    ids=["sgd", "momentum", "nesterov", "adam"],
)
def test_xor_is_learned(optimizer, loss):
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), np.array([0, 1, 1, 0])
    network = Network([2, 8, 2], activation="tanh", loss=loss, rng=1)
    history = Trainer(network, optimizer, batch_size=4, rng=1).fit(x, y, epochs=300)
    assert network.evaluate(x, y).correct == 4
    assert history["loss"][-1] < 0.1 < history["loss"][0]


@pytest.mark.parametrize(
    ("arguments", "optimizer"),
    [
        ({}, SGD(0.5)),  # the network of the blog post
        ({"loss": SquaredError("sigmoid")}, SGD(3.0)),
        ({"activation": "relu", "loss": "cross_entropy"}, Momentum(0.02)),
        ({"activation": "gelu", "loss": "cross_entropy"}, Adam(0.003)),
    ],
    ids=["post", "squared_error", "relu", "gelu"],
)
def test_digits_are_learned(arguments, optimizer, digits):
    x, y, x_test, y_test = digits
    x, x_test = x.reshape(-1, 8, 8), x_test.reshape(-1, 8, 8)
    network = Network([64, 30, 10], rng=1, **arguments)
    assert network.evaluate(x_test / 255, y_test).accuracy < 0.4
    history = Trainer(network, optimizer, rng=1).fit(x, y, epochs=15)
    assert history["accuracy"][-1] >= 0.97
    assert network.evaluate(x_test, y_test).accuracy >= 0.95


def test_a_rejected_fit_leaves_the_network_as_it_was(digits, rejects):
    x, y, *_ = digits
    network = Network([64, 10], rng=0)
    trainer = Trainer(network, SGD(0.1), rng=0)
    with rejects("epochs must be an integer >= 0"):
        trainer.fit(x, y, epochs=-1)
    with rejects("y"):
        trainer.fit(x, y, epochs=1, validation=(x, y[:5]))
    assert network.image_shape is None


def test_a_run_cannot_end_before_its_last_epoch(digits, rejects):
    x, y, *_ = digits
    trainer = Trainer(Network([64, 10], rng=0), SGD(0.1), batch_size=100, rng=0)
    trainer.fit(x, y, epochs=3)
    with rejects("until_epoch must be an integer >= 3, got 2"):
        trainer.fit(x, y, until_epoch=2)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("net", SGD(0.1)), {}, "network must be a Network"),
        ((Network([4, 2]), SGD), {}, "optimizer must be an optimizer, as SGD"),
        ((Network([4, 2]), "adm"), {}, "unknown optimizer 'adm': did you mean 'adam'"),
        ((Network([4, 2]), "sgd"), {}, "'sgd' has no default learning rate: use an object, as SGD"),
        ((Network([4, 2]), SGD(0.1)), {"callbacks": [Callback]}, "callbacks must be a list of Callback objects"),
        ((Network([4, 2]), SGD(0.1)), {"callbacks": Callback()}, "callbacks must be a list of Callback objects"),
        ((Network([4, 2]), SGD(0.1)), {"schedule": 3}, "schedule must be a schedule"),
        ((Network([4, 2]), SGD(0.1)), {"schedule": schedules.cosine}, r"as schedules.cosine\(\), or a name, got <fun"),
        ((Network([4, 2]), SGD(0.1)), {"schedule": "cosin"}, "unknown schedule 'cosin': did you mean 'cosine'"),
        ((Network([4, 2]), SGD(0.1)), {"schedule": "step"}, r"needs arguments, as schedules.step\(every=10\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_of_the_wrong_kind_are_rejected_at_once(arguments, options, message, rejects):
    with rejects(message):
        Trainer(*arguments, **options)


def test_the_weights_are_put_back_if_a_callback_raises(digits):
    x, y, *_ = digits
    network = Network([64, 10], rng=0)
    trainer = Trainer(network, SGD(0.1), callbacks=[EMA(0.9), EarlyStopping("f1")], rng=0)
    with pytest.raises(HandgradError, match="no metric 'f1'"):
        trainer.fit(x, y, epochs=1)
    plain = Network([64, 10], rng=0)
    Trainer(plain, SGD(0.1), rng=0).fit(x, y, epochs=1)
    np.testing.assert_array_equal(network.parameters, plain.parameters)


# ---- Shortcuts -------------------------------------------------------------------------------------------------------


def test_optimizer_and_schedule_are_accepted_by_name():
    names, objects = make(optimizer="adam", schedule="cosine"), make(optimizer=Adam(), schedule=schedules.cosine())
    assert comparable(names.fit(X, Y, epochs=2)) == comparable(objects.fit(X, Y, epochs=2))
    assert repr(names) == repr(objects)


def test_epochs_may_be_the_third_argument(rejects):
    assert len(make().fit(X, Y, 2)["loss"]) == 2
    with rejects("epochs must be an integer"):
        make().fit(X, Y, np.ones(N))


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("validation_data", "use validation="),
        ("batch_size", "it is an option of Trainer"),
        ("learning_rate", "it is lr of network.fit"),
        ("seed", "it is rng of network.fit"),
        ("epoch", "did you mean 'epochs'"),
        ("zzz", "expected epochs, until_epoch"),
    ],
)
def test_unknown_option_of_fit_is_rejected_with_a_hint(option, hint, rejects):
    with rejects(f"fit has no option '{option}': {hint}"):
        make().fit(X, Y, epochs=1, **{option: 1})


def test_share_of_validation_is_taken_out_of_the_training_set():
    trainer, record = recorded()
    trainer.fit(X, Y, epochs=2, validation=0.2)
    trained, evaluated = set(record.numbers()), trainer.validation.total
    assert (len(record.numbers()), len(trained), evaluated) == (2 * 18, 18, 5)
    others = np.array(sorted(set(range(N)) - trained))
    assert trainer.validation == trainer.network.evaluate(X[others], Y[others])
    assert sorted(others) != list(others[0] + np.arange(5))  # a random choice, not the last examples


def test_share_of_validation_is_the_same_in_every_training():
    chosen = []
    for rng in (0, 1, None):
        trainer, record = recorded(rng=rng)
        trainer.fit(X, Y, epochs=1, validation=0.2)
        trainer.fit(X, Y, epochs=1, validation=0.2)
        chosen.append(set(record.numbers()))
    assert chosen[0] == chosen[1] == chosen[2]


@pytest.mark.parametrize("as_given", [lambda y: y, list, lambda y: one_hot(y, 3)], ids=["array", "list", "rows"])
def test_share_of_validation_equals_the_pair(as_given):
    chosen, others = training.split(N, 0.3)
    weights = np.arange(N) + 1.0
    share, pair = make(loss=CrossEntropy(0.1)), make(loss=CrossEntropy(0.1))
    history = share.fit(X, as_given(Y), epochs=2, validation=0.3, sample_weight=list(weights))
    expected = pair.fit(
        X[chosen], Y[chosen], epochs=2, validation=(X[others], Y[others]), sample_weight=weights[chosen]
    )
    assert comparable(history) == comparable(expected)
    np.testing.assert_array_equal(share.network.parameters, pair.network.parameters)


def test_share_of_validation_of_images(digits):
    x, y, *_ = digits
    chosen, others = training.split(len(x), 0.1)
    for images in (x, x / 255.0):
        share, pair = make([64, 10]), make([64, 10])
        history = share.fit(images, y, epochs=1, validation=0.1)
        expected = pair.fit(images[chosen], y[chosen], epochs=1, validation=(images[others], y[others]))
        assert comparable(history) == comparable(expected)
        assert share.network.image_shape == (8, 8)


@pytest.mark.parametrize(("count", "fraction"), [(2, 0.001), (3, 0.5), (10, 0.5), (1000, 0.1)])
def test_split_divides_all_examples(count, fraction):
    chosen, others = training.split(count, fraction)
    assert sorted([*chosen, *others]) == list(range(count))
    assert len(others) == max(1, round(fraction * count))


@pytest.mark.parametrize(
    ("validation", "says"),
    [
        (0, r"validation must be in \(0, 1\)"),
        (True, r"validation must be in \(0, 1\)"),
        (np.float32(1.5), r"validation must be in \(0, 1\)"),
        (0.99, "of 23 examples leaves none to train on"),
        ((X,), r"validation must be \(x, y\) or a fraction in \(0, 1\), got tuple"),
        ("10%", r"or a fraction in \(0, 1\), got str"),
        (X, r"or a fraction in \(0, 1\), got ndarray"),
    ],
)
def test_invalid_validation_is_rejected_before_the_first_step(validation, says, rejects):
    trainer = make()
    before = trainer.network.parameters.copy()
    with rejects(says):
        trainer.fit(X, Y, epochs=1, validation=validation)
    np.testing.assert_array_equal(trainer.network.parameters, before)


def test_training_with_a_share_of_validation_is_resumed_to_the_same_bits():
    whole, first, second = make(), make(), make()
    whole.fit(X, Y, epochs=4, validation=0.2)
    first.fit(X, Y, epochs=2, validation=0.2)
    state = first.state_dict()
    second.load_state_dict(state)
    assert type(second.history) is History
    second.fit(X, Y, until_epoch=4, validation=0.2)
    assert comparable(second.history) == comparable(whole.history)


def test_html_of_a_trainer_shows_its_parts_and_escapes_them():
    class Odd(Callback):
        def __repr__(self):
            return "<script>"

    trainer = make(callbacks=[Odd()])
    trainer.fit(X, Y, epochs=1)
    html = trainer._repr_html_()
    assert "<script>" not in html
    for text in ("SGD(lr=0.1)", "CrossEntropy()", "schedules.constant()", f"{trainer.metrics['loss']:.4f}"):
        assert text in html
