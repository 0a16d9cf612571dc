"""A program that is killed at every statement of a swap on MariaDB: ``python -m tests.projections.mariadb_crash``.

As crash.py, a child kills itself at a statement, of those that are sent once a generation is being put in its place, or
once a view is being created. After each death the views must be whole.
"""

import os
import signal
import sys
from functools import partial
from itertools import count
from typing import Any

import pymysql

from tests.projections.crash import answers, dies_of, opened, prepared, say
from tests.projections.log import Log, Words
from tests.projections.views_beside import rebuild_when_free
from turnlog.adapters.mariadb.swapping import Swaps
from turnlog.adapters.mariadb.views import MariaDBViews
from turnlog.projections import building

HARMLESS = (b"SELECT", b"SET", b"START", b"USE", b"SAVEPOINT", b"RELEASE")
"""How statements begin that change nothing which outlives a process."""


def main(url: str) -> int:
    """Kill swaps, then installations, at every statement; return how many deaths there were."""
    building.PAGE = 5
    log = prepared(url)
    before = answers(log)
    log.close()
    deaths = swaps(url, "words", before) + installations(url)
    log = opened(url)
    log.engine.rebuild()
    for status in log.engine.status():
        if differences := log.engine.check(status.name):
            say(str(differences))
    left = log.query(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE ?", f"{log.database.schema}\\_%"
    )
    left += log.query("SELECT name FROM turnlog_views WHERE name < '!'")
    if left:
        say(f"left behind: {left}")
    log.close()
    return deaths


def swaps(url: str, name: str, before: list[Any]) -> int:
    """Kill the swap of one view at every statement."""

    def rebuild() -> None:
        rebuild_when_free(partial(opened(url).engine.rebuild, name))

    deaths = 0
    for n in count(1):
        if not dies_of(rebuild, partial(kill_at, n, Swaps, "plan")):
            break
        deaths = n
        log = opened(url)
        log.query("DELETE FROM turnlog_trials")  # no event is to blame for these deaths
        found = answers(log)
        with log.views.write():
            pass
        if found != before or answers(log) != before:
            say(f"{name}, after the death at statement {deaths}: {answers(log)}")
        log.close()
    return deaths


def installations(url: str) -> int:
    """Kill the creation of an application's view, and of a built-in one, at every statement."""
    deaths = 0
    for view, tables in (("words", "words"), ("session_index", "turnlog_session_index")):
        for n in count(1):
            log = Log(url)
            log.query(f"DROP TABLE IF EXISTS {tables}")
            log.query("DELETE FROM turnlog_views WHERE name = ?", view)
            log.close()
            if not dies_of(lambda: added(url), partial(kill_at, n, MariaDBViews, "install")):
                break
            deaths += 1
            log = added(url)
            log.engine.catch_up()
            if differences := log.engine.check(view):
                say(f"{view}, after the death at statement {n}: {differences}")
            log.close()
    return deaths


def added(url: str) -> Log:
    """Open the log with every view; ``Words`` has no poison."""
    log = Log(url).with_views()
    log.engine.add(Words())
    return log


def kill_at(statement: int, owner: type[object], method: str) -> None:
    """Have this process killed at its ``statement``-th statement after a method was called.

    Some are not counted: a death before such a one leaves what a death before the next statement does.
    """
    sent, called = 0, False
    driver: Any = pymysql.connections.Connection
    query, watched = driver.query, getattr(owner, method)

    def counted(connection: Any, text: Any, *args: Any, **options: Any) -> Any:
        nonlocal sent
        if called and not as_bytes(text).startswith(HARMLESS):
            sent += 1
            if sent == statement:
                os.kill(os.getpid(), signal.SIGKILL)
        return query(connection, text, *args, **options)

    def noticed(*args: Any, **options: Any) -> Any:
        nonlocal called
        called = True
        return watched(*args, **options)

    driver.query = counted
    setattr(owner, method, noticed)


def as_bytes(statement: str | bytes) -> bytes:
    """Return what the driver sends."""
    return statement.encode() if isinstance(statement, str) else bytes(statement)


if __name__ == "__main__":
    say(str(main(sys.argv[1])))
