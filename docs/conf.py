"""Sphinx's settings; `docs/make.py` lays the pages out and calls Sphinx."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_sphinx"), str(HERE.parent)]

import nadkit  # noqa: E402 - found by the line above

project, author, copyright = "nadkit", "The nadkit developers", "The nadkit developers"
version = release = nadkit.__version__
language = "en"
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton",
    "docstrings", "fitting", "mathml",
]  # fmt: skip

# Pages
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # docs/running.py has run them
nb_ipywidgets_js: dict[str, Any] = {}  # no widget lives in a page without a kernel
nb_merge_streams = True
exclude_patterns = ["_build"]

# Reference
default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 90
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature of a dataclass has them
napoleon_use_rtype = False
napoleon_custom_sections = ["Source"]

# The look
html_theme = "sphinx_book_theme"
html_title = "nadkit"
html_static_path = [str(HERE / "_static"), str(HERE / "_build" / "vendor")]
html_css_files = ["nadkit.css"]
html_js_files = ["wide.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches pages, which needs a server
html_context = {"default_mode": "light"}
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    # Elsewhere figures and tables need the width.
    "secondary_sidebar_items": {
        f"{pages}/*": ["page-toc"] for pages in ("explanation", "how-to", "reference")
    },
}
copybutton_selector = "div:not(.output) > div.highlight > pre"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def vendor() -> None:
    """Lay plotly's JavaScript beside the pages: it comes with plotly's wheel."""
    spec = find_spec("plotly")
    assert spec
    assert spec.origin
    folder = HERE / "_build" / "vendor"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(spec.origin).parent / "package_data" / "plotly.min.js", folder / "plotly.min.js")


def scripts(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Load plotly on the pages that draw a figure, and on no other: it has 5 MB."""
    del pagename, templatename, doctree
    if "nadkit-plot" in context.get("body", ""):
        app.add_js_file("plotly.min.js", loading_method="defer")
        app.add_js_file("figures.js", loading_method="defer")


def setup(app: Any) -> None:
    """Connect the above."""
    vendor()
    app.connect("html-page-context", scripts)
