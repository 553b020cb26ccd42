"""Learning rate schedules: constant, step, exponential, cosine, one-cycle, warm-up.

A schedule is a factor on the optimizer's learning rate: schedule(epoch, epochs) -> factor. `epoch` counts in fractions
from 0 at the first step of a `fit` up to, but not including, `epochs`. The rate changes at every step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from .arrays import check_fraction, check_non_negative, check_positive
from .errors import HandgradError, unknown

Schedule = Callable[[float, int], float]


class _Schedule(functools.partial[float]):
    """A function of (epoch, epochs) with its options; unlike a closure it can be pickled and has a repr."""

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.keywords.items())
        return f"schedules.{self.func.__name__.lstrip('_')}({options})"


def constant() -> Schedule:
    """Keep the optimizer's learning rate: 1."""
    return _Schedule(_constant)


def _constant(epoch: float, epochs: int) -> float:
    return 1.0


def step(every: float, factor: float = 0.1) -> Schedule:
    """Multiply by `factor` after each `every` epochs: factor^⌊epoch / every⌋."""
    check_positive("step schedule: every", every)
    check_positive("step schedule: factor", factor)
    return _Schedule(_step, every=every, factor=factor)


def _step(epoch: float, epochs: int, every: float, factor: float) -> float:
    return float(factor ** math.floor(epoch / every))


def exponential(factor: float) -> Schedule:
    """Multiply by `factor` over each epoch, step by step: factor^epoch."""
    check_positive("exponential schedule: factor", factor)
    return _Schedule(_exponential, factor=factor)


def _exponential(epoch: float, epochs: int, factor: float) -> float:
    return float(factor**epoch)


def cosine(final: float = 0.0) -> Schedule:
    """Decrease from 1 to `final` along half a cosine: final + (1 - final) (1 + cos πt) / 2, t = epoch / epochs.

    References
    ----------
    Loshchilov & Hutter (2017), SGDR: stochastic gradient descent with warm restarts; here without restarts.
    """
    check_non_negative("cosine schedule: final", final)
    return _Schedule(_cosine, final=final)


def _cosine(epoch: float, epochs: int, final: float) -> float:
    return final + (1 - final) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def one_cycle(rise: float = 0.3, start: float = 1 / 25, final: float = 1e-4) -> Schedule:
    """Increase from `start` to 1 over the first `rise` of the run, then decrease to `final`, both along half a cosine.

    Parameters
    ----------
    rise : float
        Fraction of the run in which the rate increases, between 0 and 1.
    start, final : float
        Factors at the start and at the end of the run.

    References
    ----------
    Smith & Topin (2018), Super-convergence; in the two-phase form of PyTorch's OneCycleLR.
    """
    check_fraction("one_cycle schedule: rise", rise, "(0, 1)")
    check_non_negative("one_cycle schedule: start", start)
    check_non_negative("one_cycle schedule: final", final)
    return _Schedule(_one_cycle, rise=rise, start=start, final=final)


def _one_cycle(epoch: float, epochs: int, rise: float, start: float, final: float) -> float:
    t = epoch / epochs
    if t < rise:
        return 1 - (1 - start) * (1 + math.cos(math.pi * t / rise)) / 2
    return final + (1 - final) * (1 + math.cos(math.pi * (t - rise) / (1 - rise))) / 2


def warm_up(epochs: float, then: Schedule) -> Schedule:
    """Increase linearly from 0 over the first `epochs` epochs, times another schedule: min(1, t / epochs) · then(t)."""
    check_positive("warm_up schedule: epochs", epochs)
    if not callable(then):
        raise HandgradError(f"warm_up schedule: then must be a schedule, as schedules.cosine(), got {then!r}")
    return _Schedule(_warm_up, epochs=epochs, then=then)


def _warm_up(epoch: float, total: int, /, epochs: float, then: Schedule) -> float:
    return min(1.0, epoch / epochs) * then(epoch, total)


# Schedules without required arguments, by name.
SCHEDULES: dict[str, Callable[[], Schedule]] = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}
_EXAMPLES = {"step": "step(every=10)", "exponential": "exponential(0.95)", "warm_up": "warm_up(5, cosine())"}
_FUNCTIONS: tuple[object, ...] = constant, step, exponential, cosine, one_cycle, warm_up


def make_schedule(schedule: str | Schedule | None) -> Schedule:
    """Return a schedule for a name in SCHEDULES, the constant one for None, or a schedule unchanged.

    Raises HandgradError for anything else, and for the name of a schedule that has required arguments.
    """
    if schedule is None:
        return constant()
    if isinstance(schedule, str):
        if schedule in _EXAMPLES:
            raise HandgradError(f"the schedule '{schedule}' needs arguments, as schedules.{_EXAMPLES[schedule]}")
        if schedule not in SCHEDULES:
            raise unknown("schedule", schedule, SCHEDULES)
        return SCHEDULES[schedule]()
    if not callable(schedule) or schedule in _FUNCTIONS:
        raise HandgradError(f"schedule must be a schedule, as schedules.cosine(), or a name, got {schedule!r}")
    return schedule
