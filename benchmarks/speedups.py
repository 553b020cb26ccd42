"""Speed-ups: from the loops of the blog post to handgrad, one optimization at a time.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.speedups [--rounds 15]
    python -m benchmarks.speedups --quick       one round, without writing anything

Each version is a complete training step of [784, 30, 10] with plain SGD on MNIST, batch size 10, and differs from the
previous one in one optimization. All versions start from the same weights and must reach the same weights. Then they
are timed, alternating in each round. Writes speedups.md and speedups.json to benchmarks/results.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from handgrad import SGD

from .peers import CASES, Floats, Post, task_of
from .tables import RESULTS, about, machine, save, save_json, table

Step = Callable[[Floats, Floats], object]
POST = task_of(CASES[0], "sgd")
LR = POST.lr


# ---- The versions ----------------------------------------------------------------------------------------------------


def python_loops(theta: Floats) -> tuple[Step, Callable[[], Floats]]:
    """The corrected listing of the blog post: one example at a time, column vectors, float64."""
    peer = Post(POST)
    peer.load(theta)

    def step(x: Floats, t: Floats) -> None:
        peer.network.update([(x[i][:, None], t[i][:, None]) for i in range(len(x))], LR)

    return step, peer.parameters


def matrices(theta: Floats, dtype: type = np.float64, dx: bool = True) -> tuple[Step, Callable[[], Floats]]:
    """Matrix products of the complete batch, with a new array for each result. `dx`: also compute dx."""
    (W1, b1), (W2, b2) = [(W.astype(dtype), b.astype(dtype)) for W, b in POST.pairs(theta)]

    def step(x: Floats, t: Floats) -> None:
        nonlocal W1, b1, W2, b2
        x = x.astype(dtype, copy=False)
        a1 = 1 / (1 + np.exp(-(x @ W1.T + b1)))
        a2 = 1 / (1 + np.exp(-(a1 @ W2.T + b2)))
        dz2 = (a2 - t) / len(x)
        dz1 = (dz2 @ W2) * a1 * (1 - a1)
        if dx:
            dz1 @ W1
        W2, b2 = W2 - LR * (dz2.T @ a1), b2 - LR * dz2.sum(axis=0)
        W1, b1 = W1 - LR * (dz1.T @ x), b1 - LR * dz1.sum(axis=0)

    return step, lambda: np.concatenate([p.ravel() for p in (W1, b1, W2, b2)]).astype(np.float32)


def buffers(
    theta: Floats, vector: bool = False, tanh: bool = False, lean: bool = False, lr_in_loss: bool = False
) -> tuple[Step, Callable[[], Floats]]:
    """Preallocated buffers for all results.

    vector      one update of θ from dθ instead of one for each of W1, b1, W2, b2
    tanh        σ(z) = (1 + tanh(z / 2)) / 2, without exponential and division
    lean        np.dot instead of np.matmul and for the sum over the batch; scalars as zero-dimensional arrays
    lr_in_loss  dL/dz includes the learning rate, so that the update needs no multiplication
    """
    theta = theta.copy()
    gradient, scratch = np.empty_like(theta), np.empty_like(theta)
    (W1, b1), (W2, b2) = POST.pairs(theta)
    (dW1, db1), (dW2, db2) = POST.pairs(gradient)
    parts = [*zip((W1, b1, W2, b2), (dW1, db1, dW2, db2), (s for p in POST.pairs(scratch) for s in p), strict=True)]
    z1, a1, da1, dz1 = (np.empty((10, 30), np.float32) for _ in range(4))
    z2, dz2 = (np.empty((10, 10), np.float32) for _ in range(2))
    ones = np.ones(10, np.float32)
    product = np.dot if lean else np.matmul
    one, half, mean, lr_mean = (np.array(n, np.float32) if lean else n for n in (1.0, 0.5, 0.1, 0.1 * LR))

    def sigmoid(z: Floats, out: Floats) -> None:
        if tanh:
            np.multiply(z, half, out=out)
            np.tanh(out, out=out)
            np.multiply(out, half, out=out)
            np.add(out, half, out=out)
        else:
            np.negative(z, out=out)
            np.exp(out, out=out)
            np.add(out, 1, out=out)
            np.divide(1, out, out=out)

    def step(x: Floats, t: Floats) -> None:
        product(x, W1.T, out=z1)
        np.add(z1, b1, out=z1)
        sigmoid(z1, a1)
        product(a1, W2.T, out=z2)
        np.add(z2, b2, out=z2)
        sigmoid(z2, dz2)
        np.subtract(dz2, t, out=dz2)
        np.multiply(dz2, lr_mean if lr_in_loss else mean, out=dz2)
        product(dz2.T, a1, out=dW2)
        product(dz2, W2, out=da1)
        np.subtract(one, a1, out=dz1)
        np.multiply(dz1, a1, out=dz1)
        np.multiply(dz1, da1, out=dz1)
        product(dz1.T, x, out=dW1)
        if lean:
            np.dot(ones, dz2, out=db2)
            np.dot(ones, dz1, out=db1)
        else:
            np.sum(dz2, axis=0, out=db2)
            np.sum(dz1, axis=0, out=db1)
        if lr_in_loss:
            np.subtract(theta, gradient, out=theta)
        else:
            for p, dp, product_lr in [(theta, gradient, scratch)] if vector else parts:
                np.multiply(dp, LR, out=product_lr)
                np.subtract(p, product_lr, out=p)

    return step, lambda: theta


def handgrad(theta: Floats) -> tuple[Step, Callable[[], Floats]]:
    """handgrad itself: layers, a loss, a network and an optimizer."""
    network, optimizer = POST.network(), SGD(LR)
    network.parameters[...] = theta
    return lambda x, t: optimizer.train_step(network, x, t, LR), lambda: network.parameters


def versions(theta: Floats) -> Iterator[tuple[str, tuple[Step, Callable[[], Floats]]]]:
    """Yield all versions, the slowest first."""
    yield "examples/post.py: Python loops", python_loops(theta)
    yield "matrix products of the batch, float64", matrices(theta)
    yield "float32", matrices(theta, np.float32)
    yield "no derivative of the input", matrices(theta, np.float32, dx=False)
    yield "preallocated buffers", buffers(theta)
    yield "one parameter vector, one update", buffers(theta, vector=True)
    yield "sigmoid computed with tanh", buffers(theta, vector=True, tanh=True)
    yield "np.dot; scalars as 0-d arrays", buffers(theta, vector=True, tanh=True, lean=True)
    yield "learning rate inside dL/dz", buffers(theta, vector=True, tanh=True, lean=True, lr_in_loss=True)
    yield "handgrad: layers, loss, optimizer", handgrad(theta)


# ---- Timing ----------------------------------------------------------------------------------------------------------


def race(steps: dict[str, Step], batches: list[tuple[Floats, Floats]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds per step of each version in each round. The versions alternate every 20 ms."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            begin, done = time.perf_counter(), 0
            while time.perf_counter() - begin < 0.02:
                for x, t in batches[:20]:
                    step(x, t)
                    done += 1
            seconds[name].append((time.perf_counter() - begin) / done)
    return {name: times[1:] for name, times in seconds.items()}


def check_agreement(steps: dict[str, tuple[Step, Callable[[], Floats]]], batches: list[tuple[Floats, Floats]]) -> None:
    """Raise ArithmeticError if a version does not reach the weights of the first one after 20 steps."""
    for step, _ in steps.values():
        for x, t in batches[:20]:
            step(x, t)
    (_, first), *others = steps.values()
    for (_, parameters), name in zip(others, list(steps)[1:], strict=True):
        if not np.allclose(parameters(), first(), rtol=0, atol=1e-5):
            raise ArithmeticError(f"{name}: the weights differ from those of examples/post.py")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speedups", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds (default: 15)")
    parser.add_argument("--quick", action="store_true", help="one round, write nothing")
    options = parser.parse_args()
    host, batches = machine(), POST.batches()

    steps = dict(versions(POST.network().parameters.copy()))
    check_agreement(steps, batches)
    rounds = 1 if options.quick else options.rounds
    times = race({name: step for name, (step, _) in steps.items()}, batches, rounds)
    us = {name: statistics.median(times[name]) * 1e6 for name in times}
    first, before = next(iter(us.values())), [*us.values()]
    rows = [
        [name, f"{now:.1f}", f"{last / now:.2f}x" if i else "", f"{first / now:.1f}x"]
        for i, (name, now, last) in enumerate(zip(us, us.values(), before[:1] + before, strict=False))
    ]
    text = f"{about(host)}\n\n{table(['version', 'µs per step', 'speed-up', 'total'], rows)}\n"
    print(text, end="")
    if options.quick:
        return
    save(RESULTS / "speedups.md", text)
    save_json(RESULTS / "speedups.json", {"machine": host, "rounds": times})


if __name__ == "__main__":
    main()
