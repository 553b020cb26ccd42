"""Sphinx configuration of the documentation, which `make docs` builds. Pages with code cells are executed."""

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from sphinx.util.inspect import TypeAliasForwardRef

from handgrad import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "handgrad"
author = copyright = "The handgrad authors"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "home",
    "notebooks",
    "tables",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_baseurl = os.environ.get("HANDGRAD_DOCS_URL", "")  # links in notebooks are absolute if it is set
smartquotes_action = "De"  # dashes and ellipses, but straight quotes: GELU(approximate="tanh") is code

# Outputs are cached. A page is executed again if its text, the library, the plot style or this file has changed. Pages
# run in an empty directory, as the notebooks do that readers download.
SOURCES = sorted([*HERE.glob("../src/**/*.py"), *HERE.glob("../src/**/*.mplstyle"), HERE / "conf.py"])
digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:16]
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "cache" / digest)
get_cache(nb_execution_cache_path).db  # noqa: B018 (create the database now: two processes read the pages)
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"  # generated tables and links
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars in the outputs

# The kernels draw figures with twice the resolution, for phones and high-resolution screens.
os.environ["IPYTHONDIR"] = str(HERE / "_build" / "ipython")
profile = HERE / "_build" / "ipython" / "profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text('c.InlineBackend.figure_formats = {"retina"}\n')

autosummary_generate = False  # tables only
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
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "handgrad"
html_static_path = ["_static"]
html_css_files = ["handgrad.css"]
pygments_style = "a11y-light"
pygments_dark_style = "github-dark"  # furo's default underlines the names of modules like links

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
    directory = HERE.joinpath(name).parent

    def download(match: re.Match[str]) -> str:
        text, target = match[1].strip("`"), match[2]
        inside = (directory / target).resolve().is_relative_to(HERE)
        return match[0] if inside else f"{{download}}`{text} <{target}>`"

    source[0] = re.sub(r"\[([^]]+)\]\((\.\./[^)#:\s]*\.md)(?:#[^)]*)?\)", download, source[0])


def setup(app: Any) -> None:
    """Connect the functions of this file to Sphinx."""
    app.connect("autodoc-process-docstring", docstring_to_rst, priority=400)  # napoleon has 500
    app.connect("autodoc-process-signature", shorten_array_types)
    app.connect("autodoc-process-bases", show_public_bases)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("source-read", link_files)
    app.extensions["sphinx-mathjax-offline"].parallel_read_safe = True  # it only adds a file; it does not declare it
