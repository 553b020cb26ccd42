"""Each initializer against the formula in its docstring."""

import math

import numpy as np
import pytest

from handgrad import Dense, Dropout, Network
from handgrad.initializers import INITIALIZERS

N_OUT, N_IN = 300, 200  # 60,000 weights, and not square, so that n_in and n_out cannot be taken for each other
VARIANCE = {
    "normal": 1,
    "lecun": 1 / N_IN,
    "xavier_normal": 2 / (N_IN + N_OUT),
    "xavier_uniform": 2 / (N_IN + N_OUT),
    "kaiming_normal": 2 / N_IN,
    "kaiming_uniform": 2 / N_IN,
    "zeros": 0,
}
BOUND = {"xavier_uniform": math.sqrt(6 / (N_IN + N_OUT)), "kaiming_uniform": math.sqrt(6 / N_IN)}
GAUSSIAN = sorted(VARIANCE.keys() - BOUND.keys() - {"zeros"})


def born(name, seed=0, shape=(N_OUT, N_IN), dtype=np.float64):
    W, b = np.full(shape, np.nan, dtype), np.full(shape[0], np.nan, dtype)
    INITIALIZERS[name](W, b, np.random.default_rng(seed))
    return W, b


def test_every_initializer_has_its_formula_here():
    assert INITIALIZERS.keys() == VARIANCE.keys()


@pytest.mark.parametrize("name", VARIANCE)
def test_mean_and_variance_of_the_weights(name):
    W, _ = born(name)
    sigma = math.sqrt(VARIANCE[name])
    # Five standard errors: of a mean σ/√n, of a variance at most σ²√(2/n).
    assert abs(W.mean()) <= 5 * sigma / math.sqrt(W.size)
    assert abs(W.var() - sigma**2) <= 5 * sigma**2 * math.sqrt(2 / W.size)


@pytest.mark.parametrize("name", BOUND)
def test_uniform_weights_fill_their_interval_and_no_more(name):
    W, _ = born(name)
    r = BOUND[name]
    assert 0.999 * r < W.max() <= r
    assert -r <= W.min() < -0.999 * r


@pytest.mark.parametrize(
    ("name", "beyond_sigma"),
    [(name, math.erfc(math.sqrt(1 / 2))) for name in GAUSSIAN] + [(name, 1 - 1 / math.sqrt(3)) for name in BOUND],
)
def test_the_shape_of_the_distribution(name, beyond_sigma):
    """The share outside ±σ: 32 % of a Gaussian, 42 % of a uniform distribution."""
    W, _ = born(name)
    assert np.mean(np.abs(W) > math.sqrt(VARIANCE[name])) == pytest.approx(beyond_sigma, abs=0.01)


@pytest.mark.parametrize("name", VARIANCE.keys() - {"normal"})
def test_biases_are_born_zero(name):
    _, b = born(name)
    assert not b.any()


def test_normal_draws_the_biases_too():
    _, b = born("normal", shape=(20_000, 2))
    assert b.mean() == pytest.approx(0, abs=5 / math.sqrt(20_000))
    assert b.var() == pytest.approx(1, abs=5 * math.sqrt(2 / 20_000))


@pytest.mark.parametrize("name", VARIANCE.keys() - {"zeros"})
def test_the_seed_decides(name):
    (W, b), (W_again, b_again), (W_other, _) = born(name, seed=1), born(name, seed=1), born(name, seed=2)
    np.testing.assert_array_equal(W, W_again)
    np.testing.assert_array_equal(b, b_again)
    assert (W_other != W).mean() > 0.99


@pytest.mark.parametrize("name", VARIANCE)
def test_float32_is_the_float64_draw_rounded(name):
    W, b = born(name, dtype=np.float32)
    W_64, b_64 = born(name, dtype=np.float64)
    assert W.dtype == b.dtype == np.float32
    np.testing.assert_array_equal(W, W_64.astype(np.float32))
    np.testing.assert_array_equal(b, b_64.astype(np.float32))


def test_lecun_keeps_the_variance_of_x():
    x = np.random.default_rng(1).standard_normal((500, N_IN))
    W, b = born("lecun")
    assert (x @ W.T + b).var() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("name", ["kaiming_normal", "kaiming_uniform"])
def test_kaiming_keeps_the_mean_square_through_a_relu(name):
    x = np.random.default_rng(1).standard_normal((500, N_IN))
    W, b = born(name)
    assert np.mean(np.maximum(x @ W.T + b, 0) ** 2) == pytest.approx(1, rel=0.03)


def test_dropout_in_the_chain_leaves_the_weights_as_they_were():
    plain = Network([Dense(5, 4), Dense(4, 3)], rng=3)
    dropped = Network([Dropout(0.2), Dense(5, 4), Dropout(), Dense(4, 3)], rng=3)
    np.testing.assert_array_equal(plain.parameters, dropped.parameters)


def test_every_dense_layer_draws_its_own_weights():
    network = Network([4, 4, 4], rng=0)
    assert (network.layers[0].W != network.layers[2].W).all()


def test_an_unknown_initializer_is_refused_with_the_nearest_name(refused):
    with refused("unknown initializer 'kaiming_norml': did you mean 'kaiming_normal'"):
        Dense(3, 2, init="kaiming_norml")
