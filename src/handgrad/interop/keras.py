"""Keras: the equivalents of layers, losses, optimizers and initializers, and the import of models.

The import and the export of scripts (`handgrad.export`) use the same tables. This module does not import Keras: a model
is read through its configuration and `get_weights`, and a .keras file is read as JSON and HDF5. No code is executed.
"""

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
from ..layers import GELU, BatchNorm, Dense, Dropout, Identity, Layer, LeakyReLU, ReLU, Sigmoid, Softplus, Tanh
from ..losses import (
    LOSSES,
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
    OUTPUT_LOSS,
    ImportedLayer,
    ImportedModel,
    as_numpy,
    batch_norm_layer,
    dense_layer,
    imported_layer,
    in_file,
    split_output_activation,
)

# ---- Equivalents -----------------------------------------------------------------------------------------------------

# Elementwise activations by Keras's names, for layers.Activation and for the argument of layers.Dense.
KERAS_ACTIVATIONS: dict[type[Layer], str] = {
    Identity: "linear",
    Sigmoid: "sigmoid",
    Tanh: "tanh",
    ReLU: "relu",
    Softplus: "softplus",
}

# The classes of keras.layers. `momentum` in Keras is the weight of the old statistics, in handgrad of the new ones.
KERAS_LAYERS: dict[type[Layer], Equivalent] = {
    Dense: Equivalent("Dense", {"units": "n_out"}, positional=1),
    BatchNorm: Equivalent(
        "BatchNormalization", {"momentum": lambda config: round(1 - config["momentum"], 12), "epsilon": "epsilon"}
    ),
    Dropout: Equivalent("Dropout", {"rate": "rate"}, positional=1),
    LeakyReLU: Equivalent("LeakyReLU", {"negative_slope": "slope"}),
    **{
        layer: Equivalent("Activation", positional=1, constants={"activation": name})
        for layer, name in KERAS_ACTIVATIONS.items()
    },
}
# keras.activations.gelu is the exact form by default, so that its name is not handgrad's GELU.
GELU_CODE = "layers.Activation(lambda z: keras.activations.gelu(z, approximate=True))"

# The loss of each example, as a loss for `compile`, of targets t and logits z: those of classification, which recipes
# have. {a} stands for what the activation of the loss makes of z.
KERAS_LOSSES: dict[type[Loss], str] = {
    CrossEntropy: "keras.losses.CategoricalCrossentropy(from_logits=True)",
    BinaryCrossEntropy: "lambda t, z: keras.ops.sum(keras.ops.softplus(z) - t * z, axis=1)",
    SquaredError: "lambda t, z: keras.ops.sum(({a} - t) ** 2, axis=1) / 2",
}

# The classes of keras.optimizers. Every one of them has the argument weight_decay, the decoupled weight decay of
# handgrad. `exclude_from_weight_decay` excludes biases. The velocity of Keras contains the learning rate, that of
# handgrad does not: they differ if the learning rate changes.
_ADAM: dict[str, Argument] = {"learning_rate": "lr", "beta_1": "beta_1", "beta_2": "beta_2", "epsilon": "epsilon"}
_DECAY: dict[str, Argument] = {"weight_decay": lambda config: config.get("weight_decay", 0.0)}
KERAS_OPTIMIZERS: dict[type[Optimizer], Equivalent] = {
    SGD: Equivalent("SGD", {"learning_rate": "lr"}, positional=1),
    Momentum: Equivalent("SGD", {"learning_rate": "lr", "momentum": "momentum"}, positional=1),
    Nesterov: Equivalent(
        "SGD", {"learning_rate": "lr", "momentum": "momentum"}, positional=1, constants={"nesterov": True}
    ),
    Adam: Equivalent("Adam", _ADAM, positional=1),
    AdamW: Equivalent("AdamW", {**_ADAM, **_DECAY}, positional=1),
}

# Initializers of a weight matrix. The bias is 0, except that "normal" draws it from N(0, 1) too. Keras's glorot_normal,
# he_normal and lecun_normal draw from a truncated normal distribution, handgrad does not.
_SCALED = 'keras.initializers.VarianceScaling({}, "{}", "{}")'
KERAS_INITIALIZERS = {
    "normal": "keras.initializers.RandomNormal(stddev=1.0)",
    "lecun": _SCALED.format(1.0, "fan_in", "untruncated_normal"),
    "xavier_normal": _SCALED.format(1.0, "fan_avg", "untruncated_normal"),
    "xavier_uniform": _SCALED.format(1.0, "fan_avg", "uniform"),
    "kaiming_normal": _SCALED.format(2.0, "fan_in", "untruncated_normal"),
    "kaiming_uniform": _SCALED.format(2.0, "fan_in", "uniform"),
    "zeros": '"zeros"',
}


def layer_code(layer: Layer) -> str:
    """Return the code of the layer that is equivalent to a layer of handgrad, as "layers.Dense(30)".

    Raises HandgradError for custom layers.
    """
    if type(layer) is GELU:
        return GELU_CODE
    return f"layers.{_equivalent(KERAS_LAYERS, layer).code(layer.config())}"


def loss_code(loss: Loss) -> str:
    """Return the code of a loss for `compile`, of targets t and logits z (batch, n_out).

    Label smoothing is part of the targets. Raises HandgradError for regression losses other than `SquaredError`, for
    custom losses, and for a temperature other than 1.
    """
    template: str = _equivalent(KERAS_LOSSES, loss)
    if loss.temperature != 1:
        raise HandgradError(f"Keras has no equivalent of {loss!r}: expected temperature 1")
    return template.format(a="keras.ops.sigmoid(z)" if loss.is_classification else "z")


def optimizer_code(optimizer: Optimizer) -> str:
    """Return the code of the equivalent optimizer, as "keras.optimizers.SGD(0.5)".

    A weight decay applies to all parameters until `exclude_from_weight_decay` is called. Raises HandgradError for
    optimizers that Keras does not have.
    """
    equivalent, config = _equivalent(KERAS_OPTIMIZERS, optimizer), optimizer.config()
    if config.get("weight_decay"):
        equivalent = equivalent._replace(arguments={**equivalent.arguments, **_DECAY})
    return f"keras.optimizers.{equivalent.code(config)}"


def _equivalent(table: Mapping[Any, Any], part: object) -> Any:
    if type(part) not in table:
        known = ", ".join(kind.__name__ for kind in table)
        raise HandgradError(f"Keras has no equivalent of {type(part).__name__}: expected one of {known}")
    return table[type(part)]


# ---- Import ----------------------------------------------------------------------------------------------------------

# Returns the arrays of the next layer, given its class, its name and the number of its arrays.
_Weights: TypeAlias = "Callable[[str, str, int], list[NDArray[Any]]]"

MAX_CONFIG_BYTES = 1 << 24  # largest size of a config.json
_CLASSES = ("Sequential", "Functional")
_NOT_BUILT = "is not built and has no weights yet: call it once, or add an Input"
_SUPPORTED = (
    "supported are Dense, BatchNormalization, Dropout, Flatten as the first layer, Activation, ReLU, LeakyReLU, and "
    "the activations linear, sigmoid, tanh, relu, leaky_relu, softplus, and softmax or exponential at the end"
)
_BY_ACTIVATION: dict[str, Callable[[], Layer]] = {
    **{name: layer for layer, name in KERAS_ACTIVATIONS.items()},
    "leaky_relu": lambda: LeakyReLU(0.2),
}
# The losses of `compile`, in lower case without underscores, and the argument that handgrad's loss has too. The mean
# over the outputs in Keras is a sum in handgrad, a constant factor. The label_smoothing of BinaryCrossentropy is not
# handgrad's if there are more than two outputs.
_LOSS_NAMES: dict[str, tuple[type[Loss], str]] = {
    "categoricalcrossentropy": (CrossEntropy, "label_smoothing"),
    "sparsecategoricalcrossentropy": (CrossEntropy, ""),
    "binarycrossentropy": (BinaryCrossEntropy, ""),
    "bce": (BinaryCrossEntropy, ""),
    "meansquarederror": (SquaredError, ""),
    "mse": (SquaredError, ""),
    "meanabsoluteerror": (AbsoluteError, ""),
    "mae": (AbsoluteError, ""),
    "huber": (Huber, "delta"),
    "logcosh": (LogCosh, ""),
    "poisson": (Poisson, ""),
}
_LOSS_OPTIONS = ("delta", "label_smoothing", "ignore_class")  # arguments that change the loss unless they are 0 or None


def from_keras(model: Any, *, loss: str | Loss | None = None) -> Network:
    """Convert a model of Keras.

    Parameters
    ----------
    model : keras.Sequential, keras.Model or path-like
        A Sequential, a Functional model whose layers form a sequence, or a .keras file of one of them.
    loss : str or Loss, optional
        By default the loss of `compile` if it fits the activation of the output. Otherwise the activation determines
        the loss: softmax `CrossEntropy`, sigmoid `BinaryCrossEntropy`, exponential `Poisson`, none `SquaredError`.

    Returns
    -------
    Network
        With the same predictions. A sigmoid at the end is part of `BinaryCrossEntropy`, or of
        `SquaredError("sigmoid")` if the model was compiled with the mean squared error. For a regression between 0 and
        1 give loss="squared_error": the sigmoid is then a layer, and the predictions are numbers and not classes.
        `image_shape` is set if the model begins with Flatten.

    Raises
    ------
    HandgradError
        For layers and losses without an equivalent, shared weights, weights that are not finite, and invalid files.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        with in_file(path):
            return _read_file(path, loss).build()
    if not (callable(getattr(model, "get_config", None)) and callable(getattr(model, "get_weights", None))):
        raise HandgradError(f"cannot convert a {type(model).__name__}: expected a Keras model, or a .keras file")
    if not getattr(model, "built", True):
        raise HandgradError(f"the Keras model {_NOT_BUILT}")
    kind, weights = type(model).__name__, [as_numpy("get_weights()", p) for p in model.get_weights()]
    config: dict[str, Any] = {"class_name": kind}
    if kind in _CLASSES:
        config |= {"config": model.get_config(), "compile_config": _compile_config(model)}
    if kind == "Sequential":
        config["config"] = config["config"] | {"layers": _with_repetitions(model, config["config"]["layers"])}

    def next_weights(kind: str, name: str, count: int) -> list[NDArray[Any]]:
        if len(weights) < count:
            raise HandgradError(f"the Keras model has too few arrays: none are left for the layer {name!r}")
        return [weights.pop(0) for _ in range(count)]

    imported = _imported_model(config, next_weights, loss)
    if weights:
        raise HandgradError(f"the Keras model has {len(weights)} more arrays than its layers need")
    return imported.build()


def _with_repetitions(model: Any, configs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The configurations of all layers of a Sequential. `get_config` omits a layer that occurs a second time.

    Raises HandgradError if that layer has weights: in handgrad they would be trained separately.
    """
    known = {config["config"]["name"]: config for config in configs}
    complete: list[dict[str, Any]] = []
    for layer in model.layers:
        if layer.name not in known:
            raise HandgradError(f"the Keras model has a layer {layer.name!r} without a configuration")
        config = known[layer.name]
        if layer.weights and any(config is earlier for earlier in complete):
            raise HandgradError(
                f"'{layer.name} ({config['class_name']})' occurs more than once, and handgrad does not support shared "
                "weights: use two layers if separate weights are acceptable"
            )
        complete.append(config)
    return [config for config in configs if config["class_name"] == "InputLayer"] + complete


def _compile_config(model: Any) -> dict[str, Any]:
    """The configuration of `compile`, with the delta of Huber, which Keras omits."""
    config = dict(getattr(model, "get_compile_config", dict)() or {})
    loss, described = _single(getattr(model, "loss", None)), _single(config.get("loss"))
    if isinstance(described, Mapping) and isinstance(described.get("config"), Mapping):
        options = _as_dict(getattr(loss, "_fn_kwargs", None)) | described["config"]
        config["loss"] = {**described, "config": options}
    return config


# ---- Files ----


def _read_file(path: Path, loss: str | Loss | None) -> ImportedModel:
    """Read a .keras file: a zip archive with config.json and with the arrays in HDF5, model.weights.h5."""
    h5py = optional("h5py", "keras")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
                raise HandgradError(f"config.json is larger than {MAX_CONFIG_BYTES:,} bytes")
            config = json.loads(archive.read("config.json"))
            with archive.open("model.weights.h5") as content, h5py.File(content, "r") as file:
                return _imported_model(config, _file_weights(h5py, file), loss)
    except HandgradError:
        raise
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, ValueError, AttributeError),
        *(RecursionError, NotImplementedError, RuntimeError),
    ) as error:
        raise HandgradError(f"{path} is not a valid .keras file of a network: {error}") from error


def _file_weights(h5py: Any, file: Any) -> _Weights:
    """Return the function that reads the arrays of the next layer of a class: dense, dense_1, dense_2, ...

    HDF5 files can refer to arrays in other files and declare arrays larger than the memory. Both raise HandgradError.
    """
    counts: dict[str, int] = {}

    def member(group: Any, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise HandgradError(f"the weights have no {group.name.rstrip('/')}/{name}")
        return group[name]

    def next_weights(kind: str, name: str, count: int) -> list[NDArray[Any]]:
        counts[kind] = number = counts.get(kind, -1) + 1
        group = member(member(member(file, "layers"), f"{kind}_{number}" if number else kind), "vars")
        if not len(group) and count:
            raise HandgradError(f"the layer {name!r} has no weights: the Keras model {_NOT_BUILT}")
        if len(group) != count or group.attrs.get("name", name) != name:
            raise HandgradError(f"the weights {group.name} do not belong to the layer {name!r}")
        arrays = [member(group, str(i)) for i in range(count)]
        for p in arrays:
            elsewhere = not isinstance(p, h5py.Dataset) or p.is_virtual or p.external
            if elsewhere or p.dtype.kind != "f" or p.id.get_storage_size() != p.nbytes:
                raise HandgradError(f"the weights {p.name} are not an array of numbers that is stored in the file")
        return [p[()] for p in arrays]

    return next_weights


# ---- Configuration ----


def _imported_model(config: dict[str, Any], weights: _Weights, loss: str | Loss | None) -> ImportedModel:
    """The layers and the loss that a configuration describes."""
    if config["class_name"] not in _CLASSES:
        raise HandgradError(
            f"cannot convert the Keras model {config['class_name']!r}: expected a Sequential or a Functional model"
        )
    configs = config["config"]["layers"]
    if config["class_name"] == "Functional":
        _check_sequence(configs, config["config"]["output_layers"])
    shape = config["config"].get("build_input_shape")  # (batch, ...) of the input of the next layer, if known
    layers: list[ImportedLayer] = []
    image_shape, output, output_name = None, "", ""
    for layer in configs:
        kind, settings = layer["class_name"], layer["config"]
        name = f"{settings.get('name', '')} ({kind})"
        if output:
            raise HandgradError(
                f"{output_name!r} has {OUTPUT_LOSS[output][0]} and is followed by {name!r}: expected it at the end"
            )
        custom = layer.get("registered_name") not in (None, kind)
        if custom or not str(layer.get("module", "keras")).startswith("keras"):
            raise HandgradError(f"{name!r} is a custom class: {_SUPPORTED}")
        if kind == "InputLayer":
            shape = settings.get("batch_shape", settings.get("batch_input_shape"))
        elif kind == "Flatten" and not layers:
            if shape is not None and (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)):
                image_shape = int(shape[1]), int(shape[2])
            shape = None
        elif shape is not None and len(shape) != 2:
            raise HandgradError(f"{name!r} has inputs of shape {tuple(shape[1:])}: expected a Flatten before it")
        else:
            converted, activation = _convert(kind, settings, name, weights)
            layers += converted
            output, output_name = activation if activation in OUTPUT_LOSS else "", name
    if loss is None:
        sigmoid = bool(layers) and type(layers[-1].layer) is Sigmoid
        loss = _compiled_loss(
            (config.get("compile_config") or {}).get("loss"), output or ("sigmoid" if sigmoid else "")
        )
    layers, made = split_output_activation(layers, output, loss, "squared_error")
    return ImportedModel(layers, made, image_shape=image_shape)


def _check_sequence(layers: list[dict[str, Any]], ends: list[Any]) -> None:
    """Raise HandgradError unless the input of each layer of a Functional model is the output of the one before it."""
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
        raise HandgradError("the layers of the Functional model are not a sequence") from error


def _convert(kind: str, settings: dict[str, Any], name: str, weights: _Weights) -> tuple[list[ImportedLayer], str]:
    """The layers of handgrad for a layer of Keras, and the name of the activation at their end."""
    layers: list[ImportedLayer] = []
    if kind == "Dense":
        W, *b = weights("dense", settings["name"], 1 + settings["use_bias"])
        layers, activation = [dense_layer(name, W.T, b[0] if b else None)], settings["activation"]
    elif kind == "BatchNormalization" and settings["axis"] in (-1, 1, [-1], [1]):
        scale, center = settings["scale"], settings["center"]
        arrays = weights("batch_normalization", settings["name"], 2 + scale + center)
        g, beta = arrays.pop(0) if scale else None, arrays.pop(0) if center else None
        momentum = round(1 - settings["momentum"], 12)
        return [batch_norm_layer(name, g, beta, arrays[0], arrays[1], momentum, settings["epsilon"])], "linear"
    elif kind == "Dropout":
        return [imported_layer(name, Dropout, settings["rate"])], "linear"
    elif kind == "LeakyReLU":  # `alpha` before Keras 3
        slope = settings["negative_slope" if "negative_slope" in settings else "alpha"]
        return [imported_layer(name, LeakyReLU, slope)], "linear"
    elif kind == "Activation":
        activation = settings["activation"]
    elif kind == "ReLU" and not any(settings.get(key) for key in ("max_value", "negative_slope", "threshold")):
        activation = "relu"
    elif kind == "Softmax" and settings.get("axis", -1) in (-1, 1):
        activation = "softmax"
    else:
        raise HandgradError(f"{name!r} has no equivalent in handgrad: {_SUPPORTED}")
    if activation not in (*_BY_ACTIVATION, *OUTPUT_LOSS):
        found = activation.get("class_name", "function") if isinstance(activation, Mapping) else activation
        raise HandgradError(f"{name!r} has the activation {found!r}, which has no equivalent in handgrad: {_SUPPORTED}")
    if activation not in ("linear", *OUTPUT_LOSS):
        layers = [*layers, ImportedLayer(name, _BY_ACTIVATION[activation](), {})]
    return layers, activation


def _compiled_loss(compiled: Any, output: str) -> Loss | None:
    """The equivalent of the loss of `compile`. None if there is none, or if the activation of the output has another.

    output: the activation at the end, "softmax", "exponential" or "sigmoid", or "".
    """
    compiled = _single(compiled)
    if not compiled:
        return None
    name, settings = str(compiled), {}
    if isinstance(compiled, Mapping):
        name, settings = str(compiled.get("class_name")), _as_dict(compiled.get("config"))
        if name == "function":
            name = str(compiled.get("config"))
        elif not str(compiled.get("module", "keras")).startswith("keras"):
            name = f"{name}, a custom class"
    kind, option = _LOSS_NAMES.get(name.lower().removesuffix("_loss").replace("_", ""), (None, ""))
    if output == "sigmoid" and kind is SquaredError:
        return SquaredError("sigmoid")
    if output and kind is not (BinaryCrossEntropy if output == "sigmoid" else OUTPUT_LOSS[output][2]):
        return None
    changed = {key: settings[key] for key in _LOSS_OPTIONS if settings.get(key)}
    options = {option: changed.pop(option)} if option in changed else {}
    if kind is None or changed:
        with_options = "".join(f" with {key}={value!r}" for key, value in changed.items())
        problem = f"{name!r}{with_options}, which has no equivalent in handgrad"
    elif kind is Poisson and not output:
        problem = f"{name!r} but does not end with the activation 'exponential', which handgrad's poisson includes"
    elif kind is Huber and isinstance(compiled, Mapping) and name != "huber" and not options:
        problem = f"{name!r}, whose delta is not in the configuration"
    else:
        return kind(**options)
    raise HandgradError(f"the Keras model was compiled with the loss {problem}: give loss, one of {', '.join(LOSSES)}")


def _single(loss: Any) -> Any:
    """The loss of a model with one output if `compile` was given a list or a dictionary of one loss."""
    if isinstance(loss, Mapping) and "class_name" not in loss:
        loss = list(loss.values())
    return loss[0] if isinstance(loss, list | tuple) and len(loss) == 1 else loss


def _as_dict(config: Any) -> dict[str, Any]:
    return dict(config) if isinstance(config, Mapping) else {}
