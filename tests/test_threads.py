"""BLAS takes one thread for small products, and as many as before for large ones and afterwards."""

from __future__ import annotations

import sys

import pytest

from handgrad import Network
from handgrad._blas import SMALL, _libraries, blas_threads
from handgrad.errors import MissingExtraError

threadpoolctl = pytest.importorskip("threadpoolctl")


def threads():
    """The threads of each BLAS that is loaded."""
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def two():
    """Two threads at first, whatever the machine has."""
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if threads() != [2] * len(threads()):
            pytest.skip("BLAS was built for one thread")
        yield


@pytest.mark.parametrize(("batch_size", "expected"), [(10, 1), (SMALL // (2 * 784 * 30), 1), (1_000, 2)])
def test_small_products_take_one_thread(two, batch_size, expected):
    with blas_threads(Network([784, 30, 10], rng=0), batch_size):
        assert set(threads()) == {expected}
    assert set(threads()) == {2}


def test_without_threadpoolctl_the_extra_is_named(monkeypatch):
    _libraries.cache_clear()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(MissingExtraError, match=r"handgrad\[app\]"):
        blas_threads(Network([784, 30, 10], rng=0), 10)
