"""A program that is killed at every statement of a rebuild, for test_rebuild.py: ``python -m tests.projections.crash``.

It forks a child for each statement that a rebuild runs; the child kills itself there. After each death the views must
be whole, and at the end a rebuild must go through. What was wrong is printed.
"""

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.projections.log import STARTED, Log, Words, said, words
from turnlog.projections import building

SESSIONS = 6


def main(path: Path, step: int) -> int:
    """Kill a rebuild at every ``step``-th statement; return how many deaths there were."""
    building.PAGE = 5
    log = prepared(path)
    before = answers(log)
    log.close()
    deaths = 0
    while dies(lambda: rebuild(path), 1 + deaths * step):
        deaths += 1
        for trial in path.parent.glob("*.trial-*"):  # no event is to blame for these deaths
            trial.unlink()
        log = opened(path)
        if answers(log) != before:
            say(f"after the death at statement {deaths * step}: {answers(log)}")
        log.close()
    log = opened(path)
    for status in log.engine.status():
        if differences := log.engine.check(status.name):
            say(str(differences))
    log.close()
    left = sorted(file.name for file in path.parent.glob("*-rebuild-*") if not file.name.endswith(".claim"))
    if left:
        say(f"left behind: {left}")
    log = Log(path)
    tables = log.query("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'turnlog%index' ORDER BY 1")
    if tables != [("turnlog_message_index",), ("turnlog_session_index",)]:
        say(f"left behind: {tables}")
    log.close()
    return deaths


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


def prepared(path: Path | str) -> Log:
    """Return a log of a few sessions, one of them poisonous, one deleted, with level views."""
    log = opened(path)
    for n in range(SESSIONS):
        log.append(f"s-{n}", STARTED, said("one"), said("two" if n else "poison"), said("three"))
    log.delete("s-3")
    log.engine.catch_up()
    return log


def opened(path: Path | str) -> Log:
    """Open the log with every view."""
    log = Log(path).with_views()
    view = Words()
    view.poison = "poison"
    log.engine.add(view)
    return log


def rebuild(path: Path) -> None:
    """Rebuild every view."""
    opened(path).engine.rebuild()


def answers(log: Log) -> list[Any]:
    """Return everything that the views say."""
    sessions = log.query("SELECT * FROM turnlog_session_index ORDER BY session_id")
    messages = log.query("SELECT * FROM turnlog_message_index ORDER BY session_id, ordinal")
    return [sessions, messages, words(log), log.engine.status(), log.engine.parked("words")]


def dies(work: Callable[[], None], statement: int) -> bool:
    """Do the work in a child that is killed at a statement; return whether it came so far."""
    return dies_of(work, lambda: kill_at(statement))


def dies_of(work: Callable[[], object], prepare: Callable[[], None]) -> bool:
    """Do the work in a child that has prepared its end; return whether it came."""
    child = os.fork()
    if child == 0:
        prepare()
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        say("the rebuild failed")
    return False


def kill_at(statement: int) -> None:
    """Have this process killed when it begins its ``statement``-th statement, on whatever connection."""
    begun = 0
    connect = sqlite3.connect

    def count(_: str) -> None:
        nonlocal begun
        begun += 1
        if begun == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(count)
        return connection

    sqlite3.connect = counted  # type: ignore[assignment]


if __name__ == "__main__":
    say(str(main(Path(sys.argv[1]), int(sys.argv[2]))))
