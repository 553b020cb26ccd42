"""New pictures of old ones: where every pixel is read from, how far the elastic part moves it, from which stream."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import augmentation
from handgrad.augmentation import Augmentation

STRENGTHS = {"rotation": 20, "scale": 0.2, "shear": 0.2, "shift": 2, "elastic": 1.5}


def pictures(count=9, height=9, width=7):
    return np.random.default_rng(0).integers(0, 256, (count, height * width), np.uint8)


def moved(x, height=9, width=7, seed=0, dtype=np.float32, **strengths):
    out = np.full(x.shape, np.nan, dtype)
    assert Augmentation(height, width, **strengths)(x, np.random.default_rng(seed), out) is out
    return out


def read_at(picture, v, u):
    """The value between four pixels, by the definition; outside the picture all is 0."""
    i, j = math.floor(v), math.floor(u)
    total = 0.0
    for row in (i, i + 1):
        for column in (j, j + 1):
            if 0 <= row < picture.shape[0] and 0 <= column < picture.shape[1]:
                total += (1 - abs(v - row)) * (1 - abs(u - column)) * picture[row, column]
    return total / 255


# ---- Where pixels come from ------------------------------------------------------------------------------------------


def test_without_any_strength_pictures_stay_as_they_are():
    np.testing.assert_allclose(moved(pictures()), pictures() / 255, rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_every_pixel_is_read_where_the_product_of_matrices_says(height, width, seed):
    make = Augmentation(height, width, **STRENGTHS, smoothness=3)
    x = pictures(5, height, width)
    drawn = make._draw(5, np.random.default_rng(seed)).astype(np.float64)
    out = make(x, np.random.default_rng(seed), np.empty(x.shape, np.float32))
    v, u = drawn @ make.basis.astype(np.float64)
    for n in range(5):
        expected = [read_at(x[n].reshape(height, width), *place) for place in zip(v[n], u[n], strict=True)]
        np.testing.assert_allclose(out[n], expected, rtol=0, atol=2e-5)


def places(count=1, **strengths):
    """v and u (count, 9, 7) of pictures moved so."""
    make = Augmentation(9, 7, **strengths)
    return (make._draw(count, np.random.default_rng(3)) @ make.basis).reshape(2, count, 9, 7)


ROW, COLUMN = np.mgrid[:9, :7].astype(np.float64)


def test_a_shift_moves_all_pixels_alike_by_no_more_than_it_says():
    v, u = places(500, shift=1.5)
    for place, where in ((v, ROW), (u, COLUMN)):
        by = place - where
        np.testing.assert_allclose(by, by[:, :1, :1] + 0 * by, atol=1e-5)
        assert 1.4 < np.abs(by).max() <= 1.5 + 1e-5
        assert abs(by.mean()) < 0.15


def test_a_rotation_keeps_distances_and_turns_by_no_more_than_it_says():
    v, u = places(500, rotation=30)
    np.testing.assert_allclose(np.hypot(v - 4, u - 3), np.hypot(ROW - 4, COLUMN - 3) + 0 * v, atol=1e-4)
    angles = np.degrees(np.arctan2(v[:, 8, 3] - 4, u[:, 8, 3] - 3)) - 90  # of the pixel right below the middle
    assert 28 < np.abs(angles).max() <= 30.001
    assert angles.min() < -25
    assert angles.max() > 25


def test_scale_sizes_height_and_width_each_on_its_own():
    v, u = places(500, scale=0.25)
    tall, wide = (v[:, 8, 3] - v[:, 0, 3]) / 8, (u[:, 4, 6] - u[:, 4, 0]) / 6
    for size in (tall, wide):
        assert 1 / 1.25 - 1e-5 <= size.min() < 0.82
        assert 1.3 < size.max() <= 1 / 0.75 + 1e-5
    assert abs(np.corrcoef(tall, wide)[0, 1]) < 0.2


def test_shear_moves_columns_by_height_alone():
    v, u = places(500, shear=0.5)
    np.testing.assert_allclose(v, ROW + 0 * v, atol=1e-5)
    slant = (u[:, 8, 0] - u[:, 0, 0]) / 8
    np.testing.assert_allclose(u - COLUMN, slant[:, None, None] * (ROW - 4), atol=1e-4)
    assert 0.45 < np.abs(slant).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("smoothness", [1.5, 4.0])
def test_the_elastic_part_is_as_strong_and_as_smooth_as_it_says(smoothness):
    v, u = places(4000, elastic=1.2, smoothness=smoothness)
    down, across = v - ROW, u - COLUMN
    assert math.sqrt(np.mean(down**2 + across**2)) == pytest.approx(1.2, rel=0.03)
    assert abs(np.mean(down * across)) < 0.03
    for far in (1, 3):
        beside = np.mean(down[:, 1:-1, :-far] * down[:, 1:-1, far:]) / np.mean(down[:, 1:-1] ** 2)
        assert beside == pytest.approx(math.exp(-(far**2) / (4 * smoothness**2)), abs=0.06)


def test_noise_that_is_blurred_has_the_covariance_that_the_field_is_made_from():
    """Simard's way, in the middle of a wide strip where the blur does not see the ends."""
    smoothness, size = 2.0, 41
    at = np.arange(size)
    blur = np.exp(-((at[:, None] - at) ** 2) / (2 * smoothness**2))
    covariance = blur @ blur.T
    middle = covariance[20, 15:26] / covariance[20, 20]
    np.testing.assert_allclose(middle, np.exp(-((at[15:26] - 20.0) ** 2) / (4 * smoothness**2)), atol=1e-6)


def test_what_comes_from_beyond_the_picture_is_paper():
    white = np.full((200, 63), 255, np.uint8)
    out = moved(white, shift=30)
    assert out.min() == 0
    assert out.max() <= 1 + 1e-6
    assert (out.reshape(200, -1).max(axis=1) == 0).sum() > 50  # moved out of sight


# ---- Streams and shapes ----------------------------------------------------------------------------------------------


def test_the_same_stream_gives_the_same_bits_and_another_others():
    x = pictures()
    np.testing.assert_array_equal(moved(x, seed=1, **STRENGTHS), moved(x, seed=1, **STRENGTHS))
    assert not np.array_equal(moved(x, seed=1, **STRENGTHS), moved(x, seed=2, **STRENGTHS))


def test_every_picture_is_moved_in_its_own_way():
    same = np.repeat(pictures(1), 6, axis=0)
    assert len({row.tobytes() for row in moved(same, **STRENGTHS)}) == 6


def test_more_pictures_than_a_block_are_all_made(monkeypatch):
    monkeypatch.setattr(augmentation, "BLOCK", 4 * 63)
    out = moved(pictures(10), shift=0.5)
    assert np.isfinite(out).all()
    assert (out.max(axis=1) > 0).all()


def test_the_examples_are_only_read_and_the_result_has_the_dtype_of_its_room():
    x = pictures()
    x.flags.writeable = False
    assert moved(x, **STRENGTHS).dtype == np.float32
    np.testing.assert_allclose(moved(x, dtype=np.float64, **STRENGTHS), moved(x, **STRENGTHS), atol=1e-6)


@pytest.mark.parametrize(
    ("strengths", "said"),
    [
        ({"rotation": -1}, "rotation -1: expected a finite number, 0 or more"),
        ({"scale": 1.0}, r"scale 1.0: expected 0 or more, below 1"),
        ({"shift": math.nan}, "shift nan"),
        ({"elastic": math.inf}, "elastic inf"),
        ({"smoothness": 0}, "smoothness 0: expected"),
    ],
    ids=str,
)
def test_a_strength_that_is_none_is_refused(strengths, said, refused):
    with refused(said):
        Augmentation(9, 7, **strengths)


def test_what_are_no_pictures_of_its_size_as_bytes_is_refused(refused):
    make = Augmentation(9, 7, shift=1)
    for x in (pictures().astype(np.float32), pictures(2, 7, 8)):
        with refused("expected pictures as bytes"):
            make(x, np.random.default_rng(0), np.empty(x.shape, np.float32))
    with refused("a picture of height 0"):
        Augmentation(0, 7)
