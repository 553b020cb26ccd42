"""The history of a training: one number per epoch for each metric."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

from .errors import HandgradError, unknown
from .tables import Table

MAX_ROWS = 50  # epochs that a notebook shows


class Best(NamedTuple):
    """The best epoch of a metric.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    value : float
        The metric at the end of this epoch.
    """

    epoch: int
    value: float


class History(dict[str, list[float]]):
    """Metrics by name: "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds".

    A history is a dict with a list for each metric, with one number per epoch. A metric that was not measured in an
    epoch has NaN there. A regression has no accuracy.

    Examples
    --------
    >>> history = History(loss=[0.9, 0.4], val_accuracy=[0.8, 0.75])
    >>> history.best("val_accuracy")
    Best(epoch=1, value=0.8)
    >>> history
    History(epochs=2, loss=0.4000, val_accuracy=75.00%)
    """

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return max(map(len, self.values()), default=0)

    def best(self, metric: str) -> Best:
        """Return the epoch, counted from 1, with the best value of a metric, and this value.

        The best accuracy or score is the largest value, and the best value of every other metric is the smallest. See
        `larger_is_better`.

        Parameters
        ----------
        metric : str
            Name of the metric, as "val_accuracy".

        Returns
        -------
        Best
            (epoch, value). The first epoch, if several have the best value.

        Raises
        ------
        HandgradError
            If the history does not contain the metric, or only NaN.
        """
        if metric not in self:
            raise unknown("metric", metric, self) if self else HandgradError("the history is empty: train first")
        measured = [(value, epoch) for epoch, value in enumerate(self[metric], 1) if not math.isnan(value)]
        if not measured:
            raise HandgradError(f"the metric '{metric}' was not measured in any epoch")
        sign = -1 if larger_is_better(metric) else 1
        value, epoch = min(measured, key=lambda pair: sign * pair[0])
        return Best(epoch, value)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV file: a header, then one line per epoch. A metric that was not measured is an empty cell.

        Raises HandgradError if the file cannot be written. An existing file is replaced completely or not at all.
        """
        from .io.atomic import replace_file  # late: few programs write a history

        replace_file(path, csv_lines(self).encode())

    def plot(self, ax: Any = None) -> Any:
        """Plot the metrics by epoch with `handgrad.diagnostics.plots.history`, and return the Matplotlib figure.

        Raises MissingExtraError if Matplotlib is not installed.
        """
        from .diagnostics import plots  # late: Matplotlib takes long to import

        return plots.history(self, ax)

    def __repr__(self) -> str:
        last = ", ".join(
            f"{name}={format_metric(name, values[-1])}" if values else f"{name}=[]" for name, values in self.items()
        )
        return f"History(epochs={self.epochs}{', ' * bool(last)}{last})"

    def _repr_html_(self) -> str:
        """Return a table of the epochs, and the best epoch of the validation set."""
        first = max(0, self.epochs - MAX_ROWS)
        rows = [
            [
                str(i + 1),
                *(format_metric(name, values[i]) if i < len(values) else "" for name, values in self.items()),
            ]
            for i in range(first, self.epochs)
        ]
        notes = [f"the last {MAX_ROWS} of {self.epochs:,} epochs"] if first else []
        for metric in ("val_accuracy", "val_loss"):
            if not all(map(math.isnan, self.get(metric, ()))):
                best = self.best(metric)
                notes.append(f"best {metric}: {format_metric(metric, best.value)} in epoch {best.epoch}")
        return Table(("epoch", *self), rows, "; ".join(notes))._repr_html_()


def larger_is_better(metric: str) -> bool:
    """Return whether a larger value of a metric is better: its name ends in "accuracy" or "score"."""
    return metric.endswith(("accuracy", "score"))


def csv_lines(history: History, first: int | None = None) -> str:
    """Return the lines of a CSV file: the header and all epochs, or only the epochs from the index `first`."""
    import csv  # late: few programs write a history
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if first is None:
        writer.writerow(["epoch", *history])
    for i in range(first or 0, history.epochs):
        row = (values[i] if i < len(values) else math.nan for values in history.values())
        writer.writerow([i + 1, *("" if math.isnan(value) else float(value) for value in row)])
    return text.getvalue()


def format_metric(name: str, value: float) -> str:
    """Return a metric as text: an accuracy in percent, a loss with four digits after the point."""
    if math.isnan(value):
        return "nan"
    if name.endswith("accuracy"):
        return f"{value:.2%}"
    if name == "seconds":
        return f"{value:.2f}"
    return f"{value:.4f}" if name.endswith("loss") and 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"
