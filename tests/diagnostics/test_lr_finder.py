"""Learning rate range test and overfitting of one batch: suggestions that train, planted errors that are found."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from handgrad import SGD, Adam, CrossEntropy, Dense, Dropout, Lookahead, Momentum, Network, ReLU, Trainer
from handgrad.diagnostics import LRRangeTest, find_lr, lr_finder, overfit_one_batch

RNG = np.random.default_rng(0)
Y = np.arange(600) % 3
X = RNG.standard_normal((600, 2)) + 3 * np.array([[0, 0], [1, 0], [0, 1]])[Y]


def make(loss: Any = "cross_entropy", n_out: int = 3, **options: Any) -> Network:
    return Network([2, 16, n_out], activation="tanh", loss=loss, rng=0, **options)


# ---- Range test ------------------------------------------------------------------------------------------------------


def test_the_range_test_takes_the_steps_of_the_optimizer_at_growing_rates() -> None:
    network = make(dtype=np.float64)
    result = find_lr(network, X, Y, Momentum(0.5), batch_size=600, lr_min=1e-3, lr_max=0.1, steps=12)
    np.testing.assert_allclose(result.lrs, 1e-3 * 100 ** (np.arange(12) / 11))
    twin, optimizer = copy.deepcopy(network), Momentum(0.5)
    t = twin.loss.targets(Y, 600, 3, np.float64)
    for lr, loss in zip(result.lrs, result.losses, strict=True):
        assert loss == pytest.approx(twin.evaluate(X, Y).loss, rel=1e-9)
        optimizer.train_step(twin, X, t, lr)
    weights = 0.9 ** np.arange(12)[::-1]
    assert result.smoothed[-1] == pytest.approx((weights * result.losses).sum() / weights.sum())


@pytest.mark.parametrize("optimizer", ["sgd", "Adam", "momentum", Lookahead(SGD(1))])
def test_the_suggestion_trains_better_than_rates_that_are_far_smaller(optimizer: Any) -> None:
    suggestion = find_lr(make(), X, Y, optimizer, lr_max=100).suggestion
    assert suggestion is not None

    def loss_after_an_epoch(lr: float) -> float:
        update = copy.deepcopy(optimizer) if not isinstance(optimizer, str) else lr_finder._make_optimizer(optimizer, 1)
        update.lr = lr
        network = make()
        Trainer(network, update, batch_size=32, rng=0).fit(X, Y, epochs=1)
        return network.evaluate(X, Y).loss

    assert loss_after_an_epoch(suggestion) < 0.75 * loss_after_an_epoch(suggestion / 100)


def test_the_range_test_stops_when_it_diverges_and_says_so() -> None:
    network = Network([2, 16, 1], activation="relu", loss="squared_error", rng=0)
    result = find_lr(network, X, X[:, 0] * 2, lr_max=1e6)
    assert result.diverged
    assert len(result.losses) < 100
    assert np.isfinite(result.losses).all()
    assert result.suggestion is not None
    assert not find_lr(make(), X, Y, lr_min=1e-4, lr_max=1e-2).diverged


def test_there_is_no_suggestion_if_the_loss_does_not_fall() -> None:
    result = find_lr(make(), X, Y, lr_min=1e-9, lr_max=1e-8, batch_size=600)
    assert result.suggestion is None
    assert isinstance(result.plot(), Figure)


def test_the_range_test_changes_neither_the_network_nor_the_optimizer() -> None:
    network = Network([Dense(2, 8), ReLU(), Dropout(0.2), Dense(8, 3)], loss="cross_entropy", rng=0)
    network.layers[0].trainable = False
    before, rng = network.parameters.copy(), copy.deepcopy(network.layers[2].rng)
    optimizer = Adam(0.1)
    first, second = (find_lr(network, X, Y, optimizer, rng=1) for _ in range(2))
    np.testing.assert_array_equal(network.parameters, before)
    assert rng is not None
    assert network.layers[2].rng is not None
    assert network.layers[2].rng.bit_generator.state == rng.bit_generator.state
    assert (optimizer.steps, optimizer.lr) == (0, 0.1)
    np.testing.assert_array_equal(first.losses, second.losses)


@pytest.mark.parametrize("new", [lambda: Adam(0.01), lambda: SGD(0.1), lambda: Lookahead(Momentum(0.01), k=3)])
def test_the_state_of_a_used_optimizer_is_ignored(new: Any) -> None:
    used = new()
    Trainer(make(), used, batch_size=10, rng=0).fit(X, Y, epochs=2)
    before = used.state_dict()
    for check in (find_lr, overfit_one_batch):
        expected, result = (check(make(), X, Y, optimizer=optimizer, steps=20) for optimizer in (new(), used))
        np.testing.assert_array_equal(result.losses, expected.losses)
    assert used.steps == before["steps"]
    np.testing.assert_array_equal(used.state, before["state"])


def test_the_range_test_reads_images_as_training_does(digits: Any) -> None:
    x, y, *_ = digits
    network = Network([64, 20, 10], rng=0)
    as_images = find_lr(network, x, y, batch_size=50)
    as_floats = find_lr(network, x.reshape(-1, 64) / np.float32(255), y, batch_size=50)
    np.testing.assert_allclose(as_images.losses, as_floats.losses, rtol=1e-3)
    assert as_images.suggestion is not None
    assert math.isfinite(as_images.suggestion)


def test_the_plot_shows_the_losses_and_the_suggestion() -> None:
    result = find_lr(make(), X, Y)
    axes = Figure().subplots()
    assert result.plot(axes) is axes
    raw, smoothed, suggestion = axes.lines
    np.testing.assert_array_equal(raw.get_ydata(), result.losses)
    np.testing.assert_array_equal(smoothed.get_ydata(), result.smoothed)
    assert suggestion.get_xdata()[0] == result.suggestion
    assert repr(result).startswith("LRRangeTest(suggestion=")
    assert isinstance(result, LRRangeTest)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"optimizer": "adan"}, "unknown optimizer 'adan': did you mean 'adam'"),
        ({"optimizer": 0.1}, r"optimizer must be a name or an optimizer, as SGD\(0.1\), got 0.1"),
        ({"lr_min": 1, "lr_max": 1}, "lr_min must be less than lr_max, got 1 and 1"),
        ({"lr_min": 0}, "lr_min must be"),
        ({"steps": 3}, "steps must be"),
        ({"network": "network"}, "network must be a Network"),
    ],
)
def test_invalid_arguments_are_rejected(options: dict[str, Any], says: str, rejects: Any) -> None:
    with rejects(says):
        find_lr(**{"network": make(), "x": X, "y": Y} | options)
    with rejects("expected at least one example"):
        find_lr(make(), X[:0], Y[:0])


# ---- Overfitting one batch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_a_network_memorizes_one_batch_in_spite_of_dropout(loss: str) -> None:
    network = Network([2, 64, 64, 3], activation="relu", loss=loss, dropout=0.5, rng=0)
    before = network.parameters.copy()
    result = overfit_one_batch(network, RNG.standard_normal((20, 2)), np.arange(20) % 3, steps=600)
    assert result
    assert result.passed
    assert len(result.losses) == 601
    assert result.losses[-1] < 0.02 < result.losses[0]
    np.testing.assert_array_equal(network.parameters, before)
    assert network.layers[2].rate == 0.5  # type: ignore[attr-defined]
    axes = Figure().subplots()
    assert result.plot(axes) is axes


def test_the_limit_follows_the_smallest_loss_of_soft_labels_and_the_scale_of_numbers() -> None:
    x, y = RNG.standard_normal((16, 2)), np.arange(16) % 3
    smooth = Network([2, 64, 3], activation="relu", loss=CrossEntropy(label_smoothing=0.2), rng=0)
    result = overfit_one_batch(smooth, x, y, steps=1500)
    assert result.passed
    assert result.losses[-1] > 0.3  # the entropy of the labels
    numbers = Network([2, 64, 1], activation="relu", loss="squared_error", rng=0)
    assert overfit_one_batch(numbers, x, 1e-3 * x[:, 0], lr=1e-3, steps=1500).limit < 1e-7


@pytest.mark.parametrize("mistake", ["labels", "zero inputs", "learning rate", "frozen"])
def test_planted_mistakes_do_not_pass(mistake: str) -> None:
    x, y = RNG.standard_normal((20, 2)), np.arange(20) % 3
    network, lr = Network([2, 64, 3], activation="relu", loss="cross_entropy", rng=0), 0.01
    if mistake == "labels":
        x = np.repeat(x[:10], 2, axis=0)  # equal inputs with different labels
    elif mistake == "zero inputs":
        x = 0 * x
    elif mistake == "learning rate":
        lr = 1e-6
    else:
        for layer in network.layers:
            layer.trainable = False
    assert not overfit_one_batch(network, x, y, lr=lr)


def test_a_diverged_check_does_not_pass() -> None:
    network = Network([2, 16, 1], activation="relu", loss="squared_error", rng=0)
    result = overfit_one_batch(network, 1e3 * X, X[:, 0], optimizer=SGD(10))
    assert not result.passed
    assert isinstance(result.plot(), Figure)
