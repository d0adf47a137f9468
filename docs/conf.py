"""Sphinx settings: MyST for the text, furo for the look, nothing fetched from elsewhere."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "FedWard"
author = "The FedWard authors"
copyright = author  # noqa: A001 - Sphinx's own name
release = installed_version("fedward")
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "reproductions/results"]  # tables that the pages include
html_theme = "furo"
html_title = f"FedWard {release}"
html_permalinks_icon = "#"
html_show_sphinx = False
