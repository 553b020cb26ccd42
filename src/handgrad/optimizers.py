"""Optimizers: SGD, momentum, Nesterov, Adam, AdamW, Lookahead.

Each optimizer is an equation on two vectors, θ and g = dθ. The vectors are processed in blocks that stay in the
processor's cache, so that a sequence of vector operations reads θ and g from memory once. `lr` is the learning rate, a
step on the mean loss.
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arrays import Array, aligned_empty, check_fraction, check_int, check_non_negative, check_positive
from .errors import HandgradError, Misnamed, closest, unknown
from .network import Network

# Floats per block, 512 KiB of a vector in float32. Adam on 5.8 million parameters takes 9.0 ms, against 10.0 ms with
# blocks of a quarter of that, because of more calls, and 12.1 ms in one block, which does not fit into the cache.
UPDATE_CHUNK = 131_072
MAX_STEPS = 1 << 62
OPTIONS = ("lr", "l2", "l1", "clip_norm", "weight_decay", "max_norm")


class Optimizer(ABC):
    """Base class of optimizers.

    Parameters
    ----------
    lr : float
        Learning rate.
    l2 : float
        L2 penalty, L + l2/2 Σ W²: dW ← dW + l2 W. Nielsen's λ is l2 times the number of examples.
    l1 : float
        L1 penalty, L + l1 Σ |W|: dW ← dW + l1 sign(W).
    clip_norm : float, optional
        If ‖dθ‖ exceeds it, dθ ← dθ clip_norm / ‖dθ‖. Pascanu et al. (2013).
    weight_decay : float
        Decoupled decay, W ← W - lr weight_decay W before the step. Loshchilov & Hutter (2019).
    max_norm : float, optional
        Each row of W, the weights of a unit, is scaled back to this norm after a step. Srivastava et al. (2014).

    Penalties, decay and `max_norm` apply to weights, never to biases; `clip_norm` applies to the whole gradient. The
    reported loss does not include the penalties.

    Attributes
    ----------
    state : ndarray of shape (n_slots, n_parameters)
        Vectors that are kept from step to step, such as the velocity.
    steps : int
        Number of steps so far.

    Raises
    ------
    HandgradError
        For invalid values and unknown options.
    """

    n_slots = 0
    learning_rate = Misnamed("the learning rate is lr")

    def __init__(
        self,
        lr: float | None = None,  # required; None only lets the messages below come first
        *,
        l2: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        **unknown: Any,
    ) -> None:
        for option in unknown:
            known = _options(type(self))
            suggestion = "lr" if "rate" in option else closest(option, known)
            hint = f": did you mean '{suggestion}'?" if suggestion else f": expected {', '.join(known)}"
            raise HandgradError(f"{type(self).__name__} has no option '{option}'{hint}")
        self.lr = lr  # type: ignore[assignment]
        self.l2, self.l1 = check_non_negative("l2", l2), check_non_negative("l1", l1)
        self.weight_decay = check_non_negative("weight_decay", weight_decay)
        self.clip_norm = None if clip_norm is None else check_positive("clip_norm", clip_norm)
        self.max_norm = None if max_norm is None else check_positive("max_norm", max_norm)
        self.steps = 0
        self.state: Array = np.zeros((self.n_slots, 0))
        self._network: Network | None = None
        self._parameters: Array | None = None
        self._scales: list[float] = []  # lr_scale of each block

    @property
    def lr(self) -> float:
        """Learning rate, a finite number > 0."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = check_positive("lr", lr)

    @abstractmethod
    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        """Update one block of θ and of the state in place. `scratch` is memory of the block's size; g is only read."""

    def train_step(self, network: Network, x: Array, t: Array, lr: float, weight: float | Array | None = None) -> Array:
        """Compute the gradient on a batch and update the parameters. Returns the logits z (batch, n_out).

        x, t and weight are those of `Network.backprop`.
        """
        z = network.backprop(x, t, weight)
        self.step(network, lr)
        return z

    def step(self, network: Network, lr: float | None = None) -> None:
        """Update the parameters with the gradient of the last `backprop`. `lr` overrides the optimizer's own rate.

        Penalties are added to `network.gradient`, and `clip_norm` scales it, in place.
        """
        lr = self.lr if lr is None else lr
        if network.parameters is not self._parameters:
            self._attach(network)
        self.steps += 1
        gradient = network.gradient  # divides the buffer by gradient_scale, which SGD.train_step sets
        if self.l2 or self.l1 or self.clip_norm:
            self._penalize(gradient)
        if self.weight_decay:
            for (W, _), scale in zip(self._weights, self._weight_scales, strict=True):
                W *= 1 - lr * scale * self.weight_decay
        if self._is_scaled:
            for block, scale in zip(self._blocks, self._scales, strict=True):
                self.update(*block, lr * scale)
        else:  # the same without zip, which takes 0.7 us
            for block in self._blocks:
                self.update(*block, lr)
        if self.max_norm:
            for W, _ in self._weights:
                norms = np.sqrt(np.einsum("ij,ij->i", W, W))
                W *= (self.max_norm / np.maximum(norms, self.max_norm))[:, None]

    def refresh(self) -> None:
        """Look again, at the next step, for layers whose `trainable` or `lr_scale` changed. `Trainer.fit` does so."""
        self._parameters = None

    def _penalize(self, gradient: Array) -> None:
        """Add the derivatives of the penalties, then clip the norm."""
        for W, dW in self._weights:
            if self.l2:
                dW += np.multiply(W, self.l2, out=self._scratch[: W.size].reshape(W.shape))
            if self.l1:
                dW += self.l1 * np.sign(W)
        if self.clip_norm:
            norm = math.sqrt(np.dot(gradient, gradient))
            if norm > self.clip_norm:
                gradient *= self.clip_norm / norm

    def _attach(self, network: Network) -> None:
        """Divide θ, g and the state into blocks with the same `lr_scale`.

        A network with other parameters than the last one starts with an empty state.
        """
        theta, g = network.parameters, network.gradient_buffer
        another = self._network is not None and self._network.parameters is not theta
        if another or self.state.shape[1] == 0:
            self.state = aligned_empty(self.n_slots * theta.size, theta.dtype).reshape(self.n_slots, theta.size)
            self.state[...] = self.steps = 0
        elif self.state.shape[1] != theta.size:
            raise HandgradError(
                f"the optimizer has the state of {self.state.shape[1]:,} parameters, the network has {theta.size:,}"
            )
        scratch = aligned_empty(min(UPDATE_CHUNK, theta.size), theta.dtype)
        self._blocks, self._scales = [], []
        for first, last, scale in _same_scale(network):
            cuts = [slice(begin, min(begin + UPDATE_CHUNK, last)) for begin in range(first, last, UPDATE_CHUNK)]
            self._blocks += [(theta[c], g[c], [s[c] for s in self.state], scratch[: theta[c].size]) for c in cuts]
            self._scales += [scale] * len(cuts)
        frozen = [f for f in network.layers if not f.trainable]
        addresses = {getattr(f, name).ctypes.data for f in frozen for name in f.parameter_shapes}
        self._weights = [(W, dW) for W, dW in network.weights if W.ctypes.data not in addresses]
        scale_at = {getattr(f, name).ctypes.data: f.lr_scale for f in network.layers for name in f.parameter_shapes}
        self._weight_scales = [scale_at[W.ctypes.data] for W, _ in self._weights]
        self._is_scaled = any(scale != 1 for scale in self._scales)
        self._scratch = aligned_empty(max((W.size for W, _ in self._weights), default=0), theta.dtype)
        self._network, self._parameters = network, theta

    def __copy__(self) -> Optimizer:
        """Copy the state too."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the network: a copy continues with the network that it is given."""
        views: dict[str, Any] = {"_network": None, "_parameters": None, "_blocks": [], "_weights": [], "_scratch": None}
        views |= {"_scales": [], "_weight_scales": []}
        return vars(self) | views

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copy the state, which is in a file after joblib.load(..., mmap_mode="r")."""
        vars(self).update(state)
        self.state = np.array(self.state)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue: the class, the state and the number of steps."""
        return {"kind": type(self).__name__, "state": self.state.copy(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises HandgradError if it is invalid or from another class of optimizer."""
        if state["kind"] != type(self).__name__:
            raise HandgradError(f"the checkpoint has the state of {state['kind']}: expected {type(self).__name__}")
        vectors, steps = state["state"], check_int("steps of the optimizer", state["steps"], 0)
        if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or len(vectors) != self.n_slots:
            raise HandgradError(f"invalid state of {type(self).__name__}: expected {self.n_slots} vectors")
        if vectors.dtype.kind != "f" or steps > MAX_STEPS:
            raise HandgradError(f"invalid state of {type(self).__name__}: expected floats, and at most 2^62 steps")
        self.state, self.steps = aligned_empty(vectors.size, vectors.dtype).reshape(vectors.shape), steps
        self.state[...] = vectors
        self._network = self._parameters = None

    def config(self) -> dict[str, Any]:
        """Return the options: lr, those of the subclass, and penalties and limits that are not 0 or None."""
        own = {name: value for name, value in vars(self).items() if name[0] != "_" and name not in ("state", "steps")}
        return {"lr": self.lr} | {name: value for name, value in own.items() if name not in OPTIONS or value}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.config().items())})"


class SGD(Optimizer):
    """Stochastic gradient descent.

    θ ← θ - lr g
    """

    momentum = Misnamed("use the optimizer Momentum or Nesterov")

    def train_step(self, network: Network, x: Array, t: Array, lr: float, weight: float | Array | None = None) -> Array:
        """Compute the gradient on a batch and update the parameters. Returns the logits z (batch, n_out).

        The gradient of lr L is lr g. Scaling the loss instead of g saves a pass over θ: 10 % of a step of 784-30-10.
        """
        if network.parameters is not self._parameters:
            self._attach(network)
        penalized = self.l2 or self.l1 or self.clip_norm or self.weight_decay or self.max_norm
        if penalized or self._is_scaled or not lr or type(self) is not SGD:  # a subclass may have another update
            return super().train_step(network, x, t, lr, weight)
        self.steps += 1
        z = network.backprop(x, t, weight, scale=lr)
        network.parameters -= network.gradient_buffer
        return z

    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        np.multiply(g, lr, out=scratch)
        theta -= scratch


class Momentum(Optimizer):
    """SGD with momentum.

    v ← μ v + g,  θ ← θ - lr v

    As in PyTorch, v does not contain lr, so that a change of lr takes effect at once.

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        μ, in [0, 1).
    **options
        Penalties and limits of `Optimizer`.

    References
    ----------
    Polyak (1964), Some methods of speeding up the convergence of iteration methods.
    """

    n_slots = 1

    def __init__(self, lr: float | None = None, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(lr, **options)
        self.momentum = check_fraction("momentum", momentum)

    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        (v,) = state
        v *= self.momentum
        v += g
        np.multiply(v, lr, out=scratch)
        theta -= scratch


class Nesterov(Momentum):
    """SGD with Nesterov momentum.

    v ← μ v + g,  θ ← θ - lr (g + μ v)

    In PyTorch's form, with θ where the gradient is computed. Parameters as for `Momentum`.

    References
    ----------
    Nesterov (1983); Sutskever et al. (2013), On the importance of initialization and momentum in deep learning.
    """

    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        (v,) = state
        v *= self.momentum
        v += g
        np.multiply(v, self.momentum, out=scratch)
        scratch += g
        scratch *= lr
        theta -= scratch


class Adam(Optimizer):
    """Adam.

    m ← β₁ m + g,  v ← β₂ v + g²,  θ ← θ - lr m̂ / (√v̂ + ε)

    with m̂ = m (1 - β₁) / (1 - β₁ᵗ) and v̂ = v (1 - β₂) / (1 - β₂ᵗ) at step t = 1, 2, ... This is Algorithm 1 of the
    paper with the factors 1 - β taken out of the sums m and v. With v̂ = k² v the step is (lr m̂ / k) / (√v + ε / k),
    which takes 10 passes over the vectors instead of 14.

    Parameters
    ----------
    lr : float
        Learning rate.
    beta_1, beta_2 : float
        β₁ and β₂, in [0, 1).
    epsilon : float
        ε.
    **options
        Penalties and limits of `Optimizer`.

    References
    ----------
    Kingma & Ba (2015), Adam: a method for stochastic optimization.
    """

    n_slots = 2

    def __init__(
        self, lr: float = 1e-3, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8, **options: Any
    ) -> None:
        super().__init__(lr, **options)
        self.beta_1, self.beta_2 = check_fraction("beta_1", beta_1), check_fraction("beta_2", beta_2)
        self.epsilon = check_positive("epsilon", epsilon)

    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        m, v = state
        k = math.sqrt((1 - self.beta_2) / (1 - self.beta_2**self.steps))
        m *= self.beta_1
        m += g
        v *= self.beta_2
        np.multiply(g, g, out=scratch)
        v += scratch
        np.sqrt(v, out=scratch)
        scratch += self.epsilon / k
        np.divide(m, scratch, out=scratch)
        scratch *= lr * (1 - self.beta_1) / (1 - self.beta_1**self.steps) / k
        theta -= scratch


class AdamW(Adam):
    """Adam with decoupled weight decay.

    W ← W - lr weight_decay W, then the step of `Adam`. Parameters as for `Adam`; weight_decay is 0.01 by default.

    References
    ----------
    Loshchilov & Hutter (2019), Decoupled weight decay regularization.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        weight_decay: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(lr, beta_1, beta_2, epsilon, weight_decay=weight_decay, **options)

    def config(self) -> dict[str, Any]:
        return super().config() | {"weight_decay": self.weight_decay}  # also 0, which is not its default


def _same_scale(network: Network) -> list[tuple[int, int, float]]:
    """(first, last, lr_scale) of the longest trainable parts of θ whose layers have the same lr_scale."""
    parts, first = [], 0
    with_parameters = (layer for layer in network.layers if layer.parameter_shapes)
    for (trainable, scale), layers in itertools.groupby(with_parameters, key=lambda f: (f.trainable, f.lr_scale)):
        last = first + sum(math.prod(shape) for layer in layers for shape in layer.parameter_shapes.values())
        if trainable:
            parts.append((first, last, scale))
        first = last
    return parts


def _of_inner(name: str) -> property:
    """A property that reads and sets an option of the inner optimizer."""
    return property(lambda self: getattr(self.inner, name), lambda self, value: setattr(self.inner, name, value))


class Lookahead(Optimizer):
    """Lookahead: k steps of another optimizer, then a step back towards the slow weights.

    after every k steps  φ ← φ + α (θ - φ),  θ ← φ,  with φ = θ at the start

    φ is kept from one training to the next. If you change the weights in between, or if EarlyStopping restores the best
    ones, continue with a new Lookahead.

    The learning rate, the penalties and the limits are those of `inner`: reading and setting them here reads and sets
    them there. The network has the weights θ at any time.

    Parameters
    ----------
    inner : Optimizer
        The optimizer that takes the steps.
    k : int
        Number of steps between synchronizations.
    alpha : float
        α, in (0, 1].

    References
    ----------
    Zhang et al. (2019), Lookahead optimizer: k steps forward, 1 step back.
    """

    n_slots = 1
    lr, l2, l1, clip_norm, weight_decay, max_norm = map(_of_inner, OPTIONS)

    def __init__(self, inner: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        if not isinstance(inner, Optimizer):
            raise HandgradError(f"Lookahead: inner must be an optimizer, as SGD(0.1), got {inner!r}")
        self.inner = inner
        super().__init__(**{name: getattr(inner, name) for name in OPTIONS})
        self.k, self.alpha = check_int("Lookahead: k", k, 1), check_fraction("Lookahead: alpha", alpha, "(0, 1]")

    def refresh(self) -> None:
        super().refresh()
        self.inner.refresh()

    def step(self, network: Network, lr: float | None = None) -> None:
        if network.parameters is not self._parameters:
            self._attach(network)
        lr = self.lr if lr is None else lr
        self.inner.step(network, lr)
        self.steps += 1
        if self.steps % self.k == 0:
            for block in self._blocks:
                self.update(*block, lr)

    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        (phi,) = state
        theta -= phi
        theta *= self.alpha
        phi += theta
        theta[...] = phi

    def _attach(self, network: Network) -> None:
        super()._attach(network)
        if self.steps == 0:
            self.state[0] = network.parameters

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this optimizer and of `inner`."""
        return super().state_dict() | {f"inner.{name}": value for name, value in self.inner.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises HandgradError if it is from another class of optimizer."""
        if state["kind"] == type(self).__name__:
            self.inner.load_state_dict(
                {k.removeprefix("inner."): v for k, v in state.items() if k.startswith("inner.")}
            )
        super().load_state_dict(state)

    def config(self) -> dict[str, Any]:
        return {"inner": self.inner, "k": self.k, "alpha": self.alpha}


def _options(kind: type[Optimizer]) -> list[str]:
    """Names of the constructor arguments of an optimizer and its base classes."""
    import inspect  # late: only error messages need it

    bases = [base for base in kind.__mro__ if issubclass(base, Optimizer)]
    parameters = [p for base in bases for p in inspect.signature(base).parameters.values()]
    return list(dict.fromkeys(p.name for p in parameters if p.kind is not p.VAR_KEYWORD))


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adam": Adam,
    "adamw": AdamW,
}


def make_optimizer(optimizer: str | Optimizer, lr: float | None = None) -> Optimizer:
    """Return an optimizer for a name in OPTIMIZERS, with its default learning rate or `lr`, or an Optimizer unchanged.

    Raises HandgradError for anything else, for an optimizer without a default learning rate, and for an Optimizer with
    an `lr`.
    """
    if isinstance(optimizer, Optimizer):
        if lr is not None:
            raise HandgradError(f"lr is for the name of an optimizer: {optimizer!r} has its own learning rate")
        return optimizer
    if not isinstance(optimizer, str):
        raise HandgradError(
            f"optimizer must be an optimizer, as SGD(0.1), or one of {', '.join(OPTIMIZERS)}, got {optimizer!r}"
        )
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    kind = OPTIMIZERS[optimizer]
    if lr is None and kind in (SGD, Momentum, Nesterov):
        raise HandgradError(
            f"the optimizer '{optimizer}' has no default learning rate: use an object, as SGD(lr=0.1), or lr=0.1"
        )
    return kind() if lr is None else kind(lr)
