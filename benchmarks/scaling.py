"""How the time of a step grows with width, depth, batch size and threads, and that of an epoch with the examples.

    python -m benchmarks.growth [--rounds 3]

Each curve changes one number of a network of relus before a softmax, trained by plain SGD. At each point every library
is tried with one thread and with all cores (on the curve over threads, with as many as the point says), in its first
form; the rounds are interleaved, and the better setting's median is the point. Writes growth.json and growth.png into
benchmarks/results.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .peers import EXAMPLES, PEERS, Case, Task, task_of
from .tables import RESULTS, STYLES, about, machine, missing, save_json
from .workers import Workers, cores

LIBRARIES = ("handgrad", "torch", "jax-scan", "sklearn")
CHUNK = 0.06  # seconds that a timed chunk should take


@dataclass(frozen=True)
class Curve:
    """One number that changes: its name, its values, and the task that it makes; `epoch` where an epoch is timed."""

    name: str
    label: str
    values: tuple[int, ...]
    epoch: bool = False

    def case(self, value: int) -> Case:
        """The network and batches at a point."""
        sizes: tuple[int, ...] = (784, 256, 256, 10)
        batch = 64
        if self.name == "width":
            sizes = (784, value, value, 10)
        elif self.name == "depth":
            sizes = (784, *(256,) * value, 10)
        elif self.name == "batch":
            batch = value
        elif self.name == "threads":
            sizes, batch = (784, 1024, 1024, 10), 256
        elif self.name == "examples":
            sizes, batch = (784, 30, 10), 10
        case = Case(sizes, batch, batches=1, softmax=True)
        in_a_chunk = round(CHUNK * 5e10 / case.flop)  # at 50 GFLOP/s
        return replace(case, batches=max(1, min(200, 4096 // batch, in_a_chunk)))


def curves() -> list[Curve]:
    """What is measured."""
    threads = tuple(sorted({1 << power for power in range(cores().bit_length()) if 1 << power <= cores()} | {cores()}))
    return [
        Curve("width", "units in each of two hidden layers, batches of 64", (16, 64, 256, 1024, 2048)),
        Curve("depth", "hidden layers of 256 units, batches of 64", (1, 2, 4, 8)),
        Curve("batch", "examples in a batch, 784-256-256-10", (1, 4, 16, 64, 256, 1024)),
        Curve("threads", "threads, 784-1024-1024-10, batches of 256", threads),
        Curve("examples", "examples in an epoch, 784-30-10, batches of 10", (1000, 4000, 15_000, EXAMPLES), epoch=True),
    ]


def point(workers: Workers, curve: Curve, value: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step (of an epoch) for each library: every round of the better setting, and its threads."""
    task: Task = task_of(curve.case(value), "sgd")
    tried = (value,) if curve.name == "threads" else sorted({1, cores()})
    settings = {(peer, threads): workers.get(peer, threads) for peer in LIBRARIES for threads in tried}
    seconds: dict[tuple[str, int], list[float]] = {setting: [] for setting in settings}
    counts = {}
    for setting, worker in settings.items():
        worker.ask("prepare", task, PEERS[setting[0]].forms[0])
        if curve.epoch:
            worker.ask("epoch", value, 0)  # what is compiled is compiled now
        else:
            rounds_of_batches = CHUNK / worker.timed("steps", task.case.batches) / task.case.batches
            counts[setting] = max(1, round(rounds_of_batches)) * task.case.batches
    for _ in range(rounds):
        for setting, worker in settings.items():
            if curve.epoch:
                seconds[setting].append(worker.timed("epoch", value, 0) * value)
            else:
                seconds[setting].append(worker.timed("steps", counts[setting]))
    for worker in settings.values():
        worker.ask("forget")
    best = {
        peer: min((s for s in settings if s[0] == peer), key=lambda s: statistics.median(seconds[s]))
        for peer in LIBRARIES
    }
    return {peer: {"threads": setting[1], "seconds": seconds[setting]} for peer, setting in best.items()}


def chart(results: dict[str, Any]) -> None:
    """A panel for each curve, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, panels = pyplot.subplots(2, 3, figsize=(15, 8.5))
    for axes, curve in zip(panels.flat, results["curves"], strict=False):
        for peer in LIBRARIES:
            marker, colour = STYLES[peer]
            times = [statistics.median(found[peer]["seconds"]) for found in curve["points"]]
            axes.plot(
                curve["values"],
                [each if curve["epoch"] else each * 1e6 for each in times],
                marker=marker,
                color=colour,
                markeredgecolor="black",
                linewidth=2.5 if peer == "handgrad" else 1.2,
                label=peer,
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(curve["values"], [f"{value:,}" for value in curve["values"]])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(curve["label"])
        axes.set_ylabel("seconds an epoch" if curve["epoch"] else "µs a step")
        axes.grid(color="0.9")
    panels[1][2].axis("off")
    panels[1][2].legend(*panels[0][0].get_legend_handles_labels(), loc="center", frameon=False, fontsize=12)
    panels[1][2].set_title(about(results["machine"]), fontsize=8, wrap=True, y=0.05)
    figure.suptitle("InferenceGraph SGD on relus before a softmax: lower is faster")
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "growth.png", dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (3)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected 1 or more")
    if lacking := missing(LIBRARIES):
        parser.error(f"{', '.join(lacking)} not installed: pip install 'handgrad[peers]'")
    results: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "curves": []}
    with Workers() as workers:
        for curve in curves():
            points = []
            for value in curve.values:
                points.append(point(workers, curve, value, options.rounds))
                medians = (f"{peer} {statistics.median(of['seconds']):.3g} s" for peer, of in points[-1].items())
                print(f"{curve.name} {value:,}: {', '.join(medians)}", flush=True)
            results["curves"].append(
                {
                    "name": curve.name,
                    "label": curve.label,
                    "epoch": curve.epoch,
                    "values": curve.values,
                    "points": points,
                }
            )
            save_json(RESULTS / "growth.json", results)
    chart(results)
    print(f"written to {RESULTS}: growth.json, growth.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
