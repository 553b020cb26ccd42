"""Data-parallel training on a communicator of threads: equal to one process, whatever the number of ranks."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from handgrad import (
    EMA,
    HOG,
    SGD,
    Adam,
    Callback,
    Checkpoint,
    Dense,
    Lookahead,
    Momentum,
    Network,
    ReLU,
    Trainer,
    VirtualAdversarial,
)
from handgrad.callbacks import resume
from handgrad.data import load
from handgrad.data.mapped import open_images
from handgrad.data.stream import FileRows
from handgrad.distributed.mpi import threads_per_rank
from handgrad.layers import Dropout, Layer
from handgrad.training import DivergedError

from .configurations import CONFIGURATIONS, X, Y, train


def relative_difference(theta, expected):
    return np.linalg.norm(theta - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def expected():
    """The trainer of one process for each configuration."""
    return {name: configuration(None) for name, configuration in CONFIGURATIONS.items()}


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 3) for name in CONFIGURATIONS), ("sgd", 1), ("sgd", 2), ("momentum", 4)]
)
def test_the_result_is_that_of_one_process(name, size, expected, ranks):
    trainers = ranks(size, CONFIGURATIONS[name])
    theta = expected[name].network.parameters
    for trainer in trainers:
        assert relative_difference(trainer.network.parameters, theta) < 1e-6
        np.testing.assert_array_equal(trainer.network.parameters, trainers[0].network.parameters)
        for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(trainer.history[metric], expected[name].history[metric], rtol=1e-6)


def test_more_ranks_than_rows_in_any_batch(ranks):
    def configuration(comm):
        return train(comm, Adam(0.01), batch_norm=True, dropout=0.2, batch_size=4, epochs=1)

    theta = configuration(None).network.parameters
    for trainer in ranks(6, configuration):
        assert relative_difference(trainer.network.parameters, theta) < 1e-6


def test_hog_with_more_ranks_than_rows_in_any_batch(ranks):
    images = np.random.default_rng(0).random((9, 36))

    def configuration(comm):
        layers = [HOG(6, 6, 2), Dense(32, 3)]
        network = Network(layers, loss="cross_entropy", rng=0, dtype=np.float64)
        trainer = Trainer(network, SGD(0.1), batch_size=4, rng=0, comm=comm)
        trainer.fit(images, np.arange(9) % 3, epochs=2, progress=False)
        return trainer

    theta = configuration(None).network.parameters
    for trainer in ranks(6, configuration):
        assert relative_difference(trainer.network.parameters, theta) < 1e-6


def test_network_fit_has_the_options(ranks):
    def fit(comm, **options):
        network = Network([20, 8, 4], loss="cross_entropy", rng=0)
        network.fit(X, Y, epochs=2, rng=0, comm=comm, **options)
        return network.parameters.copy()

    alone = fit(None)
    assert relative_difference(ranks(2, fit)[1], alone) < 1e-6
    assert relative_difference(ranks(2, lambda comm: fit(comm, sync_every=4))[1], alone) > 1e-6


def test_a_second_fit_continues_the_first_one(ranks):
    def fit_twice(comm):
        trainer = train(comm, Adam(0.01), epochs=2, callbacks=[EMA(0.9)])
        trainer.fit(X, Y, epochs=2)
        return trainer

    theta = fit_twice(None).network.parameters
    assert relative_difference(ranks(3, fit_twice)[0].network.parameters, theta) < 1e-6


def test_all_ranks_read_a_file_in_the_order_of_rank_0(ranks, digits, tmp_path):
    """Each process may have chosen rows or blocks by the available memory of its machine."""
    np.save(tmp_path / "x.npy", digits[0])

    def fit(comm, *orders):
        rank = 0 if comm is None else comm.Get_rank()
        x = FileRows([open_images(tmp_path / "x.npy")], orders[rank])
        network = Network([64, 8, 10], loss="cross_entropy", rng=0, dtype=np.float64)
        Trainer(network, SGD(0.1), batch_size=32, comm=comm, rng=0).fit(x, digits[1], 2)
        return network.parameters

    for first, second in (("rows", "blocks"), ("blocks", "rows")):
        theta = fit(None, first)
        for result in ranks(2, lambda comm, orders=(first, second): fit(comm, *orders)):
            assert relative_difference(result, theta) < 1e-12


def test_the_gradient_is_that_of_the_whole_batch(ranks):
    def last_gradient(comm):
        return train(comm, SGD(0.1), epochs=1).network.gradient

    np.testing.assert_allclose(ranks(2, last_gradient)[1], last_gradient(None), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("shuffle", ["rows", "blocks"])
def test_every_rank_reads_its_rows_of_files(shuffle, tmp_path, ranks):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (1300, 6, 4)).astype(np.uint8), np.arange(1300) % 4
    for part, rows in (("train", slice(0, 1200)), ("test", slice(1200, 1300))):
        np.save(tmp_path / f"{part}-images.npy", x[rows])
        np.save(tmp_path / f"{part}-labels.npy", y[rows])

    def fit(comm):
        data = load(tmp_path, shuffle=shuffle)
        network = Network([24, 8, 4], loss="cross_entropy", rng=1)
        trainer = Trainer(network, Momentum(0.02), batch_size=50, rng=2, comm=comm)
        trainer.fit(data.x_train, data.y_train, 2, validation=(data.x_train[:100], data.y_train[:100]))
        return trainer

    alone, *trainers = fit(None), *ranks(3, fit)
    for trainer in trainers:
        assert relative_difference(trainer.network.parameters, alone.network.parameters) < 1e-6
        np.testing.assert_allclose(trainer.history["val_loss"], alone.history["val_loss"], rtol=1e-6)


# ---- Local SGD -------------------------------------------------------------------------------------------------------


def test_averaging_after_every_step_of_sgd_is_the_same_as_summing_gradients(ranks):
    """With equal numbers of rows, the mean of θ - lr gᵣ over the ranks is θ - lr g."""
    options = {"batch_size": 4, "epochs": 2}  # 164 examples: 41 batches
    theta = train(None, SGD(0.1), **options).network.parameters
    local = ranks(2, lambda comm: train(comm, SGD(0.1), sync_every=1, **options))[0].network.parameters
    assert relative_difference(local, theta) < 1e-12


@pytest.mark.parametrize("every", [3, 1000])
@pytest.mark.parametrize("batch_size", [33, 54])  # the last batch of 2 rows leaves the third rank without one
def test_local_sgd_learns_and_its_ranks_are_equal_at_the_end_of_an_epoch(every, batch_size, digits, ranks):
    seen = [[], [], []]

    class Recorder(Callback):
        def on_epoch_end(self, trainer):
            seen[trainer._parallel.rank].append(trainer.network.parameters.copy())

    def fit(comm):
        network = Network([64, 24, 10], activation="relu", loss="cross_entropy", batch_norm=True, dropout=0.1, rng=0)
        callbacks = [EMA(0.9), Recorder()]
        trainer = Trainer(
            network, Adam(0.01), batch_size=batch_size, callbacks=callbacks, rng=0, comm=comm, sync_every=every
        )
        trainer.fit(digits[0][:596], digits[1][:596], epochs=8)  # 596 = 11 · 54 + 2
        return network.evaluate(digits[2], digits[3]).accuracy, [s.copy() for s in trainer.optimizer.state]

    results = ranks(3, fit)
    for (accuracy, state), recorded in zip(results, seen, strict=True):
        assert accuracy > 0.9
        np.testing.assert_array_equal(recorded, seen[0])
        np.testing.assert_array_equal(state, results[0][1])


# ---- Agreement of the ranks ------------------------------------------------------------------------------------------


def test_a_rank_that_stops_ends_the_training_of_all(ranks):
    class StopHere(Callback):
        def on_epoch_end(self, trainer):
            trainer.stop = trainer.epoch == 2 and trainer._parallel.rank == 1

    trainers = ranks(3, lambda comm: train(comm, SGD(0.1), callbacks=[StopHere()], epochs=5))
    assert [trainer.epoch for trainer in trainers] == [2, 2, 2]


def test_only_rank_0_writes_and_prints(ranks, tmp_path, capsys):
    def fit(comm):
        path = tmp_path / f"{comm.Get_rank()}.safetensors"
        network = Network([20, 8, 4], loss="cross_entropy", rng=0)
        Trainer(network, SGD(0.1), callbacks=[Checkpoint(path)], comm=comm).fit(X, Y, epochs=1, progress=True)

    ranks(2, fit)
    assert [path.name for path in tmp_path.iterdir()] == ["0.safetensors"]
    assert capsys.readouterr().err.count("epoch 1/1") == 1


def test_divergence_is_reported_by_every_rank_at_the_same_step(rejects, ranks):
    steps = []

    def fit(comm):
        try:
            train(comm, SGD(1e150), batch_size=54, epochs=2)
        except DivergedError as error:
            steps.append(str(error))

    ranks(3, fit)
    assert len(steps) == 3
    assert len(set(steps)) == 1
    with rejects("diverged at step"):
        train(None, SGD(1e150), batch_size=54, epochs=2)


def test_ranks_with_different_data_are_an_error(rejects, ranks):
    def fit(comm, rows=205, change=0.0, **options):
        x = X[:rows].copy()
        x[-1] += change
        Network([20, 8, 4], loss="cross_entropy").fit(x, Y[:rows], comm=comm, **options)

    with rejects("different numbers of training examples .*every rank needs the same"):
        ranks(2, lambda comm: fit(comm, rows=200 + comm.Get_rank()))
    with rejects("different training examples: every rank"):
        ranks(2, lambda comm: fit(comm, change=comm.Get_rank(), validation=None))
    with rejects(r"different numbers of epochs \(5 and 6\)"):
        ranks(2, lambda comm: fit(comm, epochs=5 + comm.Get_rank()))
    with rejects("different values of sync_every"):
        ranks(2, lambda comm: fit(comm, sync_every=5 + comm.Get_rank()))
    with rejects("different optimizers: every rank"):
        ranks(2, lambda comm: fit(comm, optimizer=Lookahead(SGD(0.1 + comm.Get_rank()))))


def test_optimizers_may_hold_an_object_of_their_rank(ranks):
    class Noting(SGD):
        def __init__(self, lr, comm):
            super().__init__(lr)
            self.comm = comm

    first, second = ranks(2, lambda comm: train(comm, Noting(0.1, comm), epochs=1))
    np.testing.assert_array_equal(first.network.parameters, second.network.parameters)


def test_weights_that_differ_between_the_ranks_are_an_error(rejects, ranks):
    class Disturb(Callback):
        def on_batch_end(self, trainer):
            trainer.network.parameters[0] += 1e-6 * trainer._parallel.rank

    with rejects("weights or the optimizers of the ranks differ after epoch 1"):
        ranks(2, lambda comm: train(comm, SGD(0.1), callbacks=[Disturb()]))


# ---- Checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_checkpoint_of_two_ranks_continues_with_another_number(size, tmp_path, ranks):
    def options(comm):
        return {"dropout": 0.2, "batch_norm": True, "callbacks": [EMA(0.9), Checkpoint(tmp_path / "c.safetensors")]}

    ranks(2, lambda comm: train(comm, Adam(0.01), epochs=2, **options(comm)))

    def continued(comm):
        network = Network(
            [20, 24, 16, 4],
            activation="relu",
            loss="cross_entropy",
            batch_norm=True,
            dropout=0.2,
            rng=9,
            dtype=np.float64,
        )
        trainer = Trainer(network, Adam(0.01), batch_size=33, rng=9, comm=comm, callbacks=options(comm)["callbacks"])
        if comm is None or comm.Get_rank() == 0:  # the others receive the state from rank 0
            resume(trainer, tmp_path / "c.safetensors")
        trainer.fit(X, Y, until_epoch=4, validation=0.2)
        return network.parameters

    expected = train(None, Adam(0.01), epochs=4, **options(None)).network.parameters
    results = ranks(size, continued) if size > 1 else [continued(None)]
    for theta in results:
        assert relative_difference(theta, expected) < 1e-6


# ---- Invalid input ---------------------------------------------------------------------------------------------------


class Noise(Layer):
    """A custom layer with random numbers."""

    def forward(self, x):
        return x + self.rng.standard_normal(x.shape)

    def backward(self, dy):
        return dy

    def seed(self, rngs):
        (self.rng,) = rngs.dropout.spawn(1)


def test_unsupported_parts_are_rejected(rejects, ranks):
    def trainer(comm, *layers, **options):
        network = Network([Dense(20, 8), *(layers or [ReLU(), Dropout(0.1)]), Dense(8, 4)], loss="cross_entropy")
        return Trainer(network, SGD(0.1), comm=comm, **options)

    with rejects("perturb .* does not work with several processes"):
        ranks(2, lambda comm: trainer(comm, perturb=VirtualAdversarial(1.0)))
    with rejects(r"layer 1 \(Noise\(\)\) draws random numbers"):
        ranks(2, lambda comm: trainer(comm, Noise()))
    with rejects("sync_every must be an integer >= 1, got 0"):
        ranks(2, lambda comm: trainer(comm, sync_every=0))
    with rejects("sync_every needs several processes: pass comm"):
        trainer(None, sync_every=2)
    with rejects("comm must be a communicator, as MPI.COMM_WORLD, got 4, without Get_rank"):
        trainer(4)


# ---- BLAS threads ----------------------------------------------------------------------------------------------------


def test_ranks_on_one_machine_share_its_cores(ranks, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert ranks(2, threads_per_rank) == [4, 4]
    assert ranks(3, threads_per_rank) == [2, 2, 2]
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    assert ranks(2, threads_per_rank) == [1, 1]


def test_the_limit_ends_with_the_training(ranks):
    before = [library["num_threads"] for library in threadpool_info()]
    ranks(3, lambda comm: train(comm, SGD(0.1), epochs=1))
    assert [library["num_threads"] for library in threadpool_info()] == before
