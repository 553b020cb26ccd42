"""Profiler: the time of each part of a training step, and a lower bound for it on this machine.

The measured step is the one of training, `optimizer.train_step`, on batches that are in memory as in training. Each
part is timed within the step, on the arrays that it gets there; the update is everything after the last backward.
Steps with a timer around every part alternate with steps without timers, which give the time of the complete step. The
difference between it and the sum of the parts is the time that Python takes between them; if steps are long, noise
hides it. All times are medians over the steps.

The lower bound of a part is its floor, from the roofline model:

    floor = max(FLOPs / peak, bytes / bandwidth)

FLOPs      of the matrix products: 2 batch n_in n_out forward, the same backward for dW, and the same again for dx. HOG
           has 16 batch channels height cells (width + cells): the sums are first computed along x, and then along y.
           The backward pass of Ladder includes its decoder, forward and backward
bytes      that are read and written. Forward: x, θ and y, with θ the parameters of the layer. Backward: dy, dθ, and
           what forward stored, as large as x; for dx also θ and dx. Loss: z, t and dz. Update: θ and g are read, θ is
           written, and each array of the optimizer's state is read and written
peak       FLOPs per second of the product of two square matrices with PEAK_ROWS rows, on the threads of BLAS
bandwidth  bytes per second of b += a on one thread, for as many bytes as the part has: the speed of the cache that they
           fit into

Peak and bandwidth are the best of ten measurements, without the cost of a call. They assume that the arrays of a part
are already where its bytes fit, so the floor is a bound for any program on this machine. For small arrays, the cost of
NumPy's calls is many times larger.

References
----------
Williams, Waterman and Patterson (2009), Roofline: an insightful visual performance model for multicore architectures.
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

from ..arrays import Seed, check_int, check_non_negative
from ..images.hog import HOG, ORIENTATIONS
from ..ladder import Ladder
from ..layers import Identity
from ..losses import one_hot
from ..network import Network
from ..optimizers import Optimizer
from ..training import GATHER_FLOATS

PEAK_ROWS = 1024  # rows of the square matrices whose product gives the peak
MIN_BYTES = 1 << 16  # bytes below which b += a ends before it is at full speed
TURN_STEPS = 100  # maximum number of steps with timers, before as many without
LR = 1e-6  # the time of a step does not depend on it, and small steps leave the weights almost unchanged


class Part(NamedTuple):
    """One part of a training step.

    Attributes
    ----------
    name : str
        Index and class of the layer with "forward" or "backward", or the class of the loss or the optimizer.
    seconds : float
        Median time.
    floor : float
        Lower bound of the time in seconds.
    flops : int
        Floating-point operations of the matrix products.
    bytes : int
        Bytes that are read and written.
    """

    name: str
    seconds: float
    floor: float
    flops: int
    bytes: int


class Profile(NamedTuple):
    """The time of a training step and of its parts.

    Attributes
    ----------
    parts : list of Part
        In the order in which they are computed.
    step : float
        Median time of the complete step in seconds, measured without timers in it.
    batch_size : int
        Number of examples in the batch.
    peak : float
        FLOPs per second of a large matrix product.
    """

    parts: list[Part]
    step: float
    batch_size: int
    peak: float

    @property
    def total(self) -> Part:
        """The sums over all parts."""
        _, *columns = zip(*self.parts, strict=True)
        return Part("sum of the parts", *map(sum, columns))


def profile(network: Network, optimizer: Optimizer, batch_size: int, *, seconds: float = 2.0, rng: Seed = 0) -> Profile:
    """Measure training steps on random examples.

    Parameters
    ----------
    network : Network
        The network. A copy of it is trained.
    optimizer : Optimizer
        The optimizer. A copy of it is used.
    batch_size : int
        Number of examples in the batch.
    seconds : float
        Approximate duration of the measurement.
    rng : int, numpy.random.Generator or None
        Seed of the examples.

    Returns
    -------
    Profile
        The time of the step and of its parts.

    Raises
    ------
    HandgradError
        If `batch_size` is not an integer >= 1, or `seconds` not a finite number >= 0.
    MemoryError
        If the batch does not fit into memory.
    """
    batch_size, rng = check_int("batch_size", batch_size, 1), np.random.default_rng(rng)
    check_non_negative("seconds", seconds)
    if batch_size * network.n_in > sys.maxsize // 8:  # NumPy would raise a ValueError
        raise MemoryError(f"a batch of {batch_size} examples")
    network, optimizer = copy.deepcopy((network, optimizer))
    count = batch_size * min(TURN_STEPS, max(1, GATHER_FLOATS // (network.n_in * batch_size)))
    x = rng.random((count, network.n_in), network.dtype.type) ** 4  # mean square 1/9, as of digits
    t = one_hot(rng.integers(0, network.n_out, count), network.n_out, network.dtype)  # valid for a regression, too
    batches = [(x[i : i + batch_size], t[i : i + batch_size]) for i in range(0, count, batch_size)]

    work = _work(network, optimizer, batch_size)
    stamps: list[float] = []  # start and end of each part
    step_stamps: list[float] = []  # start and end of each step without timers
    timers = [(w.owner, w.method, _timed(getattr(w.owner, w.method), stamps)) for w in work if w.method]
    timed_step = _timed(optimizer.train_step, step_stamps)
    with np.errstate(over="ignore", invalid="ignore"):
        for batch in batches:  # warm up: allocates the buffers
            optimizer.train_step(network, *batch, LR)
        end = time.perf_counter() + seconds
        while not step_stamps or time.perf_counter() < end:
            for owner, method, timer in timers:
                setattr(owner, method, timer)
            for batch in batches:
                optimizer.train_step(network, *batch, LR)
                stamps += stamps[-1], time.perf_counter()  # of the update, from the end of the last backward
            for owner, method, _ in timers:
                delattr(owner, method)
            for batch in batches:
                timed_step(network, *batch, LR)

    peak, bandwidth = _peak(network.dtype), functools.cache(lambda size: _bandwidth(size, network.dtype))
    parts = []
    for part, duration in zip(work, _medians(stamps, len(work)), strict=True):
        size = part.numbers * network.dtype.itemsize
        floor = max(part.flops / peak, size / bandwidth(max(size, MIN_BYTES)))
        parts.append(Part(part.name, duration, floor, part.flops, size))
    return Profile(parts, _medians(step_stamps, 1)[0], batch_size, peak)


# ---- Parts of a step -------------------------------------------------------------------------------------------------


class _Work(NamedTuple):
    """The FLOPs of the products in `owner.method`, and how many numbers it reads and writes."""

    name: str
    owner: object
    method: str
    flops: int
    numbers: int


def _work(network: Network, optimizer: Optimizer, batch: int) -> list[_Work]:
    """The parts of a step in order. The update has no method, because not every optimizer calls one for it."""
    forward, backward, n_out = [], [], network.n_in
    first = next(i for i, layer in enumerate(network.layers) if layer.parameter_shapes)
    for i, layer in enumerate(network.layers):
        name, n_in, n_out = f"{i} {type(layer).__name__}", n_out, layer.width(n_out)
        theta = sum(math.prod(shape) for shape in layer.parameter_shapes.values())
        product = sum(2 * batch * math.prod(shape) for shape in layer.parameter_shapes.values() if len(shape) > 1)
        moved, for_dx = batch * n_in + theta + batch * n_out, theta + batch * n_in
        if isinstance(layer, Identity):
            moved = for_dx = 0
        elif isinstance(layer, HOG):
            (height, width), images = layer.size, batch * layer.channels
            product = 2 * images * ORIENTATIONS * height * layer.cells * (width + layer.cells)
        for_theta, with_dx = product, 2 * product
        if isinstance(layer, Ladder):
            product //= 2  # the encoder; the decoder is as large
            for_theta, with_dx = 5 * product - 2 * batch * math.prod(layer.sizes[:2]), 5 * product
        forward.append(_Work(f"{name} forward", layer, "forward", product, moved))
        if i == first:
            backward.append(_Work(f"{name} backward", layer, "backward_parameters", for_theta, moved))
        elif i > first:
            backward.append(_Work(f"{name} backward", layer, "backward", with_dx, moved + for_dx))
    loss = _Work(f"{type(network.loss).__name__} backward", network.loss, "backward", 0, 3 * batch * n_out)
    vectors = 3 + 2 * optimizer.n_slots
    update = _Work(f"{type(optimizer).__name__} update", optimizer, "", 0, vectors * network.parameters.size)
    return [*forward, loss, *reversed(backward), update]


# ---- Measurement -----------------------------------------------------------------------------------------------------


def _timed(function: Callable[..., Any], stamps: list[float]) -> Callable[..., Any]:
    """A function that appends its start and end time to `stamps`."""

    def timed(*arguments: Any) -> Any:
        stamps.append(time.perf_counter())
        result = function(*arguments)
        stamps.append(time.perf_counter())
        return result

    return timed


def _medians(stamps: list[float], parts: int) -> list[float]:
    """The median time of each part, minus the time measured for a function that does nothing."""
    empty_stamps: list[float] = []
    empty = _timed(lambda: None, empty_stamps)
    for _ in range(1000):
        empty()
    cost = np.median(np.diff(np.reshape(empty_stamps, (-1, 2))))
    medians = np.median(np.diff(np.reshape(stamps, (-1, parts, 2)))[..., 0], axis=0)
    return [float(median) for median in np.maximum(medians - cost, 0)]


def _peak(dtype: DTypeLike) -> float:
    """FLOPs per second of a large matrix product."""
    a = np.ones((PEAK_ROWS, PEAK_ROWS), dtype)
    out = np.empty_like(a)
    return 2 * PEAK_ROWS**3 / _best(lambda: np.matmul(a, a, out=out), 1)


def _bandwidth(size: int, dtype: DTypeLike) -> float:
    """Bytes per second of b += a, which reads a and b and writes b: `size` bytes in total."""
    a = np.ones(size // (3 * np.dtype(dtype).itemsize), dtype)
    b, empty = a.copy(), a[:0]
    call = _best(lambda: np.add(empty, empty, out=empty), 1000)
    return 3 * a.nbytes / (_best(lambda: np.add(b, a, out=b), 1 + 10_000_000 // size) - call)


def _best(function: Callable[[], object], number: int) -> float:
    """Seconds per call: the best of ten runs of `number` calls."""
    return min(timeit.repeat(function, number=number, repeat=10)) / number
