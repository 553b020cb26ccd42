"""Several processes: results in order, and one line if a process fails."""

from __future__ import annotations

import math
import operator
import os

import pytest

from handgrad.data.processes import run


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_the_order_of_the_tasks(workers: int) -> None:
    with run(operator.neg, range(20), workers) as results:
        assert list(results) == [-task for task in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_exception_in_a_process_is_raised_in_this_one(workers: int) -> None:
    with pytest.raises(ValueError, match="math domain error"), run(math.sqrt, [4, -1, 9], workers) as results:
        list(results)


def test_killed_process_is_reported_in_one_line(rejects) -> None:
    with rejects("one of 2 processes was killed"), run(os._exit, [0, 0, 0], 2) as results:
        list(results)
