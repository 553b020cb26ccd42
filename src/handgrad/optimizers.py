"""How a gradient becomes a step: each optimizer is an equation on two vectors, θ and g = dθ, simplest first.

The vectors are walked in blocks that stay in the processor's cache, so that a chain of whole-vector operations reads
θ and g from memory once, not once an operation. `lr` is the learning rate, a step on the mean loss.
"""

from __future__ import annotations

import copy
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arrays import Array, aligned, as_whole
from .errors import HandgradError
from .network import Network
from .orthogonal import newton_schulz, newton_schulz_room

# Floats of a block: 512 KiB a vector in float32. Adam on 5.8 million parameters: 9.0 ms, against 10.0 in blocks of a
# quarter of that, where calls cost more, and 12.1 in one block, where the cache is left.
BLOCK = 131_072


class Optimizer(ABC):
    """What the optimizers share: penalties and limits on the weights (never on biases), and the walk over blocks.

    l2            L + l2/2 Σ W²:  dW ← dW + l2 W. Nielsen's λ is l2 times the number of examples.
    l1            L + l1 Σ |W|:   dW ← dW + l1 sign(W)
    clip_norm     where ‖dθ‖ exceeds it, dθ ← dθ clip_norm / ‖dθ‖. Pascanu et al. (2013).
    weight_decay  W ← W - lr weight_decay W before the step, apart from the loss. Loshchilov & Hutter (2019).
    max_norm      after the step each row of W, a unit's incoming weights, is scaled back to this norm where it
                  exceeds it. Srivastava et al. (2014).

    The loss that is reported is the loss alone, without the penalties.
    """

    memories = 0  # vectors as long as θ that the optimizer keeps from step to step

    def __init__(
        self,
        lr: float,
        *,
        l2: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
    ) -> None:
        for name, value in {"lr": lr, "clip_norm": clip_norm, "max_norm": max_norm}.items():
            if value is not None and not 0 < value < math.inf:
                raise HandgradError(f"{name} {value}: expected a finite number above 0")
        for name, value in {"l2": l2, "l1": l1, "weight_decay": weight_decay}.items():
            if not 0 <= value < math.inf:
                raise HandgradError(f"{name} {value}: expected a finite number, 0 or more")
        self.lr = lr
        self.l2, self.l1, self.clip_norm = l2, l1, clip_norm
        self.weight_decay, self.max_norm = weight_decay, max_norm
        self.steps = 0
        self.memory: Array = np.zeros((self.memories, 0))
        self._network: Network | None = None
        self._parameters: Array | None = None

    @abstractmethod
    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        """One block's step, in place. `scratch` is room as long as the block; g is only read."""

    def learn(self, network: Network, x: Array, t: Array, lr: float, weight: Array | None = None) -> Array:
        """`network.backprop` on one batch, and the step it calls for: what training does. Returns the outputs z.

        `weight` is as `backprop` takes it, for the loss Σᵢ weightᵢ Lᵢ in place of the mean.
        """
        z = network.backprop(x, t, weight)
        self.step(network, lr)
        return z

    def step(self, network: Network, lr: float | None = None) -> None:
        """One step on what the network's last `backprop` left in its gradient; `lr` in place of the optimizer's own."""
        lr = self.lr if lr is None else lr
        if network.parameters is not self._parameters:
            self._attach(network)
        self.steps += 1
        if self.l2 or self.l1 or self.clip_norm:
            self._shape(network.gradient)
        if self.weight_decay:
            for W, _ in self._weights:
                W *= 1 - lr * self.weight_decay
        for block in self._blocks:
            self.update(*block, lr)
        if self.max_norm:
            for W, _ in self._weights:
                norms = np.sqrt(np.einsum("ij,ij->i", W, W))
                W *= (self.max_norm / np.maximum(norms, self.max_norm))[:, None]

    def _shape(self, gradient: Array) -> None:
        """The penalties' derivatives added, then the norm clipped."""
        for W, dW in self._weights:
            if self.l2:
                dW += np.multiply(W, self.l2, out=self._room[: W.size].reshape(W.shape))
            if self.l1:
                dW += self.l1 * np.sign(W)
        if self.clip_norm:
            norm = math.sqrt(np.dot(gradient, gradient))
            if norm > self.clip_norm:
                gradient *= self.clip_norm / norm

    def _attach(self, network: Network) -> None:
        """Cut θ, g and the memories into blocks; another network than before starts without memories."""
        theta, g = network.parameters, network.gradient
        if self._network not in (None, network) or self.memory.shape[1] == 0:
            self.memory = aligned(self.memories * theta.size, theta.dtype).reshape(self.memories, theta.size)
            self.memory[...] = self.steps = 0
        elif self.memory.shape[1] != theta.size:
            raise HandgradError(
                f"the optimizer's memory is of {self.memory.shape[1]:,} parameters, the network has {theta.size:,}"
            )
        scratch = aligned(min(BLOCK, theta.size), theta.dtype)
        cuts = [slice(first, first + BLOCK) for first in range(0, theta.size, BLOCK)]
        self._blocks = [(theta[c], g[c], [m[c] for m in self.memory], scratch[: theta[c].size]) for c in cuts]
        self._weights = network.weights
        self._room = aligned(max((W.size for W, _ in self._weights), default=0), theta.dtype)  # costs nothing unused
        self._network, self._parameters = network, theta

    def __copy__(self) -> Optimizer:
        """A copy has memories of its own."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """A copy comes without the network, and goes on with the one that it is given."""
        return self.__dict__ | {"_network": None, "_parameters": None, "_blocks": [], "_weights": [], "_room": None}

    def state(self) -> dict[str, Any]:
        """What `restore` needs to continue: the memories (memories, size) and the number of steps."""
        return {"kind": type(self).__name__, "memory": self.memory.copy(), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave. Raises HandgradError where another kind of optimizer gave it."""
        if state["kind"] != type(self).__name__:
            raise HandgradError(f"the checkpoint is of another optimizer: {state['kind']}, not {type(self).__name__}")
        self.memory, self.steps = state["memory"].copy(), state["steps"]
        self._network = self._parameters = None


class SGD(Optimizer):
    """θ ← θ - lr g"""

    def learn(self, network: Network, x: Array, t: Array, lr: float, weight: Array | None = None) -> Array:
        """As every optimizer does; but lr g is the gradient of lr L, so let the loss carry lr: a pass over θ less.

        The one pass is a tenth of a step of [784, 30, 10]. What it leaves in `network.gradient` is lr g.
        """
        shaped = self.l2 or self.l1 or self.clip_norm or self.weight_decay or self.max_norm
        if shaped or type(self) is not SGD:  # a subclass may update otherwise
            return super().learn(network, x, t, lr, weight)
        if network.parameters is not self._parameters:
            self._attach(network)
        self.steps += 1
        z = network.backprop(x, t, lr / len(x) if weight is None else lr * weight)
        network.parameters -= network.gradient
        return z

    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        np.multiply(g, lr, out=scratch)
        theta -= scratch


class Momentum(Optimizer):
    """v ← μ v + g,  θ ← θ - lr v

    Polyak (1964), in PyTorch's form: v does not hold lr, so a change of lr acts at once.
    """

    memories = 1

    def __init__(self, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(lr, **options)
        self.momentum = _share("momentum", momentum)

    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        (v,) = memory
        v *= self.momentum
        v += g
        np.multiply(v, lr, out=scratch)
        theta -= scratch


class Nesterov(Optimizer):
    """v ← μ v + g,  θ ← θ - lr (g + μ v)

    Nesterov (1983) as Sutskever et al. (2013) rewrote it, θ standing where the gradient is taken; PyTorch's form.
    """

    memories = 1

    def __init__(self, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(lr, **options)
        self.momentum = _share("momentum", momentum)

    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        (v,) = memory
        v *= self.momentum
        v += g
        np.multiply(v, self.momentum, out=scratch)
        scratch += g
        scratch *= lr
        theta -= scratch


class Adam(Optimizer):
    """m ← β₁ m + g,  v ← β₂ v + g²,  θ ← θ - lr m̂ / (√v̂ + ε)

    with m̂ = m (1 - β₁) / (1 - β₁ᵗ), v̂ = v (1 - β₂) / (1 - β₂ᵗ) at step t = 1, 2, ...: Kingma & Ba (2015), Algorithm 1,
    its 1 - β taken out of the sums m and v. With v̂ = k² v the step is lr m̂ / k over √v + ε / k: 10 passes, not 14.
    """

    memories = 2

    def __init__(
        self, lr: float = 1e-3, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8, **options: Any
    ) -> None:
        super().__init__(lr, **options)
        self.beta_1, self.beta_2 = _share("beta_1", beta_1), _share("beta_2", beta_2)
        if not 0 < epsilon < math.inf:
            raise HandgradError(f"epsilon {epsilon}: expected a finite number above 0")
        self.epsilon = epsilon

    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        m, v = memory
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


AdamW = functools.partial(Adam, weight_decay=0.01)  # Loshchilov & Hutter (2019): Adam, the decay apart from it


class Muon(Nesterov):
    """v ← μ v + g,  W ← W - lr √max(1, n_out / n_in) U Vᵀ,  U S Vᵀ = g + μ v by its singular values

    for every matrix W (n_out, n_in) but the last, whose rows are classes, not features. Jordan et al. (2024): a step as
    long in every direction, in the rare ones too. `newton_schulz` finds U Vᵀ, near enough, in so many `iterations`.
    The last matrix and all that is no matrix take Nesterov's step, at `lr_vectors` times lr.
    """

    def __init__(
        self, lr: float = 0.02, momentum: float = 0.95, lr_vectors: float = 1.0, iterations: int = 5, **options: Any
    ) -> None:
        super().__init__(lr, momentum, **options)
        if not 0 < lr_vectors < math.inf:
            raise HandgradError(f"lr_vectors {lr_vectors}: expected a finite number above 0")
        self.lr_vectors, self.iterations = lr_vectors, as_whole("iterations", iterations, 1)

    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        """A matrix is a block of its own and comes as one."""
        if theta.ndim == 1:
            super().update(theta, g, memory, scratch, lr * self.lr_vectors)
            return
        (v,) = memory
        v *= self.momentum
        v += g
        u = np.multiply(v, self.momentum, out=scratch[: v.size].reshape(v.shape))
        u += g
        u = newton_schulz(u, self.iterations, scratch[v.size :])
        n_out, n_in = theta.shape
        u *= lr * math.sqrt(max(1, n_out / n_in))
        theta -= u

    def _attach(self, network: Network) -> None:
        """Cut θ into its matrices, and what lies between them into blocks."""
        super()._attach(network)
        named, first = network.named_parameters, 0
        matrices = [name for name, p in named.items() if p.ndim == 2][:-1]
        rooms = [named[name].size + newton_schulz_room(named[name].shape) for name in matrices]
        scratch = aligned(max([min(BLOCK, network.parameters.size), *rooms]), network.dtype)
        self._blocks = []
        for name, p in named.items():
            flat = slice(first, first := first + p.size)
            theta, g, memory = network.parameters[flat], network.gradient[flat], self.memory[:, flat]
            if name in matrices:
                parts = [(theta.reshape(p.shape), g.reshape(p.shape), [m.reshape(p.shape) for m in memory], scratch)]
            else:
                cuts = [slice(begin, begin + BLOCK) for begin in range(0, p.size, BLOCK)]
                parts = [(theta[c], g[c], [m[c] for m in memory], scratch[: theta[c].size]) for c in cuts]
            self._blocks += parts


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise HandgradError(f"{name} {value}: expected a number from 0 up to, but not, 1")
    return value


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adam": Adam,
    "adamw": AdamW,
    "muon": Muon,
}
