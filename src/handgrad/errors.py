"""Errors: exceptions with one-line messages that say what was wrong, what was expected and what to do."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable
from types import CodeType, ModuleType
from typing import Any

MAX_MESSAGE = 2000  # characters; a message may quote what a file contains
MAX_NAME = 200  # characters of a name that are compared with the known names


class HandgradError(ValueError):
    """Invalid input. The command line prints the message and exits with code 2.

    The message is one line of limited length, also if it quotes a name with line breaks or control characters.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), MAX_MESSAGE)


class HandgradWarning(UserWarning):
    """A training that probably does not do what was intended. The message says why and what to do.

    `warnings.simplefilter("ignore", HandgradWarning)` turns these warnings off, and "error" makes them exceptions.
    """


def calls_of_handgrad() -> int:
    """Return the stacklevel of a warning that the caller gives, so that it shows the line outside of handgrad."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


class MisnamedError(HandgradError, AttributeError):
    """An attribute of another library was set or read."""


class Misnamed:
    """A class attribute for a name of another library. Setting it on an object would have no effect: it is an error.

    Parameters
    ----------
    hint : str
        What to do instead.
    """

    def __init__(self, hint: str) -> None:
        self.hint = hint

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise MisnamedError(f"{type(instance).__name__} has no attribute '{self.name}': {self.hint}")

    def __set__(self, instance: object, value: object) -> None:
        self.__get__(instance)


class KnownAttributes:
    """Base class whose objects reject the assignment of an attribute that their class does not use: a misspelled name.

    Objects that a step of a training writes to are checked by `check_attributes` instead, because a call of this method
    takes 0.4 us. Subclasses that users write accept every attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if is_unused(type(self), name):
            raise unknown_attribute(self, name)
        super().__setattr__(name, value)


def check_attributes(*objects: object) -> None:
    """Raise MisnamedError if one of the objects has an attribute that its class does not use: a misspelled name.

    On Python 3.11, each object then has a separate dictionary of attributes. After a call of `vars`, Python 3.11 finds
    the attributes of an object slowly if its dictionary shares the keys with other objects: 1.4 us more in a step of
    784-30-10 that takes 25.
    """
    for part in objects:
        parameters = {f"{d}{name}" for name in getattr(part, "parameter_shapes", ()) for d in ("", "d")}
        for name in vars(part).keys() - parameters:
            if is_unused(type(part), name):
                raise unknown_attribute(part, name)
        if sys.version_info < (3, 12):
            object.__setattr__(part, "__dict__", dict(vars(part)))  # not `copy()`, which shares the keys too


def unknown_attribute(part: object, name: str) -> MisnamedError:
    """Return the error for an attribute that an object should not have, with the closest name."""
    kind = type(part)
    near = closest(name, [known for known in {*dir(kind), *vars(part)} - {name} if not known.startswith("_")])
    return MisnamedError(f"{kind.__name__} has no attribute '{name}'" + (f": did you mean '{near}'?" if near else ""))


def is_unused(kind: type, name: str) -> bool:
    """Return whether no code of a class of handgrad, or of its base classes, uses an attribute."""
    return name not in _used_names(kind) and _is_own(kind.__module__)


def _is_own(module: str) -> bool:
    """Return whether a module belongs to handgrad."""
    return module.partition(".")[0] == __name__.partition(".")[0]


@functools.cache
def _used_names(kind: type) -> frozenset[str]:
    """The names of the members of a class, of its annotations, and of the attributes in the code of its methods."""
    names = set(dir(kind))
    for base in kind.__mro__:
        names.update(vars(base).get("__annotations__", ()))
        members = [getattr(member, "fget", member) for member in vars(base).values()]
        codes = [code for member in members if (code := getattr(_unwrapped(member), "__code__", None))]
        while codes:
            code = codes.pop()
            names.update(code.co_names)
            codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return frozenset(names)


def _unwrapped(member: Any) -> Any:
    """The function inside of decorators and class methods."""
    while hasattr(member, "__wrapped__"):
        member = member.__wrapped__
    return member


class MissingExtraError(HandgradError, ImportError):
    """A library of an optional extra is not installed."""


def unknown(kind: str, name: str, known: Iterable[str]) -> HandgradError:
    """Return the error for a name that is not in `known`, with the closest known name if there is one."""
    known = sorted(known)
    close = closest(name, known)
    hint = f"did you mean '{close}'? The" if close else "the"
    plural = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return HandgradError(f"unknown {kind} '{name}': {hint} {plural} are {', '.join(known)}.".rstrip("."))


def check_name(kind: str, name: Any, known: Iterable[str]) -> Any:
    """Validate a name: return it if it is in `known`. Raises HandgradError for other names and other types."""
    if not isinstance(name, str) or name not in known:
        raise unknown(kind, str(name), known)
    return name


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, ignoring case and underscores, or None."""
    import difflib  # late: importing it takes as long as importing the layers

    plain = {other.lower().replace("_", ""): other for other in known}
    matches = difflib.get_close_matches(str(name)[:MAX_NAME].lower().replace("_", ""), plain, n=1)
    return plain[matches[0]] if matches else None


def printable(text: str, max_length: int | None = None) -> str:
    r"""Return a text as one line without control characters.

    Names in files and of files can contain characters that move the cursor, set the title of the window or pretend to
    be another line. They are replaced by their escapes, "\x1b" for example.

    Parameters
    ----------
    text : str
        Any text, also with lone surrogates.
    max_length : int, optional
        Longer text is cut and ends in "...".
    """
    shown = text if max_length is None else text[:max_length]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)
    if max_length is None or max(len(shown), len(text)) <= max_length:
        return shown
    return f"{shown[: max_length - 3]}..."


def submodule(package: str, name: str) -> ModuleType:
    """Import a submodule when it is first used: for the `__getattr__` of a package that imports it late.

    Raises AttributeError if there is no such submodule.
    """
    path = f"{package}.{name}"
    try:
        if not name.startswith("_"):
            return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def optional(module: str, extra: str = "app") -> Any:
    """Import a module of an optional extra.

    Raises
    ------
    MissingExtraError
        If the module is not installed. The message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"'{module.partition('.')[0]}' is not installed: run pip install 'handgrad[{extra}]'"
        ) from error
