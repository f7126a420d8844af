"""Configuration of Sphinx; ``make docs`` builds the site.

The build needs no network, so links to the documentation of PyTorch and the MM packages are left
out. To include them, add ``sphinx.ext.intersphinx`` to ``extensions`` and set
``intersphinx_mapping``.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

from pcm_plugin import __version__  # noqa: E402

project = "pcm_plugin"
release = __version__
copyright = "the authors of pcm_plugin"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "api_pages",
    "repository_links",
]
root_doc = "index"
exclude_patterns = ["_build", "_ext"]
templates_path = ["_templates"]

# References.
nitpicky = True
nitpick_ignore_regex = [
    # Other packages, whose inventories would have to be downloaded, and Python itself.
    (r"py:.*", r"(torch|numpy|np|PIL|mmengine|mmpretrain|transformers|diffusers|open_clip)\b.*"),
    (r"py:.*", r"(collections|os|pathlib|argparse|typing|types|enum|functools|dataclasses)\b.*"),
    (r"py:.*", r"(re|io|pickle|jinja2|markupsafe)\b.*"),
    (r"py:.*", r"[a-z]+|[A-Z]\w+Error|None|Any|Path|Tensor|Config"),
    # Private base classes and type variables, which have no entries.
    (r"py:class", r"pcm_plugin\.[\w.]+\._\w+|pcm_plugin\.[\w.]+\.(R|Module)|~P"),
]
myst_heading_anchors = 4

# API reference.
autodoc_default_options = {"special-members": "__call__"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

# Appearance. NumPy and pandas use this theme, and that of PyTorch is derived from it. Its fonts,
# icons and scripts are part of the package.
html_theme = "pydata_sphinx_theme"
html_title = f"pcm_plugin {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"**": ["all-pages.html"]}
html_theme_options = {
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_nav_level": 1,
    "navigation_depth": 3,
    "show_toc_level": 2,
}


def setup(app: Sphinx) -> None:
    """Connect the event handlers of this file."""
    app.connect("source-read", add_nonbreaking_spaces)


def add_nonbreaking_spaces(app: Sphinx, docname: str, source: list[str]) -> None:
    """Use non-breaking spaces in ``62.3 ± 2.1``, so that it stays on one line in tables."""
    source[0] = source[0].replace(" ± ", "\u00a0±\u00a0")
