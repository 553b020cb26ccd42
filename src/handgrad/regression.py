"""Losses for numbers: an answer is a number that is more or less near, not a class that is right or wrong.

Each is a sum over the outputs, Lᵢ = Σⱼ l(zⱼ, tⱼ) of an example, and the mean over the batch. The answer is z itself,
but for Poisson, where it is e^z.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .arrays import Array, Labels, as_array
from .errors import HandgradError
from .losses import LOSSES as CLASSIFYING
from .losses import Loss


class Regression(Loss):
    """What the losses for numbers share."""

    classifies = False

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def terms(self, z: Array, t: Array) -> Array:
        """l(z, t) (batch, n_out) of each output, in an array of its own."""

    def each(self, z: Array, t: Array) -> Array:
        losses: Array = self.terms(z, t).sum(axis=1)
        return losses

    def probabilities(self, z: Array) -> Array:
        """The answers: z as they are."""
        return z.copy()

    def outputs(self, p: Array) -> Array:
        return p.copy()

    def labels(self, z: Array) -> Labels:
        raise HandgradError(f"{type(self).__name__} is a loss for numbers: its answers are no classes")

    def correct(self, z: Array, t: Array) -> int:
        """0: no answer is right, and none is wrong."""
        return 0

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        """y, `count` numbers or rows (count, n_out) of them, as rows. Raises HandgradError where they are no such."""
        y = as_array("y", y)
        t = y[:, None] if y.ndim == 1 else y
        if t.shape != (count, n_out) or t.dtype.kind not in "fiub":
            raise HandgradError(f"y holds {y.dtype} of shape {y.shape}: expected ({count}, {n_out}) numbers")
        with np.errstate(over="ignore"):
            t = t.astype(dtype)
        if not np.isfinite(t).all():
            raise HandgradError(f"y holds a value that is not a finite {np.dtype(dtype)}")
        return t


class SquaredError(Regression):
    """l = ½ (z - t)²: the answer that costs least is the mean."""

    def terms(self, z: Array, t: Array) -> Array:
        e = z - t
        e *= e
        e /= 2
        return e

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = np.subtract(z, t, out=self.dz)  # dl/dz = z - t
        dz *= weight
        return dz


class AbsoluteError(Regression):
    """l = |z - t|: the answer that costs least is the median, which a few wild targets hardly move."""

    def terms(self, z: Array, t: Array) -> Array:
        e: Array = np.abs(z - t)
        return e

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = np.subtract(z, t, out=self.dz)
        np.sign(dz, out=dz)  # dl/dz = sign(z - t), and 0 at the kink
        dz *= weight
        return dz


class Huber(Regression):
    """l = ½ e² where |e| ≤ δ, else δ (|e| - ½ δ), e = z - t: squared near the target, absolute far. Huber (1964)."""

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        if not 0 < delta < math.inf:
            raise HandgradError(f"delta {delta}: expected a finite number above 0")
        self.delta = delta

    def terms(self, z: Array, t: Array) -> Array:
        e: Array = np.abs(z - t)
        near = np.minimum(e, self.delta)
        e -= near / 2
        e *= near  # with near = min(|e|, δ) both are near (|e| - ½ near)
        return e

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = np.subtract(z, t, out=self.dz)
        np.clip(dz, -self.delta, self.delta, out=dz)  # dl/dz = e, kept within ±δ
        dz *= weight
        return dz

    def config(self) -> dict[str, Any]:
        return {"delta": self.delta}


class LogCosh(Regression):
    """l = ln cosh e, e = z - t: about ½ e² near the target and |e| - ln 2 far, and smooth everywhere.

    With cosh e = e^|e| (1 + e^(-2|e|)) / 2 it is |e| + ln(1 + (e^(-2|e|) - 1) / 2): nothing overflows, and near the
    target, where the two all but cancel, as much is left as |e| is good to.
    """

    def terms(self, z: Array, t: Array) -> Array:
        e: Array = np.abs(z - t)
        e += np.log1p(np.expm1(-2 * e) / 2)
        return e

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        dz = np.subtract(z, t, out=self.dz)
        np.tanh(dz, out=dz)  # dl/dz = sinh e / cosh e
        dz *= weight
        return dz


class Poisson(Regression):
    """l = t ln(t / μ) - t + μ, μ = e^z, for counts t ≥ 0: half of the deviance. Nelder & Wedderburn (1972).

    It is -ln(μ^t e^-μ / t!), t where μ are expected, less its smallest value, that at μ = t.
    """

    def terms(self, z: Array, t: Array) -> Array:
        terms = self.probabilities(z)
        terms -= t * z
        terms += t * np.log(np.where(t > 0, t, 1)) - t  # t ln t is 0 at t = 0
        return terms

    def backward(self, z: Array, t: Array, weight: float | Array) -> Array:
        with np.errstate(over="ignore"):  # infinite is what it is there
            dz = np.exp(z, out=self.dz)
        dz -= t  # dl/dz = μ - t
        dz *= weight
        return dz

    def probabilities(self, z: Array) -> Array:
        """The answers: μ = e^z."""
        with np.errstate(over="ignore"):
            mu: Array = np.exp(z)
        return mu

    def outputs(self, p: Array) -> Array:
        z: Array = np.maximum(p, np.finfo(p.dtype).tiny)
        return np.log(z, out=z)

    def targets(self, y: ArrayLike, count: int, n_out: int, dtype: DTypeLike) -> Array:
        t = super().targets(y, count, n_out, dtype)
        if t.min() < 0:
            raise HandgradError(f"y holds {t.min():g}: expected counts, 0 or more, for Poisson")
        return t


REGRESSION: dict[str, type[Loss]] = {
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "log_cosh": LogCosh,
    "poisson": Poisson,
}

LOSSES = CLASSIFYING | REGRESSION
