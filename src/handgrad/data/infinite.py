"""Large data sets on the disk: deformed copies of the digits of a data set ("infinite MNIST"), and shuffled copies.

Both write four IDX files, which are not compressed, so that `handgrad.data.load` reads them while it trains.

References
----------
Loosli, Canu and Bottou (2007), Training invariant support vector machines using selective sampling. infiMNIST.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..arrays import Labels, check_int, row_blocks
from ..blas import one_blas_thread
from ..errors import HandgradError
from ..images.augmentation import Augmentation
from ..io.atomic import replacing
from .dataset import FILES, Dataset, validation_size
from .idx import encode_idx
from .processes import run

HELD_OUT = 10_000  # digits at the end of the training files, for validation
COPY_ROWS = 1000  # copies that have a random generator in common
TASK_ROWS = 10_000  # copies that a process makes before it reports
HEIGHT = 28  # of the images for which the strengths are given, in pixels
STRENGTHS = {"rotation": 7.5, "scale": 0.15, "shift": 1.0, "elastic": 1.5, "smoothness": 5.0}
BUCKET_BYTES = 128 << 20  # images that are shuffled in memory
MAX_BUCKETS = 200  # open files
READ_ROWS = 8192
SPARE_BYTES = 64 << 20  # on the disk, after everything is written

Progress = Callable[[int], object]


def make_copies(
    dataset: Dataset,
    count: int,
    directory: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda images: None,
) -> None:
    """Write a data set of `count` training images: the digits of a data set and deformed copies of them.

    The last 10,000 digits of the training set, or a sixth of it if it has fewer than 60,000, are the last images of
    the new training set, without copies: the default validation set. Image i of the others is a copy of digit
    i modulo their number; the first copy of each digit is the digit itself. The test set is that of the data set. All
    copies of a digit are therefore in the training set, in the validation set or in the test set.

    The files depend on the seed, but not on the number of processes.

    Parameters
    ----------
    dataset : Dataset
        A data set of images.
    count : int
        Number of training images, including those for validation.
    directory : Path
        A new or empty directory.
    seed : int
        Seed of the deformations.
    workers : int
        Number of processes.
    progress : callable
        Called with the number of images that were written since the last call.

    Raises
    ------
    HandgradError
        If the data set has no images, if the directory is not empty, or if the disk has not enough space.
    """
    check_int("workers", workers, 1), check_int("seed", seed, 0)
    if not dataset.is_images:
        raise HandgradError(f"{dataset.name} has numbers, not images: copies can only be made of images")
    x, y = np.asarray(dataset.x_train), label_bytes(dataset, dataset.y_train)
    held = validation_size(HELD_OUT, len(x))
    check_int("count", count, held + 1)
    sources, copies = len(x) - held, count - held
    shape = (count, *x.shape[1:])
    labels = np.concatenate([np.resize(y[:sources], copies), y[sources:]])
    with _new_files(directory, dataset, shape, labels, int(np.prod(shape))) as file:
        start = file.tell()
        file.truncate(start + int(np.prod(shape)))
        file.seek(start + copies * int(np.prod(shape[1:])))
        file.write(x[sources:].tobytes())
        file.flush()
        progress(held)
        job = _Job(x[:sources], copies, seed, file.name, start)
        with run(job, [rows.start for rows in row_blocks(copies, TASK_ROWS)], workers) as counts:
            for done in counts:
                progress(done)


def shuffle_files(
    dataset: Dataset, directory: Path, *, seed: int = 0, progress: Progress = lambda images: None
) -> None:
    """Write a data set with its training images in random order, also if they do not fit into memory.

    Every image is put into a random one of several temporary files, which are then shuffled in memory. All orders are
    equally probable. The test set is copied.

    Parameters
    ----------
    dataset : Dataset
        A data set of images.
    directory : Path
        A new or empty directory. The disk needs space for the images, and for the temporary files again.
    seed : int
        Seed of the order.
    progress : callable
        Called with the number of images that were read or written since the last call: two for each image.

    Raises
    ------
    HandgradError
        If the data set has no images, if the directory is not empty, or if the disk has not enough space.
    """
    check_int("seed", seed, 0)
    if not dataset.is_images:
        raise HandgradError(f"{dataset.name} has numbers, not images: shuffle the rows of the table")
    x, y = dataset.x_train, label_bytes(dataset, dataset.y_train)
    size = int(np.prod(x.shape))
    buckets = min(MAX_BUCKETS, -(-size // BUCKET_BYTES))
    rng = np.random.default_rng(seed)
    labels = np.empty_like(y)
    needed = size * (2 if buckets > 1 else 1)
    with _new_files(directory, dataset, x.shape, labels, needed) as file, contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=directory)) for _ in range(buckets)]
        of: list[list[NDArray[Any]]] = [[] for _ in files]
        for rows in row_blocks(len(x), READ_ROWS):
            block = np.asarray(x[rows])
            chosen = rng.integers(buckets, size=len(block))
            for i, bucket in enumerate(files):
                bucket.write(block[chosen == i].tobytes())
                of[i].append(y[rows][chosen == i])
            progress(len(block))
        first = 0
        for bucket, parts in zip(files, of, strict=True):
            own = np.concatenate(parts)
            bucket.seek(0)
            images = np.frombuffer(bucket.read(), np.uint8).reshape(len(own), *x.shape[1:])
            order = rng.permutation(len(own))
            for rows in row_blocks(len(own), READ_ROWS):
                file.write(images[order[rows]].tobytes())
            labels[first : first + len(own)] = own[order]
            first += len(own)
            bucket.truncate(0)
            progress(len(own))


def label_bytes(dataset: Dataset, y: Labels) -> NDArray[np.uint8]:
    """Return the labels for an IDX file: the names of the classes if these are numbers, else the class indices."""
    names = dataset.classes
    if len(names) > 256:
        raise HandgradError(f"{dataset.name} has {len(names)} classes: expected at most 256")
    numbers = [int(name) for name in names if name.isdecimal() and int(name) < 256]
    if len(set(numbers)) == len(names):  # not for the two classes 1 and 01
        return np.array(numbers, np.uint8)[y]
    return y.astype(np.uint8)


@contextlib.contextmanager
def _new_files(
    directory: Path, dataset: Dataset, shape: tuple[int, ...], labels: NDArray[np.uint8], size: int
) -> Iterator[BinaryIO]:
    """The open file of the training images, after its header; the other files are written when the block ends.

    The files get their names when all of them are complete, that of the training images last.
    """
    if max(shape) >= 1 << 32:
        raise HandgradError(f"an IDX file holds less than 2^32 images, got {shape[0]}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        present = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise HandgradError(f"cannot write to {directory}: {error.strerror}") from error
    if present:
        raise HandgradError(f"{directory} contains {present[0]}: expected a new or an empty directory")
    others = {
        FILES["y_train"]: labels,
        FILES["x_test"]: np.asarray(dataset.x_test),
        FILES["y_test"]: label_bytes(dataset, dataset.y_test),
    }
    needed = size + sum(array.nbytes for array in others.values()) + SPARE_BYTES
    if free < needed:
        raise HandgradError(
            f"{directory} needs {needed / 1e9:.2f} GB, but its disk has {free / 1e9:.2f} GB: free some space, choose "
            "another directory, or fewer images"
        )
    with _writing(directory), contextlib.ExitStack() as stack:
        images, *rest = [stack.enter_context(replacing(directory / name)) for name in (FILES["x_train"], *others)]
        images.write(struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape))
        images.flush()
        yield images
        for file, array in zip(rest, others.values(), strict=True):
            file.write(encode_idx(array))


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turn the errors of the system into one line."""
    try:
        yield
    except OSError as error:
        raise HandgradError(f"cannot write to {directory}: {error.strerror or error}") from error


# ---- Copies ----------------------------------------------------------------------------------------------------------


class _Job:
    """Writes copies of the digits x to a file, from the byte `start` on."""

    def __init__(self, x: NDArray[np.uint8], count: int, seed: int, path: str, start: int) -> None:
        self.x, self.count, self.seed, self.path, self.start = x, count, seed, path, start
        height, width = x.shape[1:]
        pixel = height / HEIGHT
        in_pixels = {name: STRENGTHS[name] * pixel for name in ("shift", "elastic", "smoothness")}
        self.augment = Augmentation(height, width, **(STRENGTHS | in_pixels))

    def __call__(self, first: int) -> int:
        """Write TASK_ROWS copies from number `first` on. Returns how many were written."""
        last = min(first + TASK_ROWS, self.count)
        with open(self.path, "r+b", buffering=0) as file, one_blas_thread():  # the same bits for any number of threads
            file.seek(self.start + first * self.x[0].size)
            for begin in range(first, last, COPY_ROWS):
                file.write(self.copies(begin, min(begin + COPY_ROWS, last)).tobytes())
        return last - first

    def copies(self, first: int, last: int) -> NDArray[np.uint8]:
        """Copies number `first` to `last`; those below the number of digits are the digits."""
        numbers = np.arange(first, last)
        digits = self.x[numbers % len(self.x)]
        floats = np.empty((len(digits), digits[0].size), np.float32)
        self.augment(digits, np.random.default_rng([self.seed, first // COPY_ROWS]), floats)
        copies = np.rint(floats * 255).astype(np.uint8).reshape(digits.shape)
        return np.where((numbers < len(self.x))[:, None, None], digits, copies)
