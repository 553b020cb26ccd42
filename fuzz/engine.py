"""The loop: make an input, read it within limits of time and memory, and classify what happens."""

from __future__ import annotations

import contextlib
import resource
import signal
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from handgrad.errors import HandgradError

from .mutations import mutate_bytes
from .readers import READERS, Reader

SECONDS_PER_INPUT = 10
MEMORY = 1 << 30  # bytes that an input may allocate, beyond what the process has
MAX_MESSAGE = 4000  # characters


class TimeLimitError(BaseException):
    """An input took too long. Not an Exception, so that no reader catches it."""


@dataclass
class Result:
    """What happened.

    Attributes
    ----------
    inputs, accepted, rejected : int
        Number of inputs, of those that were read, and of those that were rejected with one line.
    failures : dict of str to list of int
        Numbers of the inputs by failure.
    seconds, slowest : float
        Time in total and of the slowest input.
    memory : int
        Peak of the resident memory of the process in bytes.
    """

    reader: str
    seed: int
    inputs: int = 0
    accepted: int = 0
    rejected: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0
    failures: dict[str, list[int]] = field(default_factory=dict)

    as_dict = asdict


@cache
def seeds(reader: Reader) -> list[bytes]:
    """The valid files of a reader."""
    return reader.seeds()


def make_input(reader: Reader, seed: int, number: int) -> bytes:
    """Return the input with this number. Number 0, 1, ... of a reader are its valid files."""
    valid = seeds(reader)
    if number < len(valid):
        return valid[number]
    rng = np.random.default_rng([seed, zlib.crc32(reader.name.encode()), number])
    data = valid[int(rng.integers(len(valid)))]
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.4 else 1):
        try:
            data = reader.mutate(data, rng)
        except Exception:  # the format is already damaged, in any way
            data = mutate_bytes(data, rng)
    return data


def read_input(reader: Reader, data: bytes, directory: Path) -> str:
    """Read an input. Returns "accepted", "rejected", or a description of the failure."""
    path = directory / f"input{reader.suffix}"
    path.write_bytes(data)
    try:
        with warnings.catch_warnings(), time_limit(SECONDS_PER_INPUT):
            warnings.simplefilter("error")
            reader.read(path)
    except HandgradError as error:
        message = str(error)
        one_line = message.strip() and not {"\n", "\r"} & set(message) and len(message) <= MAX_MESSAGE
        return "rejected" if one_line else f"message: {type(error).__name__} with several lines or a very long one"
    except TimeLimitError:
        return f"longer than {SECONDS_PER_INPUT} seconds"
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "handgrad" in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "fuzz"
        return f"{type(error).__name__} at {place}: {str(error)[:120]!r}"
    finally:
        for left in directory.iterdir():
            left.unlink()
    return "accepted"


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitError after some seconds."""

    def stop(*_: Any) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Let allocations fail that exceed the present size of the process by `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(
    name: str,
    seed: int,
    *,
    inputs: int | None = None,
    seconds: float | None = None,
    before: Callable[[int], Any] = lambda number: None,
) -> Result:
    """Read inputs 0, 1, 2, ... of a reader until their number or the time is reached.

    Parameters
    ----------
    name : str
        Name of the reader.
    seed : int
        Seed of the mutations.
    inputs, seconds : int, float
        At least one limit.
    before : callable
        Called with the number of each input before it is read.
    """
    reader, result = READERS[name], Result(name, seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        for number, data in enumerate(seeds(reader)):  # imports modules and allocates caches
            found = read_input(reader, data, Path(directory))
            if found != "accepted":
                raise RuntimeError(f"{name}: the valid file {number} is not accepted: {found}")
        begin = time.perf_counter()
        while (inputs is None or result.inputs < inputs) and (seconds is None or time.perf_counter() - begin < seconds):
            number = result.inputs
            before(number)
            data = make_input(reader, seed, number)
            start = time.perf_counter()
            with memory_limit(MEMORY):
                found = read_input(reader, data, Path(directory))
            result.slowest = max(result.slowest, time.perf_counter() - start)
            result.inputs += 1
            if found == "accepted":
                result.accepted += 1
            elif found == "rejected":
                result.rejected += 1
            else:
                result.failures.setdefault(found, []).append(number)
        result.seconds = time.perf_counter() - begin
    result.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result
