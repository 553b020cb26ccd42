"""Adversarial examples go up the loss by what the calculus says, and the smallest change is one that is needed."""

import copy
import json

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adversarial,
    Dense,
    Dropout,
    Layer,
    Network,
    Relu,
    Tanh,
    Trainer,
    VirtualAdversarial,
    one_hot,
    smallest_change,
)
from handgrad.adversarial import nearest
from handgrad.losses import LOSSES

RNG = np.random.default_rng(5)
X = RNG.random((8, 6))
Y = np.arange(8) % 4
T = one_hot(Y, 4, np.float64)
NORMS = pytest.mark.parametrize("norm", ["l2", "linf"])


def smooth(loss="softmax_cross_entropy", dtype=np.float64):
    return Network([6, 7, 4], activation="tanh", loss=loss, rng=2, dtype=dtype)


def losses(network, x, t):
    """The loss of each example alone."""
    return np.array([network.loss.value(network.outputs(x[i : i + 1]), t[i : i + 1]) for i in range(len(x))])


def length(norm, r):
    return np.linalg.norm(r, axis=1) if norm == "l2" else np.abs(r).max(axis=1)


# ---- dx of a whole network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_the_input_gradient_is_that_of_the_loss_entry_by_entry(loss):
    network, h = smooth(loss), 1e-5
    dx = network.input_gradient(X, T).copy()
    numerical = np.empty_like(dx)
    for i, j in np.ndindex(dx.shape):
        step = np.zeros_like(X)
        step[i, j] = h
        above, below = (network.loss.value(network.outputs(X + s * step), T) for s in (1, -1))
        numerical[i, j] = (above - below) / (2 * h)
    np.testing.assert_allclose(dx, numerical, rtol=1e-6, atol=1e-10)


def test_the_input_gradient_leaves_the_gradient_the_parameters_and_x_alone():
    network = Network([Dropout(0.2), Dense(6, 7), Relu(), Dropout(0.3), Dense(7, 4)], rng=0, dtype=np.float64)
    network.backprop(X, T)
    gradient, parameters, x = network.gradient.copy(), network.parameters.copy(), X.copy()
    network.input_gradient(X, T)
    np.testing.assert_array_equal(network.gradient, gradient)
    np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(X, x)


@pytest.mark.parametrize("weight", [2.0, np.arange(8.0)[:, None]])
def test_the_input_gradient_is_weighted_as_backprop_is(weight):
    network = smooth()
    mean = network.input_gradient(X, T).copy()
    np.testing.assert_allclose(network.input_gradient(X, T, weight), 8 * weight * mean, rtol=1e-12)


class Scale(Layer):
    """y = s x, with forward and backward alone."""

    n_in = 6
    shapes = {"s": (6,)}  # noqa: RUF012

    def forward(self, x):
        self.x = x
        return x * self.s

    def backward(self, dy):
        self.ds[...] = (dy * self.x).sum(axis=0)
        return dy * self.s


def test_a_layer_of_ones_own_needs_forward_and_backward_alone():
    own = Network([Scale(), Dense(6, 4)], rng=1, dtype=np.float64)
    own.layers[0].s[...] = s = np.array([1.0, -1, 2, 0.5, 3, 1])
    plain = Network([Dense(6, 4)], rng=1, dtype=np.float64)
    plain.parameters[...] = own.parameters[6:]
    np.testing.assert_allclose(own.input_gradient(X, T), s * plain.input_gradient(X * s, T), rtol=1e-12)


def test_backward_input_takes_any_derivative_of_the_outputs():
    network = smooth()
    network.forward(X[:1])
    rows = [network.backward_input(np.eye(4)[k : k + 1]).copy()[0] for k in range(4)]
    network.forward(np.repeat(X[:1], 4, axis=0))
    np.testing.assert_allclose(network.backward_input(np.eye(4)), rows, rtol=1e-12)
    h, v = 1e-6, RNG.standard_normal(6)
    numerical = (network.outputs(X[:1] + h * v) - network.outputs(X[:1] - h * v))[0] / (2 * h)
    np.testing.assert_allclose(np.array(rows) @ v, numerical, rtol=1e-6)


# ---- To train on -----------------------------------------------------------------------------------------------------


@NORMS
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_rises_to_first_order_by_epsilon_times_the_length_of_dx(norm, loss):
    network, epsilon = smooth(loss), 1e-6
    dx = network.input_gradient(X, T, 1).copy()
    x, _ = Adversarial(epsilon, norm, share=1)(network, X, T)
    rise = (losses(network, x, T) - losses(network, X, T)) / epsilon
    expected = np.linalg.norm(dx, axis=1) if norm == "l2" else np.abs(dx).sum(axis=1)
    np.testing.assert_allclose(rise, expected, rtol=1e-4)


@NORMS
def test_no_other_step_of_that_length_raises_the_loss_more(norm):
    network, epsilon = smooth(), 1e-3
    x, _ = Adversarial(epsilon, norm, share=1)(network, X, T)
    best = losses(network, x, T)
    for _ in range(50):
        r = RNG.standard_normal(X.shape) if norm == "l2" else RNG.choice([-1.0, 1.0], X.shape)
        r *= (epsilon / length(norm, r))[:, None]
        assert (losses(network, X + r, T) <= best + 1e-8).all()


class WrongSign(Adversarial):
    def _along(self, dx, out):
        super()._along(-dx, out)


@NORMS
def test_a_wrong_sign_is_told_by_the_loss(norm):
    network = smooth()
    before = losses(network, X, T)
    for kind, way in ((Adversarial, 1), (WrongSign, -1)):
        x, _ = kind(0.01, norm, share=1)(network, X, T)
        assert (way * (losses(network, x, T) - before) > 0).all()


@NORMS
@pytest.mark.parametrize("make", [Adversarial, VirtualAdversarial])
@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_share_is_changed_by_epsilon_and_the_rest_and_the_inputs_not_at_all(norm, make, share, count):
    x_given, t_given = X.copy(), T.copy()
    for array in (x_given, t_given):
        array.flags.writeable = False
    x, t = make(0.3, norm, share)(smooth(), x_given, t_given)
    np.testing.assert_allclose(length(norm, x - X), [0.3] * count + [0.0] * (8 - count), rtol=1e-9, atol=0)
    np.testing.assert_array_equal(t[count:], T[count:])
    np.testing.assert_array_equal(x[count:], X[count:])
    if make is Adversarial:
        assert t is t_given


@NORMS
@pytest.mark.parametrize("make", [Adversarial, VirtualAdversarial])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_the_networks_and_the_memory_is_used_again(norm, make, dtype):
    network, attack = smooth(dtype=dtype), make(0.1, norm)
    x, t = attack(network, X.astype(dtype), T.astype(dtype))
    assert (x.dtype, t.dtype, attack._shadow.loss.dz.dtype) == (dtype, dtype, dtype)
    again, _ = attack(network, X.astype(dtype)[:5], T.astype(dtype)[:5])
    assert again.shape == (5, 6)
    assert np.shares_memory(x, again)
    wider, _ = attack(smooth(dtype=np.float64), X, T)
    assert wider.dtype == np.float64


@NORMS
def test_one_whose_loss_has_no_slope_stays_where_it_is(norm):
    network = smooth(dtype=np.float32)
    network.parameters[...] = 0
    x = X.astype(np.float32)
    changed, _ = Adversarial(0.1, norm, share=1)(network, x, T.astype(np.float32))
    np.testing.assert_array_equal(changed, x)


def test_virtual_examples_ask_for_the_networks_own_answer_and_lead_away_from_it():
    network = smooth()
    p = network.probabilities(X)
    x, t = VirtualAdversarial(0.05, share=1, rng=0)(network, X, T)
    np.testing.assert_allclose(t, p, rtol=1e-12)

    def divergence(x):
        return (p * np.log(p / network.probabilities(x))).sum(axis=1)

    random = RNG.standard_normal((200, *X.shape))
    random *= 0.05 / np.linalg.norm(random, axis=2, keepdims=True)
    assert (divergence(x) > 2 * np.mean([divergence(X + r) for r in random], axis=0)).all()


def test_virtual_examples_are_the_same_from_the_same_generator_and_after_a_restore():
    network = smooth()
    first, second = (VirtualAdversarial(0.1, rng=3) for _ in range(2))
    begin = first(network, X, T)[0].copy()
    state = json.loads(json.dumps(first.state()))
    going_on = first(network, X, T)[0].copy()
    np.testing.assert_array_equal(second(network, X, T)[0], begin)
    restored = VirtualAdversarial(0.1, rng=99)
    restored.restore(state)
    np.testing.assert_array_equal(restored(network, X, T)[0], going_on)
    assert (begin != going_on).any()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.0,), "epsilon 0.0: expected a finite number above 0"),
        ((np.nan,), "epsilon nan"),
        ((0.1, "l3"), "unknown norm 'l3'"),
        ((0.1, "l2", 1.5), "share 1.5: expected a number from 0 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(refused, arguments, expected):
    with refused(expected):
        Adversarial(*arguments)


def test_an_xi_of_nothing_is_refused(refused):
    with refused("xi 0: expected a finite number above 0"):
        VirtualAdversarial(0.1, xi=0)


@NORMS
def test_examples_follow_the_parameters_and_another_network_and_a_copy(norm):
    network, attack = smooth(), Adversarial(0.1, norm)

    def fresh(network):
        return Adversarial(0.1, norm)(network, X, T)[0]

    attack(network, X, T)
    network.parameters *= 1.5  # in place, as an optimizer does
    np.testing.assert_array_equal(attack(network, X, T)[0], fresh(network))
    other = Network([6, 3, 4], rng=9, dtype=np.float64)
    np.testing.assert_array_equal(attack(other, X, T)[0], fresh(other))
    network, attack = copy.deepcopy((network, attack))
    attack(network, X, T)
    network.parameters *= -1
    np.testing.assert_array_equal(attack(network, X, T)[0], fresh(network))


def test_a_pass_for_examples_draws_from_the_networks_own_streams_and_leaves_its_buffers():
    network = Network([Dense(6, 7), Relu(), Dropout(0.5), Dense(7, 4)], rng=0, dtype=np.float64)
    z = network.backprop(X, T)
    gradient, outputs, state = network.gradient.copy(), z.copy(), network.layers[2].rng.bit_generator.state
    Adversarial(0.1)(network, X, T)
    assert network.layers[2].rng.bit_generator.state != state
    np.testing.assert_array_equal(z, outputs)
    np.testing.assert_array_equal(network.gradient, gradient)


def test_a_network_learns_from_them_to_withstand_them(digits):
    """Trained on changed examples, it is changed in its answers by larger changes alone."""
    x, y, x_test, y_test = digits
    x, t = x / np.float32(255), one_hot(y, 10)
    sizes, rights = [], []
    for attack in (None, Adversarial(1.0)):
        network = Network([64, 24, 10], activation="relu", loss="softmax_cross_entropy", rng=0)
        optimizer, rng = SGD(0.2), np.random.default_rng(0)
        for _ in range(300):
            rows = rng.integers(0, len(x), 20)
            batch = (x[rows], t[rows]) if attack is None else attack(network, x[rows], t[rows])
            optimizer.learn(network, *batch, 0.2)
        sizes.append(np.median([smallest_change(network, picture).l2 for picture in x_test[:15]]))
        rights.append(network.evaluate(x_test, y_test).accuracy)
    assert min(rights) > 0.9
    assert sizes[1] > 1.1 * sizes[0]


# ---- The smallest change ---------------------------------------------------------------------------------------------


def test_nearest_meets_the_plane_within_the_limits_and_nothing_shorter_does():
    for _ in range(30):
        w = RNG.standard_normal(12)
        low, high = -RNG.random(12), RNG.random(12)
        reach = float(np.where(w > 0, w * high, w * low).sum())
        missing, size, r = nearest(w, 0.7 * reach, low, high)
        assert missing == 0
        assert w @ r == pytest.approx(0.7 * reach, rel=1e-8)
        assert ((low <= r) & (r <= high)).all()
        assert size == pytest.approx(np.linalg.norm(r))
        # Of the shortest, r / w is one λ where r is free, and less where a limit holds it.
        free = (low < r) & (r < high)
        factor = (r / w)[free]
        assert factor.std() < 1e-9 * factor.mean()
        assert ((r / w)[~free] <= factor.mean()).all()
        missing, _, r = nearest(w, 1.25 * reach, low, high)
        assert missing == pytest.approx(0.2)
        np.testing.assert_allclose(r, np.where(w > 0, high, low))


def test_the_smallest_change_of_a_linear_network_is_the_way_to_its_nearest_plane():
    network = Network([Dense(6, 4)], rng=3, dtype=np.float64)
    W, b = network.layers[0].W, network.layers[0].b
    for x in RNG.standard_normal((10, 6)):
        z = W @ x + b
        a = z.argmax()
        distances = [(z[a] - z[k]) / np.linalg.norm(W[a] - W[k]) for k in range(4) if k != a]
        found = smallest_change(network, x, limits=(-np.inf, np.inf))
        assert found.l2 == pytest.approx(min(distances), rel=1e-6)


@pytest.fixture(scope="module")
def learnt(digits):
    x, y, *_ = digits
    layers = {
        "relu": [Dense(64, 24), Relu(), Dense(24, 10)],
        "dropout": [Dropout(0.2), Dense(64, 24), Tanh(), Dropout(0.3), Dense(24, 10)],
    }
    networks = {name: Network(chain, loss="softmax_cross_entropy", rng=0) for name, chain in layers.items()}
    networks["post"] = Network([64, 12, 10], rng=0)
    networks["quadratic"] = Network([64, 12, 10], loss="quadratic", rng=0)
    for network in networks.values():
        Trainer(network, SGD(0.5), batch_size=20, rng=0).fit(x, y, epochs=8)
    return networks


@pytest.mark.parametrize("kind", ["relu", "dropout", "post", "quadratic"])
def test_the_smallest_change_changes_the_answer_and_less_of_it_does_not(learnt, digits, kind):
    network, x = learnt[kind], digits[2]
    for picture in x[:12]:
        found = smallest_change(network, picture)
        before = picture / np.float32(255)
        assert network.predict(picture[None])[0] == found.answer_before != found.answer_after
        assert network.predict(found.picture[None])[0] == found.answer_after
        assert network.predict((before + 0.9 * found.change)[None])[0] == found.answer_before
        assert found.change.dtype == found.picture.dtype == np.float32
        assert 0 <= found.picture.min() <= found.picture.max() <= 1
        np.testing.assert_allclose(found.picture, before + found.change, atol=1e-6)
        assert found.l2 == pytest.approx(np.linalg.norm(found.change), rel=1e-5)
        assert found.largest == pytest.approx(np.abs(found.change).max(), rel=1e-5)


def test_the_smallest_change_is_smaller_than_those_that_are_found_without_looking_back(learnt, digits):
    """A step up the loss of the right length, within the limits, is what Adversarial would take."""
    network, x = learnt["relu"], digits[2][:12] / np.float32(255)
    t = one_hot(network.predict(x), 10)
    steepest = network.input_gradient(x, t, 1).copy()
    steepest /= np.linalg.norm(steepest, axis=1, keepdims=True)
    for picture, r in zip(x, steepest, strict=True):
        found = smallest_change(network, picture)
        lengths = np.linspace(0.01, 8, 400)
        tried = np.clip(picture + np.outer(lengths, r), 0, 1)
        flipped = network.predict(tried) != found.answer_before
        if flipped.any():
            assert found.l2 <= np.linalg.norm(tried[flipped.argmax()] - picture) * 1.01


def test_finding_it_leaves_the_network_and_the_picture_as_they_were(learnt, digits):
    network, picture = learnt["dropout"], digits[2][0]  # which may not be written into
    parameters, gradient = network.parameters.copy(), network.gradient.copy()
    streams = [layer.rng.bit_generator.state for layer in network.layers if layer.rng is not None]
    first, second = smallest_change(network, picture), smallest_change(network, picture.reshape(8, 8))
    np.testing.assert_array_equal(first.change, second.change)
    np.testing.assert_array_equal(network.parameters, parameters)
    np.testing.assert_array_equal(network.gradient, gradient)
    assert streams == [layer.rng.bit_generator.state for layer in network.layers if layer.rng is not None]
    assert len(network.layers) == 5


@pytest.mark.parametrize("n_out", [1, 3])
def test_a_network_that_never_answers_otherwise_is_an_error(refused, n_out):
    network = Network([6, 5, n_out], rng=0)
    network.parameters[...] = 0
    with refused("no change within the limits 0 and 1 was found"):
        smallest_change(network, X[0])


def test_a_boundary_outside_of_the_limits_is_an_error(refused):
    network = Network([Dense(2, 2)], rng=0)
    network.layers[0].W[...] = [[1, 0], [0, 1]]
    network.layers[0].b[...] = [3, 0]  # z₀ - z₁ = 3 + x₀ - x₁: never below 2 on [0, 1]²
    with refused("answer other than 0"):
        smallest_change(network, np.array([0.5, 0.5]))
    assert smallest_change(network, np.array([0.5, 0.5]), limits=(-2, 2)).answer_after == 1


@pytest.mark.parametrize("x", [X[0] + 1, X[:2], np.full(6, np.nan), X[0, :5], 0.5])
def test_what_is_no_picture_within_the_limits_is_refused(refused, x):
    with refused("expected|must be"):
        smallest_change(smooth(), x)
