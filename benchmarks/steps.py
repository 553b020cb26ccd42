"""Every peer side by side, on the same batches from the same weights: time of a step, time of an epoch.

    python -m benchmarks.steps [--case 784-30-10/10] [--optimizer adam] [--peer torch] [--rounds 9] [--short]

Each peer has a process of its own. First it is tried with one thread and with all cores, and in each of its forms, and
keeps what is fastest for the case. Then it must agree: 20 steps, and an epoch of 20 batches, from the same start have
to end at handgrad's weights.
Then come the rounds: in each round every peer in turn does a chunk of steps (A B C A B C ...), in every third round an
epoch too, and NumPy multiplies square matrices for the machine's peak of that minute. Before each chunk the weights are
put back to the start and some steps go untimed.

A step is timed over batches that lie in memory. An epoch draws an order, the same for all, gathers its batches and
trains on them; of a slow peer it takes fewer examples and is scaled to 60,000. A ratio is the peer's time over
handgrad's in the same round; its median is given, and the range from the 10th to the 90th percentile.

Writes steps.json (every round), steps.md and steps.png into benchmarks/results, or into part/ below it where not the
whole was run. Ends with 1 where a peer disagreed or failed: it is then left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .peers import CASES, EXAMPLES, PEERS, TOLERANCE, Task, disagreement, tasks
from .tables import PART, RESULTS, STYLES, about, machine, missing, save, save_json, table
from .workers import PeerError, Worker, Workers, cores

AGREED = 20  # steps
SEED = 0  # of an epoch's order
EVERY = 3  # rounds from one epoch to the next
BEGIN = time.perf_counter()


@dataclass(frozen=True)
class Length:
    """How long the race is: its rounds, and the seconds that a chunk of steps and an epoch should take."""

    rounds: int = 9
    steps: float = 0.15
    epoch: float = 0.4


@dataclass
class Entrant:
    """A peer in a race: its worker, in the setting that was the fastest, and how much it does at a time."""

    worker: Worker
    form: str
    pace: float  # seconds a step, as calibrated
    count: int = 0
    examples: int = 0

    def set_chunks(self, task: Task, length: Length, most: int) -> None:
        """Whole rounds of the batches, and whole batches."""
        around, batch = task.case.batches, task.case.batch
        count = max(1, round(length.steps / self.pace))
        self.count = count if count < around else count // around * around
        self.examples = max(1, min(most // batch, round(length.epoch / self.pace))) * batch


# ---- Before the race -------------------------------------------------------------------------------------------------


def calibrate(workers: Workers, peer: str, task: Task, length: Length) -> Entrant:
    """The peer in the fastest of its settings."""
    found: list[Entrant] = []
    for threads in sorted({1, cores()}):
        worker = workers.get(peer, threads)
        for form in PEERS[peer].forms:
            worker.ask("prepare", task, form)
            found.append(Entrant(worker, form, pace(worker, task.case.batches)))
        prepared = form
    best = min(found, key=lambda e: e.pace * (1 if e.worker.threads == 1 else 1.02))  # a draw goes to one thread
    for worker in {e.worker.threads: e.worker for e in found}.values():
        if worker is not best.worker:
            worker.ask("forget")
    if best.form != prepared:
        best.worker.ask("prepare", task, best.form)
    best.set_chunks(task, length, PEERS[peer].most)
    return best


def pace(worker: Worker, around: int) -> float:
    """Seconds a step: the best of three times round the batches."""
    return min(worker.timed("steps", around) for _ in range(3))


def agree(worker: Worker, workers: Workers, task: Task, peer: str) -> float:
    """How far a peer's weights end from handgrad's, as a share of their change; by steps or by an epoch, the worse."""
    ask_for, inside = workers.get("handgrad", 1).ask, PEERS[peer].epsilon_inside
    by_steps = worker.ask("train", AGREED), ask_for("reference", task, AGREED, inside, None)
    by_epoch = (
        worker.ask("train_epoch", AGREED * task.case.batch, SEED),
        ask_for("reference", task, AGREED, inside, SEED),
    )
    return max(disagreement(task, theirs, ours) for theirs, ours in (by_steps, by_epoch))


# ---- The race --------------------------------------------------------------------------------------------------------


def race(workers: Workers, task: Task, peers: Sequence[str], length: Length) -> dict[str, Any]:
    """All rounds of one task."""
    entrants: dict[str, Entrant] = {}
    agreement: dict[str, float] = {}
    failures: dict[str, str] = {}
    for peer in peers:
        if not PEERS[peer].enters(task):
            continue
        tell(f"{task.case.name} {task.optimizer}: {peer}")
        try:
            entrant = calibrate(workers, peer, task, length)
            agreement[peer] = agree(entrant.worker, workers, task, peer)
            if not agreement[peer] <= TOLERANCE:
                raise PeerError(
                    f"DISAGREES: after {AGREED} steps its weights are {agreement[peer]:.1e} of their change away from "
                    f"handgrad's, and rounding makes at most {TOLERANCE:.0e}"
                )
            entrant.worker.ask("epoch", entrant.examples, SEED)  # whatever is compiled is compiled before the race
            entrants[peer] = entrant
        except PeerError as error:
            failures[peer] = str(error)
            tell(f"\n{task.case.name} {task.optimizer}: {peer} is left out.\n{error}\n")

    steps: dict[str, list[float]] = {peer: [] for peer in entrants}
    epochs: dict[str, list[float]] = {peer: [] for peer in entrants}
    peaks = []
    for number in range(length.rounds):
        tell(f"{task.case.name} {task.optimizer}: round {number + 1} of {length.rounds}")
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
        entrant.worker.ask("forget")
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


# ---- The report ------------------------------------------------------------------------------------------------------


HEAD = (
    "peer",
    "threads",
    "µs a step",
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
    """One race as the rows of a table."""
    found = []
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
        found.append(row)
    return found


def _met(value: float, goal: float | None) -> str:
    return "" if goal is None else "yes" if value >= goal else "no"


def summary(races: Sequence[dict[str, Any]]) -> str:
    """Each peer's time of a step over handgrad's, the median, a row for each race; in brackets what was aimed at."""
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
    """What was raced, in a line."""
    low, peak, high = np.percentile(result["peak_flops"], [0, 50, 100]) / 1e9
    return (
        f"{'-'.join(map(str, result['sizes']))}, batches of {result['batch']}, {result['optimizer']} "
        f"({result['flop_of_a_step'] / 1e6:,.3g} MFLOP a step; peak {peak:.0f} GFLOP/s, {low:.0f} to {high:.0f})"
    )


def report(results: dict[str, Any]) -> str:
    """All races in Markdown."""
    parts = [
        "# Steps and epochs, side by side",
        "",
        f"{about(results['machine'])}. {results['rounds']} rounds. Made by `make bench`.",
        "",
        "Ratio: a peer's time over handgrad's in the same round, the median, and the spread from the 10th to the 90th "
        "percentile (of epochs from the least to the greatest). An epoch is of 60,000 examples; * of fewer, scaled. "
        "Peak: the best product of two 2,048 x 2,048 matrices in NumPy, in the same round.",
    ]
    parts += ["", summary(results["races"])]
    for result in results["races"]:
        parts += ["", f"## {heading(result)}", "", table(HEAD, rows(result))]
        parts += [f"\n{peer} was left out: {why.strip().splitlines()[-1]}" for peer, why in result["failures"].items()]
    return "\n".join(parts) + "\n"


def chart(results: dict[str, Any], path: Path) -> None:
    """Each peer's ratio in each case on a logarithmic axis, a panel for each optimizer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    optimizers = list(dict.fromkeys(result["optimizer"] for result in results["races"]))
    size = 2 + 5.5 * len(optimizers), 2 + 1.3 * len({result["case"] for result in results["races"]})
    figure, panels = pyplot.subplots(1, len(optimizers), figsize=size, sharex=True, sharey=True, squeeze=False)
    shown: dict[str, Any] = {}
    for axes, optimizer in zip(panels[0], optimizers, strict=True):
        races = [result for result in results["races"] if result["optimizer"] == optimizer]
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
                    markeredgecolor="black",
                    markersize=7,
                    capsize=2,
                )
                axes.annotate(f"{ratio:.2g}", (high, y), xytext=(5, 0), textcoords="offset points", va="center", size=7)
        axes.axvline(1, color="black", linewidth=1)
        for row in range(1, len(races)):
            axes.axhline(row - 0.5, color="0.85", linewidth=0.8)
        axes.set_yticks(range(len(races)), [result["case"].replace("/", "\nbatches of ") for result in races])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50])
        axes.set_title({"sgd": "plain SGD", "adam": "Adam"}[optimizer])
        axes.set_xlabel("time of a step, handgrad's = 1")
    panels[0][0].invert_yaxis()
    figure.legend(shown.values(), shown.keys(), loc="lower center", ncols=3 * len(optimizers), frameon=False)
    figure.suptitle("How many times handgrad's time a step takes: right of 1 the peer is slower", fontsize=11)
    figure.tight_layout(rect=(0, 0.5 / size[1], 1, 1))  # half an inch for the legend
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def tell(line: str) -> None:
    """Say on stderr how far it is and since when, so that stdout holds the tables alone."""
    print(f"{time.perf_counter() - BEGIN:4.0f} s  {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=(__doc__ or "").partition("\n")[0])
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, help="only this case (again for another)")
    parser.add_argument("--optimizer", action="append", choices=["sgd", "adam"], help="only this optimizer")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="only handgrad and this peer")
    parser.add_argument("--rounds", type=int, help="rounds of a race (9)")
    parser.add_argument("--short", action="store_true", help="3 rounds of short chunks, to see that all is well")
    options = parser.parse_args(arguments)
    length = Length(rounds=3, steps=0.05, epoch=0.1) if options.short else Length()
    rounds = length.rounds if options.rounds is None else options.rounds
    if rounds < 1:
        parser.error(f"--rounds {rounds}: expected 1 or more")
    length = Length(rounds, length.steps, length.epoch)
    whole = length == Length() and not (options.case or options.optimizer or options.peer)
    place = RESULTS if whole else PART
    peers = [peer for peer in PEERS if peer == "handgrad" or not options.peer or peer in options.peer]
    if lacking := missing(peers):
        parser.error(
            f"{', '.join(lacking)} not installed: pip install 'handgrad[peers]', or name other peers by --peer"
        )

    results: dict[str, Any] = {"machine": machine(), "rounds": length.rounds, "races": []}
    print(about(results["machine"]), flush=True)
    with Workers() as workers:
        results["machine"]["thread_pools"] = workers.get("handgrad", cores()).ask("blas")
        for task in tasks():
            if (options.case and task.case.name not in options.case) or (
                options.optimizer and task.optimizer not in options.optimizer
            ):
                continue
            result = race(workers, task, peers, length)
            results["races"].append(result)
            print(f"\n{heading(result)}\n\n{table(HEAD, rows(result))}", flush=True)
            save_json(place / "steps.json", results)  # now, so that a run cut short has what it measured
            save(place / "steps.md", report(results))
    chart(results, place / "steps.png")
    print(f"\nwritten to {place}: steps.json, steps.md, steps.png")
    failures = [f"{r['case']} {r['optimizer']}: {peer}" for r in results["races"] for peer in r["failures"]]
    if failures:
        print(f"left out, see above: {'; '.join(failures)}", file=sys.stderr)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
