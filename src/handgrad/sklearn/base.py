"""What MLPClassifier and MLPRegressor share: all but the kind of their targets."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .._blas import blas_threads
from ..arrays import Array
from ..initializers import INITIALIZERS
from ..layers import ACTIVATIONS, Dense, Dropout, Layer, Sigmoid
from ..losses import Loss, Poisson, Quadratic, CrossEntropy
from ..model import Evaluation
from ..muon import Muon
from ..network import Network
from ..optimizers import Adam, Momentum, Nesterov, Optimizer
from ..schedules import SCHEDULES, Schedule
from ..training import Callback
from .lbfgs import fit_lbfgs
from .sparse import blocks_of, maybe_sparse
from .trainer import SklearnTrainer, SklearnAdam, SklearnCallback, SklearnSGD

ACTIVATIONS_HERE = {**ACTIVATIONS, "logistic": ACTIVATIONS["sigmoid"]}  # by scikit-learn's names and by handgrad's
SOLVERS = ("lbfgs", "sgd", "adam", "momentum", "nesterov", "adamw", "muon")


# What a training by epochs leaves, and one by lbfgs does not.
RECORD = ("history_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "best_epoch_")


class MLP(BaseEstimator, ABC):
    """A multi-layer perceptron, as scikit-learn has it."""

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's name and type)
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS_HERE)), "array-like"],
        "solver": [StrOptions(set(SOLVERS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "init": [StrOptions(set(INITIALIZERS)), None],
        "schedule": [StrOptions(set(SCHEDULES)), callable, None],
        "callbacks": [list, tuple],
        "dtype": [Options(object, {np.float32, np.float64, "float32", "float64"}), np.dtype, None],
    }

    hidden_layer_sizes: ArrayLike
    activation: str | Sequence[str]
    solver: str
    alpha: float
    batch_size: Any  # a whole number, or "auto"
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: bool
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: int
    max_fun: int
    loss: str | Loss
    dropout: float | Sequence[float]
    init: str | None
    schedule: str | Schedule | None
    callbacks: Sequence[Callback]
    dtype: DTypeLike | None

    _multilabel = False

    network_: Network
    n_outputs_: int
    t_: int

    # ---- SklearnTrainer -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Train on X (n_samples, n_features), dense or sparse, and y (n_samples,) or (n_samples, n_outputs).

        The loss of a batch is the mean by sample_weight (n_samples,). X_val, y_val are watched by `early_stopping` in
        place of a part of X; without it their loss and score are in `history_` all the same. That has a list for each
        of loss (without the penalty, which `loss_curve_` has), accuracy, val_loss, val_score, lr and seconds, a number
        an epoch. `network_` is the handgrad.Network that was trained; `best_epoch_` the epoch that early stopping
        brought back, counted within this fit.
        """
        self._validate_params()
        alone = all(value is None for value in (X_val, y_val, sample_weight_val))
        held_out = None if alone else (X_val, y_val, sample_weight_val)
        return self._fit(X, y, sample_weight, once=False, held_out=held_out)

    def _fit(self, X: Any, y: Any, sample_weight: Any, once: bool, held_out: Any = None) -> Self:
        before = dict(self.__dict__)
        try:
            X, y, w, held_out = self._prepared(X, y, sample_weight, once, held_out)
        except BaseException:  # what was learnt before is not lost to what cannot be learnt from
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        with blas_threads(self.network_, self._batch_size(len(y))):
            if self.solver == "lbfgs":
                fit_lbfgs(self, X, self._targets(y), w)
            else:
                self._fit_stochastic(X, y, w, once, held_out)
        return self

    def _prepared(self, X: Any, y: Any, sample_weight: Any, once: bool, held_out: Any) -> tuple[Any, Any, Any, Any]:
        """X, y, their weights and the held-out examples as training takes them, and the network that they fit."""
        self._check_new_parameters(once, held_out)
        goes_on = hasattr(self, "network_") and (self.warm_start or once)
        X, y = self._checked(X, y, once, reset=not goes_on)
        w = self._weights(X, y, sample_weight)
        if held_out is not None:
            held_out = self._held_out(*held_out)
        if not goes_on:
            self._begin(X.shape[1], y.shape[1], self.dtype or X.dtype)
        elif y.shape[1] != self.n_outputs_ or not self._is_as_described(X.shape[1]):
            raise ValueError(
                "the layers, the loss or the number of outputs are not those of the fit that this one goes on from: "
                "expected the same, or warm_start=False"
            )
        elif self.solver != "lbfgs":
            scored = self.__dict__.get("validation_scores_") is not None
            if not hasattr(self, "history_") or bool(self.early_stopping) != scored:
                self._begin_record()
        dtype = self.network_.dtype
        return _as_dtype("X", X, dtype), y, None if w is None else _as_dtype("sample_weight", w, dtype), held_out

    def _check_new_parameters(self, once: bool, held_out: Any) -> None:
        """What scikit-learn's own check of parameters does not see. Raises ValueError."""
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise ValueError(f"callbacks holds {callback!r}: expected handgrad.Callback objects")
        if self.solver == "lbfgs" and (self.schedule is not None or len(self.callbacks) or held_out is not None):
            raise ValueError("lbfgs has no epochs: expected no schedule, no callbacks and no X_val with it")
        if once and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")

    def _begin(self, n_in: int, n_out: int, dtype: DTypeLike) -> None:
        """A network that knows nothing yet, and the record of its training."""
        self._random_state = check_random_state(self.random_state)
        self.n_outputs_, self.n_iter_, self.t_ = n_out, 0, 0
        self.network_ = self._network(n_in, dtype)
        names = tuple(map(str, getattr(self, "classes_", ())))
        if len(names) == self.network_.n_classes:
            self.network_.classes = names
        self.n_layers_ = 1 + sum(isinstance(layer, Dense) for layer in self.network_.layers)
        self._optimizer: Optimizer | None = None
        self._settings: list[Any] = []
        self._order = np.arange(0)
        for name in RECORD:
            self.__dict__.pop(name, None)
        if self.solver != "lbfgs":
            self._begin_record()

    def _begin_record(self) -> None:
        """The record of a training whose loss, or score where it stops early, has not been seen yet."""
        self.history_: dict[str, list[float]] = {}
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_ = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None
        self.best_epoch_: int | None = None

    def _network(self, n_in: int, dtype: DTypeLike) -> Network:
        """The network that the parameters describe, with the weights that scikit-learn would draw, or `init`'s."""
        chain, loss = self._chain(n_in), self._loss()
        seed = copy.deepcopy(self._random_state).randint(2**31)  # dropout leaves weights and batches what they are
        network = Network(chain, loss=loss, rng=seed, dtype=dtype)
        if self.init is None:
            activations = [activation for _, activation, _ in self._hidden()]
            last = activations[-1] if activations else self.activation
            dense = [layer for layer in chain if isinstance(layer, Dense)]
            for layer, activation in zip(dense, [*activations, last], strict=True):
                factor = 2 if activation in ("logistic", "sigmoid") else 6
                bound = np.sqrt(factor / (layer.n_in + layer.n_out))  # Glorot & Bengio (2010), the biases too
                layer.W[...] = self._random_state.uniform(-bound, bound, (layer.n_in, layer.n_out)).T
                layer.b[...] = self._random_state.uniform(-bound, bound, layer.n_out)
        return network

    def _is_as_described(self, n_in: int) -> bool:
        """Whether the network is still the one that the parameters describe."""
        return repr((self._chain(n_in), self._loss())) == repr((self.network_.layers, self.network_.loss))

    def _chain(self, n_in: int) -> list[Layer]:
        """The layers that the parameters describe."""
        chain: list[Layer] = []
        for n_out, activation, rate in self._hidden():
            chain.append(Dense(n_in, n_out, self.init or "xavier_uniform"))
            chain += [ACTIVATIONS_HERE[activation]()] if activation != "identity" else []
            chain += [Dropout(rate)] if rate else []
            n_in = n_out
        chain.append(Dense(n_in, self.n_outputs_, self.init or "xavier_uniform"))
        return [*chain, Sigmoid()] if isinstance(self._loss(), Quadratic) else chain

    def _hidden(self) -> list[tuple[int, str, float]]:
        """(size, activation, rate of dropout) of each hidden layer."""
        if np.ndim(self.hidden_layer_sizes) > 1:
            raise ValueError(f"hidden_layer_sizes={self.hidden_layer_sizes!r}: expected one size for each layer")
        given = np.atleast_1d(self.hidden_layer_sizes).astype(float)
        sizes = [int(n) for n in given]
        if not all(n >= 1 and n == size for n, size in zip(given, sizes, strict=True)):
            raise ValueError(f"hidden_layer_sizes must be > 0, and whole, got {self.hidden_layer_sizes}.")
        activations = self._for_each("activation", len(sizes))
        if not all(isinstance(name, str) and name in ACTIVATIONS_HERE for name in activations):
            raise ValueError(
                f"activation={self.activation!r}: expected names among {', '.join(sorted(ACTIVATIONS_HERE))}"
            )
        rates = self._for_each("dropout", len(sizes))
        if not all(isinstance(rate, Real) and 0 <= float(rate) < 1 for rate in rates):
            raise ValueError(f"dropout={self.dropout!r}: expected rates from 0 up to, but not, 1")
        if any(rates) and self.solver == "lbfgs":
            raise ValueError("dropout with lbfgs: expected a stochastic solver, for its loss changes at every look")
        return list(zip(sizes, activations, rates, strict=True))

    def _for_each(self, name: str, hidden: int) -> list[Any]:
        """A parameter as one value for each of so many hidden layers."""
        given = getattr(self, name)
        if isinstance(given, str | Real):
            return [given] * hidden
        if len(given) != hidden:
            raise ValueError(f"{name}={given!r}: expected one for each of the {hidden} hidden layers, or one for all")
        return list(given)

    def _make_optimizer(self) -> Optimizer:
        lr = float(self.learning_rate_init)
        betas = self.beta_1, self.beta_2, self.epsilon
        if self.solver == "sgd":
            return SklearnSGD(lr, self.momentum, self.nesterovs_momentum)
        if self.solver == "adam":
            return SklearnAdam(lr, *betas)
        if self.solver == "adamw":
            return Adam(lr, *betas, weight_decay=self.alpha)
        return {"momentum": Momentum, "nesterov": Nesterov, "muon": Muon}[self.solver](lr, self.momentum)

    def _optimizer_to_go_on_with(self) -> Optimizer:
        """The one that stands from before; or a new one, with the memory of the old where the two are of a kind."""
        optimizer, before = self._make_optimizer(), self._optimizer
        names = ("solver", "learning_rate", "learning_rate_init", "momentum", "nesterovs_momentum", "beta_1", "beta_2")
        settings = [getattr(self, name) for name in (*names, "epsilon", "alpha")]
        if before is not None and settings == self._settings:
            return before
        if type(before) is type(optimizer):
            optimizer.restore(before.state())
        self._settings = settings
        return optimizer

    def _batch_size(self, count: int) -> int:
        return min(200, count) if self.batch_size == "auto" else min(self.batch_size, count)

    def _fit_stochastic(self, X: Any, y: Any, w: Any, once: bool, held_out: Any) -> None:
        if self.early_stopping and held_out is None:
            X, y, w, held_out = self._split(X, y, w)
        if self.batch_size != "auto" and self.batch_size > len(y):
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=4
            )
        self._optimizer = self._optimizer_to_go_on_with()
        score = None if held_out is None else self._scorer(*held_out)
        self.n_iter_ = 0
        progress = SklearnCallback(self, score, once)
        fitting = SklearnTrainer(
            maybe_sparse(self.network_, X),
            self._optimizer,
            alpha=0.0 if self.solver == "adamw" else self.alpha,
            chance=self._random_state if self.shuffle else None,
            batch_size=self._batch_size(len(y)),
            schedule=SCHEDULES[self.schedule]() if isinstance(self.schedule, str) else self.schedule,
            callbacks=[progress, *self.callbacks],
        )
        fitting.order, fitting.history = self._order, self.history_
        if once:
            fitting.epoch = len(self.loss_curve_)  # a schedule goes on over max_iter calls
        try:
            fitting.run(X, self._targets(y), w, max(self.max_iter, fitting.epoch + 1))
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        finally:
            self._order = fitting.order
        if progress.best_parameters is not None:  # last, whatever weights a callback left
            self.network_.parameters[...] = progress.best_parameters

    def _split(self, X: Any, y: Any, w: Any) -> tuple[Any, Any, Any, Any]:
        """(X, y, w) to train on and those to score, by `validation_fraction`."""
        parts = [X, y] if w is None else [X, y, w]
        stratify = y if is_classifier(self) and self.n_outputs_ == 1 else None
        parts = train_test_split(
            *parts, random_state=self._random_state, test_size=self.validation_fraction, stratify=stratify
        )
        train, held_out = parts[::2], parts[1::2]
        if len(held_out[1]) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        X, y, w = (*train, None)[:3]
        return X, y, w, (*held_out, None)[:3]

    def _held_out(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """X_val, y_val and their weights, checked as X and y were."""
        if X is None or y is None:
            raise ValueError("X_val and y_val go together: expected both or neither")
        X, y = self._checked(X, y, once=True, reset=False)
        if len(y) < 2:
            raise ValueError(f"X_val has {len(y)} example: expected 2 or more to score")
        return X, y, self._weights(X, y, sample_weight, held_out=True)

    def _scorer(self, X: Any, y: Any, w: Any) -> Callable[[], tuple[Evaluation, float]]:
        """A function that gives (loss and right answers, score) on held-out examples, as the network now stands."""
        t, truth, loss = self._targets(y), self._original(y), self.network_.loss
        flat = None if w is None else w[:, 0]

        def score() -> tuple[Evaluation, float]:
            z = self._outputs(X)
            answers = self._answers(loss.activation(z))
            finite = answers.dtype.kind != "f" or np.isfinite(answers).all()
            value = self._score(truth, answers, flat) if finite else np.nan
            mean = float(np.average(loss.per_example(z, t), weights=flat))
            return Evaluation(mean, loss.correct(z, t), len(t)), value

        return score

    def _weights(self, X: Any, y: Array, sample_weight: Any, held_out: bool = False) -> Array | None:
        """(n_samples, 1), None where all weigh the same."""
        if sample_weight is None:
            return None
        w: Array = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        return w[:, None]

    # ---- Answering ---------------------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> Array:
        z = np.empty((X.shape[0], self.n_outputs_), self.network_.dtype)
        network = maybe_sparse(
            self.network_.with_own_buffers(), X
        )  # buffers of its own: several threads may ask at once
        for rows, x in blocks_of(X):
            z[rows] = network.outputs(x)
        return z

    def _checked_outputs(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
        return self._outputs(as_rows(X))

    def _predictions(self, X: Any) -> Array:
        """What the loss reads from the outputs: probabilities or numbers, (n_samples, n_outputs)."""
        z = self._checked_outputs(X)
        return self.network_.loss.activation(z)

    def predict(self, X: Any) -> NDArray[Any]:
        """The answers (n_samples,), or (n_samples, n_outputs), for X (n_samples, n_features)."""
        return self._answers(self._predictions(X))

    @available_if(lambda self: self._partial_fit_is_there())
    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """One epoch over X and y. So many calls with the same X and y are one `fit` of so many epochs, bit by bit.

        A schedule goes on over max_iter calls; callbacks begin anew at each.
        """
        self._validate_params()
        return self._fit(X, y, sample_weight, once=True)

    def _partial_fit_is_there(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
        return True

    # ---- What was learnt ---------------------------------------------------------------------------------------------

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer as (n_in, n_out), scikit-learn's way: Wᵀ, a view of the network's own."""
        return [layer.W.T for layer in self._dense()]

    @coefs_.setter
    def coefs_(self, coefs: Sequence[ArrayLike]) -> None:
        for layer, coef in zip(self._dense(), coefs, strict=True):
            layer.W.T[...] = coef

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer (n_out,), views of the network's own."""
        return [layer.b for layer in self._dense()]

    @intercepts_.setter
    def intercepts_(self, intercepts: Sequence[ArrayLike]) -> None:
        for layer, intercept in zip(self._dense(), intercepts, strict=True):
            layer.b[...] = intercept

    @property
    def out_activation_(self) -> str:
        """What the outputs go through: softmax, logistic, identity or exp."""
        loss = self._fitted().loss
        if isinstance(loss, CrossEntropy):
            return "softmax"
        if loss.is_classification:
            return "logistic"
        return "exp" if isinstance(loss, Poisson) else "identity"

    def _fitted(self) -> Network:
        if "network_" not in self.__dict__:
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return self.network_

    def _dense(self) -> list[Dense]:
        return [layer for layer in self._fitted().layers if isinstance(layer, Dense)]

    def __sklearn_is_fitted__(self) -> bool:
        return "network_" in self.__dict__

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---- What the classifier and the regressor differ in -------------------------------------------------------------

    @abstractmethod
    def _loss(self) -> Loss:
        """The loss that the parameters name."""

    @abstractmethod
    def _checked(self, X: Any, y: Any, once: bool, reset: bool) -> tuple[Any, NDArray[Any]]:
        """X as floats, y as rows (n_samples, n_outputs): scikit-learn's own errors for what they cannot be."""

    @abstractmethod
    def _answers(self, p: Array) -> NDArray[Any]:
        """What is predicted, from what the loss reads."""

    @abstractmethod
    def _original(self, y: NDArray[Any]) -> NDArray[Any]:
        """The rows y as the targets were given."""

    @abstractmethod
    def _score(self, y: NDArray[Any], answers: NDArray[Any], w: Any) -> float:
        """How good the answers are; more is better."""

    def _targets(self, y: NDArray[Any]) -> Array:
        """The rows y as the loss takes them."""
        y = y.astype(self.network_.dtype)
        return self.network_.loss.targets(y, len(y), self.n_outputs_, self.network_.dtype)

    def _loss_object(self, kinds: tuple[type[Loss], ...]) -> Loss:
        if not isinstance(self.loss, kinds):
            raise ValueError(f"loss={self.loss!r}: expected one of {', '.join(kind.__name__ for kind in kinds)} here")
        return copy.copy(self.loss)  # the parameter stays as it was given, and may be another estimator's too


def _store_params(estimator: BaseEstimator, parameters: dict[str, Any]) -> None:
    """All that scikit-learn wants an __init__ to do: each parameter an attribute of its name, as it was given."""
    vars(estimator).update({k: v for k, v in parameters.items() if k not in ("self", "__class__")})


def as_rows(X: Any) -> Any:
    """X, a sparse matrix by rows."""
    return X if isinstance(X, np.ndarray) else X.tocsr()


def _as_dtype(name: str, values: Any, dtype: np.dtype[Any]) -> Any:
    """The values in the network's dtype. Raises ValueError, calling them `name`, where it cannot hold them."""
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if cast is not values and not np.isfinite(cast if isinstance(cast, np.ndarray) else cast.data).all():
        raise ValueError(f"{name} holds values that {dtype} cannot: scale them, or give dtype=float64")
    return cast
