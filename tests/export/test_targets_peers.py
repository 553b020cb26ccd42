"""Every target predicts what the network predicts: PyTorch, Keras, ONNX Runtime, NumPy, C and JavaScript are run."""

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")

import handgrad
import handgrad.wrappers
from handgrad import (
    GELU,
    HOG,
    Adam,
    BatchNorm,
    BinaryCrossEntropy,
    Dense,
    Deskew,
    Dropout,
    Ensemble,
    Huber,
    Identity,
    LeakyReLU,
    Network,
    Preprocessed,
    ReLU,
    SquaredError,
    Standardize,
    Tanh,
    TestTimeAugmentation,
    Trainer,
    save,
)
from handgrad.data import load
from handgrad.data.mnist import find_mnist
from handgrad.export import TARGETS, export
from handgrad.export.graph import inference_graph
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES
from handgrad.model import Model

# The torch backend of Keras uses an old call of NumPy.
KERAS_WARNING = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings(KERAS_WARNING)]


# ---- Running an exported file ----------------------------------------------------------------------------------------
# Each function returns (labels, probabilities), or (None, predictions) for a regression.


def run_python(path, x):
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}_{os.urandom(4).hex()}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "predict_proba"):
        return None, module.predict(x)
    return module.predict(x), module.predict_proba(x)


def run_torch(path, x):
    torch = pytest.importorskip("torch", reason="make test-peers installs it")
    labels, predictions = run_python(path, torch.from_numpy(x))
    return labels if labels is None else labels.numpy(), predictions.numpy()


def run_keras(path, x):
    pytest.importorskip("keras", reason="make test-peers installs it")
    return run_python(path, x)


def run_onnx(path, x):
    runtime = pytest.importorskip("onnxruntime", reason="make test-peers installs it")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    if [output.name for output in session.get_outputs()] == ["predictions"]:
        return None, session.run(None, {"x": x})[0]
    probabilities, labels = session.run(["probabilities", "label"], {"x": x})
    assert labels.dtype == np.int64
    return labels, probabilities


def compile_c(path, *flags):
    """Compile a C file, with warnings as errors; return the program."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (macro,) = {line.split()[1] for line in path.read_text().splitlines() if line.startswith("#ifdef")}
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c99", *flags, f"-D{macro}", path]
    program = path.with_suffix(".bin")
    done = subprocess.run([*command, "-o", program, "-lm"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return program


def run_program(command, x, is_classification):
    done = subprocess.run(command, input=x.tobytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    numbers = np.array([line.split() for line in done.stdout.decode().splitlines()], np.float64)
    return (numbers[:, 0], numbers[:, 1:]) if is_classification else (None, numbers)


def run_c(path, x):
    return run_program([compile_c(path)], x, "_predict_proba(" in path.read_text())


def run_node(path, x):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    return run_program(["node", path], x, "predictProba(" in path.read_text())


RUN = {"torch": run_torch, "keras": run_keras, "onnx": run_onnx, "python": run_python, "c": run_c, "js": run_node}


def run_export(target, network, directory, x):
    """Export a network and run the file on x."""
    if target == "onnx":
        pytest.importorskip("onnx", reason="make test-peers installs it")
    path = directory / f"net{TARGETS[target].suffix}"
    export(network, path, to=target)
    return RUN[target](path, np.ascontiguousarray(x, np.float32))


def test_every_target_is_tested():
    assert set(RUN) == set(TARGETS)


# ---- Predictions -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(mnist):
    """Two networks that were trained on some digits, and 1,000 test images."""
    digits = load(str(mnist))
    x, y = digits.x_train[:12_000], digits.y_train[:12_000]
    networks = {
        "sigmoid": Network([784, 30, 10], init="lecun", rng=0),
        "batch_norm": Network(
            [784, 64, 32, 10], activation="relu", loss="cross_entropy", batch_norm=True, dropout=0.1, rng=0
        ),
    }
    for network in networks.values():
        Trainer(network, Adam(0.003), batch_size=64, rng=0).fit(x, y, epochs=2)
    return networks, digits.x_test[:1000].reshape(-1, 784).astype(np.float32) / 255


@pytest.mark.parametrize("name", ["sigmoid", "batch_norm"])
@pytest.mark.parametrize("target", list(TARGETS))
def test_predictions_for_a_thousand_digits_are_equal(target, name, trained, tmp_path):
    network, x = trained[0][name], trained[1]
    labels, p = run_export(target, network, tmp_path, x)
    assert (network.predict(x) == labels).all()
    np.testing.assert_allclose(p, network.predict_proba(x), rtol=0, atol=1e-5)
    assert len(set(labels)) == 10


def assert_equal_predictions(target, network, directory, count=50):
    """Compare the export with the network in float64, on inputs near 0 and on inputs that saturate it."""
    rng = np.random.default_rng(5)
    scales = [0.5, 5, 50] if network.loss.is_classification else [0.5, 2]
    x = (rng.standard_normal((count, network.n_in)) * rng.choice(scales, (count, 1))).astype(np.float32)
    exact = network.astype(np.float64)
    labels, p = run_export(target, network, directory, x)
    np.testing.assert_allclose(p, exact.predict_proba(x), rtol=1e-4, atol=1e-5)
    if not network.loss.is_classification:
        assert labels is None
        return
    z = np.sort(np.hstack([0 * exact.outputs(x), exact.outputs(x)]) if network.n_out == 1 else exact.outputs(x), axis=1)
    clear = z[:, -1] - z[:, -2] > 1e-4
    assert clear.mean() > 0.8
    assert (labels == exact.predict(x))[clear].all()


@pytest.mark.parametrize(
    ("activation", "loss"), list(zip(ACTIVATIONS, itertools.cycle([*LOSSES, SquaredError("sigmoid")]), strict=False))
)
@pytest.mark.parametrize("target", list(TARGETS))
def test_every_activation_and_every_loss(target, activation, loss, tmp_path):
    network = Network([5, 7, 6, 3], activation=activation, loss=loss, init="lecun", rng=1)
    assert_equal_predictions(target, network, tmp_path)


NETWORKS = {
    "batch_norm_everywhere": lambda: Network(
        [
            *(BatchNorm(5), ReLU(), BatchNorm(5, 0.3, 1e-3), Dense(5, 6), ReLU(), BatchNorm(6), Tanh(), BatchNorm(6)),
            *(GELU(), Dense(6, 4), BatchNorm(4)),
        ],
        loss="cross_entropy",
        rng=2,
    ),
    "batch_norm_last": lambda: Network([Dense(5, 4), ReLU(), BatchNorm(4)], rng=2),
    "batch_norm_regression": lambda: Network(
        [BatchNorm(5), GELU(), Dense(5, 3), BatchNorm(3), LeakyReLU(0.2)], loss=Huber(0.5), rng=1
    ),
    "dropout_and_identity": lambda: Network([Identity(), Dropout(0.4), Dense(5, 4), Dropout(0.3), Identity()], rng=3),
    "activation_first": lambda: Network([LeakyReLU(0.2), Tanh(), Dense(5, 4), ReLU(), LeakyReLU(0.1)], rng=4),
    "one_layer": lambda: Network([5, 3], loss="cross_entropy", rng=5),
    "one_output": lambda: Network([5, 6, 1], activation="tanh", rng=6),
    "one_output_squared_error": lambda: Network([5, 6, 1], loss=SquaredError("sigmoid"), rng=7),
    "one_output_regression": lambda: Network([5, 6, 1], loss="poisson", activation="tanh", rng=7),
    "many_classes": lambda: Network([5, 40], loss=BinaryCrossEntropy(label_smoothing=0.1), rng=8),
    "hog": lambda: Network([Dropout(0.1), HOG(5, 1, 1), BatchNorm(8), Dense(8, 4), ReLU(), BatchNorm(4)], rng=10),
    "float64": lambda: Network([5, 4, 3], rng=9, dtype=np.float64),
}


def make_network(name):
    """A network of NETWORKS whose BatchNorms have running statistics."""
    network = NETWORKS[name]()
    rng = np.random.default_rng(0)
    for _ in range(20):
        network.forward(rng.normal(0.3, 1.2, (20, 5)).astype(network.dtype))
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.g[...], layer.b[...] = rng.normal(1, 0.5, layer.n_in), rng.standard_normal(layer.n_in)
    return network


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("target", list(TARGETS))
def test_every_sequence_of_layers(target, name, tmp_path):
    assert_equal_predictions(target, make_network(name), tmp_path)


@pytest.mark.parametrize("name", ["one_output", "one_output_squared_error"])
@pytest.mark.parametrize("target", list(TARGETS))
def test_the_label_of_a_single_output_is_1_if_the_probability_exceeds_one_half(target, name, tmp_path):
    network, x = make_network(name), np.random.default_rng(1).standard_normal((60, 5), np.float32)
    labels, p = run_export(target, network, tmp_path, x)
    assert (labels == (network.outputs(x)[:, 0] > 0)).all()
    assert (labels == (p[:, 0] > 0.5)).all()
    assert len(set(labels)) == 2
    assert p.shape == (60, 1)


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_label_is_that_of_the_largest_output_if_all_probabilities_are_1(target, tmp_path):
    network = Network([Dense(2, 3)], rng=0)
    network.parameters[...] = 0
    network.layers[0].b[...] = [40, 50, 45]
    network.layers[0].W[2, 1] = 5
    labels, p = run_export(target, network, tmp_path, [[0, 0], [0, 1], [0, 2]])
    np.testing.assert_allclose(p, 1)
    assert labels.tolist() == [1, 1, 2]  # the first of two equal outputs


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_nothing_overflows(target, loss, tmp_path):
    network = Network([1, 2, 3], activation="softplus", loss=loss, rng=0)
    network.layers[0].W[...] = [[1000], [-1000]]
    network.layers[2].W[...] = np.array([[5, 0], [-5, 1], [0, 5]]) * 1000
    x = np.array([[0.5], [5], [-5]])
    _, p = run_export(target, network, tmp_path, x)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, network.predict_proba(x), atol=1e-6)


# ---- Preprocessing, ensembles, test-time augmentation, calibration ---------------------------------------------------


def run_on_images(target, model, directory, images):
    """Run the exported file on raw images (count, height, width), uint8, in the way that its head describes."""
    path = directory / f"net{TARGETS[target].suffix}"
    if target == "onnx":
        pytest.importorskip("onnx", reason="make test-peers installs it")
    export(model, path, to=target)
    if target in ("torch", "keras", "python"):
        labels, p = run_python(path, images)
        return np.asarray(labels), np.asarray(p)
    takes_bytes = inference_graph(model).takes_bytes
    if target != "onnx":
        head = " ".join(path.read_text().split("#include")[0].split())
        assert f"reads examples of {model.n_in} {'bytes' if takes_bytes else 'float32 values'}" in head
    rows = images.reshape(len(images), -1)
    return RUN[target](path, rows if takes_bytes else rows.astype(np.float32) / 255)


@pytest.fixture(scope="module")
def digit_models():
    """Models of digits that deskew, shrink, average shifts and members, and 1,000 raw test images."""
    digits = load("synthetic" if find_mnist() is None else str(find_mnist()))
    x, y = digits.x_train[:3000], digits.y_train[:3000]

    def trained(shrink, seed, loss="cross_entropy"):
        images = Deskew(28, 28, shrink)(x) if shrink else x
        network = Network(
            [images[0].size, 16, 10], activation="relu", init="kaiming_normal", loss=loss, batch_norm=True, rng=seed
        )
        network.image_shape = images.shape[1:]
        Trainer(network, Adam(0.01), batch_size=64, rng=seed).fit(images, y, epochs=1)
        return network

    small, other = trained(2, 0), trained(2, 1)
    tta, tta_of_other = TestTimeAugmentation(small, 5), TestTimeAugmentation(other, 5)
    shrinking = Deskew(28, 28, shrink=2)
    models = {
        "deskew": Preprocessed(trained(1, 2, loss="binary_cross_entropy"), Deskew(28, 28)),
        "deskew, shrink, tta": Preprocessed(tta, shrinking),
        "deskew, shrink, tta, ensemble": Preprocessed(Ensemble([tta, tta_of_other]), shrinking),
        "members with different preprocessing": Ensemble(
            [Preprocessed(tta, shrinking), Preprocessed(trained(4, 3), Deskew(28, 28, 4)), trained(0, 4)]
        ),
        "tta of deskew": TestTimeAugmentation(Preprocessed(small, shrinking), 5),
        "tta, ensemble": Ensemble([TestTimeAugmentation(trained(0, 5), 9), trained(0, 6)]),
    }
    return models, digits.x_test[:1000]


DIGIT_MODELS = [
    *("deskew", "deskew, shrink, tta", "deskew, shrink, tta, ensemble", "members with different preprocessing"),
    *("tta of deskew", "tta, ensemble"),
]


@pytest.mark.parametrize("name", DIGIT_MODELS)
@pytest.mark.parametrize("target", list(TARGETS))
def test_predictions_for_a_thousand_raw_digits_are_those_of_handgrad(target, name, digit_models, tmp_path):
    models, images = digit_models
    assert list(models) == DIGIT_MODELS
    model = models[name]
    labels, p = run_on_images(target, model, tmp_path, images)
    assert len(labels) == 1000
    assert (labels == model.predict(images)).all()
    np.testing.assert_allclose(p, model.predict_proba(images), rtol=0, atol=1e-5)
    assert len(set(labels)) == 10


@pytest.mark.parametrize("shrink", [1, 2, 3, 4])
@pytest.mark.parametrize("target", list(TARGETS))
def test_deskewed_bytes_are_rounded_as_in_handgrad(target, shrink, tmp_path):
    """Images with many values halfway between two bytes: two pixels of odd sum, with a centre between them."""
    rng = np.random.default_rng(shrink)
    images = (rng.integers(0, 256, (400, 28, 28)) * (rng.random((400, 28, 28)) < 0.01)).astype(np.uint8)
    images[:200] = 0
    for image in images[2:200]:
        row, column = rng.integers(0, 27, 2)
        image[row : row + 2, column : column + 2] = rng.integers(0, 256) if row % 2 else rng.integers(0, 256, (2, 2))
    images[1] = 255
    sizes = 12, 24
    images = images[:, : sizes[0], : sizes[1]]
    n_in = sizes[0] * sizes[1] // shrink**2
    network = Network([n_in, 3], loss="cross_entropy", rng=0)
    network.parameters *= 30  # one byte more or less changes the probabilities by more than the tolerance
    network.image_shape = sizes[0] // shrink, sizes[1] // shrink
    model = Preprocessed(network, Deskew(*sizes, shrink=shrink))
    path = tmp_path / f"net{TARGETS[target].suffix}"
    export(model, path, to=target)
    x = images if target in ("torch", "keras", "python") else images.reshape(400, -1)
    labels, p = run_python(path, x) if target in ("torch", "keras") else RUN[target](path, np.ascontiguousarray(x))
    np.testing.assert_allclose(np.asarray(p), model.predict_proba(images), rtol=0, atol=1e-5)
    assert (np.asarray(labels) == model.predict(images)).all()


@pytest.mark.parametrize("target", ["torch", "keras", "python"])
def test_float_images_are_not_rounded(target, digit_models, tmp_path):
    models, images = digit_models
    floats = images[:200].astype(np.float32) / 255
    for name in ("deskew, shrink, tta", "tta of deskew"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"net{TARGETS[target].suffix}"
        export(models[name], path, to=target)
        p = np.asarray(run_python(path, floats)[1])
        np.testing.assert_allclose(p, models[name].predict_proba(floats), rtol=0, atol=1e-5)
    difference = models["deskew, shrink, tta"].predict_proba(floats) - models["deskew, shrink, tta"].predict_proba(
        images[:200]
    )
    assert np.abs(difference).max() > 1e-4  # rounding matters


def test_javascript_reads_bytes_and_floats(digit_models, tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    models, images = digit_models
    model = models["deskew, shrink, tta"]
    export(model, tmp_path / "net.mjs", to="js")
    program = """
import * as net from "./net.mjs";
const x = %s;
const run = (a) => Array.from(net.predictProba(a));
const error = (() => { try { net.predict(x); } catch (caught) { return `${caught}`; } })();
console.log(JSON.stringify([
  run(Uint8Array.from(x)), run(Uint8ClampedArray.from(x)), run(x.map((v) => v / 255)),
  run(Float32Array.from(x, (v) => v / 255)), net.predict(Uint8Array.from(x)), error,
]));
"""
    command = ["node", "--input-type=module", "-e", program % images[0].ravel().tolist()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    *results, label, error = json.loads(done.stdout)
    for p in results[:2]:
        np.testing.assert_allclose(p, model.predict_proba(images[:1])[0], atol=1e-5)
    for p in results[2:]:
        np.testing.assert_allclose(p, model.predict_proba(images[:1].astype(np.float32) / 255)[0], atol=1e-5)
    assert label == model.predict(images[:1])[0]
    assert "expected floats in [0, 1], or bytes in a Uint8Array" in error


@pytest.mark.parametrize("loss", ["cross_entropy", "huber"])
@pytest.mark.parametrize("target", list(TARGETS))
def test_standardized_features_equal_those_of_handgrad(target, loss, tmp_path):
    """Features with an offset that is large compared with their spread: a year, an income, a small fraction."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((200, 3)) * [9, 4e4, 1e-4] + [1995, 1e5, 0.003]).astype(np.float32)
    members = [Network([3, 8, 4], activation="tanh", loss=loss, rng=seed) for seed in (0, 1)]
    for model in (
        Preprocessed(members[0], Standardize.fit(x)),
        Preprocessed(Ensemble(members), Standardize.fit(x)),
        Ensemble([Preprocessed(members[0], Standardize.fit(x)), Preprocessed(members[1], Standardize.fit(x[:50]))]),
    ):
        path = tmp_path / f"net{TARGETS[target].suffix}"
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        export(model, path, to=target)
        labels, p = RUN[target](path, x)
        np.testing.assert_allclose(p, model.predict_proba(x), rtol=1e-5, atol=1e-5)
        assert labels is None or (labels == model.predict(x)).all()


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", SquaredError("sigmoid"), "poisson"])
@pytest.mark.parametrize("target", list(TARGETS))
def test_the_mean_of_an_ensemble_equals_that_of_handgrad_for_every_kind_of_output(target, loss, tmp_path):
    x = np.random.default_rng(0).standard_normal((100, 5)).astype(np.float32) * 3
    for n_out in [2] if loss == "cross_entropy" else [1, 2]:
        model = Ensemble([Network([5, 4, n_out], loss=loss, rng=seed, activation="tanh") for seed in range(12)])
        (tmp_path / str(n_out)).mkdir()
        labels, p = run_export(target, model, tmp_path / str(n_out), x)
        np.testing.assert_allclose(p, model.predict_proba(x), rtol=1e-5, atol=1e-5)
        assert labels is None or (labels == model.predict(x)).all()


class LocalCalibrated(Model):
    """Stands in for `wrappers.Calibrated`."""

    def __init__(self, model, temperature):
        self.model, self.temperature = model, temperature
        self.loss, self.n_in, self.n_out, self.dtype = model.loss, model.n_in, model.n_out, model.dtype
        self._image_shape = model.image_shape

    def outputs(self, x):
        return self.model.outputs(x) / self.temperature


LocalCalibrated.__name__ = "Calibrated"
Calibrated = getattr(handgrad.wrappers, "Calibrated", LocalCalibrated)


def calibrated_models(network, other):
    """Models whose temperature is that of a network, or of an average."""
    tta, deskew = TestTimeAugmentation(network, 5), Deskew(12, 8, shrink=2)
    return {
        "network": Calibrated(network, 0.7),
        "preprocessed": Calibrated(Preprocessed(network, deskew), 2.5),
        "tta": Calibrated(Preprocessed(tta, deskew), 1.8),
        "ensemble": Calibrated(Ensemble([tta, other]), 0.6),
        "members": Ensemble([Calibrated(tta, 3.0), Calibrated(other, 0.5)]),
    }


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "one output"])
@pytest.mark.parametrize("target", list(TARGETS))
def test_the_temperature_of_a_calibrated_model_divides_its_logits(target, loss, tmp_path):
    def network(seed):
        layers = [
            Dense(24, 8),
            Tanh(),
            Dense(8, 1 if loss == "one output" else 3),
            *([BatchNorm(3), ReLU()] * (loss == "cross_entropy")),
        ]
        result = Network(layers, loss="binary_cross_entropy" if loss == "one output" else loss, rng=seed)
        result.image_shape = (6, 4)
        result.parameters *= 3  # some probabilities are 0 or 1 in float32
        return result

    for name, model in calibrated_models(network(0), network(1)).items():
        images = np.random.default_rng(0).integers(0, 256, (60, *model.image_shape)).astype(np.uint8)
        (tmp_path / name).mkdir()
        path, weights = tmp_path / name / f"net{TARGETS[target].suffix}", tmp_path / name / "model.safetensors"
        save(getattr(model, "model", Ensemble([network(0), network(1)])), weights)
        export(model, path, to=target, model_file=weights)
        if target in ("torch", "keras", "python"):
            labels, p = run_python(path, images)
        else:
            x = images.reshape(60, -1)
            labels, p = RUN[target](path, x if inference_graph(model).takes_bytes else x.astype(np.float32) / 255)
        np.testing.assert_allclose(np.asarray(p), model.predict_proba(images), rtol=0, atol=1e-5)
        assert (np.asarray(labels) == model.predict(images)).all()


def hog_models():
    """Models with HOG, of images whose height is not their width."""

    def network(seed, *first, n_in=63):
        result = Network([*first, Dense(n_in, 8), ReLU(), Dense(8, 3)], loss="cross_entropy", rng=seed)
        result.image_shape = (9, 7)
        result.parameters *= 3
        return result

    hog, pixels = network(0, HOG(9, 7, 3), n_in=72), network(1)
    second = network(3, HOG(9, 7, 4), HOG(4, 4, 2, channels=8), n_in=256)
    last = Network([Dense(63, 63), HOG(9, 7, 1)], loss="cross_entropy", rng=2)
    last.image_shape = (9, 7)
    return {
        "network": hog,
        "second-order gradients": second,
        "other member without HOG": Ensemble([pixels, hog]),
        "deskew, tta, calibrated": Calibrated(Preprocessed(TestTimeAugmentation(hog, 5), Deskew(18, 14, 2)), 1.7),
        "HOG last, calibrated": Calibrated(last, 0.2),
    }


@pytest.mark.parametrize("name", list(hog_models()))
@pytest.mark.parametrize("target", list(TARGETS))
def test_hog_is_that_of_handgrad(target, name, tmp_path):
    model = hog_models()[name]
    images = np.random.default_rng(0).integers(0, 256, (60, *model.image_shape)).astype(np.uint8)
    images[0] = 0  # its outputs are √ε
    labels, p = run_on_images(target, model, tmp_path, images)
    np.testing.assert_allclose(p, model.predict_proba(images), rtol=0, atol=1e-5)
    assert (labels == model.predict(images)).all()
    if target in ("torch", "keras", "python"):
        floats = images.astype(np.float32) / 255
        p = run_python(tmp_path / f"net{TARGETS[target].suffix}", floats)[1]
        np.testing.assert_allclose(np.asarray(p), model.predict_proba(floats), rtol=0, atol=1e-5)


# ---- Estimators ------------------------------------------------------------------------------------------------------

ESTIMATORS = {
    "binary": lambda sklearn: sklearn.MLPClassifier((6,), max_iter=20, random_state=0),
    "three_classes": lambda sklearn: sklearn.MLPClassifier(
        (6, 5), solver="sgd", learning_rate_init=0.2, max_iter=20, random_state=0
    ),
    "multilabel": lambda sklearn: sklearn.MLPClassifier((6,), activation="tanh", max_iter=20, random_state=0),
    "counts": lambda sklearn: sklearn.MLPRegressor("poisson", (6,), activation="gelu", max_iter=20, random_state=0),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", list(ESTIMATORS))
@pytest.mark.parametrize("target", ["torch", "keras", "python"])
def test_the_file_of_an_estimator_predicts_what_the_estimator_predicts(target, kind, tmp_path):
    from handgrad import sklearn

    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4))
    z = x[:, :3]
    y = {
        "binary": np.where(z[:, 0] > 0, "yes", "no"),
        "three_classes": np.array(["ant", "bee", "cow"])[z.argmax(axis=1)],
        "multilabel": (z > 0).astype(int),
        "counts": rng.poisson(np.exp(z)),
    }
    estimator, file = ESTIMATORS[kind](sklearn).fit(x, y[kind]), tmp_path / "model.safetensors"
    sklearn.save(estimator, file)
    path = tmp_path / f"net{TARGETS[target].suffix}"
    export(handgrad.load(file), path, to=target, model_file=file)
    x = x.astype(np.float32)
    labels, predictions = RUN[target](path, x)
    expected = estimator.predict(x)
    if kind == "counts":
        assert labels is None
        np.testing.assert_allclose(predictions, expected.reshape(60, -1), rtol=1e-4, atol=1e-5)
        return
    p = estimator.predict_proba(x)
    np.testing.assert_allclose(predictions, p[:, 1:] if kind == "binary" else p, rtol=1e-4, atol=1e-5)
    if kind == "multilabel":
        assert ((predictions > 0.5) == expected).all()
    else:
        assert (estimator.classes_[labels.astype(int)] == expected).all()
        assert len(set(labels)) == len(estimator.classes_)


# ---- Scripts ---------------------------------------------------------------------------------------------------------


def run_script(target, path, *arguments, backend=""):
    warnings = [] if target == "keras" else ["-W", "error"]
    command = [sys.executable, *warnings, path, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": backend}, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("target", "backend"), [("torch", ""), ("keras", "jax")])
def test_a_script_predicts_the_images_in_a_file(target, backend, tmp_path):
    network = Network([4, 3], rng=0)
    network.classes, network.image_shape = ("cat", "dog", "owl"), (2, 2)
    save(network, tmp_path / "model.safetensors")
    x = np.array([[[0, 255], [51, 102]], [[255, 255], [0, 0]]], np.uint8)
    np.save(tmp_path / "x.npy", x)
    export(network, tmp_path / "net.py", to=target, model_file=tmp_path / "model.safetensors")
    assert not (tmp_path / "net.safetensors").exists()
    p = network.predict_proba(x)
    expected = [f"{network.classes[k]}  {row[k]:.2%}" for k, row in zip(network.predict(x), p, strict=True)]
    assert run_script(target, tmp_path / "net.py", tmp_path / "x.npy", backend=backend) == expected


@pytest.mark.parametrize(("target", "backend"), [("torch", ""), ("keras", "jax")])
def test_a_script_prints_the_numbers_of_a_regression(target, backend, tmp_path):
    network, x = Network([4, 2], loss="log_cosh", rng=0), np.random.default_rng(0).integers(0, 9, (3, 4), np.uint8)
    np.save(tmp_path / "x.npy", x)
    export(network, tmp_path / "net.py", to=target)
    lines = run_script(target, tmp_path / "net.py", tmp_path / "x.npy", backend=backend)
    printed = np.array([line.split() for line in lines], float)
    np.testing.assert_allclose(printed, network.predict(x), rtol=1e-4, atol=1e-6)


# ---- C and JavaScript ------------------------------------------------------------------------------------------------


def test_any_class_name_and_any_weight_is_valid_in_c(tmp_path):
    """Class names with the ends of strings and comments, a subnormal weight, and more compiler warnings."""
    network = Network([3, 2], rng=0)
    network.classes = ('"*/ // ??/ \\', "ä\n\u2028%d{}`${x}")
    network.parameters[:3] = 1e-42, -3.4e38, 1 << 24
    path = tmp_path / "1 int *-ä.x.c"
    export(network, path, to="c")
    program = compile_c(path, "-Wshadow", "-Wconversion", "-Wcomment", "-Wtrigraphs")
    x = np.array([[1, 0, 0.5]], np.float32)
    np.testing.assert_allclose(run_program([program], x, True)[1], network.predict_proba(x), atol=1e-6)
    caller = tmp_path / "caller.c"
    caller.write_text(
        "#include <stdio.h>\nextern const char *const model_1_int_x_classes[2];\n"
        "int main(void) { fputs(model_1_int_x_classes[0], stdout); putchar(0);"
        " fputs(model_1_int_x_classes[1], stdout); return 0; }\n"
    )
    subprocess.run(["gcc", "-std=c99", caller, path, "-lm", "-o", tmp_path / "caller"], check=True)
    output = subprocess.run([tmp_path / "caller"], capture_output=True, check=True).stdout
    assert output.decode().split("\0") == list(network.classes)


def test_a_c_program_can_use_the_declarations_of_the_file(tmp_path):
    path = tmp_path / "digits.c"
    export(Network([1, 2], loss="poisson", rng=0), path, to="c")
    compile_c(path, "-Wshadow", "-Wconversion")
    (declaration,) = [line for line in path.read_text().splitlines() if line.startswith("void") and ";" in line]
    assert declaration == "void digits_predict(const float *x, float *y); /* x[1] -> y[2] */"
    caller = tmp_path / "caller.c"
    caller.write_text(
        f"{declaration}\nint main(void) {{ float x = 0, y[2]; digits_predict(&x, y); return !(y[0] > 0); }}\n"
    )
    subprocess.run(["gcc", "-std=c99", caller, path, "-lm", "-o", tmp_path / "caller"], check=True)
    assert subprocess.run([tmp_path / "caller"], check=False).returncode == 0


def test_any_class_name_is_valid_in_javascript(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    network = Network([3, 2], rng=0)
    network.classes = ('"`${1}', "ä\n\u2028\\")
    export(network, tmp_path / "class.mjs", to="js")
    program = 'import * as net from "./class.mjs"; console.log(JSON.stringify([net.CLASSES, net.IMAGE_SHAPE]));'
    command = ["node", "--input-type=module", "-e", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [list(network.classes), None]


@pytest.mark.parametrize("target", ["c", "js"])
def test_an_incomplete_example_is_an_error(target, tmp_path):
    path = tmp_path / f"net{TARGETS[target].suffix}"
    export(Network([3, 2], rng=0), path, to=target)
    if target == "js" and shutil.which("node") is None:
        pytest.skip("node is not installed")
    command = [compile_c(path)] if target == "c" else ["node", path]
    done = subprocess.run(command, input=b"\0" * 20, capture_output=True, check=False)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert b"incomplete last example: expected 3 float32" in done.stderr


# ---- ONNX ------------------------------------------------------------------------------------------------------------


def test_the_onnx_graph_has_standard_operators_and_is_reproducible(tmp_path):
    onnx = pytest.importorskip("onnx", reason="make test-peers installs it")
    network = make_network("batch_norm_everywhere")
    network.classes = ("a", "b", "c", "d")
    export(network, tmp_path / "net.onnx", to="onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert [opset.domain for opset in model.opset_import] == [""]
    operators = [node.op_type for node in model.graph.node]
    assert operators[-2:] == ["Softmax", "ArgMax"]
    assert operators.count("BatchNormalization") == 3  # of five, one is folded into each Dense
    assert {"Dropout", "Identity"} & set(operators) == set()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["classes"]) == ["a", "b", "c", "d"]
    export(network, tmp_path / "again.onnx", to="onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()


def test_the_onnx_graph_of_a_regression_has_one_output(tmp_path):
    onnx = pytest.importorskip("onnx", reason="make test-peers installs it")
    export(Network([4, 3], loss="poisson", rng=0), tmp_path / "net.onnx", to="onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Exp"]
    (output,) = model.graph.output
    assert output.name == "predictions"
    assert [size.dim_param or size.dim_value for size in output.type.tensor_type.shape.dim] == ["batch", 3]
    assert {entry.key for entry in model.metadata_props} == {"image_shape", "handgrad"}
