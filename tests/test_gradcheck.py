"""Gradient check: correct gradients pass, and every kind of wrong gradient is caught by name."""

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
    ReLU,
    Sigmoid,
    SquaredError,
    Tanh,
    check_gradient,
)
from handgrad.gradcheck import STEPS, TOLERANCE, Check, GradientError, check_all, gradient_errors
from handgrad.layers import ACTIVATIONS, sigmoid
from handgrad.losses import LOSSES

RNG = np.random.default_rng(7)
X = RNG.standard_normal((6, 5))
LABELS = np.array([0, 1, 2, 0, 1, 2])
Z = RNG.standard_normal((6, 3))
ALL_LOSSES = {name: make() for name, make in LOSSES.items()} | {"squared_error_of_sigmoid": SquaredError("sigmoid")}
every_loss = pytest.mark.parametrize("loss", ALL_LOSSES.values(), ids=ALL_LOSSES)


# ---- Correct gradients -----------------------------------------------------------------------------------------------


@every_loss
def test_the_gradient_of_a_network_entry_by_entry(loss):
    network = Network([4, 5, 3, 3], activation="gelu", loss=loss, init="lecun", rng=3, dtype=np.float64)
    x, h = X[:, :4], 1e-5
    t = network.loss.targets(np.eye(3)[LABELS], 6, 3, np.float64)
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
    """y = s x with one s per column."""

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
def test_a_custom_layer_passes(layer, names):
    checks = check_gradient(layer, X)
    assert [check.name for check in checks] == names
    assert all(check.passed and check.error <= TOLERANCE for check in checks)


def test_custom_layers_pass_in_a_network():
    network = Network([Scale(5), Dense(5, 4), Swish(), Dense(4, 3)], rng=0)
    network.layers[0].s[...] = [1, -1, 2, 0.5, 3]
    names = [check.name for check in check_gradient(network, X, np.eye(3)[LABELS])]
    assert names == ["layer 0 Scale ds", *(f"layer {i} Dense d{p}" for i in (1, 3) for p in "Wb"), "dx"]


def test_a_check_does_not_change_the_network_and_the_inputs():
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


def test_inputs_may_be_integers_or_images():
    check_gradient(Dense(2, 3), np.array([[3, 7]], np.uint8))
    check_gradient(Network([6, 3], rng=0), np.full((2, 2, 3), 255, np.uint8), [0, 1])


def test_a_kink_within_the_step_is_no_error():
    x = np.array([[1e-6, -1e-6, 1.0, -1.0]])
    assert abs(x).min() < STEPS[0]
    check_gradient(ReLU(), x)


def test_a_small_error_of_a_small_gradient_is_found():
    class Inaccurate(Dense):
        def backward_parameters(self, dy):
            super().backward_parameters(dy)
            self.dW *= 1.001

    hidden = [layer for _ in range(10) for layer in (Dense(5, 5), Sigmoid())]
    network = Network([Inaccurate(5, 5), Sigmoid(), *hidden, Dense(5, 3)], loss="cross_entropy", rng=0)
    with pytest.raises(GradientError, match="layer 0 Inaccurate dW is wrong"):
        check_gradient(network, X, LABELS)


# ---- Wrong gradients: layers -----------------------------------------------------------------------------------------


def planted(base, wrong, *arguments):
    """A layer of the class `base` whose backward returns `wrong(layer, dy, dx)` instead of dx."""

    class Planted(base):
        def backward(self, dy):
            return wrong(self, dy, super().backward(dy))

    return Planted(*arguments)


def changed(name, how):
    """A `wrong` that changes the derivative of one parameter in place."""

    def wrong(layer, dy, dx):
        derivative = getattr(layer, f"d{name}")
        derivative[...] = how(derivative.copy())
        return dx

    return wrong


def one_entry(factor):
    def how(d):
        d.flat[np.abs(d).argmax()] *= factor  # not an entry that is 0
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
    "a single entry missing": one_entry(0),
    "the rows in reverse": lambda d: d[::-1],
    "twice": lambda d: 2 * d,
}
every_way = pytest.mark.parametrize("how", HOW.values(), ids=HOW)
SOME = "0.1 % too long", "NaN in a single entry", "a single entry missing"
some_ways = pytest.mark.parametrize("how", [HOW[name] for name in SOME], ids=SOME)


def caught(name):
    return pytest.raises(GradientError, match=rf"^{re.escape(name)} is wrong: relative error \S+, expected at most")


@every_way
def test_a_wrong_derivative_of_a_parameter_is_caught(how):
    with caught("Planted dW"):
        check_gradient(planted(Dense, changed("W", how), 5, 4), X)


@some_ways
@pytest.mark.parametrize(("base", "arguments"), [(Dense, (5, 4)), (Tanh, ())])
def test_a_wrong_dx_is_caught(base, arguments, how):
    with caught("Planted dx"):
        check_gradient(planted(base, lambda layer, dy, dx: how(dx.copy()), *arguments), X)


@pytest.mark.parametrize(
    ("base", "arguments"),
    [*((make, ()) for make in ACTIVATIONS.values()), (Dropout, (0.1,)), (Swish, ()), (Scale, (5,))],
)
def test_a_single_wrong_entry_of_dx_is_caught_in_every_layer(base, arguments):
    for factor in (1.01, 0):
        with caught("Planted dx"):
            check_gradient(
                planted(base, lambda layer, dy, dx, factor=factor: one_entry(factor)(dx.copy()), *arguments), X
            )


@pytest.mark.parametrize("derivative", ["W", "x"])
def test_a_transposed_derivative_is_caught(derivative):
    wrong = {"W": changed("W", np.transpose), "x": lambda layer, dy, dx: dy @ layer.W.T}[derivative]
    with caught(f"Planted d{derivative}"):
        check_gradient(planted(Dense, wrong, 5, 5), X)


def test_a_forgotten_bias_is_caught():
    with caught("Planted db"):
        check_gradient(planted(Dense, changed("b", np.zeros_like), 5, 4), X)


def test_a_mean_over_the_batch_instead_of_the_sum_is_caught():
    with caught("Planted db"):
        check_gradient(planted(Dense, changed("b", lambda db: db / len(X)), 5, 4), X)


@pytest.mark.parametrize("base", [Sigmoid, Tanh, Swish])
def test_a_forgotten_derivative_of_the_activation_is_caught(base):
    with caught("Planted dx"):
        check_gradient(planted(base, lambda layer, dy, dx: dy), X)


class Adding(Scale):
    """A Scale that adds to the derivative instead of overwriting it, as other libraries do."""

    def backward(self, dy):
        self.ds += (dy * self.x).sum(axis=0)
        return dy * self.s


@pytest.mark.parametrize(
    ("subject", "name"), [(Adding(5), "Adding ds"), (Network([Adding(5), Dense(5, 3)], rng=0), "layer 0 Adding ds")]
)
def test_a_derivative_that_accumulates_is_caught(subject, name):
    with caught(name):
        check_gradient(subject, X, LABELS)


class Rebinding(Scale):
    """A Scale that replaces the array of the derivative, which the optimizer would not see."""

    def backward(self, dy):
        self.ds = (dy * self.x).sum(axis=0)
        return dy * self.s


def test_a_derivative_that_is_not_written_into_its_array_is_caught(rejects):
    with rejects(r"Rebinding ds is wrong: relative error nan.*; backward must write all of it: self.ds\[...\] = val"):
        check_gradient(Rebinding(5), X)


@pytest.mark.parametrize(
    ("forward", "backward", "message"),
    [
        (lambda x: x * np.sqrt(2), lambda dy: dy, r"y of forward has shape \(6, 5\) and dtype float64: expected .*32"),
        (lambda x: x[:, :2], lambda dy: dy, r"y of forward has shape \(6, 2\) and .*expected shape \(6, 5\)"),
        (lambda x: None, lambda dy: dy, "y of forward is None: expected"),
        (lambda x: x, lambda dy: dy.sum(axis=0), r"dx of backward has shape \(5,\)"),
    ],
)
def test_arrays_that_a_network_cannot_use_are_caught(forward, backward, message, rejects):
    class Unusable(Layer):
        def forward(self, x):
            return forward(x)

        def backward(self, dy):
            return backward(dy)

    with rejects(f"Unusable: {message}"):
        check_gradient(Unusable(), X)


def test_a_new_dropout_mask_in_backward_is_caught():
    def redraw(layer, dy, dx):
        return dy * (layer.rng.random(dy.shape) >= layer.rate) / (1 - layer.rate)

    with caught("Planted dx"):
        check_gradient(planted(Dropout, redraw, 0.5), X)


# ---- Wrong gradients: losses -----------------------------------------------------------------------------------------


def planted_loss(base, how):
    class Planted(base):
        def backward(self, z, t, weight):
            return how(super().backward(z, t, weight).copy())

    return Planted()


@some_ways
def test_a_wrong_derivative_of_a_loss_is_caught(how):
    """test_losses.py plants errors into every loss."""
    with caught("Planted dz"):
        check_gradient(planted_loss(BinaryCrossEntropy, how), Z, LABELS)


def test_a_loss_that_ignores_the_weights_of_the_examples_is_caught():
    class Unweighted(BinaryCrossEntropy):
        def backward(self, z, t, weight):
            return super().backward(z, t, 1 / len(z))

    with caught("Unweighted dz with weights of the examples"):
        check_gradient(Unweighted(), Z, LABELS)


def test_a_loss_whose_derivative_has_another_dtype_is_caught(rejects):
    with rejects("dz of backward has .* dtype float64: expected .* float32"):
        check_gradient(planted_loss(BinaryCrossEntropy, lambda dz: dz.astype(float)), Z, LABELS)


# ---- Wrong gradients: networks ---------------------------------------------------------------------------------------


@every_way
def test_a_wrong_derivative_in_a_network_is_named_with_its_layer(how):
    wrong = planted(Dense, changed("W", how), 4, 3)
    with caught("layer 2 Planted dW"):
        check_gradient(Network([Dense(5, 4), Tanh(), wrong], rng=0), X, LABELS)


@some_ways
def test_a_wrong_activation_is_caught_in_the_layer_below(how):
    wrong = planted(Tanh, lambda layer, dy, dx: how(dx.copy()))
    with caught("layer 0 Dense dW"):
        check_gradient(Network([Dense(5, 4), wrong, Dense(4, 3)], rng=0), X, LABELS)


@some_ways
def test_a_wrong_loss_is_caught_in_a_network(how):
    with caught("layer 0 Dense dW"):
        check_gradient(Network([5, 4, 3], loss=planted_loss(BinaryCrossEntropy, how), rng=0), X, LABELS)


@some_ways
def test_a_wrong_backward_input_is_caught(how):
    class Planted(Dense):
        def backward_input(self, dz):
            return how(super().backward_input(dz).copy())

        def backward(self, dz):
            self.backward_parameters(dz)
            return super().backward_input(dz)

    with caught("dx"):
        check_gradient(Network([Planted(5, 4), Tanh(), Dense(4, 3)], rng=0), X, LABELS)


# ---- The report ------------------------------------------------------------------------------------------------------


def test_gradient_errors_reports_all_checks_and_does_not_raise():
    layer = planted(Dense, changed("W", lambda dW: 1.001 * dW), 5, 4)
    passed = {check.name: check.passed for check in gradient_errors(layer, X)}
    assert passed == {"Planted dx": True, "Planted dW": False, "Planted db": True}


def test_the_relative_error_is_the_size_of_the_error():
    layer = planted(Dense, changed("W", lambda dW: 1.001 * dW), 5, 4)
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
def test_a_check_without_targets_is_rejected(rejects, subject):
    with rejects("needs y: labels or targets"):
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
def test_invalid_inputs_are_rejected(rejects, subject, x, y):
    with rejects("expected"):
        check_gradient(subject, x, y)


# ---- All of handgrad -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_checks():
    return list(check_all())


def test_all_of_handgrad_passes(all_checks):
    assert [check for check in all_checks if not check.passed] == []


def test_check_all_covers_every_layer_loss_and_combination(all_checks):
    alone = {check.name.split(",")[0] for check in all_checks}
    assert {f"{activation.__name__} dx" for activation in ACTIVATIONS.values()} <= alone
    assert {f"{loss.__name__} dz" for loss in LOSSES.values()} <= alone
    assert {"Dense dx", "Dense dW", "Dense db", "Dropout dx", "BatchNorm dx", "BatchNorm dg", "BatchNorm db"} <= alone
    networks = {check.name.split(":")[0] for check in all_checks}
    assert {f"{activation} + {loss!r}" for activation in ACTIVATIONS for loss in ALL_LOSSES.values()} <= networks
    assert {f"output {activation} + squared_error" for activation in ACTIVATIONS} <= networks
    assert {"784-30-10", "one output + BinaryCrossEntropy()"} <= networks
    names = [check.name for check in all_checks]
    assert any("soft labels, temperature 4" in name for name in names)
    assert any("SquaredError dz, batch 7, label smoothing 0.1" in name for name in names)
    assert {f"BatchNorm dx, batch {batch}" for batch in (1, 2, 7)} <= set(names)
    norms = [name for name in names if "batch norm" in name]
    for part in ("layer 0 BatchNorm dg", "layer 2 BatchNorm dg", "layer 9 BatchNorm db"):
        assert any(part in name for name in norms)


@pytest.mark.parametrize("name", ["cross_entropy", "huber"])
def test_check_all_catches_a_wrong_loss_alone_and_in_networks(name, monkeypatch):
    make = LOSSES[name]
    correct = make.backward
    monkeypatch.setattr(make, "backward", lambda self, z, t, weight: 1.01 * correct(self, z, t, weight))
    wrong = [check.name for check in check_all() if not check.passed]
    assert any(found.startswith(f"{make.__name__} dz, batch 7") for found in wrong)
    assert any(found.startswith(f"tanh + {make()!r}: layer 0") for found in wrong)
    others = [loss for loss in ALL_LOSSES.values() if type(loss) is not make]
    assert not any(f"+ {other!r}:" in found for found in wrong for other in others)


@pytest.mark.parametrize("make", [Dense, Dropout, Tanh])
def test_check_all_catches_a_wrong_layer(make, monkeypatch):
    correct = make.backward
    monkeypatch.setattr(make, "backward", lambda self, dy: 1.01 * correct(self, dy))
    wrong = [check.name for check in check_all() if not check.passed]
    assert any(found.startswith(f"{make.__name__} dx, batch 7") for found in wrong)
