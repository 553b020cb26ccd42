"""Scaling model: the time of data-parallel training on 1 to 1,024 nodes, predicted from measurements on one machine.

    python -m benchmarks.scaling_model [--rounds 3] [--high-priority]
    python -m benchmarks.scaling_model --again 1,2  measure 1 and 2 ranks on this machine again, and keep the others
    python -m benchmarks.scaling_model --report     write tables, plot and page again from the results
    python -m benchmarks.scaling_model --quick      one short round, without writing anything

A step on B examples and p nodes takes the time of the computation on B / p examples, and that of one sum of the
gradient over the nodes (Allreduce):

    T(B, p) = c₀ + c₁ B / p + u + A(p)

c₀, c₁, u and A are measured for three networks with handgrad on one core. Predictions for other networks of computers
use their data sheets instead of A: see `LINKS`. Then real trainings on 1, 2 and 4 ranks are compared with the model, on
this machine and on emulated hosts with a limited data rate (`benchmarks.hosts`, root only). Needs the extra `mpi`.
Writes scaling_model.json, .md and .png to benchmarks/results, and the tables of docs/explanation/scaling.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .hosts import Hosts, NotAvailableError
from .ranks import launch, program
from .tables import RESULTS, about, between, machine, save, save_json, table
from .workers import cores

NETWORKS = {
    "24k": [784, 30, 10],
    "670k": [784, 512, 512, 10],
    "12M": [784, 2500, 2000, 1500, 1000, 500, 10],
}
NODES = tuple(1 << power for power in range(11))
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "scaling.md"
MILLISECOND = 1e-3


def parameters(sizes: Sequence[int]) -> int:
    """Return the number of parameters P = Σ (n_in + 1) n_out."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))


# ---- The model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """The time of a training step on one node without communication.

    t(b) = c₀ + c₁ b + u

    Parameters
    ----------
    fixed : float
        c₀, seconds that do not depend on the batch: calls of NumPy, reading W.
    row : float
        c₁, seconds per example. It is about 6 P / F, with P parameters and F operations per second.
    update : float
        u, seconds of the update of θ.
    """

    fixed: float
    row: float
    update: float

    def seconds(self, batch: float) -> float:
        """Return t(b)."""
        return self.fixed + self.row * batch + self.update

    def on_server(self, is_small: bool) -> Step:
        """Return the step on a server with 32 cores, an assumption: 80 % of 32 cores for the matrix products.

        What is limited by memory gains a factor of 8, unless the network is small. Then the fixed part is the time of
        the calls of NumPy, which gain nothing.
        """
        gain = 1 if is_small else 8
        return Step(self.fixed / gain, self.row / (0.8 * 32), self.update / gain)


@dataclass(frozen=True)
class Link:
    """The network between the nodes, and the time of Allreduce on it.

    With n bytes, p nodes and L = ⌈log₂ p⌉, the algorithms of MPI libraries take

    recursive doubling    L (α + n β + n γ)
    Rabenseifner          2 L α + (p - 1)/p n (2 β + γ)
    ring                  2 (p - 1) α + (p - 1)/p n (2 β + γ)

    and the library chooses the fastest. The network transports all messages of a phase at the same time.

    Parameters
    ----------
    name : str
        Name of the network.
    alpha : float
        α, seconds of latency of a message.
    beta : float
        β, seconds per byte: the inverse of the data rate.
    gamma : float
        γ, seconds to add a byte of a vector to another one.

    References
    ----------
    Thakur, Rabenseifner, Gropp (2005), Optimization of collective communication operations in MPICH.
    """

    name: str
    alpha: float
    beta: float
    gamma: float

    def allreduce(self, size: float, nodes: int) -> float:
        """Return the seconds of Allreduce for n bytes."""
        return min(self.alpha * a + self.beta * b + self.gamma * c for a, b, c in algorithms(size, nodes))


def algorithms(size: float, nodes: int) -> list[tuple[float, float, float]]:
    """Return the factors of α, β and γ in the time of each algorithm of Allreduce."""
    if nodes == 1:
        return [(0.0, 0.0, 0.0)]
    phases, share = math.ceil(math.log2(nodes)), (nodes - 1) / nodes
    return [
        (phases, phases * size, phases * size),
        (2 * phases, 2 * share * size, share * size),
        (2 * (nodes - 1), 2 * share * size, share * size),
    ]


def step_seconds(step: Step, link: Link, size: float, batch: float, nodes: int) -> float:
    """Return T(B, p) = t(B / p) + A(p), the seconds of a step on B examples and p nodes."""
    return step.seconds(batch / nodes) + link.allreduce(size, nodes)


def strong_efficiency(step: Step, link: Link, size: float, batch: int, nodes: int) -> float:
    """Return t(B) / (p T(B, p)): the batch is divided by the nodes, and 1 means p times as fast."""
    return step.seconds(batch) / (nodes * step_seconds(step, link, size, batch, nodes))


def weak_efficiency(step: Step, link: Link, size: float, rows: int, nodes: int, sync_every: int = 1) -> float:
    """Return t(b) / (t(b) + A(p) / H): b examples per node, and 1 means that p nodes process p times as many.

    H is `sync_every` of local SGD, which exchanges θ after H steps.
    """
    return step.seconds(rows) / (step.seconds(rows) + link.allreduce(size, nodes) / sync_every)


def steps_to_target(batch: float, critical: float) -> float:
    """Return the number of steps to a given loss, relative to that of a very large batch: S(B) / S_min = 1 + B_c / B.

    Below the critical batch B_c, twice the batch halves the steps. Above it, a larger batch saves nothing.

    References
    ----------
    McCandlish, Kaplan, Amodei (2018), An empirical model of large-batch training.
    """
    return 1 + critical / batch


def rows_for(efficiency: float, step: Step, link: Link, size: float, nodes: int) -> float:
    """Return the examples per node that give this weak efficiency."""
    needed = link.allreduce(size, nodes) * efficiency / (1 - efficiency)
    return max(1.0, (needed - step.fixed - step.update) / step.row)


# ---- From measurements to the model ----------------------------------------------------------------------------------


def fit_step(batches: Sequence[float], seconds: Sequence[float], update: float) -> Step:
    """Fit t(b) to measured steps by least squares of the relative errors. u is measured separately."""
    t = np.asarray(seconds)
    factors = np.stack([np.ones(len(t)), np.asarray(batches)], axis=1) / t[:, None]
    (intercept, row), *_ = np.linalg.lstsq(factors, np.ones(len(t)), rcond=None)
    return Step(max(0.0, float(intercept) - update), float(row), update)


def fit_link(name: str, samples: Sequence[tuple[float, int, float]], gamma: float | None = None) -> Link:
    """Fit α, β and γ to measured times of Allreduce by least squares of the relative errors.

    Which algorithm is the fastest depends on the result. Therefore the fit starts with recursive doubling and is
    repeated until the algorithms do not change.

    Parameters
    ----------
    name : str
        Name of the network.
    samples : sequence of (bytes, nodes, seconds)
        The measurements.
    gamma : float, optional
        γ, if it was measured separately. β and γ cannot be told apart in measurements with two nodes.
    """
    seconds = np.array([sample[2] for sample in samples])
    choices = [algorithms(size, nodes) for size, nodes, _ in samples]
    chosen = [0] * len(samples)
    link = Link(name, 0.0, 0.0, 0.0)
    for _ in range(20):
        factors = np.array([rows[i] for rows, i in zip(choices, chosen, strict=True)]) / seconds[:, None]
        if gamma is None:
            alpha, beta, fitted = _non_negative(factors, np.ones(len(seconds)))
        else:
            alpha, beta = _non_negative(factors[:, :2], 1 - gamma * factors[:, 2])
            fitted = gamma
        link = Link(name, alpha, beta, fitted)
        times = [[np.dot((alpha, beta, fitted), row) for row in rows] for rows in choices]
        fastest = [int(np.argmin(row)) for row in times]
        if fastest == chosen:
            break
        chosen = fastest
    return link


def _non_negative(factors: Any, values: Any) -> list[float]:
    """Solve least squares. A negative unknown is set to 0, and the others are solved again."""
    free = np.ones(factors.shape[1], bool)
    while True:
        solution = np.zeros(len(free))
        scale = np.abs(factors[:, free]).max(axis=0)
        solution[free] = np.linalg.lstsq(factors[:, free] / scale, values, rcond=None)[0] / scale
        if (solution >= 0).all() or not free.any():
            return [float(value) for value in solution]
        free &= solution > 0


# ---- Assumptions -----------------------------------------------------------------------------------------------------

LINKS = (  # typical latencies and usable data rates, InfiniBand with 100 Gb/s: not measured
    Link("1 GbE", 30e-6, 1 / 0.119e9, 0.0),
    Link("10 GbE", 30e-6, 1 / 1.15e9, 0.0),
    Link("InfiniBand", 1.5e-6, 1 / 12e9, 0.0),
)
MODES = (("strong", 1024), ("strong", 8192), ("weak", 128), ("weak", 1024))  # global batch, or examples per node
KINDS = ("one core", "32 cores")


# ---- Measurements ----------------------------------------------------------------------------------------------------

BATCHES = (8, 16, 32, 64, 128, 256, 512, 1024)
FLOATS = (1, 1000, 10_000, 23_860, 100_000, 300_000, 669_706, 2_000_000, 11_972_510)
FITTED = 4 * 23_860  # bytes: the links are fitted to the latency and to the sizes of gradients
CACHED = 10_000_000  # bytes: with longer vectors, shared memory is limited by the main memory and not by the caches
RUNS = {"24k": (128, 1024), "670k": (256, 1024), "12M": (256,)}  # global batches of the comparison
HOST_RUNS = {"24k": (1024,), "670k": (1024,), "12M": (256,)}
RATE = "1gbit"
SYNC_EVERY = 8


def steps_for(name: str, rows: float) -> int:
    """Return a number of steps that takes about half a second, at least 6."""
    seconds = {"24k": 2e-6, "670k": 40e-6, "12M": 700e-6}[name] * (rows + 30)
    return max(6, min(300, round(0.5 / seconds)))


def training(name: str, batch: int, ranks: int, sync_every: int | None = None) -> dict[str, Any]:
    """Return the job of a training."""
    job: dict[str, Any] = {"sizes": NETWORKS[name], "batch": batch, "steps": steps_for(name, batch / ranks)}
    return job if sync_every is None else {**job, "steps": max(job["steps"], 5 * sync_every), "sync_every": sync_every}


def exchanges(ranks: int, slow: bool) -> list[dict[str, Any]]:
    """Return the jobs that time Allreduce. `slow`: at 1 Gb/s. Ranks that take turns on a core need more time."""
    seconds = (8e-9 if slow else 2e-10) * (10 if ranks > cores() else 1)
    return [{"allreduce": n, "repeats": max(6, min(1000, round(0.4 / (5e-5 + 4 * n * seconds))))} for n in FLOATS]


def round_of(ranks: int, hosts: Hosts | None, quick: bool, high: bool) -> list[dict[str, Any]]:
    """Measure everything for a number of ranks once. Returns a list of {"job", "result"}."""
    jobs: list[dict[str, Any]] = []
    if ranks == 1:
        jobs += [{"addition": n, "repeats": 30} for n in FLOATS[-3:]]
        jobs += [training(name, batch, 1) for name in NETWORKS for batch in BATCHES]
    else:
        jobs += exchanges(ranks, slow=hosts is not None)
        runs = RUNS if hosts is None else HOST_RUNS
        jobs += [training(name, batch, ranks) for name in NETWORKS for batch in runs[name]]
        if hosts is not None and ranks <= cores():
            jobs.append(training("670k", 1024, ranks, SYNC_EVERY))
    if quick:
        jobs = [job for job in jobs if job.get("sizes") != NETWORKS["12M"]]
    if hosts is None:
        results = launch(ranks, jobs, high)
    else:
        text = hosts.mpiexec(ranks, [sys.executable, *program(jobs, high)], start_new_session=True)
        results = json.loads(text)
    return [{"job": job, "result": result} for job, result in zip(jobs, results, strict=True)]


def measure(rounds: int, quick: bool, high: bool, earlier: dict[str, Any] | None, again: list[int]) -> dict[str, Any]:
    """Measure all inputs and all trainings, in turns. Returns {"place": {ranks: [round, ...]}}.

    With `earlier` measurements, only the numbers of ranks `again` are measured, on this machine.
    """
    measured: dict[str, Any] = earlier or {"machine": {}, "hosts": {}, "why_no_hosts": None}
    measured["machine"] |= {str(ranks): [] for ranks in again}
    for number in range(1, rounds + 1):
        for ranks in again:
            measured["machine"][str(ranks)].append(round_of(ranks, None, quick, high))
            print(f"round {number}: {ranks} ranks on this machine", flush=True)
        if earlier:
            continue
        try:
            with Hosts(4, RATE) as hosts:
                for ranks in (2, 4):
                    measured["hosts"].setdefault(str(ranks), []).append(round_of(ranks, hosts, quick, high))
                    print(f"round {number}: {ranks} emulated hosts", flush=True)
        except NotAvailableError as error:
            measured["why_no_hosts"] = str(error)
            print(f"emulated hosts are skipped: {error}", flush=True)
    return measured


def values(rounds: list[list[dict[str, Any]]], job: dict[str, Any], what: str) -> list[float]:
    """Return the time of a job in each round, a low percentile."""
    found = [entry["result"][what]["quiet"] for entries in rounds for entry in entries if entry["job"] == job]
    if not found:
        raise KeyError(f"{job} was not measured")
    return found


def allreduce_samples(rounds: list[list[dict[str, Any]]], ranks: int) -> list[tuple[float, int, float]]:
    """Return (bytes, ranks, seconds) of each size of Allreduce, the fastest round."""
    jobs = [entry["job"] for entry in rounds[0] if "allreduce" in entry["job"]]
    return [(4.0 * job["allreduce"], ranks, min(values(rounds, job, "exchange"))) for job in jobs]


def inputs(measured: dict[str, Any]) -> dict[str, Any]:
    """Compute c₀, c₁, u of each network and α, β, γ of each link from the measurements."""
    alone = measured["machine"]["1"]
    gammas = [min(values(alone, {"addition": n, "repeats": 30}, "addition")) / (4 * n) for n in FLOATS[-3:]]
    gamma = statistics.median(gammas)
    steps, errors = {}, {}
    for name in NETWORKS:
        jobs = [training(name, batch, 1) for batch in BATCHES]
        if not any(entry["job"] == jobs[0] for entry in alone[0]):
            continue  # --quick
        seconds = [min(values(alone, job, "compute")) for job in jobs]
        steps[name] = fit_step(BATCHES, seconds, min(values(alone, jobs[0], "update")))
        errors[name] = [steps[name].seconds(b) / t - 1 for b, t in zip(BATCHES, seconds, strict=True)]
    samples = {place: allreduce_samples(measured[place]["2"], 2) for place in ("machine", "hosts") if measured[place]}
    fitted = {
        place: [sample for sample in values if sample[0] == 4 or sample[0] >= FITTED]
        for place, values in samples.items()
    }
    small = [sample for sample in fitted["machine"] if sample[0] <= CACHED]
    links = {"machine": fit_link("shared memory", small, gamma)}
    if large := [sample for sample in fitted["machine"] if sample[0] > CACHED]:
        links["memory"] = fit_link("shared memory, more than 10 MB", [small[0], *large], gamma)
    if measured["hosts"]:
        links["hosts"] = fit_link("emulated 1 Gb/s", fitted["hosts"], gamma)
    return {"gamma": gamma, "steps": steps, "links": links, "errors": errors}


def link_for(links: dict[str, Link], place: str, size: float) -> Link:
    """Return the link of a place for vectors of n bytes."""
    return links["memory"] if place == "machine" and size > CACHED and "memory" in links else links[place]


def checks(measured: dict[str, Any], known: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare each measured training with the model: a low percentile of the steps of the fastest round.

    With more ranks than cores, the ranks take turns, and the computation takes p / cores times as long.
    """
    rows = []
    for place, by_ranks in (("machine", measured["machine"]), ("hosts", measured["hosts"])):
        for ranks, rounds in ((int(key), rounds) for key, rounds in by_ranks.items()):
            for job in (entry["job"] for entry in rounds[0] if "sizes" in entry["job"]):
                name = next(name for name, sizes in NETWORKS.items() if sizes == job["sizes"])
                if ranks == 1 and job["batch"] not in RUNS[name]:
                    continue
                size = 4.0 * parameters(job["sizes"])
                step, link = known["steps"][name], link_for(known["links"], place, size)
                crowd = max(1.0, ranks / cores())
                every = job.get("sync_every", 1)
                compute = step.seconds(job["batch"] / ranks) * crowd
                exchange = link.allreduce(size, ranks) / every
                measured_exchange = min(values(rounds, job, "exchange")) / every
                measured_compute = min(values(rounds, job, "compute"))
                all_steps = values(rounds, job, "step")
                speedup = None
                if place == "machine" and ranks > 1:  # ratios of times of the same round
                    alone = values(by_ranks["1"], training(name, job["batch"], 1), "step")
                    speedup = statistics.median(a / b for a, b in zip(alone, all_steps, strict=False))
                if every > 1:  # the exchanges are not parts of the steps
                    all_steps = [seconds + measured_exchange for seconds in values(rounds, job, "compute")]
                seconds = min(all_steps)
                rows.append(
                    {
                        "place": place,
                        "ranks": ranks,
                        "network": name,
                        "batch": job["batch"],
                        "sync_every": every,
                        "predicted": compute + exchange,
                        "measured": seconds,
                        "rounds": all_steps,
                        "ratio": seconds / (compute + exchange),
                        "speedup": speedup,
                        "predicted_speedup": step.seconds(job["batch"]) / (compute + exchange),
                        "predicted_parts": [compute, exchange],
                        "measured_parts": [measured_compute, measured_exchange],
                    }
                )
    return rows


# ---- Predictions -----------------------------------------------------------------------------------------------------


def predictions(steps: dict[str, Step], gamma: float) -> list[dict[str, Any]]:
    """Return the efficiency of each network, node, link and mode for all numbers of nodes."""
    rows = []
    for (name, step), node, link in itertools.product(steps.items(), KINDS, LINKS):
        on = step if node == KINDS[0] else step.on_server(name == "24k")
        size, real = 4.0 * parameters(NETWORKS[name]), replace(link, gamma=gamma)
        for mode, batch in MODES:
            efficiency = strong_efficiency if mode == "strong" else weak_efficiency
            curve = [
                efficiency(on, real, size, batch, nodes) if mode == "weak" or nodes <= batch else None
                for nodes in NODES
            ]
            rows.append(
                {"network": name, "node": node, "link": link.name, "mode": mode, "batch": batch, "efficiency": curve}
            )
    return rows


def remedies(steps: dict[str, Step], gamma: float, nodes: int = 64, rows: int = 128) -> list[list[str]]:
    """Return a table of what raises the weak efficiency on servers with 32 cores."""
    result = []
    for name, step in steps.items():
        on, size = step.on_server(name == "24k"), 4.0 * parameters(NETWORKS[name])
        for link in (replace(link, gamma=gamma) for link in LINKS[1:]):
            cells = [
                weak_efficiency(on, link, size, rows, nodes),
                weak_efficiency(on, link, size, 8 * rows, nodes),
                weak_efficiency(on, link, size, rows, nodes, 8),
                weak_efficiency(on, link, size, rows, nodes, 64),
            ]
            needed = rows_for(0.8, on, link, size, nodes)
            result.append([f"{name}, {link.name}", *(f"{cell:.0%}" for cell in cells), f"{needed:,.0f}"])
    return result


REMEDIES = ("network, link", "128 per node", "1,024 per node", "local SGD, H = 8", "H = 64", "examples for 80%")


# ---- Report ----------------------------------------------------------------------------------------------------------


def microseconds(seconds: float) -> str:
    """Format a time in microseconds with at least three digits."""
    value = 1e6 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(seconds: float) -> str:
    """Format a time in milliseconds with three digits."""
    value = seconds / MILLISECOND
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the report by name."""
    steps = {name: Step(**values) for name, values in results["steps"].items()}
    links = {place: Link(**values) for place, values in results["links"].items()}
    parts = {}
    parts["steps"] = table(
        ("network", "parameters", "c₀, µs", "c₁, µs", "u, µs", "largest error of the fit"),
        [
            [
                f"{name}: {'-'.join(map(str, NETWORKS[name]))}",
                f"{parameters(NETWORKS[name]):,}",
                *(microseconds(value) for value in (step.fixed, step.row, step.update)),
                f"{max(map(abs, results['errors'][name])):.0%}",
            ]
            for name, step in steps.items()
        ],
    )
    rows = [("measured: " + link.name, link) for link in links.values()]
    rows += [("assumed: " + link.name, replace(link, gamma=results["gamma"])) for link in LINKS]
    parts["links"] = table(
        ("link", "α, µs", "1/β, GB/s", "γ, ns per byte"),
        [
            [name, f"{1e6 * link.alpha:.2g}", f"{1e-9 / link.beta:.3g}", f"{1e9 * link.gamma:.2g}"]
            for name, link in rows
        ],
    )
    allreduces = []
    for place, samples in results["allreduce"].items():
        for size, ranks, seconds in samples:
            link = link_for(links, place, size)
            model = link.allreduce(size, ranks)
            cells = [milliseconds(seconds), milliseconds(model), f"{seconds / model:.2f}"]
            allreduces.append([f"{links[place].name}, {ranks} ranks, {size / 4:,.0f} floats", *cells])
    parts["allreduce"] = table(("Allreduce", "measured, ms", "model, ms", "ratio"), allreduces)
    parts["checks"] = table(
        ("training", "measured, ms", "model, ms", "ratio", "rounds", "computation, ms", "exchange, ms", "speed-up"),
        [
            [
                f"{row['network']}, B = {row['batch']:,}, "
                + (f"H = {row['sync_every']}, " if row["sync_every"] > 1 else "")
                + (f"{row['ranks']} rank{'s' * (row['ranks'] > 1)}" if row["place"] == "machine" else "")
                + (f"{row['ranks']} hosts, 1 Gb/s" if row["place"] == "hosts" else ""),
                milliseconds(row["measured"]),
                milliseconds(row["predicted"]),
                f"{row['ratio']:.2f}",
                f"{min(row['rounds']) / row['predicted']:.2f} to {max(row['rounds']) / row['predicted']:.2f}",
                *(
                    f"{milliseconds(real)} ({milliseconds(model)})"
                    for real, model in zip(row["measured_parts"], row["predicted_parts"], strict=True)
                ),
                "" if row["speedup"] is None else f"{row['speedup']:.2f} ({row['predicted_speedup']:.2f})",
            ]
            for row in results["checks"]
        ],
    )
    for node in KINDS:
        parts[node] = table(
            ("network, link, mode", *map("{:,}".format, NODES)),
            [
                [
                    f"{row['network']}, {row['link']}, "
                    + (f"B = {row['batch']:,}" if row["mode"] == "strong" else f"{row['batch']:,} per node"),
                    *("" if value is None else f"{value:.0%}" for value in row["efficiency"]),
                ]
                for row in results["predictions"]
                if row["node"] == node
            ],
        )
    parts["remedies"] = table(REMEDIES, remedies(steps, results["gamma"]))
    return parts


def report(results: dict[str, Any]) -> None:
    """Write the tables, the plot and the tables of the page of the documentation."""
    parts = tables(results)
    priority = "high" if results["high_priority"] else "normal"
    load = f"{results['machine']['load']:.1f}"
    text = f"""# Scaling model

Written by `python -m benchmarks.scaling_model`: {about(results["machine"])}. Load of other programs before the run:
{load}; rounds: {results["rounds"]}; priority: {priority}.

## Inputs: the time of a step on one core

{parts["steps"]}

## Inputs: links

{parts["links"]}

{parts["allreduce"]}

## Trainings and the model

A cell of the last three columns is "measured (model)". A ratio above 1 means slower than the model.

{parts["checks"]}

## Predictions: parallel efficiency, one core per node

{parts["one core"]}

## Predictions: parallel efficiency, servers with 32 cores

{parts["32 cores"]}

## What raises the efficiency: 64 servers with 32 cores

{parts["remedies"]}
"""
    save(RESULTS / "scaling_model.md", text)
    chart(results)
    if PAGE.exists():
        names = [name for name in parts if f"<!-- {name} -->" in PAGE.read_text()]
        save(PAGE, between(PAGE.read_text(), {name: parts[name] for name in names}))


def chart(results: dict[str, Any]) -> None:
    """Plot the predicted speed-up of a fixed batch, and the efficiency with a fixed number of examples per node."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = Path(__file__).parents[1] / "src" / "handgrad" / "docs.mplstyle"
    with pyplot.style.context(style):
        figure, panels = pyplot.subplots(2, 3, figsize=(10, 6), sharex=True, sharey="row")
        for column, name in enumerate(results["steps"]):
            for row, (mode, batch) in enumerate((MODES[1], MODES[2])):
                axes = panels[row][column]
                for curve in results["predictions"]:
                    if [curve[key] for key in ("network", "node", "mode", "batch")] == [name, KINDS[0], mode, batch]:
                        efficiency = curve["efficiency"]
                        scaled = [p * e for p, e in zip(NODES, efficiency, strict=True)]
                        axes.plot(NODES, scaled if mode == "strong" else efficiency, label=curve["link"])
                axes.set_xscale("log", base=2)
                axes.set_xticks(NODES[::2], [f"{nodes:,}" for nodes in NODES[::2]])
                if mode == "strong":
                    axes.plot(NODES, NODES, color="#767676", linewidth=1, linestyle="-", label="perfect")
                    axes.set_yscale("log", base=2)
                    axes.set_yticks(NODES[::2], [f"{nodes:,}" for nodes in NODES[::2]])
                    axes.set_title(f"{name} parameters")
                else:
                    axes.set_ylim(0, 1.05)
                    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
                    axes.set_xlabel("nodes")
        panels[0][0].set_ylabel(f"speed-up, B = {MODES[1][1]:,}")
        panels[1][0].set_ylabel(f"efficiency, {MODES[2][1]} per node")
        panels[0][0].legend(fontsize=8)
        RESULTS.mkdir(exist_ok=True)
        figure.savefig(RESULTS / "scaling_model.png", dpi=120)
        pyplot.close(figure)


def evaluate(measured: dict[str, Any]) -> dict[str, Any]:
    """Return what the report needs: the inputs of the model, its comparison with the trainings, and predictions."""
    known = inputs(measured)
    return {
        "why_no_hosts": measured["why_no_hosts"],
        "gamma": known["gamma"],
        "steps": {name: asdict(step) for name, step in known["steps"].items()},
        "errors": known["errors"],
        "links": {place: asdict(link) for place, link in known["links"].items()},
        "allreduce": {
            place: [
                sample
                for ranks, rounds in measured[place].items()
                if ranks != "1"
                for sample in allreduce_samples(rounds, int(ranks))
            ]
            for place in ("machine", "hosts")
            if place in known["links"]
        },
        "checks": checks(measured, known),
        "predictions": predictions(known["steps"], known["gamma"]),
    }


# ---- Command line ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling_model", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    parser.add_argument("--quick", action="store_true", help="one round without the largest network, write nothing")
    parser.add_argument("--report", action="store_true", help="write the tables and the plot from scaling_model.json")
    parser.add_argument("--again", metavar="RANKS", help="measure these numbers of ranks again, as 1,2")
    parser.add_argument(
        "--high-priority", action="store_true", help="let other programs wait while steps are timed (Linux, root)"
    )
    options = parser.parse_args(arguments)
    path = RESULTS / "scaling_model.json"
    if options.report:
        results = json.loads(path.read_text())
        report(results | evaluate(results["measured"]))
        return 0
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected 1 or more")
    if options.high_priority and os.geteuid() != 0:
        parser.error("--high-priority needs root")
    results: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "high_priority": options.high_priority}
    rounds = 1 if options.quick else options.rounds
    earlier, again = None, [1, 2, 4]
    if options.again:
        earlier, again = json.loads(path.read_text())["measured"], [int(ranks) for ranks in options.again.split(",")]
    measured = measure(rounds, options.quick, options.high_priority, earlier, again)
    if options.quick:
        print(tables(results | evaluate(measured))["checks"])
        return 0
    save_json(path, results | {"measured": measured})
    report(results | evaluate(measured))
    print(f"written to {RESULTS}: scaling_model.json, scaling_model.md, scaling_model.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
