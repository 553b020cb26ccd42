"""MLPClassifier: losses, class weights, probabilities."""

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_multilabel_classification

from handgrad import BinaryCrossEntropy, CrossEntropy, Huber, SquaredError
from handgrad.sklearn import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(240, 8, n_informative=6, n_classes=3, random_state=0)
BINARY = np.where(Y > 0, "yes", "no")
X_LABELS, LABELS = make_multilabel_classification(240, 8, n_classes=4, random_state=0)
WEIGHTS = np.random.default_rng(0).random(240)
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 8, "random_state": 3}


# ---- Losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", CrossEntropy(label_smoothing=0.1)], ids=str)
def test_other_losses_learn(loss):
    model = MLPClassifier((20,), loss=loss, learning_rate_init=0.01, max_iter=80, random_state=0).fit(X, Y)
    assert model.score(X, Y) > 0.8


def test_squared_error_applies_a_sigmoid_to_the_outputs():
    model = MLPClassifier((6,), loss="squared_error", alpha=0.0, learning_rate_init=1e-12, max_iter=1, random_state=0)
    model.fit(X, Y)
    assert repr(model.network_.loss) == "SquaredError(activation='sigmoid')"
    assert [type(layer).__name__ for layer in model.network_.layers] == ["Dense", "ReLU", "Dense"]
    assert model.out_activation_ == "logistic"
    z = np.maximum(X @ model.coefs_[0] + model.intercepts_[0], 0) @ model.coefs_[1] + model.intercepts_[1]
    a = 1 / (1 + np.exp(-z))
    assert model.loss_ == pytest.approx(((a - np.eye(3)[Y]) ** 2).sum() / 2 / 240, rel=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), a / a.sum(axis=1, keepdims=True), rtol=1e-10)


@pytest.mark.parametrize("loss", ["log_loss", "squared_error"])
def test_single_output_is_the_probability_of_the_second_class(loss):
    model = MLPClassifier(**SMALL, loss=loss).fit(X, BINARY)
    assert (model.n_outputs_, model.network_.classes) == (1, ("no", "yes"))
    p = model.predict_proba(X)
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-model.network_.outputs(X)[:, 0])), rtol=1e-12)
    assert np.array_equal(model.predict(X) == "yes", p[:, 1] > 0.5)


def test_losses_that_do_not_fit_the_targets_raise():
    with pytest.raises(ValueError, match=r"loss must be BinaryCrossEntropy or SquaredError\('sigmoid'\) for this y"):
        MLPClassifier(loss=CrossEntropy()).fit(X, BINARY)
    for loss in (Huber(), SquaredError()):
        with pytest.raises(ValueError, match="loss must be CrossEntropy, BinaryCrossEntropy or SquaredError"):
            MLPClassifier(loss=loss).fit(X, Y)


# ---- Weights ---------------------------------------------------------------------------------------------------------


def test_class_weight_equals_sample_weight():
    balanced = 240 / (3 * np.bincount(Y))[Y]
    a = MLPClassifier(**SMALL, class_weight="balanced").fit(X, Y)
    b = MLPClassifier(**SMALL).fit(X, Y, sample_weight=balanced)
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-9)
    a = MLPClassifier(**SMALL, class_weight={"yes": 3, "no": 1}).fit(X, BINARY, sample_weight=WEIGHTS)
    b = MLPClassifier(**SMALL).fit(X, BINARY, sample_weight=WEIGHTS * np.where(BINARY == "yes", 3, 1))
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-9)


def test_class_with_larger_weight_is_predicted_more_often():
    settings = SMALL | {"max_iter": 40, "learning_rate_init": 0.01}
    shares = [
        np.mean(MLPClassifier(**settings, class_weight={"yes": w, "no": 1}).fit(X, BINARY).predict(X) == "yes")
        for w in (0.02, 1, 50)
    ]
    assert shares[0] < shares[1] < shares[2]


def test_validation_set_uses_class_weights():
    validation = {"X_val": X[160:], "y_val": BINARY[160:]}
    model = MLPClassifier(**SMALL, class_weight={"yes": 5, "no": 1}).fit(X[:160], BINARY[:160], **validation)
    weights = np.where(BINARY[160:] == "yes", 5, 1)
    assert model.history_["val_score"][-1] == pytest.approx(model.score(X[160:], BINARY[160:], weights))


def test_validation_set_uses_the_balanced_class_weights_of_the_training_set():
    y, y_val = BINARY[:160], BINARY[np.r_[160:240]]
    y_val[:20] = "no"
    model = MLPClassifier(**SMALL, class_weight="balanced").fit(X[:160], y, X_val=X[160:], y_val=y_val)
    weight = {name: 160 / (2 * (y == name).sum()) for name in ("no", "yes")}
    expected = model.score(X[160:], y_val, [weight[name] for name in y_val])
    assert model.history_["val_score"][-1] == pytest.approx(expected, rel=1e-12)


def test_class_weight_of_multilabel_targets_is_one_dict_per_label():
    per_label = [{0: 1, 1: 2}, {0: 1, 1: 1}, {0: 3, 1: 1}, {0: 1, 1: 1}]
    a = MLPClassifier(**SMALL, class_weight=per_label).fit(X_LABELS, LABELS)
    weights = np.where(LABELS[:, 0], 2, 1) * np.where(LABELS[:, 2], 1, 3)
    b = MLPClassifier(**SMALL).fit(X_LABELS, LABELS, sample_weight=weights)
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-9)


def test_partial_fit_rejects_balanced_class_weights():
    with pytest.raises(ValueError, match=r"'balanced' needs all of y.*use a dict"):
        MLPClassifier(**SMALL, class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])


# ---- Probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["log_loss", "squared_error", BinaryCrossEntropy()], ids=str)
def test_probabilities_sum_to_1_and_match_the_predictions(loss):
    model = MLPClassifier(**SMALL, loss=loss).fit(X, Y)
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p)
    assert np.array_equal(p.argmax(axis=1), model.predict(X))


def test_log_proba_is_finite_if_the_probability_rounds_to_0():
    model = MLPClassifier(hidden_layer_sizes=(), max_iter=1, random_state=0).fit(X, BINARY)
    model.coefs_[0][...], model.intercepts_[0][...] = 0, -800
    assert model.predict_proba(X)[0, 1] == 0
    np.testing.assert_array_equal(model.predict_log_proba(X)[0], [0, -800])


def test_multilabel_history_has_no_accuracy():
    model = MLPClassifier(**SMALL).fit(X_LABELS, LABELS, X_val=X_LABELS[:50], y_val=LABELS[:50])
    assert set(model.history_) == {"loss", "lr", "seconds", "val_loss", "val_score"}
    assert model.history_["val_score"][-1] == model.score(X_LABELS[:50], LABELS[:50])


def test_missing_dates_are_rejected():
    y = np.array(["2026-01-01", "NaT"], "M8[D]")[np.arange(10) % 2]
    with pytest.raises(ValueError, match="contains NaT"):
        MLPClassifier().fit(np.eye(10), y)
