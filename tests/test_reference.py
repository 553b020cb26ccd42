"""The reference leaves out no public name, and has none that is not there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import handgrad

REFERENCE = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()
MODULES = re.findall(r"^\.\. automodule:: (\S+)(\n   :no-members:)?$", REFERENCE, re.MULTILINE)
NAMES = re.findall(
    r"^\.\. (?:autoclass|autofunction|autoexception|py:function):: handgrad\.(\w+)", REFERENCE, re.MULTILINE
)


def test_every_public_name_is_told_of_once() -> None:
    whole = [importlib.import_module(module) for module, without_members in MODULES if not without_members]
    with_its_module = [
        name
        for name in handgrad.__all__
        if any(
            getattr(handgrad, name) is module or getattr(getattr(handgrad, name), "__module__", None) == module.__name__
            for module in whole
        )
    ]
    assert sorted([*NAMES, *with_its_module]) == sorted(handgrad.__all__)


@pytest.mark.parametrize("module", [module for module, _ in MODULES])
def test_every_module_has_something_to_tell(module: str) -> None:
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_something_to_tell(name: str) -> None:
    assert getattr(handgrad, name).__doc__
