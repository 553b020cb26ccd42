"""L-BFGS: changing the solver. test_base.py compares its results with scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import make_classification

from handgrad.sklearn import MLPClassifier, sparse

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(240, 8, n_informative=6, n_classes=3, random_state=0)
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 8, "random_state": 3}


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_summed_over_blocks_of_rows(weighted, monkeypatch):
    weights = np.random.default_rng(0).random(240) if weighted else None
    whole = MLPClassifier(**SMALL, solver="lbfgs").fit(X, Y, sample_weight=weights)
    monkeypatch.setattr(sparse, "PREDICT_ROWS", 50)
    blocks = MLPClassifier(**SMALL, solver="lbfgs").fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(blocks.network_.parameters, whole.network_.parameters, rtol=1e-8)
    assert blocks.loss_ == pytest.approx(whole.loss_, rel=1e-10)


def test_another_solver_continues_a_fit_of_lbfgs():
    model = MLPClassifier(**SMALL, solver="lbfgs", warm_start=True).fit(X, Y)
    assert not hasattr(model, "loss_curve_")
    loss = model.loss_
    model.set_params(solver="adam").partial_fit(X, Y)
    assert len(model.loss_curve_) == 1
    assert model.loss_curve_[0] == pytest.approx(loss, rel=0.05)
    model.set_params(solver="lbfgs").fit(X, Y)
    assert model.loss_ < loss
    model.set_params(solver="sgd").fit(X, Y)


def test_lbfgs_without_warm_start_leaves_no_record_of_epochs():
    model = MLPClassifier(**SMALL).fit(X, Y)
    model.set_params(solver="lbfgs").fit(X, Y)
    assert not hasattr(model, "loss_curve_")
    assert not hasattr(model, "history_")
