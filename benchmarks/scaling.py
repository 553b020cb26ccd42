"""Scaling: time per step by width, depth, batch size, threads and ranks; time per epoch by number of examples.

    python -m benchmarks.scaling [--rounds 3]
    python -m benchmarks.scaling --only ranks   measure one curve again, and keep the others
    python -m benchmarks.scaling --quick        two points per curve, one round, without writing anything

Each curve changes one number of a ReLU network with softmax, trained with plain SGD. At each point, every library is
measured with one thread and with all cores (on the curve over threads, with the given number of threads), in its first
form. The libraries alternate within each round. A point is the median of the faster setting. The curve over ranks is
that of handgrad alone, with one thread per rank (`benchmarks.ranks`). Writes scaling.json, scaling.md and scaling.png
to benchmarks/results, and the table of the page docs/explanation/scaling.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .peers import EXAMPLES, PEERS, Case, Task, task_of
from .ranks import launch
from .tables import RESULTS, STYLES, about, between, machine, missing, save, save_json, table
from .workers import Workers, cores

LIBRARIES = ("handgrad", "torch", "jax-scan", "sklearn")
CHUNK = 0.06  # target time of a chunk in seconds
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "scaling.md"

# What the time of a step or an epoch grows with, at large values: the power of the number.
GROWTH = {"examples": 1, "width": 2, "depth": 1, "batch": 1, "threads": -1, "ranks": -1}


@dataclass(frozen=True)
class Curve:
    """A number that changes and its values. With `epoch`, an epoch is timed and not a step."""

    name: str
    label: str
    values: tuple[int, ...]
    epoch: bool = False

    def case(self, value: int) -> Case:
        """Return the network and the batches of a point."""
        sizes: tuple[int, ...] = (784, 256, 256, 10)
        batch = 64
        if self.name == "width":
            sizes = (784, value, value, 10)
        elif self.name == "depth":
            sizes = (784, *(256,) * value, 10)
        elif self.name == "batch":
            batch = value
        elif self.name in ("threads", "ranks"):
            sizes, batch = (784, 1024, 1024, 10), 256
        elif self.name == "examples":
            sizes, batch = (784, 30, 10), 10
        case = Case(sizes, batch, batches=1, softmax=True)
        in_a_chunk = round(CHUNK * 5e10 / case.flop)  # at 50 GFLOP/s
        return replace(case, batches=max(1, min(200, 4096 // batch, in_a_chunk)))


def curves() -> list[Curve]:
    """Return all curves."""
    threads = tuple(sorted({1 << power for power in range(cores().bit_length()) if 1 << power <= cores()} | {cores()}))
    return [
        Curve("width", "units in each of two hidden layers, batch size 64", (16, 64, 256, 1024, 2048)),
        Curve("depth", "hidden layers of 256 units, batch size 64", (1, 2, 4, 8)),
        Curve("batch", "batch size, 784-256-256-10", (1, 4, 16, 64, 256, 1024)),
        Curve("threads", "threads, 784-1024-1024-10, batch size 256", threads),
        Curve("ranks", "ranks of one thread, 784-1024-1024-10, batch size 256", threads),
        Curve("examples", "examples per epoch, 784-30-10, batch size 10", (1000, 4000, 15_000, EXAMPLES), epoch=True),
    ]


def point(workers: Workers, curve: Curve, value: int, rounds: int, high_priority: bool) -> dict[str, Any]:
    """Return the seconds per step (or epoch) of each library in all rounds of its faster setting, and its threads."""
    if curve.name == "ranks":
        case = curve.case(value)
        job = {"sizes": list(case.sizes), "batch": case.batch, "steps": 30}
        seconds_of_rounds = [launch(value, [job], high_priority)[0]["step"]["median"] for _ in range(rounds)]
        return {"handgrad": {"threads": 1, "seconds": seconds_of_rounds}}
    task: Task = task_of(curve.case(value), "sgd")
    tried = (value,) if curve.name == "threads" else sorted({1, cores()})
    settings = {(peer, threads): workers.get(peer, threads) for peer in LIBRARIES for threads in tried}
    seconds: dict[tuple[str, int], list[float]] = {setting: [] for setting in settings}
    counts = {}
    for setting, worker in settings.items():
        worker.call("prepare", task, PEERS[setting[0]].forms[0])
        if curve.epoch:
            worker.call("epoch", value, 0)  # compile before timing
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
        worker.call("forget")
    best = {
        peer: min((s for s in settings if s[0] == peer), key=lambda s: statistics.median(seconds[s]))
        for peer in LIBRARIES
    }
    return {peer: {"threads": setting[1], "seconds": seconds[setting]} for peer, setting in best.items()}


def growth(results: dict[str, Any]) -> str:
    """Return a table of the times of handgrad, and the power with which the time grows between neighbouring values."""
    rows = []
    for curve in sorted(results["curves"], key=lambda curve: [*GROWTH].index(curve["name"])):
        values = curve["values"]
        times = [statistics.median(point["handgrad"]["seconds"]) for point in curve["points"]]
        powers = [
            math.log(t / s) / math.log(b / a)
            for (a, b), (s, t) in zip(itertools.pairwise(values), itertools.pairwise(times), strict=True)
        ]
        rows.append(
            [
                curve["label"],
                ", ".join(f"{value:,}" for value in values),
                ", ".join(f"{1e3 * seconds:.3g}" for seconds in times),
                ", ".join(f"{power:.2f}" for power in powers),
                str(GROWTH[curve["name"]]),
            ]
        )
    return table(("number", "values", "ms per step or epoch", "power between neighbours", "for large values"), rows)


def report(results: dict[str, Any]) -> None:
    """Write the table and the plot."""
    part = growth(results)
    chart(results)
    others = {about(curve["machine"]) for curve in results["curves"] if "machine" in curve}
    lines = [f"Written by `python -m benchmarks.scaling`: {about(results['machine'])}.", *sorted(others)]
    save(RESULTS / "scaling.md", "\n\n".join(["# Growth of the time of handgrad", *lines, part]) + "\n")
    if PAGE.exists():
        save(PAGE, between(PAGE.read_text(), {"growth": part}))


def chart(results: dict[str, Any]) -> None:
    """Plot a panel for each curve, with logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, panels = pyplot.subplots(2, 3, figsize=(15, 8.5))
    for axes, curve in zip(panels.flat, results["curves"], strict=False):
        for peer in (name for name in LIBRARIES if name in curve["points"][0]):
            marker, colour = STYLES[peer]
            times = [statistics.median(point[peer]["seconds"]) for point in curve["points"]]
            axes.plot(
                curve["values"],
                [time if curve["epoch"] else time * 1e6 for time in times],
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
        axes.set_ylabel("seconds per epoch" if curve["epoch"] else "µs per step")
        axes.grid(color="0.9")
    panels[0][0].legend(frameon=False, fontsize=12)
    figure.suptitle("Plain SGD, ReLU network with softmax: lower is faster")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.text(0.5, 0.008, about(results["machine"]), fontsize=8, ha="center")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "scaling.png", dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    parser.add_argument("--quick", action="store_true", help="two points per curve, one round, write nothing")
    parser.add_argument("--only", choices=tuple(GROWTH), help="measure this curve, and keep the others")
    parser.add_argument("--high-priority", action="store_true", help="let other programs wait for ranks (Linux, root)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected 1 or more")
    if lacking := missing(LIBRARIES):
        parser.error(f"{', '.join(lacking)} not installed: pip install 'handgrad[peers]'")
    rounds = 1 if options.quick else options.rounds
    results: dict[str, Any] = {"machine": machine(), "rounds": rounds, "curves": []}
    here: dict[str, Any] = {}
    if options.only:
        here = {"machine": results["machine"]}
        results = json.loads((RESULTS / "scaling.json").read_text())
    with Workers() as workers:
        for curve in curves():
            if options.only not in (None, curve.name):
                continue
            points = []
            for value in curve.values[:2] if options.quick else curve.values:
                points.append(point(workers, curve, value, rounds, options.high_priority))
                medians = (f"{peer} {statistics.median(p['seconds']):.3g} s" for peer, p in points[-1].items())
                print(f"{curve.name} {value:,}: {', '.join(medians)}", flush=True)
            if options.quick:
                continue
            results["curves"] = [other for other in results["curves"] if other["name"] != curve.name]
            results["curves"].append(
                {
                    **here,
                    "name": curve.name,
                    "label": curve.label,
                    "epoch": curve.epoch,
                    "values": curve.values,
                    "points": points,
                }
            )
            save_json(RESULTS / "scaling.json", results)
    if not options.quick:
        report(results)
        print(f"written to {RESULTS}: scaling.json, scaling.md, scaling.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
