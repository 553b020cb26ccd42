"""The same network in PyTorch, side by side: the loss, the gradients, and the weights after so many steps.

What is derived by hand here, autograd derives there: where the two agree to rounding, neither is wrong, or both alike.
A difference is the largest of an array's numbers, |ours - theirs|, over what it is a difference of:

    loss        |L|
    gradient    the largest |g| of the array, and at least ∜ε of the largest in the network: some derivatives are 0 on
                paper, as that of a bias before a BatchNorm, and on both sides rounding alone
    weights     the largest |θ - θ₀|, the way that the steps have gone: a step that is 0.1 % wrong differs by 0.1 %

In float64, ε = 2e-16, all are to be below 1e-9. Measured on the recipes they are 1e-11 at most; a wrong equation is off
by much more than 1e-9. In float32, ε = 1e-7, the loss and the gradients are to be below 1e-3, measured 2e-5; the steps
are told of and not judged, for there a hundred of them may part over a kink of a ReLU.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Array, check_inputs, as_floats
from ..errors import HandgradError, optional, unknown
from ..io.models import TORCH_NAME
from ..layers import BatchNorm, Dense, Dropout, GELU, Identity, Layer, LeakyReLU, ReLU, Sigmoid, Softplus, Tanh
from ..losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    Huber,
    LogCosh,
    Loss,
    Poisson,
    Quadratic,
    CrossEntropy,
    SquaredError,
)
from ..network import Network
from ..optimizers import OPTIMIZERS, Adam, Momentum, Nesterov, Optimizer

STEPS = (1, 10, 100)  # after which the weights are compared
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
# Those of handgrad's that PyTorch has, and learning rates at which a hundred steps on one batch do not swing: rounding
# would grow from step to step.
LR = {"sgd": 0.05, "momentum": 0.005, "nesterov": 0.005, "adam": 1e-3, "adamw": 1e-3}
# Adam divides by |g| and this: where g is 0 but for rounding, 1e-16, its usual 1e-8 makes steps of that, as long as
# 1e-8 of the others and on both sides different.
EPSILON = 1e-4


class Gradient(NamedTuple):
    """The derivative of the loss by one array, both ways."""

    name: str
    shape: tuple[int, ...]
    ours: float  # its norm, √Σg²
    theirs: float
    difference: float


class Steps(NamedTuple):
    """The weights after so many steps of an optimizer."""

    optimizer: str
    lr: float
    differences: dict[int, float]  # by the number of steps


class Parity(NamedTuple):
    """All that was compared."""

    ours: float  # the loss
    theirs: float
    gradients: list[Gradient]
    steps: list[Steps]
    dtype: str

    @property
    def loss_difference(self) -> float:
        """|L - L'| / |L|"""
        return _ratio(abs(self.ours - self.theirs), abs(self.ours))

    @property
    def largest(self) -> float:
        """The largest of the differences that are judged; not a number where one of them is none."""
        judged = [self.loss_difference, *(gradient.difference for gradient in self.gradients)]
        if self.dtype == "float64":
            judged += [difference for row in self.steps for difference in row.differences.values()]
        return float(np.max(judged))

    @property
    def tolerance(self) -> float:
        """What they are to be below."""
        return TOLERANCE[self.dtype]

    @property
    def passed(self) -> bool:
        """Whether they are."""
        return self.largest <= self.tolerance

    def as_json(self) -> Iterator[str]:
        """A line for the loss, for each gradient and each optimizer, and for the verdict."""
        yield json.dumps({"loss": self.ours, "in_pytorch": self.theirs, "difference": self.loss_difference})
        for gradient in self.gradients:
            yield json.dumps(gradient._asdict())
        for row in self.steps:
            yield json.dumps(row._asdict())
        yield json.dumps({"largest": self.largest, "tolerance": self.tolerance, "passed": self.passed})

    def told(self, title: str) -> Iterator[str]:
        """The table for people."""
        yield title
        yield f"{'':24}{'shape':>12}{'handgrad':>18}{'PyTorch':>18}{'difference':>12}"
        yield f"{'loss':36}{self.ours:18.10g}{self.theirs:18.10g}{self.loss_difference:12.1e}"
        yield "gradient, its norm"
        for name, shape, ours, theirs, difference in self.gradients:
            yield f"  {name:22}{' x '.join(map(str, shape)):>12}{ours:18.10g}{theirs:18.10g}{difference:12.1e}"
        after = [f"after {n} step{'s' if n > 1 else ''}" for n in self.steps[0].differences] if self.steps else []
        yield f"{'weights, how they differ':36}{''.join(f'{words:>18}' for words in after)}"
        for optimizer, lr, differences in self.steps:
            yield f"  {optimizer + f', lr {lr:g}':34}{''.join(f'{value:18.1e}' for value in differences.values())}"
        yield "a difference is relative: to the loss, to the largest derivative, to the way that the weights have gone"
        verdict = "the same to rounding" if self.passed else "NOT THE SAME"
        yield f"{verdict}: the largest difference is {self.largest:.1e}, {self.tolerance:.0e} is allowed"


def compare(
    network: Network, x: ArrayLike, y: ArrayLike, *, optimizers: Sequence[str] = tuple(LR), steps: Sequence[int] = STEPS
) -> Parity:
    """Handgrad and PyTorch on one batch, with copies of the network without its Dropout, in the network's dtype.

    x (batch, n_in), y as for `loss.targets`. Raises HandgradError for layers, losses and optimizers that PyTorch does
    not have.
    """
    for name in optimizers:
        if name not in LR:
            raise unknown("optimizer", name, LR)
    raw = check_inputs(x, network.n_in)
    if len(raw) == 1 and any(isinstance(layer, BatchNorm) for layer in network.layers):
        raise HandgradError("a batch of one example: PyTorch's BatchNorm1d takes two or more")
    network = _without_dropout(network)
    seen = as_floats(network.preprocess(raw), np.empty((len(raw), network.n_in), network.dtype))
    t = network.loss.targets(y, len(raw), network.n_out, network.dtype)
    model, loss = torch_twin(network), _torch_loss(network.loss)
    torch = optional("torch", "peers")
    batch = torch.from_numpy(seen), torch.from_numpy(t)

    with _one_thread(torch):
        rows = [_steps(name, network, (seen, t), batch, steps) for name in optimizers]
        ours = network.loss.value(network.backprop(seen, t), t)
        theirs = loss(model(batch[0]), batch[1])
        theirs.backward()
    return Parity(ours, theirs.item(), list(_gradients(network, model)), rows, str(network.dtype))


@contextlib.contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """PyTorch's threads wait for each other at every small step: ten times as long as one beside other programs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def random_batch(network: Network, count: int, rng: np.random.Generator) -> tuple[Array, NDArray[Any]]:
    """So many examples x (count, n_in) in [0, 1), and labels, or for a loss for numbers counts."""
    x = rng.random((count, network.n_in))
    if network.loss.is_classification:
        return x, rng.integers(0, network.n_classes, count)
    return x, rng.poisson(2, (count, network.n_out))


def torch_twin(network: Network) -> Any:
    """The network as a torch.nn.Sequential with the same parameters, module for layer, about to train.

    Its preprocessing, and the activation that its loss holds, are no part of it. Raises HandgradError for layers that
    PyTorch does not have.
    """
    torch = optional("torch", "peers")
    modules = [_module(torch.nn, layer) for layer in network.layers]
    model = torch.nn.Sequential(*modules).to(getattr(torch, str(network.dtype)))
    with torch.no_grad():
        for layer, module in zip(network.layers, modules, strict=True):
            for symbol, tensor in _tensors(layer, module):
                tensor.copy_(torch.from_numpy(getattr(layer, symbol).copy()))
    return model


def _without_dropout(network: Network) -> Network:
    """A copy whose every Dropout lets all through: two libraries draw no two masks alike."""
    network = copy.deepcopy(network)
    network.layers = [Identity() if isinstance(layer, Dropout) else layer for layer in network.layers]
    return network


def _gradients(network: Network, model: Any) -> Iterator[Gradient]:
    """Every array that learns, after a backward pass of both."""
    named = [
        (f"{i} {type(layer).__name__} {symbol}", getattr(layer, f"d{symbol}"), tensor.grad.numpy())
        for i, (layer, module) in enumerate(zip(network.layers, model, strict=True))
        for symbol, tensor in _tensors(layer, module)
        if tensor.requires_grad
    ]
    floor = float(np.finfo(network.dtype).eps ** 0.25) * max(_largest(ours) for _, ours, _ in named)
    for name, ours, theirs in named:
        difference = _ratio(_largest(ours - theirs), max(_largest(ours), floor))
        yield Gradient(name, ours.shape, _norm(ours), _norm(theirs), difference)


def _steps(
    name: str, network: Network, batch: tuple[Array, Array], theirs: tuple[Any, Any], steps: Sequence[int]
) -> Steps:
    """Both networks from where they stand, on the same batch again and again."""
    network, lr, differences = copy.deepcopy(network), LR[name], {}
    model, loss, begin = torch_twin(network), _torch_loss(network.loss), network.parameters.copy()
    optimizer = OPTIMIZERS[name](lr, **({"epsilon": EPSILON} if name in ("adam", "adamw") else {}))
    torch_optimizer = _torch_optimizer(name, optimizer, model)
    for step in range(1, max(steps) + 1):
        optimizer.train_step(network, *batch, lr)
        torch_optimizer.zero_grad()
        loss(model(theirs[0]), theirs[1]).backward()
        torch_optimizer.step()
        if step in steps:
            way = _largest(network.parameters - begin)
            differences[step] = _ratio(_largest(network.parameters - _parameters(network, model)), way)
    return Steps(name, lr, differences)


def _parameters(network: Network, model: Any) -> Array:
    """θ of the Sequential, in the order of the network's own."""
    pairs = zip(network.layers, model, strict=True)
    tensors = [tensor for layer, module in pairs for _, tensor in _tensors(layer, module)]
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


def _tensors(layer: Layer, module: Any) -> list[tuple[str, Any]]:
    """The parameters of a layer by name, and a module's own for each."""
    return [(symbol, getattr(module, TORCH_NAME.get(symbol, symbol))) for symbol in layer.parameter_shapes]


def _norm(x: Array) -> float:
    return math.sqrt(np.vdot(x, x))


def _largest(x: Array) -> float:
    return float(np.abs(x).max())


def _ratio(difference: float, of: float) -> float:
    return difference / of if of else difference


# ---- What each is called in PyTorch ----------------------------------------------------------------------------------


def _module(nn: Any, layer: Layer) -> Any:
    made: dict[type[Layer], Callable[[Any], Any]] = {
        Dense: lambda dense: nn.Linear(dense.n_in, dense.n_out),
        BatchNorm: lambda norm: nn.BatchNorm1d(norm.n_in, eps=norm.epsilon, momentum=norm.momentum),
        Dropout: lambda dropout: nn.Dropout(dropout.rate),
        Identity: lambda _: nn.Identity(),
        Sigmoid: lambda _: nn.Sigmoid(),
        Tanh: lambda _: nn.Tanh(),
        ReLU: lambda _: nn.ReLU(),
        LeakyReLU: lambda leaky: nn.LeakyReLU(leaky.slope),
        Softplus: lambda _: nn.Softplus(),
        GELU: lambda _: nn.GELU(approximate="tanh"),
    }
    if type(layer) not in made:
        raise HandgradError(f"PyTorch has no {type(layer).__name__}: expected layers of handgrad's own")
    return made[type(layer)](layer)


def _torch_loss(loss: Loss) -> Callable[[Any, Any], Any]:
    """The mean loss of a batch of outputs z and targets t, of tensors."""
    torch = optional("torch", "peers")
    functional, T, delta = torch.nn.functional, loss.temperature, getattr(loss, "delta", 1.0)
    sums: dict[type[Loss], Callable[[Any, Any], Any]] = {
        Quadratic: lambda a, t: ((a - t) ** 2).sum() / 2,
        BinaryCrossEntropy: lambda z, t: functional.binary_cross_entropy_with_logits(z, t, reduction="sum"),
        CrossEntropy: lambda z, t: T**2 * functional.cross_entropy(z / T, t, reduction="sum"),
        SquaredError: lambda z, t: functional.mse_loss(z, t, reduction="sum") / 2,
        AbsoluteError: lambda z, t: functional.l1_loss(z, t, reduction="sum"),
        Huber: lambda z, t: functional.huber_loss(z, t, reduction="sum", delta=delta),
        LogCosh: lambda z, t: (torch.logaddexp(z - t, t - z) - math.log(2)).sum(),
        Poisson: lambda z, t: (torch.exp(z) - t * z + torch.xlogy(t, t) - t).sum(),
    }
    if type(loss) not in sums:
        raise HandgradError(f"PyTorch has no {type(loss).__name__}: expected a loss of handgrad's own")
    total = sums[type(loss)]
    return lambda z, t: total(z, t) / len(z)


def _torch_optimizer(name: str, ours: Optimizer, model: Any) -> Any:
    """PyTorch's own, with our settings; of its parameters the matrices alone decay."""
    optim = optional("torch", "peers").optim
    settings: dict[str, Any] = {}
    if isinstance(ours, Momentum | Nesterov):
        settings = {"momentum": ours.momentum, "nesterov": isinstance(ours, Nesterov)}
    if isinstance(ours, Adam):
        settings = {"betas": (ours.beta_1, ours.beta_2), "eps": ours.epsilon}
    kind = {"adam": optim.Adam, "adamw": optim.AdamW}.get(name, optim.SGD)
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) == decays], "weight_decay": decay}
        for decays, decay in ((True, ours.weight_decay), (False, 0.0))
    ]
    return kind(groups, lr=ours.lr, **settings)
