"""Batch normalization: naive loops, gradient, running statistics, folding, files and checkpoints."""

import copy
import math
import pickle

import numpy as np
import pytest
import safetensors.numpy

from handgrad import (
    SGD,
    Adam,
    BatchNorm,
    Dense,
    Dropout,
    EarlyStopping,
    Identity,
    Network,
    ReLU,
    Tanh,
    Trainer,
    check_gradient,
    fold_batchnorm,
    load,
    one_hot,
    save,
)
from handgrad.arrays import layer_buffer, spawn_rngs
from handgrad.callbacks import Checkpoint, resume
from handgrad.gradcheck import GradientError, gradient_errors
from handgrad.network import bind
from handgrad.optimizers import OPTIMIZERS

RNG = np.random.default_rng(11)
X = 3 + 2 * RNG.standard_normal((12, 6))
Y = np.arange(12) % 4
CLOSE = {"rtol": 1e-11, "atol": 1e-13}
START = RNG.bit_generator.state
SHAPES = pytest.mark.parametrize(("batch", "n"), [(2, 3), (7, 5), (60, 40)])  # the last is column-major


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Every test draws the same numbers, in any order of the tests."""
    RNG.bit_generator.state = START


def allocated(layer, batch, n, dtype=np.float64):
    """The layer with buffers and random parameters, outside a network."""
    theta, gradient = bind([layer], dtype)
    layer.initialize(spawn_rngs(0))
    theta += np.random.default_rng(1).uniform(0.1, 1, theta.size)
    gradient[...] = np.nan  # each entry must be written
    layer.allocate(batch, n, dtype)
    return layer


def network_with_batch_norm(dtype=np.float32, rng=0):
    """BatchNorm of the inputs, of hidden units and of the outputs."""
    layers = [BatchNorm(6), Dense(6, 8), BatchNorm(8), Tanh(), Dropout(0.2), Dense(8, 4), BatchNorm(4)]
    return Network(layers, loss="cross_entropy", rng=rng, dtype=dtype)


def fit(network, optimizer=None, epochs=3, **options):
    trainer = Trainer(network, optimizer or SGD(0.1), batch_size=5, rng=0, **options)  # batches of 5, 5 and 2
    trainer.fit(X, Y, epochs=epochs, validation=(X, Y))
    return trainer


# ---- Forward and backward --------------------------------------------------------------------------------------------


def by_loops(layer, x, dy):
    """y, dx, dg, db and the new running mean and variance, one feature at a time, with Python numbers."""
    batch, n = x.shape
    y, dx = np.empty((2, batch, n))
    dg, db, mean, var = np.empty((4, n))
    for j in range(n):
        column, dcolumn = x[:, j].tolist(), dy[:, j].tolist()
        mu = math.fsum(column) / batch
        squares = math.fsum((v - mu) ** 2 for v in column)
        sigma = math.sqrt(squares / batch + layer.epsilon)
        normal = [(v - mu) / sigma for v in column]
        g, b = float(layer.g[j]), float(layer.b[j])
        y[:, j] = [g * v + b for v in normal]
        db[j] = math.fsum(dcolumn)
        dg[j] = math.fsum(d * v for d, v in zip(dcolumn, normal, strict=True))
        for i in range(batch):  # every y depends on every x of the column: the Jacobian, entry by entry
            dx[i, j] = math.fsum(
                dcolumn[k] * g / sigma * ((i == k) - 1 / batch - normal[i] * normal[k] / batch) for k in range(batch)
            )
        mean[j] = (1 - layer.momentum) * layer.running_mean[j] + layer.momentum * mu
        var[j] = (1 - layer.momentum) * layer.running_var[j] + layer.momentum * squares / (batch - 1)
    return y, dx, dg, db, mean, var


@SHAPES
@pytest.mark.parametrize("rows", [True, False])
def test_forward_and_backward_equal_naive_loops(batch, n, rows):
    layer = allocated(BatchNorm(n, momentum=0.3, epsilon=0.01), batch, n)
    x, dy = 5 + RNG.standard_normal((2, batch, n))
    expected = by_loops(layer, x, dy)
    if not rows:
        x, dy = np.asfortranarray(x), np.asfortranarray(dy)
    kept = x.copy(), dy.copy()
    y, dx = layer.forward(x), layer.backward(dy)
    found = (y, dx, layer.dg, layer.db, layer.running_mean, layer.running_var)
    for name, a, b in zip(("y", "dx", "dg", "db", "mean", "var"), found, expected, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE, err_msg=name)
    assert not layer.drunning_mean.any()
    assert not layer.drunning_var.any()
    np.testing.assert_array_equal((x, dy), kept)


@SHAPES
def test_inference_uses_the_running_statistics_and_changes_nothing(batch, n):
    layer, x = allocated(BatchNorm(n), batch, n), RNG.standard_normal((batch, n))
    theta = [getattr(layer, name).copy() for name in layer.parameter_shapes]
    g, b, mean, var = theta
    for given in (x, np.asfortranarray(x)):
        np.testing.assert_allclose(layer.infer(given), g * (given - mean) / np.sqrt(var + 1e-5) + b, **CLOSE)
    for name, before in zip(layer.parameter_shapes, theta, strict=True):
        np.testing.assert_array_equal(getattr(layer, name), before)


def test_the_running_statistics_converge_to_those_of_the_data():
    layer = allocated(BatchNorm(3), 50, 3)
    for _ in range(400):
        layer.forward(RNG.normal([1, -2, 0], [0.5, 3, 1], (50, 3)))
    np.testing.assert_allclose(layer.running_mean, [1, -2, 0], atol=0.5)
    np.testing.assert_allclose(layer.running_var, [0.25, 9, 1], rtol=0.25)


def test_initially_it_standardizes():
    layer = BatchNorm(6)
    bind([layer], np.float64)
    layer.initialize(spawn_rngs(0))
    layer.allocate(12, 6, np.float64)
    np.testing.assert_allclose(layer.infer(X), X / math.sqrt(1 + 1e-5), **CLOSE)
    y = layer.forward(X)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=0), 1, rtol=1e-4)


def test_a_batch_of_one_gives_b_and_leaves_the_statistics():
    layer = allocated(BatchNorm(4), 1, 4)
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    np.testing.assert_allclose(layer.forward(np.array([[1.0, -2, 3, 1e6]])), [layer.b], **CLOSE)
    dx = layer.backward(np.array([[1.0, 2, 3, 4]]))
    np.testing.assert_array_equal(dx, np.zeros((1, 4)))
    np.testing.assert_array_equal(layer.dg, np.zeros(4))
    np.testing.assert_array_equal(layer.db, [1, 2, 3, 4])
    np.testing.assert_array_equal((layer.running_mean, layer.running_var), (mean, var))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_pixels_stay_constant(dtype):
    """As the first layer it standardizes the inputs; a pixel that never changes gives b."""
    x = RNG.integers(0, 256, (40, 50)).astype(np.uint8)
    x[:, 7] = 0
    layer = BatchNorm(50, momentum=1)
    network = Network([layer, Dense(50, 4)], loss="cross_entropy", rng=0, dtype=dtype)
    network.backprop((x / 255).astype(dtype), one_hot(np.arange(40) % 4, 4, dtype))
    assert np.isfinite(network.gradient).all()
    assert not layer.y[:, 7].any()
    live = np.delete(np.arange(50), 7)
    np.testing.assert_allclose(layer.y[:, live].std(axis=0), 1, rtol=1e-3)
    inferred = network.activations(x / 255)[0]
    assert not inferred[:, 7].any()
    np.testing.assert_allclose(inferred[:, live].std(axis=0), math.sqrt(39 / 40), rtol=1e-3)


def test_backward_parameters_does_not_compute_dx():
    layer = allocated(BatchNorm(5), 7, 5)
    layer.forward(RNG.standard_normal((7, 5)))
    dy = RNG.standard_normal((7, 5))
    layer.backward(dy)
    dg, db = layer.dg.copy(), layer.db.copy()
    layer.backward = None  # not callable
    for name in layer.parameter_shapes:
        getattr(layer, f"d{name}")[...] = np.nan
    layer.backward_parameters(dy)
    np.testing.assert_array_equal((layer.dg, layer.db), (dg, db))
    assert not np.any((layer.drunning_mean, layer.drunning_var))


# ---- The gradient ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "epsilon"), [(1, 1e-5), (2, 0.1), (7, 1e-5), (300, 0.1)])
def test_the_gradient_passes_the_check(batch, epsilon):
    checks = check_gradient(BatchNorm(5, epsilon=epsilon), RNG.standard_normal((batch, 5)))
    assert [check.name.split()[1] for check in checks] == ["dx", "dg", "db", "drunning_mean", "drunning_var"]


@pytest.mark.parametrize("seed", range(5))
def test_a_bias_before_batch_norm_passes_and_a_wrong_derivative_of_it_does_not(seed):
    """The derivative with respect to the bias is 0, and the numerical one is only rounding."""

    class Biased(Dense):
        def backward_parameters(self, dz):
            super().backward_parameters(dz)
            self.db[0] += 1e-6

    def made(kind):
        return Network([kind(6, 8), BatchNorm(8), Tanh(), Dense(8, 4)], rng=seed, dtype=np.float64)

    check_gradient(made(Dense), X, Y, rng=seed)
    with pytest.raises(GradientError, match="layer 0 Biased db"):
        check_gradient(made(Biased), X, Y, rng=seed)


def dx_of(layer, dy, *, mean=1.0, product=1.0, square=1.0, epsilon=None):
    """dx, with terms left out or scaled."""
    r = layer.r if epsilon is None else 1 / np.sqrt(1 / layer.r**2 - layer.epsilon + epsilon)
    x_hat = layer.c * r
    return layer.g * r**square * (dy - mean * dy.mean(axis=0) - product * x_hat * (dy * x_hat).mean(axis=0))


WRONG = {
    "no mean(dy)": {"mean": 0},
    "mean(dy) 1 % off": {"mean": 0.99},
    "no mean(dy x_hat)": {"product": 0},
    "mean(dy x_hat) twice": {"product": 2},
    "statistics treated as constants": {"mean": 0, "product": 0},
    "divided by the variance": {"square": 2},
    "no epsilon": {"epsilon": 0.0},
    "a variance over batch - 1": {"product": 6 / 7},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_dx_is_caught(wrong):
    class Planted(BatchNorm):
        def backward(self, dy):
            super().backward_parameters(dy)
            return dx_of(self, dy, **wrong)

    class Right(BatchNorm):
        def backward(self, dy):
            super().backward_parameters(dy)
            return dx_of(self, dy)

    x = RNG.standard_normal((7, 5))
    check_gradient(Right(5, epsilon=0.1), x)
    with pytest.raises(GradientError, match="Planted dx"):
        check_gradient(Planted(5, epsilon=0.1), x)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("dg", lambda layer, dy: np.copyto(layer.dg, (dy * layer.c).sum(axis=0))),  # c instead of x_hat
        ("dg", lambda layer, dy: np.copyto(layer.dg, (dy * layer.y).sum(axis=0))),  # y
        ("db", lambda layer, dy: np.copyto(layer.db, dy.mean(axis=0))),
        ("drunning_mean", lambda layer, dy: layer.drunning_mean.fill(np.nan)),  # not written
        ("drunning_var", lambda layer, dy: np.copyto(layer.drunning_var, layer.dg)),
    ],
)
def test_a_wrong_derivative_of_a_parameter_is_caught(name, spoil):
    class Planted(BatchNorm):
        def backward(self, dy):
            dx = super().backward(dy)
            spoil(self, dy)
            return dx

    found = {check.name: check.passed for check in gradient_errors(Planted(5), RNG.standard_normal((7, 5)))}
    assert [wrong for wrong, passed in found.items() if not passed] == [f"Planted {name}"]


# ---- Running statistics ----------------------------------------------------------------------------------------------


def statistics(network):
    return np.concatenate([p.ravel() for name, p in network.named_parameters.items() if "running" in name])


PENALTIES = {"l2": 0.1, "l1": 0.1, "weight_decay": 0.5, "max_norm": 0.1}


@pytest.mark.parametrize(
    ("make", "penalties"),
    [*((make, PENALTIES) for make in OPTIMIZERS.values()), (SGD, {})],  # SGD without a penalty has its own step
    ids=[*OPTIMIZERS, "sgd without penalties"],
)
def test_only_forward_changes_the_running_statistics(make, penalties):
    network, idle, optimizer = network_with_batch_norm(), network_with_batch_norm(), make(0.1, **penalties)
    x, t = X.astype(np.float32), one_hot(Y, 4)
    for _ in range(4):
        idle.parameters[...] = network.parameters
        for ours, theirs in zip(network.layers, idle.layers, strict=True):
            if ours.rng is not None:
                theirs.rng.bit_generator.state = ours.rng.bit_generator.state
        optimizer.train_step(network, x, t, 0.1)
        idle.forward(x)
        np.testing.assert_array_equal(statistics(network), statistics(idle))
    assert (network.layers[0].g != 1).all()  # g and b learn


def test_penalties_apply_to_the_matrices_only():
    assert [W.shape for W, _ in network_with_batch_norm().weights] == [(8, 6), (4, 8)]


def test_a_step_of_plain_sgd_leaves_the_statistics_to_forward():
    """It subtracts the whole gradient vector from θ."""
    network = network_with_batch_norm(np.float64)
    layer, before = network.layers[0], network.layers[0].running_mean.copy()
    SGD(0.5).train_step(network, X, one_hot(Y, 4, np.float64), 0.5)
    np.testing.assert_allclose(layer.running_mean, 0.9 * before + 0.1 * X.mean(axis=0), **CLOSE)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * X.var(axis=0, ddof=1), **CLOSE)


def test_early_stopping_restores_the_statistics_of_the_best_epoch():
    network, stopping = network_with_batch_norm(), EarlyStopping(patience=1)
    kept = []

    class Keep(EarlyStopping):
        def on_epoch_end(self, trainer):
            kept.append(trainer.network.parameters.copy())

        def on_train_end(self, trainer):
            pass

    trainer = fit(network, SGD(5.0), epochs=30, callbacks=[Keep(), stopping])
    assert 1 <= stopping.best_epoch < trainer.epoch == len(kept)
    np.testing.assert_array_equal(network.parameters, kept[stopping.best_epoch - 1])
    assert (kept[stopping.best_epoch - 1] != kept[-1]).any()


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda n: pickle.loads(pickle.dumps(n))])
def test_a_copy_has_its_own_statistics_and_continues_to_the_same_bits(copied):
    made = network_with_batch_norm()
    fit(made)
    twin = copied(made)
    assert not np.shares_memory(twin.layers[0].running_mean, made.layers[0].running_mean)
    np.testing.assert_array_equal(twin.outputs(X), made.outputs(X))
    fit(made)
    assert (statistics(twin) != statistics(made)).any()
    fit(twin)
    np.testing.assert_array_equal(twin.parameters, made.parameters)


def test_it_learns_from_inputs_that_are_not_centred(digits):
    x, y, x_test, y_test = digits
    network = Network([BatchNorm(64), Dense(64, 32), BatchNorm(32), ReLU(), Dense(32, 10)], loss="cross_entropy", rng=0)
    Trainer(network, SGD(0.1), batch_size=50, rng=0).fit(x, y, epochs=5)
    assert network.evaluate(x_test, y_test).accuracy > 0.95


# ---- Buffers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "n"), [(64, 40), (3, 4)])
def test_outputs_have_the_memory_order_of_other_buffers(batch, n):
    layer = allocated(BatchNorm(n), batch, n, np.float32)
    x, like = np.ones((batch, n), np.float32), layer_buffer(batch, n, np.float32)
    for y in (layer.forward(x), layer.backward(x), layer.infer(x)):
        assert y.flags.c_contiguous == like.flags.c_contiguous


# ---- Folding ---------------------------------------------------------------------------------------------------------

PIXELS = RNG.random((12, 6))  # the networks below read images
NETWORKS = {
    "after": ([Dense(6, 5), BatchNorm(5), ReLU(), Dense(5, 4)], [Dense, ReLU, Dense]),
    "before": ([Dense(6, 5), Tanh(), BatchNorm(5), Dense(5, 4)], [Dense, Tanh, Dense]),
    "between": ([Dense(6, 5), BatchNorm(5), Dense(5, 4)], [Dense, Dense]),
    "inputs": ([BatchNorm(6), Dense(6, 4)], [Dense]),
    "outputs": ([Dense(6, 4), BatchNorm(4)], [Dense]),
    "dropout": ([Dense(6, 5), Tanh(), BatchNorm(5), Dropout(), Dense(5, 4)], [Dense, Tanh, Dropout, Dense]),
    "dropout-before": ([Dense(6, 5), Dropout(), BatchNorm(5), Tanh(), Dense(5, 4)], [Dense, Dropout, Tanh, Dense]),
    "identity": ([Dropout(), BatchNorm(6), Identity(), Dropout(), Dense(6, 4)], [Dropout, Identity, Dropout, Dense]),
    "two": ([BatchNorm(6), BatchNorm(6), Dense(6, 4), BatchNorm(4), BatchNorm(4)], [Dense]),
    "stays": ([Dense(6, 4), Tanh(), BatchNorm(4), ReLU()], [Dense, Tanh, BatchNorm, ReLU]),
    "stays-alone": ([Tanh(), BatchNorm(6), Tanh(), Dense(6, 4)], [Tanh, BatchNorm, Tanh, Dense]),
    "without": ([Dense(6, 5), Tanh(), Dropout(), Dense(5, 4)], [Dense, Tanh, Dropout, Dense]),
}


def of(layers, dtype=np.float64):
    """A network of these layers with random parameters."""
    network = Network(copy.deepcopy(layers), loss="cross_entropy", rng=0, dtype=dtype)
    network.parameters[...] = RNG.uniform(-1, 1, network.parameters.size)
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.running_var[...] = RNG.uniform(0.1, 3, layer.n_in)
    network.classes, network.image_shape = ("a", "b", "c", "d"), (2, 3)
    return network


@pytest.mark.parametrize(
    ("layers", "kinds", "dtype"),
    [
        *((*network, np.float64) for network in NETWORKS.values()),
        (*next(iter(NETWORKS.values())), np.float32),
    ],
    ids=[*NETWORKS, "float32"],
)
def test_folding_changes_no_prediction(layers, kinds, dtype):
    network = of(layers, dtype)
    z, theta = network.outputs(PIXELS), network.parameters.copy()
    folded = fold_batchnorm(network)
    assert [type(layer) for layer in folded.layers] == kinds
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-11}
    np.testing.assert_allclose(folded.outputs(PIXELS), z, **close)
    assert folded.dtype == folded.parameters.dtype == folded.outputs(PIXELS).dtype == dtype
    assert (folded.classes, folded.image_shape, folded.n_in) == (network.classes, (2, 3), network.n_in)
    assert (repr(folded.loss), folded.loss is network.loss) == (repr(network.loss), False)
    np.testing.assert_array_equal(network.parameters, theta)  # the original is unchanged
    np.testing.assert_array_equal(network.outputs(PIXELS), z)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_is_complete(name):
    """Its parameters are views of one vector, and its gradient is correct."""
    folded = fold_batchnorm(of(NETWORKS[name][0]))
    np.testing.assert_array_equal(copy.deepcopy(folded).outputs(PIXELS), folded.outputs(PIXELS))
    if not any(isinstance(layer, BatchNorm) for layer in folded.layers):
        check_gradient(folded, PIXELS, Y)
    for vector, prefix in ((folded.parameters, ""), (folded.gradient, "d")):
        vector[...] = np.arange(vector.size)
        parts = [getattr(layer, prefix + p).ravel() for layer in folded.layers for p in layer.parameter_shapes]
        np.testing.assert_array_equal(np.concatenate(parts), vector)


def test_a_trained_network_is_folded():
    network = network_with_batch_norm()
    fit(network, epochs=20)
    folded = fold_batchnorm(network)
    assert [type(layer) for layer in folded.layers] == [Dense, Tanh, Dropout, Dense]
    np.testing.assert_allclose(folded.outputs(X), network.outputs(X), rtol=1e-4, atol=1e-4)
    assert repr(fold_batchnorm(folded)) == repr(folded)


def test_custom_subclasses_are_not_folded():
    """They may compute something else."""

    class Doubling(BatchNorm):
        def infer(self, x):
            return 2 * super().infer(x)

    class Halving(Dropout):
        def infer(self, x):
            return x / 2

    for layers in ([Dense(6, 4), Doubling(4)], [BatchNorm(6), Halving(), Dense(6, 4)]):
        network = of(layers)
        folded = fold_batchnorm(network)
        assert len(folded.layers) == len(layers)
        np.testing.assert_array_equal(folded.outputs(PIXELS), network.outputs(PIXELS))


# ---- Files and checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_file_has_the_names_of_pytorch_and_is_read_back(dtype, tmp_path):
    network, path = network_with_batch_norm(dtype), tmp_path / "m.safetensors"
    fit(network)
    save(network, path)
    arrays = safetensors.numpy.load_file(path)
    assert {name: (a.shape, a.dtype) for name, a in arrays.items() if name.startswith("2.")} == {
        **{f"2.{name}": ((8,), dtype) for name in ("weight", "bias", "running_mean", "running_var")},
        "2.num_batches_tracked": ((), np.int64),
    }
    assert {name.partition(".")[0] for name in arrays} == {"0", "1", "2", "5", "6"}
    layer = network.layers[2]
    for name, p in {"weight": layer.g, "bias": layer.b, "running_var": layer.running_var}.items():
        np.testing.assert_array_equal(arrays[f"2.{name}"], p)
    again = load(path)
    assert (repr(again), again.dtype) == (repr(network), dtype)
    np.testing.assert_array_equal(again.parameters, network.parameters)
    np.testing.assert_array_equal(again.outputs(X), network.outputs(X))


@pytest.mark.parametrize("lacking", ["0.running_mean", "2.weight", "2.num_batches_tracked"])
def test_a_model_file_without_a_statistic_is_rejected(lacking, tmp_path, rejects):
    path = tmp_path / "m.safetensors"
    save(network_with_batch_norm(), path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    arrays = safetensors.numpy.load_file(path)
    del arrays[lacking]
    path.write_bytes(safetensors.numpy.save(arrays, metadata))
    with rejects("damaged"):
        load(path)


@pytest.mark.parametrize("make", [SGD, Adam])
def test_a_resumed_training_gives_the_same_bits(make, tmp_path):
    whole, path = network_with_batch_norm(), tmp_path / "c.safetensors"
    fit(whole, make(0.05), epochs=4)
    fit(network_with_batch_norm(), make(0.05), epochs=2, callbacks=[Checkpoint(path)])
    network = network_with_batch_norm(rng=9)
    trainer = Trainer(network, make(0.05), batch_size=5, rng=7, callbacks=[Checkpoint(path)])
    resume(trainer, path)
    trainer.fit(X, Y, until_epoch=4)
    np.testing.assert_array_equal(network.parameters, whole.parameters)


# ---- Arguments -------------------------------------------------------------------------------------------------------


def test_repr_and_config_recreate_the_layer():
    layer = BatchNorm(8, 0.25, 1e-3)
    assert repr(layer) == "BatchNorm(n=8, momentum=0.25, epsilon=0.001)"
    assert repr(BatchNorm(**layer.config())) == repr(layer)
    assert (layer.n_in, layer.width(8)) == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(((n,), "BatchNorm: n must be an integer >= 1") for n in (0, 2.0)),
        *(((3, momentum), r"BatchNorm: momentum must be in \(0, 1\]") for momentum in (0, 1.1)),
        *(((3, 0.1, epsilon), "BatchNorm: epsilon must be a finite number > 0") for epsilon in (0, math.nan)),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message, rejects):
    with rejects(message):
        BatchNorm(*arguments)


def test_batch_norm_alone_is_a_network():
    assert Network([BatchNorm(4)], rng=0).parameters.size == 16
