"""The program that repeats a run: executed in a new process, it gives the same weights bit for bit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from handgrad.lab.code import script
from handgrad.lab.settings import Settings

from .conftest import DIGITS, POINTS

SMALL = {"data": "synthetic", "n_train": 600, "epochs": 2, "batch_size": 50}
RECIPE = Settings.from_json({"recipe": "second", **SMALL})
AVERAGED = Settings.from_json({"recipe": "pure", "hidden": [32, 16], **SMALL})  # an average of the weights at the end


@pytest.fixture
def weights(tmp_path):
    """A function that executes a program with warnings as errors and returns the parameters of `network`."""

    def run(program: str) -> np.ndarray:
        path = tmp_path / "program.py"
        path.write_text(
            f"{program}\nimport numpy\n\nnumpy.save({str(tmp_path / 'weights.npy')!r}, network.parameters)\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Evaluation(" in done.stdout
        return np.load(tmp_path / "weights.npy")

    return run


@pytest.mark.parametrize(
    "settings",
    [
        DIGITS,
        replace(DIGITS, optimizer="adam", lr=0.01, dropout=0.2, l2=0.001, activation="relu", loss="cross_entropy"),
        replace(POINTS, loss="squared_error", optimizer="nesterov", initializer="normal", hidden=()),
        RECIPE,
        AVERAGED,
    ],
    ids=["sgd", "adam", "points", "recipe", "average"],
)
def test_program_repeats_a_run_with_changes_of_the_rate_pauses_and_steps(settings, experiment, finish, weights):
    lab = experiment(settings)
    run = lab.runs[0]
    for _ in range(3):
        finish(lab, "step")
    lab.command("lr", settings.lr / 2)
    finish(lab, "epoch")
    lab.command("lr", settings.lr / 3)
    lab.command("lr", settings.lr / 4)
    finish(lab, "step")
    finish(lab, "step")
    assert lab.status == "paused"
    snapshot = run.current()
    assert snapshot.step == run.epoch_steps + 2
    program = script(run, snapshot)
    np.testing.assert_array_equal(weights(program), snapshot.parameters)


def test_program_repeats_a_run_that_was_paused_while_it_ran(experiment, finish, until, weights):
    lab = experiment(replace(DIGITS, epochs=500), replace(DIGITS, epochs=500, lr=0.1))
    lab.command("start")
    until(lambda: lab.runs[1].step > 100)
    lab.command("lr", 0.25)
    until(lambda: len(lab.runs[1].rates) == 1)
    finish(lab, "pause")
    for run in lab.runs:
        np.testing.assert_array_equal(weights(script(run, run.current())), run.current().parameters)


@pytest.mark.parametrize("settings", [DIGITS, RECIPE, AVERAGED], ids=["settings", "recipe", "average"])
def test_program_of_a_complete_run_needs_no_callback(settings, experiment, finish, weights):
    lab = experiment(settings)
    lab.command("lr", 0.02)  # before the first step
    finish(lab)
    run = lab.runs[0]
    program = script(run, run.current())
    assert "Callback" not in program
    np.testing.assert_array_equal(weights(program), run.current().parameters)


def test_program_of_a_diverged_run_ends_with_the_weights_before_it(experiment, finish, weights):
    lab = experiment(replace(DIGITS, activation="relu", loss="cross_entropy", hidden=(50, 50), optimizer="momentum"))
    finish(lab, "step")
    lab.command("lr", 1000.0)
    finish(lab)
    run = lab.runs[0]
    assert run.status == "diverged"
    np.testing.assert_array_equal(weights(script(run, run.current())), run.current().parameters)


def test_program_before_the_first_step_makes_the_initial_network(experiment, weights):
    run = experiment(DIGITS).runs[0]
    program = script(run, run.current())
    assert "fit" not in program
    np.testing.assert_array_equal(weights(program), run.current().parameters)
