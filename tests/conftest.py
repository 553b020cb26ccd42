"""What the tests share: where MNIST is, a small set of digits to learn, a refusal that is one line, a pool of none."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from handgrad import HandgradError
from handgrad.data.mnist import find_mnist


@pytest.fixture(scope="session")
def mnist() -> Path:
    """A directory of MNIST's four files, or Keras's mnist.npz, every hash checked; without it the test is skipped."""
    place = find_mnist()
    if place is None:
        pytest.skip("MNIST is not on this machine: handgrad data fetch")
    return place


@pytest.fixture(scope="session")
def digits():
    """(x, y, x_test, y_test): ten 8x8 patterns of bytes, each seen under noise; 600 to learn from, 300 to be asked."""
    rng = np.random.default_rng(10)
    patterns = rng.integers(0, 2, (10, 64)) * 160
    y = np.arange(900) % 10
    x = np.clip(patterns[y] + rng.normal(40, 60, (900, 64)), 0, 255).astype(np.uint8)
    for part in (x, y):
        part.flags.writeable = False  # nothing in the library writes into its user's arrays
    return x[:600], y[:600], x[600:], y[600:]


@contextlib.contextmanager
def _refused(match):
    with pytest.raises(HandgradError, match=match) as caught:
        yield caught
    assert str(caught.value).strip()
    assert "\n" not in str(caught.value)


@pytest.fixture
def refused():
    """A context for pytest.raises's place: it demands a HandgradError that says so, in one line."""
    return _refused


class InTurn:
    """In the place of a pool of processes: does each thing when it is asked for, here."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def in_turn():
    """A class for ProcessPoolExecutor's place."""
    return InTurn
