"""BLAS uses one thread for small matrix products, and the previous number for large ones and afterwards."""

import sys
import threading

import pytest

from handgrad import Network
from handgrad.blas import SMALL, _libraries, blas_threads, one_blas_thread
from handgrad.errors import MissingExtraError

threadpoolctl = pytest.importorskip("threadpoolctl")


def threads():
    """The numbers of threads of all loaded BLAS libraries."""
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("this BLAS is built for one thread")
        yield


@pytest.mark.parametrize(("batch_size", "expected"), [(10, 1), (SMALL // (2 * 784 * 30), 1), (1_000, 2)])
def test_small_products_use_one_thread(two_threads, batch_size, expected):
    with blas_threads(Network([784, 30, 10], rng=0), batch_size):
        assert threads() == {expected}
    assert threads() == {2}


def test_limit_lasts_until_the_last_of_several_concurrent_blocks_ends(two_threads):
    """As in two trainings in two threads; OpenBLAS itself ignores changes from other threads than the main thread."""
    first, second = (blas_threads(Network([784, 30, 10], rng=0), 10) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads() == {1}
    second.__exit__(None, None, None)
    assert threads() == {2}


def test_a_thread_restores_the_limit_of_another_thread(two_threads):
    """The first of two overlapping blocks is that of a thread that still lives when the other thread ends its block."""
    network, entered, ended = Network([784, 30, 10], rng=0), threading.Event(), threading.Event()

    def train():
        with blas_threads(network, 10):
            entered.set()
            ended.wait(10)

    thread = threading.Thread(target=train)
    thread.start()
    entered.wait(10)
    block = blas_threads(network, 10)
    block.__enter__()
    ended.set()
    thread.join(10)
    assert threads() == {1}
    block.__exit__(None, None, None)
    assert threads() == {2}


def test_a_thread_limits_blas_while_another_thread_has_set_a_limit_before(two_threads):
    """The fixture has set a limit in the main thread, and threadpoolctl ignores other threads from then on."""
    seen = []

    def train():
        with blas_threads(Network([784, 30, 10], rng=0), 10):
            seen.append(threads())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(10)
    assert (seen, threads()) == ([{1}], {2})


def test_exception_in_the_block_restores_the_number_of_threads(two_threads):
    with pytest.raises(KeyError), blas_threads(Network([784, 30, 10], rng=0), 10):
        raise KeyError
    assert threads() == {2}


@pytest.fixture
def without_threadpoolctl(monkeypatch):
    _libraries.cache_clear()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)


def test_the_number_of_threads_does_not_change_without_threadpoolctl(two_threads, without_threadpoolctl):
    with blas_threads(Network([784, 30, 10], rng=0), 10):
        assert threads() == {2}


def test_missing_threadpoolctl_is_reported_with_its_extra(without_threadpoolctl):
    with pytest.raises(MissingExtraError, match=r"handgrad\[app\]"):
        one_blas_thread()
