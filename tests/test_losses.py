"""Losses: values worked by hand, naive formulas, extreme values, planted errors, minima, targets."""

import copy
import math
import pickle

import numpy as np
import pytest

from handgrad import (
    SGD,
    AbsoluteError,
    Adam,
    BinaryCrossEntropy,
    CrossEntropy,
    Dense,
    Huber,
    LogCosh,
    Network,
    Poisson,
    SquaredError,
    Trainer,
    check_gradient,
    one_hot,
)
from handgrad.gradcheck import GradientError
from handgrad.layers import sigmoid
from handgrad.losses import LOSSES, make_loss, softmax

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
CLASSIFICATION = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "squared_error_of_sigmoid": lambda smoothing=0.0: SquaredError("sigmoid", smoothing),
}
REGRESSION = {name: make for name, make in LOSSES.items() if name not in CLASSIFICATION}
ALL = CLASSIFICATION | REGRESSION
every_loss = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
every_classification = pytest.mark.parametrize("make", CLASSIFICATION.values(), ids=CLASSIFICATION)
every_regression = pytest.mark.parametrize("make", REGRESSION.values(), ids=REGRESSION)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def naive(loss, z, t):
    """The mean loss as in the definition, in float64."""
    if isinstance(loss, CrossEntropy):
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        return -(t * np.log(p)).sum(axis=1).mean()
    a = 1 / (1 + np.exp(-z))
    if isinstance(loss, BinaryCrossEntropy):
        return -(t * np.log(a) + (1 - t) * np.log(1 - a)).sum(axis=1).mean()
    e = (a if loss.is_classification else z) - t
    terms = {
        SquaredError: e**2 / 2,
        AbsoluteError: np.abs(e),
        Huber: np.where(np.abs(e) <= 1, e**2 / 2, np.abs(e) - 0.5),
        LogCosh: np.log(np.cosh(e)),
        Poisson: t * np.log(np.where(t > 0, t, 1) / np.exp(z)) - t + np.exp(z),
    }
    return terms[type(loss)].sum(axis=1).mean()


def backward(loss, z, t):
    loss.allocate(*z.shape, z.dtype)
    return loss.backward(z, t, 1 / len(z)).copy()


def batch(loss, count, n_out=4, scale=1.0, dtype=np.float64):
    """Logits, and targets that are valid for the loss: labels as rows, or counts."""
    rng = np.random.default_rng([count, n_out])
    z = (scale * rng.standard_normal((count, n_out))).astype(dtype)
    y = rng.integers(0, n_out, count) if loss.is_classification else rng.poisson(2, (count, n_out))
    return z, loss.targets(y, count, n_out, dtype)


# ---- Values worked by hand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "z", "t", "value", "dz"),
    [
        # a = (1/2, 3/4): ½ (¼ + 1/16); da/dz = (1/4, 3/16)
        (SquaredError("sigmoid"), [[0, LN3]], [[1, 1]], 5 / 32, [[-1 / 8, -3 / 64]]),
        # a = (1/2, 3/4): -ln ½ - ln(1 - ¾) = ln 2 + ln 4
        (BinaryCrossEntropy(), [[0, LN3]], [[1, 0]], LN2 + LN4, [[-0.5, 0.75]]),
        # a = (3/4), (1/4): (ln 4/3 + ln 4/3) / 2
        (BinaryCrossEntropy(), [[LN3], [-LN3]], [[1], [0]], LN4 - LN3, [[-0.125], [0.125]]),
        # p = (1/4, 3/4): -ln ¼
        (CrossEntropy(), [[0, LN3]], [[1, 0]], LN4, [[-0.75, 0.75]]),
        # p = (1/2, 1/4, 1/4), t = (½, ½, 0): (ln 2 + ln 4) / 2
        (CrossEntropy(), [[LN2, 0, 0]], [[0.5, 0.5, 0]], 1.5 * LN2, [[0, -0.25, 0.25]]),
        # z / 2 = (0, ln 3): p = (1/4, 3/4), L = 4 ln 4, dz = 2 (p - t)
        (CrossEntropy(temperature=2), [[0, 2 * LN3]], [[1, 0]], 4 * LN4, [[-1.5, 1.5]]),
        # ½ (2² + 1²) = 2.5; its mean with ½ (1² + 3²) = 5
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
    ids=lambda value: repr(value) if not isinstance(value, list | float) else "",
)
def test_value_and_derivative_worked_by_hand(loss, z, t, value, dz):
    z, t = np.array(z, float), np.array(t, float)
    kept = z.copy(), t.copy()
    assert loss.value(z, t) == pytest.approx(value, rel=1e-14)
    assert loss.per_example(z, t).mean() == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(backward(loss, z, t), dz, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal((z, t), kept)


@pytest.mark.parametrize(
    ("loss", "z", "p"),
    [
        (SquaredError("sigmoid"), [[0, LN3]], [[0.5, 0.75]]),
        (BinaryCrossEntropy(), [[0, -LN3]], [[0.5, 0.25]]),
        (CrossEntropy(), [[-LN4, LN3 - LN4]], [[0.25, 0.75]]),
        (Poisson(), [[LN2, LN3]], [[2, 3]]),
        *((make(), [[-0.25, 2]], [[-0.25, 2]]) for name, make in REGRESSION.items() if name != "poisson"),
    ],
    ids=repr,
)
def test_activation_and_its_inverse_worked_by_hand(loss, z, p):
    z, p = np.array(z, float), np.array(p, float)
    np.testing.assert_allclose(loss.activation(z), p, rtol=1e-14)
    np.testing.assert_allclose(loss.inverse_activation(p), z, rtol=1e-14, atol=1e-15)


# ---- Properties of every loss ----------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("count", [1, 9])
def test_value_and_derivative_equal_the_definition(make, count):
    loss, h = make(), 1e-6
    z, t = batch(loss, count)
    assert loss.value(z, t) == pytest.approx(naive(loss, z, t), rel=1e-12)
    numerical = np.empty_like(z)
    for i in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[i] = h
        numerical[i] = (naive(loss, z + step, t) - naive(loss, z - step, t)) / (2 * h)
    np.testing.assert_allclose(backward(loss, z, t), numerical, atol=1e-8)  # h² and rounding / h


@every_loss
@both_dtypes
def test_a_batch_is_the_mean_of_its_examples_in_its_dtype(make, dtype):
    loss, eps = make(), float(np.finfo(dtype).eps)
    z, t = batch(loss, 7, dtype=dtype)
    losses = loss.per_example(z, t)
    assert (losses.shape, losses.dtype, type(loss.value(z, t))) == ((7,), dtype, float)
    single = [loss.value(z[i : i + 1], t[i : i + 1]) for i in range(7)]
    np.testing.assert_allclose(losses, single, rtol=8 * eps)
    assert loss.value(z, t) == pytest.approx(np.mean(single), rel=8 * eps)
    dz = backward(loss, z, t)
    assert dz.dtype == dtype
    rows = np.vstack([backward(loss, z[i : i + 1], t[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(dz, rows / 7, rtol=8 * eps)


@every_loss
def test_a_perfect_prediction_has_no_loss_and_no_derivative(make):
    loss = make()
    if loss.is_classification:
        t = np.eye(3)
        z = 200 * t - 100
    else:
        t = batch(loss, 9)[1] + 1  # the logit of a count of 0, ln 0, is infinite for Poisson
        z = loss.inverse_activation(t)
        assert min(loss.value(z - 0.3, t), loss.value(z + 0.3, t)) > 0.01
    assert loss.value(z, t) == pytest.approx(0, abs=1e-14)
    np.testing.assert_allclose(backward(loss, z, t), 0, atol=1e-14)


@every_loss
@both_dtypes
def test_inverse_activation_inverts_activation_in_new_arrays(make, dtype):
    loss = make()
    z = batch(loss, 50, 10, scale=3, dtype=dtype)[0]
    p = loss.activation(z)
    kept = p.copy()
    back = loss.inverse_activation(p)
    assert p.dtype == back.dtype == dtype
    assert not np.shares_memory(p, z)
    assert not np.shares_memory(back, p)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(loss.activation(back), kept, rtol=20 * eps, atol=2 * eps)
    np.testing.assert_array_equal(p, kept)


@every_loss
def test_copies_and_pickles_leave_the_buffers_out(make):
    loss = make()
    z, t = batch(loss, 7)
    backward(loss, z, t)
    for twin in (copy.copy(loss), copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), make_loss(loss)):
        assert not set(twin.workspace) & set(vars(twin))
        assert (repr(twin), twin.is_classification) == (repr(loss), loss.is_classification)
        np.testing.assert_array_equal(backward(twin, z, t), backward(loss, z, t))


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (BinaryCrossEntropy(), "BinaryCrossEntropy()"),
        (BinaryCrossEntropy(0.1), "BinaryCrossEntropy(label_smoothing=0.1)"),
        (CrossEntropy(temperature=1), "CrossEntropy()"),
        (CrossEntropy(0.1, 4), "CrossEntropy(label_smoothing=0.1, temperature=4.0)"),
        (SquaredError(), "SquaredError()"),
        (SquaredError("sigmoid", 0.1), "SquaredError(activation='sigmoid', label_smoothing=0.1)"),
        (Huber(0.5), "Huber(delta=0.5)"),
    ],
    ids=str,
)
def test_repr_and_config_recreate_the_loss(loss, text):
    assert repr(loss) == text
    assert repr(type(loss)(**loss.config())) == text


def test_names_and_their_classes():
    assert type(make_loss("cross_entropy")) is CrossEntropy
    assert make_loss("squared_error").is_classification is False
    assert [make_loss(name).is_classification for name in LOSSES] == [True, True, False, False, False, False, False]


# ---- Planted errors --------------------------------------------------------------------------------------------------


def planted(make, how):
    base = make()

    class Planted(type(base)):
        def backward(self, z, t, weight):
            return how(super().backward(z, t, weight).copy(), z, t, weight)

    return Planted(**base.config())


@every_loss
def test_a_wrong_derivative_is_caught_and_the_right_one_is_not(make):
    z, t = batch(make(), 7)
    check_gradient(planted(make, lambda dz, z, t, weight: dz), z, t)
    with pytest.raises(GradientError, match="Planted dz"):
        check_gradient(planted(make, lambda dz, z, t, weight: 1.001 * dz), z, t)


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (SquaredError, lambda dz, z, t, weight: 2 * dz),  # of e², not ½ e²
        (CLASSIFICATION["squared_error_of_sigmoid"], lambda dz, z, t, weight: (sigmoid(z) - t) * weight),  # no a'
        (CLASSIFICATION["squared_error_of_sigmoid"], lambda dz, z, t, weight: (z - t) * weight),  # no sigmoid
        (AbsoluteError, lambda dz, z, t, weight: (z - t) * weight),
        (Huber, lambda dz, z, t, weight: (z - t) * weight),  # never clipped
        (Huber, lambda dz, z, t, weight: np.sign(z - t) * weight),
        (LogCosh, lambda dz, z, t, weight: np.sinh(z - t) * weight),
        (Poisson, lambda dz, z, t, weight: (z - t) * weight),  # the prediction instead of z
        (Poisson, lambda dz, z, t, weight: (1 - t / np.exp(z)) * weight),  # with respect to μ instead of z
        (CrossEntropy, lambda dz, z, t, weight: (sigmoid(z) - t) * weight),
        (BinaryCrossEntropy, lambda dz, z, t, weight: (softmax(z) - t) * weight),
        (SquaredError, lambda dz, z, t, weight: dz / weight),  # no mean
        (SquaredError, lambda dz, z, t, weight: dz / dz.shape[1]),  # the mean over the outputs too
        (CrossEntropy, lambda dz, z, t, weight: dz[:, ::-1]),
    ],
)
def test_the_derivative_of_another_loss_is_caught(make, how):
    with pytest.raises(GradientError, match="Planted dz"):
        check_gradient(planted(make, how), *batch(make(), 7))


@pytest.mark.parametrize("power", [-1, 1])
def test_a_wrong_power_of_the_temperature_is_caught(power):
    class Planted(CrossEntropy):
        def backward(self, z, t, weight):
            return super().backward(z, t, weight) * self.temperature**power

    with pytest.raises(GradientError, match="Planted dz"):
        check_gradient(Planted(temperature=3), *batch(CrossEntropy(), 7))


@pytest.mark.parametrize("delta", [0.5, 1, 3])
def test_huber_passes_the_check_on_both_branches(delta):
    z, t = batch(Huber(), 7)
    near = np.abs(z - t) < delta
    assert 0 < near.sum() < near.size
    check_gradient(Huber(delta), z, t)


# ---- Extreme values --------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize(
    ("loss", "value", "dz"),
    [
        (BinaryCrossEntropy(), 2e4, [[1, -1]]),  # softplus(10⁴) + softplus(-10⁴) + 10⁴
        (CrossEntropy(), 2e4, [[1, -1]]),  # ln(e^{10⁴} + e^{-10⁴}) + 10⁴
        (SquaredError("sigmoid"), 1, [[0, 0]]),  # saturated
        (SquaredError(), (1e8 + 10_001**2) / 2, [[1e4, -10_001]]),
    ],
    ids=repr,
)
def test_a_confident_wrong_prediction_is_exact(loss, value, dz, dtype):
    z, t = np.array([[1e4, -1e4]], dtype), np.array([[0, 1]], dtype)
    assert loss.value(z, t) == pytest.approx(value, rel=float(4 * np.finfo(dtype).eps))
    np.testing.assert_allclose(backward(loss, z, t), dz, rtol=1e-6)


@both_dtypes
@pytest.mark.parametrize(
    ("loss", "value", "dz"),
    [
        (SquaredError(), [0.5e8, 0, 0.5e8], [1e4, 0, -1e4]),
        (AbsoluteError(), [1e4, 0, 1e4], [1, 0, -1]),
        (Huber(0.5), [5e3 - 0.125, 0, 5e3 - 0.125], [0.5, 0, -0.5]),
        (LogCosh(), [1e4 - LN2, 0, 1e4 - LN2], [1, 0, -1]),
        (Poisson(), [math.inf, 1, 0], [math.inf, 1, 0]),  # for a count of 0: μ
    ],
    ids=repr,
)
def test_large_errors_are_exact_and_without_warnings(loss, value, dz, dtype):
    z, t = np.array([[1e4], [0], [-1e4]], dtype), np.zeros((3, 1), dtype)
    np.testing.assert_allclose(loss.per_example(z, t), value, rtol=1e-6)
    np.testing.assert_allclose(backward(loss, z, t) * 3, np.array(dz)[:, None], rtol=1e-6)
    np.testing.assert_array_equal(np.isfinite(loss.activation(z)), np.isfinite(np.array(value))[:, None])


@both_dtypes
def test_poisson_of_a_prediction_near_0_is_finite(dtype):
    z, t = np.array([[-1e4]], dtype), np.array([[3]], dtype)
    assert Poisson().value(z, t) == pytest.approx(3e4 + 3 * LN3 - 3, rel=1e-6)
    np.testing.assert_array_equal(backward(Poisson(), z, t), [[-3]])


@both_dtypes
def test_log_cosh_keeps_the_precision_of_small_errors(dtype):
    e = np.array([1e-6, 1e-3, 0.1, 1, 10], dtype)
    expected = np.log1p(2 * np.sinh(e.astype(np.float64) / 2) ** 2)  # cosh e = 1 + 2 sinh² e/2
    losses = LogCosh().per_example(e[:, None], np.zeros((5, 1), dtype))
    assert (np.abs(losses / expected - 1) <= 4 * np.finfo(dtype).eps / np.minimum(e, 1)).all()


@both_dtypes
def test_softmax_of_equal_logits_is_even(dtype):
    p = softmax(np.repeat(np.array([[-1e4], [0], [1e4]], dtype), 4, axis=1))
    np.testing.assert_array_equal(p, np.full((3, 4), 0.25, dtype))
    assert p.dtype == dtype


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax_rows_sum_to_1_and_ignore_a_constant(scale):
    z, _ = batch(CrossEntropy(), 50, 10, scale)
    p = softmax(z)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(softmax(z + 7), p, rtol=1e-9, atol=1e-300)


@every_classification
@both_dtypes
def test_logits_of_certain_predictions_are_finite(make, dtype):
    loss, eps = make(), np.finfo(dtype).eps
    p = np.array([[0, 1, 0], [np.finfo(dtype).smallest_subnormal, 1 + eps, 0]], dtype)  # a mean may round above 1
    z = loss.inverse_activation(p)
    assert z.dtype == dtype
    assert np.isfinite(z).all()
    np.testing.assert_array_equal(z.argmax(axis=1), [1, 1])
    np.testing.assert_allclose(loss.activation(z), p, atol=2 * eps)
    assert math.isfinite(loss.value(z, np.roll(p, 1, axis=1)))


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 24 * LN2), (np.float64, 53 * LN2)])
def test_a_sigmoid_that_rounds_to_0_or_1_is_replaced_by_the_nearest_that_does_not(dtype, most):
    """With the smallest positive number instead, the loss would be 88 where z was -18."""
    z = BinaryCrossEntropy().inverse_activation(sigmoid(np.array([[-99, -40, 40, 99]], dtype)))
    np.testing.assert_allclose(z, [[-most, -most, most, most]], rtol=1e-6)


# ---- Temperature -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_a_temperature_scales_the_loss_of_divided_logits(temperature):
    """L_T(z) = T² L(z / T), and therefore dz = T dz'."""
    hot, plain = CrossEntropy(temperature=temperature), CrossEntropy()
    z, _ = batch(hot, 9, scale=3)
    t, weight = softmax(z[::-1] / 3), np.linspace(0.1, 2, 9)[:, None]
    kept = z.copy(), weight.copy()
    assert hot.value(z, t) == pytest.approx(temperature**2 * plain.value(z / temperature, t), rel=1e-13)
    for loss in (hot, plain):
        loss.allocate(9, 4, z.dtype)
    for w in (1 / 9, np.array(1 / 9), weight):
        expected = temperature * plain.backward(z / temperature, t, w)
        np.testing.assert_allclose(hot.backward(z, t, w), expected, rtol=1e-13)
    np.testing.assert_array_equal(z, kept[0])
    np.testing.assert_array_equal(weight, kept[1])
    np.testing.assert_array_equal(hot.activation(z), plain.activation(z))  # predictions use temperature 1


def test_the_gradient_keeps_its_size_at_high_temperatures():
    """For z far smaller than T, p - t is (z - v)/(n T) for t = softmax(v / T): Hinton et al. (2015), equation (4)."""
    z, v = (rows - rows.mean(axis=1, keepdims=True) for rows in np.random.default_rng(0).standard_normal((2, 9, 4)))
    T = 1e5
    dz = backward(CrossEntropy(temperature=T), z, softmax(v / T))
    np.testing.assert_allclose(dz, (z - v) / (4 * 9), rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((lambda T=T: CrossEntropy(temperature=T), "temperature must be") for T in (0, -1, math.nan, math.inf)),
        *((lambda d=d: Huber(d), "delta must be a finite number > 0") for d in (0, -1, math.nan, math.inf)),
        *((lambda s=s: BinaryCrossEntropy(s), r"label_smoothing must be in \[0, 1\)") for s in (-0.1, 1, math.nan)),
        (lambda: SquaredError(label_smoothing=0.1), "label_smoothing of SquaredError needs activation='sigmoid'"),
    ],
)
def test_invalid_parameters_are_rejected(make, message, rejects):
    with rejects(message):
        make()


# ---- Targets of classification ---------------------------------------------------------------------------------------


def test_one_hot_worked_by_hand(rejects):
    rows = one_hot([2, 0], 3)
    np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0]])
    assert rows.dtype == np.float32
    assert one_hot([1], 2, np.float64).dtype == np.float64
    with rejects("the label 10: expected 0 to 9 for 10 classes"):
        one_hot([3, 10], 10)


@every_classification
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_and_one_hot_rows_are_the_same_targets(make, smoothing):
    loss, y = make(smoothing), np.array([3, 0, 1])
    rows = one_hot(y, 4, np.float64)
    expected = (1 - smoothing) * rows + smoothing / 4
    for same in (y, y.astype(np.uint8), rows, rows.astype(int), rows.tolist(), rows.astype(np.float32)):
        kept = copy.deepcopy(same)
        t = loss.targets(same, 3, 4, np.float64)
        np.testing.assert_allclose(t, expected, rtol=1e-15)
        np.testing.assert_array_equal(same, kept)
        assert not np.shares_memory(t, np.asarray(same))


@every_classification
def test_labels_of_a_single_output_are_a_column(make, rejects):
    loss = make()
    if type(loss) is CrossEntropy:
        with rejects("cross_entropy of a single output is always 0: expected binary_cross_entropy, or 2 outputs"):
            loss.targets([0, 1], 2, 1, np.float32)
        return
    for y in ([1, 0, 1], np.array([1, 0, 1], np.uint8), np.array([True, False, True]), [[1], [0], [1]]):
        t = loss.targets(y, 3, 1, np.float32)
        np.testing.assert_array_equal(t, [[1], [0], [1]])
        assert t.dtype == np.float32
    np.testing.assert_allclose(make(0.2).targets([0, 1], 2, 1, np.float64), [[0.1], [0.9]], rtol=1e-14)  # both classes
    with rejects("the label 2: expected 0 to 1 for 2 classes"):
        loss.targets([0, 2], 2, 1, np.float32)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (CrossEntropy(), [[0.5, 0.5, 0.5], [1, 0, 0]], "row 0 of y sums to 1.5: expected soft labels that sum to 1"),
        (CrossEntropy(temperature=3), [[1, 0, 0], [0.2, 0.2, 0.2]], "row 1 of y sums to 0.6"),
        (CrossEntropy(0.1), [[1, 1, 0], [1, 0, 0]], "row 0 of y"),  # several labels
        (CrossEntropy(), [[0, 0, 0], [1, 0, 0]], "row 0 of y sums to 0"),
    ],
)
def test_cross_entropy_rejects_soft_labels_that_do_not_sum_to_1(loss, y, message, rejects):
    """The gradient p - t is that of the loss only if they do: once, its relative error was 0.68 without a word."""
    for call in (lambda: loss.targets(y, 2, 3, np.float64), lambda: check_gradient(loss, np.ones((2, 3)), y)):
        with rejects(message):
            call()
    with rejects(message):
        Trainer(Network([4, 3], loss=loss, rng=0), SGD(0.1)).fit(np.ones((2, 4)), y, epochs=1)


@both_dtypes
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_soft_labels_that_sum_to_1_within_rounding_are_targets(kind, dtype):
    rng = np.random.default_rng(0)
    y = softmax(rng.standard_normal((50, 10))).astype(kind)
    t = CrossEntropy().targets(y, 50, 10, dtype)
    np.testing.assert_array_equal(t, y.astype(dtype))
    assert not np.shares_memory(t, y)
    if kind == np.float64:
        for loss in (CrossEntropy(), CrossEntropy(0.1, 3)):
            check_gradient(loss, rng.standard_normal((50, 10)), y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 3], "the label 3: expected 0 to 2 for 3 classes"),
        ([0], r"shape \(1,\)"),
        ([0.0, 1.0], r"shape \(2,\): expected \(2,\) integer labels, or \(2, 3\) with one row per example"),
        (["0", "1"], "dtype <U1"),
        ([["a", "b", "c"]] * 2, "dtype <U1"),
        (np.eye(2), r"shape \(2, 2\)"),
        (np.eye(3), r"shape \(3, 3\)"),
        ([[0, 1], [1]], "different lengths"),
        ([[0, 1, math.nan], [0, 0, 1]], "y contains NaN or infinity"),
        ([[0, 1, math.inf], [0, 0, 1]], "y contains NaN or infinity"),
    ],
    ids=str,
)
def test_invalid_labels_are_rejected(y, message, rejects):
    for make in CLASSIFICATION.values():
        with rejects(message):
            make().targets(y, 2, 3, np.float64)


# ---- Targets of regression -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "n_out", "rows"),
    [
        ([1, 2, 3], 1, [[1], [2], [3]]),
        (np.array([1, 0, 1], bool), 1, [[1], [0], [1]]),
        ([[0.5], [2]], 1, [[0.5], [2]]),
        (np.array([[1, 2], [3, 4]], np.uint8), 2, [[1, 2], [3, 4]]),
        (np.ones((3, 2), np.float32), 2, np.ones((3, 2))),
    ],
    ids=str,
)
def test_numbers_are_targets_in_a_new_array(y, n_out, rows):
    for make in REGRESSION.values():
        t = make().targets(y, len(y), n_out, np.float32)
        np.testing.assert_array_equal(t, rows)
        assert t.dtype == np.float32
        assert not np.shares_memory(t, np.asarray(y))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 2, 3], r"shape \(3,\): expected numbers \(3, 2\)"),
        ([[1, 2]], r"shape \(1, 2\)"),
        (np.ones((3, 3)), r"shape \(3, 3\)"),
        (5, r"shape \(\)"),
        ([["a", "b"]] * 3, "dtype <U1"),
        (np.ones((3, 2), complex), "dtype complex128"),
        ([[1, 2], [3], [4, 5]], "different lengths"),
        ([[1, 2], [3, 4], [5, math.nan]], "NaN or infinity: expected finite float32"),
        ([[1, 2], [3, 4], [5, 1e39]], "expected finite float32"),
    ],
    ids=str,
)
def test_invalid_numbers_are_rejected(y, message, rejects):
    with rejects(message):
        Huber().targets(y, 3, 2, np.float32)


def test_poisson_rejects_negative_counts(rejects):
    with rejects("y contains -2: Poisson expects counts >= 0"):
        Poisson().targets([3, -2, 0], 3, 1, np.float32)


# ---- Minima and training ---------------------------------------------------------------------------------------------

SAMPLE = np.array([0, 1, 1, 2, 3, 5, 40.0])  # mean 52/7, median 2


@pytest.mark.parametrize(
    ("loss", "best"),
    [
        (SquaredError(), 52 / 7),
        (AbsoluteError(), 2),
        (Huber(1e9), 52 / 7),  # all targets are near
        (Huber(1e-9), 2),  # none is
        # 1, 1, 2 and 3 are near; 0 pulls down with δ, 5 and 40 pull up with δ: (1 + 1 + 2 + 3 + δ) / 4
        (Huber(1.5), (7 + 1.5) / 4),
        (Poisson(), math.log(52 / 7)),
    ],
    ids=repr,
)
def test_the_constant_prediction_with_the_smallest_loss(loss, best):
    """By search on a grid, and by its derivative."""
    t, grid = SAMPLE[:, None], best + np.linspace(-1, 1, 2001)
    losses = loss.per_example(np.tile(grid[:, None], 7), np.tile(SAMPLE, (2001, 1)))  # a row has the sum for one z
    assert grid[losses.argmin()] == pytest.approx(best, abs=0.0011)
    assert backward(loss, np.full_like(t, best), t).sum() == pytest.approx(0, abs=1e-9 * len(t))


@every_regression
def test_training_a_regression_lowers_the_loss_and_has_no_accuracy(make):
    x = np.random.default_rng(0).random((200, 3))
    t = np.round(4 * x[:, :2] + 3 * x[:, 1:2])
    network = Network([3, 16, 2], activation="tanh", loss=make(), rng=0)
    trainer = Trainer(network, Adam(0.02), batch_size=16, rng=0)
    history = trainer.fit(x[:150], t[:150], epochs=30, validation=(x[150:], t[150:]))
    assert set(history) == {"loss", "val_loss", "lr", "seconds"}
    assert history["loss"][-1] < 0.3 * history["loss"][0]


def test_targets_of_one_output_may_be_a_vector_or_a_column():
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 4
    networks = [Network([3, 1], loss="squared_error", rng=0) for _ in range(2)]
    for network, same in zip(networks, (y, y[:, None].astype(float)), strict=True):
        Trainer(network, SGD(0.1), rng=0).fit(x, same, epochs=2)
    np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)


def test_poisson_that_overflows_diverges_with_one_line(rejects):
    network = Network([1, 1], loss="poisson", rng=0)
    with rejects("diverged"):
        Trainer(network, SGD(100.0), batch_size=5).fit(np.ones((5, 1)), np.full(5, 50), epochs=20)


def test_a_regression_teaches_its_numbers():
    x = np.random.default_rng(0).random((40, 3))
    teacher, student = (Network([3, 2], loss="squared_error", rng=seed) for seed in (0, 1))
    Trainer(student, SGD(0.5), batch_size=10, teacher=teacher, rng=0).fit(x, np.zeros((40, 2)), epochs=300)
    np.testing.assert_allclose(student.predict(x), teacher.predict(x), atol=1e-3)


@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy(), SquaredError("sigmoid")], ids=repr)
def test_labels_outside_of_0_to_1_are_rejected(loss, rejects):
    with rejects("expected labels in"):
        loss.targets([[2.0, -1.0, 0.0]], 1, 3, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_of_extreme_outputs_raise_no_floating_point_error_and_are_not_nan(name, dtype):
    size = np.finfo(dtype).max
    z = np.array([[0, size], [size, 0], [-size, size], [1e15, -1e15], [200, -200], [1e-30, -1e-30]], dtype)
    network = Network([Dense(2, 2)], loss=name, dtype=dtype, rng=0)
    network.layers[0].W[...] = np.eye(2)
    network.layers[0].b[...] = 0
    y = np.array([[0, 1]] * 6, dtype)
    x = np.clip(z, -1e38, 1e38)  # inputs are numbers of float32
    with np.errstate(all="raise"):
        assert not np.isnan(network.evaluate(x, y).loss)
        assert not np.isnan(network.predict_proba(x)).any()
        assert not np.isnan(network.soft_labels(x, 2.0)).any()
        network.predict(x)
        if network.loss.is_classification:
            assert np.isfinite(network.predict_proba(x)).all()
            assert network.confusion_matrix(x, [1, 0, 1, 0, 0, 0]).sum() == 6
