"""How Sphinx makes the site of the documentation: `make site`.

The source is the repository: README.md is the first page, and all links are those that people
follow in the repository. Nothing is fetched, neither when the site is made nor when it is read.
"""

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "acll"
author = "the authors of acll"
release = version = version_of("acll")
html_title = "acll"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "config/README.md", "docs/**.md"]
exclude_patterns = [".*", "results", "src", "tests", "benchmarks", "workflow", "profiles", "site"]

myst_heading_anchors = 4  # as GitHub's

# Docstrings name code in single backticks.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_extra_path = ["index.html"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "default"
pygments_dark_style = "github-dark"

# What a person wants to do → the pages for it.
CONTENTS = {
    "Start": ["docs/first-run", "docs/own-images", "docs/data", "config/README"],
    "Use": [
        "docs/install",
        "docs/use",
        "docs/plugins",
        "docs/site/api",
        "docs/sharing",
        "docs/gpus",
        "docs/clusters",
    ],
    "Understand": ["docs/methods", "docs/search", "docs/metrics"],
    "Results": ["docs/results", "docs/comparison", "docs/costs"],
    "Change": ["docs/architecture", "CONTRIBUTING"],
}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Give the first page the contents of the site, which in the repository it does without."""
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            names = "\n".join(f"/{name}" for name in pages)
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def flatten_parameters(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Take the indent from what follows `name: …` in a docstring: in reST it means something."""
    within = False
    for number, line in enumerate(lines):
        within = bool(re.match(r"\w+(, \w+)*: ", line)) or (within and line.startswith("    "))
        if within:
            lines[number] = line.strip()


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", flatten_parameters)
