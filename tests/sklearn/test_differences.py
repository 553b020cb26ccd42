"""Differences from scikit-learn, and equivalents with Network and Trainer, that docs/howto/coming-from.md describes."""

import copy
import inspect
import math
import warnings

import numpy as np
import pytest
from sklearn import neural_network as reference
from sklearn.datasets import load_digits, make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning

import handgrad
from handgrad import SGD, Adam, EarlyStopping, Momentum, Nesterov, Network, SquaredError, Trainer
from handgrad import sklearn as ours
from handgrad.export import export
from handgrad.sklearn import MLPClassifier, MLPRegressor
from handgrad.sklearn.trainer import SklearnAdam

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(100, 8, n_informative=6, random_state=0)
DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS /= 16
SMALL = {"hidden_layer_sizes": (5,), "random_state": 0, "batch_size": 20}


# ---- Parameters and attributes ---------------------------------------------------------------------------------------

ADDED = ["class_weight", "dropout", "init", "schedule", "callbacks", "dtype"]


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_every_parameter_of_scikit_learn_changes_the_fit_as_there(kind):
    """Each parameter with a value other than its default, one at a time: the same losses in both libraries."""
    changed = {
        "hidden_layer_sizes": (4, 3),
        "activation": "tanh",
        "solver": "sgd",
        "alpha": 1.0,
        "batch_size": 7,
        "learning_rate": "invscaling",
        "learning_rate_init": 0.02,
        "power_t": 0.1,
        "max_iter": 3,
        "shuffle": False,
        "random_state": 5,
        "tol": 0.5,
        "verbose": False,
        "warm_start": True,
        "momentum": 0.5,
        "nesterovs_momentum": False,
        "early_stopping": True,
        "validation_fraction": 0.3,
        "beta_1": 0.5,
        "beta_2": 0.9,
        "epsilon": 0.1,
        "n_iter_no_change": 1,
        "max_fun": 5,
    } | ({"loss": "poisson"} if kind == "MLPRegressor" else {})
    mine, other = (getattr(module, kind) for module in (ours, reference))
    assert set(changed) == set(inspect.signature(other).parameters)
    assert set(inspect.signature(mine).parameters) - set(changed) <= {*ADDED, "loss"}
    for name, value in changed.items():
        settings = {**SMALL, "max_iter": 6, name: value}
        if name in ("learning_rate", "power_t", "momentum", "nesterovs_momentum"):
            settings |= {"solver": "sgd"} | ({"learning_rate": "invscaling"} if name == "power_t" else {})
        if name == "max_fun":
            settings |= {"solver": "lbfgs"}
        if name in ("validation_fraction", "n_iter_no_change"):
            settings |= {"early_stopping": True, "max_iter": 15}
        a, b = (estimator(**settings).fit(X, Y) for estimator in (mine, other))
        assert a.loss_ == pytest.approx(b.loss_, rel=1e-9), name
        assert a.n_iter_ == b.n_iter_, name


def test_attributes_have_the_shapes_of_scikit_learn():
    numbers = make_regression(60, n_targets=3, random_state=0)
    for kind, data in (("MLPClassifier", (X, Y)), ("MLPRegressor", numbers)):
        mine, other = (getattr(module, kind)(**SMALL, max_iter=2).fit(*data) for module in (ours, reference))
        for name in (name for name in vars(other) if name.endswith("_") and not name.startswith("_")):
            a, b = getattr(mine, name), getattr(other, name)
            assert isinstance(a, list) == isinstance(b, list), name
            if isinstance(a, list):
                assert [np.shape(item) for item in a] == [np.shape(item) for item in b], name
            else:
                assert np.shape(a) == np.shape(b), name


# ---- Differences -----------------------------------------------------------------------------------------------------


def test_partial_fit_of_scikit_learn_repeats_the_order_of_the_examples():
    order = np.random.RandomState(0).permutation(100)  # of every call but the first
    model, other = (reference.MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1]) for _ in range(2))
    other.set_params(shuffle=False)
    for _ in range(2):
        model.partial_fit(X, Y)
        other.partial_fit(X[order], Y[order])
    np.testing.assert_allclose(model.coefs_[0], other.coefs_[0], rtol=1e-12)
    model = MLPClassifier(**SMALL).partial_fit(X, Y, classes=[0, 1])
    orders = [model.partial_fit(X, Y)._sample_order for _ in range(2)]
    assert not np.array_equal(*orders)


@pytest.mark.parametrize(("dtype", "largest"), [(np.float64, 36), (np.float32, 16)])
def test_loss_has_no_upper_bound(dtype, largest):
    losses = []
    for kind in (reference.MLPClassifier, MLPClassifier):
        model = kind((), max_iter=1, learning_rate_init=1e-9).fit(np.array([[1], [-1]], dtype), [1, 0])
        model.coefs_[0][...] = 1
        losses.append(model.partial_fit(np.array([[900], [-900]], dtype), [0, 1]).loss_)
    assert [round(loss) for loss in losses] == [largest, 900]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_small_probabilities_are_as_precise_as_in_scikit_learn(dtype):
    x = np.linspace(-60, 60, 50).astype(dtype)[:, None]
    x_labels, labels = make_multilabel_classification(100, 1, n_classes=3, random_state=0)
    for data in ((x, x[:, 0] > 0), (x_labels.astype(dtype), labels)):
        mine, other = (
            kind((), max_iter=1, random_state=0).fit(*data) for kind in (MLPClassifier, reference.MLPClassifier)
        )
        for model in (mine, other):
            model.coefs_[0][...], model.intercepts_[0][...] = 1, 0.5
        np.testing.assert_allclose(
            mine.predict_proba(x), other.predict_proba(x), rtol=1e-5 if dtype == np.float32 else 1e-12
        )


def test_largest_probability_of_multilabel_targets_has_the_largest_logarithm():
    x, labels = make_multilabel_classification(100, n_classes=4, random_state=0)
    model = MLPClassifier((), max_iter=1, random_state=0).fit(x, labels)
    model.coefs_[0][...], model.intercepts_[0][...] = 0, [38, 50, -38, -800]
    p, log_p = model.predict_proba(x[:1])[0], model.predict_log_proba(x[:1])[0]
    assert p.tolist()[:2] == [1, 1]
    assert log_p.argmax() == p.argmax() == 0
    np.testing.assert_allclose(log_p, [0, 0, -38, -800], atol=1e-15)


def diverging(kind, **parameters):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return kind(hidden_layer_sizes=(), solver="sgd", batch_size=5, random_state=0, **parameters).fit(
            X, 1e3 * X[:, 0]
        )


def test_divergence_raises_the_error_of_scikit_learn_and_leaves_finite_weights():
    for kind in (reference.MLPRegressor, MLPRegressor):
        with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
            diverging(kind, learning_rate_init=1e9)
    model = MLPRegressor(hidden_layer_sizes=(), solver="sgd", learning_rate_init=1e9, batch_size=5, random_state=0)
    with pytest.raises(handgrad.training.DivergedError, match="diverged"):
        model.fit(X, 1e3 * X[:, 0])
    assert np.isfinite(model.coefs_[0]).all()


def test_divergence_with_early_stopping_keeps_the_best_weights(tmp_path):
    settings = {"solver": "sgd", "learning_rate_init": 2.5, "early_stopping": True, "max_iter": 2000, "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=(), **settings, n_iter_no_change=2000)
    with pytest.warns(ConvergenceWarning, match=r"diverged.*The best weights are kept"):
        model.fit(X, X[:, 0])
    assert np.isfinite(model.coefs_[0]).all()
    assert math.isnan(model.validation_scores_[-1])
    assert model.best_validation_score_ == np.nanmax(model.validation_scores_)
    assert {len(values) for values in model.history_.values()} == {len(model.loss_curve_)} == {model.n_iter_}
    ours.save(model, tmp_path / "model.safetensors")
    model = ours.load(tmp_path / "model.safetensors")
    model.set_params(warm_start=True, learning_rate_init=1e-3, max_iter=2).fit(X, X[:, 0])
    assert len(model.loss_curve_) == len(model.history_["loss"])


# ---- Equivalents with Network and Trainer ----------------------------------------------------------------------------


def difference_after_20_steps(parameters, optimizer):
    """The largest difference of a parameter after 20 full-batch steps of the estimator and of a Trainer."""
    n = len(X)
    parameters = {"hidden_layer_sizes": (5,), "batch_size": n, "tol": 0, "max_iter": 1, "random_state": 0} | parameters
    start = MLPClassifier(**parameters)
    network = None

    class Copy(handgrad.Callback):
        def on_train_begin(self, trainer):
            nonlocal network
            network = copy.deepcopy(trainer.network)

    start.set_params(max_iter=20, callbacks=[Copy()]).fit(X, Y)
    Trainer(network, optimizer, batch_size=n, rng=0).fit(X, Y[:, None], epochs=20)
    return np.abs(network.parameters - start.network_.parameters).max()


@pytest.mark.parametrize(
    ("parameters", "optimizer"),
    [
        ({"solver": "sgd", "momentum": 0, "alpha": 2.0, "learning_rate_init": 0.5}, SGD(0.5, l2=2.0 / 100)),
        ({"solver": "sgd", "alpha": 2.0, "learning_rate_init": 0.1}, Nesterov(0.1, l2=2.0 / 100)),
        ({"solver": "sgd", "nesterovs_momentum": False, "alpha": 0, "learning_rate_init": 0.1}, Momentum(0.1)),
        ({"solver": "adam", "alpha": 2.0, "epsilon": 1e-300}, Adam(0.001, epsilon=1e-300, l2=2.0 / 100)),
    ],
    ids=str,
)
def test_trainer_takes_the_same_steps_with_alpha_divided_by_the_batch_size(parameters, optimizer):
    assert difference_after_20_steps(parameters, optimizer) < 1e-12


def test_epsilon_of_scikit_learn_is_scaled_by_the_bias_correction():
    networks = [Network([3, 2], loss=SquaredError("sigmoid"), rng=0, dtype=np.float64) for _ in range(2)]
    unscaled, scaled = SklearnAdam(0.1, 0.9, 0.999, 1e-3), Adam(0.1)
    for step in range(1, 6):
        scaled.epsilon = 1e-3 / math.sqrt(1 - 0.999**step)
        for network, optimizer in zip(networks, (unscaled, scaled), strict=True):
            optimizer.train_step(network, np.eye(3), np.eye(3)[:, :2], 0.1)
        np.testing.assert_allclose(networks[0].parameters, networks[1].parameters, rtol=1e-12)
    assert round(1 / math.sqrt(1 - 0.999)) == 32


def test_n_iter_no_change_is_a_patience_of_one_less():
    model = MLPClassifier((10,), learning_rate_init=1e-9, tol=1.0, alpha=0, n_iter_no_change=3, random_state=0)
    model.fit(DIGITS, LABELS)
    stopping = EarlyStopping("loss", patience=4, min_delta=1.0, restore_best=False)
    network = Network([64, 10, 10], activation="relu", loss="cross_entropy", rng=0)
    history = Trainer(network, SGD(1e-9), batch_size=200, callbacks=[stopping], rng=0).fit(DIGITS, LABELS, epochs=20)
    assert len(history["loss"]) == model.n_iter_


def test_network_of_an_estimator_file_can_be_exported(tmp_path, rejects):
    model = MLPClassifier((20,), early_stopping=True, max_iter=40, random_state=0).fit(DIGITS, LABELS)
    with rejects("export the network_ of an estimator"):
        export(model, tmp_path / "digits.py", to="python")
    ours.save(model, tmp_path / "model.safetensors")
    network = handgrad.load(tmp_path / "model.safetensors")
    assert np.array_equal(network.predict_proba(DIGITS), model.predict_proba(DIGITS))
    export(network, tmp_path / "digits.py", to="python")
    names = {"__name__": "digits"}
    exec(compile((tmp_path / "digits.py").read_text(), "digits.py", "exec"), names)
    p = names["predict_proba" if "predict_proba" in names else "probabilities"](DIGITS)
    np.testing.assert_allclose(p, model.predict_proba(DIGITS), atol=1e-5)
