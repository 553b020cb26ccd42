"""Command line: handgrad train, evaluate, predict, attack, import, export, inspect, check, parity, profile, data.

Each command is a thin layer over the library. It prints text, or JSON with --json.
"""

from __future__ import annotations

import logging
from typing import Any

import click

from .. import __version__
from ..errors import HandgradError
from . import convert, data, diagnose, evaluate, train
from .echo import echo_error


class CommandGroup(click.Group):
    """A group whose commands report invalid input with one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        logging.basicConfig(format="handgrad: %(message)s")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its warnings concern its own cache
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            path = (error.ctx or ctx).command_path
            line = f"{error.format_message().rstrip('.')}: see {path} --help"
        except MemoryError as error:
            line = f"not enough memory: {error}"
        except HandgradError as error:
            line = str(error)
        echo_error(line)
        raise SystemExit(2)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="handgrad")
def handgrad() -> None:
    """Train, evaluate and export neural networks for handwritten digits."""


for _module in (train, evaluate, convert, diagnose, data):
    for _command in _module.COMMANDS:
        handgrad.add_command(_command)
