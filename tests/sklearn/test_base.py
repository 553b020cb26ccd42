"""Both estimators: parity with scikit-learn, continued training, validation sets, callbacks, errors."""

import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from sklearn import neural_network as reference
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_info

import handgrad
from handgrad import EMA, Callback, CrossEntropy, EarlyStopping
from handgrad import sklearn as ours
from handgrad.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(240, 8, n_informative=6, n_classes=3, random_state=0)
BINARY = np.where(Y > 0, "yes", "no")
X_LABELS, LABELS = make_multilabel_classification(240, 8, n_classes=4, random_state=0)
X_NUMBERS, NUMBERS = make_regression(240, 8, n_targets=3, noise=1, random_state=0)
NUMBERS /= 50
COUNTS = np.abs(NUMBERS).round()
SPARSE = scipy.sparse.random(240, 400, 0.01, "csr", random_state=np.random.default_rng(0))
WEIGHTS = np.random.default_rng(0).random(240)
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 8, "random_state": 3}
VALIDATION = {"X_val": X[160:], "y_val": Y[160:]}

both_kinds = pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])


# ---- The interface of scikit-learn -----------------------------------------------------------------------------------


@parametrize_with_checks(
    [MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)], expected_failed_checks=lambda estimator: {}
)
def test_estimator_checks_of_scikit_learn(estimator, check):
    check(estimator)


@both_kinds
def test_parameters_of_scikit_learn_have_the_same_order_and_defaults(kind):
    mine, other = (inspect.signature(getattr(module, kind).__init__).parameters for module in (ours, reference))
    assert list(mine)[: len(other)] == list(other)
    for name, parameter in other.items():
        assert (mine[name].default, mine[name].kind) == (parameter.default, parameter.kind), name
    assert all(p.kind is p.KEYWORD_ONLY for name, p in mine.items() if name not in other)


@both_kinds
def test_public_methods_and_fitted_attributes_of_scikit_learn_exist(kind):
    y = Y if kind == "MLPClassifier" else NUMBERS
    mine, other = (getattr(module, kind)(**SMALL, early_stopping=True).fit(X, y) for module in (ours, reference))
    missing = {name for name in dir(other) if not name.startswith("_")} - set(dir(mine))
    assert missing == set()


@both_kinds
def test_docstring_describes_every_parameter(kind):
    estimator = getattr(ours, kind)
    described = {
        name
        for line in estimator.__doc__.splitlines()
        if line[:4].isspace() and not line[4:5].isspace() and " : " in line
        for name in line.partition(" : ")[0].strip().split(", ")
    }
    assert set(inspect.signature(estimator).parameters) <= described


def test_estimators_work_in_pipelines_searches_and_calibration():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((20,), max_iter=100, random_state=0))
    pipeline.set_output(transform="pandas")
    assert cross_val_score(pipeline, X, Y, cv=3).min() > 0.5
    search = GridSearchCV(
        MLPClassifier(**SMALL), {"dropout": [0.0, 0.2], "activation": ["tanh", ["relu", "tanh"]]}, cv=2
    )
    assert search.fit(X, Y).best_score_ > 0.3
    calibrated = CalibratedClassifierCV(MLPClassifier(**SMALL), cv=2).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


class OneLayer(MLPClassifier):
    def __init__(self, width=10):
        super().__init__((width,), max_iter=2, random_state=0)
        self.width = width


def test_subclass_can_have_other_parameters():
    assert clone(OneLayer(7)).fit(X, Y).coefs_[0].shape == (8, 7)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_fit_accepts_data_frames(frame):
    columns = {f"column {i}": X[:, i] for i in range(8)}
    model = MLPClassifier(**SMALL).fit(frame(columns), Y)
    assert list(model.feature_names_in_) == list(columns)
    assert np.array_equal(model.predict(frame(columns)), MLPClassifier(**SMALL).fit(X, Y).predict(X))


def test_setting_coefs_and_intercepts_changes_the_network():
    model = MLPRegressor(**SMALL).fit(X_NUMBERS, NUMBERS)
    model.coefs_ = [np.zeros_like(coef) for coef in model.coefs_]
    model.intercepts_[-1][...] = 7
    assert np.array_equal(model.predict(X_NUMBERS), np.full((240, 3), 7.0))


def test_from_sklearn_copies_the_network():
    model = MLPClassifier((6, 5), ["gelu", "tanh"], dropout=0.2, max_iter=2, random_state=0).fit(X, Y)
    network = handgrad.interop.from_sklearn(model)
    assert np.array_equal(network.outputs(X), model.network_.outputs(X))
    network.parameters[...] = 0
    assert np.abs(model.coefs_[0]).max() > 0


# ---- The numbers of scikit-learn -------------------------------------------------------------------------------------

ADAPTIVE = {"learning_rate": "adaptive", "learning_rate_init": 0.1, "n_iter_no_change": 1, "max_iter": 60}
CASES = [
    ("MLPClassifier", X, Y, {"activation": "identity", "solver": "sgd"}),
    ("MLPClassifier", X, Y, {"activation": "logistic", "solver": "adam"}),
    ("MLPClassifier", X, Y, {"activation": "tanh", "solver": "sgd"}),
    *[("MLPClassifier", X, Y, {"solver": solver}) for solver in ("sgd", "adam", "lbfgs")],
    ("MLPClassifier", X, Y, {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5}),
    ("MLPClassifier", X, Y, {"solver": "sgd", **ADAPTIVE}),
    ("MLPClassifier", X, Y, {"solver": "sgd", "nesterovs_momentum": False, "batch_size": 32}),
    ("MLPClassifier", X, Y, {"solver": "sgd", "momentum": 0.0, "alpha": 0.5, "batch_size": 7}),
    ("MLPClassifier", X, Y, {"shuffle": False, "alpha": 1.0, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.1}),
    ("MLPClassifier", X, Y, {"early_stopping": True, "max_iter": 80, "learning_rate_init": 0.01}),
    ("MLPClassifier", X, Y, {"max_iter": 200, "tol": 1e-2, "n_iter_no_change": 3, "hidden_layer_sizes": ()}),
    ("MLPClassifier", X, BINARY, {"hidden_layer_sizes": 6}),
    ("MLPClassifier", X, BINARY, {"early_stopping": True, "validation_fraction": 0.3}),
    ("MLPClassifier", scipy.sparse.csr_matrix(X), Y, {"batch_size": 50}),
    ("MLPClassifier", scipy.sparse.csc_array(X), Y, {"solver": "lbfgs"}),
    *[("MLPClassifier", SPARSE, Y, {"solver": solver, "batch_size": 50}) for solver in ("sgd", "lbfgs")],
    ("MLPClassifier", SPARSE.tocsc(), BINARY, {"early_stopping": True, "max_iter": 30}),
    ("MLPRegressor", SPARSE, NUMBERS, {"hidden_layer_sizes": ()}),
    ("MLPClassifier", X_LABELS, LABELS, {}),
    ("MLPClassifier", X_LABELS, LABELS, {"early_stopping": True, "max_iter": 30}),
    *[("MLPRegressor", X_NUMBERS, NUMBERS, {"solver": solver}) for solver in ("sgd", "adam", "lbfgs")],
    ("MLPRegressor", X_NUMBERS, NUMBERS[:, 0], {"early_stopping": True, "max_iter": 80}),
    ("MLPRegressor", X_NUMBERS, COUNTS, {"loss": "poisson"}),
    ("MLPRegressor", X_NUMBERS, COUNTS[:, 1], {"loss": "poisson", "solver": "lbfgs"}),
]
WEIGHTED = [
    *[("MLPClassifier", X, Y, {"solver": solver}) for solver in ("sgd", "adam", "lbfgs")],
    ("MLPClassifier", X, BINARY, {"early_stopping": True, "validation_fraction": 0.3}),
    ("MLPClassifier", SPARSE, Y, {"solver": "sgd", "batch_size": 50}),
    ("MLPClassifier", SPARSE, Y, {"solver": "lbfgs"}),
    ("MLPClassifier", X_LABELS, LABELS, {"early_stopping": True, "max_iter": 30}),
    ("MLPRegressor", X_NUMBERS, NUMBERS[:, 0], {"early_stopping": True, "max_iter": 80}),
    ("MLPRegressor", X_NUMBERS, COUNTS, {"loss": "poisson"}),
]


@pytest.mark.parametrize(
    ("case", "weights"),
    [*((case, None) for case in CASES), *((case, WEIGHTS) for case in WEIGHTED)],
    ids=lambda value: f"{value[0]}-{type(value[1]).__name__}-{value[3]}" if isinstance(value, tuple) else "",
)
def test_fit_equals_scikit_learn_up_to_rounding(case, weights):
    kind, x, y, parameters = case
    mine, other = (getattr(m, kind)(**SMALL | parameters).fit(x, y, sample_weight=weights) for m in (ours, reference))
    for a, b in zip(mine.coefs_ + mine.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(mine, name) == getattr(other, name), name
    for name in ("loss_", "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_"):
        if getattr(other, name, None) is None:
            assert getattr(mine, name, None) is None
        else:
            np.testing.assert_allclose(getattr(mine, name), getattr(other, name), rtol=1e-9, atol=1e-12)
    if kind == "MLPClassifier":
        np.testing.assert_array_equal(mine.predict(x), other.predict(x))
    for name in ("predict_proba", "predict_log_proba") if kind == "MLPClassifier" else ("predict",):
        np.testing.assert_allclose(getattr(mine, name)(x), getattr(other, name)(x), rtol=1e-7, atol=1e-9)
    assert mine.score(x, y, weights) == pytest.approx(other.score(x, y, weights), rel=1e-9)


def test_partial_fit_without_shuffling_equals_scikit_learn():
    mine, other = (module.MLPClassifier(**SMALL, shuffle=False, batch_size=50) for module in (ours, reference))
    for rows in (slice(0, 120), slice(120, 240), slice(60, 200)):
        mine.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
        other.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
    np.testing.assert_allclose(mine.coefs_[0], other.coefs_[0], rtol=1e-9)
    assert (mine.t_, mine.loss_curve_) == (other.t_, pytest.approx(other.loss_curve_))


def test_float32_input_gives_a_float32_network_equal_to_scikit_learn():
    x = X.astype(np.float32)
    mine, other = (module.MLPClassifier(**SMALL).fit(x, Y) for module in (ours, reference))
    assert mine.coefs_[0].dtype == mine.predict_proba(x).dtype == np.float32
    np.testing.assert_allclose(mine.coefs_[0], other.coefs_[0], atol=1e-6)


def test_another_random_state_gives_other_weights():
    a, b = (MLPClassifier(**SMALL | {"random_state": seed}).fit(X, Y) for seed in (0, 1))
    assert np.abs(a.coefs_[0] - b.coefs_[0]).max() > 0.1


def test_verbose_prints_the_lines_of_scikit_learn(capsys):
    for parameters in ({}, {"early_stopping": True, "max_iter": 40, "tol": 1.0, "n_iter_no_change": 2}):
        printed = []
        for module in (ours, reference):
            module.MLPClassifier(**SMALL | parameters, verbose=True).fit(X, Y)
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] != ""
    adaptive = {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1, "max_iter": 30}
    MLPClassifier(**SMALL | adaptive, verbose=True).fit(X, Y)
    assert "Setting learning rate to 0.000200" in capsys.readouterr().out
    MLPClassifier(**SMALL, solver="lbfgs", verbose=True).fit(X, Y)
    assert "Iteration 1, loss =" in capsys.readouterr().out


def test_fit_warns_if_max_iter_is_reached_without_convergence():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(8\) reached"):
        MLPClassifier(**SMALL).fit(X, Y)


# ---- Continued training ----------------------------------------------------------------------------------------------

CONTINUED = [
    ({}, X),
    ({}, SPARSE),
    ({"solver": "sgd", "learning_rate": "invscaling"}, X),
    ({"solver": "sgd", "learning_rate": "invscaling"}, SPARSE),
    ({"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "learning_rate_init": 1.0}, X),
    ({"dropout": 0.3}, X),
    ({"dropout": 0.3}, SPARSE),
    ({"solver": "muon"}, X),
    ({"solver": "adamw", "activation": ["tanh", "gelu"]}, X),
    ({"solver": "momentum", "init": "kaiming_uniform"}, X),
    ({"random_state": np.random.RandomState(5)}, X),
    ({"dtype": np.float32, "class_weight": {0: 1, 1: 2, 2: 0.5}}, X),
]


@pytest.mark.parametrize(("parameters", "x"), CONTINUED, ids=lambda value: str(value) if type(value) is dict else "")
def test_interrupted_training_gives_the_same_bits(parameters, x, tmp_path):
    parameters = SMALL | {"batch_size": 32, "tol": 0.0} | parameters
    whole = clone(MLPClassifier(**parameters)).fit(x, Y)

    epochs = clone(MLPClassifier(**parameters))
    for epoch in range(8):
        epochs.partial_fit(x, Y, classes=[0, 1, 2])
        if epoch == 2:
            epochs = pickle.loads(pickle.dumps(epochs))
        if epoch == 4:
            ours.save(epochs, tmp_path / "half.safetensors")
            epochs = ours.load(tmp_path / "half.safetensors")

    warm = clone(MLPClassifier(**parameters | {"warm_start": True, "max_iter": 3})).fit(x, Y)
    warm.set_params(max_iter=5).fit(x, Y)

    for other in (epochs, warm):
        assert np.array_equal(other.network_.parameters, whole.network_.parameters)
        assert other.loss_curve_ == whole.loss_curve_
        assert other.history_["loss"] == whole.history_["loss"]
        assert other.t_ == whole.t_


def test_schedule_runs_over_max_iter_calls_of_partial_fit():
    whole = MLPClassifier(**SMALL, schedule="cosine").fit(X, Y)
    epochs = MLPClassifier(**SMALL, schedule="cosine")
    for _ in range(8):
        epochs.partial_fit(X, Y, classes=[0, 1, 2])
    assert np.array_equal(epochs.network_.parameters, whole.network_.parameters)
    assert whole.history_["lr"][0] == 1e-3 > whole.history_["lr"][-1]


def test_schedule_of_a_warm_start_runs_over_the_new_epochs():
    model = MLPClassifier(**SMALL, schedule="cosine", warm_start=True).fit(X, Y).fit(X, Y)
    lr = model.history_["lr"]
    assert len(lr) == 16
    assert lr[8:] == lr[:8]


def test_warm_start_with_another_learning_rate_keeps_the_optimizer_state():
    model = MLPClassifier(**SMALL, solver="sgd", warm_start=True).fit(X, Y)
    state = model._optimizer.state.copy()
    model.set_params(learning_rate_init=1e-12, max_iter=1).fit(X, Y)
    assert model._optimizer.lr == 1e-12
    np.testing.assert_allclose(model._optimizer.state, state * 0.9**2, rtol=0.05, atol=1e-6)  # two steps with lr = 0


def test_fit_without_warm_start_starts_again():
    model = MLPClassifier(**SMALL).fit(X, Y)
    first = model.network_.parameters.copy()
    assert np.array_equal(model.fit(X, Y).network_.parameters, first)
    assert len(model.loss_curve_) == 8


@pytest.mark.parametrize(
    ("y", "parameters", "message"),
    [
        (-np.abs(NUMBERS), {"loss": "poisson"}, "Poisson expects counts >= 0"),
        (NUMBERS * 1e300, {}, "y contains values that are too large for float32"),
        (NUMBERS, {"solver": "momentum", "momentum": 1.0}, "momentum must be in"),
        (NUMBERS, {"early_stopping": True, "validation_fraction": 0.001}, "The validation set is too small"),
    ],
)
def test_a_fit_that_is_rejected_does_not_change_the_earlier_one(y, parameters, message):
    model = MLPRegressor("squared_error", (5,), max_iter=2, random_state=0).fit(X_NUMBERS.astype(np.float32), NUMBERS)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.set_params(**parameters).fit(X_NUMBERS.astype(np.float32), y)
    assert vars(model) == before | parameters


def test_warm_start_rejects_other_layers_losses_and_classes():
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="cannot continue the previous fit"):
        model.set_params(hidden_layer_sizes=(7, 6)).fit(X, Y)
    with pytest.raises(ValueError, match="cannot continue the previous fit"):
        model.set_params(hidden_layer_sizes=(7, 5), loss=CrossEntropy(0.3)).fit(X, Y)
    model.set_params(loss="log_loss")
    with pytest.raises(ValueError, match="same classes as in the previous call"):
        model.set_params(hidden_layer_sizes=(7, 5)).fit(X[Y > 0], Y[Y > 0])


def test_partial_fit_accepts_another_dtype_and_format():
    a, b = (MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1, 2]) for _ in range(2))
    x = X.astype(np.float32)
    a.partial_fit(x, Y)
    b.partial_fit(scipy.sparse.csc_matrix(x), Y)
    assert a.coefs_[0].dtype == np.float64
    assert np.array_equal(a.coefs_[0], b.coefs_[0])


def test_warm_start_with_early_stopping_keeps_the_best_weights_so_far():
    parameters = SMALL | {"warm_start": True, "early_stopping": True, "learning_rate_init": 0.05, "max_iter": 30}
    validation = {"X_val": scipy.sparse.csc_matrix(X[160:]), "y_val": Y[160:]}
    model = MLPClassifier(**parameters, tol=0.0).fit(X[:160], Y[:160], **validation)
    best = model.network_.parameters.copy()
    model.set_params(learning_rate_init=5.0, max_iter=1).fit(X[:160], Y[:160], **validation)
    assert np.array_equal(model.network_.parameters, best)


def test_warm_start_can_turn_early_stopping_on_and_off():
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    model.set_params(early_stopping=True).fit(X, Y)
    assert len(model.validation_scores_) == 8
    model.set_params(early_stopping=False).fit(X, Y)
    assert len(model.loss_curve_) == 8


def test_pickle_contains_neither_buffers_nor_data():
    model = MLPClassifier((100,), max_iter=2, random_state=0, dtype=np.float32)
    size = len(pickle.dumps(model.fit(np.tile(X, (40, 1)), np.tile(Y, 40))))
    vectors = 3 * model.network_.parameters.nbytes  # θ and the two moments of Adam
    assert size < vectors + 8 * 9_600 + 16_000  # and the order of 9,600 examples


# ---- Layers and solvers ----------------------------------------------------------------------------------------------


def test_each_layer_has_its_activation_and_dropout():
    model = MLPClassifier((6, 5), ["tanh", "leaky_relu"], dropout=[0.0, 0.5], max_iter=3, random_state=0).fit(X, Y)
    assert [type(layer).__name__ for layer in model.network_.layers] == [
        *("Dense", "Tanh", "Dense", "LeakyReLU", "Dropout", "Dense")
    ]
    assert np.array_equal(model.predict_proba(X), model.predict_proba(X))  # no dropout in predictions


def test_dropout_changes_neither_the_initial_weights_nor_the_batches():
    a, b = (MLPClassifier(**SMALL, dropout=rate, learning_rate_init=1e-12).fit(X, Y) for rate in (0.0, 0.5))
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], atol=1e-9)
    assert np.array_equal(a._sample_order, b._sample_order)
    assert a.loss_curve_ != b.loss_curve_


@pytest.mark.parametrize("solver", ["momentum", "nesterov", "adamw", "muon"])
def test_solvers_of_handgrad_learn(solver):
    model = MLPClassifier((20,), solver=solver, learning_rate_init=0.02, max_iter=60, random_state=0).fit(X, Y)
    assert model.loss_curve_[-1] < 0.6 * model.loss_curve_[0]
    assert model.score(X, Y) > 0.8


def test_alpha_is_the_weight_decay_of_adamw():
    model = MLPClassifier(**SMALL, solver="adamw", alpha=0.5).fit(X, Y)
    assert (model._optimizer.weight_decay, model._optimizer.l2) == (0.5, 0)
    assert model.loss_curve_ == model.history_["loss"]  # no penalty


def test_adam_ignores_learning_rate():
    a, b = (MLPClassifier(**SMALL, learning_rate=rate).fit(X, Y) for rate in ("constant", "invscaling"))
    assert np.array_equal(a.coefs_[0], b.coefs_[0])


# ---- Validation sets and callbacks -----------------------------------------------------------------------------------


def test_validation_set_is_recorded():
    model = MLPClassifier(**SMALL).fit(X[:160], Y[:160], **VALIDATION)
    assert len(model.history_["val_loss"]) == len(model.history_["val_score"]) == 8
    p = model.predict_proba(X[160:])
    assert model.history_["val_loss"][-1] == pytest.approx(-np.log(p[np.arange(80), Y[160:]]).mean())
    assert model.history_["val_score"][-1] == model.score(X[160:], Y[160:])
    assert model.history_["val_accuracy"] == model.history_["val_score"]
    weights = {"sample_weight_val": WEIGHTS[160:]}
    weighted = MLPClassifier(**SMALL).fit(X[:160], Y[:160], **VALIDATION, **weights)
    assert weighted.history_["val_accuracy"] == model.history_["val_accuracy"] != weighted.history_["val_score"]


def test_history_has_nan_for_epochs_without_validation_set():
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    model.fit(X, Y, X_val=X[Y == 1], y_val=Y[Y == 1])  # the validation set need not contain every class
    assert {len(values) for values in model.history_.values()} == {16}
    assert np.isnan(model.history_["val_loss"]).tolist() == [True] * 8 + [False] * 8


def test_early_stopping_keeps_the_weights_of_the_best_epoch():
    parameters = SMALL | {"max_iter": 300, "learning_rate_init": 0.05, "early_stopping": True}
    model = MLPClassifier(**parameters).fit(X[:160], Y[:160], **VALIDATION)
    assert model.n_iter_ < 300
    assert model.validation_scores_ == model.history_["val_score"]
    assert model.best_epoch_ == 1 + int(np.argmax(model.validation_scores_)) < model.n_iter_
    assert model.score(X[160:], Y[160:]) == model.best_validation_score_


def test_callbacks_can_stop_the_training():
    class StopAfterThree(Callback):
        def on_epoch_end(self, trainer):
            trainer.stop = trainer.epoch == 3

    assert MLPClassifier(**SMALL, callbacks=[StopAfterThree()]).fit(X, Y).n_iter_ == 3
    stopping = EarlyStopping("val_loss", patience=2)
    model = MLPClassifier(**SMALL | {"max_iter": 400, "learning_rate_init": 0.05}, callbacks=[stopping])
    model.fit(X[:160], Y[:160], **VALIDATION)
    assert model.n_iter_ < 400


def test_callbacks_see_the_evaluation_of_the_validation_set():
    evaluations = []

    class Collect(Callback):
        def on_epoch_end(self, trainer):
            evaluations.append((trainer.validation, trainer.metrics["val_score"]))

    model = MLPClassifier(**SMALL, callbacks=[Collect()]).fit(X, Y, X_val=X[:50], y_val=Y[:50])
    assert [evaluation.total for evaluation, _ in evaluations] == [50] * 8
    assert [evaluation.accuracy for evaluation, _ in evaluations] == [score for _, score in evaluations]
    assert [evaluation.loss for evaluation, _ in evaluations] == model.history_["val_loss"]


def test_callbacks_start_again_at_each_partial_fit():
    a, b = (MLPClassifier(**SMALL | {"max_iter": 30, "learning_rate_init": 0.02}).fit(X, Y) for _ in range(2))
    a.set_params(callbacks=[EarlyStopping("loss")])
    for model in (a, b):
        model.partial_fit(X, Y).partial_fit(X, Y[::-1])
    assert a.loss_curve_[-1] > 1.5 * a.loss_curve_[-2]  # the best epoch of all calls is not the last one
    assert np.array_equal(a.network_.parameters, b.network_.parameters)


def test_callbacks_see_the_epochs_of_all_fits():
    seen = []

    class Collect(Callback):
        def on_train_begin(self, trainer):
            seen.append((trainer.epoch, trainer.first_epoch, trainer.epochs))

    model = MLPClassifier(**SMALL, warm_start=True, callbacks=[Collect()]).fit(X, Y).fit(X, Y)
    model.partial_fit(X, Y).partial_fit(X, Y)
    assert seen == [(0, 0, 8), (8, 8, 16), (16, 16, 17), (17, 17, 18)]


def test_ema_defines_the_validation_score_and_the_final_weights():
    parameters = SMALL | {"max_iter": 20, "learning_rate_init": 0.05}
    average, plain = (
        MLPClassifier(**parameters, callbacks=callbacks).fit(X[:160], Y[:160], **VALIDATION)
        for callbacks in ([EMA(0.9)], [])
    )
    assert average.loss_curve_ == plain.loss_curve_  # training continues with the raw weights
    assert average.history_["val_loss"] != plain.history_["val_loss"]
    p = average.predict_proba(X[160:])
    assert average.history_["val_loss"][-1] == pytest.approx(-np.log(p[np.arange(80), Y[160:]]).mean())


def test_early_stopping_parameter_keeps_its_best_weights_with_any_callback():
    parameters = SMALL | {"max_iter": 40, "early_stopping": True, "learning_rate_init": 0.05}
    model = MLPClassifier(**parameters, callbacks=[EMA(0.99)]).fit(X[:160], Y[:160], **VALIDATION)
    assert model.score(X[160:], Y[160:]) == model.best_validation_score_


def test_estimator_with_callbacks_can_be_pickled():
    callbacks = [EarlyStopping("val_score", patience=3), EMA(0.9)]
    model = MLPClassifier(**SMALL | {"max_iter": 60, "learning_rate_init": 0.05}, callbacks=callbacks)
    model.fit(X[:160], Y[:160], **VALIDATION)
    assert callbacks[0].best == max(model.history_["val_score"])
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_keyboard_interrupt_leaves_a_usable_estimator():
    class Interrupt(Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 2:
                raise KeyboardInterrupt

    model = MLPClassifier(**SMALL, callbacks=[Interrupt()])
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X, Y)
    assert model.predict(X).shape == (240,)


# ---- Threads ---------------------------------------------------------------------------------------------------------


def blas_thread_counts():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_predict_and_fit_are_safe_from_several_threads():
    model = MLPClassifier((64, 64), max_iter=2, random_state=0).fit(X, Y)
    parts = [X[: 40 + 10 * i] for i in range(8)]
    expected = [model.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for p, p_expected in zip(pool.map(model.predict_proba, parts), expected, strict=True):
                assert np.array_equal(p, p_expected)
        before = blas_thread_counts()
        fits = list(pool.map(lambda seed: MLPClassifier(**SMALL | {"random_state": seed}).fit(X, Y), range(8)))
    assert before == blas_thread_counts()
    assert np.array_equal(fits[3].coefs_[0], MLPClassifier(**SMALL).fit(X, Y).coefs_[0])


def test_two_estimators_can_have_the_same_loss():
    loss = CrossEntropy(0.1)
    a, b = (MLPClassifier((5,), loss=loss, batch_size=size, random_state=0) for size in (20, 30))
    for model in (a, b, a, b):
        model.partial_fit(X, Y, classes=[0, 1, 2])
    assert vars(loss) == vars(CrossEntropy(0.1))
    assert np.array_equal(a.fit(X, Y).coefs_[0], clone(a).fit(X, Y).coefs_[0])


# ---- Invalid parameters and data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{"alpha": -1}, {"solver": "newton"}, {"activation": "mish"}, {"dropout": 1.0}])
def test_invalid_parameter_raises_the_error_of_scikit_learn(parameters):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameters))}' parameter of MLPClassifier must be"):
        MLPClassifier(**parameters).fit(X, Y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"activation": ["relu"]}, "activation has 1 values for 2 hidden layers"),
        ({"activation": ["relu", "mish"]}, "activation must be one of .*gelu, identity"),
        ({"activation": [["relu"], "relu"]}, "activation must be one of"),
        ({"dropout": [0.1]}, "dropout has 1 values for 2 hidden layers"),
        ({"dropout": ["a", 0.1]}, r"dropout must be in \[0, 1\)"),
        ({"dropout": 0.1, "solver": "lbfgs"}, "'lbfgs' does not support dropout"),
        ({"hidden_layer_sizes": (3, -1)}, "hidden_layer_sizes must be integers > 0"),
        ({"hidden_layer_sizes": (3, 1.5)}, "hidden_layer_sizes must be integers > 0"),
        ({"hidden_layer_sizes": [(3, 4)]}, "hidden_layer_sizes must have one size per layer"),
        ({"solver": "lbfgs", "schedule": "cosine"}, "'lbfgs' has no epochs"),
        ({"callbacks": [1]}, "callbacks must be handgrad.Callback objects, got 1"),
    ],
    ids=str,
)
def test_invalid_combination_of_parameters_raises(parameters, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**SMALL | parameters).fit(X, Y)


def test_invalid_data_raises_the_errors_of_scikit_learn():
    model = MLPClassifier(**SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="X has 7 features, but MLPClassifier is expecting 8 features"):
        model.predict(X[:, :7])
    with pytest.raises(ValueError, match="contains NaN"):
        model.predict(np.full((1, 8), np.nan))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        MLPClassifier(**SMALL).fit(X, Y, sample_weight=-WEIGHTS)
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPClassifier(**SMALL, early_stopping=True, validation_fraction=0.001).fit(X_LABELS, LABELS)
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)


def test_partial_fit_rejects_lbfgs_early_stopping_and_unknown_classes():
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPClassifier(solver="lbfgs").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="does not support early_stopping"):
        MLPClassifier(**SMALL, early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier().partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"not in `self\.classes_`"):
        MLPClassifier(**SMALL).fit(X, Y).partial_fit(X, Y + 1)


def test_invalid_data_leaves_an_earlier_fit_unchanged():
    model = MLPClassifier(**SMALL).fit(X, Y)
    before = dict(vars(model))
    for y, arguments, message in (
        (Y + 5, {"sample_weight": np.full(240, np.nan)}, "NaN"),
        (Y, {"X_val": X[:3], "y_val": [7, 8, 9]}, "classes not in"),
        (Y, {"X_val": X[:1], "y_val": Y[:1]}, "X_val has 1 example"),
        (Y, {"X_val": X}, "X_val and y_val must be given together"),
        (Y, {"sample_weight_val": WEIGHTS}, "X_val and y_val must be given together"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(X, y, **arguments)
        assert vars(model) == before
    with pytest.raises(ValueError, match="lbfgs' has no epochs"):
        model.set_params(solver="lbfgs").fit(X, Y, X_val=X, y_val=Y)
    assert model.network_ is before["network_"]


def test_values_that_overflow_float32_are_rejected():
    with pytest.raises(ValueError, match="X contains values that are too large for float32"):
        MLPClassifier(**SMALL, dtype="float32").fit(X * 1e200, Y)


def test_uint8_input_is_not_scaled():
    x = (X * 10 + 128).astype(np.uint8)
    model = MLPClassifier(**SMALL).fit(x, Y)
    for same in (x.astype(float), scipy.sparse.csr_matrix(x)):
        np.testing.assert_allclose(model.predict_proba(x), model.predict_proba(same), rtol=1e-12)
