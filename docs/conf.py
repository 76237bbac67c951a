"""The site of documentation: `sphinx-build -W --keep-going -b html docs build/docs`.

The pages of `reference/` are written from the code before each build (`_extensions/`).
`INTERSPHINX=1` links to the documentation of other projects, whose lists of names it downloads.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import imagen_jax  # noqa: E402

project = "imagen_jax"
author = "The imagen_jax authors"
copyright = author
version = release = imagen_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "docstrings",
    "notebooks",
    "outside_links",
    "reference_pages",
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autosummary_generate = False  # reference_pages writes a page for each package
smartquotes = False  # "eps" is a value
default_role = "py:obj"  # a name in backticks: a link if it is one of ours, else code
python_maximum_signature_line_length = 88

if os.environ.get("INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "flax": ("https://flax.readthedocs.io/en/latest", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
        "orbax": ("https://orbax.readthedocs.io/en/latest", None),
    }

html_theme = "sphinx_book_theme"
html_title = f"imagen_jax {version}"
html_theme_options = {"show_toc_level": 2, "use_download_button": False}
html_copy_source = False
