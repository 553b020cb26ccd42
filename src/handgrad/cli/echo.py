"""Output on the terminal: all lines that the commands print.

Names of classes, files and data sets and the values of config.json may be from a stranger. Everything that is printed
is escaped here, so that no command has to.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..errors import HandgradWarning, printable

MAX_ERROR = 4000  # characters of an error message


def echo(*lines: str, err: bool = False) -> None:
    """Print lines on stdout or stderr. Control characters are escaped, a line break within a line too."""
    for line in lines:
        click.echo(printable(line), err=err)


def echo_error(message: str) -> None:
    """Print an error message as one line on stderr."""
    click.echo(f"handgrad: {printable(message, MAX_ERROR)}", err=True)


def warn(message: str) -> None:
    """Print a warning as one line on stderr, highlighted on a terminal."""
    click.secho(f"handgrad: warning: {printable(message, MAX_ERROR)}", err=True, bold=True, fg="yellow")


@contextmanager
def warnings_as_lines(tell: Callable[[str], None]) -> Iterator[None]:
    """Pass the warnings of handgrad to `tell`, also if other warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", HandgradWarning)
        show = warnings.showwarning

        def show_line(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, HandgradWarning):
                tell(str(message))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_line
        yield
