"""Networks of Keras: a Sequential or a Functional model, or a .keras file, by the configuration of its layers."""

from __future__ import annotations

import itertools
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from ..errors import HandgradError, optional
from ..layers import Dropout, Identity, Layer, LeakyReLU, ReLU, Sigmoid, Softplus, Tanh
from ..losses import (
    LOSSES,
    AbsoluteError,
    BinaryCrossEntropy,
    Huber,
    LogCosh,
    Loss,
    Poisson,
    CrossEntropy,
    SquaredError,
)
from .imported import (
    HELD,
    ImportedLayer,
    ImportedModel,
    array_of,
    dense_link,
    split_output_activation,
    layer_link,
    norm_link,
)

# The arrays of a layer of Keras: its kind, its name, how many it has.
_Weights: TypeAlias = "Callable[[str, str, int], list[NDArray[Any]]]"
LARGEST_TEXT = 1 << 24  # bytes of a config.json, at most
KERAS_MODELS = ("Sequential", "Functional")
KERAS_ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "linear": Identity,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "softplus": Softplus,
    "leaky_relu": lambda: LeakyReLU(0.2),
}
# What a model was compiled with, by the letters of its name, and the setting of it that handgrad's has too.
KERAS_LOSSES: dict[str, tuple[type[Loss], str]] = {
    "categoricalcrossentropy": (CrossEntropy, "label_smoothing"),
    "sparsecategoricalcrossentropy": (CrossEntropy, ""),
    "binarycrossentropy": (
        BinaryCrossEntropy,
        "",
    ),  # its label_smoothing is another where there are three outputs or more
    "bce": (BinaryCrossEntropy, ""),
    "meansquarederror": (SquaredError, ""),
    "mse": (SquaredError, ""),
    "meanabsoluteerror": (AbsoluteError, ""),
    "mae": (AbsoluteError, ""),
    "huber": (Huber, "delta"),
    "logcosh": (LogCosh, ""),
    "poisson": (Poisson, ""),
}
CHANGING = ("delta", "label_smoothing", "ignore_class")  # settings that make another loss of it, where they are not 0


def from_keras(model: Any, loss: str | Loss | None = None) -> ImportedModel:
    """A .keras file, or a Sequential or Functional model: see `interop.from_keras`."""
    if isinstance(model, str | os.PathLike):
        return _keras_file(Path(model), loss)
    if not (callable(getattr(model, "get_config", None)) and callable(getattr(model, "get_weights", None))):
        raise HandgradError(f"a {type(model).__name__} is no Keras model: expected one, or a .keras file")
    if not getattr(model, "built", True):
        raise HandgradError(f"the Keras model {_NOT_BUILT}")
    kind, weights = type(model).__name__, [array_of("get_weights()", p) for p in model.get_weights()]
    config: dict[str, Any] = {"class_name": kind}
    if kind in KERAS_MODELS:
        config |= {"config": model.get_config(), "compile_config": _compiled(model)}
    if kind == "Sequential":
        config["config"] = config["config"] | {"layers": _repeated(model, config["config"]["layers"])}

    def taken(kind: str, name: str, count: int) -> list[NDArray[Any]]:
        if len(weights) < count:
            raise HandgradError(f"the Keras model has fewer arrays than its layers: {name!r} has none left")
        return [weights.pop(0) for _ in range(count)]

    parts = _keras_parts(config, taken, loss)
    if weights:
        raise HandgradError(f"the Keras model has {len(weights)} arrays more than its layers")
    return parts


_NOT_BUILT = "is not built, and has no weights yet: call it once, or give it an Input"


def _repeated(model: Any, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The configurations of a Sequential's layers, again where one comes again: get_config leaves that out.

    Raises HandgradError where a layer with weights does: trained on, they would be two.
    """
    known = {config["config"]["name"]: config for config in configs}
    again: list[dict[str, Any]] = []
    for layer in model.layers:
        if layer.name not in known:
            raise HandgradError(f"the Keras model has a layer {layer.name!r} that its configuration does not describe")
        config = known[layer.name]
        if layer.weights and any(config is earlier for earlier in again):
            raise HandgradError(
                f"'{layer.name} ({config['class_name']})' comes more than once: handgrad has weights at one place "
                "alone; where two layers of equal weights will do, give two"
            )
        again.append(config)
    return [config for config in configs if config["class_name"] == "InputLayer"] + again


def _compiled(model: Any) -> dict[str, Any]:
    """The configuration that a model was compiled with, with the delta of a Huber, which Keras leaves out of it."""
    config = dict(getattr(model, "get_compile_config", dict)() or {})
    made, loss = _single(getattr(model, "loss", None)), _single(config.get("loss"))
    if isinstance(loss, Mapping) and isinstance(loss.get("config"), Mapping):
        config["loss"] = {
            **loss,
            "config": _settings(getattr(made, "_fn_kwargs", None)) | loss["config"],
        }
    return config


def _keras_file(path: Path, loss: str | Loss | None) -> ImportedModel:
    """A zip of a text, config.json, and of arrays in HDF5, model.weights.h5."""
    h5py = optional("h5py", "keras")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > LARGEST_TEXT:
                raise HandgradError("its config.json is too large for a network's")
            config = json.loads(archive.read("config.json"))
            with archive.open("model.weights.h5") as content, h5py.File(content, "r") as file:
                return _keras_parts(config, _keras_arrays(h5py, file), loss)._replace(file=path)
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
        if not len(group) and count:
            raise HandgradError(f"its layer {name!r} has no weights: the Keras model {_NOT_BUILT}")
        if len(group) != count or group.attrs.get("name", name) != name:
            raise HandgradError(f"its weights {group.name} are not those of its layer {name!r}")
        arrays = [held(group, str(i)) for i in range(count)]
        for p in arrays:
            elsewhere = not isinstance(p, h5py.Dataset) or p.is_virtual or p.external
            if elsewhere or p.dtype.kind != "f" or p.id.get_storage_size() != p.nbytes:
                raise HandgradError(f"its weights {p.name} are no array of numbers that lies whole in the file")
        return [p[()] for p in arrays]

    return weights


def _keras_parts(config: dict[str, Any], weights: _Weights, loss: str | Loss | None) -> ImportedModel:
    """The chain that a model's configuration describes."""
    if config["class_name"] not in KERAS_MODELS:
        raise HandgradError(
            f"a Keras {config['class_name']!r} is no chain: expected a Sequential or a Functional model"
        )
    layers = config["config"]["layers"]
    if config["class_name"] == "Functional":
        _in_one_chain(layers, config["config"]["output_layers"])
    shape = config["config"].get("build_input_shape")  # (batch, ...) of what comes to the next layer, where it is known
    links: list[ImportedLayer] = []
    image_shape, held, holder = None, "", ""
    for layer in layers:
        kind, settings = layer["class_name"], layer["config"]
        name = f"{settings.get('name', '')} ({kind})"
        if held:
            raise HandgradError(f"{holder!r} is {HELD[held][0]}, and {name!r} comes after it: expected it at the end")
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
            held, holder = activation if activation in HELD else "", name
    if loss is None:
        tells = (
            HELD[held][1] if held else "binary_cross_entropy" if links and type(links[-1].layer) is Sigmoid else None
        )
        loss = _keras_loss((config.get("compile_config") or {}).get("loss"), tells)
    links, ending = split_output_activation(links, held, loss, "squared_error")
    return ImportedModel(links, ending, image_shape=image_shape)


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


def _keras_links(kind: str, settings: dict[str, Any], name: str, weights: _Weights) -> tuple[list[ImportedLayer], str]:
    """A layer of Keras as layers of handgrad, and the name of the activation that it ends with."""
    if kind == "Dense":
        W, *b = weights("dense", settings["name"], 1 + settings["use_bias"])
        made, activation = [dense_link(name, W.T, b[0] if b else None)], settings["activation"]
    elif kind == "BatchNormalization" and settings["axis"] in (-1, 1, [-1], [1]):
        scale, shift = settings["scale"], settings["center"]
        arrays = weights("batch_normalization", settings["name"], 2 + scale + shift)
        g, beta = arrays.pop(0) if scale else None, arrays.pop(0) if shift else None
        momentum = round(1 - settings["momentum"], 12)  # of the old statistics there, of the batch's here
        return [norm_link(name, g, beta, arrays[0], arrays[1], momentum, settings["epsilon"])], "linear"
    elif kind == "Dropout":
        return [layer_link(name, Dropout, settings["rate"])], "linear"
    elif kind == "Activation":
        made, activation = [], settings["activation"]
    elif kind == "LeakyReLU":  # `alpha` before Keras 3
        slope = settings["negative_slope" if "negative_slope" in settings else "alpha"]
        return [layer_link(name, LeakyReLU, slope)], "linear"
    elif kind == "ReLU" and not any(settings.get(key) for key in ("max_value", "negative_slope", "threshold")):
        made, activation = [], "relu"
    elif kind == "Softmax" and settings.get("axis", -1) in (-1, 1):
        made, activation = [], "softmax"
    else:
        raise HandgradError(f"{name!r} has no equal in handgrad: {_KNOWN_KERAS}")
    if activation not in (*KERAS_ACTIVATIONS, *HELD):
        what = activation.get("class_name", "function") if isinstance(activation, Mapping) else activation
        raise HandgradError(f"{name!r} has the activation {what!r}, which has no equal in handgrad: {_KNOWN_KERAS}")
    if activation not in ("linear", *HELD):
        made = [*made, ImportedLayer(name, KERAS_ACTIVATIONS[activation](), {})]
    return made, activation


_KNOWN_KERAS = (
    "it knows Dense, BatchNormalization, Dropout, a Flatten in front, Activation, ReLU, LeakyReLU, and of activations "
    "linear, sigmoid, tanh, relu, leaky_relu, softplus, and softmax or exponential at the end"
)


def _keras_loss(compiled: Any, tells: str | None) -> Loss | None:
    """The loss that a model was compiled with. None where there is none, or the last activation tells of another.

    tells: the name of the loss that the last activation tells of. Raises HandgradError for a loss without an equal.
    """
    compiled = _single(compiled)
    if not compiled:
        return None
    name, settings = str(compiled), {}
    if isinstance(compiled, Mapping):
        name, settings = str(compiled.get("class_name")), _settings(compiled.get("config"))
        if name == "function":
            name = str(compiled.get("config"))
        elif not str(compiled.get("module", "keras")).startswith("keras"):
            name = f"{name}, a class of somebody's own"
    kind, setting = KERAS_LOSSES.get(name.lower().removesuffix("_loss").replace("_", ""), (None, ""))
    if tells is not None and kind is not LOSSES[tells]:
        return None
    changed = {key: settings[key] for key in CHANGING if settings.get(key)}
    own = {setting: changed.pop(setting)} if setting in changed else {}
    if kind is None or changed:
        changes = "".join(f" with {key}={value!r}" for key, value in changed.items())
        why = f"{name!r}{changes}, which has no equal in handgrad"
    elif kind is Poisson and tells is None:
        why = f"{name!r}, and ends with no 'exponential' activation, which handgrad's poisson holds"
    elif kind is Huber and isinstance(compiled, Mapping) and name != "huber" and not own:
        why = f"{name!r}, whose delta Keras does not keep in its configuration"
    else:
        return kind(**own)
    raise HandgradError(f"the Keras model was compiled with the loss {why}: give loss, one of {', '.join(LOSSES)}")


def _single(loss: Any) -> Any:
    """The loss itself where a model was given a list or a dictionary of one, for its one output."""
    if isinstance(loss, Mapping) and "class_name" not in loss:
        loss = list(loss.values())
    return loss[0] if isinstance(loss, list | tuple) and len(loss) == 1 else loss


def _settings(config: Any) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else {}
