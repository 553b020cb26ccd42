"""Sample weights and class weights: weights of zero, very small and very large weights, missing classes."""

import datetime

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression

from handgrad.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(120, 8, n_informative=6, n_classes=3, random_state=0)
NAMES = np.array(["ham", "eggs", "spam"])[Y]
X_LABELS, LABELS = make_multilabel_classification(120, 8, n_classes=4, random_state=0)
X_NUMBERS, NUMBERS = make_regression(120, 8, n_targets=3, noise=1, random_state=0)
NUMBERS /= 50
SPARSE = scipy.sparse.random(120, 400, 0.01, "csr", random_state=np.random.default_rng(0))
WEIGHTS = np.random.default_rng(0).random(120)
WEIGHTS[::5] = 0
USED = WEIGHTS > 0
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 4, "random_state": 3}


def assert_same_training(a, b):
    assert np.array_equal(a.network_.parameters, b.network_.parameters)
    for name in ("loss_", "loss_curve_", "t_", "n_iter_", "validation_scores_", "best_validation_score_"):
        assert getattr(a, name, None) == getattr(b, name, None), name


# ---- Sample weights of zero ------------------------------------------------------------------------------------------

DATA = {
    "classes": (MLPClassifier, X, NAMES),
    "labels": (MLPClassifier, X_LABELS, LABELS),
    "numbers": (MLPRegressor, X_NUMBERS, NUMBERS),
    "sparse": (MLPClassifier, SPARSE, Y),
    "denser": (MLPRegressor, scipy.sparse.csc_array(X_NUMBERS), NUMBERS[:, 0]),
    "float32": (MLPRegressor, X_NUMBERS.astype(np.float32), NUMBERS),
}


# The examples are left out before the training: the data and the solver do not interact.
@pytest.mark.parametrize(
    ("data", "solver", "batch_size"),
    [
        *((data, "sgd", 7) for data in DATA),
        *(("classes", *fit) for fit in (("adam", 1), ("lbfgs", "auto"), ("muon", 7))),
    ],
)
def test_examples_of_weight_zero_are_as_absent(data, batch_size, solver):
    estimator, x, y = DATA[data]
    models = [estimator(**SMALL, solver=solver, batch_size=batch_size) for _ in range(2)]
    assert_same_training(
        models[0].fit(x, y, sample_weight=WEIGHTS), models[1].fit(x[USED], y[USED], sample_weight=WEIGHTS[USED])
    )


@pytest.mark.parametrize(
    ("data", "parameters"),
    [
        ("classes", {"early_stopping": True, "max_iter": 9}),
        ("sparse", {"early_stopping": True, "max_iter": 9}),
        ("labels", {"warm_start": True}),
        ("numbers", {"dropout": 0.3}),
    ],
)
def test_examples_of_weight_zero_are_as_absent_from_every_kind_of_fit(data, parameters):
    estimator, x, y = DATA[data]
    a, b = (estimator(**SMALL | {"batch_size": 7} | parameters) for _ in range(2))
    for _ in range(2):
        a.fit(x, y, sample_weight=WEIGHTS)
        b.fit(x[USED], y[USED], sample_weight=WEIGHTS[USED])
        assert_same_training(a, b)


def test_examples_of_weight_zero_are_as_absent_from_partial_fit():
    a, b = (MLPClassifier(**SMALL, solver="sgd", batch_size=7) for _ in range(2))
    for rows in (slice(0, 60), slice(60, 120), slice(30, 90)):
        w = WEIGHTS[rows]
        a.partial_fit(X[rows], NAMES[rows], w, classes=["eggs", "ham", "spam"])
        b.partial_fit(X[rows][w > 0], NAMES[rows][w > 0], w[w > 0], classes=["eggs", "ham", "spam"])
        assert_same_training(a, b)


def test_one_weight_of_zero_among_equal_weights_equals_a_fit_without_weights():
    weights = np.ones(120)
    weights[17] = 0
    used = weights > 0
    for solver in ("sgd", "adam"):
        settings = SMALL | {"solver": solver, "batch_size": 1}
        a = MLPRegressor(**settings).fit(X_NUMBERS, NUMBERS, sample_weight=weights)
        b = MLPRegressor(**settings).fit(X_NUMBERS[used], NUMBERS[used])
        np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-12)
        assert a.loss_ < 10


def test_examples_of_weight_zero_are_as_absent_from_the_validation_set():
    settings = SMALL | {"early_stopping": True, "max_iter": 30}
    half, rest = slice(0, 60), np.arange(120) >= 60
    models = [
        MLPClassifier(**settings).fit(X[half], Y[half], X_val=X[rows], y_val=Y[rows], sample_weight_val=WEIGHTS[rows])
        for rows in (rest, rest & USED)
    ]
    assert_same_training(*models)
    assert models[0].history_["val_loss"] == models[1].history_["val_loss"]
    one = np.where(np.arange(120) == 7, 1.0, 0.0)
    with pytest.raises(ValueError, match="X_val has 1 examples of weight > 0"):
        MLPClassifier(**SMALL).fit(X, Y, X_val=X, y_val=Y, sample_weight_val=one)


def test_balanced_class_weights_do_not_count_examples_of_weight_zero():
    for x, y in ((X, NAMES), (X_LABELS, LABELS)):
        a, b = (MLPClassifier(**SMALL, class_weight="balanced") for _ in range(2))
        assert_same_training(a.fit(x, y, sample_weight=WEIGHTS), b.fit(x[USED], y[USED], sample_weight=WEIGHTS[USED]))


def test_class_whose_examples_all_have_weight_zero_remains_a_class():
    a = MLPClassifier(**SMALL).fit(X, Y, sample_weight=Y > 0)
    b = MLPClassifier(**SMALL)
    for _ in range(4):
        b.partial_fit(X[Y > 0], Y[Y > 0], classes=[0, 1, 2])
    np.testing.assert_allclose(a.network_.parameters, b.network_.parameters, rtol=1e-12)
    assert a.predict_proba(X).shape == (120, 3)


# ---- Class weights of zero -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [{"solver": "lbfgs"}, {"early_stopping": True, "max_iter": 30}, {"solver": "sgd", "batch_size": 1}],
    ids=str,
)
def test_class_of_weight_zero_is_as_absent(parameters):
    settings = SMALL | parameters
    a = MLPClassifier(**settings, class_weight={"ham": 2, "eggs": 0, "spam": 1}).fit(X, NAMES)
    weights = np.select([NAMES == "ham", NAMES == "spam"], [2.0, 1.0])
    assert_same_training(a, MLPClassifier(**settings).fit(X, NAMES, sample_weight=weights))
    assert a.classes_.tolist() == ["eggs", "ham", "spam"]


def test_class_of_weight_zero_is_as_absent_from_partial_fit():
    a = MLPClassifier(**SMALL, batch_size=1, solver="sgd", class_weight={"eggs": 0})
    b = MLPClassifier(**SMALL, batch_size=1, solver="sgd")
    for rows in (NAMES == "eggs", slice(0, 60), NAMES == "eggs", slice(60, 120)):  # nothing remains of two batches
        y, kept = NAMES[rows], NAMES[rows] != "eggs"
        a.partial_fit(X[rows], y, classes=["eggs", "ham", "spam"])
        if kept.any():
            b.partial_fit(X[rows][kept], y[kept], classes=["eggs", "ham", "spam"])
    np.testing.assert_allclose(a.network_.parameters, b.network_.parameters, rtol=1e-12)
    assert a.loss_curve_ == pytest.approx(b.loss_curve_, rel=1e-12)


def test_label_of_weight_zero_is_as_absent():
    used = LABELS[:, 1] == 0
    a = MLPClassifier(**SMALL, class_weight=[{}, {1: 0}, {}, {}]).fit(X_LABELS, LABELS)
    b = MLPClassifier(**SMALL).fit(X_LABELS[used], LABELS[used], sample_weight=np.ones(used.sum()))
    assert_same_training(a, b)


def test_weights_that_leave_no_example_raise():
    with pytest.raises(ValueError, match="at least one non-zero"):
        MLPClassifier(**SMALL).fit(X, Y, sample_weight=np.zeros(120))
    with pytest.raises(ValueError, match="class_weight gives all examples the weight zero"):
        MLPClassifier(**SMALL, class_weight={0: 0, 1: 0, 2: 0}).fit(X, Y)


# ---- Very small and very large weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tiny", "dtype", "parameters"),
    [
        (1e-12, np.float64, {"solver": "sgd"}),
        (1e-40, np.float32, {"solver": "adam"}),
        (1e-40, np.float32, {"solver": "sgd", "alpha": 0.5, "learning_rate_init": 0.01}),
        (5e-324, np.float64, {"solver": "sgd", "alpha": 0.5, "learning_rate_init": 0.01}),
    ],
    ids=str,
)
def test_batch_of_a_very_small_weight_does_not_dominate_the_penalty(tiny, parameters, dtype):
    weights = np.where(np.arange(120) % 40 == 17, tiny, 1.0)
    settings = SMALL | {"batch_size": 1, "max_iter": 15} | parameters
    model = MLPClassifier(**settings).fit(X.astype(dtype), Y, sample_weight=weights)
    other = MLPClassifier(**settings).fit(X.astype(dtype)[weights == 1], Y[weights == 1])
    assert model.loss_ == pytest.approx(other.loss_, rel=0.15)
    norms = [np.linalg.norm(m.network_.parameters) for m in (model, other)]
    assert norms[0] == pytest.approx(norms[1], rel=0.15)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_floating_point_errors_can_be_exceptions(solver):
    weights = np.where(np.arange(120) % 40 == 17, 1e-300, WEIGHTS)
    with np.errstate(all="raise"):
        for x, y in ((X, NAMES), (X_LABELS, LABELS), (X.astype(np.float32), Y > 0)):
            model = MLPClassifier(**SMALL, solver=solver, batch_size=1).fit(x, y, sample_weight=weights)
            model.predict(1e8 * x)
            model.predict_proba(1e8 * x)
            assert np.isfinite(model.predict_log_proba(1e8 * x)).all()


@pytest.mark.parametrize("scale", [1e-200, 1e-40, 1e300])
def test_factor_of_all_weights_only_scales_the_penalty(scale):
    x = X.astype(np.float32)
    a, b = (MLPClassifier(**SMALL, batch_size=7, alpha=0).fit(x, Y, sample_weight=s * WEIGHTS) for s in (1, scale))
    np.testing.assert_allclose(a.network_.parameters, b.network_.parameters, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_sample_weights_that_are_nan_infinite_or_negative_raise(weight):
    weights = np.where(np.arange(120) == 3, weight, 1.0)
    problem = "[Nn]egative" if weight == -1 else "contains (NaN|infinity)"
    for fit in (
        lambda: MLPClassifier(**SMALL).fit(X, Y, sample_weight=weights),
        lambda: MLPRegressor(**SMALL, solver="lbfgs").fit(X, Y, sample_weight=weights),
        lambda: MLPClassifier(**SMALL).partial_fit(X, Y, weights, classes=[0, 1, 2]),
        lambda: MLPClassifier(**SMALL).fit(X, Y, X_val=X, y_val=Y, sample_weight_val=weights),
    ):
        with pytest.raises(ValueError, match=problem):
            fit()
    with pytest.raises(ValueError, match=r"finite|[Nn]egative"):
        MLPClassifier(**SMALL).fit(X, Y, sample_weight=weight)


def test_sample_weights_with_an_infinite_sum_raise():
    with pytest.raises(ValueError, match="the sum of the sample weights must be finite"):
        MLPClassifier(**SMALL).fit(X, Y, sample_weight=np.full(120, 1e308))
    with pytest.raises(ValueError, match="the sum of the sample weights must be finite"):
        MLPClassifier(**SMALL, class_weight={0: 1e300, 1: 1, 2: 1}).fit(X, Y, sample_weight=np.full(120, 1e300))


# ---- Classes that y does not contain ---------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [NAMES, Y, Y * 1.0, Y > 0, np.datetime64("2020-01-01") + Y], ids=lambda y: y.dtype)
def test_batches_need_not_contain_every_class_of_class_weight(labels):
    classes = np.unique(labels)
    class_weight = dict(zip(classes.tolist(), (5, 1, 2), strict=False))
    a = MLPClassifier(**SMALL, class_weight=class_weight)
    b = MLPClassifier(**SMALL)
    for name in classes:
        rows = labels == name
        a.partial_fit(X[rows], labels[rows], classes=classes)
        b.partial_fit(X[rows], labels[rows], np.full(rows.sum(), class_weight[name.item()]), classes=classes)
    np.testing.assert_allclose(a.network_.parameters, b.network_.parameters, rtol=1e-12)
    one = labels == classes[0]
    model = MLPClassifier(**SMALL, class_weight=class_weight).fit(X, labels, X_val=X[one], y_val=labels[one])
    assert model.history_["val_score"][-1] == model.score(X[one], labels[one])


def test_balanced_weights_accept_a_validation_set_without_a_class():
    for x, y in ((X, NAMES), (X_LABELS, LABELS)):
        rows = y == "ham" if y.ndim == 1 else y[:, 0] == 1
        model = MLPClassifier(**SMALL, class_weight="balanced").fit(x, y, X_val=x[rows], y_val=y[rows])
        assert np.isfinite(model.history_["val_loss"]).all()


def test_labels_that_a_batch_lacks_have_no_effect():
    rows = LABELS[:, 2] == 0
    model = MLPClassifier(**SMALL, class_weight=[{}, {}, {1: 3}, {0: 1}])
    model.partial_fit(X_LABELS, LABELS, classes=range(4)).partial_fit(X_LABELS[rows], LABELS[rows])
    assert len(model.loss_curve_) == 2


def test_class_without_a_weight_has_weight_1():
    a = MLPClassifier(**SMALL, class_weight={"spam": 5}).fit(X, NAMES)
    b = MLPClassifier(**SMALL, class_weight={"spam": 5, "ham": 1, "eggs": 1}).fit(X, NAMES)
    assert_same_training(a, b)


def test_class_weight_accepts_dates_of_other_types():
    dates = np.datetime64("2020-01-01") + Y
    models = [
        MLPClassifier(**SMALL, class_weight={key: 5}).fit(X, dates)
        for key in (np.datetime64("2020-01-01"), datetime.date(2020, 1, 1), "2020-01-01")
    ]
    for other in models[1:]:
        assert_same_training(models[0], other)


@pytest.mark.parametrize(
    ("labels", "class_weight", "message"),
    [
        (NAMES, {"spam": 5, "hamm": 1}, "weights for classes that are not in .*hamm"),
        (NAMES, {"spam": -1}, "class weights must be numbers >= 0"),
        (NAMES, {"spam": np.nan}, "class weights must be numbers >= 0"),
        (NAMES, {"spam": np.inf}, "class weights must be numbers >= 0"),
        (NAMES, {"spam": "heavy"}, "class weights must be numbers >= 0"),
        (NAMES, [{"spam": 5}], "must be a dict or 'balanced'"),
        (LABELS, {0: 5}, "must be a list of 4 dicts, one for each label, or 'balanced'"),
        (LABELS, [{1: 2}], "must be a list of 4 dicts"),
        (LABELS, [{1: 2}, {1: 2}, 5, {}], "must be a dict {class: weight}, got 5"),
        (LABELS, [{7: 2}, {}, {}, {}], r"weights for classes that are not in \[0, 1\]"),
    ],
    ids=str,
)
def test_invalid_class_weights_raise(labels, class_weight, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**SMALL, class_weight=class_weight).fit(X, labels)
