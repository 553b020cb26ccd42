"""Sphinx configuration of the documentation, which `make docs` builds. Pages with code cells are executed."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from sphinx.util.inspect import TypeAliasForwardRef

from handgrad import __version__

project = "handgrad"
author = copyright = "The handgrad authors"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
smartquotes_action = "De"  # dashes and ellipses, but straight quotes: GELU(approximate="tanh") is code

# Outputs are cached. A page is executed again if its text, the library, an example or the plot style has changed.
HERE = Path(__file__).parent
PATTERNS = ("../src/**/*.py", "../src/**/*.mplstyle", "../examples/*.py")
SOURCES = sorted(path for pattern in PATTERNS for path in HERE.glob(pattern))
digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "cache" / digest)
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars in the outputs

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # Layer.forward is documented once, not in every layer
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# These names are shown as in the source, instead of the types that they abbreviate.
ALIASES = "Array ArrayLike Bytes DTypeLike Grey History Initializer Labels Schedule Seed"
autodoc_type_aliases = {name: name for name in ALIASES.split()}
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # type: ignore[method-assign]  # also within other types
napoleon_google_docstring = False
napoleon_use_param = False  # so that "n_in, n_out : int" stays one entry
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]  # autodoc documents properties; do not repeat them
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
toc_object_entries = False  # the headings of the page are enough

html_theme = "furo"
html_title = "handgrad"
html_static_path = ["_static"]
html_css_files = ["handgrad.css"]

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
EQUATION = re.compile(r"^ |\S {2,}\S|^\S{1,14} (=|←) ", re.MULTILINE)


def docstring_to_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert the plain text of a docstring to reStructuredText, before napoleon converts its numpydoc sections."""
    text = "\n".join(lines)
    first, *others = [match.start() for match in SECTION.finditer(text)] + [len(text)]
    converted = [_convert_prose(text[:first])]
    for begin, end in zip([first, *others], others, strict=False):
        title, underline, *rows = text[begin:end].splitlines()
        converted.append("\n".join([title, underline, *_convert_section(title, rows), ""]))
    lines[:] = "\n".join(converted).splitlines()
    if what in ("attribute", "property"):
        lines.insert(0, "")  # napoleon would read "Number of classes: ..." in the first line as a type


def _convert_prose(text: str) -> str:
    """Equations and columns become literal blocks, all other paragraphs are escaped."""
    blocks = []
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        rows = block.splitlines()
        if EQUATION.search(block) and not block.rstrip().endswith("."):
            blocks.append("\n".join([".. code-block:: text", "", *(f"   {row}" for row in rows)]))
        else:
            blocks.append("\n".join(map(_escape, rows)))
    return "\n\n".join(blocks) + "\n"


def _convert_section(title: str, rows: list[str]) -> list[str]:
    """Escape the descriptions. Names and types stay, because napoleon converts them, and so do examples."""
    if title == "Examples":
        return rows
    return [_escape(row) if row.startswith(" ") or title in ("References", "Notes") else row for row in rows]


def _escape(row: str) -> str:
    """Convert `code` to literal text, and escape everything else."""
    parts = re.split(r"`([^`]+)`", row)
    parts[::2] = [re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def shorten_array_types(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write NDArray[uint8] as in the source: autodoc does not keep an alias with a parameter."""
    array = re.compile(r"~?(?:numpy\.)?ndarray\[tuple\[[^]]*\], ~?(?:numpy\.)?dtype\[~?(?:\w+\.)?(\w+)\]\]")
    return (
        None if signature is None else array.sub(r"NDArray[\1]", signature),
        None if returns is None else array.sub(r"NDArray[\1]", returns),
    )


def show_public_bases(app: Any, name: str, obj: Any, options: Any, bases: list[Any]) -> None:
    """Replace a base class with a private name by its own public base class."""
    for i, base in enumerate(bases):
        if isinstance(base, type):
            bases[i] = next(kind for kind in base.__mro__ if not kind.__name__.startswith("_"))


def skip_tuple_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Skip the docstrings that Python generates for the fields of a named tuple."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def link_files(app: Any, name: str, source: list[str]) -> None:
    """Turn links to Markdown files outside docs/, which work on GitHub, into downloads of these files."""
    source[0] = re.sub(r"\[`?([^]`]+)`?\]\(((?:\.\./){1,2}[A-Z][^)#/]*\.md)(?:#[^)]*)?\)", r"{download}`\1 <\2>`", source[0])


def clean_notebooks(app: Any, error: Exception | None) -> None:
    """Remove the link to the notebook from the notebook itself, where it is a Sphinx role and not a link."""
    for path in Path(app.outdir).glob("_downloads/*/*.ipynb"):
        notebook = json.loads(path.read_text())
        title = notebook["cells"][0]["source"]
        title[:] = [line for line in title if not line.startswith("Download this page as a notebook:")]
        path.write_text(json.dumps(notebook, indent=1) + "\n")


def setup(app: Any) -> None:
    """Connect the functions of this file to Sphinx."""
    app.connect("autodoc-process-docstring", docstring_to_rst, priority=400)  # napoleon has 500
    app.connect("autodoc-process-signature", shorten_array_types)
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("source-read", link_files)
    app.connect("build-finished", clean_notebooks)
