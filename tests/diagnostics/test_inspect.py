"""File inspection: models, checkpoints, estimators, files of other programs, and malicious files."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from handgrad import (
    Adam,
    BatchNorm,
    BinaryCrossEntropy,
    Checkpoint,
    Dense,
    Deskew,
    Dropout,
    EarlyStopping,
    Ensemble,
    Network,
    Preprocessed,
    TestTimeAugmentation,
    Trainer,
    cli,
    save,
)
from handgrad.diagnostics.inspect import MAX_ARRAYS, format_report, inspect, printable
from handgrad.io.models import describe_model
from handgrad.io.safetensors import write_arrays

CONTROL = "\x1b[31m\n\r\x07\u202e"  # characters that control a terminal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.safetensors"


def run(*arguments):
    """(exit code, stdout, stderr) of a command."""
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def rows(path):
    """The first word of each line of the report, and the rest of the line."""
    return dict(line.strip().split(maxsplit=1) for line in format_report(inspect(path), arrays=False))


def assert_one_line_error(path, match=""):
    code, output, errors = run("inspect", path)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.rstrip("\n").isprintable()
    assert match in errors


def parse(text):
    """Parse JSON, and reject NaN and Infinity, which the standard does not have."""
    return json.loads(text, parse_constant=lambda constant: pytest.fail(constant))


# ---- Models ----------------------------------------------------------------------------------------------------------


def network(seed=0, hidden=5):
    made = Network([4, hidden, 3], loss="cross_entropy", rng=seed)
    made.classes, made.image_shape = ("ant", "bee", "cat"), (2, 2)
    return made


def test_a_network_is_described_with_its_arrays(path):
    layers = [Dense(4, 5), BatchNorm(5), Dropout(0.2), Dense(5, 3)]
    made = Network(layers, loss="cross_entropy", rng=0)
    save(made, path)
    found = inspect(path)
    assert (found["kind"], found["format"], found["model"]["parameters"]) == ("model", 1, made.parameters.size)
    assert (found["model"]["dtype"], found["model"]["classes"]) == ("float32", ["0", "1", "2"])
    report = rows(path)
    assert report["layers"].startswith("Dense(4, 5) → BatchNorm(n=5")
    assert (report["inputs"], report["loss"], report["classes"]) == ("4 numbers", "CrossEntropy()", "3: 0, 1, 2")
    W = next(array for array in found["arrays"] if array["name"] == "0.weight")
    assert (W["shape"], W["dtype"]) == ([5, 4], "float32")
    assert (W["minimum"], W["maximum"]) == (made.layers[0].W.min(), made.layers[0].W.max())
    assert W["norm"] == pytest.approx(np.linalg.norm(made.layers[0].W))


def test_nested_wrappers_are_described_from_the_outermost(path):
    model = Preprocessed(Ensemble([TestTimeAugmentation(network(i), 5) for i in range(2)]), Deskew(4, 4, 2))
    save(model, path)
    found = inspect(path)["model"]
    assert (found["type"], found["image_shape"]) == ("Preprocessed", [4, 4])
    assert [member["shifts"] for member in found["model"]["members"]] == [5, 5]
    assert found["model"]["members"][0]["model"]["layers"] == ["Dense(4, 5)", "Sigmoid()", "Dense(5, 3)"]
    lines = [line.split(maxsplit=1) for line in format_report(inspect(path), arrays=False)]
    assert lines[1:] == [
        ["inputs", "images of 4 x 4 pixels"],
        ["preprocessing", "Deskew(height=4, width=4, shrink=2)"],
        ["ensemble", "mean over 2 members with the same structure:"],
        ["augmentation", "mean over 5 shifts (test-time augmentation)"],
        ["layers", "Dense(4, 5) → Sigmoid() → Dense(5, 3)"],
        ["loss", "CrossEntropy()"],
        ["parameters", "86, float32"],
        ["classes", "3: ant, bee, cat"],
    ]


def test_different_members_of_an_ensemble_are_described_one_by_one(path):
    save(Ensemble([network(0), TestTimeAugmentation(network(1, hidden=6))]), path)
    lines = list(format_report(inspect(path), arrays=False))
    assert "handgrad model, format 1" in lines[0]
    assert any("member 0" in line and "Dense(4, 5) → Sigmoid() → Dense(5, 3)" in line for line in lines)
    assert any("member 1" in line and "5 shifts" in line and "Dense(4, 6)" in line for line in lines)


# ---- Checkpoints and estimators --------------------------------------------------------------------------------------


def test_a_checkpoint_is_described_by_its_progress(path):
    x = np.random.default_rng(0).random((12, 4))
    callbacks = [EarlyStopping("loss"), Checkpoint(path)]
    trainer = Trainer(network(), Adam(), batch_size=6, callbacks=callbacks, rng=0)
    trainer.fit(x, np.arange(12) % 3, epochs=2)
    found = inspect(path)
    assert (found["kind"], found["epoch"], found["optimizer"], found["steps"]) == ("checkpoint", 2, "Adam", 4)
    assert found["callbacks"] == 1
    assert found["last"]["loss"] == trainer.history["loss"][-1]
    assert rows(path)["optimizer"] == "Adam, 4 steps"


@pytest.mark.parametrize("state", [{"history": {}}, {"history": {"loss": [], "lr": 5, "x": [[1]]}, "epoch": [CONTROL]}])
def test_a_checkpoint_with_missing_entries_is_described(state, path):
    metadata = {"handgrad": json.dumps({"format": 1, "state": state})}
    safetensors.numpy.save_file({"a": np.ones(2)}, path, metadata)
    code, output, _ = run("inspect", path)
    assert code == 0
    assert all(c.isprintable() or c == "\n" for c in output)


def test_estimators_are_described_by_parameters_and_progress(path):
    from handgrad import sklearn

    x = np.random.default_rng(0).random((30, 4))
    options = {"class_weight": {0: 1, 1: 2.5}, "n_iter_no_change": np.inf, "loss": BinaryCrossEntropy(0.1)}
    estimator = sklearn.MLPClassifier((5,), **options, max_iter=2, batch_size=10)
    with pytest.warns(match="Maximum iterations"):
        estimator.fit(x, np.arange(30) % 2)
    sklearn.save(estimator, path)
    found = inspect(path)
    assert (found["kind"], found["estimator"]["type"]) == ("estimator", "MLPClassifier")
    assert (found["estimator"]["epochs"], found["estimator"]["steps"]) == (2, 6)
    assert [array["name"] for array in found["arrays"]] == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert all(array["name"].startswith("training.") for array in found["training"])
    report = " ".join(" ".join(format_report(found)).split())
    for expected in (
        "handgrad estimator, format 1",
        "estimator MLPClassifier activation='relu', ",
        "class_weight={0: 1, 1: 2.5}, ",
        "hidden_layer_sizes=[5], ",
        "loss=BinaryCrossEntropy(label_smoothing=0.1), ",
        "n_iter_no_change=inf, ",
        "epochs 2 optimizer SklearnAdam, 6 steps, lr 0.001",
    ):
        assert expected in report
    estimator.history_["loss"][-1] = np.nan
    sklearn.save(estimator, path)
    described = parse(run("inspect", path, "--json")[1])["estimator"]
    assert (described["last"]["loss"], described["parameters"]["n_iter_no_change"]) == ("nan", "inf")


def test_lbfgs_has_iterations_and_no_optimizer(path):
    from handgrad import sklearn

    x = np.random.default_rng(0).random((30, 4))
    estimator = sklearn.MLPRegressor(solver="lbfgs", tol=1e-2).fit(x, x[:, 0])
    sklearn.save(estimator, path)
    report = rows(path)
    assert report["iterations"] == str(estimator.n_iter_)
    assert report["last"] == f"loss      {estimator.loss_:.6g}"
    assert not {"epochs", "optimizer", "classes"} & set(report)


def write_estimator(path, **changes):
    """Write the file of an estimator, without scikit-learn, with changes to its description."""
    description, arrays = describe_model(network())
    estimator = {
        "type": "MLPClassifier",
        "parameters": {"alpha": 0.1},
        "fitted": {"history_": {"loss": [0.5]}, "loss_curve_": [0.5]},
        "optimizer": {"kind": "SklearnAdam", "steps": 3, "lr": 0.1},
    }
    write_arrays(path, arrays, {"model": description, "estimator": estimator | changes})
    return path


def test_an_estimator_is_described_without_importing_scikit_learn(path):
    program = "import sys; from handgrad.cli import handgrad as run\n"
    program += f"try: run(['inspect', {str(write_estimator(path))!r}])\n"
    program += "finally: assert not {'sklearn', 'scipy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "MLPClassifier" in done.stdout


def nested(levels):
    value = 5
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"type": [1]},
        {"parameters": 5},
        {"parameters": {"alpha": nested(500)}},
        {"fitted": None},
        {"fitted": {"history_": 5}},
        {"fitted": {"history_": {"loss": {"a": 1}}}},
        {"fitted": {"history_": {"loss": [nested(3)]}}},
        {"fitted": {"loss_curve_": 5}},
        {"fitted": {"n_iter_": [CONTROL]}},
        {"optimizer": "Adam"},
        {"optimizer": {"kind": {"a": CONTROL}}},
    ],
)
def test_an_inconsistent_estimator_prints_one_line(changes, path):
    assert_one_line_error(write_estimator(path, **changes), "inconsistent description of the estimator")


@pytest.mark.parametrize("value", [5, None, [], "", [CONTROL]])
def test_an_estimator_that_is_not_a_mapping_prints_one_line(value, path):
    description, arrays = describe_model(network())
    write_arrays(path, arrays, {"model": description, "estimator": value})
    assert_one_line_error(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": CONTROL},
        {"parameters": {f"alpha{CONTROL}": f"b{CONTROL}" * 5000, "loss": {"loss": {"type": [CONTROL]}}}},
        {"parameters": {"class_weight": {"pairs": [5, [CONTROL, 1, 2], []]}, "dropout": {CONTROL: 1}}},
        {"fitted": {"history_": {f"loss{CONTROL}": [CONTROL]}, "n_iter_": CONTROL}},
        {"fitted": {}, "optimizer": {}},
        {"optimizer": {"kind": CONTROL, "steps": CONTROL}},
    ],
)
def test_control_characters_of_an_estimator_are_escaped(changes, path):
    write_estimator(path, **changes)
    code, output, _ = run("inspect", path)
    assert code == 0
    assert all(c.isprintable() or c == "\n" for c in output)
    assert max(map(len, output.splitlines())) < 2100
    assert json.loads(run("inspect", path, "--json")[1])["kind"] == "estimator"


# ---- Files of other programs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"0.weight": np.ones((3, 4)), "0.bias": np.ones(3)}, "possible with handgrad import: Dense(4, 3)"),
        (
            {"a.weight": np.ones((5, 4)), "a.bias": np.ones(5), "b.weight": np.ones((1, 5)), "b.bias": np.ones(1)},
            "possible with handgrad import --activation NAME: Dense(4, 5) → Dense(5, 1)",
        ),
        ({"0.weight": np.ones((3, 4))}, "not possible: '0' has no '0.bias'"),
        ({"conv.weight": np.ones((3, 4, 2, 2)), "conv.bias": np.ones(3)}, "not possible: 'conv' has weights"),
        ({}, "not possible: the model has no dense layer"),
    ],
)
def test_the_report_says_whether_a_file_can_be_imported(arrays, expected, path):
    safetensors.numpy.save_file(arrays, path, {"format": "pt"})
    report = rows(path)
    assert report["format"] == "pt"
    assert expected in report["import"]
    found = inspect(path)["import"]
    options = ["--activation", "relu"] if found.get("needs_activation") else []
    code, _, _ = run("import", path, "--out", path.with_name("out.safetensors"), *options, "--loss", "squared_error")
    assert (code == 0) == found["possible"] == (not expected.startswith("not"))


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool", "float16", "float64"])
def test_arrays_of_other_dtypes_are_described(dtype, path):
    safetensors.numpy.save_file({"a": np.array([0, 1, 1]).astype(dtype)}, path)
    (array,) = inspect(path)["arrays"]
    assert (array["dtype"], array["minimum"], array["maximum"]) == (dtype, 0, 1)
    assert array["norm"] == pytest.approx(np.sqrt(2))


def test_unsupported_dtypes_and_empty_arrays_are_described_by_their_shapes(path):
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    header["b"] = {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    found = inspect(path)
    assert [(array["dtype"], array["shape"]) for array in found["arrays"]] == [("BF16", [2]), ("float32", [0, 3])]
    assert all("norm" not in array for array in found["arrays"])
    assert not found["import"]["possible"]
    assert all(format_report(found))


def test_nan_and_infinity_are_strings_in_json(path):
    safetensors.numpy.save_file({"a": np.array([np.nan, 1]), "b": np.array([np.inf, 1])}, path)
    arrays = parse(run("inspect", path, "--json")[1])["arrays"]
    assert (arrays[0]["norm"], arrays[1]["maximum"]) == ("nan", "inf")


def test_the_report_lists_a_limited_number_of_arrays(path):
    safetensors.numpy.save_file({f"a{i}": np.ones(1) for i in range(MAX_ARRAYS + 7)}, path)
    lines = run("inspect", path)[1].splitlines()
    assert len(lines) == MAX_ARRAYS + 4
    assert lines[-1].strip() == "7 more arrays: --json lists all"
    assert len(json.loads(run("inspect", path, "--json")[1])["arrays"]) == MAX_ARRAYS + 7


# ---- Malicious and damaged files -------------------------------------------------------------------------------------


def test_control_characters_in_names_are_escaped(path):
    metadata = {f"a{CONTROL}": f"b{CONTROL}" * 500}
    safetensors.numpy.save_file({f"x{CONTROL}.weight": np.ones(2)}, path, metadata)
    code, output, _ = run("inspect", path)
    assert code == 0
    assert all(c.isprintable() or c == "\n" for c in output)
    assert max(map(len, output.splitlines())) < 400
    made = Network([4, 3], rng=0)
    made.classes = (f"c{CONTROL}", "d", "e")
    save(made, path)
    assert all(c.isprintable() or c == "\n" for c in run("inspect", path)[1])


def test_control_characters_in_an_error_are_escaped(path):
    save(Network([4, 3], rng=0), path)
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(arrays | {CONTROL: arrays["0.bias"]}, path, metadata)
    assert_one_line_error(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not a safetensors file"),
        (b"\xff" * 100, "is not a safetensors file"),
        (struct.pack("<Q", 1 << 62) + b"{}", "is not a safetensors file"),
        (b"\x80\x04\x95", "is a pickle"),
    ],
)
def test_a_file_of_another_type_prints_one_line(content, match, path):
    path.write_bytes(content)
    assert_one_line_error(path, match)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[" * 100_000, "5", '{"format": 99}', '{"format": 1}', '{"format": 1, "state": 5}'),
        *('{"format": 1, "model": 5}', '{"format": 1, "model": {"type": "Ensemble", "members": 5}}'),
    ],
)
def test_invalid_metadata_prints_one_line(text, path):
    safetensors.numpy.save_file({"a": np.ones(2)}, path, {"handgrad": text})
    assert_one_line_error(path)


def test_printable_returns_one_line_of_limited_length():
    assert printable("cat ü") == "cat ü"
    assert printable(CONTROL) == r"\x1b[31m\n\r\x07\u202e"
    assert printable("a" * 300, max_length=10) == "aaaaaaa..."
