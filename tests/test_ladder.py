"""Ladder: the equations, the derivatives, the noise, the statistics without noise, and the layers of inference."""

import copy
import pickle

import numpy as np
import pytest

from handgrad import (
    HOG,
    SGD,
    Adam,
    BatchNorm,
    Dense,
    HandgradError,
    Ladder,
    Network,
    ReLU,
    Tanh,
    Trainer,
    check_gradient,
    fold_batchnorm,
    load,
    save,
)
from handgrad.gradcheck import GradientError

SIZES = [5, 4, 3, 2]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def network(sizes: list[int] = SIZES, **options: float) -> Network:
    return Network([Ladder(sizes, **options)], loss="cross_entropy", rng=0, dtype=np.float64)


def randomize(net: Network, rng: np.random.Generator) -> None:
    """No parameter keeps its initial value; variances stay positive."""
    net.parameters += rng.uniform(-0.5, 0.5, net.parameters.shape)


def normalized(z: np.ndarray) -> np.ndarray:
    return (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)


def sigma(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def test_the_output_and_the_cost_are_those_of_the_equations(rng):
    net = network(noise=0.2, cost_factor=3.0)
    randomize(net, rng)
    layer, x, weight = net.layers[0], rng.random((6, 5)), rng.random((6, 1))
    draws = copy.deepcopy(layer.rng)

    def noise(n: int) -> np.ndarray:
        return 0.2 * draws.standard_normal(6 * n).reshape(6, n)

    z = [x + noise(5)]
    h = z[0]
    for k, n in ((1, 4), (2, 3), (3, 2)):
        z.append(normalized(h @ getattr(layer, f"W{k}").T) + getattr(layer, f"b{k}") + noise(n))
        h = np.maximum(z[-1], 0)
    y = layer.g * z[3]
    z_hat = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    for k in (3, 2, 1, 0):
        u, a = (
            normalized(z_hat if k == 3 else z_hat @ getattr(layer, f"V{k + 1}").T),
            getattr(layer, f"a{k}").reshape(10, -1),
        )
        mu = a[0] * sigma(a[1] * u + a[2]) + a[3] * u + a[4]
        v = a[5] * sigma(a[6] * u + a[7]) + a[8] * u + a[9]
        z_hat = (z[k] - mu) * v + mu
    cost = 3.0 / 5 * (weight * ((z_hat - x) ** 2)).sum()

    logits = net.backprop(x, np.eye(2)[[0, 1, 0, 1, 1, 1]], weight)
    np.testing.assert_allclose(logits, y, rtol=1e-12)
    assert layer.cost(weight) == pytest.approx(cost, rel=1e-12)


@pytest.mark.parametrize(("sizes", "batch"), [([5, 2], 7), (SIZES, 1), (SIZES, 9), ([4, 6, 2], 7)])
def test_the_derivatives_are_those_of_finite_differences(sizes, batch):
    rng = np.random.default_rng(1)  # with seed 0, a unit is so close to 0 that a finite difference crosses it
    x, y = rng.random((batch, sizes[0])), rng.integers(0, 2, batch)
    net = network(sizes, cost_factor=4.0)
    randomize(net, rng)
    names = {check.name for check in check_gradient(net, x, y)}
    assert {"layer 0 Ladder dV1", "layer 0 Ladder da0", "dx"} <= names
    check_gradient(Ladder(sizes, cost_factor=4.0), x)


def test_the_derivatives_behind_and_before_other_layers(rng):
    layers = [HOG(4, 3, 2), Dense(32, 6), Tanh(), Ladder([6, 5, 4], cost_factor=4.0), ReLU(), Dense(4, 2)]
    net = Network(layers, loss="cross_entropy", rng=0, dtype=np.float64)
    check_gradient(net, rng.random((9, 12)), rng.integers(0, 2, 9))
    x = rng.random((3, 12))
    np.testing.assert_allclose(fold_batchnorm(net).predict_proba(x), net.predict_proba(x), rtol=1e-12)


@pytest.mark.parametrize("name", ["W1", "b2", "g", "V1", "V3", "a0", "a3"])
def test_a_wrong_derivative_is_found(name, rng, monkeypatch):
    backward = Ladder.backward_parameters

    def wrong(layer: Ladder, dy: np.ndarray) -> None:
        backward(layer, dy)
        getattr(layer, f"d{name}")[...] *= 1.01

    monkeypatch.setattr(Ladder, "backward_parameters", wrong)
    net = network(cost_factor=4.0)
    randomize(net, rng)
    with pytest.raises(GradientError, match=f"Ladder d{name}"):
        check_gradient(net, rng.random((9, 5)), rng.integers(0, 2, 9))


def test_the_initial_decoder_returns_the_noisy_input(rng):
    net = network([40, 20, 2], noise=0.3, cost_factor=1.0)
    net.backprop(rng.random((500, 40)), np.zeros((500, 2)))
    assert net.layers[0].cost(1 / 500) == pytest.approx(0.3**2, rel=0.02)


def test_the_cost_has_the_weights_of_the_examples_and_the_scale_of_the_gradient(rng):
    x, t = rng.random((8, 5)), np.eye(2)[rng.integers(0, 2, 8)]
    net, state = network(), None
    gradients = []
    for weight, scale in ((None, 1.0), (1 / 8, 1.0), (None, 0.25)):
        state = state or net.layers[0].rng.bit_generator.state
        net.layers[0].rng.bit_generator.state = state
        net.backprop(x, t, weight, scale=scale)
        gradients.append(net.gradient.copy())
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-12)
    np.testing.assert_allclose(gradients[2], gradients[0], rtol=1e-12, atol=1e-15)

    net.layers[0].rng.bit_generator.state = state
    before = net.parameters.copy()
    statistics = np.concatenate([np.full(p.size, "running" in name) for name, p in net.named_parameters.items()])
    SGD(0.1).train_step(net, x, t, 0.1)  # computes with the learning rate as the scale
    np.testing.assert_allclose((before - net.parameters)[~statistics], 0.1 * gradients[0][~statistics], atol=1e-14)
    assert not gradients[0][statistics].any()


def test_an_example_of_weight_0_has_no_reconstruction_error(rng):
    net, x = network(cost_factor=50.0), rng.random((6, 5))
    layer = net.layers[0]
    net.forward(x)
    weight = np.array([[1.0], [0], [0], [2], [0], [0]])
    costs = [layer.cost(np.eye(6)[i][:, None]) for i in range(6)]
    assert layer.cost(weight) == pytest.approx(costs[0] + 2 * costs[3], rel=1e-12)


def test_the_weights_of_a_batch_do_not_affect_later_ones(rng):
    net = network()
    x, y = rng.random((20, 5)), rng.integers(0, 2, 20)
    Trainer(net, Adam(0.01), batch_size=8, rng=0).fit(x, y, epochs=1, sample_weight=rng.random(20), progress=False)
    net.forward(x[:5])
    net.backward(np.ones((5, 2)))
    assert not net.layers[0].dV1.any()  # without `backprop`, the cost has no weight


def test_the_running_statistics_are_those_without_noise(rng):
    net, x = network(noise=1.0), rng.random((64, 5))
    randomize(net, rng)
    for _ in range(1500):
        rng.shuffle(x)
        net.forward(x)
    layer, h = net.layers[0], x
    for k in (1, 2, 3):
        mean, var = getattr(layer, f"running_mean{k}"), getattr(layer, f"running_var{k}")
        z = h @ getattr(layer, f"W{k}").T
        np.testing.assert_allclose(mean, z.mean(axis=0), atol=0.15)
        np.testing.assert_allclose(var, z.var(axis=0), rtol=0.3)
        h = np.maximum((z - mean) / np.sqrt(var + 1e-5) + getattr(layer, f"b{k}"), 0)


def test_the_running_statistics_are_those_of_rows_from_the_whole_batch(rng):
    """An adversarial training perturbs the first half of a batch."""
    net, x = network(), rng.random((64, 5))
    x[32:] += 100
    net.forward(x)
    z = x @ net.layers[0].W1.T
    np.testing.assert_allclose(net.layers[0].running_mean1, z.mean(axis=0), rtol=0.1)  # the first update replaces 0


def test_the_running_statistics_are_averages_with_a_momentum_that_decreases(rng):
    net = network()
    layer, mean = net.layers[0], np.zeros(4)
    for t in range(1, 1001):
        x = rng.random((4, 5))
        net.forward(x)
        mean += max(4 / (t + 3), 0.005) * ((x @ layer.W1.T).mean(axis=0) - mean)
        if t in (1, 2, 10, 1000):
            np.testing.assert_allclose(layer.running_mean1, mean, rtol=1e-9)
    assert layer.running_count == 1000


def test_a_frozen_layer_does_not_change(rng):
    net, x = network(), rng.random((32, 5))
    net.layers[0].trainable = False
    before = {name: p.copy() for name, p in net.named_parameters.items()}
    Trainer(net, Adam(0.01), batch_size=8, rng=0).fit(x, rng.integers(0, 2, 32), epochs=2, progress=False)
    changed = {name for name, p in net.named_parameters.items() if (p != before[name]).any()}
    assert not changed


def test_inference_is_a_sequence_of_dense_batchnorm_and_relu(rng):
    net = network()
    randomize(net, rng)
    kinds = [type(layer) for layer in net.layers[0].encoder_layers()]
    assert kinds == [Dense, BatchNorm, ReLU, Dense, BatchNorm, ReLU, Dense, BatchNorm]
    folded, x = fold_batchnorm(net), rng.random((7, 5))
    assert [type(layer) for layer in folded.layers] == [Dense, ReLU, Dense, ReLU, Dense]
    np.testing.assert_allclose(folded.predict_proba(x), net.predict_proba(x), rtol=1e-12)
    assert len(pickle.dumps(folded)) < len(pickle.dumps(net)) / 2  # without the decoder


def test_training_reduces_the_cost(rng):
    basis = rng.standard_normal((2, 8))
    x = rng.standard_normal((400, 2)) @ basis  # two numbers determine the eight inputs
    net = network([8, 6, 4, 2], noise=0.5, cost_factor=10.0)
    costs = []
    for epochs in (1, 30):
        Trainer(net, Adam(0.01), batch_size=50, rng=0).fit(x, (x[:, 0] > 0).astype(int), epochs=epochs, progress=False)
        net.backprop(x, np.zeros((400, 2)))
        costs.append(net.layers[0].cost(1 / 400))
    assert costs[1] < 0.5 * costs[0]
    assert net.evaluate(x, (x[:, 0] > 0).astype(int)).accuracy > 0.9


def test_a_training_continues_to_the_same_bits(rng):
    x, y = rng.random((50, 5)), rng.integers(0, 2, 50)

    def trainer() -> Trainer:
        return Trainer(network(), Adam(0.01), batch_size=20, rng=0)

    whole, first, second = trainer(), trainer(), trainer()
    whole.fit(x, y, until_epoch=4, progress=False)
    first.fit(x, y, until_epoch=2, progress=False)
    second.load_state_dict(first.state_dict())
    second.fit(x, y, until_epoch=4, progress=False)
    np.testing.assert_array_equal(second.network.parameters, whole.network.parameters)


def test_copies_and_model_files_keep_the_decoder(rng, tmp_path):
    net, x = network(noise=0.1, cost_factor=7.0), rng.random((6, 5))
    randomize(net, rng)
    net.predict(x)
    save(net, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    for other in (copy.deepcopy(net), load(path), load(path, mmap=True)):
        assert repr(other.layers[0]) == "Ladder(sizes=[5, 4, 3, 2], noise=0.1, cost_factor=7.0)"
        np.testing.assert_array_equal(other.parameters, net.parameters)
        np.testing.assert_array_equal(other.predict_proba(x), net.predict_proba(x))
        Trainer(other, Adam(0.01), batch_size=3, rng=0).fit(x, [0, 1, 0, 1, 1, 0], epochs=1, progress=False)


def test_a_file_with_a_negative_variance_is_rejected(tmp_path):
    net = network()
    net.layers[0].running_var2[0] = -1
    save(net, tmp_path / "model.safetensors")
    with pytest.raises(HandgradError, match="negative variance"):
        load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [5]}, "at least two sizes"),
        ({"sizes": 784}, "at least two sizes"),
        ({"sizes": [5, 0]}, "size must be"),
        ({"sizes": SIZES, "noise": -1.0}, "noise must be"),
        ({"sizes": SIZES, "cost_factor": float("nan")}, "cost_factor must be"),
    ],
)
def test_invalid_arguments_are_rejected(options, message):
    with pytest.raises(HandgradError, match=message):
        Ladder(**options)
