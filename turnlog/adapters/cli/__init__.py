"""The command line, ``turnlog``: data on stdout, words on stderr; exit code 0 good, 1 the answer is bad, 2 usage.

app.py names every command; guard.py says how a command begins and ends; the rest is one file per theme. typer and rich
are imported nowhere else in turnlog.
"""

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        from turnlog.adapters.cli.app import run  # takes a while: here Ctrl-C ends it as quietly as a command

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


__all__ = ["main"]
