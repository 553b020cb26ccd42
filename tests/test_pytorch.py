"""Agreement with PyTorch: files, outputs, losses, gradients and optimizer steps. Needs the extra `peers`."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import handgrad
from handgrad import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Dense,
    Momentum,
    Nesterov,
    Network,
    Optimizer,
    SquaredError,
    Tanh,
    fold_batchnorm,
)
from handgrad.layers import ACTIVATIONS

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="make test-peers installs it")

MODULES = {
    "identity": lambda: torch.nn.Identity(),
    "sigmoid": lambda: torch.nn.Sigmoid(),
    "tanh": lambda: torch.nn.Tanh(),
    "relu": lambda: torch.nn.ReLU(),
    "leaky_relu": lambda: torch.nn.LeakyReLU(),
    "softplus": lambda: torch.nn.Softplus(),
    "gelu": lambda: torch.nn.GELU(approximate="tanh"),
    "exact_gelu": lambda: torch.nn.GELU(),
    "silu": lambda: torch.nn.SiLU(),
    "elu": lambda: torch.nn.ELU(),
    "selu": lambda: torch.nn.SELU(),
}
OPTIMIZERS = [
    (SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    (Momentum(0.05), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    (Nesterov(0.05), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True)),
    (Adam(0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
]


def twin(network: Network) -> torch.nn.Sequential:
    """The same layers in PyTorch, with the same parameters."""
    modules = []
    for layer in network.layers:
        if isinstance(layer, handgrad.Dense):
            modules.append(torch.nn.Linear(layer.n_in, layer.n_out))
        else:
            name = next(name for name, kind in ACTIVATIONS.items() if type(layer) is kind)
            modules.append(MODULES[name]())
    model = torch.nn.Sequential(*modules).to(torch.float64)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(network.parameters.copy()), model.parameters())
    return model


CLASSIFICATION_LOSSES = {
    "squared_error": (SquaredError("sigmoid"), lambda z, t: ((z.sigmoid() - t) ** 2).sum() / (2 * len(z))),
    "binary_cross_entropy": (
        "binary_cross_entropy",
        lambda z, t: torch.nn.functional.binary_cross_entropy_with_logits(z, t, reduction="sum") / len(z),
    ),
    "cross_entropy": ("cross_entropy", torch.nn.functional.cross_entropy),
}


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((9, 6)), rng.integers(0, 4, 9)


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        *((activation, "cross_entropy") for activation in ACTIVATIONS),
        ("tanh", "squared_error"),
        ("tanh", "binary_cross_entropy"),
    ],
)
def test_loss_and_gradient_equal_those_of_autograd(activation: str, loss: str) -> None:
    loss, theirs_of = CLASSIFICATION_LOSSES[loss]
    network = Network([6, 5, 7, 4], activation=activation, loss=loss, init="lecun", rng=0, dtype=np.float64)
    x, y = batch()
    t = network.loss.targets(y, 9, 4, np.float64)
    z = network.backprop(x, t)
    model = twin(network)
    theirs = theirs_of(model(torch.from_numpy(x)), torch.from_numpy(t))
    theirs.backward()
    gradient = torch.nn.utils.parameters_to_vector([p.grad for p in model.parameters()]).numpy()
    np.testing.assert_allclose(network.loss.value(z, t), theirs.item(), rtol=1e-12)
    np.testing.assert_allclose(network.gradient, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("number", range(len(OPTIMIZERS)))
def test_a_hundred_steps_reach_the_same_weights(number: int) -> None:
    _compare_steps(*OPTIMIZERS[number])


def test_adamw_reaches_the_same_weights_without_decay_of_biases() -> None:
    def make_theirs(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        weights, biases = parameters[0::2], parameters[1::2]
        groups = [{"params": weights, "weight_decay": 0.01}, {"params": biases, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01)

    _compare_steps(AdamW(0.01), make_theirs)


def _compare_steps(ours: Optimizer, make_theirs: object) -> None:
    network = Network([6, 5, 4], activation="tanh", loss="cross_entropy", rng=1, dtype=np.float64)
    model = twin(network)
    theirs = make_theirs(list(model.parameters()))  # type: ignore[operator]
    for seed in range(100):
        x, y = batch(seed)
        network.backprop(x, network.loss.targets(y, 9, 4, np.float64))
        ours.step(network)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        theirs.step()
    vector = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_allclose(network.parameters, vector, rtol=1e-7, atol=1e-9)


def test_model_file_loads_into_pytorch_without_renaming(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network = Network([784, 30, 10], rng=0)
    handgrad.save(network, tmp_path / "model.safetensors")
    model = torch.nn.Sequential(torch.nn.Linear(784, 30), torch.nn.Sigmoid(), torch.nn.Linear(30, 10))
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = np.random.default_rng(0).random((50, 784), np.float32)
    with torch.no_grad():
        z = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(network.outputs(x), z, rtol=1e-4, atol=1e-4)


def test_ensemble_file_loads_into_a_module_list(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    networks = [Network([8, n, 3], loss="cross_entropy", rng=n, dtype=np.float64) for n in (5, 6, 7)]
    ensemble = handgrad.Ensemble(networks)
    handgrad.save(ensemble, tmp_path / "ensemble.safetensors")
    models = [torch.nn.Sequential(torch.nn.Linear(8, n), torch.nn.Sigmoid(), torch.nn.Linear(n, 3)) for n in (5, 6, 7)]
    models = torch.nn.ModuleList(models).to(torch.float64)
    models.load_state_dict(load_file(tmp_path / "ensemble.safetensors"))
    x = np.random.default_rng(0).random((50, 8))
    with torch.no_grad():
        p = torch.stack([model(torch.from_numpy(x)).softmax(dim=1) for model in models]).mean(dim=0).numpy()
    np.testing.assert_allclose(ensemble.predict_proba(x), p, rtol=1e-12)


def test_distillation_loss_and_gradient_equal_those_of_autograd() -> None:
    """T² times the cross-entropy of z / T and the soft labels of the teacher, as it is usual in PyTorch."""
    loss = handgrad.CrossEntropy(temperature=4)
    network = Network([6, 5, 4], activation="tanh", loss=loss, rng=0, dtype=np.float64)
    x, _ = batch()
    t = Network([6, 7, 4], loss="cross_entropy", rng=1, dtype=np.float64).soft_labels(x, 4)
    z = network.backprop(x, t)
    model = twin(network)
    theirs = 16 * torch.nn.functional.cross_entropy(model(torch.from_numpy(x)) / 4, torch.from_numpy(t))
    theirs.backward()
    gradient = torch.nn.utils.parameters_to_vector([p.grad for p in model.parameters()]).numpy()
    np.testing.assert_allclose(loss.value(z, t), theirs.item(), rtol=1e-12)
    np.testing.assert_allclose(network.gradient, gradient, rtol=1e-9, atol=1e-12)


def test_batchnorm_trains_and_predicts_as_in_pytorch(tmp_path: Path) -> None:
    """The file loads with strict=True. After 20 steps, parameters, running statistics and outputs agree."""
    from safetensors.torch import load_file

    layers = [BatchNorm(6), Dense(6, 5), BatchNorm(5, 0.3, 1e-3), Tanh(), Dense(5, 4)]
    network = Network(layers, loss="cross_entropy", rng=0, dtype=np.float64)
    nn = torch.nn
    first, second = nn.BatchNorm1d(6), nn.BatchNorm1d(5, eps=1e-3, momentum=0.3)
    model = nn.Sequential(first, nn.Linear(6, 5), second, nn.Tanh(), nn.Linear(5, 4)).to(torch.float64)
    handgrad.save(network, tmp_path / "model.safetensors")
    model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)

    ours, theirs = SGD(0.1), torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(20):
        x, y = batch(seed)
        ours.train_step(network, x, network.loss.targets(y, 9, 4, np.float64), 0.1)
        theirs.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        theirs.step()
    handgrad.save(network, tmp_path / "model.safetensors")
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert saved[name].shape == value.shape
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(saved[name].numpy(), value.numpy(), rtol=1e-9, atol=1e-12)
    model.eval()
    x, _ = batch(100)
    with torch.no_grad():
        z = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(network.outputs(x), z, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fold_batchnorm(network).outputs(x), z, rtol=1e-9, atol=1e-12)


REGRESSION_LOSSES = {
    # Sums, because the mean of PyTorch is also over the outputs. MSELoss has no ½, PoissonNLLLoss omits t ln t - t.
    "squared_error": lambda z, t: torch.nn.MSELoss(reduction="sum")(z, t) / 2,
    "absolute_error": torch.nn.L1Loss(reduction="sum"),
    "huber": torch.nn.HuberLoss(reduction="sum", delta=1.0),
    "log_cosh": lambda z, t: torch.log(torch.cosh(z - t)).sum(),
    "poisson": lambda z, t: torch.nn.PoissonNLLLoss(reduction="sum")(z, t) + (torch.xlogy(t, t) - t).sum(),
}


@pytest.mark.parametrize("loss", REGRESSION_LOSSES)
def test_regression_loss_and_gradient_equal_those_of_autograd(loss: str) -> None:
    network = Network([6, 5, 4], activation="tanh", loss=loss, rng=0, dtype=np.float64)
    x, t = batch()[0], np.random.default_rng(1).poisson(2, (9, 4)).astype(float)
    z = network.backprop(x, network.loss.targets(t, 9, 4, np.float64))
    model = twin(network)
    theirs = REGRESSION_LOSSES[loss](model(torch.from_numpy(x)), torch.from_numpy(t)) / 9
    theirs.backward()
    gradient = torch.nn.utils.parameters_to_vector([p.grad for p in model.parameters()]).numpy()
    np.testing.assert_allclose(network.loss.value(z, t), theirs.item(), rtol=1e-12)
    np.testing.assert_allclose(network.gradient, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("delta", [0.25, 3.0])
def test_huber_delta_is_that_of_pytorch(delta: float) -> None:
    z, t = batch()[0], batch(1)[0]
    theirs = torch.nn.HuberLoss(reduction="none", delta=delta)(torch.from_numpy(z), torch.from_numpy(t)).sum(dim=1)
    np.testing.assert_allclose(handgrad.Huber(delta).per_example(z, t), theirs.numpy(), rtol=1e-12)


def test_weighted_training_equals_the_weighted_loss_of_pytorch() -> None:
    """Including the smaller last batch. The mean of w over all examples is 1."""
    network = Network([6, 5, 1], activation="tanh", loss="binary_cross_entropy", rng=0, dtype=np.float64)
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal((20, 6)), rng.integers(0, 2, 20), rng.random(20) * 5
    model, trainer = twin(network), handgrad.Trainer(network, SGD(0.3), batch_size=8, rng=0)
    theirs = torch.optim.SGD(model.parameters(), lr=0.3)
    order = copy.deepcopy(trainer.shuffling).permutation(20)
    for rows in (order[:8], order[8:16], order[16:]):
        theirs.zero_grad()
        loss = torch.nn.BCEWithLogitsLoss(weight=torch.from_numpy(w[rows] / w.mean()))
        loss(model(torch.from_numpy(x[rows]))[:, 0], torch.from_numpy(y[rows].astype(float))).backward()
        theirs.step()
    trainer.fit(x, y, epochs=1, sample_weight=w)
    vector = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_allclose(network.parameters, vector, rtol=1e-10, atol=1e-12)
