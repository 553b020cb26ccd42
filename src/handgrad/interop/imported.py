"""Imported models: named layers with their arrays and a loss, checked and assembled into a Network."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError, unknown
from ..layers import ACTIVATIONS, BatchNorm, Dense, Layer, Sigmoid
from ..losses import LOSSES, BinaryCrossEntropy, CrossEntropy, Loss, Poisson, SquaredError, make_loss
from ..network import Network

logger = logging.getLogger(__name__)  # without a logging configuration, Python prints warnings to stderr

# Other names of activations, in the form that `plain_name` returns.
ACTIVATION_ALIASES = {
    "linear": "identity",
    "logistic": "sigmoid",
    "swish": "silu",
    "geluexact": "exact_gelu",
    "gelutanh": "gelu",
    "geluapproximate": "gelu",
    "gelupytorchtanh": "gelu",
}
HALF_PRECISION = ("float16", "bfloat16")

# Activations that handgrad only has as part of a loss: the words for them in messages, and that loss.
OUTPUT_LOSS: dict[str, tuple[str, str, type[Loss]]] = {
    "softmax": ("a softmax", "cross_entropy", CrossEntropy),
    "exponential": ("an exponential", "poisson", Poisson),
}


class ImportedLayer(NamedTuple):
    """A layer, its name in the imported model, and its parameters by their names in handgrad."""

    name: str
    layer: Layer
    arrays: dict[str, NDArray[Any]]


class ImportedModel(NamedTuple):
    """Everything a network is built from."""

    layers: list[ImportedLayer]
    loss: Loss
    classes: tuple[str, ...] | None = None
    image_shape: tuple[int, int] | None = None

    def build(self) -> Network:
        """Build the network, in the dtype of the arrays.

        Raises
        ------
        HandgradError
            If two layers do not fit together, if the arrays do not all have the same dtype, float32 or float64, or if
            they contain NaN or infinity. The message has the names of the imported layers.
        """
        _check_widths(self.layers)
        arrays, origin = {}, {}
        for i, (name, _, named) in enumerate(self.layers):
            for symbol, p in named.items():
                arrays[f"{i}.{symbol}"], origin[f"{i}.{symbol}"] = p, name
        dtypes = {str(p.dtype): origin[key] for key, p in arrays.items()}
        if len(dtypes) != 1 or not dtypes.keys() <= {"float32", "float64"}:
            found = ", ".join(f"{dtype} ({name!r})" for dtype, name in dtypes.items())
            raise HandgradError(f"the weights have the dtypes {found}: expected all float32, or all float64")
        for key, p in arrays.items():
            if not np.isfinite(p).all():
                raise HandgradError(f"the weights of {origin[key]!r} contain NaN or infinity")
        network = Network([each.layer for each in self.layers], loss=self.loss, rng=0, dtype=next(iter(dtypes)))
        for key, parameter in network.named_parameters.items():
            parameter[...] = arrays[key]
        # A classifier of scikit-learn that was fitted on one class has one name, but its output decides between two.
        if self.classes and len(self.classes) == network.n_classes:
            network.classes = self.classes
        network.image_shape = self.image_shape
        return network


@contextlib.contextmanager
def in_file(path: Path) -> Iterator[None]:
    """Add the name of the file to the message of every HandgradError that does not have it."""
    try:
        yield
    except HandgradError as error:
        if str(path) in str(error):
            raise
        raise HandgradError(f"{path}: {error}") from error


def plain_name(name: object) -> str:
    """A name in lower case, without underscores, hyphens and spaces: "leakyrelu" for "LeakyReLU" and "leaky_relu"."""
    return "".join(letter for letter in str(name).lower() if letter not in "_- ")


def activation_name(name: str) -> str:
    """Return handgrad's name of an activation that is given in any case: "relu" for "ReLU", "silu" for "swish".

    Raises HandgradError, with the closest name, if there is no such activation.
    """
    plain = plain_name(name)
    known = {plain_name(other): other for other in ACTIVATIONS} | ACTIVATION_ALIASES
    if plain not in known:
        raise unknown("activation", str(name), ACTIVATIONS)
    return known[plain]


def as_loss(loss: str | Loss) -> Loss:
    """Return a loss that is given as an object, or by its name in any case: "CrossEntropy" or "cross_entropy"."""
    names = {plain_name(name): name for name in LOSSES}
    return make_loss(names.get(plain_name(loss), loss) if isinstance(loss, str) else loss)


def as_numpy(name: str, value: Any) -> NDArray[Any]:
    """Copy an array, a tensor or a variable into an array. float16 and bfloat16 become float32, which is exact.

    Raises HandgradError if the value does not contain numbers.
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.float() if dtype_name(value) in HALF_PRECISION else value).numpy()
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor without storage, for example, or float8
        raise HandgradError(f"NumPy cannot represent {name!r}: {error}") from error
    if array.dtype.name in HALF_PRECISION:  # the bfloat16 of JAX and Keras is an additional dtype of NumPy
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise HandgradError(f"{name!r} is not an array of numbers: got a {type(value).__name__}")
    return array


def decode_bfloat16(data: bytes | bytearray, shape: Sequence[int]) -> NDArray[np.float32]:
    """Decode little-endian bfloat16: the first 16 bits of a float32, whose other 16 bits are 0."""
    bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(shape)


def dtype_name(value: Any) -> str:
    """Name of the dtype of an array or a tensor, as "bfloat16"; "" if it has none."""
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def log_widened(dtypes: Iterable[str]) -> None:
    """Log that weights in half precision are converted to float32, given the names of the dtypes of all weights."""
    half = sorted({*dtypes} & {*HALF_PRECISION})
    if half:
        logger.warning("the weights are %s: converted to float32, without a loss of precision", " and ".join(half))


def imported_layer(name: str, make: Callable[..., Layer], *args: Any, **options: Any) -> ImportedLayer:
    """Create a layer that has no arrays yet. Raises HandgradError, with its name, for invalid options."""
    try:
        return ImportedLayer(name, make(*args, **options), {})
    except HandgradError as error:
        raise HandgradError(f"{name!r}: {error}") from error


def dense_layer(name: str, W: NDArray[Any], b: NDArray[Any] | None) -> ImportedLayer:
    """Create a Dense layer from W (n_out, n_in) and b (n_out,). Without a bias, b = 0."""
    if W.ndim != 2 or 0 in W.shape:
        raise HandgradError(f"{name!r} has weights of shape {W.shape}: expected a matrix (n_out, n_in)")
    b = np.zeros(len(W), W.dtype) if b is None else b
    if b.shape != (len(W),):
        raise HandgradError(
            f"{name!r} has a bias of shape {b.shape} and weights of shape {W.shape}: expected a bias "
            f"of shape ({len(W)},)"
        )
    return ImportedLayer(name, Dense(W.shape[1], W.shape[0]), {"W": W, "b": b})


def batch_norm_layer(
    name: str,
    g: NDArray[Any] | None,
    b: NDArray[Any] | None,
    mean: NDArray[Any],
    var: NDArray[Any],
    momentum: float = 0.1,
    epsilon: float = 1e-5,
) -> ImportedLayer:
    """Create a BatchNorm from arrays (n,). Without a scale, g = 1; without a shift, b = 0."""
    g, b = np.ones_like(mean) if g is None else g, np.zeros_like(mean) if b is None else b
    arrays = {"g": g, "b": b, "running_mean": mean, "running_var": var}
    if mean.ndim != 1 or {p.shape for p in arrays.values()} != {mean.shape} or not len(mean):
        shapes = ", ".join(f"{symbol} {p.shape}" for symbol, p in arrays.items())
        raise HandgradError(f"the batch normalization {name!r} has {shapes}: expected vectors of the same length")
    return imported_layer(name, BatchNorm, len(mean), momentum, epsilon)._replace(arrays=arrays)


def split_output_activation(
    layers: list[ImportedLayer], output: str, loss: str | Loss | None, default: str
) -> tuple[list[ImportedLayer], Loss]:
    """Move the activation of the output into the loss, which owns it in handgrad.

    Parameters
    ----------
    layers : list of ImportedLayer
        All layers. A Sigmoid at the end is removed if the loss includes it: with `BinaryCrossEntropy` and with
        `SquaredError("sigmoid")`. With other losses it stays a layer.
    output : str
        The key of OUTPUT_LOSS for the activation at the end, which is not in `layers`; "" if there is none.
    loss : str, Loss or None
        None: `CrossEntropy` after a softmax, `Poisson` after an exponential, `BinaryCrossEntropy` after a sigmoid.
    default : str
        Name of the loss if neither `loss` nor an activation determines it.
    """
    sigmoid = bool(layers) and type(layers[-1].layer) is Sigmoid
    if loss is None:
        loss = OUTPUT_LOSS[output][1] if output else "binary_cross_entropy" if sigmoid else default
    loss = as_loss(loss)
    if output:
        activation, name, kind = OUTPUT_LOSS[output]
        if not isinstance(loss, kind):
            raise HandgradError(f"the model ends with {activation}, but the loss is {loss!r}: expected {name}")
    if sigmoid and isinstance(loss, BinaryCrossEntropy | SquaredError) and loss.is_classification:
        layers = layers[:-1]
    widths = [each.layer.width(1) for each in layers if isinstance(each.layer, Dense)]
    if widths[-1:] == [1] and isinstance(loss, CrossEntropy):
        raise HandgradError(
            "a softmax over one output is always 1: give loss='binary_cross_entropy' for two classes, or "
            "loss='squared_error' for a regression"
        )
    return layers, loss


def _check_widths(layers: Sequence[ImportedLayer]) -> None:
    """Raise HandgradError, with the names of both layers, if a layer does not fit the one before it."""
    width, before = 0, None
    for name, layer, _ in layers:
        if layer.n_in is not None:
            if before is not None and width != layer.n_in:
                raise HandgradError(f"{name!r} expects {layer.n_in} inputs, but {before!r} has {width} outputs")
            width, before = layer.width(layer.n_in), name
    if not any(isinstance(layer, Dense) for _, layer, _ in layers):
        raise HandgradError("the model has no dense layer: expected at least one")
