"""Networks: construction, one parameter vector, forward and backward, inference, copies, invalid arguments."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import (
    SGD,
    AbsoluteError,
    Adam,
    BatchNorm,
    BinaryCrossEntropy,
    Callback,
    CrossEntropy,
    Dense,
    Dropout,
    Huber,
    Identity,
    Layer,
    LeakyReLU,
    Lookahead,
    Muon,
    Network,
    ReLU,
    Sigmoid,
    SquaredError,
    Tanh,
    Trainer,
    arrays,
    check_gradient,
    network,
    one_hot,
)
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES
from handgrad.optimizers import OPTIMIZERS

X = np.random.default_rng(0).random((9, 6))
Y = np.arange(9) % 4
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
ALL_LOSSES = {name: make() for name, make in LOSSES.items()} | {"squared_error_of_sigmoid": SquaredError("sigmoid")}
every_loss = pytest.mark.parametrize("loss", ALL_LOSSES.values(), ids=ALL_LOSSES)


def types(made):
    return [type(layer) for layer in made.layers]


def targets_of(made, count=9):
    """Valid targets of the network's loss: labels 0, 1, ..., as rows."""
    rows = one_hot(np.arange(count) % made.n_out, made.n_out, made.dtype)
    return made.loss.targets(rows, count, made.n_out, made.dtype)


def assert_views(made):
    """Every parameter and derivative is a view of the network's two vectors, in the order of the layers."""
    for vector, prefix in ((made.parameters, ""), (made.gradient, "d")):
        vector[...] = np.arange(vector.size)
        parts = [getattr(layer, prefix + name) for layer in made.layers for name in layer.parameter_shapes]
        assert all(np.shares_memory(part, vector) for part in parts)
        np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), vector)
        assert vector.flags.c_contiguous


# ---- Construction ----------------------------------------------------------------------------------------------------


def test_three_sizes_are_the_network_of_the_post():
    post = Network([784, 30, 10], rng=0)
    assert post.parameters.size == post.gradient.size == 23_860  # 784·30 + 30 + 30·10 + 10
    assert types(post) == [Dense, Sigmoid, Dense]
    assert repr(post.loss) == "BinaryCrossEntropy()"
    assert [layer.init for layer in post.layers[::2]] == ["normal", "normal"]
    assert post.parameters.dtype == np.float32


def test_the_vector_is_w1_b1_w2_b2():
    small = Network([2, 3, 1], rng=0)
    small.parameters[...] = np.arange(13)
    first, second = small.layers[0], small.layers[2]
    np.testing.assert_array_equal(first.W, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(first.b, [6, 7, 8])
    np.testing.assert_array_equal(second.W, [[9, 10, 11]])
    np.testing.assert_array_equal(second.b, [12])


@pytest.mark.parametrize(
    "given_layers", [[3, 2], [5, 4, 3, 2], [Dropout(), Dense(3, 4), BatchNorm(4), Dropout(), Dense(4, 2)]], ids=str
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_parameter_is_a_view(given_layers, dtype):
    made = Network(copy.deepcopy(given_layers), rng=0, dtype=dtype)
    assert made.parameters.dtype == made.gradient.dtype == dtype
    assert_views(made)


def test_named_parameters_are_in_the_order_of_the_vector():
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
        ({"loss": SquaredError("sigmoid")}, [Dense, Sigmoid, Dense, Sigmoid, Dense]),  # the loss has the last sigmoid
        ({"loss": "cross_entropy"}, [Dense, Sigmoid, Dense, Sigmoid, Dense]),
    ],
)
def test_sizes_and_activations_make_the_layers(arguments, expected):
    made = Network([6, 5, 4, 3], rng=0, **arguments)
    assert types(made) == expected
    assert [(layer.n_in, layer.n_out) for layer in made.layers if isinstance(layer, Dense)] == [(6, 5), (5, 4), (4, 3)]


@pytest.mark.parametrize("hidden", [0, 1, 3])
def test_batch_norm_and_dropout_are_added_to_every_hidden_layer(hidden):
    made = Network([6, *[5] * hidden, 4], activation="relu", batch_norm=True, dropout=0.25, rng=0)
    assert types(made) == [*[Dense, BatchNorm, ReLU, Dropout] * hidden, Dense]
    assert all(layer.rate == 0.25 for layer in made.layers if type(layer) is Dropout)
    assert all(layer.n_in == 5 for layer in made.layers if type(layer) is BatchNorm)
    plain = Network([6, *[5] * hidden, 4], activation="relu", rng=0)
    for a, b in zip(made.weights, plain.weights, strict=True):  # the same initial weights
        np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize(
    ("activation", "init"),
    [("sigmoid", "normal"), ("tanh", "xavier_normal"), ("relu", "kaiming_normal"), ("gelu", "kaiming_normal")],
)
def test_the_default_initializer_depends_on_the_activation(activation, init):
    assert Network([4, 3, 2], activation=activation, rng=0).layers[0].init == init
    named = Network([4, 3, 2], activation=activation, init="lecun", rng=0)
    assert {layer.init for layer in named.layers if isinstance(layer, Dense)} == {"lecun"}


def test_the_output_layer_is_initialized_like_the_last_hidden_layer():
    made = Network([5, 4, 3, 2], activation=["tanh", "relu"], rng=0)
    assert [layer.init for layer in made.layers[::2]] == ["xavier_normal", "kaiming_normal", "kaiming_normal"]


def test_two_sizes_make_a_single_layer():
    assert types(Network([4, 3], rng=0)) == [Dense]


def test_the_same_seed_gives_the_same_parameters():
    first, again, other = (Network([4, 3, 2], rng=seed).parameters for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_repr():
    made = Network([Dense(784, 30, "lecun"), Tanh(), Dense(30, 10)], loss=CrossEntropy(0.1), rng=0)
    assert repr(made) == (
        "Network([Dense(n_in=784, n_out=30, init='lecun'), Tanh(), Dense(n_in=30, n_out=10, init='kaiming_normal')], "
        "loss=CrossEntropy(label_smoothing=0.1)): 23,860 parameters, float32"
    )


# ---- Forward and backward --------------------------------------------------------------------------------------------


def test_forward_is_the_equations():
    made = Network([6, 5, 4], activation="tanh", rng=0, dtype=np.float64)
    made.parameters[...] = np.random.default_rng(1).standard_normal(made.parameters.size)
    first, second = made.layers[0], made.layers[2]
    expected = np.tanh(X @ first.W.T + first.b) @ second.W.T + second.b
    np.testing.assert_allclose(made.forward(X), expected, **CLOSE)
    np.testing.assert_allclose(made.outputs(X), expected, **CLOSE)


def test_an_example_with_weight_2_counts_as_two_examples():
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


def test_scale_multiplies_the_gradient_buffer_for_each_batch_size():
    made, t = Network([6, 5, 4], rng=0, dtype=np.float64), one_hot(Y, 4, np.float64)
    for count in (9, 2, 0):
        made.backprop(X[:count], t[:count], scale=0)
        assert not made.gradient_buffer.any()
        made.backprop(X[:count], t[:count])
        expected = made.gradient.copy()
        for scale in (0.5, 3.0):
            made.backprop(X[:count], t[:count], scale=scale)
            np.testing.assert_allclose(made.gradient_buffer, scale * expected, **CLOSE)


def test_gradient_after_a_layer_was_removed_is_that_of_the_other_layers():
    made = Network([Dense(6, 5), Tanh(), Dropout(0.5), Dense(5, 4)], rng=0, dtype=np.float64)
    fresh, t = Network([6, 5, 4], activation="tanh", dtype=np.float64), one_hot(Y, 4, np.float64)
    fresh.parameters[...] = made.parameters
    made.backprop(X, t)
    del made.layers[2]
    made.backprop(X, t), fresh.backprop(X, t)
    np.testing.assert_array_equal(made.gradient, fresh.gradient)


def test_backprop_returns_the_logits_and_leaves_the_parameters():
    made = Network([6, 5, 4], rng=0, dtype=np.float64)
    before = made.parameters.copy()
    z = made.backprop(X, one_hot(Y, 4, np.float64)).copy()
    np.testing.assert_array_equal(made.parameters, before)
    np.testing.assert_array_equal(z, made.forward(X))


def test_a_batch_does_not_depend_on_the_batches_before():
    made, fresh = (Network([6, 5, 4], rng=0, dtype=np.float64) for _ in range(2))
    t = one_hot(Y, 4, np.float64)
    for rows in (slice(0, 5), slice(0, 9), slice(2, 3)):
        made.backprop(X[rows], t[rows])
    made.evaluate(X, Y)
    made.backprop(X[5:], t[5:])
    fresh.backprop(X[5:], t[5:])
    np.testing.assert_array_equal(made.gradient, fresh.gradient)


@pytest.mark.parametrize("below", [[Dropout(0.3)], [Identity()], [Dropout(0.2), Tanh()], []], ids=str)
def test_backward_ends_at_the_first_layer_with_parameters(below):
    made = Network([*copy.deepcopy(below), Dense(6, 5), Tanh(), Dense(5, 4)], rng=0, dtype=np.float64)
    checks = check_gradient(made, X, Y)
    assert [check.name.split()[-1] for check in checks] == ["dW", "db", "dW", "db", "dx"]
    for layer in made.layers[: len(below)]:
        layer.backward = None  # not callable
    made.layers[len(below)].backward = made.layers[len(below)].backward_input = None
    made.backprop(X, one_hot(Y, 4, np.float64))


def test_dropout_changes_training_and_not_inference():
    plain = Network([Dense(6, 50), Tanh(), Dense(50, 4)], rng=3)
    noisy = Network([Dense(6, 50), Tanh(), Dropout(0.5), Dense(50, 4)], rng=3)
    x = X.astype(np.float32)
    np.testing.assert_array_equal(noisy.outputs(x), plain.outputs(x))
    first = noisy.forward(x).copy()
    assert (first != plain.outputs(x)).mean() > 0.9
    assert (first != noisy.forward(x)).mean() > 0.9


def test_inference_draws_no_random_numbers():
    made = Network([Dense(6, 5), Dropout(), Dense(5, 4)], rng=0)
    state = made.layers[1].rng.bit_generator.state
    made.predict(X), made.evaluate(X, Y), made.predict_proba(X), made.activations(X)
    assert made.layers[1].rng.bit_generator.state == state


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    batch=st.integers(1, 12),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    loss=st.sampled_from(sorted(ALL_LOSSES)),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_any_sizes_give_matching_shapes_and_finite_numbers(sizes, batch, activation, loss, dtype, seed):
    rng = np.random.default_rng(seed)
    made = Network(sizes, activation=activation, loss=ALL_LOSSES[loss], init="lecun", rng=rng, dtype=dtype)
    x, y = rng.standard_normal((batch, sizes[0])), rng.integers(0, sizes[-1], batch)
    made.gradient[...] = np.nan  # each entry must be written
    z = made.backprop(x.astype(dtype), one_hot(y, sizes[-1], dtype))
    assert z.shape == made.outputs(x).shape == (batch, sizes[-1])
    assert made.parameters.size == sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert np.isfinite(z).all()
    assert np.isfinite(made.gradient).all()
    assert [a.shape[0] for a in made.activations(x)] == [batch] * len(made.layers)


def test_the_gradient_is_the_same_in_row_and_column_order(monkeypatch):
    """Buffers of more than COLUMN_MAJOR_ABOVE numbers are column-major: 26 x 40 are. All pairs of what interacts."""
    pairs = itertools.chain(
        itertools.product(ACTIVATIONS, [BinaryCrossEntropy()], [26]),
        itertools.product(["gelu"], ALL_LOSSES.values(), [26, 200]),
        itertools.product(["tanh"], [CrossEntropy()], [1, 2, 25, 26, 31, 32, 33, 200]),
    )
    for activation, loss, batch in pairs:
        rng = np.random.default_rng(batch)
        x, t = rng.normal(size=(batch, 6)), np.eye(40)[rng.integers(0, 40, batch)]
        results = []
        for above in (arrays.COLUMN_MAJOR_ABOVE, 10**9):
            with monkeypatch.context() as patch:
                patch.setattr(arrays, "COLUMN_MAJOR_ABOVE", above)
                made = Network(
                    [6, 40, 40],
                    activation=activation,
                    loss=loss,
                    batch_norm=True,
                    init="lecun",
                    rng=0,
                    dtype=np.float64,
                )
                z = made.backprop(x, t).copy()
            assert made.layers[0].z.flags.c_contiguous == (batch * 40 <= above)
            results.append((z, made.gradient.copy(), made.input_gradient(x, t).copy()))
        for columns, rows in zip(*results, strict=True):
            np.testing.assert_allclose(columns, rows, rtol=1e-11, atol=1e-13, err_msg=f"{activation}, {loss}, {batch}")


# ---- The gradient attribute ------------------------------------------------------------------------------------------

OPTIMIZER_FACTORIES = {
    **{name: lambda make=make: make(0.01) for name, make in OPTIMIZERS.items()},
    "lookahead": lambda: Lookahead(SGD(0.01), k=1),
    "muon": lambda: Muon(0.01),
}


@pytest.mark.parametrize("make", OPTIMIZER_FACTORIES.values(), ids=OPTIMIZER_FACTORIES)
def test_after_a_training_step_gradient_is_the_gradient_of_the_loss(make):
    """Also with SGD, which computes lr times the gradient."""
    for weight in (None, np.linspace(0.5, 1.5, 9)[:, None] / 9):
        made, t = Network([6, 5, 4], rng=0, dtype=np.float64), one_hot(Y, 4, np.float64)
        made.backprop(X, t, weight)
        expected = made.gradient.copy()
        make().train_step(made, X, t, 0.01, weight)
        np.testing.assert_allclose(made.gradient, expected, **CLOSE)
        np.testing.assert_allclose(made.gradient, expected, **CLOSE)  # reading it changes nothing
        np.testing.assert_allclose(made.layers[2].dW, expected[35:55].reshape(4, 5), **CLOSE)


def test_backward_after_a_step_of_sgd_gives_the_gradient():
    made, t = Network([6, 5, 4], rng=0, dtype=np.float64), one_hot(Y, 4, np.float64)
    SGD(0.1).train_step(made, X, t, 0.1)
    made.backward(made.loss.backward(made.forward(X), t, 1 / 9))
    found = made.gradient.copy()
    made.backprop(X, t)
    np.testing.assert_allclose(found, made.gradient, **CLOSE)


def test_a_callback_reads_the_same_gradient_with_every_optimizer():
    class Read(Callback):
        def on_batch_end(self, trainer):
            self.norm = np.linalg.norm(trainer.network.gradient)

    norms = []
    for make in OPTIMIZER_FACTORIES.values():
        read = Read()
        made = Network([6, 5, 4], rng=0, dtype=np.float64)
        Trainer(made, make(), batch_size=9, callbacks=[read], rng=0).fit(X, Y, epochs=1)
        norms.append(read.norm)
    np.testing.assert_allclose(norms, norms[0], rtol=1e-12)


# ---- Inference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 4, 9, 1000])
def test_the_size_of_the_blocks_changes_no_result(rows, monkeypatch):
    made = Network([6, 5, 4], activation="gelu", batch_norm=True, rng=0, dtype=np.float64)
    expected = made.outputs(X), made.activations(X), made.evaluate(X, Y)
    monkeypatch.setattr(network, "PREDICT_ROWS", rows)
    np.testing.assert_allclose(made.outputs(X), expected[0], **CLOSE)
    for a, b in zip(made.activations(X), expected[1], strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    assert made.evaluate(X, Y).loss == pytest.approx(expected[2].loss, rel=1e-12)


@pytest.mark.parametrize(("width", "rows"), [(30, 128), (512, 384), (2048, 1024)])
def test_blocks_have_more_rows_for_larger_networks(width, rows):
    assert Network([784, width, 10], rng=0)._rows_per_block() == rows


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_more_rows_than_a_block(kind):
    made = Network([3, 4], rng=0, dtype=np.float64)
    x = np.random.default_rng(0).integers(0, 9, (2 * network.PREDICT_ROWS + 3, 3)).astype(kind)
    W, b = made.layers[0].W, made.layers[0].b
    np.testing.assert_allclose(made.outputs(x), x @ W.T + b, **CLOSE)
    assert made.confusion_matrix(x, np.zeros(len(x), int)).sum() == len(x)


def test_activations_are_the_outputs_of_every_layer():
    made = Network([6, 5, 4], activation="tanh", rng=0, dtype=np.float64)
    activations = made.activations(X)
    assert [a.shape for a in activations] == [(9, 5), (9, 5), (9, 4)]
    first = made.layers[0]
    np.testing.assert_allclose(activations[0], X @ first.W.T + first.b, **CLOSE)
    np.testing.assert_allclose(activations[1], np.tanh(activations[0]), **CLOSE)
    np.testing.assert_array_equal(activations[2], made.outputs(X))
    for i in (0, -1):
        np.testing.assert_array_equal(made.outputs_of(i, X), activations[i])
    kept = [a.copy() for a in activations]
    made.activations(2 * X)
    for a, b in zip(activations, kept, strict=True):  # new arrays
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layer", [3, -4, "last"])
def test_the_output_of_a_layer_that_does_not_exist_is_rejected(layer, rejects):
    with rejects("layer must be an (index from 0 to 2|integer >= -3), got"):
        Network([6, 5, 4]).outputs_of(layer, X)


def test_inference_keeps_no_reference_to_the_inputs():
    made, x = Network([6, 5, 4], rng=0), X.astype(np.float32)
    before = x.copy()
    made.predict(x)
    kept = [value for layer in made.layers for value in vars(layer).values() if isinstance(value, np.ndarray)]
    assert not any(np.shares_memory(value, x) for value in kept)
    np.testing.assert_array_equal(x, before)


def test_inference_between_forward_and_backward_does_not_change_the_gradient():
    made, t = Network([6, 5, 4], activation="gelu", dropout=0.2, rng=0, dtype=np.float64), one_hot(Y, 4, np.float64)
    z = made.forward(X)
    made.backward(made.loss.backward(z, t, 1 / 9))
    expected = made.gradient.copy()
    made.layers[2].rng.bit_generator.state = Network([6, 5, 4], dropout=0.2, rng=0).layers[2].rng.bit_generator.state
    z = made.forward(X)
    made.evaluate(2 * X[:9], Y), made.predict(X[:2])
    made.backward(made.loss.backward(z, t, 1 / 9))
    np.testing.assert_array_equal(made.gradient, expected)


def test_a_custom_layer_needs_forward_and_backward_only():
    class Double(Layer):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    made = Network([Dense(6, 5), Double(), Dense(5, 4)], rng=0, dtype=np.float64)
    first, last = made.layers[0], made.layers[2]
    np.testing.assert_allclose(made.outputs(X), 2 * (X @ first.W.T + first.b) @ last.W.T + last.b, **CLOSE)
    check_gradient(made, X, Y)


@pytest.mark.parametrize("names", [None, ("out",), ("out", "a", "dz")], ids=str)
@pytest.mark.parametrize("base", [Layer, Tanh])
def test_buffers_of_a_custom_layer_need_not_be_declared(base, names):
    """Small predictions reuse their buffers; a custom layer's own buffer has the batch size of the training."""

    class Shift(base):
        if names is not None:
            workspace = names

        def allocate(self, batch, n_in, dtype):
            super().allocate(batch, n_in, dtype)
            self.out = np.empty((batch, n_in), dtype)

        def forward(self, x):
            return np.add(np.tanh(x, out=self.a) if base is Tanh else x, 1, out=self.out)

        def backward(self, dy):
            return dy

    made = Network([Dense(6, 5), Shift(), Dense(5, 4)], rng=0, dtype=np.float64)
    expected = made.outputs(X)
    for count in (5, 9, 5, 3):
        made.outputs(X[:5])
        out = made.forward(X[:count])
        kept = out.copy()
        np.testing.assert_allclose(made.outputs(X[:5]), expected[:5], **CLOSE)
        np.testing.assert_array_equal(out, kept)
        np.testing.assert_allclose(made.forward(X[:count]), expected[:count], **CLOSE)


def test_small_predictions_see_the_current_parameters_and_attributes():
    """Their buffers are kept from one call to the next."""
    made = Network([Dense(6, 5), LeakyReLU(0.1), Dense(5, 4)], rng=0, dtype=np.float64)
    made.predict(X)
    made.parameters *= 2
    made.layers[1].slope = 0.5
    fresh = copy.deepcopy(made)
    np.testing.assert_array_equal(made.outputs(X), fresh.outputs(X))
    made.layers[0].W = np.ones((5, 6))
    many = np.tile(X, (20, 1))
    np.testing.assert_allclose(made.outputs(X), made.outputs(many)[:9], **CLOSE)
    del made.layers[1]
    first, last = made.layers
    np.testing.assert_allclose(made.outputs(X), (X @ first.W.T + first.b) @ last.W.T + last.b, **CLOSE)


def test_a_layer_that_is_replaced_during_a_prediction_is_noticed_by_the_next_one(rejects):
    class Replaced(Network):
        def with_own_buffers(self):
            twin = super().with_own_buffers()
            self.layers[1] = ReLU()  # as another thread may do
            return twin

    made = Replaced([Dense(6, 5), Tanh(), Dense(5, 4)], rng=0, dtype=np.float64)
    made.outputs(X)
    with rejects(r"layer 1 \(ReLU\(\)\) was added after the network was built"):
        made.outputs(X)


# ---- Parts that two networks could share -----------------------------------------------------------------------------


@every_loss
def test_one_loss_object_in_two_networks(loss):
    """Once, the second network's batch size or dtype replaced the buffers of the first: a crash, or lost precision."""
    loss = copy.copy(loss)
    double, single = (Network([6, 5, 4], loss=loss, rng=0, dtype=dtype) for dtype in (np.float64, np.float32))
    alone = Network([6, 5, 4], loss=copy.copy(loss), rng=0, dtype=np.float64)
    t = targets_of(alone)
    alone.backprop(X, t)
    double.backprop(X, t)
    for count in (9, 4):
        single.backprop(X[:count].astype(np.float32), t[:count].astype(np.float32))
        double.backprop(X, t)
        np.testing.assert_array_equal(double.gradient, alone.gradient)
    assert len({id(loss), id(double.loss), id(single.loss)}) == 3
    assert not set(loss.workspace) & set(vars(loss))


@pytest.mark.parametrize("make", [lambda: Dense(5, 5), *ACTIVATIONS.values(), Dropout, lambda: BatchNorm(5)])
def test_a_layer_of_another_network_is_rejected(make, rejects):
    """Also a layer without parameters, because its buffers would be shared."""
    layer = make()
    made = Network([Dense(6, 5), layer, Dense(5, 4)], rng=0, dtype=np.float64)
    made.backprop(X, one_hot(Y, 4, np.float64))
    gradient = made.gradient.copy()
    with rejects(r"layer 1 .* belongs to another network: expected a new layer"):
        Network([Dense(6, 5), layer, Dense(5, 4)], rng=1)
    made.layers[1].rng = Network([Dense(6, 5), make(), Dense(5, 4)], rng=0).layers[1].rng
    made.backprop(X, one_hot(Y, 4, np.float64))
    np.testing.assert_array_equal(made.gradient, gradient)
    Network([Dense(6, 5), copy.copy(layer), Dense(5, 4)], rng=1)  # a copy is a new layer


def test_a_rejected_list_leaves_its_layers_usable(rejects):
    first, second = Dense(4, 3), Dense(4, 2)
    with rejects("expects 4 inputs"):
        Network([first, second])
    assert Network([first]).n_out == 3


def test_one_layer_in_two_positions_is_rejected(rejects):
    layer = Dense(3, 3)
    with rejects("a layer occurs twice in the list"):
        Network([layer, Tanh(), layer])


# ---- Copies ----------------------------------------------------------------------------------------------------------


def pickled(made):
    return pickle.loads(pickle.dumps(made))


def as_float64(made):
    return made.astype(np.float64)


every_copy = pytest.mark.parametrize("copied", [copy.deepcopy, pickled, copy.copy, as_float64])


@every_copy
def test_a_copy_shares_nothing(copied):
    made = Network([Dense(6, 5), Tanh(), Dropout(), Dense(5, 4)], loss="cross_entropy", rng=0)
    made.classes, made.image_shape = ("a", "b", "c", "d"), (2, 3)
    z = made.outputs(X)
    twin = copied(made)
    np.testing.assert_allclose(twin.outputs(X), z, rtol=1e-5, atol=1e-6)
    assert (twin.classes, twin.image_shape, repr(twin.loss)) == (made.classes, made.image_shape, repr(made.loss))
    assert_views(twin)  # writes into its two vectors
    assert not np.shares_memory(twin.parameters, made.parameters)
    np.testing.assert_array_equal(made.outputs(X), z)
    assert_views(made)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, pickled])
def test_a_copy_made_during_training_continues_to_the_same_bits(copied):
    made = Network([Dense(6, 5), Tanh(), Dropout(), Dense(5, 4)], rng=0)
    x, t = X.astype(np.float32), one_hot(Y, 4)
    made.backprop(x, t)
    twin = copied(made)
    for each in (made, twin):
        for _ in range(3):
            each.backprop(x, t)
            SGD(0.1).step(each)
    np.testing.assert_array_equal(made.parameters, twin.parameters)


class Custom(Dense):
    """A user's subclass, in another module than handgrad's."""

    note = "kept"


@pytest.mark.parametrize("base", [Dense, Custom])
def test_copies_of_a_subclass_of_dense_do_not_include_buffers(base):
    """Once, buffers were found by the name of the layer's module."""
    made = Network([base(6, 5), ReLU(), Dense(5, 4)], rng=0)
    small = len(pickle.dumps(made))
    made.backprop(np.ones((2000, 6), np.float32), np.ones((2000, 4), np.float32))
    assert len(pickle.dumps(made)) < small + 100
    made.layers[0].note = "mine"
    for twin in (copy.deepcopy(made), pickled(made), copy.copy(made)):
        assert type(twin.layers[0]) is base
        assert twin.layers[0].note == "mine"
        assert not {*base.workspace} & set(vars(twin.layers[0]))
        np.testing.assert_array_equal(twin.outputs(X), made.outputs(X))


def test_astype_there_and_back_changes_no_bit():
    made = Network([6, 5, 4], rng=0)
    double = made.astype(np.float64)
    assert double.dtype == double.parameters.dtype == double.outputs(X).dtype == np.float64
    np.testing.assert_array_equal(double.astype(np.float32).parameters, made.parameters)
    assert made.dtype == made.parameters.dtype == np.float32


def test_a_replica_with_own_buffers_shares_the_vectors():
    made = Network([6, 5, 4], dropout=0.5, rng=0)
    replica = made.with_own_buffers()
    assert replica.parameters is made.parameters
    assert replica.gradient_buffer is made.gradient_buffer
    assert replica.layers[0].W is made.layers[0].W
    assert replica.layers[2].rng is made.layers[2].rng
    x, t = X.astype(np.float32), one_hot(Y, 4)
    z = made.forward(x)
    kept = z.copy()
    replica.backprop(2 * x, t)
    np.testing.assert_array_equal(z, kept)


@pytest.mark.parametrize("part", [0, 1, "loss"])
def test_a_gradient_check_of_a_part_leaves_the_network_unchanged(part):
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


# ---- Invalid arguments -----------------------------------------------------------------------------------------------

SIZES = r"at least two sizes, as in \[784, 30, 10\], or a list of layers"


@pytest.mark.parametrize(
    ("given_layers", "arguments", "message"),
    [
        ([], {}, SIZES),
        ([784], {}, SIZES),
        (784, {}, SIZES),
        (Dense(3, 2), {}, SIZES),
        ([784, 30.0, 10], {}, SIZES),
        ([784, Dense(784, 10)], {}, SIZES),
        ([784, 0, 10], {}, "layer size must be an integer >= 1, got 0"),
        ([784, -30, 10], {}, "got -30"),
        ([Sigmoid(), Tanh()], {}, "no trainable layer: expected at least one Dense"),
        ([Dense(4, 3), Dense(4, 2)], {}, r"layer 1 \(Dense\(n_in=4, n_out=2.*\)\) expects 4 inputs, got 3"),
        ([Dense(6, 5), BatchNorm(4)], {}, r"layer 1 \(BatchNorm\(n=4.*expects 4 inputs, got 5"),
        ([Dense(6, 4)], {"batch_norm": True}, r"need layer sizes: add Tanh\(\), BatchNorm"),
        ([Dense(6, 4)], {"dropout": 0.5}, "need layer sizes"),
        ([Dense(6, 5), Dense(5, 4)], {"activation": "relu"}, "activation, init, .* need layer sizes"),
        ([Dense(6, 4)], {"init": "lecun"}, r'use Dense\(..., init="lecun"\)'),
        ([6, 5, 4], {"dropout": 1.0}, r"Dropout: rate must be in \[0, 1\)"),
        ([6, 5, 4], {"dropout": float("nan")}, r"must be in \[0, 1\)"),
        ([4, 3, 2], {"activation": None}, "activation must be a name, or a list of names, got None"),
        ([4, 3, 2], {"activation": ReLU()}, "activation must be a name"),
        ([4, 3, 2], {"activation": [ReLU]}, "unknown activation"),
        ([4, 3, 2], {"activation": "qqq"}, "the activations are elu, exact_gelu, gelu, identity"),
        ([4, 2], {"activation": "sigmoyd"}, "did you mean 'sigmoid'"),
        ([4, 3, 2], {"activation": ["tanh", "tanh"]}, "2 names for 1 hidden layers: expected one name, or 1"),
        ([4, 3, 3, 2], {"activation": ["tanh"]}, "1 names for 2 hidden layers"),
        ([4, 3, 2], {"init": "norml"}, "unknown initializer 'norml': did you mean 'normal'"),
        ([3, 2], {"loss": CrossEntropy}, "loss must be a Loss object or one of cross_entropy, binary"),
        ([3, 2], {"loss": None}, "loss must be a Loss object"),
        ([3, 2], {"dtype": np.float16}, "dtype must be float32 .* or float64"),
    ],
    ids=str,
)
def test_invalid_arguments_are_rejected(given_layers, arguments, message, rejects):
    with rejects(message):
        Network(given_layers, rng=0, **arguments)


def test_astype_rejects_other_dtypes(rejects):
    with rejects("dtype must be float32"):
        Network([3, 2], rng=0).astype(np.float16)


@pytest.mark.parametrize("method", ["outputs", "predict", "predict_proba", "activations"])
def test_predict_rejects_invalid_inputs(method, rejects):
    for x in (np.ones((9, 5)), np.ones(6), np.full((9, 6), np.nan)):
        with rejects(r"^x"):
            getattr(Network([6, 4], rng=0), method)(x)


def test_a_loss_given_by_name_and_as_an_object_are_the_same():
    for name, make in LOSSES.items():
        assert type(Network([2, 2], loss=name, rng=0).loss) is type(Network([2, 2], loss=make(), rng=0).loss) is make
    assert isinstance(Network([2, 1], loss=Huber(0.5), rng=0).loss, Huber)
    assert not isinstance(Network([2, 1], loss="huber", rng=0).loss, AbsoluteError)


# ---- Programs that raise floating point errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "activation"),
    [
        *(("cross_entropy", activation) for activation in sorted(ACTIVATIONS)),
        *((loss, "gelu") for loss in ("binary_cross_entropy", SquaredError("sigmoid"))),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:column")  # large features
def test_logits_of_any_size_are_predicted_if_floating_point_errors_raise(loss, activation):
    network = Network([4, 5, 3], activation=activation, loss=loss, rng=0)
    network.layers[-1].b[...] = [1e8, -1e8, 150]
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32) * 100
    y = np.arange(7) % 3
    twin = network.astype(np.float32)
    wanted = [network.predict_proba(x), network.predict(x), network.soft_labels(x, 2), network.evaluate(x, y)]
    trained = Trainer(twin, Adam(1e-3), batch_size=2, rng=0).fit(x, y, epochs=2, validation=(x, y))
    with np.errstate(all="raise"):
        found = [network.predict_proba(x), network.predict(x), network.soft_labels(x, 2), network.evaluate(x, y)]
        history = Trainer(network, Adam(1e-3), batch_size=2, rng=0).fit(x, y, epochs=2, validation=(x, y))
    for a, b in zip(wanted[:3], found[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    assert wanted[3] == found[3]
    assert history | {"seconds": 0} == trained | {"seconds": 0}
    np.testing.assert_array_equal(network.parameters, twin.parameters)


def test_a_loss_that_is_set_later_is_copied_and_gets_buffers(rejects):
    first, second = (Network([5, 4, 3], rng=0) for _ in range(2))
    x, y = np.ones((10, 5)), np.arange(10) % 3
    first.loss = CrossEntropy(0.1)
    second.loss = first.loss
    for made, batch_size in ((first, 10), (second, 4)):
        Trainer(made, SGD(0.1), batch_size=batch_size, rng=0).fit(x, y, epochs=1)
    assert first.loss is not second.loss
    second.loss = "squared_error"
    assert second.backprop(x.astype(np.float32), np.zeros((10, 3), np.float32)).shape == (10, 3)
    with rejects("unknown loss 'l2'"):
        first.loss = "l2"


def test_names_of_other_libraries_are_rejected_with_those_of_handgrad(rejects):
    with rejects("unknown loss 'mse': use 'squared_error'"):
        Network([4, 1], loss="mse")
    with rejects("Network has no option 'seed': did you mean 'rng'"):
        Network([4, 3], seed=1)
    with rejects("Network has no option 'drop_out': did you mean 'dropout'"):
        Network([4, 3], drop_out=0.1)
    with rejects("Network has no option 'optimizer': expected activation, loss"):
        Network([4, 3], optimizer="adam")


# ---- Summary ---------------------------------------------------------------------------------------------------------


def test_summary_has_a_row_per_layer_with_the_activation_after_it():
    made = Network([6, 5, 4], activation="tanh", batch_norm=True, dropout=0.2, loss="cross_entropy", rng=0)
    assert made.summary().rows == [
        ("0", "Dense(n_in=6, n_out=5, init='xavier_normal')", "(count, 5)", "35", ""),
        ("1", "BatchNorm(n=5, momentum=0.1, epsilon=1e-05)", "(count, 5)", "20", "tanh"),
        ("3", "Dropout(rate=0.2)", "(count, 5)", "0", ""),
        ("4", "Dense(n_in=5, n_out=4, init='xavier_normal')", "(count, 4)", "24", "softmax"),
    ]
    assert made.summary().caption == "6 inputs, 79 parameters, float32, CrossEntropy()"
    assert repr(made.summary()).splitlines()[0].split() == ["layer", "output", "shape", "parameters", "activation"]


def test_summary_counts_frozen_parameters_and_shows_activations_without_a_layer_before_them():
    class Double(Layer):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    made = Network([Tanh(), Dense(6, 4), ReLU(), Sigmoid(), Double()], loss="squared_error", rng=0)
    made.layers[1].trainable, made.image_shape = False, (2, 3)
    assert [(row[0], row[1].partition("(")[0], row[-1]) for row in made.summary().rows] == [
        ("0", "Tanh", "tanh"),
        ("1", "Dense", "relu"),
        ("3", "Sigmoid", "sigmoid"),
        ("4", "Double", ""),
    ]
    assert made.summary().rows[1][1].endswith(" (frozen)")
    assert made.summary().caption.startswith("6 inputs (2x3 pixels), 28 parameters, 28 of them frozen, float32")


@every_loss
def test_sizes_of_the_summary_are_those_of_the_parameters(loss):
    made = Network([6, 5, 4], loss=loss, rng=0)
    assert sum(int(row[3]) for row in made.summary().rows) == made.parameters.size
    last = made.loss.output_activation
    assert made.summary().rows[-1][-1] == ("" if last == "identity" else last)


def test_html_of_a_network_is_its_summary_and_escapes_layers():
    class Odd(Tanh):
        def __repr__(self):
            return "<script>alert(1)</script>"

    html = Network([Dense(3, 2), Odd()], rng=0)._repr_html_()
    assert "<table>" in html
    assert "<script>" not in html


# ---- fit -------------------------------------------------------------------------------------------------------------


def test_fit_equals_an_explicit_trainer(digits):
    x, y, *_ = digits
    short, long = (Network([64, 12, 10], loss="cross_entropy", rng=0) for _ in range(2))
    history = short.fit(x, y, rng=1)
    explicit = Trainer(long, Adam(1e-3), batch_size=32, rng=1).fit(x, y, epochs=5, validation=0.1)
    np.testing.assert_array_equal(short.parameters, long.parameters)
    assert history | {"seconds": 0} == explicit | {"seconds": 0}
    assert {"val_loss", "val_accuracy"} <= set(history)


def test_an_optimizer_object_keeps_its_state_from_one_fit_to_the_next():
    made, optimizer = Network([6, 4], loss="cross_entropy", rng=0), Adam(0.01)
    for steps in (3, 6):
        made.fit(X, Y, 1, optimizer=optimizer, batch_size=3, validation=None, rng=0)
        assert optimizer.steps == steps


def test_fit_passes_on_the_options_of_the_trainer(digits):
    x, y, *_ = digits
    short, long = (Network([64, 12, 10], loss="cross_entropy", rng=0) for _ in range(2))
    seen = []

    class Seen(Callback):
        def on_epoch_end(self, trainer):
            seen.append(trainer.optimizer.lr)

    options = {"schedule": "cosine", "callbacks": [Seen()]}
    weights = np.arange(len(x)) % 3 + 1
    short.fit(x, y, 2, optimizer="sgd", lr=0.3, batch_size=20, validation=None, sample_weight=weights, rng=1, **options)
    Trainer(long, SGD(0.3), batch_size=20, rng=1, **options).fit(x, y, epochs=2, sample_weight=weights)
    np.testing.assert_array_equal(short.parameters, long.parameters)
    assert seen == [0.3] * 4


def test_fit_reaches_a_high_accuracy_with_its_defaults(digits):
    x, y, x_test, y_test = digits
    made = Network([64, 30, 10], activation="relu", loss="cross_entropy", rng=0)
    made.fit(x, y, 20, rng=0)
    assert made.evaluate(x_test, y_test).accuracy > 0.95


@pytest.mark.parametrize("method", ["backprop", "input_gradient"])
def test_labels_in_place_of_targets_are_rejected(method, rejects):
    """NumPy would subtract labels of 4 examples from rows of 4 outputs."""
    made = Network([6, 4], rng=0)
    with rejects(r"t has shape \(4,\): expected \(4, 4\)"):
        getattr(made, method)(np.ones((4, 6), np.float32), np.arange(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 0.2}, "fit has no option 'validation_split': use validation=0.1"),
        ({"verbose": 1}, "fit has no option 'verbose': use progress=True or False"),
        ({"optimizer": "sgd"}, "'sgd' has no default learning rate"),
        ({"optimizer": Adam(), "lr": 0.1}, "lr is for the name of an optimizer"),
        ({"epochs": 0.5}, "epochs must be an integer"),
    ],
)
def test_fit_rejects_options_of_other_libraries(options, message, rejects):
    made = Network([6, 4], rng=0)
    before = made.parameters.copy()
    with rejects(message):
        made.fit(X, Y, **options)
    np.testing.assert_array_equal(made.parameters, before)


@pytest.mark.parametrize("given", [(4, 16, 3), (Dense(4, 3), Tanh()), ([4, 3], "tanh")])
def test_layers_that_are_not_one_list_are_rejected(given, rejects):
    with rejects(r"pass the sizes or layers as one list: Network\(\["):
        Network(*given)


def test_methods_of_other_libraries_are_named(rejects):
    with rejects("the loss is an option"):
        _ = Network([4, 3], rng=0).compile
    assert not hasattr(Network([4, 3], rng=0), "compile")


def test_backward_computes_only_what_trained_layers_need(monkeypatch):
    network = Network([Dense(4, 5), Tanh(), Dense(5, 4), Tanh(), Dense(4, 3)], rng=0, dtype=np.float64)
    x, t = np.random.default_rng(0).standard_normal((6, 4)), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    network.backprop(x, t)
    expected = network.layers[2].dW.copy()
    network.gradient[...] = 7
    for i in (0, 4):
        network.layers[i].trainable = False
    monkeypatch.setattr(network.layers[1], "backward", None)  # calling it would raise
    network.backprop(x, t)
    np.testing.assert_array_equal(network.layers[2].dW, expected)
    assert (network.layers[0].dW == 0).all()
    assert (network.layers[4].dW == 0).all()

    network.layers[2].trainable = False
    network.gradient[...] = 7
    network.backprop(x, t)
    assert (network.gradient == 0).all()


# ---- A new output ----------------------------------------------------------------------------------------------------


def test_network_with_a_new_output_keeps_the_other_layers():
    made = Network([Dense(6, 5, init="lecun"), Tanh(), Dropout(0.5), Dense(5, 4, init="zeros")], rng=0)
    made.image_shape, made.classes, made.feature_names = (2, 3), tuple("abcd"), tuple("uvwxyz")
    made.layers[0].trainable, made.layers[0].lr_scale = False, 0.1
    new = made.with_new_output(7, rng=1)
    assert (new.n_in, new.n_out, new.image_shape, new.feature_names) == (6, 7, (2, 3), tuple("uvwxyz"))
    assert new.classes == tuple("0123456")
    np.testing.assert_array_equal(new.layers[0].W, made.layers[0].W)
    np.testing.assert_array_equal(new.layers[0].b, made.layers[0].b)
    assert (new.layers[0].trainable, new.layers[0].lr_scale, new.layers[3].init) == (False, 0.1, "zeros")
    assert not np.shares_memory(new.parameters, made.parameters)
    assert type(new.loss) is type(made.loss)
    assert new.loss is not made.loss
    other = Network([Dense(6, 5), Tanh(), Dense(5, 4)], rng=0)
    assert not np.array_equal(*(other.with_new_output(4, rng=rng).layers[2].W for rng in (0, 1)))
    new.fit(np.zeros((3, 6)), [6, 5, 4], epochs=1, validation=None, progress=False)


def test_new_output_needs_a_dense_layer_at_the_end(rejects):
    with rejects("the last layer with parameters is BatchNorm.*: expected a Dense layer"):
        Network([Dense(3, 2), BatchNorm(2)], rng=0).with_new_output(3)
