"""The drawn digits are MNIST's in format, box, centring and ink, and varied enough to learn from."""

from __future__ import annotations

import re

import numpy as np
import pytest

from handgrad.data import drawn, load
from handgrad.data.drawn import BLOCK, HANDS, draw, drawn_digits, templates
from handgrad.errors import HandgradError


@pytest.fixture(scope="module")
def digits():
    """Four thousand digits, a number that no block divides."""
    assert 4_000 % BLOCK
    return draw(4_000, rng=np.random.default_rng(1))


def hands(text):
    """The hands of a digit in the table."""
    return re.split(r"\s{2,}", text.strip())


def extent(inked):
    """First and last of the rows (axis 1) that hold ink, of each image."""
    any_ink = inked.any(axis=2)
    return any_ink.argmax(axis=1), any_ink.shape[1] - 1 - any_ink[:, ::-1].argmax(axis=1)


def test_shapes_and_dtypes(digits):
    images, labels = digits
    assert images.shape == (4_000, 28, 28)
    assert labels.shape == (4_000,)
    assert images.dtype == labels.dtype == np.uint8
    assert images.flags.c_contiguous


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_any_count(count):
    images, labels = draw(count, rng=np.random.default_rng(2))
    assert images.shape == (count, 28, 28)
    assert labels.shape == (count,)
    assert images.any(axis=(1, 2)).all()


def test_negative_count():
    with pytest.raises(HandgradError, match=r"^cannot draw -1 digits: the count must be 0 or more$"):
        draw(-1, rng=np.random.default_rng(0))


def test_same_seed_same_bits_and_another_seed_other_digits():
    first, again, other = (draw(300, rng=np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any(axis=(1, 2)).all()


def test_the_blocks_leave_no_trace(digits, monkeypatch):
    monkeypatch.setattr(drawn, "BLOCK", 97)
    images, labels = draw(1_000, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(labels, digits[1][:1_000])
    assert np.abs(images.astype(int) - digits[0][:1_000]).max() <= 1


def test_labels_are_balanced(digits):
    share = np.bincount(digits[1], minlength=10) / 4_000
    np.testing.assert_allclose(share, 0.1, atol=4 * np.sqrt(0.1 * 0.9 / 4_000))


def test_train_and_test_are_two_streams_of_one_seed():
    x_train, y_train, x_test, y_test = drawn_digits(600, 300, seed=3)
    assert x_train.shape == (600, 28, 28)
    assert x_test.shape == (300, 28, 28)
    assert len(y_train) == 600
    assert len(y_test) == 300
    assert not {image.tobytes() for image in x_train} & {image.tobytes() for image in x_test}
    np.testing.assert_array_equal(drawn_digits(0, 300, seed=3)[2], x_test)
    np.testing.assert_array_equal(drawn_digits(600, 0, seed=3)[0], x_train)
    assert (drawn_digits(600, 0, seed=4)[0] != x_train).any()


def test_box(digits):
    """No ink outside 20 by 20, and the longer side nearly fills it."""
    images, _ = digits
    top, bottom = extent(images > 0)
    left, right = extent((images > 0).swapaxes(1, 2))
    longer = 1 + np.maximum(bottom - top, right - left)
    assert longer.max() <= 20
    assert np.mean(longer >= 18) > 0.95


def test_centre_of_mass(digits):
    """As in MNIST: within half a pixel of pixel (14, 14), for it is moved by whole pixels, and as far as there is room.

    A long neck and a heavy head may have their centre of mass further from the middle of their 20 pixels than the 8
    pixels of margin reach: of MNIST's digits that is one in 20,000, of these one in 300.
    """
    for images in (digits[0], digits[0].swapaxes(1, 2)):  # by row, by column
        mass = images.sum(axis=2, dtype=np.float64)
        off = mass @ np.arange(28) / mass.sum(axis=1) - 14
        first, last = extent(images > 0)
        room = np.where(off > 0, first, 27 - last)
        assert np.abs(off[room > 0]).max() < 0.51
        assert np.mean(np.abs(off) > 0.51) < 0.006
        assert abs(off.mean()) < 0.03


def test_ink_is_solid_and_its_edge_grey(digits):
    """Of MNIST's ink 55 % lies in pixels of 250 and above and 1 % in those below 32; its mean grey is 0.132."""
    images, _ = digits
    share = np.bincount(images.ravel(), minlength=256) * np.arange(256.0)
    share /= share.sum()
    assert 0.5 < share[250:].sum() < 0.6
    assert share[:32].sum() < 0.025
    assert images.mean() / 255 == pytest.approx(0.132, abs=0.01)
    assert np.mean(images.max(axis=(1, 2)) >= 250) > 0.99


def test_a_long_line_is_as_wide_as_the_pen():
    """A straight upright path of half width w: half grey at distance w, falling there by 1 / EDGE per pixel."""
    for w in (0.8, 1.2, 2.0):
        for offset in (0.0, 0.25, 0.5):
            x = np.float32(9 + offset)
            path = np.stack([np.full(60, x), np.linspace(-5, 25, 60)]).astype(np.float32)[None]
            ones = np.ones((1, 60), np.float32)
            grey = drawn._ink(path, ones * np.float32(30 / 59), 0 * ones, ones, np.array([w], np.float32))[0, 10] / 255
            assert grey.sum() == pytest.approx(2 * w, abs=0.3)
            distance = np.abs(np.arange(20) - x)
            near = np.abs(distance - w) < 0.25
            np.testing.assert_allclose(grey[near], 0.5 - (distance[near] - w) / drawn.EDGE, atol=0.06)
            assert grey[distance > w + 1.5].max() < 0.5 / 255  # paper


def test_no_two_images_are_alike(digits):
    assert len({image.tobytes() for image in digits[0]}) == 4_000


def test_every_digit_has_several_hands_and_every_hand_is_drawn(monkeypatch):
    """Without the chance in the shape, each hand that differs gives its own picture, and no other pictures come."""
    for name in ("STRETCH", "SHEAR", "TURN", "BEND", "JITTER", "PEN_SPREAD", "PRESSURE"):
        monkeypatch.setattr(drawn, name, 0.0)
    images, labels = draw(6_000, rng=np.random.default_rng(3))
    for digit, text in enumerate(HANDS):
        different = set(hands(text))
        assert len(different) >= 4
        assert len({image.tobytes() for image in images[labels == digit]}) == len(different)


def test_table_is_well_formed():
    """Every stroke has two points at least, turns only between its ends, and stays in the box."""
    assert len(HANDS) == 10
    for text in HANDS:
        for hand in hands(text):
            for stroke in hand.split("/"):
                assert re.fullmatch(r"\d\d( \d\d'?)* \d\d", stroke.strip()), hand


def test_path_goes_through_its_control_points_at_an_even_pace():
    """The samples of a hand at rest are equally far apart along it, and near to every control point."""
    control, curve, tangent, ends, first = templates()
    path, step = control @ curve, np.linalg.norm(control @ tangent, axis=1)
    np.testing.assert_allclose(step, step.mean(axis=1, keepdims=True) * np.ones_like(step), rtol=1e-4)
    apart = np.linalg.norm(np.diff(path, axis=2), axis=1)
    within = ~((ends[:, 1:] > 0) & (ends[:, :-1] > 0))  # not from one stroke to the next
    assert (apart[within] <= 1.01 * step[:, 1:][within]).all()
    assert first[-1] == len(control)
    for hand, strokes in enumerate(hand for text in HANDS for hand in hands(text)):
        counts = [len(stroke.split()) for stroke in strokes.split("/")]
        points = control[hand, :, : sum(counts)]  # the rest is padding
        gap = np.linalg.norm(points[:, :, None] - path[hand][:, None], axis=0).min(axis=1)
        # Between two samples of one stroke it is half a step at most; a stroke may end just before its next sample.
        reach = np.concatenate([[1, *[0.51] * (count - 2), 1] for count in counts])
        assert (gap < reach * step[hand, 0]).all()


def test_strokes_begin_and_end():
    """Two ends to every stroke of the table."""
    strokes = [hand.count("/") + 1 for text in HANDS for hand in hands(text)]
    np.testing.assert_array_equal(templates().ends.sum(axis=1), 2 * np.array(strokes))


@pytest.fixture(scope="module")
def told_by_the_drawn(digits):
    """images (count, 28, 28) -> labels, by ridge regression on ±1 that saw the 4,000 drawn digits alone."""
    images, labels = digits

    def features(images):
        return np.c_[images.reshape(len(images), -1) / 255, np.ones(len(images))]

    x, y = features(images), np.where(labels[:, None] == np.arange(10), 1.0, -1.0)
    weights = np.linalg.solve(x.T @ x + 10 * np.eye(785), x.T @ y)
    return lambda images: (features(images) @ weights).argmax(axis=1)


def test_a_drawn_digit_is_told_by_the_drawn_digits(told_by_the_drawn):
    """Two of three at least, and half of every digit, where chance gives one in ten: they vary, and can be read."""
    others, labels = draw(2_000, rng=np.random.default_rng(9))
    right = told_by_the_drawn(others) == labels
    assert right.mean() > 0.66
    assert min(right[labels == digit].mean() for digit in range(10)) > 0.5


def test_mnist_is_told_by_the_drawn_digits(told_by_the_drawn, mnist):
    """What they are for. A linear classifier reads 79 % of MNIST; one that learnt as many of its own reads 84 %."""
    dataset = load(str(mnist))
    right = told_by_the_drawn(dataset.x_test) == dataset.y_test
    assert right.mean() > 0.76
    assert min(right[dataset.y_test == digit].mean() for digit in range(10)) > 0.55
