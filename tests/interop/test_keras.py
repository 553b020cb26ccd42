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


def test_a_temperature_has_no_equivalent(rejects):
    with rejects("Keras has no equivalent of CrossEntropy.*expected temperature 1"):
        tables.loss_code(CrossEntropy(temperature=2))


# ---- Layers ----------------------------------------------------------------------------------------------------------


def keras_layer(kind, **settings):
    """The configuration of a layer."""
    config = {"name": kind.lower(), **settings}
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def keras_dense(activation="linear", use_bias=True, **more):
    return keras_layer("Dense", activation=activation, use_bias=use_bias, **more)


def activation_object(kind, **settings):
    """The configuration of a layer as the argument `activation`."""
    return keras_layer(kind, **settings)


def keras_object(layer):
    """A layer, or a model with its layers, as `model.layers` has it."""
    made = SimpleNamespace(name=layer["config"]["name"], weights=layer["class_name"] == "Dense")
    if layer["class_name"] == "Sequential":
        made.layers = [keras_object(each) for each in layer["config"]["layers"] if each["class_name"] != "InputLayer"]
    return made


def keras_model(*layers, weights, kind="Sequential", loss=None, built=True, order=None, **config):
    """A model; order: the indices of its layers in the order in which they are applied."""
    objects = [keras_object(layer) for layer in layers]
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


def test_a_final_exponential_is_part_of_poisson(rejects):
    network = interop.from_keras(keras_model(keras_dense("exponential"), weights=[W, B]))
    np.testing.assert_allclose(network.predict_proba(X), np.exp(X @ W + B), rtol=1e-12)
    with rejects(r"ends with an exponential, but the loss is SquaredError\(\): expected poisson"):
        interop.from_keras(keras_model(keras_dense("exponential"), weights=[W, B]), loss="squared_error")
    with rejects(r"has an exponential and is followed by 'relu \(ReLU\)': expected it at the end"):
        interop.from_keras(keras_model(keras_dense("exponential"), keras_layer("ReLU"), weights=[W, B]))


def test_a_model_without_weights_is_not_built(rejects):
    with rejects("the Keras model is not built and has no weights yet: call it once, or add an Input"):
        interop.from_keras(keras_model(keras_dense(), weights=[], built=False))
    with rejects("too few arrays: none are left for the layer 'dense'"):
        interop.from_keras(keras_model(keras_dense(), weights=[W]))


def test_layers_may_be_repeated_unless_they_have_weights(rejects):
    """get_config describes each layer once."""
    V, c = RNG.standard_normal((3, 3)), RNG.standard_normal(3)
    layers = [keras_layer("InputLayer", batch_shape=[None, 4]), keras_dense(), keras_layer("ReLU")]
    layers += [keras_dense(name="second")]
    network = interop.from_keras(keras_model(*layers, weights=[W, B, V, c], order=[1, 2, 3, 2]))
    assert kinds(network) == ["Dense", "ReLU", "Dense", "ReLU"]
    with rejects(r"'second \(Dense\)' occurs more than once, and handgrad does not support shared weights"):
        interop.from_keras(keras_model(*layers, weights=[W, B, V, c], order=[1, 2, 3, 3]))


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([keras_layer("Conv2D")], r"'conv2d \(Conv2D\)' has no equivalent in handgrad: supported are Dense"),
        ([keras_dense("mish")], "the activation 'mish', which has no equivalent"),
        ([keras_dense(activation_object("PReLU"))], "the activation 'PReLU', which has no equivalent"),
        ([keras_dense({"class_name": "__lambda__", "config": {"value": "..."}})], "the activation 'lambda', which has"),
        ([keras_dense({"class_name": "function", "config": "mine", "module": "my"})], "the activation 'mine'"),
        ([keras_dense(activation_object("ReLU", max_value=6.0))], "the activation 'ReLU', which has no equivalent"),
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
        (
            [
                keras_layer("InputLayer", batch_shape=[None, 3, 2, 2]),
                keras_layer("Flatten", data_format="channels_first"),
            ],
            r"'flatten \(Flatten\)' has data_format='channels_first'",
        ),
        (
            [keras_dense(), keras_layer("ReLU"), keras_layer("Rescaling", scale=2.0, offset=0.0), keras_layer("ReLU")],
            r"'rescaling \(Rescaling\)' is followed by 'relu \(ReLU\)': handgrad can only import a rescaling directly",
        ),
        (
            [keras_dense("tanh"), keras_layer("Rescaling", scale=2.0, offset=0.0)],
            r"'rescaling \(Rescaling\)' is followed by 'the end of the model'",
        ),
        (
            [keras_layer("Rescaling", scale=[1.0, 2.0, 3.0], offset=0.0), keras_dense()],
            r"the rescaling next to 'dense \(Dense\)' has 3 values: expected 1 or 4",
        ),
        ([keras_dense() | {"registered_name": "Custom>Dense"}], r"'dense \(Dense\)' is a custom class"),
        ([keras_dense() | {"module": "my.layers"}], r"'dense \(Dense\)' is a custom class"),
        ([keras_layer("Dropout", rate=0.1)], "no dense layer"),
        ([keras_dense(), keras_layer("Dropout", rate=1.0)], r"'dropout \(Dropout\)': Dropout: rate must be"),
    ],
)
def test_a_layer_without_an_equivalent_is_rejected_by_name(layers, match, rejects):
    weights = [p for layer in layers if layer["class_name"] == "Dense" for p in (W, B)]
    with rejects(match):
        interop.from_keras(keras_model(*layers, weights=weights))


# ---- Activations, rescaling, shapes, nested models -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras_dense("gelu"), "ExactGELU()"),
        (keras_dense("silu"), "SiLU()"),
        (keras_dense("swish"), "SiLU()"),
        (keras_dense("elu"), "ELU(alpha=1.0)"),
        (keras_dense("selu"), "SELU()"),
        (keras_dense("ReLU"), "ReLU()"),
        (keras_dense("LeakyReLU"), "LeakyReLU(slope=0.2)"),
        (keras_dense(activation_object("LeakyReLU", negative_slope=0.3)), "LeakyReLU(slope=0.3)"),
        (keras_dense(activation_object("ELU", alpha=0.5)), "ELU(alpha=0.5)"),
        (
            keras_dense(activation_object("ReLU", max_value=None, negative_slope=0.1, threshold=0)),
            "LeakyReLU(slope=0.1)",
        ),
        (keras_dense(activation_object("Activation", activation="tanh")), "Tanh()"),
    ],
    ids=range(11),
)
def test_activations_by_name_and_as_objects(layer, expected):
    V, c = RNG.standard_normal((3, 2)), RNG.standard_normal(2)
    network = interop.from_keras(keras_model(layer, keras_dense(name="last"), weights=[W, B, V, c]))
    assert [repr(each) for each in network.layers[1:-1]] == [expected]


def test_a_softmax_as_an_object_is_part_of_the_loss():
    network = interop.from_keras(keras_model(keras_dense(activation_object("Softmax", axis=-1)), weights=[W, B]))
    assert (kinds(network), repr(network.loss)) == (["Dense"], "CrossEntropy()")


def rescaling(scale, offset=0.0, **more):
    return keras_layer("Rescaling", scale=scale, offset=offset, **more)


def normalization(mean, variance, axis=(-1,), invert=False):
    return keras_layer("Normalization", axis=list(axis), invert=invert, mean=mean, variance=variance)


VECTOR = keras_layer("InputLayer", batch_shape=[None, 4])
IMAGE = keras_layer("InputLayer", batch_shape=[None, 2, 2, 1])
PER_FEATURE = {"class_name": "__numpy__", "config": {"value": [1.0, 2.0, 3.0, 4.0], "dtype": "float64"}}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([rescaling(0.5, -1)], X * 0.5 - 1),
        ([VECTOR, rescaling(PER_FEATURE, [5, 6, 7, 8])], X * [1, 2, 3, 4] + [5, 6, 7, 8]),
        ([rescaling(0.5, 1), keras_layer("Dropout", rate=0.1), rescaling(3, 2, name="second")], 3 * (0.5 * X + 1) + 2),
        ([VECTOR, normalization([1, 2, 3, 4], [4, 9, 0, 1])], (X - [1, 2, 3, 4]) / [2, 3, 1e-7, 1]),
        ([VECTOR, normalization(0.5, 4.0)], (X - 0.5) / 2),
        ([VECTOR, normalization(0.5, 4.0, axis=())], (X - 0.5) / 2),
        ([VECTOR, normalization([1, 2, 3, 4], [4, 9, 16, 1], invert=True)], X * [2, 3, 4, 1] + [1, 2, 3, 4]),
        (
            [VECTOR, keras_layer("Reshape", target_shape=[2, -1]), normalization([1, 2], [1, 4])],
            (X - [1, 2, 1, 2]) / [1, 2, 1, 2],
        ),
        (
            [VECTOR, keras_layer("Reshape", target_shape=[2, 2]), normalization([1, 2], [1, 4], axis=(1,))],
            (X - [1, 1, 2, 2]) / [1, 1, 2, 2],
        ),
        (
            [
                VECTOR,
                keras_layer("Reshape", target_shape=[2, 2]),
                normalization([[1, 2], [3, 4]], [[1, 4], [9, 16]], axis=(1, 2)),
            ],
            (X - [1, 2, 3, 4]) / [1, 2, 3, 4],
        ),
    ],
    ids=range(10),
)
def test_a_rescaling_is_folded_into_the_first_dense(layers, expected):
    model = keras_model(*layers, keras_layer("Flatten"), keras_layer("Identity"), keras_dense(), weights=[W, B])
    network = interop.from_keras(model)
    assert network.image_shape is None
    np.testing.assert_allclose(network.outputs(X), expected @ W + B, rtol=1e-9)


def test_adapted_statistics_of_a_normalization_are_weights():
    mean, variance = RNG.random(4).astype(np.float32), RNG.random(4).astype(np.float32) + 0.5
    weights = [mean, variance, np.array(7), W.astype(np.float32), B.astype(np.float32)]
    network = interop.from_keras(keras_model(VECTOR, normalization(None, None), keras_dense(), weights=weights))
    assert network.dtype == np.float32
    exact = ((X - mean) / np.sqrt(variance.astype(float))) @ W + B
    np.testing.assert_allclose(network.outputs(X), exact, rtol=0, atol=1e-5)


def test_a_rescaling_after_a_dense_is_folded_into_it():
    layers = [VECTOR, keras_dense(), rescaling([1, 2, 3], 5.0), normalization(2.0, 9.0, invert=True)]
    network = interop.from_keras(keras_model(*layers, weights=[W, B]))
    np.testing.assert_allclose(network.outputs(X), ((X @ W + B) * [1, 2, 3] + 5) * 3 + 2, rtol=1e-12)


def test_a_rescaling_is_folded_into_a_batch_normalization():
    norm = keras_layer("BatchNormalization", axis=-1, momentum=0.9, epsilon=1e-3, center=True, scale=True)
    g, beta, mean, var = (RNG.random(4) + 0.5 for _ in range(4))
    model = keras_model(
        VECTOR, rescaling([0.5, -0.5, 0.1, 1], 0.3), norm, keras_dense(), weights=[g, beta, mean, var, W, B]
    )
    network = interop.from_keras(model)
    h = (X * [0.5, -0.5, 0.1, 1] + 0.3 - mean) / np.sqrt(var + 1e-3) * g + beta
    np.testing.assert_allclose(network.outputs(X), h @ W + B, rtol=1e-12)


BYTES = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2) * 3


@pytest.mark.parametrize(
    ("layers", "scale", "offset"),
    [
        ([rescaling(1 / 255)], 1 / 255, 0),
        ([rescaling(1 / 127.5, -1)], 1 / 127.5, -1),
        ([normalization(33.3, 78.6**2, axis=())], 1 / 78.6, -33.3 / 78.6),
        ([rescaling(1 / 255), normalization(0.13, 0.09)], 1 / 255 / 0.3, -0.13 / 0.3),
    ],
    ids=["1/255", "1/127.5", "normalization", "both"],
)
@pytest.mark.parametrize("flat", [False, True])
def test_integer_images_have_the_predictions_of_keras_if_it_rescales_bytes(flat, layers, scale, offset):
    first = VECTOR if flat else IMAGE
    model = keras_model(first, *layers, keras_layer("Flatten"), keras_dense(), weights=[W, B])
    network = interop.from_keras(model, image_shape=(2, 2) if flat else None)
    assert network.image_shape == (2, 2)
    expected = (scale * BYTES.reshape(40, 4) + offset) @ W + B
    for images in (BYTES, BYTES.astype(int), BYTES[..., None], BYTES / 255):
        np.testing.assert_allclose(network.outputs(images), expected, rtol=1e-9)


def test_rescaling_by_255_leaves_the_weights_unchanged():
    network = interop.from_keras(
        keras_model(IMAGE, rescaling(1 / 255), keras_layer("Flatten"), keras_dense(), weights=[W, B])
    )
    np.testing.assert_array_equal(network.layers[0].W, W.T)


def test_a_rescaling_of_float_pixels_is_folded():
    model = keras_model(IMAGE, rescaling(2.0, -1.0), keras_layer("Flatten"), keras_dense(), weights=[W, B])
    np.testing.assert_allclose(interop.from_keras(model).outputs(X), (2 * X - 1) @ W + B, rtol=1e-12)


def test_without_an_image_shape_a_vector_of_bytes_stays_a_vector_of_numbers():
    network = interop.from_keras(keras_model(VECTOR, rescaling(1 / 255), keras_dense(), weights=[W, B]))
    flat = BYTES.reshape(40, 4)
    for x in (flat, flat.astype(float)):
        np.testing.assert_allclose(network.outputs(x), flat / 255 @ W + B, rtol=1e-12)


def test_layers_for_training_only_are_left_out_with_a_warning(caplog):
    layers = [keras_layer("RandomFlip"), keras_dense(), keras_layer("AlphaDropout", rate=0.1)]
    assert kinds(interop.from_keras(keras_model(*layers, weights=[W, B]))) == ["Dense"]
    assert [message.partition(" is left out")[0] for message in caplog.messages] == [
        "'randomflip (RandomFlip)'",
        "'alphadropout (AlphaDropout)'",
    ]


def nested(name, *layers):
    return {"module": "keras", "class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def test_sequential_models_may_be_nested():
    V, c = RNG.standard_normal((3, 2)), RNG.standard_normal(2)
    scale = nested("scale", VECTOR, rescaling(0.5, 1))
    body = nested("body", nested("inner", keras_dense("relu")), keras_layer("Dropout", rate=0.2))
    network = interop.from_keras(keras_model(scale, body, keras_dense("softmax", name="last"), weights=[W, B, V, c]))
    assert kinds(network) == ["Dense", "ReLU", "Dropout", "Dense"]
    np.testing.assert_allclose(network.outputs(X), np.maximum((0.5 * X + 1) @ W + B, 0) @ V + c, rtol=1e-12)


def test_half_precision_becomes_float32_with_a_warning(caplog):
    weights = [W.astype(np.float16), B.astype(np.float16)]
    network = interop.from_keras(keras_model(keras_dense(), weights=weights))
    np.testing.assert_array_equal(network.layers[0].W, weights[0].T.astype(np.float32))
    assert caplog.messages == ["the weights are float16: converted to float32, without a loss of precision"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("m.h5", r"an HDF5 file, the older format of Keras: .*load_model\('m.h5'\).save\('m.keras'\)"),
        ("m.keras", "an HDF5 file, the older format of Keras: convert it in Keras"),
        ("m.weights.h5", r"an HDF5 file of weights without the layers: .*model.load_weights\('m.weights.h5'\)"),
        ("saved", r"a directory, as TensorFlow's SavedModel: convert it .*load_model\('saved'\).save\('saved.keras'\)"),
    ],
)
def test_older_formats_are_rejected_with_the_conversion(name, match, tmp_path, rejects):
    if name == "saved":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    with rejects(match):
        interop.from_keras(tmp_path / name)


def test_other_models_are_rejected(rejects):
    with rejects("cannot convert the Keras model 'Mine': expected a Sequential or a Functional model"):
        interop.from_keras(keras_model(keras_dense(), weights=[W, B], kind="Mine"))
    with rejects("2 more arrays than its layers need"):
        interop.from_keras(keras_model(keras_dense(), weights=[W, B, W, B]))
    with rejects("cannot convert a dict: expected a Keras model, or a .keras file"):
        interop.from_keras({})


def functional(*links, end=("c", 0, 0)):
    """Dense layers a, b, c, ..., each called with the (name, kwargs) in `links`."""
    layers = [keras_layer("InputLayer", batch_shape=[None, 4]) | {"name": "a", "inbound_nodes": []}]
    for name, (before, kwargs) in zip("bcd", links, strict=False):
        tensors = [{"config": {"keras_history": [each, 0, 0]}} for each in before]
        layers.append(keras_dense() | {"name": name, "inbound_nodes": [{"args": tensors, "kwargs": kwargs}]})
    weights = [W, B, RNG.random((3, 2)), RNG.random(2)]
    return keras_model(*layers, weights=weights, kind="Functional", output_layers=list(end))


def test_a_functional_model_must_be_a_sequence(rejects):
    assert kinds(interop.from_keras(functional(("a", {}), ("b", {"mask": None})))) == ["Dense", "Dense"]
    assert kinds(interop.from_keras(functional(("a", {}), ("b", {}), end=[["c", 0, 0]]))) == ["Dense", "Dense"]
    for other in (
        functional(("a", {}), ("a", {})),
        functional(("a", {}), ("ab", {})),
        functional(("a", {}), ("b", {"training": True})),
        functional(("a", {}), ("", {})),
        functional(("a", {}), ("b", {}), end=("b", 0, 0)),
        functional(("a", {}), ("b", {}), end=[["b", 0, 0], ["c", 0, 0]]),
    ):
        with rejects("the layers of the Functional model are not a sequence"):
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
def test_a_compiled_loss_without_an_equivalent_is_rejected_unless_a_loss_is_given(loss, match, rejects):
    model = keras_model(keras_dense(), weights=[W, B], loss=loss)
    with rejects(match):
        interop.from_keras(model)
    model = keras_model(keras_dense(), weights=[W, B], loss=loss)
    assert repr(interop.from_keras(model, loss="huber").loss) == "Huber(delta=1.0)"
