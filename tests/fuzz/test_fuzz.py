"""The fuzzer: a short run of every reader, and the failures that long runs have found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the fuzzer is not part of the package

from fuzz import engine, mutations
from fuzz.readers import READERS, Reader

# About a second and a half for each reader; `make fuzz` reads more.
INPUTS = dict.fromkeys(READERS, 300) | {"idx": 1000, "gzip": 1000, "torch": 400, "npz": 500, "keras": 150, "image": 150}
INPUTS |= {"csv": 120, "estimator": 80, "checkpoint": 150, "config": 200}


@pytest.mark.parametrize("name", READERS)
def test_reader_accepts_or_rejects_every_input(name):
    if name == "keras":
        pytest.importorskip("h5py")
    result = engine.fuzz(name, seed=1, inputs=INPUTS[name])
    assert result.failures == {}
    assert result.accepted + result.rejected == result.inputs == INPUTS[name]
    assert result.rejected > 0


def raising(exception):
    """A reader that raises an exception for inputs that begin with "x"."""

    def read(path):
        if path.read_bytes()[:1] == b"x":
            raise exception

    return Reader("test", ".txt", lambda: [b"ok"], lambda data, rng: b"x", read)


@pytest.mark.parametrize(
    ("exception", "says"),
    [
        (KeyError("k"), "KeyError at fuzz"),
        (MemoryError(), "MemoryError"),
        (RuntimeWarning("w"), "RuntimeWarning"),
        (engine.TimeLimitError(), "longer than"),
        (engine.HandgradError(""), "message"),
        (engine.HandgradError("one line"), "rejected"),
    ],
)
def test_everything_but_one_line_is_a_failure(exception, says, tmp_path):
    assert engine.read_input(raising(exception), b"x", tmp_path).startswith(says)
    assert engine.read_input(raising(exception), b"ok", tmp_path) == "accepted"


def test_endless_loop_is_a_failure(tmp_path, monkeypatch):
    def read(path):
        while True:
            pass

    monkeypatch.setattr(engine, "SECONDS_PER_INPUT", 0.05)
    reader = Reader("test", ".txt", lambda: [b""], mutations.mutate_bytes, read)
    assert engine.read_input(reader, b"", tmp_path).startswith("longer than")


def test_large_allocation_is_a_failure(tmp_path):
    reader = Reader("test", ".txt", lambda: [b""], mutations.mutate_bytes, lambda path: bytes(2 * engine.MEMORY))
    with engine.memory_limit(engine.MEMORY):
        assert engine.read_input(reader, b"", tmp_path).startswith("MemoryError")


def test_seed_and_number_determine_an_input():
    reader = READERS["config"]
    valid = len(engine.seeds(reader))
    first = [engine.make_input(reader, 3, number) for number in range(valid + 20)]
    assert first == [engine.make_input(reader, 3, number) for number in range(valid + 20)]
    assert first[valid:] != [engine.make_input(reader, 4, number) for number in range(valid, valid + 20)]
    assert [json.loads(data)["data"] for data in first[:valid]] == ["mnist"] * valid


def test_command_prints_the_counts_of_a_reader():
    command = [sys.executable, "-m", "fuzz", "--reader", "idx", "--inputs", "20", "--json"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert (result["reader"], result["inputs"], result["failures"]) == ("idx", 20, {})
    assert result["accepted"] + result["rejected"] == 20
    assert result["memory"] > 1 << 20


def test_crash_leaves_the_number_of_its_input(tmp_path):
    code = (
        "import os, fuzz.readers as r, fuzz.mutations as m;"
        "read = lambda p: p.read_bytes() == b'x' and os.abort();"
        "reader = r.Reader('idx', '', lambda: [b'ok'], lambda d, g: b'x', read);"
        "r.READERS['idx'] = reader; import fuzz.__main__ as f, sys; sys.exit(f.main())"
    )
    number = tmp_path / "number"
    command = [sys.executable, "-c", code, "--reader", "idx", "--inputs", "5", "--worker", str(number)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode != 0
    assert int(number.read_text()) == 1
