"""The examples run as they stand, without a warning, and say what they promise."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, where: Path, *arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=where,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_every_example_is_run() -> None:
    """post.py has tests of its own."""
    here = {path.name for path in EXAMPLES.glob("*.py")}
    assert here == {"post.py", "xor.py", "digits.py", "own_layer.py", "own_callback.py"}
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text()))
    assert tested == here - {"post.py"}


def test_xor(tmp_path: Path) -> None:
    said = run("xor.py", tmp_path)
    assert [line.partition(",")[0] for line in said] == ["0 xor 0 = 0", "0 xor 1 = 1", "1 xor 0 = 1", "1 xor 1 = 0"]


def test_digits(mnist: Path, tmp_path: Path) -> None:
    """One epoch of few digits here; all five reach 98 %."""
    said = run("digits.py", tmp_path, "1", "5000", HANDGRAD_DATA=str(mnist))
    (right,) = re.findall(r"^(.*)% of the test set$", said[-1])
    assert float(right) > 85
    assert (tmp_path / "digits.safetensors").exists()


def test_digits_is_as_short_as_it_says() -> None:
    source = (EXAMPLES / "digits.py").read_text().partition('"""\n\n')[2]
    assert len([line for line in source.splitlines() if line.strip()]) <= 20


def test_own_layer(tmp_path: Path) -> None:
    """Its derivatives are right, the wrong one is wrong, and its β is learnt: it begins as 1."""
    dx, dbeta, wrong, circle = run("own_layer.py", tmp_path)
    for line, name in ((dx, "dx"), (dbeta, "dbeta")):
        off = re.fullmatch(rf"Swish {name}: off by (\S+)", line)
        assert off is not None
        assert 0 < float(off[1]) < 1e-6
    assert wrong.startswith("Wrong dx is wrong")
    right = re.fullmatch(r"(\d+)% on the right side of the circle, β = (\d\.\d\d)", circle)
    assert right is not None
    assert int(right[1]) > 95
    made = runpy.run_path(str(EXAMPLES / "own_layer.py"))
    network, beta = made["network"], made["swish"].beta[0]
    assert right[2] == f"{beta:.2f}" != "1.00"
    assert beta == network.layers[1].beta[0]
    # Another β, another answer: it is the one that the layer works with.
    z = np.linspace(-3, 3, 7, dtype=np.float32)[None]
    np.testing.assert_allclose(made["swish"].forward(z), z / (1 + np.exp(-beta * z)), rtol=1e-5)


def test_own_callback(tmp_path: Path) -> None:
    """A bar for each epoch's loss, as long as it is; the end after the first that is below 0.25."""
    *epochs, last = run("own_callback.py", tmp_path)
    found = [re.fullmatch(r"epoch +(\d+)  (\d\.\d{3})  (#+)", line) for line in epochs]
    assert all(found)
    numbers, losses, bars = zip(*(match.groups() for match in found if match), strict=True)
    assert [int(number) for number in numbers] == list(range(1, len(epochs) + 1))
    for loss, bar in zip(losses, bars, strict=True):
        assert abs(len(bar) - 60 * float(loss)) < 0.54  # half a sign, and half a digit of the loss
    assert min(float(loss) for loss in losses[:-1]) >= 0.25 >= float(losses[-1])
    assert last == f"good enough after {len(epochs)} of 40 epochs"
