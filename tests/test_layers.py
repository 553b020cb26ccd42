"""The layers one by one: values worked by hand, the ends of the scale, the noise, the buffers."""

import math

import numpy as np
import pytest

from handgrad import Dense, Dropout, GELU, Identity, LeakyReLU, Network, ReLU, Sigmoid, Softplus, Tanh
from handgrad.arrays import spawn_rngs
from handgrad.layers import ACTIVATIONS, LAYERS, sigmoid
from handgrad.network import bind

LN3 = math.log(3)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def ready(layer, batch, n_in, dtype=np.float64, rng=0):
    """The layer with its parameters and buffers, outside of a network."""
    bind([layer], dtype)
    layer.initialize(spawn_rngs(rng))
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
    ],
    ids=repr,
)
def test_activation_and_its_slope_by_hand(layer, z, a, slope):
    ready(layer, 1, 3)
    np.testing.assert_allclose(layer.forward(np.array([z], float)), [a], rtol=1e-12, atol=1e-15)
    da = np.array([[2.0, -3.0, 5.0]])
    np.testing.assert_allclose(layer.backward(da), da * slope, rtol=1e-9, atol=1e-15)


@both_dtypes
@every_activation
def test_extreme_inputs_pass_without_a_warning_and_stay_finite(name, dtype):
    layer = ready(ACTIVATIONS[name](), 2, 3, dtype)
    z = np.array([[1e4, -1e4, 0], [100, -100, -0.0]], dtype)
    a = layer.forward(z).copy()
    dz = layer.backward(np.ones_like(z))
    assert a.dtype == dz.dtype == dtype
    assert np.isfinite(a).all()
    assert np.isfinite(dz).all()
    high, low = a[0, :2]
    leak = 0.01 if name == "leaky_relu" else 1 if name == "identity" else 0
    expected = (1, -1 if name == "tanh" else 0) if name in ("sigmoid", "tanh") else (1e4, -1e4 * leak)
    np.testing.assert_allclose([high, low], expected, rtol=1e-6)
    flat = name in ("sigmoid", "tanh")
    np.testing.assert_allclose(dz[0, :2], [0 if flat else 1, leak], rtol=1e-6)


def test_sigmoid_is_the_textbook_formula():
    z = np.linspace(-30, 30, 601)
    np.testing.assert_allclose(sigmoid(z), 1 / (1 + np.exp(-z)), rtol=0, atol=5e-16)  # two roundings near 1


@every_activation
def test_activation_leaves_its_input_and_the_derivative_given_to_it_alone(name):
    layer = ready(ACTIVATIONS[name](), 4, 5)
    z, da = np.random.default_rng(0).standard_normal((2, 4, 5))
    z_before, da_before = z.copy(), da.copy()
    layer.forward(z)
    layer.backward(da)
    np.testing.assert_array_equal(z, z_before)
    np.testing.assert_array_equal(da, da_before)


@pytest.mark.parametrize("slope", [0, 1, -0.1, 2, math.nan])
def test_leaky_relu_refuses_a_slope_outside_0_to_1(refused, slope):
    with refused("LeakyRelu with slope .* between 0 and 1"):
        LeakyReLU(slope)


# ---- Dense -----------------------------------------------------------------------------------------------------------


def test_dense_by_hand():
    layer = ready(Dense(2, 3), 2, 2)
    layer.W[...] = [[1, 2], [3, 4], [5, 6]]
    layer.b[...] = [10, 20, 30]
    z = layer.forward(np.array([[1.0, 1.0], [0.0, -1.0]]))
    np.testing.assert_array_equal(z, [[13, 27, 41], [8, 16, 24]])
    dx = layer.backward(np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]))
    np.testing.assert_array_equal(dx, [[11, 14], [-2, -2]])  # dz W
    np.testing.assert_array_equal(layer.dW, [[1, 1], [0, -1], [2, 3]])  # dzᵀ x
    np.testing.assert_array_equal(layer.db, [1, 1, 1])


def test_dense_gradient_replaces_the_last_one_and_does_not_add_to_it():
    layer = ready(Dense(2, 3), 4, 2)
    x, dz = np.random.default_rng(0).standard_normal((4, 2)), np.ones((4, 3))
    layer.forward(x)
    layer.backward(dz)
    dW, db = layer.dW.copy(), layer.db.copy()
    layer.backward_parameters(dz)
    np.testing.assert_array_equal(layer.dW, dW)
    np.testing.assert_array_equal(layer.db, db)


def test_dense_gives_dx_alone_and_leaves_the_gradient():
    layer = ready(Dense(2, 3), 4, 2)
    x, dz = np.random.default_rng(0).standard_normal((4, 2)), np.ones((4, 3))
    layer.forward(x)
    dx, dW, db = layer.backward(dz).copy(), layer.dW.copy(), layer.db.copy()
    np.testing.assert_array_equal(layer.backward_input(dz), dx)
    layer.backward_input(2 * dz)
    np.testing.assert_array_equal(layer.dW, dW)
    np.testing.assert_array_equal(layer.db, db)


@pytest.mark.parametrize("n", [0, -1, 2.0, "3", None])
@pytest.mark.parametrize("place", [0, 1])
def test_dense_refuses_a_size_that_is_no_whole_number_from_1(refused, n, place):
    sizes = [4, 4]
    sizes[place] = n
    with refused("expected a whole number, 1 or more"):
        Dense(*sizes)


def test_dense_refuses_an_unknown_initializer_and_names_the_nearest(refused):
    with refused("unknown initializer 'kaimin_normal': did you mean 'kaiming_normal'"):
        Dense(2, 2, "kaimin_normal")


# ---- Dropout ---------------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate, dtype):
    n = 100_000
    y = ready(Dropout(rate), 100, n // 100, dtype).forward(np.ones((100, n // 100), dtype))
    five_errors = 5 * math.sqrt(rate * (1 - rate) / n)
    assert abs((y == 0).mean() - rate) <= five_errors
    assert abs(y.mean(dtype=np.float64) - 1) <= five_errors / (1 - rate) + 1e-6
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_takes_the_same_mask_back():
    layer = ready(Dropout(0.5), 20, 30)
    x, dy = 1 + np.random.default_rng(1).random((2, 20, 30))
    y = layer.forward(x).copy()
    np.testing.assert_allclose(layer.backward(dy), dy * y / x, rtol=1e-14)


def test_dropout_draws_a_new_mask_each_time():
    layer, x = ready(Dropout(0.5), 20, 30), np.ones((20, 30))
    first = layer.forward(x).copy()
    assert not np.array_equal(layer.forward(x), first)


def test_dropout_does_nothing_once_trained():
    x = np.random.default_rng(0).standard_normal((20, 30))
    layer = ready(Dropout(0.9), 20, 30)
    state = layer.rng.bit_generator.state
    np.testing.assert_array_equal(layer.infer(x), x)
    assert layer.rng.bit_generator.state == state


def test_two_dropouts_of_one_network_draw_different_masks():
    network = Network([Dense(8, 8), Dropout(), Dropout()], rng=0)
    first, second = network.layers[1].rng.random(8), network.layers[2].rng.random(8)
    assert not np.array_equal(first, second)


def test_dropout_does_not_move_the_initialization():
    plain = Network([Dense(8, 7), Dense(7, 3)], rng=5)
    noisy = Network([Dropout(), Dense(8, 7), Dropout(), Dense(7, 3)], rng=5)
    np.testing.assert_array_equal(plain.parameters, noisy.parameters)


def test_a_wider_layer_does_not_move_the_masks():
    narrow, wide = (Network([Dense(n, 4), Dropout()], rng=5).layers[1].rng.random(8) for n in (3, 300))
    np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, math.nan])
def test_dropout_refuses_a_rate_outside_its_range(refused, rate):
    with refused("Dropout with rate .* from 0 up to, but not, 1"):
        Dropout(rate)


# ---- All of them -----------------------------------------------------------------------------------------------------


def test_buffers_are_made_once_for_a_batch_size():
    network = Network([Dense(6, 5), Tanh(), Dropout(), Dense(5, 4), Sigmoid(), Dense(4, 3)], rng=0)
    rng = np.random.default_rng(0)

    def addresses(batch):
        network.backprop(rng.random((batch, 6), np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, batch)])
        own = [layer.__dict__ for layer in [*network.layers, network.loss]]
        kept = ("z", "dx", "a", "dz", "m", "y", "ones")  # all but x, which is the layer's below
        return [d[name].__array_interface__["data"][0] for d in own for name in kept if name in d]

    first = addresses(4)
    assert len(first) >= 3 * 3 + 2 * 2 + 3 + 1
    assert addresses(4) == first
    network.backprop(np.ones((9, 6), np.float32), np.ones((9, 3), np.float32))
    assert network.layers[0].z.shape == (9, 5)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Dense(3, 2, "lecun"), "Dense(n_in=3, n_out=2, init='lecun')"),
        (Dropout(0.25), "Dropout(rate=0.25)"),
        (LeakyReLU(0.2), "LeakyRelu(slope=0.2)"),
        (ReLU(), "Relu()"),
    ],
    ids=repr,
)
def test_repr_and_config_make_the_layer_again(layer, text):
    assert repr(layer) == text
    again = LAYERS[type(layer).__name__](**layer.config())
    assert repr(again) == text


@every_activation
def test_width_passes_through_an_activation(name):
    assert ACTIVATIONS[name]().width(17) == 17
    assert ACTIVATIONS[name]().n_in is None
    assert Dense(3, 8).width(3) == 8
