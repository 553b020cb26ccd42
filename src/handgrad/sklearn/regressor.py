"""MLPRegressor: regression with the interface of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.sparse import issparse
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import validate_data

from ..arrays import Array
from ..losses import LOSSES, Loss
from ..schedules import Schedule
from ..training import Callback
from .base import MLP, as_csr

REGRESSION_LOSSES = {name: loss for name, loss in LOSSES.items() if not loss.is_classification}


class MLPRegressor(RegressorMixin, MLP):
    """Multi-layer perceptron regressor for one or several numbers per example.

    The parameters up to `max_fun` are those of scikit-learn, except for the additional losses, activations and solvers.
    The others are additions of handgrad.

    Parameters
    ----------
    loss : str or Loss, default="squared_error"
        "squared_error", "poisson"; in addition to scikit-learn, "absolute_error", "huber", "log_cosh", or a regression
        loss of handgrad, such as Huber(delta=0.1). Training uses the gradient of the sum over the outputs. As in
        scikit-learn, the reported loss of "squared_error" is the mean over the outputs.
    hidden_layer_sizes : int or array-like of shape (n_hidden,), default=(100,)
        Number of units of each hidden layer; () for none.
    activation : str or list of str, default="relu"
        Activation of the hidden layers, or one for each: "identity", "logistic", "tanh", "relu"; in addition to
        scikit-learn, "sigmoid" (the same as "logistic"), "leaky_relu", "elu", "selu", "softplus", "gelu", "exact_gelu",
        "silu".
    solver : {"lbfgs", "sgd", "adam", "momentum", "nesterov", "adamw", "muon"}, default="adam"
        "lbfgs", "sgd" and "adam" are those of scikit-learn. "lbfgs" uses all examples at each iteration, the others are
        stochastic and use mini-batches. "momentum", "nesterov", "adamw" and "muon" are optimizers of handgrad.
    alpha : float, default=0.0001
        Strength of the L2 penalty: α/2 Σ W² / n is added to the loss of a batch of n examples. For "adamw", the
        decoupled weight decay.
    batch_size : int or "auto", default="auto"
        Number of examples in a mini-batch. "auto": min(200, n_samples).
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        Only for "sgd". "invscaling": learning_rate_init / (t + 1)^power_t after t examples. "adaptive": divide by 5
        instead of stopping when the training does not improve.
    learning_rate_init : float, default=0.001
        Learning rate of the stochastic solvers.
    power_t : float, default=0.5
        Exponent of "invscaling".
    max_iter : int, default=200
        Maximum number of epochs, or of iterations of "lbfgs".
    shuffle : bool, default=True
        Shuffle the examples at each epoch.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights, the batches, the validation split and dropout.
    tol : float, default=1e-4
        Smallest change of the loss, or of the validation score, that counts as an improvement. Tolerance of the
        gradient for "lbfgs".
    verbose : bool, default=False
        Print the progress.
    warm_start : bool, default=False
        `fit` continues the previous fit, including the state of the optimizer, instead of starting again.
    momentum : float, default=0.9
        Momentum of "sgd", "momentum", "nesterov" and "muon".
    nesterovs_momentum : bool, default=True
        Use Nesterov momentum in "sgd".
    early_stopping : bool, default=False
        Stop when the score of a validation set does not improve, and keep the weights of the best epoch. Without it,
        stop when the training loss does not improve.
    validation_fraction : float, default=0.1
        Fraction of the examples that early stopping uses as the validation set, unless `fit` is given one.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of the moments of "adam" and "adamw".
    epsilon : float, default=1e-8
        Constant for numerical stability of "adam" and "adamw".
    n_iter_no_change : int, default=10
        Stop when there is no improvement for more than this number of epochs.
    max_fun : int, default=15000
        Maximum number of evaluations of the loss by "lbfgs".
    dropout : float or list of float, default=0.0
        Dropout rate after the hidden layers, or one for each. Not for "lbfgs".
    init : str, optional
        Name of an initializer in `handgrad.initializers`. By default, the initial weights of scikit-learn.
    schedule : {"constant", "cosine", "one_cycle"} or Schedule, optional
        Learning rate schedule over max_iter epochs, see `handgrad.schedules`.
    callbacks : list of handgrad.Callback, default=()
        Called after each step and epoch.
    dtype : {numpy.float32, numpy.float64}, optional
        dtype of the network. By default that of X.

    Attributes
    ----------
    network_ : handgrad.Network
        The trained network.
    history_ : dict of str to list of float
        One number per epoch: "loss" (without the penalty), "lr", "seconds", and with a validation set
        "val_loss" and "val_score".
    loss_ : float
        The last loss, including the penalty.
    loss_curve_ : list of float
        Loss of each epoch, including the penalty.
    best_loss_ : float or None
        Smallest loss. None with early stopping.
    validation_scores_ : list of float or None
        R² on the validation set after each epoch. None without early stopping.
    best_validation_score_ : float or None
        Best validation score. None without early stopping.
    best_epoch_ : int or None
        Epoch, counted from 1 within this fit, whose weights early stopping kept.
    coefs_ : list of ndarray of shape (n_in, n_out)
        Weights of each layer, views of the network's weights.
    intercepts_ : list of ndarray of shape (n_out,)
        Biases of each layer, views of the network's biases.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if X has names that are all strings.
    n_iter_ : int
        Number of epochs, or of iterations of "lbfgs".
    n_layers_ : int
        Number of layers, including the input layer.
    n_outputs_ : int
        Number of outputs.
    out_activation_ : str
        Name of the activation of the output.
    t_ : int
        Number of examples that training has used, counted once per epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from handgrad.sklearn import MLPRegressor
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = MLPRegressor(hidden_layer_sizes=(20,), solver="lbfgs", random_state=0).fit(X, X[:, 0] ** 2)
    >>> model.score(X, X[:, 0] ** 2) > 0.99
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **MLP._parameter_constraints,
        "loss": [StrOptions(set(REGRESSION_LOSSES)), Loss],
    }

    def __init__(
        self,
        loss: str | Loss = "squared_error",
        hidden_layer_sizes: ArrayLike = (100,),
        activation: str | Sequence[str] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        dropout: float | Sequence[float] = 0.0,
        init: str | None = None,
        schedule: str | Schedule | None = None,
        callbacks: Sequence[Callback] = (),
        dtype: DTypeLike | None = None,
    ) -> None:
        self._store_params(locals())

    def _make_loss(self) -> Loss:
        if isinstance(self.loss, str):
            return REGRESSION_LOSSES[self.loss]()
        if not isinstance(self.loss, Loss) or self.loss.is_classification:
            raise ValueError(f"loss must be a regression loss, such as SquaredError(), got {self.loss!r}")
        return self.loss

    def _loss_divisor(self) -> int:
        return self.n_outputs_ if self.loss == "squared_error" else 1

    def _check_data(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, NDArray[Any]]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if issparse(y) or y.dtype.kind not in "biuf":
            kind = "a sparse matrix" if issparse(y) else f"dtype {y.dtype}"
            raise ValueError(f"y must be a dense array of numbers, got {kind}: convert it")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return as_csr(X), y.reshape(len(y), -1)

    def _decode(self, p: Array) -> NDArray[Any]:
        return p.ravel() if p.shape[1] == 1 else p

    def _original_targets(self, y: NDArray[Any]) -> NDArray[Any]:
        return y

    def _score(self, y: NDArray[Any], predictions: NDArray[Any], w: Any) -> float:
        return float(r2_score(y, predictions, sample_weight=w))
