"""MLPRegressor: losses."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import make_regression

from handgrad import CrossEntropy, Huber, SquaredError
from handgrad.sklearn import MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_regression(240, 8, n_targets=3, noise=1, random_state=0)
Y /= 50


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "log_cosh", Huber(0.2)], ids=str)
def test_other_losses_learn(loss):
    model = MLPRegressor(loss, (30,), learning_rate_init=0.01, max_iter=150, random_state=0).fit(X, Y)
    assert model.score(X, Y) > 0.8
    assert "accuracy" not in model.history_


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_reported_loss_of_squared_error_is_the_mean_over_the_outputs(solver):
    parameters = {"hidden_layer_sizes": (5,), "solver": solver, "alpha": 0.0, "max_iter": 5, "random_state": 0}
    by_name, by_object = (MLPRegressor(loss, **parameters).fit(X, Y) for loss in ("squared_error", SquaredError()))
    if solver == "adam":
        np.testing.assert_array_equal(by_name.network_.parameters, by_object.network_.parameters)
        np.testing.assert_allclose(3 * np.array(by_name.loss_curve_), by_object.loss_curve_, rtol=1e-12)
        assert by_name.history_["loss"] == by_object.history_["loss"]
    else:
        mean = ((by_name.predict(X) - Y) ** 2).mean() / 2
        assert by_name.loss_ == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("loss", [CrossEntropy(), SquaredError("sigmoid")], ids=str)
def test_classification_losses_raise(loss):
    with pytest.raises(ValueError, match="loss must be a regression loss"):
        MLPRegressor(loss=loss).fit(X, Y)


@pytest.mark.parametrize("y", [np.arange(240).astype("M8[D]"), ["1"] * 240, scipy.sparse.eye_array(240, 2)])
def test_targets_that_are_not_numbers_raise(y):
    with pytest.raises(ValueError, match=r"y must be a dense array of numbers, got (dtype|a sparse)"):
        MLPRegressor(max_iter=2).fit(np.ones((240, 2)), y)


def test_unknown_loss_raises_the_error_of_scikit_learn():
    with pytest.raises(ValueError, match=r"The 'loss' parameter of MLPRegressor must be .*'huber'"):
        MLPRegressor(loss="cross_entropy").fit(X, Y)
