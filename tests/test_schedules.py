"""The schedules' values at the places where they can be worked out by hand, and their shape between them."""

import itertools
import math

import pytest

from handgrad import HandgradError, schedules

EPOCHS = 10
HALF_DOWN = (1 + math.cos(math.pi / 4)) / 2  # a half cosine, a quarter of the way down


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (schedules.constant(), {0: 1, 3.7: 1, 10: 1}),
        (schedules.step(3), {0: 1, 2.99: 1, 3: 0.1, 5.99: 0.1, 6: 0.01, 9.5: 0.001}),
        (schedules.step(0.5, factor=0.5), {0: 1, 0.49: 1, 0.5: 0.5, 1: 0.25, 2: 0.0625}),
        (schedules.exponential(0.9), {0: 1, 1: 0.9, 2: 0.81, 0.5: math.sqrt(0.9), 10: 0.9**10}),
        (schedules.cosine(), {0: 1, 2.5: HALF_DOWN, 5: 0.5, 10: 0}),
        (schedules.cosine(final=0.2), {0: 1, 5: 0.6, 10: 0.2}),
        (schedules.one_cycle(), {0: 0.04, 1.5: 0.52, 3: 1, 6.5: (1 + 1e-4) / 2, 10: 1e-4}),
        (schedules.one_cycle(0.5, start=0.2, final=0.1), {0: 0.2, 2.5: 0.6, 5: 1, 7.5: 0.55, 10: 0.1}),
        (schedules.warm_up(2, schedules.constant()), {0: 0, 0.5: 0.25, 1: 0.5, 2: 1, 9: 1}),
        (schedules.warm_up(4, schedules.step(2)), {0: 0, 1: 0.25, 2: 0.05, 4: 0.01, 6: 0.001}),
    ],
    ids=[
        *("constant", "step", "step-half", "exponential", "cosine", "cosine-final"),
        *("one_cycle", "one_cycle-other", "warm_up", "warm_up-step"),
    ],
)
def test_values_worked_out_by_hand(schedule, values):
    for epoch, value in values.items():
        assert schedule(epoch, EPOCHS) == pytest.approx(value, rel=1e-12, abs=1e-15), f"at epoch {epoch}"


@pytest.mark.parametrize(
    ("schedule", "begin", "end", "rises"),
    [
        (schedules.exponential(0.9), 0, 10, False),
        (schedules.exponential(1.1), 0, 10, True),
        (schedules.cosine(), 0, 10, False),
        (schedules.one_cycle(), 0, 3, True),
        (schedules.one_cycle(), 3, 10, False),
        (schedules.warm_up(5, schedules.constant()), 0, 5, True),
        (schedules.warm_up(1, schedules.cosine()), 1, 10, False),
    ],
)
def test_smooth_parts_go_one_way(schedule, begin, end, rises):
    values = [schedule(begin + (end - begin) * k / 200, EPOCHS) for k in range(201)]
    assert all((b > a) == rises and a != b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("make", [schedules.cosine, schedules.one_cycle])
def test_a_run_twice_as_long_is_the_same_curve_stretched(make):
    for epoch in (0, 1.3, 3, 7.7):
        assert make()(2 * epoch, 20) == pytest.approx(make()(epoch, 10), rel=1e-12)


def test_one_cycle_is_whole_at_its_peak():
    schedule = schedules.one_cycle()
    assert max(schedule(k / 1000 * EPOCHS, EPOCHS) for k in range(1000)) == pytest.approx(1, rel=1e-12)


def one_line(match):
    return pytest.raises(HandgradError, match=rf"\Aa schedule with {match}: expected [^\n]*\Z")


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("every", schedules.step),
        ("factor", lambda bad: schedules.step(1, factor=bad)),
        ("factor", schedules.exponential),
        ("epochs_of_rise", lambda bad: schedules.warm_up(bad, schedules.constant())),
    ],
    ids=["step-every", "step-factor", "exponential", "warm_up"],
)
def test_what_is_no_finite_number_above_zero_is_refused(name, make, bad):
    with one_line(f"{name} {bad}"):
        make(bad)


@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("final", schedules.cosine),
        ("final", lambda bad: schedules.one_cycle(final=bad)),
        ("start", lambda bad: schedules.one_cycle(start=bad)),
    ],
    ids=["cosine", "one_cycle-final", "one_cycle-start"],
)
def test_a_factor_below_zero_or_without_end_is_refused(name, make, bad):
    """It would be a step up the loss."""
    with one_line(f"{name} {bad}"):
        make(bad)


@pytest.mark.parametrize("rise", [-1, 0, 1, 1.5, math.nan, math.inf])
def test_a_rise_that_is_no_part_of_the_run_is_refused(rise):
    with one_line(f"rise {rise}"):
        schedules.one_cycle(rise=rise)


def test_a_warm_up_before_a_number_is_refused():
    with one_line("then 0.5"):
        schedules.warm_up(2, 0.5)
