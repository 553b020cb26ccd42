"""Data sets of points in the plane, for networks whose decision boundary can be drawn: XOR, circles, moons, spirals.

Each function returns x (count, 2), float32, of about 1 in size, and labels y (count,), 0 or 1, in random order. The
same seed gives the same points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = tuple[NDArray[np.float32], NDArray[np.int64]]


def xor(count: int, rng: int = 0) -> Points:
    """Points of the square [-1.2, 1.2]²: class 1 if both coordinates have different signs."""
    random = np.random.default_rng(rng)
    x = random.uniform(0.1, 1.2, (count, 2)) * random.choice([-1, 1], (count, 2))
    return x.astype(np.float32), (x[:, 0] * x[:, 1] < 0).astype(np.int64)


def circles(count: int, rng: int = 0) -> Points:
    """Class 1: a disk of radius ½. Class 0: a ring around it, of radius 0.8 to 1.2."""
    random = np.random.default_rng(rng)
    y = _labels(count, random)
    radius = np.where(y == 1, 0.5 * np.sqrt(random.random(count)), random.uniform(0.8, 1.2, count))
    angle = random.uniform(0, 2 * np.pi, count)
    return _as_points(radius * np.cos(angle), radius * np.sin(angle)), y


def moons(count: int, rng: int = 0, noise: float = 0.08) -> Points:
    """Two interleaved half circles with Gaussian noise."""
    random = np.random.default_rng(rng)
    y = _labels(count, random)
    angle = random.uniform(0, np.pi, count)
    sign = 1 - 2 * y  # the second moon is upside down
    x = _as_points(sign * np.cos(angle) + y - 0.5, sign * np.sin(angle) + 0.5 * y - 0.25)
    return (0.8 * x + random.normal(0, noise, x.shape)).astype(np.float32), y


def spirals(count: int, rng: int = 0, noise: float = 0.02) -> Points:
    """Two spirals of 1½ turns with Gaussian noise, one rotated by 180 degrees."""
    random = np.random.default_rng(rng)
    y = _labels(count, random)
    radius = np.sqrt(random.uniform(0.01, 1, count))
    angle = 3 * np.pi * radius + np.pi * y
    x = 1.2 * _as_points(radius * np.cos(angle), radius * np.sin(angle))
    return (x + random.normal(0, noise, x.shape)).astype(np.float32), y


def _labels(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """As many points of each class, in random order."""
    return random.permutation(np.arange(count) % 2).astype(np.int64)


def _as_points(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    return np.stack([x, y], axis=1).astype(np.float32)


POINTS: dict[str, Callable[..., Points]] = {"xor": xor, "circles": circles, "moons": moons, "spirals": spirals}
