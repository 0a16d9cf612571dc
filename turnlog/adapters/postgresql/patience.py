"""Giving up a connection on which no answer will come, although it looks sound from here.

What lies between may have forgotten a connection without a word, or the server stands still: then an answer is waited
for in vain, and neither keepalives nor a timeout of the server's end it. So when a statement has taken some seconds,
the server is asked on another connection whether it is at work for this one. If it is, it is waited for, however long
it takes. If it is not, or says nothing either, the connection is broken like any other.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import errors

T = TypeVar("T")
PATIENCE_S = 5.0
"""A statement that takes longer is asked about; then again after twice the time, and so on."""
LONGEST_PATIENCE_S = 60.0
ANSWER_S = 5
"""How long the server may take to answer that."""
GRACE_S = 1.0
"""So long an answer that was just given may be on its way."""
REFUSALS = 3
"""So often in a row it may refuse to answer (too many connections, say) before it is taken for gone."""
_AT_WORK = "SELECT state NOT LIKE 'idle%%' FROM pg_stat_activity WHERE pid = %s"


class Silence(psycopg.OperationalError):
    """No answer will come."""


class PatientConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait in vain, once it has been told how to find out."""

    patience_s = PATIENCE_S
    hopeful: Callable[[], bool] | None = None
    """Asked, after ``patience_s`` without an answer, whether to go on waiting."""

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """Wait for whatever it is: every answer comes through here."""
        watched = gen if self.hopeful is None else _watched(gen, self.hopeful, self.patience_s)
        return super().wait(watched, *arguments, **options)


def _watched(gen: Generator[Any, Any, T], hopeful: Callable[[], bool], patience_s: float) -> Generator[Any, Any, T]:
    """Pass on what the driver waits for, and what came; ten times a second that is nothing."""
    due, hope = monotonic() + patience_s, True
    try:
        wanted = next(gen)
        while True:
            came = yield wanted
            if not came and monotonic() > due:
                if not hope:
                    raise Silence("no answer, and the server is not at work on one")
                hope = hopeful()
                patience_s = min(2 * patience_s, LONGEST_PATIENCE_S)
                due = monotonic() + (patience_s if hope else GRACE_S)
            wanted = gen.send(came)
    except StopIteration as done:
        value: T = done.value
        return value


class Inquiry:
    """Asks whether the server is at work for one connection.

    Args:
        connect: opens another connection to the same server, in ``ANSWER_S``.
        pid: which of the server's processes is asked about.
        given_up: called when it is not.
    """

    def __init__(self, connect: Callable[[], PatientConnection], pid: int, given_up: Callable[[], None]) -> None:
        self.pid = pid
        self._connect = connect
        self._given_up = given_up
        self._refusals = 0

    def __call__(self) -> bool:
        """Return whether it is, or at least refuses to tell; not again and again."""
        try:
            answer = self._ask()
            self._refusals = 0
        except (errors.ConnectionTimeout, Silence):
            answer = False
        except psycopg.OperationalError:
            self._refusals += 1
            answer = self._refusals < REFUSALS
        if not answer:
            self._given_up()
        return answer

    def _ask(self) -> bool:
        with closing(self._connect()) as connection:
            connection.hopeful, connection.patience_s = _never, ANSWER_S
            row = connection.execute(_AT_WORK, (self.pid,), prepare=False).fetchone()
        return row is not None and row[0] is not False  # who may not know is told NULL


def _never() -> bool:
    return False
