"""Data-parallel training on one machine: milliseconds per step of one process and of several.

    python -m benchmarks.processes [--processes 2] [--rounds 7]

A step of 784-512-512-10 with SGD and batches of 256, in three forms that alternate: one process with one BLAS thread,
one process with all cores, several processes with MPI. Prints the median of each form over the rounds. Keep the machine
idle: the ranks wait for each other in every step, so that another program delays all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import time
import warnings
from pathlib import Path

import numpy as np

from handgrad import SGD, Callback, Network, Trainer
from handgrad.distributed import world
from handgrad.errors import HandgradWarning

BATCH, STEPS, EPOCHS = 256, 12, 5


class Clock(Callback):
    """Notes the time after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_batch_end(self, trainer: Trainer) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def measure() -> None:
    """Train, and print the median of the milliseconds per step on rank 0."""
    comm, clock, rng = world(), Clock(), np.random.default_rng(0)
    x, y = rng.random((BATCH * STEPS, 784), dtype=np.float32), rng.integers(0, 10, BATCH * STEPS)
    network = Network([784, 512, 512, 10], activation="relu", loss="cross_entropy", rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandgradWarning)  # random labels
        Trainer(network, SGD(0.01), batch_size=BATCH, callbacks=[clock], rng=0, comm=comm).fit(x, y, epochs=EPOCHS)
    if comm is None or comm.Get_rank() == 0:
        print(1e3 * float(np.median(np.diff(clock.times))))


def main() -> None:
    """Run the three forms in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure()
        return
    command = [sys.executable, "-m", "benchmarks.processes", "--measure"]
    launcher = [str(Path(sysconfig.get_path("scripts")) / "mpiexec"), "-n", str(options.processes)]
    forms = {
        "1 process, 1 thread": (command, {"OPENBLAS_NUM_THREADS": "1"}),
        "1 process, all cores": (command, {}),
        f"{options.processes} processes": ([*launcher, *command], {}),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    for _ in range(options.rounds):
        for name, (arguments, variables) in forms.items():
            done = subprocess.run(
                arguments, env=environment | variables, stdout=subprocess.PIPE, text=True, check=True, timeout=300
            )
            times[name].append(float(done.stdout))
    for name, values in times.items():
        print(f"{name:22} {statistics.median(values):6.2f} ms per step")


if __name__ == "__main__":
    main()
