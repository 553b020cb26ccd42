"""A training as scikit-learn's MLP has it: its steps, its order of examples, its penalty, its end of an epoch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import shuffle

from ..arrays import Array
from ..model import Evaluation
from ..network import Network
from ..optimizers import Adam, Optimizer
from ..training import Callback, History, Trainer
from .sparse import is_sparse

TINY = float(np.finfo(np.float32).tiny)  # where all of a batch weighs nothing, its gradient is 0


class SklearnSGD(Optimizer):
    """v ← μ v - lr g,  θ ← θ + v;  with `nesterov` θ ← θ + μ v - lr g.

    As Momentum and Nesterov, but for the learning rate inside v: after a change of it the old steps live on. As
    Sutskever et al. (2013) have it, and scikit-learn. The memory is w = μ v, the part of the next step that is known.
    """

    memories = 1

    def __init__(self, lr: float, momentum: float, nesterov: bool) -> None:
        super().__init__(lr)
        self.momentum, self.nesterov = momentum, nesterov

    def train_step(self, network: Network, x: Array, t: Array, lr: float, weight: Array | None = None) -> Array:
        """As every optimizer does, but the loss carries lr, as in SGD: four passes over θ instead of six."""
        z = network.backprop(x, t, lr / len(t) if weight is None else lr * weight)
        l2, self.l2 = self.l2, lr * self.l2
        self.step(network, 1.0)
        self.l2 = l2
        return z

    def update(self, theta: Array, g: Array, memory: Sequence[Array], scratch: Array, lr: float) -> None:
        (w,) = memory
        step = g if lr == 1 else np.multiply(g, lr, out=scratch)
        w -= step  # v
        if self.nesterov:
            w *= self.momentum
            theta -= step
            theta += w
        else:
            theta += w
            w *= self.momentum


class SklearnAdam(Adam):
    """Adam with ε beside √v, not √v̂:  θ ← θ - lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) m / (√v + ε).

    The form that Kingma & Ba (2015) give at the end of section 2, and scikit-learn's. It is that of `Adam` for an ε
    of ε / √(1 - β₂ᵗ) at step t.
    """

    def __init__(self, lr: float, beta_1: float, beta_2: float, epsilon: float) -> None:
        super().__init__(lr, beta_1, beta_2, epsilon)
        self.plain_epsilon = epsilon

    def step(self, network: Network, lr: float | None = None) -> None:
        """As every optimizer does."""
        self.epsilon = self.plain_epsilon / math.sqrt(1 - self.beta_2 ** (self.steps + 1))
        super().step(network, lr)


class SklearnTrainer(Trainer):
    """A trainer whose batches, and the penalty on whose weights, are scikit-learn's.

    alpha     α/2 Σ W² / n is added to the loss of a batch of n examples, or of the weight n
    chance    the RandomState that shuffles the order of the last epoch; None leaves it as it is
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        *,
        alpha: float,
        chance: Any,
        **options: Any,
    ) -> None:
        super().__init__(network, optimizer, rng=0, **options)
        self.alpha, self.chance = alpha, chance
        self.order: NDArray[np.intp] = np.arange(0)
        self.penalty = 0.0  # of this epoch, in the mean over its examples
        self._weights = [W for W, _ in network.weights]

    def run(self, x: Any, t: Array, w: Array | None, epochs: int) -> History:
        """`fit` on what has been seen to fit: x (count, n_in), sparse or not, t (count, n_out), w (count, 1)."""
        self.epochs = epochs
        return self._run(x, t, w, None)

    def _order(self, count: int) -> NDArray[np.intp]:
        if len(self.order) != count:
            self.order = np.arange(count)
        if self.chance is not None:
            self.order = shuffle(self.order, random_state=self.chance)
        self.penalty = 0.0
        return self.order

    def _gather(self, x: Any, chosen: NDArray[np.intp], out: NDArray[Any]) -> None:
        if isinstance(x, np.ndarray):
            super()._gather(x, chosen, out)
        else:
            x[chosen].toarray(out=out)

    def _shuffled_blocks(self, x: Any, t: Array, w: Array | None) -> Iterator[tuple[Any, Array, Array | None]]:
        if not is_sparse(x):
            yield from super()._shuffled_blocks(x, t, w)
            return
        order = self._order(len(t))
        for chosen in np.split(order, range(self.batch_size, len(t), self.batch_size)):
            yield x[chosen], t[chosen], None if w is None else w[chosen]

    def _learn(self, x: Array, t: Array, w: Array | None) -> Array:
        n = len(t) if w is None else max(float(w.sum(dtype=float)), TINY)
        if self.alpha:
            self.optimizer.l2 = self.alpha / n
            squares = sum(float(np.vdot(W, W)) for W in self._weights)
            self.penalty += self.alpha / 2 * squares * len(t) / n / len(self.order)
        if w is not None:  # to a mean of 1 in each batch; a Trainer's have it in the whole of the examples
            w *= len(w) / n
        return super()._learn(x, t, w)


class SklearnCallback(Callback):
    """What scikit-learn's estimators do at the end of an epoch: keep the loss, score, stop, lower the rate.

    estimator   has the parameters, and gets the attributes
    score       gives (evaluation, score) on held-out examples, None where there are none
    once        end after one epoch, as partial_fit does
    """

    def __init__(self, estimator: Any, score: Callable[[], tuple[Evaluation, float]] | None, once: bool) -> None:
        self.estimator, self.score, self.once = estimator, score, once
        self.best_parameters: Array | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """A warm start begins at the best weights so far."""
        self.estimator.best_epoch_ = None
        if self.estimator.early_stopping and self.estimator.validation_scores_:
            self.best_parameters = trainer.network.parameters.copy()

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Count the epoch, and let the estimator's settings say what follows from it."""
        estimator, optimizer = self.estimator, trainer.optimizer
        assert isinstance(trainer, SklearnTrainer)
        estimator.n_iter_ += 1
        estimator.t_ += len(trainer.order)
        if estimator._multilabel:
            trainer.history.pop("accuracy")  # it takes the likeliest label for the only one
        loss = trainer.history["loss"][-1]
        if estimator.loss == "squared_error" and not trainer.network.loss.is_classification:
            loss /= estimator.n_outputs_  # scikit-learn tells the mean over the outputs, and follows the sum's gradient
        estimator.loss_ = loss + trainer.penalty
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        stalled = self._stalled(trainer)
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
            optimizer.lr = estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t
        if stalled > estimator.n_iter_no_change:
            self._stop_or_slow_down(trainer)
        if self.once:
            trainer.stop = True
        elif estimator.n_iter_ == estimator.max_iter and not trainer.stop:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _stalled(self, trainer: Trainer) -> int:
        """The number of epochs in a row that brought nothing."""
        estimator = self.estimator
        if self.score is not None:
            trainer.validation, val_score = self.score()
            trainer.history.setdefault("val_loss", []).append(trainer.validation.loss)
            trainer.history.setdefault("val_score", []).append(val_score)
        if not estimator.early_stopping:
            better = estimator.loss_ <= estimator.best_loss_ - estimator.tol
            estimator.best_loss_ = min(estimator.best_loss_, estimator.loss_)
        else:
            estimator.validation_scores_.append(val_score)
            if estimator.verbose:
                print(f"Validation score: {val_score:f}")
            better = val_score >= estimator.best_validation_score_ + estimator.tol
            if val_score > estimator.best_validation_score_:
                estimator.best_validation_score_, estimator.best_epoch_ = val_score, estimator.n_iter_
                self.best_parameters = trainer.network.parameters.copy()
        stalled: int = 0 if better else estimator._no_improvement_count + 1
        estimator._no_improvement_count = stalled
        return stalled

    def _stop_or_slow_down(self, trainer: Trainer) -> None:
        estimator, optimizer = self.estimator, trainer.optimizer
        what = "Validation score" if estimator.early_stopping else "Training loss"
        message = f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} "
        message += "consecutive epochs."
        if estimator.solver != "sgd" or estimator.learning_rate != "adaptive":
            trainer.stop, message = True, f"{message} Stopping."
        elif optimizer.lr <= 1e-6:
            trainer.stop, message = True, f"{message} Learning rate too small. Stopping."
        else:
            optimizer.lr /= 5
            estimator._no_improvement_count = 0
            message = f"{message} Setting learning rate to {optimizer.lr:f}"
        if estimator.verbose:
            print(message)
