"""The comparison with PyTorch passes where all is right, and sees what is planted. Needs the extra `peers`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import handgrad
from handgrad import (
    Adam,
    BatchNorm,
    BinaryCrossEntropy,
    Dense,
    Dropout,
    HandgradError,
    Identity,
    Momentum,
    Nesterov,
    Network,
    CrossEntropy,
    Tanh,
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


def network(activation: str = "tanh", loss: Any = "cross_entropy", **options: Any) -> Network:
    return Network([6, 5, 7, 4], activation=activation, loss=loss, init="lecun", rng=0, dtype=np.float64, **options)


def batch(net: Network, count: int = 9) -> tuple[Any, Any]:
    return random_batch(net, count, np.random.default_rng(0))


def found(net: Network, **options: Any) -> parity.Parity:
    return compare(net, *batch(net), **options)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_loss_with_every_activation_is_pytorchs(activation: str, loss: str) -> None:
    result = found(network(activation, loss), optimizers=["sgd"], steps=(1, 2))
    assert result.passed, result
    assert len(result.gradients) == 6


def test_every_optimizer_ends_where_pytorchs_does_with_batch_norm_and_without() -> None:
    for batch_norm in (False, True):
        result = found(network("relu", batch_norm=batch_norm))
        assert result.passed, result
        assert [row.optimizer for row in result.steps] == ["sgd", "momentum", "nesterov", "adam", "adamw"]
        assert all(list(row.differences) == [1, 10, 100] for row in result.steps)


@pytest.mark.parametrize("loss", [CrossEntropy(0.1, temperature=3), BinaryCrossEntropy(0.2)])
def test_smoothing_and_temperature_are_compared_too(loss: Any) -> None:
    assert found(network(loss=loss), optimizers=["sgd"]).passed


def test_one_output_is_compared() -> None:
    assert found(Network([6, 5, 1], rng=0, dtype=np.float64), optimizers=["adam"]).passed


def test_in_float32_rounding_is_seen_and_allowed() -> None:
    result = found(network().astype(np.float32))
    assert 1e-9 < result.largest < 1e-3
    assert result.passed
    assert result.dtype == "float32"


def test_dropout_is_left_out_and_the_network_left_as_it_was() -> None:
    net = Network([Dense(6, 5), Tanh(), Dropout(0.5), Dense(5, 4)], loss="cross_entropy", rng=0, dtype=np.float64)
    before, layers = net.parameters.copy(), list(net.layers)
    assert found(net).passed
    np.testing.assert_array_equal(net.parameters, before)
    assert net.layers == layers


def test_the_twin_has_the_networks_numbers_and_goes_module_for_layer() -> None:
    chain = [Identity(), BatchNorm(6, 0.3, 1e-3), Dense(6, 5), Dropout(0.2), Tanh(), Dense(5, 4)]
    net = Network(chain, rng=0, dtype=np.float64)
    net.layers[1].running_mean[...] = 0.3
    model = torch_twin(net)
    assert [type(module).__name__ for module in model] == [
        "Identity",
        "BatchNorm1d",
        "Linear",
        "Dropout",
        "Tanh",
        "Linear",
    ]
    x, _ = batch(net)
    with torch.no_grad():
        theirs = model.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(net.outputs(x), theirs, rtol=1e-12)
    with torch.no_grad():
        model[2].weight.zero_()  # the twin's numbers are its own
    assert net.layers[2].W.any()


# ---- What is planted must be seen ------------------------------------------------------------------------------------


def wrong_weight_gradient(self: Dense, dz: Any) -> None:
    np.dot(dz.T, self.x, out=self.dW)
    self.dW *= 1.001
    np.dot(self.ones, dz, out=self.db)


def wrong_bias_gradient(self: Dense, dz: Any) -> None:
    np.dot(dz.T, self.x, out=self.dW)
    self.db[...] = dz.mean(axis=0)


def wrong_tanh(self: Tanh, da: Any) -> Any:
    return (1 - self.a) * da


def wrong_norm(self: BatchNorm, dy: Any, db: Any, dg: Any) -> Any:
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
def test_a_wrong_gradient_is_seen(
    owner: type, method: str, wrong: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, wrong)
    result = found(network(batch_norm=owner is BatchNorm), optimizers=["sgd"], steps=(1,))
    assert not result.passed
    assert next(row for row in result.gradients if row.name == where).difference > 1e-4
    last = result.gradients[-2]
    assert (last.difference > 1e-9) == (wrong is wrong_weight_gradient), "where it is right it is told to be right"


def wrong_momentum(self: Momentum, theta: Any, g: Any, memory: Any, scratch: Any, lr: float) -> None:
    (v,) = memory
    v *= self.momentum
    v += (1 - self.momentum) * g  # another convention: lr means another thing
    theta -= lr * v


def wrong_nesterov(self: Nesterov, theta: Any, g: Any, memory: Any, scratch: Any, lr: float) -> None:
    (v,) = memory
    v *= self.momentum
    v += g
    theta -= lr * v  # plain momentum


def wrong_adam(self: Adam, theta: Any, g: Any, memory: Any, scratch: Any, lr: float) -> None:
    m, v = memory
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
def test_a_wrong_step_is_seen_and_the_right_ones_are_not(
    owner: type, wrong: Any, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "update", wrong)
    result = found(network(), steps=(1, 10))
    assert not result.passed
    for row in result.steps:
        assert (row.differences[10] > 1e-4) == (row.optimizer in names), row


def test_a_decay_of_biases_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Network.weights.fget  # type: ignore[attr-defined]

    def all_of_them(self: Network) -> Any:
        return [*weights(self), *((layer.b, layer.db) for layer in self.layers if layer.parameter_shapes)]

    net = network()
    net.parameters[...] += 0.1  # biases that are 0 do not decay
    assert found(net, optimizers=["adamw"], steps=(10,)).passed
    monkeypatch.setattr(Network, "weights", property(all_of_them))
    assert not found(net, optimizers=["adamw"], steps=(10,)).passed


def test_running_statistics_that_go_another_way_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = BatchNorm.forward

    def biased(self: BatchNorm, x: Any) -> Any:
        before = self.running_var.copy()
        y = forward(self, x)
        self.running_var[...] = before + (self.running_var - before) * 0.999
        return y

    monkeypatch.setattr(BatchNorm, "forward", biased)
    assert not found(network(batch_norm=True), optimizers=["sgd"], steps=(1,)).passed


class Cubic(Tanh):
    pass


class Halved(BinaryCrossEntropy):
    pass


def test_a_class_of_ones_own_is_refused_by_name() -> None:
    for net, name in (
        (Network([Dense(6, 4), Cubic()], rng=0), "Cubic"),
        (Network([6, 4], loss=Halved(), rng=0), "Halved"),
    ):
        with pytest.raises(HandgradError, match=f"PyTorch has no {name}"):
            found(net)


# ---- The command -----------------------------------------------------------------------------------------------------


def within(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def model(tmp_path: Any) -> Any:
    net = Network([5, 4, 3], batch_norm=True, loss="cross_entropy", rng=0)
    handgrad.save(net, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A directory of four IDX files: 40 synthetic digits to train on."""
    directory = tmp_path_factory.mktemp("digits")
    for name, array in zip(FILES.values(), synthetic_digits(40, 10, seed=1), strict=True):
        write_idx(directory / name, array)
    return directory


def test_the_command_shows_a_model_and_a_recipe(model: Any, digits: Any) -> None:
    code, said, errors = within("parity", model, "--batch-size", 7)
    assert (code, errors) == (0, "")
    assert f"{model}: Dense(5, 4) → BatchNorm" in said
    assert "on 7 examples drawn at random" in said
    assert "the same to rounding" in said
    arguments = ("--hidden", 3, "--data", digits, "--batch-size", 5, "--seed", 2)
    code, said, _ = within("parity", "--recipe", "post", *arguments)
    assert code == 0
    assert (
        "post: Dense(784, 3) → Sigmoid() → Dense(3, 10), BinaryCrossEntropy(), in float64, on 5 examples of digits"
        in said
    )


def test_the_command_speaks_json(model: Any) -> None:
    code, said, _ = within("parity", model, "--json", "--dtype", "float32")
    rows = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert rows[-1]["passed"] is True
    assert rows[1]["name"] == "0 Dense W"


def test_the_command_exits_1_where_a_gradient_is_wrong(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "backward_parameters", wrong_weight_gradient)
    code, said, errors = within("parity", model)
    assert (code, errors.count("\n")) == (1, 1)
    assert "above 1e-09" in errors
    assert "NOT THE SAME" in said


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--recipe", "pots"), "did you mean 'post'"),
        (("--hidden", "0"), "expected a whole number"),
        (("--data", "DIGITS", "--batch-size", "41"), "batch_size 41: expected at most the 40"),
        (("--batch-size", "0"), "batch_size 0: expected a whole number, 1 or more"),
        (("--data", "nowhere"), "nowhere holds no IDX files"),
        (("--dtype", "float16"), "float16"),
        (("--seed", "-1"), "seed -1"),
        (("none.safetensors",), "cannot read none.safetensors"),
        (("MODEL", "--hidden", "5"), "is a network already: leave out --hidden"),
        (("MODEL", "--recipe", "post"), "is a network already: leave out --recipe"),
        (("MODEL", "--data", "DIGITS"), "has 784 pixels and 10 classes"),
        (("MODEL", "--batch-size", "1"), "a batch of one example"),
        (("MODEL", "--batch-size", "0"), "batch_size 0"),
        (("MODEL", "--seed", "-1"), "seed -1"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: tuple[str, ...], match: str, model: Any, digits: Any) -> None:
    places = {"MODEL": model, "DIGITS": digits}
    code, said, errors = within("parity", *(places.get(argument, argument) for argument in arguments))
    assert (code, said, errors.count("\n")) == (2, "", 1), errors
    assert match in errors


def test_a_committee_is_refused(tmp_path: Any) -> None:
    handgrad.save(handgrad.Ensemble([Network([5, 3], rng=0)]), tmp_path / "c.safetensors")
    code, _, errors = within("parity", tmp_path / "c.safetensors")
    assert code == 2
    assert "a ensemble of networks: parity takes one" in errors
