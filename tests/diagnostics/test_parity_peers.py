"""Comparison with PyTorch: it passes for correct gradients and steps, and detects planted errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import handgrad
from handgrad import (
    HOG,
    Adam,
    BatchNorm,
    BinaryCrossEntropy,
    CrossEntropy,
    Dense,
    Deskew,
    Dropout,
    HandgradError,
    Identity,
    Momentum,
    Nesterov,
    Network,
    Preprocessed,
    SquaredError,
    Tanh,
    TestTimeAugmentation,
    cli,
)
from handgrad.data.dataset import FILES
from handgrad.data.idx import write_idx
from handgrad.data.synthetic import synthetic_digits
from handgrad.diagnostics import parity
from handgrad.diagnostics.parity import compare, random_batch, torch_twin
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="make test-peers installs it")


def make(activation: str = "tanh", loss: Any = "cross_entropy", **options: Any) -> Network:
    return Network([6, 5, 7, 4], activation=activation, loss=loss, init="lecun", rng=0, dtype=np.float64, **options)


def batch(network: Network, count: int = 9) -> tuple[Any, Any]:
    return random_batch(network, count, np.random.default_rng(0))


def result_of(network: Network, **options: Any) -> parity.Parity:
    return compare(network, *batch(network), **options)


@pytest.mark.parametrize("loss", [*LOSSES, SquaredError("sigmoid")], ids=str)
def test_every_loss_agrees(loss: Any) -> None:
    result = result_of(make(loss=loss), optimizers=["sgd"], steps=(1, 2))
    assert result.passed, result
    assert len(result.gradients) == 6


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_agrees(activation: str) -> None:
    assert result_of(make(activation), optimizers=["sgd"], steps=(1, 2)).passed


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_optimizer_agrees(batch_norm: bool) -> None:
    result = result_of(make("relu", batch_norm=batch_norm))
    assert result.passed, result
    assert [row.optimizer for row in result.steps] == ["sgd", "momentum", "nesterov", "adam", "adamw"]
    assert all(list(row.differences) == [1, 10, 100] for row in result.steps)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(0.1, temperature=3), BinaryCrossEntropy(0.2), SquaredError("sigmoid", 0.1)], ids=repr
)
def test_label_smoothing_and_temperature_agree(loss: Any) -> None:
    assert result_of(make(loss=loss), optimizers=["sgd"]).passed


def test_a_single_output_agrees() -> None:
    assert result_of(Network([6, 5, 1], rng=0, dtype=np.float64), optimizers=["adam"]).passed


def test_float32_agrees_to_its_rounding() -> None:
    result = result_of(make(), dtype=np.float32)
    assert 1e-9 < result.largest < 1e-3
    assert result.passed
    assert result.dtype == "float32"


def test_dropout_is_left_out_and_the_network_does_not_change() -> None:
    network = Network([Dense(6, 5), Tanh(), Dropout(0.5), Dense(5, 4)], loss="cross_entropy", rng=0, dtype=np.float64)
    before, layers = network.parameters.copy(), list(network.layers)
    assert result_of(network).passed
    np.testing.assert_array_equal(network.parameters, before)
    assert network.layers == layers


@pytest.mark.parametrize("wrapped", ["deskew", "shifts", "deskew and shifts"])
def test_wrappers_are_taken_apart_and_their_preprocessing_is_applied(wrapped: str) -> None:
    x, y = synthetic_digits(6, 1, seed=1)[:2]
    network = Network([196, 5, 10], loss="cross_entropy", init="lecun", rng=0, dtype=np.float64)
    network.image_shape = (14, 14)
    deskew = Deskew(28, 28, 2)
    model = TestTimeAugmentation(network) if "shifts" in wrapped else network
    model = Preprocessed(model, deskew) if "deskew" in wrapped else model
    result = compare(model, x if "deskew" in wrapped else deskew(x), y, optimizers=["sgd"])
    assert result.passed
    assert result.ours == pytest.approx(network.evaluate(deskew(x), y).loss, rel=1e-12)


@pytest.mark.parametrize("hog", [[HOG(4, 5, cells=2)], [HOG(4, 5, cells=2), HOG(2, 2, cells=1, channels=8)]])
def test_the_layers_after_hog_agree(hog: list[HOG]) -> None:
    layers = [*hog, Dense(hog[-1].n_out, 3)]
    network = Network(layers, loss="cross_entropy", rng=0, dtype=np.float64)
    result = result_of(network, optimizers=["adam"], steps=(1, 2))
    assert result.passed, result
    assert [gradient.name for gradient in result.gradients] == [f"{len(hog)} Dense W", f"{len(hog)} Dense b"]


def test_the_twin_has_one_module_per_layer_and_copies_of_the_parameters() -> None:
    layers = [Identity(), BatchNorm(6, 0.3, 1e-3), Dense(6, 5), Dropout(0.2), Tanh(), Dense(5, 4)]
    network = Network(layers, rng=0, dtype=np.float64)
    network.layers[1].running_mean[...] = 0.3
    twin = torch_twin(network)
    kinds = [type(module).__name__ for module in twin]
    assert kinds == ["Identity", "BatchNorm1d", "Linear", "Dropout", "Tanh", "Linear"]
    x, _ = batch(network)
    with torch.no_grad():
        theirs = twin.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(network.outputs(x), theirs, rtol=1e-12)
    with torch.no_grad():
        twin[2].weight.zero_()
    assert network.layers[2].W.any()


# ---- Planted errors --------------------------------------------------------------------------------------------------


def wrong_weight_gradient(self: Dense, dz: Any) -> None:
    np.dot(dz.T, self.x, out=self.dW)
    self.dW *= 1.001
    np.dot(self.ones, dz, out=self.db)


def wrong_bias_gradient(self: Dense, dz: Any) -> None:
    np.dot(dz.T, self.x, out=self.dW)
    self.db[...] = dz.mean(axis=0)


def wrong_tanh(self: Tanh, da: Any) -> Any:
    return (1 - self.a) * da


def wrong_norm(self: BatchNorm, dy: Any, db: Any, dg: Any, batch: int) -> Any:
    return dy * self.g * self.r


@pytest.mark.parametrize(
    ("owner", "method", "wrong", "where"),
    [
        (Dense, "backward_parameters", wrong_weight_gradient, "0 Dense W"),
        (Dense, "backward_parameters", wrong_bias_gradient, "0 Dense b"),
        (Tanh, "backward", wrong_tanh, "0 Dense W"),
        (BatchNorm, "_dx", wrong_norm, "0 Dense W"),
    ],
)
def test_a_wrong_gradient_is_detected(
    owner: type, method: str, wrong: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, wrong)
    result = result_of(make(batch_norm=owner is BatchNorm), optimizers=["sgd"], steps=(1,))
    assert not result.passed
    assert next(row for row in result.gradients if row.name == where).difference > 1e-4
    last = result.gradients[-2]
    assert (last.difference > 1e-9) == (wrong is wrong_weight_gradient), "a correct gradient is reported as correct"


def wrong_momentum(self: Momentum, theta: Any, g: Any, state: Any, scratch: Any, lr: float) -> None:
    (v,) = state
    v *= self.momentum
    v += (1 - self.momentum) * g  # another convention, with another meaning of lr
    theta -= lr * v


def wrong_nesterov(self: Nesterov, theta: Any, g: Any, state: Any, scratch: Any, lr: float) -> None:
    (v,) = state
    v *= self.momentum
    v += g
    theta -= lr * v  # plain momentum


def wrong_adam(self: Adam, theta: Any, g: Any, state: Any, scratch: Any, lr: float) -> None:
    m, v = state
    m += (1 - self.beta_1) * (g - m)
    v += (1 - self.beta_2) * (g * g - v)
    t = self.steps
    step = m / (1 - self.beta_1**t) / np.sqrt(v / (1 - self.beta_2**t) + self.epsilon)  # ε under the root
    theta -= lr * step


@pytest.mark.parametrize(
    ("owner", "wrong", "names"),
    [
        (Momentum, wrong_momentum, ["momentum"]),
        (Nesterov, wrong_nesterov, ["nesterov"]),
        (Adam, wrong_adam, ["adam", "adamw"]),
    ],
)
def test_a_wrong_step_is_detected_only_in_its_optimizer(
    owner: type, wrong: Any, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "update", wrong)
    result = result_of(make(), steps=(1, 10))
    assert not result.passed
    for row in result.steps:
        assert (row.differences[10] > 1e-4) == (row.optimizer in names), row


def test_a_decay_of_biases_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Network.weights.fget  # type: ignore[attr-defined]

    def all_parameters(self: Network) -> Any:
        return [*weights(self), *((layer.b, layer.db) for layer in self.layers if layer.parameter_shapes)]

    network = make()
    network.parameters[...] += 0.1  # biases of 0 do not decay
    assert result_of(network, optimizers=["adamw"], steps=(10,)).passed
    monkeypatch.setattr(Network, "weights", property(all_parameters))
    assert not result_of(network, optimizers=["adamw"], steps=(10,)).passed


def test_wrong_running_statistics_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = BatchNorm.forward

    def biased(self: BatchNorm, x: Any) -> Any:
        before = self.running_var.copy()
        y = forward(self, x)
        self.running_var[...] = before + (self.running_var - before) * 0.999
        return y

    monkeypatch.setattr(BatchNorm, "forward", biased)
    assert not result_of(make(batch_norm=True), optimizers=["sgd"], steps=(1,)).passed


class Cubic(Tanh):
    pass


class Halved(BinaryCrossEntropy):
    pass


def test_custom_classes_are_rejected_by_name() -> None:
    for network, name in (
        (Network([Dense(6, 4), Cubic()], rng=0), "Cubic"),
        (Network([6, 4], loss=Halved(), rng=0), "Halved"),
    ):
        with pytest.raises(HandgradError, match=f"PyTorch has no equivalent of {name}"):
            result_of(network)


# ---- The command -----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def model(tmp_path: Any) -> Any:
    network = Network([5, 4, 3], batch_norm=True, loss="cross_entropy", rng=0)
    handgrad.save(network, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A directory of four IDX files with 40 training images."""
    directory = tmp_path_factory.mktemp("digits")
    for name, array in zip(FILES.values(), synthetic_digits(40, 10, seed=1), strict=True):
        write_idx(directory / name, array)
    return directory


def test_the_command_compares_a_model_and_a_recipe(model: Any, digits: Any) -> None:
    code, output, errors = run("parity", model, "--batch-size", 7)
    assert (code, errors) == (0, "")
    assert f"{model}: Dense(5, 4) → BatchNorm" in output
    assert "7 random examples" in output
    assert "equal to rounding" in output
    arguments = ("--hidden", 3, "--data", digits, "--batch-size", 5, "--seed", 2)
    code, output, _ = run("parity", "--recipe", "post", *arguments)
    assert code == 0
    assert "Dense(784, 3) → Sigmoid() → Dense(3, 10), BinaryCrossEntropy()" in output
    assert "5 examples of digits" in output


def test_the_command_prints_json(model: Any) -> None:
    code, output, _ = run("parity", model, "--json", "--dtype", "float32")
    rows = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert rows[-1]["passed"] is True
    assert rows[1]["name"] == "0 Dense W"


def test_the_command_exits_with_1_if_a_gradient_is_wrong(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "backward_parameters", wrong_weight_gradient)
    code, output, errors = run("parity", model)
    assert (code, errors.count("\n")) == (1, 1)
    assert "> 1e-09" in errors
    assert "NOT EQUAL" in output


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--recipe", "pots"), "did you mean 'post'"),
        (("--hidden", "0"), "must be an integer >= 1"),
        (("--data", "DIGITS", "--batch-size", "41"), "has 40 training examples"),
        (("--data", "nowhere"), "there is no data set 'nowhere'"),
        (("--dtype", "float16"), "float16"),
        (("none.safetensors",), "cannot read none.safetensors"),
        (("MODEL", "--hidden", "5"), "already contains a network: leave out --hidden"),
        (("MODEL", "--data", "DIGITS"), "has 784 pixels and 10 classes"),
        (("MODEL", "--batch-size", "1"), "BatchNorm1d expects at least 2"),
        (("MODEL", "--batch-size", "0"), "batch_size must be"),
        (("MODEL", "--seed", "-1"), "seed must be"),
    ],
)
def test_invalid_input_prints_one_line_and_exits_with_2(
    arguments: tuple[str, ...], match: str, model: Any, digits: Any
) -> None:
    places = {"MODEL": model, "DIGITS": digits}
    code, output, errors = run("parity", *(places.get(argument, argument) for argument in arguments))
    assert (code, output, errors.count("\n")) == (2, "", 1), errors
    assert match in errors


def test_the_command_rejects_an_ensemble(tmp_path: Any) -> None:
    handgrad.save(handgrad.Ensemble([Network([5, 3], rng=0)]), tmp_path / "c.safetensors")
    code, _, errors = run("parity", tmp_path / "c.safetensors")
    assert code == 2
    assert "parity needs a single network" in errors
