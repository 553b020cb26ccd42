"""The loop: what an epoch is, what its numbers mean, who is told of what, and that it can be stopped and continued."""

import copy
import itertools
import math
import threading
import time

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Ensemble,
    Dense,
    Deskew,
    Dropout,
    EarlyStopping,
    EMA,
    HandgradError,
    Layer,
    Momentum,
    Nesterov,
    Network,
    ReLU,
    CrossEntropy,
    Tanh,
    Trainer,
    VirtualAdversarial,
    one_hot,
    schedules,
    training,
)
from handgrad.arrays import spawn_rngs
from handgrad.callbacks import Checkpoint, resume
from handgrad.training import DivergedError

N = 23  # with batches of 5: four whole ones and one of 3
X = np.random.default_rng(0).random((N, 4))
X[:, 0] = np.arange(N)  # the first input is the example's number
Y = np.arange(N) % 3
X_HELD_OUT, Y_HELD_OUT = np.random.default_rng(1).random((7, 4)), np.arange(7) % 3


class Seen(Layer):
    """Passes x on, and keeps a copy of each batch that training sent through."""

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
        """The examples' numbers, in the order of training."""
        return [int(number) for batch in self.batches for number in batch[:, 0]]


class Each(Callback):
    """Calls a function at every step, or every epoch."""

    def __init__(self, at_batch=None, at_epoch=None):
        self.at_batch, self.at_epoch = at_batch, at_epoch

    def on_batch_end(self, trainer):
        if self.at_batch:
            self.at_batch(trainer)

    def on_epoch_end(self, trainer):
        if self.at_epoch:
            self.at_epoch(trainer)


def make(layers=(4, 5, 3), optimizer=None, dtype=np.float64, rng=0, loss="cross_entropy", **options):
    network = Network(list(layers), activation="tanh", init="lecun", loss=loss, rng=rng, dtype=dtype)
    return Trainer(network, optimizer or SGD(0.1), **{"batch_size": 5, "rng": rng} | options)


def watched(**options):
    """A trainer and the layer that keeps what it sees."""
    seen = Seen()
    network = Network([seen, Dense(4, 3)], loss="cross_entropy", rng=0, dtype=np.float64)
    return Trainer(network, **{"optimizer": SGD(0.01), "batch_size": 5, "rng": 0} | options), seen


def comparable(history):
    """The history without the clock."""
    return {name: values for name, values in history.items() if name != "seconds"}


# ---- An epoch -------------------------------------------------------------------------------------------------------


def test_an_epoch_is_every_example_once_and_each_in_another_order():
    trainer, seen = watched()
    trainer.fit(X, Y, epochs=3)
    orders = [seen.numbers()[i * N : (i + 1) * N] for i in range(3)]
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(N))]}) == 4


def test_the_last_batch_of_an_epoch_is_what_is_left():
    trainer, seen = watched()
    trainer.fit(X, Y, epochs=2)
    assert [len(batch) for batch in seen.batches] == [5, 5, 5, 5, 3] * 2


def test_examples_not_batches_are_shuffled():
    trainer, seen = watched(batch_size=1)
    trainer.fit(X, Y, epochs=2)
    first, second = ([set(seen.numbers()[e * N + i : e * N + i + 5]) for i in range(0, N, 5)] for e in (0, 1))
    assert not any(company in second for company in first)


def test_labels_go_with_their_examples():
    """A target that is its example's number: the loss of each batch tells whether the two were moved together."""
    seen = Seen()
    network = Network([seen, Dense(4, 1)], loss="quadratic", rng=0, dtype=np.float64)
    network.layers[1].W[...], network.layers[1].b[...] = [[1, 0, 0, 0]], 0
    history = Trainer(network, SGD(0.1), batch_size=5, rng=0).fit(X, X[:, :1], epochs=2)
    assert history["loss"] == [0, 0]


@pytest.mark.parametrize("batch_size", [1, 5, 23])
@pytest.mark.parametrize("floats", [1, 7, 41, 60])
def test_blocks_of_any_size_give_the_same_bits(floats, batch_size, monkeypatch):
    whole, cut = (make(batch_size=batch_size) for _ in range(2))
    expected = whole.fit(X, Y, epochs=3)
    monkeypatch.setattr(training, "BLOCK", floats)
    history = cut.fit(X, Y, epochs=3)
    np.testing.assert_array_equal(cut.network.parameters, whole.network.parameters)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)  # summed in another order
    assert history["accuracy"] == expected["accuracy"]


@pytest.mark.parametrize("floats", [False, True])
def test_training_on_pictures_is_training_on_the_preprocessed(floats, digits):
    x, y, x_held_out, y_held_out = digits
    if floats:
        x, x_held_out = (a.astype(np.float32) / 255 for a in (x, x_held_out))
    deskew, before = Deskew(8, 8), x.copy()
    histories, networks = [], []
    for preprocessing in (deskew, None):
        prepared = (x, x_held_out) if preprocessing else (deskew(x), deskew(x_held_out))
        network = Network([64, 12, 10], rng=0, preprocessing=preprocessing)
        trainer = Trainer(network, Adam(0.01), batch_size=32, rng=1)
        trainer.fit(prepared[0], y, epochs=2, validation=(prepared[1], y_held_out))
        histories.append(comparable(trainer.fit(prepared[0], y, epochs=3, validation=(prepared[1], y_held_out))))
        networks.append(network)
    assert histories[0] == histories[1]
    np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)
    np.testing.assert_array_equal(networks[0].outputs(x_held_out), networks[1].outputs(deskew(x_held_out)))
    np.testing.assert_array_equal(x, before)
    plain = Trainer(Network([64, 12, 10], rng=0), Adam(0.01), batch_size=32, rng=1)
    plain.fit(x, y, epochs=3)
    assert (plain.network.parameters != networks[0].parameters).any()


def test_an_epoch_is_the_steps_written_out():
    trainer, twin = make(), make().network
    order = spawn_rngs(0).shuffling.permutation(N)
    for first in range(0, N, 5):
        rows = order[first : first + 5]
        twin.backprop(X[rows], one_hot(Y[rows], 3, np.float64))
        twin.parameters -= 0.1 * twin.gradient
    trainer.fit(X, Y, epochs=1)
    np.testing.assert_allclose(trainer.network.parameters, twin.parameters, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_every_batch_is_its_own_mean():
    trainer, seen = watched()
    errors, sizes = [], []

    def compare(trainer):
        x = seen.batches[-1]
        twin = copy.deepcopy(trainer.network)
        twin.parameters += trainer.network.gradient  # SGD leaves lr g there: back to before the step
        twin.backprop(x, one_hot(Y[x[:, 0].astype(int)], 3, np.float64))
        errors.append(np.abs(0.01 * twin.gradient - trainer.network.gradient).max())
        sizes.append(len(x))

    trainer.callbacks = [Each(at_batch=compare)]
    trainer.fit(X, Y, epochs=1)
    assert sizes == [5, 5, 5, 5, 3]
    assert max(errors) < 1e-14


# ---- What comes in --------------------------------------------------------------------------------------------------


def test_labels_and_one_hot_rows_train_alike():
    from_labels, from_rows = make(), make()
    from_labels.fit(X, Y, epochs=2)
    from_rows.fit(X, np.eye(3)[Y], epochs=2)
    np.testing.assert_array_equal(from_labels.network.parameters, from_rows.network.parameters)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float64, 1e-11)])
def test_bytes_train_as_the_same_floats(dtype, rtol):
    pixels = np.random.default_rng(0).integers(0, 256, (N, 2, 2), dtype=np.uint8)
    from_bytes, from_floats = (make(dtype=dtype) for _ in range(2))
    from_bytes.fit(pixels, Y, epochs=3)
    from_floats.fit(pixels.reshape(N, 4) / 255, Y, epochs=3)
    ours, theirs = from_bytes.network.parameters, from_floats.network.parameters
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)  # p · (1/255) and p / 255: a last bit apart


def test_the_users_arrays_are_only_read(digits):
    x, y, *_ = digits
    x_float = x / 255
    x_float.flags.writeable = False  # as the bytes and labels are
    for examples in (x, x_float):
        trainer = make([64, 5, 10], batch_size=50)
        assert len(trainer.fit(examples, y, epochs=1, validation=(examples, y))["val_loss"]) == 1


# ---- The history ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [None, (X_HELD_OUT, Y_HELD_OUT)])
def test_the_history_has_a_number_an_epoch_of_each_name(validation):
    history = make().fit(X, Y, epochs=4, validation=validation)
    names = {"loss", "accuracy", "lr", "seconds"} | ({"val_loss", "val_accuracy"} if validation else set())
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(names, 4)
    assert all(seconds > 0 for seconds in history["seconds"])
    assert history["lr"] == [0.1] * 4


@pytest.mark.parametrize("batch_size", [5, 23])
def test_the_loss_of_an_epoch_is_the_mean_over_its_examples(batch_size):
    """At a learning rate that moves nothing it is that of the network as it was, the small last batch by its size."""
    trainer = make(optimizer=SGD(1e-300), batch_size=batch_size)
    born = trainer.network.evaluate(X, Y)
    history = trainer.fit(X, Y, epochs=1)
    assert history["loss"] == [pytest.approx(born.loss, rel=1e-12)]
    assert history["accuracy"] == [born.accuracy]


def test_the_loss_of_each_batch_is_taken_before_its_step():
    trainer = make(batch_size=N)
    before = []
    for epoch in range(1, 4):
        before.append(trainer.network.evaluate(X, Y).loss)
        trainer.fit(X, Y, epochs=epoch)
    assert trainer.history["loss"] == pytest.approx(before, rel=1e-12)
    assert before == sorted(before, reverse=True)


def test_the_loss_of_unequal_batches_worked_out():
    """Batches of 5 and of 3: the epoch's loss is (5 L₁ + 3 L₂) / 8, each L that of the weights before its step."""
    trainer, seen = watched()
    before = [trainer.network.parameters.copy()]
    trainer.callbacks = [Each(at_batch=lambda t: before.append(t.network.parameters.copy()))]
    history = trainer.fit(X[:8], Y[:8], epochs=1)
    twin, losses = copy.deepcopy(trainer.network), []
    for theta, x in zip(before, list(seen.batches), strict=False):
        twin.parameters[...] = theta
        losses.append(twin.evaluate(x, Y[x[:, 0].astype(int)]).loss)
    assert history["loss"] == [pytest.approx((5 * losses[0] + 3 * losses[1]) / 8, rel=1e-12)]


def test_the_numbers_of_validation_are_those_of_evaluate():
    evaluations = []
    trainer = make(callbacks=[Each(at_epoch=lambda t: evaluations.append(t.network.evaluate(X_HELD_OUT, Y_HELD_OUT)))])
    history = trainer.fit(X, Y, epochs=3, validation=(X_HELD_OUT, Y_HELD_OUT))
    assert history["val_loss"] == [e.loss for e in evaluations]
    assert history["val_accuracy"] == [e.accuracy for e in evaluations]
    assert trainer.validation == evaluations[-1]


def test_validation_moves_nothing():
    alone, with_validation = make([4, 5, 3], Momentum(0.1)), make([4, 5, 3], Momentum(0.1))
    alone.fit(X, Y, epochs=3)
    with_validation.fit(X, Y, epochs=3, validation=(X_HELD_OUT, Y_HELD_OUT))
    np.testing.assert_array_equal(alone.network.parameters, with_validation.network.parameters)


def test_the_schedule_is_asked_at_every_step():
    asked, rates = [], []

    def schedule(epoch, epochs):
        asked.append((round(epoch, 9), epochs))
        return 1 / (1 + epoch)

    class Watching(SGD):
        def step(self, network, lr=None):
            rates.append(lr)
            super().step(network, lr)

    trainer = make(optimizer=Watching(0.5), schedule=schedule)
    history = trainer.fit(X, Y, epochs=2)
    at = [k / 5 for k in range(10)]
    assert {*asked} == {(round(epoch, 9), 2) for epoch in at}
    assert rates == pytest.approx([0.5 / (1 + epoch) for epoch in at], rel=1e-12)
    assert history["lr"] == pytest.approx([0.5, 0.25], rel=1e-12)


# ---- Independent chance ---------------------------------------------------------------------------------------------


def test_dropout_does_not_move_the_shuffling():
    orders = []
    for rate in (0.0, 0.5):
        seen = Seen()
        network = Network([seen, Dropout(rate), Dense(4, 3)], rng=0)
        Trainer(network, SGD(0.01), batch_size=5, rng=0).fit(X, Y, epochs=2)
        orders.append(seen.numbers())
    assert orders[0] == orders[1]


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    runs = []
    for network_seed, seed in [(0, 0), (0, 0), (0, 1), (1, 0)]:
        network = Network(copy.deepcopy(layers), rng=network_seed)
        Trainer(network, SGD(0.1), batch_size=5, rng=seed).fit(X, Y, epochs=2)
        runs.append(network.parameters)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    assert (runs[0] != runs[3]).any()


# ---- Callbacks ------------------------------------------------------------------------------------------------------


def test_callbacks_are_told_of_everything_in_their_order():
    told = []

    class Told(Callback):
        def __init__(self, name):
            self.name = name

        def on_train_begin(self, trainer):
            told.append((self.name, "begin", trainer.epoch))

        def on_batch_end(self, trainer):
            told.append((self.name, "batch", trainer.epoch, trainer.batch, trainer.batches))

        def on_epoch_end(self, trainer):
            told.append((self.name, "epoch", trainer.epoch, len(trainer.history["loss"])))

        def on_train_end(self, trainer):
            told.append((self.name, "end", trainer.epoch))

    make(callbacks=[Told("a"), Callback(), Told("b")], batch_size=10).fit(X, Y, epochs=2)
    events = [("begin", 0)]
    for epoch in (0, 1):
        events += [("batch", epoch, batch, 3) for batch in (1, 2, 3)] + [("epoch", epoch + 1, epoch + 1)]
    events += [("end", 2)]
    assert told == [(name, *event) for event in events for name in "ab"]


def test_stop_ends_the_training_after_the_epoch():
    def at_second_batch_of_epoch_two(trainer):
        trainer.stop |= (trainer.epoch, trainer.batch) == (1, 2)

    trainer = make(callbacks=[Each(at_batch=at_second_batch_of_epoch_two)])
    assert len(trainer.fit(X, Y, epochs=5)["loss"]) == trainer.epoch == 2
    assert len(trainer.fit(X, Y, epochs=5)["loss"]) == 2  # it stays set


@pytest.mark.parametrize("epochs", [0, 2])
def test_epochs_that_are_done_are_not_done_again(epochs):
    trainer = make()
    trainer.fit(X, Y, epochs=epochs)
    before = trainer.network.parameters.copy()
    trainer.fit(X, Y, epochs=epochs)
    assert trainer.epoch == epochs
    np.testing.assert_array_equal(trainer.network.parameters, before)


# ---- Stop and continue ----------------------------------------------------------------------------------------------


class PowerCutError(Exception):
    """What no part of the library expects."""


def cut_at(epoch, batch):
    def cut(trainer):
        if (trainer.epoch, trainer.batch) == (epoch, batch):
            raise PowerCutError

    return cut


def whole(optimizer, schedule, path, seed, cut=None):
    """A training with everything that has a state."""
    layers = [Dropout(0.1), Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    network = Network(layers, loss="cross_entropy", rng=seed)
    callbacks = [EarlyStopping(patience=4), Each(at_batch=cut), Checkpoint(path)]
    return Trainer(network, optimizer, batch_size=5, schedule=schedule, callbacks=callbacks, rng=seed)


@pytest.mark.parametrize("optimizer", [SGD, Momentum, Nesterov, Adam])
@pytest.mark.parametrize("schedule", [schedules.cosine, schedules.one_cycle])
@pytest.mark.parametrize("place", [(1, 1), (2, 3), (4, 5)])
def test_a_training_cut_off_in_mid_epoch_is_resumed_to_the_same_bits(optimizer, schedule, place, tmp_path):
    data = {"epochs": 8, "validation": (X_HELD_OUT, Y_HELD_OUT)}
    never_cut = whole(optimizer(0.05), schedule(), tmp_path / "a", seed=0)
    expected = comparable(never_cut.fit(X, Y, **data))

    killed = whole(optimizer(0.05), schedule(), tmp_path / "b", seed=0, cut=cut_at(*place))
    with pytest.raises(PowerCutError):
        killed.fit(X, Y, **data)

    resumed = whole(optimizer(0.05), schedule(), tmp_path / "b", seed=99)  # made with other numbers
    resume(resumed, tmp_path / "b")
    assert resumed.epoch == place[0]
    history = comparable(resumed.fit(X, Y, **data))
    assert history == expected
    np.testing.assert_array_equal(resumed.network.parameters, never_cut.network.parameters)
    ours, theirs = resumed.callbacks[0], never_cut.callbacks[0]
    assert (ours.best, ours.best_epoch) == (theirs.best, theirs.best_epoch)
    np.testing.assert_array_equal(ours.best_parameters, theirs.best_parameters)
    np.testing.assert_array_equal(resumed.network.outputs(X), never_cut.network.outputs(X))


def test_a_training_resumed_before_its_first_epoch_is_the_whole_training():
    fresh, other = make(optimizer=Adam()), make(optimizer=Adam(), rng=7)
    other.restore(fresh.state())
    assert comparable(fresh.fit(X, Y, epochs=3)) == comparable(other.fit(X, Y, epochs=3))
    np.testing.assert_array_equal(fresh.network.parameters, other.network.parameters)


@pytest.mark.parametrize("optimizer", [SGD, Momentum, Adam])
def test_a_second_fit_goes_on_as_if_there_had_been_one(optimizer):
    once, twice = make(optimizer=optimizer(0.05)), make(optimizer=optimizer(0.05))
    once.fit(X, Y, epochs=5)
    twice.fit(X, Y, epochs=2)
    twice.fit(X, Y, epochs=5)
    np.testing.assert_array_equal(once.network.parameters, twice.network.parameters)
    assert comparable(once.history) == comparable(twice.history)


def rising(trainer):
    """The first epoch stays the best."""
    trainer.history["loss"][-1] = float(trainer.epoch)


def with_early_stopping():
    return make(optimizer=Momentum(0.1), callbacks=[Each(at_epoch=rising), EarlyStopping("loss", patience=9)])


def test_a_state_taken_between_two_fits_goes_on_as_the_second_fit_does():
    """The best weights are back in the network; the state must hold the last ones too."""
    trainer, other = with_early_stopping(), with_early_stopping()
    trainer.fit(X, Y, epochs=3)
    other.restore(trainer.state())
    states = []
    for each in (trainer, other):
        each.callbacks.append(Each(at_epoch=lambda t: states.append(t.network.parameters.copy())))
        each.fit(X, Y, epochs=4)
    np.testing.assert_array_equal(states[0], states[1])


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_trainer_can_go_back_to_a_state_of_its_own(epochs):
    trainer, never_further = with_early_stopping(), with_early_stopping()
    states = {}
    for each in (trainer, never_further):
        each.callbacks.append(Each(at_epoch=lambda t: states.update({(id(t), t.epoch): t.network.parameters.copy()})))
        each.fit(X, Y, epochs=epochs)
    state = trainer.state()
    trainer.fit(X, Y, epochs=5)
    trainer.restore(state)
    assert trainer.epoch == epochs
    trainer.fit(X, Y, epochs=epochs + 1)
    never_further.fit(X, Y, epochs=epochs + 1)
    np.testing.assert_array_equal(states[id(trainer), epochs + 1], states[id(never_further), epochs + 1])


def test_weights_that_are_set_between_two_fits_are_trained_from():
    """What was set is what the next step starts from, early stopping or not."""
    trainer = make(optimizer=SGD(1e-300), callbacks=[EarlyStopping("loss", patience=9)])
    trainer.fit(X, Y, epochs=1)
    trainer.network.parameters[...] = 0.25
    trainer.fit(X, Y, epochs=2)
    assert trainer.history["loss"][1] == pytest.approx(math.log(3), rel=1e-12)  # all outputs alike


def test_the_state_is_a_copy():
    trainer = make(optimizer=Momentum(0.1))
    trainer.fit(X, Y, epochs=2)
    state = trainer.state()
    kept = copy.deepcopy(state)
    trainer.fit(X, Y, epochs=4)
    other = make(optimizer=Momentum(0.1))
    other.restore(state)
    other.fit(X, Y, epochs=3)
    np.testing.assert_equal(state, kept)


def test_a_copied_trainer_goes_on_to_the_same_bits_apart_from_the_first():
    layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    trainer = make(layers, Adam(0.05), callbacks=[EarlyStopping("loss", restore_best=False)])
    trainer.fit(X, Y, epochs=2)
    twin, before = copy.deepcopy(trainer), trainer.network.parameters.copy()
    twin.fit(X, Y, epochs=4)
    np.testing.assert_array_equal(trainer.network.parameters, before)
    trainer.fit(X, Y, epochs=4)
    np.testing.assert_array_equal(trainer.network.parameters, twin.network.parameters)
    assert (trainer.network.parameters != before).any()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (make([4, 6, 3]), make([4, 5, 3])),
        (make(dtype=np.float32), make(dtype=np.float64)),
        (make(optimizer=Adam()), make(optimizer=Momentum(0.1))),
        (make(optimizer=Nesterov(0.1)), make(optimizer=Momentum(0.1))),
    ],
    ids=["size", "dtype", "adam-momentum", "nesterov-momentum"],
)
def test_the_state_of_another_training_is_refused_and_nothing_is_changed(theirs, ours, refused):
    theirs.fit(X, Y, epochs=1)
    before = ours.network.parameters.copy()
    with refused("the checkpoint is of another (network|optimizer)"):
        ours.restore(theirs.state())
    np.testing.assert_array_equal(ours.network.parameters, before)
    assert (ours.epoch, ours.history) == (0, {})


def test_a_refused_state_leaves_the_optimizer_too(tmp_path, refused):
    """The callbacks differ: that shows last, and what came before must not have been taken."""
    theirs, ours = make(optimizer=Momentum(0.1), callbacks=[Checkpoint(tmp_path / "c")]), make(optimizer=Momentum(0.1))
    theirs.fit(X, Y, epochs=1)
    ours.callbacks = [EarlyStopping("loss")]
    with refused("another training"):
        resume(ours, tmp_path / "c")
    assert (ours.optimizer.steps, ours.epoch) == (0, 0)


# ---- New pictures, a teacher, a batch changed before its step -------------------------------------------------------

PICTURES = np.random.default_rng(5).integers(0, 256, (N, 12)).astype(np.uint8)


def noisy(x, rng, out):
    """New pictures: the bytes as numbers in [0, 1], and noise that the stream draws."""
    out[...] = x / 255 + rng.normal(0, 0.1, x.shape)
    return out


def learner(rng=0, callbacks=(), **options):
    """A training whose every part draws or remembers something."""
    layers = [Dense(12, 8), BatchNorm(8), ReLU(), Dropout(0.2), Dense(8, 3)]
    network = Network(layers, loss=CrossEntropy(temperature=2), rng=rng)
    teacher = Network([12, 6, 3], loss="cross_entropy", rng=42)
    perturb = VirtualAdversarial(0.3, rng=rng)
    average = EMA(0.9)
    parts = {"augment": noisy, "teacher": teacher, "perturb": perturb, "schedule": schedules.one_cycle()}
    return Trainer(network, Adam(0.01), batch_size=5, callbacks=[average, *callbacks], rng=rng, **parts | options)


def test_a_training_with_all_its_parts_is_resumed_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", 12 * 5)  # a batch: some are made ahead when it stops
    whole = learner()
    expected = comparable(whole.fit(PICTURES, Y, epochs=4))

    def stop(trainer):
        trainer.stop = trainer.epoch == 2

    path = tmp_path / "c"
    stopped = learner(callbacks=[Each(at_epoch=stop), Checkpoint(path)])
    stopped.fit(PICTURES, Y, epochs=4)
    assert stopped.epoch == 2
    resumed = learner(rng=99, callbacks=[Each(), Checkpoint(path)])
    resume(resumed, path)
    resumed.stop = False
    history = comparable(resumed.fit(PICTURES, Y, epochs=4))
    assert history == expected
    np.testing.assert_array_equal(resumed.network.parameters, whole.network.parameters)
    np.testing.assert_array_equal(resumed.callbacks[0].average, whole.callbacks[0].average)


@pytest.mark.parametrize("place", [(1, 2), (2, 1), (3, 4)])
def test_a_training_with_all_its_parts_cut_off_in_mid_epoch_is_resumed_to_the_same_bits(place, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", 12 * 5)
    whole = learner()
    expected = comparable(whole.fit(PICTURES, Y, epochs=4))
    killed = learner(callbacks=[Each(at_batch=cut_at(*place)), Checkpoint(tmp_path / "c")])
    with pytest.raises(PowerCutError):
        killed.fit(PICTURES, Y, epochs=4)
    resumed = learner(rng=99, callbacks=[Each(), Checkpoint(tmp_path / "c")])
    resume(resumed, tmp_path / "c")
    assert resumed.epoch == place[0]
    assert comparable(resumed.fit(PICTURES, Y, epochs=4)) == expected
    np.testing.assert_array_equal(resumed.network.parameters, whole.network.parameters)


@pytest.mark.parametrize("part", ["augmenting", "perturb.rng", "layers.3.rng", "shuffling"])
def test_a_state_without_one_of_its_streams_is_refused_by_name(part, refused):
    state = learner().state()
    del state[part]
    with refused(f"lacks {part}"):
        learner().restore(state)


@pytest.mark.parametrize("floats", [1, 12 * 5, 12 * 10, 10_000])
def test_blocks_made_ahead_are_those_made_in_turn(floats, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", floats)
    ahead, in_turn = learner(), learner()
    expected = comparable(ahead.fit(PICTURES, Y, epochs=3))
    monkeypatch.setattr(training, "prefetch", lambda make, count: map(make, range(count)))
    assert comparable(in_turn.fit(PICTURES, Y, epochs=3)) == expected
    np.testing.assert_array_equal(ahead.network.parameters, in_turn.network.parameters)
    assert ahead.state()["augmenting"] == in_turn.state()["augmenting"]


def test_a_block_is_made_while_the_one_before_it_is_used_and_never_two():
    asked, used = threading.Event(), threading.Event()
    made, main = [], threading.get_ident()

    def make(number):
        assert threading.get_ident() != main
        made.append(number)
        if number == 1:
            asked.set()
            assert used.wait(10)
        return number, number

    blocks = training.prefetch(make, 4)
    assert next(blocks) == (0, 0)
    assert asked.wait(10)  # 1 is being made while 0 is in use
    used.set()
    seen = [0]
    for number, _ in blocks:
        seen.append(number)
        assert len(made) <= number + 2
    assert seen == made == [0, 1, 2, 3]


def test_a_block_in_use_is_not_written_to():
    """The pictures that steps see are those that were made, however long a step takes."""
    made, kept = {}, []

    def numbered(x, rng, out):
        out[...] = rng.random((len(x), 1))
        made[len(made)] = out.copy()
        return out

    def slow(network, x, t):
        before = x.copy()
        time.sleep(0.002)
        np.testing.assert_array_equal(x, before)
        kept.append(before)
        return x, t

    trainer = learner(augment=numbered, perturb=InferenceGraph(slow), teacher=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "BLOCK", 12 * 5)
        trainer.fit(PICTURES, Y, epochs=2)
    assert len(made) == len(kept) == 10
    for a, b in zip(made.values(), kept, strict=True):
        np.testing.assert_array_equal(a, b)


class InferenceGraph:
    """A function as what changes a batch: it remembers nothing."""

    def __init__(self, change):
        self.change = change

    def __call__(self, network, x, t):
        return self.change(network, x, t)

    def state(self):
        return {}

    def restore(self, state):
        pass


@pytest.mark.parametrize("call", [0, 3])
@pytest.mark.parametrize("part", ["augment", "teacher"])
def test_an_error_from_the_background_comes_out_as_itself(part, call, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", 12 * 5)
    calls = itertools.count()

    def fails(x, rng, out):
        if next(calls) == call:
            raise PowerCutError("in the background")
        return noisy(x, rng, out)

    trainer = learner()
    if part == "augment":
        trainer.augment = fails
    else:
        soft_labels = trainer.teacher.soft_labels
        monkeypatch.setattr(
            trainer.teacher, "soft_labels", lambda x, T: soft_labels(fails(x, trainer.augmenting, x.copy()), T)
        )
    with pytest.raises(PowerCutError, match="in the background"):
        trainer.fit(PICTURES, Y, epochs=2)
    assert trainer.batch == call  # all the blocks before it were learnt from
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


@pytest.mark.parametrize("error", [PowerCutError, KeyboardInterrupt])
def test_a_training_that_an_error_ends_leaves_nothing_running(error, monkeypatch):
    """What still drew in the background would move the stream of what goes on from there."""
    monkeypatch.setattr(training, "BLOCK", 12 * 5)

    def slow(x, rng, out):
        time.sleep(0.02)
        return noisy(x, rng, out)

    def cut(trainer):
        raise error

    trainer = learner(callbacks=[Each(at_batch=cut)], augment=slow)
    try:
        trainer.fit(PICTURES, Y, epochs=1)
    except error:
        state = trainer.state()["augmenting"]
        running = [thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
        time.sleep(0.05)
        assert running == []
        assert trainer.state()["augmenting"] == state
    else:
        pytest.fail("it was to end by the error")


def test_pictures_are_made_from_the_preprocessed_bytes_of_the_batches_order():
    seen = []

    def keep(x, rng, out):
        seen.append((x.copy(), rng))
        return noisy(x, rng, out)

    deskew = Deskew(4, 3)
    trainer = learner(augment=keep, teacher=None)
    trainer.network.preprocessing = deskew
    trainer.fit(PICTURES, Y, epochs=1)
    ((x, rng),) = seen
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x, deskew(PICTURES)[spawn_rngs(0).shuffling.permutation(N)])
    assert rng is trainer.augmenting


def test_pictures_are_new_at_each_epoch_and_move_no_other_stream():
    orders, pictures = [], []
    for augment in (noisy, None):
        seen = []
        keep = InferenceGraph(lambda network, x, t, seen=seen: (seen.append(x.copy()), (x, t))[1])
        trainer = learner(augment=augment, teacher=None, perturb=keep)
        trainer.fit(PICTURES, Y, epochs=2)
        orders.append(trainer.state()["shuffling"])
        pictures.append(np.concatenate(seen))
    assert orders[0] == orders[1]
    noise = pictures[0] - pictures[1]
    assert 0.09 < noise.std() < 0.11
    first, second = noise[:N], noise[N:]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.3
    assert abs(noise.mean()) < 0.02


def test_a_teachers_answers_to_what_is_seen_are_the_targets_at_the_losses_temperature():
    batches = []
    trainer = learner(perturb=InferenceGraph(lambda network, x, t: (batches.append((x.copy(), t.copy())), (x, t))[1]))
    trainer.fit(PICTURES, Y, epochs=2)
    for x, t in batches:
        z = trainer.teacher.outputs(x).astype(np.float64)
        expected = np.exp(z / 2) / np.exp(z / 2).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(t, expected, rtol=1e-5)
    assert len(batches) == 10


@pytest.mark.parametrize("members", [1, 2])
def test_a_teacher_sees_what_its_pupil_sees_preprocessed_once(members):
    """It learnt from pictures that were set upright and then moved; what was moved is not to be set upright again."""
    deskew, batches = Deskew(4, 6, 2), []
    x = np.random.default_rng(6).integers(0, 256, (N, 24)).astype(np.uint8)

    def sees(seed):
        return Network([6, 5, 3], loss="cross_entropy", rng=seed, preprocessing=deskew)

    teachers = [sees(seed) for seed in range(1, 1 + members)]
    plain = [Network([6, 5, 3], loss="cross_entropy", rng=seed) for seed in range(1, 1 + members)]
    keep = InferenceGraph(lambda network, x, t: (batches.append((x.copy(), t.copy())), (x, t))[1])
    teacher = teachers[0] if members == 1 else Ensemble(teachers)
    trainer = Trainer(sees(0), SGD(0.1), batch_size=5, augment=noisy, teacher=teacher, perturb=keep, rng=0)
    trainer.fit(x, Y, epochs=1)
    assert len(batches) == 5
    for seen, t in batches:
        expected = np.mean([network.predict_proba(seen) for network in plain], axis=0)
        np.testing.assert_allclose(t, expected, rtol=1e-4)
    assert [network.preprocessing for network in teachers] == [deskew] * members  # the teacher itself stays as it is
    assert [network.n_in for network in teachers] == [24] * members


@pytest.mark.parametrize(
    ("sizes", "says"), [([11, 3], "takes 11 inputs to 3 outputs, the network 12 to 3"), ([12, 4], "12 inputs to 4")]
)
def test_a_teacher_of_another_question_is_refused(sizes, says, refused):
    with refused(says):
        learner(teacher=Network(sizes, rng=0))


def test_with_a_teacher_the_labels_say_nothing():
    a, b = learner(), learner()
    a.fit(PICTURES, Y, epochs=2)
    b.fit(PICTURES, (Y + 1) % 3, epochs=2)
    np.testing.assert_array_equal(a.network.parameters, b.network.parameters)
    c = learner(teacher=None)
    c.fit(PICTURES, Y, epochs=2)
    assert (a.network.parameters != c.network.parameters).any()


def test_a_committee_can_teach():
    members = [Network([12, 6, 3], loss="cross_entropy", rng=seed) for seed in (1, 2)]
    batches = []
    keep = InferenceGraph(lambda network, x, t: (batches.append((x.copy(), t.copy())), (x, t))[1])
    learner(teacher=Ensemble(members), perturb=keep).fit(PICTURES, Y, epochs=1)
    for x, t in batches:
        p = np.mean([member.predict_proba(x) for member in members], axis=0) ** 0.5
        np.testing.assert_allclose(t, p / p.sum(axis=1, keepdims=True), rtol=1e-4)


def test_perturb_is_called_for_every_batch_with_that_batch_and_the_network_and_its_answer_is_learnt_from():
    trainer, seen = watched()
    given = []

    def swapped(network, x, t):
        assert network is trainer.network
        given.append((x.copy(), t.copy(), trainer.batch))
        return x + 100, np.roll(t, 1, axis=1)

    trainer.perturb = InferenceGraph(swapped)
    trainer.fit(X, Y, epochs=2)
    assert [batch for *_, batch in given] == [0, 1, 2, 3, 4] * 2
    assert len(seen.batches) == 10
    for (x, t, _), learnt in zip(given, seen.batches, strict=True):
        np.testing.assert_array_equal(learnt, x + 100)
        np.testing.assert_array_equal(t, one_hot(Y[x[:, 0].astype(int)], 3, np.float64))
    plain, _ = watched()
    rolled = np.roll(one_hot(Y, 3, np.float64), 1, axis=1)
    plain.fit(X + 100, rolled, epochs=2)
    np.testing.assert_array_equal(plain.network.parameters, trainer.network.parameters)
    assert trainer.history["loss"] != plain.history["loss"]  # the history's is of the targets as they came


def test_after_divergence_with_pictures_made_ahead_another_training_can_begin(monkeypatch, refused):
    monkeypatch.setattr(training, "BLOCK", 12 * 5)
    trainer = learner(perturb=None, teacher=None)
    before = trainer.network.parameters.copy()
    trainer.augment = lambda x, rng, out: np.copyto(out, np.float32(np.nan)) or out
    with refused("diverged by step 0 of epoch 1"):
        trainer.fit(PICTURES, Y, epochs=2)
    np.testing.assert_array_equal(trainer.network.parameters, before)
    trainer.augment = noisy
    assert len(trainer.fit(PICTURES, Y, epochs=1)["loss"]) == 1


# ---- Diverging ------------------------------------------------------------------------------------------------------


def diverging(lr, optimizer=SGD, batch_size=5, **options):
    network = Network([Dense(4, 5), ReLU(), Dense(5, 3)], loss="quadratic", rng=0)
    return Trainer(network, optimizer(lr), batch_size=batch_size, rng=0, **options)


def steps_until_infinite(lr):
    """The number of steps taken when a batch first gives outputs that are not finite, written out."""
    twin, order, steps = diverging(lr).network, spawn_rngs(0).shuffling.permutation(N), 0
    with np.errstate(all="ignore"):
        for first in range(0, N, 5):
            rows = order[first : first + 5]
            if not np.isfinite(twin.backprop(X[rows].astype(np.float32), one_hot(Y[rows], 3))).all():
                break
            SGD(lr).step(twin)
            steps += 1
    return steps


@pytest.mark.parametrize("lr", [1e3, 1e8, 1e20])
def test_divergence_names_the_step_and_brings_the_weights_back(lr, refused):
    trainer = diverging(lr)
    born = trainer.network.parameters.copy()
    with refused(f"diverged by step {steps_until_infinite(lr)} of epoch 1.*learning rate") as caught:
        trainer.fit(X, Y, epochs=3)
    assert caught.type is DivergedError
    np.testing.assert_array_equal(trainer.network.parameters, born)
    assert (trainer.epoch, trainer.history) == (0, {})


def test_divergence_in_a_later_epoch_brings_back_the_last_good_weights():
    good = []
    trainer = diverging(1e-3, callbacks=[Each(at_epoch=lambda t: good.append(t.network.parameters.copy()))])
    trainer.schedule = lambda epoch, epochs: 1 if epoch < 2 else 1e12
    with pytest.raises(DivergedError, match=r"step \d of epoch 3"):
        trainer.fit(X, Y, epochs=5)
    np.testing.assert_array_equal(trainer.network.parameters, good[1])
    assert len(trainer.history["loss"]) == trainer.epoch == 2


def test_divergence_at_the_last_step_of_an_epoch_is_seen_in_that_epoch():
    trainer = diverging(1e30, batch_size=N)
    with pytest.raises(DivergedError, match="step 1 of epoch 1"):
        trainer.fit(X, Y, epochs=1)


@pytest.mark.parametrize("lr", [10.0**k for k in range(2, 39, 4)])
@pytest.mark.parametrize("batch_size", [1, 5, N])
def test_no_rate_leaves_a_number_that_is_not_finite(lr, batch_size):
    """Without a warning, with validation: either it diverged, or every weight and number is finite."""
    trainer = diverging(lr, batch_size=batch_size)
    try:
        trainer.fit(X, Y, epochs=2, validation=(X_HELD_OUT, Y_HELD_OUT))
    except DivergedError:
        assert trainer.epoch < 2
    assert np.isfinite(trainer.network.parameters).all()
    assert all(math.isfinite(value) for values in trainer.history.values() for value in values)


@pytest.mark.parametrize("optimizer", [SGD, Momentum, Adam])
def test_after_divergence_a_smaller_rate_can_go_on(optimizer):
    trainer = diverging(1e20, optimizer)
    with pytest.raises(DivergedError):
        trainer.fit(X, Y, epochs=2)
    trainer.optimizer.lr = 1e-4
    assert len(trainer.fit(X, Y, epochs=2)["loss"]) == 2


def test_a_saturated_network_does_not_diverge():
    """Sigmoids and cross-entropy bear any rate: the outputs stay finite, and so does the training."""
    trainer = make(optimizer=SGD(100.0), loss="binary_cross_entropy", dtype=np.float32)
    assert np.isfinite(trainer.fit(X, Y, epochs=3)["loss"]).all()


# ---- Refusals -------------------------------------------------------------------------------------------------------

NAN, INF = X.copy(), X.copy()
NAN[3, 2], INF[22, 0] = np.nan, np.inf


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (X[:, :3], Y, r"x has shape \(23, 3\): expected \(examples, 4\)"),
        (X[0], Y, r"x has shape \(4,\)"),
        (np.ones((N, 5, 5)), Y, r"x has shape \(23, 5, 5\)"),
        (X[:0], Y[:0], "no example"),
        (NAN, Y, r"x\[3, 2\] is nan"),
        (INF, Y, r"x\[22, 0\] is inf"),
        (X.astype(str), Y, "expected numbers"),
        (X, Y[:-1], r"shape \(22,\): expected \(23,\)"),
        (X, Y.astype(float), "integer"),
        (X, Y + 1, "label 3: of 3 classes the labels are 0 to 2"),
        (X, Y - 1, "label -1"),
        (X, np.eye(4)[Y], r"shape \(23, 4\)"),
        (X, np.full((N, 3), np.nan), "finite"),
        (X[:4], Y[:4], "batch_size 5: expected at most the 4 examples"),
    ],
)
@pytest.mark.parametrize("as_validation", [False, True])
def test_examples_that_are_none_are_refused_before_anything_is_done(x, y, says, as_validation, refused):
    told = []
    trainer = make(callbacks=[Each(at_batch=told.append, at_epoch=told.append)])
    born = trainer.network.parameters.copy()
    if as_validation and "batch_size" in says:
        assert len(trainer.fit(X, Y, epochs=1, validation=(x, y))["val_loss"]) == 1  # few are enough to validate
        return
    with refused(says):
        trainer.fit(*((X, Y) if as_validation else (x, y)), epochs=2, validation=(x, y) if as_validation else None)
    assert told == []
    np.testing.assert_array_equal(trainer.network.parameters, born)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "5", None])
def test_a_batch_size_that_is_none_is_refused(batch_size, refused):
    with refused("batch_size"):
        make(batch_size=batch_size)


@pytest.mark.parametrize("epochs", [-1, 2.5, "2", None])
def test_a_number_of_epochs_that_is_none_is_refused(epochs, refused):
    with refused("epochs"):
        make().fit(X, Y, epochs=epochs)


def test_numpys_whole_numbers_are_whole_numbers():
    n = np.int64
    network = Network([n(4), n(5), n(3)], rng=0)
    trainer = Trainer(network, SGD(0.1), batch_size=n(5))
    assert len(trainer.fit(X, Y, epochs=n(2))["loss"]) == 2


def test_an_error_of_ones_own_callback_is_not_hidden():
    def fail(trainer):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        make(callbacks=[Each(at_epoch=fail)]).fit(X, Y, epochs=1)
    assert not isinstance(caught.value, HandgradError)


# ---- It learns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer", [SGD(1.0), Momentum(0.3), Nesterov(0.3), Adam(0.05)], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "cross_entropy"])
def test_xor_is_learned(loss, optimizer):
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]), np.array([0, 1, 1, 0])
    network = Network([2, 8, 2], activation="tanh", loss=loss, rng=1)
    history = Trainer(network, optimizer, batch_size=4, rng=1).fit(x, y, epochs=300)
    assert network.evaluate(x, y).correct == 4
    assert history["loss"][-1] < 0.1 < history["loss"][0]


@pytest.mark.parametrize(
    ("arguments", "optimizer"),
    [
        ({}, lambda: SGD(0.5)),  # the post's
        ({"loss": "quadratic"}, lambda: SGD(3.0)),
        ({"activation": "relu", "loss": "cross_entropy"}, lambda: Momentum(0.02)),
        ({"activation": "gelu", "loss": "cross_entropy"}, lambda: Adam(0.003)),
    ],
    ids=["post", "quadratic", "relu", "gelu"],
)
def test_digits_are_learned_and_known_again(arguments, optimizer, digits):
    x, y, x_test, y_test = digits
    network = Network([64, 30, 10], rng=1, **arguments)
    assert network.evaluate(x_test, y_test).accuracy < 0.4
    history = Trainer(network, optimizer(), rng=1).fit(x, y, epochs=15)
    assert history["accuracy"][-1] >= 0.97
    assert network.evaluate(x_test, y_test).accuracy >= 0.95
