"""Import of fitted estimators of scikit-learn and of handgrad.sklearn."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor

import handgrad.sklearn
from handgrad import interop, load, save

RNG = np.random.default_rng(0)
X = RNG.random((40, 4))


def fitted(estimator, y, x=X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(x, y)


@pytest.mark.parametrize(
    ("activation", "hidden"), [("identity", (6,)), ("logistic", (6, 5)), ("tanh", (6, 5)), ("relu", (6,)), ("relu", ())]
)
def test_classifier_gives_the_same_probabilities(activation, hidden):
    y = np.array(["ant", "bee", "cat"])[np.arange(40) % 3]
    theirs = fitted(MLPClassifier(hidden, activation=activation, max_iter=5, random_state=0), y)
    network = interop.from_sklearn(theirs)
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-12)
    assert network.classes == ("ant", "bee", "cat")
    assert [network.classes[k] for k in network.predict(X)] == list(theirs.predict(X))
    assert network.dtype == np.float64


def test_binary_classifier_has_one_output(tmp_path):
    theirs = fitted(MLPClassifier((6,), max_iter=5, random_state=0), np.array(["no", "yes"])[np.arange(40) % 2])
    network = interop.from_sklearn(theirs)
    assert (network.n_out, network.classes, repr(network.loss)) == (1, ("no", "yes"), "BinaryCrossEntropy()")
    np.testing.assert_allclose(network.predict_proba(X)[:, 0], theirs.predict_proba(X)[:, 1], atol=1e-12)
    assert [network.classes[k] for k in network.predict(X)] == list(theirs.predict(X))
    save(network, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").classes == ("no", "yes")


def test_classifier_fitted_on_one_class_has_default_class_names():
    theirs = fitted(MLPClassifier((6,), max_iter=2, random_state=0), np.full(40, "ant"))
    network = interop.from_sklearn(theirs)
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X)[:, -1:], atol=1e-12)
    assert network.classes == ("0", "1")


def test_multilabel_classifier_gives_the_same_probabilities():
    theirs = fitted(MLPClassifier((6,), max_iter=5, random_state=0), RNG.integers(0, 2, (40, 3)))
    network = interop.from_sklearn(theirs)
    assert repr(network.loss) == "BinaryCrossEntropy()"
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 2])
def test_regressor_gives_the_same_predictions(outputs):
    y = RNG.random((40, outputs))
    theirs = fitted(MLPRegressor(hidden_layer_sizes=(6,), max_iter=5, random_state=0), y[:, 0] if outputs == 1 else y)
    network = interop.from_sklearn(theirs)
    assert repr(network.loss) == "SquaredError()"
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict(X).reshape(40, outputs), atol=1e-12)


def test_poisson_regressor_gives_the_same_predictions():
    theirs = MLPRegressor(hidden_layer_sizes=(6,), loss="poisson", max_iter=5, random_state=0)
    network = interop.from_sklearn(fitted(theirs, RNG.poisson(3, 40)))
    assert repr(network.loss) == "Poisson()"
    np.testing.assert_allclose(network.predict_proba(X)[:, 0], theirs.predict(X), rtol=1e-12)


def test_float32_stays_float32():
    theirs = fitted(MLPClassifier((6,), max_iter=3, random_state=0), np.arange(40) % 3, X.astype(np.float32))
    network = interop.from_sklearn(theirs)
    assert network.dtype == np.float32
    np.testing.assert_allclose(network.predict_proba(X), theirs.predict_proba(X.astype(np.float32)), atol=1e-6)


def test_estimator_of_handgrad_gives_a_copy_of_its_network():
    estimator = fitted(handgrad.sklearn.MLPClassifier((6,), max_iter=3, random_state=0), np.arange(40) % 3)
    network = interop.from_sklearn(estimator)
    np.testing.assert_allclose(network.predict_proba(X), estimator.predict_proba(X), atol=1e-6)
    network.parameters[...] = 0
    assert estimator.network_.parameters.any()


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        (MLPClassifier(), "the MLPClassifier is not fitted: it has no coefs_, intercepts_, out_activation_"),
        (LogisticRegression(), "cannot convert a LogisticRegression: .* expected a fitted MLPClassifier"),
        ("model.joblib", "cannot convert a str"),
    ],
)
def test_other_objects_are_rejected(estimator, match, rejects):
    with rejects(match):
        interop.from_sklearn(estimator)


def test_an_unknown_output_activation_is_rejected(rejects):
    theirs = fitted(MLPRegressor(hidden_layer_sizes=(3,), max_iter=2), X[:, 0])
    theirs.out_activation_ = "tanh"
    with rejects("the MLPRegressor has the output activation 'tanh'"):
        interop.from_sklearn(theirs)
