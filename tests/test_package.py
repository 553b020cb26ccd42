"""The package: imports only NumPy, loads extras late, and its public names exist."""

from __future__ import annotations

import subprocess
import sys

import pytest

import handgrad


def imported_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has imported after `statement`."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before), sep='\\n')"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def top_level(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_import_loads_only_numpy_and_the_standard_library() -> None:
    loaded = top_level(imported_by("import handgrad"))
    assert {"handgrad", "numpy"} <= loaded
    by_numpy = top_level(imported_by("import numpy, numpy.random"))
    assert loaded - sys.stdlib_module_names - by_numpy == {"handgrad"}


def test_import_does_not_load_what_few_programs_need() -> None:
    loaded = imported_by("import handgrad")
    assert not loaded & {"numpy.random", "handgrad.io.models", "handgrad.callbacks", "handgrad.recipes", "difflib"}


@pytest.mark.parametrize("module", ["tqdm", "click", "matplotlib", "safetensors", "PIL"])
def test_libraries_of_extras_are_imported_when_they_are_used(module: str) -> None:
    assert module in top_level(imported_by(f"import {module}"))  # the library is installed
    assert module not in top_level(imported_by("import handgrad"))


def test_all_public_names_exist() -> None:
    assert [name for name in handgrad.__all__ if not hasattr(handgrad, name)] == []
    assert set(handgrad.__all__) <= set(dir(handgrad))


@pytest.mark.parametrize("name", ["callbacks", "data", "export", "interop", "io", "recipes", "wrappers", "images"])
def test_subpackages_are_attributes_after_import_handgrad(name: str) -> None:
    program = f"import handgrad; handgrad.{name}"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("Softmax", "CrossEntropy"), ("Linear", "Dense"), ("Relu", "ReLU"), ("adam", "Adam")]
)
def test_names_of_other_libraries_are_suggested(name: str, suggestion: str) -> None:
    with pytest.raises(AttributeError, match=suggestion):
        getattr(handgrad, name)
