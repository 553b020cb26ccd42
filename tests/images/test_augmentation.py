"""Augmentation: the position that each pixel is read from, the strength of each distortion, random generators."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad.images import augmentation
from handgrad.images.augmentation import Augmentation

STRENGTHS = {"rotation": 20, "scale": 0.2, "shear": 0.2, "shift": 2, "elastic": 1.5}


def sample_images(count=9, height=9, width=7):
    return np.random.default_rng(0).integers(0, 256, (count, height * width), np.uint8)


def augmented(x, height=9, width=7, seed=0, dtype=np.float32, **strengths):
    out = np.full(x.shape, np.nan, dtype)
    assert Augmentation(height, width, **strengths)(x, np.random.default_rng(seed), out) is out
    return out


def interpolate(image, v, u):
    """The value at a position between four pixels, by the definition; pixels outside the image are 0."""
    i, j = math.floor(v), math.floor(u)
    total = 0.0
    for row in (i, i + 1):
        for column in (j, j + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += (1 - abs(v - row)) * (1 - abs(u - column)) * image[row, column]
    return total / 255


# ---- Positions -------------------------------------------------------------------------------------------------------


def test_without_distortion_the_images_are_unchanged():
    np.testing.assert_allclose(augmented(sample_images()), sample_images() / 255, rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_every_pixel_is_interpolated_at_the_position_of_the_matrix_product(height, width, seed):
    augment = Augmentation(height, width, **STRENGTHS, smoothness=3)
    x = sample_images(5, height, width)
    coefficients = augment._draw(5, np.random.default_rng(seed)).astype(np.float64)
    out = augment(x, np.random.default_rng(seed), np.empty(x.shape, np.float32))
    v, u = coefficients @ augment.basis.astype(np.float64)
    for n in range(5):
        expected = [interpolate(x[n].reshape(height, width), *position) for position in zip(v[n], u[n], strict=True)]
        np.testing.assert_allclose(out[n], expected, rtol=0, atol=2e-5)


def positions(count=1, **strengths):
    """v and u, each (count, 9, 7)."""
    augment = Augmentation(9, 7, **strengths)
    return (augment._draw(count, np.random.default_rng(3)) @ augment.basis).reshape(2, count, 9, 7)


ROW, COLUMN = np.mgrid[:9, :7].astype(np.float64)


def test_shift_moves_all_pixels_equally_within_its_range():
    v, u = positions(500, shift=1.5)
    for position, original in ((v, ROW), (u, COLUMN)):
        shift = position - original
        np.testing.assert_allclose(shift, shift[:, :1, :1] + 0 * shift, atol=1e-5)
        assert 1.4 < np.abs(shift).max() <= 1.5 + 1e-5
        assert abs(shift.mean()) < 0.15


def test_rotation_keeps_distances_and_stays_within_its_range():
    v, u = positions(500, rotation=30)
    np.testing.assert_allclose(np.hypot(v - 4, u - 3), np.hypot(ROW - 4, COLUMN - 3) + 0 * v, atol=1e-4)
    angles = np.degrees(np.arctan2(v[:, 8, 3] - 4, u[:, 8, 3] - 3)) - 90  # of the pixel directly below the centre
    assert 28 < np.abs(angles).max() <= 30.001
    assert angles.min() < -25
    assert angles.max() > 25


def test_scale_changes_height_and_width_independently():
    v, u = positions(500, scale=0.25)
    tall, wide = (v[:, 8, 3] - v[:, 0, 3]) / 8, (u[:, 4, 6] - u[:, 4, 0]) / 6
    for size in (tall, wide):
        assert 1 / 1.25 - 1e-5 <= size.min() < 0.82
        assert 1.3 < size.max() <= 1 / 0.75 + 1e-5
    assert abs(np.corrcoef(tall, wide)[0, 1]) < 0.2


def test_shear_shifts_rows_in_proportion_to_their_height():
    v, u = positions(500, shear=0.5)
    np.testing.assert_allclose(v, ROW + 0 * v, atol=1e-5)
    slant = (u[:, 8, 0] - u[:, 0, 0]) / 8
    np.testing.assert_allclose(u - COLUMN, slant[:, None, None] * (ROW - 4), atol=1e-4)
    assert 0.45 < np.abs(slant).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("smoothness", [1.5, 4.0])
def test_elastic_field_has_the_given_strength_and_smoothness(smoothness):
    v, u = positions(4000, elastic=1.2, smoothness=smoothness)
    down, across = v - ROW, u - COLUMN
    assert math.sqrt(np.mean(down**2 + across**2)) == pytest.approx(1.2, rel=0.03)
    assert abs(np.mean(down * across)) < 0.03
    for distance in (1, 3):
        correlation = np.mean(down[:, 1:-1, :-distance] * down[:, 1:-1, distance:]) / np.mean(down[:, 1:-1] ** 2)
        assert correlation == pytest.approx(math.exp(-(distance**2) / (4 * smoothness**2)), abs=0.06)


def test_blurred_noise_has_the_covariance_of_the_elastic_field():
    """Simard's method, at the centre of a strip so wide that the blur does not reach its ends."""
    smoothness, size = 2.0, 41
    at = np.arange(size)
    blur = np.exp(-((at[:, None] - at) ** 2) / (2 * smoothness**2))
    covariance = blur @ blur.T
    centre = covariance[20, 15:26] / covariance[20, 20]
    np.testing.assert_allclose(centre, np.exp(-((at[15:26] - 20.0) ** 2) / (4 * smoothness**2)), atol=1e-6)


def test_pixels_from_outside_the_image_are_zero():
    white = np.full((200, 63), 255, np.uint8)
    out = augmented(white, shift=30)
    assert out.min() == 0
    assert out.max() <= 1 + 1e-6
    assert (out.reshape(200, -1).max(axis=1) == 0).sum() > 50  # shifted out of the image completely


# ---- Random generators, shapes and dtypes ----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits():
    x = sample_images()
    np.testing.assert_array_equal(augmented(x, seed=1, **STRENGTHS), augmented(x, seed=1, **STRENGTHS))
    assert not np.array_equal(augmented(x, seed=1, **STRENGTHS), augmented(x, seed=2, **STRENGTHS))


def test_every_image_is_transformed_differently():
    same = np.repeat(sample_images(1), 6, axis=0)
    assert len({row.tobytes() for row in augmented(same, **STRENGTHS)}) == 6


def test_images_beyond_the_first_block_are_transformed(monkeypatch):
    monkeypatch.setattr(augmentation, "BLOCK_PIXELS", 4 * 63)
    out = augmented(sample_images(10), shift=0.5)
    assert np.isfinite(out).all()
    assert (out.max(axis=1) > 0).all()


def test_threads_may_call_the_same_augmentation(monkeypatch):
    monkeypatch.setattr(augmentation, "BLOCK_PIXELS", 63)
    augment, x = Augmentation(9, 7, **STRENGTHS), sample_images(200)

    def call(seed):
        return augment(x, np.random.default_rng(seed), np.empty(x.shape, np.float32))

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(call, range(8)))
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, call(seed))


def test_x_is_not_modified_and_the_result_has_the_dtype_of_out():
    x = sample_images()
    x.flags.writeable = False
    assert augmented(x, **STRENGTHS).dtype == np.float32
    np.testing.assert_allclose(augmented(x, dtype=np.float64, **STRENGTHS), augmented(x, **STRENGTHS), atol=1e-6)


def test_images_and_flat_images_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(augmentation, "BLOCK_PIXELS", 4 * 63)
    flat = sample_images(10)
    images, augment = flat.reshape(10, 9, 7), Augmentation(9, 7, **STRENGTHS)
    expected = augmented(flat, **STRENGTHS)
    for x in (flat, images):
        for shape in ((10, 63), (10, 9, 7)):
            out = augment(x, np.random.default_rng(0), np.empty(shape, np.float32))
            np.testing.assert_array_equal(out.reshape(10, 63), expected)
    strided = np.zeros((10, 126), np.float32)[:, ::2]
    np.testing.assert_array_equal(augment(images, np.random.default_rng(0), strided), expected)


def test_repr_shows_the_strengths_in_use():
    assert repr(Augmentation(9, 7)) == "Augmentation(9, 7)"
    assert repr(Augmentation(9, 7, rotation=7.5, elastic=1, smoothness=3)) == (
        "Augmentation(9, 7, rotation=7.5, elastic=1, smoothness=3)"
    )


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"rotation": -1}, "rotation must be a finite number >= 0, got -1"),
        ({"scale": 1.0}, r"scale must be in \[0, 1\), got 1.0"),
        ({"shift": math.nan}, "shift must be .* got nan"),
        ({"elastic": math.inf}, "elastic must be .* got inf"),
        ({"smoothness": 0}, "smoothness must be a finite number > 0, got 0"),
    ],
    ids=str,
)
def test_invalid_strength_raises(strengths, message, rejects):
    with rejects(message):
        Augmentation(9, 7, **strengths)


def test_invalid_images_raise(rejects):
    augment = Augmentation(9, 7, shift=1)
    for x in (sample_images().astype(np.float32), sample_images(2, 7, 8), sample_images(2).reshape(2, 7, 9)):
        with rejects(r"expects uint8 images \(count, 9, 7\) or \(count, 63\)"):
            augment(x, np.random.default_rng(0), np.empty(x.shape, np.float32))
    with rejects(r"out has shape \(2, 63\): .* with the 3 images of x"):
        augment(sample_images(3), np.random.default_rng(0), np.empty((2, 63), np.float32))
    with rejects("height"):
        Augmentation(0, 7)
