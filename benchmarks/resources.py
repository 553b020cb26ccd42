"""What a library costs beside its steps: to import, to ask one question, in memory, until the first epoch, on the disk.

    python -m benchmarks.resources [--repeats 3]

import     seconds of the import statement in a fresh process, the median; and over those of `import numpy`
predict    the classes of one picture and of 10,000 by the library's own call, in a worker, of one thread and all cores
           the faster; through 784-2048-2048-10 also as a share of the machine's sgemm peak
train      a fresh process that loads the set and trains 784-30-10 on it for an epoch, batches of 10, plain SGD, threads
           as they come: seconds from its start until the epoch is done, and the most memory that it held; handgrad
           trains from bytes, the others from float32
installed  the files of the package and of all that it depends on, as their wheels list them

Libraries take turns, repeat by repeat. Writes resources.json and resources.md into benchmarks/results.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import handgrad

from .peers import CASES, PEERS, Sklearn, Task, task_of
from .tables import RESULTS, about, machine, missing, save, save_json, table
from .workers import Workers, cores


class Library(NamedTuple):
    """The peer that stands for a library, what its user imports, what pip installs, and the form that answers best."""

    peer: str
    statement: str
    distribution: str
    form: str = ""


LIBRARIES = {
    "handgrad": Library("handgrad", "import handgrad", "handgrad"),
    "torch": Library("torch", "import torch", "torch", "fused"),
    "jax": Library("jax-scan", "import jax", "jax", "x W"),
    "sklearn": Library("sklearn", "from sklearn.neural_network import MLPClassifier", "scikit-learn"),
}
SMALL, LARGE = task_of(CASES[0], "sgd"), task_of(CASES[-1], "sgd")
PICTURES = 10_000


# ---- Fresh processes -------------------------------------------------------------------------------------------------


def seconds_to_import(statement: str) -> float:
    """Seconds of the statement in a process of its own."""
    code = f"import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def train_apart(peer: str) -> dict[str, float]:
    """Seconds from the start of a process that trains an epoch to its end, and the process's greatest size in bytes."""
    command = [sys.executable, "-m", "benchmarks.resources", "--train", peer]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        if process.stdout is None:
            raise RuntimeError("a process without its pipe")
        line = process.stdout.readline()
        seconds = time.perf_counter() - begin
    if process.returncode:
        sys.exit(f"the training of {peer} failed, see above")
    return {"seconds": seconds, "bytes": float(line)}


def train_here(name: str) -> None:
    """One epoch, then the most memory that this process held, in bytes."""
    import resource  # where there is none, as on Windows, nothing else is lost

    peer = PEERS[name](SMALL, PEERS[name].forms[0], cores())
    peer.load(SMALL.network().parameters.copy())
    if isinstance(peer, Sklearn):  # its own shuffling takes no copy of the set, as an order from outside does
        peer.model.shuffle = True
        peer.fit(peer.x, peer.y)
    else:
        peer.epoch(60_000, 0)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(most if sys.platform == "darwin" else most * 1024, flush=True)


# ---- Answers ---------------------------------------------------------------------------------------------------------


def seconds_to_answer(workers: Workers, task: Task, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of a call by the count of pictures and the library, a number a repeat, with the threads that suit it.

    Ends the run where a library reads the pictures otherwise than handgrad.
    """
    settings = {
        (name, threads): workers.get(LIBRARIES[name].peer, threads)
        for name in LIBRARIES
        for threads in sorted({1, cores()})
    }
    answers = {}
    for (name, _), worker in settings.items():
        worker.ask("prepare", task, LIBRARIES[name].form)
        answers[name] = worker.ask("answers", PICTURES)
    for name, theirs in answers.items():
        same = float(np.mean(theirs == answers["handgrad"]))
        if same < 0.999:  # the rest may be two outputs that rounding parts
            sys.exit(f"{name} DISAGREES: of {PICTURES} pictures through {task.case.name} it reads {same:.2%} alike")
    found: dict[str, dict[str, list[float]]] = {}
    for count in (1, PICTURES):
        seconds: dict[tuple[str, int], list[float]] = {setting: [] for setting in settings}
        for _ in range(repeats):
            for setting, worker in settings.items():
                seconds[setting].append(worker.timed("predict", count))
        found[str(count)] = {
            name: min((seconds[s] for s in settings if s[0] == name), key=statistics.median) for name in LIBRARIES
        }
    return found


# ---- On the disk -----------------------------------------------------------------------------------------------------


def installed(name: str) -> tuple[int, list[str]]:
    """Bytes of a distribution and of all that it requires, extras apart; and their names."""
    from packaging.requirements import Requirement

    size, seen, waiting = 0, [], [name]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        distribution = importlib.metadata.distribution(name)
        seen.append(name)
        size += _bytes_of(distribution)
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name.lower().replace("_", "-"))
    return size, seen


def _bytes_of(distribution: importlib.metadata.Distribution) -> int:
    """Bytes of its files, without what Python compiled; handgrad's where they lie, as it may be installed in place."""
    if distribution.metadata["Name"] == "handgrad":
        paths = list(Path(handgrad.__file__).parent.rglob("*"))
    else:
        paths = [Path(str(file.locate())) for file in distribution.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")


# ---- The report ------------------------------------------------------------------------------------------------------


def measure(repeats: int) -> dict[str, Any]:
    """Every figure, raw."""
    imports: dict[str, list[float]] = {name: [] for name in ("numpy", *LIBRARIES)}
    trainings: dict[str, list[dict[str, float]]] = {name: [] for name in LIBRARIES}
    for number in range(repeats + 1):
        for name, seconds in imports.items():
            each = seconds_to_import("import numpy" if name == "numpy" else LIBRARIES[name].statement)
            if number:  # the first reads the files from the disk
                seconds.append(each)
    for _ in range(repeats):
        for name, runs in trainings.items():
            runs.append(train_apart(LIBRARIES[name].peer))
    with Workers() as workers:
        answers = {task.case.name: seconds_to_answer(workers, task, repeats) for task in (SMALL, LARGE)}
        peaks = [workers.get("handgrad", cores()).timed("peak") for _ in range(repeats)]
    sizes = {name: installed(library.distribution) for name, library in LIBRARIES.items()}
    return {
        "import_seconds": imports,
        "train": trainings,
        "predict_seconds": answers,
        "peak_flops": peaks,
        "installed": {name: {"bytes": size, "distributions": names} for name, (size, names) in sizes.items()},
    }


HEAD = (
    "library",
    "import, s",
    "of numpy's",
    "one picture, µs",
    "10,000, ms",
    "one picture, wide, µs",
    "10,000, wide, ms",
    "of peak",
    "first epoch after, s",
    "memory, MB",
    "installed, MB",
    "packages",
)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """A row for each library."""
    median = statistics.median
    flop = 2 * PICTURES * LARGE.case.weights
    found = []
    for name in LIBRARIES:
        imports = median(results["import_seconds"][name])
        one, many, one_wide, many_wide = (
            median(of[name]) for counts in results["predict_seconds"].values() for of in counts.values()
        )
        runs, disk = results["train"][name], results["installed"][name]
        found.append(
            [
                name,
                f"{imports:.3f}",
                f"{imports / median(results['import_seconds']['numpy']):.2f}",
                f"{one * 1e6:.1f}",
                f"{many * 1e3:.1f}",
                f"{one_wide * 1e6:,.0f}",
                f"{many_wide * 1e3:,.0f}",
                f"{flop / many_wide / median(results['peak_flops']):.0%}",
                f"{median(run['seconds'] for run in runs):.2f}",
                f"{median(run['bytes'] for run in runs) / 1e6:.0f}",
                f"{disk['bytes'] / 1e6:,.1f}",
                str(len(disk["distributions"])),
            ]
        )
    return found


def report(results: dict[str, Any]) -> str:
    """The table in Markdown."""
    return "\n".join(
        [
            "# What a library costs beside its steps",
            "",
            f"{about(results['machine'])}. Medians. Made by `make bench`.",
            "",
            table(HEAD, rows(results)),
            "",
            "Import: in a fresh process. Pictures: through 784-30-10; wide: through 784-2048-2048-10. First epoch, "
            "memory: a fresh process that loads the set and trains 784-30-10 for an epoch, batches of 10; seconds from "
            "its start, and the most that it held. Installed: with all that it depends on.",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resources", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--train", choices=list(PEERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train_here(options.train)
        return 0
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: expected 1 or more")
    if lacking := missing([library.peer for library in LIBRARIES.values()]):
        parser.error(f"{', '.join(lacking)} not installed: pip install 'handgrad[peers]'")
    results = {"machine": machine(), **measure(options.repeats)}
    save_json(RESULTS / "resources.json", results)
    save(RESULTS / "resources.md", report(results))
    print(table(HEAD, rows(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
