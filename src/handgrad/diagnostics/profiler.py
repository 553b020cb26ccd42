"""Where the time of a training step goes, part by part, and how far each part is from what the machine allows.

The step is the one that training takes, `optimizer.learn`, on batches that lie in memory as training lays them. Its
parts are timed where they stand in it, on the arrays that come to them there; the update is all that follows the last
backward. Steps with a watch on every part take turns with steps without, which give the time of the whole: what it has
more than the sum of its parts is Python's own way from one to the next, and where steps are long it is lost in their
noise. Every time is a median over the steps.

Against each part stands the least that it could take, a roofline after Williams, Waterman & Patterson (2009):

    floor = max(FLOPs / peak, bytes / bandwidth)

FLOPs      of the matrix products: 2 batch n_in n_out forward, as many backward for dW, and as many again for dx
bytes      of what must be read and written: forward x, θ and y, θ the layer's parameters; backward dy, dθ and what
           forward kept, as large as x, and for dx also θ and dx; the loss z, t and dz; the update θ and g, θ written,
           each memory both
peak       FLOPs a second of the product of two square matrices with PEAK rows, with the threads that BLAS has
bandwidth  bytes a second of b += a, on one thread, where it moves as many bytes as the part: what fits into a cache
           is held to the cache's speed

Peak and bandwidth are the best of ten tries, the cost of a call taken off, and a part need not fetch its arrays from
where the one before left them: a floor is for any program on this machine. Where the arrays are small, NumPy's calls
alone take many times as long.
"""

from __future__ import annotations

import copy
import functools
import math
import sys
import time
import timeit
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Seed, check_int
from ..errors import HandgradError
from ..layers import Identity
from ..losses import one_hot
from ..network import Network
from ..optimizers import Optimizer
from ..training import BLOCK

PEAK = 1024
LEAST = 1 << 16  # bytes below which b += a is over before it is at full speed
TURN = 100  # steps in a turn, at most
LR = 1e-6  # a step's time does not hang on its length, and a short one leaves the network as it was


class Part(NamedTuple):
    """One part of a step."""

    name: str
    seconds: float
    floor: float  # seconds
    flops: int
    bytes: int


class Profile(NamedTuple):
    """A step, and its parts in the order in which they come."""

    parts: list[Part]
    step: float  # seconds of the whole, measured by itself
    batch_size: int
    peak: float  # FLOPs a second

    @property
    def total(self) -> Part:
        """All parts as one."""
        _, *columns = zip(*self.parts, strict=True)
        return Part("sum of the parts", *map(sum, columns))


def profile(network: Network, optimizer: Optimizer, batch_size: int, *, seconds: float = 2.0, rng: Seed = 0) -> Profile:
    """Take steps for about so many seconds, with copies of the network and the optimizer, on examples drawn at random.

    Raises HandgradError for a batch_size that is no whole number above 0, and for seconds that are not 0 or more.
    """
    batch_size, rng = check_int("batch_size", batch_size, 1), np.random.default_rng(rng)
    if not 0 <= seconds < math.inf:
        raise HandgradError(f"seconds {seconds}: expected a finite number, 0 or more")
    if batch_size * network.n_in > sys.maxsize // 8:  # NumPy would have another name for it
        raise MemoryError(f"a batch of {batch_size} examples")
    network, optimizer = copy.deepcopy((network, optimizer))
    count = batch_size * min(TURN, max(1, BLOCK // (network.n_in * batch_size)))
    x = rng.random((count, network.n_in), network.dtype.type) ** 4  # as bright as digits: mean square 1/9
    t = one_hot(rng.integers(0, network.n_out, count), network.n_out, network.dtype)  # numbers, to a loss for those
    batches = [(x[i : i + batch_size], t[i : i + batch_size]) for i in range(0, count, batch_size)]

    work = _work(network, optimizer, batch_size)
    stamps: list[float] = []  # when each part begins and ends
    whole: list[float] = []  # when each step without watches does
    watches = [(w.owner, w.method, _watch(getattr(w.owner, w.method), stamps)) for w in work if w.method]
    learn = _watch(optimizer.learn, whole)
    with np.errstate(over="ignore", invalid="ignore"):
        for batch in batches:  # a turn to warm up: it makes the buffers
            optimizer.train_step(network, *batch, LR)
        end = time.perf_counter() + seconds
        while not whole or time.perf_counter() < end:
            for owner, method, watch in watches:
                setattr(owner, method, watch)
            for batch in batches:
                optimizer.train_step(network, *batch, LR)
                stamps += stamps[-1], time.perf_counter()  # the update's: from the end of the last backward
            for owner, method, _ in watches:
                delattr(owner, method)
            for batch in batches:
                learn(network, *batch, LR)

    peak, bandwidth = _peak(network.dtype), functools.cache(lambda size: _bandwidth(size, network.dtype))
    parts = []
    for part, took in zip(work, _medians(stamps, len(work)), strict=True):
        size = part.numbers * network.dtype.itemsize
        floor = max(part.flops / peak, size / bandwidth(max(size, LEAST)))
        parts.append(Part(part.name, took, floor, part.flops, size))
    return Profile(parts, _medians(whole, 1)[0], batch_size, peak)


# ---- What the parts are ----------------------------------------------------------------------------------------------


class _Work(NamedTuple):
    """What `method` of `owner` has to do: the FLOPs of its products, the numbers that it reads and writes."""

    name: str
    owner: object
    method: str
    flops: int
    numbers: int


def _work(network: Network, optimizer: Optimizer, batch: int) -> list[_Work]:
    """The parts of a step in their order. The update alone is not always a method."""
    up, down, n_out = [], [], network.n_in
    first = next(i for i, layer in enumerate(network.layers) if layer.parameter_shapes)
    for i, layer in enumerate(network.layers):
        name, n_in, n_out = f"{i} {type(layer).__name__}", n_out, layer.width(n_out)
        theta = sum(math.prod(shape) for shape in layer.parameter_shapes.values())
        product = sum(2 * batch * math.prod(shape) for shape in layer.parameter_shapes.values() if len(shape) > 1)
        moved, for_dx = batch * n_in + theta + batch * n_out, theta + batch * n_in
        if isinstance(layer, Identity):
            moved = for_dx = 0
        up.append(_Work(f"{name} forward", layer, "forward", product, moved))
        if i == first:
            down.append(_Work(f"{name} backward", layer, "backward_parameters", product, moved))
        elif i > first:
            down.append(_Work(f"{name} backward", layer, "backward", 2 * product, moved + for_dx))
    loss = _Work(f"{type(network.loss).__name__} backward", network.loss, "backward", 0, 3 * batch * n_out)
    vectors = 3 + 2 * optimizer.memories
    update = _Work(f"{type(optimizer).__name__} update", optimizer, "", 0, vectors * network.parameters.size)
    return [*up, loss, *reversed(down), update]


# ---- Clocks ----------------------------------------------------------------------------------------------------------


def _watch(function: Callable[..., Any], stamps: list[float]) -> Callable[..., Any]:
    """`function`, noting when it begins and when it ends."""

    def watched(*arguments: Any) -> Any:
        stamps.append(time.perf_counter())
        result = function(*arguments)
        stamps.append(time.perf_counter())
        return result

    return watched


def _medians(stamps: list[float], parts: int) -> list[float]:
    """The median time of each part, without what a watch shows for a function that does nothing."""
    idle: list[float] = []
    nothing = _watch(lambda: None, idle)
    for _ in range(1000):
        nothing()
    cost = np.median(np.diff(np.reshape(idle, (-1, 2))))
    medians = np.median(np.diff(np.reshape(stamps, (-1, parts, 2)))[..., 0], axis=0)
    return [float(median) for median in np.maximum(medians - cost, 0)]


def _peak(dtype: DTypeLike) -> float:
    """FLOPs a second."""
    a = np.ones((PEAK, PEAK), dtype)
    out = np.empty_like(a)
    return 2 * PEAK**3 / _best(lambda: np.matmul(a, a, out=out), 1)


def _bandwidth(size: int, dtype: DTypeLike) -> float:
    """Bytes a second of b += a, which reads a and b and writes b: `size` bytes in all."""
    a = np.ones(size // (3 * np.dtype(dtype).itemsize), dtype)
    b, nothing = a.copy(), a[:0]
    call = _best(lambda: np.add(nothing, nothing, out=nothing), 1000)
    return 3 * a.nbytes / (_best(lambda: np.add(b, a, out=b), 1 + 10_000_000 // size) - call)


def _best(function: Callable[[], object], number: int) -> float:
    """Seconds of a call, `number` of them at a time, the best of ten tries."""
    return min(timeit.repeat(function, number=number, repeat=10)) / number
