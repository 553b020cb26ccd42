"""Importing handgrad.sklearn: the optional dependency."""

import subprocess
import sys


def run_python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_missing_scikit_learn_names_the_extra():
    done = run_python("import sys; sys.modules['sklearn'] = None\nimport handgrad.sklearn")
    assert "'sklearn' is not installed: run pip install 'handgrad[sklearn]'" in done.stderr


def test_importing_handgrad_does_not_import_scikit_learn():
    program = "import sys, handgrad; print(any(name.startswith(('sklearn', 'scipy')) for name in sys.modules))"
    assert run_python(program).stdout == "False\n"
