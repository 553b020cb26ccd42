"""The fuzzer: a short run of every reader, and the failures that long runs have found."""

from __future__ import annotations

import json
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
