"""Resources: time to import, to predict and to finish the first epoch; memory; installed size.

    python -m benchmarks.resources [--repeats 3]
    python -m benchmarks.resources --quick      one repetition, without writing anything

import     seconds of the import statement in a new process, the median, and the ratio to `import numpy`
predict    classes of 1 and of 10,000 images, with one thread or all cores, whichever is faster; for 784-2048-2048-10
           also as a share of the peak FLOP/s of the machine
train      a new process loads the training set and trains 784-30-10 for one epoch with plain SGD, batch size 10, and
           the default number of threads: seconds from its start to the end of the epoch, and its largest memory;
           handgrad trains on integer pixels, the others on float32
installed  size of the files of the package and of all its dependencies

The libraries alternate in each repetition. Writes resources.json and resources.md to benchmarks/results.
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
    """The peer of a library, its import statement, its distribution, and its fastest form for predictions."""

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
IMAGES = 10_000


# ---- New processes ---------------------------------------------------------------------------------------------------


def seconds_to_import(statement: str) -> float:
    """Return the seconds of an import statement in a new process."""
    code = f"import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def train_in_new_process(peer: str) -> dict[str, float]:
    """Return the seconds of a new process that trains one epoch, and its largest memory in bytes."""
    command = [sys.executable, "-m", "benchmarks.resources", "--train", peer]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        if process.stdout is None:
            raise RuntimeError("the process has no stdout")
        line = process.stdout.readline()
        seconds = time.perf_counter() - begin
    if process.returncode:
        sys.exit(f"the training of {peer} failed: see the traceback above")
    return {"seconds": seconds, "bytes": float(line)}


def train_here(name: str) -> None:
    """Train one epoch, and print the largest memory of this process in bytes."""
    import resource  # here, because Windows does not have it

    peer = PEERS[name](SMALL, PEERS[name].forms[0], cores())
    peer.load(SMALL.network().parameters.copy())
    if isinstance(peer, Sklearn):  # its own shuffling does not copy the training set, whereas a given order does
        peer.model.shuffle = True
        peer.fit(peer.x, peer.y)
    else:
        peer.epoch(60_000, 0)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(most if sys.platform == "darwin" else most * 1024, flush=True)


# ---- Predictions -----------------------------------------------------------------------------------------------------


def seconds_to_predict(workers: Workers, task: Task, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of a prediction by number of images and library, with the faster number of threads.

    Exits if the predictions of a library differ from those of handgrad.
    """
    settings = {
        (name, threads): workers.get(LIBRARIES[name].peer, threads)
        for name in LIBRARIES
        for threads in sorted({1, cores()})
    }
    predictions = {}
    for (name, threads), worker in settings.items():
        worker.call("prepare", task, LIBRARIES[name].form)
        predictions[name, threads] = worker.call("predictions", IMAGES)
    for (name, threads), theirs in predictions.items():
        same = float(np.mean(theirs == predictions["handgrad", threads]))
        if same < 0.999:  # rounding can change the order of two equal outputs
            sys.exit(
                f"{name}, threads: {threads}: only {same:.2%} of {IMAGES} predictions of {task.case.name} equal those "
                "of handgrad"
            )
    results: dict[str, dict[str, list[float]]] = {}
    for count in (1, IMAGES):
        seconds: dict[tuple[str, int], list[float]] = {setting: [] for setting in settings}
        for _ in range(repeats):
            for setting, worker in settings.items():
                seconds[setting].append(worker.timed("predict", count))
        results[str(count)] = {
            name: min((seconds[s] for s in settings if s[0] == name), key=statistics.median) for name in LIBRARIES
        }
    return results


# ---- Installed size --------------------------------------------------------------------------------------------------


def installed(name: str) -> tuple[int, list[str]]:
    """Return the size of a distribution and its dependencies in bytes, without extras, and their names."""
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
    """Size of the files without bytecode. handgrad may be an editable install, so its package directory counts."""
    if distribution.metadata["Name"] == "handgrad":
        paths = list(Path(handgrad.__file__).parent.rglob("*"))
    else:
        paths = [Path(str(file.locate())) for file in distribution.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")


# ---- Report ----------------------------------------------------------------------------------------------------------


def measure(repeats: int) -> dict[str, Any]:
    """Measure everything."""
    imports: dict[str, list[float]] = {name: [] for name in ("numpy", *LIBRARIES)}
    trainings: dict[str, list[dict[str, float]]] = {name: [] for name in LIBRARIES}
    for number in range(repeats + 1):
        for name, seconds in imports.items():
            elapsed = seconds_to_import("import numpy" if name == "numpy" else LIBRARIES[name].statement)
            if number:  # the first import reads the files from the disk
                seconds.append(elapsed)
    for _ in range(repeats):
        for name, runs in trainings.items():
            runs.append(train_in_new_process(LIBRARIES[name].peer))
    with Workers() as workers:
        predictions = {task.case.name: seconds_to_predict(workers, task, repeats) for task in (SMALL, LARGE)}
        peaks = [workers.get("handgrad", cores()).timed("peak") for _ in range(repeats)]
    sizes = {name: installed(library.distribution) for name, library in LIBRARIES.items()}
    return {
        "import_seconds": imports,
        "train": trainings,
        "predict_seconds": predictions,
        "peak_flops": peaks,
        "installed": {name: {"bytes": size, "distributions": names} for name, (size, names) in sizes.items()},
    }


NAMES = (
    "import, s",
    "import / import of NumPy",
    "1 image, µs",
    "10,000 images, ms",
    "1 image, wide network, µs",
    "10,000 images, wide network, ms",
    "the same, of the peak performance",
    "first epoch, s",
    "memory, MB",
    "installed, MB",
    "installed packages",
)


def comparison(results: dict[str, Any]) -> str:
    """Return a table with a row for each measurement and a column for each library."""
    return table(["measurement", *LIBRARIES], [list(row) for row in zip(NAMES, *columns(results), strict=True)])


def columns(results: dict[str, Any]) -> list[list[str]]:
    """Return the measurements of each library."""
    median = statistics.median
    flop = 2 * IMAGES * LARGE.case.weights
    cells = []
    for name in LIBRARIES:
        imports = median(results["import_seconds"][name])
        one, many, one_wide, many_wide = (
            median(of[name]) for counts in results["predict_seconds"].values() for of in counts.values()
        )
        runs, disk = results["train"][name], results["installed"][name]
        cells.append(
            [
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
    return cells


def report(results: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    return "\n".join(
        [
            "# Import, prediction, memory and installed size",
            "",
            f"{about(results['machine'])}. Medians. Created by `make bench`.",
            "",
            comparison(results),
            "",
            "Import: in a new process. Images: prediction with 784-30-10; wide: with 784-2048-2048-10. First epoch and "
            "memory: a new process loads the training set and trains 784-30-10 for one epoch with batch size 10; "
            "seconds from its start, and its largest memory. Installed: with all dependencies.",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.resources", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--repeats", type=int, default=3, help="number of repetitions (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one repetition, write nothing")
    parser.add_argument("--train", choices=list(PEERS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train_here(options.train)
        return 0
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: expected 1 or more")
    if lacking := missing([library.peer for library in LIBRARIES.values()]):
        parser.error(f"{', '.join(lacking)} not installed: pip install 'handgrad[peers]'")
    results = {"machine": machine(), **measure(1 if options.quick else options.repeats)}
    if not options.quick:
        save_json(RESULTS / "resources.json", results)
        save(RESULTS / "resources.md", report(results))
    print(comparison(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
