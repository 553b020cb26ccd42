"""Layers: values worked by hand, extreme inputs, dropout, buffers."""

import math

import numpy as np
import pytest

from handgrad import GELU, Dense, Dropout, Identity, LeakyReLU, Network, ReLU, Sigmoid, Softplus, Tanh
from handgrad.arrays import spawn_rngs
from handgrad.layers import ACTIVATIONS, ELU, LAYERS, SELU, ExactGELU, SiLU, normal_cdf, sigmoid
from handgrad.network import bind

LN3 = math.log(3)
PHI_1, DENSITY_1 = 0.8413447460685429, 0.24197072451914337  # distribution function and density of N(0, 1) at 1
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def allocated(layer, batch, n_in, dtype=np.float64, rng=0):
    """The layer with parameters and buffers, outside a network."""
    bind([layer], dtype)
    rngs = spawn_rngs(rng)
    layer.initialize(rngs)
    layer.seed(rngs)
    layer.allocate(batch, n_in, dtype)
    return layer


# ---- Activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "z", "a", "slope"),
    [
        (Identity(), [-2, 0, 3], [-2, 0, 3], [1, 1, 1]),
        (Sigmoid(), [0, LN3, -LN3], [1 / 2, 3 / 4, 1 / 4], [1 / 4, 3 / 16, 3 / 16]),
        (Tanh(), [0, LN3, -LN3], [0, 0.8, -0.8], [1, 0.36, 0.36]),  # (3 - 1/3) / (3 + 1/3) = 0.8
        (ReLU(), [-2, 0, 3], [0, 0, 3], [0, 0, 1]),
        (LeakyReLU(), [-2, 0, 3], [-0.02, 0, 3], [0.01, 0.01, 1]),
        (LeakyReLU(0.25), [-2, 0, 3], [-0.5, 0, 3], [0.25, 0.25, 1]),
        (Softplus(), [0, LN3, -LN3], [math.log(2), math.log(4), math.log(4 / 3)], [1 / 2, 3 / 4, 1 / 4]),
        (GELU(), [0, 1, -1], [0, 0.8411919906082768, -0.15880800939172324], [0.5, 1.0829640838457826, -0.0829640838]),
        (ExactGELU(), [0, 1, -1], [0, PHI_1, PHI_1 - 1], [0.5, PHI_1 + DENSITY_1, 1 - PHI_1 - DENSITY_1]),
        (SiLU(), [0, LN3, -LN3], [0, 3 / 4 * LN3, -LN3 / 4], [1 / 2, 3 / 4 + 3 / 16 * LN3, 1 / 4 - 3 / 16 * LN3]),
        (ELU(), [-LN3, 0, 3], [-2 / 3, 0, 3], [1 / 3, 1, 1]),
        (ELU(0.5), [-LN3, 0, 3], [-1 / 3, 0, 3], [1 / 6, 1 / 2, 1]),
        (
            SELU(),
            [-LN3, 0, 3],
            [-2 / 3 * SELU_SCALE * SELU_ALPHA, 0, 3 * SELU_SCALE],
            [SELU_SCALE * SELU_ALPHA / 3, SELU_SCALE * SELU_ALPHA, SELU_SCALE],
        ),
    ],
    ids=repr,
)
def test_activation_and_derivative_worked_by_hand(layer, z, a, slope):
    allocated(layer, 1, 3)
    np.testing.assert_allclose(layer.forward(np.array([z], float)), [a], rtol=1e-12, atol=1e-15)
    da = np.array([[2.0, -3.0, 5.0]])
    np.testing.assert_allclose(layer.backward(da), da * slope, rtol=1e-9, atol=1e-15)


def test_sigmoid_equals_the_textbook_formula():
    z = np.linspace(-30, 30, 601)
    np.testing.assert_allclose(sigmoid(z), 1 / (1 + np.exp(-z)), rtol=0, atol=5e-16)  # two roundings near 1


def test_normal_cdf_equals_erfc_to_rounding():
    """A few roundings, and the rounding of z² in exp(-z² / 2), which grows with z²."""
    for dtype, reach in ((np.float64, 37), (np.float32, 12)):  # the smallest positive numbers
        z = np.linspace(-reach, reach, 20_001).astype(dtype)
        expected = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in z.tolist()])
        cdf, e = normal_cdf(z)
        assert cdf.dtype == e.dtype == dtype
        error = np.abs(cdf / expected - 1) / (1 + z.astype(float) ** 2)
        assert error.max() < 4 * np.finfo(dtype).eps
    np.testing.assert_array_equal(normal_cdf(np.array([-1e30, 0, 1e30], np.float32))[0], [0, 0.5, 1])


def test_selu_keeps_mean_0_and_variance_1():
    """Means over N(0, 1) by the trapezoidal rule."""
    z = np.linspace(-12, 12, 240_001)[None]
    a, density = allocated(SELU(), *z.shape).forward(z), np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * 1e-4
    np.testing.assert_allclose([(a * density).sum(), (a**2 * density).sum()], [0, 1], atol=1e-8)


@pytest.mark.parametrize("alpha", [0, -1, math.inf, math.nan])
def test_elu_rejects_an_alpha_that_is_not_positive(rejects, alpha):
    with rejects("ELU: alpha must be a finite number > 0"):
        ELU(alpha)


@pytest.mark.parametrize("make", [*ACTIVATIONS.values(), Dropout, lambda: Dense(5, 5)])
def test_a_layer_does_not_modify_its_arguments(make):
    layer = allocated(make(), 4, 5)
    z, da = np.random.default_rng(0).standard_normal((2, 4, 5))
    kept = z.copy(), da.copy()
    layer.forward(z)
    layer.backward(da)
    layer.infer(z)
    np.testing.assert_array_equal((z, da), kept)


@pytest.mark.parametrize("slope", [0, 1, -0.1, 2, math.nan])
def test_leaky_relu_rejects_a_slope_outside_0_to_1(rejects, slope):
    with rejects(r"LeakyReLU: slope must be in \(0, 1\)"):
        LeakyReLU(slope)


# ---- Dense -----------------------------------------------------------------------------------------------------------


def test_dense_worked_by_hand():
    layer = allocated(Dense(2, 3), 2, 2)
    layer.W[...] = [[1, 2], [3, 4], [5, 6]]
    layer.b[...] = [10, 20, 30]
    z = layer.forward(np.array([[1.0, 1.0], [0.0, -1.0]]))
    np.testing.assert_array_equal(z, [[13, 27, 41], [8, 16, 24]])
    dx = layer.backward(np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]))
    np.testing.assert_array_equal(dx, [[11, 14], [-2, -2]])  # dz W
    np.testing.assert_array_equal(layer.dW, [[1, 1], [0, -1], [2, 3]])  # dzᵀ x
    np.testing.assert_array_equal(layer.db, [1, 1, 1])


def test_dense_overwrites_the_gradient_instead_of_adding_to_it():
    layer = allocated(Dense(2, 3), 4, 2)
    x, dz = np.random.default_rng(0).standard_normal((4, 2)), np.ones((4, 3))
    layer.forward(x)
    layer.backward(dz)
    dW, db = layer.dW.copy(), layer.db.copy()
    layer.backward_parameters(dz)
    np.testing.assert_array_equal(layer.dW, dW)
    np.testing.assert_array_equal(layer.db, db)


def test_backward_input_of_dense_computes_dx_only():
    layer = allocated(Dense(2, 3), 4, 2)
    x, dz = np.random.default_rng(0).standard_normal((4, 2)), np.ones((4, 3))
    layer.forward(x)
    dx, dW, db = layer.backward(dz).copy(), layer.dW.copy(), layer.db.copy()
    np.testing.assert_array_equal(layer.backward_input(dz), dx)
    layer.backward_input(2 * dz)
    np.testing.assert_array_equal(layer.dW, dW)
    np.testing.assert_array_equal(layer.db, db)


@pytest.mark.parametrize("sizes", [(0, 4), (4, -1), (2.0, 4), (4, "3"), (None, 4)])
def test_dense_rejects_a_size_that_is_not_a_positive_integer(rejects, sizes):
    with rejects("must be an integer >= 1"):
        Dense(*sizes)


# ---- Dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "dtype"), [(0.0, np.float32), (0.2, np.float32), (0.9, np.float32), (0.5, np.float64)]
)
def test_dropout_zeroes_a_fraction_and_keeps_the_mean(rate, dtype):
    n = 100_000
    y = allocated(Dropout(rate), 100, n // 100, dtype).forward(np.ones((100, n // 100), dtype))
    five_errors = 5 * math.sqrt(rate * (1 - rate) / n)
    assert abs((y == 0).mean() - rate) <= five_errors
    assert abs(y.mean(dtype=np.float64) - 1) <= five_errors / (1 - rate) + 1e-6
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_uses_the_same_mask_in_backward():
    layer = allocated(Dropout(0.5), 20, 30)
    x, dy = 1 + np.random.default_rng(1).random((2, 20, 30))
    y = layer.forward(x).copy()
    np.testing.assert_allclose(layer.backward(dy), dy * y / x, rtol=1e-14)


def test_dropout_draws_a_new_mask_at_each_call():
    layer, x = allocated(Dropout(0.5), 20, 30), np.ones((20, 30))
    first = layer.forward(x).copy()
    assert not np.array_equal(layer.forward(x), first)


def test_dropout_does_nothing_in_inference():
    x = np.random.default_rng(0).standard_normal((20, 30))
    layer = allocated(Dropout(0.9), 20, 30)
    state = layer.rng.bit_generator.state
    np.testing.assert_array_equal(layer.infer(x), x)
    assert layer.rng.bit_generator.state == state


def test_two_dropout_layers_of_a_network_draw_different_masks():
    network = Network([Dense(8, 8), Dropout(), Dropout()], rng=0)
    first, second = network.layers[1].rng.random(8), network.layers[2].rng.random(8)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, math.nan, "0.5"])
def test_dropout_rejects_a_rate_outside_its_range(rejects, rate):
    with rejects(r"Dropout: rate must be in \[0, 1\)"):
        Dropout(rate)


# ---- All layers ------------------------------------------------------------------------------------------------------


def test_buffers_are_allocated_once_per_batch_size():
    network = Network([6, 5, 4, 3], activation=["tanh", "sigmoid"], batch_norm=True, dropout=0.2, rng=0)
    rng = np.random.default_rng(0)

    def addresses(batch):
        network.backprop(rng.random((batch, 6), np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, batch)])
        parts = [vars(part) for part in [*network.layers, network.loss]]
        kept = ("z", "dx", "a", "dz", "m", "y", "c", "ones")  # not x, which is the output of the layer below
        return [part[name].__array_interface__["data"][0] for part in parts for name in kept if name in part]

    first = addresses(4)
    assert len(first) >= 3 * 3 + 2 * 2 + 2 * 3 + 2 * 4 + 1
    assert addresses(4) == first
    network.backprop(np.ones((9, 6), np.float32), np.ones((9, 3), np.float32))
    assert network.layers[0].z.shape == (9, 5)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Dense(3, 2, "lecun"), "Dense(n_in=3, n_out=2, init='lecun')"),
        (Dropout(0.25), "Dropout(rate=0.25)"),
        (LeakyReLU(0.2), "LeakyReLU(slope=0.2)"),
        (ELU(0.5), "ELU(alpha=0.5)"),
        (ReLU(), "ReLU()"),
    ],
    ids=repr,
)
def test_repr_and_config_recreate_the_layer(layer, text):
    assert repr(layer) == text
    assert repr(LAYERS[type(layer).__name__](**layer.config())) == text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations_of_extreme_values_are_finite_and_raise_no_floating_point_error(activation, dtype):
    largest = np.finfo(dtype).max / 4
    sizes = np.array([1, 30, 1e4, 1e15, 1e25, largest, np.finfo(dtype).tiny, 1e-10], dtype)
    z = np.concatenate([sizes, -sizes, [0]])[None].astype(dtype)
    layer = ACTIVATIONS[activation]()
    layer.allocate(1, z.size, dtype)
    with np.errstate(all="raise", under="ignore"):  # models and trainers ignore underflow: small numbers become 0
        a = layer.forward(z).copy()
        dz = layer.backward(np.ones_like(z))
    assert a.dtype == dz.dtype == dtype
    assert np.isfinite(a).all()
    assert np.isfinite(dz).all()
    limits = {  # a for z = 1e4 and z = -1e4, and da/dz for z → ∞ and z → -∞
        "sigmoid": (1, 0, 0, 0),
        "tanh": (1, -1, 0, 0),
        "identity": (1e4, -1e4, 1, 1),
        "leaky_relu": (1e4, -100, 1, 0.01),
        "elu": (1e4, -1, 1, 0),
        "selu": (1e4 * SELU_SCALE, -SELU_SCALE * SELU_ALPHA, SELU_SCALE, 0),
    }
    above, below, slope_above, slope_below = limits.get(activation, (1e4, 0, 1, 0))
    np.testing.assert_allclose(a[0, [2, 10]], (above, below), rtol=1e-6)
    np.testing.assert_allclose(dz[0, [2, 10]], (slope_above, slope_below), rtol=1e-6)
    np.testing.assert_allclose(dz[0, 2:6], slope_above, rtol=1e-6)
    np.testing.assert_allclose(dz[0, 10:14], slope_below, rtol=1e-6, atol=0 if slope_below else 1e-6)
