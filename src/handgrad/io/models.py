"""Model files: save and load networks, ensembles and wrappers as safetensors.

The arrays of a network have PyTorch's names and layout, `0.weight` (n_out, n_in), `0.bias` (n_out,), `2.weight`, ...,
so that `load_state_dict` of the same Sequential accepts them. A BatchNorm also has `running_mean`, `running_var` and
`num_batches_tracked`, which is always 0. The arrays of an ensemble have the names of a ModuleList: `0.0.weight`,
`0.2.bias`, `1.0.weight`, ...

The metadata has one key, "handgrad", with JSON: {"format": 1, "model": {...}}. A model is described by its type and

    Network                layers, loss, classes, image_shape; feature_names, if the inputs are columns of a table
    Ensemble               members: a list of models
    Preprocessed           preprocessing: type and options; model
    TestTimeAugmentation   shifts; model
    Calibrated             temperature; model
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError, unknown
from ..images.deskew import Deskew
from ..images.hog import HOG
from ..ladder import Ladder
from ..layers import LAYERS as CORE_LAYERS
from ..layers import BatchNorm, Layer
from ..losses import LOSS_CLASSES
from ..model import Model
from ..network import Network
from ..preprocessing import Preprocessing, Standardize
from ..wrappers import Calibrated, Ensemble, Preprocessed, TestTimeAugmentation
from .atomic import as_path
from .safetensors import join, read_arrays, write_arrays

TORCH_NAME = {"W": "weight", "g": "weight", "b": "bias"}  # other parameters have the same name in PyTorch
COUNT = "num_batches_tracked"
TRAINING = "training."  # prefix of arrays that only continue a training, see `handgrad.sklearn.save`
MAX_DEPTH = 8  # of nested models in a file
# What `handgrad.data.load` reads.
DATA_NAMES, DATA_SUFFIXES = ("mnist", "synthetic"), (".csv", ".tsv", ".npy", ".npz", ".gz")

LAYERS: dict[str, type[Layer]] = {**CORE_LAYERS, "HOG": HOG, "Ladder": Ladder}
PREPROCESSING: dict[str, type[Preprocessing]] = {"Deskew": Deskew, "Standardize": Standardize}

Made = TypeVar("Made")


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model file, atomically.

    Raises
    ------
    HandgradError
        For custom layers, losses and preprocessing, and if the file cannot be written.
    """
    description, arrays = describe_model(model)
    write_arrays(as_path(path), arrays, {"model": description})


def load(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """Read a model file.

    Parameters
    ----------
    path : str or PathLike
        The file, or the directory of a run, which contains model.safetensors.
    mmap : bool
        Map the file into memory instead of reading it. Several processes that map the same file share the memory of the
        weights. A process that trains the model gets its own copy of what it changes; the file does not change. The
        file may be replaced while it is in use, as `save` does, but it must not be overwritten in place or truncated.
        Files that another program has written may have another order of the arrays, and are read.

    Returns
    -------
    Network, Ensemble, Preprocessed, Calibrated or TestTimeAugmentation

    Raises
    ------
    HandgradError
        If the file is not a model file, is damaged, or has a newer format.
    """
    path = as_path(path)
    if os.path.exists(path / "model.safetensors"):  # the directory of a run
        path /= "model.safetensors"
    try:
        arrays, description = read_arrays(path, mapped=mmap)
    except HandgradError as error:
        if path.name in DATA_NAMES or path.suffix.lower() in DATA_SUFFIXES:
            raise HandgradError(f"{error}; handgrad.data.load reads data sets") from error
        raise
    if "model" not in description:
        raise HandgradError(f"{path} is not a model file: its metadata describes no model")
    return build_model(str(path), arrays, description["model"])


# ---- Writing ---------------------------------------------------------------------------------------------------------


def describe_model(model: Model) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the description of a model, as JSON values, and its arrays."""
    if isinstance(model, Preprocessed):
        description, arrays = describe_model(model.model)
        _check_known(model.preprocessing, PREPROCESSING)
        return {
            "type": "Preprocessed",
            "preprocessing": {"type": type(model.preprocessing).__name__, **model.preprocessing.config()},
            "model": description,
        }, arrays
    if isinstance(model, TestTimeAugmentation):
        description, arrays = describe_model(model.model)
        return {"type": "TestTimeAugmentation", "shifts": model.shifts, "model": description}, arrays
    if isinstance(model, Calibrated):
        description, arrays = describe_model(model.model)
        return {"type": "Calibrated", "temperature": model.temperature, "model": description}, arrays
    if isinstance(model, Ensemble):
        members = [describe_model(member) for member in model.members]
        arrays = {f"{i}.{name}": p for i, (_, named) in enumerate(members) for name, p in named.items()}
        return {"type": "Ensemble", "members": [description for description, _ in members]}, arrays
    if not isinstance(model, Network):
        hint = "; use handgrad.sklearn.save for an estimator" if hasattr(model, "network_") else ""
        raise HandgradError(
            f"cannot save a {type(model).__name__}: expected a network, an ensemble or a wrapper of handgrad{hint}"
        )
    for layer in model.layers:
        _check_known(layer, LAYERS)
    _check_known(model.loss, LOSS_CLASSES)
    names = {} if model.feature_names is None else {"feature_names": model.feature_names}
    return {
        "type": "Network",
        "layers": [{"type": type(layer).__name__, **layer.config()} for layer in model.layers],
        "loss": {"type": type(model.loss).__name__, **model.loss.config()},
        "classes": model.classes,
        "image_shape": model.image_shape,
    } | names, _arrays(model)


def _check_known(part: object, known: Mapping[str, type]) -> None:
    if type(part) not in known.values():
        raise HandgradError(
            f"a model file cannot hold the custom class {type(part).__name__}: "
            "save network.parameters with numpy.save, and build the network in your code"
        )


def _arrays(network: Network) -> dict[str, NDArray[Any]]:
    """The parameters by their names in PyTorch, in the order of θ."""
    named: dict[str, NDArray[Any]] = {}
    for i, layer in enumerate(network.layers):
        for symbol in layer.parameter_shapes:
            named[f"{i}.{TORCH_NAME.get(symbol, symbol)}"] = getattr(layer, symbol)
        if isinstance(layer, BatchNorm):
            named[f"{i}.{COUNT}"] = np.zeros((), np.int64)
    return named


# ---- Reading ---------------------------------------------------------------------------------------------------------


def build_model(what: str, arrays: dict[str, NDArray[Any]], description: Any) -> Model:
    """Build the described model with these arrays; those of a training are ignored. `what` names it in errors."""
    own = {name: value for name, value in arrays.items() if not name.startswith(TRAINING)}
    try:
        return _build(what, own, description, MAX_DEPTH)
    except (KeyError, TypeError, AttributeError, ValueError, MemoryError, OverflowError) as error:
        if isinstance(error, HandgradError) and str(error).startswith(what):
            raise
        raise HandgradError(f"{what} is not a valid model file: inconsistent metadata: {error}") from error


def _build(what: str, arrays: dict[str, NDArray[Any]], description: Any, depth: int) -> Model:
    kind = description["type"]
    if depth == 0:
        raise HandgradError("too many nested models")
    if kind == "Preprocessed":
        preprocessing = make_part(PREPROCESSING, "preprocessing", description["preprocessing"])
        return Preprocessed(_build(what, arrays, description["model"], depth - 1), preprocessing)
    if kind == "TestTimeAugmentation":
        return TestTimeAugmentation(_build(what, arrays, description["model"], depth - 1), description["shifts"])
    if kind == "Calibrated":
        return Calibrated(_build(what, arrays, description["model"], depth - 1), description["temperature"])
    if kind == "Ensemble":
        return _build_ensemble(what, arrays, description["members"], depth)
    if kind != "Network":
        raise HandgradError(f"unknown type of model {kind!r}")
    return _build_network(what, arrays, description)


def _build_ensemble(what: str, arrays: dict[str, NDArray[Any]], members: list[Any], depth: int) -> Ensemble:
    grouped: dict[str, dict[str, NDArray[Any]]] = {str(i): {} for i in range(len(members))}
    for name, value in arrays.items():
        member, _, rest = name.partition(".")
        if member not in grouped:
            raise HandgradError(f"{what} is damaged: it describes {len(members)} members, none of which has {name}")
        grouped[member][rest] = value
    models = [_build(what, own, member, depth - 1) for own, member in zip(grouped.values(), members, strict=True)]
    return Ensemble(models)


def _build_network(what: str, arrays: dict[str, NDArray[Any]], description: Any) -> Network:
    layers = [make_part(LAYERS, "layer", config) for config in description["layers"]]
    parameters = [value for name, value in arrays.items() if not name.endswith(COUNT)]
    described = sum(math.prod(shape) for layer in layers for shape in layer.parameter_shapes.values())
    if described != sum(value.size for value in parameters):  # before this amount of memory is allocated
        raise HandgradError(f"{what} is damaged: it describes {described:,} parameters")
    expected = {
        f"{i}.{TORCH_NAME.get(symbol, symbol)}": shape
        for i, layer in enumerate(layers)
        for symbol, shape in layer.parameter_shapes.items()
    }
    counts = {f"{i}.{COUNT}": () for i, layer in enumerate(layers) if isinstance(layer, BatchNorm)}
    if {name: value.shape for name, value in arrays.items()} != expected | counts:
        found = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
        raise HandgradError(f"{what} is damaged: it has the arrays {found}: expected those of {layers!r}")
    if not expected:
        raise HandgradError(f"{what} is damaged: it describes a network without parameters")
    dtypes = {str(arrays[name].dtype) for name in expected}
    if len(dtypes) > 1:
        raise HandgradError(f"{what} is damaged: its parameters are {' and '.join(sorted(dtypes))}")
    for name in expected:
        if not np.isfinite(arrays[name]).all():
            raise HandgradError(f"{what} is damaged: {name} contains NaN or infinity")
        if "running_var" in name and (arrays[name] < 0).any():
            raise HandgradError(f"{what} is damaged: {name} contains a negative variance")
    loss = make_part(LOSS_CLASSES, "loss", description["loss"])
    network = Network.from_parameters(layers, join([arrays[name] for name in expected]), loss=loss)
    network.classes, network.image_shape = description["classes"], description["image_shape"]
    network.feature_names = description.get("feature_names")
    return network


def make_part(known: Mapping[str, Callable[..., Made]], kind: str, config: dict[str, Any]) -> Made:
    """Create the layer, loss or preprocessing that `config` describes by its type and its arguments."""
    arguments = dict(config)
    name = arguments.pop("type")
    if name not in known:
        raise unknown(kind, str(name), known)
    return known[name](**arguments)
