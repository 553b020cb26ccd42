"""Progress of a training: a tqdm bar in a terminal or notebook, plain lines without tqdm."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from .history import format_metric
from .training import Callback, Trainer

MAX_LINES = 50  # lines of a training without a bar


class ProgressBar(Callback):
    """Show the progress of a training and the metrics of its last epoch, on stderr.

    In a terminal and in a notebook this is a progress bar of tqdm. Without tqdm, and if stderr is a file or a pipe, it
    is a line for each epoch, and at most about 50 lines for a long training.

    `Trainer.fit` adds a progress bar by default if it runs in a terminal or a notebook. The environment variable
    TQDM_DISABLE=1 turns this default off.

    Attributes
    ----------
    bar : tqdm or None
        The bar, while there is one.
    """

    shows_progress = True
    main_process_only = True

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the bar."""
        self.open(trainer)
        if self.bar is not None:
            self.bar.set_description_str(_label(trainer))

    def on_batch_end(self, trainer: Trainer) -> None:
        """Move the bar about 100 times per epoch."""
        if self.bar is not None and trainer.batch % self._every == 0:
            self.move(trainer.epoch * trainer.batches + trainer.batch)

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Show the metrics of the epoch."""
        metrics = ", ".join(f"{name} {format_metric(name, value)}" for name, value in _shown(trainer).items())
        if self.bar is not None:
            self.bar.set_description_str(_label(trainer), refresh=False)
            self.bar.set_postfix_str(metrics, refresh=False)
            self.move(trainer.epoch * trainer.batches)
            return
        every = -(-(trainer.epochs - trainer.first_epoch) // MAX_LINES)
        if trainer.stop or trainer.epoch == trainer.epochs or trainer.epoch % max(every, 1) == 0:
            print(f"{_label(trainer)}  {metrics}  {trainer.metrics['seconds']:.2f} s", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the bar, which is complete also if the training stopped early."""
        if self.bar is not None:
            self.bar.total = self.bar.n
        self.close()

    def open(self, trainer: Trainer, *, leave: bool = True) -> None:
        """Open a bar, if tqdm is installed and there is a terminal or a notebook. `leave` keeps it after `close`."""
        self.close()
        self._every = max(1, trainer.batches // 100)
        if not is_interactive():
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tqdm warns if a notebook has no widgets, and then shows text
                from tqdm.auto import tqdm
        except ImportError:
            return
        done, total = trainer.epoch * trainer.batches, trainer.epochs * trainer.batches
        self.bar = tqdm(total=total, initial=done, unit="batch", leave=leave, dynamic_ncols=True)

    def move(self, done: int) -> None:
        """Move the bar to a number of finished batches."""
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Close the bar. Without `on_train_end`, it stays where the training was interrupted."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the bar, which belongs to a terminal."""
        return vars(self) | {"bar": None}


def is_interactive() -> bool:
    """Return whether stderr is a terminal, or the program a notebook, and TQDM_DISABLE is not set."""
    if os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false"):
        return False
    return (sys.stderr is not None and sys.stderr.isatty()) or _in_notebook()


def _in_notebook() -> bool:
    """Whether the program runs in a kernel of Jupyter, as tqdm.auto finds out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _label(trainer: Trainer) -> str:
    """The number of finished epochs: "epoch  3/10"."""
    return f"epoch {trainer.epoch:{len(str(trainer.epochs))}}/{trainer.epochs}"


def _shown(trainer: Trainer) -> dict[str, float]:
    """The metrics of the last epoch that describe the model."""
    return {name: value for name, value in trainer.metrics.items() if name not in ("lr", "seconds")}
