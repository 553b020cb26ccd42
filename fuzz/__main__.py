"""The command line: python -m fuzz."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: threads need address space, which is limited
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from .engine import SECONDS_PER_INPUT, fuzz, make_input, read_input
from .readers import READERS

MAX_SHOWN = 20  # numbers of inputs that are printed for a failure


def main() -> int:
    """Run the command line. Returns 1 if an input failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=sys.modules["fuzz"].__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="time for all readers together (default: 60)")
    parser.add_argument("--inputs", type=int, help="number of inputs for each reader, instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations")
    parser.add_argument(
        "--reader", action="append", choices=list(READERS), help="reader; may be repeated (default: all)"
    )
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="write one input to a file, and read it")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each reader")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.reader or list(READERS)
    if not arguments.reader and importlib.util.find_spec("h5py") is None:
        names.remove("keras")
        print("the reader keras is left out: it needs the extra keras", file=sys.stderr)
    if arguments.replay is not None:
        return replay(names[0], arguments.seed, arguments.replay)
    limits: dict[str, Any] = {"inputs": arguments.inputs, "seconds": arguments.seconds}
    if arguments.inputs is None:
        limits["seconds"] = (arguments.seconds or 60) / len(names)
    if arguments.worker is not None:
        return work(names[0], arguments.seed, limits, arguments.worker)
    failed = False
    if not arguments.json:
        print(
            f"{'reader':12} {'inputs':>9} {'accepted':>9} {'rejected':>9} {'failed':>7} {'slowest':>8} {'peak MiB':>9}"
        )
    for name in names:
        result = run_worker(name, arguments.seed, limits)
        failed |= bool(result["failures"])
        print(json.dumps(result) if arguments.json else row(result), flush=True)
    return int(failed)


def work(name: str, seed: int, limits: dict[str, Any], current: Path) -> int:
    """Fuzz one reader in this process, print the result as JSON, and keep the number of the input in a file."""
    descriptor = os.open(current, os.O_WRONLY | os.O_CREAT)

    def before(number: int) -> None:
        os.pwrite(descriptor, b"%12d" % number, 0)
        faulthandler.dump_traceback_later(3 * SECONDS_PER_INPUT, exit=True)  # for a hang in C, which no signal ends

    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):  # an estimator may be verbose
        result = fuzz(name, seed, before=before, **limits)
    print(json.dumps(result.as_dict()))
    return 0


def run_worker(name: str, seed: int, limits: dict[str, Any]) -> dict[str, Any]:
    """Fuzz one reader in its own process, so that a crash is a failure too."""
    options = [text for key, value in limits.items() if value is not None for text in (f"--{key}", str(value))]
    with tempfile.TemporaryDirectory() as directory:
        current = Path(directory) / "number"
        command = [sys.executable, "-m", "fuzz", "--reader", name, "--seed", str(seed), *options, "--worker", current]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        number = int(current.read_text() or 0) if current.exists() else 0
        last = (done.stderr.strip().splitlines() or [""])[-1]
        print(done.stderr[-1500:], file=sys.stderr)
        return {"reader": name, "seed": seed, "inputs": number, "accepted": 0, "rejected": 0, "seconds": 0.0} | {
            "slowest": 0.0,
            "memory": 0,
            "failures": {f"the process ended with exit status {done.returncode}: {last}": [number]},
        }


def row(result: dict[str, Any]) -> str:
    """The result as a line of the table, and the failures below it."""
    failed = sum(map(len, result["failures"].values()))
    counts = f"{result['inputs']:>9,} {result['accepted']:>9,} {result['rejected']:>9,} {failed:>7,}"
    lines = [f"{result['reader']:12} {counts} {result['slowest']:>7.2f}s {result['memory'] / 2**20:>9,.0f}"]
    for failure, numbers in sorted(result["failures"].items(), key=lambda item: -len(item[1])):
        shown = ", ".join(map(str, numbers[:MAX_SHOWN])) + (", ..." if len(numbers) > MAX_SHOWN else "")
        lines.append(f"    {len(numbers):>6,} x {failure}: inputs {shown}")
    return "\n".join(lines)


def replay(name: str, seed: int, number: int) -> int:
    """Write an input to the current directory, read it, and show the traceback of a failure."""
    reader = READERS[name]
    data = make_input(reader, seed, number)
    path = Path(f"fuzz-{name}-{seed}-{number}{reader.suffix}")
    path.write_bytes(data)
    with tempfile.TemporaryDirectory() as directory:
        found = read_input(reader, data, Path(directory))
    print(f"{path}: {found}")
    if found in ("accepted", "rejected"):
        return 0
    with tempfile.TemporaryDirectory() as directory:
        copied = Path(directory) / f"input{reader.suffix}"
        copied.write_bytes(data)
        reader.read(copied)
    return 1


if __name__ == "__main__":
    sys.exit(main())
