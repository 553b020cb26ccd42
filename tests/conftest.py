"""Shared fixtures: the location of MNIST, a small data set of images, and a check for one-line errors."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from handgrad import HandgradError
from handgrad.data.mnist import find_mnist


@pytest.fixture(scope="session")
def mnist() -> Path:
    """A directory with the four files of MNIST, or Keras's mnist.npz, verified; skips the test if there is none."""
    path = find_mnist()
    if path is None:
        pytest.skip("MNIST was not found: run handgrad data fetch, or set HANDGRAD_DATA")
    return path


@pytest.fixture(scope="session")
def digits():
    """(x, y, x_test, y_test): noisy images of ten 8x8 patterns, uint8, 600 for training and 300 for testing."""
    rng = np.random.default_rng(10)
    patterns = rng.integers(0, 2, (10, 64)) * 160
    y = np.arange(900) % 10
    x = np.clip(patterns[y] + rng.normal(40, 60, (900, 64)), 0, 255).astype(np.uint8).reshape(-1, 8, 8)
    for part in (x, y):
        part.flags.writeable = False  # the library must not modify its inputs
    return x[:600], y[:600], x[600:], y[600:]


@contextlib.contextmanager
def _raises_one_line(match):
    with pytest.raises(HandgradError, match=match) as caught:
        yield caught
    assert str(caught.value).strip()
    assert "\n" not in str(caught.value)


@pytest.fixture
def rejects():
    """A replacement for pytest.raises: expects a HandgradError whose message matches and is a single line."""
    return _raises_one_line
