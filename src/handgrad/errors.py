"""The errors that are the user's to mend: what was wrong, what was expected, what to do, in one line."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any


class HandgradError(ValueError):
    """Bad input. The command line prints the line as it is and exits with 2."""


class MissingExtraError(HandgradError, ImportError):
    """A library that belongs to an extra is not installed."""


def unknown(kind: str, name: str, known: Iterable[str]) -> HandgradError:
    """The error for a name that is not one of `known`, with the nearest of them where one is near."""
    import difflib  # for a slip alone: it takes as long to load as the layers

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    plural = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return HandgradError(f"unknown {kind} '{name}': {hint}the {plural} are {', '.join(known)}")


def optional(module: str, extra: str = "app") -> Any:
    """Import a module that comes with an extra, late; where it is missing, say which command brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"'{module.partition('.')[0]}' is not installed: it comes with pip install 'handgrad[{extra}]'"
        ) from error
