"""Every command by its name."""

import logging
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from turnlog.adapters.cli import (
    copying,
    doctor,
    erasing,
    following,
    migrating,
    past,
    reading,
    searching,
    transfer,
    upkeep,
)
from turnlog.adapters.cli.guard import BAD, GOOD, forget_stdout, guarded, version
from turnlog.adapters.cli.output import print_line, say

COMMANDS: dict[str, Callable[..., Any]] = {
    "import": transfer.import_,
    "export": transfer.export,
    "copy": copying.copy,
    "migrate": migrating.migrate_,
    "sessions": reading.sessions,
    "show": reading.show,
    "history": reading.history,
    "search": searching.search,
    "replay": past.replay,
    "diff": past.diff,
    "fork": past.fork,
    "tail": following.tail,
    "project": following.project,
    "users": reading.users,
    "stats": reading.stats,
    "verify": upkeep.verify,
    "heads": upkeep.heads,
    "rebuild": upkeep.rebuild,
    "delete": erasing.delete,
    "erase": erasing.erase,
    "scrub": erasing.scrub,
    "doctor": doctor.doctor,
}


def _version(wanted: bool) -> None:
    if wanted:
        print_line(version())
        raise typer.Exit


def make_app() -> typer.Typer:
    """Return the command line."""
    app = typer.Typer(
        name="turnlog",
        help="A conversation store. Name it with --store URL after the command, or TURNLOG_STORE.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, command in COMMANDS.items():
        app.command(name)(guarded(command))
    return app


def _root(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    del show_version


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    _require_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # an ASCII terminal shows \\U0001f642 where it has no such character
            reconfigure(errors="backslashreplace")
    try:
        with _log_said():
            code = _exit_code_of(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
        return GOOD
    except OSError as error:
        say(f"error: {error}")
        forget_stdout()
        return BAD
    return code


def _exit_code_of(arguments: Sequence[str]) -> int:
    try:
        make_app()(list(arguments), prog_name="turnlog")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich and click end the process at one
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return GOOD


@contextmanager
def _log_said() -> Generator[None, None, None]:
    """Say what turnlog logs as everything else is said: in one line, without a traceback."""
    log, saying = logging.getLogger("turnlog"), _Saying(logging.WARNING)
    log.addHandler(saying)
    try:
        yield
    finally:
        log.removeHandler(saying)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        error = record.exc_info[1] if record.exc_info else None
        say(f"{record.levelname.lower()}: {record.getMessage()}" + (f": {error}" if error else ""))


def _require_streams() -> None:
    """Open what is closed (``>&-``): the next file that is opened, a database, would take its place.

    What is written to a standard output that was closed fails; what is said on such a standard error is lost.
    """
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, closefd=False))
