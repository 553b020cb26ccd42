"""Hard, straight edges of shadows are removed; strokes, soft shadows and the edges of a sheet are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from handgrad.images.shadows import remove_shadow_edges

ROWS, COLUMNS = np.mgrid[0:240, 0:320].astype(np.float32)


def sheet() -> NDArray[np.float32]:
    """Paper with a thick vertical stroke and a thin horizontal one."""
    image = np.full(ROWS.shape, 220, np.float32)
    image[40:200, 100:118] = 60
    image[90:96, 60:260] = 90
    return image


@pytest.mark.parametrize(
    ("angle", "light"), [*((angle, 0.45) for angle in range(0, 360, 30)), (0, 0.8), (120, 0.8), (270, 0.8)]
)
def test_shadow_is_brightened_and_the_strokes_stay(angle: int, light: float) -> None:
    turn = np.deg2rad(angle)
    distance = (ROWS - 130) * np.sin(turn) + (COLUMNS - 150) * np.cos(turn)
    flat = remove_shadow_edges(np.where(distance > 0, light * sheet(), sheet()).astype(np.float32))
    away = np.abs(distance) > 4
    assert np.quantile(np.abs(flat - sheet())[away], 0.99) < 8
    assert np.median(np.abs(flat - sheet())[~away]) < 12


def test_two_shadows() -> None:
    image = sheet() * np.where(COLUMNS - 0.3 * ROWS > 170, 0.6, 1) * np.where(ROWS + 0.2 * COLUMNS > 190, 0.7, 1)
    flat = remove_shadow_edges(image.astype(np.float32))
    assert np.quantile(np.abs(flat - sheet()), 0.9) < 8


@pytest.mark.parametrize("kind", ["strokes", "soft", "table", "small"])
def test_other_images_are_not_changed(kind: str) -> None:
    image = sheet()
    if kind == "soft":
        image *= 1 - 0.5 / (1 + np.exp((ROWS + COLUMNS - 280) / 20))
    elif kind == "table":
        image[:, :20] = 50
        image[225:] = 150
    elif kind == "small":
        image = (image * np.where(COLUMNS > 170, 0.5, 1))[:90, 140:220]
    image = image.astype(np.float32)
    np.testing.assert_array_equal(remove_shadow_edges(image), image)
