"""The way in without the other libraries: state dicts of arrays, scikit-learn's estimators, what is refused and why."""

import os
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

from handgrad import Network, Quadratic, cli, load, save

RNG = np.random.default_rng(0)
X = RNG.random((40, 4))


def linear(n_in, n_out, name, dtype=np.float64):
    """A Linear's part of a state dict."""
    W, b = RNG.standard_normal((n_out, n_in)).astype(dtype), RNG.standard_normal(n_out).astype(dtype)
    return {f"{name}.weight": W, f"{name}.bias": b}


def norm(n, name):
    arrays = {"weight": RNG.random(n), "bias": RNG.random(n), "running_mean": RNG.random(n)}
    arrays |= {"running_var": RNG.random(n) + 0.5, "num_batches_tracked": np.array(3)}
    return {f"{name}.{kind}": value for kind, value in arrays.items()}


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


# ---- State dicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_dict_is_the_chain_of_its_matrices(dtype):
    state = linear(4, 5, "0", dtype) | linear(5, 3, "2", dtype)
    network = interop.from_torch(state, activation="tanh")
    assert (network.dtype, repr(network.loss)) == (dtype, "CrossEntropy()")
    W, b, V, c = state.values()
    x = X.astype(dtype)
    np.testing.assert_allclose(
        network.outputs(x), np.tanh(x @ W.T + b) @ V.T + c, rtol=2e-6 if dtype is np.float32 else 1e-13
    )
    W[0, 0] = 7  # the network's numbers are its own
    assert network.layers[0].W[0, 0] != 7


def test_what_is_saved_comes_back_to_the_same_bits(tmp_path):
    network = Network([4, 6, 5, 3], activation=["relu", "tanh"], loss="cross_entropy", rng=0)
    save(network, tmp_path / "m.safetensors")
    again = interop.from_torch(safetensors.numpy.load_file(tmp_path / "m.safetensors"), activation=["relu", "tanh"])
    assert kinds(again) == kinds(network)
    np.testing.assert_array_equal(again.parameters, network.parameters)


def test_numbers_tell_the_order_and_not_the_place_in_the_dict():
    """Sorted by name 10 comes before 2, and all are square."""
    state = linear(4, 4, "net.10") | linear(4, 4, "net.2") | linear(4, 4, "net.0")
    network = interop.from_torch(state, activation="relu")
    for layer, name in zip(network.layers[::2], ("net.0", "net.2", "net.10"), strict=True):
        np.testing.assert_array_equal(layer.W, state[f"{name}.weight"])


def test_names_without_numbers_go_by_their_shapes_where_these_tell():
    state = linear(5, 3, "head") | linear(4, 6, "stem") | linear(6, 5, "body")
    network = interop.from_torch(state, activation=["relu", "tanh"])
    assert [(layer.n_in, layer.n_out) for layer in network.layers[::2]] == [(4, 6), (6, 5), (5, 3)]
    assert kinds(network) == ["Dense", "Relu", "Dense", "Tanh", "Dense"]


def test_numbers_among_the_names_tell_where_shapes_do_not():
    state = linear(5, 3, "out") | linear(5, 5, "fc3") | linear(5, 5, "fc2") | linear(4, 5, "fc1")
    network = interop.from_torch(state, activation="relu")
    np.testing.assert_array_equal(network.layers[2].W, state["fc2.weight"])
    np.testing.assert_array_equal(network.layers[4].W, state["fc3.weight"])


def test_an_ordered_dict_as_pytorch_gives_it_is_taken_at_its_word(refused):
    state = linear(4, 4, "b") | linear(4, 4, "a")
    with refused("in more than one way: 'b' \\(4, 4\\), 'a' \\(4, 4\\)"):
        interop.from_torch(state, activation="relu")
    network = interop.from_torch(OrderedDict(state), activation="relu")
    np.testing.assert_array_equal(network.layers[0].W, state["b.weight"])


def test_a_linear_alone_needs_no_activation():
    assert kinds(interop.from_torch(linear(4, 3, "fc"))) == ["Dense"]
    state = linear(4, 3, "fc")
    assert kinds(interop.from_torch({name.removeprefix("fc."): p for name, p in state.items()})) == ["Dense"]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ((0, 1, 3), ["Dense", "BatchNorm", "Relu", "Dense"]),
        ((0, 2, 3), ["Dense", "Relu", "BatchNorm", "Dense"]),
        ((0, 1, 4), ["Dense", "BatchNorm", "Relu", "Dense"]),  # and a Dropout, that nothing tells of
    ],
)
def test_a_gap_in_the_numbers_tells_where_a_batch_norms_activation_is(places, expected):
    first, second, third = places
    state = linear(4, 5, first) | norm(5, second) | linear(5, 3, third)
    network = interop.from_torch(state, activation="relu")
    assert kinds(network) == expected
    np.testing.assert_array_equal(
        network.named_parameters[f"{expected.index('BatchNorm')}.g"], state[f"{second}.weight"]
    )


def test_a_batch_norm_in_front_and_at_the_end():
    state = norm(4, "0") | linear(4, 3, "1") | norm(3, "2")
    assert kinds(interop.from_torch(state)) == ["BatchNorm", "Dense", "BatchNorm"]


@pytest.mark.parametrize(
    ("state", "options", "match"),
    [
        (linear(4, 5, "0") | linear(5, 3, "2"), {}, "holds no activations: give activation='relu'.* 1 in all"),
        (linear(4, 5, "0") | linear(5, 3, "2"), {"activation": "rlu"}, "did you mean 'relu'"),
        (linear(4, 5, "0") | linear(5, 3, "2"), {"activation": ["relu", "tanh"]}, "2 activations for 1 hidden"),
        (linear(4, 5, "0") | linear(5, 3, "2"), {"activation": "relu", "loss": "hinge"}, "unknown loss 'hinge'"),
        (linear(4, 5, "0") | linear(6, 3, "2"), {"activation": "relu"}, "'2' takes 6 inputs, and '0' gives 5"),
        (linear(4, 5, "a") | linear(6, 3, "b"), {"activation": "relu"}, "follow each other in no way: 'a' \\(5, 4\\)"),
        ({"0.weight": np.ones((3, 4))}, {}, "'0' has no '0.bias'"),
        ({"0.bias": np.ones(3)}, {}, "'0' has no '0.weight'"),
        (linear(4, 3, "0") | {"0.bias": np.ones(4)}, {}, "'0' has a bias of shape \\(4,\\).*expected \\(3,\\)"),
        ({"0.weight": np.ones((8, 1, 3, 3)), "0.bias": np.ones(8)}, {}, "'0' has weights of shape \\(8, 1, 3, 3\\)"),
        ({"0.weight": np.ones(4), "0.bias": np.ones(4)}, {}, "'0' has weights of shape \\(4,\\)"),  # a LayerNorm
        (linear(4, 3, "0") | {"scale": np.ones(3)}, {}, "'scale' is of no layer"),
        (linear(4, 3, "0") | {"lstm.weight_ih_l0": np.ones(3)}, {}, "'lstm.weight_ih_l0' is of no layer"),
        ({"model": linear(4, 3, "0"), "epoch": 3}, {}, "'model' is itself a mapping: give that one"),
        (linear(4, 3, "0") | {"0.bias": "three"}, {}, "'0.bias' is no array of numbers, but a str"),
        ({}, {}, "no dense layer"),
        (norm(4, "0"), {}, "no dense layer"),
        (linear(4, 3, "0", np.float16), {}, "the weights are float16 \\('0'\\): expected all float32, or all float64"),
        (linear(4, 5, "0") | linear(5, 3, "2", np.float32), {"activation": "relu"}, "float64 .*, float32"),
        (linear(4, 3, "0") | {"0.bias": np.array([1, np.nan, 2])}, {}, "'0' holds numbers that are not finite"),
        (linear(4, 1, "0"), {}, "a softmax over one output is always 1"),
        (linear(4, 5, "0") | norm(5, "2") | linear(5, 3, "4"), {"activation": "relu"}, "do not tell on which side"),
        (linear(4, 5, "0") | norm(5, "1") | linear(5, 3, "2"), {"activation": "relu"}, "do not tell on which side"),
        (linear(4, 5, "fc1") | norm(5, "bn1") | linear(5, 3, "fc2"), {"activation": "relu"}, "names do not tell"),
        (norm(4, "0") | {"0.running_var": np.ones(3)}, {}, "'0' normalises with .* running_var \\(3,\\)"),
        ({k: v for k, v in norm(4, "0").items() if "mean" not in k}, {}, "'0' has no '0.running_mean'"),
        (None, {}, "a NoneType is no chain that can be read"),
        ([1, 2], {}, "a list is no chain"),
    ],
)
def test_a_state_dict_that_is_no_chain_is_refused_by_name(state, options, match, refused):
    with refused(match):
        interop.from_torch(state, **options)


def test_so_many_names_without_numbers_are_not_searched_through(refused):
    state = {}
    for name in "abcdefghijkl":
        state |= linear(4, 4, name)
    with refused("in more than one way"):
        interop.from_torch(state, activation="relu")


@pytest.mark.parametrize("loss", ["quadratic", Quadratic(0.1), "squared_error", "binary_cross_entropy"])
def test_the_loss_may_be_named(loss):
    network = interop.from_torch(linear(4, 3, "0"), loss=loss)
    assert type(network.loss).__name__.lower() in ("quadratic", "squarederror", "crossentropy")


# ---- Modules, as they are when torch is there ------------------------------------------------------------------------


def module(kind, where="torch.nn.modules.made", **attributes):
    made = type(kind, (), {"__module__": where, "extra_repr": lambda self: "settings"})()
    vars(made).update(attributes)
    return made


def sequential(*children):
    made = module("Sequential")
    made._modules = {str(i): child for i, child in enumerate(children)}
    return made


def lin(n_in, n_out, bias=True):
    arrays = list(linear(n_in, n_out, "0").values())
    return module("Linear", weight=arrays[0], bias=arrays[1] if bias else None)


def test_a_sequential_is_read_module_by_module_those_within_others_too():
    inner = sequential(module("LeakyReLU", negative_slope=0.2), module("Dropout", p=0.3))
    flatten = module("Flatten", start_dim=1, end_dim=-1)
    network = interop.from_torch(
        sequential(flatten, lin(4, 5), inner, lin(5, 3, bias=False), module("LogSoftmax", dim=1))
    )
    assert kinds(network) == ["Identity", "Dense", "LeakyRelu", "Dropout", "Dense"]
    assert (network.layers[2].slope, network.layers[3].rate) == (0.2, 0.3)
    assert not network.layers[4].b.any()
    assert repr(network.loss) == "CrossEntropy()"


def test_a_sigmoid_at_the_end_is_the_losss_own_or_stays():
    model = sequential(lin(4, 3), module("Sigmoid"))
    assert kinds(interop.from_torch(model)) == ["Dense"]
    assert repr(interop.from_torch(model).loss) == "BinaryCrossEntropy()"
    assert kinds(interop.from_torch(model, loss="quadratic")) == ["Dense", "Sigmoid"]


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (module("Conv2d"), "Sequential\\[1\\] Conv2d has no equal in handgrad"),
        (module("ELU"), "Sequential\\[1\\] ELU has no equal"),
        (module("GELU", approximate="none"), "Sequential\\[1\\] GELU\\(settings\\) has no equal"),
        (module("Softplus", beta=2, threshold=20), "Softplus\\(settings\\) has no equal"),
        (module("Flatten", start_dim=1, end_dim=-1), "Flatten\\(settings\\) has no equal"),
        (module("Linear", where="my.lora"), "Sequential\\[1\\] Linear has no equal"),
        (module("ReLU", where="my.layers"), "Sequential\\[1\\] ReLU has no equal"),
        (module("Softmax", dim=0), "along dim 0: expected 1"),
        (module("LeakyReLU", negative_slope=-1.0), "'Sequential\\[1\\] LeakyReLU': .*slope -1.0"),
        (module("Dropout", p=1.0), "'Sequential\\[1\\] Dropout': Dropout with rate 1.0"),
        (module("BatchNorm1d", weight=None, bias=None, running_mean=None, running_var=None), "no running statistics"),
    ],
)
def test_a_module_without_an_equal_is_refused_by_name(bad, match, refused):
    with refused(match):
        interop.from_torch(sequential(lin(4, 3), bad))


def test_a_softmax_in_the_middle_or_with_another_loss_is_refused(refused):
    with refused("Softmax has no equal"):
        interop.from_torch(sequential(lin(4, 3), module("Softmax", dim=1), lin(3, 3)))
    with refused("ends with a softmax, and the loss is Quadratic"):
        interop.from_torch(sequential(lin(4, 3), module("Softmax", dim=1)), loss="quadratic")


def test_a_sequential_is_not_told_its_activation(refused):
    with refused("activation 'relu': a Sequential has its own"):
        interop.from_torch(sequential(lin(4, 3)), activation="relu")


def test_a_module_of_ones_own_is_code(refused):
    with refused("a Net is no chain that can be read: expected a torch.nn.Sequential, or a state dict"):
        interop.from_torch(module("Net", where="__main__"))


def test_an_activation_may_come_twice_and_weights_may_not(refused):
    act, twice = module("ReLU"), lin(4, 4)
    network = interop.from_torch(sequential(lin(3, 4), act, lin(4, 4), sequential(act), lin(4, 2)))
    assert kinds(network) == ["Dense", "Relu", "Dense", "Relu", "Dense"]
    with refused("'Sequential\\[2\\] Linear' has the same weights as 'Sequential\\[0\\] Linear'.*copy.deepcopy"):
        interop.from_torch(sequential(twice, act, twice))
    tied = lin(4, 4)
    tied.weight = twice.weight
    with refused("'Sequential\\[1\\] Linear' has the same weights"):
        interop.from_torch(sequential(twice, tied))


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def fitted(estimator, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_a_classifier_of_many_classes_answers_as_it_did(activation, hidden):
    y = np.array(["ant", "bee", "cat"])[np.arange(40) % 3]
    theirs = fitted(MLPClassifier(hidden, activation=activation, max_iter=5, random_state=0), y)
    network = interop.from_sklearn(theirs)
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-12)
    assert network.classes == ("ant", "bee", "cat")
    assert [network.classes[k] for k in network.predict(X)] == list(theirs.predict(X))
    assert network.dtype == np.float64


def test_a_classifier_of_two_classes_has_one_output(tmp_path):
    theirs = fitted(MLPClassifier((6,), max_iter=5, random_state=0), np.array(["no", "yes"])[np.arange(40) % 2])
    network = interop.from_sklearn(theirs)
    assert (network.n_out, network.classes, repr(network.loss)) == (1, ("no", "yes"), "BinaryCrossEntropy()")
    np.testing.assert_allclose(network.predict_proba(X)[:, 0], theirs.predict_proba(X)[:, 1], atol=1e-12)
    assert [network.classes[k] for k in network.predict(X)] == list(theirs.predict(X))
    save(network, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").classes == ("no", "yes")


def test_a_classifier_of_one_class_alone_can_be_saved(tmp_path):
    theirs = fitted(MLPClassifier((6,), max_iter=2, random_state=0), np.full(40, "ant"))
    network = interop.from_sklearn(theirs)
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X)[:, -1:], atol=1e-12)
    save(network, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").classes == ("0", "1")


def test_a_classifier_of_many_labels_at_once():
    theirs = fitted(MLPClassifier((6,), max_iter=5, random_state=0), RNG.integers(0, 2, (40, 3)))
    network = interop.from_sklearn(theirs)
    assert repr(network.loss) == "BinaryCrossEntropy()"
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regressor_answers_as_it_did(outputs):
    y = RNG.random((40, outputs))
    theirs = fitted(MLPRegressor(hidden_layer_sizes=(6,), max_iter=5, random_state=0), y[:, 0] if outputs == 1 else y)
    network = interop.from_sklearn(theirs)
    assert repr(network.loss) == "SquaredError()"
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict(X).reshape(40, outputs), atol=1e-12)


def test_a_regressor_of_counts_answers_as_it_did():
    theirs = fitted(
        MLPRegressor(hidden_layer_sizes=(6,), loss="poisson", max_iter=5, random_state=0), RNG.poisson(3, 40)
    )
    network = interop.from_sklearn(theirs)
    assert repr(network.loss) == "Poisson()"
    np.testing.assert_allclose(network.predict_proba(X)[:, 0], theirs.predict(X), rtol=1e-12)


def test_float32_stays_float32():
    theirs = MLPClassifier((6,), max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(X.astype(np.float32), np.arange(40) % 3)
    network = interop.from_sklearn(theirs)
    assert network.dtype == np.float32
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X.astype(np.float32)), atol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        (MLPClassifier(), "the MLPClassifier is not fitted, it has no coefs_, intercepts_, out_activation_"),
        (LogisticRegression(), "the LogisticRegression cannot be read"),
        ("model.joblib", "the str cannot be read"),
    ],
)
def test_what_is_no_fitted_network_is_refused(estimator, match, refused):
    with refused(match):
        interop.from_sklearn(estimator)


def test_an_output_that_handgrad_does_not_have_is_refused(refused):
    theirs = fitted(MLPRegressor(hidden_layer_sizes=(3,), max_iter=2), X[:, 0])
    theirs.out_activation_ = "tanh"
    with refused("the MLPRegressor ends with 'tanh'"):
        interop.from_sklearn(theirs)


# ---- Keras, as its objects are ---------------------------------------------------------------------------------------


def keras_layer(kind, **settings):
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": kind.lower(), **settings},
        "registered_name": None,
    }


def keras_dense(activation="linear", use_bias=True, **more):
    return keras_layer("Dense", activation=activation, use_bias=use_bias, **more)


def keras_model(*layers, weights, kind="Sequential", loss=None, built=True, chain=None, **config):
    """A model; chain: the places of its layers in the order in which they come."""
    objects = [
        SimpleNamespace(name=layer["config"]["name"], weights=layer["class_name"] == "Dense") for layer in layers
    ]
    methods = {
        "built": built,
        "layers": [objects[i] for i in (range(len(layers)) if chain is None else chain)],
        "get_config": lambda self: {"layers": list(layers), **config},
        "get_weights": lambda self: weights,
        "get_compile_config": lambda self: None if loss is None else {"loss": loss},
    }
    return type(kind, (), methods)()


W, B = RNG.standard_normal((4, 3)), RNG.standard_normal(3)
BN = keras_layer("BatchNormalization", axis=-1, momentum=0.99, epsilon=1e-3, center=True, scale=False)


def test_a_keras_model_is_read_layer_by_layer():
    shape = keras_layer("InputLayer", batch_shape=[None, 2, 2])
    layers = [shape, keras_layer("Flatten"), keras_dense("relu"), BN, keras_layer("Dropout", rate=0.2)]
    layers += [keras_layer("LeakyReLU", negative_slope=0.3), keras_dense("softmax", use_bias=False, name="last")]
    beta, mean, var, V = RNG.random(3), RNG.random(3), RNG.random(3) + 0.5, RNG.standard_normal((3, 2))
    network = interop.from_keras(keras_model(*layers, weights=[W, B, beta, mean, var, V]))
    assert kinds(network) == ["Dense", "Relu", "BatchNorm", "Dropout", "LeakyRelu", "Dense"]
    assert network.image_shape == (2, 2)
    assert network.layers[2].config() == {"n": 3, "momentum": 0.01, "epsilon": 1e-3}
    h = (np.maximum(X @ W + B, 0) - mean) / np.sqrt(var + 1e-3) + beta
    z = np.where(h > 0, h, 0.3 * h) @ V
    np.testing.assert_allclose(network.outputs(X), z, rtol=1e-12)
    assert repr(network.loss) == "CrossEntropy()"


@pytest.mark.parametrize(
    ("activation", "loss", "expected"),
    [
        ("sigmoid", None, "BinaryCrossEntropy()"),
        ("linear", None, "SquaredError()"),
        ("linear", "mse", "SquaredError()"),
        ("linear", "mean_absolute_error", "AbsoluteError()"),
        ("linear", "log_cosh", "LogCosh()"),
        ("linear", ["MAE"], "AbsoluteError()"),
        ("linear", {"output": "bce"}, "BinaryCrossEntropy()"),
        ("linear", "huber", "Huber(delta=1.0)"),
        ("linear", "huber_loss", "Huber(delta=1.0)"),
        ("linear", {"class_name": "function", "config": "huber", "module": "builtins"}, "Huber(delta=1.0)"),
        ("linear", {"class_name": "SparseCategoricalCrossentropy", "config": {}}, "CrossEntropy()"),
        ("linear", {"class_name": "BinaryCrossentropy", "config": {}}, "BinaryCrossEntropy()"),
        ("linear", {"class_name": "Huber", "config": {"delta": 0.3}}, "Huber(delta=0.3)"),
        ("exponential", None, "Poisson()"),
        ("exponential", "poisson", "Poisson()"),
        (
            "softmax",
            {"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.1}},
            "CrossEntropy(label_smoothing=0.1)",
        ),
        ("softmax", "mse", "CrossEntropy()"),
        ("softmax", "categorical_crossentropy", "CrossEntropy()"),
    ],
)
def test_the_end_tells_the_loss_or_what_the_model_was_compiled_with(activation, loss, expected):
    network = interop.from_keras(keras_model(keras_dense(activation), weights=[W, B], loss=loss))
    assert (repr(network.loss), kinds(network)) == (expected, ["Dense"])


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (
            "binary_focal_crossentropy",
            "the loss 'binary_focal_crossentropy', which has no equal in handgrad: give loss",
        ),
        ("poisson", "'poisson', and ends with no 'exponential' activation"),
        ({"class_name": "Huber", "config": {}}, "'Huber', whose delta Keras does not keep"),
        ({"class_name": "Huber", "config": {}, "module": None}, "Huber, a class of somebody's own"),
        ({"class_name": "function", "config": "mine", "module": "builtins"}, "the loss 'mine', which"),
        ({"class_name": "BinaryCrossentropy", "config": {"label_smoothing": 0.1}}, "with label_smoothing=0.1, which"),
        (["mse", "mae"], "which has no equal"),
    ],
)
def test_a_compiled_loss_without_an_equal_is_refused_unless_one_is_given(loss, match, refused):
    model = keras_model(keras_dense(), weights=[W, B], loss=loss)
    with refused(match):
        interop.from_keras(model)
    assert repr(interop.from_keras(keras_model(keras_dense(), weights=[W, B], loss=loss), loss="huber").loss) == (
        "Huber(delta=1.0)"
    )


def test_an_exponential_at_the_end_is_what_poisson_holds(refused):
    network = interop.from_keras(keras_model(keras_dense("exponential"), weights=[W, B]))
    np.testing.assert_allclose(network.predict_proba(X), np.exp(X @ W + B), rtol=1e-12)
    with refused("ends with an exponential, and the loss is SquaredError\\(\\): expected poisson"):
        interop.from_keras(keras_model(keras_dense("exponential"), weights=[W, B]), loss="squared_error")
    with refused("is an exponential, and .* comes after it"):
        interop.from_keras(keras_model(keras_dense("exponential"), keras_layer("ReLU"), weights=[W, B]))


def test_a_keras_model_without_weights_is_not_built(refused):
    with refused("the Keras model is not built, and has no weights yet: call it once, or give it an Input"):
        interop.from_keras(keras_model(keras_dense(), weights=[], built=False))
    with refused("fewer arrays than its layers: 'dense' has none left"):
        interop.from_keras(keras_model(keras_dense(), weights=[W]))


def test_a_layer_that_comes_twice_in_keras_is_taken_twice_or_refused(refused):
    """get_config tells of it once."""
    V, c = RNG.standard_normal((3, 3)), RNG.standard_normal(3)
    layers = [keras_layer("InputLayer", batch_shape=[None, 4]), keras_dense(), keras_layer("ReLU")]
    layers += [keras_dense(name="second")]
    network = interop.from_keras(keras_model(*layers, weights=[W, B, V, c], chain=[1, 2, 3, 2]))
    assert kinds(network) == ["Dense", "Relu", "Dense", "Relu"]
    with refused("'second \\(Dense\\)' comes more than once"):
        interop.from_keras(keras_model(*layers, weights=[W, B, V, c], chain=[1, 2, 3, 3]))


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([keras_layer("Conv2D")], "'conv2d \\(Conv2D\\)' has no equal in handgrad"),
        ([keras_dense("gelu")], "the activation 'gelu', which has no equal"),
        ([keras_dense({"class_name": "Mine", "config": {}})], "the activation 'Mine'"),
        ([keras_dense("softmax"), keras_layer("Dropout", rate=0.1)], "is a softmax, and .* comes after it"),
        (
            [keras_layer("InputLayer", batch_shape=[None, 5, 4]), keras_dense()],
            "shape \\(5, 4\\): expected a Flatten",
        ),
        ([keras_layer("ReLU", max_value=6.0, negative_slope=0.0, threshold=0.0)], "'relu \\(ReLU\\)' has no equal"),
        ([keras_dense(), keras_layer("Flatten")], "Flatten"),
        ([keras_dense() | {"registered_name": "Custom>Dense"}], "a class of somebody's own"),
        ([keras_dense() | {"module": "my.layers"}], "a class of somebody's own"),
        ([keras_layer("Dropout", rate=0.1)], "no dense layer"),
        ([keras_dense(), keras_layer("Dropout", rate=1.0)], "'dropout \\(Dropout\\)': Dropout with rate 1.0"),
        ([], "no dense layer"),
    ],
)
def test_a_layer_of_keras_without_an_equal_is_refused_by_name(layers, match, refused):
    weights = [p for layer in layers if layer["class_name"] == "Dense" for p in (W, B)]
    with refused(match):
        interop.from_keras(keras_model(*layers, weights=weights))


def test_what_is_no_chain_in_keras_is_refused(refused):
    with refused("a Keras 'Mine' is no chain"):
        interop.from_keras(keras_model(keras_dense(), weights=[W, B], kind="Mine"))
    with refused("2 arrays more than its layers"):
        interop.from_keras(keras_model(keras_dense(), weights=[W, B, W, B]))
    with refused("a dict is no Keras model"):
        interop.from_keras({})


def functional(*links, end=("c", 0, 0)):
    """Dense layers a, b, c, ..., each called with what `links` says: (name, kwargs)."""
    layers = [keras_layer("InputLayer", batch_shape=[None, 4]) | {"name": "a", "inbound_nodes": []}]
    for name, (before, kwargs) in zip("bcd", links, strict=False):
        tensors = [{"config": {"keras_history": [each, 0, 0]}} for each in before]
        layers.append(keras_dense() | {"name": name, "inbound_nodes": [{"args": tensors, "kwargs": kwargs}]})
    weights = [W, B, RNG.random((3, 2)), RNG.random(2)]
    return keras_model(*layers, weights=weights, kind="Functional", output_layers=list(end))


def test_a_functional_model_is_taken_where_it_is_one_chain(refused):
    assert kinds(interop.from_keras(functional(("a", {}), ("b", {"mask": None})))) == ["Dense", "Dense"]
    assert kinds(interop.from_keras(functional(("a", {}), ("b", {}), end=[["c", 0, 0]]))) == ["Dense", "Dense"]
    for spoiled in (
        functional(("a", {}), ("a", {})),
        functional(("a", {}), ("ab", {})),
        functional(("a", {}), ("b", {"training": True})),
        functional(("a", {}), ("b", {}), end=("b", 0, 0)),
        functional(("a", {}), ("b", {}), end=[["b", 0, 0], ["c", 0, 0]]),
    ):
        with refused("do not follow each other in one chain"):
            interop.from_keras(spoiled)


# ---- Files and the command line --------------------------------------------------------------------------------------


def within(*arguments):
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def state_file(tmp_path):
    state = linear(4, 5, "0", np.float32) | linear(5, 3, "2", np.float32)
    safetensors.numpy.save_file(state, tmp_path / "state.safetensors")
    return tmp_path / "state.safetensors"


@pytest.mark.parametrize("as_text", [True, False])
def test_a_file_is_read_by_its_path(as_text, state_file):
    path = str(state_file) if as_text else state_file
    network = interop.from_torch(path, activation="relu")
    assert kinds(network) == ["Dense", "Relu", "Dense"]


@pytest.mark.parametrize("spoiled", [{"0.bias": np.full(5, np.nan, np.float32)}, linear(6, 3, "2", np.float32)])
def test_what_is_wrong_with_a_files_arrays_is_said_with_its_name(spoiled, state_file, refused):
    safetensors.numpy.save_file(safetensors.numpy.load_file(state_file) | spoiled, state_file)
    with refused(f"^{re.escape(str(state_file))}: '"):
        interop.from_torch(state_file, activation="relu")


@pytest.mark.parametrize("command", [("evaluate",), ("export", "--to", "python")])
def test_a_state_dict_is_no_model_and_import_reads_it(command, state_file):
    code, said, errors = within(command[0], state_file, *command[1:])
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert "not one of handgrad's: " in errors
    assert f"`handgrad import {state_file}` reads it" in errors
    assert "KeyError" not in errors


def test_import_writes_a_model_and_tells_what_it_is(state_file, tmp_path):
    arguments = (
        "--activation",
        "tanh",
        "--classes",
        "ant,bee,cat",
        "--image-shape",
        "2x2",
        "--loss",
        "binary_cross_entropy",
    )
    code, said, errors = within("import", state_file, "--out", tmp_path / "m.safetensors", *arguments)
    assert (code, errors) == (0, "")
    assert "Dense(4, 5) → Tanh() → Dense(5, 3)" in said
    network = load(tmp_path / "m.safetensors")
    assert (network.classes, network.image_shape, repr(network.loss)) == (
        ("ant", "bee", "cat"),
        (2, 2),
        "BinaryCrossEntropy()",
    )
    expected = interop.from_torch(state_file, activation="tanh").outputs(X)
    np.testing.assert_array_equal(network.outputs(X), expected)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((), "give activation='relu'"),
        (("--activation", "relu,tanh"), "2 activations for 1 hidden layers"),
        (("--activation", "relu", "--classes", "a,b"), "2 classes"),
        (("--activation", "relu", "--image-shape", "28x28"), "image shape (28, 28)"),
        (("--activation", "relu", "--image-shape", "28"), "as in 28x28"),
        (("--activation", "relu", "--image-shape", "x"), "as in 28x28"),
        (("--activation", "relu", "--out", "state.safetensors"), "is the file that is read"),
        (("--activation", "relu", "--out", "none/m.safetensors"), "cannot write none/m.safetensors"),
        (("--activation", "relu", "--loss", "mse"), "unknown loss 'mse'"),
    ],
)
def test_an_import_that_cannot_be_is_one_line_and_nothing_written(arguments, match, state_file, monkeypatch):
    monkeypatch.chdir(state_file.parent)
    code, said, errors = within("import", "state.safetensors", "--out", "m.safetensors", *arguments)
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert match in errors
    assert os.listdir() == ["state.safetensors"]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("m.pt", b"PK\x03\x04", "looks like a pickle"),
        ("m.pth", b"\x80\x04\x95", "safetensors.torch.save_file(torch.load(FILE, weights_only=True)"),
        ("m.h5", b"\x89HDF\r\n", "an HDF5 file: expected a .safetensors file, or a .keras file"),
        ("m.safetensors", b"", "no safetensors file"),
        ("m.onnx", b"\x08\x07", "no safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_one_line_that_says_what_to_do(name, content, match, tmp_path):
    (tmp_path / name).write_bytes(content)
    code, said, errors = within(
        "import", tmp_path / name, "--out", tmp_path / "out.safetensors", "--activation", "relu"
    )
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert match in errors


def test_a_model_of_handgrads_own_is_not_imported(tmp_path):
    save(Network([4, 3], rng=0), tmp_path / "m.safetensors")
    _, _, errors = within("import", tmp_path / "m.safetensors", "--out", tmp_path / "out.safetensors")
    assert "a file of handgrad's own: handgrad.load reads its models" in errors
    assert [path.name for path in Path(tmp_path).iterdir()] == ["m.safetensors"]
