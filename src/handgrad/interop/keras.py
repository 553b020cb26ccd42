"""Keras: the equivalents of layers, losses, optimizers and initializers, and the import of models.

The import and the export of scripts (`handgrad.export`) use the same tables. This module does not import Keras: a model
is read through its configuration and `get_weights`, and a .keras file is read as JSON and HDF5. No code is executed.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import HandgradError, optional
from ..images.hog import HOG
from ..ladder import Ladder
from ..layers import (
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
from .affine import Affine, make_affine
from .equivalent import Argument, Equivalent
from .imported import (
    OUTPUT_LOSS,
    ImportedLayer,
    ImportedModel,
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

# Elementwise activations by Keras's names, for layers.Activation and for the argument of layers.Dense.
KERAS_ACTIVATIONS: dict[type[Layer], str] = {
    Identity: "linear",
    Sigmoid: "sigmoid",
    Tanh: "tanh",
    ReLU: "relu",
    Softplus: "softplus",
    ExactGELU: "gelu",
    SiLU: "silu",
    SELU: "selu",
}

# The classes of keras.layers. `momentum` in Keras is the weight of the old statistics, in handgrad of the new ones.
KERAS_LAYERS: dict[type[Layer], Equivalent] = {
    Dense: Equivalent("Dense", {"units": "n_out"}, positional=1),
    BatchNorm: Equivalent(
        "BatchNormalization", {"momentum": lambda config: round(1 - config["momentum"], 12), "epsilon": "epsilon"}
    ),
    Dropout: Equivalent("Dropout", {"rate": "rate"}, positional=1),
    LeakyReLU: Equivalent("LeakyReLU", {"negative_slope": "slope"}),
    ELU: Equivalent("ELU", {"alpha": "alpha"}),
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
    if isinstance(part, Ladder):
        raise HandgradError(
            "Keras has no equivalent of Ladder: convert fold_batchnorm(network), its layers of inference"
        )
    if isinstance(part, HOG):
        raise HandgradError("Keras has no equivalent of HOG: handgrad export --to keras writes one")
    if type(part) not in table:
        known = ", ".join(kind.__name__ for kind in table)
        raise HandgradError(f"Keras has no equivalent of {type(part).__name__}: expected one of {known}")
    return table[type(part)]


# ---- Import ----------------------------------------------------------------------------------------------------------

MAX_CONFIG_BYTES = 1 << 24  # largest size of a config.json
KERAS_EPSILON = 1e-7  # keras.backend.epsilon(), the smallest standard deviation of Normalization
# Values of images are bytes, 0 to 255, if the rescaling is for values larger than this. For floats in [0, 1] the mean
# plus the standard deviation is at most 1.5.
MAX_FLOAT_PIXEL = 4
MAX_INPUTS = 1 << 24  # largest number of values of an example with a scale for each of them
_CLASSES = ("Sequential", "Functional")
_ARITHMETIC = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}  # of a tensor and a number, in Functional models
_OPERATIONS = {"Relu", "Sigmoid", "Tanh", "Softplus", "Silu", "Selu"}  # the classes of functions such as keras.ops.relu
# Layers without weights that do nothing in inference, and have no equivalent in training.
_TRAINING_ONLY = {
    *("GaussianNoise", "GaussianDropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D"),
    *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast", "RandomBrightness"),
}
_NOT_BUILT = "is not built and has no weights yet: call it once, or add an Input"
_SUPPORTED = (
    "supported are Dense, BatchNormalization, Dropout, Rescaling and Normalization next to a Dense, Flatten, Reshape, "
    "Identity, Sequential, Activation, ReLU, LeakyReLU, ELU, and the activations linear, sigmoid, tanh, relu, "
    "leaky_relu, softplus, gelu, silu, elu, selu, and softmax or exponential at the end"
)
# By the names of Keras as `plain_name` returns them.
_BY_ACTIVATION: dict[str, Callable[[], Layer]] = {
    **{name: layer for layer, name in KERAS_ACTIVATIONS.items()},
    "swish": SiLU,
    "elu": ELU,
    "leakyrelu": lambda: LeakyReLU(0.2),
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


def from_keras(model: Any, *, loss: str | Loss | None = None, image_shape: tuple[int, int] | None = None) -> Network:
    """Convert a model of Keras.

    Parameters
    ----------
    model : keras.Sequential, keras.Model or path-like
        A Sequential, which may contain others, a Functional model whose layers form a sequence, or a .keras file of one
        of them.
    loss : str or Loss, optional
        By default the loss of `compile` if it fits the activation of the output. Otherwise the activation determines
        the loss: softmax `CrossEntropy`, sigmoid `BinaryCrossEntropy`, exponential `Poisson`, none `SquaredError`.
    image_shape : (height, width), optional
        For a model whose inputs are images as vectors, such as 784 pixels. By default the shape of the inputs of the
        model, if it is (height, width) or (height, width, 1).

    Returns
    -------
    Network
        With the same predictions. A sigmoid at the end is part of `BinaryCrossEntropy`, or of
        `SquaredError("sigmoid")` if the model was compiled with the mean squared error. For a regression between 0 and
        1 give loss="squared_error": the sigmoid is then a layer, and the predictions are numbers and not classes.
        Weights in float16 and bfloat16 become float32, and a warning is logged.

    Raises
    ------
    HandgradError
        For layers and losses without an equivalent, shared weights, weights that are not finite, and invalid files.

    Notes
    -----
    Rescaling and Normalization become part of the next Dense layer, W (s x + o) + b = (W s) x + (W o + b), computed in
    float64 and rounded to the dtype of the weights. At the end of a model they become part of the last Dense layer.

    Images: if the model rescales bytes, for example with Rescaling(1/255), then integer pixels, 0 to 255, give the
    predictions of Keras. handgrad divides integer pixels by 255 itself, so that the imported network rescales pixels in
    [0, 1]. Float pixels must be in [0, 1] as well: divide them by 255, which Keras must not get.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        with in_file(path):
            return _read_file(path, loss, image_shape).build()
    if not (callable(getattr(model, "get_config", None)) and callable(getattr(model, "get_weights", None))):
        raise HandgradError(f"cannot convert a {type(model).__name__}: expected a Keras model, or a .keras file")
    if not getattr(model, "built", True):
        raise HandgradError(f"the Keras model {_NOT_BUILT}")
    kind, given = type(model).__name__, list(model.get_weights())
    log_widened(map(dtype_name, given))
    weights = _ListedWeights([as_numpy("get_weights()", p) for p in given])
    config: dict[str, Any] = {"class_name": kind}
    if kind in _CLASSES:
        config |= {"config": model.get_config(), "compile_config": _compile_config(model)}
    if kind == "Sequential":
        config["config"] = config["config"] | {"layers": _with_repetitions(model, config["config"]["layers"])}
    imported = _imported_model(config, weights, loss, image_shape)
    if weights.arrays:
        raise HandgradError(f"the Keras model has {len(weights.arrays)} more arrays than its layers need")
    return imported.build()


class _ListedWeights:
    """The arrays of `get_weights`, in the order of the layers."""

    def __init__(self, arrays: list[NDArray[Any]]) -> None:
        self.arrays = arrays

    def enter(self, kind: str, name: str) -> _ListedWeights:
        """The weights of a model inside the model."""
        return self

    def take(self, kind: str, name: str, count: int) -> list[NDArray[Any]]:
        """The arrays of the next layer, given its class, its name and the number of its arrays."""
        if len(self.arrays) < count:
            raise HandgradError(f"the Keras model has too few arrays: none are left for the layer {name!r}")
        return [self.arrays.pop(0) for _ in range(count)]


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
        if layer.weights and any(layer.name == earlier["config"]["name"] for earlier in complete):
            raise HandgradError(
                f"'{layer.name} ({config['class_name']})' occurs more than once, and handgrad does not support shared "
                "weights: use two layers if separate weights are acceptable"
            )
        if config["class_name"] == "Sequential" and hasattr(layer, "layers"):
            inner = config["config"]
            config = {**config, "config": {**inner, "layers": _with_repetitions(layer, inner["layers"])}}
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


def _read_file(path: Path, loss: str | Loss | None, image_shape: tuple[int, int] | None) -> ImportedModel:
    """Read a .keras file: a zip archive with config.json and with the arrays in HDF5, model.weights.h5."""
    _check_format(path)
    h5py = optional("h5py", "keras")
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("config.json") as content:  # its size in the directory of the archive may be wrong
                text = content.read(MAX_CONFIG_BYTES + 1)
            if len(text) > MAX_CONFIG_BYTES:
                raise HandgradError(f"config.json is larger than {MAX_CONFIG_BYTES:,} bytes")
            config = json.loads(text)
            with archive.open("model.weights.h5") as content, h5py.File(content, "r") as file:
                dtypes: set[str] = set()
                imported = _imported_model(config, _FileWeights(h5py, file, dtypes), loss, image_shape)
                log_widened(dtypes)
                return imported
    except HandgradError:
        raise
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, ValueError, AttributeError),
        *(RecursionError, NotImplementedError, RuntimeError),
    ) as error:
        raise HandgradError(f"{path} is not a valid .keras file of a network: {error}") from error


def _check_format(path: Path) -> None:
    """Raise HandgradError for the older formats of Keras, with the code that converts them."""
    convert = f"convert it in Keras with keras.models.load_model({path.name!r}).save({path.stem + '.keras'!r})"
    try:
        if path.is_dir():
            raise HandgradError(f"{path} is a directory, as TensorFlow's SavedModel: {convert}")
        with path.open("rb") as file:
            is_hdf5 = file.read(4) == b"\x89HDF"
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
    if is_hdf5 and path.name.endswith(".weights.h5"):
        raise HandgradError(
            f"{path} is an HDF5 file of weights without the layers: create the model in Keras, call "
            f"model.load_weights({path.name!r}) and model.save('model.keras')"
        )
    if is_hdf5:
        raise HandgradError(f"{path} is an HDF5 file, the older format of Keras: {convert}")


class _FileWeights:
    """The arrays of the layers in the HDF5 group of a model: dense, dense_1, dense_2, ... for a class.

    HDF5 files can refer to arrays in other files and declare arrays larger than the memory. Both raise HandgradError.
    """

    def __init__(self, h5py: Any, group: Any, dtypes: set[str]) -> None:
        self.h5py, self.dtypes = h5py, dtypes
        self.layers = self._member(group, "layers")
        self.counts: dict[str, int] = {}

    def _member(self, group: Any, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
            raise HandgradError(f"the weights have no {group.name.rstrip('/')}/{name}")
        return group[name]

    def _next(self, kind: str) -> Any:
        """The group of the next layer of a class."""
        self.counts[kind] = number = self.counts.get(kind, -1) + 1
        return self._member(self.layers, f"{kind}_{number}" if number else kind)

    def enter(self, kind: str, name: str) -> _FileWeights:
        """The weights of a model inside the model."""
        return _FileWeights(self.h5py, self._next(kind), self.dtypes)

    def take(self, kind: str, name: str, count: int) -> list[NDArray[Any]]:
        """The arrays of the next layer, given its class, its name and the number of its arrays."""
        group = self._member(self._next(kind), "vars")
        if not len(group) and count:
            raise HandgradError(f"the layer {name!r} has no weights: the Keras model {_NOT_BUILT}")
        if len(group) != count or group.attrs.get("name", name) != name:
            raise HandgradError(f"the weights {group.name} do not belong to the layer {name!r}")
        return [self._read(self._member(group, str(i))) for i in range(count)]

    def _read(self, dataset: Any) -> NDArray[Any]:
        elsewhere = not isinstance(dataset, self.h5py.Dataset) or dataset.is_virtual or dataset.external
        if elsewhere or dataset.id.get_storage_size() != dataset.nbytes:
            raise HandgradError(f"the weights {dataset.name} are not an array of numbers that is stored in the file")
        if dataset.dtype == "V2" and dataset.attrs.get("dtype") == "bfloat16":  # 16 bits without a type in HDF5
            self.dtypes.add("bfloat16")
            return decode_bfloat16(dataset[()].tobytes(), dataset.shape)
        if dataset.dtype.kind not in "fi":
            raise HandgradError(f"the weights {dataset.name} are not an array of numbers that is stored in the file")
        self.dtypes.add(dataset.dtype.name)
        return as_numpy(dataset.name, dataset[()])


_Weights: TypeAlias = _ListedWeights | _FileWeights


# ---- Configuration ----


def _imported_model(
    config: dict[str, Any], weights: _Weights, loss: str | Loss | None, image_shape: tuple[int, int] | None
) -> ImportedModel:
    """The layers and the loss that a configuration describes."""
    if config["class_name"] not in _CLASSES:
        raise HandgradError(
            f"cannot convert the Keras model {config['class_name']!r}: expected a Sequential or a Functional model"
        )
    sequence = _Sequence(config["config"].get("build_input_shape"), image_shape)
    for layer, its_weights in _flattened(config, weights):
        sequence.add(layer, its_weights)
    layers, output = sequence.finish()
    if loss is None:
        sigmoid = bool(layers) and type(layers[-1].layer) is Sigmoid
        loss = _compiled_loss(
            (config.get("compile_config") or {}).get("loss"), output or ("sigmoid" if sigmoid else "")
        )
    layers, made = split_output_activation(layers, output, loss, "squared_error")
    return ImportedModel(layers, made, image_shape=sequence.image_shape)


def _flattened(config: dict[str, Any], weights: _Weights) -> Iterator[tuple[dict[str, Any], _Weights]]:
    """The configurations of the layers of a model and of the models inside it, each with the weights to take from."""
    layers = config["config"]["layers"]
    if config["class_name"] == "Functional":
        _check_sequence(layers, config["config"]["output_layers"])
    for layer in layers:
        kind = layer["class_name"]
        if kind in _CLASSES and _is_of_keras(layer):
            yield from _flattened(layer, weights.enter(kind.lower(), layer["config"]["name"]))
        else:
            yield layer, weights


def _is_of_keras(config: Mapping[str, Any]) -> bool:
    """Whether the class of a configuration is Keras's own."""
    custom = config.get("registered_name") not in (None, config["class_name"])
    return not custom and str(config.get("module", "keras")).startswith("keras")


class _Sequence:
    """The layers of handgrad that a sequence of Keras layers becomes.

    Attributes
    ----------
    shape : tuple of int or None
        Shape of an example at the current position, if known.
    affine : Affine or None
        Rescaling that is folded into the next layer; `affine_name` is its name.
    output : str
        The activation at the end if it is a key of OUTPUT_LOSS.
    """

    def __init__(self, batch_shape: Any, image_shape: tuple[int, int] | None) -> None:
        self.layers: list[ImportedLayer] = []
        self.shape: tuple[int, ...] | None = None
        self.image_shape = image_shape
        self.affine: Affine | None = None
        self.affine_name = self.output = self.output_name = ""
        self._begin(batch_shape)

    def _begin(self, batch_shape: Any) -> None:
        """Set the shape (batch, ...) of the inputs of the next layer."""
        if batch_shape is None or not all(isinstance(size, int) for size in batch_shape[1:]):
            return
        first = self.shape is None
        self.shape = tuple(batch_shape[1:])
        if first and not self.layers and self.affine is None and self.image_shape is None:
            height_width = self.shape if len(self.shape) == 2 else tuple(size for size in self.shape if size != 1)
            if len(self.shape) in (2, 3) and len(height_width) == 2:
                self.image_shape = height_width[0], height_width[1]

    def add(self, config: dict[str, Any], weights: _Weights) -> None:
        """Convert a layer, given its configuration."""
        kind, settings = config["class_name"], config["config"]
        name = f"{settings.get('name', '')} ({kind})"
        if self.output:
            raise HandgradError(
                f"{self.output_name!r} has {OUTPUT_LOSS[self.output][0]} and is followed by {name!r}: "
                "expected it at the end"
            )
        if not _is_of_keras(config):
            raise HandgradError(f"{name!r} is a custom class: {_SUPPORTED}")
        if kind == "InputLayer":
            self._begin(settings.get("batch_shape", settings.get("batch_input_shape")))
        elif kind == "Flatten":
            several_channels = self.shape is None or (len(self.shape) > 2 and self.shape[0] != 1)
            if settings.get("data_format") == "channels_first" and several_channels:  # Keras transposes the example
                raise HandgradError(f"{name!r} has data_format='channels_first': expected 'channels_last'")
            self.shape = None if self.shape is None else (math.prod(self.shape),)
        elif kind == "Reshape":
            self.shape = self._reshaped(tuple(settings["target_shape"]))
        elif kind in _ARITHMETIC:
            self._rescale(name, _arithmetic(kind, config["inbound_nodes"][0]["args"], name, self.shape))
        elif kind in ("Rescaling", "Normalization"):
            make = _rescaling if kind == "Rescaling" else _normalization
            self._rescale(name, make(settings, name, weights, self.shape))
        elif kind in _TRAINING_ONLY:
            logger.warning("%r is left out: it only has an effect in training, where handgrad has no equivalent", name)
        elif kind not in ("Identity", "ActivityRegularization"):
            layers, activation = _convert(kind, settings, name, weights)
            for layer in layers:
                self._append(layer)
            self.output, self.output_name = activation if activation in OUTPUT_LOSS else "", name
            if self.output and self.affine is not None:
                self._reject_affine(name)

    def _reshaped(self, target: tuple[int, ...]) -> tuple[int, ...] | None:
        if -1 not in target:
            return target
        known = -math.prod(target)
        if self.shape is None or known < 1:
            return None
        return tuple(math.prod(self.shape) // known if size == -1 else size for size in target)

    def _rescale(self, name: str, affine: Affine) -> None:
        """Fold a rescaling into the Dense before it, or keep it for the layer after it."""
        folded = affine.after_layer(self.layers[-1]) if self.layers and self.affine is None else None
        if folded is not None:
            self.layers[-1] = folded
            return
        self.affine = affine if self.affine is None else affine.after(self.affine)
        self.affine_name = name

    def _append(self, layer: ImportedLayer) -> None:
        if layer.layer.n_in is not None and self.shape is not None and len(self.shape) != 1:
            raise HandgradError(f"{layer.name!r} has inputs of shape {self.shape}: expected a Flatten before it")
        if self.affine is not None and type(layer.layer) is not Dropout:
            layer = self._with_affine(layer, self.affine)
            self.affine = None
        self.layers.append(layer)
        if isinstance(layer.layer, Dense):
            self.shape = (layer.layer.n_out,)

    def _with_affine(self, layer: ImportedLayer, affine: Affine) -> ImportedLayer:
        """The layer with the rescaling before it. That of images is of pixels in [0, 1]."""
        first = all(type(other.layer) is Dropout for other in self.layers)
        if first and self.image_shape is not None and _is_for_bytes(affine):
            affine = Affine(255 * affine.scale, affine.offset)
            logger.info("the Keras model rescales bytes: float pixels must be in [0, 1], integer pixels 0 to 255")
        folded = layer if affine.is_identity else affine.before_layer(layer)
        if folded is None:
            self._reject_affine(layer.name)
        return folded

    def _reject_affine(self, name: str) -> NoReturn:
        raise HandgradError(
            f"{self.affine_name!r} is followed by {name!r}: handgrad can only import a rescaling directly before or "
            "after a Dense"
        )

    def finish(self) -> tuple[list[ImportedLayer], str]:
        """The layers, and the activation at the end if it is a key of OUTPUT_LOSS."""
        if self.affine is not None:
            self._reject_affine("the end of the model")
        return self.layers, self.output


def _is_for_bytes(affine: Affine) -> bool:
    """Whether a rescaling expects values up to 255, and not up to 1: whether mean + standard deviation is large.

    For scale = 1 / standard deviation and offset = -mean / standard deviation, as of Normalization. The values of
    Rescaling(1/255) and Rescaling(1/127.5, -1) are 255.
    """
    with np.errstate(all="ignore"):
        return bool(np.max((1 + np.abs(affine.offset)) / np.abs(affine.scale)) > MAX_FLOAT_PIXEL)


def _arithmetic(kind: str, args: list[Any], name: str, shape: tuple[int, ...] | None) -> Affine:
    """The map of an operation of a tensor and a number, such as x / 255."""
    first = _is_tensor(args[0])
    c = _spread(name, _numbers(args[first]), shape)
    if kind in ("Divide", "TrueDivide") and not first:
        raise HandgradError(f"{name!r} divides by the inputs, which has no equivalent in handgrad")
    with np.errstate(all="ignore"):
        maps: dict[str, tuple[ArrayLike, ArrayLike]] = {
            "Add": (1, c),
            "Subtract": (1, -c) if first else (-1, c),
            "Multiply": (c, 0),
            "Divide": (1 / c, 0),
            "TrueDivide": (1 / c, 0),
        }
    return make_affine(*maps[kind])


def _rescaling(settings: dict[str, Any], name: str, weights: _Weights, shape: tuple[int, ...] | None) -> Affine:
    """scale x + offset of a Rescaling."""
    return make_affine(*(_spread(name, _numbers(settings[key]), shape) for key in ("scale", "offset")))


def _normalization(settings: dict[str, Any], name: str, weights: _Weights, shape: tuple[int, ...] | None) -> Affine:
    """(x - μ) / max(√σ², ε) of a Normalization, or its inverse. The statistics are weights, or settings."""
    mean, variance = settings.get("mean"), settings.get("variance")
    if mean is None:
        mean, variance, _ = weights.take("normalization", settings["name"], 3)
    mean, variance = (_spread(name, _kept_axes(_numbers(p), settings["axis"], shape), shape) for p in (mean, variance))
    with np.errstate(all="ignore"):  # weights that are not finite are reported later
        deviation = np.maximum(np.sqrt(variance), KERAS_EPSILON)
        return make_affine(deviation, mean) if settings.get("invert") else make_affine(1 / deviation, -mean / deviation)


def _numbers(value: Any) -> NDArray[np.float64]:
    """An argument of a layer that is a number, a list, or an array as Keras describes it."""
    if isinstance(value, Mapping):
        value = value["config"]["value"]
    return np.asarray(value, np.float64)


def _kept_axes(p: NDArray[np.float64], axis: Any, shape: tuple[int, ...] | None) -> NDArray[np.float64]:
    """The statistics of Normalization, with axes of length 1 where they are the same for all positions."""
    ndim = 1 if shape is None else len(shape)
    axes = [axis] if isinstance(axis, int) else list(axis or ())
    kept = sorted((a if a >= 0 else a + ndim + 1) - 1 for a in axes)  # axes of an example, without the batch
    sizes = [1] * ndim
    for k, size in zip(kept[::-1], p.shape[::-1], strict=False):
        sizes[k] = size
    return p.reshape(sizes)


def _spread(name: str, p: NDArray[np.float64], shape: tuple[int, ...] | None) -> NDArray[np.float64]:
    """One number for each value of an example, or one number for all."""
    if p.size == 1:
        return p.reshape(())
    if math.prod(shape or ()) > MAX_INPUTS:
        raise HandgradError(f"{name!r} has inputs of shape {shape}: expected at most {MAX_INPUTS:,} values")
    try:
        return p if shape is None and p.ndim == 1 else np.broadcast_to(p, shape or ())
    except ValueError as error:
        raise HandgradError(f"{name!r} has {p.shape} values for inputs of shape {shape}") from error


def _is_tensor(argument: Any) -> bool:
    """Whether an argument of a layer is the output of another layer, and not a number."""
    return isinstance(argument, Mapping) and "keras_history" in argument["config"]


def _check_sequence(layers: list[dict[str, Any]], ends: list[Any]) -> None:
    """Raise HandgradError unless the input of each layer of a Functional model is the output of the one before it."""
    try:
        for before, layer in itertools.pairwise(layers):
            (node,) = layer["inbound_nodes"]
            (tensor,) = filter(_is_tensor, node["args"])
            if len(node["args"]) != (2 if layer["class_name"] in _ARITHMETIC else 1):
                raise ValueError
            if list(tensor["config"]["keras_history"]) != [before["name"], 0, 0] or any(node["kwargs"].values()):
                raise ValueError
        (end,) = [ends] if isinstance(ends[0], str) else ends
        if list(end) != [layers[-1]["name"], 0, 0]:
            raise ValueError
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise HandgradError("the layers of the Functional model are not a sequence") from error


def _convert(kind: str, settings: dict[str, Any], name: str, weights: _Weights) -> tuple[list[ImportedLayer], str]:
    """The layers of handgrad for a layer of Keras, and the name of the activation at their end."""
    if kind == "Dense":
        W, *b = weights.take("dense", settings["name"], 1 + settings["use_bias"])
        layers, activation = _activation(settings["activation"], name)
        return [dense_layer(name, W.T, b[0] if b else None), *layers], activation
    if kind == "BatchNormalization" and settings["axis"] in (-1, 1, [-1], [1]):
        scale, center = settings["scale"], settings["center"]
        arrays = weights.take("batch_normalization", settings["name"], 2 + scale + center)
        g, beta = arrays.pop(0) if scale else None, arrays.pop(0) if center else None
        momentum = round(1 - settings["momentum"], 12)
        return [batch_norm_layer(name, g, beta, arrays[0], arrays[1], momentum, settings["epsilon"])], "linear"
    if kind == "Dropout":
        return [imported_layer(name, Dropout, settings["rate"])], "linear"
    converted = _activation_layer(kind, settings, name)
    if converted is None:
        raise HandgradError(f"{name!r} has no equivalent in handgrad: {_SUPPORTED}")
    return converted


def _activation_layer(kind: str, settings: dict[str, Any], name: str) -> tuple[list[ImportedLayer], str] | None:
    """The same for a layer that is an activation; None if it has no equivalent."""
    if kind == "Activation":
        return _activation(settings["activation"], name)
    if kind == "LeakyReLU":  # `alpha` before Keras 3
        slope = settings["negative_slope" if "negative_slope" in settings else "alpha"]
        return [imported_layer(name, LeakyReLU, slope)], "linear"
    if kind == "ReLU" and not any(settings.get(key) for key in ("max_value", "threshold")):
        if slope := settings.get("negative_slope"):
            return [imported_layer(name, LeakyReLU, slope)], "linear"
        return _activation("relu", name)
    if kind == "ELU":
        return [imported_layer(name, ELU, settings["alpha"])], "linear"
    if kind == "Softmax" and settings.get("axis", -1) in (-1, 1, [-1], [1]):
        return [], "softmax"
    if kind in _OPERATIONS:
        return _activation(kind, name)
    return ([], "linear") if kind == "Identity" else None


def _activation(activation: Any, name: str) -> tuple[list[ImportedLayer], str]:
    """The same for the argument `activation` of a layer: the name of a function, or a layer."""
    if isinstance(activation, Mapping):
        found, config = str(activation.get("class_name", "function")), activation.get("config")
        if isinstance(config, Mapping) and _is_of_keras(activation):
            converted = _activation_layer(found, dict(config), name)
            if converted is not None:
                return converted
        found = {"function": str(config), "__lambda__": "lambda"}.get(found, found)
    else:
        found, plain = str(activation), plain_name("linear" if activation is None else activation)
        if plain in OUTPUT_LOSS:
            return [], plain
        if plain == "linear":
            return [], plain
        if plain in _BY_ACTIVATION:
            return [ImportedLayer(name, _BY_ACTIVATION[plain](), {})], plain
    raise HandgradError(f"{name!r} has the activation {found!r}, which has no equivalent in handgrad: {_SUPPORTED}")


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
