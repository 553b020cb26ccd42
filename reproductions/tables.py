"""Common code of the reproductions: runs over seeds, and a table that compares them with the published values.

    python -m reproductions.NAME                     all missing runs; writes NAME.json and NAME.md
    python -m reproductions.NAME --workers 2         two processes with one BLAS thread each
    python -m reproductions.NAME --table             only write the table, from NAME.json
    python -m reproductions.NAME --tune              compare learning rates on the validation set
    python -m reproductions.NAME --quick             one short run on 300 digits, without writing anything

A run has settings and a seed. A run that the file has with the same settings is not repeated, so that an interrupted
command continues, and runs whose settings changed are repeated. No setting was chosen with the test set: the settings
are those of the paper, or were chosen once with a validation set, as described in each script.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import machine, save, save_json, table
from handgrad import Augmentation, Network, Optimizer, Trainer, schedules
from handgrad.data import load

HERE = Path(__file__).parent
Bytes = NDArray[np.uint8]  # images (count, height, width) or labels (count,)
Metrics = dict[str, float]  # results of one run


def percent(value: float) -> str:
    """0.9542 -> 95.42%"""
    return f"{value:.2%}"


@dataclass(frozen=True)
class Run:
    """A training with several seeds. Its settings are values that JSON can represent."""

    settings: dict[str, Any]
    seeds: int


@dataclass(frozen=True)
class Row:
    """A published value, and the metric of our runs that is compared with it."""

    what: str
    measured: str
    paper: float | None  # None: the paper has no value to compare with, see `text`
    run: str
    metric: str
    bound: str = ""  # "<" or ">": our value must be on this side
    best_of: int = 1  # the paper reports the best of this number of runs, and so do we
    last: str = ""  # metric of the last epoch, if the paper reports the best epoch
    text: str = ""  # printed instead of the published value


@dataclass(frozen=True)
class Table:
    """A published table: our runs, its rows, and the tolerance.

    A row agrees if our mean is within two standard deviations (over seeds) of the published value. The tolerance is at
    least `least` and at most `most`, so that a large spread does not count as agreement. If the standard error of the
    mean is larger than `most`, the verdict is "cannot tell".
    """

    name: str
    source: str
    train: Callable[[dict[str, Any], int], Metrics]
    runs: dict[str, Run]
    rows: Sequence[Row]
    least: float = 0.003
    most: float = 0.01
    show: Callable[[float], str] = percent
    what: str = "network and training"
    program: str = "handgrad"  # what our values come from
    rates: Sequence[float] = ()  # learning rates of `--tune`

    def rule(self) -> str:
        """Describe when a row agrees."""
        if not self.most:
            return "A row agrees if the mean is on the correct side of the bound."
        if self.least == self.most:
            return f"A row agrees if our value is within {self.show(self.most)} of the published value."
        rule = "A row agrees if the mean is within two sd of the published value"
        if self.least and math.isfinite(self.most):
            rule += f" (at least {self.show(self.least)}, at most {self.show(self.most)})"
        rule += ", or exceeds a bound by no more than that." if any(row.bound for row in self.rows) else "."
        if math.isfinite(self.most):
            rule += f' If the standard error of the mean is above {self.show(self.most)}, the verdict is "cannot tell".'
        return rule

    def verdict(self, row: Row, values: Sequence[float]) -> str:
        """Compare the values, one per seed, with the published value: yes, no, cannot tell, or "" without one."""
        if row.paper is None:
            return ""
        mean, sd = statistics.mean(values), _sd(values)
        tolerance = min(max(2 * sd, self.least), self.most)
        if self.most and sd / math.sqrt(len(values)) > self.most:
            return "cannot tell"
        off = {"": abs(mean - row.paper), "<": mean - row.paper, ">": row.paper - mean}[row.bound]
        return "yes" if off <= tolerance * (1 + 1e-9) else "no"  # rounding does not decide

    def lines(self, record: dict[str, Any]) -> str:
        """Return the table of all existing runs."""
        lasts = any(row.last for row in self.rows)
        head = [self.what, "measured", "published", f"{self.program}, mean ± sd", "agrees", "range"]
        head += ["last epoch"] * lasts + ["seeds"]
        cells = []
        for row in self.rows:
            done = record.get("runs", {}).get(row.run, {}).get("done", [])
            done = done[: len(done) - len(done) % row.best_of]  # only complete groups
            if not done:
                continue
            values = _best_of_groups([run["metrics"][row.metric] for run in done], row.best_of)
            paper = row.text if row.paper is None else row.text or row.bound + self.show(row.paper)
            line = [row.what, row.measured, paper, self._mean(values), self.verdict(row, values)]
            line += [f"{self.show(min(values))} to {self.show(max(values))}"]
            if lasts:
                line += [self._mean([run["metrics"][row.last] for run in done]) if row.last else ""]
            line += [str(len(values)) + f" x {row.best_of}" * (row.best_of > 1)]
            cells.append(line)
        return table(head, cells)

    def _mean(self, values: Sequence[float]) -> str:
        spread = f" ± {self.show(_sd(values))}" if len(values) > 1 else ""
        return self.show(statistics.mean(values)) + spread.replace("%", "")

    def write(self, record: dict[str, Any]) -> None:
        """Write NAME.md: the source, the table, the rule of agreement and the machine."""
        machines = {done["on"] for run in record["runs"].values() for done in run["done"]}
        made = textwrap.fill(f"{self.rule()} Our values: {'; '.join(sorted(machines))}; one BLAS thread.", 120)
        save(HERE / f"{self.name}.md", f"{textwrap.fill(self.source, 120)}\n\n{self.lines(record)}\n\n{made}\n")


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _best_of_groups(values: Sequence[float], best_of: int) -> list[float]:
    """The maximum of each group of `best_of` consecutive values."""
    return [max(values[i : i + best_of]) for i in range(0, len(values), best_of)]


def digits(settings: dict[str, Any]) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """Return (x, y) of the first `images` training digits, and (x, y) of the test set or of the validation set."""
    dataset = load("mnist")
    x, y, evaluated = dataset.x_train, dataset.y_train, (dataset.x_test, dataset.y_test)
    if settings.get("validation"):
        (x, y), evaluated, _ = dataset.split(10_000)
    return (x[: settings["images"]], y[: settings["images"]]), evaluated


def errors(
    network: Network,
    optimizer: Optimizer,
    settings: dict[str, Any],
    rng: np.random.SeedSequence,
    augment: Augmentation | None = None,
) -> Metrics:
    """Train with a cosine schedule. Returns the error after the last epoch, and the training error of that epoch."""
    (x, y), evaluated = digits(settings)
    schedule, batch_size = schedules.cosine(), settings["batch_size"]
    trainer = Trainer(network, optimizer, batch_size=batch_size, schedule=schedule, augment=augment, rng=rng)
    history = trainer.fit(x, y, epochs=settings["epochs"])
    return {"error": 1 - network.evaluate(*evaluated).accuracy, "train error": 1 - history["accuracy"][-1]}


def tune(chosen: Table, images: int, epochs: int) -> None:
    """Print the validation error of each run with each learning rate, after a short training."""
    for name, run in chosen.runs.items():
        for lr in chosen.rates:
            settings = {**run.settings, "lr": lr, "validation": True, "images": images, "epochs": epochs}
            print(f"{name}, lr {lr:g}: validation error {chosen.train(settings, 0)['error']:.2%}", flush=True)


def quick(chosen: Table) -> None:
    """Train the first run for at most two epochs on 300 digits, and print its metrics."""
    name, run = next(iter(chosen.runs.items()))
    few = {"images": 300, "epochs": 2} if "images" in run.settings else {}
    metrics = chosen.train({**run.settings, **{key: few[key] for key in few if key in run.settings}}, 0)
    print(f"{name}: {', '.join(f'{key} {value:.4g}' for key, value in metrics.items())}")


def read(name: str) -> dict[str, Any]:
    """Read NAME.json, or return a record without runs."""
    path = HERE / f"{name}.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    return record


def one(name: str, run: str, seed: int) -> dict[str, Any]:
    """Do one run of a table, in a child process."""
    chosen: Table = importlib.import_module(f"{__package__}.{name}").TABLE
    begin = time.perf_counter()
    metrics = chosen.train(chosen.runs[run].settings, seed)
    metrics = {metric: float(f"{value:.6g}") for metric, value in metrics.items()}
    return {"seed": seed, "metrics": metrics, "seconds": round(time.perf_counter() - begin, 1)}


def reproduce(chosen: Table, workers: int, seeds: int | None = None, *, again: bool = False) -> None:
    """Do all missing runs, those with seed 0 first. The JSON file and the table are written after each run."""
    record = {"runs": {}} if again else read(chosen.name)
    kept = {name: record["runs"].get(name, {}) for name in chosen.runs}
    on = f"{machine()['processor']}, NumPy {np.__version__}"
    record["runs"] = {
        name: {"settings": run.settings, "done": old["done"] if old.get("settings") == _json(run.settings) else []}
        for (name, run), old in zip(chosen.runs.items(), kept.values(), strict=True)
    }
    due = [
        (name, seed)
        for seed in range(max(run.seeds for run in chosen.runs.values()))
        for name, run in chosen.runs.items()
        if seed < min(run.seeds, seeds or run.seeds)
        and seed not in [done["seed"] for done in record["runs"][name]["done"]]
    ]
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the child processes
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as processes:
        pending = {processes.submit(one, chosen.name, name, seed): name for name, seed in due}
        for future in as_completed(pending):
            name, result = pending[future], future.result() | {"on": on, "source": source()}
            runs = record["runs"][name]
            runs["done"] = sorted([*runs["done"], result], key=lambda run: run["seed"])
            save_json(HERE / f"{chosen.name}.json", record)
            chosen.write(record)
            metrics = ", ".join(f"{key} {value:.4g}" for key, value in result["metrics"].items())
            print(f"{chosen.name}: {name}, seed {result['seed']}: {metrics}; {result['seconds']:.0f} s", flush=True)
    chosen.write(record)
    print(chosen.lines(record))


def _json(value: Any) -> Any:
    """The value after a round trip through JSON."""
    return json.loads(json.dumps(value))


def source() -> str:
    """Return the git hash of the last committed src/, or "" without git."""
    command = ["git", "-C", str(HERE.parent), "rev-parse", "--short=12", "HEAD:src"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main(chosen: Table, words: str | None) -> None:
    """Run the command line of a reproduction."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, choices=range(1, 100), metavar="N", help="largest number of seeds of each run"
    )
    parser.add_argument("--workers", type=int, default=1, help="number of processes, with one BLAS thread each")
    parser.add_argument("--again", action="store_true", help="repeat all runs")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--tune", action="store_true", help="compare learning rates on the validation set")
    parser.add_argument("--quick", action="store_true", help="one short run on 300 digits, write nothing")
    parser.add_argument("--images", type=int, default=10_000, help="number of digits of --tune")
    parser.add_argument("--epochs", type=int, default=6, help="number of epochs of --tune")
    options = parser.parse_args()
    if options.tune and not chosen.rates:
        parser.error("this reproduction uses the learning rates of the paper: there is nothing to tune")
    elif options.tune:
        tune(chosen, options.images, options.epochs)
    elif options.quick:
        quick(chosen)
    elif options.table:
        chosen.write(read(chosen.name))
        print(chosen.lines(read(chosen.name)))
    else:
        reproduce(chosen, options.workers, options.seeds, again=options.again)
