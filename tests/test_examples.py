"""The examples run as they stand, without a warning, and say what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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
    dx, dbeta, wrong, circle = run("own_layer.py", tmp_path)
    assert dx.startswith("Swish dx: off by ")
    assert dbeta.startswith("Swish dbeta: off by ")
    assert wrong.startswith("Wrong dx is wrong")
    right = re.match(r"(\d+)% on the right side", circle)
    assert right is not None
    assert int(right[1]) > 95


def test_own_callback(tmp_path: Path) -> None:
    *epochs, last = run("own_callback.py", tmp_path)
    assert [line.partition("#")[2] != "" for line in epochs] == [True] * len(epochs)
    assert last == f"good enough after {len(epochs)} of 40 epochs"
