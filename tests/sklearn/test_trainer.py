"""The optimizers of scikit-learn against their equations."""

import numpy as np
import pytest

from handgrad import Dense, Network, Tanh
from handgrad.sklearn.trainer import SklearnAdam, SklearnSGD

RNG = np.random.default_rng(0)
X, T = RNG.standard_normal((9, 4)), np.eye(3)[RNG.integers(0, 3, 9)]
LRS = [0.3, 0.1, 0.0, 0.2]
L2 = 0.05


def make_network():
    return Network([Dense(4, 5), Tanh(), Dense(5, 3)], loss="cross_entropy", rng=0, dtype=np.float64)


def penalized_gradient(network):
    network.backprop(X, T)
    for W, dW in network.weights:
        dW += L2 * W
    return network.gradient.copy()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_the_equations(nesterov):
    """v ← μ v - lr g,  θ ← θ + v or θ + μ v - lr g, with a learning rate that changes and is once 0."""
    network, twin, mu = make_network(), make_network(), 0.8
    optimizer, v = SklearnSGD(0.1, mu, nesterov), 0.0
    optimizer.l2 = L2
    for lr in LRS:
        g = penalized_gradient(twin)
        v = mu * v - lr * g
        twin.parameters += mu * v - lr * g if nesterov else v
        optimizer.train_step(network, X, T, lr)
        np.testing.assert_allclose(network.parameters, twin.parameters, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(network.gradient, g, rtol=1e-10, atol=1e-14)
    assert optimizer.steps == len(LRS)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_uses_the_lr_scale_of_a_layer_and_leaves_frozen_layers_unchanged(nesterov):
    network, twin, mu = make_network(), make_network(), 0.8
    network.layers[0].lr_scale = 0.25
    scale = np.repeat([0.25, 1], [4 * 5 + 5, 5 * 3 + 3])
    optimizer, v = SklearnSGD(0.1, mu, nesterov), 0.0
    for lr in LRS:
        twin.backprop(X, T)
        g = twin.gradient * scale
        v = mu * v - lr * g
        twin.parameters += mu * v - lr * g if nesterov else v
        optimizer.train_step(network, X, T, lr)
        np.testing.assert_allclose(network.parameters, twin.parameters, rtol=1e-12, atol=1e-14)
    network.layers[0].trainable = False
    optimizer.refresh()
    before = network.layers[0].W.copy()
    optimizer.train_step(network, X, T, 0.1)
    np.testing.assert_array_equal(network.layers[0].W, before)


def test_sgd_step_after_backprop_equals_train_step():
    a, b = make_network(), make_network()
    one, other = (SklearnSGD(0.1, 0.9, True) for _ in range(2))
    for optimizer in (one, other):
        optimizer.l2 = L2
    for lr in (0.3, 0.1):
        one.train_step(a, X, T, lr)
        b.backprop(X, T)
        other.step(b, lr)
    np.testing.assert_allclose(a.parameters, b.parameters, rtol=1e-12)


def test_adam_adds_epsilon_to_the_root_of_v():
    """θ ← θ - lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) m / (√v + ε)"""
    network, twin = make_network(), make_network()
    beta_1, beta_2, epsilon = 0.8, 0.95, 0.05
    optimizer, m, v = SklearnAdam(0.1, beta_1, beta_2, epsilon), 0.0, 0.0
    optimizer.l2 = L2
    for t, lr in enumerate(LRS, 1):
        g = penalized_gradient(twin)
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g * g
        twin.parameters -= lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)
        optimizer.train_step(network, X, T, lr)
        np.testing.assert_allclose(network.parameters, twin.parameters, rtol=1e-12, atol=1e-14)
