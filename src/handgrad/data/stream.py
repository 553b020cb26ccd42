"""Streaming: examples in files that are larger than memory, read in random blocks that are mixed in a buffer.

A file that is in memory, in the page cache of the system, can be read in any order. Single random rows of a file that
does not fit into memory are about 1,000 times slower than blocks of 512 rows, because the system reads a whole region
for each row. An epoch therefore has two levels of randomness:

    blocks of 512 rows      in random order
    64 blocks in a buffer   all of their 32,768 rows in random order; 26 MB for images of 28x28 pixels

The next buffer is read while the rows of the current one are used. The order depends only on the seed.

References
----------
Xu et al. (2022), Stochastic gradient descent without full data shuffle. CorgiPile.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Rows, RowsInOrder
from ..errors import HandgradError

BLOCK_ROWS = 512  # 400 kB of 28x28 pixels
BUFFER_BLOCKS = 64
SHUFFLES = ("auto", "rows", "blocks")
SHARE_OF_MEMORY = 0.75  # of the available memory that a file may take
UNKNOWN_MEMORY = 4 << 30  # bytes, if the system does not say how much memory is available
DENSE = 4  # rows that are read for each row that is used, at most, before rows are read one by one


class Part(NamedTuple):
    """An array of examples in a file: `shape` (count, height, width), uint8, from the byte `offset` on."""

    path: Path
    offset: int
    shape: tuple[int, ...]

    def map(self) -> NDArray[np.uint8]:
        """Map the file into memory: the system reads a page when it is used, and may drop it again."""
        try:
            mapped = np.memmap(self.path, np.uint8, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise HandgradError(f"cannot read {self.path}: {error}") from error
        return np.asarray(mapped)  # without the subclass, which makes every operation slower

    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        """Read consecutive examples from number `first` on."""
        with reading(self.path), open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset + first * math.prod(self.shape[1:]))
            view = memoryview(out.reshape(-1).data)
            while len(view):
                count = file.readinto(view)
                if not count:
                    raise HandgradError(f"{self.path} has become shorter while it was read: start again")
                view = view[count:]

    def will_need(self, first: int, last: int) -> None:
        """Ask the system to read examples ahead."""
        size = math.prod(self.shape[1:])
        with reading(self.path), open(self.path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), self.offset + first * size, (last - first) * size, os.POSIX_FADV_WILLNEED)


class FileRows(Rows):
    """Images in one or several files, uint8.

    Slices are views, which read nothing. An array of indices reads these rows, and `numpy.asarray` reads all.

    Parameters
    ----------
    parts : sequence of Part
        The files, whose examples follow each other.
    shuffle : {"rows", "blocks"}
        Random access to the rows of memory-mapped files, in the same order as for an array in memory; or blocks.
    """

    def __init__(self, parts: Sequence[Part], shuffle: str = "rows") -> None:
        self.parts, self.in_blocks = tuple(parts), shuffle == "blocks"
        self._first = np.cumsum([0, *(part.shape[0] for part in self.parts)])
        self._rows: range | NDArray[np.intp] = range(int(self._first[-1]))  # numbers of the rows in the files
        self._function: Callable[[NDArray[Any]], NDArray[Any]] | None = None
        self._maps: list[NDArray[np.uint8]] | None = None
        self.shape, self.dtype = (len(self._rows), *self.parts[0].shape[1:]), np.dtype(np.uint8)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return self.subset(rows)
        rows = np.asarray(rows)
        if rows.ndim == 0:
            return self.read(self._rows_at(rows.reshape(1)))[0]
        return self.read(self._rows_at(rows))

    def subset(self, rows: slice | NDArray[np.intp]) -> FileRows:
        """Return a part of the examples, without reading them."""
        return self._with(self._rows[rows] if isinstance(rows, slice) else self._rows_at(rows))

    def transformed(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> FileRows:
        """Return the examples after a function of (count, height, width), uint8, is applied to those that are read."""
        sample = function(self.read(self._rows_at(np.arange(1))))
        twin, before = self._with(self._rows), self._function
        twin._function = function if before is None else lambda x: function(before(x))
        twin.shape = (len(self), *sample.shape[1:])
        return twin

    def in_order(self, rng: np.random.Generator) -> RowsInOrder:
        """Return the examples of one epoch, in a random order."""
        return BlockOrder(self, rng) if self.in_blocks else RandomOrder(self, rng)

    def read(self, rows: range | NDArray[np.intp]) -> NDArray[Any]:
        """Return the rows with these numbers in the files."""
        out = np.empty((len(rows), *self.parts[0].shape[1:]), np.uint8)
        if len(rows):
            self._read(rows, out)
        return out if self._function is None else self._function(out)

    def gather(self, positions: NDArray[np.intp], out: NDArray[Any]) -> None:
        """Copy the examples at these positions, which are valid, to `out`."""
        if self.is_transformed or self.in_blocks or not isinstance(self._rows, range) or self._rows.step != 1:
            out[...] = self[positions]
        else:
            self._gather(positions + self._rows.start, out)

    def read_to(self, first: int, out: NDArray[Any]) -> None:
        """Read consecutive examples from position `first` on into `out`."""
        rows = self._rows[first : first + len(out)]
        if self._function is None:
            self._read(rows, out)
        else:
            out[...] = self.read(rows)

    @property
    def is_transformed(self) -> bool:
        """Whether a function is applied to the examples that are read."""
        return self._function is not None

    def will_need(self, first: int, last: int) -> None:
        """Ask the system to read consecutive examples ahead."""
        rows = self._rows[first:last]
        if not len(rows) or not hasattr(os, "posix_fadvise"):
            return
        low, high = (rows[0], rows[-1] + 1) if isinstance(rows, range) else (int(rows.min()), int(rows.max()) + 1)
        if high - low > DENSE * len(rows):
            return
        for part, start in zip(self.parts, self._first.tolist(), strict=False):
            begin, end = max(low - start, 0), min(high - start, part.shape[0])
            if begin < end:
                part.will_need(begin, end)

    def _with(self, rows: range | NDArray[np.intp]) -> FileRows:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin._rows, twin.shape = rows, (len(rows), *self.shape[1:])
        return twin

    def _rows_at(self, positions: NDArray[Any]) -> NDArray[np.intp]:
        """The numbers of the rows at these positions."""
        if positions.dtype.kind == "b":
            positions = np.flatnonzero(positions)
        if len(positions) and not -len(self) <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"index out of range for {len(self)} examples")
        positions = np.where(positions < 0, positions + len(self), positions)
        if isinstance(self._rows, range):
            return positions * self._rows.step + self._rows.start
        rows: NDArray[np.intp] = self._rows[positions]
        return rows

    def _read(self, rows: range | NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        if isinstance(rows, range) and rows.step == 1:
            self._read_range(rows.start, out)
            return
        rows = np.asarray(rows)
        if not self.in_blocks:
            self._gather(rows, out)
            return
        low, high = int(rows.min()), int(rows.max()) + 1
        if high - low <= DENSE * len(rows):
            block = np.empty((high - low, *out.shape[1:]), np.uint8)
            self._read_range(low, block)
            np.take(block, rows - low, axis=0, out=out, mode="clip")
            return
        for number, row in enumerate(rows):
            self._read_range(int(row), out[number : number + 1])

    def _read_range(self, first: int, out: NDArray[np.uint8]) -> None:
        """Read consecutive rows, from one file or several."""
        done = 0
        while done < len(out):
            i = int(np.searchsorted(self._first, first + done, "right")) - 1
            count = min(len(out) - done, int(self._first[i + 1]) - first - done)
            self.parts[i].read(first + done - int(self._first[i]), out[done : done + count])
            done += count

    def _gather(self, rows: NDArray[np.intp], out: NDArray[np.uint8]) -> None:
        """Copy rows of the memory-mapped files."""
        if self._maps is None:
            self._maps = [part.map() for part in self.parts]
        if len(self._maps) == 1:
            np.take(self._maps[0], rows, axis=0, out=out, mode="clip")
            return
        of = np.searchsorted(self._first, rows, "right") - 1
        for i in np.unique(of):
            here = of == i
            out[here] = self._maps[i][rows[here] - self._first[i]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all examples."""
        return self.read(self._rows).astype(self.dtype if dtype is None else dtype, copy=False)

    def __repr__(self) -> str:
        names = self.parts[0].path.name if len(self.parts) == 1 else f"{len(self.parts)} files"
        return f"FileRows({self.shape}, {names}, in_blocks={self.in_blocks})"


class RandomOrder(RowsInOrder):
    """The examples in the order that they would have in memory: a permutation of all rows."""

    def __init__(self, x: FileRows, rng: np.random.Generator) -> None:
        self.x, self.order = x, rng.permutation(len(x))

    def __getitem__(self, positions: slice) -> NDArray[np.intp]:
        return self.order[positions]

    def take(self, indices: NDArray[np.intp], axis: int = 0, out: Any = None, mode: str = "clip") -> Any:
        self.x.gather(indices, out)
        return out


class _Buffer:
    """The examples of some blocks: the order of their rows, and their pixels, of which `done` blocks are read."""

    def __init__(self, blocks: NDArray[np.intp], order: NDArray[np.intp], pixels: NDArray[Any]) -> None:
        self.blocks, self.order, self.pixels, self.done = blocks, order, pixels, 0


class BlockOrder(RowsInOrder):
    """The examples in the order of random blocks that are mixed in a buffer. Positions must be read in ascending order.

    While the rows of a buffer are used, the next buffer is read: block by block by the thread that asks for the rows,
    after the system was asked to read them ahead. A reader thread of Python would wait for the training thread at each
    of its calls, for up to 5 ms. Images that are deskewed when they are read are read and deskewed by a thread.

    Parameters
    ----------
    x : FileRows
        The examples.
    rng : numpy.random.Generator
        Chooses the order of the blocks, and the seed of the orders in the buffers.
    """

    def __init__(self, x: FileRows, rng: np.random.Generator) -> None:
        self.x = x
        count = -(-len(x) // BLOCK_ROWS)
        self._blocks = rng.permutation(count)
        self._seed = int(rng.integers(2**63))
        sizes = np.minimum(BLOCK_ROWS, len(x) - BLOCK_ROWS * self._blocks)
        self._starts = np.array([0, *np.cumsum(np.add.reduceat(sizes, np.arange(0, count, BUFFER_BLOCKS)))])
        self._slot = np.zeros(count, np.int64)  # of each block in its buffer
        self._number = np.full(count, -1)  # of the buffer of each block
        self._ready: dict[int, _Buffer] = {}
        # Used again, because the system clears new memory: it costs 0.2 us for each image.
        self._unused: list[NDArray[Any]] = []
        self._size = (min(count, BUFFER_BLOCKS) * BLOCK_ROWS, *x.shape[1:])
        self._thread = ThreadPoolExecutor(1) if x.is_transformed else None
        self._buffer: _Buffer | None = None  # the next one, which is being read
        self._future: Future[None]
        self._begin(0)

    def __getitem__(self, positions: slice) -> NDArray[np.intp]:
        """Return the indices of the examples at these positions of the epoch, which `take` can then read."""
        first, last = positions.start, min(positions.stop, len(self.x))
        low, high = np.searchsorted(self._starts, [first, last - 1], "right") - 1
        while self._next <= high:
            self._finish()
        for number in [number for number in self._ready if number < low]:
            self._unused.append(self._ready.pop(number).pixels)
        if self._thread is None and self._buffer is not None:  # as much of the next buffer as was used of this one
            begin, end = self._starts[high : high + 2]
            self._read(self._buffer, math.ceil(len(self._buffer.blocks) * (last - begin) / (end - begin)))
        begin, order = int(self._starts[low]), [self._ready[number].order for number in range(low, high + 1)]
        return (order[0] if len(order) == 1 else np.concatenate(order))[first - begin : last - begin]

    def take(self, indices: NDArray[np.intp], axis: int = 0, out: Any = None, mode: str = "clip") -> Any:
        """Copy examples at positions that were asked for last."""
        blocks, row = np.divmod(indices, BLOCK_ROWS)
        row += self._slot[blocks] * BLOCK_ROWS
        numbers = self._number[blocks]
        for number, buffer in self._ready.items():
            here = numbers == number
            if here.all():
                np.take(buffer.pixels, row, axis=0, out=out, mode="clip")
            elif here.any():
                out[here] = buffer.pixels[row[here]]
        return out

    def _begin(self, number: int) -> None:
        """Begin to read a buffer, if there is one with this number."""
        self._next, self._buffer = number, None
        if number + 1 >= len(self._starts):
            if self._thread is not None:
                self._thread.shutdown(wait=False)
            return
        blocks = np.sort(
            self._blocks[number * BUFFER_BLOCKS : (number + 1) * BUFFER_BLOCKS]
        )  # in the order of the file
        rows = (blocks[:, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).ravel()
        order = np.random.default_rng([self._seed, number]).permutation(rows[rows < len(self.x)])
        pixels = self._unused.pop() if self._unused else np.empty(self._size, self.x.dtype)
        self._buffer = _Buffer(blocks, order, pixels)
        if self._thread is not None:
            self._future = self._thread.submit(self._read, self._buffer, len(blocks))
            return
        for block in blocks.tolist():
            self.x.will_need(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(self.x)))

    def _finish(self) -> None:
        """Read the rest of the next buffer, and begin with the one after it."""
        number, buffer = self._next, self._buffer
        assert buffer is not None  # the last buffer contains the last position
        if self._thread is not None:
            self._future.result()
        else:
            self._read(buffer, len(buffer.blocks))
        self._ready[number] = buffer
        self._slot[buffer.blocks], self._number[buffer.blocks] = np.arange(len(buffer.blocks)), number
        self._begin(number + 1)

    def _read(self, buffer: _Buffer, count: int) -> None:
        """Read the first `count` blocks of a buffer."""
        for slot in range(buffer.done, count):
            first = int(buffer.blocks[slot]) * BLOCK_ROWS
            rows = min(BLOCK_ROWS, len(self.x) - first)
            self.x.read_to(first, buffer.pixels[slot * BLOCK_ROWS :][:rows])
        buffer.done = max(buffer.done, count)


# ---- Memory ----------------------------------------------------------------------------------------------------------


def available_memory() -> int:
    """Return the number of bytes that programs and cached files may take now, also within a container's limit."""
    available = _from_system()
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat"),  # cgroup v2
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat"),
    ):
        try:
            maximum = int(Path(limit).read_text())
            counts = dict(line.split() for line in Path(used).read_text().splitlines())
            anonymous = int(counts["anon"] if "anon" in counts else counts["rss"])
        except (OSError, ValueError, KeyError):
            continue
        available = min(available, max(0, maximum - anonymous))
    return available


def _from_system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # macOS: half of all memory
    except (AttributeError, OSError, ValueError):
        return UNKNOWN_MEMORY


def choose_shuffle(size: int, shuffle: str = "auto") -> str:
    """Return "rows" if a file of this number of bytes fits into the available memory, else "blocks".

    Raises HandgradError unless `shuffle` is "auto", or one of the two, which is returned unchanged.
    """
    if shuffle not in SHUFFLES:
        raise HandgradError(f"shuffle must be one of {', '.join(SHUFFLES)}, got {shuffle!r}")
    if shuffle != "auto":
        return shuffle
    return "rows" if size <= SHARE_OF_MEMORY * available_memory() else "blocks"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of the system into one line with the path."""
    try:
        yield
    except OSError as error:
        raise HandgradError(f"cannot read {path}: {error.strerror or error}") from error
