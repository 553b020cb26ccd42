"""DeepFool: the smallest perturbation of an image that changes the predicted class."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..arrays import Array, as_array, as_floats
from ..errors import HandgradError
from ..layers import BatchNorm, Layer
from ..network import Network
from ..wrappers import fold_batchnorm

STEPS = 100  # maximum number of linearizations towards the boundary, and of linearizations along it
OVERSHOOT = 0.02  # extra step length, to cross the boundary: Moosavi-Dezfooli et al. (2016)
BISECTIONS = 30  # locate the boundary to one part in 10⁹


class AdversarialExample(NamedTuple):
    """A perturbed image that the network assigns to another class."""

    perturbation: Array  #: r, shape (n_in,)
    image: Array  #: x + r, shape (n_in,)
    class_before: int  #: predicted class of x
    class_after: int  #: predicted class of x + r
    l2: float  #: ‖r‖, the Euclidean norm of the perturbation
    linf: float  #: max |rⱼ|, the largest change of a pixel


def deepfool(network: Network, x: ArrayLike, *, limits: tuple[float, float] = (0.0, 1.0)) -> AdversarialExample:
    """Find the smallest perturbation r, in the L2 norm, such that the network predicts another class for x + r.

    First, step across the boundary: linearize the logits z, move to the nearest boundary with another class, and
    repeat until the predicted class changes. This is DeepFool, except that the pixel limits are satisfied exactly.
    Second, move along the boundary: linearize the boundary at the point found, move towards the point on it that is
    nearest to x as long as the predicted class stays changed, and repeat until r does not become shorter, similar to
    Croce & Hein (2020).

    The result is a local minimum. It does not prove that no smaller perturbation exists.

    Parameters
    ----------
    network : Network
        A classifier. For a wrapper, such as `Preprocessed`, pass the network inside it.
    x : array-like, shape (n_in,) or (height, width)
        One example. Integer images, 0 to 255, are divided by 255.
    limits : tuple of float, default (0, 1)
        Smallest and largest value of x + r.

    Returns
    -------
    AdversarialExample
        The perturbation, the perturbed image, both classes, and the L2 and L∞ norms of the perturbation.

    Raises
    ------
    HandgradError
        If `network` is not a Network or not a classifier, if x is not one example within the limits, or if no
        perturbation within the limits changes the predicted class.

    References
    ----------
    Moosavi-Dezfooli, Fawzi and Frossard (2016), "DeepFool: a simple and accurate method to fool deep neural networks".
    Croce and Hein (2020), "Minimally distorted adversarial examples with a fast adaptive boundary attack".

    Examples
    --------
    >>> found = deepfool(network, x_test[0])  # doctest: +SKIP
    >>> found.class_before, found.class_after, found.l2  # doctest: +SKIP
    (7, 3, 0.84)
    """
    if not isinstance(network, Network):
        raise HandgradError(
            f"deepfool expects a Network, got {type(network).__name__}: pass the network inside the wrapper, "
            "and an image that is already preprocessed"
        )
    if not network.loss.is_classification:
        raise HandgradError(f"deepfool expects a classifier, got a network for regression with {network.loss!r}")
    low, high = limits
    if network.image_shape is not None and not 0 <= low <= high <= 1:
        raise HandgradError(f"limits must be within [0, 1] for a network of images, got {limits}")
    x = _check_example(network, x)
    if not low <= x.min() <= x.max() <= high:
        raise HandgradError(
            f"x contains values from {x.min():g} to {x.max():g}: expected values in [{low:g}, {high:g}]"
        )

    def predict(r: Array) -> int:
        image = np.clip(x + r, low, high)[None]  # rounding must not exceed the limits
        return int(network.loss.labels(network.outputs(image))[0])

    layers, r = _inference_copy(network), np.zeros_like(x)
    before = predict(r)

    for _ in range(STEPS):
        gaps, slopes = _linearize(network, layers, x + r, before)
        steps = [
            project_to_boundary(w, gap, low - x - r, high - x - r)
            for w, gap in zip(slopes, gaps, strict=True)
            if w.any()
        ]
        _, length, step = min(steps, key=lambda found: found[:2], default=(1.0, 0.0, r))
        if not length:
            break
        r = np.clip(x + r + (1 + OVERSHOOT) * step, low, high) - x
        if predict(r) != before:
            break
    if predict(r) == before:
        raise HandgradError(
            f"no perturbation within the limits [{low:g}, {high:g}] changes the predicted class "
            f"{network.classes[before]}: try another image or wider limits"
        )

    r = _bisect(predict, r, before)
    for _ in range(STEPS):
        after = predict(r)
        _, slopes = _linearize(network, layers, x + r, before)
        w = slopes[after]
        _, _, target = project_to_boundary(w, (1 + OVERSHOOT) * float(w @ r), low - x, high - x)
        shorter = (r + (target - r) * 0.5**k for k in range(8))
        found = next((s for s in shorter if predict(s) != before), r)
        found = _bisect(predict, found, before)
        if not np.linalg.norm(found) < (1 - 1e-4) * np.linalg.norm(r):
            break
        r = found

    image = np.clip(x + r, low, high).astype(network.dtype)
    l2, linf = float(np.linalg.norm(r)), float(np.abs(r).max())
    return AdversarialExample(r.astype(network.dtype), image, before, predict(r), l2, linf)


def project_to_boundary(w: Array, gap: float, low: Array, high: Array) -> tuple[float, float, Array]:
    """Find the shortest r with ⟨w, r⟩ = gap and low ≤ r ≤ high.

    r = clip(λ w, low, high) for one λ ≥ 0. ⟨w, r⟩ is a concave, piecewise linear function of λ, because its slope
    decreases whenever an entry of r reaches its limit. Newton's method from λ = 0 therefore never overshoots and takes
    at most one step per piece.

    Parameters
    ----------
    w : ndarray, shape (n,)
        Normal of the boundary.
    gap : float
        Distance to the boundary times ‖w‖. Must be above 0.
    low, high : ndarray, shape (n,)
        Limits of r, low ≤ 0 ≤ high.

    Returns
    -------
    missing : float
        0 if the boundary is reached; otherwise the fraction of `gap` that remains when all entries are at their limits.
    length : float
        ‖r‖.
    r : ndarray, shape (n,)
        The step.
    """
    factor, missing, r = 0.0, gap, np.zeros_like(w)
    limit = np.where(w > 0, high, low)  # the limit that each entry moves towards
    while missing > 1e-9 * gap:
        slope = float(np.vdot(w, w * (np.abs(r) < np.abs(limit))))
        if slope < 1e-300:  # all entries are at their limits, or the slope is too small to divide by
            break
        factor += missing / slope
        r = np.clip(factor * w, low, high)
        missing = gap - float(w @ r)
    return missing / gap if missing > 1e-9 * gap else 0.0, float(np.linalg.norm(r)), r


def _check_example(network: Network, x: ArrayLike) -> Array:
    """x (n_in,) as float64; an integer image is divided by 255."""
    example = network.check_inputs(as_array("x", x)[None])
    row: Array = as_floats(example, np.empty((1, network.n_in)))[0]
    return row


def _inference_copy(network: Network) -> list[Layer]:
    """Layers of a float64 copy in inference mode: BatchNorm folded, Dropout removed, buffers for n_out rows."""
    copied = fold_batchnorm(network.astype(np.float64))
    layers, width = [layer for layer in copied.layers if layer.rng is None], copied.n_in
    if any(isinstance(layer, BatchNorm) for layer in layers):
        raise HandgradError(
            "deepfool needs the gradient in inference mode, and a BatchNorm without a Dense layer next to it cannot be "
            "folded: put each BatchNorm next to a Dense layer"
        )
    for layer in layers:
        layer.allocate(copied.n_out, width, copied.dtype)
        width = layer.width(width)
    return layers


def _linearize(network: Network, layers: list[Layer], x: Array, a: int) -> tuple[Array, Array]:
    """Gaps zₐ - zₖ at x, (classes,), and the derivatives of zₖ - zₐ with respect to x, (classes, n_in).

    Gaps are at least the resolution of float32, because a float32 network may see a tie that float64 does not see.
    """
    n_out = network.n_out
    z: Array = np.repeat(x[None], n_out, axis=0)
    J: Array = np.eye(n_out)
    for layer in layers:
        z = layer.forward(z)
    for layer in reversed(layers):
        J = layer.backward_input(J)  # all n_out rows of x are equal, so that row k is the derivative of zₖ
    z, J = z[0].copy(), J.copy()
    if n_out == 1:  # class 1 is predicted if z is above the logit of p = ½, which takes the place of class 0's logit
        half = network.loss.inverse_activation(np.array([[0.5]]))[0]
        z, J = np.concatenate([half, z]), np.concatenate([np.zeros_like(J), J])
    return np.maximum(z[a] - z, 1e-6 * np.abs(z).max()), J - J[a]


def _bisect(predict: Callable[[Array], int], r: Array, before: int) -> Array:
    """Scale r down to the boundary, such that the predicted class still differs from `before`."""
    unchanged, changed = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (unchanged + changed) / 2
        if predict(middle * r) == before:
            unchanged = middle
        else:
            changed = middle
    return changed * r
