"""What the package promises as a whole: NumPy alone, a core to be read in an hour, arrows that only point down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import handgrad

sys.path.insert(0, str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

from benchmarks import readme
from benchmarks.readme import code_lines

SOURCE = Path(handgrad.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

CORE = ["errors", "arrays", "initializers", "layers", "losses", "classifier", "network", "optimizers", "schedules"]
CORE += ["training", "gradcheck"]
# Ground floor first: the README's map, file by file and room by room; a room is a file, or all that lies in a folder.
MAP = [name for name, _ in readme.MAPPED.findall(readme.README.read_text())]
ORDER = [*dict.fromkeys(name.removesuffix(".py").partition("/")[0] for name in MAP), "__main__"]
MOST_LINES = 1_500  # of code in the core

# ---- NumPy alone ---------------------------------------------------------------------------------------------


def loaded_by(statement):
    """The top-level modules that a fresh interpreter has loaded after `statement`, and had not before."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before), sep='\\n')"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_numpys_random_numbers_and_the_files_are_loaded_late():
    """They take longer than the rest of an import."""
    program = (
        "import sys, handgrad; print('numpy.random' in sys.modules, 'handgrad.files' in sys.modules); handgrad.load"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    import handgrad

    assert {"load", "save", "Network"} <= set(dir(handgrad))


def test_importing_handgrad_loads_numpy_and_the_standard_library_alone():
    loaded = loaded_by("import handgrad")
    assert {"handgrad", "numpy"} <= loaded
    numpys = loaded_by("import numpy, numpy.random")  # with what NumPy's compiled parts bring along
    assert loaded - sys.stdlib_module_names - numpys == {"handgrad"}


@pytest.mark.parametrize("module", ["tqdm", "click", "matplotlib", "safetensors", "PIL"])
def test_a_library_of_an_extra_comes_late(module):
    assert module in loaded_by(f"import {module}")  # it is there to be loaded
    assert module not in loaded_by("import handgrad")


def test_all_names_are_there_and_in_order():
    assert all(hasattr(handgrad, name) for name in handgrad.__all__)
    assert len(set(handgrad.__all__)) == len(handgrad.__all__)


# ---- A core to be read in an hour ----------------------------------------------------------------------------


def test_the_core_is_short():
    counts = {name: code_lines((SOURCE / f"{name}.py").read_text()) for name in CORE}
    assert min(counts.values()) > 0
    assert sum(counts.values()) < MOST_LINES, counts


# ---- Arrows point down ---------------------------------------------------------------------------------------


def taken(path, nodes):
    """(module, name) of all that these nodes of a file import, by absolute names; of `import x` the name is empty."""
    package = ["handgrad", *path.relative_to(SOURCE).parts[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)


def loaded_at_import(path, text=None):
    """The files of the package that a file takes from as it is loaded itself: what its functions import comes later.

    Of handgrad's own __init__.py, which imports nearly all, the version may be taken: it is set before the rest.
    """
    nodes = list(ast.parse(path.read_text() if text is None else text).body)
    for node in nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += ast.iter_child_nodes(node)
    for module, name in taken(path, nodes):
        top, *rest = module.split(".")
        if top == "handgrad" and (rest or name != "__version__"):
            inside = "".join(f"{part}/" for part in rest)
            held = [f"{inside}{name}.py", f"{inside}{name}/__init__.py", f"{inside[:-1]}.py", f"{inside}__init__.py"]
            yield next(file for file in held if (SOURCE / file).is_file())


def too_low(here, files, order):
    """Those of the files, imported by `here`, that do not stand above it; a folder's __init__.py is below its files."""
    places = {name: i for i, name in enumerate(order)}
    for path in FILES:
        name = path.relative_to(SOURCE).as_posix()
        if name.endswith("__init__.py"):
            folder = name.removesuffix("__init__.py")
            places[name] = max(i for i, other in enumerate(order) if other.startswith(folder)) + 0.5
    places["__main__.py"] = len(order) + 1
    return [name for name in files if places[name] >= places[here]]


def test_what_is_loaded_with_a_file_is_found():
    text = (
        "import handgrad.cli\nfrom handgrad import plots\nfrom . import recipes, __version__\nfrom .files import save\n"
    )
    text += (
        "from .data import load, idx\nfrom . import data\nimport numpy\ndef f():\n    from .network import Network\n"
    )
    text += "class C:\n    from .losses import Loss\nif True:\n    from handgrad import Network\n"
    found = ["cli.py", "plots.py", "recipes.py", "files.py", "data/__init__.py", "data/idx.py", "data/__init__.py"]
    assert list(loaded_at_import(SOURCE / "x.py", text)) == [*found, "losses.py", "__init__.py"]
    inner = "from ..errors import HandgradError\nfrom .idx import read\nfrom .. import __version__\nfrom . import mnist"
    assert list(loaded_at_import(SOURCE / "data" / "x.py", inner)) == ["errors.py", "data/idx.py", "data/mnist.py"]


@pytest.mark.parametrize(
    "path", [p for p in FILES if p != SOURCE / "__init__.py"], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_each_file_imports_from_those_above_it_in_the_readmes_map(path):
    assert too_low(path.relative_to(SOURCE).as_posix(), loaded_at_import(path), MAP) == []


def test_no_two_rows_of_which_one_imports_from_the_other_can_change_places():
    swapped = 0
    for here in MAP:
        for above in {*loaded_at_import(SOURCE / here)} & {*MAP}:
            order = list(MAP)
            i, j = order.index(here), order.index(above)
            order[i], order[j] = above, here
            assert above in too_low(here, loaded_at_import(SOURCE / here), order)
            swapped += 1
    assert swapped > 100


def room(path):
    """The room that a file belongs to: `data` for all that lies in data/."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path, text=None):
    """The rooms that a file imports from, wherever in it the import stands; the package itself is `handgrad`."""
    for module, name in taken(path, ast.walk(ast.parse(path.read_text() if text is None else text))):
        top, *rest = [*module.split("."), name]
        if top == "handgrad":
            yield rest[0] if rest[0] in ORDER else "handgrad"


def test_imports_of_every_form_are_found():
    text = (
        "import handgrad.cli\nfrom handgrad import plots\nfrom . import recipes, __version__\nfrom .files import save\n"
    )
    text += "def f():\n    from .network import Network\n    import numpy\n"
    assert list(imported(SOURCE / "x.py", text)) == ["cli", "plots", "recipes", "handgrad", "files", "network"]
    inner = "from ..errors import HandgradError\nfrom .idx import read\n"
    assert list(imported(SOURCE / "data" / "x.py", inner)) == ["errors", "data"]


def test_every_file_has_its_place_in_the_order():
    assert {room(path) for path in FILES} - {"__init__"} <= set(ORDER)


@pytest.mark.parametrize("path", [p for p in FILES if p != SOURCE / "__init__.py"], ids=lambda p: p.stem)
def test_arrows_only_point_down(path):
    here = room(path)
    below = {
        *ORDER[: ORDER.index(here)],
        *([here] if here in ("data", "foreign", "sklearn", "export") else []),
        *(["handgrad"] if here in ("cli", "export") else []),
    }
    assert set(imported(path)) <= below  # of the package itself they take the version


# ---- Nothing that runs what it reads, no chance but from a generator -----------------------------------------

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "random"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
EXPLICIT_CHANCE = {"default_rng", "Generator", "BitGenerator", "SeedSequence", "PCG64"}


def dotted(node):
    """`a.b.c` of an attribute's node."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def unsafe(text):
    """What in a file could run what it reads, or draws from the state that all of NumPy shares."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module.partition(".")[0] in UNSAFE_MODULES:
                yield node.module
            elif node.module == "numpy.random":
                yield from (a.name for a in node.names if a.name not in EXPLICIT_CHANCE)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                yield node.func.id
            for k in node.keywords:
                if k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False):
                    yield "allow_pickle"
        elif isinstance(node, ast.Attribute):
            name = dotted(node)
            if name.startswith(("np.random.", "numpy.random.")) and name.split(".")[2] not in EXPLICIT_CHANCE:
                yield name


@pytest.mark.parametrize(
    "text",
    [
        *("import pickle", "from pickle import loads", "import random", "eval('1')", "exec('1')", "np.random.seed(0)"),
        *("x = np.random.rand(3)", "numpy.random.shuffle(x)", "from numpy.random import rand"),
        "np.load(path, allow_pickle=True)",
    ],
)
def test_what_is_unsafe_is_seen(text):
    assert len(list(unsafe(text))) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_unsafe_is_in_the_sources(path):
    assert list(unsafe(path.read_text())) == []
