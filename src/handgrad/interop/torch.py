"""PyTorch: the equivalents of layers, losses, optimizers and initializers, and the import of models.

The tables are the only place that knows what a class of handgrad is called in PyTorch. The import, the export of
scripts (`handgrad.export`) and the comparison of gradients (`handgrad.diagnostics.parity`) use the same tables. This
module does not import PyTorch: a model is read through its documented attributes, and a file is read as arrays.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import HandgradError, optional
from ..images.hog import HOG
from ..io.safetensors import open_tensors
from ..ladder import Ladder
from ..layers import (
    ACTIVATIONS,
    ELU,
    GELU,
    SELU,
    BatchNorm,
    Dense,
    Dropout,
    ExactGELU,
    Identity,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from ..losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    LogCosh,
    Loss,
    Poisson,
    SquaredError,
)
from ..network import Network
from ..optimizers import SGD, Adam, AdamW, Momentum, Nesterov, Optimizer
from .equivalent import Argument, Equivalent
from .imported import (
    ImportedLayer,
    ImportedModel,
    activation_name,
    as_numpy,
    batch_norm_layer,
    decode_bfloat16,
    dense_layer,
    dtype_name,
    imported_layer,
    in_file,
    log_widened,
    logger,
    plain_name,
    split_output_activation,
)

# ---- Equivalents -----------------------------------------------------------------------------------------------------

# The modules of torch.nn. `handgrad.io.models.TORCH_NAME` has the names of their parameters. In PyTorch, Softplus
# returns z above the threshold, which is correct to 2e-9.
TORCH_LAYERS: dict[type[Layer], Equivalent] = {
    Dense: Equivalent("Linear", {"in_features": "n_in", "out_features": "n_out"}, positional=2),
    BatchNorm: Equivalent("BatchNorm1d", {"num_features": "n", "eps": "epsilon", "momentum": "momentum"}, positional=1),
    Dropout: Equivalent("Dropout", {"p": "rate"}, positional=1),
    Identity: Equivalent("Identity"),
    Sigmoid: Equivalent("Sigmoid"),
    Tanh: Equivalent("Tanh"),
    ReLU: Equivalent("ReLU"),
    LeakyReLU: Equivalent("LeakyReLU", {"negative_slope": "slope"}, positional=1),
    Softplus: Equivalent("Softplus", constants={"beta": 1, "threshold": 20}),
    GELU: Equivalent("GELU", constants={"approximate": "tanh"}),
    ExactGELU: Equivalent("GELU", constants={"approximate": "none"}),
    SiLU: Equivalent("SiLU"),
    ELU: Equivalent("ELU", {"alpha": "alpha"}, positional=1),
    SELU: Equivalent("SELU"),
}

# The mean loss of a batch of logits z and targets t, with torch.nn.functional as `functional`. {z} stands for z, or for
# what the activation of the loss makes of z.
TORCH_LOSSES: dict[type[Loss], str] = {
    CrossEntropy: "functional.cross_entropy({z}, t)",
    BinaryCrossEntropy: 'functional.binary_cross_entropy_with_logits({z}, t, reduction="sum") / len(z)',
    SquaredError: 'functional.mse_loss({z}, t, reduction="sum") / (2 * len(z))',
    AbsoluteError: 'functional.l1_loss({z}, t, reduction="sum") / len(z)',
    Huber: 'functional.huber_loss({z}, t, reduction="sum", delta={loss.delta!r}) / len(z)',
    LogCosh: "(torch.logaddexp({z} - t, t - {z}) - math.log(2)).sum() / len(z)",
    Poisson: "(torch.exp({z}) - t * {z} + torch.xlogy(t, t) - t).sum() / len(z)",
}

# The classes of torch.optim. Only AdamW has handgrad's decoupled weight decay, and it must not apply to biases: give it
# the weight matrices, and add the other parameters as a group with weight_decay=0. For other optimizers,
# W *= 1 - lr * weight_decay before each step has no equivalent argument.
_ADAM: dict[str, Argument] = {
    "lr": "lr",
    "betas": lambda config: (config["beta_1"], config["beta_2"]),
    "eps": "epsilon",
}
TORCH_OPTIMIZERS: dict[type[Optimizer], Equivalent] = {
    SGD: Equivalent("SGD", {"lr": "lr"}),
    Momentum: Equivalent("SGD", {"lr": "lr", "momentum": "momentum"}),
    Nesterov: Equivalent("SGD", {"lr": "lr", "momentum": "momentum"}, constants={"nesterov": True}),
    Adam: Equivalent("Adam", _ADAM),
    AdamW: Equivalent("AdamW", {**_ADAM, "weight_decay": lambda config: config.get("weight_decay", 0.0)}),
}

# Initialization of a weight matrix {}. The bias is 0, except that "normal" draws it from N(0, 1) too.
TORCH_INITIALIZERS = {
    "normal": "nn.init.normal_({})",
    "lecun": 'nn.init.kaiming_normal_({}, nonlinearity="linear")',
    "xavier_normal": "nn.init.xavier_normal_({})",
    "xavier_uniform": "nn.init.xavier_uniform_({})",
    "kaiming_normal": 'nn.init.kaiming_normal_({}, nonlinearity="relu")',
    "kaiming_uniform": 'nn.init.kaiming_uniform_({}, nonlinearity="relu")',
    "zeros": "nn.init.zeros_({})",
}


def layer_code(layer: Layer) -> str:
    """Return the code of the module that is equivalent to a layer, as "nn.Linear(784, 30)".

    Raises HandgradError for custom layers.
    """
    return f"nn.{_equivalent(TORCH_LAYERS, layer).code(layer.config())}"


def make_layer(nn: Any, layer: Layer) -> Any:
    """Create the module that is equivalent to a layer, with new parameters. `nn` is torch.nn.

    Raises HandgradError for custom layers.
    """
    equivalent = _equivalent(TORCH_LAYERS, layer)
    return getattr(nn, equivalent.name)(**equivalent.keywords(layer.config()))


def loss_code(loss: Loss) -> str:
    """Return the code of the mean loss as an expression in the logits z and the targets t, both (batch, n_out).

    The expression uses the names `functional` (torch.nn.functional), and for some losses `torch` and `math`. Label
    smoothing is part of the targets. Raises HandgradError for custom losses.
    """
    T = loss.temperature
    template: str = _equivalent(TORCH_LOSSES, loss)
    if isinstance(loss, SquaredError) and loss.is_classification:
        return template.format(z="z.sigmoid()", loss=loss)
    if T != 1:
        return f"{T**2!r} * {template.format(z=f'z / {T!r}', loss=loss)}"
    return template.format(z="z", loss=loss)


def optimizer_code(optimizer: Optimizer, parameters: str = "network.parameters()") -> str:
    """Return the code of the equivalent optimizer, as "torch.optim.SGD(network.parameters(), lr=0.5)".

    Only the code of AdamW has a weight decay, which applies to all `parameters`. Raises HandgradError for optimizers
    that PyTorch does not have.
    """
    return f"torch.optim.{_equivalent(TORCH_OPTIMIZERS, optimizer).code(optimizer.config(), parameters)}"


def _equivalent(table: Mapping[Any, Any], part: object) -> Any:
    if isinstance(part, Ladder):
        raise HandgradError(
            "PyTorch has no equivalent of Ladder: convert fold_batchnorm(network), its layers of inference"
        )
    if isinstance(part, HOG):
        raise HandgradError("PyTorch has no equivalent of HOG: handgrad export --to torch writes one")
    if type(part) not in table:
        known = ", ".join(kind.__name__ for kind in table)
        raise HandgradError(f"PyTorch has no equivalent of {type(part).__name__}: expected one of {known}")
    return table[type(part)]


# ---- Import ----------------------------------------------------------------------------------------------------------

MAX_ORDERED = 8  # largest number of layers without numbers in their names whose order is determined from their shapes

_SUPPORTED = (
    "supported are Linear, BatchNorm1d, Dropout, Identity, Flatten, Sigmoid, Tanh, ReLU, LeakyReLU, Softplus, GELU, "
    "SiLU, ELU, SELU, and Softmax or LogSoftmax as the last module"
)
# Where checkpoints have the state dict, most common first.
CHECKPOINT_KEYS = ("model_state_dict", "state_dict", "model_state", "model", "network", "net", "module", "weights")
# Modules around another module that do not change what it computes, and the attribute that holds it.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",  # torch.compile
}
# What such modules add to the names in a state dict, at any position.
_WRAPPER_NAMES = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def from_torch(model: Any, *, activation: str | Sequence[str] | None = None, loss: str | Loss | None = None) -> Network:
    """Convert a model of PyTorch.

    Parameters
    ----------
    model : torch.nn.Sequential, mapping or path-like
        A Sequential, which may contain others, and may be wrapped by torch.compile or DataParallel; a state dict
        (`model.state_dict()`), whose values may also be NumPy arrays; a checkpoint with a state dict or a Sequential
        under one of the names in CHECKPOINT_KEYS; or a .safetensors file with a state dict. The prefixes "module." and
        "_orig_mod." are ignored.
    activation : str or sequence of str, optional
        For a state dict, which does not contain activations: the activation of the hidden layers, or one for each.
        Upper and lower case are equivalent. "exact_gelu" is `torch.nn.GELU()`, "gelu" its tanh approximation.
    loss : str or Loss, optional
        By default `BinaryCrossEntropy` if a Sequential ends with a Sigmoid, otherwise `CrossEntropy`.

    Returns
    -------
    Network
        With the same predictions. Softmax and LogSoftmax at the end are part of `CrossEntropy`. A Sigmoid at the end is
        part of `BinaryCrossEntropy` and `SquaredError("sigmoid")`; with other losses it remains a layer. Weights in
        float16 and bfloat16 become float32, and a warning is logged.

    Raises
    ------
    HandgradError
        For modules without an equivalent, shared weights, weights that are not finite, and state dicts whose layers
        do not form a unique sequence.

    Examples
    --------
    >>> from handgrad import interop
    >>> network = interop.from_torch(model)  # doctest: +SKIP
    >>> network = interop.from_torch(model.state_dict(), activation="relu")  # doctest: +SKIP
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        with in_file(path):
            return from_torch(_read_state_dict(path), activation=activation, loss=loss)
    if isinstance(model, Mapping):
        model = _from_checkpoint(model)
    model = _unwrapped(model)
    output = ""
    if isinstance(model, Mapping):
        layers = _state_dict_layers(model, activation)
    elif _is_torch_module(model) or _is_sequential(model):
        if activation is not None:
            raise HandgradError(
                f"activation {activation!r} is only for a state dict: a {type(model).__name__} has its own activations"
            )
        layers, output = _sequential_layers(model)
    else:
        raise HandgradError(
            f"cannot convert a {type(model).__name__}: expected a torch.nn.Sequential, or a state dict "
            "(model.state_dict()) and its activation"
        )
    layers, made = split_output_activation(layers, output, loss, "cross_entropy")
    return ImportedModel(layers, made).build()


# ---- Files and checkpoints ----


def _read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Read a .safetensors file. NumPy has no bfloat16: these arrays are decoded from their bytes."""
    with open_tensors(path) as file:
        if "handgrad" in (file.metadata() or {}):
            raise HandgradError(f"{path} is a handgrad file: read it with handgrad.load")
        names = list(file.keys())
        encoded = {name for name in names if file.get_slice(name).get_dtype() == "BF16"}
        arrays = {name: file.get_tensor(name) for name in names if name not in encoded}
    if encoded:
        log_widened(["bfloat16"])
        for name, tensor in optional("safetensors").deserialize(path.read_bytes()):
            if name in encoded:
                arrays[name] = decode_bfloat16(tensor["data"], tensor["shape"])
    return {name: arrays[name] for name in names}


def _from_checkpoint(checkpoint: Mapping[str, Any]) -> Any:
    """The state dict or the module in a checkpoint; a mapping that is not a checkpoint is returned unchanged."""
    found = {
        str(key): value
        for key, value in checkpoint.items()
        if _is_torch_module(value) or _is_sequential(value) or (isinstance(value, Mapping) and _has_weights(value))
    }
    if not found or _names_weights(checkpoint):
        return checkpoint
    key = next((key for key in CHECKPOINT_KEYS if key in found), next(iter(found)))
    if len(found) > 1:
        if key not in CHECKPOINT_KEYS:
            names = ", ".join(map(repr, found))
            raise HandgradError(f"the checkpoint contains {names}: pass one of them, as checkpoint[{key!r}]")
        others = ", ".join(repr(other) for other in found if other != key)
        logger.warning("the checkpoint also contains %s: importing %r", others, key)
    value = found[key]
    return _from_checkpoint(value) if isinstance(value, Mapping) else value


def _has_weights(mapping: Mapping[str, Any]) -> bool:
    """Whether a mapping is a state dict, or contains one."""
    return _names_weights(mapping) or any(
        isinstance(value, Mapping) and _names_weights(value) for value in mapping.values()
    )


def _names_weights(mapping: Mapping[str, Any]) -> bool:
    return any(str(name).rpartition(".")[2] == "weight" for name in mapping)


def _unwrapped(module: Any) -> Any:
    """The module inside of torch.compile, DataParallel and similar modules."""
    while type(module).__module__.startswith("torch.") and type(module).__name__ in _WRAPPERS:
        module = getattr(module, _WRAPPERS[type(module).__name__])
    return module


# ---- Sequential ----


def _is_torch_module(module: Any) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.")


def _is_sequential(module: Any) -> bool:
    """Whether a module is a Sequential, or of a subclass with the same `forward`."""
    kind = type(module)
    base = next((c for c in kind.__mro__ if (c.__name__, c.__module__[:9]) == ("Sequential", "torch.nn.")), None)
    return base is not None and getattr(kind, "forward", None) is getattr(base, "forward", None)


def _sequential_layers(model: Any) -> tuple[list[ImportedLayer], str]:
    """The layers of a Sequential, and "softmax" if it ends with one, which is not a layer."""
    modules = list(_flattened(type(model).__name__, model))
    output = ""
    if modules and type(modules[-1][1]).__name__ in ("Softmax", "LogSoftmax"):
        name, last = modules.pop()
        output = "softmax"
        if last.dim not in (None, 1, -1):
            raise HandgradError(f"{name!r} has dim={last.dim}: expected dim=1")
    layers: list[ImportedLayer] = []
    owners: dict[int, tuple[str, Any]] = {}
    for name, module in modules:
        _check_not_shared(name, module, owners)
        layers.append(_module_layer(name, module))
    log_widened(dtype_name(p) for _, p in owners.values())
    return layers, output


def _flattened(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    """The modules of a Sequential and of those inside it, in order, with names as "Sequential[0] Linear"."""
    module = _unwrapped(module)
    if not _is_sequential(module):
        yield name, module
        return
    for key, child in module._modules.items():  # named_children omits a module that occurs a second time
        yield from _flattened(f"{name}[{key}] {type(child).__name__}", child)


def _check_not_shared(name: str, module: Any, owners: dict[int, tuple[str, Any]]) -> None:
    """Raise HandgradError for arrays that an earlier module has too: in handgrad they would be trained separately."""
    held = [p for kind in ("weight", "bias", "running_mean") if (p := getattr(module, kind, None)) is not None]
    for p in held:
        if id(p) in owners:
            raise HandgradError(
                f"{name!r} shares its weights with {owners[id(p)][0]!r}, which handgrad does not support: "
                "use copy.deepcopy of the module if separate weights are acceptable"
            )
    owners.update((id(p), (name, p)) for p in held)


def _module_layer(name: str, module: Any) -> ImportedLayer:
    kind = type(module).__name__ if _is_torch_module(module) else ""
    if kind == "Flatten" and (module.start_dim, module.end_dim) == (1, -1):  # the inputs of a network are flat
        return ImportedLayer(name, Identity(), {})
    if kind == "Linear":
        return dense_layer(
            name, as_numpy(name, module.weight), None if module.bias is None else as_numpy(name, module.bias)
        )
    if kind == "BatchNorm1d":
        arrays = [module.weight, module.bias, module.running_mean, module.running_var]
        g, b, mean, var = (None if p is None else as_numpy(name, p) for p in arrays)
        if mean is None or var is None or module.momentum is None:
            raise HandgradError(f"{name!r} has no running statistics with a momentum, which handgrad requires")
        return batch_norm_layer(name, g, b, mean, var, module.momentum, module.eps)
    for layer, equivalent in TORCH_LAYERS.items():
        has_constants = all(getattr(module, key, None) == value for key, value in equivalent.constants.items())
        if equivalent.name == kind and has_constants:
            options = {str(key): getattr(module, argument) for argument, key in equivalent.arguments.items()}
            return imported_layer(name, layer, **options)
    settings = f"({module.extra_repr()})" if kind in ("Softplus", "GELU", "Flatten") else ""
    raise HandgradError(f"{name!r}{settings} has no equivalent in handgrad: {_SUPPORTED}")


# ---- State dict ----


def _state_dict_layers(state: Mapping[str, Any], activation: str | Sequence[str] | None) -> list[ImportedLayer]:
    """The layers of a state dict in their order, with the named activations between them."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    log_widened(map(dtype_name, state.values()))
    for name, value in _without_wrapper_names(state).items():
        if isinstance(value, Mapping):
            raise HandgradError(f"{name!r} is a mapping: if it is the state dict, pass it instead")
        prefix, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            raise HandgradError(f"{name!r} belongs to an unknown layer: expected names such as '0.weight', '0.bias'")
        groups.setdefault(prefix, {})[kind] = as_numpy(name, value)
    ordered = _in_order(
        [_state_dict_layer(prefix, group) for prefix, group in groups.items()], trusted=isinstance(state, OrderedDict)
    )
    dense = [i for i, each in enumerate(ordered) if isinstance(each.layer, Dense)]
    names = _activations(activation, max(0, len(dense) - 1))
    layers = ordered[: dense[0] + 1] if dense else []
    for i, j, name in zip(dense, dense[1:], names, strict=False):
        between = ordered[i + 1 : j]
        if name != "identity":
            act = ImportedLayer(f"{name} after {ordered[i].name}", ACTIVATIONS[name](), {})
            last = not between or _norm_comes_first(ordered[i : j + 1])
            between = [*between, act] if last else [act, *between]
        layers += [*between, ordered[j]]
    return layers + (ordered[dense[-1] + 1 :] if dense else [])


def _without_wrapper_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without what torch.compile, DataParallel and AveragedModel add to it."""
    names = {name: ".".join(part for part in str(name).split(".") if part not in _WRAPPER_NAMES) for name in state}
    names = {name: plain for name, plain in names.items() if plain != "n_averaged"}
    while names and all(plain.startswith("module.") for plain in names.values()):
        names = {name: plain.removeprefix("module.") for name, plain in names.items()}
    if len(set(names.values())) != len(names):
        raise HandgradError("several arrays have the same name without the prefix '_orig_mod.': pass one state dict")
    return {plain: state[name] for name, plain in names.items()}


def _state_dict_layer(prefix: str, group: dict[str, NDArray[Any]]) -> ImportedLayer:
    """The Dense layer or the BatchNorm that a group of arrays is."""
    batch_norm = "running_mean" in group or "running_var" in group
    expected = {"weight", "bias"} | ({"running_mean", "running_var"} if batch_norm else set())
    missing = sorted(f"{prefix}.{kind}".removeprefix(".") for kind in expected - set(group))
    if missing:
        raise HandgradError(f"{prefix!r} has no {', '.join(map(repr, missing))}: add zeros if the layer has no bias")
    if batch_norm:
        return batch_norm_layer(prefix, group["weight"], group["bias"], group["running_mean"], group["running_var"])
    if "num_batches_tracked" in group:
        raise HandgradError(f"{prefix!r} has 'num_batches_tracked' but no running statistics")
    return dense_layer(prefix, group["weight"], group["bias"])


def _activations(activation: str | Sequence[str] | None, hidden: int) -> list[str]:
    """The name of the activation of each hidden layer."""
    if activation is None and hidden:
        raise HandgradError(
            f"a state dict does not contain activations: give activation='relu', or a list of {hidden}, one for each "
            "hidden layer"
        )
    given = [activation] if isinstance(activation, str) else list(activation or [])
    names = [activation_name(name) for name in given]
    if "gelu" in map(plain_name, given):
        logger.warning("'gelu' is GELU(approximate='tanh') of PyTorch: give 'exact_gelu' for GELU()")
    if isinstance(activation, str):
        names *= hidden
    if len(names) != hidden:
        raise HandgradError(f"activation has {len(names)} names for {hidden} hidden layers: expected one for each")
    return names


def _numbers(name: str) -> tuple[str, tuple[int, ...]]:
    """A name without its numbers, and the numbers: the children of a Sequential only differ in the numbers."""
    return re.sub(r"\d+", "#", name), tuple(map(int, re.findall(r"\d+", name)))


def _in_order(layers: list[ImportedLayer], trusted: bool) -> list[ImportedLayer]:
    """The layers in the order of their numbers, or in the only order in which their shapes fit.

    trusted: the given order is the order of the layers. The names in a file are sorted, so that their order is not.
    """
    if len({_numbers(each.name)[0] for each in layers}) <= 1:
        return sorted(layers, key=lambda each: _numbers(each.name)[1])
    if any(isinstance(each.layer, BatchNorm) for each in layers):
        raise HandgradError(
            "the names do not determine whether a BatchNorm is before or after the activation: pass the "
            "torch.nn.Sequential, or use the names of its state dict, '0.weight', ..."
        )
    if trusted:
        return layers
    orderings = list(_orderings([], layers, 2)) if len(layers) <= MAX_ORDERED else []
    if len(orderings) != 1:
        shapes = ", ".join(f"{each.name!r} {each.arrays['W'].shape}" for each in layers)
        problem = (
            "no order of the layers fits"
            if not orderings and len(layers) <= MAX_ORDERED
            else ("the order of the layers is not unique")
        )
        raise HandgradError(f"{problem}: {shapes}; pass an OrderedDict, or number the names")
    return orderings[0]


def _orderings(begun: list[ImportedLayer], rest: list[ImportedLayer], limit: int) -> Iterator[list[ImportedLayer]]:
    """The first `limit` orderings in which the shapes fit, and equal names are in the order of their numbers."""
    if not rest:
        yield begun
        return
    found = 0
    for i, each in enumerate(rest):
        kind, numbers = _numbers(each.name)
        earlier = any(_numbers(other.name)[0] == kind and _numbers(other.name)[1] < numbers for other in rest)
        if earlier or (begun and begun[-1].layer.width(0) != each.layer.n_in):
            continue
        for ordering in _orderings([*begun, each], rest[:i] + rest[i + 1 :], limit - found):
            yield ordering
            found += 1
            if found == limit:
                return


def _norm_comes_first(layers: Sequence[ImportedLayer]) -> bool:
    """Whether the BatchNorm between two Dense layers is before the activation, which leaves a gap in the numbers."""
    before, *between, after = (_numbers(each.name)[1][-1:] for each in layers)
    if len(between) == 1 and before and after:
        gaps = between[0][0] - before[0] > 1, after[0] - between[0][0] > 1
        if gaps in ((False, True), (True, False)):
            return gaps[1]
    raise HandgradError(
        f"the numbers from {layers[0].name!r} to {layers[-1].name!r} do not determine whether the BatchNorm is before "
        "or after the activation: pass the torch.nn.Sequential"
    )
