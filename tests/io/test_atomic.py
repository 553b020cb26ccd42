"""Atomic writes: a file is replaced completely or not at all. JSON files."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from handgrad import Network, save
from handgrad.io.atomic import read_json, replace_file, replacing, write_json

WRITERS = {
    "save": lambda path: save(Network([4, 3], rng=1), path),
    "write_json": lambda path: write_json(path, [1]),
    "replace_file": lambda path: replace_file(path, b"new"),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@every_writer
@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file_and_nothing_else(fails, write, tmp_path, monkeypatch, refused):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with refused(f"cannot write {path}: No space left on device"):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@every_writer
def test_write_replaces_the_old_file_and_leaves_nothing_else(write, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write(path)
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_while_writing_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half():
        with replacing(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def write_until_killed(path):
    number = 0
    while True:
        number += 1
        replace_file(path, str(number).encode() * 100_000)


def test_process_killed_while_writing_leaves_a_complete_file(tmp_path):
    path = tmp_path / "file"
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=write_until_killed, args=(path,), daemon=True)
        process.start()
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        content = path.read_bytes()
        number = content[: len(content) // 100_000]
        assert content == number * 100_000
        assert int(number) > 0
        path.unlink()


def test_two_processes_can_write_the_same_file(tmp_path):
    """Each has its own temporary file."""
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write(b"first")
        second.write(b"second")
        assert first.name != second.name
    assert path.read_bytes() == b"first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [path]


def in_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file" / "m.safetensors"


def directory(tmp_path):
    (tmp_path / "m.safetensors").mkdir()
    return tmp_path / "m.safetensors"


PATHS = {
    "in a file": in_a_file,
    "directory": directory,
    "missing directory": lambda tmp_path: tmp_path / "none" / "m.safetensors",
    "long name": lambda tmp_path: tmp_path / ("m" * 300),
    "no name": lambda tmp_path: Path(),
}


@pytest.mark.parametrize("make_path", PATHS.values(), ids=PATHS)
def test_path_that_cannot_be_written_is_reported(make_path, tmp_path, refused):
    path = make_path(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with refused("cannot write ") as caught:
        replace_file(path, b"new")
    assert path.name in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_round_trip(tmp_path):
    value = {"loss": [0.1, 1e-300], "name": "ü", "none": None}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[" * 100_000], ids=range(4))
def test_invalid_json_is_rejected(content, tmp_path, refused):
    path = tmp_path / "v.json"
    path.write_bytes(content)
    with refused(f"{path} is not a JSON file, or is incomplete"):
        read_json(path)


def test_missing_json_file_is_reported(tmp_path, refused):
    with refused("cannot read .*none.json: No such file"):
        read_json(tmp_path / "none.json")
