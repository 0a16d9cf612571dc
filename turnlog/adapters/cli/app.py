"""Every command by its name."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from turnlog.adapters.cli import doctor, erasing, following, past, reading, transfer, upkeep
from turnlog.adapters.cli.guard import guarded, version
from turnlog.adapters.cli.output import print_line

COMMANDS: dict[str, Callable[..., Any]] = {
    "import": transfer.import_,
    "export": transfer.export,
    "sessions": reading.sessions,
    "show": reading.show,
    "history": reading.history,
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
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # an ASCII terminal shows \\U0001f642 where it has no such character
            reconfigure(errors="backslashreplace")
    try:
        make_app()(list(arguments), prog_name="turnlog")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
