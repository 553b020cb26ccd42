"""Import from Keras, with Keras: converted models have the same predictions, and damaged files are rejected."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import handgrad
from handgrad import HandgradError, Network, cli, interop
from handgrad.interop.keras import KERAS_INITIALIZERS, layer_code, loss_code

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),
]
pytest.importorskip("torch", reason="make test-peers installs it")
h5py = pytest.importorskip("h5py", reason="make test-peers installs it")
os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras", reason="make test-peers installs it")

X = np.random.default_rng(0).random((30, 6))
X32 = X.astype(np.float32)
L = keras.layers
MODELS = {
    "softmax": lambda: [L.Input((6,)), L.Dense(5, activation="relu"), L.Dense(3, activation="softmax")],
    "sigmoid": lambda: [L.Input((6,)), L.Dense(5, activation="tanh", name="mine"), L.Dense(3, activation="sigmoid")],
    "numbers": lambda: [L.Input((6,)), L.Dense(5, activation="leaky_relu"), L.Dense(2)],
    "layers": lambda: [
        *(L.Input((2, 3)), L.Flatten(), L.Dense(5, use_bias=False), L.BatchNormalization(momentum=0.5), L.ReLU()),
        *(L.Dropout(0.3), L.Dense(4), L.LeakyReLU(negative_slope=0.3), L.Dense(4), L.Activation("softplus")),
        *(L.BatchNormalization(center=False, scale=False), L.Dense(3), L.Softmax()),
    ],
}


def create(name: str, functional: bool = False) -> Any:
    """One of the models, with weights that are not the initial ones."""
    layers = MODELS[name]()
    if functional:
        x = first = layers[0]
        for layer in layers[1:]:
            x = layer(x)
        model = keras.Model(first, x)
    else:
        model = keras.Sequential(layers)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.3 * rng.random(w.shape).astype(np.float32) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("functional", [False, True], ids=["sequential", "functional"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_its_file_have_the_same_predictions(name: str, functional: bool, tmp_path: Path) -> None:
    model = create(name, functional)
    x = X32.reshape(30, *model.input_shape[1:])
    theirs = model.predict(x, verbose=0)
    model.compile(optimizer="adam", loss="mse")
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        network = interop.from_keras(given)
        np.testing.assert_allclose(network.predict_proba(x), theirs, rtol=0, atol=1e-6)
        assert network.image_shape == ((2, 3) if name == "layers" else None)


def adapted(axis: Any, shape: tuple[int, ...]) -> Any:
    layer = L.Normalization(axis=axis)
    layer.adapt(RAW[:, : np.prod(shape)].reshape(30, *shape).astype(np.float32))
    return layer


RAW = np.random.default_rng(1).integers(0, 256, (30, 6))
PREPROCESSED = {
    "rescaling": lambda: [L.Input((2, 3)), L.Rescaling(1 / 255), L.Flatten(), L.Dense(3, activation="softmax")],
    "channel": lambda: [L.Input((2, 3, 1)), L.RandomFlip(), L.Rescaling(1 / 127.5, -1), L.Reshape((6,)), L.Dense(3)],
    "normalization": lambda: [L.Input((2, 3)), adapted(None, (2, 3)), L.Flatten(), L.Dense(3)],
    "columns": lambda: [L.Input((2, 3)), adapted(-1, (2, 3)), L.Flatten(), L.Dense(3)],
    "pixels": lambda: [L.Input((2, 3)), adapted((1, 2), (2, 3)), L.Flatten(), L.Dense(3)],
    "features": lambda: [L.Input((6,)), adapted(-1, (6,)), L.Dense(3, activation="silu"), L.Dense(2)],
    "numbers": lambda: [
        *(L.Input((6,)), L.Rescaling(np.arange(1, 7) / 255, 0.5), L.Dense(3, "elu"), L.Dense(2), L.Rescaling(9, -1)),
        L.Normalization(axis=-1, mean=[1, 2], variance=[4, 9], invert=True),
    ],
    "nested": lambda: [
        keras.Sequential([L.Input((2, 3)), L.Rescaling(1 / 255), L.Flatten()]),
        keras.Sequential([L.Dense(4, activation=L.LeakyReLU(negative_slope=0.3)), L.Dense(4)]),
        *(L.Activation(L.ReLU()), L.Identity(), L.BatchNormalization()),
        keras.Sequential([adapted(-1, (4,)), keras.Sequential([L.Dense(4, "gelu")]), L.Dense(3, L.Softmax())]),
    ],
}


@pytest.mark.parametrize("name", PREPROCESSED)
def test_a_model_with_preprocessing_has_the_same_predictions_for_bytes(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(PREPROCESSED[name]())
    x = RAW.reshape(30, *((2, 3) if name == "nested" else model.input_shape[1:]))
    theirs = model.predict(x.astype(np.float32), verbose=0)
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        network = interop.from_keras(given)
        for images in (x, x.astype(np.uint8)):
            np.testing.assert_allclose(network.predict_proba(images), theirs, rtol=1e-4, atol=1e-5)


def test_arithmetic_with_numbers_in_a_functional_model(tmp_path: Path) -> None:
    first = L.Input((2, 3))
    x = 2.0 * ((first - 127.5) / 127.5) + np.float32(0.5)
    x = keras.activations.relu(L.Dense(4)(L.Flatten()(1 - x)))
    x = keras.ops.tanh(L.Dense(4)(x))
    model = keras.Model(first, keras.ops.softmax(L.Dense(3)(x)))
    theirs = model.predict(RAW.reshape(30, 2, 3).astype(np.float32), verbose=0)
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        network = interop.from_keras(given)
        np.testing.assert_allclose(network.predict_proba(RAW.reshape(30, 2, 3)), theirs, rtol=0, atol=1e-6)
    for other in (1 / first, first + first, L.Add()([first, first])):
        with pytest.raises(HandgradError, match=r"divides by the inputs|are not a sequence"):
            interop.from_keras(keras.Model(first, L.Dense(2)(L.Flatten()(other))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_float32_with_a_warning(dtype: str, tmp_path: Path, caplog: Any) -> None:
    model = keras.Sequential([L.Input((6,)), L.Dense(3, dtype=dtype)])
    model.save(tmp_path / "m.keras")
    W, b = (keras.ops.convert_to_numpy(keras.ops.cast(p, "float32")) for p in model.weights)
    for given in (model, tmp_path / "m.keras"):
        caplog.clear()
        network = interop.from_keras(given)
        np.testing.assert_allclose(network.outputs(X32), X32 @ W + b, rtol=0, atol=1e-6)
        assert caplog.messages == [f"the weights are {dtype}: converted to float32, without a loss of precision"]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_advice_for_an_hdf5_file_converts_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = create("softmax")
    model.save("m.h5")
    with pytest.raises(HandgradError, match="HDF5") as caught:
        interop.from_keras("m.h5")
    eval(str(caught.value).rpartition(" with ")[2], {"keras": keras})
    np.testing.assert_allclose(
        interop.from_keras("m.keras").predict_proba(X32), model.predict(X32, verbose=0), rtol=0, atol=1e-6
    )


def test_layers_may_be_repeated_unless_they_have_weights() -> None:
    act, fc = L.ReLU(), L.Dense(6)
    model = keras.Sequential([L.Input((6,)), L.Dense(4), act, L.Dense(4), act, L.Dense(2)])
    theirs = model.predict(X32, verbose=0)
    np.testing.assert_allclose(interop.from_keras(model).outputs(X32), theirs, rtol=0, atol=1e-6)
    with pytest.raises(HandgradError, match=r"\(Dense\)' occurs more than once"):
        interop.from_keras(keras.Sequential([L.Input((6,)), fc, fc]))


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_model_that_is_not_built_is_rejected(tmp_path: Path) -> None:
    model = keras.Sequential([L.Dense(4), L.Dense(2)])
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        with pytest.raises(HandgradError, match="is not built and has no weights yet: call it once"):
            interop.from_keras(given)


def test_the_loss_of_compile_is_converted_or_rejected(tmp_path: Path) -> None:
    model = keras.Sequential([L.Input((6,)), L.Dense(2)])
    for loss in (keras.losses.Huber(delta=0.3), [keras.losses.Huber(delta=0.3)]):
        model.compile(loss=loss)
        assert repr(interop.from_keras(model).loss) == "Huber(delta=0.3)"
    model.compile(loss=keras.losses.Huber(delta=0.3))
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        saved = "delta" in json.loads(archive.read("config.json"))["compile_config"]["loss"]["config"]
    if not saved:  # Keras 3.15
        with pytest.raises(HandgradError, match=r"m\.keras: .*'Huber', whose delta is not in the configuration"):
            interop.from_keras(tmp_path / "m.keras")
    given = interop.from_keras(tmp_path / "m.keras", loss=handgrad.Huber(0.3))
    assert repr(given.loss) == "Huber(delta=0.3)"
    for other in ("poisson", "binary_focal_crossentropy", keras.losses.Tversky()):
        model.compile(loss=other)
        with pytest.raises(HandgradError, match=r"was compiled with the loss .*: give loss, one of"):
            interop.from_keras(model)
    known = [("mse", "SquaredError()"), (keras.losses.mean_absolute_error, "AbsoluteError()")]
    for name, expected in [*known, (keras.losses.LogCosh(), "LogCosh()"), (keras.losses.Huber(), "Huber(delta=1.0)")]:
        model.compile(loss=name)
        assert repr(interop.from_keras(model).loss) == expected


def test_a_model_of_counts_has_the_loss_poisson() -> None:
    model = keras.Sequential([L.Input((6,)), L.Dense(2, activation="exponential")])
    model.compile(loss=keras.losses.Poisson())
    network = interop.from_keras(model)
    assert repr(network.loss) == "Poisson()"
    np.testing.assert_allclose(network.predict_proba(X32), model.predict(X32, verbose=0), rtol=1e-5)


def test_a_keras_file_is_imported_from_the_command_line(tmp_path: Path) -> None:
    create("softmax").save(tmp_path / "m.keras")
    arguments = ["import", str(tmp_path / "m.keras"), "--out", str(tmp_path / "m.safetensors"), "--classes", "a,b,c"]
    done = CliRunner().invoke(cli.handgrad, arguments)
    assert done.exit_code == 0, done.output
    assert "Dense(6, 5) → ReLU() → Dense(5, 3)" in done.output
    network = handgrad.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(network.outputs(X), interop.from_keras(tmp_path / "m.keras").outputs(X))
    rejected = CliRunner().invoke(cli.handgrad, [*arguments, "--activation", "relu"])
    assert (rejected.exit_code, rejected.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([L.Input((6, 6, 1)), L.Conv2D(2, 3), L.Flatten(), L.Dense(3)], r"\(Conv2D\)"),
        ([L.Input((6,)), L.Dense(3, activation="mish")], "the activation 'mish'"),
        ([L.Input((6,)), L.Dense(3), L.LayerNormalization()], r"\(LayerNormalization\)' has no equivalent"),
        ([L.Input((2, 6)), L.Dense(3)], r"inputs of shape \(2, 6\): expected a Flatten"),
        ([L.Input((6,)), L.Dense(3, activation=keras.layers.ReLU(6.0))], "the activation 'ReLU'"),
    ],
)
def test_a_layer_without_an_equivalent_is_rejected_by_name(layers: Any, match: str, tmp_path: Path) -> None:
    model = keras.Sequential(layers)
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        with pytest.raises(HandgradError, match=match) as caught:
            interop.from_keras(given)
        assert "\n" not in str(caught.value)


# ---- Tables ----------------------------------------------------------------------------------------------------------

NAMES = {"keras": keras, "layers": keras.layers}


@pytest.mark.parametrize("activation", sorted(handgrad.layers.ACTIVATIONS))
def test_the_code_of_a_layer_computes_the_same(activation: str) -> None:
    layer = handgrad.layers.ACTIVATIONS[activation]()
    network = Network([handgrad.Dense(6, 6), layer], rng=0)
    network.parameters[:36] = np.eye(6, dtype=np.float32).ravel()
    network.parameters[36:] = 0
    theirs = keras.ops.convert_to_numpy(eval(layer_code(layer), NAMES)(X32 - 0.5))
    np.testing.assert_allclose(theirs, network.outputs(X32 - np.float32(0.5)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [handgrad.CrossEntropy(), handgrad.BinaryCrossEntropy(), handgrad.SquaredError(), handgrad.SquaredError("sigmoid")],
    ids=repr,
)
def test_the_code_of_a_loss_computes_the_same(loss: handgrad.Loss) -> None:
    z, t = X32 * 4 - 2, handgrad.one_hot(np.arange(30) % 6, 6)
    tensors = (keras.ops.convert_to_tensor(array) for array in (t, z))
    theirs = float(keras.ops.mean(eval(loss_code(loss), NAMES)(*tensors)))
    assert theirs == pytest.approx(loss.value(z, t), rel=1e-5)


@pytest.mark.parametrize("init", sorted(KERAS_INITIALIZERS))
def test_the_initializers_have_handgrads_variance(init: str) -> None:
    """The standard deviation of 300 x 200 weights, to 2 %."""
    keras.utils.set_random_seed(0)
    made = keras.initializers.get(eval(KERAS_INITIALIZERS[init], NAMES))
    theirs = keras.ops.convert_to_numpy(made((200, 300))).std()
    ours = Network([handgrad.Dense(200, 300, init)], rng=0).layers[0].W.std()
    assert theirs == pytest.approx(ours, rel=0.02)


# ---- Damaged and malicious files -------------------------------------------------------------------------------------


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    create("softmax").save(tmp_path / "m.keras")
    return tmp_path / "m.keras"


def rewritten(path: Path, change: Any = lambda config: None, weights: Any = lambda file: None) -> Path:
    """The file with a changed config.json and changed weights."""
    with zipfile.ZipFile(path) as archive:
        config, content = json.loads(archive.read("config.json")), io.BytesIO(archive.read("model.weights.h5"))
    change(config)
    with h5py.File(content, "r+") as file:
        weights(file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())
    return path


def replaced(place: str, make: Any) -> Any:
    def change(file: Any) -> None:
        del file[place]
        make(file, place)

    return change


KERNEL = "layers/dense/vars/0"
CHANGED_WEIGHTS = {
    "external-link": replaced(KERNEL, lambda f, place: f.__setitem__(place, h5py.ExternalLink("/etc/x.h5", "/w"))),
    "soft-link": replaced(KERNEL, lambda f, place: f.__setitem__(place, h5py.SoftLink("/layers/dense_1/vars/0"))),
    "external-storage": replaced(
        KERNEL, lambda f, place: f.create_dataset(place, (6, 5), "f4", external=[("/etc/passwd", 0, 120)])
    ),
    "no-storage": replaced(KERNEL, lambda f, place: f.create_dataset(place, (10**7, 10**6), "f4")),
    "virtual": replaced(KERNEL, lambda f, place: f.create_virtual_dataset(place, h5py.VirtualLayout((6, 5), "f4"))),
    "text": replaced(KERNEL, lambda f, place: f.create_dataset(place, data=np.array([b"a", b"b"]))),
    "group": replaced(KERNEL, lambda f, place: f.create_group(place)),
    "shape": replaced(KERNEL, lambda f, place: f.create_dataset(place, data=np.ones((7, 6), np.float32))),
    "missing": lambda f: f.__delitem__("layers/dense_1"),
    "more": lambda f: f.create_dataset("layers/dense/vars/2", data=np.ones(3)),
    "renamed": lambda f: f["layers/dense/vars"].attrs.__setitem__("name", "other"),
}


@pytest.mark.parametrize("change", CHANGED_WEIGHTS.values(), ids=CHANGED_WEIGHTS)
def test_weights_outside_the_file_or_of_another_layer_are_rejected(change: Any, keras_file: Path) -> None:
    rewritten(keras_file, weights=change)
    with pytest.raises(HandgradError, match=r"m\.keras") as caught:
        interop.from_keras(keras_file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("config"),
        lambda c: c.update(config=5),
        lambda c: c["config"].update(layers=5),
        lambda c: c["config"].update(layers=[5]),
        lambda c: c["config"]["layers"][1].pop("class_name"),
        lambda c: c["config"]["layers"][1].update(config=None),
        lambda c: c["config"]["layers"][1]["config"].update(use_bias="yes"),
        lambda c: c["config"]["layers"][1]["config"].update(activation=["relu"]),
        lambda c: c["config"]["layers"][0]["config"].update(batch_shape=5),
        lambda c: c.update(class_name="Functional"),
        lambda c: c.update(class_name=None),
        lambda c: c.update(compile_config=[1]),
    ],
    ids=range(12),
)
def test_an_invalid_configuration_is_rejected_in_one_line(change: Any, keras_file: Path) -> None:
    with pytest.raises(HandgradError, match=r"m\.keras") as caught:
        interop.from_keras(rewritten(keras_file, change))
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_rejected_in_one_line(keras_file: Path) -> None:
    complete = keras_file.read_bytes()
    damaged = complete.replace(b"\x89HDF", b"nope")
    for content in (b"", complete[: len(complete) // 2], complete[:-30], b"\x89HDF", damaged):
        keras_file.write_bytes(content)
        with pytest.raises(HandgradError, match=r"m\.keras") as caught:
            interop.from_keras(keras_file)
        assert "\n" not in str(caught.value)
    with pytest.raises(HandgradError, match=r"cannot read .*none\.keras"):
        interop.from_keras(keras_file.with_name("none.keras"))
