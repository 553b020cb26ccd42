"""Averages are their equations, step by step; stopped, resumed or asked twice, a run ends with the same bits."""

import copy
import math

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adam,
    Callback,
    Dense,
    Dropout,
    EarlyStopping,
    EMA,
    HandgradError,
    Lookahead,
    Muon,
    Network,
    ReLU,
    Tanh,
    Trainer,
    SWA,
    schedules,
)
from handgrad.callbacks import Checkpoint, resume
from handgrad.training import DivergedError

N = 23  # with batches of 5: five steps an epoch
X, Y = np.random.default_rng(0).random((N, 4)), np.arange(N) % 3
HELD_OUT = np.random.default_rng(1).random((7, 4)), np.arange(7) % 3
EXACT = {"rtol": 1e-12, "atol": 1e-14}

KINDS = {
    "ema": lambda: EMA(0.8),
    "ema-every-2": lambda: EMA(0.8, every=2),
    "swa": lambda: SWA(0.3),
}
EACH = pytest.mark.parametrize("kind", KINDS)


class Raw(Callback):
    """Keeps θ after each step, and may fail at one."""

    def __init__(self, fail_at=None):
        self.thetas, self.fail_at = [], fail_at

    def on_batch_end(self, trainer):
        self.thetas.append(trainer.network.parameters.copy())
        if (trainer.epoch, trainer.batch) == self.fail_at:
            raise InterruptedError


def make(*callbacks, optimizer=None, dtype=np.float64, rng=0, **options):
    network = Network([4, 5, 3], activation="tanh", loss="cross_entropy", rng=rng, dtype=dtype)
    return Trainer(network, optimizer or SGD(0.5), callbacks=callbacks, **{"batch_size": 5, "rng": rng} | options)


def run(callback, epochs=4, **options):
    """A trainer that is done, and every θ it went through."""
    raw = Raw()
    trainer = make(callback, raw, **options)
    trainer.fit(X, Y, epochs=epochs, validation=HELD_OUT)
    return trainer, raw.thetas


# ---- The equations, restated ----------------------------------------------------------------------------------------


def exponential(thetas, d):
    weights = np.array([d ** (len(thetas) - i) for i in range(1, len(thetas) + 1)])
    return weights @ thetas / weights.sum()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("every", [1, 3, 7])
def test_an_exponential_average_is_the_weighted_mean_of_the_steps(decay, every):
    trainer, thetas = run(EMA(decay, every=every))
    taken = thetas[every - 1 :: every]
    np.testing.assert_allclose(trainer.network.parameters, exponential(taken, decay**every), **EXACT)
    assert len(thetas) == 20
    if decay:
        assert np.abs(trainer.network.parameters - exponential(taken, 0.9 * decay**every)).max() > 1e-6


@pytest.mark.parametrize(("start", "left_out"), [(0.0, 0), (0.5, 9), (0.75, 14), (0.33, 6), (0.99, 19)])
def test_a_weight_average_is_the_mean_of_the_steps_from_its_start_on(start, left_out):
    trainer, thetas = run(SWA(start))
    np.testing.assert_allclose(trainer.network.parameters, np.mean(thetas[left_out:], axis=0), **EXACT)
    for wrong in {left_out - 1, left_out + 1} & set(range(20)):
        assert np.abs(trainer.network.parameters - np.mean(thetas[wrong:], axis=0)).max() > 1e-6


@EACH
@pytest.mark.parametrize("block", [1, 7, 42, 43])
def test_any_block_size_gives_the_same_bits(kind, block, monkeypatch):
    expected, _ = run(KINDS[kind]())
    assert expected.network.parameters.size == 43
    monkeypatch.setattr(averaging, "BLOCK", block)
    cut, _ = run(KINDS[kind]())
    np.testing.assert_array_equal(cut.network.parameters, expected.network.parameters)


@EACH
def test_float32_stays_float32_and_near_float64(kind):
    single, _ = run(KINDS[kind](), dtype=np.float32)
    double, _ = run(KINDS[kind]())
    callback = single.callbacks[0]
    assert {a.dtype for a in (callback.average, callback.raw, *callback._blocks[0])} == {np.dtype(np.float32)}
    np.testing.assert_allclose(single.network.parameters, double.network.parameters, rtol=1e-3, atol=1e-5)


# ---- While it lasts, and at the end ---------------------------------------------------------------------------------


@EACH
def test_training_and_its_numbers_are_those_of_the_raw_weights(kind):
    with_average, thetas = run(KINDS[kind]())
    without, expected = run(Callback())
    np.testing.assert_array_equal(thetas, expected)
    for name in ("loss", "val_loss", "val_accuracy"):
        assert with_average.history[name] == without.history[name]
    np.testing.assert_array_equal(with_average.callbacks[0].raw, without.network.parameters)
    assert (with_average.network.parameters != without.network.parameters).any()


@EACH
def test_a_second_fit_goes_on_as_if_there_had_been_one(kind):
    once, expected = run(KINDS[kind](), epochs=8)
    twice, _ = run(KINDS[kind](), epochs=2)
    ended_with = twice.network.parameters.copy()
    twice.fit(X, Y, epochs=2, validation=HELD_OUT)  # nothing to do
    np.testing.assert_array_equal(twice.network.parameters, ended_with)
    twice.fit(X, Y, epochs=8, validation=HELD_OUT)
    np.testing.assert_array_equal(twice.callbacks[1].thetas, expected)
    np.testing.assert_array_equal(twice.network.parameters, once.network.parameters)


@EACH
def test_no_step_leaves_the_weights_alone(kind):
    trainer = make(KINDS[kind]())
    born = trainer.network.parameters.copy()
    trainer.fit(X, Y, epochs=0)
    np.testing.assert_array_equal(trainer.network.parameters, born)


def test_a_run_that_stops_before_the_start_ends_with_its_raw_weights():
    class Stop(Callback):
        def on_epoch_end(self, trainer):
            trainer.stop = True

    raw = Raw()
    trainer = make(SWA(0.5), raw, Stop())
    trainer.fit(X, Y, epochs=4)
    assert len(raw.thetas) == 5
    np.testing.assert_array_equal(trainer.network.parameters, raw.thetas[-1])


@EACH
def test_weights_that_are_set_between_two_fits_are_trained_from_and_averaged_alone(kind):
    trainer, thetas = run(KINDS[kind](), optimizer=SGD(1e-300))
    assert len(thetas) == 20
    trainer.network.parameters[...] = 0.25
    history = trainer.fit(X, Y, epochs=5, validation=HELD_OUT)
    assert history["loss"][-1] == pytest.approx(math.log(3), rel=1e-12)  # all outputs alike
    np.testing.assert_allclose(trainer.network.parameters, 0.25, rtol=1e-12)


@EACH
@pytest.mark.parametrize("hidden", [5, 6])
def test_another_training_begins_anew(kind, hidden):
    used = KINDS[kind]()
    other = Network([4, hidden, 3], rng=3, dtype=np.float64)
    Trainer(other, SGD(0.5), batch_size=5, callbacks=[used], rng=3).fit(X, Y, epochs=4)
    ours, _ = run(used)
    expected, _ = run(KINDS[kind]())
    np.testing.assert_array_equal(ours.network.parameters, expected.network.parameters)


@EACH
def test_after_divergence_nothing_of_it_is_left(kind):
    network, raw = Network([Dense(4, 5), ReLU(), Dense(5, 3)], loss="quadratic", rng=0), Raw()
    trainer = Trainer(network, SGD(1e-3), callbacks=[KINDS[kind]()], batch_size=5, rng=0)
    trainer.schedule = lambda epoch, epochs: 1.0 if epoch < 1.5 else 1e12
    with pytest.raises(DivergedError):
        trainer.fit(X, Y, epochs=4)
    trainer.schedule = schedules.constant()
    trainer.callbacks.append(raw)
    trainer.fit(X, Y, epochs=4)
    assert len(raw.thetas) == 15
    low, high = np.min(raw.thetas, axis=0), np.max(raw.thetas, axis=0)
    assert (low - 1e-6 <= network.parameters).all()  # a mean of these, of float32
    assert (network.parameters <= high + 1e-6).all()


@pytest.mark.parametrize("average_last", [True, False])
def test_of_two_that_end_a_fit_with_weights_of_their_own_the_last_has_its_way(average_last):
    average, stopping = SWA(0.5), EarlyStopping("loss", patience=9)
    trainer = make(*([stopping, average] if average_last else [average, stopping]))
    trainer.fit(X, Y, epochs=4)
    np.testing.assert_array_equal(
        trainer.network.parameters, average.average if average_last else stopping.best_parameters
    )
    assert (average.average != stopping.best_parameters).any()


# ---- Stop and continue ----------------------------------------------------------------------------------------------


def whole(path, seed, fail_at=None, optimizer=Adam):
    layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
    network = Network(layers, loss="cross_entropy", rng=seed)
    callbacks = [*(make() for make in KINDS.values()), Raw(fail_at), Checkpoint(path)]
    return Trainer(
        network, optimizer(0.05), batch_size=5, schedule=schedules.one_cycle(), callbacks=callbacks, rng=seed
    )


@pytest.mark.parametrize("optimizer", [Adam, Muon, lambda lr: Lookahead(Muon(lr), k=3)], ids=["adam", "muon", "both"])
@pytest.mark.parametrize("place", [(1, 1), (3, 3), (5, 5)])
def test_a_training_cut_off_in_mid_epoch_is_resumed_to_the_same_bits(place, optimizer, tmp_path):
    never_cut = whole(tmp_path / "a", 0, optimizer=optimizer)
    never_cut.fit(X, Y, epochs=7)
    killed = whole(tmp_path / "b", 0, fail_at=place, optimizer=optimizer)
    with pytest.raises(InterruptedError):
        killed.fit(X, Y, epochs=7)
    for resumed in (whole(tmp_path / "c", 99, optimizer=optimizer), killed):  # a new process, and the old one
        resume(resumed, tmp_path / "b")
        assert resumed.epoch == place[0]
        resumed.callbacks[3].fail_at = None
        resumed.fit(X, Y, epochs=7)
        np.testing.assert_array_equal(resumed.network.parameters, never_cut.network.parameters)
        for ours, theirs in zip(resumed.callbacks[:3], never_cut.callbacks[:3], strict=True):
            np.testing.assert_array_equal(ours.average, theirs.average)
            np.testing.assert_array_equal(ours.raw, theirs.raw)


@EACH
@pytest.mark.parametrize("by", ["state", "copy"])
def test_a_state_or_a_copy_taken_between_two_fits_goes_on_as_the_second_fit_does(kind, by):
    trainer, _ = run(KINDS[kind]())
    if by == "copy":
        other = copy.deepcopy(trainer)
    else:
        other = make(KINDS[kind](), Raw(), rng=9)
        other.restore(trainer.state())
    np.testing.assert_array_equal(other.network.parameters, trainer.network.parameters)
    before = trainer.network.parameters.copy()
    other.fit(X, Y, epochs=6, validation=HELD_OUT)
    np.testing.assert_array_equal(trainer.network.parameters, before)
    trainer.fit(X, Y, epochs=6, validation=HELD_OUT)
    np.testing.assert_array_equal(other.network.parameters, trainer.network.parameters)


@EACH
def test_the_state_is_a_copy(kind):
    trainer, _ = run(KINDS[kind]())
    state = trainer.state()
    kept = copy.deepcopy(state)
    trainer.fit(X, Y, epochs=5, validation=HELD_OUT)
    other = make(KINDS[kind](), Raw())
    other.restore(state)
    other.fit(X, Y, epochs=5, validation=HELD_OUT)
    np.testing.assert_equal(state, kept)


# ---- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_it", "name", "value"),
    [
        *((EMA, "decay", v) for v in (-0.1, 1.0, math.nan)),
        *((EMA, "every", v) for v in (0, -1, 2.5, None)),
        *((SWA, "start", v) for v in (-0.1, 1.0, math.nan)),
    ],
)
def test_a_bad_argument_is_refused_by_name(make_it, name, value):
    with pytest.raises(HandgradError, match=f"^{name} .*expected"):
        make_it(**{name: value})
