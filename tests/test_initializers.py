"""Initializers: each one against the formula in its docstring."""

import math

import numpy as np
import pytest

from handgrad import Network
from handgrad.initializers import INITIALIZERS

N_OUT, N_IN = 300, 200  # 60,000 weights, and not square, so that n_in and n_out cannot be confused
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
every_initializer = pytest.mark.parametrize("name", INITIALIZERS)


def initialized(name, seed=0, shape=(N_OUT, N_IN), dtype=np.float64):
    W, b = np.full(shape, np.nan, dtype), np.full(shape[0], np.nan, dtype)
    INITIALIZERS[name](W, b, np.random.default_rng(seed))
    return W, b


@every_initializer
def test_mean_and_variance_of_the_weights(name):
    W, b = initialized(name)
    sigma = math.sqrt(VARIANCE[name])
    # Five standard errors: σ/√n for a mean, at most σ²√(2/n) for a variance.
    assert abs(W.mean()) <= 5 * sigma / math.sqrt(W.size)
    assert abs(W.var() - sigma**2) <= 5 * sigma**2 * math.sqrt(2 / W.size)
    assert b.any() == (name == "normal")


@pytest.mark.parametrize("name", BOUND)
def test_uniform_weights_fill_their_interval(name):
    W, _ = initialized(name)
    r = BOUND[name]
    assert 0.999 * r < W.max() <= r
    assert -r <= W.min() < -0.999 * r


@pytest.mark.parametrize(
    ("name", "beyond_sigma"),
    [(name, math.erfc(math.sqrt(1 / 2))) for name in GAUSSIAN] + [(name, 1 - 1 / math.sqrt(3)) for name in BOUND],
)
def test_the_shape_of_the_distribution(name, beyond_sigma):
    """The fraction outside ±σ: 32 % of a Gaussian, 42 % of a uniform distribution."""
    W, _ = initialized(name)
    assert np.mean(np.abs(W) > math.sqrt(VARIANCE[name])) == pytest.approx(beyond_sigma, abs=0.01)


def test_normal_draws_the_biases_too():
    _, b = initialized("normal", shape=(20_000, 2))
    assert b.mean() == pytest.approx(0, abs=5 / math.sqrt(20_000))
    assert b.var() == pytest.approx(1, abs=5 * math.sqrt(2 / 20_000))


@every_initializer
def test_the_seed_determines_the_weights_and_float32_rounds_them(name):
    W, b = initialized(name, seed=1)
    W_again, b_again = initialized(name, seed=1, dtype=np.float32)
    assert W_again.dtype == b_again.dtype == np.float32
    np.testing.assert_array_equal(W_again, W.astype(np.float32))
    np.testing.assert_array_equal(b_again, b.astype(np.float32))
    assert (initialized(name, seed=2)[0] != W).mean() > 0.99 or name == "zeros"


def test_lecun_keeps_the_variance_of_x():
    x = np.random.default_rng(1).standard_normal((500, N_IN))
    W, b = initialized("lecun")
    assert (x @ W.T + b).var() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("name", ["kaiming_normal", "kaiming_uniform"])
def test_kaiming_keeps_the_mean_square_through_a_relu(name):
    x = np.random.default_rng(1).standard_normal((500, N_IN))
    W, b = initialized(name)
    assert np.mean(np.maximum(x @ W.T + b, 0) ** 2) == pytest.approx(1, rel=0.03)


def test_every_dense_layer_draws_its_own_weights():
    network = Network([4, 4, 4], rng=0)
    assert (network.layers[0].W != network.layers[2].W).all()
