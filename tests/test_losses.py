"""The losses: numbers worked by hand, the naive formulas where they are safe, and the ends of the scale."""

import math

import numpy as np
import pytest

from handgrad import BinaryCrossEntropy, Quadratic, CrossEntropy, one_hot
from handgrad.losses import LOSSES, softmax

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
every_loss = pytest.mark.parametrize("name", LOSSES)


def naive(name, z, t):
    """Each loss as its definition reads, in float64."""
    if name == "quadratic":
        return 0.5 * ((z - t) ** 2).sum(axis=1).mean()
    if name == "binary_cross_entropy":
        a = 1 / (1 + np.exp(-z))
        return -(t * np.log(a) + (1 - t) * np.log(1 - a)).sum(axis=1).mean()
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return -(t * np.log(p)).sum(axis=1).mean()


def backward(loss, z, t):
    loss.allocate(*z.shape, z.dtype)
    return loss.backward(z, t, 1 / len(z)).copy()


def batch(count, n_out=4, scale=3.0, dtype=np.float64):
    rng = np.random.default_rng([count, n_out])
    return (scale * rng.standard_normal((count, n_out))).astype(dtype), rng.integers(0, n_out, count)


# ---- By hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "z", "t", "value", "dz"),
    [
        # ½ [(3 - 1)² + (1 - 0)²] = 2.5
        ("quadratic", [[3, 1]], [[1, 0]], 2.5, [[2, 1]]),
        # (½ · 4 + ½ · (9 + 1)) / 2 = 3.5
        ("quadratic", [[2, 0], [3, 0]], [[0, 0], [0, 1]], 3.5, [[1, 0], [1.5, -0.5]]),
        # a = (1/2, 3/4): -ln ½ - ln(1 - ¾) = ln 2 + ln 4
        ("binary_cross_entropy", [[0, LN3]], [[1, 0]], LN2 + LN4, [[-0.5, 0.75]]),
        # a = (3/4), (1/4): (ln 4/3 + ln 4/3) / 2
        ("binary_cross_entropy", [[LN3], [-LN3]], [[1], [0]], LN4 - LN3, [[-0.125], [0.125]]),
        # p = (1/4, 3/4): -ln ¼
        ("cross_entropy", [[0, LN3]], [[1, 0]], LN4, [[-0.75, 0.75]]),
        # p = (1/2, 1/4, 1/4), t = (½, ½, 0): (ln 2 + ln 4) / 2
        ("cross_entropy", [[LN2, 0, 0]], [[0.5, 0.5, 0]], 1.5 * LN2, [[0, -0.25, 0.25]]),
    ],
)
def test_value_and_derivative_worked_by_hand(name, z, t, value, dz):
    loss, z, t = LOSSES[name](), np.array(z, float), np.array(t, float)
    assert loss.value(z, t) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(backward(loss, z, t), dz, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "z", "p"),
    [
        ("quadratic", [[0.25, 2]], [[0.25, 2]]),
        ("binary_cross_entropy", [[0, LN3]], [[0.5, 0.75]]),
        ("cross_entropy", [[0, LN3], [7, 7]], [[0.25, 0.75], [0.5, 0.5]]),
    ],
)
def test_probabilities_worked_by_hand_in_an_array_of_their_own(name, z, p):
    z = np.array(z, float)
    before = z.copy()
    got = LOSSES[name]().predict_proba(z)
    np.testing.assert_allclose(got, p, rtol=1e-14)
    assert not np.shares_memory(got, z)
    np.testing.assert_array_equal(z, before)


# ---- Against the definitions -----------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("count", [1, 9])
def test_value_is_the_definition_for_moderate_z(name, smoothing, count):
    loss = LOSSES[name](smoothing)
    z, y = batch(count)
    t = loss.targets(y, count, 4, z.dtype)
    assert loss.value(z, t) == pytest.approx(naive(name, z, t), rel=1e-12)


@every_loss
def test_derivative_is_that_of_the_definition_entry_by_entry(name):
    z, y = batch(3)
    loss, t, h = LOSSES[name](0.1), one_hot(y, 4, np.float64), 1e-6
    numerical = np.empty_like(z)
    for i in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[i] = h
        numerical[i] = (naive(name, z + step, t) - naive(name, z - step, t)) / (2 * h)
    np.testing.assert_allclose(backward(loss, z, t), numerical, atol=1e-8)  # h² and rounding / h


@every_loss
def test_duplicating_the_batch_leaves_the_value_and_halves_each_derivative(name):
    loss = LOSSES[name]()
    z, y = batch(5)
    t = one_hot(y, 4, z.dtype)
    zz, tt = np.vstack([z, z]), np.vstack([t, t])
    assert loss.value(zz, tt) == pytest.approx(loss.value(z, t), rel=1e-13)
    np.testing.assert_allclose(backward(loss, zz, tt), np.vstack([backward(loss, z, t)] * 2) / 2, rtol=1e-13)


@every_loss
def test_perfect_answers_have_no_loss_and_no_derivative(name):
    t = np.eye(3)
    z = t if name == "quadratic" else 200 * t - 100
    loss = LOSSES[name]()
    assert loss.value(z, t) == pytest.approx(0, abs=1e-40)
    np.testing.assert_allclose(backward(loss, z, t), 0, atol=1e-40)


# ---- The ends of the scale -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("loss", "value", "dz"),
    [
        (BinaryCrossEntropy(), 2e4, [[1, -1]]),  # softplus(10⁴) + softplus(-10⁴) + 10⁴
        (CrossEntropy(), 2e4, [[1, -1]]),  # ln(e^{10⁴} + e^{-10⁴}) + 10⁴
        (Quadratic(), (1e8 + 10_001**2) / 2, [[1e4, -10_001]]),
    ],
    ids=repr,
)
def test_sure_and_wrong_by_ten_thousand_is_exact(loss, value, dz, dtype):
    z, t = np.array([[1e4, -1e4]], dtype), np.array([[0, 1]], dtype)
    assert loss.value(z, t) == pytest.approx(value, rel=float(4 * np.finfo(dtype).eps))
    np.testing.assert_allclose(backward(loss, z, t), dz, rtol=1e-6)


@pytest.mark.parametrize("z", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_equal_outputs_is_even_however_large(z, dtype):
    p = softmax(np.full((2, 4), z, dtype))
    np.testing.assert_array_equal(p, np.full((2, 4), 0.25, dtype))
    assert p.dtype == dtype


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_softmax_rows_sum_to_one_and_ignore_a_shift(scale):
    z, _ = batch(50, 10, scale)
    p = softmax(z)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(softmax(z + 7), p, rtol=1e-9, atol=1e-300)


# ---- From probabilities back to outputs ------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_are_those_of_which_the_probabilities_are_p(name, dtype):
    loss, p = LOSSES[name](), softmax(batch(50, 10, dtype=dtype)[0])
    before = p.copy()
    z = loss.outputs(p)
    assert z.dtype == dtype
    assert not np.shares_memory(z, p)
    np.testing.assert_array_equal(p, before)
    eps = np.finfo(dtype).eps  # a sigmoid is good to it, a softmax to as much of each p
    np.testing.assert_allclose(
        loss.activation(z), p, rtol=20 * eps, atol=2 * eps if name == "binary_cross_entropy" else 0
    )


@pytest.mark.parametrize(
    ("name", "p", "z"),
    [
        ("quadratic", [[0.25, 0.5]], [[0.25, 0.5]]),
        ("binary_cross_entropy", [[0.25, 0.5]], [[-LN3, 0]]),
        ("cross_entropy", [[0.25, 0.75]], [[-LN4, LN3 - LN4]]),
    ],
)
def test_outputs_worked_by_hand(name, p, z):
    np.testing.assert_allclose(LOSSES[name]().outputs(np.array(p)), z, rtol=1e-14)


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_of_certainty_are_finite_and_the_loss_of_them_too(name, dtype):
    loss, eps = LOSSES[name](), np.finfo(dtype).eps
    p = np.array([[0, 1, 0], [np.finfo(dtype).smallest_subnormal, 1 + eps, 0]], dtype)  # a mean may round above 1
    z = loss.outputs(p)
    assert z.dtype == dtype
    assert np.isfinite(z).all()
    np.testing.assert_array_equal(z.argmax(axis=1), [1, 1])
    np.testing.assert_allclose(loss.activation(z), p, atol=2 * eps)
    assert math.isfinite(loss.value(z, np.roll(p, 1, axis=1)))


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 24 * LN2), (np.float64, 53 * LN2)])
def test_a_sigmoid_that_rounds_to_0_or_1_is_taken_for_the_nearest_that_does_not(dtype, most):
    """Not for the smallest number there is, of which the loss were 88 where z was -18."""
    z = BinaryCrossEntropy().outputs(BinaryCrossEntropy().activation(np.array([[-99, -40, 40, 99]], dtype)))
    np.testing.assert_allclose(z, [[-most, -most, most, most]], rtol=1e-6)


# ---- Temperature -----------------------------------------------------------------------------------------------------


def test_a_temperature_worked_by_hand():
    # z / 2 = (0, ln 3): p = (1/4, 3/4), L = 4 ln 4, dz = 2 (p - t)
    loss, z, t = CrossEntropy(temperature=2), np.array([[0, 2 * LN3]]), np.array([[1.0, 0.0]])
    assert loss.value(z, t) == pytest.approx(4 * LN4, rel=1e-14)
    np.testing.assert_allclose(backward(loss, z, t), [[-1.5, 1.5]], rtol=1e-14)
    np.testing.assert_allclose(loss.activation(z), [[0.1, 0.9]], rtol=1e-14)  # at temperature 1


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_a_temperature_is_the_plain_loss_of_cooler_outputs(temperature):
    """L_T(z) = T² L(z / T), and so dz = T dz'."""
    hot, plain = CrossEntropy(temperature=temperature), CrossEntropy()
    z, _ = batch(9)
    before, t, weight = z.copy(), softmax(batch(9, scale=1)[0][::-1]), np.linspace(0.1, 2, 9)[:, None]
    assert hot.value(z, t) == pytest.approx(temperature**2 * plain.value(z / temperature, t), rel=1e-13)
    for loss in (hot, plain):
        loss.allocate(9, 4, z.dtype)
    for each in (1 / 9, np.array(1 / 9), weight):
        expected = temperature * plain.backward(z / temperature, t, each)
        np.testing.assert_allclose(hot.backward(z, t, each), expected, rtol=1e-13)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(weight, np.linspace(0.1, 2, 9)[:, None])


def test_the_gradient_keeps_its_size_where_the_temperature_rises():
    """For z far smaller than T, p - t is (z - v)/(n T), v the outputs that t was made of: Hinton et al. (2015), (4)."""
    z, v = (rows - rows.mean(axis=1, keepdims=True) for rows in (batch(9)[0], batch(8)[0][[0, *range(8)]]))
    T = 1e5
    dz = backward(CrossEntropy(temperature=T), z, softmax(v / T))
    np.testing.assert_allclose(dz, (z - v) / (4 * 9), rtol=1e-3)


def test_a_temperature_leaks_no_float64():
    loss = CrossEntropy(0.1, np.float64(3))
    z, y = batch(5, dtype=np.float32)
    loss.allocate(*z.shape, z.dtype)
    assert loss.backward(z, loss.targets(y, 5, 4, np.float32), np.array(0.2, np.float32)).dtype == np.float32
    assert type(loss.value(z, loss.targets(y, 5, 4, np.float32))) is float
    assert type(loss.temperature) is float


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(temperature, refused):
    with refused("temperature .* above 0"):
        CrossEntropy(temperature=temperature)


def test_a_temperature_of_one_is_not_told():
    assert CrossEntropy(0.1, 4).config() == {"label_smoothing": 0.1, "temperature": 4}
    assert CrossEntropy(temperature=1).config() == {}
    assert repr(CrossEntropy(temperature=4)) == "CrossEntropy(temperature=4.0)"


# ---- Targets ---------------------------------------------------------------------------------------------------------


def test_one_hot_by_hand():
    rows = one_hot([2, 0], 3)
    np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0]])
    assert rows.dtype == np.float32
    assert one_hot([1], 2, np.float64).dtype == np.float64


@every_loss
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int8, bool])
def test_labels_of_any_integer_kind_are_their_one_hot_rows(name, kind):
    t = LOSSES[name]().targets(np.array([1, 0, 1], kind), 3, 2, np.float32)
    np.testing.assert_array_equal(t, [[0, 1], [1, 0], [0, 1]])
    assert t.dtype == np.float32


@every_loss
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_and_their_rows_are_the_same_targets(name, smoothing):
    loss = LOSSES[name](smoothing)
    y = np.array([3, 0, 1])
    rows = one_hot(y, 4, np.float64)
    expected = loss.targets(y, 3, 4, np.float64)
    for same in (rows, rows.astype(int), rows.tolist(), rows.astype(np.float32)):
        np.testing.assert_array_equal(loss.targets(same, 3, 4, np.float64), expected)


def test_soft_rows_stay_as_they_are_in_an_array_of_their_own():
    y = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    t = CrossEntropy().targets(y, 2, 3, np.float64)
    np.testing.assert_array_equal(t, y)
    assert not np.shares_memory(t, y)


@every_loss
def test_label_smoothing_takes_its_share_and_spreads_it(name):
    t = LOSSES[name](0.2).targets([1], 1, 4, np.float64)
    np.testing.assert_allclose(t, [[0.05, 0.85, 0.05, 0.05]], rtol=1e-14)  # (1 - 0.2) y + 0.2 / 4


@every_loss
def test_label_smoothing_leaves_the_users_rows_alone(name):
    y = np.eye(3)
    LOSSES[name](0.2).targets(y, 3, 3, np.float64)
    np.testing.assert_array_equal(y, np.eye(3))


# ---- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [-0.1, 1, 1.5, math.nan])
def test_label_smoothing_outside_its_range_is_refused(refused, smoothing):
    with refused("label_smoothing .* from 0 up to, but not, 1"):
        BinaryCrossEntropy(smoothing)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0, 3], "the label 3: of 3 classes the labels are 0 to 2"),
        ([0, -1], "the label -1: of 3"),
        ([0, 1, 2], r"shape \(3,\)"),
        ([0], r"shape \(1,\)"),
        (1, r"shape \(\)"),
        ([0.0, 1.0], r"\(2,\) integer labels"),
        (["0", "1"], r"holds <U1 of shape \(2,\): expected \(2,\) integer labels"),
        (np.eye(2), r"shape \(2, 2\)"),
        (np.eye(3), r"shape \(3, 3\)"),
        ([[0, 1, math.nan], [0, 0, 1]], "not a finite number"),
        ([[0, 1, math.inf], [0, 0, 1]], "not a finite number"),
    ],
    ids=str,
)
def test_targets_that_are_not_targets_are_refused(refused, y, says):
    with refused(says):
        BinaryCrossEntropy().targets(y, 2, 3, np.float64)


def test_one_hot_refuses_labels_out_of_range(refused):
    with refused("the label 10: of 10 classes the labels are 0 to 9"):
        one_hot([3, 10], 10)


def test_rows_of_words_are_refused_in_one_line(refused):
    with refused("y"):
        BinaryCrossEntropy().targets([["a", "b", "c"]], 1, 3, np.float64)


def test_repr_names_only_what_was_chosen():
    assert repr(BinaryCrossEntropy()) == "BinaryCrossEntropy()"
    assert repr(Quadratic(0.1)) == "Quadratic(label_smoothing=0.1)"
