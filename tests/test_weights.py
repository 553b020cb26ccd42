"""Weights of examples: what they mean, that nothing else does, and that they go with their examples everywhere."""

import copy
import itertools

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adam,
    AdamW,
    Adversarial,
    Callback,
    Dense,
    Dropout,
    Lookahead,
    Momentum,
    Muon,
    Nesterov,
    Network,
    Tanh,
    Trainer,
    VirtualAdversarial,
    training,
)
from handgrad.arrays import check_sample_weight
from handgrad.callbacks import Checkpoint, resume
from handgrad.losses import LOSSES

N = 23
RNG = np.random.default_rng(5)
X, Y, W = RNG.random((N, 4)), np.arange(N) % 3, RNG.integers(0, 5, N)
W[[0, 7]] = 0, 3
OPTIMIZERS = {
    "sgd": lambda: SGD(0.1),
    "sgd, l2 and a clipped norm": lambda: SGD(0.1, l2=0.01, clip_norm=0.5),
    "momentum": lambda: Momentum(0.1),
    "nesterov": lambda: Nesterov(0.1),
    "adam": lambda: Adam(0.01),
    "adamw": lambda: AdamW(0.01),
    "muon": lambda: Muon(0.02),
    "lookahead of sgd": lambda: Lookahead(SGD(0.1), k=2),
    "lookahead of adam": lambda: Lookahead(Adam(0.01), k=2),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
every_loss = pytest.mark.parametrize("loss", LOSSES)


def make(optimizer=None, batch_size=N, loss="cross_entropy", sizes=(4, 5, 3), rng=0, **options):
    network = Network(list(sizes), activation="tanh", init="lecun", loss=loss, rng=rng, dtype=np.float64)
    return Trainer(network, optimizer or SGD(0.1), batch_size=batch_size, rng=rng, **options)


def targets(loss):
    """What a network of three outputs learns by this loss."""
    return Y if LOSSES[loss].is_classification else np.eye(3)[Y] * 3


def without_clock(history):
    return {name: values for name, values in history.items() if name != "seconds"}


def close(one, other):
    """Two trainers that stand at the same weights, but for rounding."""
    np.testing.assert_allclose(one.network.parameters, other.network.parameters, rtol=1e-9, atol=1e-11)


# ---- What a weight is ------------------------------------------------------------------------------------------------


@every_loss
@every_optimizer
def test_a_weight_of_two_is_the_row_twice_and_one_of_zero_is_no_row(optimizer, loss):
    weighted, repeated = make(optimizer(), loss=loss), make(optimizer(), batch_size=int(W.sum()), loss=loss)
    y, rows = targets(loss), np.repeat(np.arange(N), W)
    ours = weighted.fit(X, y, epochs=7, sample_weight=W)
    theirs = repeated.fit(X[rows], y[rows], epochs=7)
    close(weighted, repeated)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-9)
    unweighted = make(optimizer(), loss=loss)
    unweighted.fit(X, y, epochs=7)
    assert np.abs(unweighted.network.parameters - weighted.network.parameters).max() > 1e-4


@every_optimizer
def test_what_weighs_nothing_is_as_good_as_gone_whatever_it_is(optimizer):
    kept = W > 0
    without, within, other = make(optimizer(), int(kept.sum())), make(optimizer()), make(optimizer())
    x, y = X.copy(), Y.copy()
    x[~kept], y[~kept] = -7, 2 - y[~kept]
    without.fit(X[kept], Y[kept], epochs=5, sample_weight=W[kept])
    within.fit(X, Y, epochs=5, sample_weight=W)
    other.fit(x, y, epochs=5, sample_weight=W)
    close(within, without)
    close(other, without)


@pytest.mark.parametrize("factor", [0.25, 3, 1e-300, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_only_the_weights_ratios_count(factor, dtype):
    trainers = [Trainer(Network([4, 5, 3], rng=0, dtype=dtype), Adam(0.01), batch_size=5, rng=0) for _ in range(2)]
    histories = [t.fit(X, Y, epochs=3, sample_weight=w) for t, w in zip(trainers, (W, factor * W), strict=True)]
    rounding = 1e-4 if dtype == np.float32 else 1e-12
    ours, theirs = (t.network.parameters for t in trainers)
    np.testing.assert_allclose(ours, theirs, rtol=rounding, atol=rounding)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=rounding)
    assert ours.dtype == dtype


@pytest.mark.parametrize("weight", [1, 7, 0.1, True])
@pytest.mark.parametrize("batch_size", [1, 5, N])
def test_equal_weights_are_none(weight, batch_size):
    plain, weighted = (make(Momentum(0.1), batch_size) for _ in range(2))
    ours = weighted.fit(X, Y, epochs=3, sample_weight=np.full(N, weight))
    theirs = plain.fit(X, Y, epochs=3)
    close(weighted, plain)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-12)
    assert ours["accuracy"] == theirs["accuracy"]


@every_loss
def test_the_gradient_is_that_of_the_weighted_mean(loss):
    """A step of plain SGD on all of the examples against finite differences of Σ w L / Σ w, entry by entry."""
    trainer = make(SGD(1.0), loss=loss)
    network, h = copy.deepcopy(trainer.network), 1e-6
    t = network.loss.targets(targets(loss), N, 3, np.float64)
    born, numerical = network.parameters.copy(), np.empty_like(network.parameters)

    def value(i, step):
        network.parameters[i] = born[i] + step
        mean = np.average(network.loss.per_example(network.outputs(X), t), weights=W)
        network.parameters[i] = born[i]
        return mean

    for i in range(len(born)):
        numerical[i] = (value(i, h) - value(i, -h)) / (2 * h)
    trainer.fit(X, targets(loss), epochs=1, sample_weight=W)
    assert np.abs(numerical).max() > 1e-2
    np.testing.assert_allclose(born - trainer.network.parameters, numerical, atol=1e-7)


def test_the_steps_of_mini_batches_written_out():
    """The gradient of each batch is the mean of w dL, w of a mean of 1 over all of the examples."""
    trainer, w = make(batch_size=5), W / W.mean()
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


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_the_batches_size_does_not_move_what_is_learnt(batch_size):
    """Ten of a hundred, of weight 9 among others of 1, are half of all: a mean of each batch alone would not see it."""
    x, y = np.ones((100, 1)), (np.arange(100) < 10).astype(int)
    network = Network([1, 1], init="zeros", rng=0, dtype=np.float64)
    trainer = Trainer(network, SGD(1.0), batch_size=batch_size, schedule=lambda epoch, epochs: 1 / (20 + epoch), rng=0)
    trainer.fit(x, y, epochs=200, sample_weight=np.where(y == 1, 9, 1))
    assert network.predict_proba(x[:1]) == pytest.approx(0.5, abs=0.03)


# ---- What is told of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, N])
@every_loss
def test_the_historys_loss_is_the_weighted_one_and_its_accuracy_is_not(batch_size, loss):
    """At a learning rate that moves nothing it is that of the network as it was."""
    trainer, y = make(SGD(1e-300), batch_size, loss), targets(loss)
    network = trainer.network
    each = network.loss.per_example(network.outputs(X), network.loss.targets(y, N, 3, np.float64))
    born = network.evaluate(X, y)
    history = trainer.fit(X, y, epochs=2, sample_weight=W, validation=(X, y))
    assert history["loss"] == pytest.approx([np.average(each, weights=W)] * 2, rel=1e-12)
    assert history["val_loss"] == [born.loss] * 2
    assert history.get("accuracy", [born.accuracy] * 2) == [born.accuracy] * 2
    assert abs(history["loss"][0] - born.loss) > 1e-4


# ---- Batches and blocks ----------------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_that_weigh_nothing_teach_nothing_and_are_finite(optimizer, batch_size):
    """One example of all has a weight: most batches have none."""
    w = np.zeros(N)
    w[3] = 1e-30
    trainer = make(optimizer(), batch_size)
    before = trainer.network.evaluate(X[3:4], Y[3:4]).loss
    history = trainer.fit(X, Y, epochs=20, sample_weight=w)
    assert np.isfinite(trainer.network.parameters).all()
    assert np.isfinite(history["loss"]).all()
    assert trainer.network.evaluate(X[3:4], Y[3:4]).loss < before


def test_a_step_on_what_weighs_nothing_does_not_move_plain_sgd():
    w, moved = np.zeros(N), []
    w[3] = 1

    class Watch(Callback):
        def on_batch_end(self, trainer):
            moved.append(trainer.network.parameters.copy())

    trainer = make(batch_size=1, callbacks=[Watch()])
    moved.append(trainer.network.parameters.copy())
    trainer.fit(X, Y, epochs=1, sample_weight=w)
    assert sum((a != b).any() for a, b in itertools.pairwise(moved)) == 1


@pytest.mark.parametrize("floats", [1, 41, 60])
def test_blocks_of_any_size_give_the_same_bits(floats, monkeypatch):
    whole, cut = (make(Adam(0.01), 5) for _ in range(2))
    expected = whole.fit(X, Y, epochs=3, sample_weight=W)
    monkeypatch.setattr(training, "BLOCK", floats)
    history = cut.fit(X, Y, epochs=3, sample_weight=W)
    np.testing.assert_array_equal(cut.network.parameters, whole.network.parameters)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)


def test_the_users_weights_are_only_read():
    w = W.astype(float)
    w.flags.writeable = False
    trainer = make(batch_size=5)
    trainer.fit(X, Y, epochs=2, sample_weight=w)
    np.testing.assert_array_equal(w, W)
    twice = make(batch_size=5)  # an epoch leaves the weights as they were for the next
    twice.fit(X, Y, epochs=1, sample_weight=w)
    twice.fit(X, Y, epochs=2, sample_weight=w)
    np.testing.assert_array_equal(twice.network.parameters, trainer.network.parameters)


# ---- With all that training has --------------------------------------------------------------------------------------


@every_optimizer
def test_a_training_by_weights_is_resumed_to_the_same_bits(optimizer, tmp_path):

    def trainer(rng, *callbacks):
        layers = [Dense(4, 6), Tanh(), Dropout(0.3), Dense(6, 3)]
        network = Network(layers, loss="cross_entropy", rng=rng, dtype=np.float64)
        return Trainer(network, optimizer(), batch_size=5, callbacks=callbacks, rng=rng)

    whole, first, resumed = trainer(0), trainer(0, Checkpoint(tmp_path / "c")), trainer(9, Checkpoint(tmp_path / "c"))
    expected = whole.fit(X, Y, epochs=5, sample_weight=W)
    first.fit(X, Y, epochs=2, sample_weight=W)
    resume(resumed, tmp_path / "c")
    history = resumed.fit(X, Y, epochs=5, sample_weight=W)
    np.testing.assert_array_equal(resumed.network.parameters, whole.network.parameters)
    assert without_clock(history) == without_clock(expected)
    from_state = trainer(9)
    from_state.restore(first.state() | {"history": {}})
    from_state.fit(X, Y, epochs=5, sample_weight=W)
    np.testing.assert_array_equal(from_state.network.parameters, whole.network.parameters)


@pytest.mark.parametrize("perturb", [lambda: Adversarial(0.3), lambda: VirtualAdversarial(0.3, rng=0)])
def test_weights_go_with_examples_that_are_changed_before_a_step(perturb):
    one, other, plain = (make(SGD(0.5), 5, perturb=perturb()) for _ in range(3))
    one.fit(X, Y, epochs=3, sample_weight=W)
    other.fit(X, Y, epochs=3, sample_weight=4 * W)
    plain.fit(X, Y, epochs=3)
    close(one, other)
    assert np.abs(one.network.parameters - plain.network.parameters).max() > 1e-3


def test_an_example_of_no_weight_is_changed_in_vain():
    one, other = (make(SGD(0.5), 5, perturb=Adversarial(0.3)) for _ in range(2))
    for trainer, grey in ((one, 0.5), (other, 0.1)):
        trainer.fit(np.where(W[:, None] > 0, X, grey), Y, epochs=3, sample_weight=W)
    close(one, other)


def test_weights_go_with_new_pictures_and_a_teachers_answers():
    pictures = np.random.default_rng(0).integers(0, 256, (N, 4), dtype=np.uint8)

    def learner(pictures):
        augment = lambda x, rng, out: np.copyto(out, x / 255) or out  # noqa: E731
        teacher = Network([4, 3], loss="cross_entropy", rng=7, dtype=np.float64)
        trainer = make(Momentum(0.1), 5, augment=augment, teacher=teacher)
        trainer.fit(pictures, Y, epochs=3, sample_weight=W)
        return trainer

    close(learner(pictures), learner(np.where(W[:, None] > 0, pictures, 255 - pictures)))


# ---- What is no weight -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (np.ones(N - 1), rf"float64 of shape \({N - 1},\): expected \({N},\) numbers"),
        (np.ones((N, 1)), rf"shape \({N}, 1\)"),
        (1.0, r"shape \(\)"),
        (["1"] * N, "<U1"),
        (np.ones(N, complex), "complex128"),
        ([*np.ones(N - 1), -0.5], "finite numbers, 0 or more"),
        ([*np.ones(N - 1), np.nan], "finite numbers"),
        ([*np.ones(N - 1), np.inf], "finite numbers"),
        (np.zeros(N), "not all of them 0"),
        (np.zeros(N, bool), "not all of them 0"),
        ([[1], [1, 2]], "different lengths"),
    ],
    ids=str,
)
def test_weights_that_are_none_are_refused_in_one_line_before_anything_is_done(weights, says, refused):
    trainer = make(batch_size=5)
    born = trainer.network.parameters.copy()
    with refused(f"sample_weight.*{says}"):
        trainer.fit(X, Y, epochs=1, sample_weight=weights)
    np.testing.assert_array_equal(trainer.network.parameters, born)
    assert trainer.history == {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "weights",
    [[1, 0, 3], [1e300, 0, 3e300], [1e308, 0, 1e308], [5e-324, 0, 5e-324], [True, False, True], [2**62, 0, 1]],
)
def test_weights_have_a_mean_of_1_whatever_their_size(weights, dtype):
    w = check_sample_weight(weights, 3, dtype)
    assert (w.shape, w.dtype) == ((3, 1), dtype)
    assert w.mean() == pytest.approx(1, rel=1e-6)
    assert w[0, 0] > w[1, 0] == 0
