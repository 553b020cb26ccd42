"""Golden values: fixed short trainings end with the parameters of the first version of handgrad.

golden.json has for each training the norm of its parameters and eight of them, evenly spaced. They were computed before
the modules were renamed and reorganized. These tests therefore protect what unit tests of the parts do not see: the
order in which random numbers are drawn, the order of the parameters, the defaults of the recipes, and every numerical
detail of a step. A refactoring must not change them. A change on purpose says in its commit which values change and
why; `python tests/test_golden.py` prints the new ones.

The values hold for every BLAS: the tolerance is 1e-9 of the root mean square in float64 and 1e-3 in float32. Rounding
errors grow where Adam divides one rounding error by another. For this reason the recipes are compared by their weight
matrices, without biases, and some of them use Nesterov momentum. Elastic distortion is switched off, because the sign
of an eigenvector depends on LAPACK.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from handgrad import (
    EMA,
    SGD,
    SWA,
    Adam,
    AdamW,
    Callback,
    Huber,
    Lookahead,
    Momentum,
    Muon,
    Nesterov,
    Network,
    SquaredError,
    Trainer,
    VirtualAdversarial,
    schedules,
)
from handgrad.callbacks import Checkpoint, resume
from handgrad.recipes import RECIPES
from handgrad.wrappers import unwrap

GOLDEN = Path(__file__).parent / "golden.json"

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (400, 28, 28), dtype=np.uint8)
LABELS = rng.integers(0, 10, 400).astype(np.uint8)
X, Y = rng.standard_normal((300, 20)), rng.integers(0, 4, 300)


def network(*hidden, seed, loss="cross_entropy", n_out=4, **options):
    return Network([20, *hidden, n_out], loss=loss, rng=seed, dtype=np.float64, **options)


def train(network, optimizer, *, seed, epochs=3, batch_size=16, x=X, y=Y, sample_weight=None, **options):
    trainer = Trainer(network, optimizer, batch_size=batch_size, rng=seed, **options)
    trainer.fit(x, y, epochs=epochs, sample_weight=sample_weight)
    return network.parameters


def weights(model):
    """The weight matrices of all networks of a model."""
    core = unwrap(model).core
    networks = [core] if isinstance(core, Network) else [unwrap(member).core for member in core.members]
    return np.concatenate([W.ravel() for network in networks for W, _ in network.weights])


def recipe(name, **settings):
    return RECIPES[name].replace(epochs=1, label_smoothing=0.0, calibration=1.0, **settings)


# ---- The trainings ---------------------------------------------------------------------------------------------------


def post(directory):
    return train(Network([784, 30, 10], rng=0), SGD(0.5), seed=0, epochs=2, batch_size=10, x=IMAGES, y=LABELS)


def squared_error(directory):
    sigmoids = Network([784, 30, 10], loss=SquaredError("sigmoid"), rng=1)
    return train(sigmoids, SGD(3.0), seed=1, epochs=2, batch_size=10, x=IMAGES, y=LABELS)


def muon(directory):
    return train(network(16, 12, activation="relu", seed=2), Muon(0.02), seed=2)


def batch_norm_and_dropout(directory):
    layers = network(16, 12, activation="gelu", batch_norm=True, dropout=0.3, seed=3)
    return train(layers, Adam(0.01), seed=3)


def ema(directory):
    optimizer, schedule = Nesterov(0.05, l2=1e-3, clip_norm=1.0), schedules.one_cycle()
    return train(network(16, activation="tanh", seed=4), optimizer, seed=4, callbacks=[EMA(0.95)], schedule=schedule)


def swa(directory):
    optimizer = AdamW(0.01, max_norm=2.0)
    return train(network(16, activation="tanh", seed=4), optimizer, seed=4, epochs=4, callbacks=[SWA(0.5)])


def lookahead(directory):
    tanh = network(16, activation="tanh", loss="binary_cross_entropy", seed=4)
    return train(tanh, Lookahead(Momentum(0.05)), seed=4)


def weighted_regression(directory):
    softplus, sample_weight = (
        network(16, activation="softplus", loss=Huber(0.5), n_out=2, seed=5),
        np.arange(300) % 3 + 1,
    )
    return train(softplus, Momentum(0.01), seed=5, y=X[:, :2] ** 2, sample_weight=sample_weight)


def virtual_adversarial(directory):
    perturb = VirtualAdversarial(0.5, rng=1)
    return train(network(16, activation="relu", seed=5), Adam(0.01), seed=5, perturb=perturb)


def resumed(directory):
    """A training with EMA and dropout that is killed in its third epoch and resumed."""

    class Kill(Callback):
        def on_batch_end(self, trainer):
            if (trainer.epoch, trainer.batch) == (2, 3):
                raise KeyboardInterrupt

    def trainer(*callbacks):
        callbacks = [EMA(0.9), Checkpoint(directory / "checkpoint"), *callbacks]
        relu, schedule = network(16, activation="relu", dropout=0.2, seed=6), schedules.cosine()
        return Trainer(relu, Adam(0.01), batch_size=16, callbacks=callbacks, schedule=schedule, rng=6)

    try:
        trainer(Kill()).fit(X, Y, epochs=5)
    except KeyboardInterrupt:
        second = trainer()
    resume(second, directory / "checkpoint")
    second.fit(X, Y, until_epoch=5)
    return second.network.parameters


def recipe_quick(directory):
    return weights(recipe("quick", hog=0, shrink=2).train(IMAGES, LABELS, 10))


def recipe_pure(directory):
    settings = {"hidden": (64, 32), "lr": 0.008, "batch_size": 256, "ema_decay": 0.999}
    return weights(recipe("pure", **settings).train(IMAGES, LABELS, 10))


def recipe_minute(directory):
    settings = {"hidden": (64, 32), "elastic": 0.0, "optimizer": "nesterov", "lr": 0.05, "batch_size": 64}
    settings |= {"threads": 1, "hog": 0, "rotation": 7.5, "scale": 0.15, "shift": 1.0}
    model = recipe("minute", **settings).train(IMAGES, LABELS, 10)
    return np.concatenate([weights(model), model.predict_proba(IMAGES[:20]).ravel()])


def recipe_of_an_ensemble(directory):
    settings = {"members": 2, "tta": 5, "optimizer": "nesterov", "lr": 0.05, "batch_size": 64}
    model = recipe("second", **settings).train(IMAGES, LABELS, 10)
    return np.concatenate([weights(model), model.predict_proba(IMAGES[:50]).ravel()])


def recipe_with_a_teacher(directory):
    settings = {"optimizer": "nesterov", "lr": 0.05, "batch_size": 64}
    teacher = recipe("second", **settings).train(IMAGES, LABELS, 10)
    student = recipe("second", temperature=2.0, hidden=(40,), **settings)
    return weights(student.train(IMAGES, LABELS, 10, teacher=teacher))


def sklearn_estimator(name, y, **options):
    pytest.importorskip("sklearn")
    from handgrad import sklearn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_iter is reached
        return getattr(sklearn, name)(random_state=0, **options).fit(X, y).network_.parameters


def sklearn_sgd(directory):
    options = {"solver": "sgd", "learning_rate_init": 0.05, "max_iter": 5, "batch_size": 20}
    return sklearn_estimator("MLPClassifier", Y, hidden_layer_sizes=(16,), **options)


def sklearn_adam(directory):
    options = {"max_iter": 5, "batch_size": 20, "early_stopping": True}
    return sklearn_estimator("MLPClassifier", Y, hidden_layer_sizes=(16, 8), **options)


def sklearn_lbfgs(directory):
    return sklearn_estimator("MLPRegressor", X[:, 0], hidden_layer_sizes=(8,), solver="lbfgs", max_iter=15)


TRAININGS = {
    function.__name__: function
    for function in (
        *(post, squared_error, muon, batch_norm_and_dropout, ema, swa, lookahead, weighted_regression),
        *(virtual_adversarial, resumed, recipe_quick, recipe_pure, recipe_minute, recipe_of_an_ensemble),
        *(recipe_with_a_teacher, sklearn_sgd, sklearn_adam, sklearn_lbfgs),
    )
}


# ---- The comparison --------------------------------------------------------------------------------------------------


def summary(theta):
    chosen = np.linspace(0, theta.size - 1, 8).astype(int)
    return {
        "size": theta.size,
        "dtype": theta.dtype.name,
        "norm": float(np.linalg.norm(theta.astype(np.float64))),
        "values": [float(value) for value in theta[chosen]],
    }


@pytest.mark.parametrize("name", TRAININGS)
def test_training_ends_with_the_golden_values(name, tmp_path):
    expected, found = json.loads(GOLDEN.read_text())[name], summary(TRAININGS[name](tmp_path))
    assert (found["size"], found["dtype"]) == (expected["size"], expected["dtype"])
    tolerance = 1e-9 if expected["dtype"] == "float64" else 1e-3
    rms = expected["norm"] / expected["size"] ** 0.5
    assert found["norm"] == pytest.approx(expected["norm"], rel=tolerance)
    np.testing.assert_allclose(found["values"], expected["values"], rtol=0, atol=tolerance * rms)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        print(json.dumps({name: summary(make(Path(place))) for name, make in TRAININGS.items()}, indent=1))
