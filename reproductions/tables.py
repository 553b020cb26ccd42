"""What the reproductions share: runs over seeds, each kept as it ends, and a table of them beside the paper's figures.

    python -m reproductions.NAME                     every run that is not there yet; NAME.json and NAME.md beside this
    python -m reproductions.NAME --workers 2         two processes at once, one BLAS thread each
    python -m reproductions.NAME --table             the table alone, from what is there
    python -m reproductions.NAME --tune              what other learning rates give on held-out digits

A run is its settings and a seed. Where the file has it with the same settings, it is not done again: so a command that
was cut short goes on where it stopped, and one whose settings changed does anew what changed. No setting was chosen by
the test set: they are the paper's, or were set once on held-out digits, as each script tells.
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

from benchmarks.tables import machine, save, save_json, table
from handgrad import Augmentation, Network, Optimizer, Trainer, schedules
from handgrad.data import load
from handgrad.data.dataset import Bytes

HERE = Path(__file__).parent
Figures = dict[str, float]  # what one run gave, by name


def percent(value: float) -> str:
    """0.9542 -> 95.42%"""
    return f"{value:.2%}"


@dataclass(frozen=True)
class Run:
    """One training, to be done with `seeds` seeds; its settings are values that JSON can hold."""

    settings: dict[str, Any]
    seeds: int


@dataclass(frozen=True)
class Row:
    """One figure of the paper, and where ours is: the figure of so named runs."""

    what: str
    measured: str
    paper: float | None  # None: the paper has none that ours may be held to, and `said` is what it has
    run: str
    figure: str
    bound: str = ""  # "<" or ">": ours is to be on that side
    best_of: int = 1  # the paper tells the best of so many runs: so do we, of each so many seeds
    last: str = ""  # the honest figure beside it, where the paper's is of the best epoch
    said: str = ""  # what the paper has, where that is no figure of this very network


@dataclass(frozen=True)
class Table:
    """A published table: our runs, its rows, and how near is near.

    A row agrees where the mean here is within two standard deviations (over seeds) of the paper's figure; `least` is
    allowed in any case, and no more than `most`, so that a wide spread does not pass for agreement. Where the mean is
    itself less certain than `most`, by its standard error, the seeds cannot tell.
    """

    name: str
    source: str
    train: Callable[[dict[str, Any], int], Figures]
    runs: dict[str, Run]
    rows: Sequence[Row]
    least: float = 0.003
    most: float = 0.01
    show: Callable[[float], str] = percent
    what: str = "network and training"
    rates: Sequence[float] = ()  # that `--tune` tries

    def rule(self) -> str:
        """How near is near, in words."""
        if not self.most:
            return "A row agrees where the mean is on the right side of the bound."
        if self.least == self.most:
            return f"A row agrees where ours is within {self.show(self.most)} of the paper's figure."
        most = f" and {self.show(self.most)} at most" if math.isfinite(self.most) else ""
        least = f", {self.show(self.least)} at least" if self.least else ""
        rule = f"A row agrees where the mean is within two sd of the paper's figure{least}{most}"
        rule += ", or passes a bound by no more than that." if any(row.bound for row in self.rows) else "."
        if math.isfinite(self.most):
            rule += f" Where the mean's own standard error is above {self.show(self.most)}, the seeds cannot tell."
        return rule

    def verdict(self, row: Row, values: Sequence[float]) -> str:
        """Whether these figures, one a seed, are the paper's: yes, no, cannot tell; nothing where it has none."""
        if row.paper is None:
            return ""
        mean, sd = statistics.mean(values), _sd(values)
        near = min(max(2 * sd, self.least), self.most)
        if self.most and sd / math.sqrt(len(values)) > self.most:
            return "cannot tell"
        off = {"": abs(mean - row.paper), "<": mean - row.paper, ">": row.paper - mean}[row.bound]
        # What is just as near as that is near, whatever its last bit.
        return "yes" if off <= near * (1 + 1e-9) else "no"

    def lines(self, record: dict[str, Any]) -> str:
        """The table of what is there."""
        lasts = any(row.last for row in self.rows)
        head = [self.what, "measured", "the paper", "here, mean ± sd", "range"]
        head += ["last epoch"] * lasts + ["seeds", "agrees"]
        cells = []
        for row in self.rows:
            done = record.get("runs", {}).get(row.run, {}).get("done", [])
            done = done[: len(done) - len(done) % row.best_of]  # what is left over is in no best
            if not done:
                continue
            values = _bests([run["figures"][row.figure] for run in done], row.best_of)
            paper = row.said if row.paper is None else row.said or row.bound + self.show(row.paper)
            line = [row.what, row.measured, paper, self._mean(values)]
            line += [f"{self.show(min(values))} to {self.show(max(values))}"]
            if lasts:
                line += [self._mean([run["figures"][row.last] for run in done]) if row.last else ""]
            line += [str(len(values)) + f" x {row.best_of}" * (row.best_of > 1), self.verdict(row, values)]
            cells.append(line)
        return table(head, cells)

    def _mean(self, values: Sequence[float]) -> str:
        spread = f" ± {self.show(_sd(values))}" if len(values) > 1 else ""
        return self.show(statistics.mean(values)) + spread.replace("%", "")

    def write(self, record: dict[str, Any]) -> None:
        """NAME.md of what is there: where the figures are from, the table, how it was made."""
        machines = {done["on"] for run in record["runs"].values() for done in run["done"]}
        made = textwrap.fill(f"{self.rule()} Ours: {'; '.join(sorted(machines))}; one BLAS thread.", 120)
        save(HERE / f"{self.name}.md", f"{textwrap.fill(self.source, 120)}\n\n{self.lines(record)}\n\n{made}\n")


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _bests(values: Sequence[float], best_of: int) -> list[float]:
    """The best of each `best_of` that follow each other."""
    return [max(values[i : i + best_of]) for i in range(0, len(values), best_of)]


def digits(choices: dict[str, Any]) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """(x, y) of the first `images` to train on, and (x, y) to read the error on: the test set, or what is held out."""
    dataset = load("mnist")
    x, y, seen = dataset.x_train, dataset.y_train, (dataset.x_test, dataset.y_test)
    if choices.get("held_out"):
        (x, y), seen, _ = dataset.split(10_000)
    return (x[: choices["images"]], y[: choices["images"]]), seen


def errors(
    network: Network,
    optimizer: Optimizer,
    choices: dict[str, Any],
    rng: np.random.Generator,
    augment: Augmentation | None = None,
) -> Figures:
    """The error after the last epoch, with a rate that falls to 0 as a half cosine; the training set's, as it went."""
    (x, y), seen = digits(choices)
    schedule, batch_size = schedules.cosine(), choices["batch_size"]
    trainer = Trainer(network, optimizer, batch_size=batch_size, schedule=schedule, augment=augment, rng=rng)
    history = trainer.fit(x, y, epochs=choices["epochs"])
    return {"error": 1 - network.evaluate(*seen).accuracy, "train error": 1 - history["accuracy"][-1]}


def tune(chosen: Table, images: int, epochs: int) -> None:
    """What each rate gives each run after a short training on few digits, read on the digits held out."""
    for name, run in chosen.runs.items():
        for lr in chosen.rates:
            choices = {**run.settings, "lr": lr, "held_out": True, "images": images, "epochs": epochs}
            print(f"{name}, lr {lr:g}: {chosen.train(choices, 0)['error']:.2%}", flush=True)


def read(name: str) -> dict[str, Any]:
    """What NAME.json holds; nothing where it is not there."""
    path = HERE / f"{name}.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    return record


def one(name: str, run: str, seed: int) -> dict[str, Any]:
    """One run of the table of this name, in a process of its own."""
    chosen: Table = importlib.import_module(f"{__package__}.{name}").TABLE
    begin = time.perf_counter()
    figures = chosen.train(chosen.runs[run].settings, seed)
    figures = {figure: float(f"{value:.6g}") for figure, value in figures.items()}
    return {"seed": seed, "figures": figures, "seconds": round(time.perf_counter() - begin, 1)}


def reproduce(chosen: Table, workers: int, seeds: int | None = None, *, again: bool = False) -> None:
    """Every run that is not there, all with seed 0 first, then with seed 1, ...; file and table after each."""
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
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the processes that are to come
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as processes:
        coming = {processes.submit(one, chosen.name, name, seed): name for name, seed in due}
        for future in as_completed(coming):
            name, result = coming[future], future.result() | {"on": on, "source": source()}
            runs = record["runs"][name]
            runs["done"] = sorted([*runs["done"], result], key=lambda run: run["seed"])
            save_json(HERE / f"{chosen.name}.json", record)
            chosen.write(record)
            told = ", ".join(f"{key} {value:.4g}" for key, value in result["figures"].items())
            print(f"{chosen.name}: {name}, seed {result['seed']}: {told}; {result['seconds']:.0f} s", flush=True)
    chosen.write(record)
    print(chosen.lines(record))


def _json(value: Any) -> Any:
    """The value as JSON gives it back."""
    return json.loads(json.dumps(value))


def source() -> str:
    """The name that git has for src as it was committed last; nothing where there is no git."""
    command = ["git", "-C", str(HERE.parent), "rev-parse", "--short=12", "HEAD:src"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main(chosen: Table, words: str | None) -> None:
    """The command line of a reproduction."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, choices=range(1, 100), metavar="N", help="at most so many for each run")
    parser.add_argument("--workers", type=int, default=1, help="processes at once, of one BLAS thread each")
    parser.add_argument("--again", action="store_true", help="do all anew")
    parser.add_argument("--table", action="store_true", help="the table alone, of what is there")
    parser.add_argument("--tune", action="store_true", help="try other learning rates on held-out digits")
    parser.add_argument("--images", type=int, default=10_000, help="to tune with")
    parser.add_argument("--epochs", type=int, default=6, help="to tune for")
    options = parser.parse_args()
    if options.tune and not chosen.rates:
        parser.error("no rate was chosen here: they are the paper's")
    elif options.tune:
        tune(chosen, options.images, options.epochs)
    elif options.table:
        chosen.write(read(chosen.name))
        print(chosen.lines(read(chosen.name)))
    else:
        reproduce(chosen, options.workers, options.seeds, again=options.again)
