"""Networks of scikit-learn: a fitted MLPClassifier or MLPRegressor, theirs or one of `handgrad.sklearn`'s."""

from __future__ import annotations

import copy
from typing import Any

from ..errors import HandgradError, unknown
from ..layers import ACTIVATIONS, LAYERS
from ..losses import BinaryCrossEntropy, Loss, Poisson, CrossEntropy, SquaredError
from .imported import ImportedLayer, ImportedModel, array_of, dense_link

SKLEARN_ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
SKLEARN_LOSSES: dict[str, type[Loss]] = {
    "softmax": CrossEntropy,
    "logistic": BinaryCrossEntropy,
    "identity": SquaredError,
    "exp": Poisson,
}


def from_sklearn(estimator: Any) -> ImportedModel:
    """A fitted MLPClassifier or MLPRegressor: see `interop.from_sklearn`."""
    if hasattr(estimator, "network_"):  # one of handgrad.sklearn's
        network, own = estimator.network_, []
        for layer in network.layers:
            again = LAYERS[type(layer).__name__](**layer.config())
            own.append(
                ImportedLayer(repr(layer), again, {name: getattr(layer, name) for name in layer.parameter_shapes})
            )
        return ImportedModel(own, copy.copy(network.loss), network.classes)
    kind, needed = type(estimator).__name__, ("coefs_", "intercepts_", "activation", "out_activation_")
    missing = [name for name in needed if not hasattr(estimator, name)]
    if missing:
        not_fitted = "is not fitted" if hasattr(estimator, "hidden_layer_sizes") else "cannot be read"
        raise HandgradError(
            f"the {kind} {not_fitted}, it has no {', '.join(missing)}: expected a fitted MLPClassifier or MLPRegressor"
        )
    activation, ending = estimator.activation, estimator.out_activation_
    if activation not in SKLEARN_ACTIVATIONS:
        raise unknown("activation", str(activation), SKLEARN_ACTIVATIONS)
    if ending not in SKLEARN_LOSSES:
        raise HandgradError(f"the {kind} ends with {ending!r}: expected one of {', '.join(SKLEARN_LOSSES)}")
    links: list[ImportedLayer] = []
    for i, (W, b) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        if i and activation != "identity":
            links.append(ImportedLayer(f"{activation} {i}", ACTIVATIONS[SKLEARN_ACTIVATIONS[activation]](), {}))
        links.append(dense_link(f"coefs_[{i}]", array_of(f"coefs_[{i}]", W).T, array_of(f"intercepts_[{i}]", b)))
    classes = getattr(estimator, "classes_", None)
    return ImportedModel(links, SKLEARN_LOSSES[ending](), None if classes is None else tuple(map(str, classes)))
