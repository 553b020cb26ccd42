"""Train the recipes on all 60,000 digits and evaluate them on the test set, once per seed.

    python -m records.run second quick                     five seeds each; records/second.json, ...
    python -m records.run small --workers 2                two seeds at a time, each on half of the cores
    python -m records.run second --quick                   one seed on 1,000 digits, without writing anything
    python -m records.run --table                          write records/table.md from the JSON files

The recipes were tuned with a validation set of 10,000 digits and then fixed. The time is measured from the training
set in memory to the predictions for the test set. It includes preprocessing, augmentation, the training of a teacher
and all members of an ensemble. Every seed runs in a new process, limited to its share of the cores. A seed that the
file already has for the same source, recipe and machine is not run again, so that an interrupted run continues. A file
from another source, recipe or machine is only replaced with --again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import machine, save, save_json, table
from handgrad.cli.recipes import describe_networks
from handgrad.data import Dataset, load
from handgrad.recipes import RECIPES, Recipe

HERE = Path(__file__).parent
# The rows of the table in this order, and those with a different number of epochs than the recipe.
NAMES = ["second", "quick", "minute-20s", "minute", "pure", "ladder", "small", "best", "ensemble"]
SHORTER = {"minute-20s": ("minute", 10)}


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a row of the table. It trains on the complete training set."""
    recipe, epochs = SHORTER.get(name, (name, None))
    return RECIPES[recipe].replace(validation=0, epochs=epochs)


def one(name: str, seed: int, cores: list[int], source: str) -> dict[str, Any]:
    """Train with one seed on these cores, and evaluate the test set once."""
    _limit(cores, source)
    return {**measure(recipe_of(name).replace(seed=seed), load("mnist")), "cores": len(cores)}


def measure(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Train a recipe, and return the number of correct predictions for the test set, the errors and the time."""
    begin = time.perf_counter()
    model = recipe.train(dataset.x_train, dataset.y_train, len(dataset.classes))
    predictions = model.predict(dataset.x_test)
    return _result(recipe, predictions, dataset.y_test, time.perf_counter() - begin)


def _limit(cores: list[int], source: str) -> None:
    """Limit this process to some cores, and check that the source is still the one of the record."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if revision()["source"] != source:
        raise SystemExit("src was changed during the run")


def _result(recipe: Recipe, predictions: NDArray[Any], y: NDArray[Any], seconds: float) -> dict[str, Any]:
    errors = np.flatnonzero(predictions != y)
    return {
        "seed": recipe.seed,
        "correct": len(y) - len(errors),
        "seconds": round(seconds, 3),
        "errors": ", ".join(f"{i}: {predictions[i]}" for i in errors),  # number of the example: wrong prediction
    }


def _processes(workers: int) -> ProcessPoolExecutor:
    """New processes, each for one job."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1)


def quick(name: str) -> None:
    """Try a recipe on 1,000 digits for at most two epochs."""
    (x, y), _, (x_test, y_test) = load("mnist").split(10_000)
    few = Dataset(x[:1000], y[:1000], x_test, y_test, "MNIST", tuple("0123456789"))
    recipe = recipe_of(name)
    result = measure(recipe.replace(epochs=min(recipe.epochs, 2)), few)
    print(f"{name}, 1,000 digits: {result['correct']:,} correct in {result['seconds']:.1f} s", flush=True)


def run(name: str, seeds: int, workers: int, *, again: bool = False) -> None:
    """Run all missing seeds of a recipe. The file is written after each seed."""
    path, here = HERE / f"{name}.json", machine()
    shares = [cores_here()[worker::workers] for worker in range(workers)]
    fixed = {
        "recipe": json.loads(json.dumps(recipe_of(name).config())),
        "source": revision()["source"],
        "processor": here["processor"],
        "cores": len(shares[0]),
    }
    record = json.loads(path.read_text()) if path.exists() and not again else {}
    if record and any(record.get(key) != value for key, value in fixed.items()):
        raise SystemExit(f"{path.name} is from another source, recipe or machine: replace it with --again")
    record = record or {**fixed, "commit": revision()["commit"], "machine": here, "runs": []}
    due = sorted(set(range(seeds)) - {run["seed"] for run in record["runs"]})
    os.environ["OPENBLAS_NUM_THREADS"] = str(len(shares[0]))  # for the child processes
    for first in range(0, len(due), workers):
        with _processes(workers) as processes:
            jobs = zip(due[first : first + workers], shares, strict=False)
            futures = [processes.submit(one, name, seed, share, fixed["source"]) for seed, share in jobs]
            for future in as_completed(futures):
                _add(path, record, future.result())


def _add(path: Path, record: dict[str, Any], result: dict[str, Any]) -> None:
    """Add the result of a seed to a record, and write the file."""
    record["runs"] = sorted([*record["runs"], result], key=lambda run: run["seed"])
    save_json(path, record)
    print(f"{path.stem}, seed {result['seed']}: {result['correct']:,} correct, {result['seconds']:.1f} s", flush=True)


def cores_here() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def revision() -> dict[str, str]:
    """Return the git hash of src/ and of the commit. Exits if src/ has uncommitted changes."""
    git = ["git", "-C", str(HERE.parent)]
    commands = [[*git, "status", "--porcelain", "src"], [*git, "rev-parse", "HEAD:src"], [*git, "rev-parse", "HEAD"]]
    changed, source, commit = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for command in commands
    )
    if changed:
        raise SystemExit("src has uncommitted changes: commit them, so that the record names its source")
    return {"source": source, "commit": commit}


def lines() -> str:
    """Return the table of all existing files."""
    rows = []
    for name in NAMES:
        path = HERE / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        accuracies = [run["correct"] / 100 for run in record["runs"]]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        recipe = Recipe.from_config(record["recipe"])
        command = f"`{recipe.name}`" + (f" `--epochs {recipe.epochs}`" if name in SHORTER else "")
        rows.append(
            [
                command,
                describe_networks(recipe),
                f"{statistics.mean(accuracies):.2f}%{spread}",
                f"{min(accuracies):.2f} to {max(accuracies):.2f}",
                str(len(accuracies)),
                _format_time(statistics.median(run["seconds"] for run in record["runs"])),
                str(record["cores"]),
            ]
        )
    return table(["recipe", "network", "test accuracy", "range", "seeds", "time", "cores"], rows)


def _format_time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="RECIPE", help=", ".join(NAMES))
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="number of seeds that run at the same time, each on its share of the cores",
    )
    parser.add_argument("--again", action="store_true", help="replace files from another source, recipe or machine")
    parser.add_argument("--quick", action="store_true", help="try each recipe on 1,000 digits, write nothing")
    parser.add_argument("--table", action="store_true", help="write records/table.md from the JSON files, and print it")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"unknown recipe {', '.join(sorted(unknown))}: expected {', '.join(NAMES)}")
    cores = len(cores_here())
    if not (0 < arguments.workers <= cores and cores % arguments.workers == 0):
        parser.error(f"{arguments.workers} workers cannot share {cores} cores equally")
    for name in arguments.names:
        if arguments.quick:
            quick(name)
            continue
        run(name, arguments.seeds, arguments.workers, again=arguments.again)
    if arguments.table or (arguments.names and not arguments.quick):
        save(HERE / "table.md", lines() + "\n")
        print(lines())


if __name__ == "__main__":
    main()
