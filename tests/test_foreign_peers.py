"""What comes in from PyTorch and Keras answers as it did there. Needs the extra `peers`: make test-peers."""

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
from handgrad import HandgradError, Network, cli

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),  # Keras's own
]
torch = pytest.importorskip("torch", reason="make test-peers installs it")
h5py = pytest.importorskip("h5py", reason="make test-peers installs it")
os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras", reason="make test-peers installs it")
nn = torch.nn

X = np.random.default_rng(0).random((30, 6))


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

MODELS = {
    "linear": lambda: nn.Sequential(nn.Linear(6, 3)),
    "no-bias": lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3)),
    "activations": lambda: nn.Sequential(
        *(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)),
        *(nn.LeakyReLU(0.2), nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 5), nn.GELU(approximate="tanh")),
        *(nn.Identity(), nn.Linear(5, 3)),
    ),
    "batch-norm": lambda: nn.Sequential(
        *(nn.BatchNorm1d(6, momentum=0.2), nn.Linear(6, 5), nn.BatchNorm1d(5, eps=1e-3, affine=False), nn.ReLU()),
        *(nn.Dropout(0.4), nn.Linear(5, 3)),
    ),
    "nested": lambda: nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(6, 5), nn.ReLU()), nn.Sequential(nn.Sequential(nn.Linear(5, 3)))
    ),
}


def made(name: str, dtype: Any = None) -> Any:
    """One of the models, its running statistics moved, about to answer."""
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype or torch.float64)
    model.train()
    for _ in range(3):
        model(torch.from_numpy(X).to(dtype or torch.float64))
    return model.eval()


def answers(model: Any, x: np.ndarray = X) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(x).to(next(model.parameters()).dtype)).numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sequential_answers_as_it_did(name: str, dtype: Any) -> None:
    model = made(name, dtype)
    network = interop.from_torch(model)
    assert str(network.dtype) == str(dtype).removeprefix("torch.")
    tolerance = 1e-6 if dtype is torch.float32 else 1e-12
    np.testing.assert_allclose(network.outputs(X.astype(network.dtype)), answers(model), rtol=0, atol=tolerance)


def test_a_module_that_comes_twice_is_taken_twice_unless_it_has_weights() -> None:
    act, drop, fc, norm = nn.ReLU(), nn.Dropout(), nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)
    chain = [nn.Linear(6, 4), act, drop, nn.Linear(4, 4), act, drop, nn.Linear(4, 2)]
    model = nn.Sequential(*chain).double().eval()
    np.testing.assert_allclose(interop.from_torch(model).outputs(X), answers(model), rtol=0, atol=1e-12)
    for twice in (fc, norm):
        with pytest.raises(HandgradError, match=r"'Sequential\[3\] \w+' has the same weights as 'Sequential\[1\]"):
            interop.from_torch(nn.Sequential(nn.Linear(6, 4), twice, act, twice))


@pytest.mark.parametrize("ending", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_the_activation_at_the_end_is_what_probabilities_are(ending: str) -> None:
    last = nn.Sigmoid() if ending == "Sigmoid" else getattr(nn, ending)(dim=1)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), last).double()
    p = interop.from_torch(model).predict_proba(X)
    theirs = np.exp(answers(model)) if ending == "LogSoftmax" else answers(model)
    np.testing.assert_allclose(p, theirs, rtol=0, atol=1e-12)


def test_a_state_dict_and_its_file_answer_as_the_model_did(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    model(torch.from_numpy(X).float())
    model.eval()
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    for given in (model.state_dict(), tmp_path / "state.safetensors"):
        network = interop.from_torch(given, activation="relu")
        np.testing.assert_allclose(network.outputs(X), answers(model), rtol=0, atol=1e-6)


class Net(nn.Module):
    """As the tutorials write it: the activations are in code."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.out(torch.relu(self.fc2(torch.tanh(self.fc1(x)))))


def test_a_module_of_ones_own_comes_in_by_its_state_dict() -> None:
    model = Net().double()
    network = interop.from_torch(model.state_dict(), activation=["tanh", "relu"])
    np.testing.assert_allclose(network.outputs(X), answers(model), rtol=0, atol=1e-12)
    with pytest.raises(HandgradError, match="a Net is no chain that can be read"):
        interop.from_torch(model)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_there_and_back_again_the_bits_are_the_same(batch_norm: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network = Network([6, 5, 4, 3], activation="relu", batch_norm=batch_norm, loss="cross_entropy", rng=0)
    handgrad.save(network, tmp_path / "m.safetensors")
    norms = [[nn.BatchNorm1d(n)] if batch_norm else [] for n in (5, 4)]
    model = nn.Sequential(nn.Linear(6, 5), *norms[0], nn.ReLU(), nn.Linear(5, 4), *norms[1], nn.ReLU(), nn.Linear(4, 3))
    model.load_state_dict(load_file(tmp_path / "m.safetensors"))
    for given, options in ((model, {}), (model.state_dict(), {"activation": "relu"})):
        again = interop.from_torch(given, **options)
        np.testing.assert_array_equal(again.parameters, network.parameters)
        np.testing.assert_array_equal(again.outputs(X), network.outputs(X))


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Conv2d(1, 2, 3), "Conv2d has no equal"),
        (nn.ELU(), "ELU has no equal"),
        (nn.GELU(), "GELU\\(approximate='none'\\) has no equal"),
        (nn.Softplus(2), "Softplus\\(beta=2, threshold=20.0\\) has no equal"),
        (nn.LayerNorm(3), "LayerNorm has no equal"),
        (nn.BatchNorm1d(3, track_running_stats=False), "keeps no running statistics"),
        (nn.BatchNorm1d(3, momentum=None), "keeps no running statistics"),
        (nn.Linear(3, 3).half(), "float32 .*, float16"),
        (nn.Linear(3, 3).bfloat16(), "no array that NumPy can hold"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), "ParametrizedLinear has no equal"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(module: Any, match: str) -> None:
    with pytest.raises(HandgradError, match=match) as caught:
        interop.from_torch(nn.Sequential(nn.Linear(4, 3), module))
    assert "\n" not in str(caught.value)


# ---- Keras -----------------------------------------------------------------------------------------------------------

L = keras.layers
KERAS_MODELS = {
    "softmax": lambda: [L.Input((6,)), L.Dense(5, activation="relu"), L.Dense(3, activation="softmax")],
    "sigmoid": lambda: [L.Input((6,)), L.Dense(5, activation="tanh", name="mine"), L.Dense(3, activation="sigmoid")],
    "numbers": lambda: [L.Input((6,)), L.Dense(5, activation="leaky_relu"), L.Dense(2)],
    "layers": lambda: [
        *(L.Input((2, 3)), L.Flatten(), L.Dense(5, use_bias=False), L.BatchNormalization(momentum=0.5), L.ReLU()),
        *(L.Dropout(0.3), L.Dense(4), L.LeakyReLU(negative_slope=0.3), L.Dense(4), L.Activation("softplus")),
        *(L.BatchNormalization(center=False, scale=False), L.Dense(3), L.Softmax()),
    ],
}


def keras_model(name: str, functional: bool = False) -> Any:
    """One of the models, every number of it moved."""
    layers = KERAS_MODELS[name]()
    if functional:
        x = begin = layers[0]
        for layer in layers[1:]:
            x = layer(x)
        model = keras.Model(begin, x)
    else:
        model = keras.Sequential(layers)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.3 * rng.random(w.shape).astype(np.float32) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("functional", [False, True], ids=["sequential", "functional"])
@pytest.mark.parametrize("name", KERAS_MODELS)
def test_a_keras_model_and_its_file_answer_as_they_did(name: str, functional: bool, tmp_path: Path) -> None:
    model = keras_model(name, functional)
    x = X.astype(np.float32).reshape(30, *model.input_shape[1:])
    theirs = model.predict(x, verbose=0)
    model.compile(optimizer="adam", loss="mse")
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        network = interop.from_keras(given)
        np.testing.assert_allclose(network.predict_proba(x), theirs, rtol=0, atol=1e-6)
        assert network.image_shape == ((2, 3) if name == "layers" else None)


def test_a_keras_layer_that_comes_twice_is_taken_twice_unless_it_has_weights() -> None:
    act, fc = L.ReLU(), L.Dense(6)
    model = keras.Sequential([L.Input((6,)), L.Dense(4), act, L.Dense(4), act, L.Dense(2)])
    theirs = model.predict(X.astype(np.float32), verbose=0)
    np.testing.assert_allclose(interop.from_keras(model).outputs(X.astype(np.float32)), theirs, rtol=0, atol=1e-6)
    with pytest.raises(HandgradError, match=r"\(Dense\)' comes more than once"):
        interop.from_keras(keras.Sequential([L.Input((6,)), fc, fc]))


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_keras_model_that_is_not_built_says_so(tmp_path: Path) -> None:
    model = keras.Sequential([L.Dense(4), L.Dense(2)])
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        with pytest.raises(HandgradError, match="is not built, and has no weights yet: call it once"):
            interop.from_keras(given)


def test_what_a_keras_model_was_compiled_with_is_its_loss_or_refused(tmp_path: Path) -> None:
    model = keras.Sequential([L.Input((6,)), L.Dense(2)])
    for loss in (keras.losses.Huber(delta=0.3), [keras.losses.Huber(delta=0.3)]):
        model.compile(loss=loss)
        assert repr(interop.from_keras(model).loss) == "Huber(delta=0.3)"
    model.compile(loss=keras.losses.Huber(delta=0.3))
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        kept = "delta" in json.loads(archive.read("config.json"))["compile_config"]["loss"]["config"]
    if not kept:  # Keras 3.15
        with pytest.raises(HandgradError, match=r"m\.keras: .*'Huber', whose delta Keras does not keep"):
            interop.from_keras(tmp_path / "m.keras")
    given = interop.from_keras(tmp_path / "m.keras", loss=handgrad.Huber(0.3))
    assert repr(given.loss) == "Huber(delta=0.3)"
    for unequal in ("poisson", "binary_focal_crossentropy", keras.losses.Tversky()):
        model.compile(loss=unequal)
        with pytest.raises(HandgradError, match=r"was compiled with the loss .*: give loss, one of"):
            interop.from_keras(model)
    known = [("mse", "SquaredError()"), (keras.losses.mean_absolute_error, "AbsoluteError()")]
    for name, expected in [*known, (keras.losses.LogCosh(), "LogCosh()"), (keras.losses.Huber(), "Huber(delta=1.0)")]:
        model.compile(loss=name)
        assert repr(interop.from_keras(model).loss) == expected


def test_a_keras_model_of_counts_is_poissons() -> None:
    model = keras.Sequential([L.Input((6,)), L.Dense(2, activation="exponential")])
    model.compile(loss=keras.losses.Poisson())
    network = interop.from_keras(model)
    assert repr(network.loss) == "Poisson()"
    theirs = model.predict(X.astype(np.float32), verbose=0)
    np.testing.assert_allclose(network.predict_proba(X.astype(np.float32)), theirs, rtol=1e-5)


def test_a_keras_file_is_imported_from_the_command_line(tmp_path: Path) -> None:
    keras_model("softmax").save(tmp_path / "m.keras")
    arguments = ["import", str(tmp_path / "m.keras"), "--out", str(tmp_path / "m.safetensors"), "--classes", "a,b,c"]
    done = CliRunner().invoke(cli.handgrad, arguments)
    assert done.exit_code == 0, done.output
    assert "Dense(6, 5) → ReLU() → Dense(5, 3)" in done.output
    network = handgrad.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(network.outputs(X), interop.from_keras(tmp_path / "m.keras").outputs(X))
    refused = CliRunner().invoke(cli.handgrad, [*arguments, "--activation", "relu"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([L.Input((6, 6, 1)), L.Conv2D(2, 3), L.Flatten(), L.Dense(3)], "\\(Conv2D\\)"),
        ([L.Input((6,)), L.Dense(3, activation="gelu")], "the activation 'gelu'"),
        ([L.Input((6,)), L.Dense(3), L.LayerNormalization()], "\\(LayerNormalization\\)' has no equal"),
        ([L.Input((2, 6)), L.Dense(3)], "inputs of shape \\(2, 6\\): expected a Flatten"),
        ([L.Input((6,)), L.Dense(3, activation=keras.layers.LeakyReLU())], "the activation 'LeakyReLU'"),
    ],
)
def test_what_keras_has_and_handgrad_has_not_is_refused_by_name(layers: Any, match: str, tmp_path: Path) -> None:
    model = keras.Sequential(layers)
    model.save(tmp_path / "m.keras")
    for given in (model, tmp_path / "m.keras"):
        with pytest.raises(HandgradError, match=match) as caught:
            interop.from_keras(given)
        assert "\n" not in str(caught.value)


# ---- Files that are damaged, or mean harm ----------------------------------------------------------------------------


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    keras_model("softmax").save(tmp_path / "m.keras")
    return tmp_path / "m.keras"


def rewritten(path: Path, change: Any = lambda config: None, weights: Any = lambda file: None) -> Path:
    """The file with another config.json, and other weights."""
    with zipfile.ZipFile(path) as archive:
        config, held = json.loads(archive.read("config.json")), io.BytesIO(archive.read("model.weights.h5"))
    change(config)
    with h5py.File(held, "r+") as file:
        weights(file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", held.getvalue())
    return path


def replaced(place: str, make: Any) -> Any:
    def change(file: Any) -> None:
        del file[place]
        make(file, place)

    return change


KERNEL = "layers/dense/vars/0"
HARM = {
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


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_weights_that_lie_elsewhere_or_are_others_are_refused(harm: Any, keras_file: Path) -> None:
    rewritten(keras_file, weights=harm)
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
def test_a_configuration_that_is_none_is_one_line(change: Any, keras_file: Path) -> None:
    with pytest.raises(HandgradError, match=r"m\.keras") as caught:
        interop.from_keras(rewritten(keras_file, change))
    assert "\n" not in str(caught.value)


def test_a_keras_file_cut_short_or_of_another_kind_is_one_line(keras_file: Path) -> None:
    whole = keras_file.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-30], b"\x89HDF", whole.replace(b"\x89HDF", b"nope")):
        keras_file.write_bytes(content)
        with pytest.raises(HandgradError, match=r"m\.keras") as caught:
            interop.from_keras(keras_file)
        assert "\n" not in str(caught.value)
    with pytest.raises(HandgradError, match=r"cannot read .*none\.keras"):
        interop.from_keras(keras_file.with_name("none.keras"))
