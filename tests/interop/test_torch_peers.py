"""Import from PyTorch, with PyTorch: converted models have the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import handgrad
from handgrad import HandgradError, Network, interop

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="make test-peers installs it")
nn = torch.nn

X = np.random.default_rng(0).random((30, 6))

MODELS = {
    "no-bias": lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3)),
    "activations": lambda: nn.Sequential(
        *(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)),
        *(nn.LeakyReLU(0.2), nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 5), nn.GELU(approximate="tanh")),
        *(nn.Identity(), nn.Linear(5, 3)),
    ),
    "more-activations": lambda: nn.Sequential(
        *(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 5), nn.ELU(0.7), nn.Linear(5, 5), nn.SELU(), nn.Linear(5, 5)),
        *(nn.GELU(), nn.Flatten(), nn.Linear(5, 3)),
    ),
    "batch-norm": lambda: nn.Sequential(
        *(nn.BatchNorm1d(6, momentum=0.2), nn.Linear(6, 5), nn.BatchNorm1d(5, eps=1e-3, affine=False), nn.ReLU()),
        *(nn.Dropout(0.4), nn.Linear(5, 3)),
    ),
    "nested": lambda: nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(6, 5), nn.ReLU()), nn.Sequential(nn.Sequential(nn.Linear(5, 3)))
    ),
}


def create(name: str, dtype: Any) -> Any:
    """One of the models in evaluation mode, with running statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype)
    model.train()
    for _ in range(3):
        model(torch.from_numpy(X).to(dtype))
    return model.eval()


def outputs(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(X).to(next(model.parameters()).dtype)).numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sequential_has_the_same_outputs(name: str, dtype: Any) -> None:
    model = create(name, dtype)
    network = interop.from_torch(model)
    assert str(network.dtype) == str(dtype).removeprefix("torch.")
    tolerance = 1e-6 if dtype is torch.float32 else 1e-12
    np.testing.assert_allclose(network.outputs(X.astype(network.dtype)), outputs(model), rtol=0, atol=tolerance)


def test_modules_may_be_repeated_unless_they_have_weights() -> None:
    act, drop, fc, norm = nn.ReLU(), nn.Dropout(), nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)
    modules = [nn.Linear(6, 4), act, drop, nn.Linear(4, 4), act, drop, nn.Linear(4, 2)]
    model = nn.Sequential(*modules).double().eval()
    np.testing.assert_allclose(interop.from_torch(model).outputs(X), outputs(model), rtol=0, atol=1e-12)
    for twice in (fc, norm):
        with pytest.raises(HandgradError, match=r"'Sequential\[3\] \w+' shares its weights with 'Sequential\[1\]"):
            interop.from_torch(nn.Sequential(nn.Linear(6, 4), twice, act, twice))


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_the_final_activation_gives_the_same_probabilities(last: str) -> None:
    module = nn.Sigmoid() if last == "Sigmoid" else getattr(nn, last)(dim=1)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), module).double()
    theirs = np.exp(outputs(model)) if last == "LogSoftmax" else outputs(model)
    losses = [None, handgrad.SquaredError("sigmoid"), handgrad.SquaredError()] if last == "Sigmoid" else [None]
    for loss in losses:
        p = interop.from_torch(model, loss=loss).predict_proba(X)
        np.testing.assert_allclose(p, theirs, rtol=0, atol=1e-12)


def test_a_state_dict_and_its_file_have_the_same_outputs(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    )
    model(torch.from_numpy(X).float())
    model.eval()
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    for given in (model.state_dict(), tmp_path / "state.safetensors"):
        network = interop.from_torch(given, activation="relu")
        np.testing.assert_allclose(network.outputs(X), outputs(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", ["module", "state dict", "file"])
def test_half_precision_becomes_float32(how: str, dtype: Any, tmp_path: Path, caplog: Any) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).to(dtype)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    given = {"module": model, "state dict": model.state_dict(), "file": tmp_path / "m.safetensors"}[how]
    network = interop.from_torch(given, activation=None if how == "module" else "relu")
    np.testing.assert_allclose(network.outputs(X), outputs(model.float()), rtol=0, atol=1e-6)
    name = str(dtype).removeprefix("torch.")
    assert caplog.messages == [f"the weights are {name}: converted to float32, without a loss of precision"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile itself
def test_checkpoints_and_wrapped_models(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.from_numpy(X)).sum().backward()
    optimizer.step()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    wrapped = [nn.DataParallel(model), torch.compile(model), averaged, torch.compile(nn.DataParallel(model))]
    checkpoint = {"epoch": 3, "model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(checkpoint, tmp_path / "m.pt")
    loaded = torch.load(tmp_path / "m.pt", weights_only=True)
    given = [loaded, *({"state_dict": other.state_dict()} for other in wrapped)]
    networks = [interop.from_torch(each, activation="Tanh") for each in given]
    for network in [*networks, *map(interop.from_torch, wrapped)]:
        np.testing.assert_allclose(network.outputs(X), outputs(model), rtol=0, atol=1e-12)


class Net(nn.Module):
    """A module whose activations are in the code of `forward`, as in PyTorch's tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.out(torch.relu(self.fc2(torch.tanh(self.fc1(x)))))


def test_a_custom_module_is_imported_by_its_state_dict() -> None:
    model = Net().double()
    network = interop.from_torch(model.state_dict(), activation=["tanh", "relu"])
    np.testing.assert_allclose(network.outputs(X), outputs(model), rtol=0, atol=1e-12)
    with pytest.raises(HandgradError, match="cannot convert a Net: expected a torch"):
        interop.from_torch(model)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_to_pytorch_and_back_gives_the_same_bits(batch_norm: bool, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network = Network([6, 5, 4, 3], activation="relu", batch_norm=batch_norm, loss="cross_entropy", rng=0)
    handgrad.save(network, tmp_path / "m.safetensors")
    model = nn.Sequential(*(interop.torch.make_layer(nn, layer) for layer in network.layers))
    model.load_state_dict(load_file(tmp_path / "m.safetensors"))
    for given, options in ((model, {}), (model.state_dict(), {"activation": "relu"})):
        again = interop.from_torch(given, **options)
        np.testing.assert_array_equal(again.parameters, network.parameters)
        np.testing.assert_array_equal(again.outputs(X), network.outputs(X))


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Mish(), "Mish' has no equivalent"),
        (nn.Softplus(2), r"Softplus'\(beta=2, threshold=20.0\) has no equivalent"),
        (nn.BatchNorm1d(3, track_running_stats=False), "has no running statistics"),
        (nn.BatchNorm1d(3, momentum=None), "has no running statistics"),
        (nn.Linear(3, 3).to(torch.float8_e4m3fn), "NumPy cannot represent"),
        (nn.Linear(3, 3).double(), "float32 .*, float64"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), "ParametrizedLinear' has no equivalent"),
    ],
)
def test_a_module_without_an_equivalent_is_rejected_by_name(module: Any, match: str) -> None:
    with pytest.raises(HandgradError, match=match) as caught:
        interop.from_torch(nn.Sequential(nn.Linear(4, 3), module))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("init", sorted(interop.torch.TORCH_INITIALIZERS))
def test_the_initializers_have_handgrads_variance(init: str) -> None:
    """The standard deviation of 300 x 200 weights, to 2 %."""
    torch.manual_seed(0)
    W = torch.empty(300, 200)
    eval(interop.torch.TORCH_INITIALIZERS[init].format("W"), {"nn": nn, "W": W})
    ours = Network([handgrad.Dense(200, 300, init)], rng=0).layers[0].W.std()
    assert W.std().item() == pytest.approx(ours, rel=0.02)
