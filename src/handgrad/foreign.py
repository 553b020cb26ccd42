"""The way in: networks of PyTorch, scikit-learn and Keras as layers and a loss of handgrad's, with their numbers.

No other library is imported: what is asked of an object is what its documentation says that it has, and a file is read
as arrays and text. What handgrad has no equal of is refused by its name, so what comes in answers as it did there.

    PyTorch         Linear, BatchNorm1d, Dropout, Identity, Flatten in front, and the activations of `layers`
    scikit-learn    MLPClassifier, MLPRegressor
    Keras           Dense, BatchNormalization, Dropout, Flatten in front, Activation, ReLU, LeakyReLU, Softmax
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import HandgradError, optional, unknown
from .layers import (
    ACTIVATIONS,
    LAYERS,
    BatchNorm,
    Dense,
    Dropout,
    Gelu,
    Identity,
    Layer,
    LeakyRelu,
    Relu,
    Sigmoid,
    Softplus,
    Tanh,
)
from .losses import CrossEntropy, Loss, SoftmaxCrossEntropy
from .regression import LOSSES, Poisson, SquaredError
from .tensors import read_tensors

Made = TypeVar("Made")
# The arrays of a layer of Keras: its kind, its name, how many it has.
_Weights: TypeAlias = "Callable[[str, str, int], list[NDArray[Any]]]"
SEARCHED = 8  # arrays without numbers in their names whose order is looked for by their shapes, at most
LARGEST_TEXT = 1 << 24  # bytes of a config.json, at most


class Link(NamedTuple):
    """A layer, what it is called where it comes from, and its parameters by handgrad's names."""

    name: str
    layer: Layer
    arrays: dict[str, NDArray[Any]]


class Parts(NamedTuple):
    """All that a network is made of."""

    links: list[Link]
    loss: Loss
    classes: tuple[str, ...] | None = None
    image_shape: tuple[int, int] | None = None

    def build(self, make: Callable[..., Made]) -> Made:
        """The network that `make`, the class Network, makes of them, in the dtype that all of the numbers have.

        Raises HandgradError where they have no such, are no finite numbers, or do not come one after the other.
        """
        _follow(self.links)
        arrays = {f"{i}.{symbol}": p for i, link in enumerate(self.links) for symbol, p in link.arrays.items()}
        origin = {f"{i}.{symbol}": link.name for i, link in enumerate(self.links) for symbol in link.arrays}
        types = {str(p.dtype): name for name, p in arrays.items()}
        if len(types) != 1 or not types.keys() <= {"float32", "float64"}:
            have = ", ".join(f"{dtype} ({origin[name]!r})" for dtype, name in types.items())
            raise HandgradError(f"the weights are {have}: expected all float32, or all float64")
        for name, p in arrays.items():
            if not np.isfinite(p).all():
                raise HandgradError(f"{origin[name]!r} holds numbers that are not finite")
        network: Any = make([link.layer for link in self.links], loss=self.loss, rng=0, dtype=next(iter(types)))
        for name, p in network.named_parameters.items():
            p[...] = arrays[name]
        network.classes = self.classes or network.classes
        network.image_shape = self.image_shape
        return network  # type: ignore[no-any-return]


# ---- Links, whoever they come from -----------------------------------------------------------------------------------


def _array(name: str, value: Any) -> NDArray[Any]:
    """An array, a tensor or a variable as an array of its own. Raises HandgradError where it is none."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:  # bfloat16, a tensor without numbers
        raise HandgradError(f"{name!r} is no array that NumPy can hold: {error}") from error
    if array.dtype.kind not in "fiub":
        raise HandgradError(f"{name!r} is no array of numbers, but a {type(value).__name__}")
    return array


def _dense(name: str, W: NDArray[Any], b: NDArray[Any] | None) -> Link:
    """W (n_out, n_in), b (n_out,); without a bias b = 0."""
    if W.ndim != 2 or 0 in W.shape:
        raise HandgradError(f"{name!r} has weights of shape {W.shape}: expected a matrix, (outputs, inputs)")
    b = np.zeros(len(W), W.dtype) if b is None else b
    if b.shape != (len(W),):
        raise HandgradError(f"{name!r} has a bias of shape {b.shape} for weights of {W.shape}: expected ({len(W)},)")
    return Link(name, Dense(W.shape[1], W.shape[0]), {"W": W, "b": b})


def _norm(
    name: str,
    g: NDArray[Any] | None,
    b: NDArray[Any] | None,
    mean: NDArray[Any],
    var: NDArray[Any],
    momentum: float = 0.1,
    epsilon: float = 1e-5,
) -> Link:
    """A BatchNorm, all of its arrays (n,); without a scale g = 1, without a shift b = 0."""
    g, b = np.ones_like(mean) if g is None else g, np.zeros_like(mean) if b is None else b
    arrays = {"g": g, "b": b, "running_mean": mean, "running_var": var}
    if mean.ndim != 1 or {p.shape for p in arrays.values()} != {mean.shape} or not len(mean):
        shapes = ", ".join(f"{symbol} {p.shape}" for symbol, p in arrays.items())
        raise HandgradError(f"{name!r} normalises with {shapes}: expected vectors of one length")
    return Link(name, BatchNorm(len(mean), momentum, epsilon), arrays)


def _follow(links: Sequence[Link]) -> None:
    """Raise HandgradError, with both names, where a link does not take as many numbers as the one before it gives."""
    width, before = 0, None
    for link in links:
        layer = link.layer
        if layer.n_in is not None:
            if before is not None and width != layer.n_in:
                raise HandgradError(f"{link.name!r} takes {layer.n_in} inputs, and {before!r} gives {width}")
            width, before = layer.width(layer.n_in), link.name
    if not any(isinstance(link.layer, Dense) for link in links):
        raise HandgradError("there is no dense layer in it: expected one or more")


def _ended(links: list[Link], softmax: bool, loss: str | Loss | None, default: str) -> tuple[list[Link], Loss]:
    """The links without the activation at their end that the loss holds itself, and that loss.

    softmax: a Softmax has come last, and is no link. default: the loss where none is named and no activation tells it.
    """
    sigmoid = bool(links) and type(links[-1].layer) is Sigmoid
    if loss is None:
        loss = "softmax_cross_entropy" if softmax else "cross_entropy" if sigmoid else default
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        loss = LOSSES[loss]()
    if softmax and not isinstance(loss, SoftmaxCrossEntropy):
        raise HandgradError(f"it ends with a softmax, and the loss is {loss!r}: expected softmax_cross_entropy")
    if sigmoid and isinstance(loss, CrossEntropy):
        links = links[:-1]
    widths = [link.layer.width(1) for link in links if isinstance(link.layer, Dense)]
    if widths[-1:] == [1] and isinstance(loss, SoftmaxCrossEntropy):
        raise HandgradError(
            "a softmax over one output is always 1: give loss='cross_entropy' for no or yes, or one for numbers, "
            "'squared_error'"
        )
    return links, loss


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

MODULES: dict[str, type[Layer]] = {"Identity": Identity, "Sigmoid": Sigmoid, "Tanh": Tanh, "ReLU": Relu}


def from_torch(model: Any, activation: str | Sequence[str] | None = None, loss: str | Loss | None = None) -> Parts:
    """A Sequential, a state dict, or a .safetensors file with one in it: see `Network.from_torch`."""
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        arrays, metadata = read_tensors(path)
        if "handgrad" in metadata:
            raise HandgradError(f"{path} is a file of handgrad's own: handgrad.load reads its models")
        try:
            return from_torch(arrays, activation, loss)
        except HandgradError as error:
            raise HandgradError(f"{path}: {error}") from error
    if isinstance(model, Mapping):
        links, softmax = _state_links(model, activation), False
    elif type(model).__module__.startswith("torch.nn.modules."):
        if activation is not None:
            raise HandgradError(f"activation {activation!r}: a {type(model).__name__} has its own, leave it out")
        links, softmax = _module_links(model)
    else:
        raise HandgradError(
            f"a {type(model).__name__} is no chain that can be read: expected a torch.nn.Sequential, or a "
            "state dict (model.state_dict()) and its activation"
        )
    links, ending = _ended(links, softmax, loss, "softmax_cross_entropy")
    return Parts(links, ending)


def _module_links(model: Any) -> tuple[list[Link], bool]:
    """Every module of a Sequential, those within others too, in its place; whether a Softmax, left out, comes last."""
    modules = list(_modules(type(model).__name__, model))
    softmax = type(modules[-1][1]).__name__ in ("Softmax", "LogSoftmax") if modules else False
    if softmax and modules[-1][1].dim not in (None, 1, -1):
        raise HandgradError(f"{modules[-1][0]} is along dim {modules[-1][1].dim}: expected 1")
    links: list[Link] = []
    for name, module in modules[: len(modules) - softmax]:
        links.append(_module_link(name, module, first=all(type(link.layer) is Identity for link in links)))
    return links, softmax


def _modules(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    """What a Sequential is a chain of."""
    if type(module).__name__ != "Sequential" or not type(module).__module__.startswith("torch.nn.modules."):
        yield name, module
        return
    for key, child in module.named_children():
        yield from _modules(f"{name}[{key}] {type(child).__name__}", child)


def _module_link(name: str, module: Any, first: bool) -> Link:
    kind = type(module).__name__ if type(module).__module__.startswith("torch.nn.modules.") else None
    if kind in MODULES:
        return Link(name, MODULES[kind](), {})
    if kind == "Linear":
        bias = None if module.bias is None else _array(name, module.bias)
        return _dense(name, _array(name, module.weight), bias)
    if kind == "BatchNorm1d":
        arrays = [module.weight, module.bias, module.running_mean, module.running_var]
        g, b, mean, var = (None if p is None else _array(name, p) for p in arrays)
        if mean is None or var is None or module.momentum is None:
            raise HandgradError(f"{name} keeps no running statistics with a momentum: handgrad's always does")
        return _norm(name, g, b, mean, var, module.momentum, module.eps)
    if kind == "Dropout":
        return Link(name, Dropout(module.p), {})
    if kind == "Flatten" and first and (module.start_dim, module.end_dim) == (1, -1):
        return Link(name, Identity(), {})
    if kind == "LeakyReLU":
        return Link(name, LeakyRelu(module.negative_slope), {})
    if kind == "Softplus" and (module.beta, module.threshold) == (1, 20):  # beyond 20 it is z, to 2e-9
        return Link(name, Softplus(), {})
    if kind == "GELU" and module.approximate == "tanh":
        return Link(name, Gelu(), {})
    settings = f"({module.extra_repr()})" if kind in ("Softplus", "GELU", "Flatten") else ""
    raise HandgradError(f"{name}{settings} has no equal in handgrad: {_KNOWN_MODULES}")


_KNOWN_MODULES = (
    "it knows Linear, BatchNorm1d, Dropout, Identity, a Flatten in front, Sigmoid, Tanh, ReLU, LeakyReLU, Softplus, "
    "GELU(approximate='tanh'), and a Softmax or LogSoftmax at the end"
)


def _state_links(state: Mapping[str, Any], activation: str | Sequence[str] | None) -> list[Link]:
    """The chain of a state dict: its matrices in their order, and between them the activations that are named."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            raise HandgradError(f"{name!r} is itself a mapping: give that one, where it is the state dict")
        prefix, _, kind = str(name).rpartition(".")
        if kind not in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            raise HandgradError(f"{name!r} is of no layer that handgrad knows: expected names as '0.weight', '0.bias'")
        groups.setdefault(prefix, {})[kind] = _array(str(name), value)
    links = {prefix: _state_link(prefix, group) for prefix, group in groups.items()}
    order = _order(list(links.values()), trusted=isinstance(state, OrderedDict))

    dense = [i for i, link in enumerate(order) if isinstance(link.layer, Dense)]
    names = _activations(activation, max(0, len(dense) - 1))
    chain = order[: dense[0] + 1] if dense else []
    for i, j, name in zip(dense, dense[1:], names, strict=False):
        between, act = order[i + 1 : j], Link(f"{name} after {order[i].name}", ACTIVATIONS[name](), {})
        if between and name != "identity":
            chain += [*between, act] if _comes_first(order[i : j + 1]) else [act, *between]
        else:
            chain += [*between, *([act] if name != "identity" else [])]
        chain.append(order[j])
    return chain + (order[dense[-1] + 1 :] if dense else [])


def _state_link(prefix: str, group: dict[str, NDArray[Any]]) -> Link:
    normalises = "running_mean" in group or "running_var" in group
    expected = {"weight", "bias"} | ({"running_mean", "running_var"} if normalises else set())
    missing = sorted(f"{prefix}.{kind}".removeprefix(".") for kind in expected - set(group))
    if missing:
        raise HandgradError(f"{prefix!r} has no {', '.join(map(repr, missing))}: put zeros there if it is 0")
    if normalises:
        return _norm(prefix, group["weight"], group["bias"], group["running_mean"], group["running_var"])
    if "num_batches_tracked" in group:
        raise HandgradError(f"{prefix!r} counts batches and has no running statistics")
    return _dense(prefix, group["weight"], group["bias"])


def _activations(activation: str | Sequence[str] | None, hidden: int) -> list[str]:
    """The name of each hidden layer's activation."""
    if activation is None and hidden:
        raise HandgradError(
            "a state dict holds no activations: give activation='relu', or whichever it is, or one for each hidden "
            f"layer, {hidden} in all"
        )
    names = [activation] * hidden if isinstance(activation, str) else list(activation or [])
    for name in [activation] if isinstance(activation, str) else names:
        if name not in ACTIVATIONS:
            raise unknown("activation", str(name), ACTIVATIONS)
    if len(names) != hidden:
        raise HandgradError(f"{len(names)} activations for {hidden} hidden layers: expected one for each")
    return names


def _numbers(name: str) -> tuple[str, tuple[int, ...]]:
    """A name without its numbers, and these: those of a Sequential's children differ in nothing else."""
    return re.sub(r"\d+", "#", name), tuple(map(int, re.findall(r"\d+", name)))


def _order(links: list[Link], trusted: bool) -> list[Link]:
    """The links as they follow each other: by their numbers, or the one way in which the shapes allow it.

    trusted: they come in their order. A file's are sorted by name, which says nothing.
    """
    if len({_numbers(link.name)[0] for link in links}) <= 1:
        return sorted(links, key=lambda link: _numbers(link.name)[1])
    if any(isinstance(link.layer, BatchNorm) for link in links):
        raise HandgradError(
            "the names do not tell on which side of its activation a BatchNorm stands: give the torch.nn.Sequential, "
            "or name the arrays as its state dict does, '0.weight', ..."
        )
    if trusted:
        return links
    ways = list(_ways([], links, 2)) if len(links) <= SEARCHED else []
    if len(ways) != 1:
        shapes = ", ".join(f"{link.name!r} {link.arrays['W'].shape}" for link in links)
        how = "in no way" if not ways and len(links) <= SEARCHED else "in more than one way"
        raise HandgradError(f"the layers follow each other {how}: {shapes}; give an OrderedDict, or number the names")
    return ways[0]


def _ways(begun: list[Link], rest: list[Link], most: int) -> Iterator[list[Link]]:
    """The first `most` ways to go on so that shapes fit, and names of a kind come in the order of their numbers."""
    if not rest:
        yield begun
        return
    found = 0
    for i, link in enumerate(rest):
        kind, numbers = _numbers(link.name)
        earlier = any(_numbers(other.name)[0] == kind and _numbers(other.name)[1] < numbers for other in rest)
        if earlier or (begun and begun[-1].layer.width(0) != link.layer.n_in):
            continue
        for way in _ways([*begun, link], rest[:i] + rest[i + 1 :], most - found):
            yield way
            found += 1
            if found == most:
                return


def _comes_first(links: Sequence[Link]) -> bool:
    """Whether the BatchNorm between two Dense comes before their activation, which has no arrays and leaves a gap."""
    before, *between, after = (_numbers(link.name)[1][-1:] for link in links)
    if len(between) == 1 and before and after:
        gaps = between[0][0] - before[0] > 1, after[0] - between[0][0] > 1
        if gaps in ((False, True), (True, False)):
            return gaps[1]
    raise HandgradError(
        f"the numbers of {links[0].name!r} to {links[-1].name!r} do not tell on which side of its activation a "
        "BatchNorm stands: give the torch.nn.Sequential"
    )


# ---- scikit-learn ----------------------------------------------------------------------------------------------------

SKLEARN_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
SKLEARN_LOSSES: dict[str, type[Loss]] = {
    "softmax": SoftmaxCrossEntropy,
    "logistic": CrossEntropy,
    "identity": SquaredError,
    "exp": Poisson,
}


def from_sklearn(estimator: Any) -> Parts:
    """A fitted MLPClassifier or MLPRegressor: see `Network.from_sklearn`."""
    if hasattr(estimator, "network_"):  # one of handgrad.sklearn's
        network, own = estimator.network_, []
        for layer in network.layers:
            again = LAYERS[type(layer).__name__](**layer.config())
            own.append(Link(repr(layer), again, {name: getattr(layer, name) for name in layer.shapes}))
        return Parts(own, copy.copy(network.loss), network.classes)
    kind, needed = type(estimator).__name__, ("coefs_", "intercepts_", "activation", "out_activation_")
    missing = [name for name in needed if not hasattr(estimator, name)]
    if missing:
        not_fitted = "is not fitted" if hasattr(estimator, "hidden_layer_sizes") else "cannot be read"
        raise HandgradError(
            f"the {kind} {not_fitted}, it has no {', '.join(missing)}: expected a fitted MLPClassifier or MLPRegressor"
        )
    activation, ending = estimator.activation, estimator.out_activation_
    if activation not in SKLEARN_ACTIVATIONS:
        raise unknown("activation", str(activation), SKLEARN_ACTIVATIONS)
    if ending not in SKLEARN_LOSSES:
        raise HandgradError(f"the {kind} ends with {ending!r}: expected one of {', '.join(SKLEARN_LOSSES)}")
    links: list[Link] = []
    for i, (W, b) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        if i and activation != "identity":
            links.append(Link(f"{activation} {i}", ACTIVATIONS[SKLEARN_ACTIVATIONS[activation]](), {}))
        links.append(_dense(f"coefs_[{i}]", _array(f"coefs_[{i}]", W).T, _array(f"intercepts_[{i}]", b)))
    classes = getattr(estimator, "classes_", None)
    return Parts(links, SKLEARN_LOSSES[ending](), None if classes is None else tuple(map(str, classes)))


# ---- Keras -----------------------------------------------------------------------------------------------------------

KERAS_MODELS = ("Sequential", "Functional")
KERAS_ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "linear": Identity,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": Relu,
    "softplus": Softplus,
    "leaky_relu": lambda: LeakyRelu(0.2),
}
# What a model was compiled with, where its last activation does not tell: a loss of logits or of numbers.
KERAS_LOSSES = {
    "crossentropy": "softmax_cross_entropy",
    "binarycrossentropy": "cross_entropy",
    "meanabsoluteerror": "absolute_error",
    "mae": "absolute_error",
    "huber": "huber",
    "logcosh": "log_cosh",
}


def from_keras(model: Any, loss: str | Loss | None = None) -> Parts:
    """A .keras file, or a Sequential or Functional model: see `Network.from_keras`."""
    if isinstance(model, str | os.PathLike):
        return _keras_file(Path(model), loss)
    if not (callable(getattr(model, "get_config", None)) and callable(getattr(model, "get_weights", None))):
        raise HandgradError(f"a {type(model).__name__} is no Keras model: expected one, or a .keras file")
    kind, weights = type(model).__name__, [_array("get_weights()", p) for p in model.get_weights()]
    config: dict[str, Any] = {"class_name": kind}
    if kind in KERAS_MODELS:
        config |= {"config": model.get_config(), "compile_config": getattr(model, "get_compile_config", dict)()}
    parts = _keras_parts(config, lambda kind, name, count: [weights.pop(0) for _ in range(count)], loss)
    if weights:
        raise HandgradError(f"the Keras model has {len(weights)} arrays more than its layers")
    return parts


def _keras_file(path: Path, loss: str | Loss | None) -> Parts:
    """A zip of a text, config.json, and of arrays in HDF5, model.weights.h5."""
    h5py = optional("h5py", "keras")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > LARGEST_TEXT:
                raise HandgradError("its config.json is too large for a network's")
            config = json.loads(archive.read("config.json"))
            with archive.open("model.weights.h5") as content, h5py.File(content, "r") as file:
                return _keras_parts(config, _keras_arrays(h5py, file), loss)
    except HandgradError as error:
        raise HandgradError(f"{path}: {error}") from error
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise HandgradError(f"{path} is no .keras file of a network, or a damaged one: {error}") from error
    except (RecursionError, NotImplementedError, RuntimeError) as error:
        raise HandgradError(f"{path} is no .keras file of a network, or a damaged one: {error}") from error


def _keras_arrays(h5py: Any, file: Any) -> _Weights:
    """The arrays of the next layer of a kind: Keras counts dense, dense_1, ..., whatever the layers are called.

    HDF5 can say that numbers are to be found in another file, or are as many as no memory holds: neither is followed.
    """
    counts: dict[str, int] = {}

    def held(group: Any, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise HandgradError(f"its weights have no {group.name.rstrip('/')}/{name}")
        return group[name]

    def weights(kind: str, name: str, count: int) -> list[NDArray[Any]]:
        counts[kind] = number = counts.get(kind, -1) + 1
        group = held(held(held(file, "layers"), f"{kind}_{number}" if number else kind), "vars")
        if len(group) != count or group.attrs.get("name", name) != name:
            raise HandgradError(f"its weights {group.name} are not those of its layer {name!r}")
        arrays = [held(group, str(i)) for i in range(count)]
        for p in arrays:
            elsewhere = not isinstance(p, h5py.Dataset) or p.is_virtual or p.external
            if elsewhere or p.dtype.kind != "f" or p.id.get_storage_size() != p.nbytes:
                raise HandgradError(f"its weights {p.name} are no array of numbers that lies whole in the file")
        return [p[()] for p in arrays]

    return weights


def _keras_parts(config: dict[str, Any], weights: _Weights, loss: str | Loss | None) -> Parts:
    """The chain that a model's configuration describes."""
    if config["class_name"] not in KERAS_MODELS:
        raise HandgradError(
            f"a Keras {config['class_name']!r} is no chain: expected a Sequential or a Functional model"
        )
    layers = config["config"]["layers"]
    if config["class_name"] == "Functional":
        _in_one_chain(layers, config["config"]["output_layers"])
    shape = config["config"].get("build_input_shape")  # (batch, ...) of what comes to the next layer, where it is known
    links: list[Link] = []
    image_shape, softmax = None, ""
    for layer in layers:
        kind, settings = layer["class_name"], layer["config"]
        name = f"{settings.get('name', '')} ({kind})"
        if softmax:
            raise HandgradError(f"{softmax!r} is a softmax, and {name!r} comes after it: expected it at the end")
        own = layer.get("registered_name") not in (None, kind)
        if own or not str(layer.get("module", "keras")).startswith("keras"):
            raise HandgradError(f"{name!r} is a class of somebody's own: {_KNOWN_KERAS}")
        if kind == "InputLayer":
            shape = settings.get("batch_shape", settings.get("batch_input_shape"))
        elif kind == "Flatten" and not links:
            if shape is not None and (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)):
                image_shape = int(shape[1]), int(shape[2])
            shape = None
        elif shape is not None and len(shape) != 2:
            raise HandgradError(f"{name!r} takes inputs of shape {tuple(shape[1:])}: expected a Flatten before it")
        else:
            made, activation = _keras_links(kind, settings, name, weights)
            links += made
            softmax = name if activation == "softmax" else ""
    compiled = (config.get("compile_config") or {}).get("loss")
    links, ending = _ended(links, bool(softmax), loss, _compiled(compiled))
    return Parts(links, ending, image_shape=image_shape)


def _in_one_chain(layers: list[dict[str, Any]], ends: list[Any]) -> None:
    """Raise HandgradError where a layer takes anything but what the one before it gives."""
    try:
        for before, layer in itertools.pairwise(layers):
            (node,) = layer["inbound_nodes"]
            (tensor,) = node["args"]
            if list(tensor["config"]["keras_history"]) != [before["name"], 0, 0] or any(node["kwargs"].values()):
                raise ValueError
        (end,) = [ends] if isinstance(ends[0], str) else ends
        if list(end) != [layers[-1]["name"], 0, 0]:
            raise ValueError
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise HandgradError("the layers of the Functional model do not follow each other in one chain") from error


def _keras_links(kind: str, settings: dict[str, Any], name: str, weights: _Weights) -> tuple[list[Link], str]:
    """A layer of Keras as layers of handgrad, and the name of the activation that it ends with."""
    if kind == "Dense":
        W, *b = weights("dense", settings["name"], 1 + settings["use_bias"])
        made, activation = [_dense(name, W.T, b[0] if b else None)], settings["activation"]
    elif kind == "BatchNormalization" and settings["axis"] in (-1, 1, [-1], [1]):
        scale, shift = settings["scale"], settings["center"]
        arrays = weights("batch_normalization", settings["name"], 2 + scale + shift)
        g, beta = arrays.pop(0) if scale else None, arrays.pop(0) if shift else None
        momentum = round(1 - settings["momentum"], 12)  # of the old statistics there, of the batch's here
        return [_norm(name, g, beta, arrays[0], arrays[1], momentum, settings["epsilon"])], "linear"
    elif kind == "Dropout":
        return [Link(name, Dropout(settings["rate"]), {})], "linear"
    elif kind == "Activation":
        made, activation = [], settings["activation"]
    elif kind == "LeakyReLU":  # `alpha` before Keras 3
        slope = settings["negative_slope" if "negative_slope" in settings else "alpha"]
        return [Link(name, LeakyRelu(slope), {})], "linear"
    elif kind == "ReLU" and not any(settings.get(key) for key in ("max_value", "negative_slope", "threshold")):
        made, activation = [], "relu"
    elif kind == "Softmax" and settings.get("axis", -1) in (-1, 1):
        made, activation = [], "softmax"
    else:
        raise HandgradError(f"{name!r} has no equal in handgrad: {_KNOWN_KERAS}")
    if activation not in (*KERAS_ACTIVATIONS, "softmax"):
        what = activation.get("class_name", "function") if isinstance(activation, Mapping) else activation
        raise HandgradError(f"{name!r} has the activation {what!r}, which has no equal in handgrad: {_KNOWN_KERAS}")
    if activation not in ("linear", "softmax"):
        made = [*made, Link(name, KERAS_ACTIVATIONS[activation](), {})]
    return made, activation


_KNOWN_KERAS = (
    "it knows Dense, BatchNormalization, Dropout, a Flatten in front, Activation, ReLU, LeakyReLU, and of activations "
    "linear, sigmoid, tanh, relu, leaky_relu, softplus, and softmax at the end"
)


def _compiled(loss: Any) -> str:
    """The loss that a model was compiled with, for the output as it is; squared errors where it is of another kind."""
    name = loss["class_name"] if isinstance(loss, Mapping) and "class_name" in loss else loss
    return KERAS_LOSSES.get(re.sub("[^a-z]|sparse|categorical", "", str(name).lower()), "squared_error")
