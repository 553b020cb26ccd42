"""Two ways to do one thing, side by side: the one that handgrad takes, and another that was tried.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.roads [--rounds 15]

The two take turns, round by round. A gain below 1 says that handgrad's way is the faster one. Writes roads.md and
roads.json into benchmarks/results.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from handgrad import SGD, Adam, Network, optimizers
from handgrad.arrays import aligned_empty, buffer

from .ladder import LR, POST, Step, race
from .peers import CASES, Floats, Task, floats
from .tables import RESULTS, about, machine, save, save_json, table

Batches = list[tuple[Floats, Floats]]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Floats:
    """N(0, 1)."""
    return RNG.standard_normal(shape, np.float32)


def small_product() -> tuple[Step, Step]:
    """z = x Wᵀ of the post's second layer."""
    a, W, z = normal(10, 30), normal(10, 30), np.empty((10, 10), np.float32)
    return lambda x, t: np.dot(a, W.T, out=z), lambda x, t: np.matmul(a, W.T, out=z)


def sum_over_batch() -> tuple[Step, Step]:
    """db = 1ᵀ dz."""
    dz, ones, db = normal(10, 30), np.ones(10, np.float32), np.empty(30, np.float32)
    return lambda x, t: np.dot(ones, dz, out=db), lambda x, t: dz.sum(axis=0, out=db)


def number() -> tuple[Step, Step]:
    """a ← a / 2 of a small batch."""
    a, half = normal(10, 30), np.array(0.5, np.float32)
    return lambda x, t: np.multiply(a, half, out=a), lambda x, t: np.multiply(a, 0.5, out=a)


def columns() -> tuple[Step, Step]:
    """z = x Wᵀ of a wide layer, z column by column in memory, or row by row."""
    x, W = layer_buffer(128, 512, np.float32), normal(512, 512)
    x[...] = normal(128, 512)
    by_columns, by_rows, x_rows = (
        layer_buffer(128, 512, np.float32),
        np.empty((128, 512), np.float32),
        np.array(x, order="C"),
    )
    return lambda *_: np.matmul(x, W.T, out=by_columns), lambda *_: np.matmul(x_rows, W.T, out=by_rows)


def cache_lines() -> tuple[Step, Step]:
    """θ ← θ - dθ of the post's network, from a line of the cache on, and from 16 bytes behind one."""
    theta, g = (aligned_empty(23_864, np.float32) for _ in range(2))
    theta[...] = g[...] = 0

    def update(first: int) -> Step:
        mine, dmine = theta[first : first + 23_860], g[first : first + 23_860]
        return lambda x, t: np.subtract(mine, dmine, out=mine)

    return update(0), update(4)


def mask() -> tuple[Step, Step]:
    """dz of a ReLU, its mask a factor, or an index."""
    a, da, dz = normal(128, 512), normal(128, 512), np.empty((128, 512), np.float32)

    def index(x: Floats, t: Floats) -> None:
        dz[...] = da
        dz[a <= 0] = 0

    return lambda x, t: np.multiply(da, a > 0, out=dz), index


def blocks() -> tuple[Step, Step]:
    """Adam's update of 784-2048-2048-10, in blocks and in one."""
    network, (kept, whole) = Network([784, 2048, 2048, 10], rng=0), (Adam(), Adam())
    kept.step(network)
    block, optimizers.BLOCK = optimizers.BLOCK, network.parameters.size
    whole.step(network)
    optimizers.BLOCK = block
    return lambda x, t: kept.step(network), lambda x, t: whole.step(network)


def threads() -> tuple[Step, Step]:
    """The same update by one thread, and by two, each with half of the blocks."""
    network, kept, halves = Network([784, 2048, 2048, 10], rng=0), Adam(), (Adam(), Adam())
    for each in (kept, *halves):
        each.step(network)
    for each, half in zip(halves, (slice(None, None, 2), slice(1, None, 2)), strict=True):
        each._blocks = each._blocks[half]
    second = ThreadPoolExecutor(1)

    def both(x: Floats, t: Floats) -> None:
        running = second.submit(halves[1].step, network)
        halves[0].step(network)
        running.result()

    return lambda x, t: kept.step(network), both


def pieces() -> tuple[Step, Step]:
    """z = x Wᵀ for a batch of 64 at once, and 32 rows at a time: few enough for OpenBLAS's small kernel for AVX-512."""
    W, z = normal(30, 784), np.empty((64, 30), np.float32)

    def cut(x: Floats, t: Floats) -> None:
        np.dot(x[:32], W.T, out=z[:32])
        np.dot(x[32:], W.T, out=z[32:])

    return lambda x, t: np.dot(x, W.T, out=z), cut


def live_pixels() -> tuple[Step, Step]:
    """A step on all pixels, and on those alone that are not 0 in the whole training set: exact, as their W stay."""
    live = floats()[0].any(axis=0)
    whole, part = Network([784, 30, 10], rng=0), Network([int(live.sum()), 30, 10], rng=0)
    all_of_it, some_of_it = SGD(LR), SGD(LR)
    gathered: dict[int, Floats] = {}

    def on_live(x: Floats, t: Floats) -> None:
        key = x.ctypes.data
        if key not in gathered:  # once, as a source of batches would
            gathered[key] = np.ascontiguousarray(x[:, live])
        some_of_it.train_step(part, gathered[key], t, LR)

    return lambda x, t: all_of_it.train_step(whole, x, t, LR), on_live


def roads() -> Iterator[tuple[str, tuple[Step, Step], Batches]]:
    """(what, the two ways, the batches that they are given)."""
    small, middle = POST.batches(), Task(CASES[2], "sgd", LR).batches()
    nothing = [middle[0]]
    yield "a small product: dot, matmul", small_product(), small
    yield "the sum over the batch: a product, sum(axis=0)", sum_over_batch(), small
    yield "a number: as an array, as Python's", number(), small
    yield "a wide product: by columns, by rows", columns(), nothing
    yield "an update: from a cache line, across", cache_lines(), small
    yield "ReLU's mask: a factor, an index", mask(), nothing
    yield "Adam, 5.8 million parameters: blocks, one block", blocks(), nothing
    yield "the same: one thread, two", threads(), nothing
    yield "a product, batch 64: at once, in two pieces", pieces(), middle
    yield "a step: all pixels, those ever inked", live_pixels(), small


def main() -> None:
    """Walk them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roads", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="of turns (15)")
    rounds, host = parser.parse_args().rounds, machine()
    rows, found = [], {}
    for name, (ours, other), batches in roads():
        found[name] = race({"ours": ours, "other": other}, batches, rounds)
        now, then = (statistics.median(found[name][way]) * 1e6 for way in ("ours", "other"))
        rows.append([name, f"{now:,.2f}", f"{then:,.2f}", f"{now / then:.2f}x"])
    told = table(["handgrad's way, the other", "us", "us", "gain"], rows)
    text = f"{about(host)}\n\n{told}\n"
    print(text, end="")
    save(RESULTS / "roads.md", text)
    save_json(RESULTS / "roads.json", {"machine": host, "rounds": found})


if __name__ == "__main__":
    main()
