"""The comparison of image libraries: which components are one digit."""

from __future__ import annotations

from benchmarks.image_libraries import choose

DIGIT = (60, 50, 60, 100)  # left, top, width, height


def test_dust_frames_and_edges_are_no_digits() -> None:
    dust, frame, edge = (10, 10, 4, 4), (2, 2, 196, 196), (0, 0, 200, 15)
    assert choose([dust, DIGIT, frame, edge], (200, 200)) == [[2]]


def test_a_separate_bar_belongs_to_the_digit_below_it() -> None:
    bar = (80, 35, 50, 12)
    assert choose([bar, DIGIT], (200, 200)) == [[2, 1]]


def test_two_digits_are_ordered_from_left_to_right() -> None:
    second = (150, 50, 30, 110)
    assert choose([second, DIGIT], (200, 200)) == [[2], [1]]


def test_a_digit_that_fills_the_image_is_no_edge() -> None:
    assert choose([(0, 0, 60, 100)], (100, 60)) == [[1]]
