"""Networks of PyTorch: a Sequential, module by module, or a state dict, by the names and shapes of its arrays."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import HandgradError, unknown
from ..io.safetensors import read_tensors
from ..layers import (
    ACTIVATIONS,
    BatchNorm,
    Dense,
    Dropout,
    GELU,
    Identity,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Softplus,
    Tanh,
)
from ..losses import Loss
from .imported import ImportedLayer, ImportedModel, array_of, dense_link, split_output_activation, layer_link, norm_link

SEARCHED = 8  # arrays without numbers in their names whose order is looked for by their shapes, at most
MODULES: dict[str, type[Layer]] = {"Identity": Identity, "Sigmoid": Sigmoid, "Tanh": Tanh, "ReLU": ReLU}


def from_torch(
    model: Any, activation: str | Sequence[str] | None = None, loss: str | Loss | None = None
) -> ImportedModel:
    """A Sequential, a state dict, or a .safetensors file with one in it: see `interop.from_torch`."""
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        arrays, metadata = read_tensors(path)
        if "handgrad" in metadata:
            raise HandgradError(f"{path} is a file of handgrad's own: handgrad.load reads its models")
        try:
            return from_torch(arrays, activation, loss)._replace(file=path)
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
    links, ending = split_output_activation(links, "softmax" if softmax else "", loss, "cross_entropy")
    return ImportedModel(links, ending)


def _module_links(model: Any) -> tuple[list[ImportedLayer], bool]:
    """Every module of a Sequential, those within others too, in its place; whether a Softmax, left out, comes last."""
    modules = list(_modules(type(model).__name__, model))
    softmax = type(modules[-1][1]).__name__ in ("Softmax", "LogSoftmax") if modules else False
    if softmax and modules[-1][1].dim not in (None, 1, -1):
        raise HandgradError(f"{modules[-1][0]} is along dim {modules[-1][1].dim}: expected 1")
    links: list[ImportedLayer] = []
    owners: dict[int, tuple[str, Any]] = {}
    for name, module in modules[: len(modules) - softmax]:
        _own(name, module, owners)
        links.append(_module_link(name, module, first=all(type(link.layer) is Identity for link in links)))
    return links, softmax


def _own(name: str, module: Any, owners: dict[int, tuple[str, Any]]) -> None:
    """Raise HandgradError for arrays that an earlier module has too: trained on, those here would be two.

    What has no arrays, an activation or a Dropout, may come as often as it likes.
    """
    held = [getattr(module, kind, None) for kind in ("weight", "bias", "running_mean")]
    for p in (p for p in held if p is not None):
        if id(p) in owners:
            raise HandgradError(
                f"{name!r} has the same weights as {owners[id(p)][0]!r}: handgrad has them at one place alone; "
                "where two of equal weights will do, give copy.deepcopy of one"
            )
    owners.update((id(p), (name, p)) for p in held if p is not None)


def _modules(name: str, module: Any) -> Iterator[tuple[str, Any]]:
    """What a Sequential is a chain of."""
    if type(module).__name__ != "Sequential" or not type(module).__module__.startswith("torch.nn.modules."):
        yield name, module
        return
    for key, child in module._modules.items():  # named_children leaves out what comes a second time
        yield from _modules(f"{name}[{key}] {type(child).__name__}", child)


def _module_link(name: str, module: Any, first: bool) -> ImportedLayer:
    kind = type(module).__name__ if type(module).__module__.startswith("torch.nn.modules.") else None
    if kind in MODULES:
        return ImportedLayer(name, MODULES[kind](), {})
    if kind == "Linear":
        bias = None if module.bias is None else array_of(name, module.bias)
        return dense_link(name, array_of(name, module.weight), bias)
    if kind == "BatchNorm1d":
        arrays = [module.weight, module.bias, module.running_mean, module.running_var]
        g, b, mean, var = (None if p is None else array_of(name, p) for p in arrays)
        if mean is None or var is None or module.momentum is None:
            raise HandgradError(f"{name} keeps no running statistics with a momentum: handgrad's always does")
        return norm_link(name, g, b, mean, var, module.momentum, module.eps)
    if kind == "Dropout":
        return layer_link(name, Dropout, module.p)
    if kind == "Flatten" and first and (module.start_dim, module.end_dim) == (1, -1):
        return ImportedLayer(name, Identity(), {})
    if kind == "LeakyReLU":
        return layer_link(name, LeakyReLU, module.negative_slope)
    if kind == "Softplus" and (module.beta, module.threshold) == (1, 20):  # beyond 20 it is z, to 2e-9
        return ImportedLayer(name, Softplus(), {})
    if kind == "GELU" and module.approximate == "tanh":
        return ImportedLayer(name, GELU(), {})
    settings = f"({module.extra_repr()})" if kind in ("Softplus", "GELU", "Flatten") else ""
    raise HandgradError(f"{name}{settings} has no equal in handgrad: {_KNOWN_MODULES}")


_KNOWN_MODULES = (
    "it knows Linear, BatchNorm1d, Dropout, Identity, a Flatten in front, Sigmoid, Tanh, ReLU, LeakyReLU, Softplus, "
    "GELU(approximate='tanh'), and a Softmax or LogSoftmax at the end"
)


def _state_links(state: Mapping[str, Any], activation: str | Sequence[str] | None) -> list[ImportedLayer]:
    """The chain of a state dict: its matrices in their order, and between them the activations that are named."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            raise HandgradError(f"{name!r} is itself a mapping: give that one, where it is the state dict")
        prefix, _, kind = str(name).rpartition(".")
        if kind not in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            raise HandgradError(f"{name!r} is of no layer that handgrad knows: expected names as '0.weight', '0.bias'")
        groups.setdefault(prefix, {})[kind] = array_of(str(name), value)
    links = {prefix: _state_link(prefix, group) for prefix, group in groups.items()}
    order = _order(list(links.values()), trusted=isinstance(state, OrderedDict))

    dense = [i for i, link in enumerate(order) if isinstance(link.layer, Dense)]
    names = _activations(activation, max(0, len(dense) - 1))
    chain = order[: dense[0] + 1] if dense else []
    for i, j, name in zip(dense, dense[1:], names, strict=False):
        between, act = order[i + 1 : j], ImportedLayer(f"{name} after {order[i].name}", ACTIVATIONS[name](), {})
        if between and name != "identity":
            chain += [*between, act] if _comes_first(order[i : j + 1]) else [act, *between]
        else:
            chain += [*between, *([act] if name != "identity" else [])]
        chain.append(order[j])
    return chain + (order[dense[-1] + 1 :] if dense else [])


def _state_link(prefix: str, group: dict[str, NDArray[Any]]) -> ImportedLayer:
    normalises = "running_mean" in group or "running_var" in group
    expected = {"weight", "bias"} | ({"running_mean", "running_var"} if normalises else set())
    missing = sorted(f"{prefix}.{kind}".removeprefix(".") for kind in expected - set(group))
    if missing:
        raise HandgradError(f"{prefix!r} has no {', '.join(map(repr, missing))}: put zeros there if it is 0")
    if normalises:
        return norm_link(prefix, group["weight"], group["bias"], group["running_mean"], group["running_var"])
    if "num_batches_tracked" in group:
        raise HandgradError(f"{prefix!r} counts batches and has no running statistics")
    return dense_link(prefix, group["weight"], group["bias"])


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


def _order(links: list[ImportedLayer], trusted: bool) -> list[ImportedLayer]:
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


def _ways(begun: list[ImportedLayer], rest: list[ImportedLayer], most: int) -> Iterator[list[ImportedLayer]]:
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


def _comes_first(links: Sequence[ImportedLayer]) -> bool:
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
