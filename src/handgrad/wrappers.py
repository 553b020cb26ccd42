"""Wrappers: models around other models: Calibrated, Ensemble, Preprocessed, TestTimeAugmentation; fold_batchnorm."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Array, as_floats, check_positive, row_blocks
from .errors import HandgradError, KnownAttributes
from .ladder import Ladder
from .layers import BatchNorm, Dense, Dropout, Identity, Layer
from .losses import Loss, with_settings
from .model import Model, without_float_errors
from .network import PREDICT_ROWS, Network
from .preprocessing import Preprocessing

# ---- Wrappers around one model ---------------------------------------------------------------------------------------


class _Wrapper(KnownAttributes, Model):
    """Base class of wrappers around one model, whose loss, dtype and classes it has."""

    def __init__(self, model: Model) -> None:
        if not isinstance(model, Model):
            raise HandgradError(f"{type(self).__name__} needs a model, got {model!r}")
        self.model, self.n_in, self.n_out, self.dtype = model, model.n_in, model.n_out, model.dtype

    @property
    def loss(self) -> Loss:  # type: ignore[override]
        """The loss of the model."""
        return self.model.loss

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) if the inputs of the model are images."""
        return self.model.image_shape

    @image_shape.setter
    def image_shape(self, shape: tuple[int, int] | None) -> None:
        self.model.image_shape = shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the model."""
        return self.model.classes

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        self.model.classes = names

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the model."""
        return self.model.feature_names

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        self.model.feature_names = names


class Preprocessed(_Wrapper):
    """A model whose inputs are preprocessed, for example deskewed.

    outputs(x) = model.outputs(preprocessing(x))

    Parameters
    ----------
    model : Model
        Receives the preprocessed inputs. Train it on `preprocessing(x)`.
    preprocessing : Preprocessing
        For example `Deskew(28, 28)`.

    Raises
    ------
    HandgradError
        If the preprocessing does not return what the model expects.
    """

    def __init__(self, model: Model, preprocessing: Preprocessing) -> None:
        super().__init__(model)
        if not isinstance(preprocessing, Preprocessing):
            raise HandgradError(f"preprocessing must be a Preprocessing, as Deskew(28, 28), got {preprocessing!r}")
        if preprocessing.n_out != model.n_in:
            raise HandgradError(
                f"{preprocessing!r} returns {preprocessing.n_out} values per example: the model expects {model.n_in}"
            )
        self.preprocessing, self.n_in = preprocessing, preprocessing.n_in
        self.image_shape = preprocessing.image_shape_in

    image_shape = Model.image_shape  # of the inputs, before the preprocessing

    @without_float_errors
    def outputs(self, x: ArrayLike) -> Array:
        return self._map(self.model.outputs, x)

    @without_float_errors
    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the predictions p (count, n_out) of the model for the preprocessed inputs."""
        return self._map(self.model.predict_proba, x)

    def _map(self, function: Callable[[NDArray[Any]], Array], x: ArrayLike) -> Array:
        """function(preprocessing(x)), a block of rows at a time."""
        x = self.check_inputs(x)
        result = np.empty((len(x), self.n_out), self.dtype)
        for rows in row_blocks(len(x), PREDICT_ROWS):
            result[rows] = function(self.preprocessing(x[rows]))
        return result

    def __repr__(self) -> str:
        return f"Preprocessed({self.model!r}, {self.preprocessing!r})"


# ---- Test-time augmentation ------------------------------------------------------------------------------------------

# (down, right) in pixels, by their number: the image; its four neighbours; its diagonal neighbours.
_NEIGHBOURS, _DIAGONALS = ((0, 1), (1, 0), (0, -1), (-1, 0)), ((1, 1), (1, -1), (-1, 1), (-1, -1))
SHIFTS = {1: ((0, 0),), 5: ((0, 0), *_NEIGHBOURS), 9: ((0, 0), *_NEIGHBOURS, *_DIAGONALS)}


class TestTimeAugmentation(_Wrapper):
    """Average the predictions over one-pixel shifts of the image.

    p(x) = 1/k Σₛ p(shift(x, s))

    A network that was trained on shifted images makes slightly different errors on each shift.

    Parameters
    ----------
    model : Model
        The model. Its inputs must be images: `image_shape` is set.
    shifts : {1, 5, 9}
        1: no shift; 5: also the four neighbours; 9: also the diagonal neighbours. Pixels shifted in are 0.
    """

    __test__ = False  # not a test class of pytest

    def __init__(self, model: Model, shifts: int = 5) -> None:
        super().__init__(model)
        if not isinstance(shifts, int) or shifts not in SHIFTS:
            raise HandgradError(f"shifts must be 1, 5 or 9, got {shifts!r}")
        if model.image_shape is None:
            raise HandgradError("test-time augmentation needs a model of images: set its image_shape")
        self.shifts = shifts

    @without_float_errors
    def outputs(self, x: ArrayLike) -> Array:
        x = self.check_inputs(x)
        height, width = x.shape[1:]
        z = np.empty((len(x), self.n_out), self.dtype)
        for rows in row_blocks(len(x), PREDICT_ROWS):
            block = x[rows]
            floats = as_floats(block, np.empty((len(block), self.n_in), self.dtype)).reshape(block.shape)
            padded = np.pad(floats, ((0, 0), (1, 1), (1, 1)))
            p = np.zeros((len(block), self.n_out), self.dtype)
            for down, right in SHIFTS[self.shifts]:
                shifted = padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
                p += self.model.predict_proba(shifted)
            z[rows] = self.loss.inverse_activation(p / self.shifts)
        return z

    def __repr__(self) -> str:
        return f"TestTimeAugmentation({self.model!r}, shifts={self.shifts})"


# ---- Ensemble --------------------------------------------------------------------------------------------------------


class Ensemble(KnownAttributes, Model):
    """The mean prediction of several models.

    p = 1/M Σₘ pₘ

    Models that make different errors have a more accurate mean. `outputs` are the logits of p, so that `evaluate` gives
    the loss of p.

    Parameters
    ----------
    members : sequence of Model
        Models with the same inputs, outputs, classes, image shape, class of loss and dtype. They are not copied. The
        loss of the ensemble is the first member's.

    References
    ----------
    Hansen and Salamon (1990), Neural network ensembles.
    """

    def __init__(self, members: Sequence[Model]) -> None:
        self.members = tuple(members) if isinstance(members, Iterable) else (members,)
        if not self.members or not all(isinstance(member, Model) for member in self.members):
            raise HandgradError(f"an ensemble needs at least one model, got {list(self.members)}")
        first, expected = self.members[0], _signature(self.members[0])
        for i, member in enumerate(self.members):
            for name, value in _signature(member).items():
                if value != expected[name]:
                    raise HandgradError(
                        f"member {i} of the ensemble has {name} {value}: expected {expected[name]}, as member 0"
                    )
        self.n_in, self.n_out, self.dtype = first.n_in, first.n_out, first.dtype

    @property
    def loss(self) -> Loss:  # type: ignore[override]
        """The loss of the first member."""
        return self.members[0].loss

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of all members."""
        return self.members[0].classes

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        self.members[0].classes = names  # first, because it raises HandgradError for names that are not valid
        for member in self.members[1:]:
            member.classes = self.classes

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of all members."""
        return self.members[0].feature_names

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        for member in self.members:
            member.feature_names = names

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) of the inputs of all members, or None."""
        return self.members[0].image_shape

    @image_shape.setter
    def image_shape(self, shape: tuple[int, int] | None) -> None:
        for member in self.members:
            member.image_shape = shape

    @without_float_errors
    def outputs(self, x: ArrayLike) -> Array:
        return self.loss.inverse_activation(self.predict_proba(x))

    @without_float_errors
    def predict_proba(self, x: ArrayLike) -> Array:
        """Return the mean (count, n_out) of the members' predictions."""
        x = self.check_inputs(x)
        p = np.empty((len(x), self.n_out), self.dtype)
        for rows in row_blocks(
            len(x), PREDICT_ROWS
        ):  # so that only one block of each member's predictions is in memory
            p[rows] = sum(member.predict_proba(x[rows]) for member in self.members)
        p /= len(self.members)
        return p

    def __repr__(self) -> str:
        return f"Ensemble([{', '.join(map(repr, self.members))}])"


def _signature(model: Model) -> dict[str, Any]:
    """What the members of an ensemble must have in common."""
    return {
        "n_in": model.n_in,
        "n_out": model.n_out,
        "classes": model.classes,
        "image_shape": model.image_shape,
        "feature_names": model.feature_names,
        "loss": f"{type(model.loss).__name__} ({model.loss.output_activation})",
        "dtype": model.dtype,
    }


# ---- Calibration -----------------------------------------------------------------------------------------------------

TEMPERATURES = 0.05, 20.0  # the range in which the temperature is searched


class Calibrated(_Wrapper):
    """A model whose probabilities are calibrated with a temperature T.

    outputs(x) = model.outputs(x) / T

    T > 1 makes the probabilities more even. The predicted classes do not change. Put it around the network, the
    test-time augmentation or the ensemble, and the preprocessing around it.

    Parameters
    ----------
    model : Model
        A classifier.
    temperature : float
        T > 0, see `fit_temperature`.

    Raises
    ------
    HandgradError
        For a regression, and for a temperature that is not a positive number.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks.
    """

    def __init__(self, model: Model, temperature: float) -> None:
        super().__init__(model)
        if not self.loss.is_classification:
            raise HandgradError(f"calibration needs a classifier, got a regression with {self.loss!r}")
        self.temperature = check_positive("temperature", temperature)

    @property
    def loss(self) -> Loss:  # type: ignore[override]
        """The loss of the model without label smoothing, which would favour probabilities that are too low."""
        return with_settings(self.model.loss, label_smoothing=0.0, temperature=1.0)

    @without_float_errors
    def outputs(self, x: ArrayLike) -> Array:
        z = self.model.outputs(x)
        z /= self.temperature
        return z

    def __repr__(self) -> str:
        return f"Calibrated({self.model!r}, temperature={self.temperature:.4g})"


@without_float_errors
def fit_temperature(model: Model, x: ArrayLike, y: ArrayLike) -> float:
    """Find the temperature T that minimizes the mean loss of outputs / T on validation examples.

    The search is a golden-section search for ln T, because the loss has a single minimum.

    Parameters
    ----------
    model : Model
        A classifier.
    x : array-like of shape (count, n_in) or (count, height, width)
        Validation examples, which the model was not trained on.
    y : array-like of shape (count,)
        Labels.

    Returns
    -------
    float
        T in [0.05, 20].

    Raises
    ------
    HandgradError
        For a regression.
    """
    if not model.loss.is_classification:
        raise HandgradError(f"calibration needs a classifier, got a regression with {model.loss!r}")
    z = model.outputs(x).astype(np.float64)  # the losses next to the minimum differ by less than a float32 resolves
    loss = with_settings(model.loss, label_smoothing=0.0, temperature=1.0)
    t = loss.targets(y, len(z), model.n_out, z.dtype)

    def loss_at(log_temperature: float) -> float:
        return loss.value(z / z.dtype.type(math.exp(log_temperature)), t)

    low, high = map(math.log, TEMPERATURES)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    value_left, value_right = loss_at(left), loss_at(right)
    while high - low > 1e-4:
        if value_left < value_right:
            high, right, value_right = right, left, value_left
            left = high - ratio * (high - low)
            value_left = loss_at(left)
        else:
            low, left, value_left = left, right, value_right
            right = low + ratio * (high - low)
            value_right = loss_at(right)
    return math.exp((low + high) / 2)


# ---- Taking models apart ---------------------------------------------------------------------------------------------


class Unwrapped(NamedTuple):
    """The parts of a model: network or ensemble, preprocessing (outermost), test-time shifts, temperature."""

    core: Model
    preprocessing: Preprocessing | None
    shifts: int
    temperature: float = 1.0


def unwrap(model: Model) -> Unwrapped:
    """Take a model apart.

    Raises HandgradError for an order of wrappers that is not preprocessing, calibration, shifts, core.
    """
    preprocessing, shifts, temperature = None, 1, 1.0
    core = model
    if isinstance(model, Preprocessed):
        core, preprocessing = model.model, model.preprocessing
    inner = core
    if isinstance(inner, Calibrated):
        core, temperature = inner.model, inner.temperature
    inner = core
    if isinstance(inner, TestTimeAugmentation):
        core, shifts = inner.model, inner.shifts
    if isinstance(core, _Wrapper):
        raise HandgradError(f"expected Preprocessed(Calibrated(TestTimeAugmentation(network))), got {model!r}")
    return Unwrapped(core, preprocessing, shifts, temperature)


def fold_batchnorm(network: Network) -> Network:
    """Return a network with the same predictions and fewer layers: a trained BatchNorm is y = s x + t.

    after a Dense    s (W x + b) + t = (s W) x + (s b + t)
    before a Dense   W (s x + t) + b = (W s) x + (W t + b)

    Dropout and Identity may be in between, because they do not change x in inference. A BatchNorm without an adjacent
    Dense stays. A Ladder is replaced by its encoder. The result is for inference: in training, BatchNorm is not an
    affine function.
    """
    if not isinstance(network, Network):
        raise HandgradError(f"fold_batchnorm: network must be a Network, got {network!r}")
    twin = copy.deepcopy(network)
    inferred = [layer.encoder_layers() if isinstance(layer, Ladder) else [layer] for layer in twin.layers]
    layers = _fold([*itertools.chain(*inferred)], after=True)
    layers = _fold(layers[::-1], after=False)[::-1]
    arrays = [getattr(layer, name).ravel() for layer in layers for name in layer.parameter_shapes]
    return twin.with_layers(layers, np.concatenate(arrays))


def _fold(layers: Sequence[Layer], after: bool) -> list[Layer]:
    """Fold each BatchNorm into the nearest preceding Dense. With after=False the layers are in reverse order."""
    kept: list[Layer] = []
    for layer in layers:
        near = next((other for other in reversed(kept) if type(other) not in (Dropout, Identity)), None)
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
