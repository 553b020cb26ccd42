"""The perceptron that tells classes apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import Tags, column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from ..arrays import Array
from ..losses import BinaryCrossEntropy, Loss, Quadratic, CrossEntropy
from ..schedules import Schedule
from ..training import Callback
from .base import MLP, as_rows, _store_params


class MLPClassifier(ClassifierMixin, MLP):
    """A multi-layer perceptron that tells classes apart; y may be multi-label.

    The parameters up to max_fun are scikit-learn's. What it will not add:

    loss          "log_loss"; "squared_error" on sigmoid outputs; or a handgrad loss, as
                  CrossEntropy(label_smoothing=0.1)
    activation    also sigmoid, leaky_relu, softplus, gelu; or a list, one for each hidden layer
    solver        also momentum, nesterov, muon, and adamw, whose weight decay is alpha
    class_weight  {class: weight} or "balanced", n_samples / (n_classes * count of the class), times sample_weight; of
                  several labels a list of {0: weight, 1: weight}, or "balanced", label by label, multiplied
    dropout       the rate after each hidden layer, one for all or a list
    init          the name of one of handgrad.initializers
    schedule      the learning rate over max_iter epochs: "cosine", "one_cycle", or any of handgrad.schedules
    callbacks     handgrad.Callback objects, told of every step and epoch; `history_` is what they see
    dtype         float32 or float64, whatever X is; without it that of X
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **MLP._parameter_constraints,
        "loss": [StrOptions({"log_loss", "squared_error"}), Loss],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    classes_: NDArray[Any]

    def __init__(
        self,
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
        loss: str | Loss = "log_loss",
        class_weight: Mapping[Any, float] | str | None = None,
        dropout: float | Sequence[float] = 0.0,
        init: str | None = None,
        schedule: str | Schedule | None = None,
        callbacks: Sequence[Callback] = (),
        dtype: DTypeLike | None = None,
    ) -> None:
        _store_params(self, locals())

    @available_if(lambda self: self._partial_fit_is_there())
    def partial_fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> Self:
        """One epoch over X and y. So many calls with the same X and y are one `fit` of so many epochs, bit by bit.

        `classes` are those of all calls, and are needed at the first.
        """
        self._validate_params()
        if _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
        return self._fit(X, y, sample_weight, once=True)

    def predict_proba(self, X: Any) -> Array:
        """The probability (n_samples, n_classes) of each class, in the order of `classes_`."""
        p = self._predictions(X)
        if self.n_outputs_ == 1:
            return np.hstack([1 - p, p])
        if not self._multilabel and not isinstance(self.network_.loss, CrossEntropy):
            p /= np.maximum(p.sum(axis=1, keepdims=True), np.finfo(p.dtype).tiny)  # each class a yes or no of its own
        return p

    def predict_log_proba(self, X: Any) -> Array:
        """ln p of `predict_proba`, from the outputs: finite where p is 0 in its dtype.

        ln σ(z) = -ln(1 + e⁻ᶻ) and ln(1 - σ(z)) = -ln(1 + eᶻ); ln softmax(z)ⱼ = zⱼ - ln Σₖ e^{zₖ}.
        """
        z, loss = self._checked_outputs(X), self.network_.loss
        if isinstance(loss, CrossEntropy):
            z -= z.max(axis=1, keepdims=True)
            z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
            return z
        if isinstance(loss, BinaryCrossEntropy) and (self.n_outputs_ == 1 or self._multilabel):
            log_p: Array = -np.logaddexp(0, np.hstack([z, -z]) if self.n_outputs_ == 1 else -z)
            return log_p
        p = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.log(p, out=p)

    @property
    def _multilabel(self) -> bool:  # type: ignore[override]
        """Whether an example may have several of the classes."""
        return str(self._label_binarizer.y_type_).startswith("multilabel")

    def _loss(self) -> Loss:
        if not isinstance(self.loss, str):
            multiclass = self._label_binarizer.y_type_ == "multiclass"
            return self._loss_object(
                (CrossEntropy, BinaryCrossEntropy, Quadratic) if multiclass else (BinaryCrossEntropy, Quadratic)
            )
        if self.loss == "squared_error":
            return Quadratic()
        return CrossEntropy() if self._label_binarizer.y_type_ == "multiclass" else BinaryCrossEntropy()

    def _checked(self, X: Any, y: Any, once: bool, reset: bool) -> tuple[Any, NDArray[Any]]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not once):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            classes = unique_labels(y)
            if self.warm_start and not once and set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
            if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
                )
        return as_rows(X), self._label_binarizer.transform(y).astype(bool)

    def _check_new_parameters(self, once: bool, held_out: Any) -> None:
        super()._check_new_parameters(once, held_out)
        if once and self.class_weight == "balanced":
            raise ValueError("class_weight 'balanced' needs all of y, which partial_fit does not see: give a dict")

    def _weights(self, X: Any, y: Array, sample_weight: Any, held_out: bool = False) -> Array | None:
        w = super()._weights(X, y, sample_weight)
        if self.class_weight is None:
            return w
        labels = self._original(y)
        if self.class_weight != "balanced" or self._multilabel:
            self._balance = self.class_weight
        elif not held_out:  # held-out examples weigh as their class does in training
            present, counts = np.unique(labels, return_counts=True)
            self._balance = dict(zip(present.tolist(), len(y) / (len(present) * counts), strict=True))
        balance = compute_sample_weight(self._balance, labels)[:, None]
        weights: Array = balance if w is None else w * balance
        return weights

    def _answers(self, p: Array) -> NDArray[Any]:
        answers: NDArray[Any] = self._label_binarizer.inverse_transform(p.ravel() if self.n_outputs_ == 1 else p)
        return answers

    def _original(self, y: NDArray[Any]) -> NDArray[Any]:
        labels: NDArray[Any] = self._label_binarizer.inverse_transform(y)
        return labels

    def _score(self, y: NDArray[Any], answers: NDArray[Any], w: Any) -> float:
        return float(accuracy_score(y, answers, sample_weight=w))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
