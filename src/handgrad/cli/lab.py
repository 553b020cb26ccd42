"""handgrad lab."""

from __future__ import annotations

import click

from ..errors import optional
from .echo import echo
from .options import data_option

PORT = 8420


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port of 127.0.0.1; 0: any free port.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser.  [default: browser]")
@data_option
def lab(port: int, browser: bool, data: str | None) -> None:
    """Draw digits, train networks and look inside them, on a page in the browser.

    The page trains with this package: it shows the loss, the weights, the gradients and the mistakes of a network while
    it learns, and prints the Python program that repeats the run. It listens on this machine only and needs no network.
    --data adds your own images. Ctrl-C ends the server.
    """
    optional("starlette", "lab")
    optional("uvicorn", "lab")
    from ..lab.server import serve

    serve(port, own=data, browser=browser, show=echo)


COMMANDS = (lab,)
