"""How Sphinx builds the site from these pages and the docstrings: `make docs`."""

import sys
from importlib.metadata import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

PACKAGE = metadata("protocontrast")

project = PACKAGE["Name"]
author = PACKAGE["Author"] or "protocontrast developers"
copyright = f"{author}, Apache-2.0"
release = version = PACKAGE["Version"]
repository = dict(url.split(", ", 1) for url in PACKAGE.get_all("Project-URL", [])).get(
    "Repository", ""
)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docstrings",
    "formulas",
    "names",
    "outside",
]
exclude_patterns = ["extensions", "results"]
# Notebooks keep the outputs that `make notebooks` gave them.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
default_role = "code"
# As prose: a colon in the first line of what is returned is no type.
napoleon_custom_sections = ["Shape", "Source", "Returns", ("Attributes", "params_style")]
maximum_signature_line_length = 80
# The site is built without a network, so what other projects document has no page here.
nitpick_ignore_regex = [("py:.*", r"(torch|collections|contextlib)\..*")]
python_use_unqualified_type_names = True
html_math_renderer = "drawn"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"{project} {version}"
html_static_path = ["extensions/site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
