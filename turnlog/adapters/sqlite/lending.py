"""A ``with`` statement in whose ends no exception of a signal (Ctrl-C) is lost."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, cast
from weakref import ReferenceType, ref

from turnlog.adapters.sqlite.connections import Connection


def lend(steps: Generator[Connection, None, None]) -> AbstractContextManager[Connection]:
    """Run ``steps`` up to its ``yield`` now, and on from there at the end of the ``with`` that this is handed to.

    As ``contextlib.contextmanager``, but what ``steps`` holds is given back however that ``with`` is left, and at once.
    There, an exception that is raised as ``__exit__`` begins (or as ``__enter__`` ends) keeps ``steps`` suspended, with
    its locks, for as long as somebody keeps the exception: its traceback refers to the method, and so to ``steps``.
    """
    try:
        return cast("AbstractContextManager[Connection]", _Lent(next(steps), steps))
    except BaseException:
        steps.close()
        raise


class _Lent:
    """Both ends are C functions, found on the instance; the ``with`` statement keeps the second, and nobody else."""

    __slots__ = ("__enter__", "__exit__")

    def __init__(self, connection: Connection, steps: Generator[Connection, None, None]) -> None:
        self.__enter__: Callable[[], Any] = connection.__enter__  # SQLite's, which returns the connection
        self.__exit__ = _Exit(_go_on, ref(steps))
        self.__exit__.steps = steps


class _Exit(partial[None]):
    """Calls ``_go_on`` without handing it ``steps``: when this is dropped, ``steps`` is closed."""

    steps: Generator[Connection, None, None]


def _go_on(
    steps: "ReferenceType[Generator[Connection, None, None]]",
    kind: type[BaseException] | None,  # noqa: ARG001 - what a `with` statement hands over
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    running = steps()
    if running is None:
        return
    if error is None:
        next(running, None)
        return
    try:
        running.throw(error)
    except BaseException as raised:
        if raised is not error:
            raise
        error.__traceback__ = trace  # without this function, which would keep the error as the error keeps it
