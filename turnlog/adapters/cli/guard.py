"""How every command begins and ends: the store it names, and an exit code instead of a traceback."""

import functools
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import metadata
from typing import Annotated, ParamSpec, TypeAlias

import typer

import turnlog
from turnlog.adapters.cli.output import say
from turnlog.adapters.cli.there import require_there
from turnlog.domain.errors import InvalidInput, TurnlogError

GOOD, BAD, INTERRUPTED = 0, 1, 130

P = ParamSpec("P")

StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--store", envvar="TURNLOG_STORE", metavar="URL", help="The store, as sqlite:///sessions.db."),
]
TenantOption: TypeAlias = Annotated[
    str, typer.Option("--tenant", envvar="TURNLOG_TENANT", metavar="NAME", help="Whose sessions.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print for programs: JSON.")]
SessionArgument: TypeAlias = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
DEFAULT_TENANT = "default"


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn every expected end of a command into its exit code, and an error into one line on stderr."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            forget_stdout()
            code = GOOD
        except KeyboardInterrupt:
            say("interrupted")
            code = INTERRUPTED
        except TurnlogError as error:
            say(f"error: {error}")
            code = BAD
        except OSError as error:
            say(f"error: {error}")
            _give_up_stdout()
            code = BAD
        else:
            return
        raise typer.Exit(code)

    return run


@contextmanager
def opened(url: str | None, tenant: str, *, create: bool = False) -> Generator[turnlog.ConversationStore, None, None]:
    """Open the store that was named; unless ``create``, it must be there.

    Raises:
        typer.BadParameter: none was named, or there is none of this name.
    """
    if not url:
        raise typer.BadParameter("name the store: --store URL, or TURNLOG_STORE in the environment")
    try:
        require_there(url, create=create)
        opening = turnlog.open(url, tenant=tenant)
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from error
    with opening as store:
        yield store


def _give_up_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        forget_stdout()


def forget_stdout() -> None:
    """Leave nothing that the interpreter would still try to write at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def version() -> str:
    """Return the version of turnlog that is installed."""
    try:
        return metadata.version("turnlog")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
