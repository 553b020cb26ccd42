"""The experiments of a server: their number and that of the open streams are limited."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from typing import Any

from ..errors import HandgradError
from .examples import Library
from .run import NotFoundError, Run
from .session import Experiment
from .settings import Settings

MAX_EXPERIMENTS, MAX_STREAMS = 6, 8  # the five comparisons of the documentation, each in a tab, and one more
ABANDONED = 15.0  # seconds without a request or a stream after which an experiment makes room for a new one
LEFT = 10.0  # seconds after which a run is paused whose page was closed; a page that is reloaded returns sooner
UNWATCHED = 1800.0  # seconds without a request or a stream after which any run is paused; hidden pages have no stream


class BusyError(HandgradError):
    """There are too many experiments or streams."""


class Lab:
    """The experiments of a server.

    Parameters
    ----------
    own : str, optional
        Name or path of the user's data set.
    """

    def __init__(self, own: str | None = None) -> None:
        self.library = Library(own)
        self.streams = 0
        self._lock = threading.Lock()
        self._experiments: dict[str, Experiment] = {}
        self._seen: dict[str, float] = {}
        self._streams: dict[str, int] = {}
        self._left: set[str] = set()  # experiments whose page was closed or is being reloaded
        self._creating = threading.Lock()  # one at a time, because the number is limited

    def create(self, settings: list[Settings], replaces: str | None = None) -> Experiment:
        """Create an experiment. Raises BusyError if there are too many already."""
        with self._creating:
            if replaces is not None:
                self.remove(replaces)
            if len(self._experiments) >= MAX_EXPERIMENTS:
                self._remove_abandoned()
            experiment = Experiment(settings, self.library)
            with self._lock:
                self._experiments[experiment.id] = experiment
                self._seen[experiment.id], self._streams[experiment.id] = time.monotonic(), 0
            return experiment

    def _remove_abandoned(self) -> None:
        with self._lock:
            idle = [name for name, streams in self._streams.items() if not streams]
            oldest = min(idle, key=lambda name: self._seen[name], default=None)
            if oldest is None or time.monotonic() - self._seen[oldest] < ABANDONED:
                raise BusyError(f"{MAX_EXPERIMENTS} experiments are open in other tabs: close one of them")
        self.remove(oldest)

    def remove(self, name: str) -> None:
        """End an experiment, if there is one of this name."""
        with self._lock:
            experiment = self._experiments.pop(name, None)
            self._seen.pop(name, None)
            self._streams.pop(name, None)
            self._left.discard(name)
        if experiment is not None:
            experiment.close()

    def experiment(self, name: str, late: bool = False) -> Experiment:
        """Return an experiment, whose page is open unless the request may be late. Raises NotFoundError."""
        with self._lock:
            if name not in self._experiments:
                raise NotFoundError("there is no such experiment: it was closed, or the server was restarted")
            self._seen[name] = time.monotonic()
            if not late:
                self._left.discard(name)
            return self._experiments[name]

    def leave(self, name: str) -> Experiment:
        """Note that the page of an experiment is closed or reloaded, and return the experiment."""
        experiment = self.experiment(name)
        with self._lock:
            self._left.add(name)
        return experiment

    def pause_unwatched(self) -> None:
        """Pause the runs whose page was closed: they would use the processor until they are finished."""
        for experiment in self.experiments():
            with self._lock:
                patience = LEFT if experiment.id in self._left else UNWATCHED
                silence = time.monotonic() - self._seen.get(experiment.id, math.inf)
                unwatched = not self._streams.get(experiment.id) and silence > patience
            if unwatched:
                experiment.command("pause")

    def run(self, name: str) -> Run:
        """Return a run. Raises NotFoundError."""
        # A question about a run can arrive after its page was closed. A page that comes back asks for its experiment.
        for run in self.experiment(name.rpartition("-")[0], late=True).runs:
            if run.id == name:
                return run
        raise NotFoundError("there is no such run")

    def experiments(self) -> list[Experiment]:
        """Return all experiments."""
        with self._lock:
            return list(self._experiments.values())

    def has(self, experiment: Experiment) -> bool:
        """Whether an experiment is still open."""
        return self._experiments.get(experiment.id) is experiment

    @contextlib.contextmanager
    def streaming(self, experiment: Experiment) -> Any:
        """Count an open stream. Raises BusyError if there are too many."""
        with self._lock:
            if self.streams >= MAX_STREAMS:
                raise BusyError(f"{MAX_STREAMS} streams are open: close a tab")
            self.streams += 1
            self._streams[experiment.id] = self._streams.get(experiment.id, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self.streams -= 1
                if experiment.id in self._streams:
                    self._streams[experiment.id] -= 1
                    self._seen[experiment.id] = time.monotonic()

    def close(self) -> None:
        """End all experiments."""
        for name in list(self._experiments):
            self.remove(name)
