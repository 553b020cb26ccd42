"""What the tests share: where MNIST is, for those that read the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from handgrad.data.mnist import find_mnist


@pytest.fixture(scope="session")
def mnist() -> Path:
    """A directory with the four files of MNIST, every hash checked; without it the test is skipped."""
    place = find_mnist()
    if place is None:
        pytest.skip("MNIST is not on this machine: handgrad data fetch")
    return place
