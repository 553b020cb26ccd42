"""Comparison with PyTorch: the loss, the gradients, and the weights after some steps of the same network.

handgrad derives the gradients by hand, PyTorch by automatic differentiation. If both agree to rounding, either both are
correct or both have the same error. A difference is the largest |ours - theirs| of an array, divided by

    loss        |L|
    gradient    the largest |g| of the array, but at least ∜ε times the largest |g| of the network, because some
                derivatives are exactly 0, such as that of a bias before a BatchNorm: both sides are then rounding noise
    weights     the largest |θ - θ₀|, the distance since the first step: if a step is wrong by 0.1 %, this is 0.1 %

In float64, with ε = 2e-16, all differences must be at most 1e-9. On the recipes they are at most 1e-11, and a wrong
equation gives much more than 1e-9. In float32, with ε = 1e-7, the loss and the gradients must agree to 1e-3, and 2e-5
was measured. The weights are reported but not judged, because within a hundred steps the two networks can move to
different sides of the kink of a ReLU.

HOG has no equivalent in PyTorch and no parameters. If the first layers are HOG, handgrad computes them, and the layers
after them are compared.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..arrays import Array, as_floats
from ..errors import HandgradError, optional, unknown
from ..images.hog import after_hog
from ..interop.torch import TORCH_OPTIMIZERS, loss_code, make_layer
from ..io.atomic import encode_json
from ..io.models import TORCH_NAME
from ..layers import BatchNorm, Dropout, Identity, Layer
from ..losses import Loss
from ..model import Model
from ..network import Network
from ..optimizers import OPTIMIZERS, Optimizer
from ..wrappers import unwrap

STEPS = (1, 10, 100)  # numbers of steps after which the weights are compared
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}
# The optimizers that PyTorch has too, with learning rates at which a hundred steps on one batch do not oscillate. An
# oscillation would amplify the rounding errors from step to step.
LR = {"sgd": 0.05, "momentum": 0.005, "nesterov": 0.005, "adam": 1e-3, "adamw": 1e-3}
# Adam divides by |g| + ε. If g is rounding noise of 1e-16, the default ε = 1e-8 makes steps of 1e-8 of the usual
# length, which are different on both sides.
EPSILON = 1e-4


class Gradient(NamedTuple):
    """The derivative of the loss with respect to one array, in handgrad and in PyTorch.

    Attributes
    ----------
    name : str
        Index and class of the layer, and name of the parameter: "0 Dense W".
    shape : tuple of int
        Shape of the array.
    ours, theirs : float
        Norm √Σg² in handgrad and in PyTorch.
    difference : float
        Relative difference.
    """

    name: str
    shape: tuple[int, ...]
    ours: float
    theirs: float
    difference: float


class Steps(NamedTuple):
    """Differences of the weights after some steps of an optimizer.

    Attributes
    ----------
    optimizer : str
        Name of the optimizer.
    lr : float
        Learning rate.
    differences : dict of int to float
        Relative difference by the number of steps.
    """

    optimizer: str
    lr: float
    differences: dict[int, float]


class Parity(NamedTuple):
    """Result of a comparison with PyTorch.

    Attributes
    ----------
    ours, theirs : float
        Loss in handgrad and in PyTorch.
    gradients : list of Gradient
        One for each trained array.
    steps : list of Steps
        One for each optimizer.
    dtype : str
        "float64" or "float32".
    """

    ours: float
    theirs: float
    gradients: list[Gradient]
    steps: list[Steps]
    dtype: str

    @property
    def loss_difference(self) -> float:
        """|L - L'| / |L|."""
        return _ratio(abs(self.ours - self.theirs), abs(self.ours))

    @property
    def largest(self) -> float:
        """Largest difference that counts: of the loss, the gradients, and in float64 the weights. NaN if one is NaN."""
        differences = [self.loss_difference, *(gradient.difference for gradient in self.gradients)]
        if self.dtype == "float64":
            differences += [difference for row in self.steps for difference in row.differences.values()]
        return float(np.max(differences))

    @property
    def tolerance(self) -> float:
        """Largest difference that is allowed."""
        return TOLERANCE[self.dtype]

    @property
    def passed(self) -> bool:
        """Whether the largest difference is within the tolerance."""
        return self.largest <= self.tolerance

    def as_json(self) -> Iterator[str]:
        """Return lines of JSON: the loss, each gradient, each optimizer, and the result."""
        yield encode_json({"loss": self.ours, "in_pytorch": self.theirs, "difference": self.loss_difference})
        for gradient in self.gradients:
            yield encode_json(gradient._asdict())
        for row in self.steps:
            yield encode_json(row._asdict())
        yield encode_json({"largest": self.largest, "tolerance": self.tolerance, "passed": self.passed})

    def table(self, title: str) -> Iterator[str]:
        """Return the lines of a table, after a title."""
        yield title
        yield f"{'':24}{'shape':>12}{'handgrad':>18}{'PyTorch':>18}{'difference':>12}"
        yield f"{'loss':36}{self.ours:18.10g}{self.theirs:18.10g}{self.loss_difference:12.1e}"
        yield "norm of the gradient"
        for name, shape, ours, theirs, difference in self.gradients:
            yield f"  {name:22}{' x '.join(map(str, shape)):>12}{ours:18.10g}{theirs:18.10g}{difference:12.1e}"
        columns = [f"{n} step{'s' if n > 1 else ''}" for n in self.steps[0].differences] if self.steps else []
        yield f"{'difference of the weights after':36}{''.join(f'{column:>18}' for column in columns)}"
        for optimizer, lr, differences in self.steps:
            yield f"  {optimizer + f', lr {lr:g}':34}{''.join(f'{value:18.1e}' for value in differences.values())}"
        yield "Differences are relative to the loss, to the largest derivative, and to the largest change of a weight."
        result = "equal to rounding" if self.passed else "NOT EQUAL"
        yield f"{result}: the largest difference is {self.largest:.1e}, the tolerance {self.tolerance:.0e}"


def compare(
    model: Model,
    x: ArrayLike,
    y: ArrayLike,
    *,
    optimizers: Sequence[str] = tuple(LR),
    steps: Sequence[int] = STEPS,
    dtype: DTypeLike | None = None,
) -> Parity:
    """Compare a network with the same network in PyTorch, on one batch.

    Parameters
    ----------
    model : Model
        A network, or a network with preprocessing, which is applied to x. Test-time augmentation is ignored. The model
        does not change. Dropout is left out, because two libraries do not draw the same masks, and handgrad computes
        HOG for both.
    x : array-like of shape (batch, n_in) or (batch, height, width)
        Examples.
    y : array-like of shape (batch,) or (batch, n_out)
        Labels or targets.
    optimizers : sequence of str
        Any of "sgd", "momentum", "nesterov", "adam", "adamw".
    steps : sequence of int
        Numbers of steps after which the weights are compared.
    dtype : numpy.float32 or numpy.float64, optional
        Precision of the computation; that of the network by default.

    Returns
    -------
    Parity

    Raises
    ------
    HandgradError
        For an ensemble, and for layers, losses and optimizers that PyTorch does not have.
    MissingExtraError
        If PyTorch is not installed.
    """
    for name in optimizers:
        if name not in LR:
            raise unknown("optimizer", name, LR)
    original, preprocessing, _, _ = unwrap(model)
    if not isinstance(original, Network):
        raise HandgradError(f"expected a single network, got {type(original).__name__}: compare its members")
    x = model.check_inputs(x)
    if preprocessing is not None:
        x = preprocessing(x)
    if len(x) == 1 and any(isinstance(layer, BatchNorm) for layer in original.layers):
        raise HandgradError("x has 1 example: PyTorch's BatchNorm1d expects at least 2")
    network = _without_dropout(original if dtype is None else original.astype(dtype))
    inputs = as_floats(original.check_inputs(x), np.empty((len(x), network.n_in), network.dtype))
    network, inputs = after_hog(network, inputs)
    t = network.loss.targets(y, len(x), network.n_out, network.dtype)
    twin = torch_twin(network)
    torch = optional("torch", "peers")
    loss, batch = _torch_loss(torch, network.loss), (torch.from_numpy(inputs), torch.from_numpy(t))
    with _one_thread(torch):
        rows = [_compare_steps(torch, name, network, (inputs, t), batch, steps) for name in optimizers]
        ours = network.loss.value(network.backprop(inputs, t), t)
        theirs = loss(twin(batch[0]), batch[1])
        theirs.backward()
    return Parity(ours, theirs.item(), list(_gradients(network, twin)), rows, str(network.dtype))


def random_batch(model: Model, count: int, rng: np.random.Generator) -> tuple[Array, NDArray[Any]]:
    """Return random x (count, n_in) in [0, 1), and labels (count,), or for a regression counts (count, n_out)."""
    x = rng.random((count, model.n_in))
    if model.loss.is_classification:
        return x, rng.integers(0, model.n_classes, count)
    return x, rng.poisson(2, (count, model.n_out))


def torch_twin(network: Network) -> Any:
    """Return a torch.nn.Sequential with one module per layer and with copies of the parameters, in training mode.

    The activation of the output is part of the loss and not of the Sequential. Raises HandgradError for custom layers.
    """
    torch = optional("torch", "peers")
    modules = [make_layer(torch.nn, layer) for layer in network.layers]
    twin = torch.nn.Sequential(*modules).to(getattr(torch, str(network.dtype)))
    with torch.no_grad():
        for layer, module in zip(network.layers, modules, strict=True):
            for symbol, tensor in _tensors(layer, module):
                tensor.copy_(torch.from_numpy(getattr(layer, symbol).copy()))
    return twin


@contextlib.contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Use one thread. With more, PyTorch waits at each small operation: 10 times slower if other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _without_dropout(network: Network) -> Network:
    """A copy with Identity in place of each Dropout."""
    network = copy.deepcopy(network)
    layers = [Identity() if isinstance(layer, Dropout) else layer for layer in network.layers]
    return network.with_layers(layers, network.parameters)


def _gradients(network: Network, twin: Any) -> Iterator[Gradient]:
    """The gradients of all trained arrays, after a backward pass of both."""
    named = [
        (f"{i} {type(layer).__name__} {symbol}", getattr(layer, f"d{symbol}"), tensor.grad.numpy())
        for i, (layer, module) in enumerate(zip(network.layers, twin, strict=True))
        for symbol, tensor in _tensors(layer, module)
        if tensor.requires_grad
    ]
    floor = float(np.finfo(network.dtype).eps ** 0.25) * max(_largest(ours) for _, ours, _ in named)
    for name, ours, theirs in named:
        difference = _ratio(_largest(ours - theirs), max(_largest(ours), floor))
        yield Gradient(name, ours.shape, _norm(ours), _norm(theirs), difference)


def _compare_steps(
    torch: Any,
    name: str,
    network: Network,
    batch: tuple[Array, Array],
    torch_batch: tuple[Any, Any],
    steps: Sequence[int],
) -> Steps:
    """Train copies of both networks from the same weights, with every step on the same batch."""
    network, lr, differences = copy.deepcopy(network), LR[name], {}
    twin, loss, start = torch_twin(network), _torch_loss(torch, network.loss), network.parameters.copy()
    optimizer = OPTIMIZERS[name](lr, **({"epsilon": EPSILON} if name in ("adam", "adamw") else {}))
    torch_optimizer = _torch_optimizer(torch, optimizer, twin)
    for step in range(1, max(steps) + 1):
        optimizer.train_step(network, *batch, lr)
        torch_optimizer.zero_grad()
        loss(twin(torch_batch[0]), torch_batch[1]).backward()
        torch_optimizer.step()
        if step in steps:
            distance = _largest(network.parameters - start)
            differences[step] = _ratio(_largest(network.parameters - _parameters(network, twin)), distance)
    return Steps(name, lr, differences)


def _torch_loss(torch: Any, loss: Loss) -> Callable[[Any, Any], Any]:
    """The mean loss as a function of tensors z and t. It evaluates the code that exported scripts contain."""
    names = {"torch": torch, "functional": torch.nn.functional, "math": math}
    function: Callable[[Any, Any], Any] = eval(f"lambda z, t: {loss_code(loss)}", names)
    return function


def _torch_optimizer(torch: Any, optimizer: Optimizer, twin: Any) -> Any:
    """PyTorch's optimizer with the same options. Weight decay applies to matrices only."""
    equivalent = TORCH_OPTIMIZERS[type(optimizer)]
    options = equivalent.keywords(optimizer.config())
    decay = options.pop("weight_decay", 0.0)
    weights, others = ([p for p in twin.parameters() if (p.ndim > 1) is matrix] for matrix in (True, False))
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return getattr(torch.optim, equivalent.name)(groups, **options)


def _parameters(network: Network, twin: Any) -> Array:
    """The parameters of the Sequential, in the order of θ."""
    pairs = zip(network.layers, twin, strict=True)
    tensors = [tensor for layer, module in pairs for _, tensor in _tensors(layer, module)]
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


def _tensors(layer: Layer, module: Any) -> list[tuple[str, Any]]:
    """The name of each parameter of a layer, and the tensor of the module."""
    return [(symbol, getattr(module, TORCH_NAME.get(symbol, symbol))) for symbol in layer.parameter_shapes]


def _norm(x: Array) -> float:
    return math.sqrt(np.vdot(x, x))


def _largest(x: Array) -> float:
    return float(np.abs(x).max())


def _ratio(difference: float, of: float) -> float:
    return difference / of if of else difference
