"""Newton-Schulz equals a polynomial of the singular values; Muon equals its equation, matrix by matrix."""

import math

import numpy as np
import pytest

from handgrad import Dense, Muon, Nesterov, Network, Tanh, muon, newton_schulz
from handgrad.muon import newton_schulz_workspace

SHAPES = pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5), (1, 6), (6, 1), (1, 1), (40, 90)], ids=str)


def matrix(shape, dtype=np.float64, seed=5):
    G = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    G.flags.writeable = False
    return G


def map_singular_values(G, steps=5, a=3.4445, b=-4.7750, c=2.0315):
    """Apply the polynomial to each singular value, with the same U and V."""
    U, s, Vt = np.linalg.svd(G, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return U * s @ Vt


# ---- Newton-Schulz ---------------------------------------------------------------------------------------------------


@SHAPES
def test_newton_schulz_is_a_polynomial_of_the_singular_values(shape):
    G = matrix(shape)
    for steps in (1, 5):
        np.testing.assert_allclose(newton_schulz(G, steps), map_singular_values(G, steps), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("wrong", [{"a": 3.445}, {"b": -4.77}, {"c": 2.03}, {"steps": 4}], ids=str)
def test_wrong_coefficients_are_detected(wrong):
    G = matrix((4, 7))
    assert np.abs(newton_schulz(G) - map_singular_values(G, **wrong)).max() > 1e-5


@pytest.mark.parametrize(("shape", "smallest"), [((40, 70), 0.003), ((70, 40), 0.02), ((40, 70), 1.0)], ids=str)
def test_five_steps_map_singular_values_close_to_1(shape, smallest):
    """The interval of the docstring, from 0.0015 of the norm on, and therefore the distance to U Vᵀ."""
    U, _, Vt = np.linalg.svd(matrix(shape), full_matrices=False)
    s = np.geomspace(1, smallest, 40)
    assert s[-1] > 0.0015 * np.linalg.norm(s)
    X = newton_schulz(U * s @ Vt)
    result = np.linalg.svd(X, compute_uv=False)
    assert 0.68 < result.min() <= result.max() < 1.21
    assert np.linalg.norm(X - U @ Vt, 2) < 0.32


@SHAPES
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_newton_schulz_keeps_the_dtype_and_ignores_scale_and_transposition(shape, dtype):
    G = matrix(shape, dtype)
    X = newton_schulz(G)
    assert (X.dtype, X.shape) == (dtype, shape)
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(newton_schulz(np.ascontiguousarray(G.T)).T, X, **tolerance)
    np.testing.assert_allclose(newton_schulz(G * dtype(1e-6)), X, **tolerance)
    np.testing.assert_allclose(X, map_singular_values(G.astype(np.float64)), **tolerance)


@SHAPES
def test_newton_schulz_uses_only_the_workspace_that_it_asks_for(shape):
    G = matrix(shape)
    workspace = np.full(newton_schulz_workspace(shape) + 3, np.nan)
    X = newton_schulz(G, workspace=workspace)
    assert np.shares_memory(X, workspace)
    np.testing.assert_array_equal(X, newton_schulz(G))
    assert np.isnan(workspace[-3:]).all()


def test_newton_schulz_of_zeros_is_zero():
    np.testing.assert_array_equal(newton_schulz(np.zeros((3, 4))), np.zeros((3, 4)))


# ---- Muon ------------------------------------------------------------------------------------------------------------


def make_network(dtype=np.float64, rng=0):
    """A tall matrix (5, 3), a wide one (4, 5), and the last one (3, 4)."""
    return Network([Dense(3, 5), Tanh(), Dense(5, 4), Tanh(), Dense(4, 3)], rng=rng, dtype=dtype)


def gradients(network, count=3, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=network.parameters.size).astype(network.dtype) for _ in range(count)]


def take_steps(optimizer, network, gs):
    for g in gs:
        network.gradient[...] = g
        optimizer.step(network)
    return network.parameters.copy()


def naive_nesterov(theta, gs, lr, mu):
    v = 0
    for g in gs:
        v = mu * v + g
        theta = theta - lr * (g + mu * v)
    return theta


def naive_muon(theta, gs, lr, momentum=0.95, fallback_lr_scale=1.0, iterations=5, last=False):
    """Jordan's equation, parameter by parameter. last=True is a planted error: the last matrix as the others."""
    theta, first = theta.copy(), 0
    for shape in [(5, 3), (5,), (4, 5), (4,), (3, 4), (3,)]:
        part = slice(first, first := first + math.prod(shape))
        if len(shape) == 1 or (shape == (3, 4) and not last):
            theta[part] = naive_nesterov(theta[part], [g[part] for g in gs], lr * fallback_lr_scale, momentum)
            continue
        W, v = theta[part].reshape(shape), 0
        for g in gs:
            v = momentum * v + g[part].reshape(shape)
            u = map_singular_values(g[part].reshape(shape) + momentum * v, iterations)
            W = W - lr * max(1, shape[0] / shape[1]) ** 0.5 * u
        theta[part] = W.ravel()
    assert first == theta.size
    return theta


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.0}, {"momentum": 0.5}, {"fallback_lr_scale": 0.3}, {"iterations": 2}],
    ids=str,
)
def test_three_steps_of_muon_match_the_equation(options):
    network = make_network()
    before, gs = network.parameters.copy(), gradients(network)
    after = take_steps(Muon(0.05, **options), network, gs)
    np.testing.assert_allclose(after, naive_muon(before, gs, 0.05, **options), rtol=1e-8, atol=1e-10)
    for wrong in ({"momentum": 0.9}, {"iterations": 4}, {"fallback_lr_scale": 0.9}, {"last": True}):
        assert np.abs(after - naive_muon(before, gs, 0.05, **options | wrong)).max() > 1e-4


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_length_of_a_step_does_not_depend_on_the_length_of_the_gradient(scale):
    a, b = make_network(), make_network()
    (g,) = gradients(a, 1)
    first_matrix = slice(0, 15)
    ours, theirs = take_steps(Muon(0.05), a, [g]), take_steps(Muon(0.05), b, [scale * g])
    np.testing.assert_allclose(ours[first_matrix], theirs[first_matrix], rtol=1e-9)


def test_network_with_one_matrix_takes_the_steps_of_nesterov():
    a, b = Network([5, 3], rng=0), Network([5, 3], rng=0)
    gs = gradients(a)
    np.testing.assert_array_equal(take_steps(Muon(0.1), a, gs), take_steps(Nesterov(0.1, 0.95), b, gs))


def test_weight_decay_and_max_norm_apply_to_matrices_of_muon_too():
    network = make_network()
    before, (g,) = network.parameters.copy(), gradients(network, 1)
    take_steps(Muon(0.05, weight_decay=0.5, max_norm=0.7), network, [g])
    decayed = np.concatenate([before[:15] * (1 - 0.05 * 0.5), before[15:]])
    expected = naive_muon(decayed, [g], 0.05)[:15].reshape(5, 3)
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(network.layers[0].W, expected * np.minimum(1, 0.7 / norms), rtol=1e-9)


def test_momentum_that_underflows_gives_no_step_and_no_nan():
    """Its squares underflow in float32 one by one: the norm of the remaining ones would be far too small."""
    network, optimizer = make_network(np.float32), Muon(0.05, momentum=0.5)
    take_steps(optimizer, network, gradients(network, 1))
    after = take_steps(optimizer, network, [np.zeros(network.parameters.size, np.float32)] * 160)
    assert np.isfinite(after).all()
    G = np.full((100, 100), 2.6e-23, np.float32)  # its square is less than half of the smallest number above 0
    G[0, 0] = 4e-23
    assert np.abs(newton_schulz(G)).max() < 1


def test_steps_in_float32_have_one_state_vector_and_allocate_nothing(monkeypatch):
    network, optimizer = make_network(np.float32), Muon(0.05)
    gs = gradients(network)
    take_steps(optimizer, network, gs)
    assert optimizer.state.shape == (1, network.parameters.size)
    arrays = [a for theta, g, state, scratch in optimizer._blocks for a in (theta, g, *state, scratch)]
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    assert sum(theta.size for theta, *_ in optimizer._blocks) == network.parameters.size
    monkeypatch.setattr(muon, "aligned_empty", None)  # a call fails
    take_steps(optimizer, network, gs)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("momentum", 1.0, r"must be in \[0, 1\)"),
        ("fallback_lr_scale", 0, "must be a finite number > 0"),
        ("iterations", 0, "must be an integer >= 1"),
        ("iterations", 2.5, "must be an integer >= 1"),
    ],
)
def test_invalid_value_is_rejected_with_the_name_of_the_option(name, value, expected, rejects):
    with rejects(f"{name} {expected}"):
        Muon(**{name: value})
