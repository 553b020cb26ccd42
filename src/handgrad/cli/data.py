"""handgrad data: where MNIST is, download and verification."""

from __future__ import annotations

from pathlib import Path

import click

from .echo import echo, echo_error


@click.group(invoke_without_command=True)
@click.pass_context
def data(ctx: click.Context) -> None:
    """Locate, download and verify MNIST.

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


COMMANDS = (data,)
