"""How the pages are built: `make docs`. Every page with a code cell is run when it is built."""

from pathlib import Path

from handgrad import __version__

project = "handgrad"
author = "The handgrad authors"
copyright = "The handgrad authors"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "description"

html_theme = "furo"
html_title = "handgrad"
html_static_path = ["_static"]
html_css_files = ["handgrad.css"]
