"""The perceptron that gives numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import validate_data

from ..arrays import Array
from ..losses import REGRESSION, Loss
from ..schedules import Schedule
from ..training import Callback
from .base import MLP, as_rows, _store_params


class MLPRegressor(RegressorMixin, MLP):
    """A multi-layer perceptron that gives numbers, one or several for an example.

    The parameters up to max_fun are scikit-learn's. What it will not add:

    loss          also absolute_error, huber, log_cosh; or a handgrad loss, as handgrad.regression.Huber(delta=0.1)
    activation, solver, dropout, init, schedule, callbacks, dtype   as in MLPClassifier
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **MLP._parameter_constraints,
        "loss": [StrOptions(set(REGRESSION)), Loss],
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
        _store_params(self, locals())

    def _loss(self) -> Loss:
        if isinstance(self.loss, str):
            return REGRESSION[self.loss]()
        return self._loss_object(tuple(REGRESSION.values()))

    def _checked(self, X: Any, y: Any, once: bool, reset: bool) -> tuple[Any, NDArray[Any]]:
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
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return as_rows(X), y.reshape(len(y), -1)

    def _answers(self, p: Array) -> NDArray[Any]:
        return p.ravel() if p.shape[1] == 1 else p

    def _original(self, y: NDArray[Any]) -> NDArray[Any]:
        return y

    def _score(self, y: NDArray[Any], answers: NDArray[Any], w: Any) -> float:
        return float(r2_score(y, answers, sample_weight=w))
