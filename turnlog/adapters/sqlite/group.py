"""Appends of several threads in one transaction of SQLite's, each in a savepoint."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from turnlog.adapters.grouping import Request, Take
from turnlog.adapters.reading import Inside, Reading
from turnlog.adapters.sqlite.database import Database
from turnlog.domain.errors import ConcurrencyConflict
from turnlog.domain.recorder import Again, Batch


class Log(Reading[sqlite3.Connection], Protocol):
    """What writes one append."""

    database: Database

    def append_alone(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Write it in a transaction of its own."""
        ...

    def write(self, connection: sqlite3.Connection, batches: Sequence[Batch]) -> list[int]:
        """Write batches in the transaction that is open."""
        ...


class _Outcome(NamedTuple):
    positions: list[int] | None
    error: Exception | None = None


def write_together(log: Log, take: Take) -> None:
    """Write appends in one transaction. Where that cannot be done but may be one's fault, each by itself.

    Raises:
        StoreError: the transaction could not be begun, or not be committed; nothing was written.
    """
    requests: list[Request] = []
    outcomes: list[_Outcome] = []
    try:
        with log.database.write() as connection:
            requests = take()
            for request in requests:
                outcomes.append(_outcome(log, connection, request))  # noqa: PERF401 - how many are done is asked below
    except Exception:
        if len(outcomes) == len(requests):
            raise
        for request in requests:
            request.write_by(log.append_alone)
        return
    for request, outcome in zip(requests, outcomes, strict=True):
        request.positions, request.error = outcome


def _outcome(log: Log, connection: sqlite3.Connection, request: Request) -> _Outcome:
    """Write an append, or undo what it wrote and keep what it raised; SQLite's own errors are everybody's."""
    connection.execute("SAVEPOINT turnlog_append")
    try:
        outcome = _Outcome(_written(log, connection, request))
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - it is raised where the append was called
        connection.execute("ROLLBACK TO turnlog_append")
        outcome = _Outcome(None, error)
    connection.execute("RELEASE turnlog_append")
    return outcome


def _written(log: Log, connection: sqlite3.Connection, request: Request) -> list[int]:
    if request.batches:
        try:
            return log.write(connection, request.batches)
        except sqlite3.IntegrityError:
            connection.execute("ROLLBACK TO turnlog_append")
    batches = request.again(Inside(log, connection))
    try:
        return log.write(connection, batches)
    except sqlite3.IntegrityError as error:
        words = "what was decided again does not fit the log"
        raise ConcurrencyConflict(f"{log.database.name}: {words}: {error}") from error
