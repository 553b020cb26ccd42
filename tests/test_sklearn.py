"""handgrad's MLPClassifier and MLPRegressor are scikit-learn's, number for number, and do what it will not add."""

import inspect
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from sklearn import neural_network as theirs
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
from handgrad import Callback, EarlyStopping, HandgradError, CrossEntropy
from handgrad import sklearn as ours
from handgrad.losses import Huber
from handgrad.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(240, 8, n_informative=6, n_classes=3, random_state=0)
BINARY = np.where(Y > 0, "yes", "no")
X_LABELS, LABELS = make_multilabel_classification(240, 8, n_classes=4, random_state=0)
X_NUMBERS, NUMBERS = make_regression(240, 8, n_targets=3, noise=1, random_state=0)
NUMBERS /= 50
COUNTS = np.abs(NUMBERS).round()
WORDS = scipy.sparse.random(240, 400, 0.01, "csr", random_state=np.random.default_rng(0))
WEIGHTS = np.random.default_rng(0).random(240)
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 8, "random_state": 3}


# ---- scikit-learn's own checks ---------------------------------------------------------------------------------------


@parametrize_with_checks(
    [MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)], expected_failed_checks=lambda estimator: {}
)
def test_every_check_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_every_parameter_is_there_with_its_default_and_in_its_place(kind):
    mine, other = (inspect.signature(getattr(module, kind).__init__).parameters for module in (ours, theirs))
    assert list(mine)[: len(other)] == list(other)
    for name, parameter in other.items():
        assert (mine[name].default, mine[name].kind) == (parameter.default, parameter.kind), name
    assert all(p.kind is p.KEYWORD_ONLY for name, p in mine.items() if name not in other)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_every_public_method_and_fitted_attribute_is_there(kind):
    y = Y if kind == "MLPClassifier" else NUMBERS
    mine, other = (getattr(module, kind)(**SMALL, early_stopping=True).fit(X, y) for module in (ours, theirs))
    lacking = {name for name in dir(other) if not name.startswith("_")} - set(dir(mine))
    assert lacking == set()


# ---- The same numbers ------------------------------------------------------------------------------------------------

CASES = [
    *[
        ("MLPClassifier", X, Y, {"activation": activation, "solver": solver})
        for activation in ("identity", "logistic", "tanh", "relu")
        for solver in ("sgd", "adam", "lbfgs")
    ],
    ("MLPClassifier", X, Y, {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5}),
    (
        "MLPClassifier",
        X,
        Y,
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "learning_rate_init": 0.1,
            "n_iter_no_change": 1,
            "max_iter": 60,
        },
    ),
    ("MLPClassifier", X, Y, {"solver": "sgd", "nesterovs_momentum": False, "batch_size": 32}),
    ("MLPClassifier", X, Y, {"solver": "sgd", "momentum": 0.0, "power_t": 0.3, "batch_size": 7}),
    ("MLPClassifier", X, Y, {"shuffle": False, "alpha": 1.0, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.1}),
    ("MLPClassifier", X, Y, {"early_stopping": True, "max_iter": 80, "learning_rate_init": 0.01}),
    ("MLPClassifier", X, Y, {"max_iter": 200, "tol": 1e-2, "n_iter_no_change": 3, "hidden_layer_sizes": ()}),
    ("MLPClassifier", X, BINARY, {"hidden_layer_sizes": 6}),
    ("MLPClassifier", X, BINARY, {"early_stopping": True, "validation_fraction": 0.3}),
    ("MLPClassifier", scipy.sparse.csr_matrix(X), Y, {"batch_size": 50}),
    ("MLPClassifier", scipy.sparse.csc_array(X), Y, {"solver": "lbfgs"}),
    *[("MLPClassifier", WORDS, Y, {"solver": solver, "batch_size": 50}) for solver in ("sgd", "adam", "lbfgs")],
    ("MLPClassifier", WORDS.tocsc(), BINARY, {"early_stopping": True, "max_iter": 30}),
    ("MLPRegressor", WORDS, NUMBERS, {"hidden_layer_sizes": ()}),
    ("MLPClassifier", X_LABELS, LABELS, {}),
    ("MLPClassifier", X_LABELS, LABELS, {"early_stopping": True, "max_iter": 30}),
    *[("MLPRegressor", X_NUMBERS, NUMBERS, {"solver": solver}) for solver in ("sgd", "adam", "lbfgs")],
    ("MLPRegressor", X_NUMBERS, NUMBERS[:, 0], {"early_stopping": True, "max_iter": 80}),
    ("MLPRegressor", X_NUMBERS, COUNTS, {"loss": "poisson"}),
    ("MLPRegressor", X_NUMBERS, COUNTS[:, 1], {"loss": "poisson", "solver": "lbfgs"}),
]


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{type(case[1]).__name__}-{case[3]}")
def test_the_same_random_state_gives_the_same_fit(case, weighted):
    kind, x, y, parameters = case
    weights = WEIGHTS if weighted else None
    mine, other = (getattr(m, kind)(**SMALL | parameters).fit(x, y, sample_weight=weights) for m in (ours, theirs))
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
    np.testing.assert_array_equal(mine.predict(x), other.predict(x)) if kind == "MLPClassifier" else None
    for name in ("predict_proba", "predict_log_proba") if kind == "MLPClassifier" else ("predict",):
        np.testing.assert_allclose(getattr(mine, name)(x), getattr(other, name)(x), rtol=1e-7, atol=1e-9)
    assert mine.score(x, y, weights) == pytest.approx(other.score(x, y, weights), rel=1e-9)


def test_rows_of_words_are_not_written_out(monkeypatch):
    toarray = scipy.sparse.csr_matrix.toarray

    def refused(self, *args, **kwargs):
        if self.shape[1] > 3:  # the labels as rows may be
            raise AssertionError("a sparse matrix was written out")
        return toarray(self, *args, **kwargs)

    monkeypatch.setattr(scipy.sparse.csr_matrix, "toarray", refused)
    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", refused)
    model = MLPClassifier(**SMALL).fit(WORDS, Y)
    assert model.predict(WORDS).shape == (240,)
    with pytest.raises(AssertionError, match="written out"):
        MLPClassifier(**SMALL).fit(scipy.sparse.csr_matrix(X), Y)


def test_float32_stays_float32_and_agrees():
    x = X.astype(np.float32)
    mine, other = (module.MLPClassifier(**SMALL).fit(x, Y) for module in (ours, theirs))
    assert mine.coefs_[0].dtype == mine.predict_proba(x).dtype == np.float32
    np.testing.assert_allclose(mine.coefs_[0], other.coefs_[0], atol=1e-6)


def test_another_seed_gives_another_fit():
    a, b = (MLPClassifier(**SMALL | {"random_state": seed}).fit(X, Y) for seed in (0, 1))
    assert np.abs(a.coefs_[0] - b.coefs_[0]).max() > 0.1


def test_a_partial_fit_in_the_same_order_is_scikit_learns():
    mine, other = (module.MLPClassifier(**SMALL, shuffle=False, batch_size=50) for module in (ours, theirs))
    for rows in (slice(0, 120), slice(120, 240), slice(60, 200)):
        mine.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
        other.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
    np.testing.assert_allclose(mine.coefs_[0], other.coefs_[0], rtol=1e-9)
    assert (mine.t_, mine.loss_curve_) == (other.t_, pytest.approx(other.loss_curve_))


def test_verbose_prints_what_scikit_learn_prints(capsys):
    for parameters in ({}, {"early_stopping": True, "max_iter": 40, "tol": 1.0, "n_iter_no_change": 2}):
        printed = []
        for module in (ours, theirs):
            module.MLPClassifier(**SMALL | parameters, verbose=True).fit(X, Y)
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] != ""
    adaptive = {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1, "max_iter": 30}
    MLPClassifier(**SMALL | adaptive, verbose=True).fit(X, Y)
    assert "Setting learning rate to 0.000200" in capsys.readouterr().out
    MLPClassifier(**SMALL, solver="lbfgs", verbose=True).fit(X, Y)
    assert "Iteration 1, loss =" in capsys.readouterr().out


# ---- Stop and go on --------------------------------------------------------------------------------------------------

ON = [
    {},
    {"solver": "sgd", "learning_rate": "invscaling"},
    {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "learning_rate_init": 1.0},
    {"dropout": 0.3},
    {"solver": "muon"},
    {"solver": "adamw", "activation": ["tanh", "gelu"]},
    {"solver": "momentum", "init": "kaiming_uniform"},
    {"random_state": np.random.RandomState(5)},
    {"dtype": np.float32, "class_weight": {0: 1, 1: 2, 2: 0.5}},
]


@pytest.mark.parametrize("x", [X, WORDS], ids=["dense", "sparse"])
@pytest.mark.parametrize("parameters", ON, ids=str)
def test_however_it_is_cut_up_training_gives_the_same_bits(parameters, x, tmp_path):
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
        assert other.t_ == whole.t_


def test_a_schedule_goes_over_max_iter_calls_of_partial_fit():
    whole = MLPClassifier(**SMALL, schedule="cosine").fit(X, Y)
    epochs = MLPClassifier(**SMALL, schedule="cosine")
    for _ in range(8):
        epochs.partial_fit(X, Y, classes=[0, 1, 2])
    assert np.array_equal(epochs.network_.parameters, whole.network_.parameters)
    assert whole.history_["lr"][0] == 1e-3 > whole.history_["lr"][-1]


def test_a_changed_setting_is_taken_up_and_the_memory_kept():
    model = MLPClassifier(**SMALL, solver="sgd", warm_start=True).fit(X, Y)
    memory = model._optimizer.memory.copy()
    model.set_params(learning_rate_init=1e-12, max_iter=1).fit(X, Y)
    assert model._optimizer.lr == 1e-12
    np.testing.assert_allclose(model._optimizer.memory, memory * 0.9**2, rtol=0.05, atol=1e-6)  # two batches, no push


def test_fit_without_warm_start_begins_anew():
    model = MLPClassifier(**SMALL).fit(X, Y)
    first = model.network_.parameters.copy()
    assert np.array_equal(model.fit(X, Y).network_.parameters, first)
    assert len(model.loss_curve_) == 8


def test_a_warm_start_takes_no_other_layers():
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="not those of the fit that this one goes on from"):
        model.set_params(hidden_layer_sizes=(7, 6)).fit(X, Y)
    with pytest.raises(ValueError, match="not those of the fit that this one goes on from"):
        model.set_params(hidden_layer_sizes=(7, 5), loss=CrossEntropy(0.3)).fit(X, Y)
    model.set_params(loss="log_loss")
    with pytest.raises(ValueError, match="same classes as in the previous call"):
        model.set_params(hidden_layer_sizes=(7, 5)).fit(X[Y > 0], Y[Y > 0])


def test_partial_fit_takes_data_of_another_dtype_and_kind():
    a, b = (MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1, 2]) for _ in range(2))
    x = X.astype(np.float32)
    a.partial_fit(x, Y)
    b.partial_fit(scipy.sparse.csc_matrix(x), Y)
    assert a.coefs_[0].dtype == np.float64
    assert np.array_equal(a.coefs_[0], b.coefs_[0])


def test_a_warm_start_never_ends_below_the_best_score_so_far():
    parameters = SMALL | {"warm_start": True, "early_stopping": True, "learning_rate_init": 0.05, "max_iter": 30}
    held_out = {"X_val": scipy.sparse.csc_matrix(X[160:]), "y_val": Y[160:]}
    model = MLPClassifier(**parameters, tol=0.0).fit(X[:160], Y[:160], **held_out)
    best = model.network_.parameters.copy()
    model.set_params(learning_rate_init=5.0, max_iter=1).fit(X[:160], Y[:160], **held_out)
    assert np.array_equal(model.network_.parameters, best)


def test_held_out_examples_need_not_have_every_class():
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    model.fit(X, Y, X_val=X[Y == 1], y_val=Y[Y == 1])
    assert len(model.history_["val_loss"]) == 8


def test_a_pickle_holds_neither_buffers_nor_the_data():
    model = MLPClassifier((100,), max_iter=2, random_state=0, dtype=np.float32)
    size = len(pickle.dumps(model.fit(np.tile(X, (40, 1)), np.tile(Y, 40))))
    vectors = 3 * model.network_.parameters.nbytes  # θ and Adam's two
    assert size < vectors + 8 * 9_600 + 16_000  # the order of 9,600 examples, and the rest


# ---- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "x", "y"),
    [
        (MLPClassifier(**SMALL), X, BINARY),
        (MLPClassifier(**SMALL, class_weight={0: 1, 1: 2.5, 2: 1}, loss=CrossEntropy(0.1)), X, Y),
        (MLPClassifier(**SMALL | {"random_state": np.random.RandomState(0)}), X_LABELS, LABELS),
        (MLPClassifier(**SMALL, early_stopping=True), X.astype(np.float32), Y * 10),
        (MLPRegressor(**SMALL, loss=Huber(0.5)), X_NUMBERS, NUMBERS),
        (MLPRegressor(**SMALL, solver="lbfgs"), X_NUMBERS, NUMBERS[:, 0]),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, ours.MLPClassifier | ours.MLPRegressor) else "",
)
def test_an_estimator_comes_back_from_its_file(model, x, y, tmp_path):
    ours.save(model.fit(x, y), tmp_path / "model.safetensors")
    back = ours.load(tmp_path / "model.safetensors")
    assert type(back) is type(model)
    assert np.array_equal(back.predict(x), model.predict(x))
    assert back.predict(x).dtype == model.predict(x).dtype
    mine, others = back.get_params(), model.get_params()
    for name in set(mine) - {"random_state"}:
        assert repr(mine[name]) == repr(others[name]), name
    fitted = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    assert fitted <= set(vars(back))
    network = handgrad.load(tmp_path / "model.safetensors")
    assert np.array_equal(network.outputs(x), model.network_.outputs(x))


def test_a_data_frames_column_names_come_back(tmp_path):
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(8)])
    ours.save(MLPClassifier(**SMALL).fit(frame, Y), tmp_path / "m.safetensors")
    back = ours.load(tmp_path / "m.safetensors")
    back.predict(frame)  # a warning would be an error here
    with pytest.raises(ValueError, match="feature names"):
        back.predict(frame[frame.columns[::-1]])


def test_what_no_file_can_hold_is_named(tmp_path):
    with pytest.raises(HandgradError, match="callbacks"):
        ours.save(MLPClassifier(**SMALL, callbacks=[Callback()]).fit(X, Y), tmp_path / "m.safetensors")
    with pytest.raises(HandgradError, match="schedule"):
        ours.save(MLPClassifier(**SMALL, schedule=handgrad.schedules.cosine()).fit(X, Y), tmp_path / "m.safetensors")
    with pytest.raises(NotFittedError):
        ours.save(MLPClassifier(), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_estimators_file_is_told_in_one_line(tmp_path):
    handgrad.save(handgrad.Network([3, 2], rng=0), tmp_path / "network.safetensors")
    with pytest.raises(HandgradError, match="holds no estimator"):
        ours.load(tmp_path / "network.safetensors")
    ours.save(MLPClassifier(**SMALL).fit(X, Y), tmp_path / "m.safetensors")
    from handgrad.io.models import _read_arrays, _write_arrays

    arrays, description = _read_arrays(tmp_path / "m.safetensors")
    for change in ({"type": "SVC"}, {"classes": None}, {"optimizer": {"lr": 1, "kind": "SGD", "steps": 1}}):
        _write_arrays(
            tmp_path / "bad.safetensors", arrays, description | {"estimator": description["estimator"] | change}
        )
        with pytest.raises(HandgradError, match="damaged"):
            ours.load(tmp_path / "bad.safetensors")
    json.dumps(description)  # nothing but plain values


# ---- What scikit-learn will not add ----------------------------------------------------------------------------------


def test_class_weight_is_the_sample_weight_it_stands_for():
    balanced = 240 / (3 * np.bincount(Y))[Y]
    a = MLPClassifier(**SMALL, class_weight="balanced").fit(X, Y)
    b = MLPClassifier(**SMALL).fit(X, Y, sample_weight=balanced)
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-9)
    a = MLPClassifier(**SMALL, class_weight={"yes": 3, "no": 1}).fit(X, BINARY, sample_weight=WEIGHTS)
    b = MLPClassifier(**SMALL).fit(X, BINARY, sample_weight=WEIGHTS * np.where(BINARY == "yes", 3, 1))
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-9)


def test_a_class_that_weighs_more_is_answered_more():
    settings = SMALL | {"max_iter": 40, "learning_rate_init": 0.01}
    answers = [
        np.mean(MLPClassifier(**settings, class_weight={"yes": w, "no": 1}).fit(X, BINARY).predict(X) == "yes")
        for w in (0.02, 1, 50)
    ]
    assert answers[0] < answers[1] < answers[2]


def test_each_layer_has_its_own_activation_and_dropout():
    model = MLPClassifier((6, 5), ["tanh", "leaky_relu"], dropout=[0.0, 0.5], max_iter=3, random_state=0).fit(X, Y)
    assert [type(layer).__name__ for layer in model.network_.layers] == [
        *("Dense", "Tanh", "Dense", "LeakyRelu", "Dropout", "Dense")
    ]
    assert np.array_equal(model.predict_proba(X), model.predict_proba(X))  # no dropout in answers


def test_dropout_leaves_the_weights_and_the_batches_alone():
    a, b = (MLPClassifier(**SMALL, dropout=rate, learning_rate_init=1e-12).fit(X, Y) for rate in (0.0, 0.5))
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], atol=1e-9)
    assert np.array_equal(a._order, b._order)
    assert a.loss_curve_ != b.loss_curve_


@pytest.mark.parametrize("solver", ["momentum", "nesterov", "adamw", "muon"])
def test_the_other_solvers_learn(solver):
    model = MLPClassifier((20,), solver=solver, learning_rate_init=0.02, max_iter=60, random_state=0).fit(X, Y)
    assert model.loss_curve_[-1] < 0.6 * model.loss_curve_[0]
    assert model.score(X, Y) > 0.8


def test_adamws_alpha_is_its_weight_decay():
    model = MLPClassifier(**SMALL, solver="adamw", alpha=0.5).fit(X, Y)
    assert (model._optimizer.weight_decay, model._optimizer.l2) == (0.5, 0)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "log_cosh", Huber(0.2)])
def test_the_other_losses_for_numbers_learn(loss):
    model = MLPRegressor(loss, (30,), learning_rate_init=0.01, max_iter=150, random_state=0).fit(X_NUMBERS, NUMBERS)
    assert model.score(X_NUMBERS, NUMBERS) > 0.8
    assert "accuracy" not in model.history_


def test_squared_error_and_a_loss_of_handgrads_for_classes():
    for loss in ("squared_error", CrossEntropy(label_smoothing=0.1)):
        model = MLPClassifier((20,), loss=loss, learning_rate_init=0.01, max_iter=80, random_state=0).fit(X, Y)
        assert model.score(X, Y) > 0.8
    with pytest.raises(ValueError, match="expected one of BinaryCrossEntropy"):
        MLPClassifier(loss=CrossEntropy()).fit(X, BINARY)
    with pytest.raises(ValueError, match="expected one of SquaredError"):
        MLPRegressor(loss=CrossEntropy()).fit(X_NUMBERS, NUMBERS)


def test_a_validation_set_of_ones_own_is_watched():
    model = MLPClassifier(**SMALL).fit(X[:160], Y[:160], X_val=X[160:], y_val=Y[160:])
    assert len(model.history_["val_loss"]) == len(model.history_["val_score"]) == 8
    p = model.predict_proba(X[160:])
    assert model.history_["val_loss"][-1] == pytest.approx(-np.log(p[np.arange(80), Y[160:]]).mean())
    assert model.history_["val_score"][-1] == model.score(X[160:], Y[160:])


def test_early_stopping_watches_it_and_the_best_epoch_is_back():
    parameters = SMALL | {"max_iter": 300, "learning_rate_init": 0.05, "early_stopping": True}
    model = MLPClassifier(**parameters).fit(X[:160], Y[:160], X_val=X[160:], y_val=Y[160:])
    assert model.n_iter_ < 300
    assert model.validation_scores_ == model.history_["val_score"]
    assert model.best_epoch_ == 1 + int(np.argmax(model.validation_scores_)) < model.n_iter_
    assert model.score(X[160:], Y[160:]) == model.best_validation_score_


def test_callbacks_see_the_training_and_stop_it():
    class Third(Callback):
        def on_epoch_end(self, trainer):
            trainer.stop = trainer.epoch == 3

    assert MLPClassifier(**SMALL, callbacks=[Third()]).fit(X, Y).n_iter_ == 3
    stopping = EarlyStopping("val_loss", patience=2)
    model = MLPClassifier(**SMALL | {"max_iter": 400, "learning_rate_init": 0.05}, callbacks=[stopping])
    model.fit(X[:160], Y[:160], X_val=X[160:], y_val=Y[160:])
    assert model.n_iter_ < 400


def test_a_keyboard_interrupt_leaves_a_model_that_answers():
    class Interrupt(Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 2:
                raise KeyboardInterrupt

    model = MLPClassifier(**SMALL, callbacks=[Interrupt()])
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X, Y)
    assert model.predict(X).shape == (240,)


# ---- At home ---------------------------------------------------------------------------------------------------------


def test_it_works_where_scikit_learns_estimators_do():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((20,), max_iter=100, random_state=0))
    pipeline.set_output(transform="pandas")
    assert cross_val_score(pipeline, X, Y, cv=3).min() > 0.5
    search = GridSearchCV(
        MLPClassifier(**SMALL), {"dropout": [0.0, 0.2], "activation": ["tanh", ["relu", "tanh"]]}, cv=2
    )
    assert search.fit(X, Y).best_score_ > 0.3
    calibrated = CalibratedClassifierCV(MLPClassifier(**SMALL), cv=2).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames_of_pandas_and_polars(frame):
    columns = {f"column {i}": X[:, i] for i in range(8)}
    model = MLPClassifier(**SMALL).fit(frame(columns), Y)
    assert list(model.feature_names_in_) == list(columns)
    assert np.array_equal(model.predict(frame(columns)), MLPClassifier(**SMALL).fit(X, Y).predict(X))


def test_coefs_and_intercepts_are_views_that_can_be_set():
    model = MLPRegressor(**SMALL).fit(X_NUMBERS, NUMBERS)
    model.coefs_ = [np.zeros_like(coef) for coef in model.coefs_]
    model.intercepts_[-1][...] = 7
    assert np.array_equal(model.predict(X_NUMBERS), np.full((240, 3), 7.0))


@pytest.mark.parametrize("parameters", [{"alpha": -1}, {"solver": "newton"}, {"activation": "mish"}, {"dropout": 1.0}])
def test_a_wrong_parameter_is_scikit_learns_error(parameters):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameters))}' parameter of MLPClassifier must be"):
        MLPClassifier(**parameters).fit(X, Y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"activation": ["relu"]}, "one for each of the 2 hidden layers"),
        ({"activation": ["relu", "mish"]}, "expected names among"),
        ({"dropout": [0.1]}, "one for each of the 2 hidden layers"),
        ({"dropout": 0.1, "solver": "lbfgs"}, "expected a stochastic solver"),
        ({"hidden_layer_sizes": (3, -1)}, "hidden_layer_sizes must be > 0"),
        ({"hidden_layer_sizes": (3, 1.5)}, "and whole"),
        ({"solver": "lbfgs", "schedule": "cosine"}, "lbfgs has no epochs"),
    ],
)
def test_parameters_that_do_not_go_together(parameters, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**SMALL | parameters).fit(X, Y)


def test_bad_data_is_scikit_learns_error():
    model = MLPClassifier(**SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="X has 7 features, but MLPClassifier is expecting 8 features"):
        model.predict(X[:, :7])
    with pytest.raises(ValueError, match="contains NaN"):
        model.predict(np.full((1, 8), np.nan))
    with pytest.raises(ValueError, match=r"not in `self\.classes_`"):
        model.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier().partial_fit(X, Y)
    with pytest.raises(ValueError, match="go together"):
        MLPClassifier(**SMALL).fit(X, Y, X_val=X)
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        MLPClassifier(**SMALL).fit(X, Y, sample_weight=-WEIGHTS)
    with pytest.raises(ValueError, match="does not support early_stopping"):
        MLPClassifier(**SMALL, early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPClassifier(**SMALL, early_stopping=True, validation_fraction=0.001).fit(X_LABELS, LABELS)
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPClassifier(solver="lbfgs").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)


def test_a_rate_that_diverges_is_told_and_the_weights_stay_finite():
    model = MLPRegressor(**SMALL, solver="sgd", learning_rate_init=1e6)
    with pytest.raises(handgrad.HandgradError, match="diverged"):
        model.fit(X_NUMBERS, NUMBERS * 1e6)
    assert np.isfinite(model.network_.parameters).all()


def test_bytes_are_numbers_in_fit_and_in_predict():
    x = (X * 10 + 128).astype(np.uint8)
    model = MLPClassifier(**SMALL).fit(x, Y)
    for same in (x.astype(float), scipy.sparse.csr_matrix(x)):
        np.testing.assert_allclose(model.predict_proba(x), model.predict_proba(same), rtol=1e-12)


def test_log_proba_is_finite_where_proba_is_0():
    model = MLPClassifier(hidden_layer_sizes=(), max_iter=1, random_state=0).fit(X, BINARY)
    model.coefs_[0][...], model.intercepts_[0][...] = 0, -800
    assert model.predict_proba(X)[0, 1] == 0
    np.testing.assert_array_equal(model.predict_log_proba(X)[0], [0, -800])


def test_the_rate_of_adam_does_not_scale_inversely():
    a, b = (MLPClassifier(**SMALL, learning_rate=rate).fit(X, Y) for rate in ("constant", "invscaling"))
    assert np.array_equal(a.coefs_[0], b.coefs_[0])


def test_a_model_with_callbacks_that_keep_weights_pickles():
    callbacks = [EarlyStopping("val_score", patience=3), handgrad.EMA(0.9)]
    model = MLPClassifier(**SMALL | {"max_iter": 60, "learning_rate_init": 0.05}, callbacks=callbacks)
    model.fit(X[:160], Y[:160], X_val=X[160:], y_val=Y[160:])
    stopping = callbacks[0]
    assert stopping.best == max(model.history_["val_score"])
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_a_network_is_taken_from_an_estimator():
    model = MLPClassifier((6, 5), ["gelu", "tanh"], dropout=0.2, max_iter=2, random_state=0).fit(X, Y)
    network = handgrad.interop.from_sklearn(model)
    assert np.array_equal(network.outputs(X), model.network_.outputs(X))
    assert repr(network) == repr(model.network_)
    network.parameters[...] = 0
    assert np.abs(model.coefs_[0]).max() > 0


def test_held_out_examples_weigh_by_their_class():
    held_out = {"X_val": X[160:], "y_val": BINARY[160:]}
    a = MLPClassifier(**SMALL, class_weight={"yes": 5, "no": 1}).fit(X[:160], BINARY[:160], **held_out)
    weights = np.where(BINARY[160:] == "yes", 5, 1)
    assert a.history_["val_score"][-1] == pytest.approx(a.score(X[160:], BINARY[160:], weights))


def test_early_stopping_may_come_and_go_between_warm_fits():
    model = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    model.set_params(early_stopping=True).fit(X, Y)
    assert len(model.validation_scores_) == 8
    model.set_params(early_stopping=False).fit(X, Y)
    assert len(model.loss_curve_) == 8
    model.set_params(solver="lbfgs").fit(X, Y)
    model.set_params(solver="sgd").fit(X, Y)


# ---- What a careful reader tried -------------------------------------------------------------------------------------


def test_several_threads_may_ask_and_train():
    model = MLPClassifier((64, 64), max_iter=2, random_state=0).fit(X, Y)
    parts = [X[: 40 + 10 * i] for i in range(8)]
    alone = [model.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for mine, right in zip(pool.map(model.predict_proba, parts), alone, strict=True):
                assert np.array_equal(mine, right)
        before = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        fits = list(pool.map(lambda seed: MLPClassifier(**SMALL | {"random_state": seed}).fit(X, Y), range(8)))
    assert before == [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    assert np.array_equal(fits[3].coefs_[0], MLPClassifier(**SMALL).fit(X, Y).coefs_[0])


class Wide(MLPClassifier):
    def __init__(self, width=10):
        super().__init__((width,), max_iter=2, random_state=0)
        self.width = width


def test_a_subclass_with_parameters_of_its_own():
    assert clone(Wide(7)).fit(X, Y).coefs_[0].shape == (8, 7)


def test_one_loss_may_be_given_to_two_estimators():
    loss = CrossEntropy(0.1)
    a, b = (MLPClassifier((5,), loss=loss, batch_size=size, random_state=0) for size in (20, 30))
    for model in (a, b, a, b):
        model.partial_fit(X, Y, classes=[0, 1, 2])
    assert vars(loss) == vars(CrossEntropy(0.1))
    assert np.array_equal(a.fit(X, Y).coefs_[0], clone(a).fit(X, Y).coefs_[0])


def test_a_fit_by_lbfgs_goes_on_by_another_solver_and_leaves_no_old_record():
    model = MLPClassifier(**SMALL, solver="lbfgs", warm_start=True).fit(X, Y)
    model.set_params(solver="adam").partial_fit(X, Y)
    assert len(model.loss_curve_) == 1
    model.set_params(solver="lbfgs", warm_start=False).fit(X, Y)
    assert not hasattr(model, "loss_curve_")


def test_what_cannot_be_learnt_from_costs_nothing_that_was_learnt():
    model = MLPClassifier(**SMALL).fit(X, Y)
    kept = dict(vars(model))
    for wrong in (
        {"sample_weight": np.full(240, np.nan)},
        {"X_val": X[:3], "y_val": [7, 8, 9]},
        {"X_val": X[:1], "y_val": Y[:1]},
        {"sample_weight_val": WEIGHTS},
    ):
        with pytest.raises(ValueError, match=r"."):
            model.fit(X, Y + 5 if "sample_weight" in wrong else Y, **wrong)
        assert vars(model) == kept
    with pytest.raises(ValueError, match="lbfgs has no epochs"):
        model.set_params(solver="lbfgs").fit(X, Y, X_val=X, y_val=Y)
    assert model.network_ is kept["network_"]


def test_probabilities_of_classes_sum_to_1_whatever_the_loss():
    for loss in ("squared_error", handgrad.BinaryCrossEntropy(), "log_loss"):
        model = MLPClassifier(**SMALL, loss=loss).fit(X, Y)
        p = model.predict_proba(X)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p)
        assert np.array_equal(p.argmax(axis=1), model.predict(X))


def test_weights_and_inputs_that_float32_cannot_hold_are_named():
    with pytest.raises(ValueError, match="sample_weight holds values that float32 cannot"):
        MLPClassifier(**SMALL).fit(X.astype(np.float32), Y, sample_weight=np.full(240, 1e60))
    with pytest.raises(ValueError, match="X holds values that float32 cannot"):
        MLPClassifier(**SMALL, dtype="float32").fit(X * 1e200, Y)
    a, b = (MLPClassifier(**SMALL).fit(X.astype(np.float32), Y, sample_weight=np.full(240, w)) for w in (3e38, 1e38))
    assert a.loss_curve_[0] == pytest.approx(b.loss_curve_[0], rel=1e-5)


def test_balanced_weights_need_all_of_y():
    with pytest.raises(ValueError, match="give a dict"):
        MLPClassifier(**SMALL, class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    each = [{0: 1, 1: 2}] * 4
    MLPClassifier(**SMALL, class_weight=each).fit(X_LABELS, LABELS)


def test_early_stopping_ends_with_its_best_weights_whatever_a_callback_leaves():
    parameters = SMALL | {"max_iter": 40, "early_stopping": True, "learning_rate_init": 0.05}
    model = MLPClassifier(**parameters, callbacks=[handgrad.EMA(0.99)])
    model.fit(X[:160], Y[:160], X_val=X[160:], y_val=Y[160:])
    assert model.score(X[160:], Y[160:]) == model.best_validation_score_


def test_callbacks_see_the_evaluation_of_the_held_out_examples():
    seen = []

    class See(Callback):
        def on_epoch_end(self, trainer):
            seen.append(trainer.validation)

    MLPClassifier(**SMALL, callbacks=[See()]).fit(X, Y, X_val=X[:50], y_val=Y[:50])
    assert [e.total for e in seen] == [50] * 8


@pytest.mark.parametrize(
    "parameters",
    [
        {"callbacks": [1]},
        {"dropout": ["a", 0.1]},
        {"activation": [["relu"], "relu"]},
        {"hidden_layer_sizes": [(3, 4)]},
    ],
    ids=str,
)
def test_a_list_of_the_wrong_things_is_one_line(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        MLPClassifier(**SMALL | parameters).fit(X, Y)


def test_parameters_of_any_sequence_and_number_are_saved(tmp_path):
    model = MLPClassifier(range(3, 5), learning_rate_init=np.float32(0.01), max_iter=np.int64(2), random_state=0)
    ours.save(model.fit(X, Y), tmp_path / "m.safetensors")
    assert ours.load(tmp_path / "m.safetensors").hidden_layer_sizes == (3, 4)


def test_sparse_labels_stay_sparse_through_a_file(tmp_path):
    model = MLPClassifier(**SMALL).fit(X_LABELS, scipy.sparse.csr_matrix(LABELS))
    ours.save(model, tmp_path / "m.safetensors")
    assert type(ours.load(tmp_path / "m.safetensors").predict(X_LABELS)) is type(model.predict(X_LABELS))


def test_every_damage_to_an_estimators_file_is_one_line(tmp_path):
    from handgrad.io.models import _read_arrays, _write_arrays

    ours.save(MLPClassifier(**SMALL).fit(X, Y), tmp_path / "m.safetensors")
    arrays, description = _read_arrays(tmp_path / "m.safetensors")
    kept = description["estimator"]
    chance = json.loads(json.dumps(kept["chance"]))
    chance["state"]["pos"] = 10**30
    for name, damage in {
        "chance": ({}, {"chance": chance}),
        "memory": ({"training.memory": np.zeros(3)}, {}),
        "generator": ({"training.chance": np.zeros(3, np.uint32)}, {}),
        "order": ({"training.order": np.full(240, 10**6, np.int32)}, {}),
        "steps": ({}, {"optimizer": kept["optimizer"] | {"steps": -1}}),
        "callbacks": ({}, {"parameters": kept["parameters"] | {"callbacks": [[1]]}}),
        "alpha": ({}, {"parameters": kept["parameters"] | {"alpha": -3}}),
        "layers": ({}, {"parameters": kept["parameters"] | {"hidden_layer_sizes": [9]}}),
    }.items():
        path = tmp_path / f"{name}.safetensors"
        _write_arrays(path, arrays | damage[0], description | {"estimator": kept | damage[1]})
        with pytest.raises(HandgradError, match="damaged"):
            ours.load(path)


def test_max_iter_without_convergence_is_warned_of():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(8\) reached"):
        MLPClassifier(**SMALL).fit(X, Y)


def test_without_scikit_learn_the_extra_is_named():
    program = "import sys; sys.modules['sklearn'] = None\nimport handgrad.sklearn"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "'sklearn' is not installed: it comes with pip install 'handgrad[sklearn]'" in done.stderr


def test_importing_handgrad_loads_no_scikit_learn():
    program = "import sys, handgrad; print(any(name.startswith(('sklearn', 'scipy')) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
