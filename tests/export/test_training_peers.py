"""Training scripts for PyTorch and Keras end with handgrad's weights, and have its schedules and initializers."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")

from handgrad import Dense, save
from handgrad.data.idx import write_idx
from handgrad.data.synthetic import synthetic_digits
from handgrad.export import export
from handgrad.recipes import RECIPES
from handgrad.schedules import SCHEDULES

KERAS_WARNING = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings(KERAS_WARNING)]

SETTINGS = {
    "post": {},
    "momentum": {"optimizer": "momentum", "lr": 0.05, "loss": "cross_entropy"},
    "nesterov": {"optimizer": "nesterov", "lr": 0.05, "loss": "squared_error", "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "lr": 0.003, "schedule": "one_cycle", "label_smoothing": 0.1},
    "adamw": {"optimizer": "adamw", "lr": 0.003, "schedule": "cosine", "loss": "cross_entropy"},
    "hog": {"hog": 4, "optimizer": "adam", "lr": 0.003, "loss": "cross_entropy"},
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
# The tolerance of the outputs. Keras adds the ε of Adam elsewhere, and its running variance has the divisor n.
TOLERANCE = 5e-4
LARGER_TOLERANCE = {("keras", "batch_norm"): 0.05}


def short_recipe(name, **settings):
    """A short training of a small network. With 250 digits the last batch is smaller."""
    small = {"hidden": (12, 9), "init": "xavier_normal", "epochs": 2, "validation": 0, "batch_size": 32}
    return RECIPES["post"].replace(**small | SETTINGS[name] | settings)


def imported(path):
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}_{os.urandom(4).hex()}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layers_of(script):
    """The layers of the network: PyTorch's Sequential is a sequence of them, Keras's has a list."""
    return list(getattr(script.network, "layers", script.network))


@pytest.fixture(scope="module")
def digits():
    x, y, _, _ = synthetic_digits(250, 1, seed=3)
    return x, y


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("target", ["torch", "keras"])
def test_a_training_script_ends_with_the_weights_of_handgrad(target, name, digits, tmp_path, monkeypatch, capsys):
    """From the same initial weights, with the same order of the examples."""
    x, y = digits
    recipe = short_recipe(name)
    trainer, twin = recipe.trainer(), recipe.trainer()
    network = trainer.network
    export(network, tmp_path / "net.py", to=target, train=recipe)
    script = imported(tmp_path / "net.py")
    initial = network.parameters.copy()
    trainer.fit(x, y, epochs=2)
    assert np.abs(network.parameters - initial).max() > 0.01

    if target == "torch":
        torch = pytest.importorskip("torch")
        save(twin.network, tmp_path / "initial.safetensors")
        from safetensors.torch import load_file

        script.network.load_state_dict(load_file(tmp_path / "initial.safetensors"))
        monkeypatch.setattr(torch, "randperm", lambda count: torch.from_numpy(twin.shuffling.permutation(count)))
    else:
        for ours, theirs in zip(twin.network.layers, layers_of(script), strict=True):
            if isinstance(ours, Dense):
                theirs.set_weights([ours.W.T, ours.b])
        script.shuffling = twin.shuffling
    script.train(script.to_floats(x), script.to_targets(y))
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert losses == pytest.approx(trainer.history["loss"], abs=1e-3)
    z = script.network(script.to_floats(x)).detach().numpy()
    np.testing.assert_allclose(z, network.outputs(x), rtol=0, atol=LARGER_TOLERANCE.get((target, name), TOLERANCE))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("momentum", {"optimizer": "nesterov"}),
        ("nesterov", {"weight_decay": 0.0}),
        ("adam", {"label_smoothing": 0.0}),
        ("adamw", {"weight_decay": 0.1}),
        ("hog", {"hog": 5}),
        ("hog", {"hog_order": 2}),
        ("batch_norm", {"schedule": "cosine"}),
    ],
)
def test_the_tolerance_detects_a_setting_that_a_script_ignores(name, changed, digits):
    outputs = []
    for recipe in (short_recipe(name), short_recipe(name, **changed)):
        trainer = recipe.trainer()
        trainer.fit(*digits, epochs=2)
        outputs.append(trainer.network.outputs(digits[0]))
    assert np.abs(outputs[0] - outputs[1]).max() > 2 * TOLERANCE


@pytest.mark.parametrize("target", ["torch", "keras"])
def test_a_training_script_run_as_a_program_is_as_accurate_as_handgrad(target, tmp_path):
    """With the settings of the recipe quick: BatchNorm, Adam with a one-cycle schedule, deskewed images."""
    arrays = synthetic_digits(2000, 500, seed=1)
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for file, array in zip(names, arrays, strict=True):
        write_idx(tmp_path / file, array)
    recipe = RECIPES["quick"].replace(hidden=(64, 64), epochs=3, validation=200)
    model = recipe.train(arrays[0], arrays[1], 10)
    ours = model.evaluate(arrays[2], arrays[3]).accuracy
    assert ours > 0.75
    export(model, tmp_path / "net.py", to=target, train=recipe)
    warnings = [] if target == "keras" else ["-W", "error"]
    command = [sys.executable, *warnings, tmp_path / "net.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    *epochs, validation, test = done.stdout.splitlines()
    assert len(epochs) == 3
    assert validation.startswith("validation: ")
    assert validation.split()[3:5] == ["200", "correct"]
    theirs = int(test.split()[1]) / int(test.split()[3])
    assert theirs == pytest.approx(ours, abs=0.03)
    assert len([path for path in tmp_path.iterdir() if "trained" in path.name]) == 1


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_equal_those_of_handgrad(name, tmp_path):
    pytest.importorskip("torch", reason="make test-peers installs it")
    recipe = short_recipe("adam", schedule=name)
    export(recipe.trainer().network, tmp_path / "net.py", to="torch", train=recipe)
    script, ours = imported(tmp_path / "net.py"), SCHEDULES[name]()
    if name == "constant":
        assert not hasattr(script, "schedule")
    else:
        factors = [script.schedule(epoch, 7) for epoch in np.linspace(0, 7, 50)]
        np.testing.assert_allclose(factors, [ours(epoch, 7) for epoch in np.linspace(0, 7, 50)], rtol=1e-12)


@pytest.mark.parametrize("init", ["normal", "lecun", "xavier_normal", "xavier_uniform", "kaiming_normal"])
@pytest.mark.parametrize("target", ["torch", "keras"])
def test_initial_weights_have_the_distribution_of_handgrad(target, init, tmp_path):
    recipe = short_recipe("post", hidden=(300, 200), init=init)
    network = recipe.trainer().network
    export(network, tmp_path / "net.py", to=target, train=recipe)
    for ours, theirs in zip(network.layers, layers_of(imported(tmp_path / "net.py")), strict=True):
        if isinstance(ours, Dense) and ours.n_out > 10:
            weights = theirs.parameters() if target == "torch" else theirs.get_weights()
            W, b = (a.detach().numpy() if target == "torch" else a for a in weights)
            assert W.std() == pytest.approx(ours.W.std(), rel=0.03)
            assert np.abs(W).max() == pytest.approx(np.abs(ours.W).max(), rel=0.4)
            assert b.std() == pytest.approx(ours.b.std(), rel=0.15)
