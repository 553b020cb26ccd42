"""Threads as ranks: exchanges, exceptions, Ctrl-C, BLAS threads; recipes that train with several threads."""

import itertools
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from handgrad import EMA, SGD, Augmentation, Callback, HandgradError
from handgrad.data import load
from handgrad.distributed.threads import run_threads
from handgrad.recipes import Recipe
from handgrad.wrappers import unwrap

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
RECIPE = Recipe(name="threads", hidden=(24,), batch_norm=True, batch_size=64, epochs=6, lr=0.01, threads=2, seed=3)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_exchanges_of_arrays_of_any_length(size):
    def exchange(comm):
        assert comm.Get_size() == size
        rank, received = comm.Get_rank(), []
        for length in (0, 1, 2, 7):
            numbers, copy = np.full((length, 2), 10.0**rank), np.full(length, rank)
            comm.Allreduce(None, numbers)
            comm.Bcast(copy, root=size - 1)
            received += [numbers.tolist(), copy.tolist()]
        return received

    results = run_threads(size, exchange)
    total = float("1" * size)
    assert results[0] == [x for n in (0, 1, 2, 7) for x in ([[total, total]] * n, [size - 1] * n)]
    assert results == [results[0]] * size


def test_a_sum_has_the_same_bits_on_every_thread_and_in_every_run():
    def add(comm):
        numbers = np.random.default_rng(comm.Get_rank()).standard_normal(1001).astype(np.float32)
        comm.Allreduce(None, numbers)
        return numbers

    expected = sum(np.random.default_rng(rank).standard_normal(1001).astype(np.float32) for rank in range(3))
    for result in run_threads(3, add) + run_threads(3, add):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_exception_in_one_thread_ends_the_others_and_is_raised(failing):
    error = HandgradError("no")

    def exchange(comm):
        comm.Allreduce(None, np.zeros(1))
        if comm.Get_rank() == failing:
            raise error
        comm.Allreduce(None, np.zeros(1))

    before = threading.active_count()
    with pytest.raises(HandgradError) as raised:
        run_threads(3, exchange)
    assert raised.value is error
    assert threading.active_count() == before


@posix
def test_ctrl_c_while_the_main_thread_waits_ends_all():
    def exchange(comm):
        if comm.Get_rank() == 1:
            time.sleep(0.05)  # rank 0 is waiting now
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        comm.Allreduce(None, np.zeros(1))
        comm.Allreduce(None, np.zeros(1))

    before, handler = threading.active_count(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_threads(3, exchange)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert threading.active_count() == before


def test_an_exception_at_any_call_of_an_exchange_ends_all():
    """A signal handler can raise an exception when a Python function starts and when a built-in function returns."""

    def interrupt_at(event):
        countdown = itertools.count(event, -1)

        def count(frame, kind, argument):
            is_here = frame.f_globals["__name__"] == run_threads.__module__
            if is_here and kind in ("call", "c_return") and next(countdown) == 0:
                raise KeyboardInterrupt

        def exchange(comm):
            if comm.Get_rank() == 0:
                sys.setprofile(count)
            try:
                for _ in range(3):
                    comm.Allreduce(None, np.zeros(1))
            finally:
                if comm.Get_rank() == 0:
                    sys.setprofile(None)

        try:
            run_threads(3, exchange)
        except KeyboardInterrupt:
            return True
        return False

    before = threading.active_count()
    events = next(event for event in itertools.count(1) if not interrupt_at(event))
    assert events > 30
    assert threading.active_count() == before


def test_arrays_that_are_not_contiguous_are_an_error():
    with pytest.raises(ValueError, match="not contiguous"):
        run_threads(2, lambda comm: comm.Allreduce(None, np.zeros((2, 3)).T))


def test_blas_has_one_thread_until_the_last_one_ends():
    def blas_threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    before = blas_threads()
    assert run_threads(2, lambda comm: blas_threads()) == [{1}, {1}]
    assert blas_threads() == before


# ---- Recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shift": 1.0, "ema_decay": 0.9, "dropout": 0.1, "threads": 3},
        {"members": 2, "validation": 100, "early_stopping": 2, "teacher": "second", "deskew": True},
    ],
)
def test_a_recipe_with_threads_learns_and_gives_the_same_bits_again(settings, digits):
    x, y, x_test, y_test = digits
    recipe = RECIPE.replace(**settings)
    trained = []

    def on_trainer(trainer, member):
        trained.append((member, threading.current_thread() is threading.main_thread()))

    models = [recipe.train(x, y, 10, on_trainer=on_trainer) for _ in range(2)]
    assert models[0].evaluate(x_test, y_test).accuracy > 0.7
    np.testing.assert_array_equal(*(model.predict_proba(x_test) for model in models))
    assert trained == [(member, True) for member in range(recipe.members)] * 2


def test_every_thread_makes_its_own_images_with_its_own_random_numbers(digits, monkeypatch):
    calls, original = [], Augmentation.__call__

    def counted(self, x, rng, out):
        calls.append((len(x), rng.bit_generator.state["state"]["state"]))
        return original(self, x, rng, out)

    monkeypatch.setattr(Augmentation, "__call__", counted)
    RECIPE.replace(shift=1.0, epochs=1).train(digits[0][:501], digits[1][:501], 10)
    assert sum(count for count, _ in calls) == 501
    assert len(calls) == len({state for _, state in calls}) == 2


def test_threads_that_average_after_every_step_of_sgd_are_one_thread_with_the_whole_batch(digits):
    x, y = digits[0][:512], digits[1][:512]
    recipe = RECIPE.replace(batch_norm=False, optimizer="sgd", lr=0.5, epochs=1, schedule="constant")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handgrad.recipes.SYNC_EVERY", 1)
        two = unwrap(recipe.train(x, y, 10)).core.parameters
    one = unwrap(recipe.replace(threads=1).train(x, y, 10)).core.parameters
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


def test_a_callback_of_the_program_may_stop_all_threads(digits):
    class Stop(Callback):
        def on_epoch_end(self, trainer):
            trainer.stop = trainer.epoch == 2

    trainers = []

    def on_trainer(trainer, member):
        trainer.callbacks.append(Stop())
        trainers.append(trainer)

    RECIPE.train(digits[0], digits[1], 10, on_trainer=on_trainer)
    assert [trainer.epoch for trainer in trainers] == [2]


def test_several_processes_do_not_use_the_threads(digits):
    """Each process is one rank: here, these are threads too."""
    x, y = digits[0][:512], digits[1][:512]
    one, two = (
        run_threads(2, lambda comm, recipe=recipe: unwrap(recipe.train(x, y, 10, comm=comm)).core.parameters)
        for recipe in (RECIPE.replace(threads=1), RECIPE)
    )
    np.testing.assert_array_equal(one, two)


def test_what_only_the_first_thread_would_have_is_an_error(digits, rejects):
    class Halve(Callback):
        def on_epoch_end(self, trainer):
            trainer.optimizer.lr /= 2

    def train(change):
        RECIPE.train(digits[0], digits[1], 10, on_trainer=lambda trainer, member: change(trainer))

    with rejects("the callback EMA.* has a state, which the other threads do not have: use the settings ema_decay"):
        train(lambda trainer: trainer.callbacks.append(EMA(0.9)))
    with rejects(
        "on_trainer replaced optimizer of the first thread only: change a setting of the recipe, or use threads=1"
    ):
        train(lambda trainer: setattr(trainer, "optimizer", SGD(0.1)))
    with rejects("ranks 0 and 1 have different optimizers"):
        train(lambda trainer: setattr(trainer.optimizer, "lr", 0.5))
    with rejects("the weights or the optimizers of the ranks differ after epoch 2"):
        train(lambda trainer: trainer.callbacks.append(Halve()))


@pytest.mark.parametrize("event", ["on_train_begin", "on_evaluation_end"])
def test_a_thread_that_ends_before_the_others_is_an_error(event, digits, rejects):
    """The threads agree on the end of the training in on_epoch_end."""

    def stop(self, trainer):
        trainer.stop = True

    callback = type("Stop", (Callback,), {event: stop})()
    with rejects("thread 0 ended while other threads waited for it: a callback has stopped it"):
        RECIPE.train(digits[0], digits[1], 10, on_trainer=lambda trainer, member: trainer.callbacks.append(callback))


@pytest.mark.parametrize("shuffle", ["rows", "blocks"])
def test_threads_read_the_same_files(shuffle, tmp_path, digits, monkeypatch):
    monkeypatch.setattr("handgrad.data.stream.BLOCK_ROWS", 50)
    monkeypatch.setattr("handgrad.data.stream.BUFFER_BLOCKS", 4)
    for part, rows in (("train", slice(0, 445)), ("test", slice(500, 600))):
        np.save(tmp_path / f"{part}-images.npy", digits[0][rows])
        np.save(tmp_path / f"{part}-labels.npy", digits[1][rows])
    recipe = RECIPE.replace(shift=1.0, deskew=True, validation=60)  # 385 = 6 * 64 + 1: a thread without a last row
    data = load(tmp_path, shuffle=shuffle)
    answers = [recipe.train(data.x_train, data.y_train, 10).predict_proba(digits[2]) for _ in range(2)]
    np.testing.assert_array_equal(*answers)
    if shuffle == "rows":
        expected = recipe.train(digits[0][:445], digits[1][:445], 10).predict_proba(digits[2])
        np.testing.assert_array_equal(answers[0], expected)
