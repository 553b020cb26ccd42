"""Deskew: the equations checked pixel by pixel for many sizes and dtypes, shrinking, and invalid inputs."""

import numpy as np
import pytest

from handgrad import Deskew
from handgrad.images import deskew as deskew_module
from handgrad.preprocessing import Preprocessing

SIZES = [(8, 8), (28, 28), (5, 9), (9, 4), (1, 6), (6, 1), (1, 1), (2, 2), (2, 11)]
# Maximum difference from the reference for pixels in [0, 1]: rounding of the dtype of the computation.
TOLERANCE = {np.float64: 1e-9, np.float32: 1e-4, np.float16: 2e-3}


def moments(p):
    """(cy, cx, a) of one image by the definition, or None if the image is all zeros."""
    y, x = np.mgrid[: p.shape[0], : p.shape[1]]
    m = p.sum()
    if m == 0:
        return None
    cy, cx = (p * y).sum() / m, (p * x).sum() / m
    var_y, cov = (p * (y - cy) ** 2).sum() / m, (p * (x - cx) * (y - cy)).sum() / m
    return cy, cx, cov / var_y if p.any(axis=1).sum() > 1 else 0.0


def reference(image):
    """The deskewed image in float64, one pixel after the other."""
    p = image.astype(np.float64)
    found, (height, width) = moments(p), p.shape
    if found is None:
        return p

    def at(row, column):
        return p[row, column] if 0 <= row < height and 0 <= column < width else 0.0

    (cy, cx, a), ym, xm = found, (height - 1) / 2, (width - 1) / 2
    out = np.empty_like(p)
    for y in range(height):
        for x in range(width):
            v, u = y + cy - ym, x + a * (y - ym) + cx - xm
            row, column = int(np.floor(v)), int(np.floor(u))
            f, g = v - row, u - column
            upper = (1 - g) * at(row, column) + g * at(row, column + 1)
            lower = (1 - g) * at(row + 1, column) + g * at(row + 1, column + 1)
            out[y, x] = (1 - f) * upper + f * lower
    return out


def sample_images(height, width):
    """uint8: noise of many densities, all zeros, single pixels in the corners, steep and flat lines."""
    rng = np.random.default_rng(height * 100 + width)
    density = np.linspace(0.02, 1, 12)[:, None, None]
    noise = rng.integers(1, 256, (12, height, width)) * (rng.random((12, height, width)) < density)
    special = np.zeros((9, height, width), int)
    special[1, 0, 0] = special[2, -1, -1] = special[3, 0, -1] = special[4, -1, 0] = 255
    special[5, height // 2] = 255
    special[6, :, width // 2] = 200
    special[7, 0, 0] = special[7, min(1, height - 1), -1] = 255  # the flattest possible line, which is torn apart
    special[8, -1, : width // 2 + 1] = 90
    return np.concatenate([noise, special]).astype(np.uint8)


def stroke(slant=0.0, dy=0.0, dx=0.0, size=28):
    """A smooth shape without slant, a vertical bar with a dot on its right, then sheared and shifted."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    y = y - dy
    x = x - dx - slant * y
    bar = np.exp(-((x / 1.8) ** 2) - (y / 6) ** 2)
    return np.minimum(1, bar + 0.6 * np.exp(-(((x - 4) / 1.5) ** 2) - (y / 2) ** 2))


# ---- Equations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_uint8_images_equal_the_rounded_reference(size):
    images = sample_images(*size)
    out = Deskew(*size)(images.reshape(len(images), -1))
    assert out.dtype == np.uint8
    for result, image in zip(out.reshape(images.shape), images, strict=True):
        assert np.abs(result - reference(image)).max() < 0.5 + 1e-3


@pytest.mark.parametrize(
    ("size", "dtype"),
    [*((size, np.float64) for size in SIZES), ((8, 8), np.float32), ((2, 11), np.float32), ((5, 9), np.float16)],
)
def test_float_images_equal_the_reference(size, dtype):
    images = (sample_images(*size) / 255).astype(dtype)
    out = Deskew(*size)(images)
    assert (out.dtype, out.shape) == (dtype, images.shape)
    for result, image in zip(out, images, strict=True):
        np.testing.assert_allclose(result, reference(image), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint32, ">f4", bool])
def test_the_result_has_the_dtype_of_the_input(dtype):
    images = (sample_images(6, 7) > 100).astype(dtype)
    out = Deskew(6, 7)(images)
    assert out.dtype == dtype
    atol = 1e-5 if out.dtype.kind == "f" else 0.5 + 1e-5
    for result, image in zip(out, images, strict=True):
        np.testing.assert_allclose(result.astype(float), reference(image), rtol=0, atol=atol)


@pytest.mark.parametrize("pixels", [1, 70, 200])
def test_any_block_size_gives_the_same_bits(pixels, monkeypatch):
    x = sample_images(5, 7)
    expected = Deskew(5, 7)(x)
    monkeypatch.setattr(deskew_module, "BLOCK_PIXELS", pixels)
    np.testing.assert_array_equal(Deskew(5, 7)(x), expected)
    np.testing.assert_array_equal([Deskew(5, 7)(image[None])[0] for image in x], expected)


# ---- Behaviour -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slant", "dy", "dx"), [(0, 0, 0), (0.5, 0, 0), (-0.6, 2.3, -3.4), (0.3, -1.5, 2), (0, 3, 0.7)]
)
def test_a_sheared_and_shifted_shape_is_restored(slant, dy, dx):
    out = Deskew(28, 28)(stroke(slant, dy, dx)[None])[0]
    cy, cx, a = moments(out)
    assert (cy, cx) == pytest.approx((13.5, 13.5), abs=0.02)
    assert abs(a) < 0.02
    offset = moments(stroke())[1] - 13.5  # the dot moves the centre of mass to the right
    np.testing.assert_allclose(out, stroke(dx=-offset), rtol=0, atol=0.12)  # interpolation blurs a little


def test_deskewing_twice_changes_little():
    x = np.stack([stroke(0.5, 2, 1), stroke(-0.4, 1, -3), stroke(0.2)])
    once = Deskew(28, 28)(x)
    twice = Deskew(28, 28)(once)
    assert np.abs(twice - once).max() < 0.05 < np.abs(once - x).max()
    centred = np.zeros((1, 8, 8), np.uint8)
    centred[0, 2:6, 3:5] = 77
    np.testing.assert_array_equal(Deskew(8, 8)(centred), centred)  # exactly


def test_an_image_of_zeros_is_unchanged_and_a_single_row_has_no_slant():
    x = np.zeros((3, 7, 7), np.float32)
    x[1, 6, 2:4] = 1
    out = Deskew(7, 7)(x)
    assert not out[[0, 2]].any()
    np.testing.assert_allclose(out[1, 3], [0, 0, 0.5, 1, 0.5, 0, 0])
    assert out[1].sum() == 2


def test_rows_that_are_shifted_out_of_the_image_are_zero():
    x = np.zeros((2, 6, 8))
    x[0, [0, 0, 5, 5], [0, 7, 0, 7]] = 1
    x[0, 2, 0] = x[0, 3, 7] = 255  # so flat a line that the first and the last row are shifted by 15 pixels
    x[1] = x[0, :, ::-1]
    np.testing.assert_allclose(Deskew(6, 8)(x), [reference(image) for image in x], rtol=0, atol=1e-9)


def test_rounding_of_the_variance_of_a_single_row_gives_no_slant():
    rng = np.random.default_rng(0)
    x = np.zeros((600, 8, 8))
    x[np.arange(600), np.arange(600) % 8] = rng.random((600, 8))
    np.testing.assert_allclose(Deskew(8, 8)(x), [reference(image) for image in x], rtol=0, atol=1e-9)


def test_an_image_with_infinite_moments_is_unchanged():
    x = np.zeros((2, 6, 6), np.float32)
    x[0, :, :5], x[1, 0, 0] = 3e38, 1
    out = Deskew(6, 6)(x)
    np.testing.assert_array_equal(out[0], x[0])
    np.testing.assert_allclose(out[1, 2:4, 2:4], 0.25)


# ---- Shrinking -------------------------------------------------------------------------------------------------------


def block_means(image, s):
    """The mean of each block of s x s pixels, one block after the other."""
    height, width = image.shape
    out = np.empty((height // s, width // s))
    for i in range(height // s):
        for j in range(width // s):
            out[i, j] = image[i * s : (i + 1) * s, j * s : (j + 1) * s].astype(np.float64).mean()
    return out


@pytest.mark.parametrize(
    ("height", "width", "shrink", "dtype"),
    [
        *((*sizes, np.float64) for sizes in [(28, 28, 2), (28, 28, 7), (6, 9, 3), (5, 5, 5), (1, 3, 1), (2, 2, 2)]),
        (6, 9, 3, np.float32),
        (6, 9, 3, np.float16),
    ],
)
def test_float_images_shrink_to_block_means(height, width, shrink, dtype):
    images = (sample_images(height, width) / 255).astype(dtype)
    full, small = Deskew(height, width)(images), Deskew(height, width, shrink)(images)
    assert (small.shape, small.dtype) == ((len(images), height // shrink, width // shrink), dtype)
    for result, image in zip(small, full, strict=True):
        np.testing.assert_allclose(result, block_means(image, shrink), atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "shrink", "dtype"),
    [(28, 28, 2, np.uint8), (6, 9, 3, np.uint8), (1, 3, 1, np.uint8), (4, 6, 2, np.int64)],
)
def test_integer_images_shrink_to_rounded_block_means(height, width, shrink, dtype):
    images = sample_images(height, width).astype(dtype)
    full, small = Deskew(height, width)(images), Deskew(height, width, shrink)(images)
    assert small.dtype == dtype
    for result, image in zip(small, full, strict=True):
        assert np.abs(result - block_means(image, shrink)).max() <= 0.5 + 1e-4


def test_shrinking_uint8_does_not_overflow():
    white = np.full((3, 28, 28), 255, np.uint8)
    np.testing.assert_array_equal(Deskew(28, 28, 4)(white), np.full((3, 7, 7), 255))


def test_shrinking_flat_images_and_into_out():
    images, deskew = sample_images(4, 6), Deskew(4, 6, 2)
    flat = deskew(images.reshape(-1, 24))
    assert flat.shape == (len(images), 6)
    np.testing.assert_array_equal(deskew(images), flat.reshape(-1, 2, 3))
    out = np.empty((len(images), 6), np.uint8)
    assert deskew(images.reshape(-1, 24), out=out) is out
    np.testing.assert_array_equal(out, flat)


def test_any_block_size_shrinks_to_the_same_bits(monkeypatch):
    images = sample_images(6, 4)
    expected = Deskew(6, 4, 2)(images)
    for pixels in (1, 24, 24 * 5):
        monkeypatch.setattr(deskew_module, "BLOCK_PIXELS", pixels)
        np.testing.assert_array_equal(Deskew(6, 4, 2)(images), expected)


# ---- Configuration ---------------------------------------------------------------------------------------------------


def test_sizes_and_image_shapes():
    deskew = Deskew(4, 6, 2)
    assert (deskew.n_in, deskew.image_shape_in) == (24, (4, 6))
    assert (deskew.n_out, deskew.image_shape_out) == (6, (2, 3))
    assert (Deskew(4, 6).n_out, Deskew(4, 6).image_shape_out) == (24, (4, 6))


def test_config_recreates_the_object():
    deskew = Deskew(height=4, width=np.int64(6))
    assert isinstance(deskew, Preprocessing)
    assert repr(deskew) == "Deskew(height=4, width=6)"
    assert deskew.config() == Deskew(4, 6, 1).config() == {"height": 4, "width": 6}
    assert repr(Deskew(**deskew.config())) == repr(deskew)
    assert repr(Deskew(4, 6, 2)) == "Deskew(height=4, width=6, shrink=2)"
    assert Deskew(4, 6, 2).config() == {"height": 4, "width": 6, "shrink": 2}


def test_preprocessing_without_images_has_no_image_shapes():
    class Halve(Preprocessing):
        n_in = n_out = 3

        def __call__(self, x, out=None):
            return np.multiply(x, 0.5, out=out)

        def config(self):
            return {"n": 3}

    assert (Halve().image_shape_in, Halve().image_shape_out) == (None, None)
    assert repr(Halve()) == "Halve(n=3)"


@pytest.mark.parametrize(
    ("height", "width", "shrink", "message"),
    [
        (28, 28, 3, "shrink must divide both sides of images of 28x28 pixels, got 3"),
        (6, 4, 3, "shrink must divide"),
        (4, 4, 8, "shrink must be at most 4 for images of 4x4 pixels, got 8"),
        (4, 8, 10**100, "shrink must be at most 4"),
        *[(4, 4, 0, "shrink"), (4, 4, -2, "shrink"), (4, 4, 2.0, "shrink")],
    ],
)
def test_invalid_shrink_raises(height, width, shrink, message, rejects):
    with rejects(message):
        Deskew(height, width, shrink)


@pytest.mark.parametrize(
    ("height", "width", "name"), [(0, 3, "height"), (3, -1, "width"), (2.0, 2, "height"), (2, "3", "width")]
)
def test_invalid_size_raises(height, width, name, rejects):
    with rejects(name):
        Deskew(height, width)


# ---- Arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_x_is_not_modified_and_out_is_written(dtype):
    x = sample_images(6, 5).reshape(-1, 30).astype(dtype)
    x.flags.writeable = False
    before, deskew = x.copy(), Deskew(6, 5)
    expected = deskew(x)
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(expected, x)
    out = np.full_like(x, 7)
    assert deskew(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    strided = np.zeros((len(x), 60), dtype)[:, ::2]
    np.testing.assert_array_equal(deskew(np.asfortranarray(x), out=strided), expected)
    in_place = x.copy()
    deskew(in_place, out=in_place)
    np.testing.assert_array_equal(in_place, expected)


def test_flat_images_and_images_give_the_same_result():
    images = sample_images(4, 6)
    flat = Deskew(4, 6)(images.reshape(-1, 24))
    assert flat.shape == (len(images), 24)
    np.testing.assert_array_equal(Deskew(4, 6)(images), flat.reshape(images.shape))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 11)), r"shape \(2, 11\)"),
        (np.ones((2, 4, 3)), r"shape \(2, 4, 3\): .* expects \(count, 3, 4\) or \(count, 12\)"),
        (np.ones(12), r"shape \(12,\)"),
        (np.ones((0, 12)), r"shape \(0, 12\)"),
        (np.full((2, 12), np.nan), r"x\[0, 0\]"),
        (np.full((2, 12), "a"), "<U1"),
        (np.eye(2, 12) - 0.5, r"x contains -0.5: Deskew\(height=3, width=4\) expects pixels of 0 "),
        (-np.eye(2, 12, dtype=int), "x contains -1"),
    ],
    ids=str,
)
def test_invalid_images_raise(x, message, rejects):
    with rejects(message):
        Deskew(3, 4)(x)
