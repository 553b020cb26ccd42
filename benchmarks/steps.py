"""Time per training step and per epoch, side by side: all peers on the same batches with the same initial weights.

    python -m benchmarks.steps [--case 784-30-10/10] [--optimizer adam] [--peer torch] [--rounds 9]
    python -m benchmarks.steps --quick          one minute: two cases, plain SGD, one thread, short rounds

Each peer runs in its own process. First, all its forms are measured with one thread and with all cores, and the fastest
setting is kept for the case. Then its weights are compared with those of handgrad, after 20 steps and after an epoch of
20 batches. In each round, all peers alternate (A B C A B C ...): each trains a chunk of steps, and in every third round
also an epoch. NumPy multiplies square matrices in each round, to measure the current peak FLOP/s of the machine. Before
each chunk, the weights are reset and some steps are not timed.

A step is timed on batches that are in memory. An epoch creates an order, which is the same for all peers, gathers its
batches and trains on them. Slow peers train on fewer examples, and the time is scaled to 60,000. A ratio is the time of
a peer divided by that of handgrad in the same round. The tables have its median and its 10th and 90th percentile.

Writes steps.json (with every round), steps.md and steps.png to benchmarks/results, or to benchmarks/results/part if not
everything was run. The exit status is 1 if the weights of a peer differ or if it fails; this peer is then left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .peers import CASES, EXAMPLES, PEERS, TOLERANCE, Task, disagreement, tasks
from .tables import PART, RESULTS, STYLES, about, machine, missing, save, save_json, table
from .workers import PeerError, Worker, Workers, cores

AGREEMENT_STEPS = 20
SEED = 0  # of the order of an epoch
EVERY = 3  # an epoch is timed in every third round
BEGIN = time.perf_counter()


@dataclass(frozen=True)
class Length:
    """Number of rounds, and the target time of a chunk of steps and of an epoch in seconds."""

    rounds: int = 9
    steps: float = 0.15
    epoch: float = 0.4
    all_threads: bool = True  # measure with all cores too


@dataclass
class Entrant:
    """A peer in its fastest setting, and the number of steps and examples that are timed at once."""

    worker: Worker
    form: str
    pace: float  # seconds per step in the calibration
    count: int = 0
    examples: int = 0

    def set_chunks(self, task: Task, length: Length, most: int) -> None:
        """Choose multiples of the number of batches and of the batch size."""
        batches, batch = task.case.batches, task.case.batch
        count = max(1, round(length.steps / self.pace))
        self.count = count if count < batches else count // batches * batches
        self.examples = max(1, min(most // batch, round(length.epoch / self.pace))) * batch


# ---- Calibration -----------------------------------------------------------------------------------------------------


def calibrate(workers: Workers, peer: str, task: Task, length: Length) -> Entrant:
    """Return the peer in its fastest setting."""
    entrants: list[Entrant] = []
    for threads in sorted({1, cores()} if length.all_threads else {1}):
        worker = workers.get(peer, threads)
        for form in PEERS[peer].forms:
            worker.call("prepare", task, form)
            entrants.append(Entrant(worker, form, pace(worker, task.case.batches)))
        prepared = form
    best = min(entrants, key=lambda e: e.pace * (1 if e.worker.threads == 1 else 1.02))  # prefer one thread in a tie
    for worker in {e.worker.threads: e.worker for e in entrants}.values():
        if worker is not best.worker:
            worker.call("forget")
    if best.form != prepared:
        best.worker.call("prepare", task, best.form)
    best.set_chunks(task, length, PEERS[peer].most)
    return best


def pace(worker: Worker, batches: int) -> float:
    """Return the seconds per step, the best of three passes over the batches."""
    return min(worker.timed("steps", batches) for _ in range(3))


def agree(worker: Worker, workers: Workers, task: Task, peer: str) -> float:
    """Return the relative difference of the weights of a peer and of handgrad, after steps or an epoch, the larger."""
    reference, inside = workers.get("handgrad", 1).call, PEERS[peer].epsilon_inside
    by_steps = worker.call("train", AGREEMENT_STEPS), reference("reference", task, AGREEMENT_STEPS, inside, None)
    by_epoch = (
        worker.call("train_epoch", AGREEMENT_STEPS * task.case.batch, SEED),
        reference("reference", task, AGREEMENT_STEPS, inside, SEED),
    )
    return max(disagreement(task, theirs, ours) for theirs, ours in (by_steps, by_epoch))


# ---- Rounds ----------------------------------------------------------------------------------------------------------


def race(workers: Workers, task: Task, peers: Sequence[str], length: Length) -> dict[str, Any]:
    """Run all rounds of one task."""
    entrants: dict[str, Entrant] = {}
    agreement: dict[str, float] = {}
    failures: dict[str, str] = {}
    for peer in peers:
        if not PEERS[peer].enters(task):
            continue
        log(f"{task.case.name} {task.optimizer}: {peer}")
        try:
            entrant = calibrate(workers, peer, task, length)
            agreement[peer] = agree(entrant.worker, workers, task, peer)
            if not agreement[peer] <= TOLERANCE:
                raise PeerError(
                    f"wrong weights: after {AGREEMENT_STEPS} steps they differ from those of handgrad by "
                    f"{agreement[peer]:.1e} of their change; rounding explains at most {TOLERANCE:.0e}"
                )
            entrant.worker.call("epoch", entrant.examples, SEED)  # compile everything before timing
            entrants[peer] = entrant
        except PeerError as error:
            failures[peer] = str(error)
            log(f"\n{task.case.name} {task.optimizer}: {peer} is left out\n{error}\n")

    steps: dict[str, list[float]] = {peer: [] for peer in entrants}
    epochs: dict[str, list[float]] = {peer: [] for peer in entrants}
    peaks = []
    for number in range(length.rounds):
        log(f"{task.case.name} {task.optimizer}: round {number + 1} of {length.rounds}")
        peaks.append(workers.get("handgrad", cores()).timed("peak"))
        for peer, entrant in entrants.items():
            steps[peer].append(entrant.worker.timed("steps", entrant.count))
        if number % EVERY == 0:
            for peer, entrant in entrants.items():
                epochs[peer].append(entrant.worker.timed("epoch", entrant.examples, SEED) * EXAMPLES)
    results = {
        peer: {
            "threads": entrant.worker.threads,
            "form": entrant.form,
            "steps_at_a_time": entrant.count,
            "examples_of_an_epoch": entrant.examples,
            "disagreement": agreement[peer],
            "step_seconds": steps[peer],
            "epoch_seconds": epochs[peer],
        }
        for peer, entrant in entrants.items()
    }
    for entrant in entrants.values():
        entrant.worker.call("forget")
    case = task.case
    return {
        "case": case.name,
        "optimizer": task.optimizer,
        "lr": task.lr,
        "sizes": case.sizes,
        "batch": case.batch,
        "batches_in_memory": case.batches,
        "flop_of_a_step": case.flop,
        "targets": dict(case.targets),
        "target_share": case.share,
        "peak_flops": peaks,
        "peers": results,
        "failures": failures,
    }


# ---- Report ----------------------------------------------------------------------------------------------------------


HEAD = (
    "peer",
    "threads",
    "µs per step",
    "GFLOP/s",
    "of peak",
    "ratio",
    "10-90 %",
    "target",
    "met",
    "epoch, s",
    "ratio",
    "range",
)


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row for each peer of a task."""
    cells = []
    ours = result["peers"].get("handgrad")
    for peer, theirs in result["peers"].items():
        seconds, epoch = np.array(theirs["step_seconds"]), np.array(theirs["epoch_seconds"])
        share = float(np.median(result["flop_of_a_step"] / seconds / np.array(result["peak_flops"])))
        row = [
            peer + (f" ({theirs['form']})" if theirs["form"] else ""),
            str(theirs["threads"]),
            f"{np.median(seconds) * 1e6:,.1f}",
            f"{result['flop_of_a_step'] / np.median(seconds) / 1e9:.1f}",
            f"{share:.0%}",
        ]
        scaled = "" if theirs["examples_of_an_epoch"] > EXAMPLES - result["batch"] else "*"
        epoch_cell = f"{np.median(epoch):.3g}{scaled}"
        if peer == "handgrad" or ours is None:
            goal = result["target_share"] if peer == "handgrad" else None
            row += ["", "", f"{goal:.0%} of peak" if goal else "", _met(share, goal), epoch_cell, "", ""]
        else:
            goal = result["targets"].get(peer)
            ratios, epochs = seconds / np.array(ours["step_seconds"]), epoch / np.array(ours["epoch_seconds"])
            low, ratio, high = np.percentile(ratios, [10, 50, 90])
            row += [f"{ratio:.2f}", f"{low:.2f}-{high:.2f}", f"{goal:g}" if goal else "", _met(ratio, goal)]
            row += [epoch_cell, f"{np.median(epochs):.2f}", f"{epochs.min():.2f}-{epochs.max():.2f}"]
        cells.append(row)
    return cells


def _met(value: float, goal: float | None) -> str:
    return "" if goal is None else "yes" if value >= goal else "no"


def summary(races: Sequence[dict[str, Any]]) -> str:
    """Return a table of the median ratios per step, with a row for each task and the goals in brackets."""
    peers = [peer for peer in PEERS if peer != "handgrad"]
    lines = []
    for result in races:
        found = {name: np.array(peer["step_seconds"]) for name, peer in result["peers"].items()}
        if (ours := found.get("handgrad")) is None:
            continue
        share = np.median(result["flop_of_a_step"] / ours / np.array(result["peak_flops"]))
        goals = {peer: f" ({goal:g})" for peer, goal in result["targets"].items()}
        cells = [f"{np.median(found[p] / ours):.2f}{goals.get(p, '')}" if p in found else "" for p in peers]
        goal = f" ({result['target_share']:.0%})" if result["target_share"] else ""
        name = f"{result['case'].replace('/', ', ')}, {result['optimizer']}"
        lines.append([name, f"{np.median(ours) * 1e6:,.1f}", *cells, f"{share:.0%}{goal}"])
    return table(["network, batch", "handgrad, µs", *peers, "of peak"], lines)


def heading(result: dict[str, Any]) -> str:
    """Describe a task in one line."""
    low, peak, high = np.percentile(result["peak_flops"], [0, 50, 100]) / 1e9
    return (
        f"{'-'.join(map(str, result['sizes']))}, batch size {result['batch']}, {result['optimizer']} "
        f"({result['flop_of_a_step'] / 1e6:,.3g} MFLOP per step; peak {peak:.0f} GFLOP/s, {low:.0f} to {high:.0f})"
    )


def report(results: dict[str, Any]) -> str:
    """Return all results in Markdown."""
    parts = [
        "# Time per step and per epoch, side by side",
        "",
        f"{about(results['machine'])}. {results['rounds']} rounds. Created by `make bench`.",
        "",
        "Ratio: time of a peer divided by the time of handgrad in the same round, the median and the 10th to 90th "
        "percentile (for epochs the minimum and the maximum). An epoch has 60,000 examples; * marks times that were "
        "scaled from fewer examples. Peak: the best product of two 2,048 x 2,048 matrices in NumPy in the same round.",
    ]
    parts += ["", summary(results["races"])]
    for result in results["races"]:
        parts += ["", f"## {heading(result)}", "", table(HEAD, rows(result))]
        parts += [f"\n{peer} was left out: {why.strip().splitlines()[-1]}" for peer, why in result["failures"].items()]
    return "\n".join(parts) + "\n"


def chart(results: dict[str, Any], path: Path) -> None:
    """Plot the ratio of each peer and case on a logarithmic axis, with a panel for each optimizer.

    A task from which handgrad was left out has no ratios. Without any ratio, there is no chart.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    compared = [result for result in results["races"] if "handgrad" in result["peers"]]
    if not compared:
        return
    optimizers = list(dict.fromkeys(result["optimizer"] for result in compared))
    cases = len({result["case"] for result in compared})
    size = 5.2, 1.2 + (0.8 + 0.9 * cases) * len(optimizers)  # narrow, so that phones show it in a legible size
    grey = "#767676"
    with pyplot.style.context("handgrad.docs"):  # transparent, and legible on a white and on a black page
        figure, panels = pyplot.subplots(len(optimizers), 1, figsize=size, sharex=True, squeeze=False)
        shown: dict[str, Any] = {}
        for axes, optimizer in zip(panels[:, 0], optimizers, strict=True):
            races = [result for result in compared if result["optimizer"] == optimizer]
            for row, result in enumerate(races):
                ours = np.array(result["peers"]["handgrad"]["step_seconds"])
                others = [peer for peer in result["peers"] if peer != "handgrad"]
                for place, peer in enumerate(others):
                    ratios = np.array(result["peers"][peer]["step_seconds"]) / ours
                    low, ratio, high = np.percentile(ratios, [10, 50, 90])
                    marker, colour = STYLES[peer]
                    y = row + 0.8 * ((place + 0.5) / len(others) - 0.5)
                    shown[peer] = axes.errorbar(
                        ratio,
                        y,
                        xerr=[[ratio - low], [high - ratio]],
                        fmt=marker,
                        color=colour,
                        markeredgecolor=grey,
                        markersize=7,
                        capsize=2,
                    )
                    axes.annotate(
                        f"{ratio:.2g}", (high, y), xytext=(5, 0), textcoords="offset points", va="center", size=8
                    )
            axes.axvline(1, color=grey, linewidth=1.5, linestyle="-")
            for row in range(1, len(races)):
                axes.axhline(row - 0.5, color=grey, alpha=0.5, linewidth=0.8, linestyle="-")
            axes.set_yticks(range(len(races)), [result["case"].replace("/", "\nbatch size ") for result in races])
            axes.grid(axis="y", visible=False)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50])
            axes.tick_params(labelbottom=True)
            axes.set_title({"sgd": "plain SGD", "adam": "Adam"}[optimizer])
            axes.invert_yaxis()
        panels[-1][0].set_xlabel("time per step / time of handgrad\n(right of 1: handgrad is faster)")
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=200)
    pyplot.close(figure)


def log(line: str) -> None:
    """Print the progress and the elapsed time to stderr. stdout has only the tables."""
    print(f"{time.perf_counter() - BEGIN:4.0f} s  {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=(__doc__ or "").partition("\n")[0])
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, help="only this case; can be repeated")
    parser.add_argument("--optimizer", action="append", choices=["sgd", "adam"], help="only this optimizer")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only handgrad and this peer")
    parser.add_argument("--rounds", type=int, help="number of rounds (default: 9)")
    parser.add_argument("--quick", action="store_true", help="two cases, plain SGD, one thread, 3 short rounds")
    options = parser.parse_args(arguments)
    length = Length(rounds=3, steps=0.05, epoch=0.1, all_threads=False) if options.quick else Length()
    if options.quick:
        options.case = options.case or [CASES[0].name, CASES[3].name]
        options.optimizer = options.optimizer or ["sgd"]
        options.peer = options.peer or [peer for peer in PEERS if peer not in ("torch-compile", "jax-step")]
    rounds = length.rounds if options.rounds is None else options.rounds
    if rounds < 1:
        parser.error(f"--rounds {rounds}: expected 1 or more")
    length = replace(length, rounds=rounds)
    complete = length == Length() and not (options.case or options.optimizer or options.peer)
    directory = RESULTS if complete else PART
    peers = [peer for peer in PEERS if peer == "handgrad" or not options.peer or peer in options.peer]
    if lacking := missing(peers):
        parser.error(
            f"{', '.join(lacking)} not installed: pip install 'handgrad[peers]', or choose other peers with --peer"
        )

    results: dict[str, Any] = {"machine": machine(), "rounds": length.rounds, "races": []}
    print(about(results["machine"]), flush=True)
    with Workers() as workers:
        results["machine"]["thread_pools"] = workers.get("handgrad", cores()).call("blas")
        for task in tasks():
            if (options.case and task.case.name not in options.case) or (
                options.optimizer and task.optimizer not in options.optimizer
            ):
                continue
            result = race(workers, task, peers, length)
            results["races"].append(result)
            print(f"\n{heading(result)}\n\n{table(HEAD, rows(result))}", flush=True)
            save_json(
                directory / "steps.json", results
            )  # after each task, so that an interrupted run keeps its results
            save(directory / "steps.md", report(results))
    chart(results, directory / "steps.png")
    print(f"\nwritten to {directory}")
    failures = [f"{r['case']} {r['optimizer']}: {peer}" for r in results["races"] for peer in r["failures"]]
    if failures:
        print(f"left out, see the messages above: {'; '.join(failures)}", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
