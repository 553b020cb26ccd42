"""The chain over one vector: what it is made of, what it answers, how it is copied, what it refuses."""

import contextlib
import copy
import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import (
    SGD,
    BatchNorm,
    Dense,
    Deskew,
    Dropout,
    Evaluation,
    HandgradError,
    Identity,
    Layer,
    LeakyReLU,
    Network,
    Quadratic,
    ReLU,
    Sigmoid,
    CrossEntropy,
    Tanh,
    Trainer,
    arrays,
    check_gradient,
    network,
    one_hot,
)
from handgrad.images.deskew import Preprocessing
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES

X = np.random.default_rng(0).random((9, 6))
Y = np.arange(9) % 4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def kinds(network):
    return [type(layer) for layer in network.layers]


def assert_views(network):
    """Every parameter and derivative lies in the network's two vectors, in the order of the chain."""
    for vector, prefix in ((network.parameters, ""), (network.gradient, "d")):
        vector[...] = np.arange(vector.size)
        parts = [getattr(layer, prefix + name) for layer in network.layers for name in layer.parameter_shapes]
        assert all(np.shares_memory(part, vector) for part in parts)
        np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), vector)
        assert vector.flags.c_contiguous


# ---- What it is made of ---------------------------------------------------------------------------------------------


def test_the_posts_network_has_its_number_of_parameters():
    post = Network([784, 30, 10], rng=0)
    assert post.parameters.size == post.gradient.size == 23_860  # 784·30 + 30 + 30·10 + 10
    assert kinds(post) == [Dense, Sigmoid, Dense]
    assert repr(post.loss) == "BinaryCrossEntropy()"
    assert [layer.init for layer in post.layers[::2]] == ["normal", "normal"]
    assert post.parameters.dtype == np.float32


def test_the_vector_holds_w1_b1_w2_b2():
    small = Network([2, 3, 1], rng=0)
    small.parameters[...] = np.arange(13)
    first, second = small.layers[0], small.layers[2]
    np.testing.assert_array_equal(first.W, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(first.b, [6, 7, 8])
    np.testing.assert_array_equal(second.W, [[9, 10, 11]])
    np.testing.assert_array_equal(second.b, [12])


@pytest.mark.parametrize("layers", [[3, 2], [5, 4, 3, 2], [Dropout(), Dense(3, 4), Tanh(), Dropout(), Dense(4, 2)]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_parameter_is_a_view(layers, dtype):
    made = Network(copy.deepcopy(layers), rng=0, dtype=dtype)
    assert made.parameters.dtype == made.gradient.dtype == dtype
    assert_views(made)


def test_parameters_by_name():
    named = Network([Dropout(), Dense(3, 4), Tanh(), Dense(4, 2)], rng=0).named_parameters
    shapes = {"1.W": (4, 3), "1.b": (4,), "3.W": (2, 4), "3.b": (2,)}
    assert {name: p.shape for name, p in named.items()} == shapes
    assert list(named) == list(shapes)


def test_weights_are_the_matrices_and_their_derivatives():
    made = Network([3, 4, 2], rng=0)
    expected = [(layer.W, layer.dW) for layer in (made.layers[0], made.layers[2])]
    assert all(W is V and dW is dV for (W, dW), (V, dV) in zip(made.weights, expected, strict=True))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"activation": "relu"}, [Dense, ReLU, Dense, ReLU, Dense]),
        ({"activation": ["tanh", "leaky_relu"]}, [Dense, Tanh, Dense, LeakyReLU, Dense]),
        ({"activation": ["identity", "relu"]}, [Dense, Dense, ReLU, Dense]),
        ({"activation": "relu", "loss": "quadratic"}, [Dense, ReLU, Dense, ReLU, Dense, Sigmoid]),
        ({"activation": "relu", "loss": Quadratic()}, [Dense, ReLU, Dense, ReLU, Dense, Sigmoid]),
        ({"loss": "cross_entropy"}, [Dense, Sigmoid, Dense, Sigmoid, Dense]),
    ],
)
def test_sizes_and_activations_make_the_chain(arguments, expected):
    made = Network([6, 5, 4, 3], rng=0, **arguments)
    assert kinds(made) == expected
    assert [(layer.n_in, layer.n_out) for layer in made.layers if isinstance(layer, Dense)] == [(6, 5), (5, 4), (4, 3)]


@pytest.mark.parametrize(
    ("activation", "init"),
    [("sigmoid", "normal"), ("tanh", "xavier_normal"), ("relu", "kaiming_normal"), ("gelu", "kaiming_normal")],
)
def test_the_activation_calls_for_its_initializer_where_none_is_named(activation, init):
    assert Network([4, 3, 2], activation=activation, rng=0).layers[0].init == init
    named = Network([4, 3, 2], activation=activation, init="lecun", rng=0)
    assert {layer.init for layer in named.layers if isinstance(layer, Dense)} == {"lecun"}


def test_each_layer_is_born_as_the_activation_above_it_wants_the_last_as_the_one_below():
    made = Network([5, 4, 3, 2], activation=["tanh", "relu"], rng=0)
    assert [layer.init for layer in made.layers[::2]] == ["xavier_normal", "kaiming_normal", "kaiming_normal"]


def test_two_sizes_are_a_single_layer():
    assert kinds(Network([4, 3], rng=0)) == [Dense]


def test_the_seed_decides():
    first, again, other = (Network([4, 3, 2], rng=seed).parameters for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_repr_says_what_it_is():
    made = Network([Dense(784, 30, "lecun"), Tanh(), Dense(30, 10)], loss=CrossEntropy(0.1), rng=0)
    assert repr(made) == (
        "Network([Dense(n_in=784, n_out=30, init='lecun'), Tanh(), Dense(n_in=30, n_out=10, init='kaiming_normal')], "
        "loss=CrossEntropy(label_smoothing=0.1)): 23,860 parameters, float32"
    )


# ---- Forward and backward -------------------------------------------------------------------------------------------


def test_forward_is_the_equations():
    made = Network([6, 5, 4], activation="tanh", rng=0, dtype=np.float64)
    made.parameters[...] = np.random.default_rng(1).standard_normal(made.parameters.size)
    first, second = made.layers[0], made.layers[2]
    expected = np.tanh(X @ first.W.T + first.b) @ second.W.T + second.b
    np.testing.assert_allclose(made.forward(X), expected, **CLOSE)
    np.testing.assert_allclose(made.outputs(X), expected, **CLOSE)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_a_batch_is_the_mean_of_its_examples(loss):
    made = Network([6, 5, 4], loss=loss, rng=0, dtype=np.float64)
    t = one_hot(Y, 4, np.float64)
    alone = []
    for i in range(9):
        made.backprop(X[i : i + 1], t[i : i + 1])
        alone.append(made.gradient.copy())
    made.backprop(X, t)
    np.testing.assert_allclose(made.gradient, np.mean(alone, axis=0), **CLOSE)


def test_backprop_leaves_the_parameters_and_returns_the_outputs():
    made = Network([6, 5, 4], rng=0, dtype=np.float64)
    before = made.parameters.copy()
    z = made.backprop(X, one_hot(Y, 4, np.float64)).copy()
    np.testing.assert_array_equal(made.parameters, before)
    np.testing.assert_array_equal(z, made.forward(X))


def test_nothing_of_one_batch_is_left_in_the_next():
    made, fresh = (Network([6, 5, 4], rng=0, dtype=np.float64) for _ in range(2))
    t = one_hot(Y, 4, np.float64)
    for rows in (slice(0, 5), slice(0, 9), slice(2, 3)):
        made.backprop(X[rows], t[rows])
    made.evaluate(X, Y)
    made.backprop(X[5:], t[5:])
    fresh.backprop(X[5:], t[5:])
    np.testing.assert_array_equal(made.gradient, fresh.gradient)


@pytest.mark.parametrize("below", [[Dropout(0.3)], [Identity()], [Dropout(0.2), Tanh()], []])
def test_the_layers_below_the_first_parameters_change_no_gradient_of_theirs(below):
    """Backward stops at the first parameters, wherever they stand."""
    made = Network([*below, Dense(6, 5), Tanh(), Dense(5, 4)], rng=0, dtype=np.float64)
    checks = check_gradient(made, X, Y)
    assert [check.name.split()[-1] for check in checks] == ["dW", "db", "dW", "db", "dx"]


def test_dropout_acts_in_training_and_not_in_answers():
    plain = Network([Dense(6, 50), Tanh(), Dense(50, 4)], rng=3)
    noisy = Network([Dense(6, 50), Tanh(), Dropout(0.5), Dense(50, 4)], rng=3)
    x = X.astype(np.float32)
    np.testing.assert_array_equal(noisy.outputs(x), plain.outputs(x))
    first = noisy.forward(x).copy()
    assert (first != plain.outputs(x)).mean() > 0.9
    assert (first != noisy.forward(x)).mean() > 0.9
    np.testing.assert_array_equal(noisy.outputs(x), noisy.outputs(x))


def test_answers_draw_nothing():
    made = Network([Dense(6, 5), Dropout(), Dense(5, 4)], rng=0)
    state = made.layers[1].rng.bit_generator.state
    made.predict(X), made.evaluate(X, Y), made.predict_proba(X), made.activations(X)
    assert made.layers[1].rng.bit_generator.state == state


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    batch=st.integers(1, 12),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    loss=st.sampled_from(sorted(LOSSES)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_any_sizes_give_shapes_that_fit_and_finite_numbers(sizes, batch, activation, loss, dtype, seed):
    rng = np.random.default_rng(seed)
    made = Network(sizes, activation=activation, loss=loss, rng=rng, dtype=dtype)
    x, y = rng.standard_normal((batch, sizes[0])), rng.integers(0, sizes[-1], batch)
    made.gradient[...] = np.nan  # each entry must be written
    z = made.backprop(x.astype(dtype), one_hot(y, sizes[-1], dtype))
    assert z.shape == made.outputs(x).shape == (batch, sizes[-1])
    assert made.parameters.size == sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert np.isfinite(z).all()
    assert np.isfinite(made.gradient).all()
    assert [a.shape[0] for a in made.activations(x)] == [batch] * len(made.layers)
    if sizes[-1] > 1 or loss != "cross_entropy":
        assert 0 <= made.evaluate(x, y).accuracy <= 1


# ---- Answers --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=LOSSES)
def any_loss(request):
    made = Network([6, 5, 4], activation="tanh", loss=request.param, rng=0, dtype=np.float64)
    made.parameters[...] = np.random.default_rng(1).standard_normal(made.parameters.size)
    return made


def test_answers_agree_with_each_other_and_with_plain_numpy(any_loss):
    layers = [layer for layer in any_loss.layers if isinstance(layer, Dense)]
    z = np.tanh(X @ layers[0].W.T + layers[0].b) @ layers[1].W.T + layers[1].b
    sigma = 1 / (1 + np.exp(-z))
    p, loss = {
        "Quadratic": (sigma, ((sigma - np.eye(4)[Y]) ** 2).sum(axis=1).mean() / 2),
        "BinaryCrossEntropy": (sigma, -np.log(np.where(np.eye(4)[Y] == 1, sigma, 1 - sigma)).sum(axis=1).mean()),
        "CrossEntropy": (
            np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
            -np.log(np.exp(z)[np.arange(9), Y] / np.exp(z).sum(axis=1)).mean(),
        ),
    }[type(any_loss.loss).__name__]
    labels = p.argmax(axis=1)
    matrix = np.zeros((4, 4), int)
    for true, answer in zip(Y, labels, strict=True):
        matrix[true, answer] += 1

    np.testing.assert_allclose(any_loss.predict_proba(X), p, **CLOSE)
    np.testing.assert_array_equal(any_loss.predict(X), labels)
    np.testing.assert_array_equal(any_loss.confusion_matrix(X, Y), matrix)
    evaluation = any_loss.evaluate(X, Y)
    assert evaluation == Evaluation(pytest.approx(loss, rel=1e-12), np.trace(matrix), 9)
    assert evaluation.accuracy == np.mean(labels == Y)
    assert 0 < evaluation.correct < 9  # some right, some wrong: the comparison saw both


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_soft_labels_are_the_probabilities_made_more_even(any_loss, temperature):
    e = any_loss.predict_proba(X) ** (1 / temperature)  # = exp(z / T) of a softmax, but for a factor of the row
    soft = any_loss.soft_labels(X, temperature)
    np.testing.assert_allclose(soft, e / e.sum(axis=1, keepdims=True), **CLOSE)
    assert any_loss.astype(np.float32).soft_labels(X, np.float64(temperature)).dtype == np.float32
    any_loss.backprop(X, any_loss.loss.targets(soft, 9, 4, np.float64))  # they are targets


def test_a_network_has_nothing_to_learn_from_its_own_soft_labels():
    made = Network([6, 5, 4], loss=CrossEntropy(temperature=3), rng=0, dtype=np.float64)
    made.backprop(X, made.soft_labels(X, 3))
    np.testing.assert_allclose(made.gradient, 0, atol=1e-14)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_soft_labels_of_no_temperature_are_refused(temperature, refused):
    with refused("temperature .* above 0"):
        Network([6, 4], rng=0).soft_labels(X, temperature)


def test_rows_and_labels_are_evaluated_alike(any_loss):
    assert any_loss.evaluate(X, Y) == any_loss.evaluate(X, np.eye(4)[Y]) == any_loss.evaluate(X.tolist(), Y.tolist())


@pytest.mark.parametrize("block", [1, 4, 9, 1000])
def test_blocks_change_no_answer(any_loss, block, monkeypatch):
    whole = any_loss.outputs(X), any_loss.activations(X), any_loss.evaluate(X, Y)
    monkeypatch.setattr(network, "BLOCK", block)
    np.testing.assert_allclose(any_loss.outputs(X), whole[0], **CLOSE)
    for a, b in zip(any_loss.activations(X), whole[1], strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    assert any_loss.evaluate(X, Y).loss == pytest.approx(whole[2].loss, rel=1e-12)
    assert any_loss.confusion_matrix(X, Y).sum() == 9


def test_more_rows_than_a_block_are_all_answered():
    made = Network([3, 4], rng=0, dtype=np.float64)
    x = np.random.default_rng(0).random((2 * network.BLOCK + 3, 3))
    W, b = made.layers[0].W, made.layers[0].b
    np.testing.assert_allclose(made.outputs(x), x @ W.T + b, **CLOSE)
    assert made.confusion_matrix(x, np.zeros(len(x), int)).sum() == len(x)


def test_activations_are_what_every_layer_makes(any_loss):
    kept = any_loss.activations(X)
    assert [a.shape for a in kept] == [
        (9, layer.width(n)) for layer, n in zip(any_loss.layers, [6, 5, 5, 4], strict=False)
    ]
    first = any_loss.layers[0]
    np.testing.assert_allclose(kept[0], X @ first.W.T + first.b, **CLOSE)
    np.testing.assert_allclose(kept[1], np.tanh(kept[0]), **CLOSE)
    np.testing.assert_array_equal(kept[-1], any_loss.outputs(X))


def test_answers_are_arrays_of_their_own(any_loss):
    z, p, kept = any_loss.outputs(X), any_loss.predict_proba(X), any_loss.activations(X)
    copies = z.copy(), p.copy(), [a.copy() for a in kept]
    any_loss.outputs(2 * X), any_loss.predict_proba(2 * X), any_loss.activations(2 * X)
    np.testing.assert_array_equal(z, copies[0])
    np.testing.assert_array_equal(p, copies[1])
    for a, b in zip(kept, copies[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_answer_that_is_known_stands_in_the_matrix_where_it_should():
    """Weights that pass x through: the answer is the largest input."""
    made = Network([Dense(3, 3)], rng=0)
    made.layers[0].W[...] = np.eye(3)
    x = np.eye(3)[[0, 1, 1, 2]]
    np.testing.assert_array_equal(made.confusion_matrix(x, [0, 1, 2, 0]), [[1, 0, 1], [0, 1, 0], [0, 1, 0]])


def test_images_and_rows_of_bytes_and_of_floats_are_the_same_examples():
    made = Network([784, 30, 10], rng=0)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    expected = made.outputs(images.reshape(5, 784) / 255)
    for x in (images, images.reshape(5, 784), images / 255, (images / 255).astype(np.float32)):
        np.testing.assert_allclose(made.outputs(x), expected, rtol=1e-4, atol=1e-4)  # float32, sums of 784
    np.testing.assert_array_equal(made.outputs(images), made.outputs(images.reshape(5, 784)))


def test_only_bytes_are_pixels_other_integers_are_numbers():
    made = Network([3, 2], rng=0, dtype=np.float64)
    x = np.array([[0, 128, 255]])
    np.testing.assert_array_equal(made.outputs(x), made.outputs(x.astype(float)))
    np.testing.assert_allclose(made.outputs(x.astype(np.uint8)), made.outputs(x / 255), **CLOSE)


# ---- Preprocessing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 4, 1000])
@pytest.mark.parametrize("as_seen", [lambda x: x, lambda x: x / 255, lambda x: (x / 255).astype(np.float32)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_answer_is_that_to_the_preprocessed_examples(dtype, as_seen, block, monkeypatch):
    monkeypatch.setattr(network, "BLOCK", block)
    x = as_seen(np.random.default_rng(0).integers(0, 256, (9, 6), dtype=np.uint8))
    before, deskewed = x.copy(), Deskew(2, 3)(x)
    plain = Network([6, 5, 4], activation="tanh", rng=0, dtype=dtype)
    made = Network([6, 5, 4], activation="tanh", rng=0, dtype=dtype, preprocessing=Deskew(2, 3))
    close = CLOSE if dtype == np.float64 and x.dtype != np.float32 else {"rtol": 1e-4, "atol": 1e-5}
    assert np.abs(made.outputs(x) - plain.outputs(x)).max() > 0.01  # it does something
    np.testing.assert_allclose(made.outputs(x), plain.outputs(deskewed), **close)
    np.testing.assert_allclose(made.outputs(x.reshape(9, 2, 3)), plain.outputs(deskewed), **close)
    np.testing.assert_allclose(made.predict_proba(x), plain.predict_proba(deskewed), **close)
    np.testing.assert_array_equal(made.predict(x), plain.predict(deskewed))
    np.testing.assert_array_equal(made.confusion_matrix(x, Y), plain.confusion_matrix(deskewed, Y))
    assert made.evaluate(x, Y) == (pytest.approx(plain.evaluate(deskewed, Y).loss), *plain.evaluate(deskewed, Y)[1:])
    for a, b in zip(made.activations(x), plain.activations(deskewed), strict=True):
        np.testing.assert_allclose(a, b, **close)
    np.testing.assert_array_equal(made.preprocess(x), deskewed)
    np.testing.assert_array_equal(x, before)


def test_forward_and_backprop_take_what_is_preprocessed():
    plain, made = (Network([6, 5, 4], rng=0, preprocessing=p) for p in (None, Deskew(2, 3)))
    x, t = X.astype(np.float32), one_hot(Y, 4)
    np.testing.assert_array_equal(made.forward(x), plain.forward(x))
    made.backprop(x, t), plain.backprop(x, t)
    np.testing.assert_array_equal(made.gradient, plain.gradient)
    assert plain.preprocess(x) is x


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_preprocessing_for_an_answer_takes_no_memory_of_the_sets_size(dtype):
    made = Network([64, 1], rng=0, preprocessing=Deskew(8, 8))
    x = np.ones((120_000, 64), dtype)
    tracemalloc.start()
    made.outputs(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 2


def test_a_preprocessing_of_ones_own_needs_a_call_and_a_config():
    class Negative(Preprocessing):
        n_in = n_out = 6

        def __call__(self, x, out=None):
            return np.subtract(1, x, out=out)

        def config(self):
            return {}

    made = Network([6, 4], rng=0, dtype=np.float64, preprocessing=Negative())
    np.testing.assert_allclose(made.outputs(X), Network([6, 4], rng=0, dtype=np.float64).outputs(1 - X), **CLOSE)
    assert repr(made).endswith("loss=BinaryCrossEntropy(), preprocessing=Negative()): 28 parameters, float64")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Deskew(2, 4), r"Deskew\(height=2, width=4\) gives 8 inputs, the network takes 6"),
        (Deskew(4, 4, 2), r"shrink=2\) gives 4 inputs, the network takes 6"),
        (Deskew, "expected a Preprocessing"),
        ("Deskew", "'Deskew': expected a Preprocessing"),
    ],
)
def test_a_preprocessing_that_is_none_is_refused(wrong, says, refused):
    with refused(says):
        Network([6, 4], rng=0, preprocessing=wrong)
    made = Network([6, 4], rng=0, preprocessing=Deskew(2, 3))
    with refused(says):
        made.preprocessing = wrong
    assert repr(made.preprocessing) == "Deskew(height=2, width=3)"
    made.preprocessing = None
    np.testing.assert_array_equal(made.outputs(X), Network([6, 4], rng=0).outputs(X))


# ---- Several views of a picture --------------------------------------------------------------------------------------


def seer(views=1, shape=(3, 4), dtype=np.float64, loss="cross_entropy", **options):
    """A network that sees pictures."""
    made = Network([math.prod(shape), 5, 4], rng=3, dtype=dtype, loss=loss, **options)
    made.image_shape = shape
    made.views = views
    return made


def shifted(picture, down, across):
    """The picture moved down and across, pixel by pixel; where none comes from, paper."""
    out = np.zeros_like(picture)
    height, width = picture.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - across < width:
                out[y, x] = picture[y - down, x - across]
    return out


SEEN = {
    1: {(0, 0)},
    5: {(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)},
    9: set(itertools.product((-1, 0, 1), repeat=2)),
}


@pytest.mark.parametrize("views", SEEN)
@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 6), (6, 1)])
@pytest.mark.parametrize("loss", LOSSES)
def test_views_answer_by_the_mean_of_their_probabilities(views, shape, loss):
    one, several = seer(1, shape, loss=loss), seer(views, shape, loss=loss)
    x = np.random.default_rng(1).random((7, *shape))
    each = [one.predict_proba(np.stack([shifted(p, *by) for p in x])) for by in SEEN[views]]
    expected = np.mean(each, axis=0)
    np.testing.assert_allclose(several.predict_proba(x), expected, rtol=1e-9)
    np.testing.assert_array_equal(several.predict(x), expected.argmax(axis=1))
    np.testing.assert_allclose(several.loss.activation(several.outputs(x)), expected, rtol=1e-9)
    if views > 1:
        assert (np.abs(expected - one.predict_proba(x)) > 1e-6).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 3, 1000])
def test_views_are_of_the_preprocessed_bytes_in_blocks_of_any_size(dtype, block, monkeypatch):
    deskew = Deskew(6, 8, 2)
    several = seer(9, (3, 4), dtype)
    x = np.random.default_rng(2).integers(0, 256, (8, 6, 8)).astype(np.uint8)
    expected = several.outputs(deskew(x))
    several.image_shape, several.preprocessing = (6, 8), deskew
    monkeypatch.setattr(network, "BLOCK", block)
    got = several.outputs(x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5 if dtype == np.float32 else 1e-12)
    assert (several.input_shape, several.n_in, several.n_in) == ((3, 4), 48, 12)


def test_views_change_no_training_and_no_parameters():
    one, several = seer(1), seer(9)
    x, y = np.random.default_rng(1).random((6, 12)), np.arange(6) % 4
    for made in (one, several):
        Trainer(made, SGD(0.1), batch_size=3, rng=0).fit(x, y, epochs=2)
    np.testing.assert_array_equal(one.parameters, several.parameters)
    assert (one.outputs(x) != several.outputs(x)).any()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, Network.folded, lambda made: made.astype(np.float32)])
def test_a_copy_has_the_same_views(copied):
    several = seer(5)
    x = np.random.default_rng(1).random((6, 12))
    again = copied(several)
    assert again.views == 5
    np.testing.assert_allclose(again.outputs(x), several.outputs(x), rtol=1e-5)


@pytest.mark.parametrize("views", [0, 2, 3, 4, 8, 25, -1])
def test_other_numbers_of_views_are_refused(views, refused):
    made = seer(5)
    with refused(f"views {views} of .*expected 1, 5 or 9"):
        made.views = views
    assert made.views == 5


def test_views_of_what_is_no_picture_are_refused(refused):
    made = Network([12, 4], rng=0)
    with refused("views 5 of no pictures"):
        made.views = 5
    made.views = 1
    made.preprocessing = Deskew(3, 4)  # which says what size they are
    made.views = 5
    assert made.input_shape == (3, 4)


# ---- What the first layer sees, and sizes with more between them -----------------------------------------------------


def test_preprocessed_is_the_network_for_what_its_first_layer_sees():
    deskew = Deskew(6, 8, 2)
    made = Network([12, 5, 4], rng=3, dtype=np.float64, preprocessing=deskew)
    made.image_shape, made.views = (6, 8), 5
    x = np.random.default_rng(2).integers(0, 256, (8, 48)).astype(np.uint8)
    inner = made.preprocessed()
    assert (inner.n_in, inner.image_shape, inner.input_shape, inner.preprocessing) == (12, (3, 4), (3, 4), None)
    np.testing.assert_array_equal(inner.outputs(deskew(x)), made.outputs(x))
    assert (made.n_in, made.image_shape, made.preprocessing) == (48, (6, 8), deskew)
    assert inner.parameters is made.parameters


@pytest.mark.parametrize("hidden", [0, 1, 3])
def test_sizes_may_have_batch_norm_and_dropout_in_every_hidden_layer(hidden):
    made = Network([6, *[5] * hidden, 4], activation="relu", batch_norm=True, dropout=0.25, rng=0)
    assert kinds(made) == [*[Dense, BatchNorm, ReLU, Dropout] * hidden, Dense]
    assert all(layer.rate == 0.25 for layer in made.layers if type(layer) is Dropout)
    assert all(layer.n_in == 5 for layer in made.layers if type(layer) is BatchNorm)
    only = Network([6, *[5] * hidden, 4], activation="relu", dropout=0.25, rng=0)
    assert kinds(only) == [*[Dense, ReLU, Dropout] * hidden, Dense]
    plain = Network([6, *[5] * hidden, 4], activation="relu", rng=0)
    for a, b in zip(made.weights, plain.weights, strict=True):  # the same draws for the same matrices
        np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"dropout": 0.5}])
def test_batch_norm_and_dropout_go_with_sizes(options, refused):
    with refused("go with sizes: put BatchNorm"):
        Network([Dense(6, 4)], rng=0, **options)


@pytest.mark.parametrize("dropout", [1.0, -0.1, math.nan])
def test_a_dropout_that_is_no_share_is_refused(dropout, refused):
    with refused("expected"):
        Network([6, 5, 4], dropout=dropout, rng=0)


# ---- Copies ---------------------------------------------------------------------------------------------------------


def pickled(network):
    return pickle.loads(pickle.dumps(network))


def as_float64(network):
    return network.astype(np.float64)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, copy.copy, as_float64])
def test_a_copy_is_a_network_apart(copied):
    made = Network([Dense(6, 5), Tanh(), Dropout(), Dense(5, 4)], loss="cross_entropy", rng=0)
    made.classes, made.image_shape = ("a", "b", "c", "d"), (2, 3)
    made.preprocessing = Deskew(2, 3)
    z = made.outputs(X)
    twin = copied(made)
    np.testing.assert_allclose(twin.outputs(X), z, rtol=1e-5, atol=1e-6)
    assert (twin.classes, twin.image_shape, repr(twin.loss)) == (made.classes, made.image_shape, repr(made.loss))
    assert repr(twin.preprocessing) == repr(made.preprocessing)
    assert_views(twin)  # fills its two vectors
    assert not np.shares_memory(twin.parameters, made.parameters)
    np.testing.assert_array_equal(made.outputs(X), z)
    assert_views(made)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_made_in_training_goes_on_to_the_same_bits(copied):
    made = Network([Dense(6, 5), Tanh(), Dropout(), Dense(5, 4)], rng=0)
    x, t = X.astype(np.float32), one_hot(Y, 4)
    made.backprop(x, t)
    twin = copied(made)
    for each in (made, twin):
        for _ in range(3):
            each.backprop(x, t)
            SGD(0.1).step(each)
    np.testing.assert_array_equal(made.parameters, twin.parameters)


def test_astype_there_and_back_changes_no_bit():
    made = Network([6, 5, 4], rng=0)
    double = made.astype(np.float64)
    assert double.dtype == double.parameters.dtype == double.outputs(X).dtype == np.float64
    np.testing.assert_array_equal(double.astype(np.float32).parameters, made.parameters)
    assert made.dtype == made.parameters.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.int64, complex, np.uint8])
def test_dtypes_that_no_network_has_are_refused(dtype, refused):
    with refused("dtype"):
        Network([3, 2], dtype=dtype)
    made = Network([3, 2], rng=0)
    with refused("dtype"):
        made.astype(dtype)


@pytest.mark.parametrize("part", [0, 1, "loss"])
def test_checking_a_part_of_a_network_leaves_the_network_whole(part):
    made = Network([6, 5, 4], rng=0)
    x, t = X.astype(np.float32), one_hot(Y, 4)
    made.backprop(x, t)
    gradient, parameters = made.gradient.copy(), made.parameters.copy()
    if part == "loss":
        check_gradient(made.loss, np.ones((3, 4)), [0, 1, 2])
    else:
        check_gradient(made.layers[part], np.ones((3, 6 - part)) + np.arange(6 - part))
    np.testing.assert_array_equal(made.parameters, parameters)
    made.backprop(x, t)
    np.testing.assert_array_equal(made.gradient, gradient)
    assert_views(made)


# ---- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "arguments", "says"),
    [
        ([], {}, "expected two sizes or more"),
        ([784], {}, "expected two sizes or more"),
        (784, {}, "expected two sizes or more"),
        ([784, "30", 10], {}, "expected two sizes or more"),
        ([784, 30.0, 10], {}, "expected two sizes or more"),
        ([784, Dense(784, 10)], {}, "expected two sizes or more"),
        ([784, 0, 10], {}, "size 0"),
        ([784, -30, 10], {}, "size -30"),
        ([Sigmoid(), Tanh()], {}, "nothing to learn"),
        ([Dense(4, 3), Dense(4, 2)], {}, r"layer 1, Dense\(n_in=4, n_out=2.*takes 4 inputs, and 3 come to it"),
        ([4, 3, 2], {"activation": "sigmoyd"}, "unknown activation 'sigmoyd': did you mean 'sigmoid'"),
        ([4, 3, 2], {"activation": ["leaky-relu"]}, "did you mean 'leaky_relu'"),
        ([4, 3, 2], {"activation": None}, "activation"),
        ([4, 3, 2], {"activation": "qqq"}, "the activations are gelu, identity"),
        ([4, 2], {"activation": "sigmoyd"}, "did you mean 'sigmoid'"),
        ([4, 3, 2], {"activation": ["tanh", "tanh"]}, "2 activations for 1 hidden layers"),
        ([4, 3, 3, 2], {"activation": ["tanh"]}, "1 activations for 2 hidden layers"),
        ([4, 3, 2], {"loss": "cross-entropy"}, "unknown loss 'cross-entropy': did you mean 'binary_cross_entropy'"),
        ([4, 3, 2], {"init": "norml"}, "unknown initializer 'norml': did you mean 'normal'"),
    ],
)
def test_a_chain_that_is_none_is_refused(layers, arguments, says, refused):
    with refused(says):
        Network(layers, rng=0, **arguments)


def test_one_layer_in_two_places_is_refused(refused):
    layer = Dense(3, 3)
    with refused("stands twice"):
        Network([layer, Tanh(), layer])


@pytest.mark.parametrize("loss", [CrossEntropy, 3, None])
def test_a_loss_that_is_none_is_refused(loss, refused):
    with refused("loss"):
        Network([3, 2], loss=loss)


BAD_X = [
    (np.ones(6), r"shape \(6,\).*x\[None\]"),
    (np.ones((2, 3)), r"shape \(6,\)|shape \(2, 3\).*x\[None\]"),  # one picture alone
    (np.ones((9, 5)), r"shape \(9, 5\): expected \(examples, 6\)"),
    (np.ones((9, 7)), r"shape \(9, 7\): expected \(examples, 6\)"),
    (np.ones((9, 2, 2)), r"shape \(9, 2, 2\)"),
    (3.0, "shape"),
    (np.ones((0, 6)), "no example"),
    (np.where(np.arange(54).reshape(9, 6) == 33, np.nan, X), r"x\[5, 3\] is nan"),
    (np.where(np.arange(54).reshape(9, 6) == 33, -np.inf, X), r"x\[5, 3\] is -inf"),
    (np.full((9, 6), "a"), "expected numbers"),
    (np.full((9, 6), None), "expected numbers"),
    (np.ones((9, 6), complex), "expected numbers"),
    ([[1, 2, 3, 4, 5, 6], [1]], "x"),
    (np.full((9, 6), 1e300), "1e\\+300|finite|large"),  # infinite in float32
]


@pytest.mark.parametrize(("x", "says"), BAD_X, ids=[str(i) for i in range(len(BAD_X))])
@pytest.mark.parametrize("answer", ["outputs", "predict", "probabilities", "activations"])
def test_inputs_that_are_none_are_refused(answer, x, says, refused):
    with refused(says):
        getattr(Network([6, 4], rng=0), answer)(x)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (Y[:-1], r"shape \(8,\)"),
        (Y + 1, "label 4: of 4 classes the labels are 0 to 3"),
        (Y - 1, "label -1"),
        (Y.astype(float), "integer"),
        (Y[:, None], r"shape \(9, 1\)"),
    ],
)
@pytest.mark.parametrize("answer", ["evaluate", "confusion_matrix"])
def test_labels_that_are_none_are_refused(answer, y, says, refused):
    with refused(says):
        getattr(Network([6, 4], rng=0), answer)(X, y)


def test_a_layer_of_one_network_is_not_lost_to_another():
    """Refused, or a copy taken; but never two networks, one of whose layers computes with the other's weights."""
    layer = Dense(6, 4)
    made = Network([layer], rng=0)
    z = made.outputs(X)
    with contextlib.suppress(HandgradError):
        Network([layer], rng=1)
    np.testing.assert_array_equal(made.outputs(X), z)
    assert_views(made)


def test_a_layer_of_ones_own_needs_forward_and_backward_and_nothing_else():
    class Double(Layer):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    made = Network([Dense(6, 5), Double(), Dense(5, 4)], rng=0, dtype=np.float64)
    first, last = made.layers[0], made.layers[2]
    np.testing.assert_allclose(made.outputs(X), 2 * (X @ first.W.T + first.b) @ last.W.T + last.b, **CLOSE)
    assert math.isfinite(made.evaluate(X, Y).loss)


# ---- Memory: rows and columns, lines of the cache --------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 25, 26, 31, 32, 33, 200])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_is_the_same_by_rows_and_by_columns(activation, loss, batch, monkeypatch):
    """Buffers of more than LARGE numbers lie by columns: 26 x 40 are."""
    rng = np.random.default_rng(batch)
    x, t = rng.normal(size=(batch, 6)), np.eye(3)[rng.integers(0, 3, batch)]
    made = Network([6, 40, 3], activation=activation, loss=loss, rng=0, dtype=np.float64)
    z = made.backprop(x, t).copy()
    assert made.layers[0].z.flags.c_contiguous == (batch * 40 <= arrays.LARGE)
    monkeypatch.setattr(arrays, "LARGE", 10**9)
    by_rows = Network([6, 40, 3], activation=activation, loss=loss, rng=0, dtype=np.float64)
    np.testing.assert_allclose(z, by_rows.backprop(x, t), **CLOSE)
    np.testing.assert_allclose(made.gradient, by_rows.gradient, **CLOSE)


def test_weights_of_examples_are_those_of_their_losses():
    """Twice an example's weight is the example twice; a number is every example's weight."""
    made = Network([6, 5, 4], rng=0, dtype=np.float64)
    t = one_hot(Y, 4, np.float64)
    twice = np.r_[0, np.arange(9)]
    made.backprop(X[twice], t[twice], 0.1)
    expected = made.gradient.copy()
    weight = np.full((9, 1), 0.1)
    weight[0] = 0.2
    made.backprop(X, t, weight)
    np.testing.assert_allclose(made.gradient, expected, **CLOSE)
    made.backprop(X, t, 1 / 9)
    mean = made.gradient.copy()
    made.backprop(X, t)
    np.testing.assert_allclose(made.gradient, mean, **CLOSE)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda n: n.astype(np.float64), lambda n: pickle.loads(pickle.dumps(n))]
)
def test_every_array_of_a_step_begins_at_a_line_of_the_cache(again):
    for made in (Network([6, 5, 4], activation="relu", rng=0), again(Network([6, 5, 4], activation="relu", rng=0))):
        made.backprop(X.astype(made.dtype), one_hot(Y, 4, made.dtype))
        arrays_of = [made.parameters, made.gradient, made.layers[0].z, made.layers[1].a, made.layers[1].zeros]
        assert [a.ctypes.data % 64 for a in arrays_of] == [0] * 5


def test_inference_keeps_nothing_of_the_users():
    made, x = Network([6, 5, 4], rng=0), X.astype(np.float32)
    before = x.copy()
    made.predict(x)
    assert not any(
        np.shares_memory(value, x)
        for layer in made.layers
        for value in vars(layer).values()
        if isinstance(value, np.ndarray)
    )
    np.testing.assert_array_equal(x, before)
