"""The package: imports only NumPy, loads extras late, and its public names exist."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

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
    assert not loaded & {
        "numpy.random",
        "handgrad.io",
        "handgrad.callbacks",
        "handgrad.data",
        "handgrad.sklearn",
        "handgrad.cli",
        "handgrad.recipes",
        "handgrad.images.reading",
        "handgrad.diagnostics",
        "difflib",
    }


@pytest.mark.parametrize("module", ["tqdm", "click", "matplotlib", "safetensors", "PIL"])
def test_libraries_of_extras_are_imported_when_they_are_used(module: str) -> None:
    assert module in top_level(imported_by(f"import {module}"))  # the library is installed
    assert module not in top_level(imported_by("import handgrad"))


def test_all_public_names_exist() -> None:
    assert [name for name in handgrad.__all__ if not hasattr(handgrad, name)] == []
    assert set(handgrad.__all__) <= set(dir(handgrad))


@pytest.mark.parametrize(
    ("name", "suggestion"), [("Softmax", "CrossEntropy"), ("Linear", "Dense"), ("Relu", "ReLU"), ("adam", "Adam")]
)
def test_names_of_other_libraries_are_suggested(name: str, suggestion: str) -> None:
    with pytest.raises(AttributeError, match=suggestion):
        getattr(handgrad, name)


# ---- Every module and every name of the documents, after `import handgrad` alone -------------------------------------

ROOT = Path(__file__).parents[1]
# Runs each line in a copy of a process that has imported handgrad, and libraries that take long to import.
FORK = """
import os, sys, handgrad, click, matplotlib.figure, PIL.Image, sklearn.neural_network
for line in sys.stdin.read().splitlines():
    child = os.fork()
    if child == 0:
        try:
            exec(line, {"handgrad": handgrad})
        except BaseException as error:
            print(f"{line}: {type(error).__name__}: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def failing(lines: list[str]) -> str:
    """The lines that fail in a process that has imported no module of handgrad but itself, with their errors."""
    done = subprocess.run([sys.executable, "-c", FORK], input="\n".join(lines), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@forking
def test_every_module_is_an_attribute_after_import_handgrad() -> None:
    modules = [module.name for module in pkgutil.walk_packages(handgrad.__path__, "handgrad.")]
    assert len(modules) > 50
    assert failing([name for name in modules if "._" not in name]) == ""
    assert failing(["handgrad.data.nothing", "handgrad.nothing"]).count("AttributeError: module") == 2


def documented_lines() -> list[str]:
    """The imports and the dotted names of handgrad in README, docs and docstrings."""
    lines: set[str] = set()
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    for path in files:
        text = path.read_text()
        if path.suffix == ".py":
            nodes = ast.walk(ast.parse(text))
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            text = "\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds))
        lines.update(re.findall(r"^(?:>>> |\s*)((?:from handgrad[\w.]* )?import [\w., ]+)$", text, re.MULTILINE))
        lines.update(re.findall(r"(?<![\w./{-])handgrad(?:\.\w+)+(?!\w)", text))
    others = ("handgrad.docs", "handgrad.mplstyle", "handgrad.part", "handgrad.NAME", "handgrad.Softmax")  # not names
    return sorted(line for line in lines if "handgrad" in line and not line.startswith(others))


@forking
def test_every_name_that_the_documents_show_exists_after_import_handgrad() -> None:
    lines = documented_lines()
    assert len(lines) > 60
    assert {"handgrad.data.load", "handgrad.diagnostics.plots"} <= set(lines)
    assert failing(lines) == ""
