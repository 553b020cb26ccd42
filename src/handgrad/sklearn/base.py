"""Base class of MLPClassifier and MLPRegressor: everything except the kind of the targets."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..arrays import Array
from ..blas import blas_threads
from ..history import History
from ..initializers import INITIALIZERS
from ..layers import ACTIVATIONS, Dense, Dropout, Layer
from ..losses import CrossEntropy, Loss, Poisson
from ..model import Evaluation
from ..muon import Muon
from ..network import Network
from ..optimizers import AdamW, Momentum, Nesterov, Optimizer
from ..schedules import SCHEDULES, Schedule
from ..training import Callback, DivergedError
from .lbfgs import NOT_FINITE, fit_lbfgs
from .sparse import maybe_sparse, row_blocks
from .trainer import Scorer, SklearnAdam, SklearnCallback, SklearnSGD, SklearnTrainer

# The names of scikit-learn and of handgrad.
ESTIMATOR_ACTIVATIONS = {**ACTIVATIONS, "logistic": ACTIVATIONS["sigmoid"]}
SOLVERS = ("lbfgs", "sgd", "adam", "momentum", "nesterov", "adamw", "muon")

# Parameters of which each optimizer uses some. If none of them changed, the next fit continues with the same optimizer.
OPTIMIZER_PARAMETERS = (
    *("solver", "learning_rate", "learning_rate_init", "momentum", "nesterovs_momentum"),
    *("beta_1", "beta_2", "epsilon", "alpha"),
)

# Fitted attributes that training by epochs sets, but lbfgs does not.
EPOCH_ATTRIBUTES = (
    *("history_", "loss_curve_", "best_loss_"),
    *("validation_scores_", "best_validation_score_", "best_epoch_"),
)


class Examples(NamedTuple):
    """Validated examples, without those of weight 0."""

    X: Any  # (n_samples, n_features), dense or CSR
    y: NDArray[Any]  # (n_samples, n_outputs)
    w: NDArray[np.float64] | None  # (n_samples, 1), each > 0; None without weights

    def weighted(self, w: NDArray[np.float64] | None) -> Examples:
        """Multiply the weights by w (n_samples,), and leave out the examples of weight 0. Raises ValueError."""
        if w is None:
            return self
        with np.errstate(over="ignore", under="ignore"):
            w = w[:, None] if self.w is None else w[:, None] * self.w
            total = w.sum()
        if not np.isfinite(total):
            raise ValueError(f"the sum of the sample weights must be finite, got {total}: divide them by their mean")
        used = w[:, 0] > 0
        return Examples(self.X, self.y, w) if used.all() else Examples(self.X[used], self.y[used], w[used])


class MLP(BaseEstimator, ABC):
    """Base class of multi-layer perceptrons with the interface of scikit-learn."""

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's name and type)
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ESTIMATOR_ACTIVATIONS)), "array-like"],
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
    batch_size: Any  # an integer or "auto"
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

    network_: Network
    n_outputs_: int
    t_: int

    _multilabel = False  # whether an example can have several classes

    def _store_params(self, parameters: dict[str, Any]) -> None:
        """Set each parameter of __init__ as an attribute, unchanged, as scikit-learn requires."""
        self.__dict__.update({k: v for k, v in parameters.items() if k not in ("self", "__class__")})

    # ---- Training ----------------------------------------------------------------------------------------------------

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
        """Train the network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training examples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), optional
            The loss of a batch is the weighted mean over its examples. The result is the same as without the examples
            of weight 0.
        X_val, y_val : array-like, optional
            Validation set. Its loss and score are recorded in `history_`. With `early_stopping`, it replaces the
            validation set that is otherwise split from X.
        sample_weight_val : array-like, optional
            Weights of the validation set.

        Returns
        -------
        self
            The fitted estimator.
        """
        self._validate_params()
        given = any(value is not None for value in (X_val, y_val, sample_weight_val))
        validation = (X_val, y_val, sample_weight_val) if given else None
        return self._fit(X, y, sample_weight, incremental=False, validation=validation)

    @available_if(lambda self: self._check_solver())
    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch.

        n calls with the same X and y give the same result as one `fit` of n epochs, to the last bit. The schedule runs
        over max_iter calls. Callbacks start again at each call.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training examples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), optional
            The loss of a batch is the weighted mean over its examples. The result is the same as without the examples
            of weight 0.

        Returns
        -------
        self
            The estimator.
        """
        self._validate_params()
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
        return True

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool, validation: Any = None) -> Self:
        before = dict(self.__dict__)
        try:
            train, validation = self._prepare(X, y, sample_weight, incremental, validation)
            if not len(train.y):  # possible in partial_fit only
                return self
            t = self._targets(train.y)  # raises HandgradError for targets that the loss does not accept
            score = None if validation is None else self._make_scorer(validation)  # its targets too
        except BaseException:  # invalid data and parameters must not destroy an earlier fit
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        with blas_threads(self.network_, self._effective_batch_size(len(train.y))):
            if self.solver == "lbfgs":
                fit_lbfgs(self, train.X, t, train.w)
            else:
                self._fit_stochastic(train, t, incremental, score)
        return self

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, validation: Any
    ) -> tuple[Examples, Examples | None]:
        """Validate everything, split the validation set, and create the network unless this continues a fit."""
        self._check_new_parameters(incremental, validation)
        continued = hasattr(self, "network_") and (self.warm_start or incremental)
        X, y = self._check_data(X, y, incremental, reset=not continued)
        train = self._weigh(X, y, sample_weight)
        if not len(train.y) and not incremental:
            raise ValueError("class_weight gives all examples the weight zero: at least one class needs a weight > 0")
        checked = None if validation is None else self._check_validation(*validation)
        if not continued:
            self._initialize(X.shape[1], y.shape[1], self.dtype or X.dtype)
        elif y.shape[1] != self.n_outputs_ or not self._matches_parameters(X.shape[1]):
            raise ValueError(
                "cannot continue the previous fit: the layers, the loss or the number of outputs have changed; "
                "keep them, or call fit with warm_start=False"
            )
        elif self.solver != "lbfgs":
            scored = self.__dict__.get("validation_scores_") is not None
            if not hasattr(self, "history_") or bool(self.early_stopping) != scored:
                self._reset_record()
        train = train._replace(X=_as_dtype("X", train.X, self.network_.dtype))
        if self.solver != "lbfgs" and self.early_stopping and checked is None:
            train, checked = self._split_validation(train)
        return train, checked

    def _check_new_parameters(self, incremental: bool, validation: Any) -> None:
        """Check what `_parameter_constraints` cannot express. Raises ValueError."""
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise ValueError(f"callbacks must be handgrad.Callback objects, got {callback!r}")
        if self.solver == "lbfgs" and (self.schedule is not None or len(self.callbacks) or validation is not None):
            raise ValueError("solver='lbfgs' has no epochs: it does not support schedule, callbacks and X_val")
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.solver != "lbfgs":
            self._make_optimizer()  # raises HandgradError for a momentum of 1, which only "sgd" has

    def _initialize(self, n_in: int, n_out: int, dtype: DTypeLike) -> None:
        """Create an untrained network and an empty record."""
        self._random_state = check_random_state(self.random_state)
        self.n_outputs_, self.n_iter_, self.t_ = n_out, 0, 0
        self.network_ = self._build_network(n_in, dtype)
        names = getattr(self, "classes_", ())
        if len(names) == self.network_.n_classes:
            self.network_.classes = tuple(map(str, names))
        self.n_layers_ = 1 + len(self._dense_layers())
        self._optimizer: Optimizer | None = None
        self._optimizer_settings: list[Any] = []
        self._sample_order = np.arange(0)
        for name in EPOCH_ATTRIBUTES:
            self.__dict__.pop(name, None)
        if self.solver != "lbfgs":
            self._reset_record()

    def _reset_record(self) -> None:
        """Reset the attributes that record the epochs."""
        self.history_ = History()
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_ = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None
        self.best_epoch_: int | None = None

    def _fit_stochastic(self, train: Examples, t: Array, incremental: bool, score: Scorer | None) -> None:
        count = len(train.y)
        if self.batch_size != "auto" and self.batch_size > count:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=4
            )
        self._optimizer = self._continue_optimizer()
        self.n_iter_ = 0
        callback = SklearnCallback(self, incremental)
        trainer = SklearnTrainer(
            maybe_sparse(self.network_, train.X),
            self._optimizer,
            alpha=0.0 if self.solver == "adamw" else self.alpha,
            random_state=self._random_state if self.shuffle else None,
            score=score,
            multilabel=self._multilabel,
            batch_size=self._effective_batch_size(count),
            schedule=SCHEDULES[self.schedule]() if isinstance(self.schedule, str) else self.schedule,
            callbacks=[callback, *self.callbacks],
        )
        trainer.sample_order, trainer.history = self._sample_order, self.history_
        done = len(self.loss_curve_)
        if incremental:
            epochs, schedule_epochs = range(done, done + 1), range(max(self.max_iter, done + 1))
        else:
            epochs = schedule_epochs = range(done, done + self.max_iter)
        try:
            trainer.run(train.X, t, train.w, epochs, schedule_epochs)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        except DivergedError as error:
            if callback.best_parameters is None:
                raise DivergedError(f"{error}. {NOT_FINITE}") from error
            callback.record_divergence()
            warnings.warn(f"{error}. {NOT_FINITE} The best weights are kept.", ConvergenceWarning, stacklevel=4)
        finally:
            self._sample_order = trainer.sample_order
        if callback.best_parameters is not None:  # last, because other callbacks change the weights too
            self.network_.parameters[...] = callback.best_parameters

    def _effective_batch_size(self, count: int) -> int:
        return min(200, count) if self.batch_size == "auto" else min(self.batch_size, count)

    # ---- Network and optimizer ---------------------------------------------------------------------------------------

    def _build_network(self, n_in: int, dtype: DTypeLike) -> Network:
        """Build the network with the initial weights of scikit-learn, or those of `init`."""
        layers = self._build_layers(n_in)
        # The seed of dropout comes from a copy, so that dropout does not change the weights and the batches.
        seed = copy.deepcopy(self._random_state).randint(2**31)
        network = Network(layers, loss=self._make_loss(), rng=seed, dtype=dtype)
        if self.init is None:
            activations = [activation for _, activation, _ in self._hidden_layers()]
            last = activations[-1] if activations else self.activation
            dense = [layer for layer in layers if isinstance(layer, Dense)]
            for layer, activation in zip(dense, [*activations, last], strict=True):
                factor = 2 if activation in ("logistic", "sigmoid") else 6
                bound = np.sqrt(factor / (layer.n_in + layer.n_out))  # Glorot & Bengio (2010), also for biases
                layer.W[...] = self._random_state.uniform(-bound, bound, (layer.n_in, layer.n_out)).T
                layer.b[...] = self._random_state.uniform(-bound, bound, layer.n_out)
        return network

    def _matches_parameters(self, n_in: int) -> bool:
        """Return whether the network has the layers and the loss that the parameters describe."""
        described = self._build_layers(n_in), self._make_loss()
        return repr(described) == repr((self.network_.layers, self.network_.loss))

    def _build_layers(self, n_in: int) -> list[Layer]:
        layers: list[Layer] = []
        for n_out, activation, rate in self._hidden_layers():
            layers.append(Dense(n_in, n_out, self.init or "xavier_uniform"))
            layers += [ESTIMATOR_ACTIVATIONS[activation]()] if activation != "identity" else []
            layers += [Dropout(rate)] if rate else []
            n_in = n_out
        return [*layers, Dense(n_in, self.n_outputs_, self.init or "xavier_uniform")]

    def _hidden_layers(self) -> list[tuple[int, str, float]]:
        """(size, activation, dropout rate) of each hidden layer."""
        if np.ndim(self.hidden_layer_sizes) > 1:
            raise ValueError(f"hidden_layer_sizes must have one size per layer, got {self.hidden_layer_sizes!r}")
        given = np.atleast_1d(self.hidden_layer_sizes).astype(float)
        sizes = [int(n) for n in given]
        if not all(n >= 1 and n == size for n, size in zip(given, sizes, strict=True)):
            raise ValueError(f"hidden_layer_sizes must be integers > 0, got {self.hidden_layer_sizes}.")
        activations = self._per_layer("activation", len(sizes))
        if not all(isinstance(name, str) and name in ESTIMATOR_ACTIVATIONS for name in activations):
            known = ", ".join(sorted(ESTIMATOR_ACTIVATIONS))
            raise ValueError(f"activation must be one of {known}, or a list of them, got {self.activation!r}")
        rates = self._per_layer("dropout", len(sizes))
        if not all(isinstance(rate, Real) and 0 <= float(rate) < 1 for rate in rates):
            raise ValueError(f"dropout must be in [0, 1), or a list of such rates, got {self.dropout!r}")
        if any(rates) and self.solver == "lbfgs":
            raise ValueError("solver='lbfgs' does not support dropout, which makes the loss random: use another solver")
        return list(zip(sizes, activations, rates, strict=True))

    def _per_layer(self, name: str, hidden: int) -> list[Any]:
        """The values of a parameter for each hidden layer."""
        given = getattr(self, name)
        if isinstance(given, str | Real):
            return [given] * hidden
        if len(given) != hidden:
            raise ValueError(f"{name} has {len(given)} values for {hidden} hidden layers: expected one, or {hidden}")
        return list(given)

    def _make_optimizer(self) -> Optimizer:
        lr = float(self.learning_rate_init)
        betas = self.beta_1, self.beta_2, self.epsilon
        if self.solver == "sgd":
            return SklearnSGD(lr, self.momentum, self.nesterovs_momentum)
        if self.solver == "adam":
            return SklearnAdam(lr, *betas)
        if self.solver == "adamw":
            return AdamW(lr, *betas, weight_decay=self.alpha)
        solvers: dict[str, type[Momentum]] = {"momentum": Momentum, "nesterov": Nesterov, "muon": Muon}
        return solvers[self.solver](lr, self.momentum)

    def _continue_optimizer(self) -> Optimizer:
        """The previous optimizer, or a new one if its settings changed, which keeps the state if it has one like it."""
        optimizer, previous = self._make_optimizer(), self._optimizer
        settings = [getattr(self, name) for name in OPTIMIZER_PARAMETERS]
        if previous is not None and settings == self._optimizer_settings:
            return previous
        if type(previous) is type(optimizer):
            optimizer.load_state_dict(previous.state_dict())
        self._optimizer_settings = settings
        return optimizer

    # ---- Validation --------------------------------------------------------------------------------------------------

    def _split_validation(self, examples: Examples) -> tuple[Examples, Examples]:
        """Split `validation_fraction` of the examples from the training set."""
        present = [part for part in examples if part is not None]
        stratify = examples.y if is_classifier(self) and self.n_outputs_ == 1 else None
        parts = train_test_split(
            *present, random_state=self._random_state, test_size=self.validation_fraction, stratify=stratify
        )
        train, validation = (Examples(*(*half, None)[:3]) for half in (parts[::2], parts[1::2]))
        if len(validation.y) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return train, validation

    def _check_validation(self, X: Any, y: Any, sample_weight: Any) -> Examples:
        if X is None or y is None:
            raise ValueError("X_val and y_val must be given together")
        X, y = self._check_data(X, y, incremental=True, reset=False)
        examples = self._weigh(X, y, sample_weight, validation=True)
        if len(examples.y) < 2:
            raise ValueError(f"X_val has {len(examples.y)} examples of weight > 0: expected at least 2")
        return examples

    def _make_scorer(self, validation: Examples) -> Scorer:
        """A function that returns (evaluation, score) of the validation set, for the present weights."""
        t, truth, loss = self._targets(validation.y), self._original_targets(validation.y), self.network_.loss
        weights = None if validation.w is None else validation.w[:, 0]
        single_label = loss.is_classification and not self._multilabel

        def score() -> tuple[Evaluation, float]:
            z = self._outputs(validation.X)
            with np.errstate(over="ignore", invalid="ignore"):  # of a training that diverges
                mean_loss = float(np.average(loss.per_example(z, t), weights=weights))
                evaluation = Evaluation(mean_loss, loss.correct(z, t) if single_label else None, len(t))
                predictions = self._decode(self._activate(z))
                finite = predictions.dtype.kind != "f" or np.isfinite(predictions).all()
                return evaluation, self._score(truth, predictions, weights) if finite else np.nan

        return score

    def _weigh(self, X: Any, y: NDArray[Any], sample_weight: Any, validation: bool = False) -> Examples:
        """The examples and their weights, without the examples of weight 0, whose batches would have no loss."""
        examples = Examples(X, y, None)
        if sample_weight is not None:
            w = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            examples = examples.weighted(w)  # before the weights that balance the classes are computed
        return examples.weighted(self._check_class_weight(examples.y, validation))

    def _check_class_weight(self, y: NDArray[Any], validation: bool) -> NDArray[np.float64] | None:
        """The weight (n_samples,) of each example according to its class, None if all are equal."""
        return None

    # ---- Prediction --------------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the targets.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Classes or numbers.
        """
        return self._decode(self._activation(X))

    def _outputs(self, X: Any) -> Array:
        """Logits (n_samples, n_outputs) of validated examples."""
        if isinstance(X, np.ndarray):
            return self.network_.outputs(X)
        network = maybe_sparse(self.network_, X)
        z = np.empty((X.shape[0], self.n_outputs_), network.dtype)
        for rows, x in row_blocks(X):
            z[rows] = network.outputs(x)
        return z

    def _validated_outputs(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
        return self._outputs(as_csr(X))

    def _activation(self, X: Any) -> Array:
        """Probabilities or numbers (n_samples, n_outputs), as the loss defines them."""
        return self._activate(self._validated_outputs(X))

    def _activate(self, z: Array) -> Array:
        """The activation of the output for logits z (n_samples, n_outputs), which may be overwritten."""
        return self.network_.loss.activation(z)

    # ---- Fitted attributes -------------------------------------------------------------------------------------------

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, of shape (n_in, n_out) as in scikit-learn: Wᵀ, a view of the network's weights."""
        return [layer.W.T for layer in self._dense_layers()]

    @coefs_.setter
    def coefs_(self, coefs: Sequence[ArrayLike]) -> None:
        for layer, coef in zip(self._dense_layers(), coefs, strict=True):
            layer.W.T[...] = coef

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, of shape (n_out,): views of the network's biases."""
        return [layer.b for layer in self._dense_layers()]

    @intercepts_.setter
    def intercepts_(self, intercepts: Sequence[ArrayLike]) -> None:
        for layer, intercept in zip(self._dense_layers(), intercepts, strict=True):
            layer.b[...] = intercept

    @property
    def out_activation_(self) -> str:
        """Name of the activation of the output: softmax, logistic, identity or exp."""
        loss = self._fitted_network().loss
        if isinstance(loss, CrossEntropy):
            return "softmax"
        if loss.is_classification:
            return "logistic"
        return "exp" if isinstance(loss, Poisson) else "identity"

    def _fitted_network(self) -> Network:
        if "network_" not in self.__dict__:
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        return self.network_

    def _dense_layers(self) -> list[Dense]:
        return [layer for layer in self._fitted_network().layers if isinstance(layer, Dense)]

    def __sklearn_is_fitted__(self) -> bool:
        return "network_" in self.__dict__

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---- What depends on the kind of the targets ---------------------------------------------------------------------

    @abstractmethod
    def _make_loss(self) -> Loss:
        """Return the loss that the parameters describe."""

    @abstractmethod
    def _check_data(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, NDArray[Any]]:
        """Return X as floats and y as rows (n_samples, n_outputs). Invalid data raises scikit-learn's errors."""

    @abstractmethod
    def _decode(self, p: Array) -> NDArray[Any]:
        """Return the predicted targets for the activation of the output p (n_samples, n_outputs)."""

    @abstractmethod
    def _original_targets(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return the targets for the rows y (n_samples, n_outputs)."""

    @abstractmethod
    def _score(self, y: NDArray[Any], predictions: NDArray[Any], w: Any) -> float:
        """Return the score of predictions. Larger is better."""

    def _loss_divisor(self) -> int:
        """Divisor of the loss in `loss_` and `loss_curve_`."""
        return 1

    def _targets(self, y: NDArray[Any]) -> Array:
        """Return the targets t (n_samples, n_outputs) of the loss for the rows y."""
        y = _as_dtype("y", y, self.network_.dtype)
        return self.network_.loss.targets(y, len(y), self.n_outputs_, self.network_.dtype)


def as_csr(X: Any) -> Any:
    """Return a dense array unchanged, a sparse matrix in CSR format."""
    return X if isinstance(X, np.ndarray) else X.tocsr()


def _as_dtype(name: str, values: Any, dtype: np.dtype[Any]) -> Any:
    """Convert to the dtype of the network. Raises ValueError if values overflow."""
    with np.errstate(over="ignore"):
        converted = values.astype(dtype, copy=False)
    if converted is values:
        return values
    if not np.isfinite(converted if isinstance(converted, np.ndarray) else converted.data).all():
        raise ValueError(f"{name} contains values that are too large for {dtype}: scale them, or use dtype=float64")
    return converted
