"""Preprocessing: the interface of functions that are applied before a model; Standardize."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import FLOAT32_MAX, as_array, check_inputs, row_blocks
from .errors import HandgradError, KnownAttributes


class Preprocessing(KnownAttributes, ABC):
    """Base class of preprocessing: a function of single examples that is applied before a model.

    Attributes
    ----------
    n_in, n_out : int
        Number of values in an example, before and after.
    image_shape_in, image_shape_out : (height, width) or None
        The same for images.
    """

    n_in: int
    n_out: int
    image_shape_in: tuple[int, int] | None = None
    image_shape_out: tuple[int, int] | None = None

    @abstractmethod
    def __call__(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the preprocessed examples, (count, n_in) -> (count, n_out) or images -> images, in the dtype of x."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor arguments, for the model file."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Preprocessing) and other.config() == self.config()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"


class Standardize(Preprocessing):
    """Scale each feature to a mean of 0 and a standard deviation of 1.

    z = (x - mean) / scale

    Use it for features of different sizes, such as an age and an income. Images do not need it.

    Parameters
    ----------
    mean : sequence of float
        Mean of each feature.
    scale : sequence of float
        Divisor of each feature, more than 0: its standard deviation.

    Raises
    ------
    HandgradError
        If the lengths differ, or if a number is not finite or a divisor not more than 0.

    Examples
    --------
    >>> import numpy as np
    >>> from handgrad import Standardize
    >>> Standardize.fit([[10, 1], [30, 1]])([[20, 3]])
    array([[0., 2.]])
    """

    def __init__(self, mean: ArrayLike, scale: ArrayLike) -> None:
        self.mean, self.scale = _finite_vector("mean", mean), _finite_vector("scale", scale)
        if self.mean.shape != self.scale.shape:
            raise HandgradError(f"Standardize: mean has {self.mean.size} numbers and scale has {self.scale.size}")
        if self.scale.min() <= 0:
            raise HandgradError(f"Standardize: scale must be > 0, got {self.scale.min():g}")
        self.n_in = self.n_out = self.mean.size

    @classmethod
    def fit(cls, x: ArrayLike) -> Standardize:
        """Compute mean and standard deviation of the training examples x (count, n_in).

        The divisor of a feature that is constant, up to rounding, is 1.
        """
        x = as_array("x", x)
        if x.ndim != 2:
            raise HandgradError(
                f"Standardize: x has shape {x.shape}: expected numbers (count, n_in); images need no scaling"
            )
        x = check_inputs(x, x.shape[1])
        with np.errstate(under="ignore"):
            mean, scale = x.mean(axis=0, dtype=np.float64), np.zeros(x.shape[1])
            for rows in row_blocks(len(x)):
                scale += ((x[rows] - mean) ** 2).sum(axis=0)
            scale = np.sqrt(scale / len(x))
        scale[scale <= 1e-7 * np.abs(mean)] = 1  # float32 has 7 digits
        scale[scale == 0] = 1
        return cls(mean, scale)

    def __call__(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return (x - mean) / scale for x (count, n_in), in float64 for float64 and in float32 for smaller types."""
        x = as_array("x", x)
        if x.ndim > 2:
            raise HandgradError(f"x has shape {x.shape}: {self!r} expects numbers (count, {self.n_in})")
        x = check_inputs(x, self.n_in)
        if out is None:
            out = np.empty(x.shape, np.result_type(x.dtype, np.float32))
        with np.errstate(over="ignore", under="ignore"):
            for rows in row_blocks(len(x)):  # in float64, which an offset such as a year or a time needs
                out[rows] = (x[rows] - self.mean) / self.scale
        return out

    def config(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    def __repr__(self) -> str:
        return f"Standardize({self.n_in} features)"


def _finite_vector(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Validate the mean or the divisor of each feature."""
    vector = as_array(f"Standardize: {name}", values)
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "fiu":
        raise HandgradError(f"Standardize: {name} must be a sequence of numbers, got {vector.dtype} {vector.shape}")
    vector = vector.astype(np.float64)
    if not (np.abs(vector) <= FLOAT32_MAX).all():
        raise HandgradError(f"Standardize: {name} must be finite numbers of float32")
    return vector
