"""Atomic writes: a file is replaced completely or not at all. Links, pipes, temporary files, locks. JSON files."""

import itertools
import json
import math
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import pytest

from handgrad import Network, save
from handgrad.io.atomic import (
    encode_json,
    read_json,
    remove_temporary_files,
    replace_file,
    replacing,
    write_json,
)
from handgrad.io.locks import DirectoryLock, LockedError

WRITERS = {
    "save": lambda path: save(Network([4, 3], rng=1), path),
    "write_json": lambda path: write_json(path, [1]),
    "replace_file": lambda path: replace_file(path, b"new"),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@every_writer
@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file_and_nothing_else(fails, write, tmp_path, monkeypatch, rejects):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with rejects(f"cannot write {path}: No space left on device"):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what `open` returns is never closed
def test_an_exception_at_any_call_leaves_one_complete_file_and_nothing_else(tmp_path):
    """A signal handler can raise an exception when a Python function starts and when a built-in function returns."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupt_at(event: int) -> bool:
        """Write the file, with an exception at one of these places. Return whether it was raised."""
        countdown = itertools.count(event, -1)

        def count(frame: FrameType, kind: str, argument: object) -> None:
            if kind in ("call", "c_return") and next(countdown) == 0:
                raise KeyboardInterrupt

        try:
            sys.setprofile(count)
            replace_file(path, b"new")
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False

    found = []
    for event in itertools.count(1):
        interrupted = interrupt_at(event)
        assert [file.name for file in tmp_path.iterdir()] == ["file"], event
        found.append(path.read_bytes())
        if not interrupted:
            break
    assert (found[0], found[-1], set(found)) == (b"old", b"new", {b"old", b"new"})


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
def test_path_that_cannot_be_written_is_reported(make_path, tmp_path, rejects):
    path = make_path(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with rejects("cannot write ") as caught:
        replace_file(path, b"new")
    assert path.name in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


# ---- Outputs that are not plain files --------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="needs links, modes and pipes")


def all_bytes(write, tmp_path):
    """What a writer writes to a plain file."""
    write(tmp_path / "plain")
    content = (tmp_path / "plain").read_bytes()
    (tmp_path / "plain").unlink()
    return content


@posix
@every_writer
def test_write_to_a_pipe(write, tmp_path):
    expected, pipe, received = all_bytes(write, tmp_path), tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write(pipe)
    reader.join(10)
    assert received == [expected]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@posix
def test_write_through_a_link_to_a_pipe(tmp_path):
    received = []
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    replace_file(tmp_path / "link", b"new")
    reader.join(10)
    assert received == [b"new"]
    assert stat.S_ISFIFO((tmp_path / "link").stat().st_mode)


@posix
@pytest.mark.parametrize("redirected", [False, True], ids=["pipe", "file"])
def test_write_to_the_standard_output(redirected, tmp_path):
    """/dev/stdout is a link to a link, whose text is not always the path of a file."""
    code = "from handgrad.io.atomic import replace_file; replace_file('/dev/stdout', b'new')"
    with open(tmp_path / "file", "wb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdout=file if redirected else subprocess.PIPE, check=True)
    assert ((tmp_path / "file").read_bytes() if redirected else done.stdout) == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@posix
@every_writer
@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed(write, exists, tmp_path):
    expected = all_bytes(write, tmp_path)
    for directory in ("links", "files"):
        (tmp_path / directory).mkdir()
    target, link = tmp_path / "files" / "target", tmp_path / "links" / "link"
    if exists:
        target.write_bytes(b"old")
    (tmp_path / "links" / "first").symlink_to("../files/target")
    link.symlink_to("first")
    write(link)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["files", "first", "link", "links", "target"]


@posix
def test_link_to_itself_is_reported(tmp_path, rejects):
    (tmp_path / "link").symlink_to("link")
    with rejects("cannot write .*link: "):
        replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()


@posix
@every_writer
def test_mode_of_an_existing_file_is_kept(write, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    for mode in (0o600, 0o664, 0o755):
        path.chmod(mode)
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_mode_of_a_new_file_follows_the_umask(tmp_path):
    umask = os.umask(0o027)
    try:
        replace_file(tmp_path / "file", b"new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write to every file")
def test_read_only_file_is_not_replaced(tmp_path, rejects):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with rejects("Permission denied"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give a file away")
def test_owner_of_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    replace_file(path, b"new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o640)


@every_writer
def test_longest_names_can_be_written(write, tmp_path):
    names = ["m" * 255, "ü" * 127, "\N{GRINNING FACE}" * 63]
    for name in names:
        write(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == set(names)


# ---- Temporary files and locks ---------------------------------------------------------------------------------------

WRITE_AND_WAIT = """
import sys, time
from handgrad.io.atomic import replacing
from handgrad.io.locks import DirectoryLock
lock = DirectoryLock(sys.argv[1])
with replacing(sys.argv[1] + "/" + "m" * 255) as file:
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has locked the directory and is writing to a file in it."""
    process = subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


@posix
def test_temporary_files_of_killed_processes_are_removed_and_others_are_kept(tmp_path, writer):
    (tmp_path / "own.part").write_bytes(b"")
    (tmp_path / ".hidden.part").write_bytes(b"")
    remove_temporary_files(tmp_path)
    names = {path.name for path in tmp_path.iterdir()} - {"own.part", ".hidden.part", ".lock"}
    assert len(names) == 1  # that of the living process
    writer.kill()
    writer.wait()
    code = f"from handgrad.io.atomic import replace_file; replace_file({str(tmp_path / 'other')!r}, b'')"
    subprocess.run([sys.executable, "-c", code], check=True)  # removes it before it writes
    assert {path.name for path in tmp_path.iterdir()} == {"own.part", ".hidden.part", ".lock", "other"}


@posix
def test_lock_of_a_directory_is_held_until_the_process_ends(tmp_path, writer, rejects):
    with rejects(f"{tmp_path} is in use by another process") as caught:
        DirectoryLock(tmp_path)
    assert caught.type is LockedError
    writer.kill()
    writer.wait()
    lock = DirectoryLock(tmp_path)
    with rejects("in use by another process"):
        DirectoryLock(tmp_path)
    lock.release()
    assert not (tmp_path / ".lock").exists()
    DirectoryLock(tmp_path).release()


@posix
def test_one_of_many_processes_gets_the_lock(tmp_path):
    """The file of the lock is removed and created all the time."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom handgrad.io.locks import DirectoryLock, LockedError\n"
        "held = Path(sys.argv[1], 'held'); count = 0\n"
        "while count < 200:\n"
        "    try: lock = DirectoryLock(sys.argv[1])\n"
        "    except LockedError: continue\n"
        "    held.touch(exist_ok=False); held.unlink(); count += 1; lock.release()\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_round_trip(tmp_path):
    value = {"loss": [0.1, 1e-300], "name": "ü", "none": None}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value


def test_nan_and_infinity_are_null_in_json(tmp_path):
    write_json(tmp_path / "v.json", {"loss": [0.5, math.nan], "inner": {"a": (math.inf, 1, "NaN")}})
    text = (tmp_path / "v.json").read_text()
    values = json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
    assert values == {"loss": [0.5, None], "inner": {"a": [None, 1, "NaN"]}}
    assert encode_json({"a": 1.5}) == '{"a": 1.5}'


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[" * 100_000], ids=range(4))
def test_invalid_json_is_rejected(content, tmp_path, rejects):
    path = tmp_path / "v.json"
    path.write_bytes(content)
    with rejects(f"{path} is not a JSON file, or is incomplete"):
        read_json(path)


def test_missing_json_file_is_reported(tmp_path, rejects):
    with rejects("cannot read .*none.json: No such file"):
        read_json(tmp_path / "none.json")
