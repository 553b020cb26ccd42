"""Fixtures of the command line: running it in a new process or in this one, a small data set, a trained run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from handgrad import cli
from handgrad.data.dataset import FILES
from handgrad.data.idx import write_idx
from handgrad.data.synthetic import synthetic_digits


def _environment(home: Path, more: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("HANDGRAD_DATA", "KERAS_HOME")}
    kept.pop("PYTHONUNBUFFERED", None)  # with it, stdout has no buffer, in which text could stay after an error
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "OPENBLAS_NUM_THREADS": "1", **more}


@pytest.fixture(scope="session")
def environment():
    """A function (directory, variables) -> environment without a copy of MNIST."""
    return _environment


@pytest.fixture(scope="session")
def run():
    """A function that runs `handgrad ARGUMENTS` in a new process, with warnings as errors and without MNIST."""

    def run(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "handgrad", *map(str, arguments)],
            cwd=cwd,
            env=_environment(cwd, variables),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def invoke():
    """A function that runs `handgrad ARGUMENTS` in this process: exit code, stdout, stderr."""

    def invoke(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return invoke


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of four IDX files with synthetic digits: 1,500 for training and 300 for testing."""
    directory = tmp_path_factory.mktemp("digits")
    for name, array in zip(FILES.values(), synthetic_digits(1500, 300, seed=1), strict=True):
        write_idx(directory / f"{name}.gz", array)
    return directory


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, run) -> tuple[Path, str]:
    """A run directory after three epochs, and the output of the command."""
    cwd = tmp_path_factory.mktemp("trained")
    done = run("train", "--data", data, "--validation", 300, "--epochs", 3, "--out", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "run", done.stdout
