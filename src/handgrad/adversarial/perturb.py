"""Adversarial training: perturb training images in the direction that increases the loss most.

Backpropagation continues below the first parameters to dx, the derivative of the loss with respect to the input. dx is
the direction of steepest ascent of the loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import Array, Seed, aligned_empty, check_fraction, check_positive, make_rng
from ..errors import KnownAttributes, check_name
from ..network import Network

MIN_NORM = math.sqrt(float(np.finfo(np.float32).tiny))  # the smallest norm whose square is a normal float32


class Adversarial(KnownAttributes):
    """Replace part of each batch by adversarial examples x + r of length ε.

    l2    r = ε dx / ‖dx‖     To first order, r increases the loss by ε ‖dx‖, the most of all r with ‖r‖ = ε.
    linf  r = ε sign(dx)      To first order, r increases the loss by ε Σⱼ |dxⱼ|, the most of all r with |rⱼ| ≤ ε.

    dx is computed in training mode. x + r is not clipped to [0, 1], because clipping would remove half of the length
    of r on the background of a digit. The papers do not clip, either. The first examples of a batch are perturbed,
    because batches are in random order.

    The running statistics of BatchNorm include this additional forward pass. About three quarters of their weight is
    on unperturbed images, which are the images that the network predicts later.

    Parameters
    ----------
    epsilon : float
        Length of the perturbation in the chosen norm. Must be finite and above 0.
    norm : {"l2", "linf"}, default "l2"
        "l2" is the fast gradient method, "linf" the fast gradient sign method.
    share : float, default 0.5
        Fraction of each batch that is perturbed, in [0, 1].

    Raises
    ------
    HandgradError
        If a parameter is outside its range.

    References
    ----------
    Goodfellow, Shlens and Szegedy (2015), "Explaining and harnessing adversarial examples" (linf).
    Miyato, Dai and Goodfellow (2016), "Adversarial training methods for semi-supervised text classification" (l2).

    Examples
    --------
    >>> from handgrad import SGD, Adversarial, Network, Trainer
    >>> trainer = Trainer(Network([784, 30, 10]), SGD(0.5), perturb=Adversarial(1.0))
    """

    def __init__(self, epsilon: float, norm: str = "l2", share: float = 0.5) -> None:
        self.epsilon = check_positive("epsilon", epsilon)
        self.norm = check_name("norm", norm, ("l2", "linf"))
        self.share = check_fraction("share", share, "[0, 1]")
        self._x = self._t = np.empty((0, 0), np.float32)
        # A copy of the network with its own buffers. Without the copy, the network would reallocate its buffers twice
        # per step for two batch sizes, and their memory would be cold: a sixth of a step of [784, 512, 512, 10] on
        # batches of 128.
        self._network: Network | None = None
        self._copy: Network | None = None

    def __call__(self, network: Network, x: Array, t: Array) -> tuple[Array, Array]:
        """Perturb a batch.

        Parameters
        ----------
        network : Network
            The network in training.
        x : ndarray, shape (batch, n_in)
            Inputs in the dtype of the network. They are not modified.
        t : ndarray, shape (batch, n_out)
            Targets. They are not modified.

        Returns
        -------
        x, t : tuple of ndarray
            The batch to train on. The next call overwrites it.
        """
        count = round(self.share * len(x))
        if not count:
            return x, t
        if self._copy is None or self._network is not network or self._copy.parameters is not network.parameters:
            self._network, self._copy = network, network.with_own_buffers()
        self._x, perturbed = _copy_to_buffer(x, self._x, network)
        return perturbed, self._perturb(self._copy, x[:count], t, out=perturbed[:count])

    def refresh(self) -> None:
        """Copy the network again at the next batch, with changed attributes of layers and the loss.

        `Trainer.fit` calls this method. Call it yourself if you change such an attribute between two batches.
        """
        self._copy = None

    def _perturb(self, network: Network, x: Array, t: Array, out: Array) -> Array:
        """Write x + r for the first examples of the batch into `out`, and return the targets of the batch."""
        self._scale(network.input_gradient(x, t[: len(x)], 1), out)
        out += x
        return t

    def _scale(self, dx: Array, out: Array) -> None:
        """Write r, of length ε in the direction of dx, into `out`."""
        if self.norm == "l2":
            # If dx is 0 in float32, because the prediction is almost certain, r is 0.
            norms = np.sqrt(np.einsum("ij,ij->i", dx, dx))
            np.multiply(dx, (self.epsilon / np.maximum(norms, MIN_NORM))[:, None], out=out)
        else:
            np.sign(dx, out=out)
            out *= self.epsilon

    def __repr__(self) -> str:
        return f"{type(self).__name__}(epsilon={self.epsilon!r}, norm={self.norm!r}, share={self.share!r})"


class VirtualAdversarial(Adversarial):
    """Virtual adversarial training: r points away from the prediction p(x) of the network, and p(x) is the target.

    KL(p(x) ‖ p(x + r)) and its derivative are 0 at r = 0. Therefore dx is computed at x + ξ d, with a random direction
    d, ‖d‖ = 1. This is one step of the power method for the largest eigenvector of the second derivative.

    Parameters
    ----------
    epsilon, norm, share
        As in `Adversarial`.
    xi : float, default 0.1
        Length ξ of the random step. Must be finite and above 0.
    rng : int, Generator or None
        Seed or random generator of the directions d.

    Raises
    ------
    HandgradError
        If a parameter is outside its range.

    References
    ----------
    Miyato, Maeda, Koyama and Ishii (2018), "Virtual adversarial training: a regularization method for supervised and
    semi-supervised learning", section 3.3.
    """

    def __init__(
        self, epsilon: float, norm: str = "l2", share: float = 0.5, *, xi: float = 0.1, rng: Seed = None
    ) -> None:
        super().__init__(epsilon, norm, share)
        self.xi, self.rng = check_positive("xi", xi), make_rng(rng)

    def _perturb(self, network: Network, x: Array, t: Array, out: Array) -> Array:
        self._t, soft = _copy_to_buffer(t, self._t, network)
        p = soft[: len(x)]
        p[...] = network.loss.activation(network.forward(x) / network.loss.temperature)
        d = self.rng.standard_normal(x.shape, network.dtype.type)
        d *= self.xi / np.linalg.norm(d, axis=1, keepdims=True)
        d += x
        # The gradient of the loss is that of KL, because the two differ by the entropy of p(x), a constant.
        self._scale(network.input_gradient(d, p, 1), out)
        out += x
        return soft

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random generator."""
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the random generator."""
        self.rng.bit_generator.state = state["rng"]

    def __repr__(self) -> str:
        return super().__repr__()[:-1] + f", xi={self.xi!r})"


def _copy_to_buffer(rows: Array, buffer: Array, network: Network) -> tuple[Array, Array]:
    """Copy the rows to the start of the buffer, reallocated if its size or dtype does not fit: (buffer, copy)."""
    if buffer.dtype != network.dtype or buffer.shape[1] != rows.shape[1] or len(buffer) < len(rows):
        buffer = aligned_empty(rows.size, network.dtype).reshape(rows.shape)
    copied = buffer[: len(rows)]
    np.copyto(copied, rows)
    return buffer, copied
