"""Command line: handgrad train, recipes, evaluate, predict, attack, import, export, inspect, check, parity, ...

Each command is a thin layer over the library. It prints text, or JSON with --json.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import logging
import os
import sys
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import HandgradError, printable
from . import convert, data, diagnose, evaluate, lab, recipes, sweep, train
from .echo import echo_error, warn, warnings_as_lines
from .signals import exit_code, raising_signals


class CommandGroup(click.Group):
    """A group whose commands report invalid input with one line on stderr and exit code 2.

    The exit code of an interrupted command is 128 + the number of the signal, and 1 if the output cannot be written.
    """

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a console that is not UTF-8 cannot print → and ü
                stream.reconfigure(errors="backslashreplace")
        try:
            with raising_signals():
                return super().main(*arguments, **options)
        except KeyboardInterrupt as interrupt:
            _interrupted(interrupt)
        except OSError as error:  # stdout on a full disk, for example
            _discard_output()
            where = "cannot write the output" if error.filename is None else str(error.filename)
            with contextlib.suppress(OSError):
                echo_error(f"{where}: {error.strerror or error}")
            raise SystemExit(1) from None

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **options: Any) -> click.Context:
        """Parse the arguments before the name of the command."""
        given = bool(args)
        try:
            context = super().make_context(info_name, args, *others, **options)
        except KeyboardInterrupt as interrupt:
            _interrupted(interrupt)
        except click.UsageError as error:
            if not given:  # without arguments, this is the help
                raise
            echo_error(_usage_line(error, self.name or "handgrad"))
            raise SystemExit(2) from None
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            context.color = False
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine("handgrad: %(message)s"))
        logging.basicConfig(handlers=[handler])
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its warnings concern its own cache
        try:
            with warnings_as_lines(warn):
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            _interrupted(interrupt)
        except click.UsageError as error:
            line = _usage_line(error, ctx.command_path)
        except MemoryError as error:
            line = f"not enough memory: {error}"
        except HandgradError as error:
            line = str(error)
        echo_error(line)
        raise SystemExit(2)


class _OneLine(logging.Formatter):
    """A formatter whose messages are one line without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _usage_line(error: click.UsageError, path: str) -> str:
    """The message of an error in the arguments, and where the help is."""
    return f"{error.format_message().rstrip('.')}: see {error.ctx.command_path if error.ctx else path} --help"


def _interrupted(interrupt: KeyboardInterrupt) -> NoReturn:
    """End an interrupted command."""
    with contextlib.suppress(OSError):
        echo_error("interrupted")
    raise SystemExit(exit_code(interrupt)) from None


def _discard_output() -> None:
    """Discard what could not be written to stdout, so that Python does not try it again at the end."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _docstring(function: Any) -> str | None:
    """The docstring of a function in its source: python -OO leaves it out of the program."""
    try:
        tree = ast.parse(inspect.getsource(inspect.getmodule(function) or function))
    except (OSError, TypeError, SyntaxError):
        return None
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return ast.get_docstring(functions[function.__name__], clean=False)


def _add_help(command: click.Command) -> None:
    """Give a command, and the commands of a group, their docstring as the help text."""
    if command.help is None and command.callback is not None:
        text = _docstring(command.callback)
        command.help = text and inspect.cleandoc(text)
    for other in getattr(command, "commands", {}).values():
        _add_help(other)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="handgrad")
def handgrad() -> None:
    """Train, evaluate and export neural networks for handwritten digits."""


for _module in (recipes, train, sweep, evaluate, convert, diagnose, data, lab):
    for _command in _module.COMMANDS:
        handgrad.add_command(_command)

if sys.flags.optimize >= 2:
    _add_help(handgrad)
