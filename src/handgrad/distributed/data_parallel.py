"""Data-parallel training: every process computes the gradient of its rows of each batch, and receives the sum.

The processes, ranks 0 ... p - 1, have the same network, optimizer and random generators, and see the same batches. Rank
r computes the rows r B / p ... (r + 1) B / p - 1 of a batch of B examples:

    dθ = Σᵣ dθᵣ,  dθᵣ = 1/B Σᵢ ∇Lᵢ over the rows of rank r

dθ is one vector, so that the exchange of a step is one sum of a vector over the ranks (Allreduce). After it, every rank
has the same dθ and takes the same step: the networks stay equal, bit by bit, and equal to that of one process up to the
rounding of the sum. Dropout draws the mask of the whole batch and uses its own rows. Batch normalization sums its
statistics, and two sums of the backward pass, over the ranks. Augmentation draws the random numbers of all rows:
every rank makes all images and uses its own.

With `sync_every=H`, local SGD: every rank takes H steps with the mean gradient of its own rows, and then θ and the
state of the optimizer are averaged over the ranks. This needs 1/H of the exchanges and is another algorithm, with other
results. Batch normalization then uses the statistics of the own rows, and augmentation makes only the own images.

References
----------
Goyal et al. (2017), Accurate, large minibatch SGD: training ImageNet in 1 hour.
Stich (2019), Local SGD converges fast and communicates little.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..arrays import Array, Rows, as_array, check_int, layer_buffer
from ..callbacks import EMA, SWA
from ..errors import HandgradError
from ..layers import BatchNorm, Dropout, Layer
from ..model import Evaluation, NotFiniteError
from ..network import Network
from ..optimizers import Optimizer
from ..training import Callback, Totals, Trainer
from .mpi import check_launcher, limited_threads

CHECKED_ROWS = 64  # examples by which the ranks find out whether they have the same data


class Communicator(Protocol):
    """What a training needs of a communicator. The communicators of mpi4py have these methods, and many more."""

    def Get_rank(self) -> int:  # noqa: N802
        """Return the number of this process, 0 ... size - 1."""

    def Get_size(self) -> int:  # noqa: N802
        """Return the number of processes."""

    def Allreduce(self, sendbuf: None, recvbuf: NDArray[Any]) -> object:  # noqa: N802
        """Replace a contiguous array by its sum over the processes."""

    def Bcast(self, buf: NDArray[Any], root: int = 0) -> object:  # noqa: N802
        """Replace a contiguous array by that of the process `root`."""


class Shard:
    """The rows of a batch that belong to this rank.

    Attributes
    ----------
    batch : int
        Number of examples in the current batch, of all ranks.
    rows : slice
        The rows of this rank.
    """

    def __init__(self, comm: Communicator) -> None:
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()
        self.batch, self.rows = 0, slice(0, 0)

    def select(self, batch: int) -> int:
        """Set the current batch, and return the number of rows of this rank."""
        self.batch = batch
        self.rows = slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)
        return self.rows.stop - self.rows.start

    def sum(self, array: Array) -> Array:
        """Replace an array by its sum over the ranks."""
        if self.size > 1:
            self.comm.Allreduce(None, array)
        return array

    def mean(self, array: Array) -> None:
        """Replace an array by its mean over the ranks."""
        self.sum(array)
        array *= 1 / self.size

    def gather(self, *values: float) -> Array:
        """Return numbers of every rank, as an array (ranks, numbers)."""
        table = np.zeros((self.size, len(values)))
        table[self.rank] = values
        return self.sum(table)


class ShardedDropout(Dropout):
    """Dropout with the rows of this rank of the mask of the whole batch."""

    shard: Shard
    mask: Array  # (batch, width), of the whole batch

    def forward(self, x: Array) -> Array:
        self.draw()
        np.greater_equal(self.mask[self.shard.rows], self.rate, out=self.m)
        self.m *= 1 / (1 - self.rate)
        return np.multiply(x, self.m, out=self.y)

    def draw(self) -> None:
        """Draw the random numbers of the whole batch, in the memory order of one process."""
        if len(self.mask) != self.shard.batch:
            self.mask = layer_buffer(self.shard.batch, self.mask.shape[1], self.mask.dtype)
        self.rng.random(out=self.mask, dtype=self.mask.dtype.type)

    def allocate(self, batch: int, n_in: int, dtype: DTypeLike) -> None:
        super().allocate(batch, n_in, dtype)
        self.mask = layer_buffer(self.shard.batch, n_in, dtype)


class SynchronizedBatchNorm(BatchNorm):
    """Batch normalization with the statistics of the whole batch, whose rows are distributed over the ranks."""

    shard: Shard

    def forward(self, x: Array) -> Array:
        batch, c, y = self.shard.batch, self.c, self.y
        mu = self.shard.sum(np.dot(self.ones, x))
        mu *= 1 / batch  # μ = mean(x)
        np.subtract(x, mu, out=c)  # c = x - μ
        var = self.shard.sum(np.dot(self.ones, np.multiply(c, c, out=y)))
        var *= 1 / batch  # mean(c²)
        if batch > 1 and self.trainable:
            self.running_mean += self.momentum * (mu - self.running_mean)
            self.running_var += self.momentum * (var * (batch / (batch - 1)) - self.running_var)
        self.r = 1 / np.sqrt(var + self.epsilon)  # r = 1 / σ
        np.multiply(c, self.g * self.r, out=y)  # y = g x̂ + b, x̂ = c r
        y += self.b
        return y

    def _dx(self, dy: Array, db: Array, dg: Array, batch: int) -> Array:
        """dx of the own rows, for db and dg of these rows, which the ranks also sum with all of dθ."""
        db, dg = self.shard.sum(np.stack([db, dg]))
        return super()._dx(dy, db, dg, self.shard.batch)


class ShardedNetwork(Network):
    """A view of a network that computes the gradient of a batch from the rows of this rank.

    It shares θ, dθ and the random generators with the network.

    Parameters
    ----------
    network : Network
        The network.
    shard : Shard
        The rows.
    is_local : bool
        Local SGD: dθ is that of the own rows, and so are the statistics of batch normalization.
    """

    def __init__(self, network: Network, shard: Shard, *, is_local: bool) -> None:
        vars(self).update(vars(network.with_own_buffers()))
        self.original, self.shard, self.is_local = network, shard, is_local
        self._batch = -1  # a rank may have 0 rows: it still takes part in the sums
        replaced: dict[type[Layer], Any] = {Dropout: ShardedDropout}
        if not is_local:
            replaced[BatchNorm] = SynchronizedBatchNorm
        for i, layer in enumerate(self.layers):
            if type(layer) in replaced:
                self.layers[i] = sharded = object.__new__(replaced[type(layer)])
                vars(sharded).update(vars(layer), shard=shard)

    def backprop(self, x: Array, t: Array, weight: float | Array | None = None, *, scale: float = 1.0) -> Array:
        """Compute dθ, the sum over the ranks unless `is_local`, and return the logits of the own rows."""
        if self.is_local and len(x) == 0:
            z = np.empty_like(t)
            self.gradient_buffer.fill(0)
            self._allocate_buffers(0)
            for layer in self.layers:
                if isinstance(layer, ShardedDropout):
                    layer.draw()
        else:
            z = super().backprop(x, t, weight, scale=scale)
        if not self.is_local:
            self.shard.sum(self.gradient_buffer)
        self.original.gradient_scale = self.gradient_scale
        return z


class DataParallel(Callback):
    """What a `Trainer` with `comm` does differently: see the module.

    Parameters
    ----------
    trainer : Trainer
        The trainer.
    comm : Communicator
        The communicator.
    sync_every : int, optional
        Number of steps between two averages of local SGD; None: sum the gradients at every step.

    Raises
    ------
    HandgradError
        For a communicator without the methods of `Communicator`, a launcher of another MPI than the library, and
        parts of a training that do not work with rows of a batch.
    """

    order = 1.5  # the ranks agree on `stop` after EarlyStopping and before Checkpoint

    def __init__(self, trainer: Trainer, comm: Communicator | None, sync_every: int | None) -> None:
        if comm is None:
            raise HandgradError("sync_every needs several processes: pass comm, as comm=MPI.COMM_WORLD of mpi4py")
        for name in ("Get_rank", "Get_size", "Allreduce", "Bcast"):
            if not callable(getattr(comm, name, None)):
                raise HandgradError(f"comm must be a communicator, as MPI.COMM_WORLD, got {comm!r}, without {name}")
        check_launcher(comm)
        if trainer.perturb is not None:
            raise HandgradError(
                "perturb (adversarial training) does not work with several processes, because it needs the whole batch"
            )
        for i, layer in enumerate(trainer.network.layers):
            if layer.rng is not None and type(layer) is not Dropout:
                raise HandgradError(
                    f"layer {i} ({layer!r}) draws random numbers: with several processes, only Dropout may do so"
                )
        self.trainer, self.comm, self.shard = trainer, comm, Shard(comm)
        self.sync_every = None if sync_every is None else check_int("sync_every", sync_every, 1)
        self._network = ShardedNetwork(trainer.network, self.shard, is_local=self.is_local)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.shard.rank

    @property
    def is_local(self) -> bool:
        """Whether every rank takes steps with its own gradient (local SGD)."""
        return self.sync_every is not None

    # ---- Begin of a fit ----------------------------------------------------------------------------------------------

    def start(self, x: NDArray[Any] | Rows, t: Array, w: Array | None) -> None:
        """Check that the ranks have the same data and settings, and continue from the state of rank 0.

        Files that are read when they are used are read in the order of rank 0, in rows or in blocks.
        """
        trainer = self.trainer
        in_blocks = self.shard.gather(isinstance(x, Rows) and x.in_blocks)[0, 0]
        if isinstance(x, Rows):  # with another order, if this machine has less memory than that of rank 0, or more
            x.in_blocks = bool(in_blocks)
        rows = np.linspace(0, len(t) - 1, CHECKED_ROWS).astype(np.intp)
        checked = (x[rows], t[rows], np.empty(0) if w is None else w[rows])
        data = functools.reduce(lambda crc, part: zlib.crc32(np.ascontiguousarray(part).data, crc), checked, 0)
        values = {
            "numbers of parameters": trainer.network.parameters.size,
            "numbers of training examples": len(t),
            "training examples": data,
            "batch sizes": trainer.batch_size,
            "values of sync_every": self.sync_every or 0,
            "values of in_blocks": isinstance(x, Rows) and x.in_blocks,
            "optimizers": zlib.crc32(_options(trainer.optimizer).encode()),
        }
        self._check_equal(values)
        self.synchronize()
        self._check_equal({"numbers of epochs": trainer.epochs})
        self._network = ShardedNetwork(trainer.network, self.shard, is_local=self.is_local)

    def _check_equal(self, values: Mapping[str, float]) -> None:
        """Raise HandgradError, on all ranks, if one of the values differs between them."""
        for name, column in zip(values, self.shard.gather(*values.values()).T, strict=True):
            if (column != column[0]).any():
                other = int((column != column[0]).argmax())
                what = "" if name in ("training examples", "optimizers") else f" ({column[0]:g} and {column[other]:g})"
                raise HandgradError(
                    f"ranks 0 and {other} have different {name}{what}: every rank needs the same network, settings "
                    "and training set, of which it uses its own rows"
                )

    def synchronize(self) -> None:
        """Replace the state of the training by that of rank 0: weights, optimizer, callbacks, random generators."""
        if self.shard.size == 1:
            return
        trainer = self.trainer
        trainer.optimizer._attach(trainer.network)  # with the state of another network, start with an empty one
        trainer.load_state_dict(self._broadcast(trainer.state_dict()))

    def _broadcast(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of rank 0."""
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in state.items() if name not in arrays}
        shapes = {name: (value.shape, value.dtype.str) for name, value in arrays.items()}
        text = np.frombuffer(json.dumps([values, shapes]).encode(), np.uint8)
        size = np.array([len(text)])
        self.comm.Bcast(size)
        text = text.copy() if self.rank == 0 else np.empty(int(size[0]), np.uint8)
        self.comm.Bcast(text)
        values, shapes = json.loads(text.tobytes())
        for name, (shape, dtype) in shapes.items():
            values[name] = np.ascontiguousarray(arrays[name]) if self.rank == 0 else np.empty(shape, dtype)
            self.comm.Bcast(values[name])
        return dict(values)

    def limited_threads(self) -> AbstractContextManager[Any]:
        """Limit the BLAS threads of this rank in a `with` block."""
        return limited_threads(self.comm)

    # ---- Epochs ------------------------------------------------------------------------------------------------------

    def own_rows(self, count: int) -> NDArray[np.intp]:
        """Return the indices of the rows of this rank in a block of whole batches."""
        batch_size = self.trainer._batch_size
        first, last = (
            [begin + (r * min(batch_size, count - begin)) // self.shard.size for begin in range(0, count, batch_size)]
            for r in (self.rank, self.rank + 1)
        )
        return np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])

    def augmenting(self) -> np.random.Generator:
        """Return the random generator for the augmentation of a block.

        It is that of all ranks, or with local SGD a new one for this rank. The one of all ranks advances equally.
        """
        if not self.is_local:
            return self.trainer.augmenting
        seeds = self.trainer.augmenting.integers(1 << 63, size=self.shard.size)
        return np.random.default_rng(seeds[self.rank])

    def train_epoch(self, x: NDArray[Any], t: Array, w: Array | None) -> tuple[float, float | None]:
        """Train one epoch. Returns the mean loss and the accuracy over all ranks."""
        trainer, shard, loss, count = self.trainer, self.shard, self.trainer.network.loss, len(t)
        ordered = trainer._ordered()
        watching = [c.on_batch_end for c in ordered if type(c).on_batch_end is not Callback.on_batch_end]
        loss_sum, correct, seen, diverged = 0.0, 0, 0, math.inf
        for x_block, t_block, w_block in trainer._shuffled_blocks(x, t, w):
            trainer._totals, trainer._block = Totals(loss_sum, correct, seen), None
            z_block, first, owners = np.empty_like(t_block, order="F"), 0, []
            for _ in range(min(trainer._batches_per_block(), trainer.batches - trainer.batch)):
                rows = shard.select(min(trainer._batch_size, count - trainer.batch * trainer._batch_size))
                own = slice(first, first := first + rows)
                z_block[own] = self._step(x_block[own], t_block[own], None if w_block is None else w_block[own])
                trainer.batch += 1
                owners += [trainer.batch] * rows
                for on_batch_end in watching:
                    on_batch_end(trainer)
            finite = np.isfinite(z_block).all(axis=1)
            if not finite.all():
                diverged = min(diverged, owners[int(finite.argmin())] - 1)
            elif len(z_block):
                losses = loss.per_example(z_block, t_block)
                loss_sum += float(losses.sum() if w_block is None else losses @ w_block[:, 0])
                correct += loss.correct(z_block, t_block) if loss.is_classification else 0
            seen += len(z_block)
        self._average_callbacks()
        table = shard.gather(loss_sum, correct, diverged, self._checksum())
        if table[:, 2].min() < math.inf:
            trainer._raise_diverged(int(table[:, 2].min()))
        if (table[:, 3] != table[0, 3]).any():
            raise HandgradError(
                f"the weights or the optimizers of the ranks differ after epoch {trainer.epoch + 1}: a callback or the "
                "program has changed them on some ranks only, or the machines compute with different rounding"
            )
        loss_mean, accuracy = (float(column.sum()) / count for column in table[:, :2].T)
        return loss_mean, accuracy if loss.is_classification else None

    def _step(self, x: Array, t: Array, w: Array | None) -> Array:
        """One step, and with local SGD the average if it is due. Returns the logits of the own rows."""
        trainer = self.trainer
        divisor = max(len(t), 1) if self.is_local else self.shard.batch
        z = trainer.optimizer.train_step(self._network, x, t, trainer._lr(), 1 / divisor if w is None else w / divisor)
        if self.sync_every is not None:
            last = trainer.batch + 1 == trainer.batches
            if last or (trainer.epoch * trainer.batches + trainer.batch + 1) % self.sync_every == 0:
                for vector in (trainer.network.parameters, *_states(trainer.optimizer)):
                    self.shard.mean(vector)
        return z

    def _average_callbacks(self) -> None:
        """After an epoch of local SGD, average the averages of the weights, of which each is that of a rank."""
        for callback in self.trainer.callbacks if self.is_local else ():
            if isinstance(callback, EMA | SWA) and callback.count:
                self.shard.mean(callback.average)

    def _checksum(self) -> int:
        """A number that differs if the weights, the optimizers or the positions of the random generators do."""
        theta = self.trainer.network.parameters
        if not np.isfinite(theta).all():
            return -1
        positions = [rng.bit_generator.state for rng in self.trainer._rngs().values()]
        return zlib.crc32(f"{positions} {_options(self.trainer.optimizer)}".encode(), zlib.crc32(theta.data))

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Evaluation:
        """Evaluate the network: every rank evaluates its part of the examples. Returns the result of all."""
        network, size = self.trainer.network, self.shard.size
        x, y = x if isinstance(x, Rows) else as_array("x", x), as_array("y", y)
        count = len(x)
        if count < size:
            return network.evaluate(x, y)
        rows = slice(self.rank * count // size, (self.rank + 1) * count // size)
        try:
            own = network.evaluate(x[rows], y[rows])
        except NotFiniteError:
            own = Evaluation(math.nan, 0, 0)
        loss, correct = self.shard.gather(own.loss * own.total, own.correct or 0).sum(axis=0)
        if math.isnan(loss):
            raise NotFiniteError("the outputs of the network are not finite for an example of the validation set")
        return Evaluation(float(loss) / count, int(correct) if network.loss.is_classification else None, count)

    # ---- Callbacks ---------------------------------------------------------------------------------------------------

    def callbacks(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """Return the callbacks that this rank calls."""
        return [*(c for c in callbacks if self.rank == 0 or not c.main_process_only), self]

    def on_epoch_end(self, trainer: Trainer) -> None:
        """End the training on all ranks if one of them stops it."""
        trainer.stop = bool(self.shard.gather(trainer.stop).any())


def _states(optimizer: Optimizer) -> Iterator[Array]:
    """The state vectors of an optimizer and of the one inside of it."""
    yield from optimizer.state
    inner = getattr(optimizer, "inner", None)
    if isinstance(inner, Optimizer):
        yield from _states(inner)


def _options(optimizer: Optimizer) -> str:
    """The numbers among the options of an optimizer and of the one inside of it."""
    numbers = {name: value for name, value in optimizer.config().items() if isinstance(value, int | float)}
    inner = getattr(optimizer, "inner", None)
    return f"{numbers} {_options(inner) if isinstance(inner, Optimizer) else ''}"
