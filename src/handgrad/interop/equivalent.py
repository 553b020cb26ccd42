"""Equivalent classes: a class of another framework, and how its arguments follow from a configuration of handgrad."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Argument = str | Callable[[Mapping[str, Any]], Any]


class Equivalent(NamedTuple):
    """The class of another framework that is equivalent to a layer or an optimizer of handgrad.

    Attributes
    ----------
    name : str
        Name of the class.
    arguments : mapping of str to str or callable
        For each argument of the class: a key of handgrad's `config()`, or a function of the configuration.
    positional : int
        Number of arguments, from the first one, that `code` writes without their names.
    constants : mapping
        Arguments that have a fixed value because handgrad has no other one.
    """

    name: str
    arguments: Mapping[str, Argument] = MappingProxyType({})
    positional: int = 0
    constants: Mapping[str, Any] = MappingProxyType({})

    def keywords(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the class, by name, for a configuration of handgrad."""
        values = {name: key(config) if callable(key) else config[key] for name, key in self.arguments.items()}
        return values | dict(self.constants)

    def code(self, config: Mapping[str, Any], *first: str) -> str:
        """Return the call that creates the object, as "Linear(784, 30)". `first` is code that precedes the arguments.

        Examples
        --------
        >>> Equivalent("Linear", {"in_features": "n_in", "out_features": "n_out"}, 2).code({"n_in": 4, "n_out": 3})
        'Linear(4, 3)'
        """
        written = [
            argument if i < self.positional else f"{name}={argument}"
            for i, (name, argument) in enumerate((name, literal(v)) for name, v in self.keywords(config).items())
        ]
        return f"{self.name}({', '.join([*first, *written])})"


def literal(value: Any) -> str:
    """Return a Python literal, with double quotes around strings."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
