"""The command line: parse, one call into the pipeline, print, exit code.

`app` holds the options of every command and catches errors; each other module
adds its commands to it.
"""

from volprep.cli import data, export, help, loader, patchset, plan, preview, skeletons, view
from volprep.cli.app import app, main

__all__ = [
    "app",
    "data",
    "export",
    "help",
    "loader",
    "main",
    "patchset",
    "plan",
    "preview",
    "skeletons",
    "view",
]
