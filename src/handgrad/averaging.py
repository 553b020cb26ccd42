"""Averaged weights: the network ends with a mean of the weights that training went through, not with the last ones.

    trainer = Trainer(network, SGD(lr=0.5), callbacks=[ExponentialAverage(0.99)])

The last steps wander about a minimum, each by the noise of its batch; their mean lies nearer to it. All of θ is
averaged, running statistics included: a mean of statistics, not the statistics of the mean, which a pass over the data
would give; where the learning rate has fallen to nothing the two are all but the same.

While training lasts the network has its raw weights, and the history's numbers, validation too, are those of the raw
weights. The mean goes into the network at the end of a `fit`. The raw weights are kept, and the next `fit` goes on from
them as if there had been one; unless θ was set to something else in between: then training goes on from that, and the
mean begins anew. It does so too with another trainer, and after a `fit` that broke off within an epoch. Of two
callbacks that end a `fit` with weights of their own the last in the list has its way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from .arrays import Array, aligned, as_whole
from .errors import HandgradError
from .optimizers import BLOCK
from .training import Callback, Trainer


class _Average(Callback, ABC):
    """μ ← μ + r (θ - μ) after each step, with the share r that a subclass gives it; the first time μ = θ."""

    def __init__(self) -> None:
        self.average: Array = np.empty(0, np.float32)  # μ
        self.count = 0  # how many θ are in it
        self.raw: Array | None = None  # θ as training left it, while the network has μ
        self._trainer: Trainer | None = None
        self._within = False  # an epoch that has begun, and not ended

    def __getstate__(self) -> dict[str, Any]:
        """A copy comes without the trainer, and goes on with the one that it is given."""
        return {name: value for name, value in vars(self).items() if name != "_blocks"} | {"_trainer": None}

    @abstractmethod
    def share(self, trainer: Trainer) -> float:
        """r of this step, 0 where there is nothing to do. It counts `count`."""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Bring the raw weights back, make room, forget what another training left."""
        theta = trainer.network.parameters
        ours = self.raw is None or np.array_equal(theta, self.average)
        if self._trainer not in (None, trainer) or self._within or not ours:
            self.count = 0
        elif self.raw is not None:
            theta[...] = self.raw
        if self.count == 0:
            self.average = aligned(theta.size, theta.dtype)
        self.raw, self._trainer, self._within = None, trainer, False
        cuts = [slice(first, first + BLOCK) for first in range(0, theta.size, BLOCK)]
        scratch = aligned(min(BLOCK, theta.size), theta.dtype)
        self._blocks = [(theta[c], self.average[c], scratch[: theta[c].size]) for c in cuts]

    def on_batch_end(self, trainer: Trainer) -> None:
        """Take the new θ in."""
        self._within = True
        share = self.share(trainer)
        if self.count == 1 and share:
            self.average[...] = trainer.network.parameters
        elif share:
            for theta, average, scratch in self._blocks:  # while they are in the cache, as an optimizer's
                np.subtract(theta, average, out=scratch)
                scratch *= share
                average += scratch

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._within = False

    def on_train_end(self, trainer: Trainer) -> None:
        """Let the network have the mean, where there is one."""
        if self.count:
            self.raw = trainer.network.parameters.copy()
            trainer.network.parameters[...] = self.average

    def state(self) -> dict[str, Any]:
        """The mean so far, and the raw weights where the network does not have them."""
        return {"average": self.average.copy() if self.count else None, "count": self.count, "raw": self.raw}

    def restore(self, state: dict[str, Any]) -> None:
        """Take both from a checkpoint."""
        self.count, self.raw = state["count"], state["raw"]
        if self.count:
            self.average = state["average"].copy()
        self._trainer, self._within = None, False


class ExponentialAverage(_Average):
    """μ = (1 - d) Σᵢ dᵗ⁻ⁱ θᵢ / (1 - dᵗ) over the steps i = 1 ... t, that is  μ ← μ + (1 - d) / (1 - dᵗ) (θ - μ)

    d is `decay`: the mean of the last 1 / (1 - d) steps or so. The division, Adam's, makes the weights' sum 1, so that
    the network as it was born has no part in it. With `every` n only each n-th θ is taken in, with dⁿ for d: over as
    many steps, at an n-th of the cost, which is a pass over θ and μ.
    """

    def __init__(self, decay: float = 0.999, *, every: int = 1) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise HandgradError(f"decay {decay}: expected a number from 0 up to, but not, 1")
        self.decay, self.every = float(decay), as_whole("every", every, 1)

    def share(self, trainer: Trainer) -> float:
        if (trainer.epoch * trainer.batches + trainer.batch) % self.every:
            return 0.0
        self.count += 1
        d = self.decay**self.every
        return (1 - d) / (1 - d**self.count)


class WeightAverage(_Average):
    """μ, the plain mean of θ after each step from the share `start` of the run on, 0 the beginning and 1 the end.

    Izmailov et al. (2018) take θ once an epoch; here it is each step, so that a run of few epochs has a mean as well,
    at a pass over θ and μ. A run that stops before `start` ends with its raw weights. With more epochs for the same
    trainer the run is longer, and what was averaged before its `start` is forgotten.
    """

    def __init__(self, start: float = 0.75) -> None:
        super().__init__()
        if not 0 <= start < 1:
            raise HandgradError(f"start {start}: expected a share of the run, from 0 up to, but not, 1")
        self.start = start

    def share(self, trainer: Trainer) -> float:
        if trainer.epoch * trainer.batches + trainer.batch < self.start * trainer.epochs * trainer.batches:
            self.count = 0
            return 0.0
        self.count += 1
        return 1 / self.count
