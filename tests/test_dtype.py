"""The dtype is chosen once: float32 stays float32 everywhere, to the last buffer, and float64 stays float64."""

import numpy as np
import pytest

from handgrad import SGD, Adam, Dense, Dropout, Layer, LeakyReLU, Loss, Network, Optimizer, Trainer, schedules
from handgrad.layers import ACTIVATIONS
from handgrad.losses import LOSSES
from handgrad.optimizers import OPTIMIZERS

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
PENALTIES = {"l1": 1e-3, "l2": 1e-3, "clip_norm": 1.0, "weight_decay": 0.01, "max_norm": 2.0}


def float_arrays(thing, path):
    """(path, array) of every float array that can be reached from a part of the library."""
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


def trained(layers, loss, optimizer, dtype, x, y):
    """A trainer that has taken a few steps: batches of 4, 4 and 1."""
    network = Network(layers, loss=LOSSES[loss](0.1), rng=0, dtype=dtype)
    trainer = Trainer(network, optimizer, batch_size=4, schedule=schedules.cosine(), rng=0)
    trainer.fit(x, y, epochs=2, validation=(x, y))
    return trainer


@pytest.fixture
def data():
    return np.random.default_rng(0).random((9, 6)), np.arange(9) % 3


@DTYPES
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_array_of_another_dtype_after_training(activation, loss, optimizer, dtype, data):
    layers = [Dropout(0.1), Dense(6, 5), ACTIVATIONS[activation](), Dropout(0.5), Dense(5, 3)]
    trainer = trained(layers, loss, OPTIMIZERS[optimizer](0.01, **PENALTIES), dtype, *data)
    found = dict(float_arrays(trainer, "trainer"))
    # The walk has been where it should: θ, dθ, a weight's view, its buffers, the loss's, the optimizer's memory.
    places = ("parameters", "gradient", "layers[1].W", "layers[1].db", "layers[1].z", "layers[3].m", "loss.dz")
    assert {f"trainer.network.{place}" for place in places} | {"trainer.optimizer.memory"} <= found.keys()
    assert {path: a.dtype for path, a in found.items() if a.dtype != dtype} == {}


@DTYPES
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.uint8, np.int64, bool])
@pytest.mark.parametrize("loss", LOSSES)
def test_answers_have_the_networks_dtype_whatever_comes_in(loss, kind, dtype):
    x = np.random.default_rng(0).integers(0, 2, (5, 6)).astype(kind)
    network = Network([6, 5, 3], activation="gelu", loss=loss, rng=0, dtype=dtype)
    answers = [network.outputs(x), network.predict_proba(x), *network.activations(x)]
    assert {a.dtype for a in answers} == {np.dtype(dtype)}


@DTYPES
@pytest.mark.parametrize("wide", [np.float64, np.float32])
def test_a_batch_of_another_dtype_leaves_the_network_in_its_own(wide, dtype, data):
    x, y = data
    network = Network([6, 5, 3], rng=0, dtype=dtype)
    z = network.backprop(x.astype(wide), np.eye(3, dtype=wide)[y])
    assert {a.dtype for a in (z, network.gradient, network.loss.dz)} == {np.dtype(dtype)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_that_is_a_numpy_float64_widens_nothing(optimizer, data):
    """A schedule of one's own may well be made with np.cos, and float32 times np.float64 is float64."""
    x, y = data
    network = Network([6, 5, 3], rng=0)
    trainer = Trainer(
        network,
        OPTIMIZERS[optimizer](np.float64(0.01), **PENALTIES),
        schedule=lambda epoch, epochs: np.cos(epoch / epochs),
        batch_size=4,
    )
    trainer.fit(x, y, epochs=2)
    assert {a.dtype for _, a in float_arrays(trainer, "trainer")} == {np.dtype(np.float32)}


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_is_float64_rounded(loss, data):
    """Same seed, same data: after some steps the two agree to a few float32 roundings, and are not the same."""
    layers = {dtype: [Dense(6, 5), LeakyReLU(), Dense(5, 3)] for dtype in (np.float32, np.float64)}
    single, double = (
        trained(layers[dtype], loss, Adam(0.01), dtype, *data).network.parameters for dtype in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-5)
    assert (single != double).any()


@DTYPES
def test_the_loss_and_the_accuracy_are_pythons_own_floats(dtype, data):
    trainer = trained([6, 5, 3], "binary_cross_entropy", SGD(0.1), dtype, *data)
    assert {type(value) for values in trainer.history.values() for value in values} == {float}
    evaluation = trainer.network.evaluate(*data)
    assert (type(evaluation.loss), type(evaluation.correct), type(evaluation.accuracy)) == (float, int, float)
