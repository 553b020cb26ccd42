"""Profiler: the parts of a step and their order, hand-computed floors, times on a simulated clock."""

import types

import numpy as np
import pytest

from handgrad import HOG, SGD, Adam, Dense, Dropout, Identity, Ladder, Layer, Momentum, Nesterov, Network, ReLU, Trainer
from handgrad.diagnostics import profiler as module
from handgrad.diagnostics.profiler import profile


@pytest.fixture(autouse=True)
def _small_product(monkeypatch):
    monkeypatch.setattr(module, "PEAK_ROWS", 64)


def names(profile):
    return [part.name for part in profile.parts]


# ---- The parts -------------------------------------------------------------------------------------------------------


def test_parts_are_all_layers_forward_and_backward_in_order():
    assert names(profile(Network([784, 30, 10], rng=0), SGD(0.5), 10, seconds=0)) == [
        *("0 Dense forward", "1 Sigmoid forward", "2 Dense forward"),
        *("BinaryCrossEntropy backward", "2 Dense backward", "1 Sigmoid backward", "0 Dense backward"),
        "SGD update",
    ]


def test_backward_ends_at_the_first_layer_with_parameters():
    chain = [Dropout(0.2), ReLU(), Dense(8, 6), Dropout(0.5), Dense(6, 3)]
    measured = profile(Network(chain, rng=0), Adam(), 4, seconds=0)
    assert names(measured) == [
        *("0 Dropout forward", "1 ReLU forward", "2 Dense forward", "3 Dropout forward", "4 Dense forward"),
        *("BinaryCrossEntropy backward", "4 Dense backward", "3 Dropout backward", "2 Dense backward"),
        "Adam update",
    ]
    for part in measured.parts:
        assert part.seconds >= 0
        assert 0 < part.floor < 1


def test_total_is_the_sum_of_the_parts():
    measured = profile(Network([9, 5, 4], rng=0), Momentum(0.1), 3, seconds=0)
    for field in ("seconds", "floor", "flops", "bytes"):
        assert getattr(measured.total, field) == pytest.approx(sum(getattr(part, field) for part in measured.parts))
    assert measured.step > 0
    assert measured.peak > 0
    assert measured.batch_size == 3


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 4), (np.float64, 8)])
def test_flops_and_bytes_equal_hand_computed_values(dtype, size):
    measured = profile(Network([784, 30, 10], rng=0, dtype=dtype), SGD(0.5), 10, seconds=0)
    W1, W2 = 784 * 30, 30 * 10
    assert [part.flops for part in measured.parts] == [20 * W1, 0, 20 * W2, 0, 40 * W2, 0, 20 * W1, 0]
    theta1, theta2 = W1 + 30, W2 + 10
    assert [part.bytes / size for part in measured.parts] == [
        7840 + theta1 + 300,  # x, θ -> z
        300 + 300,
        300 + theta2 + 100,
        3 * 100,  # z, t -> dz
        100 + 300 + 300 + 2 * theta2,  # dz, x, W -> dx, dW
        3 * 300,  # da, a -> dz
        300 + 7840 + theta1,  # dz, x -> dW
        3 * (theta1 + theta2),  # θ, g -> θ
    ]


@pytest.mark.parametrize(("optimizer", "vectors"), [(SGD, 3), (Momentum, 5), (Nesterov, 5), (Adam, 7)])
def test_an_update_reads_and_writes_the_state_of_the_optimizer(optimizer, vectors):
    network = Network([6, 4, 3], rng=0)
    update = profile(network, optimizer(0.1), 2, seconds=0).parts[-1]
    assert update.bytes == 4 * vectors * network.parameters.size


def test_a_floor_is_the_larger_of_flops_and_bytes(monkeypatch):
    monkeypatch.setattr(module, "_peak", lambda dtype: 1000.0)
    monkeypatch.setattr(module, "_bandwidth", lambda size, dtype: 100.0)
    forward, *_, update = profile(Network([6, 4], rng=0), SGD(0.1), 5, seconds=0).parts
    assert forward.floor == max(2 * 5 * 6 * 4 / 1000, 4 * (30 + 28 + 20) / 100)
    assert update.floor == 4 * 3 * 28 / 100
    monkeypatch.setattr(module, "_peak", lambda dtype: 10.0)
    assert profile(Network([6, 4], rng=0), SGD(0.1), 5, seconds=0).parts[0].floor == 24.0


def test_the_products_of_hog_are_counted():
    layers = [HOG(5, 6, cells=2), Dense(32, 3)]
    forward, *_ = profile(Network(layers, rng=0), SGD(0.1), 7, seconds=0).parts
    along_x, along_y = 5 * 6 * 2, 5 * 2 * 2
    assert (forward.name, forward.flops) == ("0 HOG forward", 2 * 7 * 8 * (along_x + along_y))
    layers = [HOG(5, 6, cells=2, channels=3), Dense(96, 3)]
    assert profile(Network(layers, rng=0), SGD(0.1), 7, seconds=0).parts[0].flops == 3 * forward.flops


def test_identity_has_a_floor_of_0():
    chain = [Dense(6, 4), Identity(), Dense(4, 3)]
    parts = {part.name: part for part in profile(Network(chain, rng=0), SGD(0.1), 5, seconds=0).parts}
    assert [parts[f"1 Identity {way}"].floor for way in ("forward", "backward")] == [0, 0]


# ---- Times on a simulated clock --------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    @classmethod
    def perf_counter(cls):
        return cls.now


class Slow(Layer):
    """y = s x. Forward takes 3 s, backward 5 s."""

    def __init__(self, n):
        self.n_in = n
        self.parameter_shapes = {"s": (n,)}

    def forward(self, x):
        Clock.now += 3
        self.x = x
        return x * self.s

    def backward(self, dy):
        Clock.now += 5
        self.ds[...] = (dy * self.x).sum(axis=0)
        return dy * self.s


class SlowSGD(SGD):
    """An update takes 7 s. The step takes 2 s more, which belong to no part."""

    def train_step(self, network, x, t, lr, weight=None):
        Clock.now += 2
        return super().train_step(network, x, t, lr, weight)

    def update(self, theta, g, state, scratch, lr):
        Clock.now += 7
        super().update(theta, g, state, scratch, lr)


def test_each_part_has_its_own_time(monkeypatch):
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=Clock.perf_counter))
    measured = profile(Network([Slow(4), Dense(4, 4), Slow(4)], rng=0), SlowSGD(0.1), 3, seconds=100)
    assert {part.name: part.seconds for part in measured.parts if part.seconds} == {
        "0 Slow forward": 3,
        "2 Slow forward": 3,
        "2 Slow backward": 5,
        "0 Slow backward": 5,
        "SlowSGD update": 7,
    }
    assert measured.total.seconds == 23
    assert measured.step == 25


# ---- Copies and batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SGD, Adam])
def test_network_and_optimizer_do_not_change(make, digits):
    x, y, *_ = digits
    network, optimizer = Network([Dense(64, 12), Dropout(0.5), Dense(12, 10)], rng=0), make(0.01)
    Trainer(network, optimizer, batch_size=20, rng=0).fit(x, y, epochs=1)

    def snapshot():
        arrays = [network.parameters, network.gradient, network.layers[0].z, optimizer.state]
        dropout = network.layers[1].rng.bit_generator.state
        return [array.tobytes() for array in arrays], optimizer.steps, dropout, [*map(vars, network.layers)]

    before = repr(snapshot())
    profile(network, optimizer, 7, seconds=0)
    assert repr(snapshot()) == before


class Spy(SGD):
    """Records its batches."""

    seen: list = []  # noqa: RUF012 (shared, because the optimizer is copied)

    def train_step(self, network, x, t, lr, weight=None):
        self.seen.append((x, t))
        return super().train_step(network, x, t, lr, weight)


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 100), (10, 51), (128, 3), (600, 1)])
def test_batches_are_in_memory_as_in_training(batch_size, batches):
    Spy.seen = []
    profile(Network([784, 3, 2], rng=0), Spy(0.1), batch_size, seconds=0)
    assert len(Spy.seen) == 3 * batches  # one turn each for warm-up, with timers, without timers
    for x, t in Spy.seen:
        assert (x.shape, t.shape, x.dtype, t.dtype) == ((batch_size, 784), (batch_size, 2), np.float32, np.float32)
        assert x.base is not None
    assert len({x.ctypes.data for x, _ in Spy.seen}) == batches
    assert all(np.array_equal(t.sum(axis=1), np.ones(batch_size)) for _, t in Spy.seen)


# ---- Invalid input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [0, 2.5])
def test_profile_rejects_an_invalid_batch_size(batch_size, rejects):
    with rejects("batch_size must be an integer >= 1"):
        profile(Network([4, 3], rng=0), SGD(0.1), batch_size)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_profile_rejects_an_invalid_duration(seconds, rejects):
    with rejects("seconds must be a finite number >= 0"):
        profile(Network([4, 3], rng=0), SGD(0.1), 2, seconds=seconds)


def test_a_batch_larger_than_memory_raises_memory_error():
    with pytest.raises(MemoryError, match="a batch of"):
        profile(Network([4, 3], rng=0), SGD(0.1), 10**18)


def test_the_backward_pass_of_a_ladder_network_includes_the_decoder():
    layer = Ladder([6, 5, 4])
    forward, _, backward, _ = profile(Network([layer], loss="cross_entropy", rng=0), SGD(0.1), 10, seconds=0).parts
    first, second = 2 * 10 * 6 * 5, 2 * 10 * 5 * 4
    assert (forward.flops, backward.flops) == (first + second, 4 * first + 5 * second)
    layers = [Dense(7, 6), Ladder([6, 5, 4])]
    parts = profile(Network(layers, loss="cross_entropy", rng=0), SGD(0.1), 10, seconds=0).parts
    assert parts[3].flops == 5 * (first + second)
