"""Several processes with mpiexec: equality with one process, the command line, errors and killed processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from handgrad import load
from handgrad.data.dataset import FILES
from handgrad.data.idx import write_idx
from handgrad.data.synthetic import synthetic_digits
from handgrad.io.safetensors import read_arrays
from handgrad.wrappers import unwrap

from .configurations import CONFIGURATIONS
from .conftest import environment

pytestmark = pytest.mark.mpi
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory of IDX files: 600 synthetic digits for training and 100 for testing."""
    directory = tmp_path_factory.mktemp("digits")
    for name, array in zip(FILES.values(), synthetic_digits(600, 100, seed=1), strict=True):
        write_idx(directory / f"{name}.gz", array)
    return directory


# ---- Results ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected():
    return {name: configuration(None) for name, configuration in CONFIGURATIONS.items()}


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_result_is_that_of_one_process_and_a_repetition_gives_the_same_bits(n, mpiexec, expected, tmp_path):
    done = mpiexec(n, "-m", "mpi4py", HERE / "configurations.py", "results.npz", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    results = dict(np.load(tmp_path / "results.npz"))
    for name, trainer in expected.items():
        theta = trainer.network.parameters
        assert np.linalg.norm(results[name] - theta) < 1e-6 * np.linalg.norm(theta), name
        for metric in ("loss", "val_loss"):
            np.testing.assert_allclose(results[f"{name}.{metric}"], trainer.history[metric], rtol=1e-6)
    if n == 2:
        assert mpiexec(n, "-m", "mpi4py", HERE / "configurations.py", "again.npz", cwd=tmp_path).returncode == 0
        for name, array in np.load(tmp_path / "again.npz").items():
            np.testing.assert_array_equal(array, results[name])


# ---- Command line ----------------------------------------------------------------------------------------------------

TRAIN = ("-m", "handgrad", "train", "--recipe", "post", "--epochs", 2, "--seed", 3)


def weights(run):
    """The weights of the network of a run, without the calibrated temperature."""
    return unwrap(load(run / "model.safetensors")).core.parameters


def test_the_command_line_prints_once_and_gives_the_model_of_one_process(mpiexec, data, tmp_path):
    options = ("--data", data, "--dropout", 0.1, "--validation", 100, "--batch-size", 50)
    for n in (1, 3):
        done = mpiexec(n, *TRAIN, *options, "--out", f"run-{n}", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        for text in ("recipe post", "epoch 1/2", "epoch 2/2", "test: ", f"results in run-{n}"):
            assert done.stdout.count(text) == 1
    alone, parallel = (weights(tmp_path / f"run-{n}") for n in (1, 3))
    assert np.linalg.norm(parallel - alone) < 1e-6 * np.linalg.norm(alone)
    assert sorted(os.listdir(tmp_path / "run-1")) == sorted(os.listdir(tmp_path / "run-3"))


def test_a_run_with_a_teacher_resumes_with_another_number_of_processes(mpiexec, data, tmp_path):
    options = ("--data", data, "--validation", 500, "--teacher", "post", "--ema-decay", 0.9)
    assert mpiexec(1, *TRAIN, *options, "--out", "whole", "--quiet", "--epochs", 3, cwd=tmp_path).returncode == 0
    assert mpiexec(2, *TRAIN, *options, "--out", "run", "--quiet", cwd=tmp_path).returncode == 0
    resumed = mpiexec(3, "-m", "handgrad", "train", "--resume", "run", "--epochs", 3, "--json", cwd=tmp_path)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert [json.loads(line).get("epoch") for line in resumed.stdout.splitlines()] == [3, None]
    whole, continued = (weights(tmp_path / run) for run in ("whole", "run"))
    assert np.linalg.norm(continued - whole) < 1e-6 * np.linalg.norm(whole)


def test_local_sgd_is_an_option_that_needs_processes(mpiexec, data, tmp_path):
    done = mpiexec(
        2,
        *TRAIN,
        "--data",
        data,
        "--sync-every",
        5,
        "--batch-size",
        50,
        "--out",
        "run",
        "--json",
        "--quiet",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["epochs"] == 2
    done = mpiexec(1, *TRAIN, "--data", data, "--sync-every", 5, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--sync-every needs several processes: mpiexec -n 4 handgrad train" in done.stderr


# ---- Errors ----------------------------------------------------------------------------------------------------------


def own_lines(done):
    """The lines of handgrad on stderr; the launcher may add its own."""
    return [line for line in done.stderr.splitlines() if line.startswith("handgrad: ")]


def test_invalid_input_is_one_line_for_all_processes(mpiexec, data, tmp_path):
    done = mpiexec(3, *TRAIN, "--data", "nothing", cwd=tmp_path)
    assert done.returncode != 0
    (line,) = own_lines(done)
    assert line.startswith("handgrad: rank 0: there is no data set 'nothing'")
    assert not any(tmp_path.glob("runs/**/config.json"))
    assert "Traceback" not in done.stderr


def test_an_exception_in_one_process_ends_all(mpiexec, tmp_path):
    program = """
        from mpi4py import MPI
        from handgrad import HandgradError
        from handgrad.distributed import abort_on_error
        with abort_on_error(MPI.COMM_WORLD):
            if MPI.COMM_WORLD.Get_rank() == 1:
                raise HandgradError("the disk is full")
            MPI.COMM_WORLD.Barrier()
    """
    program = "\n".join(line[8:] for line in program.splitlines())
    done = mpiexec(3, "-c", program, cwd=tmp_path)
    assert done.returncode != 0
    assert own_lines(done) == ["handgrad: rank 1: the disk is full"]
    done = mpiexec(2, "-c", program.replace("HandgradError(", "KeyError("), cwd=tmp_path)
    assert done.returncode != 0
    assert own_lines(done) == ["handgrad: rank 1: KeyError"]
    assert "KeyError: 'the disk is full'" in done.stderr


def alone(cwd, *arguments, **variables):
    """Run handgrad without mpiexec, in an environment as that of a launcher."""
    command = [sys.executable, "-W", "error", "-m", "handgrad", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "check": False, "timeout": 60}
    return subprocess.run(command, cwd=cwd, env=environment(cwd, **variables), **options)


def test_the_launcher_of_another_mpi_is_an_error(mpiexec, tmp_path):
    """Every process would be rank 0 of 1, train alone and write the same files."""
    variables = {"PMI_SIZE": "4", "PMI_RANK": "0"}
    import mpi4py.MPI

    if "Open MPI" not in mpi4py.MPI.Get_library_version():
        variables = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}
    done = alone(tmp_path, "train", **variables)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the launcher has started 4 processes, but each one is alone in MPI" in done.stderr
    assert "use the mpiexec of that library" in done.stderr


def test_without_mpi4py_or_an_mpi_library_the_error_says_what_to_install(mpiexec, tmp_path):
    done = alone(tmp_path, "train", PMI_SIZE="2", MPI4PY_LIBMPI=str(tmp_path / "libmpi.so"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "2 processes were started, but mpi4py finds no MPI library (cannot load MPI library)" in done.stderr
    assert "pip install 'handgrad[mpi]'" in done.stderr
    (tmp_path / "mpi4py.py").write_text("raise ModuleNotFoundError(\"No module named 'mpi4py'\", name='mpi4py')")
    done = alone(tmp_path, "train", PMI_SIZE="2", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "mpi4py is not installed: run pip install 'handgrad[mpi]'" in done.stderr


# ---- Killed processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_ends_the_job_and_the_run_can_be_resumed(seed, mpiexec, tmp_path):
    """The checkpoint is whole at any time. The run continues with 1, 2 or 3 processes and has the same result."""
    chance, program = random.Random(seed), (HERE / "interrupted.py", ".")
    process = mpiexec(2, *program, cwd=tmp_path, start=True)
    victim = tmp_path / f"{chance.randrange(2)}.pid"
    wait_for(lambda: victim.exists() and victim.read_text())
    time.sleep(chance.uniform(0, 1))
    os.kill(int(victim.read_text()), signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode != 0
    checkpoint = tmp_path / "checkpoint.safetensors"
    epoch = read_arrays(checkpoint)[1]["state"]["epoch"] if checkpoint.exists() else 0
    assert 0 <= epoch < 12
    done = mpiexec(1 + seed, *program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkpoint.unlink()
    whole = mpiexec(1, *program, cwd=tmp_path)
    resumed, expected = (list(map(float, result.stdout.split())) for result in (done, whole))
    assert resumed[0] == expected[0] == 12
    assert abs(resumed[1] - expected[1]) < 1e-6 * expected[1]


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the training has not started"
        time.sleep(0.01)
