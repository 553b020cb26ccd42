"""What is in a file is told as it is, and of a file that means harm nothing but text comes out."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from handgrad import BatchNorm, Ensemble, BinaryCrossEntropy, Dense, Deskew, Dropout, Network, cli, save
from handgrad.diagnostics.inspect import ESTIMATORS, SHOWN, inspect, plain, told

EARLIER = Path(__file__).parent / "files"


def within(*arguments):
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def lines(path):
    return dict(line.strip().split(maxsplit=1) for line in told(inspect(path), arrays=False))


def test_a_network_is_told_as_it_is(tmp_path):
    chain = [Dense(4, 5), BatchNorm(5), Dropout(0.2), Dense(5, 3)]
    network = Network(chain, loss="cross_entropy", rng=0, preprocessing=Deskew(4, 4, 2))
    network.classes, network.image_shape = ("ant", "bee", "cat"), (4, 4)
    network.views = 5
    save(network, tmp_path / "m.safetensors")
    found = inspect(tmp_path / "m.safetensors")
    assert (found["kind"], found["format"], found["parameters"]) == ("network", 2, network.parameters.size)
    assert (found["dtype"], found["classes"], found["image_shape"]) == ("float32", ["ant", "bee", "cat"], [4, 4])
    assert found["preprocessing"] == "Deskew(height=4, width=4, shrink=2)"
    rows = lines(tmp_path / "m.safetensors")
    assert rows["chain"].startswith("Dense(4, 5) → BatchNorm(n=5")
    assert rows["inputs"] == "pictures of 4 x 4 pixels, through Deskew(height=4, width=4, shrink=2)"
    assert (rows["classes"], rows["views"]) == ("3: ant, bee, cat", "the mean over 5 shifts answers")
    W = next(array for array in found["arrays"] if array["name"] == "0.weight")
    assert (W["shape"], W["dtype"]) == ([5, 4], "float32")
    assert (W["smallest"], W["largest"]) == (network.layers[0].W.min(), network.layers[0].W.max())
    assert W["norm"] == pytest.approx(np.linalg.norm(network.layers[0].W))


@pytest.mark.parametrize("same", [True, False])
def test_a_committee_is_told_once_or_chain_by_chain(same, tmp_path):
    members = [Network([4, 5, 3], rng=0), Network([4, 5 if same else 6, 3], rng=1)]
    save(Ensemble(members), tmp_path / "m.safetensors")
    rows = list(told(inspect(tmp_path / "m.safetensors"), arrays=False))
    assert "a handgrad ensemble, format 2" in rows[0]
    assert sum("Dense(4, 5) → Sigmoid() → Dense(5, 3)" in row for row in rows) == 1
    assert sum("Dense(4, 6)" in row for row in rows) == (not same)


def test_a_checkpoint_is_told_by_where_it_stands():
    found = inspect(EARLIER / "checkpoint-1.safetensors")
    assert (found["kind"], found["epoch"], found["optimizer"], found["steps"]) == ("checkpoint", 2, "Adam", 4)
    assert found["callbacks"] == 1
    assert lines(EARLIER / "checkpoint-1.safetensors")["optimizer"] == "Adam, after 4 steps"


def test_an_estimator_is_told_by_what_is_not_the_default_and_where_its_training_stands():
    path = EARLIER / "estimator-3.safetensors"
    found = inspect(path)
    estimator = found["estimator"]
    assert (found["kind"], found["format"], estimator["type"]) == ("estimator", 3, "MLPClassifier")
    assert estimator["changed"] == [
        *("activation", "batch_size", "dtype", "hidden_layer_sizes", "random_state", "solver"),
    ]
    assert (estimator["epochs"], estimator["optimizer"], estimator["steps"]) == (2, "SklearnSGD", 4)
    assert (found["loss"], found["parameters"]) == ("CrossEntropy()", 43)
    assert [array["name"] for array in found["arrays"]] == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert {array["name"] for array in found["training"]} == {f"training.{n}" for n in ("chance", "memory", "order")}
    rows = lines(path)
    assert rows["estimator"] == (
        "MLPClassifier(activation='tanh', batch_size=3, dtype='float32', hidden_layer_sizes=[5], random_state=10, "
        "solver='sgd')"
    )
    assert (rows["epochs"], rows["optimizer"]) == ("2", "SklearnSGD, after 4 steps, lr 0.001")
    said = within("inspect", path)[1].splitlines()
    assert "a handgrad estimator, format 3" in said[0]
    network, training = (next(i for i, line in enumerate(said) if line.startswith(f"  {t} ")) for t in ("array", "of"))
    assert [line.split()[0] for line in said[network + 1 : training]] == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert all(line.startswith("  training.") for line in said[training + 1 :])


def test_no_scikit_learn_is_needed_to_tell_of_an_estimator():
    program = "import sys; from handgrad.cli import handgrad as run\n"
    program += f"try: run(['inspect', {str(EARLIER / 'estimator-3.safetensors')!r}])\n"
    program += "finally: assert not {'sklearn', 'scipy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "MLPClassifier(" in done.stdout


def test_the_defaults_are_the_estimators_own():

    assert {name: files._plain_parameters(make()) for name, make in files.ESTIMATORS.items()} == ESTIMATORS


def test_losses_weights_and_numbers_without_end_are_told_and_the_json_is_one(tmp_path):
    from handgrad import sklearn

    x, path = np.random.default_rng(0).random((30, 4)), tmp_path / "m.safetensors"
    choices = {"class_weight": {0: 1, 1: 2.5}, "n_iter_no_change": np.inf, "loss": BinaryCrossEntropy(0.1)}
    estimator = sklearn.MLPClassifier(**choices, max_iter=2, verbose=np.bool_(False))
    with pytest.warns(match="Maximum iterations"):
        estimator.fit(x, np.arange(30) % 2)
    sklearn.save(estimator, path)
    assert lines(path)["estimator"] == (
        "MLPClassifier(class_weight={0: 1, 1: 2.5}, loss=BinaryCrossEntropy(label_smoothing=0.1), max_iter=2, "
        "n_iter_no_change=inf)"
    )
    estimator.history_["loss"][-1] = np.nan
    sklearn.save(estimator, path)
    text = within("inspect", path, "--json")[1]
    estimator = json.loads(text, parse_constant=lambda constant: pytest.fail(constant))["estimator"]
    assert (estimator["last"]["loss"], estimator["parameters"]["n_iter_no_change"]) == ("nan", "inf")


def test_lbfgs_has_iterations_and_no_optimizer(tmp_path):
    from handgrad import sklearn

    x = np.random.default_rng(0).random((30, 4))
    estimator = sklearn.MLPRegressor(solver="lbfgs", tol=1e-2).fit(x, x[:, 0])
    sklearn.save(estimator, tmp_path / "m.safetensors")
    rows = lines(tmp_path / "m.safetensors")
    assert rows["estimator"] == "MLPRegressor(solver='lbfgs', tol=0.01)"
    assert rows["iterations"] == str(estimator.n_iter_)
    assert rows["last"] == f"loss      {estimator.loss_:.6g}"
    assert not {"epochs", "optimizer", "classes"} & set(rows)


@pytest.mark.parametrize("path", sorted(EARLIER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_file_of_an_earlier_version_is_told(path):
    code, said, errors = within("inspect", path)
    assert (code, errors) == (0, "")
    assert f"format {path.stem[-1]}" in said
    assert json.loads(within("inspect", path, "--json")[1]) == inspect(path)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"0.weight": np.ones((3, 4)), "0.bias": np.ones(3)}, "can take it: Dense(4, 3)"),
        (
            {"a.weight": np.ones((5, 4)), "a.bias": np.ones(5), "b.weight": np.ones((1, 5)), "b.bias": np.ones(1)},
            "can take it, with --activation: Dense(4, 5) → Dense(5, 1)",
        ),
        ({"0.weight": np.ones((3, 4))}, "cannot take it: '0' has no '0.bias'"),
        (
            {"conv.weight": np.ones((3, 4, 2, 2)), "conv.bias": np.ones(3)},
            "cannot take it: 'conv' has weights",
        ),
        ({}, "cannot take it: there is no dense layer"),
    ],
)
def test_of_anybodys_file_it_tells_whether_import_takes_it(arrays, expected, tmp_path):
    safetensors.numpy.save_file(arrays, tmp_path / "m.safetensors", {"format": "pt"})
    rows = lines(tmp_path / "m.safetensors")
    assert rows["format"] == "pt"
    assert expected in rows["import"]
    found = inspect(tmp_path / "m.safetensors")["import"]
    assert found["possible"] == ("can take" in expected)
    options = [] if not found.get("needs_activation") else ["--activation", "relu"]
    options += ["--loss", "squared_error"]
    code, _, _ = within("import", tmp_path / "m.safetensors", "--out", tmp_path / "out.safetensors", *options)
    assert code == (0 if found["possible"] else 2)


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool", "float16", "float64"])
def test_arrays_of_other_types_are_told_too(dtype, tmp_path):
    safetensors.numpy.save_file({"a": np.array([0, 1, 1]).astype(dtype)}, tmp_path / "m.safetensors")
    (array,) = inspect(tmp_path / "m.safetensors")["arrays"]
    assert (array["dtype"], array["smallest"], array["largest"]) == (dtype, 0, 1)
    assert array["norm"] == pytest.approx(np.sqrt(2))


def raw_file(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_numbers_that_numpy_does_not_have_and_none_at_all_are_told_by_their_shape(tmp_path):
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    header["b"] = {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]}
    found = inspect(raw_file(tmp_path / "m.safetensors", header, bytes(4)))
    assert [(array["dtype"], array["shape"]) for array in found["arrays"]] == [("BF16", [2]), ("float32", [0, 3])]
    assert all("norm" not in array for array in found["arrays"])
    assert not found["import"]["possible"]
    assert all(list(told(found)))


def test_numbers_that_are_not_finite_are_told_and_the_json_is_one(tmp_path):
    safetensors.numpy.save_file({"a": np.array([np.nan, 1]), "b": np.array([np.inf, 1])}, tmp_path / "m.safetensors")
    text = within("inspect", tmp_path / "m.safetensors", "--json")[1]
    arrays = json.loads(text, parse_constant=lambda constant: pytest.fail(constant))["arrays"]
    assert (arrays[0]["norm"], arrays[1]["largest"]) == ("nan", "inf")


EVIL = "\x1b[31m\n\r\x07\u202e"


def test_what_a_file_calls_itself_moves_no_cursor(tmp_path):
    metadata = {f"a{EVIL}": f"b{EVIL}" * 500}
    safetensors.numpy.save_file({f"x{EVIL}.weight": np.ones(2)}, tmp_path / "m.safetensors", metadata)
    code, said, _ = within("inspect", tmp_path / "m.safetensors")
    assert code == 0
    assert all(c.isprintable() or c == "\n" for c in said)
    assert max(map(len, said.splitlines())) < 400
    network = Network([4, 3], rng=0)
    network.classes = (f"c{EVIL}", "d", "e")
    save(network, tmp_path / "m.safetensors")
    assert all(c.isprintable() or c == "\n" for c in within("inspect", tmp_path / "m.safetensors")[1])


def test_an_error_that_holds_a_name_from_the_file_is_one_line(tmp_path):
    save(Network([4, 3], rng=0), tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(arrays | {EVIL: arrays["0.bias"]}, tmp_path / "m.safetensors", metadata)
    code, said, errors = within("inspect", tmp_path / "m.safetensors")
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert errors.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no safetensors file"),
        (b"\xff" * 100, "no safetensors file"),
        (struct.pack("<Q", 1 << 62) + b"{}", "no safetensors file"),
        (b"\x80\x04\x95", "looks like a pickle"),
        (b"PK\x03\x04", "looks like a pickle"),
    ],
)
def test_what_is_no_file_of_arrays_is_one_line(content, match, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(content)
    code, said, errors = within("inspect", tmp_path / "m.safetensors")
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert match in errors


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "5",
        '{"format": 99}',
        '{"format": 1}',
        '{"format": 1, "state": 5}',
        '{"format": 2, "members": 5}',
    ],
)
def test_metadata_that_means_nothing_is_one_line(text, tmp_path):
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "m.safetensors", {"handgrad": text})
    code, said, errors = within("inspect", tmp_path / "m.safetensors")
    assert (code, said, errors.count("\n")) == (2, "", 1)


def changed_estimator(path, **changes):
    """The small estimator's file, what it says of itself changed."""
    arrays = safetensors.numpy.load_file(EARLIER / "estimator-3.safetensors")
    with safetensors.safe_open(EARLIER / "estimator-3.safetensors", framework="numpy") as file:
        description = json.loads(file.metadata()["handgrad"])
    description["estimator"] |= changes
    safetensors.numpy.save_file(arrays, path, {"handgrad": json.dumps(description)})
    return path


def nested(levels):
    value = 5
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "MLPGuesser"},
        {"type": EVIL},
        {"type": [1]},
        {"parameters": 5},
        {"parameters": {"alpha": nested(500)}},
        {"fitted": None},
        {"fitted": {"history_": 5}},
        {"fitted": {"history_": {"loss": {"a": 1}}}},
        {"fitted": {"history_": {"loss": [nested(3)]}}},
        {"fitted": {"loss_curve_": 5}},
        {"fitted": {"n_iter_": [EVIL]}},
        {"optimizer": "Adam"},
        {"optimizer": {"kind": {"a": EVIL}}},
    ],
)
def test_an_estimator_that_does_not_hold_together_is_one_line(changes, tmp_path):
    code, said, errors = within("inspect", changed_estimator(tmp_path / "m.safetensors", **changes))
    assert (code, said, errors.count("\n")) == (2, "", 1)
    assert "what it says of its estimator does not hold together" in errors
    assert errors.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {f"alpha{EVIL}": f"b{EVIL}" * 5000, "loss": {"loss": {"type": [EVIL]}}}},
        {"parameters": {"class_weight": {"pairs": [5, [EVIL, 1, 2], []]}, "dropout": {EVIL: 1}}},
        {"fitted": {"history_": {f"loss{EVIL}": [EVIL]}, "n_iter_": EVIL}},
        {"fitted": {}, "optimizer": {}},
        {"optimizer": {"kind": EVIL, "steps": EVIL}},
    ],
)
def test_what_an_estimator_calls_itself_moves_no_cursor(changes, tmp_path):
    path = changed_estimator(tmp_path / "m.safetensors", **changes)
    code, said, _ = within("inspect", path)
    assert code == 0
    assert all(c.isprintable() or c == "\n" for c in said)
    assert max(map(len, said.splitlines())) < 2100
    assert json.loads(within("inspect", path, "--json")[1])["kind"] == "estimator"


@pytest.mark.parametrize("value", [5, None, [], "", [EVIL]])
def test_an_estimator_that_is_none_is_one_line(value, tmp_path):
    path = changed_estimator(tmp_path / "m.safetensors")
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["handgrad"]) | {"estimator": value}
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(arrays, path, {"handgrad": json.dumps(description)})
    code, said, errors = within("inspect", path)
    assert (code, said, errors.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("state", [{"history": {}}, {"history": {"loss": [], "lr": 5, "x": [[1]]}, "epoch": [EVIL]}])
def test_a_checkpoint_that_says_little_is_told_all_the_same(state, tmp_path):
    metadata = {"handgrad": json.dumps({"format": 1, "state": state})}
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "m.safetensors", metadata)
    code, said, _ = within("inspect", tmp_path / "m.safetensors")
    assert code == 0
    assert all(c.isprintable() or c == "\n" for c in said)


def test_so_many_arrays_are_not_told_one_by_one(tmp_path):
    safetensors.numpy.save_file({f"a{i}": np.ones(1) for i in range(SHOWN + 7)}, tmp_path / "m.safetensors")
    said = within("inspect", tmp_path / "m.safetensors")[1]
    assert len(said.splitlines()) == SHOWN + 4
    assert "and 7 more: --json tells of all" in said
    assert len(json.loads(within("inspect", tmp_path / "m.safetensors", "--json")[1])["arrays"]) == SHOWN + 7


def test_a_text_is_plain_when_it_is_in_one_line_and_short():
    assert plain("cat ü") == "cat ü"
    assert plain(EVIL) == r"\x1b[31m\n\r\x07\u202e"
    assert plain("a" * 300, most=10) == "aaaaaaa..."
