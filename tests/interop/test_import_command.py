"""The command handgrad import."""

import os

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from handgrad import Network, cli, interop, load, save

RNG = np.random.default_rng(0)


def run(*arguments):
    """(exit code, stdout, stderr) of a command."""
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def state_file(tmp_path):
    """The state dict of Linear(4, 5), an activation, Linear(5, 3)."""
    state = {}
    for name, n_in, n_out in (("0", 4, 5), ("2", 5, 3)):
        state[f"{name}.weight"] = RNG.standard_normal((n_out, n_in)).astype(np.float32)
        state[f"{name}.bias"] = RNG.standard_normal(n_out).astype(np.float32)
    safetensors.numpy.save_file(state, tmp_path / "state.safetensors")
    return tmp_path / "state.safetensors"


def test_import_writes_a_model_and_describes_it(state_file, tmp_path):
    options = ("--activation", "tanh", "--classes", "ant,bee,cat", "--image-shape", "2x2")
    options += ("--loss", "binary_cross_entropy")
    code, output, errors = run("import", state_file, "--out", tmp_path / "m.safetensors", *options)
    assert (code, errors) == (0, "")
    assert "Dense(4, 5) → Tanh() → Dense(5, 3)" in output
    network = load(tmp_path / "m.safetensors")
    assert (network.classes, network.image_shape) == (("ant", "bee", "cat"), (2, 2))
    assert repr(network.loss) == "BinaryCrossEntropy()"
    x = RNG.random((7, 4))
    expected = interop.from_torch(state_file, activation="tanh").outputs(x)
    np.testing.assert_array_equal(network.outputs(x), expected)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((), "give activation='relu'"),
        (("--activation", "relu,tanh"), "2 names for 1 hidden layers"),
        (("--activation", "relu", "--classes", "a,b"), "classes has 2 names: expected 3"),
        (("--activation", "relu", "--image-shape", "28x28"), "image_shape must be (height, width) with 4 pixels"),
        (("--activation", "relu", "--image-shape", "28"), "28x28"),
        (("--activation", "relu", "--out", "state.safetensors"), "is the input file"),
        (("--activation", "relu", "--out", "none/m.safetensors"), "none/m.safetensors"),
        (("--activation", "relu", "--loss", "mse"), "unknown loss 'mse'"),
    ],
)
def test_an_invalid_import_prints_one_line_and_writes_nothing(arguments, match, state_file, monkeypatch):
    monkeypatch.chdir(state_file.parent)
    code, output, errors = run("import", "state.safetensors", "--out", "m.safetensors", *arguments)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert match in errors
    assert os.listdir() == ["state.safetensors"]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("m.pt", b"PK\x03\x04", "is a pickle or a zip of pickles"),
        ("m.pth", b"\x80\x04\x95", "safetensors.torch.save_file(torch.load(FILE, weights_only=True)"),
        ("m.h5", b"\x89HDF\r\n", "keras.models.load_model('m.h5').save('m.keras')"),
        ("m.safetensors", b"", "is not a safetensors file"),
    ],
)
def test_a_file_of_another_type_prints_one_line_that_says_what_to_do(name, content, match, tmp_path):
    (tmp_path / name).write_bytes(content)
    code, output, errors = run("import", tmp_path / name, "--out", tmp_path / "out.safetensors", "--activation", "relu")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert match in errors


def test_a_handgrad_file_is_not_imported(tmp_path):
    save(Network([4, 3], rng=0), tmp_path / "m.safetensors")
    _, _, errors = run("import", tmp_path / "m.safetensors", "--out", tmp_path / "out.safetensors")
    assert "is a handgrad file: read it with handgrad.load" in errors
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.parametrize("command", [("evaluate",), ("export", "--to", "python")])
def test_other_commands_point_to_import_for_a_state_dict(command, state_file):
    code, output, errors = run(command[0], state_file, *command[1:])
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert f"run handgrad import {state_file}" in errors
