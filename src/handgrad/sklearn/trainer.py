"""Training as scikit-learn's MLP does it: optimizers, sample order, L2 penalty, end of an epoch."""

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

LIGHT = 1e-3  # smallest total weight of a batch, relative to the other batches, that its penalty is divided by

# Computes the evaluation and the score of the validation set.
Scorer = Callable[[], tuple[Evaluation, float]]


class SklearnSGD(Optimizer):
    """SGD with the momentum of scikit-learn.

    v ← μ v - lr g,  θ ← θ + v;  with Nesterov momentum  θ ← θ + μ v - lr g

    `Momentum` and `Nesterov` differ in that their v does not contain the learning rate. Here a change of the learning
    rate does not change earlier steps. The state is μ v, the known part of the next step.

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        μ, in [0, 1].
    nesterov : bool
        Use Nesterov momentum.

    References
    ----------
    Sutskever et al. (2013), On the importance of initialization and momentum in deep learning.
    """

    n_slots = 1

    def __init__(self, lr: float, momentum: float, nesterov: bool) -> None:
        super().__init__(lr)
        self.momentum, self.nesterov = momentum, nesterov

    def train_step(self, network: Network, x: Array, t: Array, lr: float, weight: float | Array | None = None) -> Array:
        """Compute the gradient on a batch and update the parameters. Returns the logits z (batch, n_out).

        As in `SGD`, the loss contains the factor lr: four passes over θ instead of six.
        """
        if network.parameters is not self._parameters:
            self._attach(network)
        if not lr or self._is_scaled:
            return super().train_step(network, x, t, lr, weight)
        self.steps += 1
        z = network.backprop(x, t, weight, scale=lr)
        if self.l2:
            for W, dW in self._weights:
                dW += np.multiply(W, lr * self.l2, out=self._scratch[: W.size].reshape(W.shape))
        for block in self._blocks:
            self.update(*block, 1.0)
        return z

    def update(self, theta: Array, g: Array, state: Sequence[Array], scratch: Array, lr: float) -> None:
        (mu_v,) = state
        step = g if lr == 1 else np.multiply(g, lr, out=scratch)
        mu_v -= step  # v
        if self.nesterov:
            mu_v *= self.momentum
            theta -= step
            theta += mu_v
        else:
            theta += mu_v
            mu_v *= self.momentum


class SklearnAdam(Adam):
    """Adam with the ε of scikit-learn, which is added to √v instead of √v̂.

    θ ← θ - lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) m / (√v + ε)

    This is the form at the end of section 2 of the paper. It is `Adam` with the ε of step t equal to ε / √(1 - β₂ᵗ).

    Parameters
    ----------
    lr : float
        Learning rate.
    beta_1, beta_2 : float
        β₁ and β₂, in [0, 1).
    epsilon : float
        ε.

    References
    ----------
    Kingma & Ba (2015), Adam: a method for stochastic optimization.
    """

    def __init__(self, lr: float, beta_1: float, beta_2: float, epsilon: float) -> None:
        super().__init__(lr, beta_1, beta_2, epsilon)
        self.sklearn_epsilon = epsilon

    def step(self, network: Network, lr: float | None = None) -> None:
        self.epsilon = self.sklearn_epsilon / math.sqrt(1 - self.beta_2 ** (self.steps + 1))
        super().step(network, lr)


class SklearnTrainer(Trainer):
    """A trainer with the batches, the L2 penalty and the validation score of scikit-learn.

    Parameters
    ----------
    network : Network
        The network to train.
    optimizer : Optimizer
        The update rule.
    alpha : float
        α/2 Σ W² / n is added to the loss of a batch, with n the number, or the total weight, of its examples. A batch
        of a very small total weight has a larger n, so that its penalty does not shrink the weights to 0.
    random_state : numpy.random.RandomState or None
        Shuffles the sample order of the last epoch; None does not shuffle.
    score : callable, optional
        Returns the evaluation and the score of the validation set.
    multilabel : bool
        Whether an example can have several classes. Accuracy, which assumes one class, is then not recorded.
    **options
        Passed to `Trainer`.

    Attributes
    ----------
    sample_order : ndarray of shape (n_samples,)
        Order of the examples in the last epoch.
    penalty : float
        Mean of the L2 penalty over the examples of the last epoch.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        *,
        alpha: float,
        random_state: Any,
        score: Scorer | None = None,
        multilabel: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, optimizer, rng=0, **options)
        self.alpha, self.random_state = alpha, random_state
        self.score, self.multilabel = score, multilabel
        self.sample_order: NDArray[np.intp] = np.arange(0)
        self.penalty = 0.0
        self._weight_matrices = [W for W, _ in network.weights]

    def run(self, x: Any, t: Array, w: NDArray[np.float64] | None, epochs: range, schedule_epochs: range) -> History:
        """Train on validated inputs.

        Parameters
        ----------
        x : ndarray or sparse matrix of shape (n_samples, n_features)
            Examples.
        t : ndarray of shape (n_samples, n_outputs)
            Targets.
        w : ndarray of shape (n_samples, 1) or None
            Sample weights > 0.
        epochs : range
            Epochs to train.
        schedule_epochs : range
            Epochs over which the learning rate schedule runs.
        """
        self.epoch = self.first_epoch = epochs.start
        self._epochs, self._schedule_epochs = epochs.stop, schedule_epochs
        self._mean_weight = 1.0 if w is None else float(w.mean())
        self.has_validation = self.score is not None
        return self._run(x, t, w, None)

    def _lr(self) -> float:
        return self._scheduled_lr(self._schedule_epochs.start, self._schedule_epochs.stop)

    def _permutation(self, count: int) -> NDArray[np.intp]:
        if len(self.sample_order) != count:
            self.sample_order = np.arange(count)
        if self.random_state is not None:
            self.sample_order = shuffle(self.sample_order, random_state=self.random_state)
        self.penalty = 0.0
        return self.sample_order

    def _gather(self, x: Any, chosen: NDArray[np.intp], out: NDArray[Any]) -> None:
        if isinstance(x, np.ndarray):
            super()._gather(x, chosen, out)
        else:
            x[chosen].toarray(out=out)

    def _shuffled_blocks(self, x: Any, t: Array, w: Array | None) -> Iterator[tuple[Any, Array, Array | None]]:
        if not is_sparse(x):
            yield from super()._shuffled_blocks(x, t, w)
            return
        order = self._permutation(len(t))
        for chosen in np.split(order, range(self._batch_size, len(t), self._batch_size)):
            yield x[chosen], t[chosen], None if w is None else w[chosen]

    def _train_step(self, x: Array, t: Array, w: Array | None) -> Array:
        n: float = len(t)
        if w is not None:
            total, usual = float(w.sum()), len(t) * self._mean_weight
            # A step multiplies W by 1 - lr α / n. If the batch is lighter than usual, the factor is at least 0.99.
            n = max(total, min(usual, max(LIGHT * usual, 100 * self._lr() * self.alpha)))
            with np.errstate(under="ignore"):  # a mean of 1 over each batch, in place: the reported loss uses it too
                w /= total
                w *= len(w)
                w = w.astype(self.network.dtype, copy=False)
        if self.alpha:
            self.optimizer.l2 = self.alpha / n
            squares = sum(float(np.vdot(W, W)) for W in self._weight_matrices)
            self.penalty += self.alpha / 2 * squares * len(t) / n / len(self.sample_order)
        return super()._train_step(x, t, w)

    def _record(self) -> None:
        if self.multilabel:
            self.metrics.pop("accuracy")
        if self.score is not None:
            self.validation, score = self.score()
            self.metrics |= {"val_loss": self.validation.loss, "val_score": score}
            if self.validation.accuracy is not None:  # without weights, as the accuracy of the training set
                self.metrics["val_accuracy"] = self.validation.accuracy
        super()._record()


class SklearnCallback(Callback):
    """End of an epoch as in scikit-learn: record the loss, stop, reduce the learning rate.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Has the parameters and receives the fitted attributes.
    incremental : bool
        Whether this is a `partial_fit`, which does not warn about a missing convergence.

    Attributes
    ----------
    best_parameters : ndarray or None
        With early stopping, the parameters of the epoch with the best validation score.
    """

    def __init__(self, estimator: Any, incremental: bool) -> None:
        self.estimator, self.incremental = estimator, incremental
        self.best_parameters: Array | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """With early stopping, a warm start begins with the best weights so far."""
        self.estimator.best_epoch_ = None
        if self.estimator.early_stopping and self.estimator.validation_scores_:
            self.best_parameters = trainer.network.parameters.copy()

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Update the fitted attributes, then stop or reduce the learning rate if the estimator's parameters say so."""
        estimator, optimizer = self.estimator, trainer.optimizer
        assert isinstance(trainer, SklearnTrainer)
        estimator.n_iter_ += 1
        estimator.t_ += len(trainer.sample_order)
        estimator.loss_ = trainer.metrics["loss"] / estimator._loss_divisor() + trainer.penalty
        estimator.loss_curve_.append(estimator.loss_)
        if estimator.verbose:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        improved = self._score_improved(trainer) if estimator.early_stopping else self._loss_improved()
        estimator._no_improvement_count = 0 if improved else estimator._no_improvement_count + 1
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
            optimizer.lr = estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t
        if estimator._no_improvement_count > estimator.n_iter_no_change:
            self._stop_or_reduce_lr(trainer)
        if estimator.n_iter_ == estimator.max_iter and not trainer.stop and not self.incremental:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def record_divergence(self) -> None:
        """Record an epoch that was not completed, because its weights are not finite: every number is NaN."""
        estimator = self.estimator
        estimator.n_iter_ += 1
        estimator.loss_ = math.nan
        for values in (*estimator.history_.values(), estimator.loss_curve_, estimator.validation_scores_):
            values.append(math.nan)

    def _loss_improved(self) -> bool:
        estimator = self.estimator
        improved: bool = estimator.loss_ <= estimator.best_loss_ - estimator.tol
        estimator.best_loss_ = min(estimator.best_loss_, estimator.loss_)
        return improved

    def _score_improved(self, trainer: Trainer) -> bool:
        estimator, score = self.estimator, trainer.metrics["val_score"]
        estimator.validation_scores_.append(score)
        if estimator.verbose:
            print(f"Validation score: {score:f}")
        improved: bool = score >= estimator.best_validation_score_ + estimator.tol
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_, estimator.best_epoch_ = score, estimator.n_iter_
            self.best_parameters = trainer.network.parameters.copy()
        return improved

    def _stop_or_reduce_lr(self, trainer: Trainer) -> None:
        estimator, optimizer = self.estimator, trainer.optimizer
        monitored = "Validation score" if estimator.early_stopping else "Training loss"
        message = f"{monitored} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} "
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
