"""Each optimizer is its equation, whatever the block size; penalties and limits act on weights alone."""

import copy
import functools
import math

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adam,
    AdamW,
    Dense,
    HandgradError,
    Lookahead,
    Momentum,
    Muon,
    Nesterov,
    Network,
    Tanh,
    newton_schulz,
    optimizers,
)
from handgrad.optimizers import OPTIMIZERS, newton_schulz_room

EXACT = {"rtol": 1e-12, "atol": 1e-14}  # float64, a few roundings apart
KINDS = OPTIMIZERS | {"lookahead": lambda lr, **options: Lookahead(Adam(lr, **options), k=2)}


def make_network(dtype=np.float64, rng=0):
    return Network([Dense(5, 4), Tanh(), Dense(4, 3)], rng=rng, dtype=dtype)


def gradients(network, count=3, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=network.parameters.size).astype(network.dtype) for _ in range(count)]


def take_steps(optimizer, network, gs):
    for g in gs:
        network.gradient[...] = g
        optimizer.step(network)
    return network.parameters.copy()


def weight_mask(network):
    """True where θ holds a weight, False where it holds a bias: 4 x 5, 4, 3 x 4, 3."""
    mask = np.concatenate([np.ones(20, bool), np.zeros(4, bool), np.ones(12, bool), np.zeros(3, bool)])
    assert mask.size == network.parameters.size
    return mask


# ---- The equations, restated --------------------------------------------------------------------------------------


def sgd(theta, gs, lr):
    for g in gs:
        theta = theta - lr * g
    return theta


def momentum(theta, gs, lr, mu):
    v = 0
    for g in gs:
        v = mu * v + g
        theta = theta - lr * v
    return theta


def nesterov(theta, gs, lr, mu):
    v = 0
    for g in gs:
        v = mu * v + g
        theta = theta - lr * (g + mu * v)
    return theta


def adam(theta, gs, lr, beta_1, beta_2, epsilon):
    m, v = 0, 0
    for t, g in enumerate(gs, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + epsilon)
    return theta


@pytest.mark.parametrize(
    ("optimizer", "equation"),
    [
        (SGD(0.3), functools.partial(sgd, lr=0.3)),
        (Momentum(0.1), functools.partial(momentum, lr=0.1, mu=0.9)),
        (Momentum(0.1, 0.5), functools.partial(momentum, lr=0.1, mu=0.5)),
        (Nesterov(0.1), functools.partial(nesterov, lr=0.1, mu=0.9)),
        (Nesterov(0.1, 0.7), functools.partial(nesterov, lr=0.1, mu=0.7)),
        (Adam(), functools.partial(adam, lr=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8)),
        (Adam(0.02, 0.8, 0.95, 1e-3), functools.partial(adam, lr=0.02, beta_1=0.8, beta_2=0.95, epsilon=1e-3)),
    ],
    ids=["sgd", "momentum", "momentum-0.5", "nesterov", "nesterov-0.7", "adam", "adam-other"],
)
def test_three_steps_are_the_equation(optimizer, equation):
    network = make_network()
    before, gs = network.parameters.copy(), gradients(network)
    np.testing.assert_allclose(take_steps(optimizer, network, gs), equation(before, gs), **EXACT)


def test_adams_first_step_is_lr_times_the_sign():
    network = make_network()
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    after = take_steps(Adam(0.01, epsilon=1e-12), network, [g])
    np.testing.assert_allclose(after - before, -0.01 * np.sign(g), rtol=1e-8)  # ε / |g| is below 1e-9


def test_momentum_of_zero_is_sgd():
    a, b = make_network(), make_network()
    gs = gradients(a)
    np.testing.assert_array_equal(take_steps(SGD(0.1), a, gs), take_steps(Momentum(0.1, 0.0), b, gs))


@pytest.mark.parametrize("name", KINDS)
def test_lr_of_a_step_goes_before_the_optimizers_own(name):
    a, b = make_network(), make_network()
    (g,) = gradients(a, 1)
    a.gradient[...] = b.gradient[...] = g
    KINDS[name](0.5).step(a, 0.01)
    KINDS[name](0.01).step(b)
    np.testing.assert_array_equal(a.parameters, b.parameters)


@pytest.mark.parametrize("name", KINDS)
def test_a_float32_network_stays_float32_and_near_float64(name):
    double, single = make_network(), make_network(np.float32)
    gs = gradients(double)
    take_steps(KINDS[name](0.01), double, gs)
    optimizer = KINDS[name](0.01)
    take_steps(optimizer, single, gs)
    assert single.parameters.dtype == optimizer.memory.dtype == np.float32
    np.testing.assert_allclose(single.parameters, double.parameters, rtol=1e-4, atol=1e-6)


# ---- Penalties and limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "penalty"),
    [
        ({"l2": 0.1}, lambda W: 0.1 * W),
        ({"l1": 0.2}, lambda W: 0.2 * np.sign(W)),
        ({"l1": 0.2, "l2": 0.1}, lambda W: 0.1 * W + 0.2 * np.sign(W)),
    ],
    ids=["l2", "l1", "both"],
)
def test_penalties_add_their_derivative_to_weights_alone(options, penalty):
    network = make_network()
    network.parameters[...] = np.random.default_rng(3).normal(size=network.parameters.size)  # biases other than 0
    before, gs = network.parameters.copy(), gradients(network)
    is_weight, theta = weight_mask(network), before
    for g in gs:
        theta = theta - 0.3 * (g + np.where(is_weight, penalty(theta), 0))
    np.testing.assert_allclose(take_steps(SGD(0.3, **options), network, gs), theta, **EXACT)


def test_weight_decay_is_apart_from_the_gradient_and_on_weights_alone():
    network = make_network()
    network.parameters[...] = np.random.default_rng(3).normal(size=network.parameters.size)
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    after = take_steps(Adam(0.1, weight_decay=0.5), network, [g])
    decayed = np.where(weight_mask(network), before * (1 - 0.1 * 0.5), before)
    np.testing.assert_allclose(after, adam(decayed, [g], 0.1, 0.9, 0.999, 1e-8), **EXACT)


def test_adamw_is_adam_with_a_decay_of_a_hundredth():
    a, b, c = make_network(), make_network(), make_network()
    gs = gradients(a)
    after = take_steps(AdamW(0.1), a, gs)
    np.testing.assert_array_equal(after, take_steps(Adam(0.1, weight_decay=0.01), b, gs))
    assert not np.array_equal(after, take_steps(Adam(0.1), c, gs))


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_clip_norm_shortens_a_gradient_that_is_too_long_and_no_other(share):
    network = make_network()
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    after = take_steps(SGD(1.0, clip_norm=share * np.linalg.norm(g)), network, [g])
    np.testing.assert_allclose(before - after, min(share, 1) * g, rtol=1e-11, atol=1e-13)


def test_clip_norm_counts_the_penalties():
    network = make_network()
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    after = take_steps(SGD(1.0, clip_norm=0.01, l2=5.0), network, [g])
    whole = g + np.where(weight_mask(network), 5.0 * before, 0)
    np.testing.assert_allclose(before - after, 0.01 * whole / np.linalg.norm(whole), rtol=1e-10, atol=1e-13)


def test_max_norm_scales_back_only_the_rows_that_exceed_it():
    network = make_network()
    dense = network.layers[0]
    dense.W[...] = 0
    dense.W[0] = [3, 4, 0, 0, 0]  # norm 5
    dense.W[1] = [0.3, 0.4, 0, 0, 0]  # norm 0.5
    dense.b[...] = 7
    take_steps(SGD(0.1, max_norm=1.0), network, [np.zeros(network.parameters.size)])
    np.testing.assert_allclose(dense.W[0], [0.6, 0.8, 0, 0, 0], rtol=1e-14)
    np.testing.assert_array_equal(dense.W[1:, :2], [[0.3, 0.4], [0, 0], [0, 0]])
    np.testing.assert_array_equal(dense.b, 7)


def test_max_norm_looks_at_the_weights_after_the_step():
    network = make_network()
    take_steps(SGD(10.0, max_norm=0.5), network, gradients(network, 1))
    for W, _ in network.weights:
        np.testing.assert_allclose(np.linalg.norm(W, axis=1), 0.5, rtol=1e-12)


# ---- Blocks, state, copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 7, 38, 39])
@pytest.mark.parametrize("name", KINDS)
def test_any_block_size_gives_the_same_bits(name, block, monkeypatch):
    options = {"l2": 0.01, "clip_norm": 1.0, "max_norm": 1.5}
    a, b = make_network(), make_network()
    gs = gradients(a)
    expected = take_steps(KINDS[name](0.05, **options), a, gs)
    monkeypatch.setattr(optimizers, "BLOCK", block)
    np.testing.assert_array_equal(take_steps(KINDS[name](0.05, **options), b, gs), expected)


def test_networks_larger_than_a_block_are_walked_to_their_end(monkeypatch):
    monkeypatch.setattr(optimizers, "BLOCK", 30_000)
    network = Network([300, 250, 3], dtype=np.float64, rng=0)
    assert network.parameters.size > 2 * optimizers.BLOCK
    before, gs = network.parameters.copy(), gradients(network, 2)
    after = take_steps(Adam(0.01), network, gs)
    np.testing.assert_allclose(after, adam(before, gs, 0.01, 0.9, 0.999, 1e-8), **EXACT)


@pytest.mark.parametrize("name", KINDS)
def test_state_and_restore_continue_to_the_same_bits(name):
    network = make_network()
    gs = gradients(network, 5)
    optimizer = KINDS[name](0.05)
    take_steps(optimizer, network, gs[:2])
    state, parameters = optimizer.state(), network.parameters.copy()
    expected = take_steps(optimizer, network, gs[2:])

    again, fresh = make_network(), KINDS[name](0.05)
    again.parameters[...] = parameters
    fresh.restore(state)
    np.testing.assert_array_equal(take_steps(fresh, again, gs[2:]), expected)
    assert fresh.steps == 5


def test_a_restored_optimizer_leaves_the_state_as_it_was():
    network, optimizer, other = make_network(), Adam(), Adam()
    gs = gradients(network)
    take_steps(optimizer, network, gs)
    state = optimizer.state()
    kept = state["memory"].copy()
    other.restore(state)
    take_steps(other, network, gs)
    take_steps(optimizer, network, gs)
    np.testing.assert_array_equal(state["memory"], kept)


@pytest.mark.parametrize("name", KINDS)
def test_another_network_starts_afresh(name):
    used, expected_of = make_network(rng=1), make_network(rng=2)
    gs = gradients(used)
    optimizer = KINDS[name](0.05)
    take_steps(optimizer, used, gs)
    expected = take_steps(KINDS[name](0.05), expected_of, gs)
    np.testing.assert_array_equal(take_steps(optimizer, make_network(rng=2), gs), expected)
    assert optimizer.steps == 3


@pytest.mark.parametrize("network_first", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_a_network_and_its_optimizer_copied_together_continue_apart(name, network_first):
    network, optimizer = make_network(), KINDS[name](0.05)
    gs = gradients(network, 5)
    take_steps(optimizer, network, gs[:2])
    if network_first:
        twin, its_optimizer = copy.deepcopy((network, optimizer))
    else:
        its_optimizer, twin = copy.deepcopy((optimizer, network))
    before = network.parameters.copy()
    after = take_steps(its_optimizer, twin, gs[2:])
    np.testing.assert_array_equal(network.parameters, before)
    np.testing.assert_array_equal(take_steps(optimizer, network, gs[2:]), after)
    assert not np.array_equal(after, before)


@pytest.mark.parametrize("name", KINDS)
def test_a_network_and_its_optimizer_copied_one_by_one_continue_too(name):
    network, optimizer = make_network(), KINDS[name](0.05)
    gs = gradients(network, 5)
    take_steps(optimizer, network, gs[:2])
    twin, its_optimizer = copy.deepcopy(network), copy.deepcopy(optimizer)
    expected = take_steps(optimizer, network, gs[2:])
    np.testing.assert_array_equal(take_steps(its_optimizer, twin, gs[2:]), expected)


def test_a_penalty_that_is_set_later_acts_from_then_on():
    network, optimizer = make_network(), SGD(0.5)
    zero = np.zeros(network.parameters.size)
    take_steps(optimizer, network, [zero])
    before, optimizer.l2 = network.layers[0].W.copy(), 0.1
    take_steps(optimizer, network, [zero])
    np.testing.assert_allclose(network.layers[0].W, before * (1 - 0.5 * 0.1), rtol=1e-12)


# ---- learn: what training calls --------------------------------------------------------------------------------------


class ByTheStep(SGD):
    """Of another type than SGD, so that its `learn` is every optimizer's."""


BATCH = np.random.default_rng(3).normal(size=(7, 5)), np.eye(3)[np.arange(7) % 3]


def learn_steps(optimizer, network, lrs):
    for lr in lrs:
        optimizer.train_step(network, *BATCH, lr)
    return network.parameters.copy()


def test_sgd_learns_the_same_whether_the_loss_or_the_update_carries_lr():
    rates = [0.5, 0.1, 0.0, 0.3]
    folded, plain = SGD(1.0), ByTheStep(1.0)
    ours, theirs = learn_steps(folded, make_network(), rates), learn_steps(plain, make_network(), rates)
    np.testing.assert_allclose(ours, theirs, **EXACT)
    assert folded.steps == plain.steps == 4


@pytest.mark.parametrize(
    ("penalty", "value"), [("l2", 0.5), ("l1", 0.5), ("clip_norm", 0.01), ("weight_decay", 0.5), ("max_norm", 0.1)]
)
def test_a_penalty_that_is_set_later_acts_in_training_too(penalty, value):
    late = SGD(0.5)
    setattr(late, penalty, value)
    ours = learn_steps(late, make_network(), [0.5] * 3)
    np.testing.assert_array_equal(ours, learn_steps(SGD(0.5, **{penalty: value}), make_network(), [0.5] * 3))
    assert (ours != learn_steps(SGD(0.5), make_network(), [0.5] * 3)).any()


def test_a_subclass_of_sgd_learns_by_its_own_update():
    class Uphill(SGD):
        def update(self, theta, g, memory, scratch, lr):
            theta += lr * g

    network, twin = make_network(), make_network()
    before = network.parameters.copy()
    learn_steps(Uphill(0.5), network, [0.5])
    np.testing.assert_allclose(network.parameters - before, before - learn_steps(SGD(0.5), twin, [0.5]), **EXACT)


def test_steps_are_counted_for_the_network_that_they_were_taken_on():
    optimizer, network = SGD(0.5), make_network()
    learn_steps(optimizer, network, [0.5] * 5)
    optimizer.step(network)
    assert optimizer.steps == 6
    learn_steps(optimizer, make_network(rng=1), [0.5])
    assert optimizer.steps == 1


def test_a_copy_of_an_optimizer_has_memories_of_its_own():
    optimizer, network = Adam(), make_network()
    take_steps(optimizer, network, gradients(network))
    twin = copy.copy(optimizer)
    kept = twin.memory.copy()
    take_steps(optimizer, network, gradients(network))
    np.testing.assert_array_equal(twin.memory, kept)


# ---- Muon -----------------------------------------------------------------------------------------------------------

SHAPES = pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5), (1, 6), (6, 1), (1, 1), (40, 90)], ids=str)


def matrix(shape, dtype=np.float64, seed=5):
    G = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    G.flags.writeable = False
    return G


def by_singular_values(G, steps=5, a=3.4445, b=-4.7750, c=2.0315):
    """Each singular value through the quintic by itself, U and V left alone."""
    U, s, Vt = np.linalg.svd(G, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return U * s @ Vt


@SHAPES
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_newton_schulz_is_the_quintic_of_the_singular_values(shape, steps):
    G = matrix(shape)
    np.testing.assert_allclose(newton_schulz(G, steps), by_singular_values(G, steps), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("wrong", [{"a": 3.445}, {"b": -4.77}, {"c": 2.03}, {"steps": 4}], ids=str)
def test_a_wrong_quintic_is_caught(wrong):
    G = matrix((4, 7))
    assert np.abs(newton_schulz(G) - by_singular_values(G, **wrong)).max() > 1e-5


@pytest.mark.parametrize("shape", [(40, 70), (70, 40), (40, 40)], ids=str)
@pytest.mark.parametrize("least", [0.003, 0.02, 0.3, 1.0])
def test_five_steps_bring_singular_values_near_one(shape, least):
    """The band that the docstring names, from 0.0015 of the norm on, and by it the nearness to U Vᵀ."""
    U, _, Vt = np.linalg.svd(matrix(shape), full_matrices=False)
    s = np.geomspace(1, least, 40)
    assert s[-1] > 0.0015 * np.linalg.norm(s)
    X = newton_schulz(U * s @ Vt)
    got = np.linalg.svd(X, compute_uv=False)
    assert 0.68 < got.min() <= got.max() < 1.21
    assert np.linalg.norm(X - U @ Vt, 2) < 0.32


@SHAPES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_newton_schulz_keeps_the_dtype_and_leaves_no_mark_of_scale_or_side(shape, dtype):
    G = matrix(shape, dtype)
    X = newton_schulz(G)
    assert (X.dtype, X.shape) == (dtype, shape)
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == np.float32 else EXACT | {"atol": 1e-11, "rtol": 1e-9}
    np.testing.assert_allclose(newton_schulz(np.ascontiguousarray(G.T)).T, X, **tolerance)
    np.testing.assert_allclose(newton_schulz(G * dtype(1e-6)), X, **tolerance)
    np.testing.assert_allclose(X, by_singular_values(G.astype(np.float64)), **tolerance)


@SHAPES
def test_newton_schulz_works_in_the_room_that_it_is_given(shape):
    G = matrix(shape)
    room = np.full(newton_schulz_room(shape) + 3, np.nan)
    X = newton_schulz(G, room=room)
    assert np.shares_memory(X, room)
    np.testing.assert_array_equal(X, newton_schulz(G))
    assert np.isnan(room[-3:]).all()  # no more than it asked for


def test_newton_schulz_of_nothing_is_nothing():
    np.testing.assert_array_equal(newton_schulz(np.zeros((3, 4))), np.zeros((3, 4)))


def test_a_momentum_that_fades_away_is_no_step_and_no_nan():
    """Its squares fall below the smallest float32 one by one: a norm of those that are left would be far too short."""
    network, optimizer = muon_network(np.float32), Muon(0.05, momentum=0.5)
    take_steps(optimizer, network, gradients(network, 1))
    after = take_steps(optimizer, network, [np.zeros(network.parameters.size, np.float32)] * 160)
    assert np.isfinite(after).all()
    G = np.full((100, 100), 2.6e-23, np.float32)  # a square is less than half the smallest number above 0
    G[0, 0] = 4e-23
    assert np.abs(newton_schulz(G)).max() < 1


def muon_network(dtype=np.float64, rng=0):
    """A tall matrix (5, 3), a wide one (4, 5), and the last (3, 4)."""
    return Network([Dense(3, 5), Tanh(), Dense(5, 4), Tanh(), Dense(4, 3)], rng=rng, dtype=dtype)


def muon(theta, gs, lr, mu=0.95, lr_vectors=1.0, iterations=5, last=False):
    """Jordan's equation, parameter by parameter; planted: the last matrix as one of the others."""
    theta, first = theta.copy(), 0
    for shape in [(5, 3), (5,), (4, 5), (4,), (3, 4), (3,)]:
        part = slice(first, first := first + math.prod(shape))
        if len(shape) == 1 or (shape == (3, 4) and not last):
            theta[part] = nesterov(theta[part], [g[part] for g in gs], lr * lr_vectors, mu)
            continue
        W, v = theta[part].reshape(shape), 0
        for g in gs:
            v = mu * v + g[part].reshape(shape)
            W = W - lr * max(1, shape[0] / shape[1]) ** 0.5 * by_singular_values(
                g[part].reshape(shape) + mu * v, iterations
            )
        theta[part] = W.ravel()
    assert first == theta.size
    return theta


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.0}, {"momentum": 0.5}, {"lr_vectors": 0.3}, {"iterations": 2}],
    ids=str,
)
def test_three_steps_of_muon_are_the_equation(options):
    network = muon_network()
    before, gs = network.parameters.copy(), gradients(network)
    after = take_steps(Muon(0.05, **options), network, gs)
    restated = {{"momentum": "mu"}.get(name, name): value for name, value in options.items()}
    np.testing.assert_allclose(after, muon(before, gs, 0.05, **restated), rtol=1e-8, atol=1e-10)
    for wrong in ({"mu": 0.9}, {"iterations": 4}, {"lr_vectors": 0.9}, {"last": True}):
        assert np.abs(after - muon(before, gs, 0.05, **restated | wrong)).max() > 1e-4


@pytest.mark.parametrize("share", [1e-9, 1e-3, 1e6])
def test_a_step_of_muon_is_as_long_whatever_the_gradients_length(share):
    a, b = muon_network(), muon_network()
    (g,) = gradients(a, 1)
    is_matrix = slice(0, 15)
    ours, theirs = take_steps(Muon(0.05), a, [g]), take_steps(Muon(0.05), b, [share * g])
    np.testing.assert_allclose(ours[is_matrix], theirs[is_matrix], rtol=1e-9)


def test_a_network_of_one_matrix_takes_nesterovs_steps():
    a, b = Network([5, 3], rng=0), Network([5, 3], rng=0)
    gs = gradients(a)
    np.testing.assert_array_equal(take_steps(Muon(0.1), a, gs), take_steps(Nesterov(0.1, 0.95), b, gs))


def test_muon_in_float32_has_one_memory_and_makes_no_room_at_a_step():
    network, optimizer = muon_network(np.float32), Muon(0.05)
    gs = gradients(network)
    take_steps(optimizer, network, gs)
    assert optimizer.memory.shape == (1, network.parameters.size)
    arrays = [a for theta, g, memory, scratch in optimizer._blocks for a in (theta, g, *memory, scratch)]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    assert sum(theta.size for theta, *_ in optimizer._blocks) == network.parameters.size
    made = []

    def no_room(*arguments):
        made.append(arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "aligned", no_room)
        take_steps(optimizer, network, gs)
    assert made == []


def test_decay_and_norms_act_on_muons_matrices_too():
    network = muon_network()
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    take_steps(Muon(0.05, weight_decay=0.5, max_norm=0.7), network, [g])
    W = network.layers[0].W
    expected = muon(np.concatenate([before[:15] * (1 - 0.05 * 0.5), before[15:]]), [g], 0.05)[:15].reshape(5, 3)
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(W, expected * np.minimum(1, 0.7 / norms), rtol=1e-9)


# ---- Lookahead ------------------------------------------------------------------------------------------------------


def lookahead(make, network, gs, k, alpha):
    """The equation, with an optimizer of its own for the steps."""
    inner, phi = make(), network.parameters.copy()
    for i, g in enumerate(gs, start=1):
        take_steps(inner, network, [g])
        if i % k == 0:
            phi = phi + alpha * (network.parameters - phi)
            network.parameters[...] = phi
    return network.parameters.copy()


@pytest.mark.parametrize("inner", [SGD, Momentum, Adam, Muon])
@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (2, 0.5), (3, 0.2), (5, 0.8)])
def test_seven_steps_of_lookahead_are_the_equation(inner, k, alpha):
    a, b = make_network(), make_network()
    gs = gradients(a, 7)
    ours = take_steps(Lookahead(inner(0.05), k, alpha), a, gs)
    np.testing.assert_allclose(ours, lookahead(lambda: inner(0.05), b, gs, k, alpha), **EXACT)
    assert np.abs(ours - take_steps(inner(0.05), make_network(), gs)).max() > 1e-3


def test_lookahead_that_does_not_go_back_is_the_inner_optimizer():
    a, b = make_network(), make_network()
    gs = gradients(a, 7)
    ours = take_steps(Lookahead(Adam(0.05), k=2, alpha=1), a, gs)
    np.testing.assert_allclose(ours, take_steps(Adam(0.05), b, gs), **EXACT)


def test_lookahead_begins_from_where_another_network_stands():
    optimizer = Lookahead(SGD(0.1), k=1, alpha=0.5)
    take_steps(optimizer, make_network(rng=1), gradients(make_network()))
    network = make_network(rng=2)
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    np.testing.assert_allclose(take_steps(optimizer, network, [g]), before - 0.05 * g, **EXACT)


@pytest.mark.parametrize("ours", [Lookahead(Adam(0.1)), SGD(0.1)], ids=["another inner one", "none"])
def test_lookaheads_state_is_refused_by_another_and_changes_nothing(ours):
    network, theirs = make_network(), Lookahead(Momentum(0.1))
    take_steps(theirs, network, gradients(network))
    with pytest.raises(HandgradError, match="another optimizer"):
        ours.restore(theirs.state())
    assert (ours.steps, ours.memory.size) == (0, 0)


def test_lookahead_refuses_the_state_of_an_optimizer_that_does_not_look_ahead():
    network, theirs, ours = make_network(), Adam(), Lookahead(Adam())
    take_steps(theirs, network, gradients(network))
    with pytest.raises(HandgradError, match="another optimizer: Adam, not Lookahead"):
        ours.restore(theirs.state())
    assert ours.inner.steps == 0


# ---- Refusals -----------------------------------------------------------------------------------------------------

NOT_POSITIVE = [0, -1.0, math.inf, math.nan]
NEGATIVE = [-0.1, math.inf, math.nan]
NO_SHARE = [-0.1, 1.0, math.nan]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *((SGD, "lr", v) for v in NOT_POSITIVE),
        *((functools.partial(SGD, 0.1), name, v) for name in ("clip_norm", "max_norm") for v in NOT_POSITIVE),
        *((functools.partial(SGD, 0.1), name, v) for name in ("l1", "l2", "weight_decay") for v in NEGATIVE),
        *((functools.partial(kind, 0.1), "momentum", v) for kind in (Momentum, Nesterov) for v in NO_SHARE),
        *((Adam, name, v) for name in ("beta_1", "beta_2") for v in NO_SHARE),
        *((Adam, "epsilon", v) for v in NOT_POSITIVE),
        *((Muon, "lr_vectors", v) for v in NOT_POSITIVE),
        *((Muon, "momentum", v) for v in NO_SHARE),
        *((Muon, "iterations", v) for v in (0, -1, 2.5, None)),
        *((functools.partial(Lookahead, SGD(0.1)), "k", v) for v in (0, -1, 2.5, None)),
        *((functools.partial(Lookahead, SGD(0.1)), "alpha", v) for v in (0, -0.5, 1.1, math.nan)),
        *((Lookahead, "inner", v) for v in (0.1, SGD, None)),
    ],
)
def test_a_bad_argument_is_refused_by_name(make, name, value):
    with pytest.raises(HandgradError, match=f"^{name} .*expected"):
        make(**{name: value})


@pytest.mark.parametrize(("theirs", "ours"), [(SGD, Adam), (Adam, Momentum), (Nesterov, SGD)])
def test_the_state_of_another_kind_of_optimizer_is_refused(theirs, ours):
    network, optimizer = make_network(), theirs(0.1)
    take_steps(optimizer, network, gradients(network))
    with pytest.raises(HandgradError, match="another optimizer"):
        ours(0.1).restore(optimizer.state())


def test_the_state_of_another_size_is_refused():
    theirs, network = make_network(), Network([3, 2], rng=0, dtype=np.float64)
    optimizer, other = Momentum(0.1), Momentum(0.1)
    take_steps(optimizer, theirs, gradients(theirs))
    other.restore(optimizer.state())
    with pytest.raises(HandgradError, match="memor"):  # its network is known only now
        other.step(network)
