"""The example digits are those that the script draws, and a model that was trained in seconds reads all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

import handgrad
from handgrad import cli
from handgrad.data.synthetic import synthetic_digits
from handgrad.recipes import RECIPES

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_example_digits_are_those_that_the_script_draws(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", EXAMPLES / "draw_digits.py", tmp_path / "digits"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == 10
    for digit in range(10):
        drawn, stored = (directory / f"{digit}.png" for directory in (tmp_path / "digits", EXAMPLES / "digits"))
        assert stored.stat().st_size < 5000
        with Image.open(drawn) as a, Image.open(stored) as b:
            assert a.size == b.size == (200, 200)
            difference = np.abs(np.asarray(a, float) - np.asarray(b, float))
        assert difference.mean() < 1, digit  # gray levels: versions of Pillow draw slightly different edges


def test_predict_reads_all_example_digits(tmp_path: Path) -> None:
    x, y, _, _ = synthetic_digits(20_000, 0, seed=1)
    handgrad.save(RECIPES["second"].train(x, y, 10), tmp_path / "model.safetensors")
    done = CliRunner().invoke(cli.handgrad, ["predict", str(tmp_path), str(EXAMPLES / "digits")])
    assert done.exit_code == 0, done.stderr
    answers = [line.removeprefix(f"{EXAMPLES / 'digits'}/").split()[:2] for line in done.stdout.splitlines()]
    assert answers == [[f"{digit}.png:", str(digit)] for digit in range(10)]
