"""How wrong the network is: one number for a batch, and its derivative by the network's last output.

A loss takes the last layer's output z (batch, n_out) and the targets t (batch, n_out), one row an example, and gives
the *mean* over the batch: so a learning rate means the same at every batch size.

The two cross-entropies own the output's activation as well. Apart, log(a) is infinite where a rounds to 0, and its
derivative 1/a times the activation's own, a tiny a (1 - a), is rounding noise. Together, the two cancel on paper and
leave a - t: safe for any z, and cheaper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .arrays import Array, Labels, as_array, as_labels, buffer
from .errors import HandgradError
from .layers import sigmoid


class Loss(ABC):
    """What every loss is to the network."""

    temperature = 1.0  # of the soft labels that it learns from
    classifies = True  # whether an answer is right or wrong, or a number that is more or less near

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise HandgradError(f"label_smoothing {label_smoothing}: expected a number from 0 up to, but not, 1")
        self.label_smoothing = label_smoothing

    @abstractmethod
    def each(self, z: Array, t: Array) -> Array:
        """Lᵢ (batch,), the loss of each example."""

    def value(self, z: Array, t: Array) -> float:
        """The mean loss of a batch."""
        return float(self.each(z, t).sum()) / len(z)

    @abstractmethod
    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        """dz (batch, n_out) of Σᵢ weightᵢ Lᵢ, Lᵢ the loss of example i: 1 / batch makes it the mean's.

        weight is a number, or (batch, 1), one for each example.
        """

    @abstractmethod
    def probabilities(self, z: Array) -> Array:
        """The outputs as the loss reads them: each class's probability, in an array of its own."""

    @abstractmethod
    def outputs(self, p: Array) -> Array:
        """Outputs z, in an array of their own, of which `probabilities` are p (count, n_out), to rounding.

        Where they would be infinite they are as large as the dtype can tell from there: the loss of them is finite.
        """

    def labels(self, z: Array) -> Labels:
        """The most probable class (count,) of each row; one output alone says 1, yes, where its probability is over ½.

        Raises HandgradError where the answers are numbers.
        """
        if z.shape[1] == 1:
            return (self.probabilities(z)[:, 0] > 0.5).astype(np.intp)
        labels: Labels = z.argmax(axis=1)
        return labels

    def correct(self, z: Array, t: Array) -> int:
        """How many rows have the class of their target."""
        target = t[:, 0] > 0.5 if t.shape[1] == 1 else t.argmax(axis=1)
        return int((self.labels(z) == target).sum())

    def allocate(self, batch: int, n_out: int, dtype: DTypeLike) -> None:
        """Make the buffer that `backward` writes into."""
        self.dz = buffer(batch, n_out, dtype)

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        """y, `count` integer labels or rows (count, n_out) of one-hot or any other targets, as smoothed rows.

        t = (1 - ε) y + ε / classes with ε = label_smoothing: Szegedy et al. (2016), section 7.
        """
        y = as_array("y", y)
        if y.ndim < 2 and y.dtype.kind in "iub":
            labels = as_labels(y, max(n_out, 2), count)  # a single output's are 0, no, and 1, yes
            t = one_hot(labels, n_out, dtype) if n_out > 1 else labels[:, None].astype(dtype)
        elif y.shape == (count, n_out) and y.dtype.kind in "fiub":
            t = np.array(y, dtype)
        else:
            raise HandgradError(
                f"y holds {y.dtype} of shape {y.shape}: expected ({count},) integer labels, "
                f"or ({count}, {n_out}) one row an example"
            )
        if not np.isfinite(t).all():
            raise HandgradError("y holds a value that is not a finite number")
        if self.label_smoothing:
            t *= 1 - self.label_smoothing
            t += self.label_smoothing / max(n_out, 2)
        return t

    def config(self) -> dict[str, Any]:
        """The arguments that make this loss again, for the model file."""
        return {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


class Quadratic(Loss):
    """L = mean over the batch of ½ Σⱼ (aⱼ - tⱼ)², on the output a as it is: the cost of Nielsen's chapter 1.

    After a sigmoid, dL/dz carries its a (1 - a): an output that is wrong and sure of it hardly learns.
    """

    def each(self, a: Array, t: Array) -> Array:
        e = a - t
        losses: Array = np.einsum("ij,ij->i", e, e) / 2
        return losses

    def backward(self, a: Array, t: Array, weight: float | Array) -> Array:
        da = np.subtract(a, t, out=self.dz)  # dL/da = a - t
        da *= weight
        return da

    def probabilities(self, a: Array) -> Array:
        return a.copy()

    def outputs(self, p: Array) -> Array:
        return p.copy()


class CrossEntropy(Loss):
    """L = mean over the batch of -Σⱼ [tⱼ ln aⱼ + (1 - tⱼ) ln(1 - aⱼ)], a = σ(z): each output a yes or no of its own.

    The post's. With ln a = -softplus(-z) and ln(1 - a) = -softplus(z) it is Σⱼ [softplus(zⱼ) - tⱼ zⱼ]: no log of 0.
    """

    def each(self, z: Array, t: Array) -> Array:
        losses: Array = (np.logaddexp(0, z) - t * z).sum(axis=1)  # softplus(z) = ln(e⁰ + eᶻ)
        return losses

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = sigmoid(z, out=self.dz)  # dL/dz = a - t: the a (1 - a) of da/dz cancels
        dz -= t
        dz *= weight
        return dz

    def probabilities(self, z: Array) -> Array:
        return sigmoid(z)

    def outputs(self, p: Array) -> Array:
        rounding = np.finfo(p.dtype).epsneg  # of σ(z) in its dtype: nearer to 0 or 1 it tells nothing
        a = np.clip(p, rounding, 1 - rounding)
        z: Array = np.log(a) - np.log1p(-a)  # σ⁻¹(a) = ln a/(1 - a)
        return z


class SoftmaxCrossEntropy(Loss):
    """L = mean over the batch of -T² Σⱼ tⱼ ln pⱼ, p = softmax(z / T): one class of n_out, the rows of t sum to 1.

    With ln pⱼ = zⱼ - ln Σₖ e^{zₖ} it is ln Σₖ e^{zₖ} - Σⱼ tⱼ zⱼ, each row's largest z taken out of the exponentials.

    T = temperature is for learning from another's `soft_labels` of the same T: T² leaves the gradient at its size, for
    dz = T (p - t), and p - t shrinks as 1/T. Hinton, Vinyals and Dean (2015), section 2. `probabilities` are at T = 1.
    """

    def __init__(self, label_smoothing: float = 0.0, temperature: float = 1.0) -> None:
        super().__init__(label_smoothing)
        self.temperature = as_temperature(temperature)

    def each(self, z: Array, t: Array) -> Array:
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

    def probabilities(self, z: Array) -> Array:
        return softmax(z)

    def outputs(self, p: Array) -> Array:
        z: Array = np.maximum(p, np.finfo(p.dtype).tiny)
        return np.log(z, out=z)  # softmax takes no notice of what is the same in all of a row

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        if n_out == 1:
            raise HandgradError("softmax_cross_entropy of one output is always 0: expected cross_entropy, or 2 outputs")
        return super().targets(y, count, n_out, dtype)

    def config(self) -> dict[str, Any]:
        return super().config() | ({"temperature": self.temperature} if self.temperature != 1 else {})


def softmax(z: Array, out: Array | None = None) -> Array:
    """pⱼ = e^{zⱼ} / Σₖ e^{zₖ} of each row of z (batch, n_out); the row's largest z goes first, so nothing overflows."""
    p: Array = np.subtract(z, z.max(axis=1, keepdims=True), out=out)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p


def as_temperature(temperature: float) -> float:
    """The temperature T of a softmax(z / T). Raises HandgradError where it is none."""
    if not 0 < temperature < np.inf:
        raise HandgradError(f"temperature {temperature}: expected a finite number above 0")
    return float(temperature)


def one_hot(y: ArrayLike, n_out: int, dtype: DTypeLike = np.float32) -> Array:
    """Labels y (count,) as rows (count, n_out): 1 at the label, 0 elsewhere. Raises HandgradError for other labels."""
    labels = as_labels(y, n_out)
    rows: Array = np.zeros((len(labels), n_out), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows


LOSSES: dict[str, type[Loss]] = {
    "quadratic": Quadratic,
    "cross_entropy": CrossEntropy,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
}
