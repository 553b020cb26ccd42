"""MLPClassifier: classification with the interface of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy.special import expit
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import Tags, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from ..arrays import Array
from ..losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError
from ..schedules import Schedule
from ..training import Callback
from .base import MLP, as_csr


class MLPClassifier(ClassifierMixin, MLP):
    """Multi-layer perceptron classifier for binary, multiclass and multilabel targets.

    The parameters up to `max_fun` are those of scikit-learn, except for the additional activations and solvers. The
    others are additions of handgrad.

    Parameters
    ----------
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
    loss : {"log_loss", "squared_error"} or Loss, default="log_loss"
        "log_loss": `CrossEntropy` for multiclass targets, else `BinaryCrossEntropy`. "squared_error":
        `SquaredError("sigmoid")`. Or a loss of handgrad, such as CrossEntropy(label_smoothing=0.1).
    class_weight : dict, list of dict or "balanced", optional
        {class: weight}, multiplied by sample_weight; 1 for a class that is missing. A class of weight 0 remains in
        `classes_`, but its examples are not used. "balanced": n_samples / (n_classes * count of the class). For
        multilabel targets a list of {0: weight, 1: weight}, one for each label, or "balanced" for each label; the
        weights of the labels are multiplied.
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
    classes_ : ndarray of shape (n_classes,)
        The classes.
    network_ : handgrad.Network
        The trained network.
    history_ : dict of str to list of float
        One number per epoch: "loss" (without the penalty), "accuracy", "lr", "seconds", and with a validation set
        "val_loss", "val_accuracy" and "val_score", which is the accuracy with the weights of the examples. Multilabel
        targets have no "accuracy" and "val_accuracy".
    loss_ : float
        The last loss, including the penalty.
    loss_curve_ : list of float
        Loss of each epoch, including the penalty.
    best_loss_ : float or None
        Smallest loss. None with early stopping.
    validation_scores_ : list of float or None
        Accuracy on the validation set after each epoch. None without early stopping.
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
    >>> from handgrad.sklearn import MLPClassifier
    >>> X, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), ["no", "no", "yes", "yes"]
    >>> MLPClassifier((5,), solver="lbfgs", random_state=0).fit(X, y).predict([[-3.0], [3.0]])
    array(['no', 'yes'], dtype='<U3')
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
        self._store_params(locals())

    @available_if(lambda self: self._check_solver())
    def partial_fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch.

        n calls with the same X and y give the same result as one `fit` of n epochs, to the last bit. The schedule runs
        over max_iter calls. Callbacks start again at each call.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training examples.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Classes.
        sample_weight : array-like of shape (n_samples,), optional
            The loss of a batch is the weighted mean over its examples. The result is the same as without the examples
            of weight 0.
        classes : array-like of shape (n_classes,), optional
            All classes that y contains in any call. Required in the first call.

        Returns
        -------
        self
            The estimator.
        """
        self._validate_params()
        if _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    @np.errstate(under="ignore")
    def predict_proba(self, X: Any) -> Array:
        """Predict probabilities.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probability of each class, in the order of `classes_`. The rows sum to 1, except for multilabel targets.
        """
        p = self._activation(X)
        if self.n_outputs_ == 1:
            return np.hstack([1 - p, p])
        if not self._multilabel and not isinstance(self.network_.loss, CrossEntropy):
            p /= np.maximum(p.sum(axis=1, keepdims=True), np.finfo(p.dtype).tiny)  # one sigmoid per class: normalize
        return p

    @np.errstate(under="ignore")
    def _activate(self, z: Array) -> Array:
        if self.out_activation_ != "logistic":
            return super()._activate(z)
        with np.errstate(under="ignore"):
            p: Array = expit(z, out=z)  # as precise for small probabilities as for large ones, unlike tanh in the loss
        return p

    @np.errstate(under="ignore")
    def predict_log_proba(self, X: Any) -> Array:
        """Predict the logarithms of the probabilities of `predict_proba`.

        They are computed from the logits with

            ln σ(z) = -ln(1 + e⁻ᶻ),  ln(1 - σ(z)) = -ln(1 + eᶻ),  ln softmax(z)ⱼ = zⱼ - ln Σₖ e^{zₖ}

        and are therefore finite even if a probability rounds to 0.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Logarithm of the probability of each class, in the order of `classes_`.
        """
        z, loss = self._validated_outputs(X), self.network_.loss
        if isinstance(loss, CrossEntropy):
            z -= z.max(axis=1, keepdims=True)
            z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
            return z
        if isinstance(loss, BinaryCrossEntropy) and (self.n_outputs_ == 1 or self._multilabel):
            log_p: Array = -np.logaddexp(0, np.hstack([z, -z]) if self.n_outputs_ == 1 else -z)
            if self._multilabel:  # where p rounds to 1, ln p is 0, so that the largest p has the largest ln p
                p = self._activate(z)
                np.log(p, out=log_p, where=p > 0.5)
            return log_p
        p = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.log(p, out=p)

    @property
    def _multilabel(self) -> bool:  # type: ignore[override]
        return str(self._label_binarizer.y_type_).startswith("multilabel")

    def _make_loss(self) -> Loss:
        multiclass = self._label_binarizer.y_type_ == "multiclass"
        if self.loss == "log_loss":
            return CrossEntropy() if multiclass else BinaryCrossEntropy()
        if self.loss == "squared_error":
            return SquaredError("sigmoid")
        kinds = (CrossEntropy, BinaryCrossEntropy, SquaredError) if multiclass else (BinaryCrossEntropy, SquaredError)
        if not (isinstance(self.loss, kinds) and self.loss.is_classification):
            names = "CrossEntropy, BinaryCrossEntropy" if multiclass else "BinaryCrossEntropy"
            raise ValueError(f"loss must be {names} or SquaredError('sigmoid') for this y, got {self.loss!r}")
        return self.loss

    def _check_data(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, NDArray[Any]]:
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
        if y.dtype.kind in "mM" and np.isnat(y).any():
            raise ValueError("Input y contains NaT.")
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            classes = unique_labels(y)
            if self.warm_start and not incremental and set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
            if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
                raise ValueError(
                    f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
                )
        return as_csr(X), self._label_binarizer.transform(y).astype(bool)

    def _check_new_parameters(self, incremental: bool, validation: Any) -> None:
        super()._check_new_parameters(incremental, validation)
        if incremental and self.class_weight == "balanced":
            raise ValueError("class_weight='balanced' needs all of y, which partial_fit does not have: use a dict")

    def _check_class_weight(self, y: NDArray[Any], validation: bool) -> NDArray[np.float64] | None:
        if self.class_weight is None:
            return None
        if self._multilabel:
            columns = y.astype(int).T
        else:
            columns = (y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0].astype(int))[None]
        if not validation:  # the validation set has the class weights of the training set
            self._class_weight = self._class_weight_table(columns)
        weights = np.ones(len(y))
        with np.errstate(over="ignore", under="ignore"):
            for table, column in zip(self._class_weight, columns, strict=True):
                weights *= table[column]
        return weights

    def _class_weight_table(self, columns: NDArray[np.intp]) -> list[NDArray[np.float64]]:
        """The weights of the classes, or of 0 and 1 for each label of multilabel targets.

        `columns` has the index of each example's class, in one row, or in one row for each label.
        """
        classes = np.array([0, 1]) if self._multilabel else self.classes_
        if self.class_weight == "balanced":
            return [_balanced(column, len(classes)) for column in columns]
        given = list(self.class_weight) if self._multilabel and isinstance(self.class_weight, list) else None
        if not self._multilabel and isinstance(self.class_weight, Mapping):
            given = [self.class_weight]
        if given is None or len(given) != len(columns):
            kind = f"a list of {len(columns)} dicts, one for each label," if self._multilabel else "a dict"
            raise ValueError(f"class_weight must be {kind} or 'balanced' for this y, got {self.class_weight!r}")
        return [_weights_of(classes, weight) for weight in given]

    def _decode(self, p: Array) -> NDArray[Any]:
        labels: NDArray[Any] = self._label_binarizer.inverse_transform(p.ravel() if self.n_outputs_ == 1 else p)
        return labels

    def _original_targets(self, y: NDArray[Any]) -> NDArray[Any]:
        labels: NDArray[Any] = self._label_binarizer.inverse_transform(y)
        return labels

    def _score(self, y: NDArray[Any], predictions: NDArray[Any], w: Any) -> float:
        return float(accuracy_score(y, predictions, sample_weight=w))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _balanced(indices: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Weights that give each class of the examples the same total weight; 1 for other classes."""
    counts = np.bincount(indices, minlength=count)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(indices) / (present * np.maximum(counts, 1)), 1.0)


def _weights_of(classes: NDArray[Any], weights: Any) -> NDArray[np.float64]:
    """The weight of each class in a dict, 1 for classes that are missing. Raises ValueError for invalid dicts."""
    if not isinstance(weights, Mapping):
        raise ValueError(f"class_weight must be a dict {{class: weight}}, got {weights!r}")
    names = classes.tolist()
    if classes.dtype.kind in "mM":  # a key may be a string or a datetime.date, whose hash is another one
        names, weights = list(classes), {np.array([key]).astype(classes.dtype)[0]: w for key, w in weights.items()}
    missing = [name for name in names if name not in weights] if len(weights) else []
    if missing and len(classes) - len(missing) < len(weights):  # perhaps a misspelled class
        raise ValueError(
            f"class_weight has weights for classes that are not in {names}: got {list(weights)}; "
            "correct them, or give a weight to every class"
        )
    values = [weights.get(name, 1.0) for name in names]
    if not all(isinstance(w, Real) and 0 <= float(w) < np.inf for w in values):
        raise ValueError(f"class weights must be numbers >= 0, got {dict(weights)}")
    return np.array(values, dtype=float)
