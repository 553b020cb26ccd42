"""The post as oracle: for the same weights and batch, the gradients, steps and predictions of examples/post.py."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from handgrad import SGD, BinaryCrossEntropy, Dense, Network, SquaredError, Trainer
from handgrad.arrays import spawn_rngs

SHAPES = [([784, 30, 10], 10), ([784, 30, 10], 1), ([5, 3], 4), ([3, 1, 2], 3), ([9, 8, 7, 6, 5, 4], 6), ([2, 4, 3], 1)]
LOSSES = {"cross-entropy": BinaryCrossEntropy(), "quadratic": SquaredError("sigmoid")}  # by the post's name
RTOL = {np.float64: 1e-10, np.float32: 1e-4}  # also relative to the largest entry: small entries are differences

CASES = [(*shape, cost, np.float64) for shape in SHAPES for cost in LOSSES]
CASES += [(*SHAPES[i], cost, np.float32) for i in (0, 4) for cost in LOSSES]
every_case = pytest.mark.parametrize(("sizes", "batch", "cost", "dtype"), CASES, ids=str)


@pytest.fixture(scope="module")
def post():
    spec = importlib.util.spec_from_file_location("post", Path(__file__).parents[1] / "examples" / "post.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def both(post, sizes, batch, cost, dtype):
    """The post's network and ours with the same weights; the batch as pairs of columns and as rows."""
    rng = np.random.default_rng([batch, *sizes])
    slow = post.Network(sizes, cost=cost, rng=rng)
    slow.weights = [w / np.sqrt(w.shape[1]) for w in slow.weights]
    fast = Network(sizes, loss=LOSSES[cost], rng=1, dtype=dtype)
    for layer, w, b in zip(dense(fast), slow.weights, slow.bias, strict=True):
        layer.W[...], layer.b[...] = w, b[:, 0]
    x, y = rng.random((batch, sizes[0])), rng.integers(0, sizes[-1], batch)
    columns = [(row[:, None], np.eye(sizes[-1])[[label]].T) for row, label in zip(x, y, strict=True)]
    rows = x.astype(dtype), fast.loss.targets(y, batch, sizes[-1], dtype)
    return slow, columns, fast, rows


def dense(network):
    return [layer for layer in network.layers if isinstance(layer, Dense)]


def assert_same(ours, posts, dtype):
    assert ours.dtype == dtype
    assert ours.shape == posts.shape
    np.testing.assert_allclose(ours, posts, rtol=RTOL[dtype], atol=RTOL[dtype] * np.abs(posts).max())


@every_case
def test_gradients_equal_the_mean_of_the_posts(post, sizes, batch, cost, dtype):
    slow, columns, fast, rows = both(post, sizes, batch, cost, dtype)
    fast.backprop(*rows)
    gradients = [slow.backprop(x, y) for x, y in columns]
    for i, layer in enumerate(dense(fast)):
        assert_same(layer.db, np.mean([b[i][:, 0] for b, _ in gradients], axis=0), dtype)
        assert_same(layer.dW, np.mean([w[i] for _, w in gradients], axis=0), dtype)


@every_case
def test_five_steps_give_the_posts_weights(post, sizes, batch, cost, dtype):
    slow, columns, fast, rows = both(post, sizes, batch, cost, dtype)
    initial = fast.parameters.copy()
    optimizer = SGD(lr=0.5)
    for _ in range(5):
        slow.update(columns, 0.5)
        fast.backprop(*rows)
        optimizer.step(fast)
    assert not np.allclose(fast.parameters, initial, rtol=1e-3)
    for layer, w, b in zip(dense(fast), slow.weights, slow.bias, strict=True):
        assert_same(layer.W, w, dtype)
        assert_same(layer.b, b[:, 0], dtype)


@every_case
def test_predictions_equal_the_posts(post, sizes, batch, cost, dtype):
    slow, columns, fast, (x, _) = both(post, sizes, batch, cost, dtype)
    assert_same(fast.predict_proba(x), np.array([slow.ff(column)[:, 0] for column, _ in columns]), dtype)


@pytest.mark.parametrize("cost", LOSSES)
def test_the_loss_equals_the_posts(post, cost):
    slow, columns, fast, (x, t) = both(post, [6, 5, 4], 7, cost, np.float64)
    a = np.hstack([slow.ff(column) for column, _ in columns])
    y = np.hstack([y for _, y in columns])
    expected = post.cross_entropy_loss(y, a) if cost == "cross-entropy" else np.sum((a - y) ** 2) / 2 / 7
    assert fast.evaluate(x, t).loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cost", LOSSES)
@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_training_gives_the_posts_weights(post, cost, batch_size, capsys):
    """Two epochs from the same weights, in the same order; the last batch of 4 has 2 examples."""
    slow, columns, fast, (x, t) = both(post, [6, 5, 4], 10, cost, np.float64)
    slow.rng = spawn_rngs(3).shuffling
    slow.sgd(2, batch_size, 0.5, columns)
    Trainer(fast, SGD(lr=0.5), batch_size=batch_size, rng=3).fit(x, t, epochs=2)
    assert capsys.readouterr().out.split("\n") == ["Epoch 0 complete", "Epoch 1 complete", ""]
    for layer, w, b in zip(dense(fast), slow.weights, slow.bias, strict=True):
        assert_same(layer.W, w, np.float64)
        assert_same(layer.b, b[:, 0], np.float64)
