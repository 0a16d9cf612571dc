"""The command line, ``turnlog``: data on stdout, words on stderr; exit code 0 good, 1 the answer is bad, 2 usage.

app.py names every command; guard.py says how a command begins and ends; the rest is one file per theme. typer and rich
are imported nowhere else in turnlog.
"""

from turnlog.adapters.cli.app import main

__all__ = ["main"]
