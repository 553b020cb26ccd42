"""handgrad data: where MNIST is, download and verification; large data sets: deformed copies, shuffling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ..data import load
from ..errors import optional
from .echo import echo, echo_error


@click.group(invoke_without_command=True)
@click.pass_context
def data(ctx: click.Context) -> None:
    """Locate, download and verify MNIST; make large data sets.

    Without a command, lists the locations that are searched for MNIST and what each contains.
    """
    if ctx.invoked_subcommand is None:
        from ..data.mnist import check_copies

        for copy in check_copies():
            echo(str(copy))


@data.command()
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="DIR", help="Copy the files from this directory."
)
def fetch(source: Path | None) -> None:
    """Download MNIST into the cache, or copy it from a directory.

    Files in the cache that are already correct are kept.
    """
    from ..data.mnist import copy_to_cache, fetch_mnist

    echo(str(fetch_mnist() if source is None else copy_to_cache(source)))


@data.command()
def verify() -> None:
    """Verify the checksums of the copy that training uses.

    Exit code 1 if there is no complete copy.
    """
    from ..data.mnist import find_mnist

    path = find_mnist()
    if path is None:
        echo_error("no complete copy of MNIST was found: run handgrad data fetch")
        raise SystemExit(1)
    echo(f"{path}: OK, SHA-256 checksums match")


@data.command()
@click.option("--count", type=int, required=True, metavar="N", help="Number of training images.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A new or empty directory.")
@click.option(
    "--data",
    "source",
    metavar="mnist|synthetic|PATH",
    default="mnist",
    show_default=True,
    help="Data set of the images that are copied.",
)
@click.option("--workers", type=int, default=1, show_default=True, metavar="N", help="Number of processes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the deformations.")
def make(count: int, out: Path, source: str, workers: int, seed: int) -> None:
    """Write a data set of deformed copies ("infinite MNIST").

    The first copy of each digit of the training set is the digit itself. All other copies are rotated, scaled, shifted
    and distorted at random. The last 10,000 digits of MNIST's training set have no copies and are the end of the
    training set, the default validation set. The test set is that of MNIST. The files do not depend on the number of
    processes. 8,100,000 images take 6.35 GB.

    \b
    Examples:
      handgrad data make --count 8100000 --out infinite --workers 2
      handgrad train --data infinite --epochs 1
    """  # noqa: D301 (click needs the backspace)
    from ..data.infinite import make_copies

    with _progress("making images", count) as advance:
        make_copies(load(source), count, out, seed=seed, workers=workers, progress=advance)
    echo(f"{count:,} training images in {out}: train with handgrad train --data {out}")


@data.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the order.")
def shuffle(source: Path, destination: Path, seed: int) -> None:
    """Write a data set with its training images in random order.

    SOURCE is a directory of IDX or .npy files, or any other data set of images, and DESTINATION a new or an empty
    directory. The images need not fit into memory. A data set that is sorted by class must be shuffled if it is larger
    than memory, and if its last images are the validation set.
    """
    from ..data.infinite import shuffle_files

    dataset = load(str(source))
    with _progress("shuffling", 2 * len(dataset.x_train)) as advance:
        shuffle_files(dataset, destination, seed=seed, progress=advance)
    echo(f"{len(dataset.x_train):,} training images in {destination}")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar if stderr is a terminal."""
    with optional("tqdm").tqdm(
        desc=what, total=total, unit=" images", unit_scale=True, leave=False, disable=None
    ) as bar:
        yield bar.update


COMMANDS = (data,)
