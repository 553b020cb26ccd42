"""Losses: cross-entropy, binary cross-entropy, squared, absolute, Huber, log-cosh and Poisson error.

A loss takes the outputs of the last layer, the logits z (batch, n_out), and the targets t (batch, n_out), one row per
example. It returns the mean over the batch, so that a learning rate means the same for every batch size.

A loss includes the activation of the output: softmax for `CrossEntropy`, the sigmoid for `BinaryCrossEntropy`, e^z for
`Poisson`, and the identity or the sigmoid for `SquaredError`. Computed separately, ln(a) is infinite if a rounds to 0,
and its derivative 1/a times the derivative of the activation, a (1 - a), is rounding noise. Computed together, both
cancel and leave a - t, which is accurate for every z and cheaper.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .arrays import Array, Labels, as_array, check_fraction, check_int, check_labels, check_positive, layer_buffer
from .errors import HandgradError, KnownAttributes, unknown
from .layers import sigmoid, softplus

LABEL_TOLERANCE = 1e-3  # how far soft labels may be outside [0, 1], and the sum of a row from 1


class Loss(KnownAttributes, ABC):
    """Base class of losses.

    Attributes
    ----------
    is_classification : bool
        Whether the outputs are classes (True) or numbers (False).
    output_activation : {"identity", "sigmoid", "softmax", "exp"}
        Name of the activation of the output.
    temperature : float
        Temperature of the soft labels that the loss expects, 1 unless the loss has a parameter of this name.
    workspace : tuple of str
        Names of the buffers, which copies and pickles leave out.
    """

    is_classification = False
    output_activation = "identity"
    temperature = 1.0
    workspace: ClassVar[tuple[str, ...]] = ("dz",)

    @abstractmethod
    def per_example(self, z: Array, t: Array) -> Array:
        """Return Lᵢ (batch,), the loss of each example."""

    def value(self, z: Array, t: Array) -> float:
        """Return the mean loss of a batch."""
        return float(self.per_example(z, t).sum()) / len(z)

    @abstractmethod
    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        """Return dz (batch, n_out), the derivative of Σᵢ weightᵢ Lᵢ with respect to z.

        `weight` is a number, 1 / batch for the mean loss, or an array (batch, 1). The next call overwrites dz.
        """

    def activation(self, z: Array) -> Array:
        """Return the predictions p (count, n_out) for the logits z, in a new array: probabilities or numbers."""
        return z.copy()

    def inverse_activation(self, p: Array) -> Array:
        """Return logits z, in a new array, such that activation(z) = p to rounding.

        An infinite z is replaced by the largest value that the dtype distinguishes, so that the loss is finite.
        """
        return p.copy()

    def labels(self, z: Array) -> Labels:
        """Return the predicted class (count,) of each row. Raises HandgradError for a regression loss."""
        raise HandgradError(f"{self!r} is a regression loss: its predictions are numbers, not classes")

    def correct(self, z: Array, t: Array) -> int:
        """Return the number of correct predictions. Raises HandgradError for a regression loss."""
        return int((self.labels(z) == most_probable(t)).sum())

    @abstractmethod
    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        """Validate y for `count` examples and return the targets t (count, n_out)."""

    def allocate(self, batch: int, n_out: int, dtype: DTypeLike) -> None:
        """Allocate the buffer of `backward`."""
        self.dz = layer_buffer(batch, n_out, dtype)

    def config(self) -> dict[str, Any]:
        """Return the constructor arguments that differ from the defaults, for the model file."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the buffers, so that a loss never shares them with its copies."""
        return {k: v for k, v in vars(self).items() if k not in self.workspace}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


# ---- Classification --------------------------------------------------------------------------------------------------


class ClassificationLoss(Loss):
    """Base class of losses for classes.

    Parameters
    ----------
    label_smoothing : float
        ε in t = (1 - ε) y + ε / classes, in [0, 1). Szegedy et al. (2016), section 7.
    """

    is_classification = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = check_fraction("label_smoothing", label_smoothing)

    def labels(self, z: Array) -> Labels:
        """Return the most probable class (count,) of each row; for a single output, 1 if its probability exceeds ½."""
        return most_probable(self.activation(z) if z.shape[1] == 1 else z)

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        """Return y as rows (count, n_out), with label smoothing.

        y holds integer labels (count,), or rows (count, n_out): one-hot or soft labels in [0, 1].
        """
        return class_targets(y, count, n_out, dtype, self.label_smoothing)

    def config(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}


class BinaryCrossEntropy(ClassificationLoss):
    """Binary cross-entropy with one sigmoid per output: the loss of the blog post.

    L = mean over the batch of -Σⱼ [tⱼ ln aⱼ + (1 - tⱼ) ln(1 - aⱼ)],  a = σ(z)

    Each output is an independent yes/no decision, as in PyTorch's BCEWithLogitsLoss summed over the outputs. With
    ln a = -softplus(-z) and ln(1 - a) = -softplus(z), the loss is Σⱼ [softplus(zⱼ) - tⱼ zⱼ], which has no ln 0.

    Parameters
    ----------
    label_smoothing : float
        ε in t = (1 - ε) y + ε / classes, in [0, 1).
    """

    output_activation = "sigmoid"

    def per_example(self, z: Array, t: Array) -> Array:
        losses: Array = (softplus(z) - t * z).sum(axis=1)
        return losses

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = sigmoid(z, self.dz)  # dL/dz = a - t, because da/dz = a (1 - a) cancels
        dz -= t
        dz *= weight
        return dz

    def activation(self, z: Array) -> Array:
        return sigmoid(z)

    def inverse_activation(self, p: Array) -> Array:
        return _logit(p)


class CrossEntropy(ClassificationLoss):
    """Cross-entropy of a softmax over the classes, as in PyTorch and Keras.

    L = mean over the batch of -T² Σⱼ tⱼ ln pⱼ,  p = softmax(z / T)

    With ln pⱼ = zⱼ - ln Σₖ e^{zₖ} the loss is ln Σₖ e^{zₖ} - Σⱼ tⱼ zⱼ. The largest z of each row is subtracted first,
    so that no exponential overflows.

    Parameters
    ----------
    label_smoothing : float
        ε in t = (1 - ε) y + ε / classes, in [0, 1).
    temperature : float
        T, for knowledge distillation from `soft_labels` of the same temperature. dz = T (p - t); the factor T² keeps
        the size of the gradient, because p - t shrinks as 1/T. Predictions use T = 1.

    Raises
    ------
    HandgradError
        From `targets`, if a row of soft labels does not sum to 1: the gradient p - t assumes Σⱼ tⱼ = 1.

    References
    ----------
    Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network, section 2.
    """

    output_activation = "softmax"

    def __init__(self, label_smoothing: float = 0.0, temperature: float = 1.0) -> None:
        super().__init__(label_smoothing)
        self.temperature = check_positive("temperature", temperature)

    def per_example(self, z: Array, t: Array) -> Array:
        T = self.temperature
        shifted = z - z.max(axis=1, keepdims=True)
        if T != 1:
            shifted /= T
        losses: Array = np.log(np.exp(shifted).sum(axis=1))
        losses -= np.einsum("ij,ij->i", t, shifted)
        losses *= T**2
        return losses

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        T = self.temperature
        if T != 1:
            z, weight = np.divide(z, T, out=self.dz), T * weight
        dz = softmax(z, out=self.dz)  # dL/dz = T² (p - t) / T
        dz -= t
        dz *= weight
        return dz

    def activation(self, z: Array) -> Array:
        return softmax(z)

    def inverse_activation(self, p: Array) -> Array:
        z: Array = np.maximum(p, np.finfo(p.dtype).tiny)
        return np.log(z, out=z)  # softmax does not change if a constant is added to a row

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        if n_out == 1:
            raise HandgradError(
                "cross_entropy of a single output is always 0: expected binary_cross_entropy, or 2 outputs"
            )
        t = super().targets(y, count, n_out, dtype)
        sums = t.sum(axis=1)
        row = int(np.abs(sums - 1).argmax())
        if abs(sums[row] - 1) > LABEL_TOLERANCE:
            raise HandgradError(f"row {row} of y sums to {sums[row]:g}: expected soft labels that sum to 1")
        return t

    def config(self) -> dict[str, Any]:
        return super().config() | ({"temperature": self.temperature} if self.temperature != 1 else {})


# ---- Regression ------------------------------------------------------------------------------------------------------


class RegressionLoss(Loss):
    """Base class of losses for numbers: Lᵢ = Σⱼ l(zⱼ, tⱼ), the sum of l over the outputs of an example."""

    @abstractmethod
    def elementwise(self, z: Array, t: Array) -> Array:
        """Return l(z, t) (batch, n_out) of each output, in a new array."""

    def per_example(self, z: Array, t: Array) -> Array:
        losses: Array = self.elementwise(z, t).sum(axis=1)
        return losses

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        """Return y, numbers (count,) or (count, n_out), as rows (count, n_out)."""
        return number_targets(y, count, n_out, dtype)


class SquaredError(Loss):
    """Half the squared error, for regression or, with a sigmoid, for classification.

    L = mean over the batch of ½ Σⱼ (aⱼ - tⱼ)²,  a = z or a = σ(z)

    The factor ½ makes dL/da = a - t. The prediction with the smallest expected loss is the mean of t. With the sigmoid,
    this is the quadratic cost of Nielsen's chapter 1: dL/dz has the factor a (1 - a), so that a saturated wrong output
    hardly learns.

    Parameters
    ----------
    activation : {"identity", "sigmoid"}
        "identity": regression. "sigmoid": classification, one output per class, y as for `BinaryCrossEntropy`.
    label_smoothing : float
        ε in t = (1 - ε) y + ε / classes, in [0, 1). Only with activation="sigmoid".
    """

    workspace = ("dz", "_a")

    def __init__(self, activation: str = "identity", label_smoothing: float = 0.0) -> None:
        if not isinstance(activation, str) or activation not in ("identity", "sigmoid"):
            raise HandgradError(f"SquaredError: activation must be 'identity' or 'sigmoid', got {activation!r}")
        self.output_activation, self.is_classification = activation, activation == "sigmoid"
        self.label_smoothing = check_fraction("label_smoothing", label_smoothing)
        if self.label_smoothing and not self.is_classification:
            raise HandgradError("label_smoothing of SquaredError needs activation='sigmoid'")

    def per_example(self, z: Array, t: Array) -> Array:
        e = self.activation(z)
        e -= t
        e *= e
        e /= 2
        losses: Array = e.sum(axis=1)
        return losses

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        if not self.is_classification:
            dz = np.subtract(z, t, out=self.dz)  # dL/dz = z - t
            dz *= weight
            return dz
        a = sigmoid(z, out=self._a)
        dz = np.subtract(1, a, out=self.dz)
        dz *= a  # da/dz = a (1 - a)
        a -= t
        a *= weight  # dL/da = a - t
        dz *= a
        return dz

    def activation(self, z: Array) -> Array:
        return sigmoid(z) if self.is_classification else z.copy()

    def inverse_activation(self, p: Array) -> Array:
        return _logit(p) if self.is_classification else p.copy()

    def labels(self, z: Array) -> Labels:
        if not self.is_classification:
            return super().labels(z)
        return most_probable(self.activation(z) if z.shape[1] == 1 else z)

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        """Return y as rows (count, n_out): labels with label smoothing, or the numbers of a regression."""
        if self.is_classification:
            return class_targets(y, count, n_out, dtype, self.label_smoothing)
        return number_targets(y, count, n_out, dtype)

    def allocate(self, batch: int, n_out: int, dtype: DTypeLike) -> None:
        super().allocate(batch, n_out, dtype)
        if self.is_classification:
            self._a = layer_buffer(batch, n_out, dtype)

    def config(self) -> dict[str, Any]:
        smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return ({"activation": "sigmoid"} if self.is_classification else {}) | smoothing


class AbsoluteError(RegressionLoss):
    """Absolute error. The best prediction is the median, which a few outliers hardly change.

    l = |z - t|,  with the derivative 0 at z = t
    """

    def elementwise(self, z: Array, t: Array) -> Array:
        e: Array = np.abs(z - t)
        return e

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = np.subtract(z, t, out=self.dz)
        np.sign(dz, out=dz)  # dl/dz = sign(z - t)
        dz *= weight
        return dz


class Huber(RegressionLoss):
    """Huber loss: squared near the target, absolute far from it.

    l = ½ e² if |e| ≤ δ, else δ (|e| - ½ δ),  e = z - t

    Parameters
    ----------
    delta : float
        δ, the error at which the loss becomes linear.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter.
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = check_positive("delta", delta)

    def elementwise(self, z: Array, t: Array) -> Array:
        e: Array = np.abs(z - t)
        near = np.minimum(e, self.delta)
        e -= near / 2
        e *= near  # with near = min(|e|, δ), both cases are near (|e| - ½ near)
        return e

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = np.subtract(z, t, out=self.dz)
        np.clip(dz, -self.delta, self.delta, out=dz)  # dl/dz = e, limited to ±δ
        dz *= weight
        return dz

    def config(self) -> dict[str, Any]:
        return {"delta": self.delta}


class LogCosh(RegressionLoss):
    """Log-cosh loss: about ½ e² near the target, |e| - ln 2 far from it, and smooth everywhere.

    l = ln cosh e,  e = z - t

    With cosh e = e^|e| (1 + e^(-2|e|)) / 2 it is computed as |e| + ln(1 + (e^(-2|e|) - 1) / 2), which does not overflow
    and keeps the precision of |e| near the target, where the two terms almost cancel.
    """

    def elementwise(self, z: Array, t: Array) -> Array:
        e: Array = np.abs(z - t)
        e += np.log1p(np.expm1(-2 * e) / 2)
        return e

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = np.subtract(z, t, out=self.dz)
        np.tanh(dz, out=dz)  # dl/dz = sinh e / cosh e
        dz *= weight
        return dz


class Poisson(RegressionLoss):
    """Poisson loss for counts t ≥ 0: half the Poisson deviance.

    l = t ln(t / μ) - t + μ,  μ = e^z

    This is -ln(μ^t e^-μ / t!), the negative log-likelihood, minus its minimum at μ = t.

    References
    ----------
    Nelder & Wedderburn (1972), Generalized linear models.
    """

    output_activation = "exp"

    def elementwise(self, z: Array, t: Array) -> Array:
        terms = self.activation(z)
        terms -= t * z
        terms += t * np.log(np.where(t > 0, t, 1)) - t  # t ln t is 0 at t = 0
        return terms

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        with np.errstate(over="ignore"):  # infinity is the correct value
            dz = np.exp(z, out=self.dz)
        dz -= t  # dl/dz = μ - t
        dz *= weight
        return dz

    def activation(self, z: Array) -> Array:
        with np.errstate(over="ignore"):
            mu: Array = np.exp(z)
        return mu

    def inverse_activation(self, p: Array) -> Array:
        z: Array = np.maximum(p, np.finfo(p.dtype).tiny)
        return np.log(z, out=z)

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        t = super().targets(y, count, n_out, dtype)
        if t.min() < 0:
            raise HandgradError(f"y contains {t.min():g}: Poisson expects counts >= 0")
        return t


# ---- Functions -------------------------------------------------------------------------------------------------------


def softmax(z: Array, out: Array | None = None) -> Array:
    """Compute pⱼ = e^{zⱼ} / Σₖ e^{zₖ} for each row of z (batch, n_out), after subtracting the largest z of the row."""
    p: Array = np.subtract(z, z.max(axis=1, keepdims=True), out=out)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p


def one_hot(y: ArrayLike, n_out: int, dtype: DTypeLike = np.float32) -> Array:
    """Convert labels y (count,) to rows (count, n_out): 1 at the label, 0 elsewhere."""
    labels = check_labels(y, check_int("n_out", n_out, 1))
    rows: Array = np.zeros((len(labels), n_out), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def most_probable(p: Array) -> Labels:
    """Return the class (count,) with the largest value of each row, or for a single column 1 if p > ½, else 0."""
    labels: Labels = (p[:, 0] > 0.5).astype(np.intp) if p.shape[1] == 1 else p.argmax(axis=1)
    return labels


def with_settings(loss: Loss, **settings: float) -> Loss:
    """Return the loss with other values of those settings that it has, `label_smoothing` or `temperature`."""
    changed = {name: value for name, value in settings.items() if getattr(loss, name, value) != value}
    if not changed:
        return loss
    other = copy.copy(loss)
    vars(other).update(changed)
    return other


def class_targets(y: ArrayLike, count: int, n_out: int, dtype: DTypeLike, label_smoothing: float) -> Array:
    """Validate labels (count,), or rows of one-hot or soft labels (count, n_out), and return smoothed rows."""
    y = as_array("y", y)
    if y.ndim < 2 and y.dtype.kind in "iub":
        labels = check_labels(y, max(n_out, 2), count)  # the labels of a single output are 0 and 1
        t = one_hot(labels, n_out, dtype) if n_out > 1 else labels[:, None].astype(dtype)
    elif y.shape == (count, n_out) and y.dtype.kind in "fiub":
        with np.errstate(under="ignore"):
            t = np.array(y, dtype)
    else:
        raise HandgradError(
            f"y has dtype {y.dtype} and shape {y.shape}: expected ({count},) integer labels, "
            f"or ({count}, {n_out}) with one row per example"
        )
    if not np.isfinite(t).all():
        raise HandgradError("y contains NaN or infinity: expected finite numbers")
    if t.min() < -LABEL_TOLERANCE or t.max() > 1 + LABEL_TOLERANCE:
        raise HandgradError(f"y contains values from {t.min():g} to {t.max():g}: expected labels in [0, 1]")
    if label_smoothing:
        t *= 1 - label_smoothing
        t += label_smoothing / max(n_out, 2)
    return t


def number_targets(y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
    """Validate the targets of a regression, numbers (count,) or (count, n_out), and return rows."""
    y = as_array("y", y)
    t = y[:, None] if y.ndim == 1 else y
    if t.shape != (count, n_out) or t.dtype.kind not in "fiub":
        raise HandgradError(f"y has dtype {y.dtype} and shape {y.shape}: expected numbers ({count}, {n_out})")
    with np.errstate(over="ignore", under="ignore"):
        t = t.astype(dtype)
    if not np.isfinite(t).all():
        raise HandgradError(f"y contains NaN or infinity: expected finite {np.dtype(dtype)} numbers")
    return t


def _logit(p: Array) -> Array:
    """σ⁻¹(p) = ln p - ln(1 - p), finite at 0 and 1."""
    epsilon = np.finfo(p.dtype).epsneg  # the dtype does not distinguish values of σ(z) that are closer to 0 or 1
    a = np.clip(p, epsilon, 1 - epsilon)
    z: Array = np.log(a) - np.log1p(-a)
    return z


LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "log_cosh": LogCosh,
    "poisson": Poisson,
}
# What users of other libraries pass.
_OTHER_NAMES = {
    "mse": "squared_error",
    "mean_squared_error": "squared_error",
    "mae": "absolute_error",
    "mean_absolute_error": "absolute_error",
    "bce": "binary_cross_entropy",
    "log_loss": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "sparse_categorical_crossentropy": "cross_entropy",
}
LOSS_CLASSES = {loss.__name__: loss for loss in LOSSES.values()}  # the names in model files are the class names


def make_loss(loss: str | Loss) -> Loss:
    """Return a loss for a name in LOSSES, or a copy of a Loss object: two networks never share buffers.

    Raises HandgradError for anything else.
    """
    if isinstance(loss, Loss):
        return copy.copy(loss)
    if not isinstance(loss, str):
        raise HandgradError(f"loss must be a Loss object or one of {', '.join(LOSSES)}, got {loss!r}")
    if loss in _OTHER_NAMES:
        raise HandgradError(f"unknown loss '{loss}': use '{_OTHER_NAMES[loss]}'")
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss]()
