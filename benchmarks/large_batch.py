"""Accuracy with large batches and with local SGD: what the methods that need less communication cost.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.large_batch [--epochs 10] [--seeds 2]

Trains 784-30-10 on 50,000 images of MNIST, with several batch sizes and rules for the learning rate, and with local SGD
of 8 workers. The workers take turns in one process, which gives the same weights as 8 processes up to rounding. The
accuracy is that on 10,000 validation images. Writes large_batch.json and large_batch.md to benchmarks/results, and the
tables of docs/explanation/scaling.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handgrad import SGD, Network, Trainer, schedules
from handgrad.data import load
from handgrad.errors import HandgradWarning
from handgrad.training import DivergedError

from .tables import RESULTS, about, between, machine, save, save_json, table

BATCHES = (10, 40, 160, 640, 2560)
LR = 0.5  # of batches of 10
RULES: dict[
    str, tuple[Callable[[float], float], float]
] = {  # factor of the learning rate for k times the batch; warm-up
    "same rate": (lambda k: 1, 0),
    "k times the rate": (lambda k: k, 0),
    "k times, warm-up of an epoch": (lambda k: k, 1),
    "√k times the rate": (math.sqrt, 0),
}
WORKERS, ROWS = 8, 10  # of local SGD
SYNC_EVERY = (1, 8, 64, 625)  # the last one is once per epoch
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "scaling.md"


def large_batch(data: Any, batch: int, rule: str, epochs: int, seed: int) -> float | None:
    """Return the validation accuracy, or None if the training diverges."""
    factor, warm_up = RULES[rule]
    schedule = schedules.constant()
    if warm_up:
        schedule = schedules.warm_up(warm_up, schedule)
    network = Network([784, 30, 10], rng=seed)
    optimizer = SGD(LR * factor(batch / BATCHES[0]))
    trainer = Trainer(network, optimizer, batch_size=batch, schedule=schedule, rng=seed)
    try:
        trainer.fit(*data.train, epochs, progress=False)
    except DivergedError:
        return None
    return network.evaluate(*data.validation).accuracy


def local_sgd(data: Any, sync_every: int, epochs: int, seed: int) -> float | None:
    """Return the validation accuracy of local SGD: θ is the mean of the workers after every `sync_every` steps."""
    network, optimizer = Network([784, 30, 10], rng=seed), SGD(LR)
    rng = np.random.default_rng(seed)
    x, y = data.train
    x = x.reshape(len(x), -1) / np.float32(255)
    t = network.loss.targets(y, len(x), 10, network.dtype)
    for _ in range(epochs):
        batches = rng.permutation(len(x))[: len(x) // (WORKERS * ROWS) * WORKERS * ROWS].reshape(-1, WORKERS, ROWS)
        for first in range(0, len(batches), sync_every):
            start, total = network.parameters.copy(), np.zeros_like(network.parameters)
            for worker in range(WORKERS):
                network.parameters[...] = start
                for rows in batches[first : first + sync_every, worker]:
                    optimizer.train_step(network, x[rows], t[rows], LR)
                total += network.parameters
            network.parameters[...] = total / WORKERS
    return network.evaluate(*data.validation).accuracy


def percent(accuracies: Sequence[float | None]) -> str:
    """Format the mean accuracy."""
    found = [accuracy for accuracy in accuracies if accuracy is not None]
    return f"{100 * statistics.mean(found):.2f}%" if len(found) == len(accuracies) else "diverged"


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the report by name."""
    return {
        "batches": table(
            ("batch size B = 10 k", *RULES),
            [
                [f"{batch:,}", *map(percent, by_rule)]
                for batch, by_rule in zip(BATCHES, results["batches"], strict=True)
            ],
        ),
        "local": table(
            ("steps between two averages, H", "exchanges per epoch", "accuracy"),
            [
                [str(every), f"{math.ceil(50_000 // (WORKERS * ROWS) / every):,}", percent(accuracies)]
                for every, accuracies in zip(SYNC_EVERY, results["local"], strict=True)
            ],
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_batch", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--epochs", type=int, default=10, help="number of epochs (default: 10)")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds (default: 2)")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", HandgradWarning)  # some of the learning rates are too high
    data, seeds = load("mnist").split(10_000), range(options.seeds)
    results: dict[str, Any] = {"machine": machine(), "epochs": options.epochs, "seeds": options.seeds}
    results["local"] = []
    for every in SYNC_EVERY:
        results["local"].append([local_sgd(data, every, options.epochs, seed) for seed in seeds])
        print(f"H = {every}: {percent(results['local'][-1])}", flush=True)
    results["batches"] = []
    for batch in BATCHES:
        row = [[large_batch(data, batch, rule, options.epochs, seed) for seed in seeds] for rule in RULES]
        results["batches"].append(row)
        print(f"B = {batch}: {', '.join(map(percent, row))}", flush=True)
    save_json(RESULTS / "large_batch.json", results)
    parts = tables(results)
    text = f"""# Large batches and local SGD

784-30-10, {options.epochs} epochs, mean of {options.seeds} seeds, accuracy on 10,000 validation images.
Written by `python -m benchmarks.large_batch`: {about(results["machine"])}.

{parts["batches"]}

Local SGD, {WORKERS} workers with {ROWS} examples per step:

{parts["local"]}
"""
    save(RESULTS / "large_batch.md", text)
    if PAGE.exists():
        save(PAGE, between(PAGE.read_text(), parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
