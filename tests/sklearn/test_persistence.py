"""Estimator files: save and load, and damaged files. test_base.py continues a training from a file."""

import copy
import datetime

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import handgrad
from handgrad import Callback, CrossEntropy, Huber, SquaredError
from handgrad.io.safetensors import read_arrays, write_arrays
from handgrad.sklearn import MLPClassifier, MLPRegressor, load, save

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(240, 8, n_informative=6, n_classes=3, random_state=0)
BINARY = np.where(Y > 0, "yes", "no")
X_LABELS, LABELS = make_multilabel_classification(240, 8, n_classes=4, random_state=0)
X_NUMBERS, NUMBERS = make_regression(240, 8, n_targets=3, noise=1, random_state=0)
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 8, "random_state": 3}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("model", "x", "y"),
    [
        (MLPClassifier(**SMALL), X, BINARY),
        (MLPClassifier(**SMALL, class_weight={0: 1, 1: 2.5, 2: 1}, loss=CrossEntropy(0.1)), X, Y),
        (MLPClassifier(**SMALL, loss=SquaredError("sigmoid", label_smoothing=0.1)), X, BINARY),
        (MLPClassifier(**SMALL | {"random_state": np.random.RandomState(0)}), X_LABELS, LABELS),
        (MLPClassifier(**SMALL, early_stopping=True), X.astype(np.float32), Y * 10),
        (MLPRegressor(**SMALL, loss=Huber(0.5)), X_NUMBERS, NUMBERS),
        (MLPRegressor(**SMALL, solver="lbfgs"), X_NUMBERS, NUMBERS[:, 0]),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, MLPClassifier | MLPRegressor) else "",
)
def test_load_restores_parameters_fitted_attributes_and_predictions(model, x, y, path):
    save(model.fit(x, y), path)
    loaded = load(path)
    assert type(loaded) is type(model)
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert loaded.predict(x).dtype == model.predict(x).dtype
    parameters, expected = loaded.get_params(), model.get_params()
    for name in set(parameters) - {"random_state"}:
        assert repr(parameters[name]) == repr(expected[name]), name
    fitted = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    assert fitted <= set(vars(loaded))
    network = handgrad.load(path)
    assert np.array_equal(network.outputs(x), model.network_.outputs(x))


DAY = np.datetime64("2020-02-28")
LABEL_ARRAYS = {
    "days": DAY + Y,
    "nanoseconds": np.datetime64("2020-02-28", "ns") + Y,
    "pandas dates": pd.Series(pd.to_datetime(DAY + Y)),
    "hours": np.timedelta64(5, "h") * Y,
    "booleans": Y > 0,
    "strings": np.array(["a", 'ü"\n', "\\u0000"])[Y],
    "objects": np.array(["a", "b", "c"], dtype=object)[Y],
    "categories": pd.Series(np.array(["a", "b", "c"])[Y], dtype="category"),
    "negative": (Y - 1).astype(np.int8),
    "large": np.uint64(2**64 - 1) - Y.astype(np.uint64),
    "big-endian": Y.astype(">i4"),
    "floats": Y.astype(float) - 1,
    "half floats": Y.astype(np.float16),
    "long floats": Y.astype(np.longdouble),
    "one class": np.zeros(240, int),
}


@pytest.mark.parametrize("name", LABEL_ARRAYS)
def test_labels_of_every_kind_are_saved_and_loaded(name, path):
    y = LABEL_ARRAYS[name]
    model = MLPClassifier(**SMALL).fit(X, y)
    save(model, path)
    loaded = load(path)
    assert loaded.classes_.dtype == model.classes_.dtype
    assert np.array_equal(loaded.classes_, model.classes_)
    predictions = model.predict(X)
    assert loaded.predict(X).dtype == predictions.dtype
    assert np.array_equal(loaded.predict(X), predictions)
    assert np.array_equal(loaded.partial_fit(X, y).coefs_[0], model.partial_fit(X, y).coefs_[0])
    assert handgrad.load(path).classes == model.network_.classes


@pytest.mark.parametrize(
    ("x", "y", "class_weight"),
    [
        (X, DAY + Y, {DAY: 3.0, DAY + 2: np.float32(0.5)}),
        (X, DAY + Y, {DAY.item(): 3, datetime.datetime(2020, 2, 29): 2}),
        (X, np.timedelta64(5, "h") * Y, {datetime.timedelta(hours=5): 3}),
        (X, Y > 0, {True: 3, False: 1}),
        (X, Y, {np.int64(1): 0}),
        (X, BINARY, "balanced"),
        (X_LABELS, LABELS, [{0: 1, 1: 2}, {1: 3}, {}, {0: 0.5}]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict | list | str) else "",
)
def test_class_weights_of_every_kind_are_saved_and_loaded(x, y, class_weight, path):
    model = MLPClassifier(**SMALL, class_weight=class_weight).fit(x, y)
    save(model, path)
    loaded = load(path)
    assert np.array_equal(loaded.fit(x, y).coefs_[0], model.coefs_[0])
    save(loaded, path)


def test_save_rejects_parameters_that_json_cannot_represent(path, rejects):
    model = MLPClassifier(**SMALL).fit(X, Y).set_params(class_weight={0: 1j})
    with rejects("a file cannot hold class_weight="):
        save(model, path)
    assert not path.exists()


def test_load_restores_feature_names(path):
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(8)])
    save(MLPClassifier(**SMALL).fit(frame, Y), path)
    loaded = load(path)
    loaded.predict(frame)  # a warning would be an error
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[frame.columns[::-1]])


def test_load_restores_sparse_targets(path):
    model = MLPClassifier(**SMALL).fit(X_LABELS, scipy.sparse.csr_matrix(LABELS))
    save(model, path)
    assert type(load(path).predict(X_LABELS)) is type(model.predict(X_LABELS))


def test_parameters_can_be_any_sequence_or_number_of_numpy(path):
    model = MLPClassifier(range(3, 5), learning_rate_init=np.float32(0.01), max_iter=np.int64(2), random_state=0)
    save(model.fit(X, Y), path)
    assert load(path).hidden_layer_sizes == (3, 4)


def test_save_rejects_callbacks_schedule_functions_and_unfitted_estimators(path, rejects):
    with rejects(r"a file cannot hold callbacks=.*set_params\(callbacks=...\)"):
        save(MLPClassifier(**SMALL, callbacks=[Callback()]).fit(X, Y), path)
    with rejects("a file cannot hold schedule=schedules.cosine"):
        save(MLPClassifier(**SMALL, schedule=handgrad.schedules.cosine()).fit(X, Y), path)
    with pytest.raises(NotFittedError):
        save(MLPClassifier(), path)
    assert list(path.parent.iterdir()) == []


def test_save_rejects_a_pipeline(path, rejects):
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((3,), max_iter=1, random_state=0))
    with rejects("use handgrad.sklearn.save for an estimator"):
        handgrad.save(MLPClassifier(**SMALL).fit(X, Y), path)
    with rejects(r"cannot save a Pipeline: .* save its last step, pipeline\[-1\]"):
        save(pipeline, path)


def test_load_rejects_a_model_file_and_a_missing_model(path, rejects):
    handgrad.save(handgrad.Network([3, 2], rng=0), path)
    with rejects("contains no estimator: use handgrad.load"):
        load(path)
    write_arrays(path, {}, {"estimator": {}})
    with rejects("is not a valid model file"):
        load(path)


def change(estimator, key, value):
    """The description of an estimator with another value; a dotted key is a path."""
    changed = copy.deepcopy(estimator)
    *parents, last = key.split(".")
    inner = changed
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return changed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", "SVC"),
        ("classes", None),
        ("classes.dtype", "O"),
        ("classes.dtype", "<U999999999"),
        ("optimizer", {"lr": 1, "kind": "SGD", "steps": 1}),
        ("optimizer.steps", -1),
        ("random_state", {}),
        *(("random_state.state.pos", value) for value in (-1, 625, 10**30)),  # NumPy would read beyond the end
        *(("fitted.n_iter_", value) for value in (-1, 1.5, 10**400)),
        ("fitted.n_features_in_", 9),
        *(("fitted.loss_curve_", value) for value in (None, ["1"])),
        *(("fitted.history_", value) for value in (None, {"loss": 5}, {"loss": ["1"]})),
        *(("fitted.best_loss_", value) for value in ("1", 10**400)),
        ("fitted.best_loss_", None),
        ("fitted", {"history_": {}}),
        ("fitted", {"n_outputs_": 3, "n_iter_": 8, "n_layers_": 4, "n_features_in_": 8}),
        ("classes.dtype", "9" * 5000),
        ("parameters.class_weight", {"pairs": [[0, 10**400], [1, 1], [2, 1]]}),
        ("sparse_targets", True),
        *(("classes.values", value) for value in ([0, 1], [0, 1, 1], [2, 1, 0], [[0], [1], [2]])),
        ("parameters.batch_size", 10**400),
        ("optimizer.steps", 10**400),
        ("training.optimizer", np.full((2, 100), np.nan, np.float32)),
        ("parameters.callbacks", [[1]]),
        ("parameters.alpha", -3),
        ("parameters.hidden_layer_sizes", [9]),
        ("training.optimizer", np.zeros(3)),
        ("training.random_state", np.zeros(3, np.uint32)),
        ("training.sample_order", np.full(240, 10**6, np.int32)),
    ],
)
def test_load_rejects_damaged_files(key, value, path, rejects):
    save(MLPClassifier(**SMALL).fit(X, Y), path)
    arrays, description = read_arrays(path)
    if key in arrays:
        arrays[key] = value
    else:
        description["estimator"] = change(description["estimator"], key, value)
    write_arrays(path, arrays, description)
    with rejects("is damaged: inconsistent metadata of the estimator"):
        load(path)
