"""Schedules: hand-worked values, the shape between them, pickles and reprs."""

import itertools
import math
import pickle

import pytest

from handgrad import schedules

EPOCHS = 10
QUARTER = (1 + math.cos(math.pi / 4)) / 2  # half a cosine, after a quarter of the way

SCHEDULES = {
    "constant()": {0: 1, 3.7: 1, 10: 1},
    "step(every=3, factor=0.1)": {0: 1, 2.99: 1, 3: 0.1, 5.99: 0.1, 6: 0.01, 9.5: 0.001},
    "step(every=0.5, factor=0.5)": {0: 1, 0.49: 1, 0.5: 0.5, 1: 0.25, 2: 0.0625},
    "exponential(factor=0.9)": {0: 1, 1: 0.9, 2: 0.81, 0.5: math.sqrt(0.9), 10: 0.9**10},
    "cosine(final=0.0)": {0: 1, 2.5: QUARTER, 5: 0.5, 10: 0},
    "cosine(final=0.2)": {0: 1, 5: 0.6, 10: 0.2},
    "one_cycle(rise=0.3, start=0.04, final=0.0001)": {0: 0.04, 1.5: 0.52, 3: 1, 6.5: (1 + 1e-4) / 2, 10: 1e-4},
    "one_cycle(rise=0.5, start=0.2, final=0.1)": {0: 0.2, 2.5: 0.6, 5: 1, 7.5: 0.55, 10: 0.1},
    "warm_up(epochs=2, then=schedules.constant())": {0: 0, 0.5: 0.25, 1: 0.5, 2: 1, 9: 1},
    "warm_up(epochs=4, then=schedules.step(every=2, factor=0.1))": {0: 0, 1: 0.25, 2: 0.05, 4: 0.01, 6: 0.001},
}
every_schedule = pytest.mark.parametrize(("call", "values"), SCHEDULES.items(), ids=SCHEDULES)


def make(call):
    return eval(f"schedules.{call}")


@every_schedule
def test_values_match_those_worked_out_by_hand(call, values):
    schedule = make(call)
    for epoch, value in values.items():
        assert schedule(epoch, EPOCHS) == pytest.approx(value, rel=1e-12, abs=1e-15), f"at epoch {epoch}"


@every_schedule
def test_schedule_can_be_pickled_and_its_repr_is_the_call(call, values):
    schedule = make(call)
    assert repr(schedule) == f"schedules.{call}"
    again = pickle.loads(pickle.dumps(schedule))
    assert repr(again) == repr(schedule)
    assert [again(epoch, EPOCHS) for epoch in values] == [schedule(epoch, EPOCHS) for epoch in values]


def test_defaults_are_those_of_the_docstring():
    for default, explicit in [
        (schedules.step(3), "step(every=3, factor=0.1)"),
        (schedules.cosine(), "cosine(final=0.0)"),
        (schedules.one_cycle(), "one_cycle(rise=0.3, start=0.04, final=0.0001)"),
    ]:
        assert repr(default) == f"schedules.{explicit}"


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
def test_smooth_parts_are_monotonic(schedule, begin, end, rises):
    values = [schedule(begin + (end - begin) * k / 200, EPOCHS) for k in range(201)]
    assert all((b > a) == rises and a != b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("make", [schedules.cosine, schedules.one_cycle])
def test_run_of_twice_the_length_has_the_same_curve_stretched(make):
    for epoch in (0, 1.3, 3, 7.7):
        assert make()(2 * epoch, 20) == pytest.approx(make()(epoch, 10), rel=1e-12)


def test_one_cycle_reaches_the_full_learning_rate():
    schedule = schedules.one_cycle()
    assert max(schedule(k / 1000 * EPOCHS, EPOCHS) for k in range(1000)) == pytest.approx(1, rel=1e-12)


POSITIVE, NON_NEGATIVE, FRACTION = "a finite number > 0", "a finite number >= 0", r"in \(0, 1\)"


@pytest.mark.parametrize(
    ("make", "value", "says"),
    [
        *((schedules.step, v, f"step schedule: every must be {POSITIVE}") for v in (0, math.nan, math.inf)),
        (lambda v: schedules.step(1, factor=v), -1, f"step schedule: factor must be {POSITIVE}"),
        (schedules.exponential, 0, f"exponential schedule: factor must be {POSITIVE}"),
        (lambda v: schedules.warm_up(v, schedules.constant()), 0, f"warm_up schedule: epochs must be {POSITIVE}"),
        (lambda v: schedules.warm_up(2, v), 0.5, "warm_up schedule: then must be a schedule"),
        *((schedules.cosine, v, f"cosine schedule: final must be {NON_NEGATIVE}") for v in (-1e-9, math.nan)),
        (lambda v: schedules.one_cycle(final=v), -1, f"one_cycle schedule: final must be {NON_NEGATIVE}"),
        (lambda v: schedules.one_cycle(start=v), -1, f"one_cycle schedule: start must be {NON_NEGATIVE}"),
        *((schedules.one_cycle, v, f"one_cycle schedule: rise must be {FRACTION}") for v in (0, 1, math.nan)),
    ],
)
def test_invalid_option_is_rejected_with_its_name(make, value, says, rejects):
    with rejects(f"{says}, .*got {value}"):
        make(value)


def test_schedules_are_made_by_name(rejects):
    for name, kind in schedules.SCHEDULES.items():
        assert repr(schedules.make_schedule(name)) == repr(kind())
    assert repr(schedules.make_schedule(None)) == "schedules.constant()"
    given = schedules.step(3)
    assert schedules.make_schedule(given) is given
    with rejects("unknown schedule 'one-cycle': did you mean 'one_cycle'"):
        schedules.make_schedule("one-cycle")


@pytest.mark.parametrize("name", ["step", "exponential", "warm_up"])
def test_name_of_a_schedule_with_required_arguments_is_rejected_with_an_example(name, rejects):
    with rejects(f"the schedule '{name}' needs arguments, as schedules.(.*)") as caught:
        schedules.make_schedule(name)
    example = str(caught.value).partition("schedules.")[2]
    assert callable(eval(f"schedules.{example}", {"schedules": schedules, "cosine": schedules.cosine}))
