"""Preprocessing: the moments' equation pixel by pixel, whatever the pictures' size and type, and what is no picture."""

import numpy as np
import pytest

from handgrad import Deskew, preprocessing
from handgrad.preprocessing import PREPROCESSING, Preprocessing

SIZES = [(8, 8), (28, 28), (5, 9), (9, 4), (1, 6), (6, 1), (1, 1), (2, 2), (2, 11)]
# How far a result may be from the reference's, of 1: rounding of the type it is computed in.
ROUNDING = {np.float64: 1e-9, np.float32: 1e-4, np.float16: 2e-3}


def moments(p):
    """(cy, cx, a) of one picture, or None without ink, by the equations as they stand."""
    y, x = np.mgrid[: p.shape[0], : p.shape[1]]
    m = p.sum()
    if m == 0:
        return None
    cy, cx = (p * y).sum() / m, (p * x).sum() / m
    var_y, cov = (p * (y - cy) ** 2).sum() / m, (p * (x - cx) * (y - cy)).sum() / m
    return cy, cx, cov / var_y if p.any(axis=1).sum() > 1 else 0.0


def reference(picture):
    """The deskewed picture, in float64, one pixel after the other."""
    p = picture.astype(np.float64)
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


def some_pictures(height, width):
    """Noise of all densities, pictures without ink, single pixels in every corner, steep and flat lines: bytes."""
    rng = np.random.default_rng(height * 100 + width)
    density = np.linspace(0.02, 1, 12)[:, None, None]
    noise = rng.integers(1, 256, (12, height, width)) * (rng.random((12, height, width)) < density)
    special = np.zeros((9, height, width), int)
    special[1, 0, 0] = special[2, -1, -1] = special[3, 0, -1] = special[4, -1, 0] = 255
    special[5, height // 2] = 255
    special[6, :, width // 2] = 200
    special[7, 0, 0] = special[7, min(1, height - 1), -1] = 255  # as flat a line as there is: it is torn apart
    special[8, -1, : width // 2 + 1] = 90
    return np.concatenate([noise, special]).astype(np.uint8)


def stroke(slant=0.0, dy=0.0, dx=0.0, size=28):
    """A smooth sign without a slant of its own, an upright bar with a dot on its right, then sheared and moved."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    y = y - dy
    x = x - dx - slant * y
    bar = np.exp(-((x / 1.8) ** 2) - (y / 6) ** 2)
    return np.minimum(1, bar + 0.6 * np.exp(-(((x - 4) / 1.5) ** 2) - (y / 2) ** 2))


# ---- The equation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_bytes_are_the_references_rounded(size):
    pictures = some_pictures(*size)
    out = Deskew(*size)(pictures.reshape(len(pictures), -1))
    assert out.dtype == np.uint8
    for got, picture in zip(out.reshape(pictures.shape), pictures, strict=True):
        assert np.abs(got - reference(picture)).max() < 0.5 + 1e-3


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size", SIZES)
def test_floats_are_the_references(size, dtype):
    pictures = (some_pictures(*size) / 255).astype(dtype)
    out = Deskew(*size)(pictures)
    assert (out.dtype, out.shape) == (dtype, pictures.shape)
    for got, picture in zip(out, pictures, strict=True):
        np.testing.assert_allclose(got, reference(picture), rtol=0, atol=ROUNDING[dtype])


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint32, ">f4", bool])
def test_every_type_of_numbers_comes_back_as_itself(dtype):
    pictures = (some_pictures(6, 7) > 100).astype(dtype)
    out = Deskew(6, 7)(pictures)
    assert out.dtype == dtype
    atol = 1e-5 if out.dtype.kind == "f" else 0.5 + 1e-5
    for got, picture in zip(out, pictures, strict=True):
        np.testing.assert_allclose(got.astype(float), reference(picture), rtol=0, atol=atol)


@pytest.mark.parametrize("block", [1, 35, 36, 70, 200, 10**6])
def test_blocks_of_any_size_give_the_same_bits(block, monkeypatch):
    x = some_pictures(5, 7)
    expected = Deskew(5, 7)(x)
    monkeypatch.setattr(preprocessing, "BLOCK", block)
    np.testing.assert_array_equal(Deskew(5, 7)(x), expected)
    np.testing.assert_array_equal([Deskew(5, 7)(picture[None])[0] for picture in x], expected)


# ---- What it is for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slant", "dy", "dx"), [(0, 0, 0), (0.5, 0, 0), (-0.6, 2.3, -3.4), (0.3, -1.5, 2), (0, 3, 0.7)]
)
def test_a_sheared_sign_comes_back_upright_and_in_the_middle(slant, dy, dx):
    seen = stroke(slant, dy, dx)
    out = Deskew(28, 28)(seen[None])[0]
    cy, cx, a = moments(out)
    assert (cy, cx) == pytest.approx((13.5, 13.5), abs=0.02)
    assert abs(a) < 0.02
    middle = moments(stroke())[1] - 13.5  # the dot pulls the centre to the right
    np.testing.assert_allclose(out, stroke(dx=-middle), rtol=0, atol=0.12)  # bilinear: a little softer


def test_what_is_upright_stays():
    x = np.stack([stroke(0.5, 2, 1), stroke(-0.4, 1, -3), stroke(0.2)])
    once = Deskew(28, 28)(x)
    twice = Deskew(28, 28)(once)
    assert np.abs(twice - once).max() < 0.05 < np.abs(once - x).max()
    upright = np.zeros((1, 8, 8), np.uint8)
    upright[0, 2:6, 3:5] = 77
    np.testing.assert_array_equal(Deskew(8, 8)(upright), upright)  # to the bit


def test_a_picture_without_ink_stays_and_one_row_has_no_slant():
    x = np.zeros((3, 7, 7), np.float32)
    x[1, 6, 2:4] = 1
    out = Deskew(7, 7)(x)
    assert not out[[0, 2]].any()
    np.testing.assert_allclose(out[1, 3], [0, 0, 0.5, 1, 0.5, 0, 0])
    assert out[1].sum() == 2


def test_rows_that_a_steep_slant_moves_out_of_the_picture_are_gone():
    x = np.zeros((2, 6, 8))
    x[0, [0, 0, 5, 5], [0, 7, 0, 7]] = 1
    x[0, 2, 0] = x[0, 3, 7] = 255  # so flat a line that the corners' rows are moved by 15 pixels
    x[1] = x[0, :, ::-1]
    np.testing.assert_allclose(Deskew(6, 8)(x), [reference(picture) for picture in x], rtol=0, atol=1e-9)


def test_what_rounding_leaves_of_one_rows_variance_gives_no_slant():
    rng = np.random.default_rng(0)
    x = np.zeros((600, 8, 8))
    x[np.arange(600), np.arange(600) % 8] = rng.random((600, 8))
    np.testing.assert_allclose(Deskew(8, 8)(x), [reference(picture) for picture in x], rtol=0, atol=1e-9)


def test_ink_that_has_no_finite_moments_stays():
    x = np.zeros((2, 6, 6), np.float32)
    x[0, :, :5], x[1, 0, 0] = 3e38, 1
    out = Deskew(6, 6)(x)
    np.testing.assert_array_equal(out[0], x[0])
    np.testing.assert_allclose(out[1, 2:4, 2:4], 0.25)


# ---- Shrinking ------------------------------------------------------------------------------------------------------


def blocks(picture, s):
    """The mean of each s x s pixels, one block after the other."""
    height, width = picture.shape
    out = np.empty((height // s, width // s))
    for i in range(height // s):
        for j in range(width // s):
            out[i, j] = picture[i * s : (i + 1) * s, j * s : (j + 1) * s].astype(np.float64).mean()
    return out


SHRINKS = [(8, 8, 2), (28, 28, 2), (28, 28, 7), (6, 9, 3), (4, 6, 2), (9, 3, 3), (5, 5, 5), (1, 3, 1), (2, 2, 2)]


@pytest.mark.parametrize(("height", "width", "shrink"), SHRINKS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_floats_shrink_to_the_means_of_blocks_of_the_upright_picture(height, width, shrink, dtype):
    pictures = (some_pictures(height, width) / 255).astype(dtype)
    upright, small = Deskew(height, width)(pictures), Deskew(height, width, shrink)(pictures)
    assert (small.shape, small.dtype) == ((len(pictures), height // shrink, width // shrink), dtype)
    for got, picture in zip(small, upright, strict=True):
        np.testing.assert_allclose(got, blocks(picture, shrink), atol=ROUNDING[dtype], rtol=0)


@pytest.mark.parametrize(("height", "width", "shrink"), SHRINKS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_bytes_shrink_to_the_rounded_means_of_the_upright_bytes(height, width, shrink, dtype):
    pictures = some_pictures(height, width).astype(dtype)
    upright, small = Deskew(height, width)(pictures), Deskew(height, width, shrink)(pictures)
    assert small.dtype == dtype
    for got, picture in zip(small, upright, strict=True):
        assert np.abs(got - blocks(picture, shrink)).max() <= 0.5 + 1e-4


def test_a_picture_of_full_ink_stays_one_however_it_shrinks():
    """Sums of bytes are not taken in bytes."""
    upright = np.full((3, 28, 28), 255, np.uint8)
    np.testing.assert_array_equal(Deskew(28, 28, 4)(upright), np.full((3, 7, 7), 255))


def test_shrinking_gives_rows_for_rows_and_writes_into_out():
    pictures, deskew = some_pictures(4, 6), Deskew(4, 6, 2)
    rows = deskew(pictures.reshape(-1, 24))
    assert rows.shape == (len(pictures), 6)
    np.testing.assert_array_equal(deskew(pictures), rows.reshape(-1, 2, 3))
    out = np.empty((len(pictures), 6), np.uint8)
    assert deskew(pictures.reshape(-1, 24), out=out) is out
    np.testing.assert_array_equal(out, rows)


def test_blocks_of_any_size_shrink_to_the_same_bits(monkeypatch):
    pictures = some_pictures(6, 4)
    expected = Deskew(6, 4, 2)(pictures)
    for block in (1, 24, 24 * 5):
        monkeypatch.setattr(preprocessing, "BLOCK", block)
        np.testing.assert_array_equal(Deskew(6, 4, 2)(pictures), expected)


def test_what_shrinks_says_so_and_can_be_made_again():
    deskew = Deskew(4, 6, 2)
    assert repr(deskew) == "Deskew(height=4, width=6, shrink=2)"
    assert deskew.config() == {"height": 4, "width": 6, "shrink": 2}
    assert (deskew.n_in, deskew.n_out, deskew.image_shape) == (24, 6, (2, 3))
    assert (Deskew(4, 6).n_out, Deskew(4, 6).image_shape) == (24, (4, 6))
    assert Deskew(4, 6, 1).config() == {"height": 4, "width": 6}


@pytest.mark.parametrize(
    ("height", "width", "shrink", "says"),
    [
        *[(28, 28, 3, "shrink 3 of 28x28 pixels: expected a divisor of both"), (4, 6, 4, "divisor")],
        *[(6, 4, 3, "divisor"), (4, 4, 8, "divisor"), (4, 4, 0, "whole number"), (4, 4, -2, "whole number")],
        (4, 4, 2.0, "whole number"),
    ],
)
def test_a_shrink_that_is_none_is_refused(height, width, shrink, says, refused):
    with refused(says):
        Deskew(height, width, shrink)


# ---- Arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_x_is_only_read_and_out_is_written(dtype):
    x = some_pictures(6, 5).reshape(-1, 30).astype(dtype)
    x.flags.writeable = False
    before, deskew = x.copy(), Deskew(6, 5)
    expected = deskew(x)
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(expected, x)
    out = np.full_like(x, 7)
    assert deskew(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    wide = np.zeros((len(x), 60), dtype)[:, ::2]  # no two numbers of it side by side
    np.testing.assert_array_equal(deskew(np.asfortranarray(x), out=wide), expected)
    itself = x.copy()
    deskew(itself, out=itself)
    np.testing.assert_array_equal(itself, expected)


def test_rows_and_pictures_are_the_same_examples():
    pictures = some_pictures(4, 6)
    rows = Deskew(4, 6)(pictures.reshape(-1, 24))
    assert rows.shape == (len(pictures), 24)
    np.testing.assert_array_equal(Deskew(4, 6)(pictures), rows.reshape(pictures.shape))


def test_it_says_what_it_is_and_can_be_made_again():
    deskew = Deskew(height=4, width=np.int64(6))
    assert isinstance(deskew, Preprocessing)
    assert repr(deskew) == "Deskew(height=4, width=6)"
    assert (deskew.n_in, deskew.config()) == (24, {"height": 4, "width": 6})
    assert PREPROCESSING["Deskew"] is Deskew
    assert repr(Deskew(**deskew.config())) == repr(deskew)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((2, 11)), r"shape \(2, 11\): expected \(examples, 12\)"),
        (np.ones(12), r"shape \(12,\)"),
        (np.ones((0, 12)), "no example"),
        (np.full((2, 12), np.nan), "x\\[0, 0\\] is nan"),
        (np.full((2, 12), "a"), "expected numbers"),
        (np.eye(2, 12) - 0.5, r"x holds -0.5: Deskew\(height=3, width=4\) takes ink"),
        (-np.eye(2, 12, dtype=int), "x holds -1"),
    ],
)
def test_what_is_no_picture_is_refused(x, says, refused):
    with refused(says):
        Deskew(3, 4)(x)


@pytest.mark.parametrize(("height", "width"), [(0, 3), (3, -1), (2.0, 2), (None, 2), ("3", 3)])
def test_sizes_that_are_none_are_refused(height, width, refused):
    with refused("whole number"):
        Deskew(height, width)
