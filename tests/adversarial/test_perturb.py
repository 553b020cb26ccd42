"""Adversarial training: the input gradient, the perturbations of a batch, and their effect on training."""

import copy
import json

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adversarial,
    CrossEntropy,
    Dense,
    Dropout,
    Layer,
    Network,
    ReLU,
    SquaredError,
    Trainer,
    VirtualAdversarial,
    deepfool,
    one_hot,
)
from handgrad.losses import LOSSES

RNG = np.random.default_rng(5)
X = RNG.random((8, 6))
Y = np.arange(8) % 4
T = one_hot(Y, 4, np.float64)
NORMS = pytest.mark.parametrize("norm", ["l2", "linf"])
ALL_LOSSES = pytest.mark.parametrize("loss", [*LOSSES, SquaredError("sigmoid")], ids=str)
BOTH_METHODS = pytest.mark.parametrize("method", [Adversarial, VirtualAdversarial])


def smooth_network(loss="cross_entropy", dtype=np.float64):
    return Network([6, 7, 4], activation="tanh", loss=loss, rng=2, dtype=dtype)


def losses(network, x, t):
    """The loss of each example, (count,)."""
    return np.array([network.loss.value(network.outputs(x[i : i + 1]), t[i : i + 1]) for i in range(len(x))])


def lengths(norm, r):
    return np.linalg.norm(r, axis=1) if norm == "l2" else np.abs(r).max(axis=1)


# ---- Input gradient --------------------------------------------------------------------------------------------------


@ALL_LOSSES
def test_input_gradient_equals_finite_differences(loss):
    network, h = smooth_network(loss), 1e-5
    dx = network.input_gradient(X, T).copy()
    numerical = np.empty_like(dx)
    for i, j in np.ndindex(dx.shape):
        step = np.zeros_like(X)
        step[i, j] = h
        above, below = (network.loss.value(network.outputs(X + s * step), T) for s in (1, -1))
        numerical[i, j] = (above - below) / (2 * h)
    np.testing.assert_allclose(dx, numerical, rtol=1e-6, atol=1e-10)


def test_input_gradient_does_not_change_gradient_parameters_or_x():
    network = Network([Dropout(0.2), Dense(6, 7), ReLU(), Dropout(0.3), Dense(7, 4)], rng=0, dtype=np.float64)
    network.backprop(X, T)
    gradient, parameters, x = network.gradient.copy(), network.parameters.copy(), X.copy()
    network.input_gradient(X, T)
    np.testing.assert_array_equal(network.gradient, gradient)
    np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(X, x)


@pytest.mark.parametrize("weight", [2.0, np.arange(8.0)[:, None]], ids=["number", "column"])
def test_input_gradient_applies_weights(weight):
    network = smooth_network()
    mean = network.input_gradient(X, T).copy()
    np.testing.assert_allclose(network.input_gradient(X, T, weight), 8 * weight * mean, rtol=1e-12)


class Scale(Layer):
    """y = s x, with only forward and backward."""

    n_in = 6
    parameter_shapes = {"s": (6,)}  # noqa: RUF012

    def forward(self, x):
        self.x = x
        return x * self.s

    def backward(self, dy):
        self.ds[...] = (dy * self.x).sum(axis=0)
        return dy * self.s


def test_input_gradient_of_a_custom_layer_with_only_forward_and_backward():
    custom = Network([Scale(), Dense(6, 4)], rng=1, dtype=np.float64)
    custom.layers[0].s[...] = s = np.array([1.0, -1, 2, 0.5, 3, 1])
    plain = Network([Dense(6, 4)], rng=1, dtype=np.float64)
    plain.parameters[...] = custom.parameters[6:]
    np.testing.assert_allclose(custom.input_gradient(X, T), s * plain.input_gradient(X * s, T), rtol=1e-12)


def test_backward_input_accepts_any_derivative_of_the_outputs():
    network = smooth_network()
    network.forward(X[:1])
    rows = [network.backward_input(np.eye(4)[k : k + 1]).copy()[0] for k in range(4)]
    network.forward(np.repeat(X[:1], 4, axis=0))
    np.testing.assert_allclose(network.backward_input(np.eye(4)), rows, rtol=1e-12)
    h, v = 1e-6, RNG.standard_normal(6)
    numerical = (network.outputs(X[:1] + h * v) - network.outputs(X[:1] - h * v))[0] / (2 * h)
    np.testing.assert_allclose(np.array(rows) @ v, numerical, rtol=1e-6)


# ---- Adversarial -----------------------------------------------------------------------------------------------------


@NORMS
@ALL_LOSSES
def test_loss_increases_by_epsilon_times_the_dual_norm_of_dx(norm, loss):
    network, epsilon = smooth_network(loss), 1e-6
    dx = network.input_gradient(X, T, 1).copy()
    x, _ = Adversarial(epsilon, norm, share=1)(network, X, T)
    increase = (losses(network, x, T) - losses(network, X, T)) / epsilon
    expected = np.linalg.norm(dx, axis=1) if norm == "l2" else np.abs(dx).sum(axis=1)
    np.testing.assert_allclose(increase, expected, rtol=1e-4)


@NORMS
def test_no_other_step_of_the_same_length_increases_the_loss_more(norm):
    network, epsilon = smooth_network(), 1e-3
    x, _ = Adversarial(epsilon, norm, share=1)(network, X, T)
    best = losses(network, x, T)
    for _ in range(50):
        r = RNG.standard_normal(X.shape) if norm == "l2" else RNG.choice([-1.0, 1.0], X.shape)
        r *= (epsilon / lengths(norm, r))[:, None]
        assert (losses(network, X + r, T) <= best + 1e-8).all()


class WrongSign(Adversarial):
    """A planted error."""

    def _scale(self, dx, out):
        super()._scale(-dx, out)


@NORMS
def test_a_wrong_sign_decreases_the_loss(norm):
    network = smooth_network()
    before = losses(network, X, T)
    for method, sign in ((Adversarial, 1), (WrongSign, -1)):
        x, _ = method(0.01, norm, share=1)(network, X, T)
        assert (sign * (losses(network, x, T) - before) > 0).all()


@NORMS
@BOTH_METHODS
def test_only_the_share_is_perturbed_and_the_arguments_are_not_modified(norm, method):
    x_given, t_given = X.copy(), T.copy()
    for array in (x_given, t_given):
        array.flags.writeable = False
    for share, count in ((0.0, 0), (0.25, 2), (1.0, 8)):
        x, t = method(0.3, norm, share)(smooth_network(), x_given, t_given)
        np.testing.assert_allclose(lengths(norm, x - X), [0.3] * count + [0.0] * (8 - count), rtol=1e-9, atol=0)
        np.testing.assert_array_equal(t[count:], T[count:])
        np.testing.assert_array_equal(x[count:], X[count:])
        if method is Adversarial:
            assert t is t_given


@NORMS
@BOTH_METHODS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_that_of_the_network_and_buffers_are_reused(norm, method, dtype):
    network, perturb = smooth_network(dtype=dtype), method(0.1, norm)
    x, t = perturb(network, X.astype(dtype), T.astype(dtype))
    assert (x.dtype, t.dtype) == (dtype, dtype)
    smaller, _ = perturb(network, X.astype(dtype)[:5], T.astype(dtype)[:5])
    assert smaller.shape == (5, 6)
    assert np.shares_memory(x, smaller)
    other, _ = perturb(smooth_network(dtype=np.float64), X, T)
    assert other.dtype == np.float64


@NORMS
def test_an_example_with_zero_gradient_is_unchanged(norm):
    network = smooth_network(dtype=np.float32)
    network.parameters[...] = 0
    x = X.astype(np.float32)
    perturbed, _ = Adversarial(0.1, norm, share=1)(network, x, T.astype(np.float32))
    np.testing.assert_array_equal(perturbed, x)


@NORMS
def test_perturbations_follow_the_parameters_and_the_network(norm):
    network, perturb = smooth_network(), Adversarial(0.1, norm)

    def expected(network):
        return Adversarial(0.1, norm)(network, X, T)[0]

    perturb(network, X, T)
    network.parameters *= 1.5  # in place, as an optimizer does
    np.testing.assert_array_equal(perturb(network, X, T)[0], expected(network))
    other = Network([6, 3, 4], rng=9, dtype=np.float64)
    np.testing.assert_array_equal(perturb(other, X, T)[0], expected(other))
    perturb(network, X, T)
    network, perturb = copy.deepcopy((network, perturb))  # the copied buffers of `perturb` have their own parameters
    network.parameters *= 0.5
    np.testing.assert_array_equal(perturb(network, X, T)[0], expected(network))


def test_perturbing_uses_the_generators_of_the_network_but_not_its_buffers():
    network = Network([Dense(6, 7), ReLU(), Dropout(0.5), Dense(7, 4)], rng=0, dtype=np.float64)
    z = network.backprop(X, T)
    gradient, outputs, state = network.gradient.copy(), z.copy(), network.layers[2].rng.bit_generator.state
    Adversarial(0.1)(network, X, T)
    assert network.layers[2].rng.bit_generator.state != state
    np.testing.assert_array_equal(z, outputs)
    np.testing.assert_array_equal(network.gradient, gradient)


def test_adversarial_training_makes_the_network_more_robust(digits):
    x, y, x_test, y_test = digits
    x, x_test = x.reshape(-1, 64) / np.float32(255), x_test.reshape(-1, 64) / np.float32(255)
    robustness, accuracy = [], []
    for perturb in (None, Adversarial(1.0)):
        network = Network([64, 24, 10], activation="relu", loss="cross_entropy", rng=0)
        Trainer(network, SGD(0.2), batch_size=20, perturb=perturb, rng=0).fit(x, y, epochs=10)
        robustness.append(np.median([deepfool(network, image).l2 for image in x_test[:15]]))
        accuracy.append(network.evaluate(x_test, y_test).accuracy)
    assert min(accuracy) > 0.9
    assert robustness[1] > 1.1 * robustness[0]


def test_repr():
    assert repr(Adversarial(1.0)) == "Adversarial(epsilon=1.0, norm='l2', share=0.5)"
    assert repr(VirtualAdversarial(1, "linf", rng=0)) == (
        "VirtualAdversarial(epsilon=1.0, norm='linf', share=0.5, xi=0.1)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "epsilon must be a finite number > 0, got 0.0"),
        ((np.nan,), "epsilon must be .* got nan"),
        ((0.1, "l3"), "unknown norm 'l3'"),
        ((0.1, "l2", 1.5), r"share must be in \[0, 1\], got 1.5"),
    ],
)
def test_invalid_argument_raises(rejects, arguments, message):
    with rejects(message):
        Adversarial(*arguments)


# ---- VirtualAdversarial ----------------------------------------------------------------------------------------------


def test_virtual_targets_have_a_gradient_of_0_at_any_temperature():
    network = smooth_network()
    network.loss = CrossEntropy(temperature=4)
    targets = VirtualAdversarial(0.05, share=1, rng=0)(network, X, T)[1]
    np.testing.assert_allclose(network.input_gradient(X, targets), 0, atol=1e-14)


def test_virtual_targets_are_the_predictions_and_perturbations_increase_the_divergence():
    network = smooth_network()
    p = network.predict_proba(X)
    x, t = VirtualAdversarial(0.05, share=1, rng=0)(network, X, T)
    np.testing.assert_allclose(t, p, rtol=1e-12)

    def divergence(x):
        return (p * np.log(p / network.predict_proba(x))).sum(axis=1)

    random = RNG.standard_normal((200, *X.shape))
    random *= 0.05 / np.linalg.norm(random, axis=2, keepdims=True)
    assert (divergence(x) > 2 * np.mean([divergence(X + r) for r in random], axis=0)).all()


def test_virtual_perturbations_are_reproducible_and_resume_from_a_checkpoint():
    network = smooth_network()
    first, second = (VirtualAdversarial(0.1, rng=3) for _ in range(2))
    first_call = first(network, X, T)[0].copy()
    state = json.loads(json.dumps(first.state_dict()))
    second_call = first(network, X, T)[0].copy()
    np.testing.assert_array_equal(second(network, X, T)[0], first_call)
    resumed = VirtualAdversarial(0.1, rng=99)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(resumed(network, X, T)[0], second_call)
    assert (first_call != second_call).any()


def test_invalid_xi_raises(rejects):
    with rejects("xi must be a finite number > 0, got 0"):
        VirtualAdversarial(0.1, xi=0)
