"""Networks: a sequence of layers and a loss over one parameter vector.

    x ──► layer ──► layer ──► layer ──► loss ──► L
    dx ◄── layer ◄── layer ◄── layer ◄── loss
             │ views of
    θ  [ W1 b1 W2 b2 W3 b3 ]     parameters
    dθ [dW1 db1 ...        ]     gradient

All parameters are in one contiguous vector, all derivatives in another. Every W, b, dW and db is a reshaped view. An
optimizer is therefore an equation on two vectors and does not know the layers. The order of the parameters is that of
PyTorch's `parameters_to_vector`.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .arrays import Array, Seed, aligned_empty, aligned_zeros, as_floats, check_fraction, check_int, spawn_rngs
from .errors import HandgradError, Misnamed, check_name, closest
from .history import History
from .layers import ACTIVATIONS, BatchNorm, Dense, Dropout, Layer
from .losses import Loss, make_loss
from .model import Model, without_float_errors
from .tables import Table

if TYPE_CHECKING:
    from .optimizers import Optimizer

# Default initializer of each activation. The blog post draws N(0, 1) for its sigmoids.
INITIALIZER_FOR = {"sigmoid": "normal", "tanh": "xavier_normal", "identity": "xavier_normal"}

# Largest number of rows per block in inference. With more rows, the buffers do not fit into the cache.
PREDICT_ROWS = 1024
REPLICA_ROWS = 64  # up to this number of rows, buffers are kept for the next prediction: 16 us instead of 46 us
MAX_PARAMETERS = 1 << 40  # 4 TiB in float32

Part = TypeVar("Part", "Network", Layer, Loss)


class Network(Model):
    """A sequence of layers with a loss.

    Network([784, 30, 10]) is the network of the blog post: two Dense layers, a sigmoid after each of them, binary
    cross-entropy, and N(0, 1) weights.

    Parameters
    ----------
    layers : sequence of int or of Layer
        Layer sizes, inputs first; or the layers, as in [Dense(784, 30), Tanh(), Dropout(0.2), Dense(30, 10)].
    *others
        Not allowed: pass one list.
    activation : str or sequence of str
        Activation of the hidden layers, or one for each. Only with sizes.
    loss : str or Loss
        The loss, which includes the activation of the output. A Loss object is copied.
    init : str, optional
        Initializer of the Dense layers. By default "normal" for sigmoid, "xavier_normal" for tanh, "kaiming_normal" for
        all others. Only with sizes.
    batch_norm : bool
        Add a BatchNorm between each hidden Dense layer and its activation. Only with sizes.
    dropout : float
        Dropout rate after each hidden activation. Only with sizes.
    rng : int, numpy.random.Generator or None
        Seed of the initial weights and of dropout. The same seed gives the same network.
    dtype : numpy.float32 or numpy.float64
        float32 to train, float64 to check gradients.
    **unknown
        Options of other libraries, which are rejected with a hint.

    Attributes
    ----------
    layers : list of Layer
    parameters : ndarray of shape (n_parameters,)
        θ. Write into it with `parameters[...] = values`.
    gradient : ndarray of shape (n_parameters,)
        dθ of the last `backprop`.

    Raises
    ------
    HandgradError
        For invalid sizes, unknown names, layers that do not fit together, and layers that are in another network.
    """

    parameters: Array
    gradient_buffer: Array  # what backward writes: gradient_scale * gradient
    trainable = Misnamed("set layer.trainable = False for each layer to freeze")
    training = Misnamed("not needed: fit uses the training mode, predict and evaluate use the inference mode")
    train, eval = Misnamed("use fit to train; a training mode is not needed"), Misnamed(training.hint)
    state_dict = Misnamed("the parameters are network.named_parameters; handgrad.save(network, path) writes a file")
    load_state_dict = Misnamed("set network.parameters[...] = values, or read a file with handgrad.load(path)")
    to = Misnamed("handgrad computes on the CPU; network.astype(dtype) returns a copy with another dtype")
    lr, learning_rate = (Misnamed("the learning rate is that of the optimizer") for _ in range(2))
    compile = Misnamed("not needed: the loss is an option of Network, the optimizer one of fit or Trainer")

    def __init__(
        self,
        layers: Sequence[int] | Sequence[Layer],
        *others: object,
        activation: str | Sequence[str] = "sigmoid",
        loss: str | Loss = "binary_cross_entropy",
        init: str | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DTypeLike = np.float32,
        **unknown: Any,
    ) -> None:
        for option in unknown:
            known = ("activation", "loss", "init", "batch_norm", "dropout", "rng", "dtype")
            near = "rng" if option in ("seed", "random_state") else closest(option, known)
            hint = f"did you mean '{near}'?" if near else f"expected {', '.join(known)}"
            raise HandgradError(f"Network has no option '{option}': {hint}")
        if others:
            given = ", ".join(map(repr, (layers, *others)))
            raise HandgradError(f"pass the sizes or layers as one list: Network([{given}]), not Network({given})")
        self.dtype = _float_dtype(dtype)
        self._loss = make_loss(loss)
        self.layers = _as_layers(layers, activation, init, batch_norm, dropout)
        self._bind()
        rngs = spawn_rngs(rng)
        for layer in self.layers:
            layer.initialize(rngs)
            layer.seed(rngs)

    @classmethod
    def from_parameters(cls, layers: list[Layer], parameters: Array, *, loss: str | Loss) -> Network:
        """Return a network whose vector θ is `parameters`, without a copy: it may be a view of a memory-mapped file.

        Parameters
        ----------
        layers : list of Layer
            The layers.
        parameters : ndarray of shape (n_parameters,)
            θ, contiguous, float32 or float64.
        loss : str or Loss
            The loss. A Loss object is copied.

        Raises
        ------
        HandgradError
            If the layers do not fit together, or have another number of parameters.
        """
        network = object.__new__(cls)
        network.dtype = _float_dtype(parameters.dtype)
        network._loss = make_loss(loss)
        network.layers = _check_unused(layers)
        network._bind(parameters)
        rngs = spawn_rngs(0)
        for layer in layers:
            layer.seed(rngs)
        return network

    def _bind(self, parameters: Array | None = None) -> None:
        """Create the two vectors, unless θ is given, and give each layer its views."""
        self.n_in, self.n_out = _widths(self.layers)
        self.parameters, self.gradient_buffer = bind(self.layers, self.dtype, parameters)
        self.gradient_scale = 1.0
        self._batch = 0  # batch size of the allocated buffers
        self._replicas: list[_Replica] = []  # unused replicas with buffers for predictions

    @property
    def loss(self) -> Loss:
        """The loss. Setting it stores a copy, so that two networks never share the buffers of a loss."""
        return self._loss

    @loss.setter
    def loss(self, loss: str | Loss) -> None:
        self._loss = make_loss(loss)
        self._batch, self._replicas = 0, []

    @property
    def gradient(self) -> Array:
        """dθ (n_parameters,), the gradient of the last `backprop`. The next one overwrites it.

        After a step of `SGD`, dW and db of the layers have the learning rate as a factor, until `gradient` or `weights`
        is read.
        """
        self._unscale()
        return self.gradient_buffer

    @property
    def named_parameters(self) -> dict[str, Array]:
        """Each parameter by the index of its layer and its name: "0.W", "0.b", "2.W", ..."""
        return {
            f"{i}.{name}": getattr(layer, name)
            for i, layer in enumerate(self.layers)
            for name in layer.parameter_shapes
        }

    @property
    def weights(self) -> list[tuple[Array, Array]]:
        """(W, dW) of each weight matrix. Penalties apply to these, not to biases."""
        self._unscale()
        return [
            (getattr(layer, name), getattr(layer, f"d{name}"))
            for layer in self.layers
            for name, shape in layer.parameter_shapes.items()
            if len(shape) > 1
        ]

    def _unscale(self) -> None:
        """Divide dθ by the factor that `SGD.train_step` gave it."""
        if self.gradient_scale != 1:
            self.gradient_buffer /= self.gradient_scale
            self.gradient_scale = 1.0

    def check_inputs(self, x: ArrayLike) -> NDArray[Any]:
        x, first = super().check_inputs(x), self.layers[0]
        if x.ndim == 3 and first.image_shape not in (None, x.shape[1:]):
            raise HandgradError(f"x has images of {x.shape[1:]} pixels: expected {first.image_shape}, as {first!r}")
        return x

    # ---- Shortcuts ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        epochs: int = 5,
        *,
        validation: tuple[ArrayLike, ArrayLike] | float | None = 0.1,
        batch_size: int = 32,
        optimizer: str | Optimizer = "adam",
        lr: float | None = None,
        sample_weight: ArrayLike | None = None,
        progress: bool | None = None,
        rng: Seed = None,
        **options: Any,
    ) -> History:
        """Train the network with common defaults: a shortcut for a `Trainer`.

        Each call starts with a new learning rate schedule and continues from the current weights. An optimizer given by
        name is new in each call; an Optimizer object keeps its state. Use a `Trainer` to resume a run.

        Parameters
        ----------
        x : array-like of shape (count, n_in) or (count, height, width)
            Numbers, or images.
        y : array-like of shape (count,) or (count, n_out)
            Labels, or one row of targets per example.
        epochs : int
            Number of epochs.
        validation : float or (x, y), optional
            Fraction of the examples that is used as validation set, or a validation set. None: no validation. The
            choice of the examples is the same in every call.
        batch_size : int
            Number of examples in a mini-batch.
        optimizer : str or Optimizer
            "sgd", "momentum", "nesterov", "adam" or "adamw", or an optimizer.
        lr : float, optional
            Learning rate, for the name of an optimizer. By default 0.001 for "adam" and "adamw"; the others need it.
        sample_weight : array-like of shape (count,), optional
            Weights of the examples.
        progress : bool, optional
            Show a progress bar. By default, it is shown in a terminal or a notebook.
        rng : int, numpy.random.Generator or None
            Seed of the order of the examples.
        **options
            Other options of `Trainer`: schedule, callbacks, augment, teacher, perturb, comm, sync_every.

        Returns
        -------
        History
            The metrics of each epoch.

        Raises
        ------
        HandgradError
            For invalid input, before the first step.

        Examples
        --------
        >>> network = Network([2, 8, 2], activation="tanh", loss="cross_entropy", rng=0)
        >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
        >>> history = network.fit(x, y, epochs=100, validation=None, lr=0.1, rng=0)
        >>> network.predict(x)
        array([0, 1, 1, 0])
        """
        from .optimizers import make_optimizer  # late: the layers of the package above this one
        from .training import Trainer

        names = ("schedule", "callbacks", "augment", "teacher", "perturb", "comm", "sync_every")
        chosen = {name: options.pop(name) for name in names if name in options}
        trainer = Trainer(self, make_optimizer(optimizer, lr), batch_size=batch_size, rng=rng, **chosen)
        return trainer.fit(
            x, y, epochs, sample_weight=sample_weight, validation=validation, progress=progress, **options
        )  # rejects the options that are left

    # ---- Training: forward, loss, backward ---------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Compute the logits z (batch, n_out) of x (batch, n_in), in training mode. The next call overwrites z."""
        if len(x) != self._batch:
            self._allocate_buffers(len(x))
        if x.dtype is not self.dtype:
            x = np.asarray(x, self.dtype)
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dz: Array) -> None:
        """Compute dθ from dz (batch, n_out); it is 0 for frozen layers.

        It ends at the first layer that is trained, whose dx is not needed. The costs of layers are only included in
        `backprop`.
        """
        self.gradient_scale = 1.0
        layers, first = self.layers, 0
        while first < len(layers) and not (layers[first].parameter_shapes and layers[first].trainable):
            _clear_gradient(layers[first])
            first += 1
        for layer in layers[:first:-1]:
            if layer.trainable:
                dz = layer.backward(dz)
            else:
                dz = layer.backward_input(dz)
                _clear_gradient(layer)
        if first < len(layers):
            layers[first].backward_parameters(dz)

    def backprop(self, x: Array, t: Array, weight: float | Array | None = None, *, scale: float = 1.0) -> Array:
        """Compute the gradient of Σᵢ weightᵢ Lᵢ on a batch, and return the logits z.

        Layers with a `cost` add it to the loss.

        Parameters
        ----------
        x : ndarray of shape (batch, n_in)
            Floats.
        t : ndarray of shape (batch, n_out)
            Targets from `loss.targets`.
        weight : float or ndarray of shape (batch, 1), optional
            Weight of each example; 1 / batch by default, which gives the mean loss.
        scale : float
            Factor on everything in `gradient_buffer`. SGD passes the learning rate, which saves it a pass over θ.

        Returns
        -------
        ndarray of shape (batch, n_out)
            The logits. The next call overwrites them.

        Raises
        ------
        HandgradError
            If t is an array of labels instead of targets.
        """
        z = self.forward(x)
        if t.ndim != 2:  # labels, which NumPy would subtract from every row
            raise _wrong_targets(t, z)
        if weight is None:
            weight = self._mean(scale)
        elif scale != 1:
            weight = scale * weight
        for layer in self._with_cost:
            layer.example_weight = weight
        self.backward(self._loss.backward(z, t, weight))
        for layer in self._with_cost:
            layer.example_weight = 0.0
        self.gradient_scale = scale
        return z

    def backward_input(self, dz: Array) -> Array:
        """Compute dx (batch, n_in) from dz (batch, n_out), for the x of the last `forward`.

        The next call overwrites dx. dθ does not change, except for custom layers that have parameters but no
        `backward_input`.
        """
        for layer in reversed(self.layers):
            dz = layer.backward_input(dz)
        return dz

    def input_gradient(self, x: Array, t: Array, weight: float | Array | None = None) -> Array:
        """Compute dx (batch, n_in), the gradient of Σᵢ weightᵢ Lᵢ with respect to the inputs, without dθ."""
        z = self.forward(x)
        if t.ndim != 2:  # labels, which NumPy would subtract from every row
            raise _wrong_targets(t, z)
        return self.backward_input(self._loss.backward(z, t, self._mean(1.0) if weight is None else weight))

    def _allocate_buffers(self, batch: int) -> None:
        """Allocate the buffers of all layers for a batch size, unless they are allocated."""
        if batch == self._batch:
            return
        width = self.n_in
        for layer in self.layers:
            layer.allocate(batch, width, self.dtype)
            width = layer.width(width)
        self._with_cost = [layer for layer in self.layers if type(layer).cost is not Layer.cost]
        self._loss.allocate(batch, width, self.dtype)
        self._batch, self._weight_scale = batch, math.nan  # NaN differs from every scale

    def _mean(self, scale: float) -> Array:
        """The weight of each example, scale / batch: an array, because NumPy converts a number at every call."""
        if scale != self._weight_scale:
            self._weight, self._weight_scale = np.array(scale / max(self._batch, 1), self.dtype), scale
        return self._weight

    # ---- Inference ---------------------------------------------------------------------------------------------------

    def outputs(self, x: ArrayLike) -> Array:
        """Return the logits z (count, n_out) of any number of examples, in a new array. Safe from several threads."""
        return self._infer(x, [len(self.layers) - 1])[0]

    def activations(self, x: ArrayLike) -> list[Array]:
        """Return the output (count, width) of every layer; the last one is z."""
        return self._infer(x, range(len(self.layers)))

    def outputs_of(self, layer: int, x: ArrayLike) -> Array:
        """Return the output (count, width) of a layer, given its index, without computing the layers after it."""
        indices = range(len(self.layers))
        if check_int("layer", layer, -len(indices)) >= len(indices):
            raise HandgradError(f"layer must be an index from 0 to {indices[-1]}, got {layer}")
        return self._infer(x, [indices[layer]])[0]

    @without_float_errors
    def _infer(self, x: ArrayLike, wanted: Sequence[int]) -> list[Array]:
        """The outputs of the wanted layers, a block of rows at a time, in buffers of this call."""
        x = self.check_inputs(x)
        rows = min(len(x), self._rows_per_block())
        replica = self._take_replica(rows)
        layers = replica.network.layers[: max(wanted) + 1]
        converted = None
        if x.dtype != self.dtype or x.ndim != 2:
            converted = aligned_empty(rows * self.n_in, self.dtype).reshape(rows, self.n_in)
        results: dict[int, Array] = {}
        for first in range(0, len(x), rows):
            block = x[first : first + rows]
            a: Array = block if converted is None else as_floats(block, out=converted[: len(block)])
            replica.network._allocate_buffers(len(block))
            for i, layer in enumerate(layers):
                a = layer.infer(a)
                if i in wanted:
                    if i not in results:
                        results[i] = np.empty((len(x), a.shape[1]), self.dtype)
                    results[i][first : first + len(block)] = a
        if rows <= REPLICA_ROWS:
            self._keep_replica(replica)
        return list(results.values())

    def _rows_per_block(self) -> int:
        """Rows per block in inference: one for 1,024 parameters, a multiple of 64 from 128 to PREDICT_ROWS.

        The block of a small network stays in the cache, and its product is one that `products.py` computes in pieces:
        128 rows of 784-30-10 take 30 % less time than 1,024. The weights of a wide network do not fit into the cache
        and are read again for every block: 128 rows of 784-2048-2048-10 take 20 % more time than 1,024.
        """
        return min(PREDICT_ROWS, max(128, len(self.parameters) >> 16 << 6))

    def _layer_widths(self) -> Iterator[tuple[int, int]]:
        """(index, number of outputs) of each layer."""
        width = self.n_in
        for i, layer in enumerate(self.layers):
            width = layer.width(width)
            yield i, width

    def _take_replica(self, rows: int) -> _Replica:
        """A replica that no other thread uses, with the current attributes of the layers."""
        layers = list(self.layers)  # first: if another thread replaces one now, the new replica is not used again
        try:
            replica = self._replicas.pop()
        except IndexError:
            replica = None
        if replica is None or replica.network._batch != rows or replica.originals != layers:
            _check_bound(layers)
            return _Replica(self.with_own_buffers(), layers, [])
        for own, layer, buffers in zip(replica.network.layers, layers, replica.buffers, strict=True):
            own.__dict__ = vars(layer) | buffers
        return replica

    def _keep_replica(self, replica: _Replica) -> None:
        """Keep the buffers for the next prediction, if all layers declare their buffers."""
        if not replica.buffers:
            layers = replica.network.layers
            if not all(_declares_buffers(type(layer)) for layer in layers):
                return
            replica.buffers.extend({k: v for k, v in vars(layer).items() if k in layer.workspace} for layer in layers)
        self._replicas.append(replica)

    # ---- Copies ------------------------------------------------------------------------------------------------------

    def astype(self, dtype: DTypeLike) -> Network:
        """Return a copy with parameters and computations in `dtype`."""
        twin = copy.deepcopy(self)
        return twin._rebuild(twin.layers, twin.parameters, _float_dtype(dtype))

    def with_layers(self, layers: list[Layer], parameters: Array) -> Network:
        """Return a network with the loss and the metadata of this one, other layers, and their parameters θ."""
        twin = copy.copy(self)
        return twin._rebuild(layers, parameters, self.dtype)

    def with_new_output(self, n_out: int, rng: Seed = None) -> Network:
        """Return a copy with a new last layer, to fine-tune a trained network for other classes.

        The other layers keep their weights, and `trainable` and `lr_scale`. The names of the classes are the default
        ones.

        Parameters
        ----------
        n_out : int
            Number of outputs.
        rng : int, numpy.random.Generator or None
            Seed of the weights of the new layer and of dropout.

        Raises
        ------
        HandgradError
            If the last layer with parameters is not Dense.
        """
        layers = copy.deepcopy(self.layers)
        last = max(i for i, layer in enumerate(layers) if layer.parameter_shapes)
        old = layers[last]
        if not isinstance(old, Dense):
            raise HandgradError(f"the last layer with parameters is {old!r}: expected a Dense layer")
        layers[last] = Dense(old.n_in, n_out, old.init)
        twin = Network(layers, loss=self._loss, rng=rng, dtype=self.dtype)
        for (name, p), new in zip(self.named_parameters.items(), twin.named_parameters.values(), strict=True):
            if not name.startswith(f"{last}."):
                new[...] = p
        twin.image_shape, twin.feature_names = self.image_shape, self.feature_names
        return twin

    def _rebuild(self, layers: list[Layer], parameters: Array, dtype: np.dtype[Any]) -> Network:
        self.layers, self.dtype = layers, dtype
        self._bind()
        self.parameters[...] = parameters
        return self

    def with_own_buffers(self) -> Network:
        """Return a replica with the same θ, dθ and random generators, but with its own buffers.

        It computes batches of another size, or in another thread, without disturbing this network. It does not see
        attributes of layers that are set later.
        """
        twin = _shallow_copy(self)
        twin.layers = [_shallow_copy(layer) for layer in self.layers]
        twin._loss = _shallow_copy(self._loss)
        twin._batch, twin._replicas = 0, []
        return twin

    def without_first(self, count: int) -> Network:
        """Return a replica without the first `count` layers, which must have no parameters."""
        twin = self.with_own_buffers()
        twin.n_in = dict(self._layer_widths())[count - 1]
        twin.layers, twin.image_shape = twin.layers[count:], None
        return twin

    def __copy__(self) -> Network:
        """Copy the layers and the vectors too, because two networks must not share layers."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the gradient. Layers and the loss leave out their views and buffers themselves.

        Raises HandgradError if a parameter was replaced by another array, whose values the copy would not have.
        """
        check_views(self)
        return {
            k: v for k, v in vars(self).items() if k not in ("gradient_buffer", "_weight", "_replicas", "_with_cost")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copied or unpickled network: create the views, which copies do not have."""
        vars(self).update(state)
        self._rebuild(self.layers, self.parameters, self.dtype)

    def summary(self) -> Table:
        """Return a table of the layers: index, layer, output shape, number of parameters, activation.

        An activation is in the row of the layer before it, if that layer has parameters. The activation of the output
        belongs to the loss. Indices are those of `layers` and of `named_parameters`. A notebook shows the table as
        HTML; use `print(network.summary())` in a program.
        """
        names = {kind: name for name, kind in ACTIVATIONS.items()}
        rows: list[list[str]] = []
        for (i, width), layer in zip(self._layer_widths(), self.layers, strict=True):
            if type(layer) in names and i and self.layers[i - 1].parameter_shapes:
                rows[-1][-1] = names[type(layer)]
                continue
            count = sum(math.prod(shape) for shape in layer.parameter_shapes.values())
            label = repr(layer)
            if count and not layer.trainable:
                label += " (frozen)"
            elif count and layer.lr_scale != 1:
                label += f" (lr_scale {layer.lr_scale:g})"
            rows.append([str(i), label, f"(count, {width})", f"{count:,}", names.get(type(layer), "")])
        if self.loss.output_activation != "identity":
            rows[-1][-1] = f"{rows[-1][-1]}, {self.loss.output_activation}".removeprefix(", ")
        frozen_size = sum(
            math.prod(shape) for f in self.layers if not f.trainable for shape in f.parameter_shapes.values()
        )
        frozen = f", {frozen_size:,} of them frozen" if frozen_size else ""
        pixels = "" if self.image_shape is None else f" ({self.image_shape[0]}x{self.image_shape[1]} pixels)"
        size = f"{self.parameters.size:,} parameters{frozen}"
        caption = f"{self.n_in:,} inputs{pixels}, {size}, {self.dtype}, {self.loss!r}"
        return Table(("", "layer", "output shape", "parameters", "activation"), rows, caption)

    def _repr_html_(self) -> str:
        """Return the summary in HTML."""
        return self.summary()._repr_html_()

    def __repr__(self) -> str:
        layers = ", ".join(repr(layer) for layer in self.layers)
        return f"Network([{layers}], loss={self.loss!r}): {self.parameters.size:,} parameters, {self.dtype}"


def bind(layers: Sequence[Layer], dtype: DTypeLike, parameters: Array | None = None) -> tuple[Array, Array]:
    """Create θ, unless it is given, and dθ for a sequence of layers; give each layer its W, b, dW and db as views."""
    size = sum(math.prod(shape) for layer in layers for shape in layer.parameter_shapes.values())
    if size > MAX_PARAMETERS:
        raise HandgradError(f"the network has more than {MAX_PARAMETERS:,} parameters: expected smaller layers")
    if parameters is None:
        parameters = aligned_zeros(size, dtype)
    elif parameters.shape != (size,):
        raise HandgradError(f"parameters has shape {parameters.shape}: the layers have {size:,} parameters")
    gradient = aligned_zeros(size, dtype)
    first = 0
    for layer in layers:
        layer.in_network = True
        for name, shape in layer.parameter_shapes.items():
            last = first + math.prod(shape)
            setattr(layer, name, parameters[first:last].reshape(shape))
            setattr(layer, f"d{name}", gradient[first:last].reshape(shape))
            first = last
    return parameters, gradient


def check_views(network: Network) -> None:
    """Raise HandgradError if a parameter was replaced by another array, which training and copies would ignore."""
    _check_bound(network.layers)
    address, size = network.parameters.ctypes.data, network.parameters.itemsize
    for name, p in network.named_parameters.items():
        if not isinstance(p, np.ndarray) or p.ctypes.data != address or p.dtype != network.dtype:
            i, _, symbol = name.partition(".")
            raise HandgradError(
                f"{symbol} of layer {i} is not the network's array any more: set the values with "
                f"network.layers[{i}].{symbol}[...] = values, all parameters with network.parameters[...] = values"
            )
        address += p.size * size


def _check_bound(layers: Sequence[Layer]) -> None:
    """Raise HandgradError for a layer that was added to the list of a network."""
    for i, layer in enumerate(layers):
        if not layer.in_network:
            raise HandgradError(
                f"layer {i} ({layer!r}) was added after the network was built: build a new Network([...])"
            )


def _wrong_targets(t: Array, z: Array) -> HandgradError:
    return HandgradError(
        f"t has shape {t.shape}: expected {z.shape}, rows of targets, which loss.targets makes of labels"
    )


def _clear_gradient(layer: Layer) -> None:
    for name in layer.parameter_shapes:
        getattr(layer, f"d{name}").fill(0)


def _shallow_copy(part: Part) -> Part:
    """A copy with the same parameter views. copy.copy would leave them out."""
    twin = object.__new__(type(part))
    for name, value in vars(part).items():
        object.__setattr__(twin, name, value)  # not with `vars`, after which Python 3.11 finds attributes slowly
    return twin


class _Replica(NamedTuple):
    """A copy of a network for predictions of one batch size.

    Attributes
    ----------
    network : Network
        Has its own layers and buffers.
    originals : list of Layer
        The layers that were copied.
    buffers : list of dict
        The workspace of each layer, once it has been used.
    """

    network: Network
    originals: list[Layer]
    buffers: list[dict[str, Any]]


@functools.cache
def _declares_buffers(layer: type[Layer]) -> bool:
    """Whether `workspace` lists all buffers: those of each class that defines `allocate`. Custom layers may not."""
    owners = [vars(base) for base in layer.__mro__ if "allocate" in vars(base) and base is not Layer]
    return all("workspace" in owner and {*owner["workspace"]} <= {*layer.workspace} for owner in owners)


def _float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        raise HandgradError(f"dtype must be float32 (to train) or float64 (to check), got {dtype!r}") from error
    if found not in (np.float32, np.float64):
        raise HandgradError(f"dtype must be float32 (to train) or float64 (to check), got {found}")
    return found


def _widths(layers: Sequence[Layer]) -> tuple[int, int]:
    """(n_in, n_out) of a sequence of layers, after checking that each layer fits the one before it."""
    n_in = next((layer.n_in for layer in layers if layer.n_in is not None), None)
    if n_in is None or not any(layer.parameter_shapes for layer in layers):
        raise HandgradError("the network has no trainable layer: expected at least one Dense layer")
    width = n_in
    for i, layer in enumerate(layers):
        if layer.n_in not in (None, width):
            raise HandgradError(f"layer {i} ({layer!r}) expects {layer.n_in} inputs, got {width}")
        width = layer.width(width)
    return n_in, width


def _as_layers(
    layers: Sequence[int] | Sequence[Layer],
    activation: str | Sequence[str],
    init: str | None,
    batch_norm: bool,
    dropout: float,
) -> list[Layer]:
    """The layers that a list of layers or of sizes describes."""
    given = list(layers) if isinstance(layers, Iterable) else []
    objects = [layer for layer in given if isinstance(layer, Layer)]
    if objects and len(objects) == len(given):
        if batch_norm or dropout or init is not None or activation != "sigmoid":
            raise HandgradError(
                "activation, init, batch_norm and dropout need layer sizes: add Tanh(), BatchNorm() or Dropout() to "
                'the list, and use Dense(..., init="lecun")'
            )
        return _check_unused(objects)
    sizes = [check_int("layer size", n, 1) for n in given if isinstance(n, SupportsIndex)]
    if len(sizes) != len(given) or len(sizes) < 2:
        raise HandgradError(
            f"layers must be at least two sizes, as in [784, 30, 10], or a list of layers, got {layers!r}"
        )
    return mlp(sizes, activation=activation, init=init, batch_norm=batch_norm, dropout=dropout)


def _check_unused(layers: list[Layer]) -> list[Layer]:
    if len({id(layer) for layer in layers}) < len(layers):
        raise HandgradError("a layer occurs twice in the list: expected one object for each position")
    for i, layer in enumerate(layers):
        if layer.in_network:  # also without parameters, because two networks would share its buffers
            raise HandgradError(f"layer {i} ({layer!r}) belongs to another network: expected a new layer")
    return layers


def mlp(
    sizes: Sequence[int],
    *,
    activation: str | Sequence[str] = "sigmoid",
    init: str | None = None,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> list[Layer]:
    """Build the layers of a multi-layer perceptron: Dense, BatchNorm, activation, Dropout, ..., Dense.

    Parameters
    ----------
    sizes : sequence of int
        Number of inputs, width of each hidden layer, number of outputs.
    activation, init, batch_norm, dropout
        As for `Network`.
    """
    hidden = len(sizes) - 2
    check_fraction("Dropout: rate", dropout)
    if not isinstance(batch_norm, bool | np.bool_):
        raise HandgradError(f"batch_norm must be True or False, got {batch_norm!r}")
    if not isinstance(activation, Iterable):
        raise HandgradError(
            f"activation must be a name, or a list of names, got {activation!r}: expected {', '.join(ACTIVATIONS)}"
        )
    names = [activation] * hidden if isinstance(activation, str) else list(activation)
    if len(names) != hidden:
        raise HandgradError(
            f"activation has {len(names)} names for {hidden} hidden layers: expected one name, or {hidden}"
        )
    for name in [activation] if isinstance(activation, str) else names:
        check_name("activation", name, ACTIVATIONS)
    # The output layer is initialized as the last hidden layer is.
    inits = [INITIALIZER_FOR.get(name, "kaiming_normal") for name in names + names[-1:]] or ["normal"]
    layers: list[Layer] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        layers.append(Dense(n_in, n_out, init or inits[i]))
        if i == hidden:
            break
        if batch_norm:
            layers.append(BatchNorm(n_out))
        if names[i] != "identity":
            layers.append(ACTIVATIONS[names[i]]())
        if dropout:
            layers.append(Dropout(dropout))
    return layers
