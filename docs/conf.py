"""How the pages are built: `make docs`. Every page with a code cell is run when it is built."""

import hashlib
import re
from pathlib import Path
from typing import Any

from sphinx.util.inspect import TypeAliasForwardRef

from handgrad import __version__

project = "handgrad"
author = "The handgrad authors"
copyright = "The handgrad authors"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

# A page is run again where its text has changed, or anything that it runs by.
HERE = Path(__file__).parent
PYTHON = ("../src/**/*.py", "../examples/*.py", "../benchmarks/readme.py")
RUN_BY = [HERE / "handgrad.mplstyle", *(path for pattern in PYTHON for path in HERE.glob(pattern))]
as_they_are = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(RUN_BY))).hexdigest()[:16]
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "cache" / as_they_are)
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # a layer's forward is told of once, in Layer
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Types by the names that the source gives them, not by what NumPy makes of those.
ALIASES = "Array ArrayLike Augment Bytes DTypeLike Grey History Initializer Labels Schedule Seed"
autodoc_type_aliases = {name: name for name in ALIASES.split()}
TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # type: ignore[method-assign]  # inside another type too
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
toc_object_entries = False  # the page's own headings are enough

html_theme = "furo"
html_title = "handgrad"
html_static_path = ["_static"]
html_css_files = ["handgrad.css"]


def as_it_stands(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with equations: what is laid out in columns keeps its columns, the rest is prose.

    A block, between empty lines, is laid out where a line of it is indented, or has a gap of two spaces or more. It
    becomes a literal block; in prose, what reStructuredText would take for markup is escaped.
    """
    made: list[str] = []
    for block in re.split(r"\n[ \t]*\n", "\n".join(lines).strip()):
        rows = block.splitlines()
        if any(re.search(r"^ |\S {2,}\S", row) for row in rows):
            made += [".. code-block:: text", "", *(f"   {row}" for row in rows), ""]
        elif rows:
            made += [_escaped(row) for row in rows] + [""]
    lines[:] = made


def _escaped(row: str) -> str:
    """A line of prose as reStructuredText: `code` as literal, its other signs as themselves."""
    parts = re.split(r"`([^`]+)`", row)
    prose = [re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part}``" for part in parts[1::2]]
    return "".join(part for pair in zip(prose, [*code, ""], strict=True) for part in pair)


def by_name(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """NDArray[uint8] as the source writes it: an alias with a parameter is none that autodoc keeps."""
    array = re.compile(r"~?(?:numpy\.)?ndarray\[tuple\[[^]]*\], ~?(?:numpy\.)?dtype\[~?(?:\w+\.)?(\w+)\]\]")
    return (
        None if signature is None else array.sub(r"NDArray[\1]", signature),
        None if returns is None else array.sub(r"NDArray[\1]", returns),
    )


def public_bases(app: Any, name: str, obj: Any, options: Any, bases: list[Any]) -> None:
    """A base whose name is private is passed over for its own."""
    for i, base in enumerate(bases):
        if isinstance(base, type):
            bases[i] = next(kind for kind in base.__mro__ if not kind.__name__.startswith("_"))


def without_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what Python itself says of a tuple's fields."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def links_out(app: Any, name: str, source: list[str]) -> None:
    """Markdown files outside docs/ are no pages: a link to one, which GitHub follows, is here the file itself."""
    source[0] = re.sub(r"\[`?([^]`]+)`?\]\((\.\./[^)#]+\.md)(?:#[^)]*)?\)", r"{download}`\1 <\2>`", source[0])


def setup(app: Any) -> None:
    """Sphinx calls it."""
    app.connect("autodoc-process-docstring", as_it_stands)
    app.connect("autodoc-process-signature", by_name)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("autodoc-skip-member", without_fields)
    app.connect("source-read", links_out)
