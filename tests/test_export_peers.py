"""Every export answers as the network does: each is run, in PyTorch, Keras, onnxruntime, NumPy, C and JavaScript."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")

import handgrad.sklearn
from handgrad import (
    Adam,
    BatchNorm,
    BinaryCrossEntropy,
    Dense,
    Dropout,
    GELU,
    Identity,
    LeakyReLU,
    Network,
    ReLU,
    Tanh,
    Trainer,
    save,
)
from handgrad.data import load
from handgrad.data.idx import write_idx
from handgrad.data.synthetic import synthetic_digits
from handgrad.export import TARGETS, export
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES, REGRESSION, Huber
from handgrad.recipes import RECIPES, Recipe
from handgrad.schedules import SCHEDULES
from handgrad.sklearn import MLPClassifier, MLPRegressor

# The torch backend of Keras calls NumPy as NumPy 1 was called.
KERAS_OWN = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
ONE_CLASS = "ignore:You are using a softmax over axis -1:UserWarning"  # true of the network that is tried
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings(KERAS_OWN, ONE_CLASS)]

Answer = tuple[Any, np.ndarray]  # labels, probabilities; of a network that gives numbers None, numbers


def imported(path: Path) -> ModuleType:
    """A script, as a module of a name of its own."""
    spec = importlib.util.spec_from_file_location(f"written_{path.stem}_{os.urandom(4).hex()}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def strict(target: str) -> list[str]:
    """Warnings as errors, but for those of Keras's own."""
    return [] if target == "keras" else ["-W", "error"]


def by_python(path: Path, x: Any) -> Answer:
    module = imported(path)
    if not hasattr(module, "probabilities"):
        return None, module.predict(x)
    return module.predict(x), module.predict_proba(x)


def by_torch(path: Path, x: np.ndarray) -> Answer:
    torch = pytest.importorskip("torch", reason="make test-peers installs it")
    labels, answers = by_python(path, torch.from_numpy(x))
    return labels if labels is None else labels.numpy(), answers.numpy()


def by_keras(path: Path, x: np.ndarray) -> Answer:
    pytest.importorskip("keras", reason="make test-peers installs it")
    return by_python(path, x)


def by_onnxruntime(path: Path, x: np.ndarray) -> Answer:
    runtime = pytest.importorskip("onnxruntime", reason="make test-peers installs it")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    if [output.name for output in session.get_outputs()] == ["predictions"]:
        return None, session.run(None, {"x": x})[0]
    probabilities, labels = session.run(["probabilities", "label"], {"x": x})
    assert labels.dtype == np.int64
    return labels, probabilities


def by_stdin(command: list[object], x: np.ndarray, text: str = "probabilities") -> Answer:
    """What a program of this text prints."""
    done = subprocess.run(list(map(str, command)), input=x.tobytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    numbers = np.array([line.split() for line in done.stdout.decode().splitlines()], np.float64)
    return (numbers[:, 0], numbers[:, 1:]) if "probabilities" in text else (None, numbers)


def compiled(path: Path, *more: str) -> Path:
    """The program of a C file, made without a warning."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc here")
    (macro,) = {line.split()[1] for line in path.read_text().splitlines() if line.startswith("#ifdef")}
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c99", *more, f"-D{macro}", path]
    done = subprocess.run(
        [*command, "-o", path.with_suffix(".bin"), "-lm"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return path.with_suffix(".bin")


def by_c(path: Path, x: np.ndarray) -> Answer:
    return by_stdin([compiled(path)], x, path.read_text())


def by_node(path: Path, x: np.ndarray) -> Answer:
    if shutil.which("node") is None:
        pytest.skip("there is no node here")
    return by_stdin(["node", path], x, path.read_text())


BY: dict[str, Callable[[Path, np.ndarray], Answer]] = {
    "torch": by_torch,
    "keras": by_keras,
    "onnx": by_onnxruntime,
    "python": by_python,
    "c": by_c,
    "js": by_node,
}


PROCESSES = ["c", "js"]  # one for every network: of these there are fewer


def test_every_target_is_run() -> None:
    assert set(BY) == set(TARGETS)


def run_as(target: str, network: Network, directory: Path, x: np.ndarray) -> Answer:
    """What the export of a network answers."""
    if target == "onnx":
        pytest.importorskip("onnx", reason="make test-peers installs it")
    path = directory / f"net{TARGETS[target].ending}"
    export(network, path, to=target)
    return BY[target](path, np.ascontiguousarray(x, np.float32))


# ---- Trained on MNIST ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tested(mnist: Path) -> tuple[dict[str, Network], np.ndarray]:
    """Two networks that have seen some digits, as they answer, and 1,000 digits to ask them."""
    digits = load(str(mnist))
    x, y = digits.x_train[:12_000].reshape(-1, 784), digits.y_train[:12_000]
    networks = {
        "sigmoid": Network([784, 30, 10], init="lecun", rng=0),
        "batch_norm": Network(
            [784, 64, 32, 10], activation="relu", loss="cross_entropy", batch_norm=True, dropout=0.1, rng=0
        ),
    }
    for network in networks.values():
        network.image_shape = (28, 28)
        Trainer(network, Adam(0.003), batch_size=64, rng=0).fit(x, y, epochs=2)
    return networks, digits.x_test[:1000].reshape(-1, 784).astype(np.float32) / 255


@pytest.mark.parametrize("which", ["sigmoid", "batch_norm"])
@pytest.mark.parametrize("target", list(TARGETS))
def test_a_trained_network_answers_the_same_to_a_thousand_digits(
    target: str, which: str, tested: tuple[dict[str, Network], np.ndarray], tmp_path: Path
) -> None:
    network, x = tested[0][which], tested[1]
    labels, p = run_as(target, network, tmp_path, x)
    assert (network.predict(x) == labels).all()
    np.testing.assert_allclose(p, network.predict_proba(x), rtol=0, atol=1e-5)
    assert len(set(labels)) == 10


# ---- Every part ------------------------------------------------------------------------------------------------------


def same(target: str, network: Network, directory: Path, count: int = 50) -> None:
    """The export answers as the network does, on inputs that are near 0 and on some that saturate it."""
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((count, network.n_in)) * rng.choice([0.5, 5, 50], (count, 1))).astype(np.float32)
    exact = network.astype(np.float64)
    labels, p = run_as(target, network, directory, x)
    np.testing.assert_allclose(p, exact.predict_proba(x), rtol=1e-4, atol=1e-5)
    if network.n_out > 1:
        z = np.sort(exact.outputs(x), axis=1)
        sure = z[:, -1] - z[:, -2] > 1e-4
        assert sure.mean() > 0.8
        assert (labels == exact.predict(x))[sure].all()


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("target", [name for name in TARGETS if name not in PROCESSES])
def test_every_activation_and_loss(target: str, activation: str, loss: str, tmp_path: Path) -> None:
    same(target, Network([5, 7, 6, 3], activation=activation, loss=loss, init="lecun", rng=1), tmp_path)


@pytest.mark.parametrize(("activation", "loss"), list(zip(ACTIVATIONS, list(LOSSES) * 3, strict=False)))
@pytest.mark.parametrize("target", PROCESSES)
def test_every_activation_and_every_loss(target: str, activation: str, loss: str, tmp_path: Path) -> None:
    same(target, Network([5, 7, 6, 3], activation=activation, loss=loss, init="lecun", rng=1), tmp_path)


CHAINS: dict[str, Callable[[], Network]] = {
    "batch_norm_everywhere": lambda: Network(
        [
            *(BatchNorm(5), ReLU(), BatchNorm(5, 0.3, 1e-3), Dense(5, 6), ReLU(), BatchNorm(6), Tanh(), BatchNorm(6)),
            *(GELU(), Dense(6, 4), BatchNorm(4)),
        ],
        loss="cross_entropy",
        rng=2,
    ),
    "batch_norm_last": lambda: Network([Dense(5, 4), ReLU(), BatchNorm(4)], rng=2),
    "what_vanishes": lambda: Network([Identity(), Dropout(0.4), Dense(5, 4), Dropout(0.3), Identity()], rng=3),
    "activation_first_and_twice": lambda: Network([LeakyReLU(0.2), Tanh(), Dense(5, 4), ReLU(), LeakyReLU(0.1)], rng=4),
    "one_layer": lambda: Network([5, 3], loss="cross_entropy", rng=5),
    "one_yes_or_no": lambda: Network([5, 6, 1], activation="tanh", rng=6),
    "one_output_as_it_is": lambda: Network([Dense(5, 1)], loss="quadratic", rng=7),
    "one_sigmoid": lambda: Network([5, 6, 1], loss="quadratic", rng=7),
    "one_class": lambda: Network([5, 1], loss="cross_entropy", rng=8),
    "many_classes": lambda: Network([5, 40], loss=BinaryCrossEntropy(label_smoothing=0.1), rng=8),
    "float64": lambda: Network([5, 4, 3], rng=9, dtype=np.float64),
}


def network_of(chain: str) -> Network:
    """The network, its BatchNorms having seen something."""
    network = CHAINS[chain]()
    rng = np.random.default_rng(0)
    for _ in range(20):
        network.forward(rng.normal(0.3, 1.2, (20, 5)).astype(network.dtype))
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.g[...], layer.b[...] = rng.normal(1, 0.5, layer.n_in), rng.standard_normal(layer.n_in)
    return network


@pytest.mark.parametrize("chain", list(CHAINS))
@pytest.mark.parametrize("target", list(TARGETS))
def test_every_chain(target: str, chain: str, tmp_path: Path) -> None:
    same(target, network_of(chain), tmp_path)


@pytest.mark.parametrize(
    ("chain", "threshold"), [("one_yes_or_no", 0), ("one_output_as_it_is", 0.5), ("one_sigmoid", 0.5)]
)
@pytest.mark.parametrize("target", list(TARGETS))
def test_the_label_of_a_single_output_is_whether_it_is_likely(
    target: str, chain: str, threshold: float, tmp_path: Path
) -> None:
    network, x = network_of(chain), np.random.default_rng(1).standard_normal((60, 5), np.float32)
    labels, p = run_as(target, network, tmp_path, x)
    assert (labels == (network.outputs(x)[:, 0] > threshold)).all()
    assert (labels == (p[:, 0] > 0.5)).all()
    assert len(set(labels)) == 2
    assert p.shape == (60, 1)


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_label_is_the_largest_outputs_where_the_probabilities_are_all_1(target: str, tmp_path: Path) -> None:
    network = Network([Dense(2, 3)], rng=0)
    network.parameters[...] = 0
    network.layers[0].b[...] = [40, 50, 45]
    network.layers[0].W[2, 1] = 5
    labels, p = run_as(target, network, tmp_path, [[0, 0], [0, 1], [0, 2]])
    np.testing.assert_allclose(p, 1)
    assert labels.tolist() == [1, 1, 2]  # of two that are as large, the first


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("loss", list(LOSSES))
def test_nothing_overflows(target: str, loss: str, tmp_path: Path) -> None:
    network = Network([1, 2, 3], activation="softplus", loss=loss, rng=0)
    network.layers[0].W[...] = [[1000], [-1000]]
    network.layers[2].W[...] = np.array([[5, 0], [-5, 1], [0, 5]]) * 1000
    _, p = run_as(target, network, tmp_path, np.array([[0.5], [5], [-5]]))
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, network.predict_proba(np.array([[0.5], [5], [-5]])), atol=1e-6)


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def same_numbers(target: str, network: Network, directory: Path) -> None:
    """The export gives the network's numbers, and nothing beside them."""
    x = np.random.default_rng(5).standard_normal((50, network.n_in)).astype(np.float32)
    labels, y = run_as(target, network, directory, x)
    assert labels is None
    np.testing.assert_allclose(y, network.astype(np.float64).predict(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("loss", list(REGRESSION))
@pytest.mark.parametrize("target", list(TARGETS))
def test_every_loss_for_numbers(target: str, loss: str, n_out: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 4)), rng.poisson(3, (60, n_out))
    network = Network([4, 6, n_out], activation="tanh", loss=loss, rng=1)
    Trainer(network, Adam(0.05), batch_size=20, rng=0).fit(x, y, epochs=5)
    same_numbers(target, network, tmp_path)


@pytest.mark.parametrize("target", list(TARGETS))
def test_a_chain_with_batch_norms_gives_its_numbers(target: str, tmp_path: Path) -> None:
    network = Network([BatchNorm(4), GELU(), Dense(4, 3), BatchNorm(3), LeakyReLU(0.2)], loss=Huber(0.5), rng=1)
    network.forward(np.random.default_rng(0).normal(0.3, 1.2, (20, 4)).astype(np.float32))
    same_numbers(target, network, tmp_path)


def test_the_graph_of_numbers_has_one_output_and_names_no_classes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="make test-peers installs it")
    export(Network([4, 3], loss="poisson", rng=0), tmp_path / "net.onnx", to="onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Exp"]
    (output,) = model.graph.output
    assert output.name == "predictions"
    assert [size.dim_param or size.dim_value for size in output.type.tensor_type.shape.dim] == ["batch", 3]
    assert {entry.key for entry in model.metadata_props} == {"image_shape", "handgrad"}
    assert "numbers" in model.doc_string


@pytest.mark.parametrize(("target", "backend"), [("torch", ""), ("keras", "jax")])
def test_a_script_prints_its_numbers(target: str, backend: str, tmp_path: Path) -> None:
    network, x = Network([4, 2], loss="log_cosh", rng=0), np.random.default_rng(0).random((3, 4))
    np.save(tmp_path / "x.npy", x)
    export(network, tmp_path / "net.py", to=target)
    command = [sys.executable, *strict(target), tmp_path / "net.py", tmp_path / "x.npy"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    told = np.array([line.split() for line in done.stdout.splitlines()], float)
    np.testing.assert_allclose(told, network.predict(x), rtol=1e-4, atol=1e-6)


def test_a_c_program_calls_it_by_its_header(tmp_path: Path) -> None:
    export(Network([1, 2], loss="poisson", rng=0), tmp_path / "rate.c", to="c")
    compiled(tmp_path / "rate.c", "-Wshadow", "-Wconversion")
    caller = tmp_path / "caller.c"
    (declared,) = [line for line in (tmp_path / "rate.c").read_text().splitlines() if line.startswith("void rate_p")][
        :1
    ]
    assert declared == "void rate_predict(const float *x, float *y); /* x[1] -> y[2] */"
    caller.write_text(declared + "\nint main(void) { float x = 0, y[2]; rate_predict(&x, y); return !(y[0] > 0); }\n")
    subprocess.run(["gcc", "-std=c99", caller, tmp_path / "rate.c", "-lm", "-o", tmp_path / "caller"], check=True)
    assert subprocess.run([tmp_path / "caller"], check=False).returncode == 0


# ---- Estimators ------------------------------------------------------------------------------------------------------

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "yes_or_no": lambda: MLPClassifier((6,), max_iter=20, random_state=0),
    "yes_or_no_squared": lambda: MLPClassifier(
        (6,), loss="squared_error", dtype="float32", max_iter=20, random_state=0
    ),
    "three_classes": lambda: MLPClassifier((6, 5), solver="sgd", learning_rate_init=0.2, max_iter=20, random_state=0),
    "multi_label": lambda: MLPClassifier((6,), activation="tanh", max_iter=20, random_state=0),
    "number": lambda: MLPRegressor(hidden_layer_sizes=(6,), solver="lbfgs", random_state=0),
    "numbers": lambda: MLPRegressor(Huber(0.3), (6,), solver="adamw", max_iter=20, random_state=0),
    "counts": lambda: MLPRegressor("poisson", (6,), activation="gelu", max_iter=20, random_state=0),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", list(ESTIMATORS))
@pytest.mark.parametrize("target", list(TARGETS))
def test_the_file_of_an_estimator_is_exported_and_answers_as_the_estimator(
    target: str, kind: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4))
    z = x[:, :3]
    y = {
        "three_classes": np.array(["ant", "bee", "cow"])[z.argmax(axis=1)],
        "multi_label": (z > 0).astype(int),
        "number": z[:, 0],
        "numbers": z,
        "counts": rng.poisson(np.exp(z)),
    }
    estimator = ESTIMATORS[kind]().fit(x, y.get(kind, np.where(z[:, 0] > 0, "yes", "no")))
    handgrad.sklearn.save(estimator, tmp_path / "model.safetensors")
    path = tmp_path / f"net{TARGETS[target].ending}"
    export(handgrad.load(tmp_path / "model.safetensors"), path, to=target, model=tmp_path / "model.safetensors")
    x = x.astype(np.float32)
    labels, answers = BY[target](path, x)
    expected = estimator.predict(x)
    if isinstance(estimator, MLPRegressor):
        assert labels is None
        np.testing.assert_allclose(answers, expected.reshape(60, -1), rtol=1e-4, atol=1e-5)
        return
    p = estimator.predict_proba(x)
    np.testing.assert_allclose(answers, p[:, 1:] if kind.startswith("yes") else p, rtol=1e-4, atol=1e-5)
    if kind == "multi_label":
        assert ((answers > 0.5) == expected).all()
    else:
        assert (estimator.classes_[labels.astype(int)] == expected).all()
        assert len(set(labels)) == len(estimator.classes_)


# ---- As programs -----------------------------------------------------------------------------------------------------


def test_names_and_numbers_of_every_kind_are_safe_in_c(tmp_path: Path) -> None:
    """Warnings of every flag are errors; class names hold what ends a string or a comment; a weight is subnormal."""
    network = Network([3, 2], rng=0)
    network.classes = ('"*/ // ??/ \\', "ä\n\u2028%d{}`${x}")
    network.parameters[:3] = 1e-42, -3.4e38, 1 << 24
    path = tmp_path / "1 int */-ä.x.c".replace("/", "")
    export(network, path, to="c")
    program = compiled(path, "-Wshadow", "-Wconversion", "-Wcomment", "-Wtrigraphs")
    x = np.array([[1, 0, 0.5]], np.float32)
    np.testing.assert_allclose(by_stdin([program], x)[1], network.predict_proba(x), atol=1e-6)
    caller = tmp_path / "caller.c"
    caller.write_text(
        "#include <stdio.h>\nextern const char *const model_1_int_x_classes[2];\n"
        "int main(void) { fputs(model_1_int_x_classes[0], stdout); putchar(0);"
        " fputs(model_1_int_x_classes[1], stdout); return 0; }\n"
    )
    subprocess.run(["gcc", "-std=c99", caller, path, "-lm", "-o", tmp_path / "caller"], check=True)
    said = subprocess.run([tmp_path / "caller"], capture_output=True, check=True).stdout
    assert said.decode().split("\0") == list(network.classes)


def test_class_names_of_every_kind_are_safe_in_javascript(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("there is no node here")
    network = Network([3, 2], rng=0)
    network.classes = ('"`${1}', "ä\n\u2028\\")
    export(network, tmp_path / "class.mjs", to="js")
    program = 'import * as net from "./class.mjs"; console.log(JSON.stringify([net.CLASSES, net.IMAGE_SHAPE]));'
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [list(network.classes), None]


@pytest.mark.parametrize("target", ["c", "js"])
def test_an_example_that_is_not_whole_is_told_of(target: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{TARGETS[target].ending}"
    export(Network([3, 2], rng=0), path, to=target)
    if target == "js" and shutil.which("node") is None:
        pytest.skip("there is no node here")
    command = [compiled(path)] if target == "c" else ["node", path]
    done = subprocess.run(command, input=b"\0" * 20, capture_output=True, check=False)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert b"expected 3 float32" in done.stderr


@pytest.mark.parametrize(("target", "backend"), [("torch", ""), ("keras", "jax")])
def test_a_script_reads_a_digit_from_a_file(target: str, backend: str, tmp_path: Path) -> None:
    network = Network([4, 3], rng=0)
    network.classes, network.image_shape = ("cat", "dog", "owl"), (2, 2)
    save(network, tmp_path / "model.safetensors")
    x = np.array([[[0, 255], [51, 102]], [[255, 255], [0, 0]]], np.uint8)
    np.save(tmp_path / "x.npy", x)
    export(network, tmp_path / "net.py", to=target, model=tmp_path / "model.safetensors")
    assert not (tmp_path / "net.safetensors").exists()
    command = [sys.executable, *strict(target), tmp_path / "net.py", tmp_path / "x.npy"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    p = network.predict_proba(x.reshape(2, 4))
    told = [f"{network.classes[k]}  {row[k]:.2%}" for k, row in zip(network.predict(x), p, strict=True)]
    assert done.stdout.splitlines() == told


def test_the_graph_is_of_onnxs_own_operators_and_says_what_it_is(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="make test-peers installs it")
    network = network_of("batch_norm_everywhere")
    network.classes = ("a", "b", "c", "d")
    export(network, tmp_path / "net.onnx", to="onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert {node.domain for node in model.graph.node} == {""}
    assert [opset.domain for opset in model.opset_import] == [""]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[-2:] == ["Softmax", "ArgMax"]
    assert kinds.count("BatchNormalization") == 3  # of five, one each went into the Denses beside them
    assert {"Dropout", "Identity"} & set(kinds) == set()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["classes"]) == ["a", "b", "c", "d"]
    export(network, tmp_path / "again.onnx", to="onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()


# ---- The training ----------------------------------------------------------------------------------------------------

CHOICES: dict[str, dict[str, object]] = {
    "post": {},
    "momentum": {"optimizer": "momentum", "lr": 0.05, "schedule": "constant", "loss": "cross_entropy"},
    "nesterov": {
        "optimizer": "nesterov",
        "lr": 0.05,
        "schedule": "constant",
        "loss": "quadratic",
        "weight_decay": 0.01,
    },
    "adam": {"optimizer": "adam", "lr": 0.003, "schedule": "one_cycle", "label_smoothing": 0.1},
    "adamw": {"optimizer": "adamw", "lr": 0.003, "schedule": "cosine", "loss": "cross_entropy"},
    "batch_norm": {
        "batch_norm": True,
        "activation": "relu",
        "lr": 0.2,
        "schedule": "one_cycle",
        "loss": "cross_entropy",
        "weight_decay": 0.05,
        "label_smoothing": 0.05,
    },
}
# Outputs are as near as that. Keras's ε of Adam stands elsewhere, and the running variance of its batch normalisation
# is over the batch, not over one less.
NEAR = 5e-4
FAR = {("keras", "batch_norm"): 0.05}


def chosen(name: str) -> Recipe:
    """A short training of a small network on 250 digits, in batches that do not come out even."""
    plain = {"hidden": (12, 9), "init": "xavier_normal", "epochs": 2, "validation": 0, "batch_size": 32}
    return RECIPES["post"].with_choices(**plain | CHOICES[name])


def layers_of(script: ModuleType) -> list[Any]:
    """The layers of the script's network: PyTorch's Sequential is a sequence of them, Keras's has one."""
    return list(getattr(script.network, "layers", script.network))


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    x, y, _, _ = synthetic_digits(250, 1, seed=3)
    return x, y


@pytest.mark.parametrize("name", list(CHOICES))
@pytest.mark.parametrize("target", ["torch", "keras"])
def test_a_written_training_ends_at_handgrads_weights(
    target: str,
    name: str,
    drawn: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the same weights, by the same orders, step for step."""
    x, y = drawn
    recipe = chosen(name)
    trainer, twin = recipe.trainer(), recipe.trainer()
    network = trainer.network
    export(network, tmp_path / "net.py", to=target, train=recipe)
    script = imported(tmp_path / "net.py")
    begin = network.parameters.copy()
    trainer.fit(x, y, epochs=2)
    assert np.abs(network.parameters - begin).max() > 0.01

    if target == "torch":
        torch = pytest.importorskip("torch")
        save(twin.network, tmp_path / "begin.safetensors")
        from safetensors.torch import load_file

        script.network.load_state_dict(load_file(tmp_path / "begin.safetensors"))
        monkeypatch.setattr(torch, "randperm", lambda count: torch.from_numpy(twin.shuffling.permutation(count)))
    else:
        for ours, theirs in zip(twin.network.layers, script.network.layers, strict=True):
            if isinstance(ours, Dense):
                theirs.set_weights([ours.W.T, ours.b])
        script.shuffling = twin.shuffling
    script.train(script.pixels(x), script.targets(y))
    told = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert told == pytest.approx(trainer.history["loss"], abs=1e-3)
    z = script.network(script.pixels(x)).detach().numpy()
    np.testing.assert_allclose(z, network.outputs(x), rtol=0, atol=FAR.get((target, name), NEAR))


PLANTED = {
    "momentum": {"optimizer": "nesterov"},
    "nesterov": {"weight_decay": 0.0},
    "adam": {"label_smoothing": 0.0},
    "adamw": {"weight_decay": 0.1},
    "batch_norm": {"schedule": "cosine"},
}


@pytest.mark.parametrize("name", list(PLANTED))
def test_another_training_ends_elsewhere(name: str, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    """By more than a written one may: what is dropped from a script would be seen."""
    ends = []
    for recipe in (chosen(name), chosen(name).with_choices(**PLANTED[name])):
        trainer = recipe.trainer()
        trainer.fit(*drawn, epochs=2)
        ends.append(trainer.network.outputs(drawn[0]))
    assert np.abs(ends[0] - ends[1]).max() > 2 * NEAR


@pytest.mark.parametrize("target", ["torch", "keras"])
def test_a_training_script_learns_by_itself_as_handgrad_does(target: str, tmp_path: Path) -> None:
    """As a program, on synthetic digits, with what `quick` is made of: batch norm, Adam in one cycle, upright pictures."""
    arrays = synthetic_digits(2000, 500, seed=1)
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for file, array in zip(names, arrays, strict=True):
        write_idx(tmp_path / file, array)
    recipe = RECIPES["quick"].with_choices(hidden=(64, 64), epochs=3, validation=200)
    trainer = recipe.trainer()
    trainer.fit(arrays[0][:-200], arrays[1][:-200], epochs=3)
    network = recipe.classifier([trainer.network])
    ours = network.evaluate(arrays[2], arrays[3]).accuracy
    assert ours > 0.75
    export(network, tmp_path / "net.py", to=target, train=recipe, without_preprocessing=True)
    command = [sys.executable, *strict(target), tmp_path / "net.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    *epochs, held, test = done.stdout.splitlines()
    assert len(epochs) == 3
    assert held.startswith("held out: ")
    assert held.split()[4] == "200"
    theirs = int(test.split()[1]) / int(test.split()[3])
    assert theirs == pytest.approx(ours, abs=0.03)
    assert len([path for path in tmp_path.iterdir() if "trained" in path.name]) == 1


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_schedule_is_handgrads(name: str, tmp_path: Path) -> None:
    recipe = chosen("adam").with_choices(schedule=name)
    export(recipe.trainer().network, tmp_path / "net.py", to="torch", train=recipe)
    pytest.importorskip("torch", reason="make test-peers installs it")
    script, ours = imported(tmp_path / "net.py"), SCHEDULES[name]()
    if name == "constant":
        assert not hasattr(script, "schedule")
    else:
        shares = [script.schedule(epoch, 7) for epoch in np.linspace(0, 7, 50)]
        np.testing.assert_allclose(shares, [ours(epoch, 7) for epoch in np.linspace(0, 7, 50)], rtol=1e-12)


@pytest.mark.parametrize("init", ["normal", "lecun", "xavier_normal", "xavier_uniform", "kaiming_normal"])
@pytest.mark.parametrize("target", ["torch", "keras"])
def test_weights_are_born_as_handgrads_are(target: str, init: str, tmp_path: Path) -> None:
    recipe = chosen("post").with_choices(hidden=(300, 200), init=init)
    network = recipe.trainer().network
    export(network, tmp_path / "net.py", to=target, train=recipe)
    script = imported(tmp_path / "net.py")
    for ours, theirs in zip(network.layers, layers_of(script), strict=True):
        if isinstance(ours, Dense) and ours.n_out > 10:
            weights = theirs.parameters() if target == "torch" else theirs.get_weights()
            W, b = (a.detach().numpy() if target == "torch" else a for a in weights)
            assert W.std() == pytest.approx(ours.W.std(), rel=0.03)
            assert np.abs(W).max() == pytest.approx(np.abs(ours.W).max(), rel=0.4)
            assert b.std() == pytest.approx(ours.b.std(), rel=0.15)
