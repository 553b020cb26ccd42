"""What every reader makes: layers with their names there and their numbers, one after the other, and a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import HandgradError, unknown
from ..layers import BatchNorm, Dense, Layer, Sigmoid
from ..losses import LOSSES, BinaryCrossEntropy, Loss, CrossEntropy

Made = TypeVar("Made")


class ImportedLayer(NamedTuple):
    """A layer, what it is called where it comes from, and its parameters by handgrad's names."""

    name: str
    layer: Layer
    arrays: dict[str, NDArray[Any]]


class ImportedModel(NamedTuple):
    """All that a network is made of."""

    links: list[ImportedLayer]
    loss: Loss
    classes: tuple[str, ...] | None = None
    image_shape: tuple[int, int] | None = None
    file: Path | None = None  # that they were read from

    def build(self, make: Callable[..., Made]) -> Made:
        """The network that `make`, the class Network, makes of them, in the dtype that all of the numbers have.

        Raises HandgradError where they have no such, are no finite numbers, or do not come one after the other,
        with the name of their file.
        """
        try:
            return self._build(make)
        except HandgradError as error:
            if self.file is None:
                raise
            raise HandgradError(f"{self.file}: {error}") from error

    def _build(self, make: Callable[..., Made]) -> Made:
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
        if self.classes and len(self.classes) == network.n_classes:  # one, of one class alone, is none of no and yes
            network.classes = self.classes
        network.image_shape = self.image_shape
        return network  # type: ignore[no-any-return]


def array_of(name: str, value: Any) -> NDArray[Any]:
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


def layer_link(name: str, make: Callable[..., Layer], *settings: Any) -> ImportedLayer:
    """The layer that `make` makes of its settings, as yet without arrays. HandgradError, with its name: of others."""
    try:
        return ImportedLayer(name, make(*settings), {})
    except HandgradError as error:
        raise HandgradError(f"{name!r}: {error}") from error


def dense_link(name: str, W: NDArray[Any], b: NDArray[Any] | None) -> ImportedLayer:
    """W (n_out, n_in), b (n_out,); without a bias b = 0."""
    if W.ndim != 2 or 0 in W.shape:
        raise HandgradError(f"{name!r} has weights of shape {W.shape}: expected a matrix, (outputs, inputs)")
    b = np.zeros(len(W), W.dtype) if b is None else b
    if b.shape != (len(W),):
        raise HandgradError(f"{name!r} has a bias of shape {b.shape} for weights of {W.shape}: expected ({len(W)},)")
    return ImportedLayer(name, Dense(W.shape[1], W.shape[0]), {"W": W, "b": b})


def norm_link(
    name: str,
    g: NDArray[Any] | None,
    b: NDArray[Any] | None,
    mean: NDArray[Any],
    var: NDArray[Any],
    momentum: float = 0.1,
    epsilon: float = 1e-5,
) -> ImportedLayer:
    """A BatchNorm, all of its arrays (n,); without a scale g = 1, without a shift b = 0."""
    g, b = np.ones_like(mean) if g is None else g, np.zeros_like(mean) if b is None else b
    arrays = {"g": g, "b": b, "running_mean": mean, "running_var": var}
    if mean.ndim != 1 or {p.shape for p in arrays.values()} != {mean.shape} or not len(mean):
        shapes = ", ".join(f"{symbol} {p.shape}" for symbol, p in arrays.items())
        raise HandgradError(f"{name!r} normalises with {shapes}: expected vectors of one length")
    return layer_link(name, BatchNorm, len(mean), momentum, epsilon)._replace(arrays=arrays)


def _follow(links: Sequence[ImportedLayer]) -> None:
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


# Activations that are there at the end alone, held by a loss: what they are called, and the name of that loss.
HELD = {"softmax": ("a softmax", "cross_entropy"), "exponential": ("an exponential", "poisson")}


def split_output_activation(
    links: list[ImportedLayer], held: str, loss: str | Loss | None, default: str
) -> tuple[list[ImportedLayer], Loss]:
    """The links without the activation at their end that the loss holds itself, and that loss.

    held: the one of HELD that has come last, and is no link, or "".
    default: the loss where none is named and no activation tells it.
    """
    sigmoid = bool(links) and type(links[-1].layer) is Sigmoid
    if loss is None:
        loss = HELD[held][1] if held else "binary_cross_entropy" if sigmoid else default
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        loss = LOSSES[loss]()
    if held and not isinstance(loss, LOSSES[HELD[held][1]]):
        raise HandgradError(f"it ends with {HELD[held][0]}, and the loss is {loss!r}: expected {HELD[held][1]}")
    if sigmoid and isinstance(loss, BinaryCrossEntropy):
        links = links[:-1]
    widths = [link.layer.width(1) for link in links if isinstance(link.layer, Dense)]
    if widths[-1:] == [1] and isinstance(loss, CrossEntropy):
        raise HandgradError(
            "a softmax over one output is always 1: give loss='binary_cross_entropy' for no or yes, or one for numbers, "
            "'squared_error'"
        )
    return links, loss
