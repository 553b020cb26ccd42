"""Pace of an experiment: which run may take steps, and up to which step.

Only one run takes steps at a time. The run with the fewest steps has the turn, so that two runs reach the same step at
about the same time and do not compete for the interpreter.
"""

from __future__ import annotations

import math
import threading

CHUNK = 32  # steps that a run is ahead of the other at most; handing over the turn takes about 50 us


class ClosedError(Exception):
    """The experiment was closed: the thread of a run ends."""


class Pace:
    """The turns of one or two runs. All methods must be called with `condition` held.

    Parameters
    ----------
    epoch_steps : list of int
        Number of steps of an epoch of each run.

    Attributes
    ----------
    condition : threading.Condition
        Notified when the turn changes.
    steps : list of int
        Number of steps of each run when it waited last.
    limits : list of float
        Step at which each run stops.
    active : list of bool
        Whether each run can take more steps: it is not finished.
    turn : int or None
        The run that may take steps; None if all have stopped.
    interval : float
        Seconds from step to step of a run; 0: as fast as possible.
    """

    def __init__(self, epoch_steps: list[int]) -> None:
        count = len(epoch_steps)
        self.condition = threading.Condition()
        self.epoch_steps, self.steps, self.active = epoch_steps, [0] * count, [True] * count
        self.limits: list[float] = [0] * count
        self.turn: int | None = None
        self.request: str | None = None
        self.interval = 0.0
        self.closed = False

    def ask(self, request: str) -> None:
        """Carry out a command: "start", "pause", "step" or "epoch". While a run takes steps, it does so at its next."""
        self.request = request
        if self.turn is None:
            self.apply()
            self.pass_on()

    def apply(self) -> None:
        """Set the limits as the last command asks. The steps of all runs must be known."""
        request, self.request = self.request, None
        if request is None:
            return
        runs = range(len(self.steps))
        most = max((self.steps[i] for i in runs if self.active[i]), default=0)
        if request == "start":
            self.limits = [math.inf for _ in runs]
        elif request == "pause":
            self.limits = [most for _ in runs]  # both runs stop at the same step
        elif request == "step":
            self.limits = [most + 1 for _ in runs]
        else:
            self.limits = [(self.steps[i] // self.epoch_steps[i] + 1) * self.epoch_steps[i] for i in runs]

    def pass_on(self) -> None:
        """Give the turn to the run with the fewest steps that may take more."""
        able = [i for i in range(len(self.steps)) if self.active[i] and self.steps[i] < self.limits[i]]
        self.turn = min(able, key=lambda i: self.steps[i], default=None)
        self.condition.notify_all()

    def until(self, run: int) -> float:
        """Return the step at which a run has to wait again."""
        others = [
            self.steps[i]
            for i in range(len(self.steps))
            if i != run and self.active[i] and self.steps[i] < self.limits[i]
        ]
        return min(self.limits[run], min(others, default=math.inf) + (1 if self.interval else CHUNK))
