"""scikit-learn: the equivalents of activations and losses, and the import of fitted MLP estimators."""

from __future__ import annotations

import copy
from typing import Any

from ..errors import HandgradError, unknown
from ..layers import Identity, Layer, ReLU, Sigmoid, Tanh
from ..losses import BinaryCrossEntropy, CrossEntropy, Loss, Poisson, SquaredError
from ..network import Network
from .imported import ImportedLayer, ImportedModel, as_numpy, dense_layer

# The values of `activation` and of `out_activation_`.
SKLEARN_ACTIVATIONS: dict[str, type[Layer]] = {"identity": Identity, "logistic": Sigmoid, "tanh": Tanh, "relu": ReLU}
SKLEARN_LOSSES: dict[str, type[Loss]] = {
    "softmax": CrossEntropy,
    "logistic": BinaryCrossEntropy,
    "identity": SquaredError,
    "exp": Poisson,
}


def from_sklearn(estimator: Any) -> Network:
    """Convert a fitted MLPClassifier or MLPRegressor, of scikit-learn or of `handgrad.sklearn`.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        A fitted estimator.

    Returns
    -------
    Network
        With the same predictions, in the dtype of the training data. `classes` are the classes as strings. A
        classifier with two classes has one output, the probability of the second class.

    Raises
    ------
    HandgradError
        If the estimator is not fitted or is of another class.
    """
    if hasattr(estimator, "network_"):  # an estimator of handgrad.sklearn
        network: Network = copy.deepcopy(estimator.network_)
        return network
    kind, needed = type(estimator).__name__, ("coefs_", "intercepts_", "activation", "out_activation_")
    missing = [name for name in needed if not hasattr(estimator, name)]
    if missing:
        problem = (
            f"the {kind} is not fitted" if hasattr(estimator, "hidden_layer_sizes") else f"cannot convert a {kind}"
        )
        raise HandgradError(
            f"{problem}: it has no {', '.join(missing)}; expected a fitted MLPClassifier or MLPRegressor"
        )
    activation, output = estimator.activation, estimator.out_activation_
    if activation not in SKLEARN_ACTIVATIONS:
        raise unknown("activation", str(activation), SKLEARN_ACTIVATIONS)
    if output not in SKLEARN_LOSSES:
        raise HandgradError(
            f"the {kind} has the output activation {output!r}: expected one of {', '.join(SKLEARN_LOSSES)}"
        )
    layers: list[ImportedLayer] = []
    for i, (W, b) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        if i and activation != "identity":
            layers.append(ImportedLayer(f"{activation} {i}", SKLEARN_ACTIVATIONS[activation](), {}))
        layers.append(dense_layer(f"coefs_[{i}]", as_numpy(f"coefs_[{i}]", W).T, as_numpy(f"intercepts_[{i}]", b)))
    classes = getattr(estimator, "classes_", None)
    return ImportedModel(
        layers, SKLEARN_LOSSES[output](), None if classes is None else tuple(map(str, classes))
    ).build()
