"""The photographs of the benchmark, and what is counted as correct, not sure and wrong."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import photos
from handgrad.data.synthetic import synthetic_digits
from handgrad.images import Reading
from handgrad.images.decoding import open_picture


@pytest.mark.parametrize("name", photos.SCENES)
def test_every_scene_is_an_image_with_random_parameters(name: str) -> None:
    digit = synthetic_digits(1, 1)[0][0]
    images = [
        open_picture(photos.photograph(name, digit, np.random.default_rng(seed), other)).levels
        for seed, other in ((0, False), (0, False), (1, False), (0, True))
    ]
    for image in images:
        assert np.isfinite(image).all()
        assert image.std() > 1
    np.testing.assert_array_equal(images[0], images[1])
    assert images[0].shape != images[2].shape or (images[0] != images[2]).any()


@pytest.mark.parametrize("name", photos.NOT_DIGITS)
def test_shapes_that_are_no_digits_are_images(name: str) -> None:
    assert open_picture(photos.NOT_DIGITS[name](np.random.default_rng(0))).levels.size > 1000


def test_measure_counts_each_photograph_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(label: str | None, confidence: float) -> Reading:
        return Reading((0, 0, 1, 1), label, confidence, "", {}, np.zeros((1, 1), np.uint8))

    answers = {
        "right": [reading("7", 0.9)],
        "pair": [reading("4", 0.8), reading("2", 0.8)],
        "unsure": [reading(None, 0.99)],
        "wrong": [reading("1", 0.7)],
        "confident": [reading("1", 0.95)],
    }
    monkeypatch.setattr(photos, "predict_image", lambda model, photo: answers[photo])
    found = photos.measure(None, list(answers), ["7", "42", "7", "7", "7"])
    assert found == {"correct": 0.4, "not sure": 0.2, "wrong": 0.4, "confidently wrong": 0.2}
