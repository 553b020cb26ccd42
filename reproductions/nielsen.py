"""The table of Nielsen's book for the post's network, over several seeds each.

    python reproductions/nielsen.py [SEEDS]

The book (chapters 1 and 3) trains on 50,000 digits, reads the test set after every epoch, and reports the best epoch;
for the quadratic cost, of the best of three runs. Here stand the last epoch's accuracy, mean and spread over the seeds,
which is the honest figure, and beside it the best epoch of the best of the first three seeds, which is the book's
measure. Nothing was tuned: the settings are the book's. Writes nielsen.md and nielsen.json beside this file.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import numpy as np

from handgrad.data import load
from handgrad.recipes import POST

SETTINGS = [  # hidden units, loss, learning rate, the book's accuracy
    (30, "quadratic", 3.0, 0.9542),
    (100, "quadratic", 3.0, 0.9659),
    (30, "cross_entropy", 0.5, 0.9549),
    (100, "cross_entropy", 0.5, 0.9682),
]


def train(hidden: int, loss: str, lr: float, seed: int) -> dict[str, float]:
    """One run; the test accuracy after its last and its best epoch, and its seconds."""
    train, _, test = load("mnist").split(10_000)
    trainer = POST.with_choices(hidden=(hidden,), loss=loss, lr=lr, seed=seed).trainer()
    history = trainer.fit(*train, epochs=POST.epochs, validation=test)
    accuracy = history["val_accuracy"]
    return {"last": accuracy[-1], "best": max(accuracy), "seconds": sum(history["seconds"])}


def main(seeds: int) -> None:
    """Every setting with every seed; the table after each, so that a run cut short is not lost."""
    here = Path(__file__).parent
    rows, results = [], []
    for hidden, loss, lr, book in SETTINGS:
        runs = [train(hidden, loss, lr, seed) for seed in range(seeds)]
        last = [run["last"] for run in runs]
        best = max(run["best"] for run in runs[:3])
        spread = statistics.stdev(last) if seeds > 1 else 0.0
        seconds = statistics.median(run["seconds"] for run in runs)
        results.append({"hidden": hidden, "loss": loss, "lr": lr, "book": book, "runs": runs})
        rows.append(
            f"| 784-{hidden}-10 | {loss} | {lr:g} | {book:.2%} | {best:.2%} "
            f"| {statistics.mean(last):.2%} ± {spread:.2%} | {min(last):.2%} to {max(last):.2%} | {seconds:.0f} s |"
        )
        print(rows[-1], flush=True)
    head = [
        "| network | cost | lr | the book | here, best epoch of 3 runs | last epoch, mean ± sd | range | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    title = f"{seeds} seeds, 30 epochs, batch 10, 50,000 digits to train on; NumPy {np.__version__}"
    (here / "nielsen.md").write_text("\n".join([title, "", *head, *rows, ""]))
    (here / "nielsen.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
