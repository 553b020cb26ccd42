"""Import from Keras without Keras: objects with the configuration of a Keras model."""

from types import SimpleNamespace

import numpy as np
import pytest

from handgrad import Adam, AdamW, BatchNorm, CrossEntropy, Dense, SquaredError, interop
from handgrad.initializers import INITIALIZERS
from handgrad.interop import keras as tables
from handgrad.layers import GELU, LAYERS, Tanh
from handgrad.optimizers import OPTIMIZERS, SGD

RNG = np.random.default_rng(0)
X = RNG.random((40, 4))
W, B = RNG.standard_normal((4, 3)), RNG.standard_normal(3)


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


# ---- Tables ----------------------------------------------------------------------------------------------------------


def test_every_class_of_the_core_has_an_equivalent():
    assert {*tables.KERAS_LAYERS, GELU} == set(LAYERS.values())
    assert set(tables.KERAS_OPTIMIZERS) == set(OPTIMIZERS.values())
    assert set(tables.KERAS_INITIALIZERS) == set(INITIALIZERS)


def test_code_of_layers_losses_and_optimizers():
    assert tables.layer_code(Dense(784, 30)) == "layers.Dense(30)"
    assert tables.layer_code(Tanh()) == 'layers.Activation("tanh")'
    assert tables.layer_code(BatchNorm(30, 0.2)) == "layers.BatchNormalization(momentum=0.8, epsilon=1e-05)"
    assert "keras.ops.sigmoid(z) - t" in tables.loss_code(SquaredError("sigmoid"))
    assert "(z - t)" in tables.loss_code(SquaredError())
    assert tables.optimizer_code(SGD(0.5, weight_decay=0.1)) == "keras.optimizers.SGD(0.5, weight_decay=0.1)"
    assert tables.optimizer_code(Adam()).endswith("Adam(0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-08)")
    assert tables.optimizer_code(AdamW()).endswith("epsilon=1e-08, weight_decay=0.01)")


def test_a_temperature_has_no_equivalent(refused):
    with refused("Keras has no equivalent of CrossEntropy.*expected temperature 1"):
        tables.loss_code(CrossEntropy(temperature=2))


# ---- Layers ----------------------------------------------------------------------------------------------------------


def keras_layer(kind, **settings):
    """The configuration of a layer."""
    config = {"name": kind.lower(), **settings}
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def keras_dense(activation="linear", use_bias=True, **more):
    return keras_layer("Dense", activation=activation, use_bias=use_bias, **more)


def keras_model(*layers, weights, kind="Sequential", loss=None, built=True, order=None, **config):
    """A model; order: the indices of its layers in the order in which they are applied."""
    objects = [
        SimpleNamespace(name=layer["config"]["name"], weights=layer["class_name"] == "Dense") for layer in layers
    ]
    methods = {
        "built": built,
        "layers": [objects[i] for i in (range(len(layers)) if order is None else order)],
        "get_config": lambda self: {"layers": list(layers), **config},
        "get_weights": lambda self: weights,
        "get_compile_config": lambda self: None if loss is None else {"loss": loss},
    }
    return type(kind, (), methods)()


def test_a_keras_model_gives_the_same_outputs():
    norm = keras_layer("BatchNormalization", axis=-1, momentum=0.99, epsilon=1e-3, center=True, scale=False)
    shape = keras_layer("InputLayer", batch_shape=[None, 2, 2])
    layers = [shape, keras_layer("Flatten"), keras_dense("relu"), norm, keras_layer("Dropout", rate=0.2)]
    layers += [keras_layer("LeakyReLU", negative_slope=0.3), keras_dense("softmax", use_bias=False, name="last")]
    beta, mean, var, V = RNG.random(3), RNG.random(3), RNG.random(3) + 0.5, RNG.standard_normal((3, 2))
    network = interop.from_keras(keras_model(*layers, weights=[W, B, beta, mean, var, V]))
    assert kinds(network) == ["Dense", "ReLU", "BatchNorm", "Dropout", "LeakyReLU", "Dense"]
    assert network.image_shape == (2, 2)
    assert network.layers[2].config() == {"n": 3, "momentum": 0.01, "epsilon": 1e-3}
    h = (np.maximum(X @ W + B, 0) - mean) / np.sqrt(var + 1e-3) + beta
    z = np.where(h > 0, h, 0.3 * h) @ V
    np.testing.assert_allclose(network.outputs(X), z, rtol=1e-12)
    assert repr(network.loss) == "CrossEntropy()"


def test_a_final_exponential_is_part_of_poisson(refused):
    network = interop.from_keras(keras_model(keras_dense("exponential"), weights=[W, B]))
    np.testing.assert_allclose(network.predict_proba(X), np.exp(X @ W + B), rtol=1e-12)
    with refused(r"ends with an exponential, but the loss is SquaredError\(\): expected poisson"):
        interop.from_keras(keras_model(keras_dense("exponential"), weights=[W, B]), loss="squared_error")
    with refused(r"has an exponential and is followed by 'relu \(ReLU\)': expected it at the end"):
        interop.from_keras(keras_model(keras_dense("exponential"), keras_layer("ReLU"), weights=[W, B]))


def test_a_model_without_weights_is_not_built(refused):
    with refused("the Keras model is not built and has no weights yet: call it once, or add an Input"):
        interop.from_keras(keras_model(keras_dense(), weights=[], built=False))
    with refused("too few arrays: none are left for the layer 'dense'"):
        interop.from_keras(keras_model(keras_dense(), weights=[W]))


def test_layers_may_be_repeated_unless_they_have_weights(refused):
    """get_config describes each layer once."""
    V, c = RNG.standard_normal((3, 3)), RNG.standard_normal(3)
    layers = [keras_layer("InputLayer", batch_shape=[None, 4]), keras_dense(), keras_layer("ReLU")]
    layers += [keras_dense(name="second")]
    network = interop.from_keras(keras_model(*layers, weights=[W, B, V, c], order=[1, 2, 3, 2]))
    assert kinds(network) == ["Dense", "ReLU", "Dense", "ReLU"]
    with refused(r"'second \(Dense\)' occurs more than once, and handgrad does not support shared weights"):
        interop.from_keras(keras_model(*layers, weights=[W, B, V, c], order=[1, 2, 3, 3]))


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([keras_layer("Conv2D")], r"'conv2d \(Conv2D\)' has no equivalent in handgrad: supported are Dense"),
        ([keras_dense("gelu")], "the activation 'gelu', which has no equivalent"),
        ([keras_dense({"class_name": "Mine", "config": {}})], "the activation 'Mine'"),
        ([keras_dense("softmax"), keras_layer("Dropout", rate=0.1)], "has a softmax and is followed by"),
        (
            [keras_layer("InputLayer", batch_shape=[None, 5, 4]), keras_dense()],
            r"has inputs of shape \(5, 4\): expected a Flatten before it",
        ),
        (
            [keras_layer("ReLU", max_value=6.0, negative_slope=0.0, threshold=0.0)],
            r"'relu \(ReLU\)' has no equivalent",
        ),
        ([keras_dense(), keras_layer("Flatten")], r"'flatten \(Flatten\)' has no equivalent"),
        ([keras_dense() | {"registered_name": "Custom>Dense"}], r"'dense \(Dense\)' is a custom class"),
        ([keras_dense() | {"module": "my.layers"}], r"'dense \(Dense\)' is a custom class"),
        ([keras_layer("Dropout", rate=0.1)], "no dense layer"),
        ([keras_dense(), keras_layer("Dropout", rate=1.0)], r"'dropout \(Dropout\)': Dropout: rate must be"),
    ],
)
def test_a_layer_without_an_equivalent_is_rejected_by_name(layers, match, refused):
    weights = [p for layer in layers if layer["class_name"] == "Dense" for p in (W, B)]
    with refused(match):
        interop.from_keras(keras_model(*layers, weights=weights))


def test_other_models_are_rejected(refused):
    with refused("cannot convert the Keras model 'Mine': expected a Sequential or a Functional model"):
        interop.from_keras(keras_model(keras_dense(), weights=[W, B], kind="Mine"))
    with refused("2 more arrays than its layers need"):
        interop.from_keras(keras_model(keras_dense(), weights=[W, B, W, B]))
    with refused("cannot convert a dict: expected a Keras model, or a .keras file"):
        interop.from_keras({})


def functional(*links, end=("c", 0, 0)):
    """Dense layers a, b, c, ..., each called with the (name, kwargs) in `links`."""
    layers = [keras_layer("InputLayer", batch_shape=[None, 4]) | {"name": "a", "inbound_nodes": []}]
    for name, (before, kwargs) in zip("bcd", links, strict=False):
        tensors = [{"config": {"keras_history": [each, 0, 0]}} for each in before]
        layers.append(keras_dense() | {"name": name, "inbound_nodes": [{"args": tensors, "kwargs": kwargs}]})
    weights = [W, B, RNG.random((3, 2)), RNG.random(2)]
    return keras_model(*layers, weights=weights, kind="Functional", output_layers=list(end))


def test_a_functional_model_must_be_a_sequence(refused):
    assert kinds(interop.from_keras(functional(("a", {}), ("b", {"mask": None})))) == ["Dense", "Dense"]
    assert kinds(interop.from_keras(functional(("a", {}), ("b", {}), end=[["c", 0, 0]]))) == ["Dense", "Dense"]
    for other in (
        functional(("a", {}), ("a", {})),
        functional(("a", {}), ("ab", {})),
        functional(("a", {}), ("b", {"training": True})),
        functional(("a", {}), ("b", {}), end=("b", 0, 0)),
        functional(("a", {}), ("b", {}), end=[["b", 0, 0], ["c", 0, 0]]),
    ):
        with refused("the layers of the Functional model are not a sequence"):
            interop.from_keras(other)


# ---- Losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "loss", "expected"),
    [
        ("linear", None, "SquaredError()"),
        ("linear", "mse", "SquaredError()"),
        ("linear", "mean_absolute_error", "AbsoluteError()"),
        ("linear", "log_cosh", "LogCosh()"),
        ("linear", ["MAE"], "AbsoluteError()"),
        ("linear", {"output": "bce"}, "BinaryCrossEntropy()"),
        ("linear", "huber_loss", "Huber(delta=1.0)"),
        ("linear", {"class_name": "function", "config": "huber", "module": "builtins"}, "Huber(delta=1.0)"),
        ("linear", {"class_name": "Huber", "config": {"delta": 0.3}}, "Huber(delta=0.3)"),
        ("linear", {"class_name": "SparseCategoricalCrossentropy", "config": {}}, "CrossEntropy()"),
        ("sigmoid", None, "BinaryCrossEntropy()"),
        ("sigmoid", "categorical_crossentropy", "BinaryCrossEntropy()"),
        ("sigmoid", "mse", "SquaredError(activation='sigmoid')"),
        ("exponential", None, "Poisson()"),
        ("exponential", "poisson", "Poisson()"),
        (
            "softmax",
            {"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.1}},
            "CrossEntropy(label_smoothing=0.1)",
        ),
        ("softmax", "mse", "CrossEntropy()"),
    ],
)
def test_the_loss_follows_from_compile_and_the_output_activation(activation, loss, expected):
    network = interop.from_keras(keras_model(keras_dense(activation), weights=[W, B], loss=loss))
    assert (repr(network.loss), kinds(network)) == (expected, ["Dense"])


def test_a_sigmoid_compiled_with_mse_gives_the_same_predictions_with_both_losses():
    model = keras_model(keras_dense("sigmoid"), weights=[W, B], loss="mse")
    p = 1 / (1 + np.exp(-(X @ W + B)))
    classifier, regression = interop.from_keras(model), interop.from_keras(model, loss="squared_error")
    assert kinds(regression) == ["Dense", "Sigmoid"]
    np.testing.assert_allclose(classifier.predict_proba(X), p, rtol=1e-12)
    np.testing.assert_allclose(regression.predict(X), p, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        ("binary_focal_crossentropy", "the loss 'binary_focal_crossentropy', which has no equivalent .*: give loss"),
        ("poisson", "'poisson' but does not end with the activation 'exponential'"),
        ({"class_name": "Huber", "config": {}}, "'Huber', whose delta is not in the configuration"),
        ({"class_name": "Huber", "config": {}, "module": None}, "Huber, a custom class"),
        ({"class_name": "function", "config": "mine", "module": "builtins"}, "the loss 'mine', which"),
        ({"class_name": "BinaryCrossentropy", "config": {"label_smoothing": 0.1}}, "with label_smoothing=0.1, which"),
        (["mse", "mae"], "which has no equivalent"),
    ],
)
def test_a_compiled_loss_without_an_equivalent_is_rejected_unless_a_loss_is_given(loss, match, refused):
    model = keras_model(keras_dense(), weights=[W, B], loss=loss)
    with refused(match):
        interop.from_keras(model)
    model = keras_model(keras_dense(), weights=[W, B], loss=loss)
    assert repr(interop.from_keras(model, loss="huber").loss) == "Huber(delta=1.0)"
