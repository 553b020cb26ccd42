"""The reference leaves out no public name, and has none that is not there."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import handgrad

REFERENCE = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()
MODULES = re.findall(r"^\.\. automodule:: (\S+)(\n   :no-members:)?$", REFERENCE, re.MULTILINE)
NAMES = re.findall(r"^\.\. (?:autoclass|autofunction|autoexception):: handgrad\.(\w+)", REFERENCE, re.MULTILINE)
# By hand, with the module apart: within an automodule's section handgrad.X would be handgrad.optimizers.handgrad.X.
TYPED = re.findall(r"^\.\. py:function:: (\w+)(\(.*\))\n   :module: handgrad$", REFERENCE, re.MULTILINE)
NAMES += [name for name, _ in TYPED]
# Told of whole, each a section; of the others the docstring, above the names that handgrad itself has of them.
WHOLE = ["regression", "initializers", "schedules", "data", "images", "plots", "recipes", "export", "parity", "sklearn"]
IN_PART = ["network", "layers", "losses", "optimizers", "training", "averaging", "gradcheck", "files"]


def test_the_modules_that_are_told_of_are_these() -> None:
    assert [module for module, in_part in MODULES if not in_part] == [f"handgrad.{name}" for name in WHOLE]
    assert [module for module, in_part in MODULES if in_part] == [f"handgrad.{name}" for name in IN_PART]


def test_what_is_typed_by_hand_has_the_signature_that_it_has() -> None:
    """AdamW: what is filled in of it is a keyword of its own, which its signature has among the options."""
    assert [name for name, _ in TYPED] == ["AdamW"]
    *own, options = (
        p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(handgrad.AdamW).parameters.values()
    )
    filled = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in handgrad.AdamW.keywords.items()
    ]
    assert options.kind is inspect.Parameter.VAR_KEYWORD
    assert TYPED[0][1] == str(inspect.Signature([*own, *filled, options]))


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
