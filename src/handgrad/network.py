"""A chain of layers over one vector.

    x ──► layer ──► layer ──► layer ──► loss ──► L
    dx ◄── layer ◄── layer ◄── layer ◄── loss
             │ views of
    θ  [ W1 b1 W2 b2 W3 b3 ]     parameters
    dθ [dW1 db1 ...        ]     gradient

All parameters live in one contiguous vector, all derivatives in another, and every W, b, dW, db is a view into it.
So an optimizer is an equation on two vectors, and knows of no layer. The order is PyTorch's `parameters_to_vector`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .arrays import Array, Seed, aligned, as_examples, as_floats, as_whole, streams
from .classifier import Classifier
from .errors import HandgradError, unknown
from .layers import ACTIVATIONS, BatchNorm, Dense, Dropout, Identity, Layer
from .losses import Loss, Quadratic
from .preprocessing import Preprocessing
from .regression import LOSSES

# The initializer an activation calls for, where none is named. The post draws N(0, 1) for its sigmoids.
INITIALIZER_FOR = {"sigmoid": "normal", "tanh": "xavier_normal", "identity": "xavier_normal"}

# Rows that go through the network at once where no gradient is wanted. Measured on 784-512-512-10: from 256 to 2,048
# rows the time is the same within 3 %; fewer rows leave the processor idle, more leave its cache.
BLOCK = 1024


# Pixels down and across, by the number of views: the picture, its neighbours beside and above, those over the corners.
_BESIDE, _CORNERS = ((0, 1), (1, 0), (0, -1), (-1, 0)), ((1, 1), (1, -1), (-1, 1), (-1, -1))
SHIFTS = {1: ((0, 0),), 5: ((0, 0), *_BESIDE), 9: ((0, 0), *_BESIDE, *_CORNERS)}


class Network(Classifier):
    """A chain of layers, a loss at its end.

    Network([784, 30, 10]) is the post's: two Dense layers, a sigmoid after each, cross-entropy, N(0, 1) weights.
    Network([784, 800, 800, 10], activation="relu", loss="softmax_cross_entropy") is another; `activation` may be a
    list, one for each hidden layer. With `batch_norm` each hidden layer's z goes through a BatchNorm, with a rate of
    `dropout` its a through a Dropout. Network([Dense(784, 30), Tanh(), Dropout(), Dense(30, 10)]) is any chain at all.

    The chain ends where its loss begins. The two cross-entropies hold the output's activation themselves; for the
    quadratic loss, sizes make a chain that ends with a sigmoid (give a list of layers for any other output).

    `rng` is a seed or a generator: the same one gives the same network. `dtype` is float32 to train, float64 to check.
    `preprocessing` is done to the examples before every answer, and by `Trainer.fit` before the first step; `forward`
    and `backprop` take what it gives.
    """

    parameters: Array  # θ
    gradient: Array  # dθ, what the last `backprop` left: after a step of `Trainer` with plain SGD, lr dθ

    def __init__(
        self,
        layers: Sequence[int] | Sequence[Layer],
        *,
        activation: str | Sequence[str] = "sigmoid",
        loss: str | Loss = "cross_entropy",
        init: str | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DTypeLike = np.float32,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.dtype = _float_type(dtype)
        if isinstance(loss, str) and loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        self.loss = LOSSES[loss]() if isinstance(loss, str) else loss
        if not isinstance(self.loss, Loss):
            raise HandgradError(f"loss {loss!r}: expected a Loss, or one of {', '.join(LOSSES)}")
        self.layers = _chain(layers, activation, self.loss, init, batch_norm, dropout)

        self.n_in, self.n_out = _widths(self.layers)
        self.preprocessing = preprocessing
        self._first = next(i for i, layer in enumerate(self.layers) if layer.shapes)
        self.parameters, self.gradient = bind(self.layers, self.dtype)
        chance = streams(rng)
        for layer in self.layers:
            layer.initialize(chance)

        self.classes = tuple(str(k) for k in range(self.n_classes))
        self.image_shape: tuple[int, int] | None = None  # (height, width) where the inputs are pictures
        self.views = 1
        self._batch = 0  # the batch size that the buffers are made for

    @classmethod
    def from_torch(cls, model: Any, *, activation: Any = None, loss: str | Loss | None = None) -> Network:
        """The network that a torch.nn.Sequential is, a state dict, or a .safetensors file with one in it.

        A state dict holds no activations: `activation` is the name of them all, or one for each hidden layer. `loss` is
        softmax_cross_entropy where none is named; of a Sequential that ends with a Sigmoid, cross_entropy. A loss
        holds its own activation, so `probabilities` are then the Sequential's outputs, and else `outputs`.

        Linear, BatchNorm1d, Dropout, Identity, and the activations that handgrad has. Raises HandgradError for others.
        """
        from .foreign import from_torch  # late, as few need it

        return from_torch(model, activation, loss).build(cls)

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Network:
        """The network of a fitted MLPClassifier or MLPRegressor of scikit-learn, with its classes and its loss.

        Raises HandgradError for anything else.
        """
        from .foreign import from_sklearn

        return from_sklearn(estimator).build(cls)

    @classmethod
    def from_keras(cls, model: Any, *, loss: str | Loss | None = None) -> Network:
        """The network of a .keras file, or of a Sequential or Functional model of Keras, where it is a chain of Dense.

        Where none is named the last activation tells the `loss`: of a softmax softmax_cross_entropy, of a sigmoid
        cross_entropy; else the loss that the model was compiled with, or squared_error.

        Dense, BatchNormalization, Dropout, a Flatten in front, and the activations that handgrad has. Raises
        HandgradError for others.
        """
        from .foreign import from_keras

        return from_keras(model, loss).build(cls)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to the examples first. Raises HandgradError where one is set that does not give n_in inputs."""
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, preprocessing: Preprocessing | None) -> None:
        if not isinstance(preprocessing, Preprocessing | None):
            raise HandgradError(f"preprocessing {preprocessing!r}: expected a Preprocessing, or None")
        if preprocessing is not None and preprocessing.n_out != self.n_in:
            raise HandgradError(
                f"the preprocessing {preprocessing!r} gives {preprocessing.n_out} inputs, the network takes {self.n_in}"
            )
        self._preprocessing = preprocessing
        self.n_raw = self.n_in if preprocessing is None else preprocessing.n_in

    @property
    def named_parameters(self) -> dict[str, Array]:
        """Every parameter by the place and name it has in the chain: "0.W", "0.b", "2.W", ..."""
        return {f"{i}.{name}": getattr(layer, name) for i, layer in enumerate(self.layers) for name in layer.shapes}

    @property
    def weights(self) -> list[tuple[Array, Array]]:
        """(W, dW) of every matrix: what decay and norms act on. Biases are left alone."""
        named = [(layer, name) for layer in self.layers for name, shape in layer.shapes.items() if len(shape) > 1]
        return [(getattr(layer, name), getattr(layer, f"d{name}")) for layer, name in named]

    def astype(self, dtype: DTypeLike) -> Network:
        """A copy of the network, its parameters and all that it computes in `dtype`."""
        twin = copy.deepcopy(self)
        twin.dtype = _float_type(dtype)
        twin.__setstate__(twin.__dict__)
        return twin

    def folded(self) -> Network:
        """A copy that answers as this network does, with fewer layers: a BatchNorm, once trained, is y = s x + t.

        after a Dense    s (W x + b) + t = (s W) x + (s b + t)
        before a Dense   W (s x + t) + b = (W s) x + (W t + b)

        Dropout and Identity may lie between: they answer x. A BatchNorm with no Dense beside it stays. The copy is for
        answers; in training a BatchNorm is more than that.
        """
        twin = copy.deepcopy(self)
        layers = _fold(twin.layers, after=True)
        twin.layers = _fold(layers[::-1], after=False)[::-1]
        twin._first = next(i for i, layer in enumerate(twin.layers) if layer.shapes)
        twin.parameters = np.concatenate([p.ravel() for p in twin.named_parameters.values()])
        twin.__setstate__(twin.__dict__)
        return twin

    def __copy__(self) -> Network:
        """A copy has vectors of its own: with layers that two networks share, neither would be whole."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """A copy comes without buffers: in the layers that handgrad knows, every array is one, or a view of θ or dθ."""
        return self.__dict__ | {"layers": [_bare(layer) for layer in self.layers], "loss": _bare(self.loss)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied or unpickled network: its arrays came apart from its two vectors, so lay them out anew."""
        self.__dict__.update(state)
        parameters, self._batch = self.parameters, 0
        self.parameters, self.gradient = bind(self.layers, self.dtype)
        self.parameters[...] = parameters

    def shadow(self) -> Network:
        """The same network with buffers of its own, for batches of another size in between: one θ, one dθ, one chance.

        It is as the network is now: an attribute of a layer that is set anew later is not seen by it.
        """
        twin = object.__new__(type(self))
        twin.__dict__ = self.__dict__ | {
            "layers": [copy.copy(layer) for layer in self.layers],
            "loss": copy.copy(self.loss),
            "_batch": 0,
        }
        return twin

    def sees_through(self, preprocessing: Preprocessing | None) -> bool:
        """Whether its preprocessing is this one."""
        return repr(self.preprocessing) == repr(preprocessing)  # a repr tells all that makes it again

    def preprocessed(self) -> Network:
        """A shadow without preprocessing, whose pictures are what the first layer sees."""
        twin = self.shadow()
        twin.image_shape, twin.preprocessing = self.input_shape, None
        return twin

    # ---- Learning: forward, loss, backward ---------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """x (batch, n_in) -> z (batch, n_out), up the chain as in training. z is overwritten by the next call."""
        self._make_room(len(x))
        x = np.asarray(x, self.dtype)
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dz: Array) -> None:
        """dz (batch, n_out) -> dθ, down the chain. It ends at the first parameters: below them nothing learns."""
        for layer in self.layers[: self._first : -1]:
            dz = layer.backward(dz)
        self.layers[self._first].backward_parameters(dz)

    def backprop(self, x: Array, t: Array, weight: float | Array | None = None) -> Array:
        """Leave in `gradient` the derivative by θ of Σᵢ weightᵢ Lᵢ on one batch; return the outputs z.

        x (batch, n_in) floats, t (batch, n_out) rows as `loss.targets` makes them; `weight` a number or (batch, 1),
        one for each example: where none is given 1 / batch, for the mean loss.
        """
        z = self.forward(x)
        self.backward(self.loss.backward(z, t, self._mean if weight is None else weight))
        return z

    def backward_input(self, dz: Array) -> Array:
        """dz (batch, n_out) -> dx (batch, n_in), down the whole chain, for the x that `forward` saw last.

        dθ stays as it is, but for layers of one's own that have parameters and no `backward_input`: they write theirs.
        dx is overwritten by the next call.
        """
        for layer in reversed(self.layers):
            dz = layer.backward_input(dz)
        return dz

    def input_gradient(self, x: Array, t: Array, weight: float | Array | None = None) -> Array:
        """dx (batch, n_in) of Σᵢ weightᵢ Lᵢ: how the loss changes with the picture. As `backprop`, without dθ."""
        z = self.forward(x)
        return self.backward_input(self.loss.backward(z, t, self._mean if weight is None else weight))

    def _make_room(self, batch: int) -> None:
        """Let every layer have its buffers for batches of this size, unless it has them."""
        if batch == self._batch:
            return
        width = self.n_in
        for layer in self.layers:
            layer.allocate(batch, width, self.dtype)
            width = layer.width(width)
        self.loss.allocate(batch, width, self.dtype)
        self._batch, self._mean = batch, np.array(1 / batch, self.dtype)

    # ---- Answering ---------------------------------------------------------------------------------------------------

    def preprocess(self, x: NDArray[Any]) -> NDArray[Any]:
        """x (count, n_raw) as the first layer is to see it, in its own dtype; x itself without a preprocessing."""
        return x if self.preprocessing is None else self.preprocessing(x)

    def outputs(self, x: ArrayLike) -> Array:
        """z (count, n_out) of any number of examples, a block at a time."""
        x = as_examples(x, self.n_raw)
        z = np.empty((len(x), self.n_out), self.dtype)
        for rows, block in self._blocks(x):
            z[rows] = self._infer(block) if self.views == 1 else self._mean_of_views(block)
        return z

    @property
    def input_shape(self) -> tuple[int, int] | None:
        """(height, width) of what the first layer sees, where that is a picture."""
        return self.image_shape if self.preprocessing is None else self.preprocessing.image_shape

    @property
    def views(self) -> int:
        """How many shifts of a picture answer, by their mean probability: 1, 5 (the four neighbours too) or 9 (all).

        A network that has learnt from shifted pictures errs a little otherwise on each. Raises HandgradError for other
        numbers, and where the inputs are no pictures, as `image_shape` must say first.
        """
        return self._views

    @views.setter
    def views(self, views: int) -> None:
        if views not in SHIFTS or (views > 1 and self.input_shape is None):
            raise HandgradError(
                f"views {views} of {self.input_shape or 'no'} pictures: expected 1, 5 or 9, and image_shape"
            )
        self._views = views

    def _mean_of_views(self, x: Array) -> Array:
        """z of which the probabilities are the mean over the shifts of x; what a picture is shifted out of is 0."""
        if self.input_shape is None:
            raise HandgradError(f"views {self.views} of inputs that are no pictures: set image_shape, or views to 1")
        height, width = self.input_shape
        paper = np.pad(x.reshape(-1, height, width), ((0, 0), (1, 1), (1, 1)))
        p = np.zeros((len(x), self.n_out), self.dtype)
        for down, across in SHIFTS[self.views]:
            seen = paper[:, 1 - down : 1 - down + height, 1 - across : 1 - across + width]
            p += self.loss.probabilities(self._infer(seen.reshape(len(x), self.n_in)))
        return self.loss.outputs(p / self.views)

    def activations(self, x: ArrayLike) -> list[Array]:
        """What every layer makes of x: one array (count, width) for each layer, the last one z."""
        x = as_examples(x, self.n_raw)
        widths = [self.n_in]
        for layer in self.layers:
            widths.append(layer.width(widths[-1]))
        kept: list[Array] = [np.empty((len(x), width), self.dtype) for width in widths[1:]]
        for rows, block in self._blocks(x):
            self._make_room(len(block))
            for layer, a in zip(self.layers, kept, strict=True):
                block = layer.infer(block)
                a[rows] = block
        return kept

    def _blocks(self, x: NDArray[Any]) -> Iterator[tuple[slice, Array]]:
        """(rows, those rows, preprocessed, in the network's dtype) of x, one block after the other, in one memory."""
        room, size = None, min(len(x), BLOCK) * self.n_in
        if x.dtype != self.dtype:
            room = aligned(size, self.dtype).reshape(-1, self.n_in)
        if self.preprocessing is not None:
            preprocessed = aligned(size, x.dtype).reshape(-1, self.n_in)
        for first in range(0, len(x), BLOCK):
            rows = slice(first, first + BLOCK)
            block = x[rows]
            if self.preprocessing is not None:
                block = self.preprocessing(block, out=preprocessed[: len(block)])
            yield rows, block if room is None else as_floats(block, out=room[: len(block)])

    def _infer(self, x: Array) -> Array:
        self._make_room(len(x))
        for layer in self.layers:
            x = layer.infer(x)
        return x

    def __repr__(self) -> str:
        chain = ", ".join(repr(layer) for layer in self.layers)
        first = "" if self.preprocessing is None else f", preprocessing={self.preprocessing!r}"
        return f"Network([{chain}], loss={self.loss!r}{first}): {self.parameters.size:,} parameters, {self.dtype}"


def bind(layers: Sequence[Layer], dtype: DTypeLike) -> tuple[Array, Array]:
    """Lay out θ and dθ for a chain, and give each layer its W, b and dW, db as views into them."""
    size = sum(math.prod(shape) for layer in layers for shape in layer.shapes.values())
    parameters, gradient = aligned(size, dtype), aligned(size, dtype)
    parameters[...] = gradient[...] = 0
    first = 0
    for layer in layers:
        for name, shape in layer.shapes.items():
            last = first + math.prod(shape)
            setattr(layer, name, parameters[first:last].reshape(shape))
            setattr(layer, f"d{name}", gradient[first:last].reshape(shape))
            first = last
    return parameters, gradient


def _bare(part: Layer | Loss) -> Any:
    """A layer or loss without its arrays; one of one's own as it is, for its arrays may be anything."""
    if not type(part).__module__.startswith(f"{__package__}."):
        return part
    bare = copy.copy(part)
    for name in [name for name, value in vars(part).items() if isinstance(value, np.ndarray)]:
        delattr(bare, name)
    return bare


def _fold(layers: Sequence[Layer], after: bool) -> list[Layer]:
    """The layers without each BatchNorm that the nearest Dense in front of it, in this order, takes up.

    after: the order is the chain's, and a BatchNorm comes after its Dense; else the order is the reverse.
    """
    kept: list[Layer] = []
    for layer in layers:
        near = next((link for link in reversed(kept) if type(link) not in (Dropout, Identity)), None)
        if type(layer) is not BatchNorm or type(near) is not Dense:
            kept.append(layer)
            continue
        s, t = layer.affine()
        if after:
            near.W *= s[:, None]
            near.b *= s
            near.b += t
        else:
            near.b += near.W @ t
            near.W *= s
    return kept


def _float_type(dtype: DTypeLike) -> np.dtype[Any]:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise HandgradError(f"dtype {np.dtype(dtype)}: expected float32 to train or float64 to check")
    return np.dtype(dtype)


def _widths(layers: Sequence[Layer]) -> tuple[int, int]:
    """(n_in, n_out) of a chain, each link seen to take what the one before it gives."""
    n_in = next((layer.n_in for layer in layers if layer.n_in is not None), None)
    if n_in is None or not any(layer.shapes for layer in layers):
        raise HandgradError("a network with nothing to learn: expected at least one Dense layer")
    width = n_in
    for i, layer in enumerate(layers):
        if layer.n_in not in (None, width):
            raise HandgradError(f"layer {i}, {layer!r}, takes {layer.n_in} inputs, and {width} come to it")
        width = layer.width(width)
    return n_in, width


def _chain(
    layers: Sequence[int] | Sequence[Layer],
    activation: str | Sequence[str],
    loss: Loss,
    init: str | None,
    batch_norm: bool,
    dropout: float,
) -> list[Layer]:
    """The layers that a list of sizes, or of layers, stands for."""
    given = list(layers) if isinstance(layers, Iterable) else []
    links = [layer for layer in given if isinstance(layer, Layer)]
    if links and len(links) == len(given):
        if len({id(layer) for layer in links}) < len(links):
            raise HandgradError("a layer stands twice in the chain: expected one object for each place")
        for i, layer in enumerate(links):
            if any(hasattr(layer, name) for name in layer.shapes):
                raise HandgradError(f"layer {i}, {layer!r}, has its parameters in a network already: give a new one")
        if batch_norm or dropout:
            raise HandgradError("batch_norm and dropout go with sizes: put BatchNorm() and Dropout() into the list")
        return links
    sizes = [as_whole("a layer of size", n, 1) for n in given if isinstance(n, SupportsIndex)]
    if len(sizes) != len(given) or len(sizes) < 2:
        raise HandgradError(f"layers {layers!r}: expected two sizes or more, as in [784, 30, 10], or a list of layers")

    hidden = len(sizes) - 2
    names = [activation] * hidden if isinstance(activation, str) else list(activation or [])
    if len(names) != hidden:
        raise HandgradError(
            f"{len(names)} activations for {hidden} hidden layers: expected one for each, or one for all"
        )
    for name in [activation] if isinstance(activation, str) else names:
        if name not in ACTIVATIONS:
            raise unknown("activation", name, ACTIVATIONS)
    called_for = [INITIALIZER_FOR.get(name, "kaiming_normal") for name in names + names[-1:]] or ["normal"]
    names.append("sigmoid" if isinstance(loss, Quadratic) else "identity")

    chain: list[Layer] = []
    for i, (n_in, n_out, born, name) in enumerate(zip(sizes, sizes[1:], called_for, names, strict=False)):
        chain.append(Dense(n_in, n_out, init or born))
        if batch_norm and i < hidden:
            chain.append(BatchNorm(n_out))
        if name != "identity":
            chain.append(ACTIVATIONS[name]())
        if dropout and i < hidden:
            chain.append(Dropout(dropout))
    return chain
