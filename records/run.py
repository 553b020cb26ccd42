"""Train the recipes on all 60,000 digits, read the test set once for each seed, and keep what came out.

    python -m records.run second quick            five seeds each; records/second.json, ...
    python -m records.run best --seeds 2 --workers 2      both at once, on half of the cores each
    python -m records.run --table                 the table of the README, from the files

Nothing is chosen here: the recipes were tuned on 10,000 digits held out of the training set, and are fixed. The clock
starts with the bytes of the training set in memory and stops with the test set's answers: preprocessing, augmentation,
the teacher's training, all members of a committee are within. Every seed is a process of its own, new and cold but for
its imports. A seed that a file has from the same source is not run again, so a run that was stopped goes on.
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

from benchmarks.tables import machine, save, save_json, table
from handgrad.data import load
from handgrad.recipes import RECIPES, Recipe

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
# The recipes of the table in its order, with the epochs where they are not the recipe's own.
LADDER = ["second", "quick", "minute-20s", "minute", "pure", "small", "best", "committee"]
SHORTER = {"minute-20s": ("minute", 5)}


def chosen(name: str) -> Recipe:
    """The recipe that a line of the ladder stands for, on the whole training set."""
    recipe, epochs = SHORTER.get(name, (name, None))
    return RECIPES[recipe].with_choices(validation=0, epochs=epochs)


def one(name: str, seed: int, cores: int) -> dict[str, Any]:
    """Train with one seed, read the test set once."""
    dataset = load("mnist")
    begin = time.perf_counter()
    classifier = chosen(name).with_choices(seed=seed).train(dataset.x_train, dataset.y_train, len(dataset.classes))
    answers = classifier.predict(dataset.x_test)
    seconds = time.perf_counter() - begin
    correct = int((answers == dataset.y_test).sum())
    return {"seed": seed, "correct": correct, "seconds": round(seconds, 3), "cores": cores}


def run(name: str, seeds: int, workers: int) -> None:
    """All seeds of a recipe that are not there yet; the file is written after each."""
    path, source = HERE / f"{name}.json", revision()
    record = json.loads(path.read_text()) if path.exists() else {}
    config = json.loads(json.dumps(chosen(name).config()))
    if source.endswith("+") or (record.get("revision"), record.get("recipe")) != (source, config):
        record = {"recipe": config, "revision": source, "machine": machine(), "runs": []}
    due = sorted(set(range(seeds)) - {run["seed"] for run in record["runs"]})
    cores = max(1, len(os.sched_getaffinity(0)) // workers)
    os.environ["OPENBLAS_NUM_THREADS"] = str(cores)  # for the processes that are to come
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as fresh:
        for future in as_completed([fresh.submit(one, name, seed, cores) for seed in due]):
            result = future.result()
            record["runs"] = sorted([*record["runs"], result], key=lambda run: run["seed"])
            save_json(path, record)
            print(f"{name} seed {result['seed']}: {result['correct']:,} in {result['seconds']:.1f} s", flush=True)


def revision() -> str:
    """The commit of the source, with a + where it was changed since."""
    git = ["git", "-C", str(HERE.parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=True).stdout
    return commit + ("+" if changed.strip() else "")


def lines() -> str:
    """The README's table of what is there."""
    rows = []
    for name in LADDER:
        path = HERE / f"{name}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        right = [run["correct"] / 100 for run in record["runs"]]
        spread = f" ± {statistics.stdev(right):.2f}" if len(right) > 1 else ""
        recipe = record["recipe"]
        sizes = "-".join(map(str, [784 // recipe["shrink"] ** 2, *recipe["hidden"], 10]))
        members = f"{recipe['members']} x " if recipe["members"] > 1 else ""
        command = f"`{recipe['name']}`" + (f" `--epochs {recipe['epochs']}`" if name in SHORTER else "")
        rows.append(
            [
                command,
                members + sizes,
                f"{statistics.mean(right):.2f}%{spread}",
                f"{min(right):.2f} to {max(right):.2f}",
                str(len(right)),
                _time(statistics.median(run["seconds"] for run in record["runs"])),
                str(record["runs"][0]["cores"]),
            ]
        )
    return table(["recipe", "network", "test accuracy", "range", "seeds", "time", "cores"], rows)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*LADDER, []], metavar="RECIPE", help=", ".join(LADDER))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="seeds at once, each with its share of the cores")
    parser.add_argument("--table", action="store_true", help="write records/table.md from the files, and print it")
    arguments = parser.parse_args()
    for name in arguments.names:
        run(name, arguments.seeds, arguments.workers)
    if arguments.table or arguments.names:
        save(HERE / "table.md", lines() + "\n")
        print(lines())


if __name__ == "__main__":
    main()
