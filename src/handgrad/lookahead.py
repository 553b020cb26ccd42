"""An optimizer that lets another one go ahead, and follows part of the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arrays import Array, as_whole
from .errors import HandgradError
from .network import Network
from .optimizers import Optimizer


class Lookahead(Optimizer):
    """θ by the steps of another optimizer, and after every k of them  φ ← φ + α (θ - φ),  θ ← φ

    with φ = θ at the start: k steps ahead, and back to a share α of the way. Zhang et al. (2019). Penalties and limits
    are those of `inner`, and so is the rate. The network is evaluated where it stands, at θ.
    """

    memories = 1

    def __init__(self, inner: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        if not isinstance(inner, Optimizer):
            raise HandgradError(f"inner {inner!r}: expected the optimizer that takes the steps, as SGD(0.1)")
        if not 0 < alpha <= 1:
            raise HandgradError(f"alpha {alpha}: expected a number above 0, up to 1")
        super().__init__(inner.lr)
        self.inner, self.k, self.alpha = inner, as_whole("k", k, 1), alpha

    def step(self, network: Network, lr: float | None = None) -> None:
        if network.parameters is not self._parameters:
            self._attach(network)
        lr = self.lr if lr is None else lr
        self.inner.step(network, lr)
        self.steps += 1
        if self.steps % self.k == 0:
            for block in self._blocks:
                self.update(*block, lr)

    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        (phi,) = memory
        theta -= phi
        theta *= self.alpha
        phi += theta
        theta[...] = phi

    def _attach(self, network: Network) -> None:
        super()._attach(network)
        if self.steps == 0:
            self.memory[0] = network.parameters

    def state(self) -> dict[str, Any]:
        """Its own, and that of `inner`."""
        return super().state() | {f"inner.{name}": value for name, value in self.inner.state().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave. Raises HandgradError where another kind of optimizer, or inner one, did."""
        if state["kind"] == type(self).__name__:
            self.inner.restore({k.removeprefix("inner."): v for k, v in state.items() if k.startswith("inner.")})
        super().restore(state)
