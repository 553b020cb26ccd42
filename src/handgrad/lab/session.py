"""Experiments: one run, or two runs that are trained side by side, and the commands that control them."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any

from ..errors import HandgradError
from .examples import Library
from .history import History
from .pace import Pace
from .run import NotFoundError, Run
from .settings import Settings, check_lr

INTERVAL = 0.1  # seconds between two points of an experiment with one run
MAX_INTERVAL = 1.0  # seconds, also if measurements then take a larger share
MEASURING = 0.03  # share of the time that measurements take at most
ACTIONS = ("start", "pause", "step", "epoch", "reset", "lr", "speed", "close")
SPEEDS = (0.1, 100_000)  # steps per second


class Experiment:
    """One run, or two runs that are trained side by side.

    Parameters
    ----------
    settings : sequence of Settings
        One for each run.
    library : Library
        The data sets.

    Attributes
    ----------
    id : str
        Random, so that it is not that of an experiment of an earlier server.
    status : str
        "ready", "running", "paused", "finished", "diverged" or "failed".
    history : History
        The events for the page.
    """

    def __init__(self, settings: Sequence[Settings], library: Library) -> None:
        if not 1 <= len(settings) <= 2:
            raise HandgradError("an experiment has one or two runs")
        self.id = secrets.token_hex(4)
        self.history = History()
        self._settings = tuple(settings)
        self._examples = [library.examples(one.data, one.n_train) for one in settings]
        self._command = threading.Lock()  # one command at a time
        self._speed: float | None = None
        self._build()

    def _build(self) -> None:
        """Create the runs with their initial weights."""
        self.status, self.mark = "ready", -1
        self._numbers, self._next_due = 0, 0.0
        self.runs = [
            Run(self, i, settings, examples)
            for i, (settings, examples) in enumerate(zip(self._settings, self._examples, strict=True))
        ]
        self.pace = Pace([run.epoch_steps for run in self.runs])
        self.pace.interval = 0.0 if self._speed is None else 1 / self._speed

    def describe(self) -> dict[str, Any]:
        """Return what the page shows of the experiment."""
        runs = [run.describe() for run in self.runs]
        return {"id": self.id, "runs": runs, "status": self.status, "speed": self._speed}

    def command(self, action: str, value: Any = None, run: str | None = None) -> str:
        """Carry out a command of the page, and return the status. Repeating a command does no harm.

        Raises HandgradError for an unknown action or an invalid learning rate, NotFoundError for an unknown run.
        """
        if action not in ACTIONS:
            raise HandgradError(f"unknown action: expected {', '.join(ACTIONS)}")
        with self._command:
            if action == "reset":
                self._reset()
            elif action == "close":
                self.close()
            elif action == "lr":
                self._set_lr(check_lr(value), run)
            elif action == "speed":
                self._set_speed(value)
            else:
                self._ask(action)
            return self.status

    def _ask(self, action: str) -> None:
        with self.pace.condition:
            if not any(self.pace.active) or self.pace.closed or (action == "pause" and self.status != "running"):
                return
            if action == "start" and self.status == "running" and self.pace.request is None:
                return
            for run in self.runs:
                run.start()
                run.interrupt()
            if action != "pause" and self.status != "running":
                self._set_status("running")
            self.pace.ask(action)

    def _set_lr(self, lr: float, run: str | None) -> None:
        chosen = [one for one in self.runs if run in (None, one.id)]
        if not chosen:
            raise NotFoundError("there is no such run")
        with self.pace.condition:
            for one in chosen:
                one.set_lr(lr)

    def _set_speed(self, value: Any) -> None:
        """Limit the steps per second of a run, so that a person can follow them; None: no limit."""
        low, high = SPEEDS
        if value is not None and (type(value) not in (int, float) or not low <= value <= high):
            raise HandgradError(f"the speed must be a number of steps per second from {low:g} to {high:g}, or null")
        with self.pace.condition:
            self._speed = value
            self.pace.interval = 0.0 if value is None else 1 / value
            for run in self.runs:
                run.set_speed()
            self.pace.condition.notify_all()

    def _reset(self) -> None:
        self.close()
        self.history.clear()
        self._build()
        self.emit({"type": "reset"})
        self._set_status("ready")

    def close(self) -> None:
        """End the threads of the runs and wait for them."""
        with self.pace.condition:
            self.pace.closed = True
            for run in self.runs:
                run.interrupt()
            self.pace.condition.notify_all()
        for run in self.runs:
            run.join()

    # ---- Called by the runs ------------------------------------------------------------------------------------------

    def emit(self, event: dict[str, Any]) -> None:
        """Append an event to the history."""
        self.history.append(event, self._numbers)

    def point(self, event: dict[str, Any], seconds: float) -> None:
        """Append a point, which took some processor time to measure."""
        with self.pace.condition:
            if event["run"] == self.runs[0].id or self.mark != event["step"]:
                self._numbers += 1
            interval = len(self.runs) * min(max(INTERVAL, seconds / MEASURING), MAX_INTERVAL)
            self._next_due = time.perf_counter() + interval
            for run in self.runs:
                run._due = self.next_due(run._number)
        self.emit(event)

    def next_due(self, number: int) -> float:
        """Return when a run announces the next point: the first active run does it for both."""
        active = [i for i, active in enumerate(self.pace.active) if active]
        return self._next_due if active and active[0] == number and self.mark <= self.runs[number].step else math.inf

    def stopped(self) -> None:
        """Note that no run may take more steps at the moment. The condition must be held."""
        waiting = [run for run, active in zip(self.runs, self.pace.active, strict=True) if active]
        if self.status == "running" and waiting and all(run.is_settled for run in waiting):
            self._set_status("paused")

    def ended(self, number: int, status: str, message: str) -> None:
        """Note the end of a run."""
        with self.pace.condition:
            run = self.runs[number]
            run.status, run.message = status, message
            self.pace.active[number] = False
            if status != "finished" and len(self.runs) > 1:
                self.emit({"type": "status", "run": run.id, "status": status, "message": message})
            if any(self.pace.active):
                if self.pace.turn in (number, None):
                    self.pace.apply()
                    self.pace.pass_on()
                if self.pace.turn is None:
                    self.stopped()
                return
            self.pace.turn = None
            others = [one.status for one in self.runs if one.status != "finished"]
            self._set_status(others[0] if others else "finished", message)

    def _set_status(self, status: str, message: str = "") -> None:
        self.status = status
        self.emit({"type": "status", "status": status, "message": message})
