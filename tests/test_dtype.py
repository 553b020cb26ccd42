"""The dtype: float32 stays float32 in every array, and float64 stays float64."""

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adam,
    BatchNorm,
    CrossEntropy,
    Dense,
    Dropout,
    Huber,
    Layer,
    LeakyReLU,
    Loss,
    Network,
    Optimizer,
    SquaredError,
    Trainer,
    schedules,
)
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES
from handgrad.optimizers import OPTIMIZERS

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
PENALTIES = {"l1": 1e-3, "l2": 1e-3, "clip_norm": 1.0, "weight_decay": 0.01, "max_norm": 2.0}
ALL_LOSSES = {
    **LOSSES,
    "squared_error_of_sigmoid": lambda: SquaredError("sigmoid", 0.1),
    "cross_entropy_with_temperature": lambda: CrossEntropy(0.1, np.float64(3)),
}


def float_arrays(thing, path):
    """(path, array) of every float array that can be reached from a trainer."""
    if isinstance(thing, np.ndarray):
        if thing.dtype.kind == "f":
            yield path, thing
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from float_arrays(value, f"{path}[{key!r}]")
    elif isinstance(thing, list | tuple):
        for i, value in enumerate(thing):
            yield from float_arrays(value, f"{path}[{i}]")
    elif isinstance(thing, Network | Layer | Loss | Optimizer | Trainer):
        for name, value in vars(thing).items():
            if not (isinstance(thing, Optimizer) and name == "_network"):
                yield from float_arrays(value, f"{path}.{name}")


def trained(layers, loss, optimizer, dtype, x, y, **options):
    """A trainer after two epochs of batches of 4, 4 and 1."""
    network = Network(layers, loss=loss, rng=0, dtype=dtype)
    trainer = Trainer(network, optimizer, batch_size=4, schedule=schedules.cosine(), rng=0, **options)
    trainer.fit(x, y, epochs=2, validation=(x, y))
    return trainer


@pytest.fixture
def data():
    return np.random.default_rng(0).random((9, 6)), np.arange(9) % 3


def rows(y):
    return np.eye(3)[y]


# The layers, the loss and the optimizer do not interact: each of them once in float32, the default dtype of NumPy being
# float64, which the gradient checks use.
CASES = [(activation, "cross_entropy", "momentum", np.float32) for activation in ACTIVATIONS]
CASES += [("relu", loss, "sgd", np.float32) for loss in ALL_LOSSES]
CASES += [("tanh", "binary_cross_entropy", optimizer, np.float32) for optimizer in OPTIMIZERS]
CASES += [("gelu", "cross_entropy", "adam", np.float64)]


@pytest.mark.parametrize(("activation", "loss", "optimizer", "dtype"), CASES)
def test_every_array_has_the_networks_dtype_after_training(activation, loss, optimizer, dtype, data):
    x, y = data
    for penalties in ({}, PENALTIES):
        layers = [Dropout(0.1), Dense(6, 5), BatchNorm(5), ACTIVATIONS[activation](), Dropout(0.5), Dense(5, 3)]
        trainer = trained(layers, ALL_LOSSES[loss](), OPTIMIZERS[optimizer](0.01, **penalties), dtype, x, rows(y))
        found = dict(float_arrays(trainer, "trainer"))
        # The search has been where it should: θ, dθ, a view, buffers of layers and the loss, the optimizer's state.
        places = ("parameters", "gradient_buffer", "layers[1].W", "layers[1].db", "layers[4].m", "_loss.dz")
        assert {f"trainer.network.{place}" for place in places} | {"trainer.optimizer.state"} <= found.keys()
        assert {path: a.dtype for path, a in found.items() if a.dtype != dtype} == {}


@DTYPES
def test_parameters_of_layers_that_are_numpy_float64_change_no_dtype(dtype, data):
    x, y = data
    layers = [BatchNorm(6, np.float64(0.2), np.float64(1e-3)), Dropout(np.float64(0.5)), Dense(6, 300)]
    layers += [LeakyReLU(np.float64(0.1)), BatchNorm(300), Dense(300, 3)]
    trainer = trained(layers, Huber(np.float64(0.5)), Adam(0.01), dtype, x, rows(y))
    assert {a.dtype for _, a in float_arrays(trainer, "trainer")} == {np.dtype(dtype)}
    assert {a.dtype for a in trainer.network.activations(x)} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, np.float32) for kind in (np.float16, np.float64, np.uint8, np.int64, bool)), (np.float32, np.float64)],
)
def test_predictions_have_the_networks_dtype_for_any_input(kind, dtype):
    x = np.random.default_rng(0).integers(0, 2, (5, 6)).astype(kind)
    for make in ALL_LOSSES.values():
        network = Network([6, 5, 3], activation="gelu", loss=make(), rng=0, dtype=dtype)
        predictions = [network.outputs(x), network.predict_proba(x), *network.activations(x)]
        assert {a.dtype for a in predictions} == {np.dtype(dtype)}


@DTYPES
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_a_batch_of_another_dtype_does_not_change_the_networks(kind, dtype, data):
    x, y = data
    network = Network([6, 5, 3], rng=0, dtype=dtype)
    z = network.backprop(x.astype(kind), rows(y).astype(kind))
    assert {a.dtype for a in (z, network.gradient, network.loss.dz)} == {np.dtype(dtype)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_learning_rate_that_is_a_numpy_float64_changes_no_dtype(optimizer, data):
    """A custom schedule may use np.cos, and a float32 array times an np.float64 array is float64."""
    x, y = data
    network = Network([6, 5, 3], rng=0)
    trainer = Trainer(
        network,
        OPTIMIZERS[optimizer](np.float64(0.01), **PENALTIES),
        schedule=lambda epoch, epochs: np.cos(epoch / epochs),
        batch_size=4,
    )
    trainer.fit(x, y, epochs=2, sample_weight=np.linspace(1, 2, 9))
    assert {a.dtype for _, a in float_arrays(trainer, "trainer")} == {np.dtype(np.float32)}


def test_float32_training_equals_float64_training_to_rounding(data):
    x, y = data
    single, double = (
        trained([Dense(6, 5), LeakyReLU(), Dense(5, 3)], CrossEntropy(), Adam(0.01), dtype, x, rows(y))
        for dtype in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single.network.parameters, double.network.parameters, rtol=1e-3, atol=1e-5)
    assert (single.network.parameters != double.network.parameters).any()


@DTYPES
def test_numbers_of_the_history_and_of_an_evaluation_are_python_numbers(dtype, data):
    trainer = trained([6, 5, 3], "binary_cross_entropy", SGD(0.1), dtype, *data)
    assert {type(value) for values in trainer.history.values() for value in values} == {float}
    evaluation = trainer.network.evaluate(*data)
    assert (type(evaluation.loss), type(evaluation.correct), type(evaluation.accuracy)) == (float, int, float)
