"""Train the recipes on all 60,000 digits, read the test set once for each seed, and keep what came out.

    python -m records.run second quick            five seeds each; records/second.json, ...
    python -m records.run best --seeds 2 --workers 2      both at once, on half of the cores each
    python -m records.run --table                 the table of the README, from the files

Nothing is chosen here: the recipes were tuned on 10,000 digits held out of the training set, and are fixed. The clock
starts with the bytes of the training set in memory and stops with the test set's answers: preprocessing, augmentation,
the teacher's training, all members of a ensemble are within. Every seed is a process of its own, new and cold but for
its imports, and held to its share of the cores. A seed that a file has from the same source, recipe and machine is not
run again, so a run that was stopped goes on; a file of others stays as it is, until --again lets it be made anew.
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
LADDER = ["second", "quick", "minute-20s", "minute", "pure", "small", "best", "ensemble"]
SHORTER = {"minute-20s": ("minute", 4)}


def chosen(name: str) -> Recipe:
    """The recipe that a line of the ladder stands for, on the whole training set."""
    recipe, epochs = SHORTER.get(name, (name, None))
    return RECIPES[recipe].with_choices(validation=0, epochs=epochs)


def one(name: str, seed: int, cores: list[int], source: str) -> dict[str, Any]:
    """Train with one seed on these cores, read the test set once."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if revision()["source"] != source:
        raise SystemExit("src was changed while the records ran")
    dataset = load("mnist")
    begin = time.perf_counter()
    classifier = chosen(name).with_choices(seed=seed).train(dataset.x_train, dataset.y_train, len(dataset.classes))
    answers = classifier.predict(dataset.x_test)
    seconds = time.perf_counter() - begin
    correct = int((answers == dataset.y_test).sum())
    return {"seed": seed, "correct": correct, "seconds": round(seconds, 3), "cores": len(cores)}


def run(name: str, seeds: int, workers: int, *, again: bool = False) -> None:
    """All seeds of a recipe that are not there yet; the file is written after each."""
    path, here = HERE / f"{name}.json", machine()
    shares = [cores_here()[worker::workers] for worker in range(workers)]
    fixed = {
        "recipe": json.loads(json.dumps(chosen(name).config())),
        "source": revision()["source"],
        "processor": here["processor"],
        "cores": len(shares[0]),
    }
    record = json.loads(path.read_text()) if path.exists() and not again else {}
    if record and any(record.get(key) != value for key, value in fixed.items()):
        raise SystemExit(f"{path.name} is of another source, recipe or machine: --again makes it anew")
    record = record or {**fixed, "commit": revision()["commit"], "machine": here, "runs": []}
    due = sorted(set(range(seeds)) - {run["seed"] for run in record["runs"]})
    os.environ["OPENBLAS_NUM_THREADS"] = str(len(shares[0]))  # for the processes that are to come
    context = multiprocessing.get_context("spawn")
    for first in range(0, len(due), workers):
        with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as fresh:
            together = zip(due[first : first + workers], shares, strict=False)
            futures = [fresh.submit(one, name, seed, share, fixed["source"]) for seed, share in together]
            for future in as_completed(futures):
                result = future.result()
                record["runs"] = sorted([*record["runs"], result], key=lambda run: run["seed"])
                save_json(path, record)
                print(f"{name} seed {result['seed']}: {result['correct']:,} in {result['seconds']:.1f} s", flush=True)


def cores_here() -> list[int]:
    """The cores that this process may use, by number."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def revision() -> dict[str, str]:
    """The source, by the name that git has for the whole of src/, and the commit that it is of; it has no changes."""
    git = ["git", "-C", str(HERE.parent)]
    told = [[*git, "status", "--porcelain", "src"], [*git, "rev-parse", "HEAD:src"], [*git, "rev-parse", "HEAD"]]
    changed, source, commit = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for command in told
    )
    if changed:
        raise SystemExit("src has changes that no commit has: a record would be of a source that nobody can find")
    return {"source": source, "commit": commit}


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
                str(record["cores"]),
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
    parser.add_argument("names", nargs="*", metavar="RECIPE", help=", ".join(LADDER))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="seeds at once, each with its share of the cores")
    parser.add_argument("--again", action="store_true", help="make anew what is there of another source or machine")
    parser.add_argument("--table", action="store_true", help="write records/table.md from the files, and print it")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(LADDER):
        parser.error(f"no record goes by {', '.join(sorted(unknown))}: the names are {', '.join(LADDER)}")
    for name in arguments.names:
        run(name, arguments.seeds, arguments.workers, again=arguments.again)
    if arguments.table or arguments.names:
        save(HERE / "table.md", lines() + "\n")
        print(lines())


if __name__ == "__main__":
    main()
