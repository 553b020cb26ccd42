"""Implementation choices of handgrad compared with alternatives that were tried.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.alternatives [--rounds 15]
    python -m benchmarks.alternatives --quick     one round, without writing anything

The two implementations alternate in each round. A ratio below 1 means that the implementation of handgrad is faster.
Writes alternatives.md and alternatives.json to benchmarks/results.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from handgrad import SGD, Adam, Network, optimizers
from handgrad.arrays import aligned_empty, layer_buffer
from handgrad.products import plain_product, product_of_rows

from .peers import CASES, Floats, Task, floats
from .speedups import LR, POST, Step, race
from .tables import RESULTS, about, machine, save, save_json, table

Batches = list[tuple[Floats, Floats]]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Floats:
    """Return random numbers from N(0, 1)."""
    return RNG.standard_normal(shape, np.float32)


def small_product() -> tuple[Step, Step]:
    """z = x Wᵀ of the second layer of the blog post's network."""
    a, W, z = normal(10, 30), normal(10, 30), np.empty((10, 10), np.float32)
    return lambda x, t: np.dot(a, W.T, out=z), lambda x, t: np.matmul(a, W.T, out=z)


def sum_over_batch() -> tuple[Step, Step]:
    """db = 1ᵀ dz, the sum over the batch."""
    dz, ones, db = normal(10, 30), np.ones(10, np.float32), np.empty(30, np.float32)
    return lambda x, t: np.dot(ones, dz, out=db), lambda x, t: dz.sum(axis=0, out=db)


def scalar() -> tuple[Step, Step]:
    """a ← a / 2 for a small batch."""
    a, half = normal(10, 30), np.array(0.5, np.float32)
    return lambda x, t: np.multiply(a, half, out=a), lambda x, t: np.multiply(a, 0.5, out=a)


def column_major() -> tuple[Step, Step]:
    """z = x Wᵀ of a wide layer, with column-major and with row-major z."""
    x, W = layer_buffer(128, 512, np.float32), normal(512, 512)
    x[...] = normal(128, 512)
    by_columns, by_rows, x_rows = (
        layer_buffer(128, 512, np.float32),
        np.empty((128, 512), np.float32),
        np.array(x, order="C"),
    )
    return lambda *_: np.matmul(x, W.T, out=by_columns), lambda *_: np.matmul(x_rows, W.T, out=by_rows)


def alignment() -> tuple[Step, Step]:
    """θ ← θ - dθ of the blog post's network, aligned to a cache line and 16 bytes after one."""
    theta, g = (aligned_empty(23_864, np.float32) for _ in range(2))
    theta[...] = g[...] = 0

    def update(first: int) -> Step:
        part, gradient = theta[first : first + 23_860], g[first : first + 23_860]
        return lambda x, t: np.subtract(part, gradient, out=part)

    return update(0), update(4)


def mask() -> tuple[Step, Step]:
    """dz of a ReLU, with the mask as a factor and as an index."""
    a, da, dz = normal(128, 512), normal(128, 512), np.empty((128, 512), np.float32)

    def index(x: Floats, t: Floats) -> None:
        dz[...] = da
        dz[a <= 0] = 0

    return lambda x, t: np.multiply(da, a > 0, out=dz), index


def blocks() -> tuple[Step, Step]:
    """Adam's update of 784-2048-2048-10, in blocks that fit into the cache and in one pass."""
    network, (in_blocks, in_one_pass) = Network([784, 2048, 2048, 10], rng=0), (Adam(), Adam())
    in_blocks.step(network)
    chunk, optimizers.UPDATE_CHUNK = optimizers.UPDATE_CHUNK, network.parameters.size
    in_one_pass.step(network)
    optimizers.UPDATE_CHUNK = chunk
    return lambda x, t: in_blocks.step(network), lambda x, t: in_one_pass.step(network)


def threads() -> tuple[Step, Step]:
    """The same update with one thread and with two threads, each with half of the blocks."""
    network, single, halves = Network([784, 2048, 2048, 10], rng=0), Adam(), (Adam(), Adam())
    for optimizer in (single, *halves):
        optimizer.step(network)
    for optimizer, half in zip(halves, (slice(None, None, 2), slice(1, None, 2)), strict=True):
        optimizer._blocks = optimizer._blocks[half]
    executor = ThreadPoolExecutor(1)

    def both(x: Floats, t: Floats) -> None:
        second = executor.submit(halves[1].step, network)
        halves[0].step(network)
        second.result()

    return lambda x, t: single.step(network), both


def in_pieces() -> tuple[Step, Step]:
    """z = x Wᵀ for a batch of 64, in pieces if the processor has AVX-512, and in one call."""
    W, z = normal(30, 784), layer_buffer(64, 30, np.float32)
    pieces, one_call = product_of_rows(z, 784), plain_product(z)
    return lambda x, t: pieces(x, W.T, z), lambda x, t: one_call(x, W.T, z)


def nonzero_pixels() -> tuple[Step, Step]:
    """A step on all pixels, and on those that are not 0 in all images. The result is the same: other W never change."""
    nonzero = floats()[0].any(axis=0)
    complete, reduced = Network([784, 30, 10], rng=0), Network([int(nonzero.sum()), 30, 10], rng=0)
    optimizer, reduced_optimizer = SGD(LR), SGD(LR)
    gathered: dict[int, Floats] = {}

    def on_nonzero(x: Floats, t: Floats) -> None:
        key = x.ctypes.data
        if key not in gathered:  # only once: a data loader would do it in advance
            gathered[key] = np.ascontiguousarray(x[:, nonzero])
        reduced_optimizer.train_step(reduced, gathered[key], t, LR)

    return lambda x, t: optimizer.train_step(complete, x, t, LR), on_nonzero


def comparisons() -> Iterator[tuple[str, tuple[Step, Step], Batches]]:
    """Yield a label "what: handgrad, alternative", the two implementations, and their batches."""
    small, medium = POST.batches(), Task(CASES[2], "sgd", LR).batches()
    unused = [medium[0]]
    yield "small product: np.dot, np.matmul", small_product(), small
    yield "sum over the batch: np.dot with ones, sum(axis=0)", sum_over_batch(), small
    yield "scalar: 0-d array, Python float", scalar(), small
    yield "large product: column-major, row-major", column_major(), unused
    yield "update: aligned to a cache line, not aligned", alignment(), small
    yield "ReLU mask: factor, index", mask(), unused
    yield "Adam, 5.8 million parameters: in blocks, in one pass", blocks(), unused
    yield "Adam, 5.8 million parameters: one thread, two threads", threads(), unused
    yield "product of batch 64: in pieces, one call", in_pieces(), medium
    yield "training step: all pixels, pixels that are ever nonzero", nonzero_pixels(), small


def report(results: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    rows = []
    for name, seconds in results["rounds"].items():
        ours, other = (statistics.median(seconds[which]) * 1e6 for which in ("handgrad", "alternative"))
        rows.append([name, f"{ours:,.2f}", f"{other:,.2f}", f"{ours / other:.2f}"])
    head = ["what: handgrad, alternative", "handgrad, µs", "alternative, µs", "ratio"]
    return f"{about(results['machine'])}\n\n{table(head, rows)}\n"


def main() -> None:
    """Run the command line."""
    description = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives", description=description)
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds (default: 15)")
    parser.add_argument("--quick", action="store_true", help="one round, write nothing")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "rounds": {}}
    for name, (ours, other), batches in comparisons():
        rounds = 1 if options.quick else options.rounds
        results["rounds"][name] = race({"handgrad": ours, "alternative": other}, batches, rounds)
    print(report(results), end="")
    if not options.quick:
        save(RESULTS / "alternatives.md", report(results))
        save_json(RESULTS / "alternatives.json", results)


if __name__ == "__main__":
    main()
