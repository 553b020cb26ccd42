"""The checker, checked: what is right passes, and every kind of wrong gradient is caught by name."""

import re

import numpy as np
import pytest

from handgrad import (
    BinaryCrossEntropy,
    Dense,
    Dropout,
    HandgradError,
    Layer,
    Network,
    Quadratic,
    ReLU,
    Sigmoid,
    CrossEntropy,
    Tanh,
    check_gradient,
)
from handgrad.gradcheck import TOLERANCE, Check, GradientError, gradient_errors
from handgrad.layers import sigmoid
from handgrad.losses import LOSSES

RNG = np.random.default_rng(7)
X = RNG.standard_normal((6, 5))
LABELS = np.array([0, 1, 2, 0, 1, 2])
Z = RNG.standard_normal((6, 3))


# ---- What is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["sigmoid", "gelu"])
def test_whole_network_entry_by_entry(loss, activation):
    network = Network([4, 5, 3, 3], activation=activation, loss=loss, init="lecun", rng=3, dtype=np.float64)
    x, h = X[:, :4], 1e-5
    t = network.loss.targets(LABELS, 6, 3, np.float64)
    network.backprop(x, t)
    derived, numerical = network.gradient.copy(), np.empty_like(network.gradient)
    for i in range(len(numerical)):
        kept = network.parameters[i]
        network.parameters[i] = kept + h
        above = network.loss.value(network.forward(x), t)
        network.parameters[i] = kept - h
        below = network.loss.value(network.forward(x), t)
        network.parameters[i] = kept
        numerical[i] = (above - below) / (2 * h)
    assert np.abs(derived).max() > 1e-3
    np.testing.assert_allclose(derived, numerical, rtol=1e-6, atol=1e-9)  # h² and rounding / h


class Scale(Layer):
    """y = s x, s one for each column."""

    def __init__(self, n):
        self.n_in = n
        self.parameter_shapes = {"s": (n,)}

    def forward(self, x):
        self.x = x
        return x * self.s

    def backward(self, dy):
        self.ds[...] = (dy * self.x).sum(axis=0)
        return dy * self.s


class Swish(Layer):
    """y = x σ(x)"""

    def forward(self, x):
        self.x, self.a = x, sigmoid(x)
        return x * self.a

    def backward(self, dy):
        return dy * (self.a + self.x * self.a * (1 - self.a))


@pytest.mark.parametrize(
    ("layer", "names"), [(Scale(5), ["Scale dx", "Scale ds"]), (Swish(), ["Swish dx"])], ids=["Scale", "Swish"]
)
def test_a_layer_of_ones_own_passes_alone(layer, names):
    checks = check_gradient(layer, X)
    assert [check.name for check in checks] == names
    assert all(check.passed and check.error <= TOLERANCE for check in checks)


@pytest.mark.parametrize("loss", LOSSES)
def test_layers_of_ones_own_pass_inside_a_network(loss):
    network = Network([Scale(5), Dense(5, 4), Swish(), Dense(4, 3)], loss=loss, rng=0)
    network.layers[0].s[...] = [1, -1, 2, 0.5, 3]
    names = [check.name for check in check_gradient(network, X, LABELS)]
    assert names == ["layer 0 Scale ds", *(f"layer {i} Dense d{p}" for i in (1, 3) for p in "Wb"), "dx"]


def test_checking_leaves_the_network_and_the_inputs_as_they_were():
    network = Network([5, 4, 3], rng=0)
    network.backprop(X.astype(np.float32), np.eye(3, dtype=np.float32)[LABELS])
    parameters, gradient, x = network.parameters.copy(), network.gradient.copy(), X.copy()
    check_gradient(network, X, LABELS)
    assert network.dtype == network.parameters.dtype == np.float32
    np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(network.gradient, gradient)
    np.testing.assert_array_equal(X, x)


def test_the_same_rng_gives_the_same_errors():
    first, again, other = (check_gradient(Dense(5, 3), X, rng=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_labels_and_rows_are_checked_alike():
    network = Network([5, 4, 3], rng=0)
    assert check_gradient(network, X, LABELS) == check_gradient(network, X, np.eye(3)[LABELS])


def test_bytes_are_taken_as_any_other_numbers():
    assert all(check.passed for check in check_gradient(Dense(2, 3), np.array([[3, 7]], np.uint8)))


# ---- What is wrong: layers -------------------------------------------------------------------------------------------


def planted(base, wrong, *arguments):
    """A layer of the kind `base` whose backward is spoilt by `wrong(layer, dy, dx)`, which returns another dx."""

    class Planted(base):
        def backward(self, dy):
            return wrong(self, dy, super().backward(dy))

    return Planted(*arguments)


def spoil(name, how):
    """A `wrong` that changes one parameter's derivative in place."""

    def wrong(layer, dy, dx):
        derivative = getattr(layer, f"d{name}")
        derivative[...] = how(derivative.copy())
        return dx

    return wrong


def one_entry(factor):
    def how(d):
        d.flat[d.size // 2] = factor * d.flat[d.size // 2]
        return d

    return how


HOW = {
    "0.1 % too long": lambda d: 1.001 * d,
    "0.1 % too short": lambda d: 0.999 * d,
    "wrong sign": np.negative,
    "all zero": np.zeros_like,
    "NaN": lambda d: np.full_like(d, np.nan),
    "NaN in a single entry": one_entry(np.nan),
    "infinite": lambda d: np.full_like(d, np.inf),
    "a single entry 1 % off": one_entry(1.01),
    "a single entry left out": one_entry(0),
    "the rows in reverse": lambda d: d[::-1],
    "twice": lambda d: 2 * d,
}
every_way = pytest.mark.parametrize("how", HOW.values(), ids=HOW)


def caught(name):
    return pytest.raises(GradientError, match=rf"^{re.escape(name)} is wrong: its relative error is \S+, expected at")


@every_way
@pytest.mark.parametrize("derivative", ["W", "b"])
def test_a_wrong_derivative_by_a_parameter_is_caught(derivative, how):
    with caught(f"Planted d{derivative}"):
        check_gradient(planted(Dense, spoil(derivative, how), 5, 4), X)


@every_way
@pytest.mark.parametrize("base", [Dense, Sigmoid, Tanh, ReLU, Dropout, Swish, Scale])
def test_a_wrong_dx_is_caught(base, how):
    arguments = {Dense: (5, 4), Dropout: (0.1,), Scale: (5,)}.get(base, ())
    with caught("Planted dx"):
        check_gradient(planted(base, lambda layer, dy, dx: how(dx.copy()), *arguments), X)


@pytest.mark.parametrize("derivative", ["W", "x"])
def test_a_transposed_derivative_is_caught(derivative):
    wrong = {"W": spoil("W", np.transpose), "x": lambda layer, dy, dx: dy @ layer.W.T}[derivative]
    with caught(f"Planted d{derivative}"):
        check_gradient(planted(Dense, wrong, 5, 5), X)


def test_a_forgotten_bias_is_caught():
    with caught("Planted db"):
        check_gradient(planted(Dense, spoil("b", np.zeros_like), 5, 4), X)


def test_a_bias_that_takes_the_mean_for_the_sum_is_caught():
    with caught("Planted db"):
        check_gradient(planted(Dense, spoil("b", lambda db: db / len(X)), 5, 4), X)


@pytest.mark.parametrize("base", [Sigmoid, Tanh, Swish])
def test_a_forgotten_derivative_of_the_activation_is_caught(base):
    with caught("Planted dx"):
        check_gradient(planted(base, lambda layer, dy, dx: dy), X)


class Adding(Scale):
    """A Scale whose derivative is added to the one of the batch before, as other libraries have it."""

    def backward(self, dy):
        self.ds += (dy * self.x).sum(axis=0)
        return dy * self.s


@pytest.mark.parametrize(
    ("subject", "name"), [(Adding(5), "Adding ds"), (Network([Adding(5), Dense(5, 3)], rng=0), "layer 0 Adding ds")]
)
def test_a_derivative_that_is_added_and_not_written_is_caught(subject, name):
    with caught(name):
        check_gradient(subject, X, LABELS)


def test_a_mask_drawn_anew_for_backward_is_caught():
    def redraw(layer, dy, dx):
        return dy * (layer.rng.random(dy.shape) >= layer.rate) / (1 - layer.rate)

    with caught("Planted dx"):
        check_gradient(planted(Dropout, redraw, 0.5), X)


# ---- What is wrong: losses -------------------------------------------------------------------------------------------


def planted_loss(base, how):
    class Planted(base):
        def backward(self, z, t, weight):
            return how(super().backward(z, t, weight).copy())

    return Planted()


@pytest.mark.parametrize("power", [-1, 1])
def test_a_temperature_too_many_or_too_few_is_caught(power):
    class Planted(CrossEntropy):
        def backward(self, z, t, weight):
            return super().backward(z, t, weight) * self.temperature**power

    with caught("Planted dz"):
        check_gradient(Planted(temperature=3), Z, LABELS)


@every_way
@pytest.mark.parametrize("base", [Quadratic, BinaryCrossEntropy, CrossEntropy])
def test_a_wrong_derivative_of_a_loss_is_caught(base, how):
    with caught("Planted dz"):
        check_gradient(planted_loss(base, how), Z, LABELS)


@pytest.mark.parametrize("base", [Quadratic, BinaryCrossEntropy, CrossEntropy])
def test_a_missing_mean_is_caught(base):
    with caught("Planted dz"):
        check_gradient(planted_loss(base, lambda dz: len(dz) * dz), Z, LABELS)


# ---- What is wrong: networks -----------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("derivative", ["W", "b"])
def test_a_wrong_derivative_inside_a_network_is_named_by_its_layer(derivative, how):
    wrong = planted(Dense, spoil(derivative, how), 4, 3)
    with caught(f"layer 2 Planted d{derivative}"):
        check_gradient(Network([Dense(5, 4), Tanh(), wrong], rng=0), X, LABELS)


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")  # inf - inf, on the way down
@every_way
def test_a_wrong_activation_shows_in_the_layer_below_it(how):
    wrong = planted(Tanh, lambda layer, dy, dx: how(dx.copy()))
    with caught("layer 0 Dense dW"):
        check_gradient(Network([Dense(5, 4), wrong, Dense(4, 3)], rng=0), X, LABELS)


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")  # inf - inf, on the way down
@every_way
def test_a_wrong_loss_shows_in_a_network(how):
    with caught("layer 0 Dense dW"):
        check_gradient(Network([5, 4, 3], loss=planted_loss(BinaryCrossEntropy, how), rng=0), X, LABELS)


@every_way
def test_a_wrong_way_down_to_the_input_alone_is_caught(how):
    class Planted(Dense):
        def backward_input(self, dz):
            return how(super().backward_input(dz).copy())

        def backward(self, dz):
            self.backward_parameters(dz)
            return super().backward_input(dz)

    with caught("dx"):
        check_gradient(Network([Planted(5, 4), Tanh(), Dense(4, 3)], rng=0), X, LABELS)


# ---- The report ------------------------------------------------------------------------------------------------------


def test_gradient_errors_reports_right_and_wrong_and_does_not_raise():
    layer = planted(Dense, spoil("W", lambda dW: 1.001 * dW), 5, 4)
    passed = {check.name: check.passed for check in gradient_errors(layer, X)}
    assert passed == {"Planted dx": True, "Planted dW": False, "Planted db": True}


def test_an_error_of_one_part_in_a_thousand_is_measured_as_one():
    layer = planted(Dense, spoil("W", lambda dW: 1.001 * dW), 5, 4)
    error = next(check.error for check in gradient_errors(layer, X) if check.name == "Planted dW")
    assert 1e-4 < error < 1e-2


@pytest.mark.parametrize(
    ("error", "passed"), [(0.0, True), (TOLERANCE, True), (2 * TOLERANCE, False), (np.nan, False), (np.inf, False)]
)
def test_a_check_passes_within_the_tolerance(error, passed):
    assert Check("dW", error).passed is passed


def test_a_gradient_error_is_a_handgrad_error():
    assert issubclass(GradientError, HandgradError)


@pytest.mark.parametrize("subject", [BinaryCrossEntropy(), Network([5, 4, 3], rng=0)], ids=["loss", "network"])
def test_a_check_without_targets_is_refused(refused, subject):
    with refused("without y: expected labels or rows of targets"):
        check_gradient(subject, X)


@pytest.mark.parametrize(
    ("subject", "x", "y"),
    [
        (Dense(5, 3), np.ones(5), None),
        (Dense(5, 3), np.ones((2, 4)), None),
        (Dense(5, 3), np.full((2, 5), "a"), None),
        (BinaryCrossEntropy(), np.ones(3), [0]),
        (BinaryCrossEntropy(), Z, LABELS[:-1]),
        (Network([5, 4, 3], rng=0), X[:, :4], LABELS),
    ],
)
def test_inputs_that_are_none_are_refused(refused, subject, x, y):
    with refused("expected"):
        check_gradient(subject, x, y)
