"""Runs: a training in a thread that can be paused, with copies of its weights and measurements.

A run is a `Trainer` of handgrad with a callback. The callback counts the steps, waits while the experiment is paused,
changes the learning rate between two steps, and takes copies of the weights and measurements for the page. It changes
nothing else, so that the weights are those of the same calls without it: see `handgrad.lab.code`.
"""

from __future__ import annotations

import collections
import functools
import math
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from ..blas import one_blas_thread
from ..errors import HandgradError
from ..model import Model
from ..network import Network
from ..training import Callback, DivergedError, Totals, Trainer
from .examples import Examples
from .measure import Predictions, Probe, layer_table, predictions, update_ratios
from .pace import ClosedError
from .settings import Settings

if TYPE_CHECKING:
    from .session import Experiment

EPOCH_INTERVAL = 0.25  # seconds between two epochs that are kept, of runs with very short epochs
COPY_AGE = 0.05  # seconds for which a copy of the weights is used again
COPY_TIMEOUT = 2.0  # seconds after which an older copy is used: the run is evaluating its validation set
PINNED = 3  # copies of a run that are kept after an answer, so that later answers can be about the same weights
SNAPSHOTS, SNAPSHOT_BYTES = 200, 32 << 20  # epochs of a run whose weights are kept
JOIN_TIMEOUT = 10.0  # seconds


class NotFoundError(HandgradError):
    """There is no such experiment or run."""


@dataclass(eq=False)
class Snapshot:
    """A copy of the weights of a run.

    Attributes
    ----------
    step : int
        Number of steps.
    epoch : int
        Number of finished epochs.
    metrics : dict
        Metrics of the epoch, empty within an epoch.
    """

    step: int
    epoch: int
    metrics: dict[str, float]
    parameters: Array
    _run: Run

    @functools.cached_property
    def network(self) -> Network:
        """The network with these weights. It is only read, so that several requests can share it."""
        network = self._run.template.astype(self.parameters.dtype)
        network.parameters[...] = self.parameters
        return network

    @property
    def model(self) -> Model:
        """The model for inference, with the preprocessing of the recipe."""
        recipe = self._run.settings.make_recipe()
        return self.network if recipe is None else recipe.assemble([self.network], self._run.examples.shape)

    @functools.cached_property
    def predictions(self) -> Predictions:
        """The predictions for the validation examples."""
        return predictions(self.network, self._run.x_validation)


def _sum(a: Totals, b: Totals) -> Totals:
    return Totals(a.loss + b.loss, a.correct + b.correct, a.examples + b.examples)


class _Watcher(Callback):
    """The callback of a run: it calls the run back. It is the last one, so that EMA has put its weights back."""

    order = 3

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_batch_end(self, trainer: Trainer) -> None:
        self.run.after_step()

    def on_epoch_end(self, trainer: Trainer) -> None:
        self.run.after_epoch()

    def on_evaluation_end(self, trainer: Trainer) -> None:
        self.run.wait()


class Run:
    """A training in a thread.

    Parameters
    ----------
    experiment : Experiment
        It decides when the run takes steps.
    number : int
        0 for the first run of the experiment.
    settings : Settings
    examples : Examples

    Attributes
    ----------
    id : str
    trainer : Trainer
    step : int
        Number of steps.
    rates : dict of int to float
        Changes of the learning rate: the number of steps before each, and the new rate.
    message : str
        Why the run ended, if it diverged or failed.
    """

    def __init__(self, experiment: Experiment, number: int, settings: Settings, examples: Examples) -> None:
        self.id, self.settings, self.examples = f"{experiment.id}-{number}", settings, examples
        self._experiment, self._number = experiment, number
        preprocessing = settings.preprocessing(examples)
        self.x_train, self.x_validation = examples.x_train, examples.x_validation
        if preprocessing is not None:
            self.x_train, self.x_validation = preprocessing(self.x_train), preprocessing(self.x_validation)
        self.y_train, self.y_validation = examples.y_train, examples.y_validation
        self.trainer = settings.make_trainer(examples, [_Watcher(self)])
        # The warnings of a training become messages on the page: a thread cannot catch those of `warnings`.
        self.trainer._warn = self._warn  # type: ignore[method-assign]
        self.network = self.trainer.network
        self.template = self.network.astype(self.network.dtype)
        self.layers = layer_table(self.network)
        self.epoch_steps = -(-len(self.x_train) // min(settings.batch_size, len(self.x_train)))
        self.rates: dict[int, float] = {}
        self.status, self.message = "ready", ""
        self.step = 0
        self._probe = Probe(self.network, self.x_train, self.y_train)
        self._before, self._before_step = self.network.parameters.copy(), 0
        self._thread: threading.Thread | None = None
        self._waiting = True
        self._attention = False
        self._wake, self._due, self._earliest = 0.0, math.inf, 0.0
        self._new_lr: float | None = None
        self._copy_wanted = False
        self._copy_time = -math.inf
        self._done, self._done_step = Totals(0.0, 0, 0), 0  # of the finished epochs
        self._last, self._last_step = Totals(0.0, 0, 0), -1  # at the last point
        self._before_last = self._last  # at the point before it
        self._validation: dict[str, float] = {}
        self._seconds, self._since, self._last_seconds = 0.0, 0.0, 0.0
        self._epoch_time, self._epoch_stride = -math.inf, 1
        self.snapshots = [Snapshot(0, 0, {}, self.network.parameters.copy(), self)]
        self._copy = self.snapshots[0]
        self._pinned: collections.deque[Snapshot] = collections.deque(maxlen=PINNED)

    # ---- Called by the server ----------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return what the page shows of the run."""
        return {
            "id": self.id,
            "settings": self.settings.to_json(),
            "layers": self.layers,
            "n_parameters": int(self.network.parameters.size),
            "n_train": len(self.x_train),
            "n_validation": len(self.x_validation),
            "steps_per_epoch": self.epoch_steps,
            "classes": self.examples.classes,
            "image": list(self.examples.shape) if self.examples.is_images else None,
            "status": self._experiment.status if self.status == "ready" else self.status,
            "message": self.message,
            "step": self.step,
            "lr": self.lr,
        }

    @property
    def lr(self) -> float:
        """The learning rate of the next step, without the schedule of a recipe."""
        return self.trainer.optimizer.lr if self._new_lr is None else self._new_lr

    def current(self) -> Snapshot:
        """Return a copy of the weights, at most 50 ms old while the run takes steps."""
        with self._experiment.pace.condition:
            alive = self._thread is not None and self._thread.is_alive()
            if not alive or self._waiting:
                self._take_copy()
            elif time.perf_counter() - self._copy_time > COPY_AGE:
                self._copy_wanted = self._attention = True
                self._experiment.pace.condition.wait_for(lambda: not self._copy_wanted, COPY_TIMEOUT)
            return self._copy

    def snapshot(self, epoch: int | None) -> Snapshot:
        """Return the weights after an epoch, or after the closest one that is kept; None: the current weights."""
        if epoch is None:
            return self.current()
        with self._experiment.pace.condition:
            return min(self.snapshots, key=lambda snapshot: abs(snapshot.epoch - epoch))

    def pin(self, snapshot: Snapshot) -> None:
        """Keep a snapshot until some others are pinned, so that `pinned` finds it."""
        with self._experiment.pace.condition:
            if snapshot not in self._pinned:
                self._pinned.append(snapshot)

    def pinned(self, step: int) -> Snapshot:
        """Return the pinned weights after a step. Raises NotFoundError if they are not kept any more."""
        with self._experiment.pace.condition:
            for snapshot in reversed(self._pinned):
                if snapshot.step == step:
                    return snapshot
        raise NotFoundError(f"the weights after step {step:,} are not kept: ask for the confusion matrix again")

    def epochs(self) -> list[dict[str, Any]]:
        """Return the epochs whose weights are kept."""
        with self._experiment.pace.condition:
            return [{"epoch": one.epoch, "step": one.step, **one.metrics} for one in self.snapshots]

    def set_lr(self, lr: float) -> None:
        """Change the learning rate from the next step on. The condition must be held."""
        self._new_lr, self._attention = lr, True
        if self._waiting:
            self._serve()

    def set_speed(self) -> None:
        """Forget the time of the next step, because the speed has changed. The condition must be held."""
        self._earliest, self._attention = 0.0, True

    def interrupt(self) -> None:
        """Make the run look at the state of the experiment after its next step."""
        self._attention = True

    # ---- The thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, once. The condition must be held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._train, name=f"handgrad run {self.id}", daemon=True)
            self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread after the experiment was closed."""
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT)

    def _train(self) -> None:
        status, message = "finished", ""
        try:
            with one_blas_thread():
                self.wait()
                self.trainer.fit(
                    self.x_train,
                    self.y_train,
                    until_epoch=self.settings.epochs,
                    validation=(self.x_validation, self.y_validation),
                    progress=False,
                )
                self._point()
        except ClosedError:
            return
        except DivergedError as error:
            status, message = "diverged", str(error)
            with self._experiment.pace.condition:
                self._point()
        except (HandgradError, MemoryError) as error:
            status, message = "failed", str(error) or "not enough memory"
        except Exception:  # an error of handgrad: the page must not wait for this run
            traceback.print_exc()
            status, message = "failed", "the training failed: the terminal shows the reason"
        finally:
            with self._experiment.pace.condition:
                self._waiting, self._copy_wanted = True, False
                self._take_copy()
                self._experiment.pace.condition.notify_all()
        self._experiment.ended(self._number, status, message)

    def after_step(self) -> None:
        """Count a step, and wait if the run has to. It takes 0.3 us of a step."""
        self.step += 1
        if self.step < self._wake and not self._attention and time.perf_counter() < self._due:
            return
        self._measure()
        if self.trainer.batch < self.trainer.batches:  # after the last step of an epoch, wait for its validation
            self.wait()

    def after_epoch(self) -> None:
        """Keep the weights and the metrics of an epoch."""
        trainer = self.trainer
        with self._experiment.pace.condition:
            self._done = _sum(self._done, trainer.totals())
            self._done_step = self.step
        now = time.perf_counter()
        stops = self.step >= self._experiment.pace.limits[self._number] or trainer.epoch == self.settings.epochs
        if now - self._epoch_time < EPOCH_INTERVAL and not stops:
            return
        self._epoch_time = now
        names = {"val_loss": "validation_loss", "val_accuracy": "validation_accuracy"}
        metrics = {names.get(name, name): float(value) for name, value in trainer.metrics.items()}
        self._validation = {name: metrics[name] for name in names.values() if name in metrics}
        snapshot = Snapshot(self.step, trainer.epoch, metrics, self.network.parameters.copy(), self)
        with self._experiment.pace.condition:
            self.snapshots.append(snapshot)
            self._thin_snapshots()
        self._experiment.emit({"type": "epoch", "run": self.id, "step": self.step, "epoch": trainer.epoch, **metrics})

    def _thin_snapshots(self) -> None:
        """Remove the snapshot with the closest neighbours if there are too many, never the first or the last one."""
        most = min(SNAPSHOTS, max(4, SNAPSHOT_BYTES // self.network.parameters.nbytes))
        while len(self.snapshots) > most:
            epochs = [snapshot.epoch for snapshot in self.snapshots]
            del self.snapshots[min(range(1, len(epochs) - 1), key=lambda i: epochs[i + 1] - epochs[i - 1])]

    def wait(self) -> None:
        """Wait until the run may take its next step. Raises ClosedError when the experiment is closed."""
        pace, i = self._experiment.pace, self._number
        now = time.perf_counter()
        self._seconds += now - self._since if self._since else 0.0
        with pace.condition:
            pace.steps[i] = self.step
            self._attention = False
            if pace.turn == i:
                pace.apply()
                if self.step >= pace.until(i):
                    pace.pass_on()
            self._waiting = True
            while not pace.closed and (pace.turn != i or time.perf_counter() < self._earliest):
                self._serve()
                if self._stopped():
                    self._point()
                if pace.turn is None:
                    self._experiment.stopped()
                pace.condition.wait(max(0.0, self._earliest - time.perf_counter()) if pace.turn == i else None)
            self._serve()
            self._waiting = False
            if pace.closed:
                raise ClosedError
            self._earliest = time.perf_counter() + pace.interval if pace.interval else 0.0
            self._wake = self.step + 1 if pace.interval else pace.until(i)
            if self._wake == self.step + 1:  # a single step: measure its update
                self._keep_before()
            self._due = self._experiment.next_due(i)
            mark = self._experiment.mark
            if mark > self.step:
                self._wake = min(self._wake, mark if mark == self.step + 1 else mark - 1)
                if mark == self.step + 1:
                    self._keep_before()
        self._since = time.perf_counter()

    def _stopped(self) -> bool:
        """Whether the run stays at this step, which is then a point of the curve."""
        return self.step > 0 and self.step >= self._experiment.pace.limits[self._number]

    @property
    def is_settled(self) -> bool:
        """Whether the last point is that of the last step."""
        return self._last_step == self.step or self.step == 0

    def _serve(self) -> None:
        """Change the learning rate and take a copy of the weights, if somebody wants it."""
        if self._new_lr is not None:
            self.trainer.optimizer.lr, self._new_lr = self._new_lr, None
            self.rates[self.step] = self.trainer.optimizer.lr
        if self._copy_wanted:
            self._take_copy()
            self._copy_wanted = False
            self._experiment.pace.condition.notify_all()

    def _take_copy(self) -> None:
        self._copy_time = time.perf_counter()
        if self._copy.step != self.step or not np.array_equal(self._copy.parameters, self.network.parameters):
            self._copy = Snapshot(self.step, self.trainer.epoch, {}, self.network.parameters.copy(), self)

    # ---- Measurements ------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Announce the next point if it is due, and make the point if this step is it."""
        experiment, mark = self._experiment, self._experiment.mark
        if mark == self.step:
            self._point()
        elif mark == self.step + 1:
            self._keep_before()
        elif time.perf_counter() >= self._due and self.step < experiment.pace.limits[self._number]:
            with experiment.pace.condition:
                ahead = max((steps for i, steps in enumerate(experiment.pace.steps) if i != self._number), default=-1)
                now = self._before_step == self.step - 1 and ahead < self.step  # the update of this step is known
                experiment.mark = self.step if now else max(self.step, ahead) + 1
            self._due = math.inf
            if now:
                self._point()
            else:
                self._keep_before()

    def _keep_before(self) -> None:
        """Keep the weights before a step whose update is measured."""
        np.copyto(self._before, self.network.parameters)
        self._before_step = self.step

    def _totals(self) -> Totals:
        """The sums over all examples so far."""
        if self.step == self._done_step:
            return self._done
        return _sum(self._done, self.trainer.totals())

    def _point(self) -> None:
        """Send a point of the curves: the mean loss since the last point, and what is measured now.

        If only few examples are new, the mean begins at the point before the last one.
        """
        if self._last_step == self.step:
            return
        begin, used, network, trainer = time.perf_counter(), time.thread_time(), self.network, self.trainer
        totals, seconds = self._totals(), self._seconds
        if not self._waiting:
            seconds += begin - self._since
        new_examples = totals.examples - self._last.examples
        # A run that stops soon after a point has few new examples, whose mean would be a jump at the end of the curve.
        few = 4 * new_examples < self._last.examples - self._before_last.examples
        since = self._before_last if few else self._last
        loss, correct, count = (a - b for a, b in zip(totals, since, strict=True))
        measured = self._probe.measure(network.parameters)
        ratios = update_ratios(network, self._before) if self._before_step == self.step - 1 else None
        elapsed = seconds - self._last_seconds
        event = {
            "type": "point",
            "run": self.id,
            "step": self.step,
            "epoch": round(self.step / self.epoch_steps, 6),
            "loss": loss / count if count else None,
            "accuracy": correct / count if count else None,
            "validation_loss": self._validation.get("validation_loss"),
            "validation_accuracy": self._validation.get("validation_accuracy"),
            "lr": trainer._lr() if trainer.batches else trainer.optimizer.lr,
            "gradient_norms": measured.gradient_norms,
            "update_ratios": ratios or [None] * len(measured.gradient_norms),
            "saturated": measured.saturated,
            "dead": measured.dead,
            "seconds": seconds,
            "examples_per_second": new_examples / elapsed if elapsed > 0 else None,
        }
        self._before_last, self._last, self._last_step = self._last, totals, self.step
        self._last_seconds, self._validation = seconds, {}
        self._experiment.point(event, time.thread_time() - used)
        self._since = time.perf_counter() if self._since else 0.0
        self._seconds = seconds

    def _warn(self, problems: dict[str, str]) -> None:
        for message in problems.values():
            self._experiment.emit({"type": "warning", "run": self.id, "message": message})
