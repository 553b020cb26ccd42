"""Models whose arrays are memory maps of a file: joblib.load(..., mmap_mode="r")."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.datasets import make_classification

import handgrad
from handgrad import EMA, SWA, Adam, EarlyStopping, Lookahead, Momentum, Muon, Trainer
from handgrad.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = make_classification(240, 8, n_informative=6, n_classes=3, random_state=0)
SMALL = {"hidden_layer_sizes": (7, 5), "max_iter": 3, "random_state": 3}


@pytest.mark.parametrize(
    ("parameters", "mode"),
    [
        *(({"solver": "adam"}, mode) for mode in ("r", "r+", "c")),
        ({"solver": "muon"}, "r"),
        ({"shuffle": False}, "r"),
        ({"dropout": 0.3}, "r"),
        ({"callbacks": [EarlyStopping("loss"), EMA(0.9)]}, "r"),
    ],
    ids=str,
)
def test_memory_mapped_estimator_continues_like_a_pickled_one(parameters, mode, tmp_path):
    for estimator in (MLPClassifier, MLPRegressor):
        model = estimator(**SMALL | parameters).fit(X, Y)
        (file,) = joblib.dump(model, tmp_path / "model.joblib")
        model = pickle.loads(pickle.dumps(model))
        content = (tmp_path / "model.joblib").read_bytes()
        loaded = joblib.load(file, mmap_mode=mode)
        assert np.array_equal(loaded.predict(X), model.predict(X))
        for _ in range(2):
            model.partial_fit(X, Y)
            loaded.partial_fit(X, Y)
        assert np.array_equal(loaded.network_.parameters, model.network_.parameters)
        loaded.coefs_[0][...] = 0
        assert (tmp_path / "model.joblib").read_bytes() == content


@pytest.mark.parametrize("parameters", [{"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
def test_memory_mapped_estimator_continues_with_warm_start(parameters, tmp_path):
    model = MLPClassifier(**SMALL, **parameters, warm_start=True).fit(X, Y)
    (file,) = joblib.dump(model, tmp_path / "model.joblib")
    loaded = joblib.load(file, mmap_mode="r").fit(X, Y)
    assert np.array_equal(loaded.network_.parameters, model.fit(X, Y).network_.parameters)


@pytest.mark.parametrize(
    ("optimizer", "callback"),
    [(Momentum(0.1), EMA(0.9)), (Lookahead(Adam(0.01), k=2), SWA(0.1)), (Muon(0.01), EarlyStopping("loss"))],
    ids=repr,
)
def test_memory_mapped_trainer_continues_like_the_original(optimizer, callback, tmp_path):
    network = handgrad.Network([8, 6, 3], loss="cross_entropy", rng=0)
    trainer = Trainer(network, optimizer, batch_size=20, callbacks=[callback], rng=0)
    trainer.fit(X, Y, epochs=2)
    (file,) = joblib.dump(trainer, tmp_path / "trainer.joblib")
    loaded = joblib.load(file, mmap_mode="r")
    for one in (trainer, loaded):
        one.fit(X, Y, until_epoch=4)
    assert np.array_equal(loaded.network.parameters, trainer.network.parameters)


def test_fit_accepts_memory_mapped_data(tmp_path):
    (file,) = joblib.dump((X, Y, np.linspace(0, 1, 240)), tmp_path / "data.joblib")
    x, y, weights = joblib.load(file, mmap_mode="r")
    mapped = MLPClassifier(**SMALL).fit(x, y, weights)
    assert np.array_equal(
        mapped.network_.parameters, MLPClassifier(**SMALL).fit(X, Y, np.linspace(0, 1, 240)).network_.parameters
    )
