"""Affine maps of inputs and outputs, y = s x + o, folded into the layer next to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import HandgradError
from ..layers import BatchNorm, Dense
from .imported import ImportedLayer


class Affine(NamedTuple):
    """An elementwise map y = scale x + offset of the values of an example, in float64: numbers, or arrays (n,)."""

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def is_identity(self) -> bool:
        """Whether y = x, to within the rounding of scale."""
        return bool((np.abs(self.scale - 1) < 1e-12).all() and (self.offset == 0).all())

    def after(self, first: Affine) -> Affine:
        """Return the map that applies `first`, then this one."""
        with np.errstate(all="ignore"):
            return Affine(self.scale * first.scale, self.scale * first.offset + self.offset)

    def before_layer(self, layer: ImportedLayer) -> ImportedLayer | None:
        """Fold the map into the layer that follows; None if the layer is neither a Dense nor a BatchNorm.

        W (s x + o) + b = (W s) x + (W o + b)

        g (s x + o - μ) / √(σ² + ε) = sign(s) g (x - μ') / √(σ'² + ε),  μ' = (μ - o) / s,  σ'² = (σ² + ε) / s² - ε
        """
        with np.errstate(all="ignore"):  # weights that are not finite are reported with the name of the layer
            return self._before_layer(layer)

    def _before_layer(self, layer: ImportedLayer) -> ImportedLayer | None:
        arrays = {name: p.astype(np.float64) for name, p in layer.arrays.items()}
        s, o = self.scale, self.offset
        if isinstance(layer.layer, Dense):
            n_in = layer.layer.n_in
            self._check(layer.name, n_in)
            W, b = arrays["W"], arrays["b"]
            folded = {"W": W * s, "b": b + W @ np.broadcast_to(o, n_in)}
        elif isinstance(layer.layer, BatchNorm) and (s != 0).all():
            self._check(layer.name, layer.layer.n_in)
            epsilon = layer.layer.epsilon
            variance = (arrays["running_var"] + epsilon) / s**2 - epsilon
            if (variance < 0).any():
                return None
            mean = (arrays["running_mean"] - o) / s
            folded = {"g": arrays["g"] * np.sign(s), "b": arrays["b"], "running_mean": mean, "running_var": variance}
        else:
            return None
        return _with_arrays(layer, folded)

    def after_layer(self, layer: ImportedLayer) -> ImportedLayer | None:
        """Fold the map into the layer before it: s (W x + b) + o. None if the layer is not a Dense."""
        if not isinstance(layer.layer, Dense):
            return None
        n_out = layer.layer.n_out
        self._check(layer.name, n_out)
        s = np.broadcast_to(self.scale, n_out)
        W, b = (layer.arrays[name].astype(np.float64) for name in "Wb")
        with np.errstate(all="ignore"):
            return _with_arrays(layer, {"W": s[:, None] * W, "b": s * b + self.offset})

    def _check(self, name: str, n: int) -> None:
        for p in self:
            if p.size not in (1, n):
                raise HandgradError(f"the rescaling next to {name!r} has {p.size} values: expected 1 or {n}")


def _with_arrays(layer: ImportedLayer, arrays: dict[str, NDArray[np.float64]]) -> ImportedLayer:
    """The layer with other arrays, rounded to the dtype of its own."""
    return layer._replace(arrays={name: p.astype(layer.arrays[name].dtype) for name, p in arrays.items()})


def make_affine(scale: ArrayLike, offset: ArrayLike) -> Affine:
    """Return y = scale x + offset in float64. Arrays are flattened: (h, w) and (h, w, 1) become (n,)."""
    return Affine(*(np.asarray(p, np.float64).reshape(-1 if np.ndim(p) else ()) for p in (scale, offset)))
