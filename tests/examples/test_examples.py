"""The examples run without warnings and print what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, directory: Path, *arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_xor_learns_all_four_cases(tmp_path: Path) -> None:
    lines = run("xor.py", tmp_path)
    assert [line.partition(",")[0] for line in lines] == ["0 xor 0 = 0", "0 xor 1 = 1", "1 xor 0 = 1", "1 xor 1 = 0"]


def test_digits_trains_and_saves(mnist: Path, tmp_path: Path) -> None:
    """One epoch of few digits. The default of five epochs reaches 98 %."""
    lines = run("digits.py", tmp_path, "1", "5000", HANDGRAD_DATA=str(mnist))
    (accuracy,) = re.findall(r"^test accuracy (.*)%$", lines[-1])
    assert float(accuracy) > 85
    assert (tmp_path / "digits.safetensors").exists()


def test_custom_layer_passes_its_gradient_check_and_the_wrong_one_does_not(tmp_path: Path) -> None:
    dx, dbeta, wrong, result = run("custom_layer.py", tmp_path)
    for line, name in ((dx, "dx"), (dbeta, "dbeta")):
        match = re.fullmatch(rf"Swish {name}: relative error (\S+)", line)
        assert match is not None
        assert 0 < float(match[1]) < 1e-6
    assert wrong.startswith("WrongSwish dx is wrong")
    match = re.fullmatch(r"accuracy (\d+)%, β = (\d\.\d\d)", result)
    assert match is not None
    assert int(match[1]) > 95
    assert match[2] != "1.00"  # β is trained, starting from 1


def test_custom_callback_stops_below_its_threshold(tmp_path: Path) -> None:
    *epochs, last = run("custom_callback.py", tmp_path)
    losses = [float(line.split()[2]) for line in epochs]
    assert min(losses[:-1]) >= 0.25 > losses[-1]
    assert last == f"stopped after {len(epochs)} of 40 epochs: loss below 0.25"
