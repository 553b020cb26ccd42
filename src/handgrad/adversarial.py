"""Pictures changed so that the network errs: to train on, and to see how little is enough.

Backpropagation goes on below the first parameters, down to dx, the derivative of the loss by the picture itself: the
way in which to change it that raises the loss most.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Array, Seed, aligned, as_array, as_examples, as_floats
from .errors import HandgradError, unknown
from .layers import BatchNorm
from .network import Network

# ---- To train on -----------------------------------------------------------------------------------------------------


class Adversarial:
    """x + r in place of the first `share` of a batch, r the step of length ε up the loss of each example.

    l2    r = ε dx / ‖dx‖     of all r with ‖r‖ = ε it raises L most, to first order by ε ‖dx‖. Miyato et al. (2016).
    linf  r = ε sign(dx)      of all r with |rⱼ| ≤ ε, by ε Σⱼ |dxⱼ|: the fast gradient sign. Goodfellow et al. (2015).

    A batch comes in random order, so its first examples are any. dx is that of the pass as it is in training. x + r is
    not cut off at [0, 1]: r would lose half of its length on the paper around a digit. Nor did the sources.

    A BatchNorm's running statistics take in this pass as well as the step's: about three quarters of what they hold is
    of pictures as they are, which are what the network will be asked about.
    """

    def __init__(self, epsilon: float, norm: str = "l2", share: float = 0.5) -> None:
        if not 0 < epsilon < math.inf:
            raise HandgradError(f"epsilon {epsilon}: expected a finite number above 0")
        if norm not in ("l2", "linf"):
            raise unknown("norm", norm, ("l2", "linf"))
        if not 0 <= share <= 1:
            raise HandgradError(f"share {share}: expected a number from 0 to 1")
        self.epsilon, self.norm, self.share = epsilon, norm, share
        self._x = self._t = np.empty((0, 0), np.float32)
        # Two sizes of batch in turn would have the network make its buffers anew twice a step, and find their memory
        # cold: a sixth of a step of [784, 512, 512, 10] on batches of 128.
        self._network: Network | None = None
        self._shadow: Network | None = None

    def __call__(self, network: Network, x: Array, t: Array) -> tuple[Array, Array]:
        """x (batch, n_in), t (batch, n_out) -> the batch to learn from. What comes in is only read.

        What goes out is overwritten by the next call.
        """
        count = round(self.share * len(x))
        if not count:
            return x, t
        if self._shadow is None or self._network is not network or self._shadow.parameters is not network.parameters:
            self._network, self._shadow = network, network.shadow()
        self._x, changed = _copied(x, self._x, network)
        return changed, self._change(self._shadow, x[:count], t, out=changed[:count])

    def _change(self, network: Network, x: Array, t: Array, out: Array) -> Array:
        """Write x + r into `out`, and return the targets of the batch whose first examples they are."""
        self._along(network.input_gradient(x, t[: len(x)], 1), out)
        out += x
        return t

    def _along(self, dx: Array, out: Array) -> None:
        """r, of length ε along dx, into `out`."""
        if self.norm == "l2":
            # One whose loss has no slope that float32 can tell, its answer being all but certain, stays where it is.
            norms = np.sqrt(np.einsum("ij,ij->i", dx, dx))
            np.multiply(dx, (self.epsilon / np.maximum(norms, TINY))[:, None], out=out)
        else:
            np.sign(dx, out=out)
            out *= self.epsilon

    def state(self) -> dict[str, Any]:
        """What `restore` needs to continue, as values that JSON can hold."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""


class VirtualAdversarial(Adversarial):
    """x + r as in `Adversarial`, without the labels: r leads away from the network's own answer p(x), which is t.

    KL(p(x) ‖ p(x + r)) and its derivative are 0 at r = 0. So dx is taken at x + ξ d, d a random direction, ‖d‖ = 1:
    one step of the power method to the largest eigenvector of its second derivative. Miyato et al. (2018), section 3.3.
    """

    def __init__(
        self, epsilon: float, norm: str = "l2", share: float = 0.5, *, xi: float = 0.1, rng: Seed = None
    ) -> None:
        super().__init__(epsilon, norm, share)
        if not 0 < xi < math.inf:
            raise HandgradError(f"xi {xi}: expected a finite number above 0")
        self.xi, self.rng = xi, np.random.default_rng(rng)

    def _change(self, network: Network, x: Array, t: Array, out: Array) -> Array:
        self._t, soft = _copied(t, self._t, network)
        p = soft[: len(x)]
        p[...] = network.loss.probabilities(network.forward(x))
        d = self.rng.standard_normal(x.shape, network.dtype.type)
        d *= self.xi / np.linalg.norm(d, axis=1, keepdims=True)
        d += x
        self._along(network.input_gradient(d, p, 1), out)  # of KL as of L: the two differ by the entropy of p(x)
        out += x
        return soft

    def state(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]


TINY = math.sqrt(float(np.finfo(np.float32).tiny))  # a length whose square is just above 0


def _copied(rows: Array, room: Array, network: Network) -> tuple[Array, Array]:
    """The room, made anew where it is too small or of another kind, and the rows copied into the beginning of it."""
    if room.dtype != network.dtype or room.shape[1] != rows.shape[1] or len(room) < len(rows):
        room = aligned(rows.size, network.dtype).reshape(rows.shape)
    copied = room[: len(rows)]
    np.copyto(copied, rows)
    return room, copied


# ---- The smallest change ---------------------------------------------------------------------------------------------

STEPS = 100  # linearisations on the way to the boundary, and as many along it at most
OVERSHOOT = 0.02  # of a step's length, to land beyond the boundary: Moosavi-Dezfooli et al. (2016)
HALVINGS = 30  # of the way to the boundary: to one part in 10⁹


class Change(NamedTuple):
    """The smallest change found that makes a network answer otherwise."""

    change: Array  # (n_in,) what was added
    picture: Array  # (n_in,) with the change in it
    answer_before: int
    answer_after: int
    l2: float  # the change's length
    largest: float  # its largest entry


def smallest_change(network: Network, x: ArrayLike, *, limits: tuple[float, float] = (0.0, 1.0)) -> Change:
    """The shortest change of the picture x that gives the network another answer, every pixel kept within `limits`.

    There: z is linearised, and the nearest boundary, where z of another class is as large as the answer's, is gone to;
    again until the answer has changed. This is DeepFool, Moosavi-Dezfooli et al. (2016), but for the limits, in which
    `nearest` is exact. Then along: the boundary is linearised at the point found, and the way to its point nearest to
    x taken as far as the answer stays changed, until it is no shorter; as Croce & Hein (2020) go back to x.

    x (n_in,) or (height, width), bytes or floats. What is found is a local minimum: no proof that nothing is shorter.
    Raises HandgradError where x is outside of the limits, where no other answer is found, and for answers that are
    numbers.
    """
    if network.preprocessing is not None or network.views > 1:
        raise HandgradError(
            f"the network sees pictures through {network.preprocessing!r} in {network.views} views: expected one that "
            "sees them as they are, network.preprocessed() with views = 1, and what it sees, network.preprocess(x)"
        )
    given = as_examples(as_array("x", x)[None], network.n_in)
    x = as_floats(given[0], out=np.empty(network.n_in))
    low, high = limits
    if not low <= x.min() <= x.max() <= high:
        raise HandgradError(
            f"x holds {x.min():g} to {x.max():g}: expected a picture within the limits {low:g} and {high:g}"
        )
    twin, r = _as_it_answers(network), np.zeros_like(x)
    before = _answer(network, x)

    for _ in range(STEPS):
        gaps, slopes = _linearised(twin, x + r, before)
        steps = [nearest(w, gap, low - x - r, high - x - r) for w, gap in zip(slopes, gaps, strict=True) if w.any()]
        _, length, step = min(steps, key=lambda found: found[:2], default=(1.0, 0.0, r))
        if not length:
            break
        r = np.clip(x + r + (1 + OVERSHOOT) * step, low, high) - x
        if _answer(network, x + r) != before:
            break
    if _answer(network, x + r) == before:
        raise HandgradError(
            f"no change within the limits {low:g} and {high:g} was found that makes the network answer other than "
            f"{network.classes[before]}"
        )

    r = _shortened(network, x, r, before)
    for _ in range(STEPS):
        after = _answer(network, x + r)
        _, slopes = _linearised(twin, x + r, before)
        w = slopes[after]
        _, _, target = nearest(w, (1 + OVERSHOOT) * float(w @ r), low - x, high - x)
        shorter = (r + (target - r) * 0.5**k for k in range(8))
        found = next((s for s in shorter if _answer(network, x + s) != before), r)
        found = _shortened(network, x, found, before)
        if not np.linalg.norm(found) < (1 - 1e-4) * np.linalg.norm(r):
            break
        r = found

    picture = (x + r).astype(network.dtype)
    l2, largest = float(np.linalg.norm(r)), float(np.abs(r).max())
    return Change(r.astype(network.dtype), picture, before, _answer(network, x + r), l2, largest)


def nearest(w: Array, gap: float, low: Array, high: Array) -> tuple[float, float, Array]:
    """(missing, ‖r‖, r) of the shortest r with ⟨w, r⟩ = gap > 0 and low ≤ r ≤ high, where low ≤ 0 ≤ high.

    r = clip(λ w, low, high) for one λ ≥ 0. ⟨w, r⟩ rises with λ, less and less steeply as entries reach their limits, so
    Newton's steps from λ = 0 never overshoot, and end after one for each piece of it. Where all entries reach theirs
    first, a share of the gap is missing; else 0.
    """
    factor, missing, r = 0.0, gap, np.zeros_like(w)
    limit = np.where(w > 0, high, low)  # the one that each entry goes towards
    while missing > 1e-9 * gap:
        slope = float(np.vdot(w, w * (np.abs(r) < np.abs(limit))))
        if slope < 1e-300:  # nothing is left to move, or too little to divide by
            break
        factor += missing / slope
        r = np.clip(factor * w, low, high)
        missing = gap - float(w @ r)
    return missing / gap if missing > 1e-9 * gap else 0.0, float(np.linalg.norm(r)), r


def _as_it_answers(network: Network) -> Network:
    """A copy in float64, for gradients of the network as it answers: BatchNorm folded away, without what draws."""
    twin = network.astype(np.float64).folded()
    twin.layers = [layer for layer in twin.layers if layer.rng is None]
    if any(isinstance(layer, BatchNorm) for layer in twin.layers):
        raise HandgradError(
            "a BatchNorm with no Dense beside it answers otherwise than it learns: expected one beside it"
        )
    return twin


def _linearised(network: Network, x: Array, answer: int) -> tuple[Array, Array]:
    """(gaps (classes,), slopes (classes, n_in)): zₐ - zₖ at x for each class k, and the derivative of zₖ - zₐ by x.

    No gap is smaller than what float32 can tell: the network itself may see a tie where there is none in float64.
    """
    n_out = network.n_out
    z = network.forward(np.repeat(x[None], n_out, axis=0))[0].copy()
    J = network.backward_input(np.eye(n_out)).copy()  # of n_out copies of x, row k brings down the derivative of zₖ
    if n_out == 1:  # yes where z is above that of p = ½, which stands for no
        half = network.loss.outputs(np.array([[0.5]]))[0]
        z, J = np.concatenate([half, z]), np.concatenate([np.zeros_like(J), J])
    return np.maximum(z[answer] - z, 1e-6 * np.abs(z).max()), J - J[answer]


def _answer(network: Network, x: Array) -> int:
    return int(network.loss.labels(network.outputs(x[None]))[0])


def _shortened(network: Network, x: Array, r: Array, before: int) -> Array:
    """r scaled down as far as x + r keeps an answer other than `before`, by halving."""
    kept, changed = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (kept + changed) / 2
        if _answer(network, x + middle * r) == before:
            kept = middle
        else:
            changed = middle
    return changed * r
