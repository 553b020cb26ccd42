"""Threads as ranks: exchanges, exceptions, Ctrl-C, BLAS threads; recipes that train with several threads."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from handgrad import Augmentation, Callback, HandgradError
from handgrad.data import load
from handgrad.distributed.threads import run_threads
from handgrad.recipes import Recipe
from handgrad.wrappers import unwrap

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
@pytest.mark.parametrize("error", [HandgradError("no"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_an_exception_in_one_thread_ends_the_others_and_is_raised(error, failing):
    def wait_for_all(comm):
        if comm.Get_rank() == failing:
            raise error
        comm.Allreduce(None, np.zeros(1))

    before = threading.active_count()
    with pytest.raises(type(error)) as raised:
        run_threads(3, wait_for_all)
    assert raised.value is error
    assert threading.active_count() == before


def test_blas_has_one_thread_until_the_last_one_ends():
    def blas_threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    before = blas_threads()
    assert run_threads(2, lambda comm: blas_threads()) == [{1}, {1}]
    assert blas_threads() == before


# ---- Recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"shift": 1.0, "ema_decay": 0.9}, {"members": 2, "validation": 100}])
def test_a_recipe_with_threads_learns_and_gives_the_same_bits_again(settings, digits):
    x, y, x_test, y_test = digits
    recipe = RECIPE.replace(**settings)
    trained = []

    def on_trainer(trainer, member):
        trained.append((member, threading.current_thread() is threading.main_thread()))

    models = [recipe.train(x, y, 10, on_trainer=on_trainer) for _ in range(2)]
    assert models[0].evaluate(x_test, y_test).accuracy > 0.9
    np.testing.assert_array_equal(*(model.predict_proba(x_test) for model in models))
    assert trained == [(member, True) for member in range(recipe.members)] * 2


def test_every_thread_makes_its_own_images(digits, monkeypatch):
    counts, original = {}, Augmentation.__call__

    def counted(self, x, rng, out):
        counts[id(self)] = counts.get(id(self), 0) + len(x)
        return original(self, x, rng, out)

    monkeypatch.setattr(Augmentation, "__call__", counted)
    RECIPE.replace(shift=1.0, epochs=1).train(digits[0][:500], digits[1][:500], 10)
    assert sorted(counts.values()) == [250, 250]


def test_the_average_of_threads_is_that_of_ranks(digits):
    """With plain SGD and an average after every step, θ is that of one thread with the whole batch."""
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


def test_threads_and_processes_exclude_each_other(digits, rejects):
    with rejects("the recipe threads trains with 2 threads: with several processes, choose threads 1"):
        run_threads(2, lambda comm: RECIPE.train(digits[0], digits[1], 10, comm=comm))


@pytest.mark.parametrize("shuffle", ["rows", "blocks"])
def test_threads_read_the_same_files(shuffle, tmp_path, digits):
    for part, rows in (("train", slice(0, 500)), ("test", slice(500, 600))):
        np.save(tmp_path / f"{part}-images.npy", digits[0][rows])
        np.save(tmp_path / f"{part}-labels.npy", digits[1][rows])
    recipe = RECIPE.replace(shift=1.0, validation=60)
    data = load(tmp_path, shuffle=shuffle)
    model, again = (recipe.train(data.x_train, data.y_train, 10).predict_proba(digits[2]) for _ in range(2))
    np.testing.assert_array_equal(model, again)
    if shuffle == "rows":
        np.testing.assert_array_equal(
            model, recipe.train(digits[0][:500], digits[1][:500], 10).predict_proba(digits[2])
        )
