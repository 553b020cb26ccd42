"""Resources: the predictions of all libraries are compared, for each number of threads."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from benchmarks import resources
from benchmarks.workers import Workers


class OneWorker:
    """A worker whose predictions are all 0, or all 1 if they are wrong."""

    def __init__(self, wrong: bool) -> None:
        self.wrong = wrong

    def call(self, method: str, *arguments: Any) -> Any:
        return np.full(10, int(self.wrong)) if method == "predictions" else None

    def timed(self, method: str, count: int) -> float:
        return 1.0


class SomeWorkers:
    """The workers of all libraries, of which that of PyTorch is wrong with some number of threads."""

    def __init__(self, wrong_threads: int) -> None:
        self.wrong_threads = wrong_threads

    def get(self, peer: str, threads: int) -> OneWorker:
        return OneWorker(peer == "torch" and threads == self.wrong_threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_wrong_predictions_are_found_with_each_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 2)
    with pytest.raises(SystemExit, match=f"torch, threads: {threads}: only 0.00%"):
        resources.seconds_to_predict(cast(Workers, SomeWorkers(threads)), resources.SMALL, 1)
    assert resources.seconds_to_predict(cast(Workers, SomeWorkers(3)), resources.SMALL, 1)["1"]["torch"] == [1.0]
