"""The learning rate over a run, as a factor on the optimizer's own.

A schedule is a function of where training stands: schedule(epoch, epochs) -> factor, `epoch` counted in fractions
from 0 at the first step up to, but not, `epochs`. The rate is set anew at every step, so curves are smooth.
Each function here makes one, and raises HandgradError for numbers of which none can be made.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .errors import HandgradError

Schedule = Callable[[float, int], float]


def constant() -> Schedule:
    """1: the optimizer's learning rate, all through."""
    return lambda epoch, epochs: 1.0


def step(every: float, factor: float = 0.1) -> Schedule:
    """factor^⌊epoch / every⌋: times `factor` after each `every` epochs."""
    _positive(every=every, factor=factor)
    return lambda epoch, epochs: factor ** math.floor(epoch / every)


def exponential(factor: float) -> Schedule:
    """factor^epoch: times `factor` over each epoch, smoothly."""
    _positive(factor=factor)
    return lambda epoch, epochs: factor**epoch


def cosine(final: float = 0.0) -> Schedule:
    """final + (1 - final) (1 + cos πt) / 2, t = epoch / epochs. Loshchilov & Hutter (2017), without restarts."""
    _not_negative(final=final)
    return lambda epoch, epochs: final + (1 - final) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def one_cycle(rise: float = 0.3, start: float = 1 / 25, final: float = 1e-4) -> Schedule:
    """Up from `start` to 1 over the first `rise` of the run, down to `final` over the rest, both as half cosines.

    Smith & Topin (2018), in the two-phase form that PyTorch made the usual one.
    """
    if not 0 < rise < 1:
        raise HandgradError(f"a schedule with rise {rise}: expected a share of the run, between 0 and 1")
    _not_negative(start=start, final=final)

    def factor(epoch: float, epochs: int) -> float:
        t = epoch / epochs
        if t < rise:
            return 1 - (1 - start) * (1 + math.cos(math.pi * t / rise)) / 2
        return final + (1 - final) * (1 + math.cos(math.pi * (t - rise) / (1 - rise))) / 2

    return factor


def warm_up(epochs_of_rise: float, then: Schedule) -> Schedule:
    """min(1, epoch / epochs_of_rise) · then(epoch, epochs): up in a straight line from 0, then as `then` has it."""
    _positive(epochs_of_rise=epochs_of_rise)
    if not callable(then):
        raise HandgradError(f"a schedule with then {then!r}: expected the schedule that follows, as schedules.cosine()")
    return lambda epoch, epochs: min(1.0, epoch / epochs_of_rise) * then(epoch, epochs)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise HandgradError(f"a schedule with {name} {value}: expected a finite number above 0")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise HandgradError(f"a schedule with {name} {value}: expected a finite number, 0 or more")


# Those that need no argument, by the names that a recipe gives them.
SCHEDULES: dict[str, Callable[[], Schedule]] = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}
