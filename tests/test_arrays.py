"""Arrays: input validation, the pixel rule, labels, sample weights, random generators, buffers."""

import math

import numpy as np
import pytest

from handgrad import SGD, Dense, Dropout, Network, ReLU, Trainer
from handgrad.arrays import (
    COLUMN_MAJOR_ABOVE,
    aligned_empty,
    as_floats,
    check_fraction,
    check_inputs,
    check_int,
    check_labels,
    check_non_negative,
    check_positive,
    check_sample_weight,
    layer_buffer,
    spawn_rngs,
)

BYTES = np.array([[0, 51, 102, 153, 204, 255], [255, 0, 1, 2, 3, 4]])
INTEGERS = [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64]
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def floats(x, image_shape=None, dtype=np.float64):
    """The numbers (count, 6) that a network with six inputs computes with."""
    x = check_inputs(x, 6, image_shape)
    return as_floats(x, np.empty((len(x), 6), dtype))


# ---- The pixel rule --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, np.float32) for kind in (*INTEGERS, np.float16, np.float32, np.float64)), (np.uint8, np.float64)],
)
def test_two_dimensional_arrays_are_numbers_whatever_their_dtype(kind, dtype):
    np.testing.assert_array_equal(floats(BYTES.astype(kind), dtype=dtype), BYTES)


@pytest.mark.parametrize(("kind", "dtype"), [*((kind, np.float32) for kind in INTEGERS), (np.uint8, np.float64)])
def test_integer_images_are_divided_by_255(kind, dtype):
    np.testing.assert_allclose(floats(BYTES.reshape(2, 2, 3).astype(kind), dtype=dtype), BYTES / 255, rtol=1e-7)


@pytest.mark.parametrize("kind", INTEGERS)
def test_an_image_shape_makes_integer_rows_pixels(kind):
    np.testing.assert_allclose(floats(BYTES.astype(kind), (2, 3)), BYTES / 255, rtol=1e-15)


@pytest.mark.parametrize("shape", [(2, 6), (2, 2, 3)])
def test_float_and_boolean_images_are_used_unchanged(shape):
    x = (BYTES / 255).reshape(shape)
    np.testing.assert_array_equal(floats(x, (2, 3)), BYTES / 255)
    np.testing.assert_array_equal(floats(x > 0.5, (2, 3)), BYTES > 127)


@pytest.mark.parametrize("shape", [(2, 2, 3, 1), (2, 1, 2, 3), (2, 1, 2, 1, 3)])
def test_axes_of_length_1_are_ignored(shape):
    np.testing.assert_allclose(floats(BYTES.reshape(shape)), BYTES / 255, rtol=1e-15)
    assert check_inputs(BYTES.reshape(shape), 6).shape == (2, 2, 3)


@pytest.mark.parametrize("count", [1, 2])
def test_checked_bytes_are_a_view(count):
    x = BYTES[:count].astype(np.uint8).reshape(count, 2, 3)
    assert np.shares_memory(check_inputs(x, 6), x)
    assert np.shares_memory(check_inputs(x.reshape(count, 6), 6, (2, 3)), x)


@pytest.mark.parametrize(
    ("x", "image_shape", "message"),
    [
        (np.full((2, 2, 3), 1.5), None, r"float pixels from 1.5 to 1.5: expected \[0, 1\]; divide by"),
        (np.full((2, 2, 3), -0.1), None, r"expected \[0, 1\]"),
        (np.full((2, 6), 255.0), (2, 3), r"expected \[0, 1\]"),
        (np.full((2, 2, 3), 256), None, "integer pixels from 256 to 256: expected 0 to 255"),
        (np.full((2, 2, 3), -1), None, "expected 0 to 255"),
        (np.full((2, 6), 300), (2, 3), "expected 0 to 255"),
        (np.zeros((2, 3, 2)), (2, 3), r"images of \(3, 2\) pixels: expected \(2, 3\)"),
    ],
)
def test_check_inputs_rejects_pixels_out_of_range(x, image_shape, message, rejects):
    with rejects(message):
        check_inputs(x, 6, image_shape)


def test_float_pixels_may_exceed_1_by_rounding():
    x = np.full((1, 2, 3), np.nextafter(np.float32(1), np.float32(2)))
    assert check_inputs(x, 6) is not None


def test_unsigned_bytes_as_features_train_like_the_same_numbers_in_int64():
    """XOR with a column of 2s: once, uint8 features were divided by 255 and int64 features were not."""
    x, y = np.array([[0, 0, 2], [0, 1, 2], [1, 0, 2], [1, 1, 2]]), [0, 1, 1, 0]
    trained = []
    for kind in (np.uint8, np.int64, np.float32):
        network = Network([3, 4, 1], activation="tanh", rng=0)
        Trainer(network, SGD(0.5), batch_size=4, rng=0).fit(x.astype(kind), y, epochs=5)
        trained.append(network.parameters)
    np.testing.assert_array_equal(trained[0], trained[1])
    np.testing.assert_array_equal(trained[0], trained[2])


def test_training_on_images_makes_later_rows_pixels():
    images = np.random.default_rng(0).integers(0, 256, (8, 2, 3), np.uint8)
    network = Network([6, 2], rng=0)
    Trainer(network, SGD(0.1), rng=0).fit(images, np.arange(8) % 2, epochs=1)
    assert network.image_shape == (2, 3)
    expected = network.outputs(images)
    for same in (images.reshape(8, 6), images.astype(np.int64), images.astype(np.int64).reshape(8, 6)):
        np.testing.assert_array_equal(network.outputs(same), expected)
    np.testing.assert_allclose(network.outputs(images / 255), expected, rtol=1e-5, atol=1e-6)


# ---- Other inputs ----------------------------------------------------------------------------------------------------

SPOILED = np.ones((9, 6))
SPOILED[5, 3] = np.nan


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(6), r"shape \(6,\): expected \(6, 6\), or images of 6 pixels; pass a single example as x\[None\]"),
        (np.ones((2, 3)), r"shape \(2, 3\).*x\[None\]"),  # a single image
        (np.ones((9, 5)), r"shape \(9, 5\): expected \(9, 6\)"),
        (np.ones((9, 2, 2)), r"shape \(9, 2, 2\)"),
        (3.0, r"shape \(\)"),
        (np.ones((0, 6)), "at least one example"),
        (SPOILED, r"x\[5, 3\] is nan: expected finite"),
        (np.where(np.isnan(SPOILED), -np.inf, 1), r"x\[5, 3\] is -inf"),
        (np.full((9, 6), 1e300), r"x\[0, 0\] is 1e\+300: expected finite float32"),
        (np.full((9, 6), "a"), "dtype <U1: expected numbers"),
        (np.full((9, 6), 1, object), r"dtype object: expected numbers, .*; convert x, as with x.to_numpy\(float\)"),
        (np.full((9, 6), None), "dtype object: expected numbers"),
        (np.ones((9, 6), complex), "dtype complex128"),
        ([[1, 2, 3, 4, 5, 6], [1]], "different lengths"),
    ],
    ids=str,
)
def test_check_inputs_rejects_what_is_not_a_set_of_examples(x, message, rejects):
    with rejects(message):
        check_inputs(x, 6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_the_search_for_nan_and_infinity_covers_every_row(dtype, rejects):
    x = np.full((5000, 3), 6e4, dtype)  # more than one block, and large squares
    check_inputs(x, 3)
    x[4999, 2] = np.inf
    with rejects(r"x\[4999, 2\] is inf"):
        check_inputs(x, 3)


# ---- Labels and sample weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64, bool])
def test_labels_may_have_any_integer_dtype(kind):
    labels = check_labels(np.array([1, 0, 1], kind), 2, 3)
    np.testing.assert_array_equal(labels, [1, 0, 1])
    assert labels.dtype == np.intp


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 3], "the label 3: expected 0 to 2 for 3 classes"),
        ([0, -1], "the label -1: expected 0 to 2"),
        ([0, 1, 2], r"shape \(3,\): expected \(2,\), one label for each example"),
        ([[0], [1]], r"shape \(2, 1\)"),
        (1, r"shape \(\)"),
        ([0.0, 1.0], "dtype float64: expected integer labels, 0 to 2"),
        (["0", "1"], "dtype <U1: expected integer labels"),
        ([[0], [1, 2]], "different lengths"),
    ],
    ids=str,
)
def test_check_labels_rejects_what_is_not_a_class(y, message, rejects):
    with rejects(message):
        check_labels(y, 3, 2)


@both_dtypes
def test_sample_weights_are_scaled_to_a_mean_of_1(dtype):
    w = check_sample_weight([0, 1, 3], 3, dtype)
    np.testing.assert_allclose(w, [[0], [0.75], [2.25]], rtol=1e-6)
    assert w.dtype == dtype
    np.testing.assert_allclose(check_sample_weight([1e308, 1e308], 2, dtype), 1)


@pytest.mark.parametrize(
    "weights",
    [[1, 1], [[1], [1], [1]], 1.0, ["1", "2", "3"], [1, -1, 1], [0, 0, 0], [1, math.nan, 1], [math.inf, 1, 1]],
)
def test_check_sample_weight_rejects_what_is_not_a_weight(weights, rejects):
    with rejects("sample_weight"):
        check_sample_weight(weights, 3, np.float32)


# ---- Numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "valid", "invalid", "message"),
    [
        (check_positive, [1, 0.5, np.float32(2)], [0, -1, math.nan, math.inf, "1", None], "finite number > 0"),
        (check_non_negative, [0, 1e9, np.int64(2)], [-1e-9, math.nan, math.inf, "1", None], "finite number >= 0"),
        (check_fraction, [0, 0.999, np.float64(0.5)], [1, -0.1, math.nan, "0", None], r"must be in \[0, 1\)"),
    ],
    ids=["positive", "non-negative", "fraction"],
)
def test_numbers_are_returned_or_rejected_with_their_name(check, valid, invalid, message, rejects):
    numbers = [check("size", value) for value in valid]
    assert numbers == valid
    assert {type(number) for number in numbers} == {float}  # a float32 of NumPy cannot be written as JSON
    for value in invalid:
        with rejects(f"size must be.*{message}|size {message}"):
            check("size", value)


def test_check_int_accepts_integers_of_any_type_and_nothing_else(rejects):
    n = check_int("size", np.int8(3), 1)
    assert (n, type(n)) == (3, int)
    for value in (0, -1, 2.0, "3", None):
        with rejects("size must be an integer >= 1"):
            check_int("size", value, 1)


# ---- Random generators -----------------------------------------------------------------------------------------------


def draws(rng):
    return [generator.integers(2**62) for generator in spawn_rngs(rng)]


@pytest.mark.parametrize("seed", [0, 12345, np.int64(7)])
def test_the_same_integer_gives_the_same_generators(seed):
    assert draws(seed) == draws(seed)
    assert len(set(draws(seed))) == 3
    assert draws(seed) != draws(seed + 1)


def test_the_position_of_a_generator_counts():
    fresh, advanced = np.random.default_rng(0), np.random.default_rng(0)
    advanced.random(1000)
    assert draws(fresh) != draws(advanced)
    assert draws(np.random.default_rng(0)) == draws(np.random.default_rng(0))


def test_a_generator_advances_so_that_two_networks_differ():
    rng = np.random.default_rng(0)
    first, second = Network([4, 3], rng=rng), Network([4, 3], rng=rng)
    assert (first.parameters != second.parameters).all()
    np.testing.assert_array_equal(Network([4, 3], rng=np.random.default_rng(0)).parameters, first.parameters)


def test_a_seed_sequence_spawns_the_generators_of_its_entropy():
    assert draws(np.random.SeedSequence(3)) == draws(3)
    sequence = np.random.SeedSequence(3)
    assert draws(sequence) != draws(sequence)


def test_without_a_seed_every_call_gives_different_generators():
    assert draws(None) != draws(None)


@pytest.mark.parametrize("rng", [-1, 3.5, "a", np.random.RandomState(0)], ids=str)
def test_spawn_rngs_rejects_what_is_not_a_seed(rng, rejects):
    with rejects("rng must be an integer >= 0, a Generator or None"):
        Network([3, 2], rng=rng)


def test_layers_and_dropout_draw_from_separate_generators():
    """Dropout does not change the initial weights, and the size of a layer does not change the dropout masks."""
    plain = Network([Dense(8, 7), Dense(7, 3)], rng=5)
    with_dropout = Network([Dropout(), Dense(8, 7), Dropout(), Dense(7, 3)], rng=5)
    np.testing.assert_array_equal(plain.parameters, with_dropout.parameters)
    narrow, wide = (Network([Dense(n, 4), Dropout()], rng=5).layers[1].rng.random(8) for n in (3, 300))
    np.testing.assert_array_equal(narrow, wide)


# ---- Buffers ---------------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("count", [1, 17, 100_000])
def test_aligned_empty_starts_at_a_cache_line(count, dtype):
    vectors = [aligned_empty(count, dtype) for _ in range(5)]
    assert {v.ctypes.data % 64 for v in vectors} == {0}
    assert {(v.shape, v.dtype) for v in vectors} == {((count,), np.dtype(dtype))}


def test_large_layer_buffers_are_column_major():
    assert layer_buffer(COLUMN_MAJOR_ABOVE // 32, 32, np.float32).flags.c_contiguous
    large = layer_buffer(COLUMN_MAJOR_ABOVE // 32 + 1, 32, np.float32)
    assert large.flags.f_contiguous
    assert large.ctypes.data % 64 == 0


@pytest.mark.parametrize("copied", [lambda n: n, lambda n: n.astype(np.float64)], ids=["new", "astype"])
def test_every_array_of_a_step_starts_at_a_cache_line(copied):
    network = copied(Network([Dense(6, 5), ReLU(), Dense(5, 4)], rng=0))
    network.backprop(np.ones((9, 6), network.dtype), np.ones((9, 4), network.dtype))
    dense, relu, _ = network.layers
    arrays = [network.parameters, network.gradient, dense.z, dense.dx, relu.a, relu.dz, relu.zeros, network.loss.dz]
    assert [a.ctypes.data % 64 for a in arrays] == [0] * len(arrays)


@pytest.mark.parametrize("error", [RuntimeError, TypeError])
def test_a_tensor_that_cannot_be_an_array_is_rejected_with_the_remedy_of_its_library(error, rejects):
    class Tensor:
        def __array__(self, *_, **__):
            raise error("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    with rejects(r"x is a Tensor that is not an array: .* Use tensor.detach\(\).numpy\(\) instead"):
        check_inputs(Tensor(), 4)
