"""Losses for numbers: worked by hand, checked, planted wrong, and held to what is known of their smallest value."""

import math

import numpy as np
import pytest

from handgrad import (
    SGD,
    AbsoluteError,
    Adam,
    Ensemble,
    Deskew,
    EarlyStopping,
    Huber,
    LogCosh,
    Network,
    Poisson,
    SquaredError,
    Trainer,
    check_gradient,
    load,
    save,
)
from handgrad.diagnostics.profiler import profile
from handgrad.gradcheck import GradientError
from handgrad.losses import LOSSES, REGRESSION

LN2, LN3 = math.log(2), math.log(3)
every_loss = pytest.mark.parametrize("name", REGRESSION)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def backward(loss, z, t):
    loss.allocate(*z.shape, z.dtype)
    return loss.backward(z, t, 1 / len(z)).copy()


def batch(count, n_out=3, dtype=np.float64):
    """Outputs, and counts, which every loss takes for targets."""
    rng = np.random.default_rng([count, n_out])
    return rng.standard_normal((count, n_out)).astype(dtype), rng.poisson(2, (count, n_out)).astype(dtype)


# ---- By hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "z", "t", "value", "dz"),
    [
        # ½ (2² + 1²) = 2.5; the mean of that and of ½ (1² + 3²) = 5
        (SquaredError(), [[3, 1], [1, 3]], [[1, 0], [0, 0]], 3.75, [[1, 0.5], [0.5, 1.5]]),
        (AbsoluteError(), [[3, -1], [2, 0]], [[1, 0], [2, 0.5]], 1.75, [[0.5, -0.5], [0, -0.5]]),  # (2 + 1 + 0 + ½) / 2
        (Huber(), [[0.5, -3]], [[0, 0]], 0.125 + 2.5, [[0.5, -1]]),  # ½ ½² and 3 - ½
        (Huber(2), [[0.5, -3]], [[0, 0]], 0.125 + 4, [[0.5, -2]]),  # ½ ½² and 2 (3 - 1)
        (Huber(0.5), [[0.5, -3]], [[0, 0]], 0.125 + 1.375, [[0.5, -0.5]]),  # at δ both are ½ δ²; ½ (3 - ¼)
        # cosh ln 3 = (3 + 1/3) / 2 = 5/3, cosh ln 2 = 5/4; tanh ln 3 = (3 - 1/3) / (3 + 1/3) = 4/5, tanh ln 2 = 3/5
        (LogCosh(), [[LN3, 1]], [[0, 1 + LN2]], math.log(25 / 12), [[0.8, -0.6]]),
        # μ = 2, t = 1: ln ½ - 1 + 2; μ = 3, t = 0: 3; μ = t: 0
        (Poisson(), [[LN2, LN3, LN2]], [[1, 0, 2]], 1 - LN2 + 3, [[1, 3, 0]]),
    ],
    ids=repr,
)
def test_value_and_derivative_worked_by_hand(loss, z, t, value, dz):
    z, t = np.array(z, float), np.array(t, float)
    z_before, t_before = z.copy(), t.copy()
    assert loss.value(z, t) == pytest.approx(value, rel=1e-14)
    assert loss.per_example(z, t).mean() == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(backward(loss, z, t), dz, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(z, z_before)
    np.testing.assert_array_equal(t, t_before)


@every_loss
@both_dtypes
def test_the_loss_of_each_example_is_that_of_it_alone_in_its_dtype(name, dtype):
    loss = REGRESSION[name]()
    z, t = batch(7, dtype=dtype)
    each = loss.per_example(z, t)
    assert (each.shape, each.dtype, type(loss.value(z, t))) == ((7,), dtype, float)
    alone = [loss.value(z[i : i + 1], t[i : i + 1]) for i in range(7)]
    np.testing.assert_allclose(each, alone, rtol=4 * float(np.finfo(dtype).eps))
    assert loss.value(z, t) == pytest.approx(np.mean(alone), rel=8 * float(np.finfo(dtype).eps))
    assert backward(loss, z, t).dtype == dtype


@every_loss
def test_a_perfect_answer_costs_nothing_and_has_no_slope(name):
    loss, (_, t) = REGRESSION[name](), batch(9)
    t += 1  # of a count of 0 Poisson's answer, ln 0, is nowhere
    z = loss.outputs(t)
    assert loss.value(z, t) == pytest.approx(0, abs=1e-14)
    np.testing.assert_allclose(backward(loss, z, t), 0, atol=1e-14)
    for off in (-0.3, 0.3):
        assert loss.value(z + off, t) > 0.01


@both_dtypes
@pytest.mark.parametrize("e", [1e-6, 1e-3, 0.1, 1, 10])
def test_log_cosh_is_good_to_what_its_error_is_good_to(e, dtype):
    z, t = np.array([[e]], dtype), np.zeros((1, 1), dtype)
    expected = math.log1p(2 * math.sinh(float(z[0, 0]) / 2) ** 2)  # cosh e = 1 + 2 sinh² e/2
    assert LogCosh().value(z, t) == pytest.approx(expected, rel=4 * float(np.finfo(dtype).eps) / min(e, 1))


# ---- Checked, and planted wrong --------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("count", [1, 7])
def test_the_derivative_passes_the_check_alone_and_in_a_network(name, count):
    z, t = batch(count)
    check_gradient(REGRESSION[name](), z, t)
    network = Network([5, 4, 3], activation="tanh", loss=name, rng=0)
    check_gradient(network, np.random.default_rng(count).standard_normal((count, 5)), t)


@pytest.mark.parametrize("delta", [0.5, 1, 3])
def test_huber_passes_on_both_of_its_branches(delta):
    z, t = batch(7)
    near = np.abs(z - t) < delta
    assert 0 < near.sum() < near.size
    check_gradient(Huber(delta), z, t)


def planted(base, how):
    class Planted(base):
        def backward(self, z, t, weight):
            return how(super().backward(z, t, weight).copy(), z, t, weight)

    return Planted()


@pytest.mark.parametrize(
    "how",
    [
        lambda dz, z, t, weight: 1.001 * dz,
        lambda dz, z, t, weight: -dz,
        lambda dz, z, t, weight: dz / weight,
        lambda dz, z, t, weight: dz[:, ::-1],
        lambda dz, z, t, weight: dz / dz.shape[1],  # the mean over the outputs too
    ],
    ids=["0.1 % off", "sign", "no mean", "columns", "a mean too many"],
)
@every_loss
def test_a_wrong_derivative_is_caught(name, how):
    with pytest.raises(GradientError, match="Planted dz"):
        check_gradient(planted(REGRESSION[name], how), *batch(7))


@pytest.mark.parametrize(
    ("base", "how"),
    [
        (SquaredError, lambda dz, z, t, weight: 2 * dz),  # of e², not ½ e²
        (AbsoluteError, lambda dz, z, t, weight: (z - t) * weight),
        (Huber, lambda dz, z, t, weight: (z - t) * weight),  # never clipped
        (Huber, lambda dz, z, t, weight: np.sign(z - t) * weight),
        (LogCosh, lambda dz, z, t, weight: np.sinh(z - t) * weight),
        (Poisson, lambda dz, z, t, weight: (z - t) * weight),  # the answer taken for z
        (Poisson, lambda dz, z, t, weight: (1 - t / np.exp(z)) * weight),  # by μ, not by z
    ],
)
def test_another_losss_derivative_is_caught(base, how):
    with pytest.raises(GradientError, match="Planted dz"):
        check_gradient(planted(base, how), *batch(7))


# ---- The ends of the scale -------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize(
    ("loss", "value", "dz"),
    [
        (SquaredError(), [0.5e8, 0, 0.5e8], [1e4, 0, -1e4]),
        (AbsoluteError(), [1e4, 0, 1e4], [1, 0, -1]),
        (Huber(0.5), [5e3 - 0.125, 0, 5e3 - 0.125], [0.5, 0, -0.5]),
        (LogCosh(), [1e4 - LN2, 0, 1e4 - LN2], [1, 0, -1]),
        (Poisson(), [math.inf, 1, 0], [math.inf, 1, 0]),  # against a count of 0: μ
    ],
    ids=repr,
)
def test_answers_ten_thousand_off_are_exact_and_warn_of_nothing(loss, value, dz, dtype):
    z, t = np.array([[1e4], [0], [-1e4]], dtype), np.zeros((3, 1), dtype)
    np.testing.assert_allclose(loss.per_example(z, t), value, rtol=1e-6)
    np.testing.assert_allclose(backward(loss, z, t) * 3, np.array(dz)[:, None], rtol=1e-6)
    np.testing.assert_array_equal(np.isfinite(loss.activation(z)), np.isfinite(np.array(value))[:, None])


@both_dtypes
def test_poisson_of_an_answer_that_is_all_but_0_is_finite(dtype):
    z, t = np.array([[-1e4]], dtype), np.array([[3]], dtype)
    assert Poisson().value(z, t) == pytest.approx(3e4 + 3 * LN3 - 3, rel=1e-6)
    np.testing.assert_array_equal(backward(Poisson(), z, t), [[-3]])


# ---- What costs least ------------------------------------------------------------------------------------------------

SAMPLE = np.array([0, 1, 1, 2, 3, 5, 40.0])  # its mean is 52/7, its median 2


@pytest.mark.parametrize(
    ("loss", "best"),
    [
        (SquaredError(), 52 / 7),
        (AbsoluteError(), 2),
        (Huber(1e9), 52 / 7),  # all of them near
        (Huber(1e-9), 2),  # none
        # near are 1, 1, 2, 3 of them; 0 pulls down with δ, 5 and 40 up with it: (1 + 1 + 2 + 3 + δ) / 4
        (Huber(1.5), (7 + 1.5) / 4),
        (Poisson(), math.log(52 / 7)),
    ],
    ids=repr,
)
def test_the_answer_that_costs_least(loss, best):
    """Of one answer to all of the sample, on a grid, and by its derivative."""
    t = SAMPLE[:, None]
    costs = {z: loss.value(np.full_like(t, z), t) for z in (best + step for step in np.linspace(-1, 1, 2001))}
    assert min(costs, key=costs.get) == pytest.approx(best, abs=0.0011)
    assert backward(loss, np.full_like(t, best), t).sum() == pytest.approx(0, abs=1e-9 * len(t))


def test_hubers_answer_lies_between_the_median_and_the_mean():
    t, grid = SAMPLE[:, None], np.linspace(0, 10, 1001)
    best = [
        grid[np.argmin([Huber(delta).value(np.full_like(t, z), t) for z in grid])] for delta in (0.01, 1.5, 5, 20, 100)
    ]
    assert best == sorted(best)
    assert best[0] == pytest.approx(2, abs=0.02)
    assert best[-1] == pytest.approx(52 / 7, abs=0.01)
    assert 2 < best[1] < best[2] < best[3] < 52 / 7


@pytest.mark.parametrize(("name", "expected"), [("squared_error", 52 / 7), ("poisson", 52 / 7), ("absolute_error", 2)])
def test_a_bias_alone_learns_the_answer_that_costs_least(name, expected):
    """Of Poisson too, whose answer is e^z, the mean."""
    network = Network([1, 1], loss=name, init="zeros", rng=0, dtype=np.float64)
    Trainer(network, SGD(0.05), batch_size=7, rng=0).fit(np.zeros((7, 1)), SAMPLE, epochs=1000)
    assert network.predict(np.zeros((1, 1))) == pytest.approx(expected, abs=0.06)


# ---- Answers ---------------------------------------------------------------------------------------------------------


@every_loss
@both_dtypes
def test_answers_are_numbers_in_arrays_of_their_own_and_read_back(name, dtype):
    loss, (z, _) = REGRESSION[name](), batch(9, dtype=dtype)
    answers = loss.activation(z)
    np.testing.assert_allclose(answers, np.exp(z) if name == "poisson" else z, rtol=1e-6)
    back = loss.outputs(answers)
    np.testing.assert_allclose(back, z, rtol=1e-6, atol=1e-6)
    assert answers.dtype == back.dtype == dtype
    assert not np.shares_memory(answers, z)
    assert not np.shares_memory(back, answers)


@every_loss
@pytest.mark.parametrize("n_out", [1, 3])
def test_a_network_predicts_numbers_and_has_no_classes_to_confuse(name, n_out, refused):
    network, x = Network([4, n_out], loss=name, rng=0), np.random.default_rng(0).random((6, 4))
    np.testing.assert_array_equal(network.predict(x), network.predict_proba(x))
    assert network.predict(x).shape == (6, n_out)
    np.testing.assert_array_equal(network.soft_labels(x, 4), network.predict(x))
    t = np.ones((6, n_out))
    assert network.evaluate(x, t) == (network.loss.value(network.outputs(x), t.astype(np.float32)), 0, 6)
    assert (network.n_classes, len(network.classes)) == (n_out, n_out)
    for ask in (network.loss.labels, lambda z: network.confusion_matrix(x, np.ones(6, int))):
        with refused("a loss for numbers: its answers are no classes"):
            ask(network.outputs(x))


@pytest.mark.parametrize("name", ["squared_error", "poisson"])
def test_a_committee_answers_by_the_mean_of_the_numbers(name):
    members = [Network([4, 5, 2], loss=name, rng=seed) for seed in range(3)]
    x, t = np.random.default_rng(0).random((6, 4)), np.ones((6, 2))
    mean = np.mean([member.predict(x) for member in members], axis=0)
    np.testing.assert_allclose(Ensemble(members).predict(x), mean, rtol=1e-6)
    z = members[0].loss.outputs(mean)
    assert Ensemble(members).evaluate(x, t).loss == pytest.approx(members[0].loss.value(z, t), rel=1e-5)


# ---- Targets ---------------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize(
    ("y", "count", "n_out", "rows"),
    [
        ([1, 2, 3], 3, 1, [[1], [2], [3]]),
        (np.array([1, 0, 1], bool), 3, 1, [[1], [0], [1]]),
        ([[0.5], [2]], 2, 1, [[0.5], [2]]),
        (np.array([[1, 2], [3, 4]], np.uint8), 2, 2, [[1, 2], [3, 4]]),
        ([0.25], 1, 1, [[0.25]]),
    ],
)
def test_numbers_and_rows_of_them_are_targets(name, y, count, n_out, rows):
    t = REGRESSION[name]().targets(y, count, n_out, np.float32)
    np.testing.assert_array_equal(t, rows)
    assert t.dtype == np.float32
    assert not np.shares_memory(t, np.asarray(y))


@every_loss
def test_targets_of_the_right_dtype_are_a_copy_all_the_same(name):
    y = np.ones((3, 2), np.float32)
    assert not np.shares_memory(REGRESSION[name]().targets(y, 3, 2, np.float32), y)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([1, 2, 3], r"shape \(3,\): expected \(3, 2\) numbers"),
        ([[1, 2]], r"shape \(1, 2\): expected \(3, 2\)"),
        (np.ones((3, 3)), r"shape \(3, 3\)"),
        (np.ones((3, 2, 1)), r"shape \(3, 2, 1\)"),
        (5, r"shape \(\)"),
        ([["a", "b"]] * 3, "holds <U1"),
        (np.ones((3, 2), complex), "holds complex128"),
        ([[1, 2], [3], [4, 5]], "different lengths"),
        ([[1, 2], [3, 4], [5, math.nan]], "not a finite float32"),
        ([[1, 2], [3, 4], [5, -math.inf]], "not a finite float32"),
        ([[1, 2], [3, 4], [5, 1e39]], "not a finite float32"),
    ],
    ids=str,
)
def test_targets_that_are_none_are_refused(y, says, refused):
    with refused(says):
        Huber().targets(y, 3, 2, np.float32)


def test_poisson_refuses_what_is_less_than_nothing(refused):
    with refused("y holds -2: expected counts, 0 or more"):
        Poisson().targets([3, -2, 0], 3, 1, np.float32)
    with refused("y holds -1"):
        Trainer(Network([2, 1], loss="poisson", rng=0), SGD(0.1)).fit(np.ones((10, 2)), -np.ones(10), epochs=1)


@pytest.mark.parametrize("delta", [0, -1, math.nan, math.inf])
def test_a_delta_that_is_none_is_refused(delta, refused):
    with refused("delta .* above 0"):
        Huber(delta)


def test_a_word_is_enough_and_an_unknown_one_is_refused(refused):
    assert isinstance(Network([2, 1], loss="log_cosh", rng=0).loss, LogCosh)
    with refused("'hubert'.*huber"):
        Network([2, 1], loss="hubert", rng=0)
    assert set(REGRESSION) < set(LOSSES)


def test_repr_tells_what_makes_it_again():
    assert repr(Huber(0.5)) == "Huber(delta=0.5)"
    assert repr(SquaredError()) == "SquaredError()"


# ---- Training --------------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("n_out", [1, 2])
def test_training_lowers_the_loss_and_speaks_of_no_accuracy(name, n_out):
    rng = np.random.default_rng(0)
    x = rng.random((200, 3))
    t = np.round(4 * x[:, :n_out] + 3 * x[:, 1:2])
    network = Network([3, 16, n_out], activation="tanh", loss=name, rng=0)
    held_out = x[150:], t[150:]
    trainer = Trainer(network, Adam(0.02), batch_size=16, callbacks=[EarlyStopping(patience=30)], rng=0)
    history = trainer.fit(x[:150], t[:150], epochs=30, validation=held_out)
    assert set(history) == {"loss", "val_loss", "lr", "seconds"}
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert network.evaluate(*held_out).loss == pytest.approx(min(history["val_loss"]), rel=1e-6)


def test_labels_are_numbers_as_any_other():
    """With one output y (count,) is the same as y (count, 1)."""
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 4
    networks = [Network([3, 1], loss="squared_error", rng=0) for _ in range(2)]
    for network, same in zip(networks, (y, y[:, None].astype(float)), strict=True):
        Trainer(network, SGD(0.1), rng=0).fit(x, same, epochs=2)
    np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)


def test_an_accuracy_cannot_be_watched(refused):
    network = Network([3, 1], loss="huber", rng=0)
    with refused("'val_accuracy', and the history has loss, lr, val_loss"):
        x, y = np.ones((10, 3)), np.ones(10)
        trainer = Trainer(network, SGD(0.1), callbacks=[EarlyStopping("val_accuracy")])
        trainer.fit(x, y, epochs=1, validation=(x, y))


def test_poisson_that_overflows_diverges_in_one_line(refused):
    with refused("diverged"):
        network = Network([1, 1], loss="poisson", rng=0)
        Trainer(network, SGD(100.0), batch_size=5).fit(np.ones((5, 1)), np.full(5, 50), epochs=20)


@pytest.mark.parametrize("name", [*REGRESSION, "quadratic"])
def test_a_step_can_be_profiled(name):
    measured = profile(Network([4, 5, 2], loss=name, rng=0), SGD(0.1), 4, seconds=0)
    assert any(type(Network([1, 1], loss=name).loss).__name__ in part.name for part in measured.parts)


# ---- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [Huber(0.5), *(make() for make in REGRESSION.values())], ids=repr)
def test_a_file_keeps_the_loss_and_what_it_was_made_with(loss, tmp_path):
    network = Network([4, 5, 2], loss=loss, rng=0, preprocessing=Deskew(2, 2))
    network.classes = ("height", "width")
    save(network, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert type(again.loss) is type(loss)
    assert (repr(again.loss), again.loss.config(), again.classes) == (repr(loss), loss.config(), network.classes)
    x, t = np.random.default_rng(0).random((5, 4)), np.ones((5, 2))
    np.testing.assert_array_equal(again.predict(x), network.predict(x))
    assert again.evaluate(x, t) == network.evaluate(x, t)


def test_a_file_of_another_delta_answers_by_another_loss(tmp_path):
    losses = []
    for delta in (0.5, 2):
        save(Network([4, 1], loss=Huber(delta), rng=0), tmp_path / "m.safetensors")
        losses.append(load(tmp_path / "m.safetensors").evaluate(np.ones((3, 4)), np.full(3, 50)).loss)
    assert losses[0] < losses[1]


def test_numbers_can_be_taught():
    """A teacher's numbers are its pupil's targets."""
    x = np.random.default_rng(0).random((40, 3))
    teacher, pupil = (Network([3, 2], loss="squared_error", rng=seed) for seed in (0, 1))
    Trainer(pupil, SGD(0.5), batch_size=10, teacher=teacher, rng=0).fit(x, np.zeros((40, 2)), epochs=300)
    np.testing.assert_allclose(pupil.predict(x), teacher.predict(x), atol=1e-3)
