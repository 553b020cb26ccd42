"""Data augmentation and deskewing: images per second, and the cost of augmentation per epoch.

    python -m benchmarks.augmentation             half a minute; benchmarks/results/augmentation.md
    python -m benchmarks.augmentation --quick     a few seconds, without writing anything

Images per second are measured on one core with 10,000 digits, the median of nine repetitions. The cost per epoch is
the ratio of an epoch with augmentation in the background and an epoch without, for the network of a recipe, on 15,360
digits and all cores. The last row compares an epoch of `minute`, with its two threads, with an epoch in one thread that
has as many images in a step, where BLAS uses all cores. The two trainings alternate; the table has the median and the
range of five ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from handgrad.blas import blas_threads
from handgrad.images.deskew import Deskew
from handgrad.recipes import RECIPES, Recipe
from handgrad.training import Trainer

from .peers import pixels
from .tables import RESULTS, about, machine, save, save_json, table

EPOCH_EXAMPLES = 15_360


def images_per_second(function: Callable[[], object], count: int) -> float:
    """Return the images per second of a function that processes `count` images, the median of nine calls."""
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return count / statistics.median(times)


def epoch_ratios(name: str, x: np.ndarray, y: np.ndarray, repeats: int) -> list[float]:
    """Return the ratios of the time of an epoch with augmentation to that of an epoch without."""
    augmented, plain = RECIPES[name].trainer(), RECIPES[name].trainer()
    plain.augment = None
    plain.fixed_layers = lambda x: 0  # HOG in every step of both
    for trainer in (augmented, plain):
        trainer.callbacks = []
    for _ in range(repeats + 1):  # the first one warms up
        for trainer in (augmented, plain):
            with blas_threads(trainer.network, trainer.batch_size):
                trainer.fit(x, y, epochs=1)
    pairs = zip(augmented.history["seconds"], plain.history["seconds"], strict=True)
    return [a / b for a, b in pairs][1:]


def thread_ratios(x: np.ndarray, y: np.ndarray, repeats: int) -> list[float]:
    """Return the ratios of the time of an epoch in one thread to that of an epoch of `minute` with two threads."""
    two = RECIPES["minute"].replace(epochs=2)
    one = two.replace(threads=1, batch_size=two.batch_size // two.threads)

    def seconds(recipe: Recipe) -> float:
        trainers: list[Trainer] = []
        recipe.train(x, y, 10, on_trainer=lambda trainer, member: trainers.append(trainer))
        return trainers[0].history["seconds"][-1]  # of the second epoch

    return [seconds(one) / seconds(two) for _ in range(repeats)]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few digits and one ratio, write nothing")
    quick = parser.parse_args().quick
    x, y, _ = pixels()
    x, y = (x[:2000], y[:2000]) if quick else (x[:EPOCH_EXAMPLES], y[:EPOCH_EXAMPLES])
    digits, rng = x[:10_000], np.random.default_rng(0)
    out = np.empty((len(digits), 784), np.float32)
    results: dict[str, Any] = {"machine": machine()}
    rows = []
    with threadpool_limits(1):
        for label, function in {
            "augmentation of `minute`": lambda: RECIPES["minute"].augmentation((28, 28))(digits, rng, out),
            "deskewing": lambda: Deskew(28, 28)(digits),
            "deskewing and shrinking": lambda: Deskew(28, 28, 2)(digits),
        }.items():
            results[label] = images_per_second(function, len(digits))
            rows.append([f"{label}, images per second on one core", f"{results[label]:,.0f}"])
    repeats = 1 if quick else 5
    measured = {
        f"network of `{name}`: epoch with augmentation / without": epoch_ratios(name, x, y, repeats)
        for name in (("minute",) if quick else ("minute", "best"))
    }
    measured["`minute`: epoch with one thread / with two"] = thread_ratios(x, y, repeats)
    for label, ratios in measured.items():
        results[label] = ratios
        rows.append([label, f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"])
    text = table(["measurement", "result"], rows)
    print(text)
    if not quick:
        save_json(RESULTS / "augmentation.json", results)
        save(RESULTS / "augmentation.md", f"{about(results['machine'])}\n\n{text}\n")


if __name__ == "__main__":
    main()
