"""Ctrl-C while the modules of the command are imported: exit code 130 instead of a traceback.

Importing NumPy takes most of the first 0.2 s of a command, before its own code runs. A program that uses handgrad as a
library is not affected.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _is_command() -> bool:
    """Whether this process is `handgrad` or `python -m handgrad`."""
    if sys.argv[:1] == ["-m"]:  # the package is imported before Python replaces "-m" by the path of its module
        return "handgrad" in sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] if "-m" in sys.orig_argv else False
    return os.path.basename(sys.argv[0] if sys.argv else "") in ("handgrad", "handgrad.exe")


def restore() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _is_command():
    signal.signal(signal.SIGINT, _exit)
